"""Ranks without a common folder: each keeps what it writes on its own disk, and sends it to rank 0, which puts it into
the trace. What comes again is recognised: an entry by its writer and number, all else by what it is of."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.kept import SEALED, Kept
from fgtrac.api.kept_folder import KeptWriter
from fgtrac.api.ranks import POLL_S, Ranks
from fgtrac.commit.signer import Signer
from fgtrac.commit.state import sealed_writers
from fgtrac.errors import CaptureError, FormatError
from fgtrac.events.codec import decode, encode
from fgtrac.store.journal import JournalWriter, encode_frame
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault

NAMES = 10_000  # sent at once
KEPT_WAIT_S = 60.0  # for a rank to say what it kept, where a training goes on


class SentJournal:
    """A journal on this rank's own disk, whose frames are sent as well (see `fgtrac.capture.recorder.Journal`)."""

    def __init__(self, kept: Kept, writer: bytes) -> None:
        self._kept = kept
        self._writer = writer
        self._segments = JournalWriter(kept.journal, writer, stays=True)

    def append(self, entries: Sequence[bytes]) -> None:
        """Write the entries, and send them. OSError where this rank's own disk refuses."""
        self._segments.append(entries)
        self._kept.send("frames", self._writer, b"".join(map(encode_frame, entries)))

    def sync(self) -> None:
        """Have them on this rank's disk. This says that the rank is there, and hears of what is sealed."""
        self._segments.sync()
        self._kept.send("here")
        if self._kept.heed():
            self._segments.rotate()

    def rotate(self) -> None:
        """Rank 0 does, of its own."""

    def close(self) -> None:
        """Close the segment."""
        self._segments.close()


class SentVault(Vault):
    """What a rank needs of the vault, which lies beside rank 0's trace. Its ids are made with one key, or with none."""

    def __init__(self, kept: Kept, secret: bytes) -> None:
        self._kept = kept
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
            self._kept.send_parcel("names", some)

    def put_rows(self, dataset: str, block: bytes, scheme: str, rows: NDArray[np.uint32]) -> None:
        """Send them."""
        self._kept.send_parcel("rows", dataset, block, scheme, rows.astype("<u4"))

    def put_opening(self, what: str, opening: bytes) -> None:
        """Send it."""
        self._kept.send_parcel("opening", what, opening)

    def close(self) -> None:
        """There is nothing to close."""


def _first(names: Iterable[tuple[bytes, str, bytes, str | None]]) -> Iterable[tuple[bytes, str, bytes, str | None]]:
    return itertools.islice(names, NAMES)


class Receiver:
    """Rank 0's end: writes what the others have sent into the trace and its vault, and tells them what is sealed. Of a
    rank it takes the entries of the writer that it joined as and, where a training goes on, of those that it said first
    of all that it kept something of."""

    def __init__(self, ranks: Ranks, trace: TraceDir, vault: Vault, signer: Signer) -> None:
        self._ranks = ranks
        self._trace = trace
        self._writer = KeptWriter(trace, vault)
        self._signer = signer
        self._turn = threading.Lock()
        self._taken = dict.fromkeys(range(1, ranks.count), 0)  # of each rank, how many parcels
        self._goes_on = False
        self._is_late = False  # to say what was kept: the training has gone on
        self._kept: dict[int, tuple[list[bytes], bytes]] = {}  # rank -> writers of before; what it knows this start by

    def take(self) -> None:
        """Write what has come. OSError where the disk refuses, or the store of the group is gone: what was not written
        is there still. So for what no rank can have sent; that is left out."""
        with self._turn:
            try:
                for rank in self._taken:
                    while (data := self._ranks.receive(rank, self._taken[rank])) is not None:
                        self._take(rank, data)
            except RuntimeError as error:
                raise OSError(f"what the other ranks have sent cannot be read: {error}") from error

    def _take(self, rank: int, data: bytes) -> None:
        unfit: FormatError | None = None
        try:
            said = decode(data)
            if isinstance(said, list) and said[:1] == ["keeps"] and self._goes_on and not self._taken[rank]:
                self._take_keeps(rank, *_read_keeps(said[1:]))
            else:
                self._check_writer(rank, said)
                self._writer.write(said)
        except FormatError as error:
            unfit = error
        self._ranks.forget(rank, self._taken[rank])
        self._taken[rank] += 1
        if unfit is not None:
            raise OSError(f"parcel {self._taken[rank] - 1} of rank {rank} is none: {unfit}") from unfit

    def _take_keeps(self, rank: int, writers: list[bytes], start: bytes) -> None:
        """Whose entries a rank kept, and what it knows this start by. FormatError for any where it is too late: these
        stay with it."""
        self._kept[rank] = ([] if self._is_late else writers), start
        if self._is_late and writers:
            raise FormatError(f"the rank says only now that it kept entries of {', '.join(w.hex() for w in writers)}")

    def _check_writer(self, rank: int, said: Any) -> None:
        """FormatError for frames of a writer that is not the rank's."""
        if not (isinstance(said, list) and said[:1] == ["frames"] and len(said) == 3 and isinstance(said[1], bytes)):
            return
        writer, joined = said[1], self._ranks.writer_of(rank)
        if writer == joined:
            return
        kept = self._kept[rank][0] if rank in self._kept else []
        if writer not in kept or any(writer == self._ranks.writer_of(other) for other in range(self._ranks.count)):
            mine = f"joined as {joined.hex()}" if joined else "has not joined"
            more = f" and said to keep {', '.join(one.hex() for one in kept)}" if kept else ""
            raise FormatError(f"entries of writer {writer.hex()} from a rank that {mine}{more}")

    def take_kept(self) -> list[str]:
        """Where a training goes on, take what the ranks kept from before; what to say of those that were silent."""
        self._goes_on = True
        self._ranks.ask_kept(self._signer.trace_id)
        deadline, silent = time.monotonic() + KEPT_WAIT_S, []
        for rank in self._taken:
            while (count := self._ranks.kept_of(rank)) is None or self._taken[rank] < count:
                if time.monotonic() >= deadline:
                    silent.append(f"rank {rank} of {self._ranks.count} did not say what it kept from before")
                    break
                self.take()
                time.sleep(POLL_S)
        with self._turn:
            self._is_late = True
            self._writer.close()
        return silent

    def rotate(self) -> None:
        """`take`, and have a seal take it whole."""
        self.take()
        with self._turn:
            self._writer.rotate()

    def tell_sealed(self) -> None:
        """Tell each rank how many of its writers' entries the log has, and how many parcels are kept here: signed with
        the key of the newest head."""
        note = self._trace.head_note()
        if note is None:
            return
        sealed, key = sealed_writers(self._trace, self._signer), self._signer.key_of(note)
        with self._turn:
            for rank, taken in self._taken.items():
                kept, start = self._kept.get(rank, ([], b""))
                try:
                    mine = sorted({self._ranks.writer_of(rank), *kept} & sealed.keys())
                except RuntimeError:
                    return  # the store is gone: nobody is left to hear it
                said = encode([self._signer.trace_id, rank, start, [[w, sealed[w]] for w in mine], taken])
                self._ranks.tell_sealed(rank, encode([said, self._signer.sign_envelope(key, SEALED, said)]))


def _read_keeps(said: list[Any]) -> tuple[list[bytes], bytes]:
    match said:
        case [list(writers), bytes(start)] if all(isinstance(one, bytes) for one in writers):
            return writers, start
    raise FormatError("a rank says whose entries it kept, and it is no list of writers")
