"""Contents that lie in files are digested by workers as they are in one process: digests, errors, what it keeps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from datasets.arrow_writer import ArrowWriter
from torch.utils.data import TensorDataset

import fgtrac
from fgtrac.capture import content_units
from fgtrac.capture.content_units import digests_by
from fgtrac.capture.contents import UndigestedError, source_digests
from fgtrac.engine.alone import Alone
from fgtrac.engine.opening import open_engine
from fgtrac.engine.units import Engine
from fgtrac.errors import CaptureError


class Folder:
    """Files as image folders list them."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.samples = [(str(folder / f"{row}.png"), row % 2) for row in range(rows)]
        for row, (path, _) in enumerate(self.samples):
            Path(path).write_bytes(b"picture %d" % row)

    def __len__(self) -> int:
        return len(self.samples)


class Labelled:
    """Rows in torchvision's style."""

    def __init__(self, data: Any) -> None:
        self.data, self.targets = data, list(range(len(data)))

    def __len__(self) -> int:
        return len(self.data)


class Counting(Alone):
    """One process, which counts the units that it is given."""

    def __init__(self) -> None:
        self.units = 0

    def results(self, work: Any, units: Any, **said: Any) -> Any:
        self.units += len(units)
        return super().results(work, units, **said)


@pytest.fixture(scope="module")
def pool() -> Iterator[Engine]:
    with open_engine("local:2") as engine:
        yield engine


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_units, "FILES_AT_ONCE", 4)
    monkeypatch.setattr(content_units, "PART_BYTES", 256)


def mapped(folder: Path) -> Any:
    np.save(folder / "rows.npy", np.arange(60, dtype="<f4").reshape(20, 3) / 7)
    return np.load(folder / "rows.npy", mmap_mode="r")


def arrow(folder: Path, **more: Any) -> Any:
    data = {"n": list(range(30)), "t": [f"text {n}" for n in range(30)], **more}
    datasets.Dataset.from_dict(data).save_to_disk(folder / "arrow", num_shards=3)
    return datasets.load_from_disk(folder / "arrow")


def pictures(folder: Path) -> Any:
    """A Dataset whose cells are files, in it and beside it."""
    (folder / "a.png").write_bytes(b"beside")
    cells = [{"bytes": b"inside %d" % n, "path": None} for n in range(5)] + [
        {"bytes": None, "path": str(folder / "a.png")}
    ]
    features = datasets.Features({"image": datasets.Image(decode=False)})
    with ArrowWriter(features=features, path=str(folder / "pictures.arrow")) as writer:
        for cell in cells:
            writer.write({"image": cell})
        writer.finalize()
    return datasets.Dataset.from_file(str(folder / "pictures.arrow"))


SPREAD: dict[str, Callable[[Path], Any]] = {
    "an image folder": lambda folder: Folder(folder, 10),
    "a mapped array": mapped,
    "a part of a mapped array": lambda folder: mapped(folder)[3:17],
    "a mapped array with labels": lambda folder: Labelled(mapped(folder)),
    "Arrow files": arrow,
    "files in Arrow files": pictures,
}
KEPT: dict[str, Callable[[Path], Any]] = {
    "an array in memory": lambda folder: np.array(mapped(folder)),
    "every second row of a mapped array": lambda folder: mapped(folder)[::2],
    "a mapped array that may be written to": lambda folder: np.load(_rows(folder), mmap_mode="c"),
    "tensors": lambda folder: TensorDataset(torch.arange(6)),
    "Arrow in memory": lambda folder: datasets.Dataset.from_dict({"n": [1, 2, 3]}),
    "some rows of Arrow files": lambda folder: arrow(folder).select(range(3, 9)),
    "renamed columns of Arrow files": lambda folder: arrow(folder).rename_column("n", "m"),
}


def _rows(folder: Path) -> Path:
    mapped(folder)
    return folder / "rows.npy"


@pytest.mark.parametrize("make", SPREAD)
def test_workers_digest_what_one_process_does(tmp_path: Path, pool: Engine, make: str) -> None:
    data, counting = SPREAD[make](tmp_path), Counting()
    wanted = source_digests(data, len(data), None)
    assert wanted[1] is not None
    for engine in (pool, counting):
        said, digests = digests_by(engine, data, len(data), None)
        assert said == wanted[0]
        assert np.array_equal(digests, wanted[1])
    assert counting.units


