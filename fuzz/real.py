"""Real inputs to start from: small traces as they are recorded and sealed, and true bundles of every claim."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from every_bundle import every_bundle
from lives import live
from recorded import Scored
from target import Real


def make_real(folder: Path) -> Real:
    """A trace with factors, a vault, and bundles."""
    made = Scored(folder, "tracin", "fisher 0.1").seal()
    (folder / "lives").mkdir()
    for number, case in enumerate(every_bundle(folder / "lives")):
        (folder / f"{number:04}.bundle.json").write_bytes(case.data)
    (folder / "keyed").mkdir()
    live(folder / "keyed", scheme="keyed", vault=True)
    (folder / "run.vault").write_bytes((folder / "keyed" / "run.vault").read_bytes())
    return Real(made.trace.path, folder)
