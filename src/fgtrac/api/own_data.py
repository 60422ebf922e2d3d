"""The user's own data beside a trace, which holds none: the item behind a sample, and whether it is what was recorded.

Nothing here imports the libraries that data come in: an item is known by what it has.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.contents import array_source
from fgtrac.api.naming import key_of, secret_scopes
from fgtrac.api.trace import Trace
from fgtrac.events.byte_order import order_of
from fgtrac.events.codec import encode
from fgtrac.events.identity import (
    content_preimage,
    keyed_id,
    make_ids,
    number_preimages,
    preimage,
    preimages,
    public_id,
)
from fgtrac.events.postings import KIND
from fgtrac.store.vault import Name
from fgtrac.verify.evidence import find_id

MATCHES, SOURCE_MATCHES, DIFFERS, NOT_CHECKED = "matches", "source matches", "differs", "not checked"
MAX_ROWS = 1 << 22  # so many public ids are computed to find a row, 32 bytes each
MAX_SOURCE_BYTES = 1 << 28  # a larger file is not read for a picture


class NoItemError(ValueError):
    """There is no item to show for this sample; the message says why."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where a sample's item is: `data_set[key]`; and the log's content digest of it with its data set's entry."""

    known: Name
    data_set: Any
    key: Any
    logged: bytes | None
    described: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """What the data set gives (`value`); what its source is, in the form that was recorded, and its SHA-256 (None: it
    has no such form). `is_source`: the first element of `value`, or all of it, is that very source."""

    value: Any
    source: tuple[str, bytes] | None
    is_source: bool


class OwnData:
    """Data sets by name, as a user's function gave them: {data set's name: data set}, or the only one there is.

    `data_set[key]` is the item of a sample whose key is `key`: a row number, or what `register(key=...)` was given.
    `data_set.source(key)` gives the bytes that `register(source=...)` took, where it was given a function.
    """

    def __init__(self, data: Any) -> None:
        self._data = data
        self._public: dict[str, tuple[NDArray[np.void], NDArray[np.uint32], Any]] = {}

    def find(self, trace: Trace, sample_id: bytes) -> Found:
        """Where the item of a registered sample is. NoItemError where there is none; ProofError as `Trace.history`."""
        datasets = {str(event["name"]): event for _, event in trace._historian.timeline.entries("dataset")}
        given = self._by_name(datasets)
        known = trace._namer.known(sample_id) or self._computed(given, datasets, sample_id)
        if known is None:
            raise NoItemError(
                "no name of this sample is known here: there is no vault beside the trace, or none of its name in it, "
                "and its data set is not among those given with public ids"
            )
        if known.dataset not in given:
            raise NoItemError(f"the function gives no data set {known.dataset!r:.60}; it gives {_listed(given)}")
        return Found(known, given[known.dataset], key_of(known.key), *_logged(trace, known))

    def _by_name(self, datasets: Mapping[str, Any]) -> Mapping[str, Any]:
        if isinstance(self._data, Mapping):
            return self._data
        roots = [name for name, event in datasets.items() if "rows" in event and "content" in event] or list(datasets)
        if len(roots) != 1:
            raise NoItemError(
                f"the function gives one data set and this trace has {_listed(roots)}; return {{name: data set}}"
            )
        return {roots[0]: self._data}

    def _computed(self, given: Mapping[str, Any], datasets: Mapping[str, Any], sample_id: bytes) -> Name | None:
        """The name of a sample with a public id, by computing those of all that is given."""
        for name, data in given.items():
            if datasets.get(name, {}).get("id_scheme") != "public":
                continue
            ids, order, keys = self._public_ids(name, data)
            at = int(np.searchsorted(ids, np.void(sample_id)))
            if at < len(ids) and ids[at].tobytes() == sample_id:
                return Name(sample_id, name, encode(keys[int(order[at])]), None)
        return None

    def _public_ids(self, name: str, data: Any) -> tuple[NDArray[np.void], NDArray[np.uint32], Any]:
        if name not in self._public:
            if not hasattr(data, "__len__"):
                raise NoItemError(f"{name!r:.60} has no length; put the vault beside the trace to find its rows")
            keys: Any = list(data) if isinstance(data, Mapping) else range(len(data))
            if len(keys) > MAX_ROWS:
                raise NoItemError(f"{name!r:.60} has {len(keys):,} rows; put the vault beside the trace to find one")
            is_rows = isinstance(keys, range)
            rows = np.arange(len(keys), dtype=np.uint64)
            joined = make_ids("public", b"", number_preimages(name, rows) if is_rows else preimages(name, keys))
            order, _ = order_of(np.frombuffer(joined, np.uint8).reshape(-1, 32))
            ids = np.frombuffer(joined, dtype="V32")
            self._public[name] = ids[order], order, keys
        return self._public[name]


def read_item(found: Found) -> Item:
    """The item, and the digest of its source: all that runs code of the user's. NoItemError where it is not there."""
    value = _item_of(found.data_set, found.key)
    recorded = str(found.described.get("content", ""))
    source = _source_of(found.data_set, found.key, value, recorded) if found.logged is not None else None
    return Item(value, source, source is not None and _given_source(value) == source)


def as_array(value: Any) -> NDArray[Any] | None:
    """The array of numbers that a value is: an array, a tensor of whatever library, or a number; else None."""
    if isinstance(value, np.ndarray | np.number | np.bool_):
        return np.asarray(value)
    if hasattr(value, "detach") and hasattr(value, "numpy"):
        try:
            return np.asarray(value.detach().cpu().numpy())
        except (TypeError, RuntimeError, ValueError):  # a dtype or layout that numpy has not
            return None
    if hasattr(value, "__array__") and hasattr(value, "dtype") and hasattr(value, "shape"):
        return np.asarray(value)
    return None


