"""Data whose rows are samples that are known already, by identity: held weakly, so that what stages made can go."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fgtrac.capture.roots import Resolved
from fgtrac.capture.tables import check_unchanged, mark_of


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    data: Callable[[], Any]  # a weak reference, where the data can be referred to so
    mark: Any
    resolved: Resolved


class Adopted:
    """What stages made of known samples, and data sets over a table's rows."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}

    def __contains__(self, data: Any) -> bool:
        return id(data) in self._known

    def add(self, data: Any, resolved: Resolved) -> None:
        """Position i of `data` is the sample at position i of `resolved`, as long as `data` lives."""
        key, known = id(data), self._known

        def kept() -> Any:  # of what cannot be referred to weakly, nothing says when it goes
            return data

        try:
            reference: Callable[[], Any] = weakref.ref(data, lambda _: known.pop(key, None))
        except TypeError:
            reference = kept
        known[key] = _Known(reference, mark_of(data), resolved)

    def find(self, data: Any) -> Resolved | None:
        """The samples of these very data, None where they are not among them. CaptureError for a table whose rows were
        changed in place."""
        known = self._known.get(id(data))
        if known is None or known.data() is not data:
            return None
        check_unchanged(data, known.mark)
        return known.resolved

    def take_over(self, earlier: Adopted) -> None:
        """What an earlier run of this process knew."""
        for known in list(earlier._known.values()):
            if (data := known.data()) is not None:
                self.add(data, known.resolved)
