"""How the whole way of a trace scales: by default a billion uses over ten million samples, a hundredth of each beside.

Each sample is used as often as the others, in orders of their own. Recorded is what a training over rows of a data set
leaves: ids (public), roles, uses in batches of 256, a checkpoint and its metrics after every ten million uses, the end;
no contents of samples, no losses, no scores, no model states. Four processes, one after another, record it with a plain
seal at each checkpoint; seal it with the index; verify all of it; and open it and ask for histories.

ingest_events_per_s   uses a second of recording: from a batch's positions to entries that the disk has
seal_s                all seals together: the plain ones and the full one at the end
index_events_per_s    uses over the seconds of the full seal, which reads the log and builds, writes and signs the index
verify_events_per_s   uses over the seconds of the whole verification
peak_gb               the most memory that all processes had together at one moment, of each what it had resident (what
                      two of them share is counted twice), looked at 20 times a second; 10^9 bytes
history_ms            one sample's history in a fresh process: the median over 200, behind a first one
linearity             seconds an event, of registration, recording, seals and verification, over those of a hundredth of
                      the events and of the samples (of that the median of 3 runs, before)

--into FILE keeps what each stage took beside what FILE has of other sizes, and writes the tables of the page beside it
(docs/scaling.json, docs/scaling.md); --table FILE writes these anew.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import scaling_page
from memory_watch import Watch, check_children, folder_bytes

BATCH = 256
CHECKPOINT = 10_000_000  # uses between two: 40 MB of the journal
HISTORIES = 200
DATASET = "rows"
TRACE_ID = bytes(range(16))
LOG_BYTES, INDEX_BYTES, RUN_BYTES, SAMPLE_BYTES = 4.5, 20.5, 9, 400  # on disk, a use; and a sample
STAGES = ("register", "ingest", "plain seals", "full seal", "verify", "open", "first history", "history")
COSTS = STAGES[:5]  # what `linearity` compares


# -- what each process does ---------------------------------------------------------------------------------------


class Spans:
    """When a process was at which stage: (stage, start, stop) by the clock that all processes share."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, float, float]] = []

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """What is done inside belongs to a stage."""
        start = time.monotonic()
        yield
        self.taken.append((stage, start, time.monotonic()))


