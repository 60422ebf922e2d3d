"""The icons of the graph demo: what is read, what is fetched, what is refused with words."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from fgtrac.cli.main import main
from fgtrac.demo import cnn
from fgtrac.demo.graph.fetch import FetchError, cache_folder, fetch_icons
from fgtrac.demo.graph.icons import LIST, PNG, VERSION, load_icons
from fgtrac.demo.graph.story import run_demo
from icon_folders import fetched, made_up


def icons(**counts: int) -> dict[str, dict[str, Any]]:
    """That many icons of each category, with a text, a number and a null among their tags."""
    return {
        f"{category.lower()}-{n}": {"category": category, "tags": ["Shared ", 7, None, f"own {n}"]}
        for category, count in counts.items()
        for n in range(count)
    }


def test_categories_of_fewer_than_forty_icons_are_left_out(tmp_path: Path) -> None:
    read = load_icons(made_up(tmp_path, icons(Zoo=40, Air=41, Few=39)))
    assert read.categories == ("Air", "Zoo")
    assert read.all_categories == ("Air", "Few", "Zoo")
    assert read.names == tuple(sorted(read.names))
    assert [read.categories[label] for label in read.labels] == ["Air"] * 41 + ["Zoo"] * 40


def test_tags_are_texts_sorted_and_each_once(tmp_path: Path) -> None:
    read = load_icons(made_up(tmp_path, icons(Zoo=40)))
    assert read.tags[read.names.index("zoo-3")] == ("7", "own 3", "shared")
    assert read.source(0).startswith(b"7\nown 0\nshared\n\n\x89PNG")


def test_another_version_is_refused_with_both(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"'3\.47\.0', and the demo needs {VERSION}"):
        load_icons(made_up(tmp_path, icons(Zoo=40), version="3.47.0"))


def test_a_missing_package_is_named_with_the_command_that_fetches_it(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=rf"npm install --prefix DIR {LIST}@{VERSION} {PNG}@{VERSION}.*--data-dir"
    ):
        load_icons(tmp_path)


def test_a_missing_drawing_is_named(tmp_path: Path) -> None:
    folder = made_up(tmp_path, icons(Zoo=40))
    (folder / "node_modules" / PNG / "icons/outline/zoo-7.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no zoo-7\.png"):
        load_icons(folder)


@pytest.mark.parametrize(
    "said", ["[1]", '{"a": 1}', '{"a": {"tags": []}}', '{"a": {"category": "Zoo", "tags": null}}', "{}", "7", "{"]
)
def test_what_is_no_list_of_icons_is_refused(tmp_path: Path, said: str) -> None:
    folder = made_up(tmp_path, icons(Zoo=40))
    (folder / "node_modules" / LIST / "icons.json").write_text(said)
    with pytest.raises(ValueError, match=r"icons\.json"):
        load_icons(folder)


def test_the_real_list_has_thirty_categories_and_4947_icons() -> None:
    read = load_icons(fetched())
    assert (len(read), len(read.categories), len(read.all_categories)) == (4947, 30, 41)
    assert len(load_icons(fetched(), small=True)) == 274


def npm(folder: Path, script: str) -> dict[str, str]:
    """An environment whose npm is that script."""
    program = folder / "npm"
    program.write_text(f"#!{sys.executable}\n{script}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {"PATH": str(folder), "npm_config_registry": "somewhere"}


def test_npm_is_asked_for_both_packages_with_the_users_own_settings(tmp_path: Path) -> None:
    kept = made_up(tmp_path / "kept", icons(Zoo=40))
    script = (
        "import json, os, shutil, sys\n"
        "said = {'arguments': sys.argv[1:], 'registry': os.environ['npm_config_registry']}\n"
        f"shutil.copytree({str(kept)!r}, sys.argv[3])\n"
        "open(os.path.join(sys.argv[3], 'said'), 'w').write(json.dumps(said))\n"
    )
    folder = fetch_icons(tmp_path / "cache", npm(tmp_path, script))
    said = json.loads((folder / "said").read_text())
    assert said["registry"] == "somewhere"
    assert said["arguments"][:2] == ["install", "--prefix"]
    assert Path(said["arguments"][2]).parent.parent == folder.parent
    assert list(folder.parent.glob("cache*")) == [folder], "nothing is left beside it"
    assert said["arguments"][-2:] == [f"{LIST}@{VERSION}", f"{PNG}@{VERSION}"]
    assert "--ignore-scripts" in said["arguments"]
    assert fetch_icons(folder, {}) == folder, "what is there is not fetched again"


def test_a_half_fetched_cache_is_fetched_again(tmp_path: Path) -> None:
    kept, cache = made_up(tmp_path / "kept", icons(Zoo=40)), made_up(tmp_path / "cache", icons(Zoo=40))
    (cache / "node_modules" / PNG / "icons/outline/zoo-7.png").unlink()
    environment = npm(tmp_path, f"import shutil, sys\nshutil.copytree({str(kept)!r}, sys.argv[3])\n")
    assert len(load_icons(fetch_icons(cache, environment))) == 40


def test_a_fetch_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    kept = made_up(tmp_path / "kept", icons(Zoo=40))
    script = f"import shutil, sys\nshutil.copytree({str(kept)!r}, sys.argv[3])\nsys.exit('cut off')"
    with pytest.raises(FetchError, match="cut off"):
        fetch_icons(tmp_path / "cache", npm(tmp_path, script))
    assert not list(tmp_path.glob("cache*"))


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    file = tmp_path / "icons"
    file.write_text("")
    with pytest.raises(ValueError, match=f"{file} is no folder"):
        load_icons(file)


def test_a_damaged_drawing_is_named_before_anything_is_written(tmp_path: Path) -> None:
    folder = made_up(tmp_path / "icons", icons(Zoo=40))
    drawing = folder / "node_modules" / PNG / "icons/outline/zoo-7.png"
    whole = drawing.read_bytes()
    for damaged in (b"junk", whole[: len(whole) // 2]):
        drawing.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"zoo-7\.png is no drawing"):
            run_demo(out=tmp_path / "out", data_dir=folder, key=tmp_path / "key.pem")
    assert [p.name for p in tmp_path.iterdir()] == ["icons"]


@pytest.mark.parametrize("demo", [run_demo, cnn.run_demo])
@pytest.mark.parametrize("there", ["h1.v1.html", "h1.v1.trace", "h1.v1.vault"])
def test_no_file_beside_the_trace_is_written_over(tmp_path: Path, demo: Any, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(FileExistsError, match=rf"{there} exists already; choose another --out"):
        demo(out=tmp_path / "h1.v1", data_dir=tmp_path / "none")
    assert (tmp_path / there).read_text() == "mine"


def test_without_npm_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"npm, which is not on PATH; install Node.js, or fetch .* --data-dir"):
        fetch_icons(tmp_path / "cache", {"PATH": str(tmp_path)})


def test_what_npm_says_is_repeated_where_it_fails(tmp_path: Path) -> None:
    environment = npm(tmp_path, "import sys\nsys.exit('no way to the registry')")
    with pytest.raises(FetchError, match=r"no way to the registry.*--data-dir"):
        fetch_icons(tmp_path / "cache", environment)


def test_a_registry_that_does_not_answer_is_exit_code_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in npm(tmp_path, "import sys\nsys.exit('no answer')").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.argv", ["fgtrac", "demo", "graph"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 4
    assert capsys.readouterr().err.startswith("fgtrac: npm could not fetch the icons (no answer)")


def test_the_cache_is_the_users(tmp_path: Path) -> None:
    assert cache_folder({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "fgtrac" / f"icons-{VERSION}"
