"""Keep an erased person's rows: the signer erases, puts the withdrawn files back, and the entry names none of them.

The list of rows says whose they are, and the factors hold the samples' inputs. Without the check all else holds.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import TensorDataset

from fgtrac.api.run import start_run
from fgtrac.commit.keys import load_key
from fgtrac.demo.forge import find, reseal_with
from fgtrac.store.durable import write_file
from fgtrac.store.trace_dir import TraceDir
from lying import Act, Stage, caught, main
from true_trace import train


def tell(stage: Stage) -> Iterator[Act]:
    room, photos = stage.room(), TensorDataset(torch.randn(8, 4), torch.randint(0, 2, (8,)))
    with start_run(room / "run", key=room / "key.pem") as run:
        run.register(photos, name="photos", role="train", subject=["alice", "bob"] * 4)
        run.score_with(loss=torch.nn.CrossEntropyLoss(), train=photos)
        train(run, photos)
    trace = TraceDir.open(run.path)
    files = {path: trace.read(path) for path in trace.names() if path.startswith("artifacts/")}
    erased = stage.fgtrac("erase", trace.path, "--subject", "alice", "--yes", key_file=room / "key.pem")
    assert erased.code == 0, erased.rest
    for path, data in files.items():
        write_file(trace.path / path, data)
    number, event = find(trace, "erasure")
    reseal_with(trace, number, event | {"artifacts": []}, load_key(room / "key.pem"))
    yield caught(stage.fgtrac("verify", trace.path, "--key", room / "key.pem"), "erased-rows")


if __name__ == "__main__":
    main(tell)
