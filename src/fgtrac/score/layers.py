"""Finding the layers whose gradients are scored: linear and convolution layers with a trained weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from torch import nn

from fgtrac.errors import ScoreError

Scored = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
Choice = str | Sequence[str] | None


def candidates(model: nn.Module) -> dict[str, Scored]:
    """name -> layer, of each layer that could be scored, in the order in which the model holds them."""
    return {name: module for name, module in model.named_modules() if is_candidate(module)}


def is_candidate(module: nn.Module) -> TypeGuard[Scored]:
    """Whether it is a linear or convolution layer whose weight is a parameter of its own, and trained."""
    if not isinstance(module, Scored):
        return False
    weight = module._parameters.get("weight")
    return weight is not None and weight.requires_grad


def weight_of(module: Scored) -> nn.Parameter:
    """The weight of a candidate."""
    weight = module._parameters["weight"]
    assert weight is not None
    return weight


def choose(model: nn.Module, choice: Choice, called: Sequence[str]) -> list[str]:
    """The names of the layers to score. `called`: the candidates through which the loss of a batch depends, in order.

    None: the last called one. "all": each called one. Otherwise those named. ValueError for a name that does not
    exist, ScoreError for one that cannot be scored; the message says what could be.
    """
    if choice is None or choice == "all":
        if not called:
            raise ScoreError(f"no trained linear or convolution layer lies before the loss; {_which(model)}")
        return list(dict.fromkeys(called)) if choice == "all" else [called[-1]]
    names = [choice] if isinstance(choice, str) else list(choice)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"layers {names}: name each once, and at least one; {_which(model)}")
    for name in names:
        _check_named(model, name, called)
    return names


def _check_named(model: nn.Module, name: str, called: Sequence[str]) -> None:
    module = dict(model.named_modules()).get(name)
    if module is None:
        raise ValueError(f"the model has no layer {name!r}; {_which(model)}")
    if not isinstance(module, Scored):
        raise ScoreError(f"layer {name!r} is a {type(module).__name__}, not a linear or convolution; {_which(model)}")
    weight = module._parameters.get("weight")
    if weight is None:
        raise ScoreError(f"the weight of layer {name!r} is computed from others (parametrized); {_which(model)}")
    if not weight.requires_grad:
        raise ScoreError(f"layer {name!r} is frozen: its weight has requires_grad=False; train it, or {_which(model)}")
    if name not in called:
        raise ScoreError(f"the loss does not depend on a call of layer {name!r}; {_which(model)}")


def _which(model: nn.Module) -> str:
    names = list(candidates(model))
    if not names:
        return "no layer of this model could be scored"
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"could be scored: {', '.join(map(repr, names[:12]))}{more}"
