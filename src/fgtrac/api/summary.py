"""What `fgtrac show` says of a trace: its head, its entries by kind, its data sets, its checkpoints."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgtrac.api.explanation import UNMEASURED
from fgtrac.api.measured import measured_methods
from fgtrac.api.prior import run_entry, trace_id_of
from fgtrac.commit.state import count_unsealed
from fgtrac.events.ranks import RankTable
from fgtrac.events.schema import STATUS, TRAINING, decode_event
from fgtrac.query.log import whole
from fgtrac.store.places import open_to_read
from fgtrac.store.trace_dir import ORIGIN_PREFIX, TraceDir
from fgtrac.tlog.note import Verifier, format_vkey
from fgtrac.tlog.tiles import read_entries
from fgtrac.verify.receipts import NOTE, receipt_files

_FACTORS = re.compile(
    r"artifacts/scoring/(?P<folder>(?P<step>[0-9]{8,20})-[0-9a-f]{8})/(?:(?P<role>[a-z]+)-[0-9]{5}|[a-z-]+)\.safetensors"
)
SHOWN = ("step", "epoch", "val_loss", "kept", "rule")


@dataclass(frozen=True, slots=True)
class Summary:
    """A trace as its entries tell it; nothing in it has been verified."""

    trace_id: bytes
    public_key: bytes
    size: int
    root: bytes
    indexed: int
    unsealed: int
    ended: bool
    ranks: int  # that trained together, at most; 0 where one process did by itself
    counts: dict[str, int]
    uses: int
    neighbours: tuple[dict[str, Any], ...]
    attention: tuple[dict[str, Any], ...]
    datasets: tuple[dict[str, Any], ...]
    checkpoints: tuple[dict[str, Any], ...]
    factors: tuple[dict[str, Any], ...]
    contributions: tuple[dict[str, Any], ...]
    receipts: tuple[dict[str, Any], ...]
    gaps: tuple[str, ...]
    versions: dict[str, str]

    @property
    def vkey(self) -> str:
        """The log's C2SP verifier key, as its `run` entry and its `key` entries name it."""
        return format_vkey(Verifier(ORIGIN_PREFIX + self.trace_id.hex(), self.public_key))

    def as_json(self) -> dict[str, Any]:
        """Plain data; bytes as hex."""
        return {
            "trace_id": self.trace_id.hex(),
            "public_key": self.public_key.hex(),
            "vkey": self.vkey,
            "size": self.size,
            "root": self.root.hex(),
            "indexed": self.indexed,
            "unsealed": self.unsealed,
            "ended": self.ended,
            "ranks": self.ranks,
            "entries": self.counts,
            "uses": self.uses,
            "neighbours": list(self.neighbours),
            "attention": list(self.attention),
            "datasets": list(self.datasets),
            "checkpoints": list(self.checkpoints),
            "factors": list(self.factors),
            "contributions": list(self.contributions),
            "receipts": list(self.receipts),
            "gaps": list(self.gaps),
            "versions": self.versions,
        }


def summarize(path: Path) -> Summary:
    """Read every entry of a trace once. FileNotFoundError, FormatError where it is none or its files are damaged."""
    trace = open_to_read(path)
    with whole("a summary"):
        return _summarize(trace)


