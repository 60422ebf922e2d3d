"""Sealing: the journal becomes part of the log, and a signed tree head says so.

The order of writes, and what a crash behind each of them leaves:

    1  the plan (which frames, in which order; the seal's own entries)   the same seal is made again
    2  bundles and hash tiles                                            as 1: the same bytes are written again
    3  the index, at a full seal                                         as 1 (one that does not fit in memory is built
                                                                         before 1, and found where it was built)
    4  the signer's state, with the whole signed note                    exactly this note is published
    5  at a full seal, the note beside its index                         as 4
    6  the tree head                                                     sealed; what follows is tidied up next time
    7  sealed segments, older plans, partial tiles and index columns go

The tree head decides what is sealed. Recovery is not a second path: it is steps 2 to 7 for the plan that it finds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fgtrac.commit import tidy
from fgtrac.commit.gather import Gathered, Segment, gather, read_segments, told_damage
from fgtrac.commit.indexer import MEANS, Means, Sealed, build_index, find_damaged_column
from fgtrac.commit.plan import Plan, format_plan
from fgtrac.commit.signer import Signer
from fgtrac.commit.state import State, load_state, sealed_writers
from fgtrac.errors import ProofError, TamperError
from fgtrac.events.schema import decode_event, encode_event
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.merkle import hash_leaves, root
from fgtrac.tlog.note import TreeHead
from fgtrac.tlog.tiles import WIDTH, TileNodes, grow, read_bundle, read_entries
from fgtrac.verify.keys import check_chain, is_about_keys, last_named_key, rotations_of, signers_from

Clock = Callable[[], int]
PORTIONS = 8  # the entries that one seal takes have at most this part of the memory: they are held three times


@dataclass(frozen=True, slots=True)
class SealResult:
    """The tree head after a seal: size, root, how many entries were new, and whether an index covers them all."""

    size: int
    root: bytes
    new_entries: int
    full: bool


def seal(
    trace: TraceDir,
    signer: Signer,
    *,
    full: bool,
    clock: Clock,
    wait_s: float = 0.0,
    before: Mapping[bytes, int] = MappingProxyType({}),
    means: Means = MEANS,
) -> SealResult:
    """Move every whole journal frame into the log and sign its head; with `full`, commit the index too.

    First finishes a seal that was interrupted. Where nothing is new, nothing is written (but a lost index is rebuilt).
    Of a writer in `before` only entries below that number are taken; the others stay in the journal. A journal that
    does not fit in the memory of `means` is sealed in portions, by plain seals up to the last one.
    BlockingIOError where somebody else seals this trace for longer than `wait_s`;
    TamperError for a state that no crash can leave;
    ProofError where an entry speaks of samples that are not registered (a plain seal is still possible);
    OSError where the disk refuses: nothing is lost, and the next seal goes on from there.
    """
    with durable.lock(signer.lock_path, str(trace.path), wait_s):
        segments = read_segments(trace)
        state = recover(trace, signer, segments, means)
        is_shared = len({segment.writer for segment in segments}) > 1
        later = read_segments(trace) if is_shared else None
        new, is_all, told = 0, False, told_damage(state.plan.own)
        while not is_all:
            most = max(means.memory_bytes // PORTIONS, 1)
            found = gather(segments, state.plan.writers, before, later, most, told)
            is_all = found.is_all
            is_full = full and is_all
            plan, entries, index = _make_plan(trace, signer, state, found, full=is_full, clock=clock, means=means)
            if plan is None:
                if is_full and state.size:
                    _restore_index(trace, signer, state, means)
                break
            _key_for(trace, signer, plan.start, entries)  # raises before anything is written
            data = format_plan(plan)
            signer.remember_plan(data)
            durable.write_file(trace.path / plan.path, data)
            head = _execute(trace, signer, plan, entries, index, state.plan, means)
            told |= told_damage(plan.own)
            tidy.after_seal(trace, plan, segments, told)
            new += plan.stop - plan.start
            state = State(head.size, head.root, plan)
        tidy.remove_unfinished_index(trace, signer)
        return SealResult(state.size, state.root, new, state.size > 0 and state.plan.index_size == state.size)


def last_seqs(trace: TraceDir, signer: Signer | None = None) -> dict[bytes, int]:
    """Each writer's last sequence number, sealed or in the journal; with `signer`, from no plan but its own."""
    last = {writer: stop - 1 for writer, stop in sealed_writers(trace, signer).items()}
    for segment in read_segments(trace):
        for frame in segment.frames:
            last[segment.writer] = max(last.get(segment.writer, -1), frame.seq)
    return last


# -- planning -------------------------------------------------------------------------------------------------------


