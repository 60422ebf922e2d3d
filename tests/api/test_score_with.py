"""Scoring beside a training: the factors and contributions of each kept checkpoint, and a training that is none the
wiser."""

from __future__ import annotations

import copy
import io
import random
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)

from fgtrac.api.cost import shown
from fgtrac.api.ledger import state_path
from fgtrac.api.run import Run
from fgtrac.capture.checkpoint import load_state
from fgtrac.errors import CaptureError, ScoreError
from fgtrac.events.schema import NO_STEP
from fgtrac.query.occurrences import plain
from fgtrac.score.cache import Cache


def steps_of(problem: Any, kind: str = "contribution") -> list[int]:
    return sorted({event["step"] for event in problem.events(kind)})


# -- what is recorded -----------------------------------------------------------------------------------------------


def test_each_kept_checkpoint_has_factors_of_every_role_and_contributions_toward_validation(problem: Any) -> None:
    with problem.start(keep="every:2") as run:
        problem.score_with(run)
        problem.fit(run, problem.model())
    cache = Cache(problem.trace, problem.ledger.artifacts, problem.ledger.states)
    cache.check()
    assert [state.step for state in cache.states] == [6, 18] == steps_of(problem)
    assert [len(cache.rows(role)) for role in ("train", "validation", "test")] == [90, 20, 15]
    assert cache.learning_rates(0) == (0.1,)
    assert [layer.name for layer in cache.layers] == ["4"]
    assert set(problem.files()) == {
        path.removeprefix("artifacts/scoring/") for path in problem.ledger.scored_files()
    }  # and nothing else


def test_rows_name_samples_in_the_order_of_their_ids_with_their_labels(problem: Any) -> None:
    with problem.start() as run:
        problem.score_with(run, train=Subset(problem.train, [7, 3, 7, 50]))
        problem.fit(run, problem.model(), epochs=1)
        ordinals = run._registry.resolve(problem.train).placement.ordinals
    cache = Cache(problem.trace, problem.ledger.artifacts, problem.ledger.states)
    rows = cache.rows("train")
    assert rows.ordinals.tolist() == sorted(ordinals[[7, 3, 50]].tolist())
    of = dict(zip(ordinals.tolist(), problem.train.tensors[1].tolist(), strict=True))
    assert rows.labels.tolist() == [of[ordinal] for ordinal in rows.ordinals.tolist()]


def test_the_contributions_add_up_to_what_whole_gradients_give(problem: Any) -> None:
    """TracInCP (arXiv:2002.08484 eq. 1) by autograd, one sample at a time, at each saved state."""
    model = problem.model()
    with problem.start() as run:
        problem.score_with(run, dtype="float32", layer=["0", "4"])
        problem.fit(run, model)
        ordinals = run._registry.resolve(problem.train).placement.ordinals
    expected = np.zeros(problem.rows)
    for state in problem.ledger.states:
        load_state(model, problem.trace.read(state_path(state)), "it")
        model.eval()
        weights = [p for n, p in model.named_parameters() if n.startswith(("0", "4"))]
        inputs, targets = problem.validation.tensors
        toward = torch.autograd.grad(cross_entropy(model(inputs), targets), weights)
        for row, (x, y) in enumerate(problem.train):
            mine = torch.autograd.grad(cross_entropy(model(x[None]), y[None]), weights)
            expected[row] += 0.1 * sum(float((a * b).sum()) for a, b in zip(mine, toward, strict=True))
    found = np.zeros(problem.rows)
    for event in problem.events("contribution"):
        row = {ordinal: n for n, ordinal in enumerate(ordinals.tolist())}
        found[[row[o] for o in event["ordinals"].tolist()]] += event["scores"]
        assert (event["target"], event["method"]) == ("validation", "tracin")
        assert event["parameters"]["learning_rates"] == [0.1, 0.1]
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_a_sample_of_the_training_rows_is_the_same_choice_each_time_and_said_in_the_log(
    problem: Any, another: Any
) -> None:
    for one in (problem, another):
        with one.start(ids="public") as run:
            one.score_with(run, factors="sample:30")
            one.fit(run, one.model(), epochs=1)
    assert problem.files() == another.files()
    words = [a["about"] for a in problem.events("artifact") if "rows-train" in a["path"]]
    assert words == [
        "which sample each row of factors is: 30 of 90 train samples, chosen by numpy's RandomState(0).permutation"
    ]
    assert sum(len(e["ordinals"]) for e in problem.events("contribution")) == 30


