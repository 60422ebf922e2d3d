"""Where a trace stands: its tree head, and the plan that led to it, or what the log says in its stead."""

from __future__ import annotations

from dataclasses import dataclass

from fgtrac.commit.gather import read_segments
from fgtrac.commit.plan import Plan, parse_plan
from fgtrac.commit.signer import Signer
from fgtrac.errors import FormatError
from fgtrac.events.schema import decode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.merkle import EMPTY_ROOT
from fgtrac.tlog.tiles import read_entries


@dataclass(frozen=True, slots=True)
class State:
    """The head's size and root, and its plan."""

    size: int
    root: bytes
    plan: Plan


def load_state(trace: TraceDir, signer: Signer) -> State:
    """The state of a trace. A plan that the signer does not know is not believed: the log is read instead."""
    head = trace.head()
    if head is None:
        return State(0, EMPTY_ROOT, Plan(0, 0, (), {}, (), 0, {}))
    plan = _read_plan(trace, head.size, signer)
    return State(head.size, head.root, plan if plan is not None else plan_from_log(trace, head.size))


def _read_plan(trace: TraceDir, size: int, signer: Signer | None) -> Plan | None:
    try:
        data = trace.read(f"journal/{size}.seal")
        if signer is not None and not signer.is_known_plan(data):
            return None
        return parse_plan(data)
    except (FileNotFoundError, FormatError):
        return None  # gone or damaged: what it says is in the log too


def plan_from_log(trace: TraceDir, size: int) -> Plan:
    """What a plan would say of a log: how far each writer is sealed and where its newest index is."""
    writers: dict[bytes, int] = {}
    index_size = 0
    for number, entry in enumerate(read_entries(trace, 0, size, size)):
        event = decode_event(entry)
        writers[event["writer"]] = max(writers.get(event["writer"], 0), event["seq"] + 1)
        if event["kind"] == "seal":
            index_size = number + 1
    return Plan(size, size, (), writers, (), index_size, {})


def sealed_writers(trace: TraceDir, signer: Signer | None = None) -> dict[bytes, int]:
    """How far each writer is sealed: the next sequence number of each."""
    head = trace.head()
    if head is None:
        return {}
    plan = _read_plan(trace, head.size, signer)
    return (plan if plan is not None else plan_from_log(trace, head.size)).writers


def count_unsealed(trace: TraceDir) -> int:
    """How many whole frames of the journal are in no log yet."""
    segments = read_segments(trace)
    sealed = sealed_writers(trace) if segments else {}
    return sum(f.seq >= sealed.get(s.writer, 0) for s in segments for f in s.frames)
