"""Tell every lie of this folder: python attacks/run.py [NAME ...]; 0 where all is as promised.

Prints one table, line by line as the lies are told.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

from lying import Stage, Story, answers, show


def every_lie() -> list[str]:
    """The names of the scripts here that tell one."""
    files = Path(__file__).parent.glob("*.py")
    return sorted(file.stem for file in files if "\ndef tell(" in file.read_text(encoding="utf-8"))


def main(names: list[str]) -> int:
    """0 where every lie was answered as the design promises, 1 otherwise, 2 for a name that is none."""
    every = every_lie()
    if unknown := [name for name in names if name not in every]:
        print(f"no lie is called {', '.join(unknown)}; there are {', '.join(every)}")
        return 2
    with tempfile.TemporaryDirectory(prefix="fgtrac-lies-") as folder:
        told: dict[str, Story] = {name: importlib.import_module(name).tell for name in names or every}
        surprises = show(answers(), told, Stage(Path(folder)))
    print(f"{len(told) - surprises} of {len(told)} lies were answered as the design promises")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