def _summarize(trace: TraceDir) -> Summary:
    head = trace.head()
    size = head.size if head is not None else 0
    counts: Counter[str] = Counter()
    run = run_entry(trace)
    public_key = run["public_key"]
    indexed, taken, ranks = 0, _Taken(), RankTable()
    ended = False
    found: dict[str, list[dict[str, Any]]] = {"dataset": [], "checkpoint": [], "gap": []}
    past: list[bool] = []  # of each checkpoint whether a resumed run went on from before it
    factors: dict[str, dict[str, Any]] = {}
    scores: Counter[tuple[int, str, str]] = Counter()
    artifacts: dict[str, dict[str, Any]] = {}
    for number, entry in enumerate(read_entries(trace, 0, size, size)):
        event = decode_event(entry)
        counts[event["kind"]] += 1
        ranks.add(event)
        ended = event["kind"] == "end" or (ended and event["kind"] not in TRAINING)
        if event["kind"] == "resume":
            past = [
                is_past or said["step"] > event["step"] for is_past, said in zip(past, found["checkpoint"], strict=True)
            ]
        elif event["kind"] == "checkpoint":
            past.append(False)
        if event["kind"] in found:
            found[event["kind"]].append(event)
        elif event["kind"] == "artifact":
            artifacts[event["path"]] = event
        elif event["kind"] == "erasure":
            for path in event["artifacts"]:
                artifacts.pop(path, None)
        elif event["kind"] == "contribution":
            scores[event["step"], event["target"], event["method"]] += len(event["ordinals"])
        elif event["kind"] in ("use", "attention"):
            taken.add(event)
        elif event["kind"] == "seal":
            indexed = number
        elif event["kind"] == "key":
            public_key = event["public_key"]
    for event in artifacts.values():
        _add_factors(factors, event)
    digests = {path: event["sha256"] for path, event in artifacts.items()}
    return Summary(
        trace_id_of(trace),
        public_key,
        size,
        head.root if head is not None else b"",
        indexed,
        count_unsealed(trace),
        ended,
        ranks.count,
        dict(counts),
        taken.uses,
        taken.neighbours(),
        taken.attention(),
        tuple({k: e[k] for k in ("name", "id_scheme", "rows", "content") if k in e} for e in found["dataset"]),
        tuple(_checkpoint(e, is_past) for e, is_past in zip(found["checkpoint"], past, strict=True)),
        tuple({**said, "roles": ", ".join(said["roles"])} for _folder, said in sorted(factors.items())),
        _contributions(scores, measured_methods(trace, digests)),
        _receipts(trace),
        tuple(e["reason"] for e in found["gap"]),
        run["versions"],
    )


def _checkpoint(event: Mapping[str, Any], is_superseded: bool) -> dict[str, Any]:
    """A row for a model state; `superseded` where a resumed run went on from before it."""
    return {k: event[k] for k in SHOWN if k in event} | ({"superseded": True} if is_superseded else {})


class _Taken:
    """Counts of samples in applied updates and of their modality weights, over `use` and `attention` entries."""

    def __init__(self) -> None:
        self.uses = 0
        self._hops: Counter[tuple[str, int, bool]] = Counter()
        self._weighed: Counter[tuple[int, str]] = Counter()

    def add(self, event: Mapping[str, Any]) -> None:
        if event["kind"] == "attention":
            self._weighed[event["step"], ", ".join(event["modalities"])] += len(event["ordinals"])
            return
        applied = event["status"] == STATUS["applied"]
        self.uses += int(event["count"][applied].sum())
        if "hops" in event:
            counts = event["hop_count"].reshape(len(applied), event["hops"])[applied].sum(axis=0, dtype=np.int64)
            for hop, number in enumerate(counts.tolist(), 1):
                beyond = event["graph"] == "whole" and hop == event["hops"]
                self._hops[event["graph"], hop, beyond] += number

    def neighbours(self) -> tuple[dict[str, Any], ...]:
        """A row for each hop of sampled neighbours, and of whole graphs, of which the last is beyond reach."""
        rows = sorted(self._hops.items())
        return tuple({"graph": graph, "hop": hop, "beyond_reach": b, "count": n} for (graph, hop, b), n in rows)

    def attention(self) -> tuple[dict[str, Any], ...]:
        """A row for each checkpoint and its modalities."""
        return tuple({"step": s, "modalities": m, "samples": n} for (s, m), n in sorted(self._weighed.items()))


def _contributions(
    scores: Mapping[tuple[int, str, str], int], measured: Mapping[str, str]
) -> tuple[dict[str, Any], ...]:
    """A row for each step, target and method, with what was measured of the method."""
    rows = sorted(scores.items())
    return tuple(
        {"step": s, "target": t, "method": m, "samples": n, "fidelity": measured.get(m, UNMEASURED)}
        for (s, t, m), n in rows
    )


def _receipts(trace: TraceDir) -> tuple[dict[str, Any], ...]:
    """A row for each receipt of an outside witness, and for each head that has none."""
    files = receipt_files(trace.names())
    answered = {file.size for file in files if file.kind != NOTE}
    return tuple(
        {"size": file.size, "by": "nobody yet" if file.kind == NOTE else file.kind, "file": file.path}
        for file in files
        if file.kind != NOTE or file.size not in answered
    )


def _add_factors(factors: dict[str, dict[str, Any]], event: Mapping[str, Any]) -> None:
    """Count a file of factors for its model state: which roles there are, how many files and bytes."""
    match = _FACTORS.fullmatch(event["path"])
    if match is None:
        return
    said = factors.setdefault(match["folder"], {"step": int(match["step"]), "roles": [], "files": 0, "bytes": 0})
    said["files"] += 1
    said["bytes"] += event["size"]
    if match["role"] and match["role"] not in said["roles"]:
        said["roles"].append(match["role"])
