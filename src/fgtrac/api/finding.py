"""One thing that `fgtrac doctor` looked at: what it found, in words, and what to do about it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

NAMED = 5  # files named in one finding


class State(StrEnum):
    """`FINE`; `NOTE`: good to know, nothing to do; `TO_DO`: something needs doing; `CANNOT_TELL`."""

    FINE = "fine"
    NOTE = "note"
    TO_DO = "to do"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `remedy` is empty where there is nothing to do."""

    check: str
    state: State
    words: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        """Plain data."""
        return {"check": self.check, "state": self.state.value, "words": self.words, "remedy": self.remedy}


def fine(check: str, words: str) -> Finding:
    """All is well."""
    return Finding(check, State.FINE, words)


def note(check: str, words: str, remedy: str = "") -> Finding:
    """Nothing is wrong; the remedy is for who wants it otherwise."""
    return Finding(check, State.NOTE, words, remedy)


def to_do(check: str, words: str, remedy: str) -> Finding:
    """Something needs doing."""
    return Finding(check, State.TO_DO, words, remedy)


def cannot_tell(check: str, words: str, remedy: str) -> Finding:
    """Nobody can tell from here."""
    return Finding(check, State.CANNOT_TELL, words, remedy)


def exit_code(findings: Sequence[Finding]) -> int:
    """1 where something needs doing, else 3 where something cannot be told, else 0."""
    states = {finding.state for finding in findings}
    return 1 if State.TO_DO in states else 3 if State.CANNOT_TELL in states else 0


def named(names: Sequence[str]) -> str:
    """The first of some names, and how many there are beside."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def command(verb: str, trace: Path) -> str:
    """A verb of fgtrac on a trace, as a shell takes it."""
    return f"fgtrac {verb} {shlex.quote(str(trace))}"
