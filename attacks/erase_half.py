"""Erase one half: the signer's `erasure` entry names only some of the subject's samples.

Each sample is registered under its subject's pseudonym: an erasure names all of them, and no others.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import TensorDataset

from fgtrac.api.run import start_run
from fgtrac.commit.keys import load_key
from fgtrac.demo.forge import find, reseal_with
from fgtrac.store.trace_dir import TraceDir
from lying import Act, Stage, caught, main
from true_trace import train


def tell(stage: Stage) -> Iterator[Act]:
    room, photos = stage.room(), TensorDataset(torch.randn(8, 4), torch.randint(0, 2, (8,)))
    with start_run(room / "run", key=room / "key.pem") as run:
        run.register(photos, name="photos", role="train", subject=["alice", "bob"] * 4)
        train(run, photos)
    erased = stage.fgtrac("erase", run.path, "--subject", "alice", "--yes", key_file=room / "key.pem")
    assert erased.code == 0, erased.rest
    trace = TraceDir.open(run.path)
    number, event = find(trace, "erasure")
    reseal_with(trace, number, event | {"ordinals": event["ordinals"][:2]}, load_key(room / "key.pem"))
    yield caught(stage.fgtrac("verify", trace.path, "--key", room / "key.pem"), "erasures")


if __name__ == "__main__":
    main(tell)
