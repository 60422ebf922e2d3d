"""Parts of a batch: an update is of some of a batch's samples where the backward pass came through some of its rows,
and of all of them where it came through all, in whatever order of dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fgtrac.api.run import Run
from fgtrac.capture.parts import rows_shown
from loader_truth import Read
from update_truth import Loop

STEPS, ROWS = 3, 4


@pytest.fixture
def loop(run: Run) -> Loop:
    return Loop(run)


Step = Callable[[nn.Module, torch.Tensor], Any]


def loss(output: torch.Tensor) -> torch.Tensor:
    return output.square().sum()


def two(*parts: slice | torch.Tensor) -> Step:
    """One update, accumulated over these rows."""

    def step(model: nn.Module, features: torch.Tensor) -> None:
        for part in parts:
            loss(model(features[part])).backward()

    return step


def whole_beside_a_look(model: nn.Module, features: torch.Tensor) -> None:
    output, _ = model(features), model(features[:1])
    loss(output).backward()


def part_beside_a_look(model: nn.Module, features: torch.Tensor) -> None:
    _, output = model(features), model(features[:1])
    loss(output).backward()


def one_by_one(model: nn.Module, features: torch.Tensor) -> None:
    for row in range(ROWS):
        loss(model(features[row])).backward()


def looked_at_before(model: nn.Module, features: torch.Tensor) -> None:
    with torch.no_grad():
        model(features[:1])
    loss(model(features)).backward()


def thrown_away(model: nn.Module, features: torch.Tensor) -> None:
    loss(model(features[:2])).backward()
    model.zero_grad()
    loss(model(features[2:])).backward()


def thrown_away_in_place(model: nn.Module, features: torch.Tensor) -> None:
    loss(model(features[:2])).backward()
    model.zero_grad(set_to_none=False)
    loss(model(features[2:])).backward()


def all_together(model: nn.Module, features: torch.Tensor) -> None:
    (loss(model(features[:2])) + loss(model(features[2:]))).backward()


def mined(model: nn.Module, features: torch.Tensor) -> None:
    with torch.no_grad():
        hardest = model(features).square().sum(1).topk(2).indices
    loss(model(features[hardest])).backward()


def copied(model: nn.Module, features: torch.Tensor) -> None:
    for part in features.clone().chunk(2):
        loss(model(part)).backward()


def copied_in_part(model: nn.Module, features: torch.Tensor) -> None:
    loss(model(features.clone()[:2])).backward()


def scaled_in_place(model: nn.Module, features: torch.Tensor) -> None:
    loss(model(features.div_(255))).backward()


@pytest.mark.matrix("Updates", "some rows of a batch: slices, strides, overlaps, copies", note="among, where not all")
@pytest.mark.parametrize(
    ("step", "said"),
    [
        (two(slice(0, 2), slice(2, 4)), "exact"),
        (two(slice(0, 2)), "among"),
        (two(slice(0, 2), slice(0, 2)), "among"),
        (two(slice(0, 2), slice(1, 3)), "among"),
        (two(slice(0, 2), slice(1, 4)), "exact"),
        (two(slice(0, 4, 2)), "among"),
        (two(slice(0, 4, 2), slice(1, 4, 2)), "exact"),
        (two(slice(0, 4), slice(0, 1)), "exact"),
        (two(slice(0, 1), slice(0, 4)), "exact"),
        (whole_beside_a_look, "exact"),
        (part_beside_a_look, "among"),
        (one_by_one, "exact"),
        (looked_at_before, "exact"),
        (thrown_away, "among"),
        (thrown_away_in_place, "among"),
        (all_together, "exact"),
        (mined, "among"),
        (copied, "sole"),
        (copied_in_part, "among"),
        (scaled_in_place, "sole"),
    ],
)
def test_an_update_is_of_the_rows_that_its_backward_passes_came_through(
    loop: Loop, log: Read, step: Step, said: str
) -> None:
    optimizer = loop.sgd()
    for features in loop.batches(size=ROWS):
        loop.saw(features)
        optimizer.zero_grad()
        step(loop.model, features)
        optimizer.step()
        loop.updated()
    loop.run.close()
    read = log(loop.run.path)
    assert {use.attribution for use in read.uses() if use.status == "applied"} == {said}
    applied: dict[int, list[int]] = {}
    for use in read.uses():
        if use.status == "applied":
            applied.setdefault(use.step, []).append(use.key)
    assert list(applied.values()) == list(loop.truth.values())
    assert read.kind("gap") == []


def test_two_optimizers_on_two_parts_of_a_batch_have_a_part_each(loop: Loop, log: Read) -> None:
    other = nn.Linear(4, 2)
    mine, theirs = loop.sgd(), loop.sgd(other)
    for _ in range(2):
        for features in loop.batches(size=ROWS):
            mine.zero_grad()
            theirs.zero_grad()
            loss(loop.model(features[:2])).backward()
            loss(other(features[2:])).backward()
            mine.step()
            theirs.step()
    loop.run.close()
    assert {use.attribution for use in log(loop.run.path).uses() if use.status == "applied"} == {"among"}


class Recurrent(nn.Module):
    """Takes sequences time first."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.GRU(4, 3)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.inner(features)[0]


