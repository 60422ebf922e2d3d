"""Finding the layers whose gradients are scored: linear and convolution layers with a trained weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from torch import nn

from fgtrac.errors import ScoreError

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Scored = nn.Linear | Convolution
Choice = str | Sequence[str] | None


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A layer to score: its weight, its bias if that is trained, and all modules that use the same weight, by name."""

    name: str
    weight: nn.Parameter
    bias: nn.Parameter | None
    holders: dict[nn.Module, str]


def candidates(model: nn.Module) -> dict[str, Scored]:
    """name -> layer, of each layer that could be scored, in the order in which the model holds them."""
    return {name: module for name, module in model.named_modules() if is_candidate(module)}


def is_candidate(module: nn.Module) -> TypeGuard[Scored]:
    """Whether it is a linear or convolution layer whose weight is a parameter of its own, and trained."""
    if not isinstance(module, Scored):
        return False
    weight = module._parameters.get("weight")
    return weight is not None and weight.requires_grad


def recordable(model: nn.Module) -> dict[nn.Module, str]:
    """Each layer that could be scored, and each embedding that shares its weight with one: module -> name."""
    weights = {id(module._parameters["weight"]) for module in candidates(model).values()}
    holders = (Scored, nn.Embedding)
    return {
        module: name
        for name, module in model.named_modules()
        if isinstance(module, holders) and id(module._parameters.get("weight")) in weights
    }


def site_of(model: nn.Module, name: str) -> Site:
    """What belongs to the layer of this name. ScoreError where an embedding of the same weight cannot be written down:
    one that scales gradients by how often an id is in the batch, or that changes its weights when it is read."""
    module = model.get_submodule(name)
    weight, bias = module._parameters["weight"], module._parameters.get("bias")
    assert weight is not None
    holders = {m: n for n, m in model.named_modules() if m is module or _shares(m, weight)}
    for other, called in holders.items():
        if isinstance(other, nn.Embedding) and (other.scale_grad_by_freq or other.max_norm is not None):
            option = "scale_grad_by_freq" if other.scale_grad_by_freq else "max_norm"
            raise ScoreError(
                f"layer {name!r} has its weight from embedding {called!r} with {option}; name another layer"
            )
    return Site(name, weight, bias if bias is not None and bias.requires_grad else None, holders)


def _shares(module: nn.Module, weight: nn.Parameter) -> bool:
    return isinstance(module, Scored | nn.Embedding) and module._parameters.get("weight") is weight


def choose(model: nn.Module, choice: Choice, called: Sequence[str]) -> list[str]:
    """The names of the layers to score. `called`: the names of calls on which the loss of a batch depends, in order.

    None: the last layer called. "all": each called one; of layers with one weight, the first. Otherwise those named.
    ValueError for a name that does not exist, ScoreError for one that cannot be scored; both say what could be.
    """
    found = candidates(model)
    called = [name for name in called if name in found]
    if choice is None or choice == "all":
        if not called:
            raise ScoreError(f"the loss depends on no call of a trained linear or convolution layer; {_which(model)}")
        firsts = {id(found[name].weight): name for name in reversed(called)}
        return list(reversed(firsts.values())) if choice == "all" else [called[-1]]
    names = [choice] if isinstance(choice, str) else list(choice)
    chosen = [_resolve(model, name, called) for name in names]
    if not names or len({id(found[name].weight) for name in chosen}) < len(names):
        raise ValueError(f"layers {names}: name at least one, and each weight once; {_which(model)}")
    return chosen


def _resolve(model: nn.Module, name: str, called: Sequence[str]) -> str:
    """The first name of the module of this name, which has been found fit to be scored."""
    module = dict(model.named_modules(remove_duplicate=False)).get(name)
    if module is None:
        raise ValueError(f"the model has no layer {name!r}; {_which(model)}")
    if not isinstance(module, Scored):
        raise ScoreError(f"layer {name!r} is a {type(module).__name__}, not a linear or convolution; {_which(model)}")
    weight = module._parameters.get("weight")
    if weight is None:
        raise ScoreError(f"the weight of layer {name!r} is computed from others (parametrized); {_which(model)}")
    if not weight.requires_grad:
        raise ScoreError(f"layer {name!r} is frozen: its weight has requires_grad=False; train it, or {_which(model)}")
    first: str = next(known for known, other in model.named_modules() if other is module)
    if first not in called:
        raise ScoreError(f"the loss does not depend on a call of layer {name!r}; {_which(model)}")
    return first


def _which(model: nn.Module) -> str:
    names = list(candidates(model))
    if not names:
        return "no layer of this model could be scored"
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"could be scored: {', '.join(map(repr, names[:12]))}{more}"
