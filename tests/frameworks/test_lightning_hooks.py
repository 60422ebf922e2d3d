"""What hooks read and train beside Lightning's own loop: it takes no batch from it, and gives it none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateFinder
from torch.utils.data import DataLoader

import fgtrac
from lightning_truth import QUIET, Net, applied, loader, read, sureness, trace_at, trainer

pytestmark = [*QUIET, pytest.mark.filterwarnings("ignore:.weights_only:UserWarning")]


class Reading(lightning.Callback):
    """Reads all of the train data in a hook, by Lightning's own loader or by another one."""

    def __init__(self, hook: str, *, by_own: bool) -> None:
        self.by_own = by_own
        setattr(self, hook, self.read)

    def read(self, trainer: Any, module: Any, *_: Any) -> None:
        theirs = trainer.train_dataloader
        for features, _marks in DataLoader(theirs.dataset, batch_size=4) if self.by_own else theirs:
            features.sum()


@pytest.mark.parametrize("is_copied", [False, True])
@pytest.mark.parametrize("by_own", [False, True])
@pytest.mark.parametrize("hook", ["on_train_epoch_start", "on_validation_epoch_end", "on_train_batch_end"])
def test_what_a_hook_reads_of_the_train_data_is_no_batch_of_a_step(
    tmp_path: Path, hook: str, by_own: bool, is_copied: bool
) -> None:
    net = Net(copies=is_copied)
    reading = Reading(hook, by_own=by_own)
    callbacks = [reading, trace_at(tmp_path)]
    trainer(callbacks=callbacks, val_check_interval=2).fit(net, loader(shuffle=True), loader(4, first=100))
    log = read(tmp_path)
    assert applied(log) == net.truth()
    assert (sureness(log), log.kind("gap")) == ({"exact"}, [])


class Probing(lightning.Callback):
    """Trains another model on other data in a hook."""

    def on_train_batch_end(self, *_: Any) -> None:
        probe = torch.nn.Linear(3, 1)
        probe(torch.ones(5, 3)).sum().backward()
        torch.optim.SGD(probe.parameters(), lr=0.1).step()


@pytest.mark.parametrize("is_first", [False, True])
def test_what_a_hook_trains_on_other_data_uses_no_batch(tmp_path: Path, is_first: bool) -> None:
    net, callbacks = Net(), [Probing(), trace_at(tmp_path)]
    trainer(callbacks=callbacks if is_first else callbacks[::-1], max_epochs=1).fit(net, loader(shuffle=True))
    log = read(tmp_path)
    assert (applied(log, None), sureness(log)) == (net.truth(), {"exact"})
    assert log.kind("checkpoint")[-1]["step"] == 6


class Finding(LearningRateFinder):
    """Looks for a learning rate before each epoch, as Lightning's documentation shows it."""

    def on_fit_start(self, *_: Any) -> None:
        pass

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        before = dict(module.trained)
        self.lr_find(trainer, module)
        module.trained.clear()
        module.trained.update(before)


class Rated(Net):
    lr = 0.05

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_trials_of_a_learning_rate_within_a_fit_are_not_recorded(tmp_path: Path) -> None:
    net = Rated()
    callbacks = [trace_at(tmp_path), Finding(num_training_steps=3)]
    trainer(callbacks=callbacks, default_root_dir=str(tmp_path)).fit(net, loader(shuffle=True))
    assert applied(read(tmp_path)) == net.truth()
    assert [entry["step"] for entry in read(tmp_path).kind("checkpoint")] == [6, 12]


class Two(Net):
    """Two optimizers, of which the second steps every third batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.other = torch.nn.Linear(4, 1)

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), lr=0.05) for part in (self.body, self.other)]

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        for part, optimizer in zip((self.body, self.other), self.optimizers(), strict=True):
            if part is self.body or batch_idx % 3 == 2:
                optimizer.zero_grad()
                self.manual_backward(part(batch[0]).square().mean())
                optimizer.step()


def test_an_evaluation_behind_a_fit_with_two_optimizers_undoes_no_update(tmp_path: Path) -> None:
    net, fitting = Two(), trainer(trace_at(tmp_path), max_epochs=1)
    fitting.fit(net, loader())
    fitting.validate(net, loader(4, first=100), verbose=False)
    log = read(tmp_path)
    assert [sorted(applied(log, optimizer)) for optimizer in (1, 2)] == [[1, 2, 3, 4, 5, 6], [1, 2]]
    assert [entry["step"] for entry in log.kind("resume")] == [6]


def test_a_history_does_not_give_a_sample_to_the_models_of_other_fits(tmp_path: Path) -> None:
    callback, told = trace_at(tmp_path, keep="all"), []
    for rows in (loader(4), loader(4, first=100)):
        trainer(callback, max_epochs=1).fit(Net(), rows)
        told.append(fgtrac.open(tmp_path / "run.trace").history("TensorDataset:0").text())
    assert "its uses are in the model states kept at step 2\n" in told[0]
    assert "contributed" not in told[1]
    assert "model states kept behind its uses in this trace: steps 2, 4\n" in told[1]
    assert "does not say whether they went on with the same model" in told[1]
