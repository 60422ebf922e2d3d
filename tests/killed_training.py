"""A training script that is killed in the middle of an epoch and started again, for test_resumes.py: `python
killed_training.py FOLDER KIND WORKERS KILL_AT`. It writes down which rows each update had, as the batches tell."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Sampler, TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

import fgtrac

ROWS, BATCH, EPOCHS, STEPS_A_CHECKPOINT = 44, 4, 2, 3
SAVED_LAST = 6


class Shuffled(Sampler[int]):
    """An order of the user's own, that can be told to begin later."""

    def __init__(self, begin: int) -> None:
        self.begin = begin

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(5)).tolist()[self.begin :]
        self.begin = 0
        return iter(order)


def main(folder: Path, kind: str, workers: int, kill_at: int) -> None:
    data = TensorDataset(torch.arange(float(ROWS)).reshape(ROWS, 1))
    draws = torch.Generator().manual_seed(3)
    make = StatefulDataLoader if kind == "stateful" else DataLoader
    more = {"multiprocessing_context": "fork"} if workers else {}
    saved = folder / "state.pt"
    if kind.startswith("sampler"):  # "sampler SKIP": one that goes on behind so many rows
        begin = int(kind.split()[1]) if saved.exists() else 0
        loader = DataLoader(data, batch_size=BATCH, sampler=Shuffled(begin))
    else:
        loader = make(data, batch_size=BATCH, shuffle=True, num_workers=workers, generator=draws, **more)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    truth = (folder / "truth.txt").open("a")
    state = torch.load(saved) if saved.exists() else {"epoch": 0, "step": 0}
    with fgtrac.start_run(folder / "run", ids="public", resume=saved.exists(), keep="all") as run:
        run.watch(loader, role="train")
        if state["step"]:
            model.load_state_dict(state["model"])
            if kind == "stateful":
                loader.load_state_dict(state["loader"])
        step = run.step
        assert step == state["step"]
        first = state["epoch"] + (kind == "next epoch" and step > 0)
        epochs = 1 if kind.startswith("sampler") else EPOCHS
        for epoch in range(first, epochs):
            for (batch,) in loader:
                optimizer.zero_grad()
                model(batch / ROWS).mean().backward()
                optimizer.step()
                step += 1
                print(step, epoch, *(int(v) for v in batch), file=truth, flush=True)
                if step % STEPS_A_CHECKPOINT == 0:
                    run.checkpoint(model, optimizer)
                    loader_state = loader.state_dict() if kind == "stateful" else None
                    now = {"epoch": epoch, "step": step, "model": model.state_dict(), "loader": loader_state}
                    torch.save(now, folder / "new.pt")
                    (folder / "new.pt").rename(saved)
                if step == kill_at == SAVED_LAST:  # it saved, and was asked to go
                    return
                if step == kill_at:
                    run._recorder.flush()  # so that the log has updates that the saved state does not
                    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
