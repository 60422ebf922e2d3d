"""Ranks of a training that ended without leaving, as a log tells: what a start of several processes left open."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from fgtrac.commit.gather import read_segments
from fgtrac.events.codec import encode
from fgtrac.events.schema import decode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.tiles import WIDTH, read_bundle

MAY_MISS = "the last of what it trained on may be missing"
_KINDS = tuple(encode("kind") + encode(kind) for kind in ("join", "leave", "gap", "end", "seal", "run", "resume"))
_SAID = re.compile(r"rank ([0-9]+) of [0-9]+ ")


@dataclass(slots=True)
class _Start:
    """The last start: its ranks by number, who of them has left or was said to be lost; whether rank 0 closed it. What
    `resumer` says before it joins is of the start before."""

    ranks: int = 0
    writers: dict[int, bytes] = field(default_factory=dict)
    told: set[int] = field(default_factory=set)
    is_closed: bool = False
    has_end: bool = False
    resumer: bytes = b""


def lost_ranks(trace: TraceDir) -> dict[int, str]:
    """Of the last start of a training of several processes, each rank that neither left nor was said to be lost, and
    what is said in the log of it. Reads the whole log; of what is not sealed it knows nothing."""
    start = _last_start(trace)
    if start.has_end or start.ranks < 2:
        return {}
    lost = [n for n in range(start.ranks) if n not in start.told and not (n == 0 and start.is_closed)]
    how = {n: f"ended without leaving: {MAY_MISS}" if n in start.writers else "recorded nothing" for n in lost}
    return {n: f"rank {n} of {start.ranks} {words}" for n, words in how.items()}


def has_end(trace: TraceDir) -> bool:
    """Whether the log says that the last start of a training came to its end."""
    return _last_start(trace).has_end


def has_ranks(trace: TraceDir) -> bool:
    """Whether the log, or the journal, has one of several processes that a training was started with."""
    return _last_start(trace).ranks > 1 or any(f.kind == "join" for s in read_segments(trace) for f in s.frames)


def _last_start(trace: TraceDir) -> _Start:
    start = _Start()
    for entry in _entries(trace):
        is_awaited = start.is_closed and start.writers.get(0, b"-") in entry  # a seal in between was another's
        if not is_awaited and not any(words in entry for words in _KINDS):
            continue
        event = decode_event(entry)
        kind, writer = event["kind"], event["writer"]
        start.is_closed &= writer != start.writers.get(0)
        if kind in ("run", "resume"):
            start = _Start(resumer=writer)
        elif kind == "join":
            start.ranks = event["ranks"]
            start.writers[event["rank"]] = writer
        elif kind == "leave":
            start.told |= {rank for rank, its in start.writers.items() if its == writer}
        elif kind == "gap" and (said := _SAID.match(event["reason"])) is not None:
            if writer != start.resumer or start.writers.get(0) == writer:
                start.told.add(int(said[1]))
        elif kind in ("seal", "end"):
            start.is_closed = True
            start.has_end |= kind == "end"
    return start


def _entries(trace: TraceDir) -> Iterator[bytes]:
    head = trace.head()
    size = head.size if head is not None else 0
    for number in range(-(-size // WIDTH)):
        yield from read_bundle(trace, number, size)
