"""One parser under atheris: `python fuzz/fuzz_one.py NAME [libFuzzer options]`. Any finding ends the process."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent))

with atheris.instrument_imports(include=["fgtrac"]):
    from all_parsers import TARGETS

TARGET = TARGETS[sys.argv.pop(1)]


def run(data: bytes) -> None:
    """One input."""
    TARGET.check(data)


if __name__ == "__main__":
    atheris.Setup(sys.argv, run)
    atheris.Fuzz()
