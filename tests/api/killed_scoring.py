"""Not a test: trains with scoring on in forked children, each of which kills itself at a moment of a factor pass.

    python killed_scoring.py FOLDER ROWS_A_SHARD MOMENT [MOMENT ...]

A moment is the name of a file, such as 00000012/validation: the child dies where that file of factors would be put in
place; or 00000012/contributions: where its files are named and its contributions are not yet. With ,ggn behind it, the
Gauss-Newton matrix is kept. It trains in FOLDER/MOMENT, with / for a dash.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1]))  # what conftest imports

from conftest import Problem
from fgtrac.api import factor_passes, scoring
from fgtrac.store import durable


def die(*_anything: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def child(folder: Path, moment: str) -> None:
    step, what, *options = moment.replace(",", "/").split("/")
    rename, contribute = durable._rename, scoring.record_contributions

    def renaming(source: Path, target: Path) -> None:
        if target.parent.name.startswith(step) and target.name.startswith(what):
            die()
        rename(source, target)

    def contributing(*arguments: Any) -> None:
        if f"{arguments[3].step:08d}" == step and what == "contributions":
            arguments[1].sync()
            die()
        contribute(*arguments)

    durable._rename, scoring.record_contributions = renaming, contributing
    problem = Problem(folder)
    model = problem.model()
    torch.manual_seed(1)
    with problem.start(ids="public", seal_interval_s=0) as run:
        problem.score_with(run, ggn="ggn" in options)
        problem.fit(run, model)


def main() -> None:
    torch.set_num_threads(1)
    folder, rows, *moments = sys.argv[1:]
    factor_passes.shard_rows = lambda layers, dtype: int(rows)
    for moment in moments:
        pid = os.fork()
        if pid == 0:
            try:
                child(Path(folder) / moment.replace("/", "-"), moment)
            finally:
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), f"{moment} never came"


if __name__ == "__main__":
    main()
