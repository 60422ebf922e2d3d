"""Omit contents: the signer registers a data set whose contents are said to be digested, without the digests.

A content that a sample holds is then not in the index. A bundle alone holds, as committed; who has the log sees that
the registration lacks what its data set says.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import TensorDataset

from fgtrac.api.run import start_run
from fgtrac.commit.keys import load_key
from fgtrac.demo.forge import all_entries, reseal
from fgtrac.events.schema import decode_event, encode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.bundle import format_bundle
from lying import Act, Stage, caught, main, passes


def tell(stage: Stage) -> Iterator[Act]:
    room, rows = stage.room(), torch.randn(8, 4)
    np.save(room / "rows.npy", rows.numpy())
    with start_run(room / "run", key=room / "key.pem") as run:
        run.register(TensorDataset(rows), name="photos", role="train")
    trace = TraceDir.open(run.path)
    events = [decode_event(entry) for entry in all_entries(trace)]
    for event in events:
        event.pop("contents", None)
    reseal(trace, [encode_event(event) for event in events], load_key(room / "key.pem"))
    bundle = stage.prove(f"row:{room / 'rows.npy'}:5", trace=trace)
    proof = room / "absent.bundle"
    proof.write_bytes(format_bundle(bundle))
    asked = ("--key", room / "key.pem")
    yield passes(
        stage.fgtrac("verify", proof, *asked, "--id-key", trace.vault_path),
        says="holds as its signer committed to it",
    )
    yield caught(stage.fgtrac("verify", trace.path, *asked), "registered")


if __name__ == "__main__":
    main(tell)
