"""The verb `seal`: whatever a trace's journal holds goes into its log, signed with the user's key."""

from __future__ import annotations

import time
from pathlib import Path

from fgtrac.api.prior import run_entry, trace_id_of
from fgtrac.commit import sequencer, tidy
from fgtrac.commit.sequencer import SealResult
from fgtrac.commit.signer import Signer
from fgtrac.store.trace_dir import TraceDir

WAIT_S = 10.0  # for somebody else's seal to end


def seal_trace(path: Path, key_path: Path | None = None, *, full: bool = True) -> SealResult:
    """Seal the trace at `path`, after a crash too; with `full` (the default) commit the index over all of it.

    FileNotFoundError or FormatError where there is no trace, ValueError for another key than its own; otherwise as
    `fgtrac.commit.sequencer.seal`.
    """
    trace = TraceDir.open(path)
    signer = Signer.of(trace_id_of(trace), run_entry(trace)["public_key"], key_path)
    tidy.remove_unfinished_artifacts(trace)
    return sequencer.seal(trace, signer, full=full, clock=time.time_ns, wait_s=WAIT_S)
