"""The auditor's second half: what the entries say, taken in one by one, and the index that is rebuilt from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError
from fgtrac.events.orders import UNREAD
from fgtrac.events.postings import PostingTable
from fgtrac.events.schema import TRAINING
from fgtrac.events.totals import Totals
from fgtrac.tlog.note import Verifier, parse_note, parse_tree_head
from fgtrac.verify.announcements import Announcements
from fgtrac.verify.attention import Attention
from fgtrac.verify.checks import CannotTell, Sequences
from fgtrac.verify.erasures import Erasures
from fgtrac.verify.graphs import Graphs
from fgtrac.verify.joins import Joins
from fgtrac.verify.keys import Rotation, check_chain, follow, rotations_of, signers_from
from fgtrac.verify.log_reader import Column, Indexed, InProcess, LogReader
from fgtrac.verify.reading import Told, ranges_of
from fgtrac.verify.sightings import OwnTimes
from fgtrac.verify.tree import Log


@dataclass(frozen=True, slots=True)
class Artifact:
    """What an `artifact` entry says of a file."""

    number: int
    path: str
    sha256: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a `checkpoint` entry says of a model state, as far as contributions rest on it."""

    number: int
    step: int
    kept: bool
    digest: bytes | None
    val_loss: float | None
    learning_rates: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Seal:
    """What a `seal` entry says of the index before it, and what is wrong with the rest of it, in words."""

    number: int
    root: bytes
    leaves: int
    problem: str


class _Blocks(PostingTable):
    """Who is registered, each id held once."""

    def learn(self, number: int, event: Mapping[str, Any]) -> None:
        """As `recall`."""
        self.recall(number, event)
        block = self._blocks[event["block"]]
        if block.ids is not None:
            block.pieces.clear()


