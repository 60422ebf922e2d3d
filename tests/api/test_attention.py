"""Modality weights: recorded at kept checkpoints, as the model of that checkpoint gives them, and read again."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset
from typer.testing import CliRunner

import fgtrac
from fgtrac.api.ledger import read_ledger, state_path
from fgtrac.api.reweigh import weights_demand
from fgtrac.api.run import Run, reopen
from fgtrac.cli.main import app
from fgtrac.commit.keys import load_key
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.report import Verdict

MODALITIES = ("image", "words")
SEVEN = torch.tensor([7])


class Weighing(nn.Module):
    """Two modalities of four numbers each, weighed for each sample; dropout and batch normalisation beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 2))
        self.head = nn.Linear(8, 3)

    def weights(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.weigh(inputs).softmax(1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(inputs * self.weights(inputs).repeat_interleave(4, dim=1))


def weighing() -> Weighing:
    torch.manual_seed(0)
    return Weighing()


def inputs_of(problem: Any) -> torch.Tensor:
    return problem.train.tensors[0]


def weigh_all(run: Run, problem: Any, **options: Any) -> None:
    said = {"data": problem.train, "modalities": MODALITIES, "weights": lambda model: model.weights(inputs_of(problem))}
    run.attention_with(**(said | options))


def opened(problem: Any) -> fgtrac.Trace:
    return fgtrac.open(problem.trace.path, key=str(problem.signing_key.public_key().public_bytes_raw().hex()))


def states(trace: TraceDir) -> dict[int, dict[str, torch.Tensor]]:
    """The kept states by step, as the log commits to them."""
    found = {}
    for state in read_ledger(trace).states:
        data = trace.read(state_path(state))
        assert hashlib.sha256(data).digest() == state.digest
        found[state.step] = load(data)
    return found


def committed(problem: Any, step: int) -> Weighing:
    model = weighing()
    model.load_state_dict(states(problem.trace)[step])
    return model.eval()


def attention_holds(problem: Any) -> str:
    report = opened(problem).verify()
    assert report.verdict is Verdict.HOLDS, report.failures()
    (words,) = [finding.words for finding in report.findings if finding.check == "attention"]
    return words


def test_every_kept_checkpoint_has_the_weights_that_its_committed_state_gives(problem: Any) -> None:
    with problem.start(keep="every:2") as run:
        weigh_all(run, problem)
        problem.fit(run, weighing(), epochs=5)
    trace = opened(problem)
    found = trace.modality_weights()
    assert [one.step for one in found] == [6, 18, 30]
    assert len(problem.events("checkpoint")) == 5
    names = [trace.find(f"TensorDataset:{row}").id for row in range(len(problem.train))]
    for one in found:
        assert (one.standing, one.modalities, one.weights.dtype) == ("kept", MODALITIES, np.float32)
        by_row = np.argsort([names.index(sample.tobytes()) for sample in one.ids])
        with torch.no_grad():
            np.testing.assert_array_equal(one.weights[by_row], committed(problem, one.step).weights(inputs_of(problem)))
    assert "270 rows of modality weights" in attention_holds(problem)


def test_the_rows_of_twenty_nodes_are_those_of_the_committed_state(tmp_path: Path) -> None:
    from graphs import FEATURES, Network, make_graph, node_loader

    class GraphWeighing(Network):
        def __init__(self) -> None:
            super().__init__()
            self.weigh = nn.Linear(FEATURES, 2)

        def weights(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
            return (self.weigh(x) + self(x, edges)[:, :2]).softmax(1)

    graph, model = make_graph(), GraphWeighing()
    with fgtrac.start_run(tmp_path / "run", key=tmp_path / "key.pem", keep="all") as run:
        loader = run.watch(node_loader(graph), role="train")
        run.attention_with(weights=lambda m: m.weights(graph.x, graph.edge_index), data=graph, modalities=MODALITIES)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(2):
            for batch in loader:
                optimizer.zero_grad()
                outputs = model(batch.x, batch.edge_index)[: batch.batch_size]
                weighed = model.weights(batch.x, batch.edge_index)[: batch.batch_size, :1]
                cross_entropy(outputs * weighed, batch.y[: batch.batch_size]).backward()
                optimizer.step()
            run.checkpoint(model, optimizer, val_loss=1.0)
    trace, kept = fgtrac.open(run.path), states(TraceDir.open(run.path))
    assert list(kept) == [4, 8]
    for node in np.random.default_rng(0).choice(60, 20, replace=False).tolist():
        found = trace.modality_weights(f"graph:{node}")
        assert [one.step for one in found] == [4, 8]
        for one in found:
            again = GraphWeighing()
            again.load_state_dict(kept[one.step])
            with torch.no_grad():
                np.testing.assert_array_equal(one.weights[0], again.eval().weights(graph.x, graph.edge_index)[node])

    def given(run: Any) -> nn.Module:
        run.attention_with(weights=lambda m: m.weights(graph.x, graph.edge_index), data=graph, modalities=MODALITIES)
        return GraphWeighing()

    key = load_key(tmp_path / "key.pem").public_key().public_bytes_raw().hex()
    report = trace.verify(key, demands=[weights_demand(1_000, function=given)])
    assert report.verdict is Verdict.HOLDS, report.failures()
    assert "120 of 120 rows" in next(one.words for one in report.findings if one.check == "modality-weights")


def test_the_trained_weights_and_generators_are_those_without_it(problem: Any, another: Any, random_state: Any) -> None:
    def train(one: Any, weigh: bool) -> tuple[dict[str, torch.Tensor], Any]:
        model = weighing()
        torch.manual_seed(1)
        with one.start() as run:
            if weigh:
                weigh_all(run, one, weights=drawing)
            one.fit(run, model)
        return model.state_dict(), random_state()

    def drawing(model: Weighing) -> torch.Tensor:
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        model.weigh[1].running_mean += 1  # put back
        torch.rand(3)
        np.random.rand()
        return model.weights(inputs_of(problem))

    (with_it, after), (without, plain) = train(problem, True), train(another, False)
    assert all(torch.equal(with_it[name], without[name]) for name in without)
    assert str(after) == str(plain)
    assert len(opened(problem).modality_weights()) == 3


@pytest.mark.parametrize(
    ("weights", "error", "words"),
    [
        (lambda w: w[:-1], ValueError, r"weights of shape \(89, 2\); 90 samples and image, words take \(90, 2\)"),
        (lambda w: w[:, :1], ValueError, r"weights of shape \(90, 1\)"),
        (lambda w: w.index_fill(0, SEVEN, math.nan), ValueError, "1 of 90 samples .* not finite; the first is"),
        (lambda w: w * 1.01, ValueError, "90 of 90 samples .* do not sum to 1 .sums_to_one=False"),
        (lambda w: w.round().int(), TypeError, "weights of torch.int32; weights are floating-point numbers"),
        (lambda _: None, TypeError, "got NoneType, which is no tensor"),
        (lambda w: (w, w.sum(1)), TypeError, "got tuple, which is no tensor"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_weights_is_said_before_the_checkpoint_is_recorded(
    problem: Any, weights: Callable[[torch.Tensor], Any], error: type[Exception], words: str
) -> None:
    model = weighing()
    with problem.start() as run:
        weigh_all(run, problem, weights=lambda m: weights(m.weights(inputs_of(problem))))
        with pytest.raises(error, match=words):
            run.checkpoint(model, val_loss=1.0)
        assert model.training
    assert problem.events("checkpoint", "attention", "artifact") == []


def test_weights_that_the_model_keeps_in_a_buffer_are_those_of_the_call(problem: Any) -> None:
    model = weighing()
    model.register_buffer("seen", torch.full((90, 2), 0.5))

    def seen(model: Any) -> torch.Tensor:
        model.seen.copy_(model.weights(inputs_of(problem)))
        return model.seen

    with problem.start() as run:
        weigh_all(run, problem, weights=seen)
        run.checkpoint(model, val_loss=1.0)
    (found,) = opened(problem).modality_weights()
    assert len(np.unique(found.weights)) > 90
    assert (model.seen == 0.5).all()


def test_weights_that_are_rounded_to_half_precision_sum_to_one(problem: Any) -> None:
    model = weighing()
    with problem.start() as run:
        weigh_all(run, problem, weights=lambda m: m.weights(inputs_of(problem)).to(torch.bfloat16))
        assert run.checkpoint(model, val_loss=1.0)
        weights = torch.full((90, 2), 2.0)
        run.attention(problem.validation, weights[:20], ["a", "b"], sums_to_one=False)
    assert [len(one) for one in opened(problem).modality_weights()] == [90, 20]


def test_given_weights_are_of_the_last_kept_checkpoint_while_no_update_has_followed(problem: Any) -> None:
    model = weighing()
    weights = torch.full((90, 2), 0.5)
    with problem.start() as run:
        with pytest.raises(
            ValueError, match=r"needs a kept checkpoint, and there is none; call it behind run.checkpoint"
        ):
            run.attention(problem.train, weights, MODALITIES)
        optimizer = problem.fit(run, model, epochs=2)
        run.attention(problem.train, weights, MODALITIES)
        optimizer.step()
        with pytest.raises(ValueError, match="last kept checkpoint is of step 12, and the model is at 13"):
            run.attention(problem.train, weights, MODALITIES)
        run.attention(problem.train, weights[:2], MODALITIES, positions=[5, 3], step=6)
        with pytest.raises(
            ValueError, match="step=7, and no checkpoint of that step is kept; kept are those of steps 6, 12"
        ):
            run.attention(problem.train, weights, MODALITIES, step=7)
    found = opened(problem).modality_weights()
    assert [(one.step, len(one)) for one in found] == [(6, 2), (12, 90)]
    assert {opened(problem).find(f"TensorDataset:{row}").id for row in (3, 5)} == {i.tobytes() for i in found[0].ids}
    (only,) = opened(problem).modality_weights("TensorDataset:4")
    assert str(only) == "step 12: image 0.5, words 0.5"
    assert opened(problem).modality_weights("TensorDataset:3")[0].as_json()["weights"] == [[0.5, 0.5]]


def test_a_sample_has_one_row_a_checkpoint_and_the_same_is_not_written_twice(problem: Any) -> None:
    weights = torch.full((90, 2), 0.5)
    with problem.start() as run:
        run.checkpoint(weighing(), val_loss=1.0)
        run.attention(problem.train, weights, MODALITIES)
        run.attention(problem.train, weights, MODALITIES)
        with pytest.raises(ValueError, match="3 of these samples have other modality weights at step 0 already"):
            run.attention(problem.train, weights[:3], MODALITIES, positions=[0, 1, 2])
        with pytest.raises(ValueError, match="the sample at position 4 twice"):
            run.attention(problem.train, weights[:3], MODALITIES, positions=[4, 1, 4])
        twice = ConcatDataset([Subset(problem.validation, [0, 1]), problem.validation])
        with pytest.raises(ValueError, match="the sample at position 0 twice"):
            run.attention(twice, torch.full((22, 2), 0.5), MODALITIES)
    assert [len(event["ordinals"]) for event in problem.events("attention")] == [90]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"modalities": "image"}, TypeError, "give a list of names"),
        ({"modalities": ["image", 2]}, TypeError, "give a list of names"),
        ({"modalities": []}, ValueError, "give each modality one name"),
        ({"modalities": ["image", "image"]}, ValueError, "no two the same"),
        ({"modalities": ["image", "w" * 5000]}, ValueError, "take 5,01. bytes; 4,096 fit an entry"),
        ({"positions": [90]}, ValueError, "got position 90; positions are 0 to 89"),
        ({"positions": np.ones(90, bool)}, TypeError, "positions of bool; give whole numbers"),
    ],
)
def test_names_and_positions_that_are_none_are_refused_at_once(
    problem: Any, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with problem.start() as run, pytest.raises(error, match=words):
        weigh_all(run, problem, **changes)


def test_it_is_called_once(problem: Any) -> None:
    with problem.start() as run:
        weigh_all(run, problem)
        with pytest.raises(ValueError, match="was called before in this run"):
            weigh_all(run, problem)


def test_weights_of_a_checkpoint_that_is_displaced_are_said_to_be_of_a_dropped_one(problem: Any) -> None:
    model = weighing()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with problem.start(keep="budget:2") as run:
        weigh_all(run, problem)
        loader = run.watch(DataLoader(problem.train, batch_size=45, shuffle=True), role="train")
        for loss in (4.0, 3.9, 3.0):
            for inputs, targets in loader:
                optimizer.zero_grad()
                cross_entropy(model(inputs), targets).backward()
                optimizer.step()
            assert run.checkpoint(model, optimizer, val_loss=loss)
        with pytest.raises(
            ValueError, match="step=2, and no checkpoint of that step is kept; kept are those of steps 4, 6"
        ):
            run.attention(problem.validation, torch.full((20, 2), 0.5), MODALITIES, step=2)
    found = opened(problem).modality_weights("TensorDataset:0")
    assert [(one.step, one.standing) for one in found] == [(2, "dropped"), (4, "kept"), (6, "kept")]
    assert str(found[0]).startswith("step 2 (dropped later): image 0.")
    history = opened(problem).history("TensorDataset:0")
    told = [event for event in history.events if event.kind == "attention"]
    assert [event.details["standing"] for event in told] == ["dropped", "kept", "kept"]
    assert [event.words.endswith("(its checkpoint was dropped later)") for event in told] == [True, False, False]
    assert [step for step, _weights in history.attention] == [4, 6]
    assert "(90 at 1 checkpoint that the run later dropped or went behind)" in attention_holds(problem)


def test_a_resumed_run_goes_on_and_weighs_no_state_twice(problem: Any) -> None:
    model = weighing()

    def again(epochs: int, **options: Any) -> None:
        with problem.start(**options) as run:
            weigh_all(run, problem)
            run.checkpoint(model, val_loss=5.0)  # a state that was kept before, where the run goes on from it
            problem.fit(run, model, epochs=epochs)

    again(2)
    model.load_state_dict(committed(problem, 6).state_dict())
    again(1, resume=True, step=6)
    found = opened(problem).modality_weights("TensorDataset:0")
    assert [(one.step, one.standing) for one in found] == [
        (0, "kept"), (6, "kept"), (12, "superseded"), (12, "kept"),
    ]  # fmt: skip
    assert str(found[2]).startswith("step 12 (the run went on from before it): image")
    assert "360 rows" in attention_holds(problem)


def test_a_reopened_trace_takes_weights_of_a_kept_checkpoint(problem: Any) -> None:
    with problem.start() as run:
        problem.fit(run, weighing(), epochs=2)
    with reopen(problem.folder / "run", key=problem.folder / "key.pem") as run:
        with pytest.raises(ValueError, match=r"attention_with\(\) is about checkpoints to come"):
            weigh_all(run, problem)
        with torch.no_grad():
            run.attention(problem.train, committed(problem, 6).weights(inputs_of(problem)), MODALITIES, step=6)
        run.attention(problem.train, torch.full((90, 2), 0.5), MODALITIES)
    with reopen(problem.folder / "run", key=problem.folder / "key.pem") as run:
        run.attention(problem.train, torch.full((90, 2), 0.5), MODALITIES)  # known already
        with pytest.raises(ValueError, match="90 of these samples have other modality weights at step 6 already"):
            run.attention(problem.train, torch.full((90, 2), 0.5), MODALITIES, step=6)
    assert [(one.step, len(one)) for one in opened(problem).modality_weights()] == [(6, 90), (12, 90)]
    assert "180 rows" in attention_holds(problem)


def test_many_samples_of_two_data_sets_take_several_entries(problem: Any) -> None:
    many = TensorDataset(torch.arange(7_000))
    weights = torch.rand(7_090, 3).softmax(1)
    with problem.start() as run:
        run.register(many, name="many", content=False)
        run.checkpoint(weighing(), val_loss=1.0)
        run.attention(ConcatDataset([many, problem.train]), weights, ["a", "b", "c"])
    events = problem.events("attention")
    assert [len(event["ordinals"]) for event in events] == [3_750, 3_250, 90]
    (found,) = opened(problem).modality_weights()
    assert len(found) == 7_090
    for name, row in (("many:6999", 6_999), ("TensorDataset:89", 7_089)):
        np.testing.assert_array_equal(opened(problem).modality_weights(name)[0].weights[0], weights[row])


def test_a_sample_without_weights_has_none_and_one_that_is_not_registered_is_named(problem: Any) -> None:
    with problem.start() as run:
        run.register(problem.train)
    assert opened(problem).modality_weights() == ()
    assert opened(problem).modality_weights("TensorDataset:0") == ()
    with pytest.raises(ValueError, match="no sample TensorDataset:90 is registered"):
        opened(problem).modality_weights("TensorDataset:90")


def test_an_explanation_carries_the_modality_weights_of_its_target(problem: Any) -> None:
    with problem.start() as run:
        problem.score_with(run, layer="head")
        weigh_all(run, problem)
        problem.fit(run, weighing(), epochs=2)
    said = opened(problem).explain("TensorDataset:4", "TensorDataset-2:1", "role:train")
    target, other, role = said.toward
    assert [str(one) for one in target.attention] == list(map(str, opened(problem).modality_weights("TensorDataset:4")))
    assert (other.attention, role.attention) == ((), ())
    line = f"its modality weights: {target.attention[0]}; {target.attention[1]}"
    assert line in str(said)
    steps = [one["step"] for one in target.as_json()["attention"]]
    assert steps == [6, 12]
    assert "attention" not in role.as_json()
    printed = CliRunner().invoke(app, ["score", str(problem.trace.path), "--toward", "TensorDataset:4"])
    assert line in printed.stdout.replace("\n", "")
    as_json = CliRunner().invoke(app, ["score", str(problem.trace.path), "--toward", "TensorDataset:4", "--json"])
    assert json.loads(as_json.stdout)["toward"][0]["attention"] == target.as_json()["attention"]
