"""`make fuzz`: atheris on every parser, one process each, for so many seconds in all; then mutated valid bundles.

    python fuzz/run.py [SECONDS]              every parser, 600 seconds in all
    python fuzz/run.py 60 "fgtrac bundle"     one of them

Prints inputs run and edges covered for each; ends with 1 on any finding, whose bytes stay in fuzz/findings/.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
FINDINGS = HERE / "findings"
MAX_BYTES = 1 << 14  # of an input that is made here; worst cases of a megabyte are tests of their own
TIMEOUT_S = 5  # a second, on a machine that does other things too and under instrumentation
MEMORY_MB = 1024  # of the whole process, with numpy and the libraries in it


def main(arguments: list[str]) -> int:
    seconds = int(arguments[0]) if arguments else 600
    sys.path.insert(0, str(HERE))
    from all_parsers import TARGETS
    from real import make_real

    names = arguments[1:] or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        print(f"{', '.join(sorted(unknown))}: no such parser; there are {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    each, failed, runs = max(1, seconds // len(names)), [], 0
    FINDINGS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fgtrac-fuzz-") as scratch:
        real = make_real(Path(scratch))
        for number, name in enumerate(names):
            corpus = Path(scratch) / f"corpus-{number}"
            corpus.mkdir()
            for place, seed in enumerate(TARGETS[name].seeds(real)):
                (corpus / f"seed-{place}").write_bytes(seed)
            began = time.perf_counter()
            done = _fuzz(name, corpus, each)
            count, edges = _figures(done.stderr)
            runs += count
            print(f"{name:30} {count:>11,} inputs  {edges:>5} edges  {time.perf_counter() - began:6.1f} s", flush=True)
            if done.returncode:
                failed.append(name)
                print(done.stderr[-4000:] + done.stdout[-2000:], file=sys.stderr)
    print(f"{runs:,} inputs for {len(names)} parsers; {len(failed)} with findings: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def _fuzz(name: str, corpus: Path, seconds: int) -> subprocess.CompletedProcess[str]:
    options = [
        f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", f"-timeout={TIMEOUT_S}", f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={FINDINGS}/{name.split(' ')[0].strip(chr(39))}-", "-print_final_stats=1", str(corpus),
    ]  # fmt: skip
    command = [sys.executable, str(HERE / "fuzz_one.py"), name, *options]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)


def _figures(said: str) -> tuple[int, int]:
    """Inputs run and edges covered, as libFuzzer counts them."""
    count = re.search(r"stat::number_of_executed_units: (\d+)", said)
    edges = re.findall(r"cov: (\d+)", said)
    return int(count[1]) if count else 0, int(edges[-1]) if edges else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
