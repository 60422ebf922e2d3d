"""Recording: `start_run` and the verbs of a run. Loop, batches and random state stay as they are."""

from __future__ import annotations

import atexit
import functools
import math
import operator
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch.utils.data import DataLoader

from fgtrac.api import prior
from fgtrac.api.checkpoints import Checkpoints
from fgtrac.api.environment import describe_run
from fgtrac.api.ledger import Ledger, read_ledger
from fgtrac.api.predictions import record_predictions
from fgtrac.api.scoring import Scoring
from fgtrac.capture.batch import Batch
from fgtrac.capture.loader import Watch, unwatch, watch_loader
from fgtrac.capture.recorder import Placement, Recorder
from fgtrac.capture.sources import Keys, Registry
from fgtrac.capture.step import Grounding
from fgtrac.capture.transform import Stage
from fgtrac.commit import sequencer, tidy
from fgtrac.commit.background import BackgroundSealer
from fgtrac.commit.signer import Signer
from fgtrac.errors import CaptureError, ProofError
from fgtrac.events.identity import key_commitment
from fgtrac.score.select import parse_rule
from fgtrac.store.journal import JournalWriter
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault

WAIT_S = 60.0  # at the end and at a resume, for somebody else's seal


@dataclass(frozen=True, slots=True)
class Options:
    """How a run records: see `start_run`."""

    strict: bool = False
    keep: str = "improved:0.01"
    flush_interval_s: float = 1.0
    sync_interval_s: float = 5.0
    seal_interval_s: float = 5.0
    on_flush: Callable[[int], None] | None = None


