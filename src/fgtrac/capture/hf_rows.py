"""Data sets of Hugging Face's `datasets`: which registered samples their rows are.

A `Dataset` is an Arrow table and, where rows were chosen, an index into it. All that chooses, orders, shards or
concatenates rows, or changes columns without touching rows, leaves the table's memory where it is, and is seen through.
What writes rows anew (`map`) is followed where each row is made of the row in its place.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from fgtrac.capture.arrow_rows import ArrowRows, PartlyKnownError, Stretch, UnsureRowsError
from fgtrac.capture.roots import Resolved, Root, join_resolved, select_resolved
from fgtrac.errors import CaptureError

KNOWN_VERSIONS = "datasets 3.0 to 5.2"
ROW_BY_ROW = (  # each row of what they write is the row in its place
    "cast", "cast_column", "class_encode_column", "add_column", "flatten", "flatten_indices"
)  # fmt: skip
FOLLOWED = ("map", "filter", *ROW_BY_ROW)


def is_hf_dataset(data: Any) -> bool:
    """Whether it is a map-style Dataset of `datasets`, which is never loaded for that."""
    module = sys.modules.get("datasets.arrow_dataset")
    return module is not None and isinstance(data, module.Dataset)


def is_hf_dict(data: Any) -> bool:
    """Whether it is a DatasetDict: several data sets by name."""
    module = sys.modules.get("datasets.dataset_dict")
    return module is not None and isinstance(data, module.DatasetDict)


def table_of(data: Any) -> Any:
    """The pyarrow.Table that holds the rows, all of them and in the order of the file."""
    return data.data.table


def chosen_rows(data: Any) -> NDArray[np.int64] | None:
    """(n,) the row of the table at each position; None where position i is row i. CaptureError for versions of
    `datasets` that keep no such index."""
    if not hasattr(data, "_indices"):
        version = sys.modules["datasets"].__version__
        raise CaptureError(f"datasets {version} does not tell which rows a Dataset has; known are {KNOWN_VERSIONS}")
    if data._indices is None:
        return None
    found: NDArray[np.int64] = data._indices.column(0).to_numpy().astype(np.int64)
    return found


def table_root(data: Any) -> Any:
    """The data set of all rows of the table behind `data`, in the table's order."""
    if chosen_rows(data) is None:
        return data
    return type(data)(data.data, info=data.info.copy(), split=data.split, fingerprint=data._fingerprint)


def view_table(data: Any) -> Any:
    """A pyarrow.Table of the rows of `data`, in its order."""
    rows = chosen_rows(data)
    return table_of(data) if rows is None else table_of(data).take(sys.modules["pyarrow"].array(rows))


