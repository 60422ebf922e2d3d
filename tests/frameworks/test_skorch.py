"""A skorch net under trace: every batch it was fitted with is in the log, at its update, and no other is."""

from __future__ import annotations

import contextlib
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skorch
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetRegressor
from skorch.callbacks import Callback, EpochScoring
from skorch.dataset import ValidSplit

from capture.conftest import Log, read_log
from fgtrac.api.run import start_run
from fgtrac.errors import CaptureError
from fgtrac.frameworks.skorch import SkorchTrace

WORKERS = pytest.mark.parametrize("workers", [0, 2])


class Net(torch.nn.Module):
    """Linear, with dropout; the last feature is the sample's mark, and is not computed with."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.1), torch.nn.Linear(3, 1))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.body(rows[:, :4] * 1)
        return out


class Truth(Callback):  # type: ignore[misc]
    """What the net was trained and validated on, read off its batches."""

    def __init__(self) -> None:
        self.trained: list[list[int]] = []
        self.validated: list[int] = []

    def __sklearn_clone__(self) -> Truth:
        return self

    def on_batch_end(self, net: Any, batch: Any = None, training: bool | None = None, **_: Any) -> None:
        marks = sorted(int(mark) for mark in batch[0][:, 4])
        if training:
            self.trained.append(marks)
        else:
            self.validated += marks


def points(rows: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(rows, 4)), np.arange(rows)[:, None]], axis=1).astype(np.float32)
    return X, rng.normal(size=(rows, 1)).astype(np.float32)


def net(*callbacks: Any, workers: int = 0, **options: Any) -> NeuralNetRegressor:
    torch.manual_seed(0)
    usual: dict[str, Any] = {"max_epochs": 2, "batch_size": 4, "lr": 0.05, "verbose": 0, "train_split": ValidSplit(4)}
    if workers:
        usual |= {"iterator_train__num_workers": workers, "iterator_train__multiprocessing_context": "fork"}
    return NeuralNetRegressor(
        Net, callbacks=list(callbacks), iterator_train__shuffle=True, **usual | options
    ).initialize()


def trace_at(folder: Path, **options: Any) -> SkorchTrace:
    return SkorchTrace(folder / "run", key=folder / "key.pem", **options)


def read(folder: Path) -> Log:
    return read_log(folder / "run.trace")


def applied(log: Log) -> list[list[int]]:
    out: dict[int, list[int]] = defaultdict(list)
    for use in log.uses():
        if use.status == "applied":
            out[use.step].append(use.key)
    return [sorted(keys) for _, keys in sorted(out.items())]


@pytest.mark.matrix("skorch", "fit with an internal split, shuffled, two epochs", attribution="exact")
@WORKERS
def test_a_fit_is_in_the_log_as_the_net_saw_it(tmp_path: Path, workers: int) -> None:
    truth = Truth()
    net(trace_at(tmp_path, name="points"), truth, workers=workers).fit(*points(24))
    log = read(tmp_path)
    assert applied(log) == truth.trained
    assert sorted(u.key for u in log.uses() if u.status == "unapplied") == sorted(truth.validated)
    assert {u.attribution for u in log.uses() if u.status == "applied"} == {"exact"}
    assert [e["name"] for e in log.kind("dataset")] == ["points"]
    assert sorted(e["role"] for e in log.kind("roles")) == ["train", "validation"]
    assert len(log.kind("end")) == 1


@pytest.mark.matrix("skorch", "partial_fit, then fit again with the same X", attribution="exact")
@pytest.mark.parametrize("own", [True, False])
def test_another_fit_with_the_same_rows_uses_the_same_samples(tmp_path: Path, own: bool) -> None:
    truth, (X, y) = Truth(), points(12)
    run = None if own else start_run(tmp_path / "run", key=tmp_path / "key.pem")
    made = net(trace_at(tmp_path) if run is None else SkorchTrace(run), truth, train_split=None)
    made.partial_fit(X, y)
    made.partial_fit(X, y)
    if run is not None:
        assert run.step == 12
        run.close()
    log = read(tmp_path)
    assert applied(log) == truth.trained
    assert [e["name"] for e in log.kind("dataset")] == ["ndarray"]


@pytest.mark.matrix("skorch", "scores over the training data between batches", attribution="exact")
def test_what_a_score_reads_of_the_training_data_is_no_use(tmp_path: Path) -> None:
    truth = Truth()
    score = EpochScoring("r2", on_train=True, use_caching=False, name="train_r2")
    net(trace_at(tmp_path), score, truth).fit(*points(16))
    assert applied(read(tmp_path)) == truth.trained


@pytest.mark.matrix("skorch", "a grid search over clones", attribution="exact", note="each fold's X is a data set")
def test_the_fits_of_a_grid_search_are_in_one_trace(tmp_path: Path) -> None:
    truth, (X, y) = Truth(), points(12)
    with start_run(tmp_path / "run", key=tmp_path / "key.pem") as run:
        made = net(SkorchTrace(run), truth, train_split=None, max_epochs=1)
        assert clone(made).callbacks[0] is made.callbacks[0]
        GridSearchCV(made, {"lr": [0.01, 0.02]}, cv=2, refit=False).fit(X, y)
    log = read(tmp_path)
    marks = {f"ndarray-{n + 1}" if n else "ndarray": fold for n, fold in enumerate((range(6, 12), range(6)) * 2)}
    assert [e["rows"] for e in log.kind("dataset")] == [6] * 4
    used = sorted(marks[u.dataset][u.key] for u in log.uses() if u.status == "applied")
    assert used == sorted(mark for batch in truth.trained for mark in batch)


def test_the_validation_loss_is_the_monitored_one(tmp_path: Path) -> None:
    made = net(trace_at(tmp_path, keep="all")).fit(*points(24))
    said = read(tmp_path).kind("checkpoint")
    assert [e["val_loss"] for e in said] == pytest.approx(made.history[:, "valid_loss"])
    assert [e["epoch"] for e in said] == [0, 1]
    with pytest.warns(RuntimeWarning, match="'loss' is not in the net's history.*valid_loss"):
        net(SkorchTrace(tmp_path / "other", key=tmp_path / "key.pem", monitor="loss")).fit(*points(24))


def test_weights_are_the_same_to_the_last_bit_with_and_without(tmp_path: Path) -> None:
    ends = []
    for callbacks in ((), (trace_at(tmp_path),)):
        made = net(*callbacks).fit(*points(24))
        ends.append((made.module_.state_dict(), torch.get_rng_state()))
    assert all(torch.equal(ends[0][0][name], ends[1][0][name]) for name in ends[0][0])
    assert torch.equal(ends[0][1], ends[1][1])


def test_a_copy_records_nothing_and_says_so(tmp_path: Path) -> None:
    copied = pickle.loads(pickle.dumps(trace_at(tmp_path)))
    with pytest.warns(RuntimeWarning, match="is a copy, in another process"):
        net(copied, max_epochs=1).fit(*points(8))
    assert not (tmp_path / "run.trace").exists()
    strict = pickle.loads(pickle.dumps(trace_at(tmp_path, strict=True)))
    with pytest.raises(CaptureError, match="is a copy"):
        net(strict, max_epochs=1).fit(*points(8))


def test_an_iterator_that_is_no_dataloader_is_said(tmp_path: Path) -> None:
    class Own:
        def __init__(self, data: Any, batch_size: int, shuffle: bool = False) -> None:
            self.data = data

        def __iter__(self) -> Any:
            return (tuple(torch.as_tensor(part)[None] for part in self.data[row]) for row in range(len(self.data)))

    with pytest.warns(RuntimeWarning, match="let iterator_train be a torch DataLoader"):
        net(trace_at(tmp_path), iterator_train=Own, max_epochs=1, train_split=None).fit(*points(4))
    assert read(tmp_path).kind("gap")


def test_a_fit_that_failed_is_sealed_when_the_next_begins(tmp_path: Path) -> None:
    class Failing(Callback):  # type: ignore[misc]
        fails = True

        def on_batch_end(self, net: Any, **_: Any) -> None:
            if self.fails:
                raise OSError("no more")

    failing, truth = Failing(), Truth()
    made = net(trace_at(tmp_path), truth, failing, train_split=None, max_epochs=1)
    X, y = points(8)
    with pytest.raises(OSError, match="no more"):
        made.partial_fit(X, y)
    failing.fails = False
    made.partial_fit(X, y)
    log = read(tmp_path)
    assert applied(log) == truth.trained
    assert len(log.kind("end")) == 1


@pytest.mark.matrix("skorch", "fits of one update, with gradients left from the fit before", attribution="exact")
def test_a_second_fit_of_one_update_is_no_change_by_hand(tmp_path: Path) -> None:
    truth, (X, y) = Truth(), points(8)
    made = net(trace_at(tmp_path), truth, train_split=None, max_epochs=1, batch_size=-1)
    made.partial_fit(X, y)
    made.partial_fit(X, y)
    log = read(tmp_path)
    assert applied(log) == truth.trained
    assert not log.kind("gap")


def test_a_version_that_is_not_known_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skorch, "__version__", "9.0.0")
    with pytest.warns(RuntimeWarning, match=r"this is skorch 9\.0\.0, and fgtrac knows 1\.1 to 1\.4"):
        net(trace_at(tmp_path), max_epochs=1).fit(*points(8))
    assert read(tmp_path).kind("gap")
    strict = SkorchTrace(tmp_path / "strict", key=tmp_path / "key.pem", strict=True)
    with pytest.raises(CaptureError, match=r"9\.0\.0"):
        net(strict, max_epochs=1).fit(*points(8))
    assert strict.run is None


class Breaking(Callback):  # type: ignore[misc]
    """Raises behind the third batch, the first time."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error
        self.left = 3

    def on_batch_end(self, net: Any, **_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_fit_that_breaks_off_is_sealed_without_an_end(tmp_path: Path, error: type[BaseException]) -> None:
    X, y = points(16)
    truth = Truth()
    fitted = net(truth, trace_at(tmp_path), Breaking(error), train_split=None)
    with contextlib.suppress(RuntimeError):
        fitted.partial_fit(X, y)  # skorch itself takes a KeyboardInterrupt as an end
    net(train_split=None).fit(*points(7))
    log = read(tmp_path)
    assert (applied(log), log.kind("end")) == (truth.trained[:3], [])
    pickle.dumps(fitted.module_)
    assert "fit_loop" not in vars(fitted)
    other = Truth()
    again = SkorchTrace(tmp_path / "again", key=tmp_path / "key.pem", strict=True)
    net(other, again, train_split=None).fit(X, y)
    assert applied(read_log(tmp_path / "again.trace")) == other.trained


class Probing(Callback):  # type: ignore[misc]
    def on_batch_end(self, net: Any, **_: Any) -> None:
        probe = torch.nn.Linear(3, 1)
        probe(torch.ones(5, 3)).sum().backward()
        torch.optim.SGD(probe.parameters(), lr=0.1).step()


def test_what_a_later_callback_trains_on_other_data_uses_no_batch(tmp_path: Path) -> None:
    truth = Truth()
    net(truth, trace_at(tmp_path), Probing(), train_split=None).fit(*points(16))
    assert applied(read(tmp_path)) == truth.trained


def test_each_fit_in_an_open_run_puts_its_states_on_record(tmp_path: Path) -> None:
    with start_run(tmp_path / "run", key=tmp_path / "key.pem") as run:
        fitted = net(SkorchTrace(run), train_split=None, max_epochs=1)
        fitted.fit(*points(8))
        fitted.fit(*points(8))
    assert [checkpoint["step"] for checkpoint in read(tmp_path).kind("checkpoint")] == [2, 2]