class Run:
    """One process's recording of one training run; made by `start_run`, used as a context.

    A clean exit writes `end` and makes a full seal; an exception makes a full seal without `end`.
    """

    def __init__(
        self,
        trace: TraceDir,
        vault: Vault,
        signer: Signer,
        *,
        scheme: str,
        first_step: int,
        options: Options,
        before: Mapping[str, tuple[bytes, bytes | None]] | None = None,
        ledger: Ledger | None = None,
        trains: bool = True,
    ) -> None:
        self.path = trace.path
        self._trace = trace
        self._vault = vault
        self._signer = signer
        writer = os.urandom(16)
        self._recorder = Recorder(
            JournalWriter(trace.journal, writer),
            writer,
            strict=options.strict,
            flush_interval_s=options.flush_interval_s,
            sync_interval_s=options.sync_interval_s,
            on_flush=options.on_flush,
        )
        self._sealer = BackgroundSealer(self._seal_here, options.seal_interval_s)
        self._ledger = ledger if ledger is not None else Ledger()
        secrets = vault.secret if trains else functools.partial(prior.known_secret, vault)
        self._registry = Registry(self._recorder, scheme, secrets, vault.put_names, before, adds=trains)
        self._grounding = Grounding(self._settled, first_step=first_step)
        self._trains = trains
        if not trains:
            self._grounding.close()
        self._checkpoints = Checkpoints(trace, self._recorder, self._ledger, options.keep)
        self._watches: dict[int, tuple[Watch, Placement]] = {}
        self._loaders: WeakSet[DataLoader[Any]] = WeakSet()
        self._scoring: Scoring | None = None
        self._pid = os.getpid()
        self._open = True
        atexit.register(self._interrupted)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(finished=kind is None)

    # -- samples ------------------------------------------------------------------------------------------------

    def register(
        self,
        data: Any,
        *,
        role: str | None = None,
        name: str | None = None,
        key: Keys = None,
        subject: Keys = None,
        content: bool = True,
        source: Callable[[int], bytes] | None = None,
    ) -> None:
        """Register the samples of the data set(s) behind `data`, and their role.

        `name` names the root data set (by default its type); `key` and `subject` are a function of the row, a
        column's name or a sequence; `source(row)` gives the bytes that a content digest is taken from where fgtrac
        does not know them; `content=False` takes none. Registering the same data set again adds the role only.
        Raises ValueError for a taken name, keys that collide, or options for a data set that is registered already.
        """
        options: dict[str, Any] = {"name": name, "key": key, "subject": subject, "source": source}
        given = [k for k, v in options.items() if v is not None]
        roots = self._registry.roots_of(data)
        new = [r for r in roots if not self._registry.is_registered(r)]
        if given and (len(roots) != 1 or not new):
            what = "is registered already" if not new else f"is made of {len(roots)} data sets"
            raise ValueError(f"{', '.join(given)}= was given, but this data set {what}; register each root once, first")
        for root in new:
            self._registry.register_root(root, content=content, **options)
        if role is not None:
            self._registry.record_role(self._registry.resolve(data), role)

    def watch(self, loader: DataLoader[Any], role: str | None = None) -> DataLoader[Any]:
        """Watch a DataLoader over a map-style data set: every batch that it delivers is accounted for.

        Registers the data set behind it if that has not been done, and its role. Without a role here, the roles
        registered for its samples tell whether it trains. Returns the same loader.
        Raises TypeError for what is no DataLoader, CaptureError where this torch is not known.
        """
        self._check_training("watch()")
        if not isinstance(loader, DataLoader):
            raise TypeError(f"watch() takes a torch DataLoader, not {type(loader).__name__}; pass the loader itself")
        if loader._dataset_kind != 0:
            raise CaptureError("this loader's data set is iterable-style, without row numbers; make it map-style")
        self.register(loader.dataset, role=role)
        if loader in self._loaders:
            return loader  # watched already: the role is added, and the batches are not counted twice
        self._loaders.add(loader)
        resolved = self._registry.resolve(loader.dataset)
        placement = resolved.placement
        trains = self._registry.may_train(resolved) if role is None else role == "train"
        watch = Watch(self._grounding, len(self._watches) + 1, len(placement.ordinals), trains)
        watch_loader(loader, watch)
        self._watches[watch.number] = (watch, placement)
        return loader

    def transform(self, stage: str, data: Any, parameters: dict[str, Any] | None = None) -> Stage:
        """A preprocessing stage over `data`: call `.filter`, `.map`, `.deduplicate`, `.split` or `.record` on it."""
        return Stage(self._recorder, self._registry, stage, data, parameters)

    # -- training -----------------------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """Applied updates so far of the optimizer that stepped last."""
        return self._grounding.step

    def losses(self, values: torch.Tensor) -> None:
        """Record the loss of each sample of the batch now being trained on; call it before the optimizer's step.

        `values` is (n,) with n the batch's size; kept as float16. ValueError for another length.
        """
        self._check_training("losses()")
        batches = self._grounding.current
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
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        val_loss: Any = None,
        epoch: int | None = None,
    ) -> bool:
        """Record the model's state; keep it where the rule `keep` of `start_run` says so. Returns whether it was kept.

        Everything that this state rests on is on disk before it; the log is sealed behind it, beside the
        training and at most once in `seal_interval_s`.
        `optimizer` gives the learning rates where none has stepped under trace yet.
        """
        self._check_training("checkpoint()")
        self._heed(self._sealer.check)
        rates = self._grounding.learning_rates
        if not rates and optimizer is not None:
            rates = tuple(float(group["lr"]) for group in optimizer.param_groups)
        remark = self._scoring.remark() if self._scoring is not None else ""
        state = self._checkpoints.record(model, self.step, val_loss, epoch, rates, remark)
        self._recorder.flush()
        self._sealer.ask()
        if state is not None and self._scoring is not None:
            self._scoring.at_checkpoint(model, optimizer, state)
        return state is not None

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

    # -- ending -------------------------------------------------------------------------------------------------

    def close(self, *, finished: bool = True) -> None:
        """Settle and seal everything; with `finished`, say first that the run is complete. Idempotent."""
        if not self._open or os.getpid() != self._pid:
            return
        self._open = False
        atexit.unregister(self._interrupted)
        for watch, _placement in self._watches.values():
            unwatch(watch)
        with ExitStack() as last:  # whatever fails on the way, all of these are done, from the last to the first
            last.callback(self._vault.close)
            last.callback(self._seal_last)
            last.callback(self._recorder.close)
            self._grounding.close()
            self._heed(self._sealer.finish)
            self._recorder.flush()
            if finished and self._trains:
                writers = {
                    **sequencer.last_seqs(self._trace, self._signer),
                    self._recorder.writer: self._recorder.next_seq - 1,
                }
                self._recorder.record("end", {"writers": [list(pair) for pair in sorted(writers.items())]})

    def _interrupted(self) -> None:
        if self._open and os.getpid() == self._pid:
            how = "sealing it without an end" if self._trains else "sealing it"
            print(f"fgtrac: {self.path} was not closed; {how}", file=sys.stderr)
            self.close(finished=False)

    # -- inside -------------------------------------------------------------------------------------------------

    def _check_training(self, verb: str) -> None:
        """ValueError in a trace that was opened again for scores and predictions."""
        if not self._trains:
            raise ValueError(
                f"{verb} belongs to training, and this trace was reopened for scores and predictions; "
                "continue the training with start_run(..., resume=True)"
            )

    def _seal_here(self) -> None:
        """A plain seal of everything recorded so far; runs beside the training thread."""
        self._recorder.rotate()
        sequencer.seal(self._trace, self._signer, full=False, clock=time.time_ns)

    def _heed(self, ask_sealer: Callable[[], None]) -> None:
        """Say so where the seal of a checkpoint failed."""
        try:
            ask_sealer()
        except BlockingIOError:
            if self._open:  # somebody else is sealing this trace: nothing is lost, and the next seal takes it all
                self._sealer.ask()
        except OSError as error:
            self._recorder.lose("the log could not be sealed at a checkpoint", error)

    def _seal_last(self) -> None:
        """The full seal at the end; where registrations were lost, a plain one, and the error that names the entry."""
        try:
            sequencer.seal(self._trace, self._signer, full=True, clock=time.time_ns, wait_s=WAIT_S)
        except ProofError:
            sequencer.seal(self._trace, self._signer, full=False, clock=time.time_ns, wait_s=WAIT_S)
            raise

    def _settled(self, batch: Batch, optimizer: int, step: int, status: int, attribution: int) -> None:
        if os.getpid() != self._pid:
            return  # a forked child's copy of the hooks: what it trains is not this process's run
        iteration = batch.iteration
        placement = self._watches[iteration.loader][1]
        row = (iteration.epoch, batch.number, step, status, attribution)
        self._recorder.use(placement, iteration.loader, optimizer, row, batch.positions, batch.losses)


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
) -> Run:
    """Start recording into `PATH.trace` (secrets into `PATH.vault`); use the result as a context.

    `ids` is "keyed" (default: ids say nothing to who has no key) or "public" (anyone can prove presence and
    absence); `config` is anything made of maps, lists, texts, numbers and booleans, and is written into the log;
    `strict` raises where an event cannot be written, instead of recording a gap; `key` is the signing key's file.
    `keep` says which checkpoints are kept: "improved:SHARE" (where the validation loss fell by that share since the
    last one kept), "budget:K" (the K steepest falls), "every:N" or "all".
    With `resume`, an existing trace is repaired and continued, updates counted on from `step` (by default that of
    its last checkpoint). `on_flush(next_seq)` is called after each write to the journal.
    Checkpoints are sealed beside the training, at most once in `seal_interval_s` seconds; the end always is.

    Raises FileExistsError for an existing trace without `resume`, ValueError for unfit arguments.
    """
    if ids not in ("keyed", "public"):
        raise ValueError(f"ids={ids!r} is no id scheme; choose 'keyed' or 'public'")
    if step is not None and step < 0:
        raise ValueError(f"step={step}; updates are counted from 0")
    parse_rule(keep)  # raises for what is none
    options = Options(strict, keep, flush_interval_s, sync_interval_s, seal_interval_s, on_flush)
    base = Path(path)
    folder = base if base.suffix == ".trace" else base.with_name(base.name + ".trace")
    signing_key = None if key is None else Path(key)
    if folder.exists():
        if not resume:
            raise FileExistsError(f"{folder} exists already; choose another name, or continue it with resume=True")
        return _resume(folder, signing_key, step, options)
    if (vault_path := folder.with_suffix(".vault")).exists():
        raise FileExistsError(f"{vault_path} exists, but its trace does not; move it away, or choose another name")
    trace_id = os.urandom(16)
    fields = describe_run(trace_id, ids, config)
    signer = Signer.open(trace_id, signing_key)
    fields["public_key"] = signer.public_key
    trace = TraceDir.create(folder)
    vault = Vault.create(vault_path, trace_id)
    run = Run(trace, vault, signer, scheme=ids, first_step=step or 0, options=options)
    if ids == "keyed":
        fields["key_commitment"] = key_commitment(vault.secret("run"))
    run._recorder.record("run", fields)
    run._recorder.sync()
    return run


def _resume(folder: Path, signing_key: Path | None, step: int | None, options: Options) -> Run:
    """Repair an existing trace, seal what its journal holds, and go on in it with a `resume` entry."""
    trace = TraceDir.open(folder)
    trace_id = prior.trace_id_of(trace)
    run_entry = prior.run_entry(trace)
    signer = Signer.of(trace_id, run_entry["public_key"], signing_key)
    vault = Vault.open(trace.vault_path, trace_id, read_only=False)
    tidy.remove_unfinished_artifacts(trace)
    sequencer.seal(trace, signer, full=False, clock=time.time_ns, wait_s=WAIT_S)
    scheme = run_entry["id_scheme"]
    first_step = prior.last_checkpoint_step(trace) if step is None else step
    writers = sorted(sequencer.last_seqs(trace, signer).items())
    before, ledger = prior.registered_before(trace), read_ledger(trace)
    ledger.go_back(first_step)
    run = Run(trace, vault, signer, scheme=scheme, first_step=first_step, options=options, before=before, ledger=ledger)
    run._recorder.record("resume", {"writers": [list(pair) for pair in writers], "step": first_step})
    run._recorder.sync()
    return run
