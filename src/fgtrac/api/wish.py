"""How a run is to be scored, as `Run.score_with` was told, once it has been checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fgtrac.score.calls import Forward
from fgtrac.score.factor_files import BYTES
from fgtrac.score.methods import Method, parse_method


@dataclass(frozen=True, slots=True)
class Wish:
    """How to score. `when` is "now" or "later"."""

    loss: Callable[..., Any]
    forward: Forward | None
    layer: str | Sequence[str] | None
    when: str
    dtype: str
    max_kept: int | None
    factor_budget_bytes: int | None
    batch_size: int
    ggn: bool
    method: Method


def read_wish(
    loss: Callable[..., Any],
    *,
    forward: Forward | None,
    layer: str | Sequence[str] | None,
    factors: str,
    dtype: str,
    max_kept: int | None,
    factor_budget_bytes: int | None,
    batch_size: int,
    ggn: bool,
    method: str,
) -> tuple[Wish, int | None]:
    """What `Run.score_with` was told, checked; with the number of training rows to choose, if not all.

    ValueError and TypeError for what makes no sense.
    """
    if not callable(loss):
        raise TypeError(
            f"loss= is a {type(loss).__name__}; give a function (outputs, targets) -> a loss for each sample"
        )
    if forward is not None and not callable(forward):
        raise TypeError(f"forward= is a {type(forward).__name__}; give a function (model, batch) -> (outputs, targets)")
    if ggn is not True and ggn is not False:
        raise TypeError(f"ggn={ggn!r:.40}; give True or False")
    _check_layer(layer, ggn)
    for what, text in (("factors", factors), ("dtype", dtype), ("method", method)):
        if not isinstance(text, str):
            raise TypeError(f"{what}={text!r:.40} is a {type(text).__name__}; give a str")
    name, _, number = factors.partition(":")
    sample = int(number) if name == "sample" and number.isdecimal() else None
    if factors not in ("now", "later") and not sample:
        raise ValueError(f"factors={factors!r:.40} is none of 'now', 'sample:N' (N training rows) and 'later'")
    if dtype not in BYTES:
        raise ValueError(f"dtype={dtype!r:.40} is none of {', '.join(BYTES)}")
    limits = {"batch_size": batch_size, "max_kept": max_kept, "factor_budget_bytes": factor_budget_bytes}
    for what, limit in limits.items():
        if (limit is None and what == "batch_size") or not (limit is None or _is_whole(limit)):
            raise TypeError(f"{what}={limit!r:.40} is a {type(limit).__name__}; give a whole number")
        if limit is not None and limit < 1:
            raise ValueError(f"{what}={limit}; give at least 1")
    how = parse_method(method) if " " in method else Method(method)
    when = "later" if factors == "later" else "now"
    return Wish(loss, forward, layer, when, dtype, max_kept, factor_budget_bytes, batch_size, ggn, how), sample


def _check_layer(layer: object, ggn: bool) -> None:
    if layer is not None and not isinstance(layer, str):
        if not isinstance(layer, Sequence) or not all(isinstance(name, str) for name in layer):
            raise TypeError(f"layer={layer!r:.40} is a {type(layer).__name__}; give a layer's name, several, or 'all'")
        if ggn and len(layer) > 1:
            raise ValueError(f"ggn=True is of one layer, and layer= names {len(layer)}; name one, or leave ggn out")


def check_data(role: str, data: object) -> None:
    """TypeError where there are no rows to score: no data set, no loader over one."""
    if data is None:
        raise TypeError(f"{role}= is None; give the data set, or a loader over it")
    if isinstance(data, Sequence) and len(data) and isinstance(data[0], int | float | str):
        raise TypeError(f"{role}= is a {type(data).__name__} of {type(data[0]).__name__}; give a data set of samples")


def _is_whole(number: object) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool)
