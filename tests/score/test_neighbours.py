"""What neighbours' features do to a node's loss: against brute force, and what cannot be asked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fgtrac.errors import ScoreError
from fgtrac.score.neighbours import LossOf, estimate, occlude
from graphs import Network, make_graph

GRAPH = make_graph()
NODE = int(torch.nonzero(GRAPH.test_mask)[0])
EDGES = GRAPH.edge_index.numpy()
BASELINE = {"x": GRAPH.x[GRAPH.train_mask].mean(0)}
FEATURES = {"x": GRAPH.x}


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Network().double().eval().requires_grad_(False)


def loss_by(model: nn.Module) -> LossOf:
    def loss_of(features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        outputs = model(features["x"].double(), GRAPH.edge_index)
        return cross_entropy(outputs[[NODE]], GRAPH.y[[NODE]])

    return loss_of


def with_baseline(nodes: list[int], share: float = 1.0) -> dict[str, torch.Tensor]:
    x = GRAPH.x.double().clone()
    x[nodes] += share * (BASELINE["x"].double() - x[nodes])
    return {"x": x}


def test_an_estimate_is_the_slope_of_the_loss_toward_the_baseline(model: nn.Module) -> None:
    loss_of = loss_by(model)
    found = estimate(loss_of, FEATURES, BASELINE)
    assert found.loss == pytest.approx(float(loss_of(FEATURES)), rel=1e-6)
    small = 1e-5
    for node in range(len(GRAPH.x)):
        slope = (float(loss_of(with_baseline([node], small))) - float(loss_of(with_baseline([])))) / small
        assert found.values[node] == pytest.approx(slope, abs=1e-3 * float(np.abs(found.values).max()))


def test_an_occlusion_is_the_loss_without_the_node_minus_the_loss(model: nn.Module) -> None:
    loss_of = loss_by(model)
    found, everyone = estimate(loss_of, FEATURES, BASELINE), np.arange(len(GRAPH.x))
    before = GRAPH.x.clone()
    occlusions = occlude(loss_of, FEATURES, BASELINE, everyone, found.values)
    plain = float(loss_of(FEATURES))
    for node in everyone.tolist():
        assert occlusions[node] == pytest.approx(float(loss_of(with_baseline([node]))) - plain, abs=1e-6)
    assert torch.equal(GRAPH.x, before)
    assert np.abs(occlusions).max() > 1e-2


def test_what_no_message_reaches_has_no_part_in_the_loss(model: nn.Module) -> None:
    loss_of, everyone = loss_by(model), np.arange(len(GRAPH.x))
    found = estimate(loss_of, FEATURES, BASELINE)
    occlusions = occlude(loss_of, FEATURES, BASELINE, everyone, found.values)
    sends = np.eye(len(GRAPH.x), dtype=np.int64)
    sends[EDGES[1], EDGES[0]] = 1
    near = np.linalg.matrix_power(sends, 2)[NODE] > 0
    assert 1 < near.sum() < len(near)
    assert found.acts.tolist() == near.tolist()
    assert not found.values[~near].any()
    assert not occlusions[~near].any()


def test_features_lie_in_several_tensors_which_are_replaced_together() -> None:
    torch.manual_seed(1)
    features = {"image": torch.randn(3, 4), "words": torch.rand(3, 2, 2)}
    baseline = {name: values.mean(0) for name, values in features.items()}
    weights = {name: torch.randn_like(values) for name, values in features.items()}

    def loss_of(given: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return sum((weights[name] * given[name]).sum() for name in weights)  # type: ignore[return-value]

    linear = estimate(loss_of, features, baseline).values
    truth = [
        sum(float((weights[name][node] * (baseline[name] - features[name][node])).sum()) for name in weights)
        for node in range(3)
    ]
    assert linear.tolist() == pytest.approx(truth, rel=1e-5)
    assert occlude(loss_of, features, baseline, np.arange(3), linear).tolist() == pytest.approx(truth, abs=1e-5)


def test_a_loss_that_does_not_follow_from_the_features_is_refused(model: nn.Module) -> None:
    fixed = loss_by(model)(FEATURES).detach()
    with pytest.raises(ScoreError, match="does not depend on 'x'"):
        estimate(lambda given: fixed, FEATURES, BASELINE)
    with torch.no_grad():  # the caller's own mode is no hindrance
        assert estimate(loss_by(model), FEATURES, BASELINE).acts.any()
    both = {**FEATURES, "words": torch.ones(len(GRAPH.x), 1)}
    with pytest.raises(ScoreError, match="does not depend on 'words'"):
        estimate(loss_by(model), both, {**BASELINE, "words": torch.ones(1)})


def test_a_pass_that_draws_at_random_is_refused(model: nn.Module) -> None:
    def loss_of(features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return loss_by(model)({"x": features["x"] + torch.randn_like(features["x"])})

    with pytest.raises(ScoreError, match="draws at random"):
        occlude(loss_of, FEATURES, BASELINE, np.arange(2), np.ones(2, np.float32))


def test_a_model_that_keeps_what_it_read_is_refused(model: nn.Module) -> None:
    kept: list[torch.Tensor] = []

    def loss_of(features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        kept.append(features["x"])
        return loss_by(model)({"x": kept[0]})

    found = estimate(loss_of, FEATURES, BASELINE)
    with pytest.raises(ScoreError, match="cached=True"):
        occlude(loss_of, FEATURES, BASELINE, np.arange(len(GRAPH.x)), found.values)


def test_numbers_that_are_none_are_an_error(model: nn.Module) -> None:
    spoiled = {"x": GRAPH.x.clone()}
    spoiled["x"][NODE] = float("nan")
    with pytest.raises(ScoreError, match="NaN or infinity"):
        estimate(loss_by(model), spoiled, BASELINE)
    with pytest.raises(ScoreError, match="NaN or infinity"):
        occlude(loss_by(model), FEATURES, {"x": torch.full((5,), torch.inf)}, np.array([NODE]), np.ones(1, np.float32))
