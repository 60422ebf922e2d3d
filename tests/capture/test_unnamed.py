"""Bad input while a loop runs: a batch whose samples cannot be named goes to the loop, and a gap and a warning say that
they are not recorded; of a strict run the loop gets the error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from fgtrac.api.run import Run, start_run
from fgtrac.capture.loader import as_positions
from fgtrac.errors import CaptureError
from loader_truth import Read
from update_truth import Updates, told


class Growing(Dataset[Any]):
    """Has a row more after each pass."""

    def __init__(self) -> None:
        self.rows = 4

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: Any) -> torch.Tensor:
        return torch.tensor([float(row), 1, 2, 3])


class ByName(Growing):
    def __getitem__(self, name: Any) -> torch.Tensor:
        return super().__getitem__(name[-1])


class Boxed:
    """A sample without canonical bytes."""

    def __init__(self, number: int) -> None:
        self.number = number


class Boxes(IterableDataset[Boxed]):
    def __iter__(self) -> Iterator[Boxed]:
        yield from map(Boxed, range(6))


def opened(boxes: list[Boxed]) -> torch.Tensor:
    return torch.tensor([[float(box.number), 1, 2, 3] for box in boxes])


def missing_one(box: Boxed) -> int | None:
    return None if box.number == 2 else box.number


def listed(box: Boxed) -> list[int]:
    return [box.number, 10 + box.number]


def stumbling(box: Boxed) -> int:
    return {0: 0, 1: 1, 2: 2, 4: 4, 5: 5}[box.number]


def train(loader: Any, passes: int = 1) -> Updates:
    """Train on all of its batches, and tell whom each update is made of."""
    torch.manual_seed(0)
    model, truth = nn.Linear(4, 2), list[list[int]]()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(passes):
        for features in loader:
            optimizer.zero_grad()
            model(features).square().sum().backward()
            optimizer.step()
            truth.append([int(number) for number in features[:, 0]])
        if isinstance(loader.dataset, Growing):
            loader.dataset.rows += 1
    return {(1, step): samples for step, samples in enumerate(truth, 1)}


Watched = Callable[[Run, int], Any]


def over(data: Any, **options: Any) -> Watched:
    """A loader of batches of two, watched with the key, if there is one."""
    key = options.pop("key", None)

    def watched(run: Run, workers: int) -> Any:
        loader = DataLoader(data(), batch_size=2, num_workers=workers, **options)
        return run.watch(loader, role="train", key=key)

    return watched


CASES = {
    "a data set that has grown": (over(Growing), 2, {5}, r"row \[4\] of a data set of 4 rows; watch the loader after"),
    "names for rows": (over(ByName, sampler=["k0", "k1", "k2", "k3"]), 1, {1, 2}, r"\['k0', 'k1'\], which is no row"),
    "pairs for rows": (over(ByName, sampler=[(0, 1), (1, 2)]), 1, {1}, r"\[\(0, 1\), \(1, 2\)\], which is no row"),
    "contents without bytes": (over(Boxes, collate_fn=opened), 1, {1, 2, 3}, "a Boxed, without canonical bytes"),
    "a sample without a key": (over(Boxes, collate_fn=opened, key=missing_one), 1, {2}, "key= gave None for a sample"),
    "a list for a key": (over(Boxes, collate_fn=opened, key=listed), 1, {1, 2, 3}, "key= gave a list, as of a ready"),
    "a key function that fails": (over(Boxes, collate_fn=opened, key=stumbling), 1, {2}, "key= raised KeyError: 3"),
}


@pytest.mark.matrix("DataLoader", "rows or keys that cannot be told", note="a gap, and the loop goes on")
@pytest.mark.parametrize(("case", "workers"), [*((case, 0) for case in CASES), ("a sample without a key", 1)])
def test_a_batch_that_cannot_be_named_is_said_to_be_unrecorded_and_the_loop_goes_on(
    run: Run, log: Read, case: str, workers: int
) -> None:
    watched, passes, unnamed, words = CASES[case]
    with pytest.warns(RuntimeWarning, match=words) as warned:
        truth = train(watched(run, workers), passes)
    assert len(warned) == 1
    run.close()
    said = log(run.path)
    expected = {at: samples for at, samples in truth.items() if at[1] not in unnamed}
    assert told(said) == expected
    assert {use.attribution for use in said.uses()} <= {"exact"}
    (gap,) = said.kind("gap")
    assert gap["reason"].startswith("batches of loader 1 hold samples that nobody can tell")
    assert "k0" not in str(gap)


@pytest.mark.parametrize("case", CASES)
def test_a_strict_run_raises_where_a_batch_cannot_be_named(tmp_path: Path, case: str) -> None:
    watched, passes, _, words = CASES[case]
    with (
        start_run(tmp_path / "strict", key=tmp_path / "key.pem", strict=True) as run,
        pytest.raises(CaptureError, match=words),
    ):
        train(watched(run, 0), passes)


@pytest.mark.parametrize("drawn", [[(0, 1), (1, 2)], np.zeros((2, 2), int), np.array([True, False])])
def test_pairs_and_masks_are_no_row_numbers(drawn: Any) -> None:
    with pytest.raises(CaptureError, match="which is no row number"):
        as_positions(drawn, 5)


def test_a_tuple_is_a_batch_of_rows_or_one_index_of_several_dimensions() -> None:
    assert as_positions((2, 1), 5).tolist() == [2, 1]
    with pytest.raises(CaptureError, match="which is no row number"):
        as_positions((2, 1), 5, asked_at_once=True)


def test_losses_of_a_batch_that_cannot_be_named_are_left_out(run: Run, log: Read) -> None:
    loader = over(Boxes, collate_fn=opened)(run, 0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.warns(RuntimeWarning, match="nobody can tell"):
        batches = list(loader)
    for features in batches:
        losses = model(features).square().sum(1)
        run.losses(losses)
        losses.sum().backward()
        optimizer.step()
    run.close()
    assert log(run.path).uses() == []
