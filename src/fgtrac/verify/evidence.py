"""What the entries say of one sample: the rows of its value made anew from them, as docs/spec/index.md says.

An entry names a sample by its ordinal in a block, and the ordinal follows from the `samples` entries that register it.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError
from fgtrac.events.identity import block_id
from fgtrac.events.postings import KIND, ROW
from fgtrac.events.schema import NO_STEP, ROLES, STATUS, TRANSFORM

Event = Mapping[str, Any]
Shown = Mapping[int, Event]  # decoded entries by number
Ordinals = Mapping[bytes, int]  # a sample's ordinals by block
Row = tuple[int, int, int, int]  # kind, detail, entry, step
_NAMING = {"attention": "attention", "contribution": "contribution", "prediction": "prediction", "erasure": "erased"}
_STAGES = (("kept", "kept"), ("dropped", "dropped"), ("parents", "has children"))


class Registrations:
    """Where samples stand in their blocks, from the `samples` entries among those shown."""

    def __init__(self, shown: Iterable[Event]) -> None:
        """ProofError where parts of one block do not fit each other."""
        self._sizes: dict[tuple[bytes, int], int] = {}
        parts = [e for e in shown if e["kind"] == "samples"]
        for event in parts:
            name, size = (event["block"], event["parts"]), len(event["ids"]) // 32
            if event["parts"] == 1 and block_id(event["ids"]) != event["block"]:
                raise ProofError(f"block {name[0].hex()} has one part, and its name is not the hash of the ids in that")
            if event["part"] < event["parts"] - 1 and self._sizes.setdefault(name, size) != size:
                raise ProofError(f"parts of block {name[0].hex()} hold {self._sizes[name]} and {size} samples")
        for event in parts:
            size = len(event["ids"]) // 32
            if size > self._sizes.get((event["block"], event["parts"]), size):
                raise ProofError(f"the last part of block {event['block'].hex()} is longer than those before it")

    def ordinals(self, sample_id: bytes, rows: NDArray[np.void], shown: Shown) -> dict[bytes, int]:
        """A sample's ordinal in each block that its rows say it was registered in. ProofError where an entry does not
        hold it, or two of one block disagree."""
        found: dict[bytes, int] = {}
        for number in np.unique(rows["entry"][rows["kind"] == KIND["registered"]]).tolist():
            event = shown[number]
            place = find_id(event["ids"], sample_id) if event["kind"] == "samples" else None
            if place is None:
                raise ProofError(f"entry {number} does not register {sample_id.hex()}, as a row says it does")
            ordinal = self._start(event) + place
            if found.setdefault(event["block"], ordinal) != ordinal:
                raise ProofError(f"{sample_id.hex()} has two places in block {event['block'].hex()}")
        return found

    def _start(self, event: Event) -> int:
        part: int = event["part"]
        if part == 0:
            return 0
        size = self._sizes.get((event["block"], event["parts"]))
        if size is None:
            raise ProofError(f"no part but the last of block {event['block'].hex()} is shown, so its size is not known")
        return part * size


def find_id(ids: bytes, sample_id: bytes) -> int | None:
    """The place of an id among ascending ids laid end to end, or None."""
    n = len(ids) // 32
    at = bisect.bisect_left(range(n), sample_id, key=lambda i: ids[32 * i : 32 * i + 32])
    return at if at < n and ids[32 * at : 32 * at + 32] == sample_id else None


def check_dataset(name: str, rows: NDArray[np.void], shown: Shown) -> None:
    """ProofError unless the `samples` entries that the rows name register the sample in the data set of its name."""
    for number in np.unique(rows["entry"][rows["kind"] == KIND["registered"]]).tolist():
        if shown[number]["dataset"] != name:
            raise ProofError(
                f"entry {number} registers it in data set {shown[number]['dataset']!r:.60}, not {name!r:.60}"
            )


def check_evidence(sample_id: bytes, rows: NDArray[np.void], shown: Shown, ordinals: Ordinals) -> str:
    """ProofError unless each entry that the rows name gives exactly the rows that name it."""
    numbers, starts = np.unique(rows["entry"], return_index=True)  # rows ascend by entry
    stops = [*starts[1:].tolist(), len(rows)]
    for number, start, stop in zip(numbers.tolist(), starts.tolist(), stops, strict=True):
        event, said = shown[number], rows[start:stop]
        given = rows_given(number, event, sample_id, ordinals)
        if given.tobytes() != said.tobytes():
            raise ProofError(
                f"entry {number} ({event['kind']}) gives {sample_id.hex()} the rows {_words(given)}, and its value has "
                f"{_words(said)}"
            )
    words = f"the {len(numbers)} entries that its rows name give these {len(rows)} rows and no others"
    has_parts = any(e["kind"] == "samples" and e["parts"] > 1 for e in shown.values())
    rests = "; that its ordinals are right, on the parts shown being those of one block" if has_parts else ""
    return f"{words}; that no row is missing rests on the index{rests}"


def rows_given(number: int, event: Event, sample_id: bytes, ordinals: Ordinals) -> NDArray[np.void]:
    """The rows (ROW, ascending) that entry `number` gives a sample with these ordinals."""
    kind = event["kind"]
    rows: list[Row] = []
    if kind == "samples":
        rows = [(KIND["registered"], 0, number, NO_STEP)] if find_id(event["ids"], sample_id) is not None else []
    elif kind == "use":
        rows = _use_rows(number, event, ordinals)
    elif kind == "transform":
        for column, word in _STAGES:
            count = len(places(event, "block", column, ordinals))
            rows += [(KIND["transformed"], TRANSFORM[word], number, NO_STEP)] * count
        rows += [(KIND["derived"], 0, number, NO_STEP)] * len(places(event, "child_block", "children", ordinals))
    elif kind == "roles":
        rows = [(KIND["role"], ROLES[event["role"]], number, NO_STEP)] * len(
            places(event, "block", "ordinals", ordinals)
        )
    elif kind in _NAMING:
        row = (KIND[_NAMING[kind]], 0, number, event.get("step", NO_STEP))
        rows = [row] * len(places(event, "block", "ordinals", ordinals))
    return np.array(sorted(rows, key=lambda row: (row[0], row[1], row[3])), dtype=ROW)


def epochs_given(event: Event, ordinals: Ordinals) -> NDArray[np.uint32]:
    """The epochs of the batches in which a `use` entry says that the sample was used, or was a neighbour."""
    seeds, hops = _batches(event, ordinals)
    batches = np.concatenate([seeds, hops // max(1, event.get("hops", 1))])
    epochs: NDArray[np.uint32] = event["epoch"][batches[event["status"][batches] == STATUS["applied"]]]
    return epochs


def places(event: Event, block: str, column: str, ordinals: Ordinals) -> NDArray[np.intp]:
    """The places in a column of ordinals at which an entry names the sample."""
    ordinal = ordinals.get(event.get(block, b""))
    values = event.get(column)
    return np.empty(0, np.intp) if ordinal is None or values is None else np.flatnonzero(values == ordinal)


def _use_rows(number: int, event: Event, ordinals: Ordinals) -> list[Row]:
    seeds, hops = _batches(event, ordinals)
    status, steps, out = event["status"], event["step"], []
    for batch in seeds.tolist():
        applied = status[batch] == STATUS["applied"]
        kind, detail = (KIND["used"], event["attribution"]) if applied else (KIND["delivered"], status)
        out.append((kind, int(detail[batch]), number, int(steps[batch])))
    for place in hops.tolist():
        batch, hop = divmod(place, event["hops"])
        if status[batch] == STATUS["applied"]:
            out.append((KIND["neighbour"], hop + 1, number, int(steps[batch])))
    return out


def _batches(event: Event, ordinals: Ordinals) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """For each time the sample stands in a `use` entry the batch, and for each time as a neighbour the batch's hop
    (batch times hops, plus hop from 0)."""
    out = []
    for column, counts in (("ordinals", "count"), ("hop_ordinals", "hop_count")):
        found = places(event, "block", column, ordinals)
        stops = np.cumsum(event[counts], dtype=np.uint64) if len(found) else np.empty(0, np.uint64)
        out.append(np.searchsorted(stops, found.astype(np.uint64), side="right").astype(np.intp))
    return out[0], out[1]


def _words(rows: NDArray[np.void]) -> str:
    shown = ", ".join(
        f"[kind {k}, detail {d}{'' if s == NO_STEP else f', step {s}'}]" for k, d, _e, s in rows[:4].tolist()
    )
    return (shown or "none") + (f" and {len(rows) - 4} more" if len(rows) > 4 else "")
