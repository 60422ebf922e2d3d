"""Passes over watched loaders as the log tells them: what was announced, what was delivered, and whether they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError
from fgtrac.events.codec import encode
from fgtrac.events.orders import UNREAD, Places
from fgtrac.events.ranks import RankTable
from fgtrac.events.schema import STATUS, decode_event

NAMED = 2  # samples named in one sentence
SHARED = "its generator is the user's own and is asked on demand, so others may have drawn from it in between"
_KINDS = tuple(encode("kind") + encode(kind) for kind in ("sampler", "use", "end", "leave", "join", "gap", "resume"))
_DISCARDED = STATUS["discarded"]

Key = tuple[bytes, int, int]  # writer, loader, epoch
Entries = Iterable[tuple[int, bytes]]
Found = dict[tuple[int, int, int], dict[bytes, list[NDArray[np.uint32]]]]  # (optimizer, step, status) -> by block


@dataclass(slots=True)
class Pass:
    """One pass over a loader: the `sampler` entry that announced it, the `use` entries that have its batches, and the
    batches of its order that an entry says could not be read."""

    key: Key
    number: int = -1
    event: Mapping[str, Any] = field(default_factory=dict)
    uses: list[int] = field(default_factory=list)
    unread: dict[int, int] = field(default_factory=dict)
    who: str = ""  # which rank's, before other words
    may_be_cut: str = ""  # why batches between delivered ones may be missing though nobody left them out

    @property
    def words(self) -> str:
        """What it is called."""
        return f"{self.who}loader {self.key[1]}, epoch {self.key[2]}"


@dataclass(frozen=True, slots=True)
class Drawn:
    """The order of a pass: (n,) `positions`, cut into batches of `size` (None: no batches, one position each), and
    where they lead. Positions from `certain` on are as predicted only if nobody else used the generator."""

    positions: NDArray[np.int64]
    certain: int
    size: int | None
    drop_last: bool
    places: Places

    def __len__(self) -> int:
        size = self.size or 1
        return len(self.positions) // size if self.drop_last else -(-len(self.positions) // size)

    def batch(self, number: int) -> NDArray[np.int64]:
        """The positions of a batch."""
        size = self.size or 1
        return self.positions[number * size : (number + 1) * size]

    def is_certain(self, number: int) -> bool:
        """Whether the whole batch was drawn at the beginning."""
        return min((number + 1) * (self.size or 1), len(self.positions)) <= self.certain


@dataclass(slots=True)
class Comparison:
    """Where a pass differs from its order, in words: `differs` for certain, `doubtful` where that has another reason;
    `missing` batches before a delivered one, and `tail`, how many at the end."""

    differs: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    tail: int = 0


def read_passes(entries: Entries) -> list[Pass]:
    """Every pass that an entry announces or has batches of, in the order of the log. ProofError for a pass that is
    announced twice, or behind its own batches."""
    passes: dict[Key, Pass] = {}
    ended: set[bytes] = set()
    gaps: dict[bytes, int] = {}
    ranks = RankTable()
    before: dict[bytes, set[bytes]] = {}  # of a process that goes on, those before it
    for number, entry in entries:
        if not any(words in entry for words in _KINDS):
            continue
        event = decode_event(entry)
        if event["kind"] == "sampler":
            _take_sampler(passes, number, event)
        elif event["kind"] == "use":
            for epoch in np.unique(event["epoch"]).tolist():
                key = (event["writer"], event["loader"], epoch)
                passes.setdefault(key, Pass(key)).uses.append(number)
        elif event["kind"] in ("end", "leave"):
            ended.add(event["writer"])
        elif event["kind"] == "join":
            ranks.add(event)
            before[event["writer"]] = before.get(event["began"][0], set())
        elif event["kind"] == "resume":
            before[event["writer"]] = {bytes(writer) for writer, _seq in event["writers"]}
        elif "lost_writer" in event:
            gaps[event["lost_writer"]] = number
    by_loader: dict[tuple[bytes, int], list[Pass]] = {}
    for one in sorted(passes.values(), key=lambda p: p.key[2]):
        by_loader.setdefault(one.key[:2], []).append(one)
    _mark_cut(by_loader, ended, gaps)
    for writer, others in before.items():  # of a rank the same one, if it was there
        before[writer] = {w for w in others if ranks.rank(w) == ranks.rank(writer)} or others
    skipped = [Pass((*loader, hole)) for loader in by_loader if (hole := _hole(loader, by_loader, before)) is not None]
    for one in (found := [*passes.values(), *skipped]):
        one.who = ranks.words(one.key[0])
    return found


def _hole(
    loader: tuple[bytes, int], by_loader: Mapping[tuple[bytes, int], Sequence[Pass]], before: Mapping[bytes, set[bytes]]
) -> int | None:
    """The first epoch that is not among those of one loader, which are in order, if there is one. They begin with 0;
    where a process goes on, with one that those before it had, or with the next."""
    epochs = [one.key[2] for one in by_loader[loader]]
    earlier = [
        by_loader[writer, loader[1]][-1].key[2]
        for writer in before.get(loader[0], ())
        if (writer, loader[1]) in by_loader
    ]
    first = min(epochs[0], max(earlier, default=-1) + 1)
    return next((at for at, epoch in enumerate(epochs, first) if epoch != at), None)


def _take_sampler(passes: dict[Key, Pass], number: int, event: Mapping[str, Any]) -> None:
    key = (event["writer"], event["loader"], event["epoch"])
    known = passes.setdefault(key, Pass(key))
    if event["sampler"] == UNREAD:
        batch = event.get("parameters", {}).get("batch")
        if type(batch) is int:
            known.unread[batch] = number
        return
    if known.number >= 0:
        raise ProofError(f"entries {known.number} and {number} both announce {known.words} of one process")
    if known.uses:
        raise ProofError(f"entry {number} announces {known.words}, whose batches entry {known.uses[0]} has already")
    known.number, known.event = number, event


def _mark_cut(
    by_loader: Mapping[tuple[bytes, int], Sequence[Pass]], ended: set[bytes], gaps: Mapping[bytes, int]
) -> None:
    """A process that was killed lost batches that waited for their update: they are of its last two passes over each
    loader. A gap entry says that entries were lost anywhere."""
    for (writer, _loader), some in by_loader.items():
        for one in some[-2:] if writer not in ended else ():
            one.may_be_cut = "its process wrote no end, and may have been killed"
        for one in some if writer in gaps else ():
            one.may_be_cut = f"entry {gaps[writer]} (gap) says that entries were lost"


def compare(one: Pass, drawn: Drawn, entries: Entries, name: Callable[[bytes, int], str]) -> Comparison:
    """Hold the batches of a pass, which `entries` have, against its order; `name` calls a sample of a block by name."""
    found, where = _gather(entries, one.key)
    order = [number for number in range(len(drawn)) if number not in one.unread]
    result = Comparison()
    for batch in sorted(found):
        if batch >= len(order):
            result.differs.append(
                f"{one.words}: entry {where[batch]} has batch {batch}, and the order has {len(order)} batches"
            )
            continue
        words, is_cut = _differences(drawn, order[batch], found[batch], name)
        reason = one.may_be_cut if is_cut else "" if drawn.is_certain(order[batch]) else SHARED
        if words:
            told = f"{one.words}, batch {batch}, entry {where[batch]}: {words}"
            (result.doubtful if reason else result.differs).append(f"{told}: {reason}" if reason else told)
    within = [batch for batch in found if batch < len(order)]
    last = max(within, default=-1)
    result.missing = sorted(set(range(last)) - set(within))
    result.tail = len(order) - last - 1
    return result


def _gather(entries: Entries, key: Key) -> tuple[dict[int, Found], dict[int, int]]:
    """The samples of each batch of the pass, as each update of each optimizer has them; and the first entry of each."""
    found: dict[int, Found] = {}
    where: dict[int, int] = {}
    for number, entry in entries:
        event = decode_event(entry)
        stops = np.cumsum(event["count"], dtype=np.int64)
        columns = (event[name].tolist() for name in ("epoch", "batch", "step", "status", "count"))
        for (epoch, batch, step, status, count), stop in zip(zip(*columns, strict=True), stops.tolist(), strict=True):
            if epoch != key[2]:
                continue
            where.setdefault(batch, number)
            parts = found.setdefault(batch, {}).setdefault((event["optimizer"], step, status), {})
            parts.setdefault(event["block"], []).append(event["ordinals"][stop - count : stop])
    return found, where


def _differences(drawn: Drawn, number: int, found: Found, name: Callable[[bytes, int], str]) -> tuple[str, bool]:
    """In words, how a batch differs from the one that the order has there, or nothing; and whether all that differs is
    that samples are missing at the end of some block's part, which may be in an entry of their own."""
    said, is_cut = "", True
    positions, places = drawn.batch(number), drawn.places
    which, ordinals = places.which[positions], places.ordinals[positions]
    wanted = {places.blocks[w]: ordinals[which == w] for w in np.unique(which).tolist()}
    for (optimizer, _step, status), parts in found.items():
        for block in wanted.keys() | parts.keys():
            want = wanted.get(block, ordinals[:0])
            have = np.concatenate(parts.get(block, [ordinals[:0]]))
            again = status == _DISCARDED and optimizer and len(want)  # by one optimizer, as often as it likes
            times = max(1, len(have) // len(want)) if again else 1
            if not np.array_equal(have, np.tile(want, times)):
                is_cut = is_cut and np.array_equal(have, want[: len(have)])
                said = said or _blame(want, have, lambda o, b=block: name(b, o))  # type: ignore[misc]
    return said, is_cut


def _blame(want: NDArray[Any], have: NDArray[Any], name: Callable[[int], str]) -> str:
    wanted, had = Counter(want.tolist()), Counter(have.tolist())
    foreign, lacking = list((had - wanted).elements()), list((wanted - had).elements())
    if not foreign and not lacking:
        at = int(np.flatnonzero(want != have)[0])
        return f"{name(int(have[at]))} stands where the order has {name(int(want[at]))}, of the same batch"
    told = [f"{verb} {_list(some, name)}" for verb, some in (("has", foreign), ("lacks", lacking)) if some]
    return " and ".join(told) + ", against the order"


def _list(ordinals: Sequence[int], name: Callable[[int], str]) -> str:
    more = f" and {len(ordinals) - NAMED} more" if len(ordinals) > NAMED else ""
    return ", ".join(name(o) for o in ordinals[:NAMED]) + more
