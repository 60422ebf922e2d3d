"""The paper's two experiments, as far as they can be known, measured: writes docs/reproduction.json and its page.

Each pipeline (the demo's CNN; the multimodal graph network) is trained with several seeds in four ways, each training
in a process of its own:

plain       without fgtrac
capture     under trace, scoring off
scoring     under trace, scoring on
witnessed   as scoring, with a recording layer in front of the model: the log against what the model really received,
            and lies told about the trace; no time is taken from it

The first three run one after another, and each seed begins with another of them, so that what else the machine does
meets all alike; the last runs afterwards, several at once, beside the lies of attacks/. A run that is done is kept
under benchmarks/.cache/reproduction, in a folder named by the digest of code and machine: started again, the command
goes on where it was stopped, and after a change it begins anew. Each run says for itself when, at which commit and
under what load it was measured. All figures of the page are in the JSON, and `--render` writes the page from it alone.
Where a claim of the page does not hold, it says so, and the command ends with 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from reproduced.page import failures, render
from reproduced.worker import ARMS, PIPELINES, TIMED

HERE = Path(__file__).parent
ROOT = HERE.parent
LIBRARIES = ("torch", "torch_geometric", "numpy")


@dataclass(frozen=True, slots=True)
class Job:
    """One run. "prepare" makes a pipeline's data, "attacks" tells the lies of attacks/."""

    pipeline: str
    arm: str
    seed: int = 0

    @property
    def name(self) -> str:
        """Of its file in the work folder."""
        return f"{self.pipeline}-{self.arm}-{self.seed}"


ATTACKS = Job("attacks", "all")


def main() -> int:
    """0 where the page is written and every claim on it holds, 1 otherwise."""
    asked = parse_arguments()
    if asked.one is not None:
        return run_here(*asked.one, asked)
    target = asked.out / "reproduction.json"
    if asked.render and not target.exists():
        sys.exit(f"there is no {target} to render: measure first, without --render")
    if not asked.render:
        folder = asked.work / digest_of(asked.epochs)
        folder.mkdir(parents=True, exist_ok=True)
        figures = measure(asked, folder)
        asked.out.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    figures = json.loads(target.read_text(encoding="utf-8"))
    target.with_suffix(".md").write_text(render(figures), encoding="utf-8")
    wrong = failures(figures)
    for words in wrong:
        print(f"does not hold: {words}", file=sys.stderr)
    print(target.with_suffix(".md"))
    return 1 if wrong else 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many trainings of each kind (default 5)")
    parser.add_argument("--only", choices=PIPELINES, action="append", help="this pipeline only")
    parser.add_argument("--epochs", type=int, help="fewer epochs than the recipe has, to try the command out")
    parser.add_argument("--work", type=Path, default=HERE / ".cache/reproduction", help="where finished runs are kept")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="the folder of reproduction.json and its page")
    parser.add_argument("--data-dir", type=Path, help="where npm put the icons; by default they are fetched")
    parser.add_argument("--render", action="store_true", help="write the page from the JSON that is there")
    parser.add_argument("--one", nargs=4, metavar=("PIPELINE", "ARM", "SEED", "FOLDER"), help=argparse.SUPPRESS)
    return parser.parse_args()


# -- runs ---------------------------------------------------------------------------------------------------------