def _make_plan(
    trace: TraceDir, signer: Signer, state: State, found: Gathered, *, full: bool, clock: Clock, means: Means
) -> tuple[Plan | None, tuple[bytes, ...], Sealed | None]:
    """The plan, all its entries, and the index where it is a full seal; None where there is nothing to do."""
    if not found.entries and not found.gaps and not (full and 0 < state.size != state.plan.index_size):
        return None, (), None
    start, writer = state.size, os.urandom(16)
    own = [_own(writer, n, clock, gap) for n, gap in enumerate({"kind": "gap", **g} for g in found.gaps)]
    writers = state.plan.writers | {t.writer: t.stop for t in found.taken}
    index_size, digests, index = state.plan.index_size, state.plan.index_digests, None
    if full:
        new = (*found.entries, *own)
        index = build_index(trace, start, new, index_size, digests, means=means, ledger=signer.index_path)
        own.append(_own(writer, len(own), clock, _seal_fields(index, start + len(new))))
        index_size, digests = start + len(new) + 1, index.index.digests()
    if own:
        writers[writer] = len(own)
    stop = start + len(found.entries) + len(own)
    plan = Plan(start, stop, found.taken, writers, tuple(own), index_size, digests)
    return plan, (*found.entries, *own), index


def _own(writer: bytes, seq: int, clock: Clock, fields: Mapping[str, Any]) -> bytes:
    return encode_event({"time": clock(), "writer": writer, "seq": seq, **fields})


def _seal_fields(index: Sealed, entries: int) -> dict[str, Any]:
    said = {"root": index.index.root, "leaves": index.index.leaves, "entries": entries}
    return {"kind": "seal", **said, "counts": index.counts, "epoch_steps": index.epoch_steps}


# -- carrying out ---------------------------------------------------------------------------------------------------


def _execute(
    trace: TraceDir,
    signer: Signer,
    plan: Plan,
    entries: tuple[bytes, ...],
    index: Sealed | None,
    before: Plan,
    means: Means,
) -> TreeHead:
    """Steps 2 to 6 of a plan, behind the plan of the head `before`. Writes the same bytes however often it is begun."""
    growth = grow(plan.start, trace, entries)
    for path, data in growth.files.items():
        durable.write_file(trace.path / path, data)
    full = plan.index_size == plan.stop
    if full:
        if index is None and find_damaged_column(trace, plan.stop, plan.index_digests) is not None:
            # Planned before a crash: the same entries give the same index.
            old = before.index_size, before.index_digests
            ledger = signer.index_path
            index = build_index(trace, plan.start, entries[:-1], *old, means=means, ledger=ledger)
            _check_rebuilt(index, entries[-1])
        if index is not None:
            index.index.put(trace, plan.stop)
    head = TreeHead(signer.name, growth.size, growth.root)
    note = signer.sign(head, _key_for(trace, signer, plan.start, entries))
    publish(trace, note, head.size, full=full)
    return head


def _key_for(trace: TraceDir, signer: Signer, start: int, entries: Sequence[bytes]) -> bytes:
    """The public key that signs a head behind the entries from `start` on. TamperError for a `key` entry among them
    that the keys did not sign: the journal is in the hands of who can write the trace."""
    named = [(start + n, decode_event(entry)) for n, entry in enumerate(entries) if is_about_keys(entry)]
    note = trace.head_note()
    runs = [event["public_key"] for _, event in named if event["kind"] == "run"]
    first = signer.key_of(note) if note is not None else [*runs, signer.public_key][0]
    rotations = rotations_of(named)
    try:
        check_chain(signer.trace_id, first, rotations)
    except ProofError as error:
        raise TamperError(f"{error}: move the journal file that it stands in away, and seal again") from error
    return signers_from(first, rotations, start + len(entries))[0]


def publish(trace: TraceDir, note: bytes, size: int, *, full: bool) -> None:
    """Steps 5 and 6: put a signed note in place."""
    if full:
        durable.write_file(trace.path / f"index/{size}/checkpoint", note)
    durable.write_file(trace.path / "checkpoint", note)


def _check_rebuilt(index: Sealed, seal_entry: bytes) -> Sealed:
    """The index, once its root is the one that the `seal` entry says. TamperError otherwise."""
    said = decode_event(seal_entry)["root"]
    if index.index.root != said:
        raise TamperError(f"the seal entry says index root {said.hex()}, its entries give {index.index.root.hex()}")
    return index


