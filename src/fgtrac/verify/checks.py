"""What the auditor's table of checks is made of, and what each writer's sequence of entries must look like."""

from __future__ import annotations

import bisect
import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from fgtrac.errors import EngineError, FgtracError, ProofError, StorageError
from fgtrac.verify.report import Finding, Verdict

_OF_PATHS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG})


class TraceFiles(Protocol):
    """A trace's files by path relative to it. FileNotFoundError for one that is not there."""

    def read(self, path: str) -> bytes: ...
    def pieces(self, path: str) -> Iterator[bytes]: ...
    def names(self) -> list[str]: ...


class CannotTell(Exception):
    """A check had nothing to decide on; its text says what was missing and what to do."""


def is_of_machine(error: Exception) -> bool:
    """Whether an error says what the machine lacks or may not do, and so nothing about what was read: memory, and
    whatever the system refuses but a file that is not there."""
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return False
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in _OF_PATHS)


@contextmanager
def no_verdict() -> Iterator[None]:
    """EngineError where this machine fails outside of any check: other errors' exit codes are those of a refutation, or
    of a wrong call. Around a block, or before a function."""
    try:
        yield
    except (OSError, MemoryError) as error:
        if not is_of_machine(error):
            raise
        raise EngineError(f"not verified, since {_lacking(error)}") from error


class Checks:
    """The table: one finding a check, in the order they are made, and notes."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.notes: list[str] = []

    def make(self, name: str, examine: Callable[[], str], needs: Sequence[str] = ()) -> bool:
        """Make one check; whether it holds. `examine` returns in words why it holds, or raises.

        A check that needs another, which does not hold, is not made: it cannot tell. StorageError where the trace is
        far away and nobody answers, EngineError where workers are lost: that says nothing about the trace.
        """
        try:
            self.require(*needs)
            finding = Finding(name, Verdict.HOLDS, examine())
        except CannotTell as reason:
            finding = Finding(name, Verdict.CANNOT_TELL, str(reason))
        except (StorageError, EngineError):
            raise
        except (FgtracError, OSError, ValueError, MemoryError) as error:  # whatever the files hold, no caller's mistake
            finding = Finding(name, Verdict.REFUTED, str(error))
            if is_of_machine(error):
                finding = Finding(name, Verdict.CANNOT_TELL, f"not checked, since {_lacking(error)}")
        self.findings.append(finding)
        return finding.verdict is Verdict.HOLDS

    def require(self, *needs: str) -> None:
        """CannotTell where one of these checks was made and does not hold."""
        missing = [f.check for f in self.findings if f.check in needs and f.verdict is not Verdict.HOLDS]
        if missing:
            raise CannotTell(f"not checked, since the check of {missing[0]} does not hold")


def _lacking(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"the memory ran out ({str(error) or 'MemoryError'}); a smaller --memory or --engine local:1 needs less"
    return f"this machine could not do what that takes ({error}); verify again where it can"


@dataclass(slots=True)
class _Run:
    """Entries of one writer with consecutive numbers in its sequence and in the log: seq first to stop."""

    first: int
    stop: int
    number: int


@dataclass(slots=True)
class Sequences:
    """Every writer's entries as they come, and what `gap`, `resume` and `end` entries say of them."""

    _runs: dict[bytes, list[_Run]] = field(default_factory=dict)
    _gaps: dict[bytes, list[tuple[int, int]]] = field(default_factory=dict)
    _claims: list[tuple[str, bytes, int, int]] = field(default_factory=list)  # in words, writer, from, to
    _problem: str = ""
    gaps: list[str] = field(default_factory=list)

    def add(self, number: int, event: Mapping[str, Any]) -> None:
        """Take entry `number`."""
        kind, writer, seq = event["kind"], event["writer"], event["seq"]
        if kind == "gap":
            lost = ""
            if "lost_writer" in event:
                self._gaps.setdefault(event["lost_writer"], []).append((event["first"], event["stop"]))
                lost = f": entries {event['first']} to {event['stop'] - 1} of writer {event['lost_writer'].hex()}"
            self.gaps.append(f"entry {number} says that something was lost ({event['reason']}){lost}")
        elif kind in ("resume", "end"):
            for named, last in event["writers"]:
                self._claim(f"entry {number} ({kind})", named, last)
        self._append(number, writer, seq)

    def _claim(self, who: str, writer: bytes, last: int) -> None:
        reached = self.stop(writer)
        if reached > last + 1:
            self._fail(f"{who} says that writer {writer.hex()} ended with entry {last}; it reached {reached - 1}")
        elif reached <= last:
            self._claims.append((who, writer, reached, last + 1))

    def _append(self, number: int, writer: bytes, seq: int) -> None:
        runs = self._runs.setdefault(writer, [])
        if runs and seq < runs[-1].stop:
            self._fail(
                f"entry {number} is number {seq} of writer {writer.hex()}, behind its number {runs[-1].stop - 1}"
            )
        elif runs and seq == runs[-1].stop and number == runs[-1].number + seq - runs[-1].first:
            runs[-1].stop += 1
        else:
            runs.append(_Run(seq, seq + 1, number))

    def _fail(self, words: str) -> None:
        self._problem = self._problem or words

    def stop(self, writer: bytes) -> int:
        """How far a writer came: one more than its last sequence number, 0 where it is unknown."""
        runs = self._runs.get(writer)
        return runs[-1].stop if runs else 0

    def stops(self) -> dict[bytes, int]:
        """How far each writer came."""
        return {writer: runs[-1].stop for writer, runs in self._runs.items()}

    def find(self, writer: bytes, seq: int) -> int | None:
        """The entry that is number `seq` of a writer, or None."""
        runs = self._runs.get(writer, [])
        at = bisect.bisect_right(runs, seq, key=lambda run: run.first) - 1
        if at < 0 or seq >= runs[at].stop:
            return None
        return runs[at].number + seq - runs[at].first

    def is_explained(self, writer: bytes, first: int, stop: int) -> bool:
        """Whether gap entries name all of the writer's numbers from first up to stop."""
        for start, end in sorted(self._gaps.get(writer, [])):
            if start <= first:
                first = max(first, end)
        return first >= stop

    def check(self) -> str:
        """ProofError where a sequence repeats or has a hole that no gap names, or a writer's end is not as said."""
        if self._problem:
            raise ProofError(self._problem)
        for writer, runs in self._runs.items():
            expected = 0
            for run in runs:
                if run.first > expected and not self.is_explained(writer, expected, run.first):
                    raise ProofError(
                        f"entry {run.number} is number {run.first} of writer {writer.hex()}, whose numbers "
                        f"{expected} to {run.first - 1} are missing, and no gap entry names them"
                    )
                expected = run.stop
        for who, writer, first, stop in self._claims:
            if not self.is_explained(writer, first, stop):
                raise ProofError(
                    f"{who} says that writer {writer.hex()} ended with entry {stop - 1}; the log has {first} of them"
                )
        lost = f", except what {len(self.gaps)} gap entries name" if self.gaps else ""
        return f"the sequences of {len(self._runs)} writers have no holes{lost}"
