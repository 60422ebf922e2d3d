"""Not a test: trains under trace in forked children and kills them with SIGKILL, as the test beside it asks.

    python traced_runs.py FOLDER MOMENTS.json

Reads a list of [name, after, delay_s, inside]: kill child `name` after its report number `after` and `delay_s` more
seconds, or with `inside` 1 or more let it die by itself at that call to a rename inside a seal. Prints one JSON line
a child: what it had reported.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from fgtrac.api.run import start_run
from fgtrac.commit import sequencer
from fgtrac.commit.signer import Signer
from fgtrac.store import durable
from fgtrac.tlog.note import parse_note, parse_tree_head

EPOCHS = 3


def child(folder: Path, pipe: int, inside: int) -> None:
    """One traced training run with two workers, that reports what it has done on the pipe."""
    report = lambda *words: os.write(pipe, (" ".join(map(str, words)) + "\n").encode())  # noqa: E731
    adopt = Signer.adopt

    def reporting_adopt(self: Signer, note: bytes) -> None:
        head = parse_tree_head(parse_note(note).text)
        report("signed", head.size, head.root.hex())
        adopt(self, note)

    Signer.adopt = reporting_adopt
    if inside:
        die_inside_a_seal(inside, report)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = TensorDataset(torch.randn(96, 4), torch.randint(0, 2, (96,)))
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    on_flush = lambda seq: report("flushed", seq)  # noqa: E731
    with start_run(folder, flush_interval_s=0.02, sync_interval_s=0.1, seal_interval_s=0, on_flush=on_flush) as run:
        loader = run.watch(DataLoader(data, batch_size=8, shuffle=True, num_workers=2), role="train")
        for _ in range(EPOCHS):
            for x, y in loader:
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                report("step", run.step)
                time.sleep(0.002)
            run.checkpoint(model, optimizer)
            report("checkpoint", run.step)
    report("closed")


def die_inside_a_seal(calls: int, report) -> None:
    """SIGKILL to this process at the given call to a rename inside a seal."""
    execute, rename = sequencer._execute, durable._rename
    state = {"inside": False, "left": calls}

    def executing(*arguments):
        state["inside"] = True
        try:
            return execute(*arguments)
        finally:
            state["inside"] = False

    def renaming(source: Path, target: Path) -> None:
        if state["inside"]:
            state["left"] -= 1
            if state["left"] == 0:
                report("inside", target.name)
                os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    sequencer._execute, durable._rename = executing, renaming


def run_and_kill(folder: Path, after: int, delay_s: float, inside: int) -> list[str]:
    """Fork one run, kill it at its moment, return its whole report."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.setsid()
        code = 1
        try:
            child(folder, writing, inside)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    lines: list[str] = []
    with os.fdopen(reading) as stream:
        for line in stream:
            lines.append(line.strip())
            if not inside and sum(item.startswith("step") for item in lines) == after:
                time.sleep(delay_s)
                os.kill(pid, signal.SIGKILL)
                after = -1
            if lines[-1].startswith("inside") or after == -1:
                break
        os.waitpid(pid, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # its two workers
        lines += [line.strip() for line in stream]
    return lines


def main() -> None:
    folder, moments = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    for name, after, delay_s, inside in moments:
        lines = run_and_kill(folder / name, after, delay_s, inside)
        print(json.dumps([name, lines]), flush=True)


if __name__ == "__main__":
    main()
