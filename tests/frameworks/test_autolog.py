"""One line records every Trainer and net that is made behind it, and no other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import pytest
import torch
import transformers
from skorch import NeuralNetRegressor

import fgtrac
from capture.conftest import read_log
from fgtrac.frameworks.lightning import LightningTrace
from fgtrac.frameworks.skorch import SkorchTrace
from fgtrac.frameworks.trainer import TrainerTrace
from lightning_truth import QUIET, Net, applied, loader, trace_at, trainer

pytestmark = QUIET
OWNERS = (
    (lightning.Trainer, "__init__"),
    (transformers.Trainer, "__init__"),
    (NeuralNetRegressor, "initialize_callbacks"),
)


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    yield
    fgtrac.autolog(off=True)


def small_net(**options: Any) -> NeuralNetRegressor:
    return NeuralNetRegressor(torch.nn.Linear(3, 1), max_epochs=1, verbose=0, train_split=None, **options)


def fit(net: NeuralNetRegressor) -> None:
    rng = np.random.default_rng(0)
    net.fit(rng.normal(size=(8, 3)).astype("float32"), rng.normal(size=(8, 1)).astype("float32"))


def hugging_face_trainer(folder: Path, **options: Any) -> transformers.Trainer:
    class Model(torch.nn.Linear):
        def forward(self, x: Any, labels: Any = None) -> Any:  # type: ignore[override]
            said = super().forward(x)
            return {"loss": (said - labels).square().mean(), "logits": said}

    rows = [{"x": torch.randn(3), "labels": torch.ones(1)} for _ in range(8)]
    arguments = transformers.TrainingArguments(
        str(folder / "saves"), max_steps=2, per_device_train_batch_size=4, report_to=[], save_strategy="no",
        disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False,
    )  # fmt: skip
    return transformers.Trainer(Model(3, 1), arguments, train_dataset=rows, **options)


def test_each_trainer_and_net_records_into_a_trace_of_its_own(tmp_path: Path) -> None:
    fgtrac.autolog(tmp_path / "runs", key=tmp_path / "key.pem")
    net = Net()
    for _ in range(2):
        net = Net()
        trainer(None, max_epochs=1).fit(net, loader(shuffle=True))
    hugging_face_trainer(tmp_path).train()
    recorded = small_net()
    fit(recorded)
    fit(recorded)
    names = sorted(path.name for path in (tmp_path / "runs").glob("*.trace"))
    assert names == ["lightning-1.trace", "lightning-2.trace", "skorch-1.trace", "trainer-1.trace"]
    assert applied(read_log(tmp_path / "runs" / "lightning-2.trace")) == net.truth()
    for name, uses in (("trainer-1", 8), ("skorch-1", 16)):
        log = read_log(tmp_path / "runs" / f"{name}.trace")
        assert sum(len(marks) for marks in applied(log).values()) == uses


def test_a_callback_that_is_there_already_is_the_only_one(tmp_path: Path) -> None:
    fgtrac.autolog(tmp_path / "runs")
    mine = trace_at(tmp_path)
    assert [c for c in trainer(mine).callbacks if isinstance(c, LightningTrace)] == [mine]
    own = TrainerTrace(tmp_path / "other", key=tmp_path / "key.pem")
    made = hugging_face_trainer(tmp_path, callbacks=[own])
    assert [c for c in made.callback_handler.callbacks if isinstance(c, TrainerTrace)] == [own]
    theirs = SkorchTrace(tmp_path / "third", key=tmp_path / "key.pem")
    net = small_net(callbacks=[theirs]).initialize()
    assert [c for _, c in net.callbacks_ if isinstance(c, SkorchTrace)] == [theirs]


def test_a_number_that_is_taken_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "runs" / "lightning-1.trace").mkdir(parents=True)
    fgtrac.autolog(tmp_path / "runs", key=tmp_path / "key.pem")
    trainer(None, max_epochs=1).fit(Net(), loader(4))
    assert (tmp_path / "runs" / "lightning-2.trace" / "checkpoint").exists()


def test_a_number_is_taken_when_the_trace_begins(tmp_path: Path) -> None:
    fgtrac.autolog(tmp_path / "runs", key=tmp_path / "key.pem")
    earlier = trainer(None, max_epochs=1)
    fgtrac.autolog(tmp_path / "runs", key=tmp_path / "key.pem", strict=True)
    for fitting in (trainer(None, max_epochs=1), earlier):
        fitting.fit(Net(), loader(4))
    names = sorted(path.name for path in (tmp_path / "runs").glob("*.trace"))
    assert names == ["lightning-1.trace", "lightning-2.trace"]


def test_an_option_that_nobody_knows_is_refused_where_a_trainer_is_made(tmp_path: Path) -> None:
    fgtrac.autolog(tmp_path / "runs", stricte=True)
    with pytest.raises(TypeError, match="stricte= is no option of start_run"):
        trainer(None)


def test_predictions_are_asked_of_those_that_record_them(tmp_path: Path) -> None:
    fgtrac.autolog(tmp_path / "runs", key=tmp_path / "key.pem", predictions=True)
    fit(small_net())
    assert [c.predictions for c in trainer(None).callbacks if isinstance(c, LightningTrace)] == [True]


def test_off_leaves_everything_as_it_was(tmp_path: Path) -> None:
    before = [getattr(owner, name) for owner, name in OWNERS], list(sys.meta_path)
    fgtrac.autolog(tmp_path / "runs")
    fgtrac.autolog(tmp_path / "other")
    assert all(getattr(owner, name) is not method for (owner, name), method in zip(OWNERS, before[0], strict=True))
    fgtrac.autolog(off=True)
    assert ([getattr(owner, name) for owner, name in OWNERS], list(sys.meta_path)) == before
    trainer(None, max_epochs=1).fit(Net(), loader(4))
    assert not (tmp_path / "other").exists()


def test_nothing_is_imported_for_it_and_what_is_imported_later_is_recorded(tmp_path: Path) -> None:
    script = """
import sys, fgtrac
fgtrac.autolog("runs", key="key.pem")
assert not {"torch", "lightning", "skorch", "transformers"} & set(sys.modules)
import numpy, torch, skorch
data = numpy.ones((8, 3), dtype="float32"), numpy.ones((8, 1), dtype="float32")
skorch.NeuralNetRegressor(torch.nn.Linear(3, 1), max_epochs=1, verbose=0, train_split=None).fit(*data)
assert "lightning" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    assert (tmp_path / "runs" / "skorch-1.trace" / "checkpoint").exists()
