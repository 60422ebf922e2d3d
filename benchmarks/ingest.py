"""How fast the recorder takes samples in: one core, batches of 256, into a journal that is decoded and compared."""

from __future__ import annotations

import os
import tempfile
import time
from array import array
from pathlib import Path

import numpy as np

from fgtrac.api.run import start_run
from fgtrac.capture.recorder import Recorder
from fgtrac.capture.use_entries import Placement
from fgtrac.events.schema import ATTRIBUTION, STATUS, decode_event
from fgtrac.store.journal import JournalWriter, scan
from harness import report

BATCH = 256
STEPS = 40_000
SAMPLES = 1_000_000
INDEX_SAMPLES, INDEX_EPOCHS = 51_200, 12  # as many passes as the demo makes


def ingest(folder: Path, batches: list[list[int]], with_losses: bool) -> tuple[float, int, int]:
    """Record every batch as settled; returns seconds, entries' bytes and number of entries, after checking them all."""
    order = np.random.default_rng(1).permutation(SAMPLES).astype(np.uint32)
    placement = Placement((b"b" * 16,), order, None)
    writer = os.urandom(16)
    recorder = Recorder(JournalWriter(folder, writer), writer, flush_interval_s=0)
    row_tail = (STATUS["applied"], ATTRIBUTION["exact"])
    losses = np.linspace(0, 8, BATCH).astype(np.float16) if with_losses else None
    start = time.perf_counter()
    for step, batch in enumerate(batches):
        recorder.use(placement, 1, 1, (0, step, step + 1, *row_tail), array("I", batch), losses)
    recorder.flush()
    seconds = time.perf_counter() - start
    recorder.close()
    entries = [e for path in sorted(folder.iterdir()) for _, e in scan(path.read_bytes()).frames]
    check(entries, batches, order, losses)
    return seconds, sum(map(len, entries)), len(entries)


def check(entries: list[bytes], batches: list[list[int]], order: np.ndarray, losses: np.ndarray | None) -> None:
    """The journal must say exactly what was recorded: every ordinal, step and loss, in order."""
    events = [decode_event(e) for e in entries]
    ordinals = np.concatenate([e["ordinals"] for e in events])
    if not np.array_equal(ordinals, order[np.array(batches).reshape(-1)]):
        raise SystemExit("the journal's ordinals are not those that were recorded")
    steps = np.concatenate([e["step"] for e in events])
    if not np.array_equal(steps, np.arange(1, len(batches) + 1)):
        raise SystemExit("the journal's steps are not those that were recorded")
    if losses is not None and not np.array_equal(
        np.concatenate([e["losses"] for e in events]), np.tile(losses, len(batches))
    ):
        raise SystemExit("the journal's losses are not those that were recorded")


def index_bytes_per_event() -> float:
    """What the index of a sealed trace takes on disk, a use: `INDEX_EPOCHS` passes over registered samples."""
    positions = np.arange(INDEX_SAMPLES, dtype=np.uint32)
    with tempfile.TemporaryDirectory() as folder:
        run = start_run(Path(folder) / "run", key=Path(folder) / "key.pem", ids="public", flush_interval_s=0)
        data = range(INDEX_SAMPLES)
        run.register(data, content=False)
        placement = run._registry.resolve(data).placement
        generator = np.random.default_rng(2)
        for epoch in range(INDEX_EPOCHS):
            order = generator.permutation(positions)
            for number, batch in enumerate(np.split(order, range(BATCH, INDEX_SAMPLES, BATCH))):
                step = epoch * INDEX_SAMPLES // BATCH + number + 1
                row = (epoch, number, step, STATUS["applied"], ATTRIBUTION["exact"])
                run._recorder.use(placement, 1, 1, row, array("I", batch.tobytes()))
        run.close()
        size = sum(p.stat().st_size for p in (run.path / "index").rglob("*.npy"))
    return size / (INDEX_EPOCHS * INDEX_SAMPLES)


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    generator = np.random.default_rng(0)
    batches = generator.integers(0, SAMPLES, (STEPS, BATCH)).tolist()
    events = STEPS * BATCH
    best: dict[bool, tuple[float, int, int]] = {}
    for _ in range(3):
        for with_losses in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                result = ingest(Path(folder), batches, with_losses)
            best[with_losses] = min(best.get(with_losses, result), result)
    seconds, size, entries = best[False]
    _, loss_size, loss_entries = best[True]
    report(
        "ingest",
        {
            "events_per_s": events / seconds,
            "us_per_step": seconds / STEPS * 1e6,
            "bytes_per_event": (size + (2 + 32) * entries) / events,
            "bytes_per_event_with_losses": (loss_size + (2 + 32) * loss_entries) / events,
            "index_bytes_per_event": index_bytes_per_event(),
        },
    )


if __name__ == "__main__":
    main()
