"""The verb for whatever nobody can watch: a loop says itself which samples took part in which update."""

from __future__ import annotations

import operator
import warnings
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fgtrac.api.watching import Watching
from fgtrac.capture.use_entries import Placement
from fgtrac.events.schema import ATTRIBUTION, NO_STEP, STATUS

MOST_EPOCHS = 2**32 - 1


@dataclass(slots=True)
class _Declared:
    """One data set whose uses are declared, as a loader of its own; batches so far of its epoch."""

    data: Any  # kept, so that its identity stays its own
    rows: int
    placement: Placement
    loader: int
    epoch: int = 0
    batches: int = 0


class Declaring(Watching):
    """Takes a loop's own word for its uses."""

    _declared: dict[int, _Declared]
    _declared_step: int  # the update that was declared last
    _declared_optimizer: int = 0  # the number of what makes all of them

    def use(
        self,
        samples: Any,
        *,
        data: Any = None,
        epoch: int | None = None,
        step: int | None = None,
        applied: bool = True,
        losses: Any = None,
    ) -> None:
        """Say that samples took part in an update: for JAX, replay buffers, and every loop that no loader feeds.

            run.use(rows, data=images, epoch=epoch, step=step)         # (n,) row numbers of a registered data set
            run.use(orders, data=images, epoch=epoch, step=first)      # (m, n): m updates, from `first` on
            run.use(view, epoch=epoch)                                 # all rows of a data set or a view of one

        `samples` are positions of `data` (by default of the one registered data set), integers in any array; of two
        dimensions each row is an update. Without `data`, what is registered stands for all of its rows, and so does a
        data set that is no array of numbers. `step` is the number
        of the (first) update, counted from 1 and never falling, by default the next one; several calls may name one
        update. `epoch` never falls either, and is by default the last one. `applied=False` says that they were
        delivered, and no update was made of them. `losses` has the shape of `samples`, and is kept as float16. What is
        said here is recorded as `declared`: nothing watched it.

        A position that the data do not have is no sample: nothing of the call is recorded, and a `gap` and a
        RuntimeWarning say so; in a strict run it is a ValueError. Raises ValueError for a step or an epoch that falls
        behind, and losses of another shape; TypeError for what are no positions.
        """
        self._check_training("use()")
        declared, where = self._declare(samples, data)
        if where.size and not (where.min() >= 0 and where.max() < declared.rows):
            self._say_unknown(where[(where < 0) | (where >= declared.rows)].flat[0], declared.rows)
            return
        where = where.astype(np.uint32)
        columns = None if losses is None else _losses_of(losses, where.shape)
        epoch = declared.epoch if epoch is None else operator.index(epoch)
        if not declared.epoch <= epoch <= MOST_EPOCHS:
            raise ValueError(
                f"use() got epoch={epoch} after epoch {declared.epoch}; epochs are counted from 0 and never fall"
            )
        first = self._step_of(step, len(where)) if applied else NO_STEP
        if epoch != declared.epoch:
            declared.epoch, declared.batches = epoch, 0
        status, sure = STATUS["applied" if applied else "unapplied"], ATTRIBUTION["declared"]
        for number, row in enumerate(where):
            at = first + number if applied else NO_STEP
            said = (declared.epoch, declared.batches, at, status, sure)
            optimizer = self._declared_optimizer if applied else 0
            cost = None if columns is None else columns[number]
            self._recorder.use(declared.placement, declared.loader, optimizer, said, array("I", row.tobytes()), cost)
            declared.batches += 1
        if applied and len(where):
            self._declared_step = first + len(where) - 1

    def _say_unknown(self, position: Any, rows: int) -> None:
        reason = f"use() got position {position} of data with {rows} rows, counted from 0; nothing of it is recorded"
        remedy = "register the data when they are whole, or name others with data="
        if self._strict:
            raise ValueError(f"{reason}; {remedy}")
        self._recorder.record("gap", {"reason": reason})
        warnings.warn(f"fgtrac: {reason}; {remedy}", RuntimeWarning, stacklevel=3)

    def _declare(self, samples: Any, data: Any) -> tuple[_Declared, NDArray[Any]]:
        """Whose samples they are, and their positions, (updates, n)."""
        if data is None and (self._registry.is_known(samples) or not _is_array(samples)):
            declared = self._declared_of(samples)
            return declared, np.arange(declared.rows, dtype=np.uint32)[None]
        if data is None:
            known = self._registry.registered()
            if len(known) != 1:
                names = ", ".join(repr(root.name) for root in known) or "none"
                raise ValueError(f"use() got positions, and {len(known)} data sets are registered ({names}); say data=")
            data = known[0].data
        declared = self._declared_of(data)
        given = _as_array(samples)
        if given.dtype.kind not in "iu" and given.size:
            raise TypeError(f"use() got samples of {given.dtype}; give row numbers, such as those where a mask is true")
        if given.ndim not in (1, 2):
            raise ValueError(f"use() got samples of shape {given.shape}; give (n,) of one update, or (updates, n)")
        return declared, np.atleast_2d(given.astype(np.int64) if not given.size else given)

    def _declared_of(self, data: Any) -> _Declared:
        declared = self._declared.get(id(data))
        if declared is None:
            placement = self._registry.resolve(data).placement
            declared = _Declared(data, len(placement.ordinals), placement, next(self._loader_numbers))
            self._declared[id(data)] = declared
        self._declared_optimizer = self._declared_optimizer or self._grounding.new_optimizer_number()
        return declared

    def _step_of(self, step: int | None, updates: int = 1) -> int:
        at = self._declared_step + 1 if step is None else operator.index(step)
        least = max(self._declared_step, self._grounding.first_step + 1)
        if at + updates > NO_STEP:
            raise ValueError(f"use() got step={at}, and the greatest of an update is {NO_STEP - 1}")
        if at < least:
            raise ValueError(f"use() got step={at}; updates are counted from 1 and never fall: here from {least} on")
        return at


def _is_array(samples: Any) -> bool:
    """Whether they look like positions, and not like a data set that stands for all of its rows."""
    if isinstance(samples, Sequence) and not isinstance(samples, str | bytes):
        return not samples or isinstance(samples[0], int | np.integer | Sequence | torch.Tensor | np.ndarray)
    return isinstance(samples, torch.Tensor | np.ndarray) or hasattr(samples, "__array__")


def _as_array(samples: Any) -> NDArray[Any]:
    """Positions as an array. TypeError for what is none."""
    if isinstance(samples, torch.Tensor):
        return samples.detach().cpu().numpy()
    try:
        return np.asarray(samples)
    except (ValueError, TypeError, RuntimeError) as error:
        raise TypeError(
            f"use() got {type(samples).__name__} {samples!r:.60}, which is no array of row numbers; give integers, "
            "or register the data set and pass it whole"
        ) from error


def _losses_of(losses: Any, shape: tuple[int, ...]) -> NDArray[np.float16]:
    values = losses.detach().cpu().numpy() if isinstance(losses, torch.Tensor) else np.asarray(losses)
    if np.atleast_2d(values).shape != shape:
        raise ValueError(f"use() got losses of shape {values.shape} for samples of shape {shape}; pass one for each")
    with np.errstate(over="ignore"):
        return np.atleast_2d(values).astype(np.float16)
