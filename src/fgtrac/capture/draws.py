"""The order that torch's own samplers draw, made again from what was noted before they drew.

Each function mirrors one `__iter__` of torch/utils/data/sampler.py or distributed.py, call by call: the same calls on a
generator in the same state draw the same numbers. The process's own generators are not touched.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Positions = NDArray[np.int64]
VERSION = str(torch.__version__)
MACHINE = platform.machine()
CHUNK = 32  # RandomSampler with replacement draws so many at a time


def draw(sampler: str, said: Mapping[str, Any], origin: Mapping[str, Any], listed: Any) -> tuple[Positions, int]:
    """The positions that a pass draws, and how many of them are drawn at once at its beginning: what comes after those
    is as predicted only if nobody else used the generator meanwhile.

    `said`, `origin` and `listed` are as in `fgtrac.capture.sampler.Order`, those of `said` checked. ValueError where
    the origin is missing, and for a state, a seed or weights that torch refuses.
    """
    try:
        return _DRAWS[sampler](said, origin, listed)
    except KeyError as error:
        raise ValueError(f"its state has no {error.args[0]}, which was not recorded") from error
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"torch cannot draw from its state: {str(error).splitlines()[0]:.120}") from error


def _at(state: Any) -> torch.Generator:
    """A generator in that state. TypeError for what is no bytes, RuntimeError for what is no state."""
    if type(state) is not bytes:
        raise TypeError(f"a generator's state is bytes, not {type(state).__name__}")
    generator = torch.Generator()
    generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    return generator


def _certain(drawn: torch.Tensor) -> tuple[Positions, int]:
    return drawn.numpy(), len(drawn)


def _sequential(said: Mapping[str, Any], origin: Mapping[str, Any], listed: Any) -> tuple[Positions, int]:
    return _certain(torch.arange(said["rows"]))


def _subset(said: Mapping[str, Any], origin: Mapping[str, Any], listed: Any) -> tuple[Positions, int]:
    order = torch.randperm(len(listed), generator=_at(origin["generator"])).numpy()
    return listed.astype(np.int64)[order], len(order)


def _weighted(said: Mapping[str, Any], origin: Mapping[str, Any], listed: Any) -> tuple[Positions, int]:
    weights, generator = torch.from_numpy(listed.astype(np.float64)), _at(origin["generator"])
    return _certain(torch.multinomial(weights, said["num_samples"], said["replacement"], generator=generator))


def _random(said: Mapping[str, Any], origin: Mapping[str, Any], listed: Any) -> tuple[Positions, int]:
    n, wanted, generator = said["rows"], said["num_samples"], _at(origin["generator"])
    seeded = said["generator"] == "global"
    if seeded:
        seed = int(torch.empty((), dtype=torch.int64).random_(generator=generator).item())
        generator = torch.Generator()
        generator.manual_seed(seed)
    if said["replacement"]:
        sizes = [CHUNK] * (wanted // CHUNK) + [wanted % CHUNK]
        parts = [torch.randint(high=n, size=(size,), dtype=torch.int64, generator=generator) for size in sizes]
    else:
        parts = [torch.randperm(n, generator=generator) for _ in range(wanted // n)]
        parts.append(torch.randperm(n, generator=generator)[: wanted % n])
    drawn = torch.cat(parts).numpy()
    return drawn, len(drawn) if seeded else len(parts[0])


def _distributed(said: Mapping[str, Any], origin: Mapping[str, Any], listed: Any) -> tuple[Positions, int]:
    n, replicas, rank = said["rows"], said["num_replicas"], said["rank"]
    order = np.arange(n)
    if said["shuffle"]:
        generator = torch.Generator()
        generator.manual_seed(origin["seed"] + origin["epoch"])
        order = torch.randperm(n, generator=generator).numpy()
    cut = said["sampler_drop_last"] and n % replicas != 0
    each = math.ceil((n - replicas) / replicas) if cut else math.ceil(n / replicas)
    mine: Positions = np.resize(order, each * replicas)[rank::replicas]  # filled up from the beginning, or cut
    return mine, len(mine)


_DRAWS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any], Any], tuple[Positions, int]]] = {
    "SequentialSampler": _sequential,
    "RandomSampler": _random,
    "WeightedRandomSampler": _weighted,
    "SubsetRandomSampler": _subset,
    "DistributedSampler": _distributed,
}
