"""How many rows data have, and what names each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fgtrac.capture.graph import column_of, is_graph, node_count
from fgtrac.capture.hf_rows import is_hf_dataset, is_hf_dict, table_of
from fgtrac.capture.sample_ids import rows_of
from fgtrac.capture.tables import library_of

Keys = Callable[[int], Any] | Sequence[Any] | str | None


def count_rows(data: Any) -> int:
    """The length of a map-style data set, or how many nodes a graph has; ValueError where it has none, or no rows.
    TypeError for a graph of several node types, and for several data sets."""
    if is_graph(data):
        return node_count(data)
    if is_hf_dict(data):
        raise TypeError(
            "a DatasetDict is several data sets; register each of its splits: for name, split in data.items(): "
            "run.register(split, name=name)"
        )
    library = library_of(data)
    try:
        rows = len(data) if library is None else library.length(data)
    except TypeError as error:
        raise ValueError(
            f"{type(data).__name__} has no length, so its samples cannot be registered beforehand; "
            "wrap it in a map-style data set"
        ) from error
    if rows == 0:
        raise ValueError(f"{type(data).__name__} has 0 rows; a data set to register has at least 1")
    return rows


def keys_of(data: Any, key: Keys, rows: int, what: str) -> Sequence[Any]:
    """A key (or subject) for every row: the row number, a function of it, a column's name, or a sequence. ValueError
    for another number of them, or no such column; TypeError for what has no order of rows."""
    if key is None:
        return range(rows)
    if isinstance(key, bytes | bytearray | Mapping | set | frozenset):
        raise TypeError(
            f"{what}= is a {type(key).__name__}, which is no list of values by row; give one with a value for each row"
        )
    if isinstance(key, str) and is_graph(data):
        key = column_of(data, key)
    elif isinstance(key, str) and (library := library_of(data)) is not None:
        key = library.values(data, key)
    elif isinstance(key, str) and is_hf_dataset(data):
        if key not in data.column_names:
            raise ValueError(f"{what}={key!r} names no column; this Dataset has {', '.join(data.column_names):.200}")
        key = table_of(data).column(key).to_pylist()
    elif isinstance(key, str):
        if isinstance(data, Mapping) or not hasattr(data, "column_names"):
            raise ValueError(
                f"{what}={key!r} names a column, but {type(data).__name__} has no column_names; use a list"
            )
        key = list(data[key])
    elif isinstance(key, np.ndarray | torch.Tensor):
        key = key.tolist()
    values = [key(row) for row in range(rows)] if callable(key) else list(key)
    if len(values) != rows:
        raise ValueError(f"{what}= has {len(values)} values for {rows} rows; give one for each row")
    return [v.item() if isinstance(v, np.generic) else v for v in values]


def keys_of_block(name: str, keys: Sequence[Any] | None, digests: NDArray[np.uint8] | None) -> Sequence[Any]:
    """The keys of a stream's next samples, or, without any, their digests, (n, 32) uint8. ValueError for neither, and
    for other numbers of them."""
    if keys is None and digests is None:
        raise ValueError(f"a block of the stream {name!r:.60} has neither keys nor digests of its samples")
    named = list(keys) if keys is not None else rows_of(digests) if digests is not None else []
    if not named or (digests is not None and len(digests) != len(named)):
        of = f" and {len(digests)} digests" if digests is not None else ""
        raise ValueError(f"a block of the stream {name!r:.60} has {len(named)} keys{of}; give one for each sample")
    return named
