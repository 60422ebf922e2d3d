"""What a loop says itself of its uses: `run.use`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

import fgtrac
from fgtrac.verify.bundle import parse_bundle
from fgtrac.verify.report import Verdict

DATA = TensorDataset(torch.arange(20.0).reshape(20, 1))


def uses(path: Path, row: int) -> list[tuple[int, int, str]]:
    events = fgtrac.open(path).history(f"rows:{row}").events
    return [(e.step, e.details["epoch"], e.details["attribution"]) for e in events if e.kind == "used"]


def test_each_call_is_one_update_and_says_that_it_was_declared(tmp_path: Path) -> None:
    with fgtrac.start_run(tmp_path / "a", ids="public") as run:
        run.register(DATA, name="rows", role="train")
        run.use([3, 5])
        run.use(torch.tensor([5, 7]), epoch=1)
        run.use(np.array([5]), epoch=1, step=4)
        run.use([9], epoch=1, applied=False)
        assert run.step == 4
    path = tmp_path / "a.trace"
    assert uses(path, 3) == [(1, 0, "declared")]
    assert uses(path, 5) == [(1, 0, "declared"), (2, 1, "declared"), (4, 1, "declared")]
    assert uses(path, 9) == []
    assert "delivered" in {e.kind for e in fgtrac.open(path).history("rows:9").events}
    trace = fgtrac.open(path)
    assert trace.verify().verdict is Verdict.HOLDS
    told = "Told by the recording program itself, which nothing watched: 3 of all uses."
    assert told in parse_bundle(trace.prove("rows:5", "used")).words


def test_rows_of_two_dimensions_are_one_update_each(tmp_path: Path) -> None:
    orders = np.random.default_rng(0).permutation(20).reshape(5, 4)
    with fgtrac.start_run(tmp_path / "a", ids="public") as run:
        run.register(DATA, name="rows")
        run.use(orders, step=11, losses=np.ones((5, 4)))
        run.use(orders, epoch=1)
    for row in range(20):
        step = 11 + int(np.flatnonzero((orders == row).any(axis=1))[0])
        assert uses(tmp_path / "a.trace", row) == [(step, 0, "declared"), (step + 5, 1, "declared")]


def test_a_view_stands_for_its_rows(tmp_path: Path) -> None:
    with fgtrac.start_run(tmp_path / "a", ids="public") as run:
        run.register(DATA, name="rows")
        run.use(Subset(DATA, [4, 2]))
        run.use([1], data=Subset(DATA, [4, 2]))
    assert [len(uses(tmp_path / "a.trace", row)) for row in (4, 2, 1)] == [1, 2, 0]


def test_a_list_of_tensors_is_of_positions_and_registered_numbers_are_a_data_set(tmp_path: Path) -> None:
    tokens = torch.tensor([[1, 2], [0, 1]])
    with fgtrac.start_run(tmp_path / "a", ids="public") as run:
        run.register(DATA, name="rows")
        run.use([torch.tensor(1), torch.tensor(3)])
        run.register(tokens, name="tokens")
        run.use(tokens)
    assert [len(uses(tmp_path / "a.trace", row)) for row in range(4)] == [0, 1, 0, 1]
    for row in (0, 1):
        kinds = [e.kind for e in fgtrac.open(tmp_path / "a.trace").history(f"tokens:{row}").events]
        assert kinds.count("used") == 1


def test_declared_and_watched_uses_stand_side_by_side(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with fgtrac.start_run(tmp_path / "a", ids="public") as run:
        run.register(DATA, name="rows", role="train")
        for (batch,) in run.watch(DataLoader(DATA, batch_size=5)):
            model(batch).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        run.use([0], epoch=7)
    assert sorted(uses(tmp_path / "a.trace", 0)) == [(1, 0, "exact"), (1, 7, "declared")]
    assert fgtrac.open(tmp_path / "a.trace").verify().verdict is Verdict.HOLDS


def test_uses_go_on_after_a_resume_from_its_step(tmp_path: Path) -> None:
    with fgtrac.start_run(tmp_path / "a", ids="public") as run:
        run.register(DATA, name="rows", role="train")
        run.use([1, 2])
        run.checkpoint({"w": np.zeros(3, np.float32), "deep": {"b": np.ones(1)}})
    with fgtrac.start_run(tmp_path / "a", resume=True) as run:
        run.register(DATA, name="rows", role="train")
        with pytest.raises(ValueError, match=r"step=1; .* here from 2 on"):
            run.use([1], step=1)
        run.use([1])
    assert uses(tmp_path / "a.trace", 1) == [(1, 0, "declared"), (2, 0, "declared")]


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ({"samples": [20]}, ValueError, "position 20 of data with 20 rows"),
        ({"samples": [-1]}, ValueError, "position -1 of data with 20 rows"),
        ({"samples": np.ones(20, bool)}, TypeError, "samples of bool; give row numbers"),
        ({"samples": np.zeros((1, 1, 1), int)}, ValueError, r"shape \(1, 1, 1\)"),
        ({"samples": [1], "step": 2**64}, ValueError, "step=18446744073709551616, and the greatest"),
        ({"samples": [[1], [2, 3]]}, TypeError, r"list \[\[1\], \[2, 3\]\], which is no array of row numbers"),
        ({"samples": [1], "step": 0}, ValueError, "step=0; updates are counted from 1"),
        ({"samples": [1], "step": 2}, ValueError, "step=2; .* here from 3 on"),
        ({"samples": [1], "epoch": 0}, ValueError, "epoch=0 after epoch 1"),
        ({"samples": [1], "losses": [1.0, 2.0], "epoch": 1}, ValueError, r"losses of shape \(2,\) for samples of"),
    ],
)
def test_what_cannot_be_is_refused_and_loses_nothing(
    tmp_path: Path, said: dict[str, object], error: type[Exception], words: str
) -> None:
    with fgtrac.start_run(tmp_path / "a", ids="public", strict=True) as run:
        run.register(DATA, name="rows")
        run.use([0], epoch=1, step=3)
        with pytest.raises(error, match=words):
            run.use(**said)
        run.use([0], epoch=1)
    assert [step for step, _epoch, _how in uses(tmp_path / "a.trace", 0)] == [3, 4]


def test_an_unknown_sample_is_a_gap_where_the_run_is_not_strict_and_the_loop_goes_on(tmp_path: Path) -> None:
    with fgtrac.start_run(tmp_path / "a", ids="public") as run:
        run.register(DATA, name="rows")
        with pytest.warns(RuntimeWarning, match="position 99 of data with 20 rows.*register the data when"):
            run.use([0, 99])
        run.use([0])
    assert uses(tmp_path / "a.trace", 0) == [(1, 0, "declared")]
    assert fgtrac.open(tmp_path / "a.trace")._seal.event["counts"]["gap"] == 1


def test_without_data_positions_need_one_registered_data_set(tmp_path: Path) -> None:
    with fgtrac.start_run(tmp_path / "a") as run:
        with pytest.raises(ValueError, match=r"0 data sets are registered \(none\); say data="):
            run.use([0])
        run.register(DATA, name="rows")
        run.register(TensorDataset(torch.zeros(3)), name="others")
        with pytest.raises(ValueError, match=r"2 data sets are registered \('rows', 'others'\)"):
            run.use([0])
