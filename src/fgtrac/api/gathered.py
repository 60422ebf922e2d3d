"""Ranks without a common folder: each sends what it would write to rank 0, which writes it."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.ranks import Ranks
from fgtrac.errors import CaptureError
from fgtrac.store import durable
from fgtrac.store.journal import JournalWriter
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault

NAMES = 10_000  # sent at once
_ORDER_FILE = re.compile(r"artifacts/order-[0-9a-f]{16}\.cbor")


class Sender:
    """One rank's way to rank 0: what is sent arrives in order. Safe to call from several threads."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._turn = threading.Lock()
        self._numbers = itertools.count()

    def send(self, *what: Any) -> None:
        """OSError where rank 0 cannot be reached."""
        with self._turn:
            self._ranks.send(next(self._numbers), list(what))

    def put_file(self, path: str, data: bytes) -> None:
        """A file of the trace."""
        self.send("file", path, data)


class SentJournal:
    """A journal whose segments rank 0 writes (see `fgtrac.capture.recorder.Journal`)."""

    def __init__(self, sender: Sender, writer: bytes) -> None:
        self._sender = sender
        self._writer = writer

    def append(self, entries: Sequence[bytes]) -> None:
        """Send the entries. OSError where rank 0 cannot be reached."""
        self._sender.send("entries", self._writer, list(entries))

    def sync(self) -> None:
        """Rank 0 syncs them. This says that the rank is there."""
        self._sender.send("here")

    def rotate(self) -> None:
        """Rank 0 does."""

    def close(self) -> None:
        """There is nothing to close."""


class SentVault(Vault):
    """What a rank needs of the vault, which lies beside rank 0's trace. Its ids are made with one key, or with none."""

    def __init__(self, sender: Sender, secret: bytes) -> None:
        self._sender = sender
        self._secret = secret

    def secret(self, scope: str) -> bytes:
        """The key of the run. CaptureError for a subject's."""
        if scope != "run" or not self._secret:
            raise CaptureError(
                "subject= needs the vault, which lies beside rank 0's trace: record into a folder that all ranks share"
            )
        return self._secret

    def find_secret(self, scope: str) -> bytes | None:
        """The key of the run, or None."""
        return self._secret if scope == "run" and self._secret else None

    def put_names(self, names: Iterable[tuple[bytes, str, bytes, str | None]]) -> None:
        """Send them."""
        rest = iter(names)
        while some := [[*known, *([] if subject is None else [subject])] for *known, subject in _first(rest)]:
            self._sender.send("names", some)

    def put_rows(self, dataset: str, block: bytes, scheme: str, rows: NDArray[np.uint32]) -> None:
        """Send them."""
        self._sender.send("rows", dataset, block, scheme, rows.astype("<u4"))

    def put_opening(self, what: str, opening: bytes) -> None:
        """Send it."""
        self._sender.send("opening", what, opening)

    def close(self) -> None:
        """There is nothing to close."""


def _first(names: Iterable[tuple[bytes, str, bytes, str | None]]) -> Iterable[tuple[bytes, str, bytes, str | None]]:
    return itertools.islice(names, NAMES)


class Receiver:
    """Rank 0's end: writes what the other ranks have sent into the trace and its vault."""

    def __init__(self, ranks: Ranks, trace: TraceDir, vault: Vault) -> None:
        self._ranks = ranks
        self._trace = trace
        self._vault = vault
        self._turn = threading.Lock()
        self._numbers = dict.fromkeys(range(1, ranks.count), 0)
        self._journals: dict[bytes, JournalWriter] = {}

    def take(self) -> None:
        """Write what has come. OSError where the disk refuses, or the store of the group is gone."""
        with self._turn:
            try:
                for rank in self._numbers:
                    while (what := self._ranks.receive(rank, self._numbers[rank])) is not None:
                        self._numbers[rank] += 1
                        self._write(*what)
            except RuntimeError as error:
                raise OSError(f"what the other ranks have sent cannot be read: {error}") from error

    def rotate(self) -> None:
        """`take`, and have a seal take it whole."""
        self.take()
        with self._turn:
            for journal in self._journals.values():
                journal.sync()
                journal.rotate()

    def _write(self, what: str, *parts: Any) -> None:
        if what == "entries":
            writer, entries = parts
            if writer not in self._journals:
                self._journals[writer] = JournalWriter(self._trace.journal, writer)
            self._journals[writer].append(entries)
        elif what == "names":
            self._vault.put_names((name[0], name[1], name[2], name[3] if len(name) > 3 else None) for name in parts[0])
        elif what == "rows":
            self._vault.put_rows(*parts)
        elif what == "opening":
            self._vault.put_opening(*parts)
        elif what == "file" and _ORDER_FILE.fullmatch(parts[0]):
            durable.write_file(self._trace.path / parts[0], parts[1])
