"""The verbs about modality weights: how much the model weighs each modality of a sample, at its kept checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fgtrac.api.checkpoints import Checkpoints
from fgtrac.api.ledger import Ledger
from fgtrac.api.predictions import read_positions
from fgtrac.capture.recorder import Recorder
from fgtrac.capture.roots import Resolved
from fgtrac.capture.sources import Registry
from fgtrac.capture.step import Grounding
from fgtrac.capture.use_entries import pieces
from fgtrac.events.codec import encode
from fgtrac.score.factor_files import State
from fgtrac.score.untouched import untouched

MAX_NAMES_BYTES = 4096  # of the modalities' names together, which stand in every entry

Weights = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Weighed:
    """Whose modality weights are recorded: row i is about position `positions[i]` of the resolved data."""

    verb: str
    resolved: Resolved
    positions: NDArray[np.int64]
    modalities: tuple[str, ...]
    sums_to_one: bool

    def read(self, weights: Any) -> Weights:
        """The weights, (n, m). ValueError for another shape, for NaN and infinity, and for rows whose sum is not 1
        where it should be; TypeError for what is no array of real numbers."""
        try:
            given = torch.as_tensor(weights).detach()
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{self.verb} got {type(weights).__name__}, which is no tensor of weights") from error
        if not given.is_floating_point():
            raise TypeError(f"{self.verb} got weights of {given.dtype}; weights are floating-point numbers")
        shape = (len(self.positions), len(self.modalities))
        if tuple(given.shape) != shape:
            n, names = f"{shape[0]} samples", ", ".join(self.modalities)
            raise ValueError(f"{self.verb} got weights of shape {tuple(given.shape)}; {n} and {names} take {shape}")
        found: Weights = given.to("cpu", torch.float32, copy=True).numpy()  # it may be a buffer, which is put back
        self._refuse(found, np.asarray(~np.isfinite(found).all(axis=1)), "are not finite")
        if self.sums_to_one:
            rounding = 2 * shape[1] * max(torch.finfo(given.dtype).eps, 1e-5)
            off = np.abs(found.sum(axis=1, dtype=np.float64) - 1) > rounding
            self._refuse(found, off, "do not sum to 1 (sums_to_one=False records other weights)")
        return found

    def _refuse(self, found: Weights, wrong: NDArray[np.bool_], words: str) -> None:
        """ValueError where a row is wrong."""
        if rows := np.flatnonzero(wrong).tolist():
            row = found[rows[0]]
            said = ", ".join(f"{name} {weight:.6g}" for name, weight in zip(self.modalities, row, strict=True))
            raise ValueError(
                f"the weights of {len(rows)} of {len(found)} samples that {self.verb} got {words}; "
                f"the first is position {self.positions[rows[0]]}: {said}"
            )

    def entries(self, state: State, weights: Weights) -> Iterator[dict[str, Any]]:
        """The fields of the entries that say these weights of a kept state."""
        said = {"checkpoint": list(state.ref), "step": state.step, "modalities": list(self.modalities)}
        ordinals = self.resolved.placement.ordinals
        for block, here in self.resolved.by_block(self.positions):
            for piece in pieces(here, 4 + 4 * len(self.modalities)):
                columns = {"ordinals": ordinals[self.positions[piece]], "weights": weights[piece].reshape(-1)}
                yield {**said, "block": block, **columns}


class Attending:
    """The verbs of a run that record modality weights."""

    _recorder: Recorder
    _registry: Registry
    _ledger: Ledger
    _checkpoints: Checkpoints
    _grounding: Grounding
    _trains: bool
    _attended: tuple[Weighed, Callable[[torch.nn.Module], Any]] | None = None

    def attention(
        self,
        data: Any,
        weights: torch.Tensor,
        modalities: Sequence[str],
        *,
        positions: Sequence[int] | None = None,
        step: int | None = None,
        sums_to_one: bool = True,
    ) -> None:
        """Record how much the model of a kept checkpoint weighs each modality of each sample.

        `weights` is (n, m) floating-point: row i about position i of `data`, or about `positions[i]`; column j about
        `modalities[j]`, the text that names it. They are kept as float32. The checkpoint is the last one that was kept,
        while no update has followed it, or the kept one of `step`. A sample has one row a checkpoint: what is recorded
        already is not written again.

        ValueError for another shape, weights that are not finite or (unless `sums_to_one` is False) do not sum to 1 in
        a row, a sample that has other weights at that checkpoint already, positions that `data` does not have or has
        twice, and where no such checkpoint is kept; TypeError for weights or names that are none.
        """
        self._recorder.check_open()
        state = self._state_at(step)
        weighed = weigh(self._registry, "attention()", data, modalities, positions, sums_to_one)
        told = [e for e in weighed.entries(state, weighed.read(weights)) if not self._ledger.has_attention(e)]
        for entry in told:
            if before := int(self._ledger.is_attended(state.ref, entry["block"], entry["ordinals"]).sum()):
                raise ValueError(
                    f"{before} of these samples have other modality weights at step {state.step} already; a sample has "
                    "one row of weights at a checkpoint"
                )
        self._tell(told)

    def attention_with(
        self,
        *,
        weights: Callable[[torch.nn.Module], Any],
        data: Any,
        modalities: Sequence[str],
        positions: Sequence[int] | None = None,
        sums_to_one: bool = True,
    ) -> None:
        """Record the modality weights of these samples at every kept checkpoint from now on.

        `weights(model)` returns them as `attention` takes them. It is called at each checkpoint that the rule keeps, in
        eval mode and without gradients, under random numbers of its own: modes, buffers and the global generators are
        put back, and the recording does not notice. Generators of your own, such as that of a loader's neighbour
        sampler, are not put back: let the function use none that the loop uses. What is wrong with the weights raises
        as in `attention`, before that checkpoint is recorded. ValueError where it was called before in this run, and in
        a trace that was reopened.
        """
        self._recorder.check_open()
        if not self._trains:
            raise ValueError(
                "attention_with() is about checkpoints to come, and there are none in a trace that was reopened; "
                "record the weights at a kept one with attention(..., step=STEP)"
            )
        if self._attended is not None:
            raise ValueError("attention_with() was called before in this run; call it once, with all samples")
        weighed = weigh(self._registry, "attention_with()", data, modalities, positions, sums_to_one)
        self._attended = weighed, weights

    def _attend(self, model: torch.nn.Module, val_loss: Any) -> Weights | None:
        """The weights that the function of `attention_with` gives, where a checkpoint of that loss will be kept."""
        if self._attended is None or not self._checkpoints.would_keep(val_loss):
            return None
        weighed, function = self._attended
        with self._grounding.unseen(), untouched(model), torch.no_grad():
            return weighed.read(function(model))

    def _tell_attended(self, state: State, weights: Weights) -> None:
        """Record them at the state that was kept. A state that was kept before, and has them, has them already."""
        assert self._attended is not None
        weighed, _function = self._attended
        told = []
        for entry in weighed.entries(state, weights):
            new = ~self._ledger.is_attended(state.ref, entry["block"], entry["ordinals"])
            if new.any():
                some = entry["weights"].reshape(len(new), -1)[new].reshape(-1)
                told.append({**entry, "ordinals": entry["ordinals"][new], "weights": some})
        self._tell(told)

    def _tell(self, entries: Sequence[dict[str, Any]]) -> None:
        for entry in entries:
            ref = self._recorder.record("attention", entry)
            self._ledger.take("attention", entry, ref)

    def _state_at(self, step: int | None) -> State:
        """The kept state of that step, the newest if there are several; by default the last one. ValueError without."""
        states, now = self._ledger.states, self._grounding.step
        kept = f"kept are those of steps {', '.join(str(state.step) for state in states)}" if states else "none is kept"
        if step is not None:
            found = [state for state in states if state.step == step]
            if not found:
                raise ValueError(f"attention() got step={step}, and no checkpoint of that step is kept; {kept}")
            return found[-1]
        if not states:
            raise ValueError("attention() needs a kept checkpoint, and there is none; call it behind run.checkpoint()")
        if self._trains and states[-1].step != now:
            raise ValueError(
                f"the last kept checkpoint is of step {states[-1].step}, and the model is at {now}; call attention()"
                " where checkpoint() returned True, or say with step= which state the weights are of"
            )
        return states[-1]


def weigh(
    registry: Registry,
    verb: str,
    data: Any,
    modalities: Sequence[str],
    positions: Sequence[int] | None,
    sums_to_one: bool,
) -> Weighed:
    """Whose weights a verb was asked to record. Errors as `Run.attention`."""
    names = _read_names(verb, modalities)
    resolved = registry.resolve(data)
    where = read_positions(verb, resolved, positions)
    placement, sources = resolved.placement, resolved.which[where].astype(np.uint64)
    samples = (sources << np.uint64(32)) | placement.ordinals[where]
    _values, back, counts = np.unique(samples, return_inverse=True, return_counts=True)
    if len(twice := where[counts[back] > 1]):
        raise ValueError(f"{verb} got the sample at position {twice[0]} twice; each has one row of weights")
    return Weighed(verb, resolved, where, names, sums_to_one)


def _read_names(verb: str, modalities: Sequence[str]) -> tuple[str, ...]:
    """The names of the modalities. TypeError for what is no list of texts; ValueError for none, equal or long ones."""
    if isinstance(modalities, str) or not all(isinstance(name, str) for name in modalities):
        raise TypeError(f"{verb} got modalities={modalities!r:.60}; give a list of names, such as ['image', 'words']")
    names = tuple(modalities)
    if not names or len(set(names)) < len(names) or "" in names:
        raise ValueError(f"{verb} got modalities={names!r:.100}; give each modality one name, and no two the same")
    if (size := len(encode(list(names)))) > MAX_NAMES_BYTES:
        raise ValueError(f"the names of {len(names)} modalities take {size:,} bytes; {MAX_NAMES_BYTES:,} fit an entry")
    return names
