"""What became of the passes that restarts cut: which samples were used again and which were left out, against the order
that the loader's sampler had for that pass.

A silently wrong resume is seen here: a loop that begins an epoch anew uses its first samples twice, and one that goes
on with the next epoch leaves the rest of them out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.announced_orders import AnnouncedOrders, vault_beside
from fgtrac.api.naming import key_of, words_of
from fgtrac.api.prior import trace_id_of
from fgtrac.api.standing import NEVER, Standing
from fgtrac.events.codec import encode
from fgtrac.events.orders import UNREAD
from fgtrac.events.schema import STATUS, decode_event
from fgtrac.query.blocks import Blocks
from fgtrac.query.log import SealedLog, whole
from fgtrac.store.places import open_to_read
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.passes import Drawn, Pass

_KINDS = tuple(encode("kind") + encode(kind) for kind in ("use", "resume", "sampler", "artifact", "samples", "roles"))
_APPLIED = STATUS["applied"]
DRAWN = "its sampler's order, drawn again"
ASSUMED = "an assumption, each training sample of its data once"
REPEATING = "nothing that is known: its sampler draws with replacement"
_32 = np.uint64(32)
Numbers = NDArray[np.uint32]
Codes = NDArray[np.uint64]  # samples: the number of their block << 32 | the ordinal
_NONE: Codes = np.empty(0, np.uint64)


@dataclass(frozen=True, slots=True)
class Affected:
    """A sample whose uses in a pass are not those that the order has: how often it stands there, and was used."""

    id: bytes
    name: str | None
    expected: int
    uses: int

    def as_json(self) -> dict[str, Any]:
        """Plain data; the id as hex."""
        return {"id": self.id.hex(), "name": self.name, "expected": self.expected, "uses": self.uses}


@dataclass(frozen=True, slots=True)
class CutPass:
    """A pass over a loader that a restart cut: uses that stand from before it and from after it, and how many the order
    has; `against` says what order that is. `repeated` were used more often, `skipped` less often. `is_last` where the
    log has no later pass of the loader, so that what is left may still come. Where the order cannot be drawn again,
    `unknown` says why: what is expected is then an assumption, or nothing at all (`expected` 0)."""

    loader: int
    epoch: int
    before: int
    after: int
    expected: int
    against: str
    unknown: str
    repeated: tuple[Affected, ...]
    skipped: tuple[Affected, ...]
    is_last: bool

    @property
    def is_whole(self) -> bool:
        """Whether every sample was used as often as the order has it."""
        return not self.repeated and not self.skipped

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        named = ("loader", "epoch", "before", "after", "expected", "against", "unknown")
        said = {name: getattr(self, name) for name in named}
        lists = {name: [one.as_json() for one in getattr(self, name)] for name in ("repeated", "skipped")}
        return said | lists | {"is_last": self.is_last}


@dataclass(frozen=True, slots=True)
class Resume:
    """One restart: its entry, the step that it went on from, up to which step the log had been by then, and the passes
    that it cut."""

    entry: int
    step: int
    reached: int
    passes: tuple[CutPass, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        passes = [one.as_json() for one in self.passes]
        return {"entry": self.entry, "step": self.step, "reached": self.reached, "passes": passes}


def find_resumes(path: Path) -> tuple[Resume, ...]:
    """The restarts of a trace, in the order of the log; entries are checked against its head's root, and nothing else
    is verified. Orders are drawn again where the log or the vault beside the trace says what they come from (with
    torch); for others each sample of the loader is expected once. FileNotFoundError, FormatError where it is no trace.
    """
    trace = open_to_read(path)
    head = trace.head()
    if head is None:
        return ()
    with whole("the resumes"):
        return _Reading(trace, SealedLog(trace, head)).resumes()


@dataclass(frozen=True, slots=True)
class _Use:
    """What a `use` entry says, without its samples: who wrote it, its last epoch and its last applied update."""

    number: int
    writer: bytes
    epoch: int
    step: int


class _Reading:
    def __init__(self, trace: TraceDir, log: SealedLog) -> None:
        self._log = log
        self._standing = Standing(trace)
        self._resumes: list[tuple[int, Mapping[str, Any]]] = []
        self._uses: dict[int, list[_Use]] = {}  # by loader
        self._announced: dict[tuple[int, int], list[Pass]] = {}  # loader, epoch
        self._blocks: dict[bytes, int] = {}
        self._train: dict[bytes, list[Numbers]] = {}  # block -> ordinals with that role
        artifacts, samples = [], 0
        for number, event in self._events():
            if event["kind"] == "resume":
                self._resumes.append((number, event))
            elif event["kind"] == "use":
                step = int(event["step"][event["status"] == _APPLIED].max(initial=0))
                use = _Use(number, event["writer"], int(event["epoch"].max(initial=0)), step)
                self._uses.setdefault(event["loader"], []).append(use)
            elif event["kind"] == "sampler" and event["sampler"] != UNREAD:
                key = (event["writer"], event["loader"], event["epoch"])
                self._announced.setdefault(key[1:], []).append(Pass(key, number, event))
            elif event["kind"] == "artifact":
                artifacts.append((event["sha256"], event["path"]))
            elif event["kind"] == "roles" and event["role"] == "train":
                self._train.setdefault(bytes(event["block"]), []).append(event["ordinals"])
            samples += event["kind"] == "samples"
        self._vault, no_vault = vault_beside(trace.path, trace_id_of(trace))
        self._orders = AnnouncedOrders(trace, artifacts, self._vault, no_vault)
        self._registered = Blocks(log, samples)

    def _events(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for number in range(self._log.head.size):
            entry = self._log.peek(number)
            if any(words in entry for words in _KINDS):
                yield number, decode_event(self._log.entry(number))

    def resumes(self) -> tuple[Resume, ...]:
        """One for each restart; the processes of a group that restarts together write one entry each."""
        found, known = [], set[frozenset[bytes]]()
        for number, event in self._resumes:
            before = frozenset(bytes(writer) for writer, _seq in event["writers"])
            if any(before <= other for other in known):
                continue
            known.add(before)
            passes = [one for loader in sorted(self._uses) if (one := self._cut(loader, event, before)) is not None]
            found.append(Resume(number, event["step"], self._reached(before), tuple(passes)))
        return tuple(found)

    def _reached(self, before: frozenset[bytes]) -> int:
        """The last step of those processes, whether it stands or not."""
        uses = (use for uses in self._uses.values() for use in uses)
        return max((use.step for use in uses if use.writer in before), default=0)

    def _cut(self, loader: int, resume: Mapping[str, Any], before: frozenset[bytes]) -> CutPass | None:
        """The pass over a loader that a restart cut; None where it cut none."""
        uses = self._uses[loader]
        stood = self._standing_uses([use for use in uses if use.writer in before], resume["step"])
        epoch = max((int(epochs.max()) for _writer, epochs, _codes in stood), default=None)
        if epoch is None:
            return None
        sides: dict[bool, list[Codes]] = {True: [_NONE], False: [_NONE]}
        start = len(self._standing.resumes)
        for writer, epochs, codes in self._standing_uses(uses):
            if (epochs == epoch).any():
                sides[writer in before].append(codes[epochs == epoch])
                start = min(start, self._standing.start_of(writer))
        earlier, later = map(np.concatenate, sides.values())
        wanted, against, unknown = self._expected(loader, epoch, start)
        used = np.concatenate([earlier, later])
        repeated, skipped = self._differences(wanted if len(wanted) else used, used)
        is_last = max(use.epoch for use in uses) <= epoch
        counts = len(earlier), len(later), len(wanted)
        one = CutPass(loader, epoch, *counts, against, unknown, repeated, skipped, is_last)
        return None if one.is_whole and not one.after and not unknown else one

    def _standing_uses(self, uses: Sequence[_Use], step: int = NEVER) -> Iterator[tuple[bytes, Numbers, Codes]]:
        """Of each entry the uses up to a step that no restart undid: who wrote it, their epochs, their samples."""
        for use in uses:
            event = decode_event(self._log.entry(use.number))
            until = min(step, self._standing.stands_until(use.writer))
            some = np.repeat((event["status"] == _APPLIED) & (event["step"] <= until), event["count"])
            if some.any():
                block = self._blocks.setdefault(bytes(event["block"]), len(self._blocks))
                codes = event["ordinals"][some].astype(np.uint64) | np.uint64(block << 32)
                yield use.writer, np.repeat(event["epoch"], event["count"])[some], codes

    def _expected(self, loader: int, epoch: int, start: int) -> tuple[Codes, str, str]:
        """The samples of the pass by the order that was announced as it began, what order that is, and why another had
        to be assumed: each training sample of its data sets once. None where samples are drawn with replacement."""
        announced = self._announced.get((loader, epoch), [])
        ranks = [one for one in announced if self._standing.start_of(one.key[0]) == start]
        try:
            if not ranks:
                raise CannotTell("no entry announces its order")
            return np.concatenate([self._codes_of(self._orders.draw(one)) for one in ranks]), DRAWN, ""
        except CannotTell as reason:
            if any(_may_repeat(one.event) for one in ranks):
                return _NONE, REPEATING, str(reason)
            blocks = {
                int(code)
                for _w, _e, codes in self._standing_uses(self._uses[loader])
                for code in np.unique(codes >> _32)
            }
            return np.concatenate([_NONE, *map(self._training, sorted(blocks))]), ASSUMED, str(reason)

    def _training(self, number: int) -> Codes:
        """The samples of a block with the role train; all of them where none has it."""
        block = list(self._blocks)[number]
        told = self._train.get(block)
        ordinals = np.arange(len(self._registered.ids(block))) if told is None else np.unique(np.concatenate(told))
        codes: Codes = ordinals.astype(np.uint64) | np.uint64(number << 32)
        return codes

    def _codes_of(self, drawn: Drawn) -> Codes:
        size = drawn.size or 1
        positions = drawn.positions[: len(drawn) * size]
        numbers = np.array([self._blocks.setdefault(b, len(self._blocks)) for b in drawn.places.blocks], np.uint64)
        which = numbers[drawn.places.which[positions]]
        codes: Codes = which << np.uint64(32) | drawn.places.ordinals[positions].astype(np.uint64)
        return codes

    def _differences(self, wanted: Codes, used: Codes) -> tuple[tuple[Affected, ...], tuple[Affected, ...]]:
        """Who was used more often than wanted, and who less often."""
        codes, of = np.unique(np.concatenate([wanted, used]), return_inverse=True)
        expected, uses = (np.bincount(part, minlength=len(codes)) for part in (of[: len(wanted)], of[len(wanted) :]))
        chosen = (np.flatnonzero(uses > expected), np.flatnonzero(uses < expected))
        blocks = list(self._blocks)
        more, less = (
            tuple(self._affected(blocks[int(codes[i]) >> 32], codes[i], expected[i], uses[i]) for i in some)
            for some in chosen
        )
        return more, less

    def _affected(self, block: bytes, code: Any, expected: Any, uses: Any) -> Affected:
        sample_id = self._registered.id(block, int(code) & 0xFFFFFFFF)
        name = None if self._vault is None else self._vault.find_by_id(sample_id)
        words = None if name is None else words_of(name.dataset, key_of(name.key))
        return Affected(sample_id, words, int(expected), int(uses))


def _may_repeat(announced: Mapping[str, Any]) -> bool:
    """Whether an order may name a sample several times, or leave it out, by its own rules."""
    said = announced.get("parameters", {})
    return announced["sampler"] == "WeightedRandomSampler" or said.get("replacement") is True