def _item_of(data: Any, key: Any) -> Any:
    try:
        if hasattr(data, "iloc") and isinstance(key, int):
            return data.iloc[key].to_dict()
        return data[key]
    except (IndexError, KeyError) as error:
        raise NoItemError(f"the function's data set has no {key!r:.60}") from error


# -- whether it is what was recorded ----------------------------------------------------------------------------------


def compare(trace: Trace, found: Found, source: tuple[str, bytes] | None, *, is_shown: bool) -> tuple[str, str]:
    """Whether an item's source is the one that the log's digest names: MATCHES where that source is what is shown, else
    SOURCE_MATCHES; DIFFERS or NOT_CHECKED; and why."""
    if found.logged is None:
        return NOT_CHECKED, "the log has no digest of this sample's content"
    recorded, scheme = str(found.described.get("content", "?")), found.described["id_scheme"]
    if source is None:
        return NOT_CHECKED, f"the log's digest is of {recorded!r:.60}, which is not computed here"
    kind, digest = source
    named, secret = content_preimage(digest), _secret(trace, found.known)
    made = public_id(named) if scheme == "public" else None if secret is None else keyed_id(secret, named)
    if made is None:
        return NOT_CHECKED, f"the log's digest is {scheme}, and its key is not in a vault beside the trace"
    if made == found.logged and is_shown:
        return MATCHES, "its bytes are those that the log's content digest names"
    if made == found.logged:
        return SOURCE_MATCHES, (
            "its source is the one that the log's content digest names; what is shown was made of it, and has no digest"
        )
    if kind != recorded:
        return DIFFERS, f"these bytes are not those that were recorded: {kind:.60} is given, the log has {recorded:.60}"
    return DIFFERS, "these bytes are not those that the log's content digest names"


def _logged(trace: Trace, known: Name) -> tuple[bytes | None, Mapping[str, Any]]:
    """A sample's content digest as its last registration has it (None: it has none), and its data set's entry."""
    rows = trace._seal.rows(known.id)
    numbers = [] if rows is None else rows["entry"][rows["kind"] == KIND["registered"]].tolist()
    for number in reversed(numbers):
        event = trace._seal.log.event(number)
        place = find_id(event["ids"], known.id)
        described = [
            e for n, e in trace._historian.timeline.entries("dataset") if n < number and e["name"] == event["dataset"]
        ]
        if "contents" in event and place is not None and described:
            return bytes(event["contents"][32 * place : 32 * place + 32]), described[-1]
    return None, {}


def _secret(trace: Trace, known: Name) -> bytes | None:
    """The secret that a sample's id and content digest are keyed by; None where the vault has it not."""
    named = preimage(known.dataset, key_of(known.key))
    if trace._vault is None:
        return None
    for scope in secret_scopes(known):
        secret = trace._vault.find_secret(scope)
        if secret is not None and keyed_id(secret, named) == known.id:
            return secret
    return None


def _source_of(data: Any, key: Any, value: Any, recorded: str) -> tuple[str, bytes] | None:
    """What the source of an item is, and its SHA-256, in the form that was recorded; None where it has no such form."""
    if recorded == "file":
        path = _file_of(data, key)
        if path is None or path.stat().st_size > MAX_SOURCE_BYTES:
            return None
        with path.open("rb") as file:
            return "file", hashlib.file_digest(file, "sha256").digest()
    if recorded in ("source", "sample") and callable(source := getattr(data, "source", None)):
        octets = source(key)
        return (recorded, hashlib.sha256(octets).digest()) if isinstance(octets, bytes) else None
    if recorded.startswith("tensor "):
        row = as_array(_row_of(data, key, value))
        try:
            return None if row is None else array_source(row)
        except ValueError:
            return None
    return None


def _given_source(value: Any) -> tuple[str, bytes] | None:
    """The source that an item's first element would be, if it is an array or an image in memory."""
    first = value[0] if isinstance(value, tuple | list) and value else value
    row = np.asarray(first) if hasattr(first, "__array_interface__") else as_array(first)
    try:
        return None if row is None else array_source(row)
    except ValueError:
        return None


def _row_of(data: Any, key: Any, value: Any) -> Any:
    """The row before any transform, where the data set has it as an attribute of its own; else what it gives."""
    held = getattr(data, "__dict__", {})
    if isinstance(held.get("tensors"), tuple) and held["tensors"]:
        return held["tensors"][0][key]
    if "data" in held and ("targets" in held or "labels" in held) and hasattr(held["data"], "shape"):
        return held["data"][key]
    return value[0] if isinstance(value, tuple | list) and value else value


def _file_of(data: Any, key: Any) -> Path | None:
    """The file that a data set lists for a row (`samples`, `imgs`, or `data` of paths)."""
    held = getattr(data, "__dict__", {})
    for name in ("samples", "imgs", "data"):
        listed = held.get(name)
        if isinstance(listed, list | tuple) and isinstance(key, int) and key < len(listed):
            entry = listed[key]
            path = entry[0] if isinstance(entry, tuple | list) and entry else entry
            if isinstance(path, str | os.PathLike) and os.path.isfile(path):
                return Path(path)
    return None


def _listed(names: Any) -> str:
    return ", ".join(f"{name!r:.60}" for name in list(names)[:8]) or "none"