def test_factors_for_later_are_made_when_they_are_asked_for(problem: Any, another: Any) -> None:
    models = [problem.model(), another.model()]
    with problem.start(ids="public") as run:
        problem.score_with(run)
        torch.manual_seed(1)
        problem.fit(run, models[0])
    with another.start(ids="public") as run:
        another.score_with(run, factors="later")
        torch.manual_seed(1)
        another.fit(run, models[1])
        assert another.files() == {}
        weights = copy.deepcopy(models[1].state_dict())
        run.score(models[1])
    assert another.files() == problem.files()
    assert all(torch.equal(v, weights[k]) for k, v in models[1].state_dict().items())
    told = [[e["scores"].tobytes() for e in one.events("contribution")] for one in (problem, another)]
    assert told[0] == told[1]


def test_the_learning_rate_is_that_of_the_layers_own_parameter_group(problem: Any) -> None:
    model = problem.model()
    groups = [{"params": model[0].parameters(), "lr": 0.5}, {"params": model[4].parameters(), "lr": 0.25}]
    optimizer = torch.optim.SGD(groups)
    with problem.start() as run:
        problem.score_with(run)
        for inputs, targets in run.watch(DataLoader(problem.train, batch_size=90), role="train"):
            cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        optimizer.param_groups[1]["lr"] = 0.0  # as a scheduler might, behind the last update
        run.checkpoint(model)
    cache = Cache(problem.trace, problem.ledger.artifacts, problem.ledger.states)
    assert cache.learning_rates(0) == (0.25,)


def test_each_optimizer_gives_the_rate_of_its_own_layers(problem: Any) -> None:
    model = problem.model()
    first = torch.optim.SGD(model[0].parameters(), lr=0.5)
    last = torch.optim.SGD(model[4].parameters(), lr=0.25)
    with problem.start() as run:
        problem.score_with(run, layer="all")
        for inputs, targets in run.watch(DataLoader(problem.train, batch_size=45), role="train"):
            cross_entropy(model(inputs), targets).backward()
            last.step()
            first.step()
        run.checkpoint(model)
    cache = Cache(problem.trace, problem.ledger.artifacts, problem.ledger.states)
    assert cache.learning_rates(0) == (0.5, 0.25)
    assert [c["learning_rates"].tolist() for c in problem.events("checkpoint")] == [[0.5, 0.25]]


def test_which_of_several_optimizers_a_past_rate_is_of_is_not_guessed(problem: Any) -> None:
    model = problem.model()
    body, head = torch.optim.SGD(model[0].parameters(), lr=0.5), torch.optim.SGD(model[4].parameters(), lr=0.25)
    with problem.start() as run:
        problem.score_with(run, factors="later")
        for inputs, targets in run.watch(DataLoader(problem.train, batch_size=45), role="train"):
            cross_entropy(model(inputs), targets).backward()
            head.step()
            body.step()
        run.checkpoint(model, head)
        with pytest.raises(ScoreError, match=r"2 learning rates \(0\.5, 0\.25\), .* make factors 'now'"):
            run.score(model, optimizer=head)


def test_many_samples_of_several_data_sets_are_scored_and_recorded_in_pieces(problem: Any) -> None:
    more = TensorDataset(torch.randn(9000, 8), torch.zeros(9000).long())
    model = problem.model()
    with problem.start() as run:
        problem.score_with(run, train=ConcatDataset([problem.train, more]))
        run.checkpoint(model, torch.optim.SGD(model.parameters(), lr=0.1))
        blocks = [run._registry.resolve(data).placement.blocks[0] for data in (problem.train, more)]
    events = problem.events("contribution")
    assert [len(e["ordinals"]) for e in events] == [90, 7500, 1500]
    assert [e["block"] for e in events] == [blocks[0], blocks[1], blocks[1]]
    assert np.array_equal(np.concatenate([e["ordinals"] for e in events[1:]]), np.arange(9000))


def test_a_state_that_is_kept_twice_contributes_once(problem: Any) -> None:
    model = problem.model()
    with problem.start() as run:
        problem.score_with(run)
        for _ in range(2):
            assert run.checkpoint(model, torch.optim.SGD(model.parameters(), lr=0.1))
    (event,) = problem.events("contribution")
    assert len(event["scores"]) == 90


def test_roles_are_recorded_for_samples_that_have_none(problem: Any) -> None:
    with problem.start() as run:
        run.register(Subset(problem.train, range(30)), role="excluded")
        problem.score_with(run)
        run.register(problem.validation, role="validation")  # said again by the caller
    told = [(e["role"], len(e["ordinals"])) for e in problem.events("roles")]
    assert told == [("excluded", 30), ("train", 60), ("validation", 20), ("test", 15)]


