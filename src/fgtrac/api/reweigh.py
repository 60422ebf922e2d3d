"""The check `modality-weights`, made on demand: recorded rows, chosen at random, computed again from the saved states.

The verifier gives the data, the model's code and the function that weighs; the states are those that the log commits
to. Nobody who recorded a trace knows beforehand which rows are chosen. Needs torch when it is made.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from fgtrac.api.audit import WEIGHTS, Demand
from fgtrac.api.drawing import Drawn, draw_rows
from fgtrac.api.ledger import state_path
from fgtrac.api.rescore import Function
from fgtrac.errors import ProofError
from fgtrac.score.factor_files import State
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.auditor import Audit
from fgtrac.verify.checks import CannotTell, TraceFiles
from fgtrac.verify.facts import Facts
from fgtrac.verify.updates import counted

if TYPE_CHECKING:  # it needs torch
    from fgtrac.api.reweighing import Reweighing


def weights_demand(count: int, seed: int | None = None, function: Function | None = None) -> Demand:
    """The check of `count` rows, chosen by `seed` (default: by the system's randomness). `function` is called with what
    takes the verbs of a run, calls `attention_with` and returns the model. ValueError for a count below 1 or a seed
    below 0."""
    if count < 1:
        raise ValueError(f"{count} rows of modality weights are none; ask for at least 1")
    if seed is not None and seed < 0:
        raise ValueError(f"the seed {seed} is below 0; name a whole number from 0 on")
    chosen_by = secrets.randbits(64) if seed is None else seed
    needs = ("entries", "registered", "attention")
    return Demand(WEIGHTS, partial(check_weights, count, chosen_by, function), needs)


def check_weights(count: int, seed: int, function: Function | None, trace: TraceFiles, audit: Audit) -> str:
    """ProofError naming entry, sample and both rows; CannotTell where some were not made anew, and why."""
    facts = audit.facts
    if not facts.attention.entries:
        raise CannotTell("no entry records modality weights: there are none to compute again")
    if function is None:
        raise CannotTell("nothing was computed again: name what gives the data and the model, --with FILE.py:FUNCTION")
    if not isinstance(trace, TraceDir):
        raise CannotTell("not checked: model states are read from a trace that lies in a folder")
    try:
        from fgtrac.api.reweighing import Reweighing
    except ImportError as error:
        raise CannotTell(f"computing modality weights again takes torch: {error}") from error
    assert audit.log is not None
    drawn, total = draw_rows(audit.log, facts.attention.entries, count, seed)
    words = f"{sum(len(one.places) for one in drawn):,} of {counted(total, 'row')}, chosen by seed {seed}"
    again, right, left = Reweighing(trace, facts.runs[0][1], function), 0, []
    drawn.sort(key=lambda one: one.event["checkpoint"])
    for (writer, seq), group in groupby(drawn, key=lambda one: tuple(one.event["checkpoint"])):
        try:
            right += _check_state(again, facts, (writer, seq), list(group))
        except CannotTell as reason:
            left.append(str(reason))
    if left:
        more = f" (and at {len(left) - 1} more checkpoints)" if len(left) > 1 else ""
        raise CannotTell(f"{words}: {right:,} are right; {left[0]}{more}")
    return f"{words}, are what the committed states and what was given make, but for rounding{again.remark}"


def _check_state(again: Reweighing, facts: Facts, ref: tuple[bytes, int], drawn: Sequence[Drawn]) -> int:
    """How many rows at one checkpoint are right: all, or else ProofError or CannotTell."""
    said = facts.checkpoints[ref]
    if said.digest is None:
        raise CannotTell(f"entry {said.number}, a checkpoint, names no model state")
    state = State(ref, said.step, said.digest, said.val_loss)
    if (path := state_path(state)) in facts.withdrawn:
        raise CannotTell(f"{path} was withdrawn by entry {facts.withdrawn[path]} (erasure)")
    doubt, right = "", 0
    remade = again.remake(state)
    for one in drawn:
        ordinals = one.event["ordinals"][one.places]
        names = tuple(one.event["modalities"])
        mine = one.event["weights"].reshape(-1, len(names))[one.places]
        found, little, much = remade.of(one.number, one.event["block"], ordinals, names)
        off = np.abs(mine.astype(np.float64) - found).max(axis=1)
        for row in np.flatnonzero(~(off <= little)).tolist():
            sample = facts.ids_of(one.event["block"])[ordinals[row]].tobytes().hex()
            words = (
                f"entry {one.number} (attention) says {_words(names, mine[row])} of sample {sample}; the state in "
                f"{path} and what was given make {_words(names, found[row])}"
            )
            if not off[row] <= much[row]:
                raise ProofError(words)
            doubt = doubt or f"{words}: more than is taken for float32's rounding, and no more than rounding may make"
        right += int((off <= little).sum())
    if doubt:
        raise CannotTell(doubt)
    return right


def _words(names: Sequence[str], weights: Sequence[float]) -> str:
    return ", ".join(f"{name} {weight:.9g}" for name, weight in zip(names, weights, strict=True))
