"""Recording: the verbs of a run. Loop, batches and random state stay as they are."""

from __future__ import annotations

import atexit
import functools
import itertools
import math
import operator
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol
from weakref import WeakSet

import numpy as np
import torch

from fgtrac.anchor.anchored import Anchored
from fgtrac.api import prior
from fgtrac.api.anchored_run import NO_ANCHORS, AnchorPlan, RunAnchors
from fgtrac.api.attention import Attending
from fgtrac.api.checkpoints import Checkpoints
from fgtrac.api.contributing import Contributing
from fgtrac.api.cost import say, shown_naming
from fgtrac.api.fitting import Fitting
from fgtrac.api.ledger import Ledger
from fgtrac.api.orders import Orders
from fgtrac.api.predictions import record_predictions
from fgtrac.api.ranks import Ranks
from fgtrac.api.run_seals import RunSeals
from fgtrac.capture.batch import Batch
from fgtrac.capture.blocks import room_in
from fgtrac.capture.checkpoint import Model
from fgtrac.capture.lineage import Lineage
from fgtrac.capture.loader import look_for_strangers
from fgtrac.capture.recorder import Journal, Recorder
from fgtrac.capture.returned import Returned
from fgtrac.capture.sources import Registry
from fgtrac.capture.stages import stage_over
from fgtrac.capture.step import Grounding
from fgtrac.capture.watches import unwatch
from fgtrac.commit import sequencer
from fgtrac.commit.signer import Signer
from fgtrac.commit.state import sealed_writers
from fgtrac.errors import CaptureError, FgtracError
from fgtrac.events.schema import ATTRIBUTION
from fgtrac.store.journal import JournalWriter
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from fgtrac.tlog.note import format_vkey
from fgtrac.verify.erasures import Erased

AMONG = ATTRIBUTION["among"]


@dataclass(frozen=True, slots=True)
class Options:
    """How a run records: see `start_run`."""

    strict: bool = False
    keep: str = "improved:0.01"
    flush_interval_s: float = 1.0
    sync_interval_s: float = 5.0
    seal_interval_s: float = 5.0
    on_flush: Callable[[int], None] | None = None
    anchors: AnchorPlan = NO_ANCHORS
    engine: str | None = None


class Held(Protocol):
    """What a run has of its folder as long as it is open."""

    def close(self) -> None: ...


