"""The digests that mine.js computes in a browser are those of the log: of files, and of rows of .npy files."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fgtrac.web
from fgtrac.api.contents import array_source
from fgtrac.capture.contents import row_digests

SCRIPT = Path(fgtrac.web.__file__).parent / "static" / "mine.js"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="there is no node to run the page's script")
SHAPES = [(), (4,), (3, 5), (2, 3, 4), (300,), (70_000,)]
DTYPES = ["<f4", ">f4", "<f8", "|u1", "|i1", "<i2", ">i8", "<u4", "|b1", "<c8", ">c16", "<f2"]


def answers(folder: Path, asked: list[tuple[Path, list[str], int]]) -> list[dict[str, Any]]:
    """What the script says of files, as the page would have it."""
    script = folder / "mine.cjs"  # node takes a .js file of the package for what its package.json says, if any
    shutil.copy(SCRIPT, script)
    given = json.dumps([[str(path), sources, row] for path, sources, row in asked])
    runner = Path(__file__).with_name("mine_in_node.cjs")
    done = subprocess.run(
        [str(NODE), str(runner), str(script)], input=given, capture_output=True, text=True, check=True
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_a_file_of_any_length_has_its_sha256(tmp_path: Path) -> None:
    asked = []
    for size in (0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 128, 1000, 1 << 20):
        path = tmp_path / f"{size}.bin"
        path.write_bytes(np.random.default_rng(size).bytes(size))
        asked.append((path, ["file"], 0))
    for (path, _, _), found in zip(asked, answers(tmp_path, asked), strict=True):
        true = hashlib.sha256(path.read_bytes()).hexdigest()
        assert (found["sha256"], found["pieces"]) == (true, true)


def test_a_row_of_an_array_has_the_digest_of_the_log(tmp_path: Path) -> None:
    asked, true = [], []
    for shape in SHAPES:
        for number, dtype in enumerate(DTYPES):
            row = (np.arange(np.prod(shape, dtype=int)) % 120).reshape(shape).astype(dtype)
            source, digest = array_source(row)
            path = tmp_path / f"{'x'.join(map(str, shape))}-{number}.npy"
            np.save(path, row)
            asked.append((path, ["file", source], 0))
            true.append((1, source, digest.hex()))
    found = answers(tmp_path, asked)
    assert [(one["rows"], one["source"], one["row"]) for one in found] == true


def test_of_several_rows_the_chosen_one_is_digested(tmp_path: Path) -> None:
    rows = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    np.save(tmp_path / "rows.npy", rows)
    found = answers(tmp_path, [(tmp_path / "rows.npy", ["tensor float32 2x3"], row) for row in range(4)])
    assert [one["row"] for one in found] == [digest.tobytes().hex() for digest in row_digests(rows)]
    assert {one["rows"] for one in found} == {4}


def test_what_cannot_be_read_is_said_and_what_does_not_fit_is_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "columns.npy", np.asfortranarray(np.zeros((3, 4))))
    np.save(tmp_path / "texts.npy", np.array(["a", "b"]))
    np.save(tmp_path / "other.npy", np.zeros(7))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "other.npy").read_bytes()[:-8])
    (tmp_path / "no.npy").write_bytes(b"\x93NUMPY\x02\x00\xff\xff\xff\xff")
    names = ["columns", "texts", "other", "cut", "no"]
    asked = [(tmp_path / f"{name}.npy", ["tensor float64 7", "tensor float64 3x4"], 0) for name in names]
    columns, texts, other, cut, no = answers(tmp_path, asked)
    assert "column by column" in columns["error"]
    assert "plain numbers" in texts["error"]
    assert other["row"] == array_source(np.zeros(7))[1].hex()
    assert "ends inside row 0" in cut["error"]
    assert "no header" in no["error"]
    (plain,) = answers(tmp_path, [(tmp_path / "other.npy", ["file"], 0)])
    assert "row" not in plain
