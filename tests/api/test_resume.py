"""A resumed run goes on with the data that it began with: another under the same name is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from fgtrac.api.prior import registered_before
from fgtrac.api.run import Run, start_run
from fgtrac.store.trace_dir import TraceDir

ROWS = 2_500  # with contents these take three `samples` entries


def numbers(count: int = ROWS, first: int = 0) -> TensorDataset:
    return TensorDataset(torch.arange(first, first + count))


def begin(folder: Path, data: Any, **options: Any) -> None:
    with start_run(folder / "a", key=folder / "key.pem") as run:
        run.register(data, **options)


def resume(folder: Path) -> Run:
    return start_run(folder / "a", key=folder / "key.pem", resume=True)


def test_the_same_data_are_registered_again(tmp_path: Path) -> None:
    begin(tmp_path, numbers(), name="digits")
    for _ in range(2):
        with resume(tmp_path) as run:
            run.register(numbers(), name="digits")
    (block, digest) = registered_before(TraceDir.open(tmp_path / "a.trace"))["digits"]
    assert (len(block), len(digest or b"")) == (16, 32)


@pytest.mark.parametrize(
    ("options", "data", "again", "what"),
    [
        ({"name": "digits"}, numbers(), numbers(ROWS - 1), "samples"),
        ({"name": "digits"}, numbers(), numbers(first=1), "contents"),
        ({}, numbers(), numbers(first=1), "contents"),
        ({"name": "digits", "content": False}, numbers(), numbers(ROWS + 1), "samples"),
    ],
)
def test_other_data_under_the_same_name_are_refused_and_nothing_is_written(
    tmp_path: Path, options: dict[str, Any], data: Any, again: Any, what: str
) -> None:
    begin(tmp_path, data, **options)
    before = registered_before(TraceDir.open(tmp_path / "a.trace"))
    with resume(tmp_path) as run:
        with pytest.raises(ValueError, match=f"registered with other {what} before .*another name="):
            run.register(again, **options)
        run.register(again, name="others")
    after = registered_before(TraceDir.open(tmp_path / "a.trace"))
    assert {name: said for name, said in after.items() if name != "others"} == before


def test_a_content_that_was_not_taken_is_not_compared(tmp_path: Path) -> None:
    """The second run takes contents, which the first did not; the third is held to them."""
    begin(tmp_path, numbers(), name="digits", content=False)
    with resume(tmp_path) as run:
        run.register(numbers(first=1), name="digits")
    with resume(tmp_path) as run:
        run.register(numbers(), name="digits", content=False)
    with resume(tmp_path) as run, pytest.raises(ValueError, match="other contents"):
        run.register(numbers(), name="digits")