def _restore_index(trace: TraceDir, signer: Signer, state: State, means: Means) -> None:
    """Write the newest index again where a column is gone or damaged: it is derived, the log has everything."""
    size = state.size
    if find_damaged_column(trace, size, state.plan.index_digests) is not None:
        entry = read_bundle(trace, (size - 1) // WIDTH, size)[(size - 1) % WIDTH]
        built = build_index(trace, size, (), stop=size - 1, means=means, ledger=signer.index_path)
        index = _check_rebuilt(built, entry).index
        index.put(trace, size)
        plan = Plan(size, size, (), state.plan.writers, (), size, index.digests())
        signer.remember_plan(format_plan(plan))
        durable.write_file(trace.path / plan.path, format_plan(plan))
    note = trace.path / f"index/{size}/checkpoint"
    last = signer.last()
    if not note.exists() and last is not None and last[0].size == size:
        durable.write_file(note, last[1])


# -- recovery -------------------------------------------------------------------------------------------------------


def recover(trace: TraceDir, signer: Signer, segments: Sequence[Segment], means: Means = MEANS) -> State:
    """Bring the trace to a whole state: finish the seal that was under way, remove what a crash left over.

    TamperError where the trace is not the one that this key signed last.
    """
    tidy.remove_temporaries(trace)
    state = load_state(trace, signer)
    last = signer.last()
    if state.size:
        _check_own(trace, signer, state)
    pending = tidy.pending_plan(trace, signer, state.size)
    entries = _planned_entries(segments, pending) if pending is not None else None
    if pending is not None and entries is not None:
        _execute(trace, signer, pending, entries, None, state.plan, means)
        state = load_state(trace, signer)
    elif last is not None and last[0].size > state.size:
        _publish_signed(trace, *last)
        state = load_state(trace, signer)
    elif pending is not None:
        tidy.discard_plan(trace, pending, state.size)  # never signed, and its frames are gone: plan anew
    tidy.after_seal(trace, state.plan, segments, told_damage(state.plan.own))
    return state


def _planned_entries(segments: Sequence[Segment], plan: Plan) -> tuple[bytes, ...] | None:
    """The entries of a plan, from the journal; None where a frame is missing."""
    frames = {(s.writer, f.seq): f for s in segments for f in s.frames}
    wanted = [(t.writer, seq) for t in plan.taken for seq in range(t.first, t.stop)]
    if any(key not in frames for key in wanted):
        return None
    return (*(frames[key].entry for key in wanted), *plan.own)


def _publish_signed(trace: TraceDir, head: TreeHead, note: bytes) -> None:
    """A head that was signed and is not in the trace: publish exactly that note if its tree is there."""
    try:
        reached = root(head.size, TileNodes(trace, head.size))
    except (OSError, ProofError, IndexError) as error:
        raise TamperError(_rolled_back(trace, head)) from error
    if reached != head.root:
        raise TamperError(_rolled_back(trace, head))
    last = decode_event(read_bundle(trace, (head.size - 1) // WIDTH, head.size)[(head.size - 1) % WIDTH])
    publish(trace, note, head.size, full=last["kind"] == "seal")


def _rolled_back(trace: TraceDir, head: TreeHead) -> str:
    return (
        f"this key signed {head.size} entries with root {head.root.hex()} and {trace.path} does not have them: "
        "it was rolled back or lost files; restore it from a copy"
    )


def _check_own(trace: TraceDir, signer: Signer, state: State) -> None:
    """The head in place must be by the key in force, the log's right edge must lead to it, and no other head of its
    size be signed."""
    note = trace.read("checkpoint")
    key, last = signer.key_of(note), signer.last()
    if last is None or last[0].size < state.size:
        _check_extends(trace, signer, state, last, key)
        signer.adopt(note)  # signed where the key's state is not at hand
    elif last[0].size == state.size and (last[0].root != state.root or signer.key_of(last[1]) != key):
        raise TamperError(
            f"size {state.size} was signed with root {last[0].root.hex()} by {signer.key_of(last[1]).hex()}; the trace "
            f"says {state.root.hex()} by {key.hex()}"
        )
    nodes = TileNodes(trace, state.size)
    if root(state.size, nodes) != state.root:
        raise TamperError(
            f"the hash tiles at the end of the log do not lead to its root {state.root.hex()}; restore them"
        )
    edge = state.size % WIDTH
    if edge:
        held = hash_leaves(read_bundle(trace, state.size // WIDTH, state.size))
        if any(nodes.node(0, state.size - edge + n) != leaf for n, leaf in enumerate(held)):
            raise TamperError(f"the last bundle of {trace.path} does not have the leaf hashes of its tile; restore it")


def _check_extends(
    trace: TraceDir, signer: Signer, state: State, last: tuple[TreeHead, bytes] | None, key: bytes
) -> None:
    """A head that the signer does not know must extend the last one it does, and be by the key that the log names."""
    start, in_force = 0, None
    if last is not None:
        start, in_force = last[0].size, signer.key_of(last[1])
        if (reached := root(start, TileNodes(trace, state.size))) != last[0].root:
            raise TamperError(
                f"the first {start} entries have the root {reached.hex()}, and this key signed {last[0].root.hex()}: "
                "the trace is a fork of the one that was sealed; restore that from a copy"
            )
    in_force = last_named_key(read_entries(trace, start, state.size, state.size)) or in_force
    if in_force not in (None, key):
        raise TamperError(f"the log says that {in_force.hex()} signs its head, and {key.hex()} did; restore it")
