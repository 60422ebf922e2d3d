"""Each verb says what is so, in words and as JSON, and ends with the documented exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from torch.utils.data import TensorDataset

import fgtrac
from fgtrac.tlog.note import format_vkey, parse_vkey
from lives import Life, live
from traces import Writing, make_trace, start_trace


def test_show_says_what_a_trace_holds(life: Life, run) -> None:
    said = run("show", life.path, "--json").json
    head = life.made.trace.head()
    assert (said["size"], said["indexed"], said["unsealed"]) == (head.size, head.size - 1, 0)
    assert said["entries"]["use"] == 4
    assert [d["name"] for d in said["datasets"]] == ["digits", "crops"]
    assert [c["kept"] for c in said["checkpoints"]] == [True, False]
    words = run("show", life.path)
    assert words.code == 0
    assert "the index covers all of them" in words.out


def test_show_prints_the_verifier_key_and_nothing_else(life: Life, run) -> None:
    done = run("show", life.path, "--vkey")
    assert done.out == format_vkey(life.made.verifier) + "\n"
    assert parse_vkey(done.out.strip()) == life.made.verifier


@pytest.mark.parametrize("name", ["digits:0", "key:0", "id"])
def test_a_sample_can_be_named_in_three_ways(life: Life, run, name: str) -> None:
    named = life.name(0) if name == "id" else name
    said = run("history", life.path, named, "--json").json
    assert (said["id"], said["name"], said["uses"]) == (life.made.ids[0].hex(), "digits:0", 2)


def test_a_history_in_words_has_a_line_for_each_event(life: Life, run) -> None:
    done = run("history", life.path, "digits:0")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == f"sample {life.made.ids[0].hex()} (digits:0)"
    assert sum(line.startswith("  entry") for line in lines) == 6  # the three samples made of it in one entry share one
    assert "its uses are in the model states kept at step 2" in done.out
    assert "used in step 2 (epoch 0, batch 1, loader 1; exact), loss 1" in done.out


def keys(life: Life, folder: Path) -> list[str]:
    """The log's public key in every form that a verifier may name it in."""
    public = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    (folder / "key.pem").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (folder / "key.hex").write_text(public.public_bytes_raw().hex() + "\n")
    vkey = format_vkey(life.made.verifier)
    (folder / "key.vkey").write_text(vkey)
    return [public.public_bytes_raw().hex(), vkey, *(str(folder / f"key.{form}") for form in ("pem", "hex", "vkey"))]


def test_a_trace_and_a_bundle_hold_under_the_key_in_every_form(life: Life, run, tmp_path: Path) -> None:
    bundle, whole = tmp_path / "bundle.json", make_trace(tmp_path / "whole").trace.path
    assert run("prove", life.path, "digits:0", "-o", bundle).code == 0
    for path in (whole, bundle):
        for key in keys(life, tmp_path):
            done = run("verify", path, "--key", key, "--json")
            assert (done.code, done.json["verdict"]) == (0, "holds"), (path, key, done)


def test_scores_whose_factors_are_not_in_the_trace_are_never_called_good(life: Life, run, tmp_path: Path) -> None:
    done = run("verify", life.path, "--key", keys(life, tmp_path)[0], "--json")
    assert (done.code, done.json["verdict"]) == (3, "cannot tell")
    (found,) = [f for f in done.json["findings"] if f["verdict"] != "holds"]
    assert found["check"] == "contributions"
    assert "names no model state" in found["words"]


