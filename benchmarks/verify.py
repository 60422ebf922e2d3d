"""How long a stranger needs to check 5 million uses over 1 million samples, against a bare loop of SHA-256.

ratio_to_hashing   a full verification in a fresh process, none of the trace in the page cache, over hashing inputs of
                   48, 178, 65 and 65 bytes a sample
peak_gb            the most memory that this process had (ru_maxrss)
open_ms            fgtrac.open in another fresh process, the page cache as the verification left it
history_ms         one sample's history then, the first that this process asks for
plain_seal_s       a plain seal of 1,000 new entries on that trace
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.capture.recorder import Recorder
from fgtrac.capture.use_entries import Placement
from fgtrac.commit.sequencer import seal
from fgtrac.commit.signer import Signer
from fgtrac.events.identity import block_id, public_id
from fgtrac.events.schema import ATTRIBUTION, STATUS
from fgtrac.store.journal import JournalWriter
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.note import Verifier
from harness import report, use_all

SAMPLES = 1_000_000
EPOCHS = 5
BATCH = 256
TRACE_ID = bytes(range(16))
PART = 1000  # samples registered by one entry, with their contents
HASHED_BYTES = (48, 178, 65, 65)


def record(trace: TraceDir, signer: Signer) -> Placement:
    """Register a million samples with contents and roles, and use each of them five times, in shuffled order."""
    recorder, writer = new_recorder(trace)
    fields = {"trace": TRACE_ID, "format": 1, "public_key": signer.public_key, "id_scheme": "public", "versions": {}}
    recorder.record("run", fields)
    recorder.record("dataset", {"name": "synthetic", "id_scheme": "public", "rows": SAMPLES})
    ids = sorted(public_id(row.to_bytes(8, "little")) for row in range(SAMPLES))
    block = block_id(b"".join(ids))
    parts = -(-SAMPLES // PART)
    for part in range(parts):
        mine = b"".join(ids[part * PART : (part + 1) * PART])
        contents = b"".join(hashlib.sha256(mine[i : i + 32]).digest() for i in range(0, len(mine), 32))
        samples = {"dataset": "synthetic", "block": block, "part": part, "parts": parts, "ids": mine}
        recorder.record("samples", {**samples, "contents": contents})
    ordinals = np.random.default_rng(0).permutation(SAMPLES).astype(np.uint32)
    for first in range(0, SAMPLES, 15_000):
        named = np.arange(first, min(first + 15_000, SAMPLES), dtype=np.uint32)
        recorder.record("roles", {"role": "train", "block": block, "ordinals": named})
    placement = Placement((block,), ordinals, None)
    generator = np.random.default_rng(1)
    for epoch in range(EPOCHS):
        use_all(recorder, placement, epoch, BATCH, generator)
    recorder.record("end", {"writers": [[writer, recorder.next_seq - 1]]})
    recorder.close()
    return placement


def new_recorder(trace: TraceDir) -> tuple[Recorder, bytes]:
    """A recorder of a new process's kind, which writes when it is told to."""
    writer = os.urandom(16)
    return Recorder(JournalWriter(trace.journal, writer), writer, flush_interval_s=0), writer


def forget_cached(trace: TraceDir) -> None:
    """Ask the system to drop the trace's files from its cache."""
    for name in trace.names():
        with (trace.path / name).open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_fresh_process(trace: TraceDir, what: str, *arguments: str) -> dict[str, float]:
    """Run one of the measurements below in a process of its own."""
    command = [sys.executable, __file__, "--measure", what, str(trace.path), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure_verify(path: str, public_key: str) -> dict[str, float]:
    """Verify everything, then hash as much as the index alone asks for."""
    from fgtrac.api.audit import audit_trace

    verifier = Verifier("fgtrac/" + TRACE_ID.hex(), bytes.fromhex(public_key))
    start = time.perf_counter()
    report = audit_trace(TraceDir.open(Path(path)), verifier)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "peak": peak, "exit_code": report.exit_code, "hashing": time_hashing()}


