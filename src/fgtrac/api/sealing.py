"""The verb `seal`: whatever a trace's journal holds goes into its log, signed with the user's key."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from fgtrac.api.adding import hold_open, is_recorded, say_lost_ranks
from fgtrac.api.kept_folder import take_folder
from fgtrac.api.last_start import has_ranks
from fgtrac.api.prior import signer_of, trace_id_of
from fgtrac.api.push import push_trace
from fgtrac.api.push_behind import not_pushed, pushed_to
from fgtrac.commit import sequencer, tidy
from fgtrac.commit.indexer import MEMORY, Means
from fgtrac.commit.sequencer import SealResult
from fgtrac.engine.opening import check_engine
from fgtrac.errors import StorageError
from fgtrac.store.index_build import Progress
from fgtrac.store.trace_dir import TraceDir

WAIT_S = 10.0  # for somebody else's seal to end


class NotPushedError(StorageError):
    """The trace was sealed, as `sealed` says, and the push that FGTRAC_PUSH asks for behind it failed."""

    def __init__(self, words: str, sealed: SealResult) -> None:
        super().__init__(words)
        self.sealed = sealed

    def __reduce__(self) -> tuple[type[NotPushedError], tuple[str, SealResult]]:
        return type(self), (str(self), self.sealed)


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
    are folders that ranks on other hosts have left: what is in them goes in before (`fgtrac.api.kept_folder`). Of a
    training of several processes that is over, a full seal says which of them were lost.
    What does not fit in about `memory_bytes` is done in pieces on disk by the workers of `engine` (None: FGTRAC_ENGINE,
    else `local`); `progress` hears the stage, and how many of how many units of it are done.

    FileNotFoundError or FormatError where there is no trace, ValueError for a key that is not its own and for
    an FGTRAC_PUSH that names no place; otherwise as `fgtrac.commit.sequencer.seal`. NotPushedError where it was sealed,
    and the push behind it failed in any way.
    """
    if engine is not None:
        check_engine(engine)
    trace = TraceDir.open(path)
    url = pushed_to(path)
    signer = signer_of(trace, key_path)
    tidy.remove_unfinished(trace)
    for folder in kept:
        take_folder(trace, trace_id_of(trace), folder)
    means = Means(engine, memory_bytes, progress)
    new = 0
    if full and has_ranks(trace) and not is_recorded(trace):
        with closing(hold_open(trace)):
            new = sequencer.seal(trace, signer, full=False, clock=time.time_ns, wait_s=WAIT_S, means=means).new_entries
            say_lost_ranks(trace, signer)
    result = sequencer.seal(trace, signer, full=full, clock=time.time_ns, wait_s=WAIT_S, means=means)
    result = replace(result, new_entries=new + result.new_entries)
    if url is not None:
        try:
            push_trace(path, url)
        except Exception as error:  # whatever a server answers: the seal is done, and its result is told
            words = f"sealed at {result.size} entries, and {not_pushed(path, url, error)}"
            raise NotPushedError(words, result) from error
    return result
