"""What the order of a loader's next pass comes from, read off before its sampler draws; no generator is disturbed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data import dataloader as torch_dataloader

from fgtrac.capture.draws import MACHINE, VERSION

SEEDABLE = "accelerate.data_loader.SeedableRandomSampler"
_OWN_ITERATORS = ("_SingleProcessDataLoaderIter", "_MultiProcessingDataLoaderIter")


@dataclass(slots=True)
class Order:
    """How one pass will be ordered. `sampler` is the class's name, with its module where the order cannot be drawn
    again: then nothing says what it comes from.

    `parameters` may be shown to anybody; `origin` decides the order (the generator's state, a seed); `listed` is what
    the sampler draws from: (n,) float64 weights, or (n,) uint32 positions.
    """

    sampler: str
    parameters: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    listed: NDArray[Any] | None = None


def read_order(iterator: Any, loader: DataLoader[Any]) -> Order:
    """The order of the pass that `iterator` is about to make over `loader`; call it just before the first index is
    drawn, when the seed for the workers has been drawn already."""
    if type(iterator).__name__ not in _OWN_ITERATORS or type(iterator).__module__ != torch_dataloader.__name__:
        return Order(_dotted(type(loader)))
    batches, sampler = loader.batch_sampler, loader.sampler
    batching: dict[str, Any] = {}
    if batches is not None:
        if type(batches) is not BatchSampler:
            return Order(_dotted(type(batches)))
        sampler = batches.sampler
        batching = {"batch_size": batches.batch_size, "drop_last": batches.drop_last}
    reader = _seedable if _dotted(type(sampler)) == SEEDABLE else _READERS.get(type(sampler))
    if reader is None:
        return Order(_dotted(type(sampler)))
    order: Order = reader(sampler)
    order.parameters |= {**batching, "torch": VERSION, "machine": MACHINE}
    if loader.num_workers and not loader.in_order:
        order.parameters["in_order"] = False
    return order


def _dotted(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _sequential(sampler: SequentialSampler) -> Order:
    return Order("SequentialSampler", {"rows": len(sampler.data_source)})


def _random(sampler: RandomSampler) -> Order:
    whose, origin = _generator_of(sampler)
    said = {"rows": len(sampler.data_source), "num_samples": sampler.num_samples, "replacement": sampler.replacement}
    return Order("RandomSampler", said | whose, origin)


def _seedable(sampler: Any) -> Order:
    """Accelerate's: as it begins it seeds a generator of its own, and then draws as its parent does."""
    order = _random(sampler)
    device = torch.get_default_device() if sampler.generator is None else sampler.generator.device
    seeded = torch.Generator().manual_seed(sampler.initial_seed + sampler.epoch).get_state().numpy().tobytes()
    return Order(
        order.sampler, order.parameters | {"generator": "own"}, {"generator": seeded} if device.type == "cpu" else {}
    )


def _distributed(sampler: DistributedSampler[Any]) -> Order:
    rows: Any = sampler.dataset
    said = {"rows": len(rows), "shuffle": bool(sampler.shuffle), "sampler_drop_last": bool(sampler.drop_last)}
    share = {"rank": int(sampler.rank), "num_replicas": int(sampler.num_replicas)}
    return Order("DistributedSampler", said | share, {"seed": int(sampler.seed), "epoch": int(sampler.epoch)})


def _weighted(sampler: WeightedRandomSampler) -> Order:
    whose, origin = _generator_of(sampler)
    weights = sampler.weights.detach().cpu().numpy().astype("<f8")
    said = {"rows": len(weights), "num_samples": sampler.num_samples, "replacement": sampler.replacement}
    return Order("WeightedRandomSampler", said | whose, origin, weights)


def _subset(sampler: SubsetRandomSampler) -> Order:
    whose, origin = _generator_of(sampler)
    listed = sampler.indices
    positions = np.asarray(listed.tolist() if isinstance(listed, torch.Tensor) else listed)
    if positions.dtype.kind not in "iu" or positions.ndim != 1 or positions.min(initial=0) < 0:
        return Order(_dotted(SubsetRandomSampler))  # from the end, or no numbers: the replay does not follow it
    return Order("SubsetRandomSampler", {"rows": len(positions)} | whose, origin, positions.astype("<u4"))


def _generator_of(sampler: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Whose generator the sampler draws from, and its state; no state where it is not the processor's."""
    own = sampler.generator
    device = torch.get_default_device() if own is None else own.device
    whose = {"generator": "global" if own is None else "own"}
    if device.type != "cpu":
        return whose, {}
    state = torch.get_rng_state() if own is None else own.get_state()
    return whose, {"generator": state.numpy().tobytes()}


_READERS: dict[type, Any] = {
    SequentialSampler: _sequential,
    RandomSampler: _random,
    DistributedSampler: _distributed,
    WeightedRandomSampler: _weighted,
    SubsetRandomSampler: _subset,
}