def time_hashing() -> float:
    """Seconds of the bare loop."""
    sha256, inputs = hashlib.sha256, [bytes(size) for size in HASHED_BYTES]
    start = time.perf_counter()
    for _ in range(SAMPLES):
        for data in inputs:
            sha256(data).digest()
    return time.perf_counter() - start


def measure_open(path: str, sample: str) -> dict[str, float]:
    """Open the trace, then ask for one sample's history."""
    import fgtrac

    open_trace = fgtrac.open  # loads what it needs: importing is not opening
    start = time.perf_counter()
    trace = open_trace(path)
    opened = time.perf_counter()
    history = trace.history(f"id:{sample}")
    done = time.perf_counter()
    uses = [event for event in history.events if event.kind == "used"]
    if len(uses) != EPOCHS:
        raise SystemExit(f"the history of {sample} has {len(uses)} uses; the sample was used {EPOCHS} times")
    return {"open_s": opened - start, "history_s": done - opened}


def time_plain_seal(trace: TraceDir, signer: Signer, placement: Placement) -> float:
    """Seconds to seal 1,000 new entries on top of the trace."""
    recorder, _writer = new_recorder(trace)
    for step in range(1000):
        row = (EPOCHS, step, EPOCHS * SAMPLES + step, STATUS["applied"], ATTRIBUTION["exact"])
        recorder.use(placement, 1, 1, row, array("I", range(step * 100, step * 100 + BATCH)))
        recorder.flush()
    recorder.close()
    start = time.perf_counter()
    sealed = seal(trace, signer, full=False, clock=time.time_ns)
    seconds = time.perf_counter() - start
    if sealed.new_entries != 1000:
        raise SystemExit(f"the plain seal took {sealed.new_entries} entries; 1,000 were written")
    return seconds


def refuse_flipped_bit(trace: TraceDir, public_key: str) -> None:
    """SystemExit unless the same trace with one bit flipped in an entry is refused."""
    name = next(n for n in trace.names() if n.startswith("tile/entries/"))
    data = bytearray(trace.read(name))
    data[len(data) // 2] ^= 1
    (trace.path / name).write_bytes(data)
    if in_fresh_process(trace, "verify", public_key)["exit_code"] != 1:
        raise SystemExit(f"one bit of {name} was flipped and the verification did not refuse the trace")
    data[len(data) // 2] ^= 1
    (trace.path / name).write_bytes(data)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="fgtrac-verify-") as name:
        folder = Path(name)
        trace = TraceDir.create(folder / "run.trace")
        signer = Signer(TRACE_ID, Ed25519PrivateKey.generate(), folder / "heads" / TRACE_ID.hex())
        placement = record(trace, signer)
        start = time.perf_counter()
        seal(trace, signer, full=True, clock=time.time_ns)
        full_seal_s = time.perf_counter() - start
        key = signer.public_key.hex()
        forget_cached(trace)
        verified = in_fresh_process(trace, "verify", key)
        if verified["exit_code"] != 0:
            raise SystemExit("the trace as it was recorded does not verify")
        refuse_flipped_bit(trace, key)
        opened = in_fresh_process(trace, "open", public_id((7).to_bytes(8, "little")).hex())
        figures = {
            "ratio_to_hashing": verified["seconds"] / verified["hashing"],
            "verify_s": verified["seconds"],
            "peak_gb": verified["peak"] / 1e9,
            "open_ms": opened["open_s"] * 1e3,
            "history_ms": opened["history_s"] * 1e3,
            "full_seal_s": full_seal_s,
            "plain_seal_s": time_plain_seal(trace, signer, placement),
        }
    report("verify", figures)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure = {"verify": measure_verify, "open": measure_open}[sys.argv[2]]
        print(json.dumps(measure(*sys.argv[3:])))
    else:
        main()
