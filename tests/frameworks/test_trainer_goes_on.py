"""A Trainer that was interrupted goes on in the same trace; what cannot be recorded is said."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capture.conftest import Log
from fgtrac.api.run import start_run
from fgtrac.errors import CaptureError
from fgtrac.frameworks import trainer as adapter
from fgtrac.frameworks.trainer import TrainerTrace
from trainer_truth import Marked, Telling, applied, make, sureness, trace_at

SAVED = {"save_strategy": "steps", "save_steps": 3}


@pytest.fixture
def read(tmp_path: Path, log: Callable[[Path], Log]) -> Callable[[], Log]:
    return lambda: log(tmp_path / "run.trace")


class Killed(Telling):
    """Is killed in the training step behind some update."""

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == self.ends_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().training_step(model, inputs, *args, **kwargs)


def train_until_killed(folder: Path, data: Any, step: int, options: dict[str, Any]) -> None:
    """In a process of its own, killed behind update `step`."""

    def train() -> None:
        trainer = make(folder, data, trace_at(folder, flush_interval_s=0.05), kind=Killed, **options)
        trainer.ends_at = step
        trainer.train()

    child = multiprocessing.get_context("fork").Process(target=train)
    child.start()
    child.join(timeout=300)
    assert child.exitcode == -signal.SIGKILL


def stands(log: Log) -> dict[int, list[int]]:
    """What the log says of updates, without those that its resume went back behind."""
    (resume,) = log.kind("resume")
    before = {bytes(writer) for writer, _ in resume["writers"]}
    old = Log([e for e in log.events if bytes(e["writer"]) in before], log.names)
    new = Log([e for e in log.events if bytes(e["writer"]) not in before], log.names)
    return {
        step: keys
        for step, keys in applied(Log([*log.kind("samples"), *old.kind("use")], log.names)).items()
        if step <= resume["step"]
    } | applied(Log([*log.kind("samples"), *new.kind("use")], log.names))


@pytest.mark.matrix("Resume", "HF Trainer, killed in the middle of an epoch", attribution="exact")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_that_was_killed_goes_on_in_its_trace(tmp_path: Path, read: Callable[[], Log], workers: int) -> None:
    options = SAVED | {"gradient_accumulation_steps": 2, "dataloader_num_workers": workers}
    whole = make(tmp_path / "whole", Marked(37), **options)
    whole.train()
    train_until_killed(tmp_path, Marked(37), 4, options)
    trainer = make(tmp_path, Marked(37), trace_at(tmp_path), **options)
    trainer.train(resume_from_checkpoint=True)
    log = read()
    assert trainer.truth() == {step: marks for step, marks in whole.truth().items() if step > 3}
    assert stands(log) == whole.truth()
    assert sureness(log) == {"exact"}
    assert [e["step"] for e in log.kind("resume")] == [3]
    assert {u.epoch for u in log.uses()} == {0, 1}
    assert not log.kind("gap")


def test_the_same_trainer_goes_on_behind_an_interruption(tmp_path: Path, read: Callable[[], Log]) -> None:
    trainer = make(tmp_path, Marked(37), trace_at(tmp_path), **SAVED)
    trainer.ends_at = 5
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.ends_at = -1
    assert set(trainer.truth()) == set(range(1, 6))
    before = trainer.truth()
    trainer.trained.clear()
    trainer.train(resume_from_checkpoint=True)
    assert stands(read()) == {s: m for s, m in before.items() if s <= 3} | trainer.truth()


def test_trainings_evaluations_and_predictions_in_turn_are_one_trace(tmp_path: Path, read: Callable[[], Log]) -> None:
    trainer = make(tmp_path, Marked(19), trace_at(tmp_path), evaluated=Marked(6, 100), num_train_epochs=1)
    trainer.train()
    first = trainer.truth()
    trainer.evaluate()
    trainer.trained.clear()
    trainer.train()
    log = read()
    assert applied(log) == first | {step + 5: marks for step, marks in trainer.truth().items()}
    assert len(log.kind("samples")) == 2
    assert [e["step"] for e in log.kind("resume")] == [5, 5]
    assert log.events[-2]["kind"] == "end"


def test_data_keep_their_names_where_another_order_takes_them_up(tmp_path: Path, read: Callable[[], Log]) -> None:
    evaluated = {"first": Marked(6, 100), "second": Marked(7, 200)}
    options = SAVED | {"eval_strategy": "steps", "eval_steps": 3}
    monitor = {"monitor": "eval_second_loss"}
    trainer = make(tmp_path, Marked(19), trace_at(tmp_path, **monitor), evaluated=evaluated, **options)
    trainer.evaluate()
    trainer.train()
    assert all("val_loss" in checkpoint for checkpoint in read().kind("checkpoint"))
    trainer = make(tmp_path, Marked(19), trace_at(tmp_path, **monitor), evaluated=evaluated, **options)
    trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-6"))
    log = read()
    assert {e["name"] for e in log.kind("dataset")} == {"Marked-validation", "Marked-validation-2", "Marked"}
    assert {(u.loader, u.dataset) for u in log.uses()} == {
        (1, "Marked-validation"), (2, "Marked-validation-2"), (3, "Marked"),
    }  # fmt: skip
    assert applied(log)[7] == sorted(2 * trainer.truth()[7])


def test_a_checkpoint_of_another_trace_is_refused(tmp_path: Path) -> None:
    make(tmp_path, Marked(19), trace_at(tmp_path), **SAVED).train()
    shutil.move(tmp_path / "run.trace", tmp_path / "other.trace")
    shutil.move(tmp_path / "run.vault", tmp_path / "other.vault")
    make(tmp_path / "second", Marked(19), trace_at(tmp_path), **SAVED).train()
    trainer = make(tmp_path, Marked(19), trace_at(tmp_path))
    with pytest.raises(ValueError, match="the checkpoint belongs to the trace"):
        trainer.train(resume_from_checkpoint=True)


def test_a_checkpoint_whose_trace_is_gone_begins_one_with_a_gap(tmp_path: Path, read: Callable[[], Log]) -> None:
    make(tmp_path, Marked(19), **SAVED).train()
    trainer = make(tmp_path, Marked(19), trace_at(tmp_path))
    with pytest.warns(RuntimeWarning, match="training goes on from step 9"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-9"))
    assert applied(read()) == trainer.truth() != {}
    assert len(read().kind("gap")) == 1


class Lists(Telling):
    """Its loader is a list of batches."""

    def get_train_dataloader(self) -> Any:
        return list(super().get_train_dataloader())


def test_a_loader_that_cannot_be_watched_is_said_and_training_goes_on(tmp_path: Path, read: Callable[[], Log]) -> None:
    trainer = make(tmp_path, Marked(19), trace_at(tmp_path), kind=Lists)
    with pytest.warns(RuntimeWarning, match="what the train loader delivers is not recorded"):
        trainer.train()
    assert trainer.state.global_step == 10
    assert len(read().kind("gap")) == 1
    strict = make(tmp_path, Marked(19), TrainerTrace(tmp_path / "strict", strict=True), kind=Lists)
    with pytest.raises(CaptureError, match="what the train loader delivers is not recorded"):
        strict.train()


def test_an_unknown_version_is_said_with_those_that_are_known(
    tmp_path: Path, read: Callable[[], Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter.transformers, "__version__", "6.1.0")  # transformers replaces its module as it loads
    trainer = make(tmp_path, Marked(19), trace_at(tmp_path))
    with pytest.warns(RuntimeWarning, match=r"transformers 6\.1\.0, and fgtrac knows 4\.46 to 5\.24"):
        trainer.train()
    assert applied(read()) == trainer.truth()
    assert len(read().kind("gap")) == 1


def test_a_callback_that_no_trainer_calls_says_so(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="give it to one"):
        trace_at(tmp_path).on_init_end(None, None, None)  # type: ignore[arg-type]


def test_options_belong_to_who_opens_the_run(tmp_path: Path) -> None:
    with start_run(tmp_path / "run", key=tmp_path / "key.pem") as run, pytest.raises(ValueError, match="keep="):
        TrainerTrace(run, keep="all")
