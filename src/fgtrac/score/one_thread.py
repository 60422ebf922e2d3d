"""Sums in an order that no number of threads changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, BLAS and OpenMP (numpy's and torch's products) compute with one thread: with several, large products are
    cut otherwise, and their last bits are others."""
    with threadpool_limits(limits=1):
        yield
