"""What a proof costs, in a trace of a million samples of which each was used 90 times.

bundle_kb        the median size of a bundle that proves a sample's 90 uses, without the entries (in 1,000 bytes)
open_ms          opening the trace in a fresh process
prove_ms         making one such bundle then: the median over 500 random samples, and the 95th percentile
check_ms         checking one of their files, as `fgtrac verify` does: the median
absence_1000_s   proving and checking that 1,000 rows of the data set's name were never registered
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.capture.recorder import Recorder
from fgtrac.capture.use_entries import Placement
from fgtrac.commit.sequencer import seal
from fgtrac.commit.signer import Signer
from fgtrac.events.identity import block_id, number_preimages, public_id
from fgtrac.store.journal import JournalWriter
from fgtrac.store.trace_dir import TraceDir
from harness import report, use_all

SAMPLES = 1_000_000
EPOCHS = 90
BATCH = 1024
PART = 2000  # samples registered by one entry
PROVED = 500
ABSENT = 1000
DATASET = "synthetic"
TRACE_ID = bytes(range(16))


def record(trace: TraceDir, signer: Signer) -> None:
    """Register the samples and use each once an epoch, in an order of its own; keep a checkpoint every ten epochs."""
    writer = os.urandom(16)
    recorder = Recorder(JournalWriter(trace.journal, writer), writer, flush_interval_s=0)
    fields = {"trace": TRACE_ID, "format": 1, "public_key": signer.public_key, "id_scheme": "public", "versions": {}}
    recorder.record("run", fields)
    recorder.record("dataset", {"name": DATASET, "id_scheme": "public", "rows": SAMPLES})
    placement = register(recorder)
    generator = np.random.default_rng(1)
    for epoch in range(EPOCHS):
        step = use_all(recorder, placement, epoch, BATCH, generator)
        kept = {"kept": epoch % 10 == 9, "digest": generator.bytes(32), "rule": "every ten epochs"}
        recorder.record("checkpoint", {"step": step, "epoch": epoch, **kept})
    recorder.record("end", {"writers": [[writer, recorder.next_seq - 1]]})
    recorder.close()


def register(recorder: Recorder) -> Placement:
    """The samples under their public ids, and their role; returns where each row stands."""
    ids = np.frombuffer(
        b"".join(map(public_id, number_preimages(DATASET, np.arange(SAMPLES, dtype=np.uint32)))), dtype="V32"
    )
    rows = np.array(sorted(range(SAMPLES), key=lambda row: ids[row].tobytes()), dtype=np.uint32)
    joined = ids[rows].tobytes()
    block, parts = block_id(joined), -(-SAMPLES // PART)
    for part in range(parts):
        mine = joined[32 * part * PART : 32 * (part + 1) * PART]
        recorder.record("samples", {"dataset": DATASET, "block": block, "part": part, "parts": parts, "ids": mine})
    for first in range(0, SAMPLES, 15_000):
        named = np.arange(first, min(first + 15_000, SAMPLES), dtype=np.uint32)
        recorder.record("roles", {"role": "train", "block": block, "ordinals": named})
    ordinals = np.empty(SAMPLES, dtype=np.uint32)
    ordinals[rows] = np.arange(SAMPLES, dtype=np.uint32)
    return Placement((block,), ordinals, None)


def measure(path: str, public_key: str, folder: str) -> dict[str, float]:
    """In a fresh process: prove and check, and refuse to report what does not hold."""
    import fgtrac
    from fgtrac.api.bundles import verify_bundle
    from fgtrac.verify.bundle import parse_bundle

    rows = np.random.default_rng(2).choice(SAMPLES, PROVED, replace=False).tolist()
    start = time.perf_counter()
    trace = fgtrac.open(path)
    open_s = time.perf_counter() - start
    trace.prove(f"{DATASET}:{rows[-1]}")  # what is looked up once is looked up here
    sizes, prove_s, check_s = [], [], []
    bundle = Path(folder) / "bundle.json"
    for row in rows:
        start = time.perf_counter()
        data = trace.prove(f"{DATASET}:{row}")
        prove_s.append(time.perf_counter() - start)
        sizes.append(len(data))
        bundle.write_bytes(data)
        start = time.perf_counter()
        report = verify_bundle(bundle, public_key)
        check_s.append(time.perf_counter() - start)
        if report.exit_code != 0 or f"was used {EPOCHS} times" not in parse_bundle(data).words:
            raise SystemExit(f"the bundle of row {row} does not prove {EPOCHS} uses: {report.failures()}")
    absence_s = 0.0
    for row in range(SAMPLES, SAMPLES + ABSENT):
        start = time.perf_counter()
        data = trace.prove(f"{DATASET}:{row}", "never registered")
        absence_s += time.perf_counter() - start
        bundle.write_bytes(data)
        start = time.perf_counter()
        report = verify_bundle(bundle, public_key)
        absence_s += time.perf_counter() - start
        if report.exit_code != 0:
            raise SystemExit(f"the absence of row {row} does not hold: {report.failures()}")
    return {
        "bundle_kb": float(np.median(sizes)) / 1e3,
        "open_ms": open_s * 1e3,
        "prove_ms": float(np.median(prove_s)) * 1e3,
        "prove_ms_p95": float(np.percentile(prove_s, 95)) * 1e3,
        "check_ms": float(np.median(check_s)) * 1e3,
        "absence_1000_s": absence_s,
    }


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="fgtrac-proofs-") as name:
        folder = Path(name)
        trace = TraceDir.create(folder / "run.trace")
        signer = Signer(TRACE_ID, Ed25519PrivateKey.generate(), folder / "heads" / TRACE_ID.hex())
        start = time.perf_counter()
        record(trace, signer)
        recorded = time.perf_counter()
        seal(trace, signer, full=True, clock=time.time_ns)
        sealed = time.perf_counter()
        arguments = [str(trace.path), signer.public_key.hex(), name]
        command = [sys.executable, __file__, "--measure", json.dumps([SAMPLES, EPOCHS]), *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        figures |= {"record_s": recorded - start, "seal_s": sealed - recorded, "seal_peak_gb": peak / 1e9}
    report("proofs", figures)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        SAMPLES, EPOCHS = json.loads(sys.argv[2])
        print(json.dumps(measure(*sys.argv[3:])))
    else:
        main()
