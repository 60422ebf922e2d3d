"""Scoring beside the training: factors at each kept checkpoint, and contributions toward the validation set."""

from __future__ import annotations

import torch

from fgtrac.score.factor_files import State


class Scoring:
    """What `run.score_with` asked for."""

    def remark(self) -> str:
        """What the log says of the next kept checkpoint beside its reason."""
        return ""

    def at_checkpoint(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None, state: State) -> None:
        """A checkpoint was kept."""
