"""The order that torch's own samplers draw, made again from what was noted before they drew.

Each function mirrors one `__iter__` of torch/utils/data/sampler.py or distributed.py, call by call: the same calls on a
generator in the same state draw the same numbers. The process's own generators are not touched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Positions = NDArray[np.int64]
VERSION = str(torch.__version__)
CHUNK = 32  # RandomSampler with replacement draws so many at a time


def draw(sampler: str, said: Mapping[str, Any], origin: Mapping[str, Any], listed: Any) -> tuple[Positions, int]:
    """The positions that a pass draws, and how many of them are drawn at once at its beginning: what comes after those
    is as predicted only if nobody else used the generator meanwhile.

    `said`, `origin` and `listed` are as in `fgtrac.capture.sampler.Order`, their types and sizes checked. ValueError
    for a generator's state that torch refuses, and for weights that it does.
    """
    if sampler == "SequentialSampler":
        return _certain(torch.arange(said["rows"]))
    if sampler == "DistributedSampler":
        return _distributed(said, origin)
    generator = torch.Generator()
    try:
        generator.set_state(torch.frombuffer(bytearray(origin["generator"]), dtype=torch.uint8))
        if sampler == "SubsetRandomSampler":
            listed_at, _n = _certain(torch.randperm(len(listed), generator=generator))
            return np.asarray(listed, dtype=np.int64)[listed_at], len(listed)
        if sampler == "WeightedRandomSampler":
            weights = torch.from_numpy(np.array(listed, dtype=np.float64))
            return _certain(torch.multinomial(weights, said["num_samples"], said["replacement"], generator=generator))
    except RuntimeError as error:
        raise ValueError(f"torch cannot draw from it: {str(error).splitlines()[0]:.120}") from error
    return _random(said, generator)


def _certain(drawn: torch.Tensor) -> tuple[Positions, int]:
    return drawn.numpy(), len(drawn)


def _random(said: Mapping[str, Any], generator: torch.Generator) -> tuple[Positions, int]:
    n, wanted = said["rows"], said["num_samples"]
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


def _distributed(said: Mapping[str, Any], origin: Mapping[str, Any]) -> tuple[Positions, int]:
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
