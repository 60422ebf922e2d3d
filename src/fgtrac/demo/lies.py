"""Lies about a sealed trace, each told to a copy of it, and the check that must catch each one.

Some lies need no key; some are told by the signer, who may rewrite the log and sign it again. What no check can
catch is in the list as well: a lie whose check is None must pass, so that nobody promises otherwise.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.api.audit import audit_trace
from fgtrac.commit.plan import Plan, format_plan, parse_plan
from fgtrac.events.postings import KIND, ROW, PostingTable
from fgtrac.events.schema import decode_event, encode_event
from fgtrac.events.totals import Totals
from fgtrac.store import durable
from fgtrac.store.index_files import load_index, write_index
from fgtrac.store.journal import encode_frame, segment_name
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.index import Columns, Tree, build
from fgtrac.tlog.merkle import leaf_hash
from fgtrac.tlog.note import (
    Note,
    Signature,
    TreeHead,
    Verifier,
    format_note,
    format_tree_head,
    parse_note,
    sign_note,
)
from fgtrac.tlog.npy import column_digests
from fgtrac.tlog.tiles import ENTRIES, WIDTH, Tile, encode_bundle, grow, read_bundle, read_entries, read_tile
from fgtrac.verify.report import Report, Verdict

Key = Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Lie:
    """One lie: what is done to the trace, and the name of the check that refutes it (None: nothing can)."""

    name: str
    words: str
    check: str | None
    tell: Callable[[TraceDir, Key], None]


# -- without the key ----------------------------------------------------------------------------------------------


def edit_entry(trace: TraceDir, key: Key) -> None:
    """One sample of one batch becomes another; nothing else is touched."""
    number, event = find(trace, "use")
    put_entry(trace, number, encode_event(with_another_sample(event)))


def edit_entry_and_hash(trace: TraceDir, key: Key) -> None:
    """The same, and the entry's hash in its tile is made to fit."""
    number, event = find(trace, "use")
    entry = encode_event(with_another_sample(event))
    put_entry(trace, number, entry)
    tile = tile_at(trace, 0, number // WIDTH)
    data = bytearray(read_tile(trace, tile))
    data[number % WIDTH * 32 : number % WIDTH * 32 + 32] = leaf_hash(entry)
    put(trace, tile.path, bytes(data))


def swap_entries(trace: TraceDir, key: Key) -> None:
    """Two neighbouring entries change places."""
    number, _event = find(trace, "use")
    entries = read_bundle(trace, number // WIDTH, size_of(trace))
    at = number % WIDTH
    entries[at - 1], entries[at] = entries[at], entries[at - 1]
    put(trace, tile_at(trace, ENTRIES, number // WIDTH).path, encode_bundle(entries))


def drop_tail(trace: TraceDir, key: Key) -> None:
    """The last bundle of entries goes."""
    (trace.path / tile_at(trace, ENTRIES, (size_of(trace) - 1) // WIDTH).path).unlink()


def forge_head(trace: TraceDir, key: Key) -> None:
    """The head claims another root, under the signature of the old one."""
    note = parse_note(trace.read("checkpoint"))
    head = head_of(trace)
    text = format_tree_head(dataclasses.replace(head, root=bytes(32)))
    put(trace, "checkpoint", format_note(Note(text, note.signatures)))


def sign_with_another_key(trace: TraceDir, key: Key) -> None:
    """The log is rewritten without one batch's true sample and signed by somebody else, all of it consistent."""
    entries = all_entries(trace)
    number, event = find(trace, "use")
    entries[number] = encode_event(with_another_sample(event))
    reseal(trace, entries, Ed25519PrivateKey.generate())


def hide_use_in_index(trace: TraceDir, key: Key) -> None:
    """One use disappears from the index on disk, whose hashes are made to fit; log and head stay."""
    size = trace.full_seals()[-1]
    write_index(trace.path, size, without_a_use(load_index(trace.mapped, size, b"")))


def swap_artifact(trace: TraceDir, key: Key) -> None:
    """A saved model becomes another saved model (or, where there is one only, loses a byte)."""
    first, *others = sorted((trace.path / "artifacts").iterdir())
    data = others[0].read_bytes() if others else first.read_bytes()[:-1]
    put(trace, str(first.relative_to(trace.path)), data)


def alter_plan(trace: TraceDir, key: Key) -> None:
    """The plan of the seal says that a writer was sealed further than it was."""
    plan = plan_of(trace)
    further = {writer: stop + 1 for writer, stop in plan.writers.items()}
    put(trace, plan.path, format_plan(dataclasses.replace(plan, writers=further)))


def delete_plan(trace: TraceDir, key: Key) -> None:
    """The plan of the seal goes."""
    (trace.path / plan_of(trace).path).unlink()


def lose_note(trace: TraceDir, key: Key) -> None:
    """The signed note of a full seal goes."""
    (trace.path / f"index/{trace.full_seals()[0]}/checkpoint").unlink()


def damage_journal(trace: TraceDir, key: Key) -> None:
    """An entry that waits to be sealed loses its last byte to another."""
    frame = encode_frame(all_entries(trace)[0])
    put(trace, f"journal/{segment_name(bytes(16), 0)}", frame[:-1] + bytes([frame[-1] ^ 1]) + frame)


def slip_in_file(trace: TraceDir, key: Key) -> None:
    """A file that no entry names joins the folder."""
    put(trace, "index/readme.txt", b"all is well\n")


def add_cosignature(trace: TraceDir, key: Key) -> None:
    """A line by a key that nobody knows joins the head's signatures: the specification says to ignore it."""
    note = parse_note(trace.read("checkpoint"))
    line = Signature("witness.example", b"\x01\x02\x03\x04", bytes(72))
    put(trace, "checkpoint", format_note(Note(note.text, (*note.signatures, line))))


# -- by the signer ------------------------------------------------------------------------------------------------


def drop_entry_and_sign(trace: TraceDir, key: Key) -> None:
    """The signer leaves an entry out, builds log and index anew and signs."""
    number, _event = find(trace, "use")
    entries = all_entries(trace)
    del entries[number]
    reseal(trace, entries, key)


def hide_use_and_sign(trace: TraceDir, key: Key) -> None:
    """The signer commits to an index in which one use is missing."""
    reseal(trace, all_entries(trace), key, lie=without_a_use)


def use_unregistered_and_sign(trace: TraceDir, key: Key) -> None:
    """The signer names a sample that was never registered."""
    number, event = find(trace, "use")
    ordinals = event["ordinals"].copy()
    ordinals[0] = 2**32 - 1
    entries = all_entries(trace)
    entries[number] = encode_event(event | {"ordinals": ordinals})
    reseal(trace, entries, key, lie=lambda tree: tree, skip=number)


def claim_another_run(trace: TraceDir, key: Key) -> None:
    """The signer's run entry names another trace."""
    entries = all_entries(trace)
    entries[0] = encode_event(decode_event(entries[0]) | {"trace": bytes(16)})
    reseal(trace, entries, key)


def rewrite_and_sign(trace: TraceDir, key: Key) -> None:
    """The signer names another sample, builds everything anew and signs: only an older head can tell."""
    number, event = find(trace, "use")
    entries = all_entries(trace)
    entries[number] = encode_event(with_another_sample(event))
    reseal(trace, entries, key)


LIES = (
    # without the key
    Lie("edit an entry", "one sample of a recorded batch becomes another", "entries", edit_entry),
    Lie("edit an entry and its hash", "... and the hash in its tile is made to fit", "tiles", edit_entry_and_hash),
    Lie("swap two entries", "two neighbouring entries change places", "entries", swap_entries),
    Lie("drop the tail", "the last bundle of entries is deleted", "entries", drop_tail),
    Lie("forge the head", "the head claims another root under the old signature", "signature", forge_head),
    Lie("sign as a stranger", "log, index and head rewritten, another's signature", "signature", sign_with_another_key),
    Lie("hide a use", "one use vanishes from the index, whose hashes are made to fit", "index", hide_use_in_index),
    Lie("swap an artifact", "a saved model is replaced by another", "artifacts", swap_artifact),
    Lie("alter the plan", "the seal's plan claims more than was sealed", "plan", alter_plan),
    Lie("delete the plan", "the seal's plan is deleted", "plan", delete_plan),
    Lie("lose a seal's note", "the signed note of a full seal is deleted", "seals", lose_note),
    Lie("damage the journal", "a byte of an entry that waits to be sealed is changed", "journal", damage_journal),
    Lie("slip in a file", "a file that no entry names joins the folder", "files", slip_in_file),
    # by the signer
    Lie("leave an entry out", "the signer drops an entry, rebuilds and signs", "sequences", drop_entry_and_sign),
    Lie("commit to a false index", "the signer signs an index that hides a use", "index", hide_use_and_sign),
    Lie("invent a sample", "the signer uses a sample nobody registered", "registered", use_unregistered_and_sign),
    Lie("claim another run", "the signer's run entry names another trace", "run", claim_another_run),
    # not caught
    Lie("add an unknown cosignature", "a line by an unknown key joins the head", None, add_cosignature),
    Lie("rewrite the past", "the signer rewrites log and index and signs again", None, rewrite_and_sign),
)
SHOWN = ("edit an entry", "edit an entry and its hash", "sign as a stranger", "hide a use", "swap an artifact",
         "leave an entry out")  # fmt: skip


# -- tools --------------------------------------------------------------------------------------------------------


def head_of(trace: TraceDir) -> TreeHead:
    """The trace's tree head. ValueError where it has none: a lie is told about a sealed trace."""
    head = trace.head()
    if head is None:
        raise ValueError(f"{trace.path} is not sealed; run fgtrac seal first")
    return head


def size_of(trace: TraceDir) -> int:
    """The number of sealed entries."""
    return head_of(trace).size


def all_entries(trace: TraceDir) -> list[bytes]:
    """Every sealed entry."""
    size = size_of(trace)
    return list(read_entries(trace, 0, size, size))


def find(trace: TraceDir, kind: str) -> tuple[int, dict[str, Any]]:
    """The number and event of the last entry of a kind: behind it lies less, which makes it the harder lie."""
    for number, entry in reversed(list(enumerate(all_entries(trace)))):
        event = decode_event(entry)
        if event["kind"] == kind:
            return number, event
    raise ValueError(f"{trace.path} has no {kind} entry to lie about; record some training first")


def with_another_sample(event: dict[str, Any]) -> dict[str, Any]:
    """A `use` event whose first sample is its neighbour in the block, which is registered too."""
    ordinals = event["ordinals"].copy()
    ordinals[0] = ordinals[0] - 1 if ordinals[0] else 1
    return event | {"ordinals": ordinals}


def tile_at(trace: TraceDir, level: int, number: int) -> Tile:
    """The tile of that number, as wide as the log has it."""
    return Tile(level, number, min(WIDTH, (size_of(trace) >> 8 * max(level, 0)) - number * WIDTH))


def put_entry(trace: TraceDir, number: int, entry: bytes) -> None:
    """Replace one entry in its bundle."""
    entries = read_bundle(trace, number // WIDTH, size_of(trace))
    entries[number % WIDTH] = entry
    put(trace, tile_at(trace, ENTRIES, number // WIDTH).path, encode_bundle(entries))


def put(trace: TraceDir, path: str, data: bytes) -> None:
    """Replace a file."""
    durable.write_file(trace.path / path, data, sync=False)


def plan_of(trace: TraceDir) -> Plan:
    """The plan of the current head."""
    return parse_plan(trace.read(f"journal/{size_of(trace)}.seal"))


def without_a_use(tree: Tree) -> Tree:
    """The tree of the same columns without the last row of use, hashed anew."""
    columns = tree.columns
    rows_end = int(columns.offsets[np.searchsorted(columns.keys[:, 0], 2)])
    rows = np.frombuffer(columns.values[:rows_end].tobytes(), dtype=ROW)
    used = np.flatnonzero(rows["kind"] == KIND["used"])[-1]
    cut = int(used) * ROW.itemsize
    values = np.concatenate([columns.values[:cut], columns.values[cut + ROW.itemsize :]])
    later = np.asarray(columns.offsets) > cut
    offsets = np.where(later, columns.offsets - np.uint64(ROW.itemsize), columns.offsets).astype(np.uint64)
    return build(Columns(np.array(columns.keys), offsets, values))


def reseal(
    trace: TraceDir,
    entries: Sequence[bytes],
    key: Key,
    *,
    lie: Callable[[Tree], Tree] = lambda tree: tree,
    skip: int | None = None,
) -> None:
    """Rewrite the whole trace around other entries and sign it: `lie` changes the index before it is committed to,
    and entry `skip` is not in it."""
    head, plan = head_of(trace), plan_of(trace)
    table, totals = PostingTable(), Totals({}, np.empty(0, np.uint64))
    for number, entry in enumerate(entries[:-1]):
        event = decode_event(entry)
        totals.add(event)
        if number != skip:
            table.add(number, event)
    tree = lie(build(Columns(*table.columns())))
    said = {"root": tree.root, "leaves": len(tree), "entries": len(entries) - 1}
    seal = encode_event(decode_event(entries[-1]) | said | {"counts": totals.counts, "epoch_steps": totals.epoch_steps})
    for folder in ("tile", "index"):
        shutil.rmtree(trace.path / folder)
    (trace.path / plan.path).unlink()
    growth = grow(0, trace, [*entries[:-1], seal])
    for path, data in growth.files.items():
        put(trace, path, data)
    write_index(trace.path, growth.size, tree)
    text = format_tree_head(TreeHead(head.origin, growth.size, growth.root))
    note = format_note(Note(text, (sign_note(text, head.origin, key),)))
    put(trace, f"index/{growth.size}/checkpoint", note)
    put(trace, "checkpoint", note)
    fresh = Plan(growth.size, growth.size, (), plan.writers, (), growth.size, column_digests(tree))
    put(trace, fresh.path, format_plan(fresh))


def answer(trace: TraceDir, lie: Lie, key: Key) -> Report:
    """What a full verification under the key says of a copy of the trace that the lie was told about."""
    with tempfile.TemporaryDirectory(prefix="fgtrac-lie-") as folder:
        copy = TraceDir(Path(shutil.copytree(trace.path, Path(folder) / trace.path.name)))
        verifier = Verifier(head_of(trace).origin, key.public_key().public_bytes_raw())
        lie.tell(copy, key)
        return audit_trace(copy, verifier)


def is_as_foretold(lie: Lie, report: Report) -> bool:
    """Whether exactly the lie's check refutes; or, for a lie that nothing catches, none does."""
    refuted = {f.check for f in report.findings if f.verdict is Verdict.REFUTED}
    return refuted == (set() if lie.check is None else {lie.check})
