"""Ranks of a training that ended without leaving, as a log tells: what a start of several processes left open."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgtrac.api.adding import adding, await_idle
from fgtrac.events.codec import encode
from fgtrac.events.schema import decode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.tiles import WIDTH, read_bundle

MAY_MISS = "the last of what it trained on may be missing"
_KINDS = tuple(encode("kind") + encode(kind) for kind in ("join", "leave", "gap", "end", "seal", "run", "resume"))
_SAID = re.compile(r"rank ([0-9]+) of [0-9]+ ")


@dataclass(slots=True)
class _Start:
    """The last start: its ranks by number, who of them has left or was said to be lost; whether rank 0 closed it."""

    ranks: int = 0
    writers: dict[int, bytes] = field(default_factory=dict)
    told: set[int] = field(default_factory=set)
    is_closed: bool = False
    has_end: bool = False


def lost_ranks(trace: TraceDir) -> dict[int, str]:
    """Of the last start of a training of several processes, each rank that neither left nor was said to be lost, and
    what is said in the log of it. Reads the whole log; of what is not sealed it knows nothing."""
    start = _last_start(trace)
    if start.has_end or start.ranks < 2:
        return {}
    lost = [n for n in range(1, start.ranks) if n not in start.told] + ([] if start.is_closed else [0])
    how = {n: f"ended without leaving: {MAY_MISS}" if n in start.writers else "recorded nothing" for n in sorted(lost)}
    return {n: f"rank {n} of {start.ranks} {words}" for n, words in how.items()}


def _last_start(trace: TraceDir) -> _Start:
    start = _Start()
    for event in _events(trace):
        kind = event["kind"]
        if kind in ("run", "resume"):
            start = _Start()
        elif kind == "join":
            start.ranks = event["ranks"]
            start.writers[event["rank"]] = event["writer"]
        elif kind == "leave":
            start.told |= {rank for rank, writer in start.writers.items() if writer == event["writer"]}
        elif kind == "gap" and (said := _SAID.match(event["reason"])) is not None:
            start.told.add(int(said[1]))
        elif kind in ("seal", "end"):
            start.is_closed = True
            start.has_end |= kind == "end"
    return start


def _events(trace: TraceDir) -> Iterator[dict[str, Any]]:
    head = trace.head()
    size = head.size if head is not None else 0
    for number in range(-(-size // WIDTH)):
        for entry in read_bundle(trace, number, size):
            if any(words in entry for words in _KINDS):
                yield decode_event(entry)


def say_lost(path: str | os.PathLike[str], key: str | os.PathLike[str] | None = None) -> tuple[str, ...]:
    """Where a training of several processes is over and has no end: seal what its journal holds, and say in the log
    which ranks were lost. What was said; nothing where every rank left, or that was said before.

    FileNotFoundError or FormatError where there is no trace, CaptureError where it is still being recorded, otherwise
    raises as `fgtrac seal`.
    """
    trace = TraceDir.open(Path(path))
    await_idle(trace.journal)
    start = _last_start(trace)
    if start.has_end:
        return ()
    with adding(trace, None if key is None else Path(key)) as added:
        lost = tuple(lost_ranks(trace).values())
        for reason in lost:
            added.recorder.record("gap", {"reason": reason})
    return lost
