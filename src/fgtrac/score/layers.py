"""Finding the layers whose gradients are scored: linear and convolution layers with a trained weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
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


def left_out(model: nn.Module, weights: Sequence[nn.Parameter]) -> str:
    """The trained weights of linear, convolution, recurrent, attention and graph layers that are not among `weights`,
    and why; empty where there are none."""
    taken = {id(weight) for weight in weights}
    why: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        if (reason := _why_not(model, name, module)) is None:
            continue
        for key, weight in module._parameters.items():
            if weight is not None and weight.requires_grad and weight.ndim > 1 and id(weight) not in taken:
                taken.add(id(weight))
                why.setdefault(reason, []).append(f"{name}.{key}".removeprefix("."))
    return "; ".join(f"{_listed(names)} ({reason})" for reason, names in why.items())


def _why_not(model: nn.Module, name: str, module: nn.Module) -> str | None:
    """Why a layer's weights would not be among those of "all"; None for a kind that has no such weights."""
    if isinstance(module, torch.jit.ScriptModule):
        return "compiled by torch.jit, which cannot be looked into"
    if _in_attention(model, name) or isinstance(module, nn.MultiheadAttention):
        return "MultiheadAttention uses them without calling a layer"
    if isinstance(module, Scored):
        return "the loss depends on no call of these layers"
    if _is_of_graphs(module):
        return "torch_geometric's own layers"
    other = nn.RNNBase | nn.RNNCellBase | nn.Bilinear | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
    return "neither linear layers nor convolutions" if isinstance(module, other) else None


def _is_of_graphs(module: nn.Module) -> bool:
    """Whether it is a layer of torch_geometric's, whose `Linear` is none of torch's."""
    return type(module).__module__.startswith("torch_geometric.")


def of_graphs(model: nn.Module) -> str:
    """What to do where a model ends with layers of torch_geometric's; empty where it has none."""
    if not any(map(_is_of_graphs, model.modules())):
        return ""
    return "torch_geometric's own layers are not looked into: end the model with a torch.nn.Linear for each node"


def _in_attention(model: nn.Module, name: str) -> bool:
    """Whether it is the `out_proj` of torch's attention, whose weight is used without a call."""
    return isinstance(model.get_submodule(name.rpartition(".")[0]), nn.MultiheadAttention) and bool(name)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def choose(model: nn.Module, choice: Choice, called: Sequence[str]) -> list[str]:
    """The names of the layers to score. `called`: the names of calls on which the loss of a batch depends, in order.

    None: the last layer called. "all": each called one; of layers with one weight, the first. Otherwise those named.
    ValueError for a name that does not exist, ScoreError for one that cannot be scored; both say what could be.
    """
    found = candidates(model)
    called = [name for name in called if name in found]
    if choice is None or choice == "all":
        if not called:
            what = "the loss depends on no call of a trained linear or convolution layer"
            graphs = f" of torch ({words})" if (words := of_graphs(model)) else ""
            raise ScoreError(f"{what}{graphs}; {_which(called)}")
        firsts = {id(found[name].weight): name for name in reversed(called)}
        return list(reversed(firsts.values())) if choice == "all" else [called[-1]]
    names = [choice] if isinstance(choice, str) else list(choice)
    chosen = [_resolve(model, name, called) for name in names]
    if not names or len({id(found[name].weight) for name in chosen}) < len(names):
        raise ValueError(f"layers {names}: name at least one, and each weight once; {_which(called)}")
    return chosen


def _resolve(model: nn.Module, name: str, called: Sequence[str]) -> str:
    """The first name of the module of this name, which has been found fit to be scored."""
    module = dict(model.named_modules(remove_duplicate=False)).get(name)
    if module is None:
        raise ValueError(f"the model has no layer {name!r}; {_which(called)}")
    if not isinstance(module, Scored):
        raise ScoreError(f"layer {name!r} is a {type(module).__name__}, not a linear or convolution; {_which(called)}")
    weight = module._parameters.get("weight")
    if weight is None:
        raise ScoreError(f"the weight of layer {name!r} is computed from others (parametrized); {_which(called)}")
    if not weight.requires_grad:
        raise ScoreError(f"layer {name!r} is frozen: its weight has requires_grad=False; train it, or {_which(called)}")
    first: str = next(known for known, other in model.named_modules() if other is module)
    if first not in called:
        why = " (MultiheadAttention uses its weight without calling it)" if _in_attention(model, name) else ""
        raise ScoreError(f"the loss does not depend on a call of layer {name!r}{why}; {_which(called)}")
    return first


def _which(called: Sequence[str]) -> str:
    """What could be: the layers on whose calls the loss depends."""
    names = [repr(name) for name in dict.fromkeys(called)]
    return f"could be scored: {_listed(names)}" if names else "no layer of this model could be scored"
