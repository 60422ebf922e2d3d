"""What questions cost, in a trace of a million samples of which each was used 100 times; two fresh processes ask.

open_s               importing fgtrac and opening the trace
history_ms           the whole history of a sample, as a user asks for it: the median over 300, and the 95th percentile
build_events_per_s   building the tables: uses a second, over reading, hashing and decoding the log, and writing Parquet
role_query_warm_s    "uses per epoch for role=train" in SQL: the median of 5 behind a first one
role_query_first_s   the same, first of all in a second process, which hashes the tables' files before it believes them
page_ms              the slowest of what pages ask: samples by any order and any part of them, one sample, its uses;
                     each the median of 9
peak_gb              what the process that built the tables and asked all this held at most
FGTRAC_QUERY_SAMPLES and FGTRAC_QUERY_EPOCHS in the environment make it smaller.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import proofs
from fgtrac.commit.sequencer import seal
from fgtrac.commit.signer import Signer
from fgtrac.store.trace_dir import TraceDir
from harness import report

SAMPLES = int(os.environ.get("FGTRAC_QUERY_SAMPLES", "1_000_000"))
EPOCHS = int(os.environ.get("FGTRAC_QUERY_EPOCHS", "100"))
HISTORIES = 300
ROLE_QUERY = "SELECT epoch, count(*) AS uses FROM uses WHERE role = 'train' AND hop = 0 GROUP BY epoch ORDER BY epoch"


def timed(act: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    start = time.perf_counter()
    found = act()
    return time.perf_counter() - start, found


def opened(path: str) -> tuple[float, Any]:
    """Seconds to import fgtrac and to open a trace."""

    def act() -> Any:
        import fgtrac

        return fgtrac.open(path)

    return timed(act)


def measure(path: str) -> dict[str, float]:
    """In a fresh process without a cache: open, ask for histories, build the tables, query them."""
    open_s, trace = opened(path)
    rows = np.random.default_rng(2).choice(SAMPLES, min(HISTORIES, SAMPLES), replace=False).tolist()
    trace.history(f"{proofs.DATASET}:{rows[-1]}")  # what is looked up once is looked up here
    histories = []
    for row in rows:
        seconds, history = timed(lambda row=row: trace.history(f"{proofs.DATASET}:{row}"))
        histories.append(seconds)
        if history.uses != EPOCHS:
            raise SystemExit(f"the history of row {row} has {history.uses} uses, and there were {EPOCHS}")
    build_s, uses = timed(lambda: len(trace.uses()))
    if uses != SAMPLES * EPOCHS:
        raise SystemExit(f"the table has {uses} uses, and there were {SAMPLES * EPOCHS}")
    ask_roles(trace)
    warm = [ask_roles(trace) for _ in range(5)]
    pages = {
        name: 1e3 * float(np.median([timed(act)[0] for _ in range(9)])) for name, act in page_queries(trace).items()
    }
    return {
        "open_s": open_s,
        "history_ms": 1e3 * float(np.median(histories)),
        "history_ms_p95": 1e3 * float(np.percentile(histories, 95)),
        "role_query_warm_s": float(np.median(warm)),
        "build_s": build_s,
        "build_events_per_s": uses / build_s,
        "page_ms": max(pages.values()),
        **{f"page_ms: {name}": value for name, value in pages.items()},
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def ask_roles(trace: Any) -> float:
    """Seconds of the query by role; refuses an answer that is not what was recorded."""
    seconds, rows = timed(lambda: trace.sql(ROLE_QUERY).rows)
    if rows != [{"epoch": epoch, "uses": SAMPLES} for epoch in range(EPOCHS)]:
        raise SystemExit(f"uses by epoch are {rows[:3]} ...")
    return seconds


def page_queries(trace: Any) -> dict[str, Callable[[], Any]]:
    """What pages ask, by name."""
    from fgtrac.web.pages.samples import PAGE_SAMPLES
    from fgtrac.web.sample_query import parse_query

    query, pages = trace.views().query, -(-SAMPLES // PAGE_SAMPLES)

    def samples(part: int, **said: str) -> Callable[[], Any]:
        wanted = parse_query(said, names=False)
        return lambda: (query(*wanted.counting()), query(*wanted.page(part, PAGE_SAMPLES)))

    sample = SAMPLES // 2
    one = query("SELECT id FROM samples WHERE sample = ?", [sample])[0]["id"]
    return {
        "samples by use": samples(0),
        "samples by use, middle": samples(pages // 2),
        "samples by use, last": samples(pages - 1),
        "samples by first step, last": samples(pages - 1, sort="first"),
        "samples by a filter": samples(0, role="train", use="used", text=one[:3]),
        "one sample": lambda: query("SELECT * FROM samples WHERE id = ?", [one]),
        "its uses": lambda: query("SELECT * FROM uses WHERE sample = ? ORDER BY entry LIMIT 50", [sample]),
        "its uses by epoch": lambda: query(
            "SELECT epoch, count(*) FROM uses WHERE sample = ? GROUP BY epoch", [sample]
        ),
    }


def measure_again(path: str) -> dict[str, float]:
    """In a second process, which finds the tables in the cache."""
    _, trace = opened(path)
    return {"role_query_first_s": ask_roles(trace)}


def make(folder: str) -> dict[str, float]:
    """Record and seal the trace: in a process of its own, since the system counts a parent's memory as its child's."""
    proofs.SAMPLES, proofs.EPOCHS = SAMPLES, EPOCHS
    trace = TraceDir.create(Path(folder) / "run.trace")
    signer = Signer(proofs.TRACE_ID, Ed25519PrivateKey.generate(), Path(folder) / "heads" / proofs.TRACE_ID.hex())
    record_s, _ = timed(lambda: proofs.record(trace, signer))
    seal_s, _ = timed(lambda: seal(trace, signer, full=True, clock=time.time_ns))
    return {"record_s": record_s, "seal_s": seal_s}


ACTS = {"--make": make, "--measure": measure, "--measure-again": measure_again}


def main() -> None:
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="fgtrac-query-") as folder:
        environment = {**os.environ, "FGTRAC_CACHE": f"{folder}/cache"}
        for act in ACTS:
            command = [sys.executable, __file__, act, folder if act == "--make" else f"{folder}/run.trace"]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
            figures |= json.loads(done.stdout.splitlines()[-1])
        figures["cache_gb"] = sum(path.stat().st_size for path in Path(folder, "cache").rglob("*.parquet")) / 1e9
    report("query", figures)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ACTS:
        print(json.dumps(ACTS[sys.argv[1]](sys.argv[2])))
    else:
        main()