def test_a_sampler_that_takes_some_rows_says_which_are_scored(problem: Any) -> None:
    model = problem.model()
    with problem.start() as run:
        problem.score_with(run, train=DataLoader(problem.train, sampler=SubsetRandomSampler([4, 2, 60])))
        run.checkpoint(model, torch.optim.SGD(model.parameters(), lr=0.1))
        ordinals = run._registry.resolve(problem.train).placement.ordinals
    (event,) = problem.events("contribution")
    assert set(event["ordinals"].tolist()) == set(ordinals[[4, 2, 60]].tolist())


def test_progress_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_terminal, expected in ((True, "\rfgtrac: scored 3 of 3 rows, about 0 s left \n"), (False, "")):
        stream = io.StringIO()
        monkeypatch.setattr(stream, "isatty", lambda answer=is_terminal: answer)
        monkeypatch.setattr(sys, "stderr", stream)
        show = shown(None)
        show(1, 3)
        show(3, 3)
        assert stream.getvalue() == expected


def test_the_cost_is_estimated_before_and_measured_after(problem: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with problem.start() as run:
        problem.score_with(run)
        assert run.scoring_cost is None
        problem.fit(run, problem.model(), epochs=2)
    cost = run.scoring_cost
    assert cost.checkpoints == 2
    assert min(cost.measured_seconds, cost.seconds) > 0
    assert cost.size_bytes == 125 * (2 * (6 + 3) + 4)
    assert cost.measured_bytes == sum(a["size"] for a in problem.events("artifact") if "scoring" in a["path"])
    first, last = capsys.readouterr().err.strip().splitlines()
    assert first.startswith("fgtrac: scoring a kept checkpoint takes about ")
    assert first.endswith("for 125 samples, layer 4")
    assert "each, measured over 2 (estimated: " in last


@pytest.mark.parametrize(
    ("limit", "words", "scored"),
    [
        ({"max_kept": 2}, "max_kept=2 is reached", [6, 12]),
        ({"factor_budget_bytes": 2000}, "factor_budget_bytes=2,000 does not hold 2.8 kB more than 0 bytes", []),
    ],
)
def test_beyond_a_limit_checkpoints_are_kept_without_factors_and_the_log_says_so(
    problem: Any, capsys: pytest.CaptureFixture[str], limit: dict[str, int], words: str, scored: list[int]
) -> None:
    with problem.start() as run:
        problem.score_with(run, **limit)
        problem.fit(run, problem.model())
    assert steps_of(problem) == scored
    rules = [c["rule"] for c in problem.events("checkpoint")]
    assert rules == ["kept: all are"] * len(scored) + [f"kept: all are; without factors: {words}"] * (3 - len(scored))
    assert capsys.readouterr().err.count(f"{words}: no factors are made from now on") == 1


def test_the_gauss_newton_matrix_is_kept_where_it_is_asked_for(problem: Any) -> None:
    with problem.start() as run:
        problem.score_with(run, ggn=True, method="fisher ggn 0.1", dtype="float32")
        problem.fit(run, problem.model(), epochs=1)
    assert {e["method"] for e in problem.events("contribution")} == {"fisher ggn 0.1"}
    cache = Cache(problem.trace, problem.ledger.artifacts, problem.ledger.states)
    (gradients,) = cache.read(0, "train", 0, 90)
    model = problem.model()
    load_state(model, problem.trace.read(state_path(cache.states[0])), "it")
    ones = np.concatenate([gradients.inputs, np.ones((90, 1))], axis=1)
    logits = ones @ np.concatenate([model[4].weight.detach().numpy(), model[4].bias.detach().numpy()[:, None]], 1).T
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    hessians = p[:, :, None] * np.eye(3) - p[:, :, None] * p[:, None, :]
    expected = np.einsum("nab,ni,nj->aibj", hessians, ones, ones).reshape(21, 21) / 90
    matrix = cache.ggn(0)["4"]
    assert np.abs(matrix - expected).max() < 1e-5 * np.abs(expected).max()


# -- the training is none the wiser -----------------------------------------------------------------------------------


class Drawing(Dataset[Any]):
    """Items that draw from every generator when they are read."""

    def __init__(self, data: TensorDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, row: int) -> Any:
        drawn = torch.rand(1).item() + float(np.random.rand()) + random.random()
        return self.data[row][0] + 0 * drawn, self.data[row][1]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_is_bit_for_bit_the_same_with_scoring_on(
    problem: Any, another: Any, random_state: Any, workers: int
) -> None:
    ends = []
    for one, scored in ((problem, True), (another, False)):
        model = one.model()
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)
        with one.start(ids="public") as run:
            if scored:
                plain_train = DataLoader(one.train, batch_size=32, shuffle=True)
                one.score_with(run, train=plain_train, validation=Drawing(one.validation), layer="all")
            optimizer = one.fit(run, model, workers=workers)
        state = [*model.state_dict().values(), *(s["momentum_buffer"] for s in optimizer.state.values())]
        ends.append(([tensor.numpy().tobytes() for tensor in state], random_state(), one.model().training))
    assert ends[0] == ends[1]
    assert len(problem.ledger.scored_files()) > 0


