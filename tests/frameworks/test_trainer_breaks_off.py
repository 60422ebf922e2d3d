"""Trainings by Hugging Face's Trainer that break off or are disturbed: what else the process trains is not theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from capture.conftest import read_log
from fgtrac.frameworks.trainer import TrainerTrace
from trainer_truth import Marked, Telling, applied, make, sureness, trace_at


def train_another(count: int = 3) -> None:
    """A plain loop over data that nobody delivered."""
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(count):
        optimizer.zero_grad()
        model(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()


class Failing(Telling):
    """Runs out of memory within the fourth step, as often as `failures` says."""

    failures = 1

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 3 and self.failures:
            self.failures -= 1
            self.trained.pop(4)
            raise RuntimeError("out of memory")
        return super().compute_loss(*args, **kwargs)


@pytest.mark.parametrize("is_late", [False, True])
def test_a_training_that_breaks_off_is_sealed_and_uses_nothing_more(tmp_path: Path, is_late: bool) -> None:
    data, callback = Marked(24), trace_at(tmp_path)
    trainer = make(tmp_path, data, *([] if is_late else [callback]), kind=Failing)
    if is_late:
        trainer.add_callback(callback)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.train()
    train_another()
    log = read_log(tmp_path / "run.trace")
    assert (applied(log), sureness(log), log.kind("end")) == (trainer.truth(), {"exact"}, [])
    again = make(tmp_path, data, TrainerTrace(tmp_path / "again", key=tmp_path / "key.pem", strict=True))
    again.train()
    assert applied(read_log(tmp_path / "again.trace")) == again.truth()


class Probing(TrainerCallback):  # type: ignore[misc]
    def on_step_end(self, *_: Any, **__: Any) -> None:
        train_another(1)


def test_what_a_callback_trains_on_other_data_uses_no_batch(tmp_path: Path) -> None:
    trainer = make(tmp_path, Marked(24), Probing(), trace_at(tmp_path), num_train_epochs=1)
    trainer.train()
    log = read_log(tmp_path / "run.trace")
    assert (applied(log), sureness(log), log.kind("gap")) == (trainer.truth(), {"exact"}, [])
    assert [checkpoint["step"] for checkpoint in log.kind("checkpoint")] == [6]


class NotFinite(Telling):
    def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
        loss, *others = super().prediction_step(*args, **kwargs)
        return loss * float("nan"), *others


def test_a_validation_loss_that_is_not_finite_is_left_out(tmp_path: Path) -> None:
    options = {"evaluated": Marked(8, 100), "eval_strategy": "epoch"}
    trainer = make(tmp_path, Marked(24), trace_at(tmp_path), kind=NotFinite, **options)
    with pytest.warns(RuntimeWarning, match="'eval_loss' is nan"):
        trainer.train()
    found = read_log(tmp_path / "run.trace").kind("checkpoint")
    assert [(checkpoint["step"], checkpoint.get("val_loss")) for checkpoint in found] == [(6, None), (12, None)]


def test_of_several_evaluated_data_sets_a_state_is_recorded_and_the_metric_asked_for(tmp_path: Path) -> None:
    evaluated = {"a": Marked(8, 100), "b": Marked(8, 200)}
    trainer = make(tmp_path, Marked(24), trace_at(tmp_path), evaluated=evaluated, eval_strategy="epoch")
    with pytest.warns(RuntimeWarning, match="'eval_loss' is not among .*eval_b_loss"):
        trainer.train()
    found = read_log(tmp_path / "run.trace").kind("checkpoint")
    assert [(checkpoint["step"], checkpoint.get("val_loss")) for checkpoint in found] == [(6, None), (12, None)]


def test_an_evaluation_by_a_trainer_that_was_there_before_the_callback_is_said_to_be_missing(tmp_path: Path) -> None:
    trainer = make(tmp_path, Marked(8), evaluated=Marked(8, 100))
    trainer.add_callback(trace_at(tmp_path))
    with pytest.warns(RuntimeWarning, match="give it to Trainer"):
        trainer.evaluate()
    trainer.evaluate()
    assert {use.key for use in read_log(tmp_path / "run.trace").uses()} == set(range(8))
