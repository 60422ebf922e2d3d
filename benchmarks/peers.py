"""The scores of other packages, through their own interfaces: captum, TRAK and kronfluence.

Each gives (n, tests) float32, positive where a training sample lowers the test loss.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retrainings import Floats, Task

NEEDED = {"captum": "captum==0.9.0", "trak": "traker==0.3.2", "kronfluence": "kronfluence==1.0.1"}
PROJECTED = 512
States = Sequence[dict[str, Tensor]]


def check_installed() -> None:
    """Say what to install where a peer is missing, and stop."""
    missing = [words for name, words in NEEDED.items() if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"{' and '.join(missing)} missing: run `make .venv/ready`, or pip install -e '.[peers]' and "
            "pip install --no-deps kronfluence==1.0.1"
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the peers' progress bars, log lines and warnings, and from the same random numbers each time."""
    level = logging.root.manager.disable
    with (
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
        torch.random.fork_rng(devices=[]),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        torch.manual_seed(0)
        try:
            yield
        finally:
            logging.disable(level)


def captum_fast(task: Task, model: nn.Sequential, states: States) -> Floats:
    """TracInCPFast over the last layer at some checkpoints."""
    from captum.influence import TracInCPFast

    def load(net: nn.Module, state: Any) -> float:
        net.load_state_dict(state)
        return task.learning_rate

    with quiet():
        tracin = TracInCPFast(
            model, model[-1], task.train.data, list(states), load, nn.CrossEntropyLoss(reduction="sum"), batch_size=500
        )
        scores = tracin.influence((task.test.inputs, task.test.labels), k=None)
    return scores.T.numpy()


def trak(task: Task, model: nn.Sequential, states: States) -> Floats:
    """TRAK over all parameters, a random projection of 512 numbers a checkpoint; float32, in torch."""
    from trak import TRAKer
    from trak.projectors import BasicProjector, ProjectionType

    size = sum(parameter.numel() for parameter in model.parameters())
    with quiet(), tempfile.TemporaryDirectory() as folder:
        projector = BasicProjector(
            size, PROJECTED, 0, ProjectionType.normal, "cpu", block_size=PROJECTED, dtype=torch.float32
        )
        traker = TRAKer(
            model, "image_classification", len(task.train), folder, device="cpu", projector=projector,
            proj_dim=PROJECTED, use_half_precision=False,
        )  # fmt: skip
        for number, state in enumerate(states):
            traker.load_checkpoint(state, model_id=number)
            traker.featurize((task.train.inputs, task.train.labels), num_samples=len(task.train))
        traker.finalize_features()
        for number, state in enumerate(states):
            traker.start_scoring_checkpoint("test", state, number, len(task.test))
            traker.score((task.test.inputs, task.test.labels), num_samples=len(task.test))
        return np.array(traker.finalize_scores("test"), dtype=np.float32)


def kronfluence_ekfac(task: Task, model: nn.Sequential, states: States, damping: float | None) -> Floats:
    """EKFAC over all layers, factors by sampled labels as by default; the sum over checkpoints."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task as Base

    class Classify(Base):
        def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
            inputs, labels = batch
            outputs = model(inputs)
            if sample:
                labels = torch.multinomial(outputs.detach().softmax(1), 1).flatten()
            return nn.functional.cross_entropy(outputs, labels, reduction="sum")

        def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
            return self.compute_train_loss(batch, model)

    total = np.zeros((len(task.train), len(task.test)), dtype=np.float32)
    for state in states:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            copy = _copy(model, state)
            analyzer = Analyzer(
                "lds", prepare_model(copy, Classify()), Classify(), cpu=True, output_dir=folder, disable_tqdm=True
            )
            analyzer.fit_all_factors("f", task.train.data, 500, factor_args=FactorArguments(strategy="ekfac"))
            analyzer.compute_pairwise_scores(
                "s", "f", task.test.data, task.train.data, len(task.test), 500,
                score_args=ScoreArguments(damping_factor=damping),
            )  # fmt: skip
            total += analyzer.load_pairwise_scores("s")["all_modules"].numpy().T
    return total


def _copy(model: nn.Sequential, state: dict[str, Tensor]) -> nn.Sequential:
    """A new model of the same layers in that state: kronfluence wraps the one that it is given."""
    layers = [nn.Linear(m.in_features, m.out_features) if isinstance(m, nn.Linear) else nn.ReLU() for m in model]
    copy = nn.Sequential(*layers)
    copy.load_state_dict(state)
    return copy
