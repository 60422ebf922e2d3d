"""The verdict on each trace that somebody looks at, for the state that its files are in, found out beside the pages."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from fgtrac.api.trace import open_for_verification
from fgtrac.api.trust import trust_state
from fgtrac.errors import EngineError, FgtracError, StorageError
from fgtrac.verify.report import Finding, Report, Verdict
from fgtrac.web.background import Background, StoppedError
from fgtrac.web.check_alone import Alone

WAIT_S = 2.0  # at least, before a trace that goes on changing is checked again; and as long as the last check took
ALONE_BYTES = 1 << 26  # a trace of so much is checked in a process of its own
AGAIN_S, AGAIN_SHARE = 600.0, 50.0  # a trace that seems unchanged is read again after so long, or so often its check
MAX_KNOWN = 1000  # traces; of more, those longest unasked are checked anew
SETTLE_S = 0.03  # a kernel's clock for times of change moves every 10 ms at the slowest
WAITING, CHECKING, CHANGED = "waiting", "checking", "changed"
NOT_MADE = "check"  # the check of a finding that says why there is no other
Files = tuple[tuple[str, int, int, int], ...]
State = tuple[Files, tuple[tuple[str, ...], ...]]


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the check of a trace has come. `state` is "waiting", "checking", "changed" (since it was checked), or one
    of the three verdicts: only of files that stand as they were when they were checked."""

    state: str = WAITING
    done: int = 0
    total: int = 0
    checked: str = ""  # when, in UTC
    seconds: float = 0.0
    verdict: str = ""  # of the last check that was made
    findings: tuple[dict[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What to say of it in a line."""
        before = f" (before it changed it was checked at {self.checked}: {self.verdict})" if self.checked else ""
        if self.state == WAITING:
            return "not checked yet"
        if self.state == CHECKING:
            share = f", {self.done:,} of {self.total:,} parts read" if self.total else ""
            return f"not checked yet: being checked now{share}{before}"
        if self.state == CHANGED:
            return f"changed since it was checked, and not checked yet as it is now{before}"
        if [one["check"] for one in self.findings] == [NOT_MADE]:
            return f"{self.state}: no check could be made at {self.checked} ({self.findings[0]['words']})"
        unsure = sum(one["verdict"] == Verdict.CANNOT_TELL for one in self.findings)
        missing = f"; {unsure} of {len(self.findings)} checks cannot tell" if unsure else ""
        how = "all of it was checked" if self.state == Verdict.HOLDS else "checked"
        return f"{self.state}: {how} at {self.checked}, in {self.seconds:.1f} s{missing}; no change seen since"

    @property
    def short(self) -> str:
        """A word or two, for a list."""
        return {WAITING: "not checked yet", CHECKING: "being checked", CHANGED: "changed since"}.get(
            self.state, self.state
        )

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
class _Known:
    """What is known of one trace, and of which state of its files and of the keys that it is held to."""

    standing: Standing = field(default_factory=Standing)
    state: State | None = None
    is_busy: bool = False
    ready_at: float = 0.0
    old_at: float = 0.0


class Checking:
    """Checks traces in the order in which somebody looks at them. `key` names the key whose signatures count."""

    def __init__(self, key: str | None = None) -> None:
        self._key = key
        self._known: dict[Path, _Known] = {}
        self._turn = threading.Lock()
        self._background = Background("fgtrac checks traces")
        self._alone: Alone | None = None

    def look(self, path: Path) -> Standing:
        """What is known of a trace as it is now; asks for no check."""
        with self._turn:
            known = self._known.get(path, _Known())
            standing, state = known.standing, known.state
        if standing.state in set(Verdict) and self._state(path) != state:
            return replace(standing, state=CHANGED)
        return standing

    def standing(self, path: Path) -> Standing:
        """The same; a trace that was not checked in this state of its files, or long ago, is put in line."""
        state, now = self._state(path), time.monotonic()
        with self._turn:
            known = self._known[path] = self._known.pop(path, _Known())  # the newest last
            for old in [one for one, said in self._known.items() if not said.is_busy][:-MAX_KNOWN]:
                del self._known[old]
            is_changed = known.state != state
            if is_changed and known.standing.state in set(Verdict):
                known.standing = replace(known.standing, state=CHANGED)
            if not known.is_busy and (is_changed or now >= known.old_at):
                known.is_busy = True
                self._background.do(partial(self._check, path, known), known.ready_at)
            return known.standing

    def stop(self) -> None:
        """Check nothing more."""
        self._background.stop()
        if self._alone is not None:
            self._alone.stop()

    def _state(self, path: Path) -> State:
        """What an answer is of: the trace, and the keys whose signatures count."""
        return _files(path), trust_state(self._key)

    def _check(self, path: Path, known: _Known) -> None:
        """Read everything of a trace again. What is found counts for the files as they were before that: where they
        change meanwhile, the next look sees it. While what seems unchanged is read again, its verdict stands."""
        time.sleep(SETTLE_S)  # what is written from now on has another time of change than what was written before
        state, began = self._state(path), time.monotonic()
        with self._turn:
            is_again = known.state == state and known.standing.state in set(Verdict)
            if not is_again:
                known.standing = replace(known.standing, state=CHECKING, done=0, total=0)

        def progress(done: int, total: int) -> None:
            self._background.go_on()
            if not is_again:
                self._say(known, replace(known.standing, done=done, total=total))

        try:
            report = self._report(path, state[0], progress)
        except StoppedError:
            raise
        except Exception as error:
            logging.getLogger(__name__).exception("the check of %s failed", path)
            words = f"the check itself failed ({type(error).__name__}), a fault of fgtrac; fgtrac ui printed where"
            report = _cannot_tell(words)
        took, verdict = time.monotonic() - began, str(report.verdict)
        findings = tuple({"check": f.check, "verdict": str(f.verdict), "words": f.words} for f in report.findings)
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        with self._turn:
            known.state, known.is_busy, over = state, False, time.monotonic()
            known.ready_at, known.old_at = over + max(WAIT_S, took), over + max(AGAIN_S, AGAIN_SHARE * took)
            known.standing = Standing(verdict, 0, 0, now, took, verdict, findings, report.notes)

    def _report(self, path: Path, files: Files, progress: Callable[[int, int], None]) -> Report:
        if sum(size for _, _, size, _ in files) < ALONE_BYTES:
            return report_on(path, self._key, progress)
        self._alone = Alone(path, self._key)
        self._background.go_on()
        try:
            report = self._alone.report(progress)
        finally:
            self._alone.stop()
        self._background.go_on()
        words = (
            "the process that checked it ended without an answer, for want of memory perhaps; fgtrac verify says more"
        )
        return report or _cannot_tell(words)

    def _say(self, known: _Known, standing: Standing) -> None:
        with self._turn:
            known.standing = standing


def report_on(path: Path, key: str | None, progress: Callable[[int, int], None]) -> Report:
    """A verdict in any case: files that are no trace are refuted; where the check cannot be made, nobody can tell."""
    try:
        return open_for_verification(path, key=key).verify(progress=progress)
    except (EngineError, StorageError) as error:
        return _cannot_tell(str(error))
    except FgtracError as error:
        return Report((Finding("trace", Verdict.REFUTED, str(error)),))
    except (OSError, ValueError) as error:
        return _cannot_tell(f"the trace, or the key, cannot be read: {error}")


def _cannot_tell(words: str) -> Report:
    """The answer where no check was made."""
    return Report((Finding(NOT_MADE, Verdict.CANNOT_TELL, words),))


def _files(path: Path) -> Files:
    """Every file and folder of a trace with what changes when it is written to: its inode, size and time of change
    (ctime, which no ordinary call sets back). Links are not followed."""
    found = []
    for folder, folders, names in os.walk(path):
        for name in folders + names:
            place = os.path.join(folder, name)
            try:
                said = os.lstat(place)
            except FileNotFoundError:
                continue  # removed meanwhile: the next look sees that
            except OSError:
                found.append((place, 0, 0, 0))  # the check says that it cannot be read
                continue
            found.append((place, said.st_ino, said.st_size, said.st_ctime_ns))
    return tuple(sorted(found))
