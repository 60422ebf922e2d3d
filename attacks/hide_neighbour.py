"""Hide a neighbour: the signer leaves the test nodes out of every batch's hops, as if no message had come from them.

The log is the only witness of what a sampler drew: no entry announces it, and the replay of an epoch's order is about
the seeds. Only who kept an older head can tell that something was rewritten.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np

from fgtrac.commit.keys import load_key
from fgtrac.demo.forge import all_entries, reseal
from fgtrac.events.schema import decode_event, encode_event
from fgtrac.store.trace_dir import TraceDir
from lying import Act, Stage, caught, main, passes
from true_graph import train_on_ring


def tell(stage: Stage) -> Iterator[Act]:
    room = stage.room()
    trace = TraceDir.open(train_on_ring(room).path)
    kept = shutil.copy(trace.path / "checkpoint", room / "older")
    entries = [decode_event(entry) for entry in all_entries(trace)]
    test = np.concatenate([e["ordinals"] for e in entries if e["kind"] == "roles" and e["role"] != "train"])
    lies = [encode_event(without(e, test) if e["kind"] == "use" else e) for e in entries]
    reseal(trace, lies, load_key(room / "key.pem"))
    policy, asked = room / "policy.toml", ("--key", room / "key.pem")
    policy.write_text('format = "fgtrac-policies/v1"\n[held-out-features]\n[held-out-contents]\non = false\n')
    unseen = "neighbour left out of a sampled batch's hops"
    yield passes(stage.fgtrac("check", trace.path, *asked, "--policy", policy), design=unseen)
    yield passes(stage.fgtrac("verify", trace.path, *asked, "--replay", "--vault", trace.vault_path), design=unseen)
    yield caught(stage.fgtrac("verify", trace.path, *asked, "--since", kept), "since")


def without(event: dict[str, Any], ordinals: np.ndarray) -> dict[str, Any]:
    """The entry without these neighbours."""
    stays = ~np.isin(event["hop_ordinals"], ordinals)
    runs = np.repeat(np.arange(len(event["hop_count"])), event["hop_count"])
    counts = np.bincount(runs[stays], minlength=len(event["hop_count"])).astype(np.uint32)
    return event | {"hop_count": counts, "hop_ordinals": event["hop_ordinals"][stays]}


if __name__ == "__main__":
    main(tell)
