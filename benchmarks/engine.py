"""What engines are worth: building an index and factor passes by one process, by two, and by Ray with two workers.

The index is of 30 million uses of a million samples, built as one that does not fit in memory is. The factor passes are
of a convolutional net over 65,536 images at sixteen kept states, with one thread of torch each, as `fgtrac score --with
FILE.py:FUNCTION` makes them; timed is all from the first pass to the signed log. Each is done by each engine in turn in
a process of its own, bound to two cores; of two rounds the faster one counts.

speedup_2      seconds of local:1 over those of local:2, starting the two processes (which import torch, and load the
               data again) included: the smaller one of index and factor passes
ray_overhead   seconds of Ray over those of local:2, the start of Ray apart: the larger one
ray_start_s    seconds until a cluster of this machine's own is there
equal_bytes    1 where all three made the same index, factors and contributions, byte for byte; else 0
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from fgtrac.engine.local import cores
from harness import report, use_all

ENGINES = ("local:1", "local:2", "ray")
JOBS = ("index", "factors")
ROUNDS = 2
SAMPLES, EPOCHS, BATCH = 1_000_000, 30, 256
MEMORY_BYTES = 1 << 30
IMAGES, VALIDATED, STATES = 1 << 16, 1000, 16
TRACE_ID = bytes(range(16))


# -- what is worked on --------------------------------------------------------------------------------------------


def record_uses(folder: Path) -> None:
    """A log of samples without contents and their uses, sealed without an index."""
    from fgtrac.capture.recorder import Recorder
    from fgtrac.capture.use_entries import Placement
    from fgtrac.commit.sequencer import seal
    from fgtrac.commit.signer import Signer
    from fgtrac.events.identity import block_id, public_id
    from fgtrac.store.journal import JournalWriter
    from fgtrac.store.trace_dir import TraceDir

    trace, signer, writer = TraceDir.create(folder / "uses.trace"), Signer.open(TRACE_ID, folder / "key.pem"), bytes(16)
    recorder = Recorder(JournalWriter(trace.journal, writer), writer, flush_interval_s=0)
    fields = {"trace": TRACE_ID, "format": 1, "public_key": signer.public_key, "id_scheme": "public", "versions": {}}
    recorder.record("run", fields)
    recorder.record("dataset", {"name": "synthetic", "id_scheme": "public", "rows": SAMPLES})
    ids = b"".join(sorted(public_id(row.to_bytes(8, "little")) for row in range(SAMPLES)))
    block, parts = block_id(ids), -(-SAMPLES // 1000)
    for part in range(parts):
        mine = ids[part * 32_000 : (part + 1) * 32_000]
        recorder.record("samples", {"dataset": "synthetic", "block": block, "part": part, "parts": parts, "ids": mine})
    placement, generator = Placement((block,), np.arange(SAMPLES, dtype=np.uint32), None), np.random.default_rng(1)
    for epoch in range(EPOCHS):
        use_all(recorder, placement, epoch, BATCH, generator)
    recorder.close()
    seal(trace, signer, full=False, clock=time.time_ns)


def images(rows: int, seed: int) -> Any:
    """Noise in ten classes."""
    import torch
    from torch.utils.data import TensorDataset

    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (rows, 28, 28), dtype=torch.uint8, generator=generator)
    return TensorDataset(pixels, torch.randint(10, (rows,), generator=generator))


def net() -> Any:
    """LeNet in shape."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    convolutions = (nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU())
    head = (nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU())
    return nn.Sequential(*convolutions, *head, nn.Linear(84, 10))


def again(run: Any) -> Any:
    """The data, how they are scored, and the model: what every worker calls."""
    from torch.nn import CrossEntropyLoss

    train, validation = images(IMAGES, 1), images(VALIDATED, 2)
    run.register(train, name="train")
    run.register(validation, name="validation")
    run.score_with(loss=CrossEntropyLoss(), train=train, validation=validation, forward=forward)
    return net()


def forward(model: Any, batch: Any) -> Any:
    """Outputs and targets."""
    return model(batch[0][:, None].float() / 255), batch[1]


