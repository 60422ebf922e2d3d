"""The verb `seal`: whatever a trace's journal holds goes into its log, signed with the user's key."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from fgtrac.api.kept_folder import take_folder
from fgtrac.api.prior import signer_of, trace_id_of
from fgtrac.api.push import push_trace, pushed_to
from fgtrac.commit import sequencer, tidy
from fgtrac.commit.indexer import MEMORY, Means
from fgtrac.commit.sequencer import SealResult
from fgtrac.engine.opening import check_engine
from fgtrac.store.index_build import Progress
from fgtrac.store.trace_dir import TraceDir

WAIT_S = 10.0  # for somebody else's seal to end


def seal_trace(
    path: Path,
    key_path: Path | None = None,
    *,
    full: bool = True,
    kept: Sequence[Path] = (),
    engine: str | None = None,
    memory_bytes: int = MEMORY,
    progress: Progress | None = None,
) -> SealResult:
    """Seal the trace at `path`, after a crash too; with `full` (the default) commit the index over all of it. `kept`
    are folders that ranks on other hosts have left: what is in them goes in before (`fgtrac.api.kept_folder`).
    What does not fit in about `memory_bytes` is done in pieces on disk by the workers of `engine` (None: FGTRAC_ENGINE,
    else `local`); `progress` hears the stage, and how many of how many units of it are done.

    FileNotFoundError or FormatError where there is no trace, ValueError for a key that is not its own; otherwise as
    `fgtrac.commit.sequencer.seal`, and, where FGTRAC_PUSH asks for a push behind it, as `fgtrac.api.push.push_trace`.
    """
    if engine is not None:
        check_engine(engine)
    trace = TraceDir.open(path)
    signer = signer_of(trace, key_path)
    tidy.remove_unfinished(trace)
    for folder in kept:
        take_folder(trace, trace_id_of(trace), folder)
    url = pushed_to(path)
    means = Means(engine, memory_bytes, progress)
    result = sequencer.seal(trace, signer, full=full, clock=time.time_ns, wait_s=WAIT_S, means=means)
    if url is not None:
        push_trace(path, url)
    return result
