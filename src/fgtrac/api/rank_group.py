"""Which processes are the ranks of one training, as torch.distributed or the caller says, and what folders they see."""

from __future__ import annotations

import datetime
import os
from collections import Counter
from pathlib import Path
from typing import Any

import torch.distributed as dist

from fgtrac.api.adding import await_idle
from fgtrac.api.ranks import BEGIN_WAIT_S, Ranks
from fgtrac.errors import CaptureError
from fgtrac.store import durable
from fgtrac.store.folder_store import FolderStore

_starts: Counter[str] = Counter()  # runs begun in this process, by the trace's name


def find_ranks(folder: Path, rank: int | None, world_size: int | None, *, gather: bool) -> Ranks | None:
    """This process's rank among those that record `folder` together; None where it records alone.

    ValueError for a rank that is none of so many, and for `gather` without a process group.
    """
    if (rank is None) != (world_size is None) and world_size != 1:
        raise ValueError(f"rank={rank} and world_size={world_size} go together; give both, or neither")
    is_grouped = dist.is_available() and dist.is_initialized()
    if world_size is None and is_grouped:
        mine, count = dist.get_rank(), dist.get_world_size()
    else:
        mine, count = rank or 0, 1 if world_size is None else world_size
    if not 0 <= mine < count:
        raise ValueError(f"rank={mine} of world_size={count}; ranks are counted from 0")
    if count == 1 and gather and world_size is None and not is_grouped:
        raise ValueError("gather=True needs torch.distributed; initialise its process group first")
    if count == 1:
        return None
    if world_size is not None:
        if gather:
            raise ValueError("gather=True needs torch.distributed; initialise its process group, without rank=")
        store = FolderStore(folder.with_suffix(".ranks"), keeps=mine == 0)
        if mine == 0:
            await_idle(folder / "journal")
            store.clear()  # of what an earlier run has left
        return Ranks(mine, count, store)
    _starts[folder.name] += 1
    common = dist.distributed_c10d._get_default_store()  # there is no public way to it in torch 2.6 to 2.13
    prefix = f"fgtrac/{folder.name}/{_starts[folder.name]}"
    return Ranks(mine, count, dist.PrefixStore(prefix, common), gathers=gather)  # type: ignore[attr-defined]


def see_one_folder(folder: Path) -> bool:
    """Whether all ranks of the initialised process group see the same folder under this path; every one of them asks.
    CaptureError where one of them does not within ten minutes."""
    rank, count = dist.get_rank(), dist.get_world_size()
    _starts["folder"] += 1  # no trace's name: these end in .trace
    common = dist.distributed_c10d._get_default_store()
    store: Any = dist.PrefixStore(f"fgtrac/folder/{_starts['folder']}", common)  # type: ignore[attr-defined]
    waited = datetime.timedelta(seconds=BEGIN_WAIT_S)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        probe = folder / f".fgtrac-{os.urandom(8).hex()}"
        if rank == 0:
            durable.create_file(probe, b"", mode=0o600)
            store.set("probe", probe.name.encode())
        store.wait(["probe"], waited)
        there = (folder / bytes(store.get("probe")).decode()).exists()
        store.set(f"sees/{rank}", b"yes" if there else b"no")
        answers = [f"sees/{n}" for n in range(count)]
        store.wait(answers, waited)
        if rank == 0:
            durable.remove(probe)
        return all(bytes(store.get(answer)) == b"yes" for answer in answers)
    except RuntimeError as error:
        raise CaptureError(f"the ranks cannot ask each other what folders they see: {error!s:.200}") from error
