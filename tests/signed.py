"""Traces in memory that their own signer wrote: any entries, sealed as they should be, with chosen lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.commit.plan import Plan, Taken, format_plan
from fgtrac.errors import FormatError, ProofError
from fgtrac.events.identity import block_id, public_id
from fgtrac.events.postings import PostingTable
from fgtrac.events.schema import ATTRIBUTION, STATUS, decode_event, encode_event
from fgtrac.events.totals import Totals
from fgtrac.tlog.index import Columns, Tree, build
from fgtrac.tlog.merkle import MemoryNodes, hash_leaves, root
from fgtrac.tlog.note import Note, TreeHead, Verifier, format_note, format_tree_head, sign_note
from fgtrac.tlog.npy import arrays_of, column_digests, column_path, flat_bytes, npy_header
from fgtrac.tlog.tiles import grow, partial_tiles

Files = dict[str, bytes]
Event = dict[str, Any]

TRACE_ID = bytes(range(16))
ORIGIN = "fgtrac/" + TRACE_ID.hex()
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC_KEY = KEY.public_key().public_bytes_raw()
VERIFIER = Verifier(ORIGIN, PUBLIC_KEY)
WRITER, OTHER, SEALER = b"w" * 16, b"o" * 16, b"s" * 16
IDS = sorted(public_id(b"%d" % n) for n in range(6))
BLOCK = block_id(b"".join(IDS))


class MemoryTrace:
    """A trace's files as a dictionary."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def read(self, path: str) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(f"the trace has no file {path}")
        return self.files[path]

    def pieces(self, path: str) -> Iterator[bytes]:
        data = self.read(path)
        return iter([data[i : i + 100] for i in range(0, len(data), 100)])

    def names(self) -> list[str]:
        return sorted(self.files)


def run(**changes: Any) -> Event:
    fields = {"trace": TRACE_ID, "format": 1, "public_key": PUBLIC_KEY, "id_scheme": "public", "versions": {}}
    return {"kind": "run", **fields, **changes}


def samples() -> Event:
    return {"kind": "samples", "dataset": "d", "block": BLOCK, "part": 0, "parts": 1, "ids": b"".join(IDS)}


def use(step: int, *ordinals: int) -> Event:
    batch = {
        "epoch": np.array([0], np.uint32),
        "batch": np.array([step - 1], np.uint32),
        "step": np.array([step], np.uint64),
        "status": np.array([STATUS["applied"]], np.uint8),
        "attribution": np.array([ATTRIBUTION["exact"]], np.uint8),
        "count": np.array([len(ordinals)], np.uint32),
    }
    named = np.array(ordinals, np.uint32)
    return {"kind": "use", "loader": 1, "optimizer": 1, "block": BLOCK, **batch, "ordinals": named}


def metrics(step: int) -> Event:
    return {"kind": "metrics", "step": step, "values": {"loss": 1.0}}


def end(*writers: tuple[bytes, int]) -> Event:
    return {"kind": "end", "writers": [list(w) for w in writers]}


def gap(writer: bytes, first: int, stop: int) -> Event:
    return {"kind": "gap", "reason": "write failed", "lost_writer": writer, "first": first, "stop": stop}


def seal(**changes: Any) -> Event:
    """A full seal at this place; what it says is filled in, but for the changes."""
    return {"kind": "seal", **changes}


def by(writer: bytes, seq: int, event: Event) -> Event:
    """The event as another writer's, or under another number."""
    return {**event, "writer": writer, "seq": seq}


def write(*events: Event | bytes, index: Callable[[Tree], Tree] = lambda tree: tree) -> Files:
    """The files of a trace of these entries. Writer and seq are filled in where they are not given; `index` changes
    the index before it is committed to."""
    entries, seals = _encode(events, index)
    files = dict(grow(0, MemoryTrace({}), entries).files)
    for size in seals:
        files |= {t.path: d for t, d in _partial(entries, size)} | {f"index/{size}/checkpoint": note(entries, size)}
    if seals:
        size, tree = list(seals.items())[-1]
        files |= columns(size, tree)
    files["checkpoint"] = note(entries, len(entries))
    plan = plan_of(entries, seals)
    return files | {plan.path: format_plan(plan)}


def put_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write them below a folder, by their paths."""
    for path, data in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def _encode(events: Sequence[Event | bytes], index: Callable[[Tree], Tree]) -> tuple[list[bytes], dict[int, Tree]]:
    entries: list[bytes] = []
    seals: dict[int, Tree] = {}
    seqs: dict[bytes, int] = {}
    table, totals = PostingTable(), Totals({}, np.empty(0, np.uint64))
    for number, event in enumerate(events):
        if isinstance(event, bytes):
            entries.append(event)
            continue
        writer = event.get("writer", SEALER if event["kind"] == "seal" else WRITER)
        said = {"time": number, "writer": writer, "seq": seqs.get(writer, 0), **event}
        seqs[writer] = said["seq"] + 1
        if event["kind"] == "seal":
            tree = index(build(Columns(*table.columns())))
            seals[number + 1] = tree
            truth = {"root": tree.root, "leaves": len(tree), "entries": number, "counts": dict(totals.counts)}
            said = {**said, **truth, "epoch_steps": totals.epoch_steps, **event}
        with suppress(ProofError):  # a lie about samples that are not there: left out of the index
            table.add(number, said)
        totals.add(said)
        entries.append(encode_event(said))
    return entries, seals


def _partial(entries: Sequence[bytes], size: int) -> Iterator[tuple[Any, bytes]]:
    small = grow(0, MemoryTrace({}), entries[:size]).files
    return ((tile, small[tile.path]) for tile in partial_tiles(size))


def note(entries: Sequence[bytes], size: int, key: Ed25519PrivateKey = KEY, origin: str = ORIGIN) -> bytes:
    """The signed head over the first `size` entries."""
    reached = root(size, MemoryNodes(hash_leaves(entries[:size])))
    text = format_tree_head(TreeHead(origin, size, reached))
    return format_note(Note(text, (sign_note(text, origin, key),)))


def columns(size: int, tree: Tree) -> Files:
    """The index's files."""
    return {column_path(size, n): npy_header(a) + bytes(flat_bytes(a)) for n, a in arrays_of(tree).items()}


def plan_of(entries: Sequence[bytes], seals: dict[int, Tree]) -> Plan:
    """The plan of one seal that took everything."""
    taken: list[Taken] = []
    stops: dict[bytes, int] = {}
    own = 1 if len(entries) in seals else 0
    for number, entry in enumerate(entries):
        try:
            event = decode_event(entry)
        except FormatError:
            continue
        writer, seq = event["writer"], event["seq"]
        stops[writer] = max(stops.get(writer, 0), seq + 1)
        if number >= len(entries) - own:
            continue
        if taken and (taken[-1].writer, taken[-1].stop) == (writer, seq):
            taken[-1] = Taken(writer, taken[-1].first, seq + 1)
        else:
            taken.append(Taken(writer, seq, seq + 1))
    newest = max(seals, default=0)
    digests = column_digests(seals[newest]) if seals else {}
    start = len(entries) - own - sum(t.stop - t.first for t in taken)
    return Plan(start, len(entries), tuple(taken), stops, tuple(entries[len(entries) - own :]), newest, digests)
