"""A Lightning fit under trace: every batch that was trained on is in the log, at its update, and no other is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader

from fgtrac.api.run import start_run
from fgtrac.errors import CaptureError
from fgtrac.frameworks.lightning import LightningTrace
from lightning_truth import QUIET, Net, applied, loader, marked, read, sureness, trace_at, trainer

pytestmark = QUIET
WORKERS = pytest.mark.parametrize("workers", [0, 2])


@pytest.mark.matrix("Lightning", "two epochs, shuffled, validated", attribution="exact")
@WORKERS
def test_a_fit_is_in_the_log_as_the_module_saw_it(tmp_path: Path, workers: int) -> None:
    net = Net()
    trainer(trace_at(tmp_path)).fit(net, loader(shuffle=True, workers=workers), loader(4, 100))
    log = read(tmp_path)
    assert applied(log) == net.truth()
    assert sureness(log) == {"exact"}
    assert [b for _, _, b in log.batches().values()] == net.batches
    assert {(u.dataset, u.status) for u in log.uses()} == {
        ("TensorDataset", "applied"),
        ("TensorDataset-validation", "unapplied"),
    }
    assert [e["role"] for e in log.kind("roles")] == ["train", "validation"]


@pytest.mark.matrix("Lightning", "batches copied, as to another device", attribution="exact")
def test_a_model_that_is_given_copies_is_traced_as_surely(tmp_path: Path) -> None:
    net = Net(copies=True)
    trainer(trace_at(tmp_path)).fit(net, loader(shuffle=True), loader(4, 100))
    log = read(tmp_path)
    assert (applied(log), sureness(log)) == (net.truth(), {"exact"})


@pytest.mark.matrix("Lightning", "gradients accumulated over 4 batches and clipped", attribution="exact")
@WORKERS
def test_accumulated_batches_belong_to_the_update_behind_them(tmp_path: Path, workers: int) -> None:
    net = Net()
    options = {"accumulate_grad_batches": 4, "gradient_clip_val": 0.1}
    trainer(trace_at(tmp_path), **options).fit(net, loader(workers=workers, shuffle=True))
    log = read(tmp_path)
    assert applied(log) == net.truth()
    assert [len(marks) for marks in applied(log).values()] == [8, 4, 8, 4]
    assert sureness(log) == {"exact"}


@pytest.mark.matrix("Lightning", "limit_train_batches, val_check_interval", attribution="exact")
@WORKERS
def test_batches_beyond_the_limit_are_never_used(tmp_path: Path, workers: int) -> None:
    net = Net()
    options = {"limit_train_batches": 3, "val_check_interval": 2, "limit_val_batches": 1}
    trainer(trace_at(tmp_path), **options).fit(net, loader(workers=workers, shuffle=True), loader(4, 100))
    log = read(tmp_path)
    assert applied(log) == net.truth()
    assert len(log.batches()) == 6


@pytest.mark.matrix("Lightning", "stopped at max_steps within an epoch", attribution="exact")
def test_a_fit_that_stops_within_an_epoch_puts_its_last_state_on_record(tmp_path: Path) -> None:
    net = Net()
    trainer(trace_at(tmp_path), max_epochs=-1, max_steps=8).fit(net, loader(shuffle=True), loader(4, 100))
    log = read(tmp_path)
    assert applied(log) == net.truth()
    assert [(e["step"], e["kept"], "val_loss" in e) for e in log.kind("checkpoint")] == [
        (6, True, True),
        (8, True, False),
    ]


class Unsized:
    """A batch sampler that does not know how many batches it will give."""

    def __iter__(self) -> Iterator[list[int]]:
        for first in range(0, 12, 2):
            yield [first + 1, first]


@pytest.mark.matrix("Lightning", "a loader without a length, read one ahead", attribution="exact")
@WORKERS
@pytest.mark.parametrize("copies", [False, True])
def test_what_is_read_ahead_is_used_when_its_turn_comes_and_at_the_end_not_at_all(
    tmp_path: Path, workers: int, copies: bool
) -> None:
    net = Net(copies=copies)
    ahead = loader(batch_size=1, workers=workers, batch_sampler=Unsized())
    trainer(trace_at(tmp_path), max_epochs=-1, max_steps=9).fit(net, ahead)
    log = read(tmp_path)
    assert (applied(log), sureness(log)) == (net.truth(), {"exact"})
    assert [marks for _, _, marks in log.batches("unapplied").values()] == [[6, 7]]


@pytest.mark.matrix("Lightning", "sanity check, validation and training are different passes", attribution="exact")
def test_what_the_sanity_check_saw_was_not_trained_on(tmp_path: Path) -> None:
    net = Net()
    trainer(trace_at(tmp_path), num_sanity_val_steps=2, max_epochs=1).fit(net, loader(), loader(8, 100))
    log = read(tmp_path)
    assert net.evaluated["sanity"] == [100, 101, 102, 103]
    validated = [u for u in log.uses() if u.dataset == "TensorDataset-validation"]
    assert Counter(u.key + 100 for u in validated) == Counter(net.evaluated["sanity"] + net.evaluated["validate"])
    assert {u.status for u in validated} == {"unapplied"}
    assert applied(log) == net.truth()


class Several(Net):
    """Trained on a batch of each of several loaders at once."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        parts = batch.values() if isinstance(batch, dict) else batch
        losses = [self.loss(part) for part in parts if part is not None]
        return torch.stack(losses).sum()


