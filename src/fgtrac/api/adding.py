"""Adding entries to a finished trace, without a training and without torch."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from fgtrac.api import prior
from fgtrac.api.last_start import lost_ranks
from fgtrac.api.ledger import Ledger, read_ledger
from fgtrac.capture.recorder import Recorder
from fgtrac.commit import sequencer, tidy
from fgtrac.commit.signer import Signer
from fgtrac.errors import CaptureError
from fgtrac.store import durable
from fgtrac.store.journal import JournalWriter
from fgtrac.store.trace_dir import TraceDir

WAIT_S = 60.0  # for somebody else's seal
ENDING_S = 10.0  # for the loader's workers of a process that was killed, which hold what it held


@dataclass(frozen=True, slots=True)
class Adding:
    """A trace that is being added to: `ledger` is what its log says so far."""

    trace: TraceDir
    signer: Signer
    recorder: Recorder
    ledger: Ledger


def hold_open(trace: TraceDir) -> durable.FolderHold:
    """Say that this process writes into a trace, from here until `close` or its end: `alone_in` then refuses.

    BlockingIOError where somebody is alone in it for longer than `WAIT_S`.
    """
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return durable.FolderHold(trace.path, alone=False)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                words = f"a subject is being erased from {trace.path}, or its key replaced; wait, then try again"
                raise BlockingIOError(words) from error
            time.sleep(0.05)


@contextmanager
def alone_in(trace: TraceDir) -> Iterator[None]:
    """Nobody else has the trace open for writing inside the block. CaptureError where some process has, also where it
    has not written anything yet."""
    try:
        held = durable.FolderHold(trace.path, alone=True)
    except BlockingIOError as error:
        words = f"{trace.path} is being recorded by a process now, or open in one that may record or score"
        raise CaptureError(f"{words}; end that one, then try again") from error
    try:
        yield
    finally:
        held.close()


def take_up(trace: TraceDir, key: Path | None) -> Signer:
    """Make a trace ready to be added to: what a crash left is repaired and sealed, and of a training of several
    processes it is said which of them were lost. Its signer.

    CaptureError where it is being recorded now, FileNotFoundError or ValueError where the key is not at hand.
    """
    check_idle(trace)
    signer = prior.signer_of(trace, key)
    tidy.remove_unfinished(trace)
    sequencer.seal(trace, signer, full=False, clock=time.time_ns, wait_s=WAIT_S)
    if say_lost_ranks(trace, signer):
        sequencer.seal(trace, signer, full=False, clock=time.time_ns, wait_s=WAIT_S)
    return signer


def say_lost_ranks(trace: TraceDir, signer: Signer) -> tuple[str, ...]:
    """Write a `gap` entry into the journal for each rank that the log of a training that is over shows to be lost, and
    that was not said of: a full seal behind it would look like rank 0's own. What was written: nothing where a training
    is at work by now, or begins, which says itself who was lost before."""
    if not lost_ranks(trace):
        return ()
    with ExitStack() as stack:
        try:
            stack.enter_context(beginning(trace, signer, wait_s=0.0))
        except BlockingIOError:
            return ()
        lost = tuple(lost_ranks(trace).values())
        if not lost or is_recorded(trace):
            return ()
        writer = os.urandom(16)
        recorder = Recorder(JournalWriter(trace.journal, writer), writer, strict=True, flush_interval_s=0)
        stack.callback(recorder.close)
        for reason in lost:
            recorder.record("gap", {"reason": reason})
        return lost


def beginning(trace: TraceDir, signer: Signer, *, wait_s: float) -> AbstractContextManager[None]:
    """Nobody else goes on with the training of a trace inside the block, until the journal shows that. BlockingIOError
    where somebody is about to for longer than `wait_s`."""
    return durable.lock(signer.lock_path.with_suffix(".resume"), str(trace.path), wait_s)


def check_idle(trace: TraceDir) -> None:
    """CaptureError where a process is recording into the trace now."""
    if is_recorded(trace):
        raise CaptureError(f"{trace.path} is being recorded by a process now; add to it when that has ended")


def is_recorded(trace: TraceDir) -> bool:
    """Whether a process is recording into the trace now."""
    return any(durable.is_held(path) for path in trace.journal.glob("*.wal"))


def await_idle(journal: Path) -> None:
    """CaptureError where a process records into a trace, whose journal this is; one that is ending has `ENDING_S`."""
    deadline = time.monotonic() + ENDING_S
    while any(durable.is_held(path) for path in journal.glob("*.wal")):
        if time.monotonic() >= deadline:
            raise CaptureError(f"{journal.parent} is being recorded by a process now; end that one, then try again")
        time.sleep(0.05)


@contextmanager
def adding(trace: TraceDir, key: Path | None = None, *, is_alone: bool = False) -> Iterator[Adding]:
    """Add to a trace inside the block; what was added is sealed behind it, also after an error. Raises as `take_up`.

    `is_alone`: the caller is inside `alone_in`.
    """
    with nullcontext() if is_alone else closing(hold_open(trace)):
        signer = take_up(trace, key)
        writer = os.urandom(16)
        recorder = Recorder(JournalWriter(trace.journal, writer), writer, strict=True, flush_interval_s=0)
        try:
            yield Adding(trace, signer, recorder, read_ledger(trace))
        finally:
            recorder.close()
            sequencer.seal(trace, signer, full=True, clock=time.time_ns, wait_s=WAIT_S)