def record_states(folder: Path) -> None:
    """A trace that keeps states of the net some steps apart, and has no factors."""
    import torch

    from fgtrac.api.run import start_run

    model, train = net(), images(IMAGES, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with start_run(folder / "states/run", key=folder / "states/key.pem", keep="all", ids="public") as run:
        run.register(train, name="train", role="train")
        run.register(images(VALIDATED, 2), name="validation", role="validation")
        for state in range(STATES):
            for start in range(state * 10 * BATCH, (state + 1) * 10 * BATCH, BATCH):
                outputs, targets = forward(model, train[start : start + BATCH])
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(outputs, targets).backward()
                optimizer.step()
            run.checkpoint(model, optimizer, val_loss=1 / (state + 1))


# -- what is timed, each in a process of its own --------------------------------------------------------------------


def measure(folder: Path, name: str) -> dict[str, Any]:
    """Seconds of both by one engine, and digests of what it made."""
    from fgtrac.engine.opening import open_engine

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    start = time.perf_counter()
    with open_engine(name) as engine:
        begun = time.perf_counter() - start
        index_s, index = build_index(folder, engine)
        factors_s, factors = make_factors(folder, engine)
    return {"start": begun, "index": index_s, "factors": factors_s, "made": [index, factors]}


def build_index(folder: Path, engine: Any) -> tuple[float, str]:
    """The index over all uses, in files that are removed again."""
    from fgtrac.store.index_build import LogPart, build_large_index
    from fgtrac.store.trace_dir import TraceDir

    trace, work = TraceDir.open(folder / "uses.trace"), folder / "work"
    head = trace.head()
    assert head is not None
    work.mkdir()
    start = time.perf_counter()
    log = LogPart(trace, head.size, head.root, head.size)
    built = build_large_index(log, engine, work, folder / "ledger", memory_bytes=MEMORY_BYTES)
    seconds = time.perf_counter() - start
    made = hashlib.sha256(built.root + b"".join(built.column_digests[name] for name in sorted(built.column_digests)))
    shutil.rmtree(work)
    (folder / "ledger").unlink()
    return seconds, made.hexdigest()


def make_factors(folder: Path, engine: Any) -> tuple[float, str]:
    """Factors and contributions of a copy of the trace."""
    from fgtrac.api.run import reopen

    copy = folder / "copy"
    shutil.copytree(folder / "states", copy)  # with the key, which knows what it signed
    with reopen(copy / "run", key=copy / "key.pem") as run:
        model = again(run)
        start = time.perf_counter()
        run.score(model, engine=engine, function=f"{__file__}:again", progress=lambda done, total: None)
    seconds, made = time.perf_counter() - start, hashlib.sha256()
    for path in sorted((copy / "run.trace/artifacts/scoring").rglob("*.safetensors")):
        made.update(f"{path.relative_to(copy)} ".encode() + path.read_bytes())
    made.update(b"".join(contributions(copy / "run.trace")))
    shutil.rmtree(copy)
    return seconds, made.hexdigest()


def contributions(trace: Path) -> list[bytes]:
    """What the log has of them, in order."""
    from fgtrac.events.schema import decode_event
    from fgtrac.store.trace_dir import TraceDir
    from fgtrac.tlog.tiles import read_entries

    opened = TraceDir.open(trace)
    head = opened.head()
    assert head is not None
    entries = map(decode_event, read_entries(opened, 0, head.size, head.size))
    return [e["ordinals"].tobytes() + e["scores"].tobytes() for e in entries if e["kind"] == "contribution"]


def in_fresh_process(folder: Path, engine: str) -> dict[str, Any]:
    """`measure`, in a process of its own."""
    command = [sys.executable, __file__, "--measure", str(folder), engine]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Record, measure in turn, and report."""
    if importlib.util.find_spec("ray") is None:
        sys.exit("engine compares with Ray: pip install 'fgtrac[ray]' -c constraints.txt")
    if cores() < 2:
        sys.exit("engine compares two processes with one, and may use one core: let it have two")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record_uses(folder)
        record_states(folder)
        found = [(engine, in_fresh_process(folder, engine)) for _round in range(ROUNDS) for engine in ENGINES]
    best = {
        (e, what): min(f[what] for n, f in found if n == e) for e in ENGINES for what in ("start", "index", "factors")
    }
    speedups = {what: best["local:1", what] / best["local:2", what] for what in ("index", "factors")}
    overheads = {what: best["ray", what] / best["local:2", what] for what in ("index", "factors")}
    figures = {"speedup_2": min(speedups.values()), "ray_overhead": max(overheads.values())}
    figures |= {"equal_bytes": int(all(f["made"] == found[0][1]["made"] for _, f in found))}
    figures |= {"ray_start_s": best["ray", "start"]}
    figures |= {f"speedup_2_{what}": value for what, value in speedups.items()}
    figures |= {f"ray_overhead_{what}": value for what, value in overheads.items()}
    figures |= {f"{what}_s_{e.replace(':', '_')}": best[e, what] for what in JOBS for e in ENGINES}
    report("engine", figures)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]), sys.argv[3])))
    else:
        main()
