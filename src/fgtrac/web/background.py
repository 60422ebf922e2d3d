"""What is found out beside the pages: the verdict on a trace, for each state of its files, by one thread at a time."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fgtrac.api.trace import open_for_verification
from fgtrac.errors import FgtracError
from fgtrac.verify.report import Report, Verdict

WAIT_S = 2.0  # at least, before a trace that goes on changing is checked again; and as long as the last check took
Files = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the check of a trace has come. `state` is "waiting", "checking", "changed" (since it was checked), or one
    of the three verdicts, which are only of files that stand as they were checked."""

    state: str = "waiting"
    done: int = 0
    total: int = 0
    checked: str = ""  # when, in UTC, seconds
    seconds: float = 0.0
    verdict: str = ""  # of the last check that was made
    findings: tuple[dict[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What to say of it in a line."""
        last = f"; at {self.checked}, before, it was: {self.verdict}" if self.checked else ""
        if self.state == "waiting":
            return f"not checked yet{last}"
        if self.state == "checking":
            share = f", {self.done:,} of {self.total:,} done" if self.total else ""
            return f"not checked yet: being checked now{share}{last}"
        if self.state == "changed":
            return f"changed since it was checked{last}; it is checked again"
        return f"{self.state}: checked in {self.seconds:.1f} s at {self.checked}, and not changed since"

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "state": self.state,
            "words": self.words,
            "done": self.done,
            "total": self.total,
            "checked": self.checked,
            "verdict": self.verdict,
            "findings": list(self.findings),
            "notes": list(self.notes),
        }


@dataclass(slots=True)
class _Work:
    """What is known of one trace, and of which state of its files."""

    path: Path
    standing: Standing = field(default_factory=Standing)
    files: Files = ()
    is_busy: bool = False
    ready_at: float = 0.0  # on the monotonic clock: no check begins before


class _Stopped(Exception):
    """The explorer ends while a check is under way."""


class Background:
    """One thread that checks traces, in the order in which somebody looks at them."""

    def __init__(self, key: str | None = None) -> None:
        self._key = key
        self._known: dict[Path, _Work] = {}
        self._waiting: list[_Work] = []
        self._turn = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def look(self, path: Path) -> Standing:
        """What is known of a trace's verdict, without asking for a check: "waiting" where nobody has."""
        with self._turn:
            work = self._known.get(path)
            standing = work.standing if work else Standing()
        if work and standing.state in set(Verdict) and _files(path) != work.files:
            return replace(standing, state="changed")
        return standing

    def standing(self, path: Path) -> Standing:
        """What is known of it now; a trace that is not checked in this state of its files is put in line."""
        files = _files(path)
        with self._turn:
            work = self._known.setdefault(path, _Work(path))
            if not work.is_busy and work.files != files:
                if work.files:
                    work.standing = replace(work.standing, state="changed")
                work.is_busy = True
                self._waiting.append(work)
                self._start()
            self._turn.notify()
            return work.standing

    def stop(self) -> None:
        """End the thread at the next entry that it looks at."""
        with self._turn:
            self._stopped = True
            self._turn.notify()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._go_on, name="fgtrac checks traces", daemon=True)
            self._thread.start()

    def _go_on(self) -> None:
        while (work := self._next()) is not None:
            try:
                self._check(work)
            except _Stopped:
                return

    def _next(self) -> _Work | None:
        with self._turn:
            while not self._stopped:
                now = time.monotonic()
                ready = [work for work in self._waiting if work.ready_at <= now]
                if ready:
                    self._waiting.remove(ready[0])
                    return ready[0]
                self._turn.wait(min((work.ready_at - now for work in self._waiting), default=None))
        return None

    def _check(self, work: _Work) -> None:
        """Read everything of a trace again; what is found stands for the files as they were before and after."""
        files, began = _files(work.path), time.monotonic()
        self._say(work, replace(work.standing, state="checking", done=0, total=0))

        def progress(done: int, total: int) -> None:
            if self._stopped:
                raise _Stopped
            self._say(work, replace(work.standing, done=done, total=total))

        report = _report(work.path, self._key, progress)
        took = time.monotonic() - began
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        standing = Standing(str(report.verdict), 0, 0, now, took, str(report.verdict), _findings(report), report.notes)
        with self._turn:
            work.files, work.ready_at, work.is_busy = files, time.monotonic() + max(WAIT_S, took), False
            work.standing = standing

    def _say(self, work: _Work, standing: Standing) -> None:
        with self._turn:
            work.standing = standing


def _report(path: Path, key: str | None, progress: Any) -> Report:
    """The verdict in any case: files that are no trace are refuted, and where the check cannot be made nobody can
    tell."""
    from fgtrac.verify.report import Finding

    try:
        return open_for_verification(path, key=key).verify(progress=progress)
    except FgtracError as error:
        return Report((Finding("trace", Verdict.REFUTED, str(error)),))
    except (OSError, ValueError) as error:
        return Report((Finding("trace", Verdict.CANNOT_TELL, f"it cannot be read: {error}"),))
    except _Stopped:
        raise
    except Exception as error:
        logging.getLogger(__name__).exception("the check of %s failed", path)
        words = (
            f"the check itself failed ({type(error).__name__}), which is a fault of fgtrac; fgtrac verify may say more"
        )
        return Report((Finding("trace", Verdict.CANNOT_TELL, words),))


def _findings(report: Report) -> tuple[dict[str, str], ...]:
    return tuple({"check": f.check, "verdict": str(f.verdict), "words": f.words} for f in report.findings)


def _files(path: Path) -> Files:
    """Every file of a trace with what changes when it is written to: its inode, size and time of change (ctime, which
    no ordinary call sets back)."""
    found = []
    for folder, _folders, names in os.walk(path):
        for name in names:
            place = os.path.join(folder, name)
            try:
                said = os.lstat(place)
            except FileNotFoundError:
                continue  # removed meanwhile: the next look sees that
            found.append((place, said.st_ino, said.st_size, said.st_ctime_ns))
    return tuple(sorted(found))