def evaluate_meanwhile(run: Run, one: Any, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """A batch that has been delivered, a gradient that waits, an evaluation that goes on: a checkpoint amid each."""
    loader = run.watch(DataLoader(one.train, batch_size=30), role="train")
    evaluation = run.watch(DataLoader(one.validation, batch_size=20), role="validation")
    for inputs, targets in loader:
        run.checkpoint(model, optimizer)
        cross_entropy(model(inputs), targets).backward()
        run.checkpoint(model, optimizer)
        for held, _ in evaluation:
            run.checkpoint(model, optimizer)
            with torch.no_grad():
                model(held + 1)
        optimizer.step()
        optimizer.zero_grad()


def go_back_twice(run: Run, one: Any, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Batches read ahead, and a checkpoint between two backward passes through the same forward pass."""
    for inputs, targets in list(run.watch(DataLoader(one.train, batch_size=30), role="train")):
        loss = cross_entropy(model(inputs), targets)
        loss.backward(retain_graph=True)
        run.checkpoint(model, optimizer)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("loop", [evaluate_meanwhile, go_back_twice])
def test_the_record_of_uses_is_the_same_with_scoring_on(problem: Any, another: Any, loop: Any) -> None:
    told = []
    for one, scored in ((problem, True), (another, False)):
        model = one.model()
        torch.manual_seed(1)
        with one.start(ids="public") as run:
            if scored:
                one.score_with(run)
            loop(run, one, model, torch.optim.SGD(model.parameters(), lr=0.1))
        told.append([plain({k: e[k] for k in e if k not in ("time", "writer", "seq")}) for e in one.events("use")])
    assert told[0] == told[1]
    assert NO_STEP not in {step for e in told[0] if e["loader"] == 1 for step in e["step"]}


# -- what cannot be scored -------------------------------------------------------------------------------------------


def test_nan_is_said_with_count_and_first_sample_and_training_goes_on(problem: Any) -> None:
    model = problem.model()
    with problem.start() as run:
        problem.score_with(run)
        problem.fit(run, model, epochs=1)
        good = problem.files()
        first = int(run._registry.resolve(problem.train).placement.ordinals[[5, 80]].argmin())
        problem.train.tensors[0][[5, 80]] = float("nan")
        words = "step 6 is not scored: NaN or infinity in the factors of 2 of 90 train samples at step 6, the first is "
        words += f"TensorDataset:{[5, 80][first]}: look at its data"
        model[4].weight.data += 1  # another state, so that there is something to do
        with pytest.warns(RuntimeWarning, match=words):
            assert run.checkpoint(model)
    assert problem.files() == good
    assert problem.events("gap") == []
    assert len(problem.events("checkpoint")) == 2


def test_nan_raises_in_strict_mode_and_leaves_no_file(problem: Any) -> None:
    model = problem.model()
    with problem.start(strict=True) as run:
        problem.score_with(run)
        problem.validation.tensors[0][3, 0] = float("inf")
        with pytest.raises(ScoreError, match=r"in the factors of 1 of 20 validation samples .* TensorDataset-2:3: "):
            problem.fit(run, model, epochs=1)
    assert problem.files() == {}
    assert problem.events("contribution") == []


def test_numbers_too_large_for_float16_are_named_by_their_sample(problem: Any) -> None:
    problem.train.tensors[0][9] *= 1e7
    with problem.start(strict=True) as run:
        problem.score_with(run, layer="0")
        with pytest.raises(ScoreError, match=r"above 65,504, the first is TensorDataset:9 .*choose dtype='bfloat16'"):
            run.checkpoint(problem.model(), torch.optim.SGD(problem.model().parameters(), lr=1))
    assert problem.files() == {}


def test_more_losses_than_samples_are_refused_and_leave_no_file(problem: Any) -> None:
    def twice(model: nn.Module, batch: Any) -> Any:
        return model(torch.cat([batch[0], batch[0] + 1])), torch.cat([batch[1], batch[1]])

    with problem.start(strict=True) as run:
        problem.score_with(run, forward=twice)
        with pytest.raises(ScoreError, match=r"180 losses for 90 samples; let the loss return one for each sample"):
            problem.fit(run, problem.model(), epochs=1)
    assert problem.files() == {}


def of_the_batch(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return cross_entropy(outputs, targets).sqrt()


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"layer": "head"}, ValueError, r"no layer 'head'; could be scored: '0', '4'"),
        ({"loss": of_the_batch}, ScoreError, "give one that returns a loss for each sample"),
        ({"layer": "1"}, ScoreError, "is a BatchNorm1d"),
    ],
)
def test_a_model_that_cannot_be_scored_as_asked_is_refused_before_its_checkpoint_is_recorded(
    problem: Any, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with problem.start() as run:
        problem.score_with(run, **options)
        with pytest.raises(kind, match=words):
            problem.fit(run, problem.model(), epochs=1)
    assert problem.events("checkpoint", "artifact") == []
    assert problem.files() == {}


def test_without_a_learning_rate_a_checkpoint_cannot_be_scored(problem: Any) -> None:
    with problem.start() as run:
        problem.score_with(run)
        with pytest.raises(ValueError, match="learning rate of a scored layer is not known"):
            run.checkpoint(problem.model())
    assert problem.events("checkpoint") == []


def test_score_with_is_called_once_and_before_score(problem: Any) -> None:
    with problem.start() as run:
        problem.score_with(run)
        with pytest.raises(ValueError, match="was called before"):
            problem.score_with(run)
        with pytest.raises(ScoreError, match=r"run\.trace has no kept checkpoint; record some with run\.checkpoint"):
            run.score(problem.model())


def test_a_full_disk_leaves_a_gap_and_no_file_and_training_goes_on(
    problem: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fgtrac.store import durable

    rename, left = durable._rename, [OSError(28, "No space left on device")]

    def fails_once(source: Any, target: Any) -> None:
        if target.name.startswith("validation-") and left:
            raise left.pop()
        rename(source, target)

    monkeypatch.setattr(durable, "_rename", fails_once)
    with problem.start() as run:
        problem.score_with(run)
        problem.fit(run, problem.model(), epochs=2)
    assert [gap["reason"] for gap in problem.events("gap")] == ["factors could not be written"]
    assert steps_of(problem) == [12]
    assert not any(path.startswith("00000006") for path in problem.files())


class Pairs(Dataset[Any]):
    """Items that a default collate cannot batch."""

    def __init__(self, data: TensorDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, row: int) -> Any:
        return {"x": self.data[row][0], "y": self.data[row][1], "name": object()}


def collate(items: list[Any]) -> dict[str, Any]:
    return {"x": torch.stack([i["x"] for i in items]), "y": torch.stack([i["y"] for i in items])}


def test_a_loaders_collate_and_a_forward_of_ones_own_are_used(problem: Any, another: Any) -> None:
    def forward(model: nn.Module, batch: Any) -> tuple[Any, Any]:
        return model(batch["x"]), batch["y"]

    for one, own in ((problem, False), (another, True)):
        model = one.model()
        with one.start(ids="public") as run:
            options: dict[str, Any] = {}
            if own:
                loaders = {role: DataLoader(Pairs(data), collate_fn=collate) for role, data in one.data.items()}
                for role, loader in loaders.items():
                    run.register(loader.dataset, role=role, name=name_of(role), content=False)
                options = {**loaders, "forward": forward}
            one.score_with(run, **options)
            run.checkpoint(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert problem.files() == another.files()


def name_of(role: str) -> str:
    return {"train": "TensorDataset", "validation": "TensorDataset-2", "test": "TensorDataset-3"}[role]


def test_a_closed_run_scores_no_more(problem: Any) -> None:
    run: Run = problem.start()
    problem.score_with(run)
    problem.fit(run, problem.model(), epochs=1)
    run.close()
    before = set(problem.trace.names())
    model = problem.model()
    for verb in (lambda: run.checkpoint(model), lambda: run.score(model)):
        with pytest.raises(CaptureError, match="this run is closed"):
            verb()
    assert set(problem.trace.names()) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_a_model_on_a_gpu_gives_the_scores_that_it_gives_on_the_cpu(problem: Any, another: Any) -> None:
    for one, device in ((problem, "cpu"), (another, "cuda")):
        model = one.model()
        torch.manual_seed(1)
        with one.start(ids="public") as run:
            one.score_with(run, factors="later", dtype="float32", layer="all")
            one.fit(run, model)
            run.score(model.to(device))
    scores = [np.concatenate([e["scores"] for e in one.events("contribution")]) for one in (problem, another)]
    assert np.abs(scores[0] - scores[1]).max() < 1e-4 * np.abs(scores[0]).max()
