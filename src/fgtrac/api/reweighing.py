"""Modality weights made anew: a committed model state, put into the model that the verifier gives. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fgtrac.api.attention import Weighed
from fgtrac.api.factor_tolerance import FLOOR, MARGIN
from fgtrac.api.ledger import read_state
from fgtrac.api.remaking import DRAWS, SHAKES, ask, shaken
from fgtrac.capture.checkpoint import load_state
from fgtrac.errors import ScoreError
from fgtrac.score.curvature import Doubles
from fgtrac.score.factor_files import State
from fgtrac.score.untouched import untouched
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.checks import CannotTell

MOST = 2.0**-8  # of the largest weight of a row: where float32 may round more than that, it decides nothing


@dataclass(frozen=True, slots=True, eq=False)
class Remade:
    """The weights (n, m) at one state, and how far each row may be off (n,): by float32's rounding (`little`, never
    more than MOST), and by that of TF32 or bfloat16, or by float32's where that is more (`much`), as
    `fgtrac.api.factor_tolerance` measures them."""

    weighed: Weighed
    weights: Doubles
    little: Doubles
    much: Doubles

    def of(
        self, number: int, block: bytes, ordinals: NDArray[np.uint32], modalities: tuple[str, ...]
    ) -> tuple[Doubles, Doubles, Doubles]:
        """The rows of some samples of entry `number`: weights, little, much. CannotTell where they are not among what
        was given, or are of other modalities."""
        if modalities != self.weighed.modalities:
            mine, theirs = ", ".join(self.weighed.modalities), ", ".join(modalities)
            raise CannotTell(f"entry {number} (attention) weighs {theirs:.100}, and what was given {mine:.100}")
        resolved, positions = self.weighed.resolved, self.weighed.positions
        places = dict(resolved.by_block(positions)).get(block, np.empty(0, np.intp))
        known = resolved.placement.ordinals[positions[places]]
        if len(strange := ordinals[~np.isin(ordinals, known)]):
            raise CannotTell(f"ordinal {strange[0]} of block {block.hex()} is not among the data given")
        order = np.argsort(known)
        rows = places[order[np.searchsorted(known[order], ordinals)]]
        return self.weights[rows], self.little[rows], self.much[rows]


class Reweighing:
    """What `function(run)` gives: the data, the model, and the function that weighs. CannotTell where it gives none, or
    other data than the log registers."""

    def __init__(self, trace: TraceDir, run: Mapping[str, Any], function: Callable[[Any], Any]) -> None:
        self._trace = trace
        given, self._model = ask(trace, run, function)
        if given.weighed is None:
            raise CannotTell("no weights were given: let the function call attention_with() as the training did")
        self._weighed, self._function = given.weighed
        names = ", ".join(map(repr, given.unhashed()))
        self.remark = f"; data set {names:.200} was compared by its ids alone, without contents" if names else ""

    def remake(self, state: State) -> Remade:
        """The weights at a state. TamperError where its file is not the committed one; CannotTell where the model is of
        another architecture, or its weights cannot be recorded."""
        data = read_state(self._trace, state)
        try:
            load_state(self._model, data, f"the checkpoint of step {state.step}")
        except ScoreError as error:
            raise CannotTell(str(error)) from error
        with untouched(self._model), torch.no_grad():
            found = self._weights()
            far = [np.max([self._shaken(found, by, draw) for draw in range(DRAWS)], axis=0) for by in SHAKES]
        rounding = FLOOR * np.maximum(1, np.abs(found).max(axis=1))
        little, much = (MARGIN * each + rounding for each in far)
        most = MOST * np.abs(found).max(axis=1)
        return Remade(self._weighed, found, np.minimum(little, most), np.maximum(little, much))

    def _weights(self) -> Doubles:
        try:
            return self._weighed.read(self._function(self._model)).astype(np.float64)
        except Exception as error:  # the verifier's own function: whatever it raises
            raise CannotTell(f"no weights were given: {type(error).__name__}: {error}") from error

    def _shaken(self, found: Doubles, by: float, draw: int) -> Doubles:
        """(n,): how far each row comes where all weights of the model are changed by about that share."""
        with shaken(self._model, by, draw):
            return np.asarray(np.abs(self._weights() - found).max(axis=1))