@pytest.mark.matrix("Lightning", "several loaders a step", attribution="exact")
@WORKERS
@pytest.mark.parametrize("mode", ["min_size", "max_size", "max_size_cycle"])
def test_a_step_rests_on_the_batches_of_all_its_loaders(tmp_path: Path, workers: int, mode: Any) -> None:
    net = Several(copies=True)
    loaders = {"a": loader(12, shuffle=True, workers=workers), "b": loader(6, 100, shuffle=True)}
    trainer(trace_at(tmp_path)).fit(net, CombinedLoader(loaders, mode))
    log = read(tmp_path)
    marks = {"TensorDataset": 0, "TensorDataset-2": 100}
    said: dict[int, list[int]] = {}
    for use in log.uses():
        if use.status == "applied":
            said.setdefault(use.step, []).append(marks[use.dataset] + use.key)
    assert {step: sorted(keys) for step, keys in sorted(said.items())} == net.truth()
    assert sureness(log) == {"exact"}


class Adversaries(Net):
    """Two optimizers, stepped by the module itself; the second skips every other batch."""

    def __init__(self) -> None:
        super().__init__(copies=True)
        self.automatic_optimization = False
        self.critic = torch.nn.Linear(4, 1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        first, second = self.optimizers()
        self.batches.append(sorted(batch[1].tolist()))
        first.zero_grad()
        self.manual_backward(self(batch[0]).square().mean())
        first.step()
        if batch_idx % 2 == 0:
            second.zero_grad()
            self.manual_backward(self.critic(batch[0] * 1).square().mean())
            second.step()

    def configure_optimizers(self) -> Any:
        parts = self.body.parameters(), self.critic.parameters()
        return [torch.optim.SGD(part, lr=0.05) for part in parts]


@pytest.mark.matrix("Lightning", "manual optimization, two optimizers", attribution="exact")
def test_each_optimizer_used_the_batches_that_it_stepped_on(tmp_path: Path) -> None:
    net = Adversaries()
    trainer(trace_at(tmp_path), max_epochs=1).fit(net, loader(shuffle=True))
    log = read(tmp_path)
    assert list(applied(log, 1).values()) == net.batches
    assert list(applied(log, 2).values()) == net.batches[::2]
    assert sureness(log) == {"exact"}


class Drawing(Net):
    """Draws its batches itself, one ahead."""

    def training_step(self, dataloader_iter: Iterator[Any]) -> torch.Tensor:  # type: ignore[override]
        batch, _, _ = next(dataloader_iter)
        return self.loss(batch)


@pytest.mark.matrix("Lightning", "training_step(self, dataloader_iter)", attribution="exact")
@pytest.mark.filterwarnings("ignore:Found .dataloader_iter. argument")
def test_a_module_that_draws_its_batches_itself_is_recognised_by_their_memory(tmp_path: Path) -> None:
    net = Drawing()
    trainer(trace_at(tmp_path), max_epochs=1).fit(net, loader(shuffle=True))
    log = read(tmp_path)
    assert (applied(log), sureness(log)) == (net.truth(), {"exact"})


class Leaving(Net):
    """Leaves an epoch at its third batch, before it is trained on."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> Any:
        return -1 if batch_idx == 2 else None


@pytest.mark.matrix("Lightning", "on_train_batch_start returns -1", attribution="exact")
@WORKERS
def test_a_batch_that_ends_the_epoch_was_not_used(tmp_path: Path, workers: int) -> None:
    net = Leaving()
    trainer(trace_at(tmp_path)).fit(net, loader(shuffle=True, workers=workers))
    log = read(tmp_path)
    assert applied(log) == net.truth()
    assert len(log.batches()) == 4
    assert len(log.batches("unapplied")) == 2


class Skipping(Net):
    """Returns no loss for every third batch: no backward pass, and no new update."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor | None:
        return None if batch_idx % 3 == 1 else self.loss(batch)


@pytest.mark.matrix("Lightning", "training_step returns None", attribution="exact")
@pytest.mark.filterwarnings("ignore:.*training_step. returned .None.")
def test_a_batch_without_a_loss_was_not_used(tmp_path: Path) -> None:
    net = Skipping(copies=True)
    trainer(trace_at(tmp_path), max_epochs=1).fit(net, loader(shuffle=True))
    assert sorted(applied(read(tmp_path)).values()) == sorted(net.batches)


def nothing_for_some(items: list[Any]) -> Any:
    marks = [int(mark) for _, mark in items]
    return None if 4 in marks else torch.utils.data.default_collate(items)


@pytest.mark.matrix("Lightning", "a collate function that gives None", attribution="exact")
@pytest.mark.filterwarnings("ignore:.*train_dataloader yielded None", "ignore:fgtrac. batch:RuntimeWarning")
@WORKERS
def test_a_batch_of_nothing_moves_no_other_one_to_a_wrong_update(tmp_path: Path, workers: int) -> None:
    net = Net(copies=True)
    trainer(trace_at(tmp_path), max_epochs=1).fit(net, loader(collate_fn=nothing_for_some, workers=workers))
    assert applied(read(tmp_path)) == net.truth()
    assert net.batches == [[0, 1], [2, 3], [6, 7], [8, 9], [10, 11]]


@pytest.mark.matrix("Lightning", "a loader made anew each epoch, around the same data", attribution="exact")
@WORKERS
def test_loaders_made_anew_go_on_as_the_same_loader(tmp_path: Path, workers: int) -> None:
    class Reloading(Net):
        data, held = marked(12), marked(4, 100)

        def train_dataloader(self) -> Any:
            options = {"num_workers": workers, "multiprocessing_context": "fork" if workers else None}
            return DataLoader(self.data, batch_size=2, shuffle=True, **options)  # type: ignore[arg-type]

        def val_dataloader(self) -> Any:
            return DataLoader(self.held, batch_size=2)

    net = Reloading()
    trainer(trace_at(tmp_path), reload_dataloaders_every_n_epochs=1).fit(net)
    log = read(tmp_path)
    assert applied(log) == net.truth()
    assert {u.loader for u in log.uses() if u.status == "applied"} == {1}


@pytest.mark.matrix("Lightning", "a data set made anew each epoch, with the same contents", attribution="exact")
def test_a_data_set_made_anew_with_the_same_contents_has_the_same_samples(tmp_path: Path) -> None:
    class Reloading(Net):
        def train_dataloader(self) -> Any:
            return loader(shuffle=True)

    net = Reloading()
    trainer(trace_at(tmp_path), reload_dataloaders_every_n_epochs=1).fit(net)
    log = read(tmp_path)
    assert applied(log) == net.truth()
    assert [e["name"] for e in log.kind("dataset")] == ["TensorDataset"]


class Untold(torch.utils.data.Dataset[Any]):
    """Rows whose contents no digest can be taken of."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, row: int) -> Any:
        return torch.ones(4) * row, row


@pytest.mark.matrix("Lightning", "a data set made anew, with contents unknown", note="a gap entry and a warning")
def test_nobody_can_tell_whether_unknown_data_made_anew_are_the_same(tmp_path: Path) -> None:
    class Reloading(Net):
        def train_dataloader(self) -> Any:
            return DataLoader(Untold(), batch_size=2)

    with pytest.warns(RuntimeWarning, match="made anew around another Untold of 4 rows"):
        trainer(trace_at(tmp_path), reload_dataloaders_every_n_epochs=1).fit(Reloading())
    assert "made anew" in read(tmp_path).kind("gap")[0]["reason"]


class Batches:
    """An iterable of batches of its own."""

    def __iter__(self) -> Iterator[Any]:
        rows = marked(4)
        return iter([rows[:2], rows[2:]])


@pytest.mark.matrix(
    "Lightning", "an iterable that is no DataLoader", note="a gap entry and a warning; strict: CaptureError"
)
def test_what_is_no_dataloader_is_said_to_be_missing(tmp_path: Path) -> None:
    net = Net()
    batches = Batches()
    with pytest.warns(RuntimeWarning, match="the train loader, a Batches"):
        trainer(trace_at(tmp_path), max_epochs=1).fit(net, batches)
    assert len(net.batches) == 2
    assert "give a torch DataLoader" in read(tmp_path).kind("gap")[0]["reason"]
    with pytest.raises(CaptureError, match="the train loader, a Batches"):
        trainer(LightningTrace(tmp_path / "strict", key=tmp_path / "key.pem", strict=True)).fit(Net(), batches)


def test_weights_are_the_same_to_the_last_bit_with_and_without(tmp_path: Path) -> None:
    ends = []
    for callback in (None, trace_at(tmp_path)):
        lightning.seed_everything(3, verbose=False)
        net = Net()
        torch.manual_seed(3)
        trainer(callback, num_sanity_val_steps=1).fit(net, loader(shuffle=True), loader(4, 100))
        ends.append((net.state_dict(), torch.get_rng_state()))
    (plain, plain_rng), (traced, traced_rng) = ends
    assert all(torch.equal(plain[name], traced[name]) for name in plain)
    assert torch.equal(plain_rng, traced_rng)


def test_the_validation_loss_is_the_monitored_metric(tmp_path: Path) -> None:
    runner = trainer(trace_at(tmp_path, keep="all"))
    runner.fit(Net(), loader(), loader(4, 100))
    said = read(tmp_path).kind("checkpoint")
    assert [(e["step"], e["epoch"]) for e in said] == [(6, 0), (12, 1)]
    assert said[-1]["val_loss"] == pytest.approx(float(runner.callback_metrics["val_loss"]))


def test_a_metric_that_was_not_logged_is_named_with_those_that_were(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="'loss' was not logged.*monitor=: val_loss"):
        trainer(trace_at(tmp_path, monitor="loss"), max_epochs=1).fit(Net(), loader(), loader(4, 100))
    assert "val_loss" not in read(tmp_path).kind("checkpoint")[0]


def test_a_fit_that_fails_leaves_a_sealed_trace_without_an_end(tmp_path: Path) -> None:
    class Failing(Net):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            if batch_idx == 3:
                raise OSError("no more")
            return self.loss(batch)

    net = Failing()
    callback = trace_at(tmp_path)
    runner = trainer(callback)
    with pytest.raises(OSError, match="no more"):
        runner.fit(net, loader())
    log = read(tmp_path)
    assert applied(log) == net.truth()
    assert not log.kind("end")
    assert callback.run is None
    assert "process_dataloader" not in vars(runner.strategy)


def test_a_version_that_is_not_known_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightning, "__version__", "9.1.0")
    with pytest.warns(RuntimeWarning, match=r"this is Lightning 9\.1\.0, and fgtrac knows 2\.4 to 2\.6"):
        trainer(trace_at(tmp_path), max_epochs=1).fit(Net(), loader())
    assert read(tmp_path).kind("gap")
    strict = LightningTrace(tmp_path / "strict", key=tmp_path / "key.pem", strict=True)
    with pytest.raises(CaptureError, match=r"9\.1\.0"):
        trainer(strict).fit(Net(), loader())


def test_an_open_run_stays_open_and_takes_no_options(tmp_path: Path) -> None:
    with start_run(tmp_path / "run", key=tmp_path / "key.pem") as run:
        with pytest.raises(ValueError, match="strict= was given beside a run that is open"):
            LightningTrace(run, strict=True)
        net = Net()
        trainer(LightningTrace(run), max_epochs=1).fit(net, loader())
        assert run.step == 6
    assert applied(read(tmp_path)) == net.truth()


@pytest.mark.matrix("Lightning", "under the name pytorch_lightning", attribution="exact")
@pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning")
def test_a_trainer_of_the_other_name_is_traced_too(tmp_path: Path) -> None:
    import pytorch_lightning

    class Other(pytorch_lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.seen = torch.nn.Linear(4, 1), []  # type: ignore[var-annotated]

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            self.seen.append(sorted(batch[1].tolist()))
            return self.net(batch[0] * 1).square().mean()  # type: ignore[no-any-return]

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.05)

    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    net = Other()
    runner = pytorch_lightning.Trainer(max_epochs=2, accelerator="cpu", callbacks=[trace_at(tmp_path)], **quiet)
    runner.fit(net, loader(shuffle=True))
    log = read(tmp_path)
    assert list(applied(log).values()) == net.seen
    assert sureness(log) == {"exact"}


class Stream(torch.utils.data.IterableDataset[Any]):
    """Marked rows in order, without a length; each worker has its part."""

    def __init__(self) -> None:
        self.rows = marked(12)

    def __iter__(self) -> Iterator[Any]:
        info = torch.utils.data.get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        return (self.rows[row] for row in range(first, 12, step))


def mark_of(sample: Any) -> int:
    return int(sample[1])


@pytest.mark.matrix("Lightning", "an iterable data set without a length, read one ahead", attribution="exact")
@WORKERS
def test_a_stream_is_traced_though_it_is_read_ahead(tmp_path: Path, workers: int) -> None:
    stream = Stream()

    class Reloading(Net):
        def train_dataloader(self) -> Any:
            return DataLoader(
                stream, batch_size=2, num_workers=workers, multiprocessing_context="fork" if workers else None
            )

    net = Reloading(copies=True)
    with start_run(tmp_path / "run", key=tmp_path / "key.pem") as run:
        callback = LightningTrace(run, key_of=mark_of)
        trainer(callback, reload_dataloaders_every_n_epochs=1, max_epochs=-1, max_steps=9).fit(net)
    log = read(tmp_path)
    assert (applied(log), sureness(log)) == (net.truth(), {"exact"})
    assert {u.loader for u in log.uses()} == {1}


@pytest.mark.matrix("Lightning", "an iterable data set made anew each epoch", note="a gap entry and a warning")
def test_nobody_can_tell_whether_a_stream_made_anew_has_the_same_samples(tmp_path: Path) -> None:
    class Reloading(Net):
        def train_dataloader(self) -> Any:
            return DataLoader(Stream(), batch_size=2)

    net = Reloading()
    with pytest.warns(RuntimeWarning, match="the train loader was made anew around another stream"):
        trainer(trace_at(tmp_path, key_of=mark_of), reload_dataloaders_every_n_epochs=1).fit(net)
    log = read(tmp_path)
    assert applied(log) == net.truth()
    assert "another stream" in log.kind("gap")[0]["reason"]