class HfRows:
    """The samples that the rows of data sets are, through everything that leaves rows in their memory. Tables that are
    known stay in memory, unless they are mapped from disk as those in the cache are."""

    def __init__(self) -> None:
        self._rows: ArrowRows[Root | Resolved] = ArrowRows(_are_same)
        self._untold: ArrowRows[str] = ArrowRows(lambda one, other: True)

    def add(self, data: Any, samples: Root | Resolved) -> None:
        """Row i of the table behind `data` is row i of a root, or the sample at position i, from now on."""
        self._rows.add(table_of(data), samples)
        _follow(self)

    def adopt(self, data: Any, samples: Resolved) -> None:
        """Position i of `data` is the sample at position i of `samples`, from now on. ValueError where its rows are
        known as others."""
        if not self._is_told(data):
            if chosen_rows(data) is None:
                self.add(data, samples)
        elif not _is_same(samples, self.find(data)):
            raise ValueError(
                "the rows of this Dataset are registered samples, and others than rows= says; leave it out"
            )

    def find(self, data: Any) -> Resolved | None:
        """The sample at each position; None where the rows are not known.

        CaptureError for rows that were made of known ones in a way that does not tell which; ValueError where some rows
        or columns are known and others are not.
        """
        table = table_of(data)
        stretches = self._rows.find(table)
        if stretches is None:
            if (why := self._untold.touches(table)) is not None:
                raise CaptureError(why)
            return None
        parts = [_cut(s.known, s.start, s.stop) for s in stretches]
        return choose(parts[0] if len(parts) == 1 else join_resolved(parts), data)

    def is_partly_known(self, data: Any) -> bool:
        """Whether only some columns of `data` are those of known rows, so that its rows may be others."""
        try:
            self._rows.find(table_of(data))
        except PartlyKnownError:
            return True
        return False

    def _is_told(self, data: Any) -> bool:
        try:
            return self._rows.find(table_of(data)) is not None
        except UnsureRowsError:
            return False

    def follow(self, name: str, data: Any, made: Any, is_row_by_row: bool) -> None:
        """`Dataset.name` has made `made` of `data`, and may have written rows anew."""
        if not is_hf_dataset(made) or made is data or not len(made):
            return
        rows = chosen_rows(made)  # those of `data`, where only the columns of its table were written anew
        try:
            if self._is_told(made):
                return
            samples = self.find(data if rows is None else table_root(data))
        except (CaptureError, ValueError) as error:  # then nobody can tell either what was made of it
            self._untold.add(table_of(made), str(error))
            return
        if samples is None:
            return
        is_in_place = rows is None or np.array_equal(rows, chosen_rows(data))  # type: ignore[arg-type]
        if is_row_by_row and is_in_place and len(table_of(made)) == len(samples.rows):
            self._rows.add(table_of(made), samples)
        else:
            self._untold.add(table_of(made), _untold(name))


def choose(samples: Resolved, data: Any) -> Resolved:
    """Of the samples that the rows of the table behind `data` are, those at its positions."""
    rows = chosen_rows(data)
    return samples if rows is None else select_resolved(samples, rows)


def _cut(known: Root | Resolved, start: int, stop: int) -> Resolved:
    if isinstance(known, Resolved):
        return Resolved(known.roots, known.which[start:stop], known.rows[start:stop])
    return Resolved((known,), np.zeros(stop - start, dtype=np.uint16), np.arange(start, stop))


def _are_same(one: Stretch[Root | Resolved], other: Stretch[Root | Resolved]) -> bool:
    return _is_same(*[_cut(stretch.known, stretch.start, stretch.stop) for stretch in (one, other)])


def _is_same(one: Resolved, other: Resolved | None) -> bool:
    if other is None or not np.array_equal(one.rows, other.rows):
        return False
    pairs = np.unique(np.stack([one.which, other.which]), axis=1)
    return all(one.roots[a] is other.roots[b] for a, b in pairs.T.tolist())


# -- following what the user calls ------------------------------------------------------------------------------------

_followers: WeakSet[HfRows] = WeakSet()
_within = threading.local()


@contextmanager
def unfollowed() -> Iterator[None]:
    """What is called inside is not followed by itself."""
    was, _within.deep = getattr(_within, "deep", False), True
    try:
        yield
    finally:
        _within.deep = was


def _follow(rows: HfRows) -> None:
    """Tell `rows` from now on what the methods that write rows anew make of which data set."""
    _followers.add(rows)
    kind = sys.modules["datasets.arrow_dataset"].Dataset
    for name in FOLLOWED:
        original = getattr(kind, name, None)
        if original is not None and not hasattr(original, "fgtrac_followed"):
            setattr(kind, name, _following(name, original))


def _following(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        if getattr(_within, "deep", False) or not _followers:
            return original(self, *args, **options)
        with unfollowed():
            made = original(self, *args, **options)
        said = signature.bind(self, *args, **options).arguments
        is_row_by_row = name in ROW_BY_ROW or not said.get("batched") or said.get("function") is None
        for rows in list(_followers):
            rows.follow(name, self, made, is_row_by_row)
        return made

    call.fgtrac_followed = True  # type: ignore[attr-defined]
    return call


def _untold(name: str) -> str:
    return (
        f"these rows were made of registered samples by Dataset.{name} on batches, and nobody can tell which of which: "
        "say run.transform(STAGE, data).map(function, batched=True, ...) in its place, or, where row i is made of row "
        "i, run.register(made, rows=data)"
    )