def test_without_a_key_verify_cannot_tell_and_says_why(life: Life, run, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.json"
    run("prove", life.path, "digits:0", "-o", bundle)
    for path in (life.path, bundle):
        done = run("verify", path)
        assert done.code == 3
        assert "no key was named" in done.out
        assert done.out.endswith("cannot tell\n")


def test_a_bundle_is_checked_where_its_trace_is_not(life: Life, run, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.json"
    said = run("prove", life.path, "digits:99", "-o", bundle, "--json").json
    assert said["claim"] == "never registered"
    assert said["bytes"] == bundle.stat().st_size
    life.path.rename(tmp_path / "gone")
    done = run("verify", bundle, "--key", life.made.signer.public_key.hex())
    assert done.code == 0
    assert "was never registered, as committed by" in done.out


def test_an_absence_under_keyed_ids_is_decided_with_the_id_key(run, tmp_path: Path) -> None:
    life = live(tmp_path / "keyed", scheme="keyed")
    key, bundle = life.made.signer.public_key.hex(), tmp_path / "bundle.json"
    run("prove", life.path, life.name(0), "-o", bundle)
    assert run("verify", bundle, "--key", key).code == 0
    assert run("prove", life.path, "digits:99", "-o", tmp_path / "absent").code == 2  # nobody here has the id key


def test_a_bundle_carries_its_entries_and_is_about_whom_the_verifier_asks(life: Life, run, tmp_path: Path) -> None:
    key, bundle = life.made.signer.public_key.hex(), tmp_path / "bundle.json"
    said = run("prove", life.path, "digits:0", "--entries", "--checkpoint", "2", "-o", bundle, "--json").json
    assert "the entries of its uses were written" in said["words"]
    assert "The model state of step 2 was saved after 2 of its uses." in said["words"]
    done = run("verify", bundle, "--key", key, "--about", "digits:0")
    assert done.code == 0
    for check in ("evidence", "children", "about"):
        assert f"\n {check} " in done.out
    assert run("verify", bundle, "--key", key, "--about", "digits:1").code == 1
    assert run("verify", bundle, "--key", key, "--about", "digits:key:0").code == 0


def test_seal_takes_the_journal_and_then_has_nothing_to_do(run, tmp_path: Path, monkeypatch) -> None:
    made = make_trace(tmp_path / "trace", sealed=False)
    mine = tmp_path / "trace" / "key.pem"
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    mine.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    mine.chmod(0o600)
    monkeypatch.setenv("FGTRAC_KEY", str(mine))
    before = run("verify", made.trace.path)
    assert before.code == 3
    said = run("seal", made.trace.path, "--json").json
    assert (said["full"], said["new_entries"]) == (True, said["size"])
    assert run("seal", made.trace.path, "--json").json["new_entries"] == 0
    assert run("verify", made.trace.path).code == 0  # with the user's own key
    assert run("history", made.trace.path, "digits:0").code == 0


def test_a_tampered_trace_is_refuted_and_the_file_named(life: Life, run) -> None:
    name = next(n for n in life.made.trace.names() if n.startswith("tile/entries"))
    data = bytearray((life.path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (life.path / name).write_bytes(bytes(data))
    done = run("verify", life.path, "--key", life.made.signer.public_key.hex())
    assert done.code == 1
    assert name in done.out
    assert done.out.endswith("refuted\n")


def test_without_a_terminal_nothing_is_colored_and_no_progress_is_shown(life: Life) -> None:
    script = "import sys; from fgtrac.cli.main import main; sys.argv = ['fgtrac', *sys.argv[1:]]; main()"
    environment = {**os.environ, "FGTRAC_KEY": "/nonexistent/key.pem"}
    command = [sys.executable, "-c", script, "verify", str(life.path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (3, "")
    assert "\x1b" not in done.stdout


def test_help_lists_the_verbs_and_the_exit_codes(run) -> None:
    done = run("--help")
    assert done.code == 0
    for word in ("demo", "show", "history", "prove", "verify", "seal", "3 cannot tell"):
        assert word in done.out


@pytest.mark.parametrize("verb", ["history", "prove", "export proof", "verify", "score"])
def test_help_shows_the_forms_of_names_as_they_are_written(run, verb: str) -> None:
    said = run(*verb.split(), "--help").out
    assert "NAME:key:JSON" in said
    assert "NAME:ROW" in said


def test_help_keeps_what_stands_in_brackets(run) -> None:
    assert "[last]" in run("prove", "--help").out
    assert "class:K[:ROLE]" in run("score", "--help").out


def test_a_number_that_is_a_key_and_no_row_is_said_to_be_one(run, tmp_path: Path) -> None:
    """Of a data set that was registered with numbers as its keys."""
    path = photos(tmp_path, key=[100 + row for row in range(10)])
    for name, remark in (("photos:107", True), ("photos:7", True), ("photos:key:7", False)):
        done = run("prove", path, name, "-o", tmp_path / "b", "--force")
        assert done.code == 0
        assert (f"note: the keys of 'photos' were given: {name} is the sample with key" in done.out) is remark
    assert "not its row" in run("history", path, "photos:107").out
    assert "not its row" in run("history", path, "photos:107", "--json").json["remark"]
    assert "remark" not in run("prove", path, "photos:key:107", "-o", tmp_path / "b", "--force", "--json").json


def test_a_row_of_samples_that_are_named_by_text_is_no_name(run, tmp_path: Path) -> None:
    path = photos(tmp_path, key=[f"{row}.png" for row in range(10)])
    for arguments in (["prove", path, "photos:7", "-o", tmp_path / "b"], ["history", path, "photos:7"]):
        done = run(*arguments)
        assert (done.code, "photos:7 names no row" in done.err) == (2, True)
    assert not (tmp_path / "b").exists()


def photos(folder: Path, key: list[int] | list[str]) -> Path:
    """A trace of ten public samples, none of them used."""
    with fgtrac.start_run(folder / "run", ids="public", key=folder / "key.pem") as recording:
        recording.register(TensorDataset(torch.zeros(10, 1)), name="photos", key=key)
    return recording.path


def test_a_vault_without_an_id_key_is_not_needed_for_public_ids(run, tmp_path: Path) -> None:
    path, bundle = photos(tmp_path, key=list(range(10))), tmp_path / "bundle.json"
    assert run("prove", path, "photos:99", "-o", bundle).code == 0
    ask = ("verify", bundle, "--key", tmp_path / "key.pem", "--json")
    done = run(*ask, "--id-key", tmp_path / "run.vault")
    assert (done.code, run(*ask).code) == (0, 0)
    assert [n for n in done.json["notes"] if n.startswith("--id-key was not used: ") and "holds no id key" in n]


def test_show_says_that_a_run_is_complete_where_nothing_was_trained_after_its_end(run, tmp_path: Path) -> None:
    """As `fgtrac verify` and `check` do: of a run that was resumed and killed the end is no end."""
    made, writing = start_trace(tmp_path / "a")
    writing.end()
    made.seal()
    assert "(complete)" in run("show", made.trace.path).out
    again = Writing(made, bytes([9]) * 16)
    again.use([0])
    again.recorder.close()
    assert "(complete as far as it is sealed)" in run("show", made.trace.path).out
    made.seal()
    assert "(no end entry after its last training: unfinished, or cut off)" in run("show", made.trace.path).out
    said = run("show", made.trace.path, "--json").json
    assert (said["ended"], said["entries"]["end"]) == (False, 1)


def test_json_is_one_object_on_one_line(life: Life, run) -> None:
    for verb in (["show"], ["history", "digits:0"], ["verify"]):
        out = run(verb[0], life.path, *verb[1:], "--json").out
        assert out.count("\n") == 1
        assert isinstance(json.loads(out), dict)
