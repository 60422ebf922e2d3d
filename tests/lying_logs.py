"""Logs of three bundles that tell a verifier one lie each, as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fgtrac.store.trace_dir import TraceDir
from signed import BLOCK, Event, Files, end, put_files, run, samples, seal, use, write

OTHER_BLOCK = b"b" * 16
FIRST_BUNDLE, LAST_BUNDLE = "tile/entries/000", "tile/entries/002.p/136"
USES = 640  # of ten of which nine are entries of another kind


def events(**changed: Event) -> list[Any]:
    """A log of three bundles with two full seals; `changed` are entries by their number, as in `entry_300`."""
    uses = [use(n, n % 6, (n + 1) % 6) if n % 10 == 0 else metrics() for n in range(1, USES + 1)]
    told: list[Any] = [run(), samples(), *uses[:300], seal(), *uses[300:], use(9, 5) | no_step(), metrics(), seal()]
    told += [end((b"w" * 16, USES + 3)), seal()]
    for name, event in changed.items():
        told[int(name.removeprefix("entry_"))] = event
    return told


def no_step() -> Event:
    """Of a batch that was discarded."""
    return {"step": np.array([2**64 - 1], np.uint64), "status": np.array([2], np.uint8)}


def metrics() -> Event:
    return {"kind": "metrics", "step": 1, "values": {"loss": 1.0}}


def flipped(files: Files, name: str, at: int = -9) -> Files:
    data = bytearray(files[name])
    data[at] ^= 4
    return files | {name: bytes(data)}


def cut(files: Files, name: str) -> Files:
    return files | {name: files[name][:-3]}


def without(files: Files, name: str) -> Files:
    return {n: d for n, d in files.items() if n != name}


def index_file(column: str) -> str:
    return f"index/{len(events())}/{column}.npy"


LIES: dict[str, Callable[[], Files]] = {
    "none": lambda: write(*events()),
    "a bit of the first bundle": lambda: flipped(write(*events()), FIRST_BUNDLE),
    "a bit of the last bundle": lambda: flipped(write(*events()), LAST_BUNDLE),
    "a bit of a length": lambda: flipped(write(*events()), "tile/entries/001", 0),
    "a bundle is lost": lambda: without(write(*events()), "tile/entries/001"),
    "a bundle is cut": lambda: cut(write(*events()), LAST_BUNDLE),
    "a bit of a hash tile": lambda: flipped(write(*events()), "tile/0/001"),
    "no entry": lambda: write(*events(entry_600=b"\xa0")),
    "an unknown block": lambda: write(*events(entry_310={**use(9, 1), "block": OTHER_BLOCK})),
    "an unknown ordinal": lambda: write(*events(entry_311=use(9, 1, 77), entry_313=use(9, 78))),
    "an unknown ordinal in a discarded batch": lambda: write(*events(entry_311=use(9, 77) | no_step())),
    "an unknown ordinal in roles": lambda: write(*events(entry_9=roles(6))),
    "samples again in other parts": lambda: write(*events(entry_312={**samples(), "ids": b"\1" * 32})),
    "a hole": lambda: write(*events(entry_311={**use(9, 1), "seq": 400})),
    "another root": lambda: write(*events()[:-1], seal(root=bytes(32))),
    "another root of an older seal": lambda: write(*events(entry_302=seal(root=bytes(32)))),
    "other counts": lambda: write(*events()[:-1], seal(counts={"use": 3})),
    "other first steps": lambda: write(*events()[:-1], seal(epoch_steps=np.array([4], np.uint64))),
    "other entries": lambda: write(*events()[:-1], seal(entries=9)),
    "a bit of the values": lambda: flipped(write(*events()), index_file("values")),
    "a bit of the keys' header": lambda: flipped(write(*events()), index_file("keys"), 3),
    "a column is lost": lambda: without(write(*events()), index_file("nodes")),
    "a column is cut": lambda: cut(write(*events()), index_file("offsets")),
    "a column is longer": lambda: (f := write(*events())) | {index_file("digests"): f[index_file("digests")] + b"\0"},
    "a head of more entries": lambda: write(*events()) | {"checkpoint": write(*events(), metrics())["checkpoint"]},
}


def roles(*ordinals: int) -> Event:
    return {"kind": "roles", "role": "train", "block": BLOCK, "ordinals": np.array(ordinals, np.uint32)}


def on_disk(folder: Path, files: Files) -> TraceDir:
    path = folder / "run.trace"
    put_files(path, files)
    (path / "journal").mkdir(exist_ok=True)
    return TraceDir.open(path)
