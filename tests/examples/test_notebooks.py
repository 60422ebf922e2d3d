"""The notebooks run from their sources, and store what comes out; nothing of a machine stands in them."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fgtrac.demo.graph.fetch import cache_folder
from icon_folders import FETCHED

NOTEBOOKS = Path(__file__).parents[2] / "examples" / "notebooks"
Cell = dict[str, Any]


class Words(HTMLParser):
    """The text of an output, without its rules and drawings."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words, self._hidden = "", 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._hidden += tag in ("style", "svg")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "svg")

    def handle_data(self, data: str) -> None:
        self.words += "" if self._hidden else data + " "


def cells(path: Path) -> list[Cell]:
    found: list[Cell] = json.loads(path.read_bytes())["cells"]
    return found


def said(cell: Cell) -> str:
    """What a cell's outputs say; the last digits of a sum are the processor's, and are left out."""
    texts = []
    for output in cell["outputs"]:
        assert output["output_type"] != "error", output
        data = output.get("data", {})
        texts += output.get("text", []) + data.get("text/plain", []) + [Words("".join(data.get("text/html", []))).words]
    return re.sub(r"-?\d+\.\d+(e[+-]\d+)?", "#", " ".join(texts))


@pytest.fixture(scope="module", params=["cnn", "graph"])
def fresh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A notebook that was run just now, with the icons that `make test` has fetched."""
    folder = tmp_path_factory.mktemp("notebooks")
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder), "FGTRAC_KEY": str(folder / "key.pem")}
    if request.param == "graph":
        if not FETCHED.is_dir():
            pytest.skip(f"{FETCHED} holds no icons; make .venv/icons-ready fetches them, with npm")
        icons = cache_folder(environment)
        icons.parent.mkdir(parents=True)
        icons.symlink_to(FETCHED)
    command = [sys.executable, str(NOTEBOOKS / "build.py"), request.param, "-o", str(folder)]
    subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return folder / f"{request.param}.ipynb"


@pytest.mark.slow
def test_no_cell_fails_and_the_stored_outputs_are_those_of_this_run(fresh: Path) -> None:
    stored, now = cells(NOTEBOOKS / fresh.name), cells(fresh)
    assert [cell["source"] for cell in stored] == [cell["source"] for cell in now]  # else: make notebooks
    compared = 0
    for before, after in zip(stored, now, strict=True):
        if after["cell_type"] == "code":
            assert bool(before["outputs"]) == bool(after["outputs"])
            if "varies" not in after["metadata"]["tags"]:
                assert said(before) == said(after)
                compared += bool(after["outputs"])
            said(before), said(after)
    assert compared >= 6


@pytest.mark.parametrize("name", ["cnn", "graph"])
def test_nothing_of_a_machine_stands_in_a_stored_notebook(name: str) -> None:
    text = (NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8")
    strange = ["/tmp/", "/home/", "/root/", "/usr/", "site-packages", " at 0x", str(NOTEBOOKS.parents[1]), sys.prefix]
    assert not [words for words in [*strange, platform.node()] if words in text]
    said_metadata = json.loads(text)["metadata"]
    assert said_metadata == {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    assert all("execution" not in cell["metadata"] for cell in cells(NOTEBOOKS / f"{name}.ipynb"))


@pytest.mark.parametrize("name", ["cnn", "graph"])
def test_a_stored_notebook_is_valid_and_short(name: str) -> None:
    import nbformat

    path = NOTEBOOKS / f"{name}.ipynb"
    nbformat.validate(nbformat.read(path, as_version=4))
    assert path.stat().st_size < 300_000
