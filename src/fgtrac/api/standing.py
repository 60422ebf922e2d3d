"""Where the training of an existing trace stood at some step: what is known of it, and the next pass of each loader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fgtrac.events.codec import encode
from fgtrac.events.orders import batches_announced
from fgtrac.events.schema import STATUS, decode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.tiles import WIDTH, read_bundle

NEVER = 2**64 - 1  # a step that no resume went back behind
_REGISTERING = tuple(encode("kind") + encode(kind) for kind in ("dataset", "samples", "roles"))
_KINDS = tuple(encode("kind") + encode(kind) for kind in ("use", "checkpoint", "resume", "sampler", "join", "leave"))


@dataclass(slots=True)
class _Pass:
    """One pass over a loader so far: of each start of the run the batches that stand; whether others came behind."""

    stands: dict[int, int] = field(default_factory=dict)  # start -> batches from the first to the last that stands
    goes_on: bool = False
    announced: int | None = None  # how many batches its order has, where that is known
    samples: int = 0  # uses that stand
    blocks: set[bytes] = field(default_factory=set)

    def is_over(self, sizes: Mapping[bytes, int | None]) -> bool:
        """Whether nothing of its order is left: it has as many batches, or where nobody knows how many that are, as
        many uses as there are samples to train on (`sizes`, by block; None of a stream, of which it is not known)."""
        if self.announced is not None:
            return sum(self.stands.values()) >= self.announced
        if self.goes_on:
            return False
        known = [sizes.get(block) for block in self.blocks]
        return None in known or self.samples >= sum(size or 0 for size in known)


@dataclass(slots=True)
class _Start:
    """One start of a training of several processes: how many it has, from which step, and how many joined."""

    ranks: int
    step: int
    joined: int = 0


class Standing:
    """What a log says of its training, read once; `resumes` are the steps that were gone back to, each with the
    processes before."""

    def __init__(self, trace: TraceDir) -> None:
        self.last_step = 0
        self.resumes: list[tuple[int, frozenset[bytes]]] = []
        self._trace = trace
        cut: dict[bytes, int] = {}  # of each rank behind rank 0 that did not leave, the last step that it is known to
        starts: dict[tuple[bytes, int], _Start] = {}
        for event in self._events():
            writer = event["writer"]
            if event["kind"] == "use":
                last = int(event["step"][_applied(event)].max(initial=0))
                self.last_step = max(self.last_step, last)
                if writer in cut:
                    cut[writer] = max(cut[writer], last)
            elif event["kind"] == "join":
                began = event["began"][0], event["began"][1]
                starts.setdefault(began, _Start(event["ranks"], event["step"])).joined += 1
                if event["rank"]:
                    cut[writer] = event["step"]
            elif event["kind"] == "leave":
                cut.pop(writer, None)
            elif event["kind"] == "checkpoint":
                self.last_step = max(self.last_step, event["step"])
            elif event["kind"] == "resume":
                self.last_step = min(self.last_step, event["step"])
                cut.clear()
                starts.clear()
                self.resumes.append((event["step"], frozenset(bytes(writer) for writer, _seq in event["writers"])))
        unknown = [start.step for start in starts.values() if start.joined < start.ranks]
        self.last_step = min([self.last_step, *cut.values(), *unknown])

    def stands_until(self, writer: bytes) -> int:
        """The last step of a process that no later resume went back behind."""
        return min((step for step, before in self.resumes if writer in before), default=NEVER)

    def start_of(self, writer: bytes) -> int:
        """Which start of the run a process belongs to, counted from 0: it was there at the next resume, if any."""
        found = (number for number, (_step, before) in enumerate(self.resumes) if writer in before)
        return next(found, len(self.resumes))

    def next_passes(self, step: int) -> dict[int, int]:
        """loader -> the number of the pass that it makes next where training goes on from `step`: of a pass that was
        cut the same again. Reads the log once more."""
        passes: dict[int, dict[int, _Pass]] = {}
        for event in self._events():
            if event["kind"] not in ("use", "sampler"):
                continue
            mine = passes.setdefault(event["loader"], {})
            if event["kind"] == "sampler":
                one = mine.setdefault(event["epoch"], _Pass())
                one.announced = batches_announced(event) or one.announced
                continue
            stands = _applied(event) & (event["step"] <= min(step, self.stands_until(event["writer"])))
            start = self.start_of(event["writer"])
            for epoch in np.unique(event["epoch"]).tolist():
                one, of = mine.setdefault(epoch, _Pass()), event["epoch"] == epoch
                last = int(event["batch"][of & stands].max()) + 1 if (of & stands).any() else 0
                have = one.stands[start] = max(one.stands.get(start, 0), last)
                one.goes_on |= bool((event["batch"][of] >= have).any())
                one.samples += int(event["count"][of & stands].sum())
                one.blocks.add(bytes(event["block"]))
        sizes = self._sizes()
        return {loader: _next(mine, sizes) for loader, mine in passes.items()}

    def _sizes(self) -> dict[bytes, int | None]:
        """How many samples of each block are there to train on: those with that role, all where none has it. None of a
        stream's."""
        whole: dict[str, bool] = {}
        sizes: dict[bytes, int | None] = {}
        trains: dict[bytes, int] = {}
        for event in self._events(_REGISTERING):
            if event["kind"] == "dataset":
                whole[event["name"]] = "rows" in event
            elif event["kind"] == "samples":
                before = 0 if event["part"] == 0 else sizes.get(event["block"]) or 0
                sizes[event["block"]] = before + len(event["ids"]) // 32 if whole.get(event["dataset"]) else None
            elif event["role"] == "train":
                trains[event["block"]] = trains.get(event["block"], 0) + len(event["ordinals"])
        return sizes | {block: count for block, count in trains.items() if sizes.get(block) is not None}

    def _events(self, kinds: Sequence[bytes] = _KINDS) -> Iterator[Mapping[str, Any]]:
        head = self._trace.head()
        size = head.size if head is not None else 0
        for number in range(-(-size // WIDTH)):
            for entry in read_bundle(self._trace, number, size):
                if any(words in entry for words in kinds):
                    yield decode_event(entry)


def _applied(event: Mapping[str, Any]) -> Any:
    return event["status"] == STATUS["applied"]


def _next(passes: Mapping[int, _Pass], sizes: Mapping[bytes, int | None]) -> int:
    trained = [epoch for epoch, one in passes.items() if any(one.stands.values())]
    if not trained:
        return max(passes) + 1  # of a loader that does not train: its passes are told apart, and no more
    return max(trained) + passes[max(trained)].is_over(sizes)
