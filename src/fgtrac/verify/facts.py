"""The auditor's second half: what the entries say, taken in one by one, and the index rebuilt from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError, ProofError
from fgtrac.events.orders import UNREAD
from fgtrac.events.postings import PostingTable, merge
from fgtrac.events.schema import TRAINING, decode_event
from fgtrac.events.totals import Totals
from fgtrac.tlog.index import Columns, Tree, build
from fgtrac.tlog.note import Verifier, parse_note, parse_tree_head
from fgtrac.tlog.tiles import ENTRIES, WIDTH
from fgtrac.verify.announcements import Announcements
from fgtrac.verify.attention import Attention
from fgtrac.verify.checks import CannotTell, Sequences
from fgtrac.verify.erasures import Erasures
from fgtrac.verify.graphs import Graphs
from fgtrac.verify.joins import Joins
from fgtrac.verify.keys import Rotation, check_chain, follow, rotations_of, signers_from
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


class Facts:
    """Everything that later checks need of the entries; the entries themselves are not kept."""

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
        self.bad_seal = ""
        self.tree: Tree | None = None  # of the newest full seal
        self._postings = PostingTable()
        self._totals = Totals({}, np.empty(0, np.uint64))

    def add(self, number: int, event: Mapping[str, Any]) -> None:
        """Take entry `number`."""
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
        self.has_end = kind == "end" or (self.has_end and kind not in TRAINING)
        if not self.unregistered:
            try:
                self._postings.add(number, event)
            except ProofError as error:
                self.unregistered = str(error)
        self._totals.add(event)
        self.erasures.add(number, event)

    def _checkpoint(self, number: int, event: Mapping[str, Any]) -> None:
        rates = tuple(event.get("learning_rates", np.empty(0)).tolist())
        said = Checkpoint(number, event["step"], event["kept"], event.get("digest"), event.get("val_loss"), rates)
        self.checkpoints[event["writer"], event["seq"]] = said

    def _seal(self, number: int, event: Mapping[str, Any]) -> None:
        """Rebuild the index over the entries before `number`, from the one before it, and compare what is sealed."""
        if self.unregistered or self.bad_seal:
            return
        previous, columns = self.tree, self._postings.take()
        if previous is not None:
            old = previous.columns
            columns = merge((old.keys, old.offsets, old.values), columns)
        self.tree = build(Columns(*columns), previous)
        pairs = (
            ("index root", event["root"].hex(), self.tree.root.hex()),
            ("number of leaves", event["leaves"], len(self.tree)),
            ("number of entries", event["entries"], number),
            ("counts by kind", event["counts"], self._totals.counts),
            ("first steps of epochs", event["epoch_steps"].tolist(), self._totals.epoch_steps.tolist()),
        )
        for what, said, found in pairs:
            if said != found:
                self.bad_seal = f"entry {number} (seal) says {what} {said}; the entries give {found}"[:400]
                return

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
        return self._postings.ids(block)

    def incomplete_blocks(self) -> list[bytes]:
        """Blocks of which some part was never registered."""
        return self._postings.missing_parts()


def read_facts(log: Log) -> Facts:
    """What the entries say, once their hashes have been found to be right. ProofError naming an entry that is none."""
    facts = Facts()
    for number, entry in log.entries():
        try:
            facts.add(number, decode_event(entry))
        except FormatError as error:
            path = log.tile(ENTRIES, number // WIDTH).path
            raise ProofError(f"entry {number} in {path} is no valid entry: {error}") from error
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


def check_index(facts: Facts) -> str:
    """Every `seal` entry commits to the index that the entries before it give."""
    if not facts.full_seals:
        raise CannotTell("no full seal commits to an index yet; run fgtrac seal")
    if facts.bad_seal:
        raise ProofError(facts.bad_seal)
    newest, leaves = facts.full_seals[-1], len(facts.tree or ())
    seals = f"{len(facts.full_seals)} full seals" if len(facts.full_seals) > 1 else "the full seal"
    return f"rebuilt from the log, with the root of {seals}: {leaves} leaves over entries 0 to {newest - 2}"
