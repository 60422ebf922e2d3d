"""The rows that an entry gives a sample are those that the index has of it: two ways to the same rows, on any log."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fgtrac.events.identity import block_id, public_id
from fgtrac.events.postings import ROW, PostingTable, decode_rows
from fgtrac.events.schema import NO_STEP, ROLES, check_event
from fgtrac.verify.evidence import Registrations, epochs_given, rows_given

IDS = sorted(public_id(b"%d" % n) for n in range(7))
CHILDREN = sorted(public_id(b"child %d" % n) for n in range(5))
BLOCKS = {block_id(b"".join(ids)): ids for ids in (IDS, CHILDREN)}
BLOCK, CHILD_BLOCK = BLOCKS


def registrations(parts: tuple[int, int]) -> list[dict[str, Any]]:
    """Both blocks, each in parts of one size."""
    events = []
    for (block, ids), count in zip(BLOCKS.items(), parts, strict=True):
        size = -(-len(ids) // count)
        cuts = [ids[at : at + size] for at in range(0, len(ids), size)]
        for part, cut in enumerate(cuts):
            fields = {"dataset": "d", "block": block, "part": part, "parts": len(cuts), "ids": b"".join(cut)}
            events.append({"kind": "samples", **fields})
    return events


@st.composite
def namings(draw: st.DrawFn) -> dict[str, Any]:
    """An entry of any kind that names samples of one of the blocks."""
    block = draw(st.sampled_from([BLOCK, CHILD_BLOCK]))

    def ordinals(of: bytes = block, size: int | None = None) -> np.ndarray:
        least, most = (0, 12) if size is None else (size, size)
        return np.array(draw(st.lists(st.integers(0, len(BLOCKS[of]) - 1), min_size=least, max_size=most)), "<u4")

    kind = draw(st.sampled_from(["use", "use", "hops", "transform", "record", "roles", "named", "erasure"]))
    if kind in ("use", "hops"):
        return use(draw, block, ordinals, 2 if kind == "hops" else 0)
    if kind == "record":
        children = ordinals(CHILD_BLOCK)
        pairs = {"parents": ordinals(BLOCK, len(children)), "children": children, "child_block": CHILD_BLOCK}
        return {"kind": "transform", "stage": "s", "operation": "record", "block": BLOCK, **pairs}
    if kind == "transform":
        columns = {"kept": ordinals(), "dropped": ordinals()}
        return {"kind": "transform", "stage": "s", "operation": "filter", "block": block, **columns}
    if kind == "roles":
        return {"kind": "roles", "role": draw(st.sampled_from(sorted(ROLES))), "block": block, "ordinals": ordinals()}
    if kind == "erasure":
        return {"kind": "erasure", "pseudonym": bytes(32), "block": block, "ordinals": ordinals(), "artifacts": []}
    return {"kind": "prediction", "step": draw(st.integers(1, 9)), "block": block, "ordinals": ordinals()}


def use(draw: st.DrawFn, block: bytes, ordinals: Any, hops: int) -> dict[str, Any]:
    counts = np.array(draw(st.lists(st.integers(0, 4), min_size=1, max_size=4)), "<u4")
    n = len(counts)
    status = np.array(draw(st.lists(st.integers(1, 3), min_size=n, max_size=n)), "<u1")
    steps = np.array(draw(st.lists(st.integers(1, 9), min_size=n, max_size=n)), "<u8")
    columns = {
        "epoch": np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), "<u4"),
        "batch": np.arange(n, dtype="<u4"),
        "step": np.where(status == 1, steps, np.uint64(NO_STEP)),
        "status": status,
        "attribution": np.array(draw(st.lists(st.integers(1, 3), min_size=n, max_size=n)), "<u1"),
        "count": counts,
        "ordinals": ordinals(size=int(counts.sum())),
    }
    if hops:
        hop_count = np.array(draw(st.lists(st.integers(0, 3), min_size=n * hops, max_size=n * hops)), "<u4")
        columns |= {
            "graph": "sampled",
            "hops": hops,
            "hop_count": hop_count,
            "hop_ordinals": ordinals(size=int(hop_count.sum())),
        }
    return {"kind": "use", "loader": 1, "optimizer": 1, "block": block, **columns}


@settings(max_examples=150, deadline=None)
@given(st.tuples(st.integers(1, 4), st.integers(1, 3)), st.lists(namings(), max_size=5))
def test_an_entry_gives_a_sample_the_rows_that_the_index_has_of_it(
    parts: tuple[int, int], named: list[dict[str, Any]]
) -> None:
    common = {"time": 0, "writer": bytes(16)}
    shown = {n: {**common, "seq": n, **event} for n, event in enumerate([*registrations(parts), *named])}
    table = PostingTable()
    for number, event in shown.items():
        check_event(event)
        table.add(number, event)
    keys, offsets, values = table.columns()
    places, seen = Registrations(shown.values()), 0
    for place, key in enumerate(keys):
        sample = key.tobytes()[1:]
        rows = decode_rows(values[int(offsets[place]) : int(offsets[place + 1])].tobytes())
        ordinals = places.ordinals(sample, rows, shown)
        assert [BLOCKS[block][at] for block, at in ordinals.items()] == [sample]
        given_rows = np.concatenate([rows_given(n, event, sample, ordinals) for n, event in shown.items()])
        assert given_rows.astype(ROW).tobytes() == rows.tobytes()
        seen += len(rows)
        uses = rows[np.isin(rows["kind"], (5, 6))]
        for number in np.unique(uses["entry"]).tolist():
            assert len(epochs_given(shown[number], ordinals)) == int((uses["entry"] == number).sum())
    assert seen == len(values) // ROW.itemsize
