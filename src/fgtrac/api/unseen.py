"""Explaining a batch of unseen data: its gradients at every kept state, by a copy of the model. Needs torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from fgtrac.api.explain import Explainer
from fgtrac.api.explanation import Explanation
from fgtrac.api.groups import check_group
from fgtrac.api.ledger import read_state
from fgtrac.api.targets import Target
from fgtrac.capture.checkpoint import load_state
from fgtrac.score.cache import Cache
from fgtrac.score.calls import unwrapped
from fgtrac.score.factor_files import State
from fgtrac.score.factors import FactorPass, Pass
from fgtrac.score.gradients import Gradients
from fgtrac.score.kernel import Prepared, Progress
from fgtrac.score.methods import Method, group_size, prepare
from fgtrac.score.untouched import untouched


def explain_batch(
    explainer: Explainer,
    batch: Any,
    model: Any,
    loss: Callable[..., Any],
    forward: Callable[[Any, Any], Any] | None,
    method: Method,
    *,
    k: int = 10,
    checkpoints: Sequence[int] | None = None,
    by: str | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """The answer toward each sample of a batch. The model stays as it is; TypeError for what is none, ScoreError where
    its architecture is not that of the kept states, or its layers are not those that were scored."""
    check_group(by)
    cache = explainer.cache(checkpoints)
    targets, gradients = read_batch(explainer, cache, batch, model, loss, forward)
    return explainer.answer(cache, targets, prepare_batch(cache, gradients, method, [cache]), method, k, by, progress)


def prepare_batch(
    cache: Cache, gradients: Sequence[tuple[Gradients, ...]], method: Method, together: Sequence[Cache]
) -> Iterator[tuple[list[int], list[Prepared]]]:
    """As `prepare_targets`, of gradients at every state; in groups that stay within what all of `together` may hold."""
    m = len(gradients[0][0])
    size = group_size(together, m, method)
    for start in range(0, m, size):
        some = slice(start, min(m, start + size))
        mine = [[g.rows(some) for g in state] for state in gradients]
        yield list(range(m))[some], [prepare(cache, k, state, method) for k, state in enumerate(mine)]


def read_batch(
    explainer: Explainer,
    cache: Cache,
    batch: Any,
    model: Any,
    loss: Callable[..., Any],
    forward: Callable[[Any, Any], Any] | None,
) -> tuple[list[Target], list[tuple[Gradients, ...]]]:
    """Each sample of a batch as a target, and their gradients at every state. Errors as `explain_batch`."""
    passes = [_pass(explainer, cache, state, copied(model), batch, loss, forward) for state in cache.states]
    return _targets(passes[0]), [found.gradients for found in passes]


def copied(model: Any) -> torch.nn.Module:
    """A copy to load states into, without the wrapper of a compiled or distributed model. TypeError for no model."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model= takes a torch.nn.Module, not {type(model).__name__}")
    return copy.deepcopy(unwrapped(model))


def _pass(
    explainer: Explainer,
    cache: Cache,
    state: State,
    model: torch.nn.Module,
    batch: Any,
    loss: Callable[..., Any],
    forward: Callable[[Any, Any], Any] | None,
) -> Pass:
    load_state(model, read_state(explainer.trace, state), f"the checkpoint of step {state.step}")
    with untouched(model):
        return FactorPass.prepare(model, batch, loss=loss, forward=forward, layer=cache.layers)(batch)


def _targets(found: Pass) -> list[Target]:
    """A target for each sample of the batch."""
    labels = [None] * len(found.losses) if found.labels is None else found.labels.tolist()
    return [
        Target(f"sample {i} of the batch", {"unseen": np.array([i])}, label, is_single=True)
        for i, label in enumerate(labels)
    ]
