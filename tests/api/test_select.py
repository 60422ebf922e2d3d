"""Which checkpoints a run keeps by each rule, what its log says of it, and that a resumed run goes on alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fgtrac.api.ledger import read_ledger
from fgtrac.api.prior import last_checkpoint_step
from fgtrac.api.run import Run, start_run
from fgtrac.api.trace import open_trace
from fgtrac.events.schema import decode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.tiles import read_entries

LOSSES = [5.0, 4.0, 3.9, 1.9, 1.8, 1.85, 0.3]


def begin(folder: Path, **options: Any) -> Run:
    return start_run(folder / "run", key=folder / "key.pem", **options)


def checkpoints(folder: Path) -> list[dict[str, Any]]:
    trace = TraceDir.open(folder / "run.trace")
    head = trace.head()
    assert head is not None
    events = [decode_event(entry) for entry in read_entries(trace, 0, head.size, head.size)]
    return [event for event in events if event["kind"] == "checkpoint"]


def train(run: Run, losses: list[float], numbers: range) -> list[bool]:
    """A checkpoint with each loss; checkpoint n is of a model whose weight is n, at step n."""
    kept = []
    for number, loss in zip(numbers, losses, strict=True):
        model = nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(model.weight, number)
        run._grounding._updates.first_step = number
        kept.append(run.checkpoint(model, val_loss=loss))
    return kept


def steps(folder: Path) -> list[int]:
    return [state.step for state in read_ledger(TraceDir.open(folder / "run.trace")).states]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ("improved:0.2", [0, 1, 3, 6]),
        ("budget:2", [3, 6]),
        ("every:3", [0, 3, 6]),
        ("all", [0, 1, 2, 3, 4, 5, 6]),
    ],
)
@pytest.mark.parametrize("cut", [0, 4])
def test_each_rule_keeps_its_checkpoints_also_across_a_restart(
    tmp_path: Path, keep: str, expected: list[int], cut: int
) -> None:
    with begin(tmp_path, keep=keep) as run:
        train(run, LOSSES[:cut], range(cut))
    with begin(tmp_path, keep=keep, resume=True) as run:
        train(run, LOSSES[cut:], range(cut, len(LOSSES)))
    assert steps(tmp_path) == expected
    rules = [c["rule"] for c in checkpoints(tmp_path)]
    assert all(rule.startswith(("kept: ", "dropped: ")) for rule in rules)


def test_a_displaced_checkpoint_is_named_before_the_one_that_displaces_it(tmp_path: Path) -> None:
    with begin(tmp_path, keep="budget:1") as run:
        train(run, [3.0, 2.0, 2.5, 0.5], range(4))
    said = checkpoints(tmp_path)
    assert [(c["step"], c["kept"]) for c in said] == [
        (0, True), (0, False), (1, True), (2, False), (1, False), (3, True),
    ]  # fmt: skip
    assert said[1]["rule"] == "dropped: displaced by step 1, a fall of 1 from 3 is among the 1 steepest so far"
    assert said[4]["digest"] == said[2]["digest"]
    assert said[4]["val_loss"] == 2.0
    assert last_checkpoint_step(TraceDir.open(tmp_path / "run.trace")) == 3
    assert steps(tmp_path) == [3]
    assert list(open_trace(tmp_path / "run.trace")._historian.kept_checkpoints()) == [3]


def test_a_restart_from_an_earlier_step_forgets_the_checkpoints_after_it(tmp_path: Path) -> None:
    with begin(tmp_path, keep="improved:0.1") as run:
        train(run, [3.0, 2.0, 0.1], range(3))
    with begin(tmp_path, keep="improved:0.1", resume=True, step=1) as run:
        assert train(run, [1.9, 1.5], range(2, 4)) == [False, True]
    assert steps(tmp_path) == [0, 1, 3]


def test_what_is_no_rule_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"keep='best' is no rule; choose one of improved:SHARE"):
        begin(tmp_path, keep="best")
    assert list(tmp_path.iterdir()) == []


def test_a_budget_needs_losses_and_records_nothing_without(tmp_path: Path) -> None:
    with begin(tmp_path, keep="budget:2") as run, pytest.raises(ValueError, match="pass val_loss="):
        run.checkpoint(nn.Linear(1, 1))
    assert checkpoints(tmp_path) == []
    assert not (tmp_path / "run.trace" / "artifacts").exists()
