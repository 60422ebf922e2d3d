"""Trainings of several processes for tests: each rank is a process of its own, and tells what its batches held."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, Subset, TensorDataset

from fgtrac.api.run import Run, start_run

ROWS = 51
PATIENCE_S = 120.0
Trained = list[tuple[int, int, int, list[int]]]  # epoch, batch, step, rows: each batch that took part in an update


@dataclass(frozen=True)
class Plan:
    """What a rank does. `accumulate` batches make an update; `killed_at` is (rank, epoch, batch); of `uneven` data the
    first rank has more; `checkpoints` are by all ranks, by rank 0 alone, or by none."""

    record: bool = True
    workers: int = 0
    epochs: int = 2
    rows: int = ROWS
    accumulate: int = 1
    shuffles_anew: bool = True
    uneven: bool = False
    killed_at: tuple[int, int, int] | None = None
    checkpoints: str = "all"
    own_folders: bool = False
    grouped: bool = True
    options: dict[str, Any] = field(default_factory=dict)


def together(
    count: int, folder: Path, plan: Plan, act: Callable[..., Any] | None = None, method: str = "forkserver"
) -> list[Any]:
    """Run so many ranks to their ends: what each of them returned; of one that failed the error's text, of one that was
    killed None."""
    context: Any = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["fgtrac.api.run", "torch.nn.parallel", "torch.distributed"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes, processes = [], []
    for rank in range(count):
        mine, theirs = context.Pipe(duplex=False)
        work = (act or fit, rank, count, port, folder, plan, theirs)
        processes.append(context.Process(target=_rank, args=work, daemon=False))
        processes[-1].start()
        theirs.close()
        pipes.append(mine)
    try:
        return [_received(pipe) for pipe in pipes]
    finally:
        for process in processes:
            process.join(PATIENCE_S)
            process.kill()


def _received(pipe: Any) -> Any:
    try:
        return pipe.recv() if pipe.poll(PATIENCE_S) else "it hangs"
    except EOFError:
        return None


def _rank(act: Any, rank: int, count: int, port: int, folder: Path, plan: Plan, pipe: Any) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "FGTRAC_KEY": str(folder / "key.pem")}
    torch.set_num_threads(1)
    try:
        if plan.grouped:
            dist.init_process_group("gloo", rank=rank, world_size=count)
        pipe.send(act(rank, count, folder, plan))
    except BaseException as error:  # noqa: BLE001 - not swallowed: the test gets it
        pipe.send(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")


def begin(rank: int, folder: Path, plan: Plan) -> Run:
    """Start recording."""
    place = folder / str(rank) if plan.own_folders else folder
    place.mkdir(exist_ok=True)
    options: dict[str, Any] = plan.options | ({"rank": rank} if "rank" in plan.options else {})
    return start_run(place / "run", **options)


def data_of(plan: Plan) -> TensorDataset:
    """Row i holds i."""
    return TensorDataset(torch.arange(plan.rows, dtype=torch.float32)[:, None])


def fit(rank: int, count: int, folder: Path, plan: Plan) -> tuple[Trained, bytes]:
    """Train, and tell what each batch that took part held; and the weights' bytes."""
    torch.manual_seed(0)
    data = data_of(plan)
    mine = Subset(data, range(rank, plan.rows - 8 * rank, count)) if plan.uneven else data
    sampler: Any = None if plan.uneven else DistributedSampler(data, count, rank, seed=3)
    loader = DataLoader(mine, 4, sampler=sampler, num_workers=plan.workers, persistent_workers=plan.workers > 0)
    model: Any = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.Dropout(0.3), torch.nn.Linear(3, 1))
    if plan.grouped:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    run = begin(rank, folder, plan) if plan.record else None
    told: Trained = []
    with run or nullcontext():
        if run is not None:
            run.watch(loader, role="train")
        for epoch in range(plan.epochs):
            if sampler is not None and plan.shuffles_anew:
                sampler.set_epoch(epoch)
            with model.join() if plan.uneven else nullcontext():
                _epoch(rank, epoch, loader, model, optimizer, run, plan, told)
            if run is not None and plan.checkpoints in ("all", f"rank {rank}"):
                run.checkpoint(model, optimizer, val_loss=1 / (epoch + 1))
    return told, b"".join(p.detach().numpy().tobytes() for p in model.parameters())


def _epoch(
    rank: int, epoch: int, loader: Any, model: Any, optimizer: Any, run: Run | None, plan: Plan, told: Trained
) -> None:
    waiting: list[tuple[int, list[int]]] = []
    for batch, (values,) in enumerate(loader):
        waiting.append((batch, values.flatten().int().tolist()))
        is_full = len(waiting) == plan.accumulate
        with nullcontext() if is_full or not plan.grouped else model.no_sync():
            model(values).square().mean().backward()
        if plan.killed_at == (rank, epoch, batch):
            time.sleep(0.3)  # the others wait for its gradients meanwhile
            os.kill(os.getpid(), signal.SIGKILL)
        if is_full:
            optimizer.step()
            optimizer.zero_grad()
            told += [(epoch, n, run.step if run is not None else 0, rows) for n, rows in waiting]
            waiting.clear()
    optimizer.zero_grad()  # what is left over makes no update


def only_rank_0(rank: int, count: int, folder: Path, plan: Plan) -> None:
    """Rank 0 records, and rank 1 does not."""
    if rank == 0:
        begin(rank, folder, plan).close()


def other_data(rank: int, count: int, folder: Path, plan: Plan) -> None:
    """Both ranks register a data set of one name, and not of one length."""
    with begin(rank, folder, plan) as run:
        run.register(TensorDataset(torch.zeros(3 + rank, 1)))


def own_data(rank: int, count: int, folder: Path, plan: Plan) -> None:
    """Each rank registers one that is its own."""
    with begin(rank, folder, plan) as run:
        run.register(TensorDataset(torch.zeros(3, 1)), name=f"shard-{rank}", role="train")
