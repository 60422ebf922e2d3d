"""A trace as it was when its verification began, though its owner may seal it meanwhile.

A seal writes new files, replaces `checkpoint`, and then removes what the older head needed. So the head and the list of
files are read once, together, and every check is given these: names may come at any time, since a run goes on writing,
and a head that is the same before and after them makes it one moment. A file that was there and is gone when it is read
is remembered: no copy of a trace loses files while it is verified, so that says that somebody writes to this one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from fgtrac.errors import FgtracError
from fgtrac.tlog.note import TreeHead, parse_note, parse_tree_head
from fgtrac.verify.checks import TraceFiles
from fgtrac.verify.report import Finding, Verdict
from fgtrac.verify.tree import HEAD

TRIES = 10
MOVED = ("plan", "journal", "files")  # checks of what every seal moves


class OneMoment:
    """The files of a trace, with the head and the names of one moment."""

    def __init__(self, files: TraceFiles) -> None:
        self._files = files
        self.vanished: set[str] = set()
        self._known: set[str] = set()
        self._head = self._look()
        for _ in range(TRIES):  # until the head is the same before and after the names
            before, self._names = self._head, self._files.names()
            self._known.update(self._names)
            self._head = self._look()
            self._is_settled = before == self._head
            if self._is_settled:
                break

    def _look(self) -> bytes | None:
        with suppress(FgtracError, OSError, MemoryError):  # whoever reads it is told
            return self._files.read(HEAD)
        return None

    def read(self, path: str) -> bytes:
        """As `TraceFiles.read`."""
        if path == HEAD and self._head is not None:
            return self._head
        try:
            return self._files.read(path)
        except FileNotFoundError:
            self._miss(path)
            raise

    def pieces(self, path: str) -> Iterator[bytes]:
        """As `TraceFiles.pieces`."""
        if path == HEAD and self._head is not None:
            yield self._head
            return
        try:
            yield from self._files.pieces(path)
        except FileNotFoundError:
            self._miss(path)
            raise

    def names(self) -> list[str]:
        """As `TraceFiles.names`."""
        return list(self._names)

    def _miss(self, path: str) -> None:
        if path in self._known or not self._is_settled:
            self.vanished.add(path)

    def grown(self) -> TreeHead | None:
        """The trace's head as it is now, where it is larger than the one that was read."""
        with suppress(FgtracError, OSError):
            now = parse_tree_head(parse_note(self._files.read(HEAD)).text)
            if self._head is not None and now.size > parse_tree_head(parse_note(self._head).text).size:
                return now
        return None

    def excuse(self, finding: Finding) -> Finding:
        """The finding; but cannot tell, where it was refuted for files that went meanwhile, or may have."""
        if finding.verdict is not Verdict.REFUTED or (self._is_settled and not self.vanished):
            return finding
        if finding.check not in MOVED and not any(path in finding.words for path in self.vanished):
            return finding
        what = "files of the trace went" if self.grown() is None else "the trace was sealed"
        words = f"{what} while it was verified; verify again ({finding.words})"
        return Finding(finding.check, Verdict.CANNOT_TELL, words)
