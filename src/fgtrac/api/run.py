"""Beginning to record: a new run, one that goes on after an interruption, or a finished one that is added to."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from fgtrac.anchor.service import Service
from fgtrac.api import prior
from fgtrac.api.adding import await_idle, beginning, hold_open, take_up
from fgtrac.api.anchored_run import read_plan
from fgtrac.api.environment import describe_run
from fgtrac.api.last_start import lost_ranks
from fgtrac.api.ledger import read_ledger
from fgtrac.api.rank_group import find_ranks
from fgtrac.api.rank_run import join, let_join, take_kept
from fgtrac.api.ranks import Ranks
from fgtrac.api.recording import Options, Run
from fgtrac.api.run_seals import WAIT_S
from fgtrac.api.standing import Standing
from fgtrac.commit import sequencer, tidy
from fgtrac.commit.signer import Signer
from fgtrac.engine.opening import check_engine
from fgtrac.events.codec import encode
from fgtrac.events.identity import key_commitment
from fgtrac.score.select import parse_rule
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault

__all__ = ["Run", "reopen", "start_run"]


def start_run(
    path: str | os.PathLike[str],
    *,
    config: Mapping[str, Any] | None = None,
    ids: str = "keyed",
    strict: bool = False,
    resume: bool = False,
    step: int | None = None,
    keep: str = "improved:0.01",
    flush_interval_s: float = 1.0,
    sync_interval_s: float = 5.0,
    seal_interval_s: float = 5.0,
    key: str | os.PathLike[str] | None = None,
    on_flush: Callable[[int], None] | None = None,
    anchors: Iterable[Service] = (),
    anchor_at: str | float = "end",
    anchor_wait_s: float = 0.0,
    rank: int | None = None,
    world_size: int | None = None,
    gather: bool = False,
    engine: str | None = None,
) -> Run:
    """Start recording into `PATH.trace` (secrets into `PATH.vault`); use the result as a context.

    `ids` is "keyed" (default: ids say nothing to who has no key) or "public" (anyone can prove presence and
    absence); `config` is anything made of maps, lists, texts, numbers and booleans, and is written into the log, once:
    where a resumed run gives another, a RuntimeWarning says that the log keeps the first;
    `strict` raises where an event cannot be written, instead of recording a gap; `key` is the signing key's file.
    `keep` says which checkpoints are kept: "improved:SHARE" (where the validation loss fell by that share since the
    last one kept), "budget:K" (the K steepest falls), "every:N" or "all".
    With `resume`, an existing trace is repaired and continued, updates counted on from `step` (by default that of
    its last checkpoint). Where the log lacks updates up to `step`, also in a new trace, a `gap` entry and a
    RuntimeWarning say so, and claims about the whole run cannot be told.
    `on_flush(next_seq)` is called after each write to the journal.
    Checkpoints are sealed beside the training, at most once in `seal_interval_s` seconds, and less often where
    a seal takes more than a thousandth of these; the end always is.
    `anchors` are services (`EvmContract`, `TimeStampAuthority`, `Witness`) that the head at the end is brought to. With
    `anchor_at` "epoch", so is one at the beginning of each training pass, which announces its order and has none of its
    batches; with a number, the first one sealed in as many seconds. It is done beside the training, again and again
    where a service does not answer, and what is left at the end `fgtrac anchor --pending` or a resume completes.
    `anchor_wait_s` is how long each pass waits for its receipts, before its first batch.
    `engine` is where data are digested that are registered with none of their own (`Run.register`).

    In a training of several processes every rank calls this, with the same arguments, and all of them write one trace:
    those of an initialised torch.distributed group, or those that say `rank` and `world_size` (`world_size=1` records
    this process alone). The trace lies in a folder that they share; with `gather`, only rank 0 sees it, and the others
    send theirs through the group's store. Rank 0 makes the trace, records model states and scores, and seals
    (docs/distributed.md).

    Raises FileExistsError for an existing trace without `resume`, ValueError or TypeError for unfit arguments; where
    rank 0 cannot begin, or does not, CaptureError in the other ranks.
    """
    if ids not in ("keyed", "public"):
        raise ValueError(f"ids={ids!r} is no id scheme; choose 'keyed' or 'public'")
    if step is not None and step < 0:
        raise ValueError(f"step={step}; updates are counted from 0")
    parse_rule(keep)  # raises for what is none
    if engine is not None:
        check_engine(engine)
    plan = read_plan(anchors, anchor_at, anchor_wait_s)
    options = Options(strict, keep, flush_interval_s, sync_interval_s, seal_interval_s, on_flush, plan, engine)
    folder = _folder(path)
    signing_key = None if key is None else Path(key)
    ranks = find_ranks(folder, rank, world_size, gather=gather)
    if ranks is not None and ranks.rank:
        return join(folder, ranks, options)
    with ranks.beginning() if ranks is not None else nullcontext():
        return _begin(folder, signing_key, options, ranks, config=config, ids=ids, resume=resume, step=step)


def _begin(
    folder: Path,
    signing_key: Path | None,
    options: Options,
    ranks: Ranks | None,
    *,
    config: Mapping[str, Any] | None,
    ids: str,
    resume: bool,
    step: int | None,
) -> Run:
    if folder.exists():
        if not resume:
            raise FileExistsError(f"{folder} exists already; choose another name, or continue it with resume=True")
        return _resume(folder, signing_key, step, options, ranks, config)
    if (vault_path := folder.with_suffix(".vault")).exists():
        raise FileExistsError(f"{vault_path} exists, but its trace does not; move it away, or choose another name")
    unknown = _unknown_updates(0, step or 0, stacklevel=4)
    trace_id = os.urandom(16)
    fields = describe_run(trace_id, ids, config)
    signer = Signer.open(trace_id, signing_key)
    fields["public_key"] = signer.public_key
    trace = TraceDir.create(folder)
    with _held(trace) as held:
        vault = Vault.create(vault_path, trace_id)
        run = Run(trace, vault, signer, held, scheme=ids, first_step=step or 0, options=options, ranks=ranks)
        if ids == "keyed":
            fields["key_commitment"] = key_commitment(vault.secret("run"))
        run._recorder.record("run", fields)
        if unknown:
            run._recorder.record("gap", {"reason": unknown})
        if ranks is not None:
            let_join(run, ranks, resumes=False)
        run._recorder.sync()
        return run


@contextmanager
def _held(trace: TraceDir) -> Iterator[durable.FolderHold]:
    """The hold of a run that begins: it is the run's, unless that cannot begin."""
    held = hold_open(trace)
    try:
        yield held
    except BaseException:
        held.close()
        raise


