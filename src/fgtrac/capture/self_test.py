"""Before the first loader is watched: has this torch the private names that the pairing reads, and does it pair?"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data import dataloader as torch_dataloader

from fgtrac.errors import CaptureError

KNOWN_VERSIONS = "torch 2.6 to 2.13"
# Class -> method -> what its code reads or sets. Workers are not started for this: the code says enough.
PRIVATE_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "_BaseDataLoaderIter": {
        "__init__": ("_num_workers", "_dataset_kind"), "_reset": ("_sampler_iter",), "_next_index": (), "__next__": (),
    },
    "_SingleProcessDataLoaderIter": {"_next_data": ("_next_index",)},
    "_MultiProcessingDataLoaderIter": {
        "_try_put_index": ("_next_index", "_send_idx", "_task_info"), "_next_data": ("_task_info",),
        "_process_data": ("_try_put_index",),
    },
}  # fmt: skip


def check_private_names() -> None:
    """CaptureError where this torch lacks one of them."""
    for class_name, methods in PRIVATE_NAMES.items():
        owner = getattr(torch_dataloader, class_name, None)
        for name, read in methods.items():
            method = getattr(owner, name, None)
            code = getattr(getattr(method, "__wrapped__", method), "__code__", None)
            if code is None:
                raise CaptureError(_refusal(f"has no {class_name}.{name}"))
            for one in read:
                if one not in code.co_names:
                    raise CaptureError(_refusal(f"has a {class_name}.{name} that knows no {one}"))


def check_pairing(answered: Callable[[Any, Any], int]) -> None:
    """A pass of three batches over the patched iterator; `answered` finds the task of a delivered batch.

    CaptureError where a batch was not paired with the indices that were drawn for it. Draws from no global generator.
    """
    rows: Any = range(6)
    loader: Any = DataLoader(rows, batch_size=2, shuffle=True, generator=torch.Generator(), collate_fn=list)
    batches, probe = iter(loader), _Probe(answered)
    batches._fgtrac = probe
    given = list(batches)
    if len(given) != 3 or probe.paired != [(batch, batch) for batch in given]:
        raise CaptureError(_refusal(f"paired three batches {given} as {probe.paired}"))


class _Probe:
    """In the place of a pairing: what was drawn for each batch, and the batch."""

    def __init__(self, answered: Callable[[Any, Any], int]) -> None:
        grounding = SimpleNamespace(looks_away=False, exhausted=lambda _iteration: None)
        self.watch = SimpleNamespace(active=True, stream=None, grounding=grounding)
        self.loader = self.ahead = self.iteration = None
        self.drawn = 0
        self.sent: dict[int, Any] = {}
        self.paired: list[tuple[Any, Any]] = []
        self._answered = answered

    def take(self, iterator: Any, data: Any) -> Any:
        self.paired.append((self.sent.pop(self._answered(iterator, self), None), data))
        return data


def _refusal(what: str) -> str:
    return f"torch {torch.__version__} {what}; fgtrac watches loaders of {KNOWN_VERSIONS}: install one of these"
