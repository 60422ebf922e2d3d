"""The start-up self-test: on a torch whose loaders work otherwise, nothing is watched, and the versions are named."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data import dataloader as torch_dataloader

from fgtrac.api.run import Run
from fgtrac.capture import loader
from fgtrac.errors import CaptureError


@pytest.fixture(autouse=True)
def fresh(run: Run) -> Iterator[None]:
    """As in a process that has watched nothing yet, behind the start of the run; afterwards as before."""
    base: Any = torch_dataloader._BaseDataLoaderIter
    patched, originals = {name: getattr(base, name) for name in loader._original}, dict(loader._original)
    for name in originals:
        setattr(base, name, originals[name])
    loader._original.clear()
    yield
    for name in [*loader._original]:
        setattr(base, name, loader._original.pop(name))
    loader._original.update(originals)
    for name, function in patched.items():
        setattr(base, name, function)


def is_patched() -> bool:
    return bool(loader._original) or hasattr(torch_dataloader._BaseDataLoaderIter.__next__, "__wrapped__")


@pytest.mark.matrix("DataLoader", "a torch without the private names", note="watch() refuses, and names the versions")
@pytest.mark.parametrize(
    ("owner", "name"), [("_BaseDataLoaderIter", "_next_index"), ("_MultiProcessingDataLoaderIter", "_try_put_index")]
)
def test_a_torch_that_lacks_a_name_is_refused_with_the_known_versions(
    run: Run, monkeypatch: pytest.MonkeyPatch, owner: str, name: str
) -> None:
    monkeypatch.delattr(getattr(torch_dataloader, owner), name)
    with pytest.raises(CaptureError, match=rf"torch .* has no {owner}.{name}; .* torch 2.6 to 2.13"):
        run.watch(DataLoader([1, 2]))  # type: ignore[arg-type]
    assert not is_patched()


def test_a_torch_whose_workers_keep_other_books_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(self: Any) -> None:
        self._sent = self._next_index()

    monkeypatch.setattr(torch_dataloader._MultiProcessingDataLoaderIter, "_try_put_index", other)
    with pytest.raises(CaptureError, match=r"a _MultiProcessingDataLoaderIter._try_put_index that knows no _send_idx"):
        run.watch(DataLoader([1, 2]))  # type: ignore[arg-type]


@pytest.mark.matrix("DataLoader", "a torch that pairs otherwise", note="a dry pass of three batches shows it: refused")
def test_a_torch_that_reads_one_list_ahead_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch_dataloader._SingleProcessDataLoaderIter._next_data

    def ahead(self: Any) -> Any:
        data = original(self)
        with contextlib.suppress(StopIteration):
            self._next_index()
        return data

    monkeypatch.setattr(torch_dataloader._SingleProcessDataLoaderIter, "_next_data", ahead)
    with pytest.raises(CaptureError, match=r"paired three batches .* install one of these"):
        run.watch(DataLoader([1, 2]))  # type: ignore[arg-type]
    assert not is_patched()


def test_the_self_test_draws_from_no_global_generator(run: Run) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[union-attr]
    run.watch(DataLoader([1, 2]))  # type: ignore[arg-type]
    assert is_patched()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]  # type: ignore[union-attr]