def time_first(rows: list[tuple[torch.Tensor]]) -> torch.Tensor:
    return torch.stack([row[0] for row in rows], 1)


def turned(model: nn.Module, features: torch.Tensor) -> None:
    loss(model(features.transpose(0, 1))).backward()


def in_pieces_of_time(model: nn.Module, features: torch.Tensor) -> None:
    loss(model(features.transpose(0, 1)[:2])).backward()


def but_for_the_last(model: nn.Module, features: torch.Tensor) -> None:
    loss(model(features[:, :-1].transpose(0, 1))).backward()


def as_it_is(model: nn.Module, features: torch.Tensor) -> None:
    loss(model(features[:2])).backward()


@pytest.mark.matrix("Updates", "sequences, time first", attribution="exact")
@pytest.mark.parametrize(
    ("step", "collate"),
    [(turned, None), (in_pieces_of_time, None), (but_for_the_last, None), (as_it_is, time_first)],
)
def test_a_batch_whose_time_comes_first_is_whole_in_each_piece_of_time(
    run: Run, log: Read, step: Step, collate: Any
) -> None:
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(8, STEPS, 4))
    loader = DataLoader(data, batch_size=ROWS, collate_fn=collate)
    run.watch(loader, role="train", whole=collate is not None)
    model = Recurrent()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in loader:
        features = batch if collate else batch[0]
        for _ in range(2):
            optimizer.zero_grad()
            step(model, features)
            optimizer.step()
    run.close()
    uses = log(run.path).uses()
    assert {use.attribution for use in uses} == {"exact"}
    assert sorted(use.key for use in uses) == sorted([*range(8)] * 2)


@pytest.mark.parametrize(
    ("shown", "rows"),
    [
        (lambda x: x[1:3], [1, 2]),
        (lambda x: x[2], [2]),
        (lambda x: x[::2, 1:], [0, 2]),
        (lambda x: x[1:].transpose(0, 2), [1, 2, 3]),
        (lambda x: x.flatten(0, 1)[:4], [0, 1]),
        (lambda x: x[1:2].expand(4, 3, 5), [1]),
        (lambda x: x.flatten(0, 1), None),
        (lambda x: x[:, 1], None),
        (lambda x: x.permute(2, 0, 1)[3:], None),
        (lambda x: x[None], None),
    ],
)
def test_strides_and_places_tell_the_rows_that_a_view_shows(shown: Any, rows: list[int] | None) -> None:
    whole = torch.arange(60.0).reshape(ROWS, 3, 5)
    found = rows_shown(shown(whole), whole, ROWS)
    assert (found if found is None else found.nonzero()[0].tolist()) == rows
    seen = (shown(whole) // 15).unique().tolist()
    assert seen == (list(range(ROWS)) if rows is None else rows)


def test_a_buffer_that_later_batches_are_copied_into_is_none_of_the_first(loop: Loop, log: Read) -> None:
    optimizer, buffer = loop.sgd(), None
    for features in loop.batches():
        loop.saw(features)
        if buffer is None:
            buffer = features
        else:
            buffer.copy_(features)
        optimizer.zero_grad()
        loss(loop.model(buffer)).backward()
        optimizer.step()
        loop.updated()
    loop.run.close()
    uses = log(loop.run.path).uses()
    applied: dict[int, list[int]] = {}
    for use in uses:
        applied.setdefault(use.step, []).append(use.key)
    assert [sorted(samples) for samples in applied.values()] == list(loop.truth.values())
    assert [use.attribution for use in uses] == ["exact"] * 2 + ["fifo"] * 6  # the first is still held
