"""A Lightning training that is cut and goes on, and a Trainer that is asked again: one trace, and one account."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from torchdata.stateful_dataloader import StatefulDataLoader

import fgtrac
from fgtrac.api.run import start_run
from fgtrac.errors import CaptureError
from fgtrac.frameworks.lightning import LightningTrace
from lightning_truth import QUIET, Net, applied, loader, marked, read, sureness, trace_at, trainer

pytestmark = [
    *QUIET,
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),  # torchdata's
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before"),
]


class Cut(lightning.Callback):
    """Saves after batch `after` of the first epoch, and fails at the next."""

    def __init__(self, path: Path, after: int) -> None:
        self.path, self.after = path, after

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 0 and batch_idx == self.after:
            trainer.save_checkpoint(self.path)
        if trainer.current_epoch == 0 and batch_idx == self.after + 1:
            raise OSError("cut")


def cut(folder: Path, data: Any, after: int = 2, **options: Any) -> Net:
    """A training that is saved and then cut within its first epoch."""
    net, callback = Net(), trace_at(folder)
    with pytest.raises(OSError, match="cut"):
        trainer(None, callbacks=[callback, Cut(folder / "cut.ckpt", after)], **options).fit(net, data, loader(4, 100))
    return net


def joined(before: Net, after: Net, step: int) -> dict[int, list[int]]:
    """The updates that the model at the end rests on."""
    return {k: v for k, v in before.truth().items() if k <= step} | after.truth()


def standing(log: Any, step: int) -> dict[int, list[int]]:
    """The same by the log: what was applied before the resume counts up to its step."""
    resumed = log.events.index(log.kind("resume")[0])
    first, second = (type(log)(events, log.names) for events in (log.events[:resumed], log.events[resumed:]))
    blocks = {e["part"]: e for e in log.kind("samples")}
    assert blocks
    first.events.extend(e for e in log.kind("samples") if e not in first.events)
    second.events.extend(e for e in log.kind("samples") if e not in second.events)
    return {k: v for k, v in applied(first).items() if k <= step} | applied(second)


@pytest.mark.matrix("Lightning", "resumed within an epoch by ckpt_path", attribution="exact")
@pytest.mark.parametrize("sanity", [0, 2])
def test_a_training_goes_on_in_its_trace_at_the_checkpoint_s_step(tmp_path: Path, sanity: int) -> None:
    before = cut(tmp_path, loader(shuffle=True), num_sanity_val_steps=sanity)
    assert len(before.batches) == 4
    after = Net()
    options = {"num_sanity_val_steps": sanity}
    trainer(trace_at(tmp_path), **options).fit(
        after, loader(shuffle=True), loader(4, 100), ckpt_path=tmp_path / "cut.ckpt"
    )
    log = read(tmp_path)
    assert log.kind("resume")[0]["step"] == 3
    assert not log.kind("gap")
    assert standing(log, 3) == joined(before, after, 3)
    assert sureness(log) == {"exact"}
    trains = {u.loader for u in log.uses() if u.status == "applied"}
    assert len(trains) == 1  # the same loader, whether the sanity check's came first or not
    assert not trains & {u.loader for u in log.uses() if u.key >= 100}


@pytest.mark.matrix("Lightning", "resumed within an epoch with a StatefulDataLoader", attribution="exact")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_goes_on_where_it_was_and_the_log_with_it(tmp_path: Path, workers: int) -> None:
    def stateful() -> Any:
        context = "fork" if workers else None
        return StatefulDataLoader(
            marked(12), batch_size=2, shuffle=True, num_workers=workers, multiprocessing_context=context
        )

    before = cut(tmp_path, stateful())
    after = Net()
    trainer(trace_at(tmp_path), max_epochs=1).fit(after, stateful(), loader(4, 100), ckpt_path=tmp_path / "cut.ckpt")
    log = read(tmp_path)
    assert standing(log, 3) == joined(before, after, 3)
    assert sorted(mark for marks in standing(log, 3).values() for mark in marks) == list(range(12))


def test_a_checkpoint_of_another_trace_is_refused(tmp_path: Path) -> None:
    cut(tmp_path, loader())
    other = LightningTrace(tmp_path / "other", key=tmp_path / "key.pem")
    trainer(other, max_epochs=1).fit(Net(), loader())
    with pytest.raises(ValueError, match=r"the checkpoint belongs to the trace .* and .*other\.trace is"):
        trainer(LightningTrace(tmp_path / "other", key=tmp_path / "key.pem")).fit(
            Net(), loader(), ckpt_path=tmp_path / "cut.ckpt"
        )


def test_a_trace_that_is_there_already_is_not_written_over(tmp_path: Path) -> None:
    trainer(trace_at(tmp_path), max_epochs=1).fit(Net(), loader())
    with pytest.raises(FileExistsError, match="resume=True"):
        trainer(trace_at(tmp_path), max_epochs=1).fit(Net(), loader())


def test_a_checkpoint_made_without_the_callback_leaves_a_gap(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cut"):
        trainer(Cut(tmp_path / "cut.ckpt", 2)).fit(Net(), loader())
    with pytest.warns(RuntimeWarning, match="goes on from step 3, and the log has no updates before it"):
        trainer(trace_at(tmp_path)).fit(Net(), loader(), ckpt_path=tmp_path / "cut.ckpt")
    assert "no updates before" in read(tmp_path).kind("gap")[0]["reason"]


def test_a_run_that_counts_from_another_step_than_the_checkpoint_leaves_a_gap(tmp_path: Path) -> None:
    cut(tmp_path, loader())
    with (
        start_run(tmp_path / "other", key=tmp_path / "key.pem") as run,
        pytest.warns(RuntimeWarning, match=r"from step 3, and the run other\.trace counts on from 0"),
    ):
        trainer(LightningTrace(run)).fit(Net(), loader(), ckpt_path=tmp_path / "cut.ckpt")


@pytest.mark.matrix("Lightning", "fit twice, then test, predict and validate", attribution="exact")
@pytest.mark.parametrize("own", [True, False])
def test_a_trainer_that_is_asked_again_goes_on_in_the_same_trace(tmp_path: Path, own: bool) -> None:
    run = None if own else start_run(tmp_path / "run", key=tmp_path / "key.pem")
    callback = trace_at(tmp_path, predictions=True) if run is None else LightningTrace(run, predictions=True)
    net, data, held = Net(), loader(shuffle=True), loader(4, 100)
    trainer(callback, max_epochs=1).fit(net, data, held)
    first = net.truth()
    net.trained.clear()
    trainer(callback, max_epochs=2).fit(net, data, held)
    second = net.truth()
    asked = trainer(callback)
    asked.test(net, loader(6, 200), verbose=False)
    predicted = asked.predict(net, held)
    asked.validate(net, held, verbose=False)
    if run is not None:
        run.close()
    log = read(tmp_path)
    names = ["TensorDataset", "TensorDataset-validation", "TensorDataset-test"]
    assert [e["name"] for e in log.kind("dataset")] == names
    used = [u for u in log.uses() if u.status == "applied"]
    assert sorted(u.key for u in used) == sorted(
        m for seen in (first, second) for marks in seen.values() for m in marks
    )
    assert {u.dataset for u in used} == {"TensorDataset"}
    assert [len(log.kind("resume")), len(log.kind("end"))] == ([4, 5] if own else [0, 1])
    assert len({(u.dataset, u.loader) for u in log.uses()}) == 4  # trained on, validated, tested; predicted, as held
    outputs = {log.keys(e["block"], [o])[0]: e["outputs"][i] for e in log.kind("prediction") for i, o in
               enumerate(e["ordinals"])}  # fmt: skip
    assert predicted is not None
    said = dict(zip(range(4), torch.cat(predicted).reshape(-1).tolist(), strict=True))  # type: ignore[arg-type]
    assert outputs == pytest.approx(said)
    report = fgtrac.open(tmp_path / "run.trace").verify(log.kind("run")[0]["public_key"].hex())
    assert report.verdict.value == "holds"


def test_a_tuner_s_trials_are_no_training(tmp_path: Path) -> None:
    class Tunable(Net):
        def __init__(self) -> None:
            super().__init__()
            self.lr = 0.05

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=self.lr)

    net, callback = Tunable(), trace_at(tmp_path)
    finder = lightning.callbacks.LearningRateFinder(num_training_steps=4)
    data, search = loader(shuffle=True), len
    runner = trainer(None, callbacks=[callback, finder], max_epochs=1, default_root_dir=tmp_path)
    runner.fit(net, data)
    assert search(net.batches) > 6
    log = read(tmp_path)
    assert sorted(k for marks in applied(log).values() for k in marks) == list(range(12))


def test_predictions_of_another_shape_are_said_to_be_missing(tmp_path: Path) -> None:
    class Wordy(Net):
        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return {"said": super().predict_step(batch, batch_idx)}

    with pytest.warns(RuntimeWarning, match="no tensor with one row for each sample"):
        trainer(trace_at(tmp_path, predictions=True)).predict(Wordy(), loader(4))
    assert read(tmp_path).kind("gap")
    strict = LightningTrace(tmp_path / "strict", key=tmp_path / "key.pem", predictions=True, strict=True)
    with pytest.raises(CaptureError, match="no tensor"):
        trainer(strict).predict(Wordy(), loader(4))
