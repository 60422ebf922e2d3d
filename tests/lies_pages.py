"""Pages that list lies, one a row: what they say, and what the scripts' acts give."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ATTACKS = Path(__file__).parents[1] / "attacks"
_ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
Row = tuple[str, str, str]


def names_in(folder: Path) -> list[str]:
    """The scripts of a folder that tell a lie."""
    return sorted(file.stem for file in folder.glob("*.py") if "\ndef tell(" in file.read_text(encoding="utf-8"))


def rows_of(folder: Path) -> list[Row]:
    """The rows of a folder's page: name, title, what is answered."""
    found = _ROW.findall((folder / "README.md").read_text(encoding="utf-8"))
    return [(name, title.strip(), answers.strip()) for name, title, answers in found]


def row(name: str, acts: Sequence[Any]) -> Row:
    """What a page says of one script, which has been loaded."""
    title = (sys.modules[name].__doc__ or "").splitlines()[0]
    return name, title, "; ".join(dict.fromkeys(map(_outcome, acts)))


def stopped_in(folder: Path) -> dict[str, list[str]]:
    """By check the lies that it stops, as a folder's page says."""
    rows = rows_of(folder)
    checks = sorted({check for *_, answers in rows for check in re.findall(r"`([^`]+)`", answers)})
    return {check: [name for name, _, answers in rows if f"`{check}`" in answers] for check in checks}


def _outcome(act: Any) -> str:
    options = [o for o in act.answer.command.split() if o.startswith("--") and o not in ("--key", "--policy")]
    how = f" ({' '.join(options)})" if options else ""
    checks = " and ".join(f"`{check}`" for check in act.checks)
    return f"{act.promised}: {checks}{how}" if checks else act.promised + how