class Run(Fitting, Attending, Contributing):
    """One process's recording of one training run; made by `start_run`, used as a context.

    A clean exit writes `end` and makes a full seal; an exception makes a full seal without `end`.
    """

    def __init__(
        self,
        trace: TraceDir,
        vault: Vault,
        signer: Signer,
        held: Held,
        *,
        scheme: str,
        first_step: int,
        options: Options,
        before: Mapping[str, tuple[bytes, bytes | None]] | None = None,
        erased: Erased | None = None,
        ledger: Ledger | None = None,
        trains: bool = True,
        ranks: Ranks | None = None,
        journal: Callable[[bytes], Journal] | None = None,
    ) -> None:
        self.path = trace.path
        self._trace = trace
        self._vault = vault
        self._signer = signer
        self._held = held
        writer = os.urandom(16)
        self._ranks = ranks
        self._recorder = Recorder(
            journal(writer) if journal else JournalWriter(trace.journal, writer, stays=trains),
            writer,
            strict=options.strict,
            flush_interval_s=options.flush_interval_s,
            sync_interval_s=options.sync_interval_s,
            on_flush=options.on_flush,
        )
        self._ledger = ledger if ledger is not None else Ledger()
        secrets = vault.secret if trains else functools.partial(prior.known_secret, vault)
        returned = Returned(erased or Erased(), vault.find_secret, str(trace.path))
        self._registry = Registry(
            self._recorder, scheme, secrets, vault, before, returned,
            adds=trains, room=room_in(trace.path), progress=shown_naming, engine=options.engine,
        )  # fmt: skip
        self._recorder.take = self._settled
        self._grounding = Grounding(self._recorder.settle, self._say_undecided, first_step=first_step)
        if trains:
            look_for_strangers(self._grounding)
        self._trains = trains
        self._checkpoints = Checkpoints(trace, self._recorder, self._ledger, options.keep)
        self._orders = Orders(trace, vault, self._recorder, self._ledger)
        self._recorder.beside = self._orders.keep
        if ranks is not None:
            ranks.begin_writing(writer, trace.journal, self._recorder.hand_over)
            self._recorder.is_said = ranks.is_said
            self._registry.turns = ranks.turn
        self._anchors = RunAnchors(trace, signer, options.anchors)
        self._recorder.beside_cpu_s = lambda: self._anchors.cpu_s
        self._sealer = RunSeals(trace, signer, self._recorder, self._orders, self._anchors, options.seal_interval_s)
        if not trains:
            self._grounding.close()
            self._checkpoints.last = self._ledger.newest
        self._watches = {}
        self._loader_numbers = itertools.count(1)
        self._declared = {}
        self._declared_step = first_step
        self._loaders = WeakSet()
        self._full_batches = {}
        self._said_undecided: frozenset[str] = frozenset()
        self._strict = options.strict
        self._pid = os.getpid()
        self._open = True
        atexit.register(self._interrupted)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(finished=kind is None)

    @property
    def vkey(self) -> str:
        """The C2SP verifier key of this run's log, as `fgtrac show --vkey` prints it: what a witness's owner adds."""
        return format_vkey(self._signer.verifier)

    # -- samples ------------------------------------------------------------------------------------------------

    def transform(self, stage: str, data: Any, parameters: dict[str, Any] | None = None) -> Any:
        """A preprocessing stage over `data`: call `.filter`, `.map`, `.deduplicate`, `.split` or `.record` on it. Over
        pandas, polars and pyarrow tables, and a Dataset or DatasetDict of `datasets`, its verbs are those of
        docs/lineage.md.
        """
        return stage_over(Lineage(self._recorder, self._registry, stage, parameters), data)

    # -- training -----------------------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """Applied updates so far of the optimizer that stepped last, or that were declared, whichever are more."""
        return max(self._grounding.step, self._declared_step)

    def stepped(self, parameters: Iterable[torch.Tensor] | None = None) -> None:
        """Say that an update was just made by other means than a `torch.optim.Optimizer`: by hand, or by an engine.

            loss.backward()
            with torch.no_grad():
                for weight in model.parameters():
                    weight -= 0.1 * weight.grad
            run.stepped()
            model.zero_grad()

        What contributed to the gradients since the update before is recorded as applied, by an optimizer of its own.
        `parameters` are those that were updated, by default all that no such optimizer has stepped; say them where
        several models are trained. Without this, what is changed by hand is a `gap` and a RuntimeWarning.
        """
        self._check_training("stepped()")
        self._grounding.stepped(parameters)

    def losses(self, values: torch.Tensor) -> None:
        """Record the loss of each sample of the batch now being trained on; call it before the optimizer's step.

        `values` is (n,) with n the batch's size; kept as float16. ValueError for another length.
        """
        self._check_training("losses()")
        batches = self._grounding.current
        if any(batch.is_unnamed for batch in batches):
            return  # nobody can tell whose they are, which has been said
        n = sum(len(b.positions) for b in batches)
        flat = values.detach().reshape(-1).to(torch.float16).cpu().numpy()
        if len(flat) != n:
            raise ValueError(f"losses() got {len(flat)} values for a batch of {n} samples; pass one loss for each")
        start = 0
        for batch in batches:
            batch.losses = flat[start : start + len(batch.positions)]
            start += len(batch.positions)

    def log(self, step: int | None = None, **values: float) -> None:
        """Record metrics of this step (by default the current one).

        NaN and infinity have no place in an entry: they are left out, and a RuntimeWarning names them.
        """
        read = {k: int(v) if isinstance(v, int | np.integer) else float(v) for k, v in values.items()}
        finite = {k: v for k, v in read.items() if isinstance(v, int) or math.isfinite(v)}
        if finite or not read:
            at = self.step if step is None else operator.index(step)
            self._recorder.record("metrics", {"step": at, "values": finite})
        if len(finite) < len(read):
            names = ", ".join(f"{k}={v}" for k, v in read.items() if k not in finite)
            warnings.warn(f"fgtrac: log() left out {names}; only finite numbers are kept", RuntimeWarning, stacklevel=2)

    def checkpoint(
        self,
        model: Model,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        val_loss: Any = None,
        epoch: int | None = None,
    ) -> bool:
        """Record the model's state; keep it where the rule `keep` of `start_run` says so. Returns whether it was kept.

        Everything that this state rests on is on disk before it; the log is sealed behind it, beside the
        training and no more often than `start_run` says. `model` is a module, or named arrays in maps, as JAX has them.
        `optimizer` gives the learning rates where none has stepped under trace yet.
        """
        self._check_training("checkpoint()")
        self._sealer.check()
        rates = self._grounding.learning_rates
        if not rates and optimizer is not None:
            rates = tuple(float(group["lr"]) for group in optimizer.param_groups)
        module, scoring = model if isinstance(model, torch.nn.Module) else None, self._scoring
        if module is None and (scoring is not None or self._attended is not None):
            raise TypeError(
                "score_with() and attention_with() need a torch module at each checkpoint, not named arrays"
            )
        remark = "" if scoring is None or module is None else scoring.before_checkpoint(module, optimizer, rates)
        if scoring is not None:
            rates += tuple(rate for rate in scoring.rates if rate not in rates)  # of an optimizer that stepped earlier
        weights = None if module is None else self._attend(module, val_loss)
        state = self._checkpoints.record(model, self.step, val_loss, epoch, rates, remark)
        if state is not None and weights is not None:
            self._tell_attended(state, weights)
        self._recorder.flush()
        self._sealer.ask()
        if state is not None and scoring is not None and module is not None:
            scoring.at_checkpoint(module, state)
        return state is not None

    def anchor(self, wait_s: float = 10.0) -> tuple[Anchored, ...]:
        """Seal now, and bring that head to the services of `start_run`: what has become of it within `wait_s` seconds,
        service by service; what has no receipt by then goes on beside the training. ValueError where there are none,
        and for a time that is none."""
        self._recorder.check_open()
        return self._sealer.anchor(wait_s)

    def predictions(
        self,
        data: Any,
        outputs: torch.Tensor,
        *,
        losses: torch.Tensor | None = None,
        positions: Sequence[int] | None = None,
    ) -> None:
        """Record what the model said about samples, at the last checkpoint (or the current step).

        `outputs` is (n, m) or (n,), row i about position i of `data`, or about `positions[i]`; `losses` is (n,).
        ValueError for lengths that do not fit, and for positions that `data` does not have.
        """
        at = self._checkpoints.last
        said: dict[str, Any] = {"step": self.step} | ({} if at is None else {"checkpoint": list(at)})
        record_predictions(self._recorder, self._registry.resolve(data), said, outputs, losses, positions)

    def close(self, *, finished: bool = True) -> None:
        """Settle and seal everything; with `finished`, say first that the run is complete. Idempotent."""
        if not self._open or os.getpid() != self._pid:
            return
        self._open = False
        if self.scoring_cost is not None and self.scoring_cost.checkpoints:
            say(f"scored checkpoints took {self.scoring_cost.measurement}")
        atexit.unregister(self._interrupted)
        for watch, _placement in self._watches.values():
            unwatch(watch)
        with ExitStack() as last:  # whatever fails on the way, all of these are done, from the last to the first
            last.callback(self._held.close)
            last.callback(self._vault.close)
            self._finish(last, finished)

    def _finish(self, last: ExitStack, finished: bool) -> None:
        """Write and seal what is left; `last` closes whatever is open, also where this fails."""
        if self._ranks is not None:
            last.callback(self._ranks.await_closed)
        last.callback(self._anchors.close)
        last.callback(self._sealer.last)
        last.callback(self._recorder.close)
        self._grounding.close()
        self._orders.keep(last=True)
        self._sealer.finish()
        self._recorder.flush()
        left = []
        if self._ranks is not None:
            left = self._ranks.await_others(
                self._recorder, self._trace.journal, self._sealer.prepare, finished=finished
            )
            self._sealer.now()
            left += self._ranks.say_lacking(self._recorder, sealed_writers(self._trace, self._signer))
        if finished and self._trains and not (self._ranks is not None and self._ranks.has_failed):
            writers = sequencer.last_seqs(self._trace, self._signer)
            if self._ranks is not None:  # what a rank may still write is behind the end, and not in the last seal
                self._sealer.until = sealed_writers(self._trace, self._signer)
                self._sealer.until.pop(self._recorder.writer, None)
                writers = {w: stop - 1 for w, stop in self._sealer.until.items()}
            writers[self._recorder.writer] = self._recorder.next_seq - 1
            self._recorder.record("end", {"writers": [list(pair) for pair in sorted(writers.items())]})
        if left:
            warnings.warn(f"fgtrac: {'; '.join(left)}", RuntimeWarning, stacklevel=4)

    def _interrupted(self) -> None:
        if self._open and os.getpid() == self._pid:
            how = "sealing it without an end" if self._trains else "sealing it"
            print(f"fgtrac: {self.path} was not closed; {how}", file=sys.stderr)
            try:
                self.close(finished=False)
            except (FgtracError, OSError, ValueError) as error:  # nobody is left to catch it
                print(f"fgtrac: {self.path} could not be sealed: {error}; then run fgtrac seal", file=sys.stderr)

    def _check_training(self, verb: str) -> None:
        """ValueError in a trace that was opened again for scores and predictions, CaptureError in a closed run."""
        self._recorder.check_open()
        if not self._trains:
            raise ValueError(
                f"{verb} belongs to training, and this trace was reopened for scores and predictions; "
                "continue the training with start_run(..., resume=True)"
            )

    def _say_undecided(self, reason: str, remedy: str | None = None) -> None:
        """An update may have been made of other data than it was given to: say so, the first time, since nobody can
        tell any more who was never used. Where there is a remedy, warn of it (in a strict run CaptureError)."""
        if remedy is not None and self._strict:
            raise CaptureError(f"{reason}; {remedy}")
        if reason not in self._said_undecided and (remedy is not None or not self._said_undecided):
            self._said_undecided |= {reason}
            self._recorder.record("gap", {"reason": reason})
            if remedy is not None:
                warnings.warn(f"fgtrac: {reason}; {remedy}", RuntimeWarning, stacklevel=3)

    def _settled(self, batch: Batch, optimizer: int, step: int, status: int, attribution: int, losses: Any) -> None:
        if os.getpid() != self._pid:
            return  # a forked child's copy of the hooks: what it trains is not this process's run
        if batch.is_doubtful:
            self._say_undecided("updates were given to batches by their order, and some are left")
        if batch.is_unnamed:
            return
        iteration = batch.iteration
        placement = self._watches[iteration.loader][1]
        row = (iteration.epoch, batch.number, step, status, AMONG if batch.is_at_most else attribution)
        self._recorder.use(placement, iteration.loader, optimizer, row, batch.positions, losses, batch.hops)
