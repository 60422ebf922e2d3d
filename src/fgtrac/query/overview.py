"""A whole run in one reading of its log: losses over steps, checkpoints, what was used how surely, what was lost.

Every entry is hashed as it is read, and nothing is given unless together they lead to the head's root. Whose signature
stands under that root is another question: the head is taken as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError, ProofError
from fgtrac.events.ranks import RankTable
from fgtrac.events.schema import ATTRIBUTION, KINDS, NO_STEP, STATUS, TRAINING, decode_event
from fgtrac.query.coverage import Coverage
from fgtrac.tlog.merkle import MemoryNodes, hash_leaves, root
from fgtrac.tlog.note import TreeHead
from fgtrac.tlog.tiles import WIDTH, FileReader, read_bundle

KIND_CODES = {kind: code for code, kind in enumerate(KINDS)}
MAX_SERIES = 48  # metrics of different names; of more, those that came last are only counted
MAX_NAMED = 200  # gaps, artifacts and the like that are named one by one; the others are counted
NEIGHBOUR = "neighbour"  # beside the attributions: whose samples are neighbours in a graph
_WORDS = {code: word for word, code in ATTRIBUTION.items()}
_STATES = {code: word for word, code in STATUS.items()}


@dataclass(slots=True)
class Series:
    """Values over steps as they came: `steps` (n,) uint64, `values` (n,) float64; `undone` of them, which are not among
    these, lay behind a step from which a resumed run went on again."""

    steps: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    values: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    undone: int = 0
    _coming: list[tuple[NDArray[np.uint64], NDArray[np.float64]]] = field(default_factory=list)

    def add(self, steps: NDArray[np.uint64], values: NDArray[np.float64]) -> None:
        """More of them."""
        self._coming.append((steps, values))
        if len(self._coming) >= 4096:
            self.gather()

    def gather(self) -> Series:
        """Put what came into the arrays."""
        if self._coming:
            self.steps = np.concatenate([self.steps, *(steps for steps, _ in self._coming)])
            self.values = np.concatenate([self.values, *(values for _, values in self._coming)])
            self._coming.clear()
        return self

    def go_back(self, step: int) -> NDArray[np.float64]:
        """A run goes on from this step: what lies behind it is undone. The values of that."""
        self.gather()
        stays = self.steps <= step
        gone = self.values[~stays]
        self.undone += len(gone)
        self.steps, self.values = self.steps[stays], self.values[stays]
        return gone


@dataclass(slots=True)
class Overview:
    """What a log of `size` entries tells of its run. `kinds` (size,) uint8 is each entry's kind (KIND_CODES).

    `uses` counts samples in applied updates by attribution, `batches` batches by status, `superseded` those of `uses`
    (and of `neighbours`) that a restart went back behind, and `superseded_batches` their batches. `last_step` and
    `first_steps` are of what stands. `batch_losses` has for each applied batch the mean of its samples' losses,
    `series` what `run.log` was given. `named` has entries of rare kinds as plain data, the first MAX_NAMED of each.
    """

    size: int
    root: bytes
    kinds: NDArray[np.uint8]
    run: dict[str, Any] = field(default_factory=dict)
    batch_losses: Series = field(default_factory=Series)
    series: dict[str, Series] = field(default_factory=dict)
    series_left_out: int = 0
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    uses: Counter[str] = field(default_factory=Counter)
    batches: Counter[str] = field(default_factory=Counter)
    superseded: Counter[str] = field(default_factory=Counter)
    superseded_batches: int = 0
    neighbours: int = 0
    first_steps: dict[int, int] = field(default_factory=dict)
    last_step: int = 0
    named: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    datasets: list[dict[str, Any]] = field(default_factory=list)
    coverage: Coverage = field(default_factory=Coverage)
    ranks: int = 0
    ended: bool = False
    began: int = 0
    changed: int = 0
    artifact_bytes: int = 0
    states: dict[tuple[bytes, int], int] = field(default_factory=dict)  # a checkpoint's writer and seq -> its entry
    blocks: dict[bytes, dict[int, int]] = field(default_factory=dict)  # a block's parts -> their entries

    def counts(self) -> dict[str, int]:
        """Entries by kind, those that are there."""
        numbers = np.bincount(self.kinds, minlength=len(KIND_CODES)).tolist()
        return {kind: numbers[code] for kind, code in KIND_CODES.items() if numbers[code]}

    def numbers_of(self, kind: str) -> NDArray[np.intp]:
        """The entries of a kind, ascending."""
        return np.flatnonzero(self.kinds == KIND_CODES[kind])


def read_overview(files: FileReader, head: TreeHead, progress: Callable[[int, int], None] | None = None) -> Overview:
    """Read all entries of a head once; `progress` is called with entries read and entries in all.

    FormatError or FileNotFoundError where a file of the log is damaged or missing, ProofError where the entries are not
    those that the head commits to.
    """
    found = Overview(head.size, head.root, np.empty(head.size, dtype=np.uint8))
    reading = _Reading(found)
    hashes: list[bytes] = []
    for number, entry in _entries(files, head.size, hashes, progress):
        try:
            reading.take(number, decode_event(entry))
        except FormatError as error:
            raise FormatError(f"entry {number}: {error}") from error
    reached = root(head.size, MemoryNodes(hashes))
    if reached != head.root:
        raise ProofError(
            f"the entries lead to the root {reached.hex()}, and the head of {head.size} says {head.root.hex()}"
        )
    reading.finish()
    return found


def _entries(
    files: FileReader, size: int, hashes: list[bytes], progress: Callable[[int, int], None] | None
) -> Iterator[tuple[int, bytes]]:
    for bundle in range(-(-size // WIDTH)):
        entries = read_bundle(files, bundle, size)
        hashes += hash_leaves(entries)
        yield from enumerate(entries, bundle * WIDTH)
        if progress is not None:
            progress(min(size, (bundle + 1) * WIDTH), size)


class _Reading:
    """Takes the entries in order."""

    def __init__(self, found: Overview) -> None:
        self._found = found
        self._ranks = RankTable()
        self._states: dict[tuple[int, bytes], dict[str, Any]] = {}
        self._updates = {word: Series() for word in (*ATTRIBUTION, NEIGHBOUR)}  # samples in each applied batch

    def take(self, number: int, event: Mapping[str, Any]) -> None:
        """One entry, whatever its kind."""
        found, kind = self._found, event["kind"]
        found.kinds[number] = KIND_CODES[kind]
        found.began = found.began or event["time"]
        found.changed = max(found.changed, event["time"])
        found.ended = kind == "end" or (found.ended and kind not in TRAINING)
        self._ranks.add(event)
        special = getattr(self, f"_{kind}", None)
        if special is not None:
            special(number, event)

    def finish(self) -> None:
        """What can be said once everything was read."""
        found = self._found
        found.ranks = self._ranks.count
        found.coverage.finish()
        for series in (found.batch_losses, *found.series.values()):
            series.gather()

    def _run(self, number: int, event: Mapping[str, Any]) -> None:
        if not self._found.run:
            self._found.run = dict(event)

    def _dataset(self, number: int, event: Mapping[str, Any]) -> None:
        said = {name: event[name] for name in ("name", "id_scheme", "rows", "keys", "content") if name in event}
        self._found.datasets.append({"entry": number, **said})

    def _samples(self, number: int, event: Mapping[str, Any]) -> None:
        self._found.coverage.register(event)
        self._found.blocks.setdefault(bytes(event["block"]), {})[event["part"]] = number

    def _roles(self, number: int, event: Mapping[str, Any]) -> None:
        self._found.coverage.give_role(event)

    def _prediction(self, number: int, event: Mapping[str, Any]) -> None:
        self._found.coverage.predict(event)

    def _use(self, number: int, event: Mapping[str, Any]) -> None:
        found = self._found
        applied = event["status"] == STATUS["applied"]
        counts = event["count"].astype(np.int64)
        for code, word in _STATES.items():
            found.batches[word] += int((event["status"] == code).sum())
        steps = event["step"]
        for code, word in _WORDS.items():
            mine = applied & (event["attribution"] == code)
            found.uses[word] += int(counts[mine].sum())
            self._updates[word].add(steps[mine], counts[mine].astype(np.float64))
        found.coverage.use(event, applied)
        if "hops" in event:
            neighbours = event["hop_count"].reshape(len(counts), -1)[applied].sum(axis=1)
            found.neighbours += int(neighbours.sum())
            self._updates[NEIGHBOUR].add(steps[applied], neighbours.astype(np.float64))
        if not applied.any():
            return
        found.last_step = max(found.last_step, int(steps[applied].max()))
        for epoch in np.unique(event["epoch"][applied]).tolist():
            first = int(steps[applied & (event["epoch"] == epoch)].min())
            found.first_steps[epoch] = min(first, found.first_steps.get(epoch, NO_STEP))
        if "losses" in event:
            has_any = applied & (counts > 0)
            starts = (np.cumsum(counts) - counts)[counts > 0]
            sums = np.add.reduceat(event["losses"].astype(np.float64), starts)[has_any[counts > 0]]
            found.batch_losses.add(steps[has_any], sums / counts[has_any])

    def _metrics(self, number: int, event: Mapping[str, Any]) -> None:
        for name, value in sorted(event["values"].items()):
            if name in self._found.series or len(self._found.series) < MAX_SERIES:
                self._series(name).add(np.array([event["step"]], np.uint64), np.array([value], np.float64))
            else:
                self._found.series_left_out += 1

    def _series(self, name: str) -> Series:
        return self._found.series.setdefault(name, Series())

    def _checkpoint(self, number: int, event: Mapping[str, Any]) -> None:
        mark = (event["step"], event.get("digest", b""))
        self._found.states[bytes(event["writer"]), event["seq"]] = number
        if mark[1] and mark in self._states and not event["kept"]:
            self._states[mark] |= {"standing": "dropped", "dropped_by": number}  # another took its place
            return
        said = {name: event.get(name) for name in ("step", "epoch", "val_loss", "rule", "digest")}
        standing = "kept" if event["kept"] else "not kept"
        self._states[mark] = {"entry": number, **said, "standing": standing}
        self._found.checkpoints.append(self._states[mark])

    def _resume(self, number: int, event: Mapping[str, Any]) -> None:
        self._name(number, event, "step")
        found, step = self._found, event["step"]
        for series in (found.batch_losses, *found.series.values()):
            series.go_back(step)
        for word, updates in self._updates.items():
            gone = updates.go_back(step)
            found.superseded[word] += int(gone.sum())
            found.superseded_batches += len(gone) if word != NEIGHBOUR else 0
        found.coverage.go_back(step)
        found.last_step = min(found.last_step, step)
        found.first_steps = {epoch: first for epoch, first in found.first_steps.items() if first <= step}
        for state in found.checkpoints:
            if state["step"] > step:
                state["standing"] = "superseded"

    def _gap(self, number: int, event: Mapping[str, Any]) -> None:
        self._name(number, event, "reason", "detail", "lost_writer", "first", "stop")

    def _artifact(self, number: int, event: Mapping[str, Any]) -> None:
        self._found.artifact_bytes += event["size"]

    def _erasure(self, number: int, event: Mapping[str, Any]) -> None:
        self._name(number, event, "pseudonym")

    def _key(self, number: int, event: Mapping[str, Any]) -> None:
        self._name(number, event, "public_key", "revoked")

    def _seal(self, number: int, event: Mapping[str, Any]) -> None:
        self._name(number, event, "leaves", "root")

    def _join(self, number: int, event: Mapping[str, Any]) -> None:
        self._name(number, event, "rank", "ranks", "step")

    def _name(self, number: int, event: Mapping[str, Any], *fields: str) -> None:
        known = self._found.named.setdefault(event["kind"], [])
        if len(known) < MAX_NAMED:
            known.append({"entry": number, "time": event["time"]} | {f: event[f] for f in fields if f in event})
