"""Adding entries to a finished trace, without a training and without torch."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fgtrac.api import prior
from fgtrac.api.ledger import Ledger, read_ledger
from fgtrac.capture.recorder import Recorder
from fgtrac.commit import sequencer, tidy
from fgtrac.commit.gather import read_segments
from fgtrac.commit.signer import Signer
from fgtrac.errors import CaptureError
from fgtrac.store import durable
from fgtrac.store.journal import JournalWriter
from fgtrac.store.trace_dir import TraceDir

WAIT_S = 60.0  # for somebody else's seal


@dataclass(frozen=True, slots=True)
class Adding:
    """A trace that is being added to: `ledger` is what its log says so far."""

    trace: TraceDir
    signer: Signer
    recorder: Recorder
    ledger: Ledger


def take_up(trace: TraceDir, key: Path | None) -> Signer:
    """Make a trace ready to be added to: what a crash left is repaired and sealed. Its signer.

    CaptureError where it is being recorded now, FileNotFoundError or ValueError where the key is not at hand.
    """
    check_idle(trace)
    signer = prior.signer_of(trace, key)
    tidy.remove_unfinished_artifacts(trace)
    sequencer.seal(trace, signer, full=False, clock=time.time_ns, wait_s=WAIT_S)
    return signer


def check_idle(trace: TraceDir) -> None:
    """CaptureError where a process is recording into the trace now."""
    if any(durable.is_held(segment.path) for segment in read_segments(trace)):
        raise CaptureError(f"{trace.path} is being recorded by a process now; add to it when that has ended")


@contextmanager
def adding(trace: TraceDir, key: Path | None = None) -> Iterator[Adding]:
    """Add to a trace inside the block; what was added is sealed behind it, also after an error. Raises as `take_up`."""
    signer = take_up(trace, key)
    writer = os.urandom(16)
    recorder = Recorder(JournalWriter(trace.journal, writer), writer, strict=True, flush_interval_s=0)
    try:
        yield Adding(trace, signer, recorder, read_ledger(trace))
    finally:
        recorder.close()
        sequencer.seal(trace, signer, full=True, clock=time.time_ns, wait_s=WAIT_S)
