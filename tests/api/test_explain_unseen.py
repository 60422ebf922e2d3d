"""A batch that the trace has never seen is explained through its kept states, and the model stays as it was."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

import fgtrac
from fgtrac.api.ledger import state_path
from fgtrac.api.trace import Trace
from fgtrac.errors import ScoreError, TamperError
from fgtrac.store.tensor_files import open_tensors

from .conftest import Problem, points


class Scored:
    """A scored trace, and a batch of unseen data."""

    def __init__(self, folder: Path) -> None:
        self.problem = Problem(folder)
        self.model = self.problem.model()
        with self.problem.start() as run:
            self.problem.score_with(run, dtype="float32")
            self.problem.fit(run, self.model)
        self.batch = points(7, 9).tensors

    @property
    def trace(self) -> Trace:
        return fgtrac.open(self.problem.folder / "run.trace")

    def matrix(self) -> np.ndarray:
        """(training samples by position, batch) by explicit gradients at each state, times the learning rate."""
        total = np.zeros((len(self.problem.train), len(self.batch[0])))
        for state in self.problem.ledger.states:
            path = self.problem.trace.path / state_path(state)
            tensors = {n: torch.from_numpy(t.array.copy()) for n, t in open_tensors(path).tensors.items()}
            total += 0.1 * (
                self._gradients(tensors, self.problem.train.tensors) @ self._gradients(tensors, self.batch).T
            )
        return total

    def _gradients(self, state: dict[str, torch.Tensor], data: tuple[torch.Tensor, ...]) -> np.ndarray:
        model = copy.deepcopy(self.model).eval()
        fixed = {n: t for n, t in state.items() if not n.startswith("4.")}
        last = {n: t for n, t in state.items() if n.startswith("4.")}

        def loss(part: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return cross_entropy(functional_call(model, {**fixed, **part}, (x[None],)), y[None])

        found = vmap(grad(loss), (None, 0, 0))(last, *data)
        return torch.cat([found["4.weight"].flatten(1), found["4.bias"]], dim=1).double().numpy()


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    return Scored(tmp_path_factory.mktemp("unseen"))


def test_each_sample_of_the_batch_is_explained_as_by_explicit_gradients(scored: Scored) -> None:
    told = scored.trace.explain(scored.batch, model=scored.model, loss=nn.CrossEntropyLoss(), k=5)
    truth = scored.matrix()
    assert len(told.toward) == 7
    for j, one in enumerate(told.toward):
        assert one.label == int(scored.batch[1][j])
        order = np.argsort(-truth[:, j], kind="stable")
        assert [int(str(s.name).rpartition(":")[2]) for s in one.proponents] == order[:5].tolist()
        assert [s.score for s in one.proponents] == pytest.approx(truth[order[:5], j].tolist(), rel=1e-3)
        assert [int(str(s.name).rpartition(":")[2]) for s in one.opponents] == order[::-1][:5].tolist()


def test_the_model_its_mode_and_the_random_state_stay_as_they_are(scored: Scored) -> None:
    model = scored.model.train()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    scored.trace.explain(scored.batch, model=model, loss=cross_entropy)
    assert model.training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_a_batch_of_another_shape_goes_through_forward(scored: Scored) -> None:
    named = {"x": scored.batch[0], "y": scored.batch[1]}
    told = scored.trace.explain(
        named, model=scored.model, loss=cross_entropy, forward=lambda model, batch: (model(batch["x"]), batch["y"])
    )
    plain = scored.trace.explain(scored.batch, model=scored.model, loss=cross_entropy)
    assert told == plain


def test_a_checkpoint_of_another_architecture_is_told_with_both_shapes(scored: Scored) -> None:
    other = nn.Sequential(nn.Linear(8, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.3), nn.Linear(5, 3))
    with pytest.raises(ScoreError, match=r"another architecture: '0.bias' has shape \(6,\) there and shape \(5,\)"):
        scored.trace.explain(scored.batch, model=other, loss=cross_entropy)


def test_a_state_that_was_swapped_is_tampering(scored: Scored, tmp_path: Path) -> None:
    own = Scored(tmp_path)
    path = own.problem.trace.path / state_path(own.problem.ledger.states[1])
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(TamperError, match="the log says"):
        own.trace.explain(own.batch, model=own.model, loss=cross_entropy)
    path.unlink()
    with pytest.raises(TamperError, match="which the log names"):
        own.trace.explain(own.batch, model=own.model, loss=cross_entropy)


def test_what_is_no_model_or_not_one_batch_is_refused(scored: Scored) -> None:
    with pytest.raises(TypeError, match="model= takes a torch"):
        scored.trace.explain(scored.batch, model="cnn", loss=cross_entropy)
    with pytest.raises(ValueError, match="takes one batch of unseen data, not 2"):
        scored.trace.explain(scored.batch, scored.batch, model=scored.model, loss=cross_entropy)


def test_scores_toward_unseen_data_are_recorded_and_verified(scored: Scored, tmp_path: Path) -> None:
    own = Scored(tmp_path)
    key = own.problem.folder / "key.pem"
    done = own.trace.record(own.batch, model=own.model, loss=cross_entropy, method="fisher", key=key)
    assert done.scores == 7 * 3 * 90
    report = own.trace.verify(str(key))
    assert report.exit_code == 0, str(report)


def test_an_ensemble_explains_a_batch_by_one_model(scored: Scored, tmp_path: Path) -> None:
    asked = {"model": scored.model, "loss": cross_entropy, "k": 3}
    (tmp_path / "other").mkdir()
    other = Scored(tmp_path / "other")
    together = fgtrac.ensemble([scored.trace, other.trace])
    told = together.explain(scored.batch, **asked)
    whole = [t.explain(scored.batch, **{**asked, "k": 90}) for t in (scored.trace, other.trace)]
    for j, one in enumerate(told.toward):
        best = one.proponents[0]
        each = [next(s.score for s in w.toward[j].proponents if s.name == best.name) for w in whole]
        assert list(best.trace) == pytest.approx(each, rel=1e-3)