@pytest.mark.parametrize("make", KEPT)
def test_what_no_worker_could_open_is_read_here(tmp_path: Path, make: str) -> None:
    data, counting = KEPT[make](tmp_path), Counting()
    said, digests = digests_by(counting, data, len(data), None)
    wanted = source_digests(data, len(data), None)
    assert said == wanted[0]
    assert np.array_equal(digests, wanted[1])
    assert not counting.units


def test_a_file_that_is_replaced_under_its_name_is_not_taken_for_the_mapped_one(tmp_path: Path) -> None:
    data, counting = mapped(tmp_path), Counting()
    np.save(tmp_path / "other.npy", np.zeros((20, 3), "<f4"))
    os.replace(tmp_path / "other.npy", tmp_path / "rows.npy")
    _, digests = digests_by(counting, data, len(data), None)
    assert np.array_equal(digests, source_digests(np.array(data), len(data), None)[1])
    assert not counting.units


def test_a_mapped_file_that_changes_before_its_unit_is_refused(tmp_path: Path) -> None:
    parts = content_units._array_parts(mapped(tmp_path))
    assert parts
    with (tmp_path / "rows.npy").open("ab") as file:
        file.write(b"more")
    digests, _, error = content_units.digest_array(parts[0])
    assert digests == b""
    assert "rows.npy was changed while it was read: it had 368 bytes at first, and has 372" in str(error)
    (tmp_path / "rows.npy").unlink()
    assert "rows.npy cannot be read" in str(content_units.digest_array(parts[0])[2])


def test_of_several_files_that_cannot_be_read_the_first_is_named_as_in_one_process(
    tmp_path: Path, pool: Engine
) -> None:
    data = Folder(tmp_path, 12)
    for row in (11, 6):
        (tmp_path / f"{row}.png").unlink()
    with pytest.raises(CaptureError) as alone:
        source_digests(data, len(data), None)
    with pytest.raises(CaptureError) as spread:
        digests_by(pool, data, len(data), None)
    assert str(spread.value) == str(alone.value)
    assert "6.png cannot be read" in str(alone.value)


def test_a_cell_whose_file_is_nowhere_is_said_to_have_no_canonical_bytes(tmp_path: Path, pool: Engine) -> None:
    data = pictures(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(UndigestedError, match="a file that is neither in the table nor at"):
        digests_by(pool, data, len(data), None)


def registered(folder: Path, data: Any, **said: Any) -> list[str]:
    """The contents that a run registers, by sample id."""
    pytest.importorskip("duckdb")
    start = {"engine": said.pop("of_run")} if "of_run" in said else {}
    with fgtrac.start_run(folder / "run", ids="public", key=folder / "key.pem", flush_interval_s=0, **start) as run:
        run.register(data, role="train", name="d", **said)
    trace = fgtrac.open(folder / "run.trace", key=str(folder / "key.pem"))
    rows = trace.sql("SELECT id, content FROM samples ORDER BY sample").rows
    return [f"{row['id']} {row['content']}" for row in rows]


def test_a_run_registers_the_same_samples_with_any_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGTRAC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FGTRAC_ENGINE", "of another kind")  # a run gives nothing to workers behind its user's back
    opened: list[str] = []

    def note(name: str) -> Any:
        opened.append(name)
        return open_engine(name)

    monkeypatch.setattr("fgtrac.capture.sources.open_engine", note)
    data = Folder(tmp_path, 10)
    folders = [tmp_path / name for name in ("alone", "here", "run")]
    found = []
    for folder, said in zip(folders, ({}, {"engine": "local:2"}, {"of_run": "local:1"}), strict=True):
        folder.mkdir()
        with monkeypatch.context() as context:
            context.setattr("fgtrac.query.views.open_engine", lambda name: open_engine("local:1"))
            found.append(registered(folder, data, **said))
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 10
    assert opened == ["local:2", "local:1"]


def test_a_name_that_no_engine_has_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'many' is no engine"):
        fgtrac.start_run(tmp_path / "run", key=tmp_path / "key.pem", engine="many")
    assert not (tmp_path / "run.trace").exists()