def _resume(
    folder: Path,
    signing_key: Path | None,
    step: int | None,
    options: Options,
    ranks: Ranks | None,
    config: Mapping[str, Any] | None,
) -> Run:
    """Repair an existing trace, seal what its journal holds, and go on in it with a `resume` entry."""
    trace = TraceDir.open(folder)
    with _held(trace) as held, ExitStack() as stack:
        trace_id = prior.trace_id_of(trace)
        run_entry = prior.run_entry(trace)
        if config is not None and encode(config) != encode(run_entry.get("config", {})):
            words = "this run is resumed with another config, and its log keeps the one that it began with"
            warnings.warn(f"fgtrac: {words}; record in a trace of its own to have both", RuntimeWarning, stacklevel=4)
        signer = prior.signer_of(trace, signing_key)
        vault = Vault.open(trace.vault_path, trace_id, read_only=False)
        stack.enter_context(beginning(trace, signer, wait_s=WAIT_S))
        await_idle(trace.journal)
        tidy.remove_unfinished(trace)
        receiver, silent = take_kept(trace, vault, signer, ranks)
        sequencer.seal(trace, signer, full=False, clock=time.time_ns, wait_s=WAIT_S)
        if receiver is not None:
            receiver.tell_sealed()
        first_step = prior.last_checkpoint_step(trace) if step is None else step
        standing = Standing(trace)
        unknown = _unknown_updates(standing.last_step, first_step, stacklevel=5)
        writers = sorted(sequencer.last_seqs(trace, signer).items())
        ledger = read_ledger(trace)
        ledger.go_back(first_step)
        known = {"scheme": run_entry["id_scheme"], "first_step": first_step, "options": options, "ledger": ledger}
        before, erased = prior.registered_before(trace), prior.erased_before(trace)
        run = Run(trace, vault, signer, held, **known, before=before, erased=erased, ranks=ranks)
        run._next_passes = standing.next_passes(first_step)
        run._recorder.record("resume", {"writers": [list(pair) for pair in writers], "step": first_step})
        # of a rank 0 that another one follows, the entry above tells that it was cut
        lost = [words for n, words in lost_ranks(trace).items() if n or ranks is None]
        for reason in [*([unknown] if unknown else []), *silent, *lost]:
            run._recorder.record("gap", {"reason": reason})
        if ranks is not None:
            let_join(run, ranks, resumes=True, receiver=receiver)
        run._recorder.sync()
        run._anchors.take_up()
        return run


def _unknown_updates(known: int, step: int, *, stacklevel: int) -> str:
    """What to say where training goes on from a step that the log does not reach, and to the caller at once; else
    nothing. The model may have been trained on anything in between."""
    if step <= known:
        return ""
    words = f"training goes on from step {step}, and the log has no updates after step {known}"
    remedy = f"go on from step {known} or before, or record in a trace of its own from the beginning"
    warnings.warn(f"fgtrac: {words}; {remedy}", RuntimeWarning, stacklevel=stacklevel)
    return words


def reopen(path: str | os.PathLike[str], *, key: str | os.PathLike[str] | None = None, strict: bool = False) -> Run:
    """Open a recorded trace to add scores and predictions, also after its end; use the result as a context.

    There is no training in it: `watch` and `checkpoint` are refused. Data sets and stages are given as they were
    recorded, under the same names; they are looked up in the log and not recorded again (ValueError where the log has
    them not). `key` is the signing key's file. The exit seals what was added.

    Raises FileNotFoundError or FormatError where there is no trace, CaptureError where it is being recorded now.
    """
    trace = TraceDir.open(_folder(path))
    with _held(trace) as held:
        vault, entry = Vault.open(trace.vault_path, prior.trace_id_of(trace)), prior.run_entry(trace)
        signer = take_up(trace, None if key is None else Path(key))
        step, ledger = prior.last_checkpoint_step(trace), read_ledger(trace)
        known = {"scheme": entry["id_scheme"], "first_step": step, "options": Options(strict=strict), "ledger": ledger}
        before, erased = prior.registered_before(trace), prior.erased_before(trace)
        return Run(trace, vault, signer, held, **known, before=before, erased=erased, trains=False)


def _folder(path: str | os.PathLike[str]) -> Path:
    base = Path(path)
    return base if base.suffix == ".trace" else base.with_name(base.name + ".trace")
