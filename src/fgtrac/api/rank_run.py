"""The recording of one rank of a training that is not rank 0: it writes its own journal, and rank 0 seals the trace."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import torch

from fgtrac.anchor.anchored import Anchored
from fgtrac.api import prior
from fgtrac.api.adding import hold_open
from fgtrac.api.gathered import Receiver, SentJournal, SentVault
from fgtrac.api.kept import Kept
from fgtrac.api.ranks import Began, Ranks
from fgtrac.api.recording import Options, Run
from fgtrac.commit.signer import Signer, SignerElsewhere
from fgtrac.errors import CaptureError, FormatError
from fgtrac.store.journal import is_writing
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault

BUSY_S = 60.0  # that rank 0 may hold the vault at a stretch, as it writes the names of many samples
SEEN_S = 10.0  # in which rank 0's hold on the trace must show
Result = TypeVar("Result")


class RankRun(Run):
    """Records what this rank trains on. Model states, scores, modality weights and anchors are rank 0's: the verbs for
    them do nothing here, so that every rank can run the same script."""

    def checkpoint(self, *args: Any, **options: Any) -> bool:
        """Have what this rank trained on so far on disk; rank 0 records the model's state. False: none is kept here."""
        self._check_training("checkpoint()")
        self._orders.keep()
        self._recorder.sync()
        return False

    def anchor(self, wait_s: float = 10.0) -> tuple[Anchored, ...]:
        """Rank 0 anchors: ()."""
        return ()

    def score_with(self, **options: Any) -> None:
        """Rank 0 scores."""

    def score(self, model: torch.nn.Module, **options: Any) -> None:
        """Rank 0 scores."""

    def attention(self, data: Any, weights: torch.Tensor, *args: Any, **options: Any) -> None:
        """Rank 0 records modality weights."""

    def attention_with(self, **options: Any) -> None:
        """Rank 0 records modality weights."""

    def close(self, *, finished: bool = True) -> None:
        """As of any run; where the loop has failed, its error stands, and what cannot be written is a warning."""
        try:
            super().close(finished=finished)
        except (CaptureError, OSError) as error:
            if finished:
                raise
            warnings.warn(f"fgtrac: {error}", RuntimeWarning, stacklevel=3)

    def _finish(self, last: ExitStack, finished: bool) -> None:
        assert self._ranks is not None
        last.callback(self._recorder.close)
        self._grounding.close()
        self._orders.keep(last=True)
        self._recorder.flush()
        _writer, number = self._recorder.record("leave", {})
        self._recorder.sync()
        self._ranks.tell_left(number + 1, finished=finished)
        if isinstance(self._held, Kept):
            self._held.finished = finished


def take_kept(trace: TraceDir, vault: Vault, signer: Signer, ranks: Ranks | None) -> tuple[Receiver | None, list[str]]:
    """Before a training goes on whose ranks have no common folder: take what they kept. Who receives what they send
    from then on, and what is said in the log of those that were silent."""
    if ranks is None or not ranks.gathers:
        return None, []
    receiver = Receiver(ranks, trace, vault, signer)
    return receiver, receiver.take_kept()


def let_join(run: Run, ranks: Ranks, *, resumes: bool, receiver: Receiver | None = None) -> None:
    """Rank 0 has begun: say that it is one of several, and let the others join."""
    began, scheme, step = (run._recorder.writer, 0), run._registry.scheme, run._grounding.first_step
    run._recorder.record("join", {"rank": 0, "ranks": ranks.count, "step": step, "began": list(began)})
    run._recorder.sync()
    secret = b""
    if ranks.gathers:
        if receiver is None:
            ranks.ask_kept(b"")
            receiver = Receiver(ranks, run._trace, run._vault, run._signer)
        keep = run._orders.keep
        run._sealer.prepare, run._sealer.sealed = _both(receiver.rotate, keep), receiver.tell_sealed
        run._recorder.beside = _both(_careful(receiver.take, run), keep)
        secret = run._vault.secret("run") if scheme == "keyed" else b""
    passes = tuple(run._next_passes.items())
    signer = run._signer
    signed = signer.trace_id, began, scheme, step, signer.public_key
    ranks.tell_began(Began(*signed, resumes, passes, secret, signer.public_keys))