def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Do what is not done yet, and put everything together."""
    pipelines = asked.only or PIPELINES
    timed, others = plan(pipelines, asked.seeds)
    todo = [job for job in (*timed, *others) if not (folder / f"{job.name}.json").exists()]
    done = len(timed) + len(others) - len(todo)
    print(f"{len(todo)} runs to do, {done} are there; load average {os.getloadavg()[0]:.1f}", file=sys.stderr)
    left, began_s = len(todo), time.monotonic()

    def advance(job: Job) -> None:
        nonlocal left
        took_s = run_apart(job, folder, asked)
        left -= 1
        so_far = f"{(time.monotonic() - began_s) / 60:.1f} min so far"
        print(f"{job.name}: {took_s:.1f} s; {left} of {len(todo)} to go, {so_far}", file=sys.stderr)

    for job in (job for job in timed if job in todo):
        advance(job)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # a worker is a process of one thread
        list(pool.map(advance, (job for job in others if job in todo)))
    found = {job: json.loads((folder / f"{job.name}.json").read_text(encoding="utf-8")) for job in (*timed, *others)}
    return {
        "machine": describe(),
        "seeds": asked.seeds,
        "epochs": asked.epochs,
        "pipelines": {
            pipeline: {
                "data": found[Job(pipeline, "prepare")],
                "runs": {arm: [found[Job(pipeline, arm, seed)] for seed in range(asked.seeds)] for arm in ARMS},
            }
            for pipeline in pipelines
        },
        "attacks": found[ATTACKS],
    }


def plan(pipelines: Sequence[str], seeds: int) -> tuple[list[Job], list[Job]]:
    """Those whose time counts, to be done one after another, each seed beginning with another arm; and the others."""
    timed, others = [], [ATTACKS]
    for pipeline in pipelines:
        timed.append(Job(pipeline, "prepare"))
        for seed in range(seeds):
            first = seed % len(TIMED)
            timed += [Job(pipeline, arm, seed) for arm in (*TIMED[first:], *TIMED[:first])]
            others.append(Job(pipeline, "witnessed", seed))
    return timed, others


def run_apart(job: Job, folder: Path, asked: argparse.Namespace) -> float:
    """One job in a process of its own, and the seconds that it took; its JSON, with when and at which commit it was
    measured, stands in `folder` when all went well. SystemExit otherwise."""
    command = [sys.executable, __file__, "--one", job.pipeline, job.arm, str(job.seed), str(folder)]
    command += [] if asked.epochs is None else ["--epochs", str(asked.epochs)]
    command += [] if asked.data_dir is None else ["--data-dir", str(asked.data_dir)]
    began, began_s = state_of_things(), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{job.name} failed:\n{done.stderr[-4000:]}\nStarted again, the command goes on from here.")
    if digest_of(asked.epochs) != folder.name:
        sys.exit("the code has changed meanwhile: start again, and leave it alone")
    found = json.loads(done.stdout.splitlines()[-1]) | {"began": began, "ended": state_of_things()}
    part = folder / f"{job.name}.part"
    part.write_text(json.dumps(found), encoding="utf-8")
    part.replace(folder / f"{job.name}.json")
    return time.monotonic() - began_s


def run_here(pipeline: str, arm: str, seed: str, folder: str, asked: argparse.Namespace) -> int:
    """One job in this process; its figures are the last line."""
    from reproduced.worker import work

    print(json.dumps(work(pipeline, arm, int(seed), asked.epochs, Path(folder), asked.data_dir)))
    return 0


# -- what it was measured with ------------------------------------------------------------------------------------


def digest_of(epochs: int | None) -> str:
    """Of all that determines a run's figures: fgtrac, this benchmark, the lies, software, machine, epochs."""
    digest = hashlib.sha256(json.dumps([epochs, sys.version, describe()]).encode())
    files = [*ROOT.glob("src/**/*.py"), *ROOT.glob("attacks/*.py"), *HERE.glob("reproduced/*.py")]
    for file in sorted(files):
        if file.name != "page.py":
            digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def describe() -> dict[str, Any]:
    """The machine and the software."""
    cpus = [line.partition(":")[2].strip() for line in lines_of("/proc/cpuinfo") if line.startswith("model name")]
    memory_kb = next(int(line.split()[1]) for line in lines_of("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "python": sys.version.split()[0],
        "libraries": {name: version(name) for name in LIBRARIES},
        "processor": cpus[0] if cpus else "unknown",
        "cores": os.cpu_count(),
        "memory_b": 1024 * memory_kb,
    }


def state_of_things() -> dict[str, Any]:
    """Time, code and load at this moment."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git("rev-parse", "--short=12", "HEAD"),
        "is_changed": bool(git("status", "--porcelain", "--", "src", "attacks", "benchmarks")),
        "load": os.getloadavg()[0],
    }


def lines_of(path: str) -> list[str]:
    """The lines of a file of the system's, none where it is missing."""
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


def git(*arguments: str) -> str:
    """What git says of this repository; empty where it is none."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
