"""A Trainer's training under trace: every batch that was trained on is in the log, at its update, and no other is."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset
from transformers import TrainerCallback

from capture.conftest import Log
from fgtrac.api.run import start_run
from fgtrac.capture.envelope import content_digest
from fgtrac.frameworks.trainer import TrainerTrace
from trainer_truth import Marked, Telling, applied, make, sureness, trace_at

WORKERS = pytest.mark.parametrize("workers", [0, 2])
Read = Callable[[Path], Log]


@pytest.fixture
def read(tmp_path: Path, log: Read) -> Callable[[], Log]:
    return lambda: log(tmp_path / "run.trace")


@pytest.mark.matrix("HF Trainer", "two epochs, shuffled, evaluated in between", attribution="exact")
@WORKERS
def test_a_training_is_in_the_log_as_the_trainer_saw_it(tmp_path: Path, read: Callable[[], Log], workers: int) -> None:
    trainer = make(
        tmp_path, Marked(19), trace_at(tmp_path), evaluated=Marked(6, 100), eval_strategy="epoch",
        dataloader_num_workers=workers,
    )  # fmt: skip
    trainer.train()
    log = read()
    assert applied(log) == trainer.truth()
    assert sureness(log) == {"exact"}
    assert [keys for _, _, keys in log.batches().values()] == trainer.batches
    assert {(u.dataset, u.status) for u in log.uses()} == {("Marked", "applied"), ("Marked-validation", "unapplied")}
    assert len(log.kind("end")) == 1


@pytest.mark.matrix("HF Trainer", "gradients accumulated over 2 batches and clipped", attribution="exact")
@WORKERS
def test_accumulated_batches_belong_to_the_update_behind_them(
    tmp_path: Path, read: Callable[[], Log], workers: int
) -> None:
    options = {"gradient_accumulation_steps": 2, "max_grad_norm": 0.1, "dataloader_num_workers": workers}
    trainer = make(tmp_path, Marked(19), trace_at(tmp_path), **options)
    trainer.train()
    log = read()
    assert applied(log) == trainer.truth()
    assert [len(marks) for marks in applied(log).values()] == [8, 8, 3, 8, 8, 3]
    assert sureness(log) == {"exact"}


@pytest.mark.matrix("HF Trainer", "batches copied, as to another device", attribution="exact")
@WORKERS
def test_a_model_that_is_given_copies_is_traced_as_surely(
    tmp_path: Path, read: Callable[[], Log], workers: int
) -> None:
    options = {"gradient_accumulation_steps": 2, "dataloader_num_workers": workers}
    trainer = make(tmp_path, Marked(19), trace_at(tmp_path), **options)
    trainer.copies = True
    trainer.train()
    assert applied(read()) == trainer.truth()
    assert sureness(read()) == {"exact"}


class OwnLoss(Telling):
    """Takes the labels out of its inputs, as many do."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        labels = inputs.pop("labels")
        logits = model(inputs["inputs"].double().float(), labels, inputs["marks"])["logits"]
        loss = torch.nn.functional.cross_entropy(logits, labels)
        return (loss, {"logits": logits}) if return_outputs else loss


@pytest.mark.matrix("HF Trainer", "subclassed training_step and compute_loss", attribution="exact")
def test_a_subclass_sees_what_the_collator_made(tmp_path: Path, read: Callable[[], Log]) -> None:
    trainer = make(tmp_path, Marked(19), trace_at(tmp_path), kind=OwnLoss)
    trainer.train()
    assert (applied(read()), sureness(read())) == (trainer.truth(), {"exact"})


class Lengths(Marked):
    """With texts of several lengths in a column that samplers look at."""

    def __getitem__(self, row: int) -> dict[str, Any]:
        return super().__getitem__(row) | {"input_ids": [1] * (row % 5 + 1)}


def collate(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([s[name] for s in samples]) for name in ("inputs", "labels", "marks")}


@pytest.mark.matrix("HF Trainer", "grouped by length", attribution="exact")
def test_batches_of_like_lengths_are_traced(tmp_path: Path, read: Callable[[], Log]) -> None:
    trainer = make(tmp_path, Lengths(19), trace_at(tmp_path), train_sampling_strategy="group_by_length")
    trainer.data_collator = collate
    trainer.train()
    assert (applied(read()), sureness(read())) == (trainer.truth(), {"exact"})


