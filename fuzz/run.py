"""`make fuzz`: atheris on every parser, one process each and as many at a time as there are cores.

    python fuzz/run.py [SECONDS]              every parser, 600 seconds in all
    python fuzz/run.py 60 "fgtrac bundle"     one of them

SECONDS are by the clock, starts included; but each parser takes some 5 s at least, so that 32 of them take a minute and
a half on two cores, however few are asked for. Prints inputs run and edges covered for each; ends with 1 on any
finding, whose bytes stay in fuzz/findings/.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
FINDINGS = HERE / "findings"
MAX_BYTES = 1 << 14  # of an input that is made here; worst cases of a megabyte are tests of their own
TIMEOUT_S = 5  # a second, on a machine that does other things too and under instrumentation
MEMORY_MB = 1024  # of the whole process, with numpy and the libraries in it
START_S = 4  # until a parser is loaded under instrumentation
AT_ONCE = os.cpu_count() or 1


def main(arguments: list[str]) -> int:
    clock = Clock(time.perf_counter() + (int(arguments[0]) if arguments else 600))
    sys.path.insert(0, str(HERE))
    from all_parsers import TARGETS
    from real import make_real

    names = arguments[1:] or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        print(f"{', '.join(sorted(unknown))}: no such parser; there are {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    failed, runs = [], 0
    FINDINGS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fgtrac-fuzz-") as scratch, ThreadPoolExecutor(AT_ONCE) as pool:
        real = make_real(Path(scratch))
        corpora = [Path(scratch) / f"corpus-{number}" for number in range(len(names))]
        for name, corpus in zip(names, corpora, strict=True):
            corpus.mkdir()
            for place, seed in enumerate(TARGETS[name].seeds(real)):
                (corpus / f"seed-{place}").write_bytes(seed)
        clock.waiting = len(names)
        fuzzed = pool.map(lambda name, corpus: _fuzz(name, corpus, clock), names, corpora)
        for name, (done, took) in zip(names, fuzzed, strict=True):
            count, edges = _figures(done.stderr)
            runs += count
            print(f"{name:30} {count:>11,} inputs  {edges:>5} edges  {took:6.1f} s", flush=True)
            if done.returncode:
                failed.append(name)
                print(done.stderr[-4000:] + done.stdout[-2000:], file=sys.stderr)
    print(f"{runs:,} inputs for {len(names)} parsers; {len(failed)} with findings: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


@dataclass
class Clock:
    """Shares the time until `end` among the parsers that still wait."""

    end: float
    waiting: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def share(self) -> int:
        """Seconds for the next parser, once it is loaded: one at least."""
        with self._lock:
            share = (self.end - time.perf_counter()) * min(AT_ONCE, self.waiting) / self.waiting
            self.waiting -= 1
        return max(1, round(share - START_S))


def _fuzz(name: str, corpus: Path, clock: Clock) -> tuple[subprocess.CompletedProcess[str], float]:
    """One parser: how its process ended, and the seconds that it took."""
    options = [
        f"-max_total_time={clock.share()}", f"-max_len={MAX_BYTES}", f"-timeout={TIMEOUT_S}",
        f"-rss_limit_mb={MEMORY_MB}", f"-artifact_prefix={FINDINGS}/{name.split(' ')[0].strip(chr(39))}-",
        "-print_final_stats=1", str(corpus),
    ]  # fmt: skip
    began = time.perf_counter()
    command = [sys.executable, str(HERE / "fuzz_one.py"), name, *options]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return done, time.perf_counter() - began


def _figures(said: str) -> tuple[int, int]:
    """Inputs run and edges covered, as libFuzzer counts them."""
    count = re.search(r"stat::number_of_executed_units: (\d+)", said)
    edges = re.findall(r"cov: (\d+)", said)
    return int(count[1]) if count else 0, int(edges[-1]) if edges else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
