"""Small runs whose orders are announced, and lies about what was delivered, for tests of replay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    TensorDataset,
)

from fgtrac.api.audit import audit_trace
from fgtrac.api.replay import replay_demand
from fgtrac.api.run import Run, start_run
from fgtrac.commit.signer import load_key
from fgtrac.demo.forge import all_entries, reseal
from fgtrac.events.schema import decode_event, encode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.report import Finding, Report, Verdict

ROWS = 40
DATA = TensorDataset(torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(1)), torch.arange(ROWS) % 3)
Options = dict[str, Any]
Event = dict[str, Any]
HOLDS, REFUTED, CANNOT_TELL = Verdict.HOLDS, Verdict.REFUTED, Verdict.CANNOT_TELL


def begin(folder: Path, **options: Any) -> Run:
    """A run that writes the batches of an epoch as one entry, however slow the machine."""
    return start_run(folder / "run", key=folder / "key.pem", **{"flush_interval_s": 3600.0} | options)


def train(loader: Iterable[Any], epochs: int = 2, stop: int | None = None) -> None:
    """An ordinary loop; each epoch ends before batch `stop`."""
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(epochs):
        for number, (inputs, labels) in enumerate(loader):
            if number == stop:
                break
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs.reshape(-1, 4)), labels.reshape(-1)).backward()
            optimizer.step()


def report(folder: Path, vault: Path | None = None) -> Report:
    trace = TraceDir.open(folder / "run.trace")
    return audit_trace(trace, None, demands=[replay_demand(trace.path, identity(trace), vault)])


def identity(trace: TraceDir) -> bytes:
    return bytes(decode_event(all_entries(trace)[0])["trace"])


def replayed(folder: Path, vault: Path | None = None) -> Finding:
    return next(f for f in report(folder, vault).findings if f.check == "samplers")


def forge(folder: Path, change: Callable[[list[Event]], Sequence[Event]]) -> None:
    """Change the entries of a sealed trace and sign it again with its own key."""
    trace = TraceDir.open(folder / "run.trace")
    events = [decode_event(entry) for entry in all_entries(trace)]
    reseal(trace, [encode_event(e) for e in change(events)], load_key(folder / "key.pem"))


def rewrite(folder: Path, kind: str, change: Callable[[Event], Event]) -> None:
    """Change every entry of a kind."""
    forge(folder, lambda events: [change(e) if e["kind"] == kind else e for e in events])


Batches = list[tuple[dict[str, int], list[int]]]  # of one use entry: its columns, its samples


def batches_of(event: Event) -> Batches:
    stops = np.cumsum(event["count"]).tolist()
    names = ("epoch", "batch", "step", "status", "attribution")
    return [
        ({n: int(event[n][i]) for n in names}, event["ordinals"][stop - int(event["count"][i]) : stop].tolist())
        for i, stop in enumerate(stops)
    ]


def with_batches(event: Event, batches: Batches) -> Event:
    columns = {n: np.array([b[n] for b, _ in batches], event[n].dtype) for n in batches[0][0]}
    counts = np.array([len(samples) for _, samples in batches], "<u4")
    ordinals = np.array([o for _, samples in batches for o in samples], "<u4")
    return event | columns | {"count": counts, "ordinals": ordinals}


def lie(folder: Path, change: Callable[[Batches], Any], epoch: int = 0) -> None:
    """Change the batches of one epoch of loader 1, in place."""

    def changed(event: Event) -> Event:
        batches = batches_of(event)
        mine = [b for b in batches if b[0]["epoch"] == epoch]
        if event["loader"] == 1 and mine:
            change(mine)
        earlier, later = ([b for b in batches if is_there(b[0]["epoch"])] for is_there in (epoch.__gt__, epoch.__lt__))
        return with_batches(event, [*earlier, *mine, *later])

    rewrite(folder, "use", changed)


def remove_a_sample(batches: Batches) -> None:
    del batches[4][1][3]


def exchange_a_sample(batches: Batches) -> None:
    batches[3][1][0] = batches[4][1][0]
