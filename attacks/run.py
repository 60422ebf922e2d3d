"""Tell every lie of this folder and print one table: python attacks/run.py [NAME ...]; 0 where all is as promised."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from lying import Stage, Story, show

NOT_LIES = ("run", "lying", "true_trace")


def stories() -> dict[str, Story]:
    """The story of every script here, by the script's name."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in NOT_LIES)
    return {name: importlib.import_module(name).tell for name in names}


def main(names: list[str]) -> int:
    """0 where every lie was answered as the design promises, 1 otherwise, 2 for a name that is none."""
    every = stories()
    if unknown := [name for name in names if name not in every]:
        print(f"no lie is called {', '.join(unknown)}; there are {', '.join(every)}")
        return 2
    with tempfile.TemporaryDirectory(prefix="fgtrac-lies-") as folder:
        told = {name: every[name] for name in names or every}
        surprises = show(Console(highlight=False, width=200), told, Stage(Path(folder)))
    print(f"{len(told) - surprises} of {len(told)} lies were answered as the design promises")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
