"""Tell every lie of this folder: python attacks/run.py [--anchored] [NAME ...]; 0 where all is as promised.

Prints one table, line by line as the lies are told. With --anchored they are those about anchored traces, which need
the services that `make test-services` installs.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lying import Stage, Story, answers, show

HERE = Path(__file__).parent
ANCHORED = HERE / "anchored"


def every_lie(folder: Path = HERE) -> list[str]:
    """The names of a folder's scripts that tell one."""
    files = folder.glob("*.py")
    return sorted(file.stem for file in files if "\ndef tell(" in file.read_text(encoding="utf-8"))


def main(names: list[str]) -> int:
    """0 where every lie was answered as the design promises, 1 otherwise, 2 for a name that is none."""
    is_anchored = names[:1] == ["--anchored"]
    names = names[is_anchored:]
    every = every_lie(ANCHORED if is_anchored else HERE)
    if unknown := [name for name in names if name not in every]:
        print(f"no lie is called {', '.join(unknown)}; there are {', '.join(every)}")
        return 2
    with anchored_stage() if is_anchored else plain_stage() as stage:
        told: dict[str, Story] = {name: importlib.import_module(name).tell for name in names or every}
        surprises = show(answers(), told, stage)
    print(f"{len(told) - surprises} of {len(told)} lies were answered as the design promises")
    if not (is_anchored or names):
        print(f"{len(every_lie(ANCHORED))} more, about anchored traces, need services: make test-services tells them")
    return 1 if surprises else 0


@contextmanager
def plain_stage() -> Iterator[Stage]:
    """Where the lies of this folder are told."""
    with tempfile.TemporaryDirectory(prefix="fgtrac-lies-") as folder:
        yield Stage(Path(folder))


@contextmanager
def anchored_stage() -> Iterator[Stage]:
    """Where those about anchored traces are told, with the services running."""
    sys.path.append(str(ANCHORED))
    from anchored import staged

    with staged() as stage:
        yield stage


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
