"""The index's rows: random histories against a dictionary of lists, and entries that speak of unknown samples."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgtrac.errors import FormatError, ProofError
from fgtrac.events import postings
from fgtrac.events.identity import block_id
from fgtrac.events.postings import KIND, ROW, PostingTable, decode_rows, merge
from fgtrac.tlog import index
from histories import History, digest, entry

NO_STEP = 2**64 - 1
Event = dict[str, Any]
Value = dict[bytes, bytes]


def reference(events: list[Event]) -> tuple[dict[bytes, list[tuple[int, int, int, int]]], dict[bytes, set[bytes]]]:
    """Every sample's (entry, kind, detail, step) and every content's ids, by a dictionary of lists."""
    parts: dict[tuple[bytes, int], dict[int, bytes]] = {}
    blocks: dict[bytes, list[bytes]] = {}
    rows: dict[bytes, list[tuple[int, int, int, int]]] = {}
    contents: dict[bytes, set[bytes]] = {}

    for number, event in enumerate(events):

        def say(block: bytes, ordinals: Any, kind: str, detail: int = 0, step: int = NO_STEP, at: int = number) -> None:
            for ordinal in ordinals:
                rows.setdefault(blocks[block][ordinal], []).append((at, KIND[kind], detail, step))

        kind = event["kind"]
        if kind == "samples":
            mine = parts.setdefault((event["block"], event["parts"]), {})
            mine[event["part"]] = event["ids"]
            joined = b"".join(mine[part] for part in sorted(mine))
            if block_id(joined) == event["block"]:
                blocks[event["block"]] = [joined[i : i + 32] for i in range(0, len(joined), 32)]
            for i in range(0, len(event["ids"]), 32):
                name = event["ids"][i : i + 32]
                rows.setdefault(name, []).append((number, KIND["registered"], 0, NO_STEP))
                if "contents" in event:
                    contents.setdefault(event["contents"][i : i + 32], set()).add(name)
        elif kind == "use":
            ordinals, near = event["ordinals"].tolist(), event.get("hop_ordinals", np.zeros(0)).tolist()
            for b, count in enumerate(event["count"].tolist()):
                mine, ordinals = ordinals[:count], ordinals[count:]
                status, step = int(event["status"][b]), int(event["step"][b])
                if status == 1:
                    say(event["block"], mine, "used", int(event["attribution"][b]), step)
                else:
                    say(event["block"], mine, "delivered", status)
                for hop in range(event.get("hops", 0)):
                    n = int(event["hop_count"][b * event["hops"] + hop])
                    around, near = near[:n], near[n:]
                    if status == 1:
                        say(event["block"], around, "neighbour", hop + 1, step)
        elif kind == "transform":
            for column, code in (("kept", 1), ("dropped", 2), ("parents", 3)):
                say(event["block"], event.get(column, ()), "transformed", code)
            if "children" in event:
                say(event["child_block"], event["children"], "derived")
        elif kind == "roles":
            say(event["block"], event["ordinals"], "role", postings.ROLES[event["role"]])
        elif kind == "erasure":
            say(event["block"], event["ordinals"], "erased")
        elif kind in ("attention", "contribution", "prediction"):
            say(event["block"], event["ordinals"], kind, 0, event["step"])
    return {name: sorted(mine) for name, mine in rows.items()}, contents


def leaves_of(columns: postings.Columns) -> Value:
    keys, offsets, values = columns
    names = [k.tobytes() for k in keys]
    assert names == sorted(set(names))
    return {name: values[int(offsets[i]) : int(offsets[i + 1])].tobytes() for i, name in enumerate(names)}


def expected_leaves(events: list[Event]) -> Value:
    rows, contents = reference(events)
    leaves = {
        b"\1" + name: b"".join(struct.pack("<BHQQ", kind, detail, at, step) for at, kind, detail, step in mine)
        for name, mine in rows.items()
    }
    return leaves | {b"\2" + name: b"".join(sorted(ids)) for name, ids in contents.items()}


def table_of(events: list[Event], start: int = 0) -> PostingTable:
    table = PostingTable()
    for number, event in enumerate(events, start):
        table.add(number, event)
    return table


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_the_index_of_a_random_history_is_that_of_a_dictionary_of_lists(seed: int, entries: int) -> None:
    events = History(seed, entries).events
    leaves = leaves_of(table_of(events).columns())
    assert leaves == expected_leaves(events)
    for name, value in leaves.items():
        if name[0] == index.SAMPLE:
            assert len(decode_rows(value)) * ROW.itemsize == len(value)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 40), st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_an_index_that_grows_by_seals_equals_one_built_from_scratch(seed: int, entries: int, cuts: list[float]) -> None:
    events = History(seed, entries).events
    bounds = sorted({0, *(int(c * len(events)) for c in cuts), len(events)})
    columns, tree = PostingTable().columns(), None
    for start, stop in itertools.pairwise(bounds):
        table = PostingTable()
        for number in postings.registered_entries(columns).tolist():
            table.recall(number, events[number])
        for number in range(start, stop):
            table.add(number, events[number])
        columns = merge(columns, table.columns())
        tree = index.build(index.Columns(*columns), tree)
    scratch = index.build(index.Columns(*table_of(events).columns()))
    assert leaves_of(columns) == expected_leaves(events)
    assert tree is not None
    assert tree.root == scratch.root


IDS = sorted(digest(n) for n in range(4))
BLOCK = block_id(b"".join(IDS))


def samples(part: int = 0, parts: int = 1, ids: list[bytes] = IDS, block: bytes = BLOCK) -> Event:
    return entry("samples", dataset="d", block=block, part=part, parts=parts, ids=b"".join(ids))


def roles(*ordinals: int, block: bytes = BLOCK) -> Event:
    return entry("roles", role="train", block=block, ordinals=np.array(ordinals, "<u4"))


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([roles(0)], "entry 0 (roles): block .* is not registered"),
        ([samples(0, 2, IDS[:2]), roles(0)], "registered in 1 of 2 parts"),
        ([samples(), roles(4)], "ordinal 4 of block .*, which has 4 samples"),
        ([samples(ids=IDS[:3])], "is not the hash of its ids"),
        ([samples(0, 2, IDS[2:]), samples(1, 2, IDS[:2])], "is not the hash of its ids"),
        ([samples(), samples(ids=IDS[1:3][:1] + IDS[3:])], "registered with other ids"),
        ([samples(0, 2, IDS[1:2]), samples(0, 2, [digest(9)]), samples()], "registered with other ids than those from"),
        ([samples(0, 2, IDS[::2]), samples(0, 2, IDS[:2]), samples(1, 2, IDS[2:])], "registered with other ids"),
        ([samples(0, 2, IDS[:2], block_id(b"".join(IDS[2:] + IDS[:2]))),
          samples(1, 2, IDS[2:], block_id(b"".join(IDS[2:] + IDS[:2])))], "is not the hash"),
        ([samples(0, 2, IDS[2:], block_id(b"".join(IDS[2:] + IDS[:2]))),
          samples(1, 2, IDS[:2], block_id(b"".join(IDS[2:] + IDS[:2])))], "do not ascend"),
    ],
)  # fmt: skip
def test_an_entry_about_samples_that_are_not_registered_is_refused_by_number(events: list[Event], words: str) -> None:
    pattern = words.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ProofError, match=pattern) as caught:
        table_of(events)
    assert str(caught.value).startswith(f"entry {len(events) - 1} (")


def test_a_registration_that_a_crash_cut_short_may_be_written_again_in_other_parts() -> None:
    cut = [samples(0, 3, IDS[:1]), samples(1, 3, IDS[1:2])]
    again = [samples(0, 2, IDS[:2]), samples(1, 2, IDS[2:]), roles(0, 3)]
    assert leaves_of(table_of(cut + again).columns()) == expected_leaves(cut + again)


def test_an_older_part_with_other_ids_than_the_block_is_refused_though_its_rows_are_in_an_older_index() -> None:
    table = PostingTable()
    table.recall(0, samples(0, 2, IDS[::2]))
    with pytest.raises(ProofError, match=r"entry 1 .samples.: block .* was registered with other ids than those from"):
        table.add(1, samples())


def test_a_part_of_a_block_that_is_not_whole_is_in_the_index() -> None:
    assert list(leaves_of(table_of([samples(0, 2, IDS[:2])]).columns())) == [b"\1" + i for i in IDS[:2]]


def test_a_sample_that_a_batch_holds_twice_has_two_rows() -> None:
    leaves = leaves_of(table_of([samples(), roles(1, 1)]).columns())
    assert [r["kind"] for r in decode_rows(leaves[b"\1" + IDS[1]])] == [1, 2, 2]


def row(kind: int = 1, detail: int = 0, at: int = 0, step: int = NO_STEP) -> bytes:
    return struct.pack("<BHQQ", kind, detail, at, step)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (row()[:-1], "18 bytes"),
        (row(0), "kind 0"),
        (row(12), "kind 12"),
        (row(1, 1), "detail 1"),
        (row(2, 0), "detail 0"),
        (row(2, 5), "detail 5"),
        (row(3, 4), "detail 4"),
        (row(5, 6), "detail 6"),
        (row(6, 0), "detail 0"),
        (row(7, 1), "detail 1"),
        (row(at=1) + row(at=0), "do not ascend"),
        (row(2, 1) + row(1), "do not ascend"),
        (row(2, 2) + row(2, 1), "do not ascend"),
        (row(5, 1, 0, 2) + row(5, 1, 0, 1), "do not ascend"),
    ],
)
def test_rows_that_no_index_holds_are_refused(value: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        decode_rows(value)


def test_the_two_kinds_of_leaves_have_the_same_numbers_on_both_sides() -> None:
    assert (postings.SAMPLE, postings.CONTENT) == (index.SAMPLE, index.CONTENT)