class Facts:
    """Everything that later checks need of the entries; the entries themselves are not kept, nor what there is of each
    use: memory grows with the samples, and with the entries by some bytes each."""

    def __init__(self) -> None:
        self.sequences = Sequences()
        self.joins = Joins()
        self.runs: list[tuple[int, Mapping[str, Any]]] = []
        self.rotations: tuple[Rotation, ...] = ()
        self.artifacts: list[Artifact] = []
        self.withdrawn: dict[str, int] = {}  # path -> the erasure entry that names it, until it is named anew
        self.erasures = Erasures()
        self.checkpoints: dict[tuple[bytes, int], Checkpoint] = {}  # by (writer, seq), as references name them
        self.contributions: dict[tuple[bytes, int], list[int]] = {}  # by checkpoint, the entries that record some
        self.full_seals: list[int] = []  # sizes: each one more than the number of its `seal` entry
        self.seals: list[Seal] = []
        self.registering: list[int] = []  # the `samples` entries
        self.postings = 0  # rows of the index, and pairs of a content and a sample
        self.own_times = OwnTimes()
        self.announcements = Announcements()
        self.attention = Attention()
        self.graphs = Graphs()
        self.announced = 0  # epochs whose order a `sampler` entry announces
        self.committed = 0  # of these, the epochs whose order an opening in the vault gives
        self.unopened = 0  # and those of which an erasure destroyed the opening
        self.has_end = False  # and nothing was trained afterwards
        self.unregistered = ""
        self._datasets: dict[str, bool] = {}  # by name, whether an entry says what content digests are taken from
        self._schemes: dict[str, set[str]] = {}  # by name, the id schemes that entries say
        # data set, whether with content digests, whether with subjects -> the first such entry
        self._registering: dict[tuple[str, bool, bool], int] = {}
        self._blocks = _Blocks()
        self._totals = Totals({}, np.empty(0, np.uint64))

    def add(self, number: int, told: Told) -> None:
        """Take entry `number`."""
        event = told.event
        kind = event["kind"]
        self.sequences.add(number, event)
        self.joins.add(number, event)
        self.own_times.add(event["time"])
        self.announcements.add(number, event)
        self.attention.add(number, event)
        self.graphs.add(number, event)
        if kind == "run":
            self.runs.append((number, event))
        elif kind == "artifact":
            if self.withdrawn.pop(event["path"], None) is not None:
                self.artifacts = [a for a in self.artifacts if a.path != event["path"]]
            self.artifacts.append(Artifact(number, event["path"], event["sha256"], event["size"]))
        elif kind == "erasure":
            self.withdrawn |= dict.fromkeys(event["artifacts"], number)
            self.unopened = self.committed
        elif kind == "checkpoint":
            self._checkpoint(number, event)
        elif kind == "contribution":
            writer, seq = event["checkpoint"]
            self.contributions.setdefault((writer, seq), []).append(number)
        elif kind == "key":
            self.rotations += rotations_of([(number, event)])
        elif kind == "sampler":
            self.announced += event["sampler"] != UNREAD
            self.committed += event["sampler"] != UNREAD and "state_commitment" in event
        elif kind == "seal":
            self.full_seals.append(number + 1)
            self._seal(number, event)
        elif kind == "dataset":
            self._datasets[event["name"]] = "content" in event or self._datasets.get(event["name"], False)
            self._schemes.setdefault(event["name"], set()).add(event["id_scheme"])
        elif kind == "samples":
            self._registering.setdefault((event["dataset"], "contents" in event, "subjects" in event), number)
            self.registering.append(number)
            self.postings += (len(event["ids"]) // 32) * (2 if "contents" in event else 1)
        self.postings += sum(named.count for named in told.named)
        self.has_end = kind == "end" or (self.has_end and kind not in TRAINING)
        if not self.unregistered:
            self.unregistered = self._look_up(number, told)
        self._totals.add(event)
        self.erasures.add(number, event)

    def _checkpoint(self, number: int, event: Mapping[str, Any]) -> None:
        rates = tuple(event.get("learning_rates", np.empty(0)).tolist())
        said = Checkpoint(number, event["step"], event["kept"], event.get("digest"), event.get("val_loss"), rates)
        self.checkpoints[event["writer"], event["seq"]] = said

    def _look_up(self, number: int, told: Told) -> str:
        """Learn whom an entry registers; what is wrong with that, or with whom it names, in words."""
        if told.event["kind"] == "samples":
            try:
                self._blocks.learn(number, told.event)
            except ProofError as error:
                return str(error)
        for named in told.named:
            try:
                registered = len(self.ids_of(named.block))
            except ProofError as error:
                return f"entry {number} ({told.event['kind']}): {error}"
            if named.largest >= registered:
                what = f"ordinal {named.largest} of block {named.block.hex()}, which has {registered} samples"
                return f"entry {number} ({told.event['kind']}): {what}"
        return ""

    def _seal(self, number: int, event: Mapping[str, Any]) -> None:
        """Compare what a `seal` entry counts; the index is compared once it is rebuilt."""
        pairs = (
            ("number of entries", event["entries"], number),
            ("counts by kind", event["counts"], self._totals.counts),
            ("first steps of epochs", event["epoch_steps"].tolist(), self._totals.epoch_steps.tolist()),
        )
        self.seals.append(Seal(number, event["root"], event["leaves"], _differing(number, pairs)))

    def check_described(self) -> None:
        """ProofError where samples have no content digests, and their data set says that it has, or is the one that no
        entry describes (unless that may be lost): contents would be said to be absent that nobody looked at. And where
        samples have subjects, with whose keys ids are made, and their data set has another scheme: so would names."""
        described = not self._datasets or bool(self.sequences.gaps)
        for (name, has_digests, has_subjects), number in self._registering.items():
            if self._datasets.get(name, not described) and not has_digests:
                says = "says what they are taken from" if name in self._datasets else "is described by no entry"
                raise ProofError(f"entry {number} (samples) gives no content digests, and data set {name!r:.60} {says}")
            schemes = self._schemes.get(name, {"subject"})
            if has_subjects and "subject" not in schemes:
                said = min(schemes)
                raise ProofError(f"entry {number} (samples) names subjects, and the ids of {name!r:.60} are {said}")

    def signers_from(self, size: int) -> list[bytes]:
        """The public keys that sign heads of that size and more, by the `run` and `key` entries; none without `run`."""
        return signers_from(self.runs[0][1]["public_key"], self.rotations, size) if self.runs else []

    def ids_of(self, block: bytes) -> NDArray[np.uint8]:
        """The ids (n, 32) of a block by ordinal. ProofError where it is not registered as a whole."""
        return self._blocks.ids(block)

    def incomplete_blocks(self) -> list[bytes]:
        """Blocks of which some part was never registered."""
        return self._blocks.missing_parts()


def _differing(number: int, pairs: Iterable[tuple[str, Any, Any]]) -> str:
    """The first thing that a `seal` entry says and the entries do not give."""
    for what, said, found in pairs:
        if said != found:
            return f"entry {number} (seal) says {what} {said}; the entries give {found}"[:400]
    return ""


def read_facts(log: Log, reader: LogReader | None = None) -> Facts:
    """What the entries say, once their hashes have been found to be right. ProofError naming an entry that is none."""
    facts = Facts()
    for number, told in enumerate((reader or InProcess(log.files)).tell(ranges_of(log.head.size), log.leaves)):
        log.check_same(number, told.leaf)
        facts.add(number, told)
    return facts


def check_run(facts: Facts, note: bytes, verifier: Verifier | None, prefix: str) -> str:
    """One `run` entry, the first of all, of the trace that the head names; and the keys that it and the `key` entries
    name, to the one that signed the head."""
    if len(facts.runs) != 1 or facts.runs[0][0] != 0:
        raise ProofError(f"a log has one run entry, entry 0; this one has {[n for n, _ in facts.runs]}")
    _number, run = facts.runs[0]
    trace_id, origin = run["trace"].hex(), parse_tree_head(parse_note(note).text).origin
    if origin != prefix + trace_id:
        raise ProofError(f"entry 0 (run) is of trace {trace_id}, and the head of {origin!r:.100}")
    check_chain(run["trace"], run["public_key"], facts.rotations)
    if verifier is not None and not facts.rotations and run["public_key"] != verifier.public_key:
        said, key = run["public_key"].hex(), verifier.public_key.hex()
        raise ProofError(f"entry 0 (run) names the public key {said}, and the head is checked with {key}")
    words = f"entry 0 is the only run entry, of trace {trace_id}"
    if facts.rotations:
        if verifier is not None:
            follow(verifier, note, facts.rotations, run["public_key"])
        words += f"; {len(facts.rotations)} key entries lead from its key to {facts.rotations[-1].public_key.hex()}"
    return words


def check_sequences(facts: Facts) -> str:
    """Each writer's entries follow one another, and the ranks of a training are all there, or a `gap` entry says so."""
    words = facts.sequences.check()
    facts.joins.check(has_gaps=bool(facts.sequences.gaps))
    return words


def check_registered(facts: Facts) -> str:
    """Whatever names a sample comes after its registration, which is as its data set is described."""
    if facts.unregistered:
        raise ProofError(facts.unregistered)
    facts.check_described()
    return "every sample that an entry names was registered before it"


def check_index(facts: Facts, log: Log, reader: LogReader) -> tuple[str, Mapping[str, Column]]:
    """Every `seal` entry commits to the index that the entries before it give: in words, and the newest one's files."""
    if not facts.seals:
        raise CannotTell("no full seal commits to an index yet; run fgtrac seal")
    numbers, head = [seal.number for seal in facts.seals], log.head
    given = Indexed(head.size, head.root, log.leaves, log.entries, numbers, facts.registering, facts.postings)
    for seal, rebuilt in zip(facts.seals, reader.rebuild(given), strict=True):
        pairs = (
            ("index root", seal.root.hex(), rebuilt.root.hex()),
            ("number of leaves", seal.leaves, rebuilt.leaves),
        )
        if problem := _differing(seal.number, pairs) or seal.problem:
            raise ProofError(problem)
    seals = f"{len(facts.seals)} full seals" if len(facts.seals) > 1 else "the full seal"
    words = f"with the root of {seals}: {rebuilt.leaves} leaves over entries 0 to {numbers[-1] - 1}"
    return f"rebuilt from the log, {words}", rebuilt.columns
