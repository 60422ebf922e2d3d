"""A Trainer over a Hugging Face Dataset: the columns that it takes off change no row, and views lead to the rows."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
import torch

from capture.conftest import read_log
from fgtrac.api.run import start_run
from fgtrac.frameworks.trainer import TrainerTrace
from trainer_truth import applied, make, sureness


@pytest.mark.matrix(
    "HF Trainer", "a shuffled and mapped Hugging Face Dataset whose unused columns are taken off", attribution="exact"
)
def test_rows_of_a_data_set_are_told_behind_a_trainer(tmp_path: Path) -> None:
    datasets.disable_progress_bars()
    ids = list(range(18))
    data = datasets.Dataset.from_dict({"marks": ids, "text": [f"row {i}" for i in ids]})
    with start_run(tmp_path / "run", key=tmp_path / "key.pem") as run:
        run.register(data, name="rows", key="marks")
        inputs = torch.randn(18, 4, generator=torch.Generator().manual_seed(0)).tolist()
        ready = data.shuffle(seed=1).map(lambda row: {"inputs": inputs[row["marks"]], "labels": row["marks"] % 3})
        kept = run.transform("clean", ready).filter(lambda row: row["marks"] % 5 != 2)
        trainer = make(tmp_path, kept, TrainerTrace(run), num_train_epochs=1, remove_unused_columns=True)
        trainer.train()
    log = read_log(run.path)
    assert [e["name"] for e in log.kind("dataset")] == ["rows"]
    assert applied(log) == trainer.truth()
    assert sureness(log) == {"exact"}
