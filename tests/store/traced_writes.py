"""Not a test: one small traced run that counts the system calls made through store/durable.py, for strace to compare.

Prints {"write": n, "fsync": n, "rename": n, "unlink": n} of calls on files inside a trace.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

from fgtrac.api.run import start_run
from fgtrac.store import durable

counts: Counter[str] = Counter()


def counting(name: str, function):
    """`function`, counted where its first argument lies in a trace."""

    def counted(first, *rest):
        path = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else str(first)
        if ".trace/" in path or path.endswith(".trace"):
            counts[name] += 1
        return function(first, *rest)

    return counted


def main() -> None:
    durable._write = counting("write", durable._write)
    durable._fsync = counting("fsync", durable._fsync)
    durable._rename = counting("rename", durable._rename)
    durable._remove = counting("unlink", durable._remove)
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = TensorDataset(torch.randn(64, 4), torch.randint(0, 2, (64,)))
    with start_run(Path(sys.argv[1]), sync_interval_s=0.05, flush_interval_s=0.02) as run:
        for x, y in run.watch(DataLoader(data, batch_size=8, num_workers=2), role="train"):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        run.checkpoint(model, optimizer)
        run.predictions(data, model(data.tensors[0]))
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
