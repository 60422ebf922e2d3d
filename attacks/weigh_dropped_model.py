"""Weigh a dropped model: modality weights are said to be those of a checkpoint that was not kept; or are invented.

Weights rest on a state that is kept, so that who has the data and the model's code can run it. That others are invented
shows there alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import TensorDataset

from fgtrac.api.run import start_run
from fgtrac.commit.keys import load_key
from fgtrac.demo.forge import all_entries, find, reseal_with
from fgtrac.events.schema import decode_event
from fgtrac.store.trace_dir import TraceDir
from lying import Act, Stage, caught, main, passes
from true_trace import train


def tell(stage: Stage) -> Iterator[Act]:
    room, photos = stage.room(), _photos()
    key = room / "key.pem"
    with start_run(room / "run", key=key, keep="every:2", ids="public") as run:
        _weigh(run, photos)
        train(run, photos, epochs=3)  # of three checkpoints the second is dropped
    number, event = find(TraceDir.open(run.path), "attention")
    checkpoints = [e for e in map(decode_event, all_entries(TraceDir.open(run.path))) if e["kind"] == "checkpoint"]
    dropped = {"checkpoint": [checkpoints[1]["writer"], checkpoints[1]["seq"]], "step": checkpoints[1]["step"]}
    invented = {"weights": event["weights"][::-1].copy()}
    traces = {name: TraceDir(Path(shutil.copytree(run.path, room / f"{name}.trace"))) for name in ("lost", "other")}
    for trace, lie in zip(traces.values(), (dropped, invented), strict=True):
        reseal_with(trace, number, {**event, **lie}, load_key(key))
    yield caught(stage.fgtrac("verify", traces["lost"].path, "--key", key), "attention")
    said = "that the saved states give the recorded modality weights is not shown"
    yield passes(stage.fgtrac("verify", traces["other"].path, "--key", key), says=said)
    recompute = ("--attention", "32", "--with", f"{Path(__file__)}:again")
    yield caught(stage.fgtrac("verify", traces["other"].path, "--key", key, *recompute), "modality-weights")


def again(run: Any) -> torch.nn.Module:
    """What the verifier has, for `fgtrac verify --with`: the data, the model's code and the function that weighs."""
    _weigh(run, _photos())
    return torch.nn.Linear(4, 2)


def _photos() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(16, 4, generator=generator), torch.arange(16) % 2)


def _weigh(run: Any, photos: TensorDataset) -> None:
    """Record how much each half of a photo's four numbers weighs in the model."""

    def weights(model: torch.nn.Module) -> torch.Tensor:
        halves = (photos.tensors[0] * model.weight.sum(dim=0)).abs().reshape(16, 2, 2).sum(dim=2)
        return halves / halves.sum(dim=1, keepdim=True)

    run.attention_with(weights=weights, data=photos, modalities=("upper half", "lower half"))


if __name__ == "__main__":
    main(tell)