def record(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Register the samples and use each of them equally often, with a checkpoint and a plain seal now and then."""
    import numpy as np

    from fgtrac.capture.recorder import Recorder
    from fgtrac.commit.signer import Signer
    from fgtrac.store.journal import JournalWriter
    from fgtrac.store.trace_dir import TraceDir

    trace, signer, spans = TraceDir.create(folder / "run.trace"), Signer.open(TRACE_ID, folder / "key.pem"), Spans()
    writer, generator, samples = os.urandom(16), np.random.default_rng(1), asked.samples
    recorder = Recorder(JournalWriter(trace.journal, writer), writer)
    with spans.of("register"):
        placement = register(recorder, signer.public_key, samples, folder)
        recorder.rotate()
    step, since = 0, 0
    for epoch in range(asked.events // samples):
        order = array("I", generator.permutation(samples).astype(np.uint32).tobytes())
        for first in range(0, samples, CHECKPOINT):
            positions = range(first, min(first + CHECKPOINT, samples))
            with spans.of("ingest"):
                step = use(recorder, placement, epoch, step, order, positions)
                since += len(positions)
                is_last = (epoch + 1) * samples == asked.events and positions.stop == samples
                if since >= CHECKPOINT or is_last:
                    checkpoint(recorder, step, epoch)
                    recorder.rotate()
            if since >= CHECKPOINT or is_last:
                since = 0
                plain_seal(trace, signer, spans)
        show(f"recorded {(epoch + 1) * samples:,} of {asked.events:,} uses")
    recorder.record("end", {"writers": [[writer, recorder.next_seq - 1]]})
    recorder.close()
    return {"spans": spans.taken, "checkpoints": sum(stage == "plain seals" for stage, _, _ in spans.taken)}


def register(recorder: Any, public_key: bytes, samples: int, folder: Path) -> Any:
    """The samples under their public ids, all for training; returns where each row stands."""
    import numpy as np

    from fgtrac.capture.blocks import name_block, room_in
    from fgtrac.capture.sample_ids import IdKeys
    from fgtrac.capture.use_entries import Placement, pieces

    said = {"trace": TRACE_ID, "format": 1, "public_key": public_key, "id_scheme": "public", "versions": {}}
    recorder.record("run", said)
    recorder.record("dataset", {"name": DATASET, "id_scheme": "public", "rows": samples})
    block = name_block(DATASET, range(samples), IdKeys("public", (b"",)), None, None, room_in(folder))
    block.write(recorder)
    for piece in pieces(np.arange(samples, dtype=np.uint32), 4):
        recorder.record("roles", {"role": "train", "block": block.id, "ordinals": piece})
    ordinals = np.empty(samples, dtype=np.uint32)
    ordinals[block.order] = np.arange(samples, dtype=np.uint32)
    return Placement((block.id,), ordinals, None)


def use(recorder: Any, placement: Any, epoch: int, step: int, order: array[int], positions: range) -> int:
    """Record these positions of an epoch's order, batch by batch; returns the step of the last update."""
    from fgtrac.events.schema import ATTRIBUTION, STATUS

    status, attribution = STATUS["applied"], ATTRIBUTION["exact"]
    for start in range(positions.start, positions.stop, BATCH):
        step += 1
        row = (epoch, start // BATCH, step, status, attribution)
        recorder.use(placement, 1, 1, row, order[start : min(start + BATCH, positions.stop)])
    return step


def checkpoint(recorder: Any, step: int, epoch: int) -> None:
    """Say that there was a model state, which is not kept, and its loss."""
    loss = 1 / (1 + step)
    recorder.record("metrics", {"step": step, "values": {"loss": loss}})
    said = {"step": step, "epoch": epoch, "val_loss": loss, "kept": False, "rule": "every:0"}
    recorder.record("checkpoint", said)


def plain_seal(trace: Any, signer: Any, spans: Spans) -> None:
    """Move the journal into the log, as a run does behind a checkpoint."""
    from fgtrac.commit.sequencer import seal

    with spans.of("plain seals"):
        seal(trace, signer, full=False, clock=time.time_ns)


def full_seal(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """As `fgtrac seal` does."""
    from fgtrac.api.sealing import seal_trace

    spans = Spans()
    with spans.of("full seal"):
        sealed = seal_trace(folder / "run.trace", folder / "key.pem", progress=show_stage, **on_engine(asked))
    if not sealed.full:
        raise SystemExit(f"the seal at {sealed.size} entries has no index")
    return {"spans": spans.taken, "entries": sealed.size}


def verify(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """As `fgtrac verify` does; what does not hold is no figure."""
    from fgtrac.api.trace import open_for_verification

    spans = Spans()
    with spans.of("verify"):
        trace = open_for_verification(folder / "run.trace", key=str(folder / "key.pem"))
        report = trace.verify(progress=lambda done, of: show(f"verified {done:,} of {of:,}"), **on_engine(asked))
    if report.verdict != "holds":
        raise SystemExit(f"the trace as it was recorded is not verified: {report.verdict}: {report.failures()}")
    return {"spans": spans.taken}


def look_up(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Open the trace and ask for the histories of some samples."""
    import numpy as np

    import fgtrac

    spans, open_trace = Spans(), fgtrac.open  # loads what it needs: importing is not opening
    rows = np.random.default_rng(2).choice(asked.samples, min(HISTORIES, asked.samples), replace=False).tolist()
    with spans.of("open"):
        trace = open_trace(folder / "run.trace", key=str(folder / "key.pem"))
    with spans.of("first history"):  # what is looked up once is looked up here
        trace.history(f"{DATASET}:{asked.samples // 2}")
    for row in rows:
        with spans.of("history"):
            history = trace.history(f"{DATASET}:{row}")
        if history.uses != asked.events // asked.samples:
            raise SystemExit(f"the history of row {row} has {history.uses} uses, not {asked.events // asked.samples}")
    times = [stop - start for stage, start, stop in spans.taken if stage == "history"]
    return {"spans": spans.taken, "history_ms": 1e3 * statistics.median(times), "histories": len(times)}


def on_engine(asked: argparse.Namespace) -> dict[str, Any]:
    """What was asked for of engine and memory, as the verbs take it."""
    from fgtrac.cli.engine import memory_bytes

    return {"engine": asked.engine, **({"memory_bytes": memory_bytes(asked.memory)} if asked.memory else {})}


def check(folder: Path, asked: argparse.Namespace) -> None:
    """SystemExit where there is no such engine or amount of memory."""
    from typer import BadParameter

    from fgtrac.engine.opening import open_engine
    from fgtrac.errors import EngineError

    try:
        with open_engine(on_engine(asked)["engine"]):
            pass
    except BadParameter as error:
        raise SystemExit(error.message) from None
    except (ValueError, EngineError) as error:
        raise SystemExit(str(error)) from None


def show_stage(stage: str, done: int, of: int) -> None:
    """Progress of a seal."""
    show(f"sealed: {stage} {done:,} of {of:,}")


def show(words: str) -> None:
    """Progress, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{words}", end="", file=sys.stderr, flush=True)


# -- what is measured of them --------------------------------------------------------------------------------------


ACTS = {"record": record, "seal": full_seal, "verify": verify, "look up": look_up}


def measure(folder: Path, asked: argparse.Namespace, events: int, samples: int) -> dict[str, Any]:
    """One run of all processes over so many events: what each stage took."""
    folder.mkdir()
    told: dict[str, Any] = {"events": events, "samples": samples}
    seconds, peaks = dict.fromkeys(STAGES, 0.0), dict.fromkeys(STAGES, 0.0)
    watch = Watch(folder)
    try:
        for act in ACTS:
            said = in_a_process(act, folder, asked, events, samples)
            for stage, start, stop in said.pop("spans"):
                seconds[stage] += stop - start
                peaks[stage] = max(peaks[stage], watch.peak_gb(start, stop))
            told |= said
    finally:
        watch.close()
    trace = folder / "run.trace"
    disk = {"log": folder_bytes(trace / "tile"), "index": folder_bytes(trace / "index"), "peak": watch.disk_bytes}
    told |= {"seconds": seconds, "stage_peak_gb": peaks, "disk_bytes": disk}
    told["peak_gb"] = max(size for _, size in watch.memory) / 1e9
    told["cost_s"] = sum(seconds[stage] for stage in COSTS)
    shutil.rmtree(folder)
    return told


def in_a_process(act: str, folder: Path, asked: argparse.Namespace, events: int, samples: int) -> dict[str, Any]:
    """What one of the acts says, done in a process of its own."""
    show(f"{events:,} uses: {act}")
    done = run(act, folder, asked, events, samples)
    if done.returncode:
        raise SystemExit(f"{act} of {events:,} uses failed (exit code {done.returncode}); what it said stands above")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def run(
    act: str, folder: Path, asked: argparse.Namespace, events: int, samples: int
) -> subprocess.CompletedProcess[str]:
    """An act in a process of its own, whose memory is not this one's."""
    options = ["--events", str(events), "--samples", str(samples), "--engine", asked.engine]
    options += ["--memory", asked.memory] if asked.memory else []
    environment = {**os.environ, "FGTRAC_CACHE": str(folder / "cache")}
    command = [sys.executable, __file__, "--act", act, "--folder", str(folder), *options]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)


def check_room(folder: Path, events: int, samples: int) -> None:
    """SystemExit where the disk has not the room."""
    needed = events * (LOG_BYTES + INDEX_BYTES + RUN_BYTES) + samples * SAMPLE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SystemExit(
            f"{events:,} uses need {needed / 1e9:.1f} GB of disk for a while, and {folder} has {free / 1e9:.1f} GB "
            "free; name a folder on another disk with --folder, or take fewer --events"
        )


def figures_of(told: dict[str, Any], small: list[dict[str, Any]]) -> dict[str, float]:
    """The figures, as the docstring of this file says."""
    seconds, events = told["seconds"], told["events"]
    small_cost = statistics.median(one["cost_s"] / one["events"] for one in small)
    return {
        "ingest_events_per_s": events / seconds["ingest"],
        "seal_s": seconds["plain seals"] + seconds["full seal"],
        "index_events_per_s": events / seconds["full seal"],
        "verify_events_per_s": events / seconds["verify"],
        "peak_gb": told["peak_gb"],
        "history_ms": told["history_ms"],
        "linearity": told["cost_s"] / events / small_cost,
    }


def parse_arguments() -> argparse.Namespace:
    """The command line. SystemExit for sizes that do not go together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=whole_number, default=10**9, help="uses (1e7 is a number too)")
    parser.add_argument("--samples", type=whole_number, help="samples; by default a hundredth of the uses")
    parser.add_argument("--engine", default="local", help="where the seal and the verification work, as fgtrac seal")
    parser.add_argument("--memory", help="what they may take, as fgtrac seal")
    parser.add_argument("--folder", type=Path, help="where the trace lies for a while (default: the system's)")
    parser.add_argument("--into", type=Path, metavar="FILE", help="keep what each stage took in a JSON file")
    parser.add_argument("--table", type=Path, metavar="FILE", help="only write the tables of the page beside that file")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--act", choices=[*ACTS, "check"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.samples = max(asked.events // 100, 1) if asked.samples is None else asked.samples
    if asked.events % asked.samples:
        parser.error(f"--events {asked.events} is no multiple of --samples {asked.samples}; each is used equally often")
    if asked.folder is not None and not asked.folder.is_dir():
        parser.error(f"--folder {asked.folder} is no folder; make it first")
    return asked


def whole_number(text: str) -> int:
    """A number as 1000, 1_000 or 1e3, at least 1. ArgumentTypeError for what is none."""
    try:
        number = float(text.replace("_", ""))
        if number != int(number) or number < 1:
            raise ValueError
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r:.40} is no whole number above 0; write it like 1000000 or 1e6"
        ) from None
    return int(number)


@contextmanager
def in_a_line() -> Iterator[None]:
    """What the files of figures and tables are not, or what cannot be measured here, ends this in one line."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise SystemExit(str(error)) from error


def main() -> None:
    asked = parse_arguments()
    with in_a_line():
        if asked.table:
            scaling_page.write(asked.table)
            return
        if asked.into:
            scaling_page.check(asked.into)
        check_children()
    with tempfile.TemporaryDirectory(prefix="fgtrac-scale-", dir=asked.folder) as name:
        folder, times = Path(name), asked.events // asked.samples
        check_room(folder, asked.events, asked.samples)
        if code := run("check", folder, asked, asked.events, asked.samples).returncode:
            raise SystemExit(code)  # it has said why
        fewer = max(asked.samples // 100, 1)
        small = [measure(folder / f"small-{turn}", asked, fewer * times, fewer) for turn in range(3)]
        told = measure(folder / "large", asked, asked.events, asked.samples)
    show("")
    told["figures"] = figures_of(told, small)
    told |= {"engine": asked.engine, "memory": asked.memory, "cores": len(os.sched_getaffinity(0))}
    print(scaling_page.words(told))
    if asked.into:
        with in_a_line():
            scaling_page.keep(asked.into, told)
            scaling_page.write(asked.into)
    if asked.json:
        print(json.dumps({"benchmark": "scale", "figures": told["figures"]}))


if __name__ == "__main__":
    arguments = parse_arguments()
    if arguments.act:
        print(json.dumps({**ACTS, "check": check}[arguments.act](arguments.folder, arguments)))
    else:
        main()
