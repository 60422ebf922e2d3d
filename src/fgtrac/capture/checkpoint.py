"""Model states: the canonical bytes of a state dict, and the rule that decides which ones are kept."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import save


def state_bytes(model: torch.nn.Module) -> bytes:
    """The safetensors file of every tensor in the model's state dict, by name; copied, so training may go on.

    Byte for byte the same for the same tensors. Anything in the state that is no tensor is left out.
    """
    tensors = {n: t for n, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(tensors.items())})


class KeepImproved:
    """Keep a checkpoint where the validation loss fell by at least `share` of its value since the last one kept."""

    def __init__(self, share: float = 0.01) -> None:
        if not 0 <= share < 1:
            raise ValueError(f"keep_improvement is {share}; it is a share of the loss, from 0 up to but not 1")
        self.share = share
        self.best: float | None = None

    def decide(self, val_loss: float | None) -> tuple[bool, str]:
        """Whether to keep this one, and the rule in words. A checkpoint without a loss is always kept."""
        if val_loss is None:
            return True, "kept: no validation loss was given"
        if self.best is None:
            self.best = val_loss
            return True, "kept: the first with a validation loss"
        if val_loss <= self.best - self.share * abs(self.best):
            words = f"kept: {val_loss:.6g} is at least {self.share:.3g} below {self.best:.6g}"
            self.best = val_loss
            return True, words
        return False, f"dropped: {val_loss:.6g} is not {self.share:.3g} below {self.best:.6g}"


def loss_of(value: Any) -> float | None:
    """A validation loss as a float; a one-element tensor is read. ValueError for NaN or infinity."""
    if value is None:
        return None
    loss = float(value)
    if loss != loss or loss in (float("inf"), float("-inf")):
        raise ValueError(f"val_loss is {loss}; give a finite number, or None where there is none")
    return loss
