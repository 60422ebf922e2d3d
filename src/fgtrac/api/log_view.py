"""A log for people who look at it: its heads, its entries one by one, proofs between any two sizes, its receipts.

Whatever is shown was held against the newest tree head as it lies there; who signed that head is not looked at here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgtrac.api.overview import newest_head
from fgtrac.errors import FgtracError, FormatError, ProofError
from fgtrac.events.schema import decode_event
from fgtrac.query.entry_words import fields_of, words_of
from fgtrac.query.log import SealedLog
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.merkle import check_consistency, leaf_hash, prove_consistency, root
from fgtrac.tlog.note import parse_note, parse_tree_head
from fgtrac.tlog.tiles import TileNodes
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.receipts import EVM, NOTE, RFC3161, WITNESS, note_path, receipt_files

HEAD = "checkpoint"
MAX_HEADS = 100  # the newest; the others are counted
UNCHECKED = {
    RFC3161: "whether the stamp is genuine, and by whom: fgtrac verify --tsa-root FILE, with the root certificate of "
    "an authority that you trust",
    WITNESS: "whether the cosignature is genuine: fgtrac verify --witness-key VKEY, with the key of a witness that you "
    "trust",
    EVM: "whether the chain has it: fgtrac verify --evm URL, with a node that you trust",
}


@dataclass(frozen=True, slots=True)
class Head:
    """A signed head that lies in the trace. `problem` says what is wrong with it; else its root is the one that the
    newest head's tree has at that size."""

    size: int
    path: str
    what: str
    root: bytes = b""
    signers: tuple[tuple[str, str], ...] = ()  # name and key id, as the lines say
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """An entry in a list; `problem` says why it cannot be believed."""

    number: int
    kind: str = ""
    time: int | None = None
    size_bytes: int = 0
    words: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry with its inclusion proof, which was checked: `path` leads from `leaf` to `root` of `size` entries."""

    number: int
    event: dict[str, Any]
    size_bytes: int
    leaf: bytes
    path: tuple[bytes, ...]
    size: int
    root: bytes
    words: str

    def fields(self) -> dict[str, Any]:
        """Its fields as plain data, bounded."""
        return fields_of(self.event)


@dataclass(frozen=True, slots=True)
class Consistency:
    """That the tree of `second` entries extends that of `first`: both roots, and the proof, which was checked."""

    first: int
    second: int
    first_root: bytes
    second_root: bytes
    path: tuple[bytes, ...]


class LogView:
    """The log of a trace up to its newest head. Raises as `newest_head`."""

    def __init__(self, path: Path) -> None:
        self.head = newest_head(path)
        self._files = TraceDir.open(path)
        self._log = SealedLog(self._files, self.head)
        self._nodes = TileNodes(self._files, self.head.size)

    def heads(self) -> tuple[list[Head], int]:
        """The newest MAX_HEADS heads that lie in the trace, the largest first, and how many there are."""
        found = [(self.head.size, HEAD, "the newest")]
        found += [(size, f"index/{size}/{HEAD}", "of a full seal") for size in self._files.full_seals()]
        notes = [file for file in receipt_files(self._files.names()) if file.kind == NOTE]
        found += [(file.size, note_path(file.size), "shown to witnesses") for file in notes]
        found.sort(key=lambda one: (-one[0], one[1]))
        return [self._head(*one) for one in found[:MAX_HEADS]], len(found)

    def _head(self, size: int, path: str, what: str) -> Head:
        try:
            note = parse_note(self._files.read(path))
            head = parse_tree_head(note.text)
            signers = tuple((line.name, line.key_id.hex()) for line in note.signatures)
            if head.size != size or head.origin != self.head.origin:
                raise ProofError(f"it is a head of {head.size} entries of {head.origin!r:.80}")
            if size > self.head.size:
                return Head(size, path, what, head.root, signers, "larger than the newest: a seal was not finished")
            if (reached := self.root_at(size)) != head.root:
                raise ProofError(f"its root is {head.root.hex()}, and the log's at that size {reached.hex()}")
        except (FgtracError, OSError) as error:
            return Head(size, path, what, problem=str(error))
        return Head(size, path, what, head.root, signers)

    def root_at(self, size: int) -> bytes:
        """The root over the first `size` entries, as the hash tiles have it."""
        return root(size, self._nodes)

    def lines(self, numbers: Sequence[int]) -> list[Line]:
        """Entries in a list; each is checked by itself, so that a damaged one hides no other."""
        return [self._line(number) for number in numbers]

    def _line(self, number: int) -> Line:
        try:
            data = self._log.entry(number)
            event = decode_event(data)
        except (FgtracError, OSError) as error:
            return Line(number, problem=str(error))
        return Line(number, event["kind"], event["time"], len(data), words_of(event))

    def entry(self, number: int) -> Entry:
        """One entry. ValueError where the log has none of that number; ProofError, FormatError or TamperError where it
        is not the one that was sealed."""
        if not 0 <= number < self.head.size:
            raise ValueError(f"there is no entry {number}; the log has 0 to {self.head.size - 1}")
        data = self._log.entry(number)
        try:
            event = decode_event(data)
        except FormatError as error:
            raise FormatError(f"entry {number}: {error}") from error
        proof = self._log.path(number)
        leaf = leaf_hash(data)
        return Entry(number, event, len(data), leaf, proof, self.head.size, self.head.root, words_of(event))

    def sample_ids(self, parts: Mapping[int, int], ordinals: Iterable[int]) -> list[bytes]:
        """The ids of samples of a block by their ordinals, of which `parts` names each part's `samples` entry; those of
        parts that are missing are left out."""
        ids: list[bytes] = []
        size = len(self.entry(parts[0]).event["ids"]) // 32  # all but the last part are of one size
        for ordinal in ordinals:
            part, place = divmod(ordinal, size)
            if part in parts:
                column = self.entry(parts[part]).event.get("ids", b"")
                ids += [bytes(column[32 * place : 32 * place + 32])] if 32 * place < len(column) else []
        return ids

    def consistency(self, first: int, second: int) -> Consistency:
        """The proof between two sizes, made of the hash tiles and checked, and that the newest head extends the second.

        ValueError unless 1 <= first <= second <= the newest head's size; ProofError where the tiles do not lead to the
        newest head's root.
        """
        if not 1 <= first <= second <= self.head.size:
            raise ValueError(
                f"from {first} to {second}: give two sizes, the first at least 1 and not above the second, and the "
                f"second not above the newest head's, {self.head.size}"
            )
        roots = self.root_at(first), self.root_at(second)
        path = tuple(prove_consistency(first, second, self._nodes))
        check_consistency(first, roots[0], second, roots[1], path)
        rest = prove_consistency(second, self.head.size, self._nodes)
        check_consistency(second, roots[1], self.head.size, self.head.root, rest)
        return Consistency(first, second, *roots, path)

    def receipt_counts(self) -> dict[str, dict[str, int]]:
        """How many receipts of each kind lie there, and the largest head that one is about; nothing of them is read."""
        found: dict[str, dict[str, int]] = {}
        for file in receipt_files(self._files.names()):
            if file.kind != NOTE:
                line = found.setdefault(file.kind, {"receipts": 0, "size": 0})
                line["receipts"], line["size"] = line["receipts"] + 1, max(line["size"], file.size)
        return found

    def receipts(self) -> list[dict[str, Any]]:
        """A row for each receipt of an outside witness: what it says of itself, and what nobody has checked here."""
        files = [file for file in receipt_files(self._files.names()) if file.kind != NOTE]
        return [
            {
                "size": f.size,
                "kind": f.kind,
                "path": f.path,
                "says": self._says(f.path, f.kind),
                "unchecked": UNCHECKED[f.kind],
            }
            for f in files
        ]

    def _says(self, path: str, kind: str) -> str:
        try:
            return _SAYS[kind](self._files.read(path))
        except (FgtracError, CannotTell, OSError) as error:
            return f"it cannot be read: {error}"


def _stamp_says(data: bytes) -> str:
    from fgtrac.anchor.rfc3161 import read_stamp  # its library is looked for when a stamp is read

    stamp = read_stamp(data)
    return f"stamped at {stamp.time:%Y-%m-%d %H:%M:%S} UTC by {stamp.by}, as it says itself"


def _witness_says(data: bytes) -> str:
    note = parse_note(data)
    origin = parse_tree_head(note.text).origin
    others = [f"{line.name} (key id {line.key_id.hex()})" for line in note.signatures if line.name != origin]
    return f"cosigned by {', '.join(others[:8])}" if others else "no cosignature but the log's own"


def _chain_says(data: bytes) -> str:
    from fgtrac.verify.evm_receipt import format_address, parse_evm_receipt

    said = parse_evm_receipt(data)
    contract = format_address(said.contract)
    return f"contract {contract} on chain {said.chain_id} took the head in block {said.block_number}"


_SAYS = {RFC3161: _stamp_says, WITNESS: _witness_says, EVM: _chain_says}
