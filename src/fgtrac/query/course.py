"""The course of a run in numbers: its stages, epochs, model states, predictions and scorings, from one pass over the
log. What is kept of it is as long as those are many; of chosen samples the uses in each epoch are counted too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.events.schema import ATTRIBUTION, STATUS
from fgtrac.query.blocks import Blocks
from fgtrac.query.log import whole
from fgtrac.query.seals import FullSeal
from fgtrac.query.timeline import Timeline

Pass = tuple[int, int]  # loader, epoch


@dataclass(slots=True)
class Epoch:
    """A pass over a loader: `uses` of samples in applied updates (of a graph: as seeds), `perhaps` those in batches
    that may have left them out, `neighbours`, `deliveries` (not applied); `superseded` of the uses; its first and last
    step (None without an update), and the data sets' names; `began` and `ended` are the times of its first and last
    entry, in ns since 1970."""

    loader: int
    epoch: int
    steps: tuple[int, int] | None = None
    uses: int = 0
    perhaps: int = 0
    neighbours: int = 0
    deliveries: int = 0
    superseded: int = 0
    datasets: set[str] = field(default_factory=set)
    began: int = 0
    ended: int = 0


@dataclass(slots=True)
class Stage:
    """A preprocessing stage on one data set: samples kept, dropped and made (`children`), over `entries` entries; the
    name of what came out where it has one."""

    name: str
    operation: str
    dataset: str
    output: str
    kept: int = 0
    dropped: int = 0
    children: int = 0
    entries: int = 0
    made: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class State:
    """A model state that was saved: what its first entry says; `standing` as in `Timeline.standing`."""

    entry: int
    step: int
    epoch: int | None
    val_loss: float | None
    digest: bytes
    standing: str


@dataclass(slots=True)
class Said:
    """What one model state said or was given of samples of one data set: `what` is "prediction", "contribution" or
    "attention", `about` the target and method of contributions, the modalities of weights."""

    what: str
    step: int
    state: int | None
    dataset: str
    about: tuple[str, ...]
    samples: int = 0
    entries: int = 0


@dataclass(slots=True)
class Course:
    """All of it, in the order of the log. `of_samples` is (loader, epoch) -> the uses of each chosen sample, by its
    place among them."""

    epochs: dict[Pass, Epoch] = field(default_factory=dict)
    stages: dict[tuple[str, ...], Stage] = field(default_factory=dict)
    states: list[State] = field(default_factory=list)
    said: dict[tuple[Any, ...], Said] = field(default_factory=dict)
    of_samples: dict[Pass, NDArray[np.int64]] = field(default_factory=dict)

    def total(self, name: str) -> int:
        """The sum of a count over the epochs."""
        return sum(getattr(epoch, name) for epoch in self.epochs.values())


def read_course(
    seal: FullSeal,
    timeline: Timeline,
    blocks: Blocks,
    samples: Iterable[bytes] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Course:
    """Read every entry of a full seal once, each checked against its root; of `samples` (ids) also the uses in each
    epoch. ProofError or TamperError where the log is not the one that was sealed."""
    reading = _Reading(timeline, blocks, list(samples))
    takes = {"use": reading.use, "transform": reading.stage, "checkpoint": reading.state}
    takes |= dict.fromkeys(("prediction", "contribution", "attention"), reading.say)
    with whole("the course of the run"):
        for number in range(seal.head.size):
            event = seal.log.event(number)
            if event["kind"] in takes:
                takes[event["kind"]](number, event)
            if progress is not None and (number % 64 == 0 or number + 1 == seal.head.size):
                progress(number + 1, seal.head.size)
    return reading.course


class _Reading:
    def __init__(self, timeline: Timeline, blocks: Blocks, samples: list[bytes]) -> None:
        self.course = Course()
        self._timeline = timeline
        self._blocks = blocks
        self._states: dict[tuple[bytes, int], int] = {}
        self._marks: dict[tuple[int, bytes], int] = {}
        self._places: dict[bytes, list[tuple[int, int]]] = defaultdict(list)  # block -> (ordinal, place)
        self._children: dict[tuple[tuple[str, ...], bytes], NDArray[np.bool_]] = {}
        self._lookups: dict[bytes, NDArray[np.int64]] = {}
        self._chosen = len(samples)
        for place, sample in enumerate(samples):
            for block, ordinal in blocks.find(sample):
                self._places[block].append((ordinal, place))

    def use(self, number: int, event: Mapping[str, Any]) -> None:
        """Count the batches of a `use` entry by epoch."""
        applied = event["status"] == STATUS["applied"]
        sure = applied & (event["attribution"] != ATTRIBUTION["among"])
        steps = event["step"]
        past = self._timeline.superseded(np.full(len(steps), number, np.uint64), steps)
        count = event["count"].astype(np.int64)
        hops = event["hop_count"].reshape(len(count), -1).sum(axis=1) if "hops" in event else np.zeros_like(count)
        for epoch in np.unique(event["epoch"]).tolist():
            mine = event["epoch"] == epoch
            one = self.course.epochs.setdefault((event["loader"], epoch), Epoch(event["loader"], epoch))
            if (mine & applied).any():
                first, last = int(steps[mine & applied].min()), int(steps[mine & applied].max())
                one.steps = min(first, (one.steps or (first,))[0]), max(last, (one.steps or (last,))[-1])
            one.uses += int(count[mine & sure].sum())
            one.perhaps += int(count[mine & applied & ~sure].sum())
            one.deliveries += int(count[mine & ~applied].sum())
            one.neighbours += int(hops[mine & applied].sum())
            one.superseded += int(count[mine & sure & past].sum())
            one.datasets.add(self._blocks.dataset(event["block"]))
            one.began = min(one.began or event["time"], event["time"])
            one.ended = max(one.ended, event["time"])
            self._count_chosen(event, mine & sure, (event["loader"], epoch))

    def _count_chosen(self, event: Mapping[str, Any], batches: NDArray[np.bool_], key: Pass) -> None:
        block = bytes(event["block"])
        if block not in self._places or not batches.any():
            return
        lookup = self._lookups.get(block)
        if lookup is None:
            lookup = np.full(len(self._blocks.ids(block)), -1, dtype=np.int64)
            for ordinal, place in self._places[block]:
                lookup[ordinal] = place
            self._lookups[block] = lookup
        places = lookup[event["ordinals"][np.repeat(batches, event["count"])]]
        counts = np.bincount(places[places >= 0], minlength=self._chosen)
        self.course.of_samples[key] = self.course.of_samples.get(key, np.zeros(self._chosen, np.int64)) + counts

    def stage(self, number: int, event: Mapping[str, Any]) -> None:
        """Add a `transform` entry to its stage."""
        key = (event["stage"], event["operation"], self._blocks.dataset(event["block"]), event.get("output", ""))
        one = self.course.stages.setdefault(key, Stage(*key))
        one.kept += len(event.get("kept", ()))
        one.dropped += len(event.get("dropped", ()))
        one.entries += 1
        if "child_block" in event:
            block = bytes(event["child_block"])
            one.made.add(self._blocks.dataset(block))
            seen = self._children.setdefault((key, block), np.zeros(len(self._blocks.ids(block)), dtype=bool))
            before = int(seen.sum())
            seen[event["children"]] = True  # a child of several entries is one
            one.children += int(seen.sum()) - before

    def state(self, number: int, event: Mapping[str, Any]) -> None:
        """A model state; an entry that says that the last one with its step and digest was displaced is no state of its
        own, unless a resume lies between them."""
        ref, digest = (bytes(event["writer"]), event["seq"]), event.get("digest", b"")
        mark, place = (event["step"], digest), len(self.course.states)
        last = self._marks.get(mark) if digest and not event["kept"] else None
        if last is not None:
            resumed = self._timeline.superseding(self.course.states[last].entry, event["step"])
            if resumed is None or resumed[0] > number:
                self._states[ref] = last
                return
        self._states[ref] = place
        if event["kept"]:
            self._marks[mark] = place
        standing = self._timeline.standing(*ref)
        said = event["step"], event.get("epoch"), event.get("val_loss"), digest
        self.course.states.append(State(number, *said, standing))

    def say(self, number: int, event: Mapping[str, Any]) -> None:
        """Add an entry about samples at a model state."""
        state = (
            self._states.get((bytes(event["checkpoint"][0]), event["checkpoint"][1])) if "checkpoint" in event else None
        )
        about = {"contribution": ("target", "method")}.get(event["kind"], ())
        words = tuple(event[name] for name in about) or tuple(event.get("modalities", ()))
        key = (event["kind"], event["step"], state, self._blocks.dataset(event["block"]), words)
        one = self.course.said.setdefault(key, Said(*key))
        one.samples += len(event["ordinals"])
        one.entries += 1
