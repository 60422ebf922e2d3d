"""A log by hand in which everything occurs that a table can tell, and the trace of it on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fgtrac.events.identity import block_id, public_id
from fgtrac.events.schema import ATTRIBUTION, NO_STEP, STATUS
from signed import BLOCK, IDS, OTHER, WRITER, Event, Files, by, end, metrics, put_files, run, samples, seal, write

MORE = sorted([IDS[2], *(public_id(b"more %d" % n) for n in range(3))])  # one of them is in both blocks
MORE_BLOCK = block_id(b"".join(MORE))
HOSTILE = "'; DROP TABLE samples; --\"\n\0\x1b[31m<script>"


def everything() -> list[Event]:
    """Two processes, a resume, parts of a block, neighbours, batches of every status, scores at every kind of state."""
    whole = {**samples(), "contents": b"".join(bytes([n]) * 32 for n in range(6))}
    half = {"kind": "samples", "dataset": HOSTILE, "block": MORE_BLOCK, "parts": 2}
    people = {"subjects": b"\7" * 64}
    first = {**half, "part": 0, "ids": b"".join(MORE[:2])} | people
    second = {**half, "part": 1, "ids": b"".join(MORE[2:])} | people
    state: dict[str, Any] = {"kind": "checkpoint", "step": 2, "kept": True, "rule": HOSTILE, "digest": b"d" * 32}
    events = [
        run(), {"kind": "dataset", "name": "d", "id_scheme": "public"}, whole, first, first, second,
        {"kind": "join", "rank": 0, "ranks": 2, "step": 0, "began": [WRITER, 0]},
        by(OTHER, 0, {"kind": "join", "rank": 1, "ranks": 2, "step": 0, "began": [WRITER, 0]}),
        role("train", BLOCK, 0, 1, 2, 3), role("validation", MORE_BLOCK, 0, 3), metrics(1),
        batches(BLOCK, [0, 1, 2, 3, 1], [2, 3], status=["applied", "discarded"], step=[1, None],
                losses=[0.5, np.nan, 2.0, np.inf, 1.0]),
        by(OTHER, 1, batches(BLOCK, [4, 5], [1, 1], step=[1, 2], attribution=["among", "sole"])),
        batches(MORE_BLOCK, [0, 1, 2], [1, 2], step=[2, 3], graph="sampled", hops=2,
                hop_count=np.array([1, 1, 0, 1], "<u4"), hop_ordinals=np.array([1, 2, 3], "<u4")),
        role("test", BLOCK, 1), {**state, "epoch": 0, "val_loss": 0.5, "learning_rates": np.array([0.1, 0.2])},
        {**state, "step": 1, "digest": b"e" * 32}, {**state, "step": 1, "digest": b"e" * 32, "kept": False},
        {**state, "step": 5, "digest": b"f" * 32},
        transform(BLOCK, dropped=[5]), {"kind": "resume", "writers": [[WRITER, 0]], "step": 2},
        batches(BLOCK, [2, 2], [2], step=[3], attribution=["declared"], fit=HOSTILE),
    ]  # fmt: skip
    numbered = numbered_states(events)
    events += [
        about("contribution", numbered[0], [0, 1], target="validation", method="tracin", scores=floats(0.5, -1)),
        about("contribution", numbered[0], [1, 5], target="validation", method="tracin", scores=floats(1, 2)),
        about("contribution", numbered[1], [0], target="validation", method="tracin", scores=floats(9)),
        about("contribution", numbered[3], [0], target="validation", method="tracin", scores=floats(9)),
        about("contribution", numbered[0], [0], target=HOSTILE, method="ekfac 0.1", scores=floats(np.nan)),
        about("prediction", numbered[0], [0, 1], outputs=floats(1, 2, 3, 4), losses=floats(0.5, np.inf)),
        {"kind": "prediction", "step": 1, "block": BLOCK, "ordinals": np.array([1], "<u4")},
        {"kind": "prediction", "step": 1, "block": BLOCK, "ordinals": np.empty(0, "<u4")},
        about("attention", numbered[0], [3, 2], modalities=["image", HOSTILE], weights=floats(0.25, 0.75, 0.5, 0.5)),
        {"kind": "metrics", "step": 3, "values": {"many": 2**64 - 1, HOSTILE: -0.5}},
        {"kind": "erasure", "pseudonym": b"\7" * 32, "block": MORE_BLOCK, "ordinals": np.array([0, 2], "<u4"),
         "artifacts": []},
        end((OTHER, 1)),
    ]  # fmt: skip
    return events


def trace_of(folder: Path, files: Files) -> Path:
    """The files of a trace on disk."""
    path = folder / "run.trace"
    put_files(path, files)
    return path


def everything_on_disk(folder: Path, *more: Event) -> Path:
    return trace_of(folder, write(*everything(), *more, seal()))


def numbered_states(events: list[Event]) -> list[list[Any]]:
    """[writer, seq] of each checkpoint, as `write` numbers them."""
    mine = [event for event in events if event.get("writer", WRITER) == WRITER]
    return [[WRITER, seq] for seq, event in enumerate(mine) if event["kind"] == "checkpoint"]


def batches(block: bytes, ordinals: list[int], counts: list[int], **said: Any) -> Event:
    n = len(counts)
    status = said.pop("status", ["applied"] * n)
    sure = said.pop("attribution", ["exact"] * n)
    event = {
        "kind": "use", "loader": 1, "optimizer": 2, "block": block, "epoch": np.arange(n, dtype="<u4"),
        "batch": np.arange(7, 7 + n, dtype="<u4"), "count": np.array(counts, "<u4"),
        "step": np.array([NO_STEP if s is None else s for s in said.pop("step")], "<u8"),
        "status": np.array([STATUS[s] for s in status], "u1"), "ordinals": np.array(ordinals, "<u4"),
        "attribution": np.array([ATTRIBUTION[s] for s in sure], "u1"),
    }  # fmt: skip
    if "losses" in said:
        said["losses"] = np.array(said["losses"], "<f2")
    return {**event, **said}


def role(word: str, block: bytes, *ordinals: int) -> Event:
    return {"kind": "roles", "role": word, "block": block, "ordinals": np.array(ordinals, "<u4")}


def transform(block: bytes, dropped: list[int]) -> Event:
    gone = np.array(dropped, "<u4")
    return {"kind": "transform", "stage": "dedup", "operation": "deduplicate", "block": block, "dropped": gone}


def about(kind: str, state: list[Any], ordinals: list[int], **said: Any) -> Event:
    named = {"block": BLOCK, "ordinals": np.array(ordinals, "<u4")}
    return {"kind": kind, "checkpoint": state, "step": 2, **named, **said}


def floats(*values: float) -> Any:
    return np.array(values, "<f4")
