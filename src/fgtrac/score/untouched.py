"""A pass over the model leaves no trace in it: generators, modes and buffers are as they were before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from fgtrac.errors import ScoreError


@contextmanager
def untouched(model: nn.Module) -> Iterator[nn.Module]:
    """The model in eval mode, under random numbers of its own; afterwards, also after an error, all is as before.

    Put back bit by bit: the global generators of torch (CPU, and every CUDA device once CUDA is in use), numpy and
    python; the training mode of each module; every buffer that changed, in its own storage; and the weights of
    embeddings that renormalise themselves when they are read (`max_norm`). What did not change is not written to.

    Raises ScoreError, the caller's fault, for a lazy module that has seen no batch yet: its first pass makes weights.
    """
    refuse_unready(model)
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(module, dict(module._buffers.items())) for module in model.modules()]
    copies = [(tensor, tensor.detach().clone()) for tensor in _may_change(model)]
    with own_generators():
        try:
            for module, _ in modes:
                module.training = False  # not .eval(): some models override it, and merge weights there
            yield model
        finally:
            for module, mode in modes:
                module.training = mode
            for module, before in buffers:
                _put_back_names(module, before)
            for tensor, copy in copies:
                _put_back_values(tensor, copy)


def refuse_unready(model: nn.Module) -> None:
    """ScoreError where a weight or buffer does not exist before the first batch, or the model cannot be looked into."""
    if isinstance(model, torch.jit.ScriptModule):
        raise ScoreError(
            "the model is compiled by torch.jit, whose layers cannot be looked into; pass the module it was made from"
        )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ScoreError(f"{name} is not initialised (a lazy module); run one batch through the model first")


@contextmanager
def own_generators() -> Iterator[None]:
    """Random draws inside leave the global generators as they were."""
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if in_use else []
    of_numpy, of_python = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        np.random.set_state(of_numpy)
        random.setstate(of_python)


def _may_change(model: nn.Module) -> list[torch.Tensor]:
    renormalised = [
        module.weight
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None
    ]
    return [*model.buffers(), *renormalised]


def _put_back_names(module: nn.Module, before: dict[str, torch.Tensor | None]) -> None:
    """The tensors that were this module's buffers are so again, also where the pass put others in their place."""
    if isinstance(module, torch.jit.ScriptModule):
        for name, tensor in before.items():
            setattr(module, name, tensor)
        return
    now = module._buffers
    if list(now) != list(before) or any(now[name] is not tensor for name, tensor in before.items()):
        now.clear()
        now.update(before)


@torch.no_grad()
def _put_back_values(tensor: torch.Tensor, copy: torch.Tensor) -> None:
    if tensor.shape != copy.shape or tensor.dtype != copy.dtype:
        tensor.data = copy
    elif not torch.equal(tensor, copy):
        tensor.copy_(copy)
