"""Weigh a dropped model: modality weights are said to be those of a checkpoint that was not kept.

Weights rest on a state that is kept, so that who has the data can look. Whether that state gives them the log alone
does not tell, and the answer says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

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
    room, photos = stage.room(), TensorDataset(torch.randn(16, 4), torch.randint(0, 2, (16,)))
    key = room / "key.pem"
    with start_run(room / "run", key=key, keep="every:2") as run:
        run.attention_with(weights=_weights, data=photos, modalities=("upper half", "lower half"))
        train(run, photos, epochs=3)  # of three checkpoints the second is dropped
    number, event = find(TraceDir.open(run.path), "attention")
    checkpoints = [e for e in map(decode_event, all_entries(TraceDir.open(run.path))) if e["kind"] == "checkpoint"]
    dropped = {"checkpoint": [checkpoints[1]["writer"], checkpoints[1]["seq"]], "step": checkpoints[1]["step"]}
    invented = {"weights": event["weights"][::-1].copy()}
    answers = []
    for name, lie in (("dropped", dropped), ("invented", invented)):
        copy = TraceDir(Path(shutil.copytree(run.path, room / f"{name}.trace")))
        reseal_with(copy, number, {**event, **lie}, load_key(key))
        answers.append(stage.fgtrac("verify", copy.path, "--key", key))
    yield caught(answers[0], "attention")
    yield passes(answers[1], says="that the saved states give them is not shown")


def _weights(model: torch.nn.Module) -> torch.Tensor:
    """How much each half of a photo's four numbers weighs in this model."""
    halves = model.weight.detach().abs().reshape(-1, 2, 2).sum(dim=(0, 2))
    return (halves / halves.sum()).expand(16, 2)


if __name__ == "__main__":
    main(tell)
