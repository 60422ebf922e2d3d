"""A Trainer in two processes: both record into one trace, each what it trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from rank_processes import Plan, together
from told_truth import read_told
from trainer_truth import fit


@pytest.mark.matrix("HF Trainer", "two processes, gradients accumulated over 2 batches", attribution="exact")
@pytest.mark.parametrize("workers", [0, 2])
def test_two_ranks_record_one_trace_and_train_as_without(tmp_path: Path, workers: int) -> None:
    options = {"gradient_accumulation_steps": 2, "dataloader_num_workers": workers}
    recorded = together(2, tmp_path, Plan(rows=43, options=options), fit, method="fork")
    plain = together(2, tmp_path / "plain", Plan(rows=43, record=False, options=options), fit, method="fork")
    assert recorded == plain
    told = read_told(tmp_path / "run.trace")
    for rank, (batches, _weights) in enumerate(recorded):
        assert [sorted(rows) for *_, rows in told.trained(rank)] == batches
        assert [step for _, _, step, _ in told.trained(rank)] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert told.attributions == {"exact"}
    assert told.counts("join", "leave", "end", "gap") == [2, 1, 1, 0]