def _careful(take: Callable[[], None], run: Run) -> Callable[[], None]:
    def careful() -> None:
        try:
            take()
        except OSError as error:
            run._recorder.lose("what another rank sent could not be written", error)

    return careful


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def both() -> None:
        first()
        second()

    return both


def join(folder: Path, ranks: Ranks, options: Options) -> RankRun:
    """Record as one rank into the trace that rank 0 records. CaptureError where it records another one, or where its
    hold on the folder does not show here."""
    if ranks.gathers:
        return _join_afar(folder, ranks, options)
    began = ranks.hear_began(lambda it: ranks.is_grouped or _is_recorded(folder, it))
    trace = _shared(folder, began, ranks)
    ranks.take_place()
    held = hold_open(trace)
    try:
        vault = _patiently(lambda: Vault.open(trace.vault_path, began.trace_id, read_only=False))
        return _joined(_run(trace, vault, began, ranks, options, held, None), began, ranks)
    except BaseException:
        held.close()
        raise


def _join_afar(folder: Path, ranks: Ranks, options: Options) -> RankRun:
    """Where rank 0's folder is another host's: first send what this host has kept of an interrupted training."""
    trace_id = ranks.hear_kept()
    before = Kept(ranks, folder, trace_id)
    if trace_id:
        before.send_from_before()
    began = ranks.hear_began(lambda _: True)
    ranks.take_place()
    kept = before if trace_id else Kept(ranks, folder, began.trace_id)
    kept.strict = options.strict
    vault = SentVault(kept, began.secret)

    def journal(writer: bytes) -> SentJournal:
        kept.begin(writer, began.keys)
        return SentJournal(kept, writer)

    run = _run(TraceDir(folder), vault, began, ranks, options, kept, journal)
    run._orders.put_file = functools.partial(kept.send_parcel, "file")
    return _joined(run, began, ranks)


def _run(
    trace: TraceDir, vault: Vault, began: Began, ranks: Ranks, options: Options, held: Any, journal: Any
) -> RankRun:
    known: dict[str, Any] = {"scheme": began.scheme, "first_step": began.step, "options": options}
    if began.resumes and not ranks.gathers:
        known |= {"before": prior.registered_before(trace), "erased": prior.erased_before(trace)}
    signer = SignerElsewhere(began.trace_id, began.public_key)
    run = RankRun(trace, vault, signer, held, **known, ranks=ranks, journal=journal)
    run._next_passes = dict(began.next_passes)
    return run


def _joined(run: RankRun, began: Began, ranks: Ranks) -> RankRun:
    ranks.tell_joined()
    said = {"rank": ranks.rank, "ranks": ranks.count, "step": began.step, "began": list(began.entry)}
    run._recorder.record("join", said)
    run._recorder.sync()
    return run


def _is_recorded(folder: Path, began: Began) -> bool:
    """Whether this is what rank 0 records into the folder now, and not what an earlier run has left."""
    return is_writing(folder / "journal", began.entry[0])


def _shared(folder: Path, began: Began, ranks: Ranks) -> TraceDir:
    """The trace in the common folder, once rank 0 is seen to hold it."""
    who = f"rank {ranks.rank} of {ranks.count}"
    try:
        trace = TraceDir.open(folder)
        found = prior.trace_id_of(trace)
    except (FileNotFoundError, FormatError) as error:
        raise CaptureError(
            f"{who} does not see the trace that rank 0 records: {error}; give every rank the same path in a folder "
            "that they share, or gather=True"
        ) from error
    if found != began.trace_id:
        raise CaptureError(
            f"{who} was given {folder}, which is trace {found.hex()}, and rank 0 records {began.trace_id.hex()}; give "
            "every rank the same path, or world_size=1 to record one process alone"
        )
    deadline = time.monotonic() + SEEN_S
    while not _is_recorded(folder, began):
        if time.monotonic() >= deadline:
            raise CaptureError(
                f"{who} does not see that rank 0 holds {folder}: it has ended, or locks (flock) do not reach from one "
                "machine to the other in this file system; then use gather=True"
            )
        time.sleep(0.05)
    return trace


def _patiently(ask: Callable[[], Result]) -> Result:
    """What the vault answers, once nobody holds it."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            return ask()
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)
