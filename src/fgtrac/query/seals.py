"""The newest full seal of a trace: its signed head, its `seal` entry, its log and its index, proved before use."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError, TamperError
from fgtrac.events.postings import decode_rows
from fgtrac.query.found_places import KINDS, MOST, encode_places
from fgtrac.query.log import SealedLog, whole
from fgtrac.store.index_files import load_index
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog import index
from fgtrac.tlog.index import SAMPLE, Absence, Presence, Tree
from fgtrac.tlog.note import TreeHead, parse_note, parse_tree_head
from fgtrac.tlog.npy import arrays_of

WARM_KEYS = 128  # evenly spaced: the first seven steps of every search
WARM_NODES = 1 << 14  # the levels with fewer nodes than this lie at the end


class NotSealedError(ValueError):
    """The trace has no full seal yet: the caller has to make one first."""


def not_among_these(pending: int) -> str:
    """What an answer as of a full seal says of the entries that came later."""
    entries = "1 later entry is" if pending == 1 else f"{pending:,} later entries are"
    return f"{entries} in no full seal yet, and not among these (fgtrac seal)"


@dataclass(frozen=True, slots=True, eq=False)
class FullSeal:
    """A full seal: the signed note as it is on disk (its signature is the caller's to check) and what it commits to."""

    note: bytes
    head: TreeHead
    entry: bytes
    event: Mapping[str, Any]
    log: SealedLog
    tree: Tree

    def warm(self) -> None:
        """Fetch what every look-up passes through: where entries lie, and the upper levels of the index."""
        self.log.locate()
        if n := len(self.tree):
            self.tree.columns.keys[:: -(-n // WARM_KEYS), 0].max()
            self.tree.nodes[-WARM_NODES:, 0].max()

    def find(self, type: int, key: bytes) -> Presence | None:
        """A leaf with its value, checked against the sealed root; None where an absence proof shows that none is there.

        ProofError where the index on disk is not the sealed one.
        """
        root, size = self.event["root"], self.event["leaves"]
        try:
            place = index.find(self.tree, type, key)
            if place is None:
                index.check_absent(root, size, type, key, index.prove_absent(self.tree, type, key))
                return None
            presence = index.prove_present(self.tree, place)
            index.check_present(root, size, type, key, presence)
        except ProofError as error:
            raise ProofError(
                f"index/{self.head.size} is not the index that was sealed: {error}; run fgtrac seal"
            ) from error
        return presence

    def places(self) -> bytes:
        """Where the entries of kinds of which there are few lie, as a push leaves it (`query.found_places`)."""
        found, left = {}, MOST
        for count, kind in sorted((self.event["counts"].get(kind, 0), kind) for kind in KINDS):
            if 0 < count <= left:
                found[kind] = self.log.places_of(self.log.find_kind(kind, count))
                left -= count
        return encode_places(self.head.root, found)

    def absence(self, type: int, key: bytes) -> Absence:
        """The neighbours of a key that `find` has shown to be absent."""
        return index.prove_absent(self.tree, type, key)

    def rows(self, sample_id: bytes) -> NDArray[np.void] | None:
        """A sample's rows in the index (events.postings.ROW), or None where it is not registered."""
        presence = self.find(SAMPLE, sample_id)
        return None if presence is None else decode_rows(presence.value)


def expect(tree: Tree, order: int) -> None:
    """Tell the system how the index will be read. A look-up touches few pages, and reading ahead of each (which is
    what a memory map does otherwise) costs more than all the rest of it: 15 ms in place of 2."""
    for array in arrays_of(tree).values():
        mapped = getattr(array, "_mmap", None)
        if mapped is not None and len(array):
            mapped.madvise(order)


def open_full_seal(trace: TraceDir) -> FullSeal:
    """The newest full seal that the tree head covers, its `seal` entry checked against its own head.

    NotSealedError where there is none yet; ProofError, FormatError or TamperError where files do not fit each other.
    """
    newest = trace.head()
    for size in reversed(trace.full_seals()):
        try:
            note = trace.read(f"index/{size}/checkpoint")
        except FileNotFoundError:
            continue  # a seal that was not finished; the next one will
        if newest is None or size <= newest.size:
            return _open(trace, size, note)
    raise NotSealedError(f"{trace.path} has no index yet: nothing was fully sealed; run fgtrac seal {trace.path}")


def _open(trace: TraceDir, size: int, note: bytes) -> FullSeal:
    head = parse_tree_head(parse_note(note).text)
    if head.size != size:
        raise TamperError(f"index/{size}/checkpoint is a head of {head.size} entries, not of {size}")
    log = SealedLog(trace, head)
    event = log.event(size - 1)
    if event["kind"] != "seal" or event["entries"] != size - 1:
        raise ProofError(f"the last entry of index/{size}/checkpoint is no seal over the {size - 1} entries before it")
    with whole(f"the index sealed at {size}"):
        tree = load_index(trace.mapped, size, event["root"])
    expect(tree, mmap.MADV_RANDOM)
    if len(tree) != event["leaves"]:
        raise ProofError(f"index/{size} has {len(tree)} leaves and the seal says {event['leaves']}; run fgtrac seal")
    return FullSeal(note, head, log.entry(size - 1), event, log, tree)
