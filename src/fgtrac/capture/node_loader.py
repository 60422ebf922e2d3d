"""Watching PyG's NodeLoader: where its workers only draw nodes, the batch is made in the main process afterwards.

A registry-scoped patch of `torch_geometric.loader.base.DataLoaderIterator`, which makes it: what it hands on is what
the loop receives, behind every transform. Where the workers make the batch, loader.py sees it. And one of
`NodeLoader.__call__`, which makes a batch outside of any pass.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from fgtrac.capture.watches import find_watch
from fgtrac.errors import CaptureError

KNOWN_VERSIONS = "torch_geometric 2.6 to 2.8"
CALLED = "loader(index)"
_original: list[Any] = []  # DataLoaderIterator.__next__, NodeLoader.__call__


def install() -> None:
    """Once a process. CaptureError where this torch_geometric has no such iterator."""
    if _original:
        return
    owner = getattr(sys.modules.get("torch_geometric.loader.base"), "DataLoaderIterator", None)
    if owner is None or not hasattr(owner, "__next__"):
        raise CaptureError(f"this torch_geometric has no DataLoaderIterator; fgtrac watches {KNOWN_VERSIONS}")
    called: Any = sys.modules["torch_geometric.loader"].NodeLoader
    _original.extend([owner.__next__, called.__call__])
    owner.__next__ = functools.wraps(owner.__next__)(_patched_next)
    called.__call__ = functools.wraps(called.__call__)(_patched_call)


def _patched_next(self: Any) -> Any:
    pairing = getattr(self.iterator, "_fgtrac", None)
    if pairing is None:
        return _original[0](self)
    try:
        batch = _original[0](self)
    except BaseException:
        if pairing.awaits is not None:  # the batch could not be made of its nodes
            (number, _positions), pairing.awaits = pairing.awaits, None
            pairing.unread(number)
        raise
    return _hand_over(pairing, batch)


def _patched_call(self: Any, index: Any) -> Any:
    watch = find_watch(self)
    if watch is not None:
        watch.unrecorded(CALLED)
    return _original[1](self, index)


def _hand_over(pairing: Any, batch: Any) -> Any:
    if pairing.awaits is not None:
        (_number, positions), pairing.awaits = pairing.awaits, None
        if pairing.watch.active:
            return pairing.hand_over(positions, batch)
    return batch