@pytest.mark.matrix("HF Trainer", "one process that dispatches batches", attribution="exact")
@WORKERS
def test_dispatched_batches_are_traced(tmp_path: Path, read: Callable[[], Log], workers: int) -> None:
    options = {"accelerator_config": {"dispatch_batches": True}, "dataloader_num_workers": workers}
    trainer = make(tmp_path, Marked(19), trace_at(tmp_path), **options)
    trainer.train()
    assert (applied(read()), sureness(read())) == (trainer.truth(), {"exact"})


class Stopping(TrainerCallback):
    """Stops the training behind a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = state.global_step == self.step


@pytest.mark.matrix("HF Trainer", "stopped in the middle of an epoch", attribution="exact")
@WORKERS
def test_what_was_read_ahead_of_a_stop_was_not_used(tmp_path: Path, read: Callable[[], Log], workers: int) -> None:
    trainer = make(tmp_path, Marked(40), trace_at(tmp_path), Stopping(3), dataloader_num_workers=workers)
    trainer.train()
    assert applied(read()) == trainer.truth()
    assert len(read().uses()) == 12  # what the loop did not get is not in the log at all


def test_weights_and_generators_are_the_same_with_and_without(tmp_path: Path) -> None:
    def train(folder: Path, *callbacks: Any) -> tuple[Any, ...]:
        random.seed(7)
        np.random.seed(7)
        options = {"gradient_accumulation_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
        trainer = make(folder, Marked(40), *callbacks, evaluated=Marked(6, 100), **options)
        trainer.train()
        states = torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()
        return {name: tensor.tolist() for name, tensor in trainer.model.state_dict().items()}, states

    assert train(tmp_path / "plain") == train(tmp_path / "traced", trace_at(tmp_path))


@pytest.mark.matrix("HF Trainer", "validation loss at each evaluation, best model loaded", attribution="exact")
def test_the_trainer_s_own_evaluation_decides_about_states(tmp_path: Path, read: Callable[[], Log]) -> None:
    options = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    trainer = make(
        tmp_path, Marked(19), trace_at(tmp_path, keep="all"), evaluated=Marked(6, 100), load_best_model_at_end=True,
        metric_for_best_model="eval_loss", **options,
    )  # fmt: skip
    trainer.train()
    told = {e["step"]: e["val_loss"] for e in read().kind("checkpoint")}
    evaluated = {e["step"]: e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e}
    assert told == evaluated
    assert list(told) == [2, 4, 6, 8, 10]
    assert all(e["kept"] for e in read().kind("checkpoint"))
    assert [e["step"] for e in read().kind("metrics") if "eval_loss" in e["values"]] == [2, 4, 6, 8, 10]


def test_without_evaluations_each_save_puts_a_state_on_record_and_so_does_the_end(
    tmp_path: Path, read: Callable[[], Log]
) -> None:
    make(tmp_path, Marked(19), trace_at(tmp_path), save_strategy="steps", save_steps=4).train()
    assert [e["step"] for e in read().kind("checkpoint")] == [4, 8, 10]


@pytest.mark.matrix("HF Trainer", "evaluated and predicted in a run of the caller's", note="outputs by row")
def test_what_a_model_predicts_is_recorded_by_row(tmp_path: Path, read: Callable[[], Log]) -> None:
    tested = Marked(7, 200)
    with start_run(tmp_path / "run", key=tmp_path / "key.pem") as run:
        trainer = make(tmp_path, Marked(19), TrainerTrace(run, predictions=True), evaluated=Marked(6, 100))
        trainer.train()
        trainer.evaluate()
        said = trainer.predict(tested).predictions
    log = read()
    assert applied(log) == trainer.truth()
    roles = {log.names[log.blocks()[e["block"]][0]][0]: e["role"] for e in log.kind("roles")}
    assert roles == {"Marked": "train", "Marked-validation": "validation", "Marked-test": "test"}
    assert {u.dataset for u in log.uses() if u.status == "unapplied"} == {"Marked-validation", "Marked-test"}
    (told,) = log.kind("prediction")
    rows = log.keys(told["block"], told["ordinals"])
    assert np.array_equal(told["outputs"].reshape(7, -1), said[rows])
    assert told["checkpoint"] == [log.kind("checkpoint")[0]["writer"], log.kind("checkpoint")[0]["seq"]]


def test_predictions_are_of_the_model_that_was_loaded_at_the_end(tmp_path: Path, read: Callable[[], Log]) -> None:
    options = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    best = {"load_best_model_at_end": True, "greater_is_better": True, "metric_for_best_model": "eval_loss"}
    trace = trace_at(tmp_path, predictions=True)
    trainer = make(tmp_path, Marked(19), trace, evaluated=Marked(6, 100), **options | best)
    trainer.train()
    trainer.predict(Marked(7, 200))
    told, states = read().kind("prediction")[0], {e["step"]: e for e in read().kind("checkpoint")}
    state = states[int(trainer.state.best_model_checkpoint.rpartition("-")[2])]
    assert state["step"] == 2
    assert told["checkpoint"] == [state["writer"], state["seq"]]


def test_data_that_are_trained_on_and_evaluated_stay_training_data(tmp_path: Path, read: Callable[[], Log]) -> None:
    data = Marked(19)
    trainer = make(tmp_path, data, trace_at(tmp_path), evaluated=data, eval_strategy="epoch")
    trainer.train()
    assert applied(read()) == trainer.truth()
    assert [e["role"] for e in read().kind("roles")] == ["train"]


def table(rows: int, first: int = 0) -> Any:
    """The same samples as a `datasets.Dataset`, with a column that the model does not take."""
    samples = [Marked(rows, first)[row] for row in range(rows)]
    columns = {name: [s[name].tolist() for s in samples] for name in ("inputs", "labels", "marks")}
    return datasets.Dataset.from_dict(columns | {"text": [f"text {row}" for row in range(rows)]})


@pytest.mark.matrix("HF Trainer", "HF datasets, selected, with unused columns", attribution="exact")
@WORKERS
def test_rows_are_those_of_the_data_set_that_the_trainer_was_given(
    tmp_path: Path, read: Callable[[], Log], workers: int
) -> None:
    kept = [row for row in range(30) if row % 3]
    options = {"remove_unused_columns": True, "eval_strategy": "epoch", "dataloader_num_workers": workers}
    trainer = make(tmp_path, table(30).select(kept), trace_at(tmp_path), evaluated=table(6, 100), **options)
    trainer.train()
    log = read()
    assert applied(log) == trainer.truth()
    assert sureness(log) == {"exact"}
    assert len(log.kind("dataset")) == 2
    assert all("content" in e for e in log.kind("dataset"))
    assert {(u.loader, u.status) for u in log.uses()} == {(1, "applied"), (2, "unapplied")}


@pytest.mark.matrix("HF Trainer", "labels under another name", attribution="exact")
def test_labels_may_have_any_name(tmp_path: Path, read: Callable[[], Log]) -> None:
    trainer = make(tmp_path, Marked(19), trace_at(tmp_path), evaluated=Marked(6, 100), label_names=["marks", "labels"])
    trainer.train()
    assert set(trainer.evaluate()) >= {"eval_loss"}
    assert (applied(read()), sureness(read())) == (trainer.truth(), {"exact"})


class Stream(IterableDataset[Any]):
    """The same samples in order, without row numbers."""

    def __init__(self, rows: int, first: int = 0) -> None:
        self.rows = Marked(rows, first)

    def __iter__(self) -> Any:
        yield from (self.rows[row] for row in range(len(self.rows)))


@pytest.mark.matrix("HF Trainer", "a stream, which one process dispatches", attribution="exact")
def test_samples_of_a_stream_are_named_by_their_contents(tmp_path: Path, read: Callable[[], Log]) -> None:
    options = {"max_steps": 8, "gradient_accumulation_steps": 2, "eval_strategy": "steps", "eval_steps": 4}
    trainer = make(tmp_path, Stream(24), trace_at(tmp_path), evaluated=Stream(6, 100), **options)
    trainer.train()
    log = read()
    assert sureness(log) == {"exact"}
    digests = {content_digest(Marked(24)[row]): row for row in range(24)}
    told: dict[int, list[int]] = {}
    for use in log.uses():
        if use.status == "applied":
            told.setdefault(use.step, []).append(digests[use.key])
    assert {step: sorted(rows) for step, rows in told.items()} == trainer.truth()
    assert len({use.key for use in log.uses() if use.status == "unapplied"}) == 6
