"""A batch that is fetched between a forward pass and its backward pass: both are in the update."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import fgtrac

ROWS, BATCH = 24, 4


@pytest.mark.matrix("Updates", "the next batch fetched between forward and backward, one loss", attribution="exact")
@pytest.mark.parametrize("backward", ["one", "two"])
@pytest.mark.parametrize("models", [1, 2])
def test_what_is_fetched_between_takes_nothing_from_the_forward_pass_before(
    tmp_path: Path, models: int, backward: str
) -> None:
    named = {"a": torch.arange(float(ROWS)).reshape(ROWS, 1), "b": -torch.arange(float(ROWS)).reshape(ROWS, 1)}
    data = {name: TensorDataset(rows) for name, rows in named.items()}
    first, second = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    both = [first, second if models == 2 else first]
    optimizer = torch.optim.SGD([*first.parameters(), *second.parameters()], lr=1e-5)
    truth: list[set[str]] = []
    with fgtrac.start_run(tmp_path / "a", ids="public", strict=True) as run:
        for name, rows in data.items():
            run.register(rows, name=name, role="train")
        a, b = (run.watch(DataLoader(rows, batch_size=BATCH, shuffle=True)) for rows in data.values())
        others = iter(b)
        for (x,) in a:
            loss = both[0](x).sum()
            (y,) = next(others)
            more = both[1](y).sum()
            optimizer.zero_grad()
            if backward == "one":
                (loss + more).backward()
            else:
                loss.backward()
                more.backward()
            optimizer.step()
            truth.append({f"a:{int(v)}" for v in x} | {f"b:{-int(v)}" for v in y})
    trace = fgtrac.open(tmp_path / "a.trace")
    for name in (f"{which}:{row}" for which in "ab" for row in range(ROWS)):
        told = [(e.step, e.details["attribution"]) for e in trace.history(name).events if e.kind == "used"]
        assert told == [(step, "exact") for step, rows in enumerate(truth, 1) if name in rows]


@pytest.mark.matrix("Updates", "losses of two consecutive batches of one loader summed", attribution="exact")
def test_losses_of_consecutive_batches_are_one_update_of_both(tmp_path: Path) -> None:
    data, model = TensorDataset(torch.arange(float(ROWS)).reshape(ROWS, 1)), torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
    truth: dict[int, int] = {}
    with fgtrac.start_run(tmp_path / "a", ids="public", strict=True) as run:
        run.register(data, name="a", role="train")
        loss, kept = torch.zeros(()), []
        for number, (x,) in enumerate(run.watch(DataLoader(data, batch_size=BATCH, shuffle=True))):
            loss = loss + model(x).sum()
            kept += [int(v) for v in x]
            if number % 2:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                truth |= dict.fromkeys(kept, number // 2 + 1)
                loss, kept = torch.zeros(()), []
    trace = fgtrac.open(tmp_path / "a.trace")
    for row in range(ROWS):
        told = [(e.step, e.details["attribution"]) for e in trace.history(f"a:{row}").events if e.kind == "used"]
        assert told == [(truth[row], "exact")]
