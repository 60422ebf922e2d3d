"""What both demos measure of a recorded training: time, bytes, scoring, verification, and lies told about copies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from fgtrac.api.audit import audit_trace
from fgtrac.api.cost import Cost
from fgtrac.capture.own_time import OwnTime
from fgtrac.demo.lies import Lie, answer, is_as_foretold
from fgtrac.events.schema import decode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.note import Verifier
from fgtrac.tlog.tiles import read_entries
from fgtrac.verify.report import Verdict

HASH_AND_LENGTH_BYTES = 34  # what a log adds to an entry: its leaf hash and its length in the bundle


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded training, and what recording it took."""

    path: Path
    loop_s: float
    own: OwnTime
    checkpoints_s: tuple[float, ...]
    sealing_s: float  # processor time of the seals that ran beside the training
    seal_s: float
    scoring: Cost
    attention_s: float = 0.0  # the model's own passes for modality weights, within checkpoints


def cost_figures(trace: TraceDir, recorded: Recorded) -> dict[str, Any]:
    """What recording took: own time in the loop, and bytes on disk, counted from the log itself.

    Both shares have hooks, loader patches, flushes and the thread that writes in them, over the loop's time without
    validation; that of each epoch also its checkpoint with all that is recorded there, and the seals. Scoring is not in
    them, nor are the model's own passes for modality weights: both are stated beside.
    """
    head = trace.head()
    size = head.size if head is not None else 0
    seeds, neighbours, use_bytes = count_uses(trace)
    events = seeds + neighbours
    own_s = recorded.own.seconds + recorded.own.background_s
    checkpoints_s = sum(recorded.checkpoints_s) - recorded.scoring.measured_seconds - recorded.attention_s
    every_s = own_s + checkpoints_s + recorded.sealing_s
    return {
        "loop_s": recorded.loop_s,
        "own_s": own_s,
        "own_time_share_without_checkpoints": own_s / recorded.loop_s,
        "own_time_share_each_epoch": every_s / (recorded.loop_s + checkpoints_s),
        "checkpoints": len(recorded.checkpoints_s),
        "checkpoint_ms": 1e3 * checkpoints_s / len(recorded.checkpoints_s),
        "attention_s": recorded.attention_s,
        "events": events,
        "neighbours": neighbours,
        "entries": size,
        "log_bytes_per_event": use_bytes / events,
        "index_bytes_per_event": folder_bytes(trace, "index") / events,
        "log_b": folder_bytes(trace, "tile"),
        "index_b": folder_bytes(trace, "index"),
        "artifacts_b": folder_bytes(trace, "artifacts"),
        "seal_s": recorded.seal_s,
    }


def count_uses(trace: TraceDir) -> tuple[int, int, int]:
    """Uses as a seed (or as the only samples there are), appearances as a neighbour, and the log's bytes for both."""
    head, seeds, neighbours, size = trace.head(), 0, 0, 0
    entries = read_entries(trace, 0, head.size, head.size) if head is not None else ()
    for entry in entries:
        event = decode_event(entry)
        if event["kind"] == "use":
            seeds += len(event["ordinals"])
            neighbours += len(event.get("hop_ordinals", ()))
            size += len(entry) + HASH_AND_LENGTH_BYTES
    return seeds, neighbours, size


def scoring_figures(trace: TraceDir, recorded: Recorded) -> dict[str, Any]:
    """What the factors cost, estimated and measured, and what was logged of them."""
    head, cost = trace.head(), recorded.scoring
    size = head.size if head is not None else 0
    logged = [e for e in map(decode_event, read_entries(trace, 0, size, size)) if e["kind"] == "contribution"]
    n = max(1, cost.checkpoints)
    return {
        "states": cost.checkpoints,
        "checkpoints": len(recorded.checkpoints_s),
        "layer": ", ".join(logged[0]["parameters"]["layers"]) if logged else "",
        "estimated_s": cost.seconds,
        "estimated_b": cost.size_bytes,
        "measured_s": cost.measured_seconds / n,
        "measured_b": cost.measured_bytes / n,
        "share": cost.measured_seconds / (recorded.loop_s + cost.measured_seconds),
        "contributions": sum(len(e["ordinals"]) for e in logged),
    }


def verification_figures(trace: TraceDir, public_key: bytes) -> dict[str, Any]:
    """A full verification, reading everything again."""
    head = trace.head()
    verifier = Verifier(head.origin, public_key) if head is not None else None
    start = time.perf_counter()
    report = audit_trace(trace, verifier)
    return {"verify_s": time.perf_counter() - start, **report.as_json()}


def lie_figures(trace: TraceDir, lie: Lie, key: Ed25519PrivateKey, progress: Callable[[], object]) -> dict[str, Any]:
    """One lie about a copy, and what refuted it."""
    report = answer(trace, lie, key)
    progress()
    found = next((f for f in report.findings if f.verdict is Verdict.REFUTED), None)
    return {
        "lie": lie.name,
        "done": lie.words,
        "check": found.check if found is not None else "nothing",
        "words": found.words if found is not None else "",
        "as_foretold": is_as_foretold(lie, report),
    }


def beside(out: Path, *endings: str) -> list[Path]:
    """OUT with each of the endings: where a demo leaves files next to OUT.trace. FileExistsError where one of them, the
    trace or its vault is there already."""
    base = out.with_suffix("") if out.suffix == ".trace" else out
    trace, vault, *files = [base.with_name(base.name + ending) for ending in (".trace", ".vault", *endings)]
    for file in (trace, vault, *files):
        if file.exists():
            raise FileExistsError(f"{file} exists already; choose another --out, or move it away")
    return files


def timed(function: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def folder_bytes(trace: TraceDir, folder: str) -> int:
    """Bytes of all files in a folder of the trace."""
    return sum(p.stat().st_size for p in (trace.path / folder).rglob("*") if p.is_file())


@contextmanager
def bar(console: Console) -> Iterator[Callable[[str], Callable[[], None]]]:
    """A line of progress, shown only where the console is a terminal: `tick(words)` names the stage and gives what
    advances it."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("preparing")

        def stage(words: str) -> Callable[[], None]:
            progress.reset(task, description=words)
            return lambda: progress.advance(task)

        yield stage
