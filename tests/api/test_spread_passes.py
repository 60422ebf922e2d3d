"""Factor passes by an engine's workers: the bytes of one process, whatever becomes of a worker."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from fgtrac.api import factor_passes
from fgtrac.api.factor_units import digest_rows
from fgtrac.api.ledger import read_ledger
from fgtrac.api.run import reopen
from fgtrac.errors import ScoreError
from fgtrac.score.cache import Cache
from fgtrac.score.one_thread import one_thread
from scored_by_workers import CALLER, Inside, Recorded, again, record, rows_a_shard


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    record(folder)
    return folder


@pytest.fixture
def trace(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    monkeypatch.setenv(CALLER, str(os.getpid()))
    monkeypatch.setenv("WORKER_FOLDER", str(tmp_path))
    monkeypatch.setattr(factor_passes, "shard_rows", rows_a_shard)
    return Recorded.copy(recorded, tmp_path / "copy")


@pytest.fixture
def alone(recorded: Path, tmp_path: Path, trace: Recorded) -> Recorded:
    """Another copy, for one process."""
    return Recorded.copy(recorded, tmp_path / "alone")


@pytest.mark.parametrize(
    ("name", "killed_at"),
    [("again", "/train-00001"), ("some_with_matrix", "/ggn")],
)
def test_a_worker_killed_in_the_middle_of_a_unit_is_replaced_and_the_bytes_are_those_of_one_process(
    trace: Recorded, alone: Recorded, monkeypatch: pytest.MonkeyPatch, name: str, killed_at: str
) -> None:
    monkeypatch.setenv("WORKER_DIES", killed_at)
    told: list[tuple[int, int]] = []
    found = trace.score("local:2", name, progress=lambda done, total: told.append((done, total)))
    assert (trace.folder.parent / "died").exists()
    rows = 90 if name == "again" else 50
    assert (told[0], told[-1]) == ((0, 3 * (rows + 35)), (3 * (rows + 35), 3 * (rows + 35)))
    assert told == sorted(told)
    assert found == alone.score("local:1", name)
    assert trace.recorded_scores() == alone.recorded_scores() != {}
    ledger = read_ledger(trace.trace)
    assert len(Cache(trace.trace, ledger.artifacts, ledger.states).states) == 3


def test_what_workers_have_made_is_not_made_again(
    trace: Recorded, alone: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller is interrupted after four units; the next one goes on from the files that are there."""
    done = 0

    def interrupt(found: int, total: int) -> None:
        nonlocal done
        done = found
        if found >= 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trace.score(Inside(), progress=interrupt)
    before = trace.inodes()
    assert len(before) >= 8
    told: list[int] = []
    assert trace.score("local:1", progress=lambda found, total: told.append(found)) == alone.score("local:1")
    assert told[0] >= done
    after = trace.inodes()
    shards = [path for path in before if not path.startswith("rows")]
    assert {path: after[path] for path in shards} == {path: before[path] for path in shards}


def test_other_data_in_a_worker_are_refused_and_leave_no_file(trace: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_LIES", "1")
    with pytest.raises(
        ScoreError, match=r"the train data that .*:again gives a worker are not those that it gives here"
    ):
        trace.score(Inside())
    assert {path.partition("-")[0] for path in trace.files()} <= {"rows"}


def test_what_cannot_be_computed_is_told_as_by_one_process(trace: Recorded, alone: Recorded) -> None:
    said = []
    for copy, engine in ((alone, None), (trace, Inside())):
        with pytest.raises(ScoreError, match="NaN or infinity in the factors of 1 of 20 validation samples") as caught:
            copy.score(engine, "spoiled")
        said.append(str(caught.value))
        assert not any(path.startswith("00000006") for path in copy.files())
    assert said[0] == said[1]


def test_an_engine_and_a_function_go_together_and_belong_to_a_reopened_trace(trace: Recorded) -> None:
    with reopen(trace.folder / "run", key=trace.folder / "key.pem") as run:
        model = again(run)
        with pytest.raises(ValueError, match="engine= and function= go together"):
            run.score(model, engine="local:2")
        with pytest.raises(ValueError, match="engine= and function= go together"):
            run.score(model, function="file.py:again")


def test_rows_are_known_by_all_that_is_in_them() -> None:
    class Rows:
        def __init__(self, batch: object) -> None:
            self.batch = batch

        def some(self, start: int, stop: int) -> tuple[object, object]:
            return None, self.batch

    batches = [
        [torch.ones(2), torch.zeros(2)],
        [torch.ones(2, 1), torch.zeros(2)],
        [torch.ones(2), torch.tensor([0.0, 1e-9])],
        [np.ones(2, np.float32), np.ones(2, np.float32)],
        {"x": torch.ones(2), "y": torch.zeros(2)},
        {"x": torch.ones(2), "z": torch.zeros(2)},
        [["a"], "b"],
        [["a", "b"]],
        torch.ones(2, dtype=torch.bfloat16),
    ]
    found = [digest_rows(Rows(batch), 0, 2) for batch in batches]  # type: ignore[arg-type]
    assert len(set(found)) == len(batches)
    assert digest_rows(Rows(batches[0]), 0, 2) == found[0]  # type: ignore[arg-type]


def test_a_unit_has_one_thread_and_the_process_its_own_afterwards() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
            assert {pool["num_threads"] for pool in threadpool_info()} == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
