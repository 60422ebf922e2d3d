"""Checkpoints of a run: which are kept, their state on disk, and the entries that say so."""

from __future__ import annotations

import hashlib
import operator
from typing import Any

import numpy as np

import fgtrac.capture.checkpoint as states
from fgtrac.api.ledger import Ledger
from fgtrac.capture.recorder import Recorder, Ref
from fgtrac.score.factor_files import State
from fgtrac.score.select import Mark, parse_rule
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir


class Checkpoints:
    """Decides about model states by a rule (as `fgtrac.score.select.parse_rule` reads it) and records them.

    `ledger` has those of the log that is continued; it is told of each new one. ValueError for what is no rule.
    """

    def __init__(self, trace: TraceDir, recorder: Recorder, ledger: Ledger, keep: str) -> None:
        self._trace = trace
        self._recorder = recorder
        self._ledger = ledger
        self._rule = parse_rule(keep)
        self._losses: dict[Mark, float] = {}
        self.last: Ref | None = None
        for mark, loss, kept in ledger.told:
            self._note(mark, loss, kept)

    def would_keep(self, val_loss: Any) -> bool:
        """Whether a checkpoint of that validation loss would be kept now. ValueError as `record`."""
        return self._rule.decide(states.loss_of(val_loss)).kept

    def record(
        self, model: states.Model, step: int, val_loss: Any, epoch: int | None, rates: tuple[float, ...], remark: str
    ) -> State | None:
        """Decide about the model's state, save it where it is kept, and write the entry. The state, if it is kept.

        `rates` are the learning rates, one a parameter group; `remark` goes behind the reason of one that is kept.
        """
        loss = states.loss_of(val_loss)
        whole_epoch = None if epoch is None else operator.index(epoch)
        decision = self._rule.decide(loss)
        kept, rule = decision.kept, decision.words + (remark if decision.kept else "")
        self._recorder.sync()
        fields: dict[str, Any] = {"step": step}
        if kept:
            fields["digest"], failed = self._save(model, step)
            if failed is not None:
                kept, rule = False, f"dropped: {failed}"[:200]
            elif decision.displaces is not None:
                self._displace(decision.displaces, step, decision.words)
        fields |= {"kept": kept, "rule": rule}
        if whole_epoch is not None:
            fields["epoch"] = whole_epoch
        if loss is not None:
            fields["val_loss"] = loss
        if rates:
            fields["learning_rates"] = np.array(rates, dtype=np.float64)
        self.last = self._say(fields)
        return self._ledger.state((step, fields["digest"])) if kept else None

    def _displace(self, mark: Mark, by: int, words: str) -> None:
        """Say that a kept checkpoint is not kept any more; before the newer one, which has to stay the newest."""
        reason = f"dropped: displaced by step {by}, {words.removeprefix('kept: ')}"
        fields: dict[str, Any] = {"step": mark[0], "digest": mark[1], "kept": False, "rule": reason}
        if mark in self._losses:
            fields["val_loss"] = self._losses[mark]
        self._say(fields)

    def _say(self, fields: dict[str, Any]) -> Ref:
        ref = self._recorder.record("checkpoint", fields)
        self._ledger.take("checkpoint", fields, ref)
        self._note(*self._ledger.told[-1])
        return ref

    def _note(self, mark: Mark | None, loss: float | None, kept: bool) -> None:
        self._rule.note(mark, loss, kept)
        if mark is not None and loss is not None:
            self._losses[mark] = loss

    def _save(self, model: states.Model, step: int) -> tuple[bytes, OSError | None]:
        data = states.state_bytes(model)
        digest = hashlib.sha256(data).digest()
        path = f"artifacts/checkpoint-{step:08d}-{digest.hex()[:8]}.safetensors"
        about = f"model state after {step} updates"
        failed = record_file(self._trace, self._recorder, self._ledger, path, data, about, digest)
        if failed is not None:
            self._recorder.lose("a model state could not be written", failed)
        return digest, failed


def record_file(
    trace: TraceDir, recorder: Recorder, ledger: Ledger, path: str, data: bytes, about: str, digest: bytes | None = None
) -> OSError | None:
    """Put a safetensors file into the trace and say so in the log; what the disk answers where it refuses. `digest` is
    the SHA-256 of `data`, where the caller has it."""
    try:
        durable.write_file(trace.path / path, data)
    except OSError as error:
        return error
    say_file(recorder, ledger, path, digest or hashlib.sha256(data).digest(), len(data), about)
    return None


def say_file(recorder: Recorder, ledger: Ledger, path: str, sha256: bytes, size: int, about: str) -> None:
    """The `artifact` entry of a safetensors file that lies in the trace."""
    fields = {"path": path, "sha256": sha256, "size": size, "about": about}
    ref = recorder.record("artifact", {**fields, "media_type": "application/vnd.safetensors"})
    ledger.take("artifact", fields, ref)
