"""Lies about a sealed trace, each told to a copy of it, and the check that must catch each one.

Some lies need no key; some are told by the signer, who may rewrite the log and sign it again. What no check can
catch is in the list as well: a lie whose check is None must pass, so that nobody promises otherwise.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.api.audit import audit_trace
from fgtrac.commit.plan import format_plan
from fgtrac.demo.forge import (
    Key,
    all_entries,
    factor_files,
    find,
    head_of,
    plan_of,
    put,
    put_artifacts,
    put_entry,
    reseal,
    size_of,
    tile_at,
    with_another_sample,
    with_other_signs,
    without_a_use,
)
from fgtrac.events.schema import decode_event, encode_event
from fgtrac.store.index_files import load_index, write_index
from fgtrac.store.journal import encode_frame, segment_name
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.merkle import leaf_hash
from fgtrac.tlog.note import Note, Signature, Verifier, format_note, format_tree_head, parse_note
from fgtrac.tlog.tiles import ENTRIES, WIDTH, encode_bundle, read_bundle, read_tile
from fgtrac.verify.report import Report, Verdict


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
    first, *others = sorted((trace.path / "artifacts").glob("checkpoint-*"))
    data = others[0].read_bytes() if others else first.read_bytes()[:-1]
    put(trace, str(first.relative_to(trace.path)), data)


def swap_factors(trace: TraceDir, key: Key) -> None:
    """A file of factors becomes that of another checkpoint (or, where there is one only, loses a byte)."""
    first, *others = factor_files(trace)
    put(trace, first, trace.read(others[-1]) if others else trace.read(first)[:-1])


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


def change_score_and_sign(trace: TraceDir, key: Key) -> None:
    """The signer makes one contribution larger than all others."""
    number, event = find(trace, "contribution")
    scores = event["scores"].copy()
    scores[0] = 2 * np.abs(scores).max() + 1
    entries = all_entries(trace)
    entries[number] = encode_event(event | {"scores": scores})
    reseal(trace, entries, key)


def replace_factors_and_sign(trace: TraceDir, key: Key) -> None:
    """The signer turns the gradients of one file of factors around and lets its entry fit; the scores stay."""
    _number, event = find(trace, "contribution")
    path = factor_files(trace, event["step"])[0]
    files = {path: with_other_signs(trace.read(path))}
    reseal(trace, put_artifacts(trace, all_entries(trace), files), key)


def invent_factors_and_sign(trace: TraceDir, key: Key) -> None:
    """The signer turns all gradients of a checkpoint around, and the scores with them: only who runs the model on the
    data can tell."""
    _number, last = find(trace, "contribution")
    files = {path: with_other_signs(trace.read(path)) for path in factor_files(trace, last["step"])}
    entries = put_artifacts(trace, all_entries(trace), files)
    for number, entry in enumerate(entries):
        event = decode_event(entry)
        if event["kind"] == "contribution" and event["step"] == last["step"]:
            entries[number] = encode_event(event | {"scores": -event["scores"]})
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
    Lie("swap factors", "a file of factors is replaced by another checkpoint's", "artifacts", swap_factors),
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
    Lie("change a score", "the signer changes a recorded contribution", "contributions", change_score_and_sign),
    Lie("replace factors", "the signer rewrites factors, not the scores", "contributions", replace_factors_and_sign),
    # not caught
    Lie("add an unknown cosignature", "a line by an unknown key joins the head", None, add_cosignature),
    Lie(
        "invent factors", "the signer invents factors, and scores that follow from them", None, invent_factors_and_sign
    ),
    Lie("rewrite the past", "the signer rewrites log and index and signs again", None, rewrite_and_sign),
)
SHOWN = ("edit an entry", "edit an entry and its hash", "sign as a stranger", "hide a use", "swap an artifact",
         "leave an entry out", "change a score")  # fmt: skip


# -- telling them -----------------------------------------------------------------------------------------------------


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
