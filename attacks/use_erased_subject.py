"""Use somebody who was erased: a subject asks to be forgotten, and the training goes on with its photos.

The log says when the subject was erased, and which samples are its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
from torch.utils.data import TensorDataset

from fgtrac.api.run import start_run
from fgtrac.commit.keys import load_key
from fgtrac.demo.forge import all_entries, find, reseal
from fgtrac.events.schema import decode_event, encode_event
from fgtrac.store.trace_dir import TraceDir
from lying import Act, Stage, caught, main
from true_trace import train


def tell(stage: Stage) -> Iterator[Act]:
    room = stage.room()
    photos, exam = (TensorDataset(torch.randn(8, 4), torch.randint(0, 2, (8,))) for _ in range(2))
    with start_run(room / "run", key=room / "key.pem") as run:
        run.register(photos, name="photos", role="train", subject=["alice", "bob"] * 4)
        run.register(exam, name="exam", role="test", subject=["carol"] * 8)
        train(run, photos)
    erased = stage.fgtrac("erase", run.path, "--subject", "alice", "--yes", key_file=room / "key.pem")
    assert erased.code == 0, erased.rest
    trace = TraceDir.open(run.path)
    entries, (_number, use) = all_entries(trace), find(trace, "use")
    last = {event["writer"]: event["seq"] for event in map(decode_event, entries)}
    more = {"writer": os.urandom(16), "time": decode_event(entries[-1])["time"] + 1}  # the owner trains once more
    end = {"kind": "end", "writers": [*map(list, last.items()), [more["writer"], 0]], "seq": 1}
    entries += [encode_event(use | more | {"seq": 0, "step": use["step"] + 100}), encode_event(more | end)]
    reseal(trace, entries, load_key(room / "key.pem"))
    (room / "policy.toml").write_text('format = "fgtrac-policies/v1"\n[held-out-contents]\non = false\n')
    asked = ("check", run.path, "--policy", room / "policy.toml", "--key", room / "key.pem")
    yield caught(stage.fgtrac(*asked), "erased-subjects")


if __name__ == "__main__":
    main(tell)
