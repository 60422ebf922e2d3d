"""Factors made anew: the committed model state, put into the model and run on the data that the verifier gives.

Needs torch. Nothing is written, and nothing is believed: the state's file has the digest of the log, and the data sets
are those that the log registers, by their ids and, where there are any, by the digests of their contents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Subset

from fgtrac.api.given_data import GivenData, secrets_of
from fgtrac.api.ledger import read_state
from fgtrac.api.scored_rows import ScoredRows, chosen_places
from fgtrac.api.unseen import copied
from fgtrac.capture.checkpoint import load_state
from fgtrac.errors import FgtracError
from fgtrac.score.batches import read_batches
from fgtrac.score.factor_files import Rows, State
from fgtrac.score.factors import FactorPass, Pass
from fgtrac.score.gradients import Gradients, Layer, concatenate
from fgtrac.score.untouched import untouched
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.checks import CannotTell

SHAKES = (2.0**-18, 2.0**-9)  # relative changes of all weights: what float32 rounds, and what TF32 or bfloat16 round
DRAWS = 3  # of each
NUMBERS_AT_ONCE = 1 << 21  # of gradients in one pass
LEAST_AT_ONCE = 16  # rows, however long their gradients


@dataclass(frozen=True, slots=True, eq=False)
class Remade:
    """n rows' gradients at a state, one `Gradients` a layer, and the same with all weights shaken: `fine` and `coarse`
    have DRAWS of them each. `labels` (n,) where the targets are whole numbers."""

    gradients: tuple[Gradients, ...]
    fine: tuple[tuple[Gradients, ...], ...]
    coarse: tuple[tuple[Gradients, ...], ...]
    labels: NDArray[np.int64] | None


class Remaking:
    """The data and the model that `function(run)` gives, and the factors that follow from them.

    CannotTell where the function fails, or gives other data than the log registers: whose mistake that is does not
    show.
    """

    def __init__(self, trace: TraceDir, run: Mapping[str, Any], function: Callable[[Any], Any]) -> None:
        self._trace = trace
        self.given, self._model = ask(trace, run, function)
        if not self.given.rows:
            raise CannotTell("no data were given: let the function call score_with() as the scoring did")

    def compare(self, role: str, rows: Rows) -> str:
        """What the rows of a role are of the data that were given, in words: nothing where they are all of them.
        CannotTell where the two are not the same, and the rows are not those that a recorded sample takes."""
        scored = self._scored(role)
        mine, theirs = _keys(scored.rows, rows)
        if len(strange := np.flatnonzero(~np.isin(theirs, mine))):
            raise _not_given(role, *rows.place(int(strange[0])))
        left = np.flatnonzero(~np.isin(mine, theirs))
        if not len(left):
            return ""
        of = f"of the {len(scored):,} {role} samples that were given"
        if role == "train" and np.isin(mine[chosen_places(len(scored), len(rows))], theirs).all():
            return f"{len(rows):,} {of} have scores, those that factors='sample:{len(rows)}' takes"
        raise CannotTell(
            f"{len(left):,} {of} have no committed factors, the first is {scored.ids[left[0]].tobytes().hex()}: they "
            "were left out of the scoring, or other data are given than were scored"
        )

    def remake(
        self, state: State, layers: Sequence[Layer], role: str, rows: Rows, which: NDArray[np.int64]
    ) -> Iterator[Remade]:
        """Rows `which` of a role, as `rows` places them, at a state: piece by piece, in their order. TamperError where
        the state's file is not the committed one; ScoreError where the model is another, or cannot be scored;
        CannotTell where rows are not in the data that were given."""
        what = f"the checkpoint of step {state.step}"
        load_state(self._model, read_state(self._trace, state), what)
        size = rows_at_once(layers)
        with untouched(self._model):
            factors = self._prepared(layers)
            for start in range(0, len(which), size):
                data = self._found(role, rows, which[start : start + size])
                plain = _run(factors, data)
                fine, coarse = (
                    tuple(self._shaken(factors, data, by, draw).gradients for draw in range(DRAWS)) for by in SHAKES
                )
                yield Remade(plain.gradients, fine, coarse, plain.labels)

    def _prepared(self, layers: Sequence[Layer]) -> FactorPass:
        train = self.given.rows["train"]
        _some, batch = train.some(0, len(train))
        return FactorPass.prepare(self._model, batch, **self.given.how, layer=layers)

    def _found(self, role: str, rows: Rows, which: NDArray[np.int64]) -> list[Any]:
        """The batches of the rows."""
        scored = self._scored(role)
        mine, theirs = _keys(scored.rows, rows)
        order = np.argsort(mine)
        at = order[np.minimum(np.searchsorted(mine, theirs[which], sorter=order), len(mine) - 1)]
        if len(strange := np.flatnonzero(mine[at] != theirs[which])):
            raise _not_given(role, *rows.place(int(which[strange[0]])))
        some = Subset(scored.data, scored.positions[at].tolist())
        return list(read_batches(some, self.given.batch_size, scored.collate))

    def _scored(self, role: str) -> ScoredRows:
        scored = self.given.rows.get(role)
        if scored is None:
            raise CannotTell(f"no {role} data were given: let the function pass {role}= to score_with()")
        return scored

    def _shaken(self, factors: FactorPass, data: Sequence[Any], by: float, draw: int) -> Pass:
        with shaken(self._model, by, draw):
            return _run(factors, data)


def rows_at_once(layers: Sequence[Layer]) -> int:
    """How many rows are a piece."""
    return max(LEAST_AT_ONCE, NUMBERS_AT_ONCE // sum(w for layer in layers for w in layer.columns.values()))


def ask(trace: TraceDir, run: Mapping[str, Any], function: Callable[[Any], Any]) -> tuple[GivenData, torch.nn.Module]:
    """The data that a verifier's function gives, and a copy of its model. CannotTell where it fails, or gives other
    data than the log registers."""
    try:
        with secrets_of(trace) as secrets:
            given = GivenData(trace, run["id_scheme"], secrets)
            model = function(given)
    except (FgtracError, OSError, TypeError, ValueError) as error:
        raise CannotTell(f"the model and the data were not given: {error}") from error
    if not isinstance(model, torch.nn.Module):
        raise CannotTell(f"no model was given: the function returned {type(model).__name__}; return the model")
    return given, copied(model)


@contextmanager
def shaken(model: torch.nn.Module, by: float, draw: int) -> Iterator[None]:
    """Each weight is changed by a random share of itself, about `by`; afterwards the weights are as before."""
    generator = torch.Generator().manual_seed(draw)
    before = [(weight, weight.detach().clone()) for weight in model.parameters()]
    with torch.no_grad():
        for weight, _copy in before:
            if weight.is_floating_point():
                noise = torch.randn(weight.shape, generator=generator, dtype=torch.float32)
                weight.mul_(1 + by * noise.to(weight.device, weight.dtype))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, copy in before:
                weight.copy_(copy)


def _not_given(role: str, block: bytes, ordinal: int) -> CannotTell:
    return CannotTell(f"ordinal {ordinal} of block {block.hex()} is not among the {role} data given")


def _keys(*several: Rows) -> list[NDArray[np.uint64]]:
    """(n,) a number for each row, of the same sample the same one."""
    numbers: dict[bytes, int] = {}
    found = []
    for rows in several:
        block = np.array([numbers.setdefault(block, len(numbers)) for block in rows.blocks], np.uint64)
        which = np.zeros(len(rows), np.uint16) if rows.which is None else rows.which
        found.append(block[which] << np.uint64(32) | rows.ordinals.astype(np.uint64))
    return found


def _run(factors: FactorPass, data: Sequence[Any]) -> Pass:
    """All batches in one."""
    passes = [factors(batch) for batch in data]
    gradients = tuple(concatenate([p.gradients[n] for p in passes]) for n in range(len(factors.layers)))
    labels = [p.labels for p in passes if p.labels is not None]
    losses = np.concatenate([p.losses for p in passes])
    return Pass(gradients, losses, np.concatenate(labels) if len(labels) == len(passes) else None, None)
