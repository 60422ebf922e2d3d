"""`fgtrac export parquet|csv|prov|in-toto` as people type it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fgtrac.cli.main import main
from lives import Life
from model_traces import trace_with_models, write_key


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGTRAC_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_tables_go_into_a_folder(life: Life, run, tmp_path: Path, form: str) -> None:
    done = run("export", form, life.path, "-o", tmp_path / "out", "--table", "uses", "--table", "samples", "--json")
    assert (done.code, done.err) == (0, "")
    said = done.json["tables"]
    assert [(t["table"], t["rows"]) for t in said] == [("samples", 15), ("uses", 12)]
    assert all(Path(t["file"]).stat().st_size == t["size"] for t in said)
    again = run("export", form, life.path, "-o", tmp_path / "out", "--table", "uses")
    assert again.code == 2
    assert again.err.count("\n") == 1
    assert "--force" in again.err
    left = run("export", form, life.path, "-o", tmp_path / "out", "--table", "uses", "--force")
    assert left.code == 2
    assert f"has samples.{form} of another export" in left.err
    (tmp_path / "out" / f"samples.{form}").unlink()
    words = run("export", form, life.path, "-o", tmp_path / "out", "--table", "uses", "--force", "--memory", "1M")
    assert words.out == f"{tmp_path}/out/uses.{form}: 12 rows, {said[1]['size']:,} bytes\n"


def test_prov_says_what_it_left_out(life: Life, run, tmp_path: Path) -> None:
    done = run("export", "prov", life.path, "-o", tmp_path / "x.json", "--samples", "4")
    assert done.out.splitlines() == [
        f"{tmp_path}/x.json: 9 uses; 15 samples registered",
        "11 samples have no record of their own in it; --samples all writes them",
    ]
    whole = run("export", "prov", life.path, "-o", tmp_path / "x.json", "--samples", "all", "--force", "--json").json
    assert (whole["samples"], whole["left_out"], whole["totals"]["uses"]) == (15, 0, 9)
    wrong = run("export", "prov", life.path, "-o", tmp_path / "y.json", "--samples", "-1")
    assert (wrong.code, wrong.err) == (2, "fgtrac: --samples '-1' is neither a number nor all or none\n")


def test_in_toto_takes_the_key_s_file(run, tmp_path: Path) -> None:
    made, key = trace_with_models(tmp_path), write_key(tmp_path / "key.pem")
    without = run("export", "in-toto", made.trace.path, "-o", tmp_path / "x.json")
    assert without.code == 2
    assert without.err.startswith(f"fgtrac: there is no key at {tmp_path}/no-key.pem")
    done = run("export", "in-toto", made.trace.path, "-o", tmp_path / "x.json", "--key", key)
    assert done.out.startswith(
        f"{tmp_path}/x.json: a statement about 2 model files, as of {made.trace.head().size} entries"
    )
    said = run("export", "in-toto", made.trace.path, "-o", tmp_path / "x.json", "--key", key, "--force", "--json").json
    assert said["key_id"] == json.loads((tmp_path / "x.json").read_bytes())["signatures"][0]["keyid"]


@pytest.mark.parametrize(("form", "missing"), [("parquet", "pyarrow"), ("prov", "prov")])
def test_without_its_library_a_form_says_what_to_install(life: Life, tmp_path: Path, form: str, missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from {main.__module__} import main; main()"
    command = [sys.executable, "-c", code, "export", form, str(life.path), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    extra = "query" if missing == "pyarrow" else "prov"
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"pip install 'fgtrac[{extra}]'" in done.stderr
    assert not (tmp_path / "out").exists()
