"""What `score_with` and the first look at a model refuse or say: values, remedies, counts over all rows, costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from fgtrac.errors import ScoreError


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([])


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"loss": "mse"}, TypeError, "loss= is a str; give a function"),
        ({"forward": 3}, TypeError, "forward= is a int; give a function"),
        ({"factors": "sometimes"}, ValueError, "factors='sometimes' is none of 'now', 'sample:N'"),
        ({"factors": "sample:0"}, ValueError, "factors='sample:0' is none of"),
        ({"dtype": "int8"}, ValueError, "dtype='int8' is none of float16, bfloat16, float32"),
        ({"batch_size": 0}, ValueError, "batch_size=0; give at least 1"),
        ({"max_kept": 0}, ValueError, "max_kept=0; give at least 1"),
        ({"method": "trak"}, ValueError, "method 'trak' is none of tracin"),
        ({"train": Stream()}, ScoreError, "rows are without identity"),
        ({"train": DataLoader(Stream())}, ScoreError, "rows without identity"),
        ({"train": iter([1, 2])}, ScoreError, "rows are without identity"),
        ({"train": []}, ValueError, "train= has no rows"),
        ({"train": None}, TypeError, "train= is None; give the data set"),
        ({"train": [1, 2]}, TypeError, "train= is a list of int; give a data set"),
        ({"layer": 3}, TypeError, "layer=3 is a int; give a layer's name"),
        ({"layer": ["4", None]}, TypeError, r"layer=\['4', None\] is a list; give a layer's name"),
        ({"factors": None}, TypeError, "factors=None is a NoneType; give a str"),
        ({"dtype": torch.float16}, TypeError, "dtype=torch.float16 is a dtype; give a str"),
        ({"method": 1}, TypeError, "method=1 is a int; give a str"),
        ({"max_kept": True}, TypeError, "max_kept=True is a bool; give a whole number"),
        ({"batch_size": 2.5}, TypeError, "batch_size=2.5 is a float; give a whole number"),
        ({"batch_size": None}, TypeError, "batch_size=None is a NoneType; give a whole number"),
        ({"factor_budget_bytes": 1e9}, TypeError, "factor_budget_bytes=1000000000.0 is a float"),
        ({"ggn": "yes"}, TypeError, "ggn='yes'; give True or False"),
        ({"ggn": True, "layer": ["0", "4"]}, ValueError, "ggn=True is of one layer, and layer= names 2; name one"),
    ],
)
def test_what_makes_no_sense_is_refused_in_its_own_words_and_nothing_is_written(
    problem: Any, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with problem.start() as run:
        before = run._recorder.next_seq
        with pytest.raises(kind, match=words) as caught:
            problem.score_with(run, **options)
        assert "\n" not in str(caught.value)
        assert run._recorder.next_seq == before
        with pytest.raises(ValueError, match=r"call score_with\(\) first"):
            run.score(problem.model())


def test_the_gauss_newton_matrix_of_all_layers_is_refused_before_the_checkpoint_is_recorded(problem: Any) -> None:
    with problem.start() as run:
        problem.score_with(run, ggn=True, layer="all")
        with pytest.raises(ScoreError, match=r"ggn \(hessians\) is of one layer .* leave ggn out"):
            problem.fit(run, problem.model(), epochs=1)
    assert problem.events("checkpoint", "artifact") == []


# -- NaN at the first look --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [256, 16])
def test_nan_at_the_first_look_is_counted_over_all_rows_with_the_first_sample(problem: Any, batch_size: int) -> None:
    model = problem.model()
    with problem.start() as run:
        problem.score_with(run, validation=None, test=None, batch_size=batch_size)
        run.register(problem.train)
        order = run._registry.resolve(problem.train).placement.ordinals.argsort()
        spoiled = order[[3, 7, 60]].tolist()  # rows of the first batch, and one of a later one
        problem.train.tensors[0][spoiled] = float("nan")
        words = "is not scored: NaN or infinity in the factors of 3 of 90 train samples at step 0, the first is "
        with pytest.warns(RuntimeWarning, match=f"{words}TensorDataset:{spoiled[0]}: look at its data"):
            assert run.checkpoint(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert problem.files() == {}


def test_weights_of_nan_spoil_every_sample(problem: Any) -> None:
    model = problem.model()
    with problem.start(strict=True) as run:
        problem.score_with(run, batch_size=16)
        model[4].weight.data[0, 0] = float("nan")
        with pytest.raises(ScoreError, match="in the factors of 90 of 90 train samples at step 0, the first is Tensor"):
            run.checkpoint(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert problem.events("checkpoint", "artifact") == []


def test_nan_is_counted_where_states_are_scored_afterwards(problem: Any) -> None:
    model = problem.model()
    with problem.start() as run:
        problem.score_with(run, factors="later", batch_size=16)
        problem.fit(run, model, epochs=1)
        problem.train.tensors[0][:30] = float("inf")
        with pytest.raises(ScoreError, match="in the factors of 30 of 90 train samples at step 6, the first is Tensor"):
            run.score(model)
    assert problem.files() == {}


# -- costs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ggn", [False, True])
def test_the_estimate_counts_the_files_and_the_gauss_newton_matrix(problem: Any, ggn: bool) -> None:
    model = problem.model()
    with problem.start() as run:
        problem.score_with(run, ggn=ggn)
        problem.fit(run, model, epochs=1)
    cost = run.scoring_cost
    files = {path: data for path, data in problem.files().items() if "/" in path}
    assert cost.files == len(files) == 6 + ggn
    assert cost.size_bytes == 125 * (2 * (6 + 3) + 4) + ggn * 4 * 21 * 21
    assert cost.seconds > (2 * cost.files + 2) * cost.seconds_a_file > 0
    assert not any("timed" in path for path in problem.files())


def test_a_budget_that_does_not_hold_the_gauss_newton_matrix_is_no_budget_for_it(problem: Any) -> None:
    with problem.start() as run:
        problem.score_with(run, ggn=True, factor_budget_bytes=4000)  # factors are 2,750 bytes, the matrix 1,764
        problem.fit(run, problem.model(), epochs=1)
    assert [c["rule"] for c in problem.events("checkpoint")] == [
        "kept: all are; without factors: factor_budget_bytes=4,000 does not hold 4.5 kB more than 0 bytes"
    ]
    assert problem.files() == {}


# -- what "all" leaves out --------------------------------------------------------------------------------------------


class Attends(nn.Module):
    """Attention, a recurrent layer and one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.read = nn.GRU(8, 4, batch_first=True)
        self.spare = nn.Linear(3, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x[:, None]
        return self.head(self.read(self.attend(x, x, x)[0])[0][:, 0])


def test_what_all_layers_leave_out_is_said_once_and_why(problem: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model = Attends()
    with problem.start() as run:
        problem.score_with(run, layer="all")
        for _ in range(2):
            run.checkpoint(model, torch.optim.SGD(model.parameters(), lr=0.1))
            model.head.weight.data += 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "leaves out" in line]
    assert line == (
        'fgtrac: layer="all" leaves out attend.in_proj_weight, attend.out_proj.weight (MultiheadAttention uses them '
        "without calling a layer); read.weight_ih_l0, read.weight_hh_l0 (neither linear layers nor convolutions); "
        "spare.weight (the loss depends on no call of these layers)"
    )


def test_nothing_is_said_where_all_layers_leave_nothing_out(problem: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with problem.start() as run:
        problem.score_with(run, layer="all")
        problem.fit(run, problem.model(), epochs=1)
    assert "leaves out" not in capsys.readouterr().err


def test_a_layer_that_attention_uses_without_a_call_is_no_candidate(problem: Any) -> None:
    model = Attends()
    words = r"call of layer 'attend.out_proj' \(MultiheadAttention uses its weight without calling it\); could "
    with problem.start() as run:
        problem.score_with(run, layer="attend.out_proj")
        with pytest.raises(ScoreError, match=words + "be scored: 'head'$"):
            run.checkpoint(model, torch.optim.SGD(model.parameters(), lr=0.1))


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_scripted_model_is_refused_in_one_line(problem: Any) -> None:
    model = torch.jit.script(problem.model())
    with problem.start() as run:
        problem.score_with(run)
        with pytest.raises(ScoreError, match=r"compiled by torch\.jit.*pass the module it was made from") as caught:
            run.checkpoint(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert "\n" not in str(caught.value)
    assert problem.events("checkpoint") == []


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_scripted_part_of_a_model_is_left_out_and_said(problem: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(torch.jit.script(nn.Sequential(nn.Linear(8, 6), nn.ReLU())), nn.Linear(6, 3))
    with problem.start() as run:
        problem.score_with(run, layer="all")
        run.checkpoint(model, torch.optim.SGD(model.parameters(), lr=0.1))
    said = capsys.readouterr().err
    assert "leaves out 0.0.weight (compiled by torch.jit, which cannot be looked into)" in said
    assert len(problem.events("contribution")) == 1
