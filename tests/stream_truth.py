"""Data sets that are streams, whose items say who they are; also for workers that know nothing of the test."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info


class Numbers(IterableDataset[Any]):
    """Yields (features, i), each worker its share; in other orders in other passes."""

    def __init__(self, rows: int, *, changes: bool = False) -> None:
        self.features = torch.randn(rows, 4, generator=torch.Generator().manual_seed(5))
        self.changes = changes

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        order = torch.randperm(len(self.features)).tolist() if info is None else range(len(self.features))
        for row in order[first::step]:
            noise = torch.rand(4) if self.changes else 0.0
            yield self.features[row] + noise, row


class Batched(Numbers):
    """Yields ready batches of three."""

    def __iter__(self) -> Iterator[Any]:
        rows = list(super().__iter__())
        for start in range(0, len(rows), 3):
            some = rows[start : start + 3]
            yield torch.stack([features for features, _ in some]), torch.tensor([who for _, who in some])


def number_of(sample: Any) -> int:
    """The key of a sample of Numbers."""
    return int(sample[1])


def numbers_of(batch: Any) -> list[int]:
    """The keys of a batch of Batched."""
    found: list[int] = batch[1].tolist()
    return found


def write_shards(folder: Path, shards: int = 2, rows: int = 6) -> list[str]:
    """WebDataset shards with the same keys in each; `who` is a number that tells which sample it is."""
    paths = []
    for shard in range(shards):
        path = folder / f"shard-{shard}.tar"
        with tarfile.open(path, "w") as archive:
            for row in range(rows):
                who = 100 * shard + row
                for suffix, values in (("features.npy", np.full(4, who, np.float32)), ("who.npy", np.array(who))):
                    file = io.BytesIO()
                    np.save(file, values)
                    info = tarfile.TarInfo(f"sample{row}.{suffix}")
                    info.size = file.tell()
                    file.seek(0)
                    archive.addfile(info, file)
        paths.append(str(path))
    return paths


def from_shards(samples: list[Any]) -> Any:
    """A collate function for decoded samples of such shards."""
    return (
        torch.stack([torch.as_tensor(sample["features.npy"]) / 100 for sample in samples]),
        torch.tensor([int(sample["who.npy"]) for sample in samples]),
    )
