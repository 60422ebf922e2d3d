"""What the features of other nodes do to one node's loss through message passing, at one state of a model.

Two numbers a node, both about putting the baseline in the place of its features, all else as it is. Above 0: its
features as they are lower the loss.

occlusion   the loss with the baseline minus the loss as it is: exact for this state, this baseline and this node alone,
            but for rounding; one forward pass a node (arXiv:1311.2901 section 4.2, of parts of an image)
estimate    the gradient of the loss in its features times (baseline - features): the first-order Taylor term of the
            occlusion; one backward pass for all nodes (arXiv:1711.06104 section 2, "gradient * input", with a baseline)

Neither is a training contribution: nothing here says what a training step on a node would do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fgtrac.errors import ScoreError
from fgtrac.score.gradients import Floats

Features = Mapping[str, torch.Tensor]  # name -> (nodes, ...), of floating point numbers
LossOf = Callable[[Features], torch.Tensor]  # the target's loss, one number


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """`loss` as it is; of each of n nodes `values` (n,) float32, and `acts` (n,) bool: its features have a gradient."""

    loss: float
    values: Floats
    acts: NDArray[np.bool_]


def estimate(loss_of: LossOf, features: Features, baseline: Features) -> Estimates:
    """The estimate of every node. `baseline` has one node's features under each name.

    ScoreError, the caller's fault, where the loss does not depend on some of the features, or also on the tensors that
    these were taken from, or is not finite.
    """
    leaves = {name: values.detach().clone().requires_grad_() for name, values in features.items()}
    with torch.inference_mode(False), torch.enable_grad(), _watched(features) as originals:
        loss = loss_of(_copied(leaves))
        found: tuple[torch.Tensor | None, ...] = (None,) * len(leaves)
        if loss.requires_grad:
            found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, retain_graph=True)
            beside = torch.autograd.grad(loss, list(originals.values()), allow_unused=True) if originals else ()
            for name, read in zip(originals, beside, strict=True):
                if read is not None:
                    raise ScoreError(
                        f"forward also reads {name!r} from elsewhere than the graph that it is given, where nothing is "
                        "replaced; let it read all of it from there"
                    )
    n = len(next(iter(features.values())))
    values, acts = np.zeros(n, dtype=np.float64), np.zeros(n, dtype=np.bool_)
    for (name, given), gradient in zip(features.items(), found, strict=True):
        if gradient is None:
            raise ScoreError(
                f"the loss does not depend on {name!r}: let forward read it from the graph that it is given, with "
                "gradients on, or leave it out of features"
            )
        terms = (gradient * (baseline[name] - given)).reshape(n, -1).double().sum(1)
        values += terms.detach().cpu().numpy()
        acts |= gradient.reshape(n, -1).any(1).cpu().numpy()
    if not (np.isfinite(values).all() and torch.isfinite(loss)):
        raise ScoreError("NaN or infinity in the loss of the node, or in its gradient: look at its data")
    return Estimates(float(loss.detach()), values.astype(np.float32), acts)


def _copied(features: Features) -> Features:
    """For one pass, which may write into them."""
    return {name: values.clone() for name, values in features.items()}


@contextmanager
def _watched(features: Features) -> Iterator[Features]:
    """These very tensors with gradients, meanwhile, where they can have some."""
    able = {name: values for name, values in features.items() if not values.is_inference()}
    plain = [values for values in able.values() if not values.requires_grad]
    for values in plain:
        values.requires_grad_()
    try:
        yield able
    finally:
        for values in plain:
            values.requires_grad_(False)


def occlude(
    loss_of: LossOf,
    features: Features,
    baseline: Features,
    nodes: NDArray[np.int64],
    estimates: Floats,
    advance: Callable[[int], None] = lambda more: None,
) -> Floats:
    """(len(nodes),) the occlusion of each of these nodes; `estimates` are theirs. `advance` is told of nodes done.

    ScoreError, the caller's fault, where the loss is another one at each pass, or a pass does not read the features.
    """
    scratch = {name: values.detach().clone() for name, values in features.items()}
    found = np.empty(len(nodes), dtype=np.float64)
    with torch.no_grad():
        plain = float(loss_of(_copied(scratch)))
        for place, node in enumerate(nodes.tolist()):
            for name, values in scratch.items():
                values[node] = baseline[name]
            found[place] = float(loss_of(_copied(scratch))) - plain
            for name, values in scratch.items():
                values[node] = features[name][node]
            advance(1)
        again = float(loss_of(_copied(scratch)))
    if not np.isfinite(found).all():
        raise ScoreError("NaN or infinity in the loss of the node where another's features are replaced")
    if abs(again - plain) > 1e-5 * abs(plain) + 1e-6:
        raise ScoreError(
            f"the loss of the node is {plain:.6g} in one pass and {again:.6g} in the next: the forward pass draws at "
            "random (neighbours, dropout), or keeps something; let it be the same each time"
        )
    if len(nodes) and not found.any() and np.abs(estimates).max() > 1e-4 * abs(plain) + 1e-4:
        raise ScoreError(
            "the loss has a gradient in the features, and stays the same where they are replaced: the model keeps what "
            "it read (a layer with cached=True); build it without"
        )
    return found.astype(np.float32)
