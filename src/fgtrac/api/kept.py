"""What a rank without the common folder sends to rank 0, and keeps on its own disk until rank 0 has signed that it is
in the log."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fgtrac.api.kept_folder import read_kept, writers_in
from fgtrac.api.ranks import Ranks
from fgtrac.commit.gather import clear_sealed, read_segments_of
from fgtrac.errors import CaptureError, FormatError, ProofError
from fgtrac.events.codec import decode, encode
from fgtrac.store import durable
from fgtrac.store.journal import segments_of
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.dsse import pre_authentication

HEAD_WAIT_S = 600.0  # at the end, for rank 0 to seal: as long as it may wait for another rank
SEALED = "application/vnd.fgtrac.rank-sealed+cbor"  # of [trace id, rank, start, [writer, stop]..., parcels taken]
FAILED_WAIT_S = 15.0  # for that where the loop of this rank has failed


class Kept:
    """One rank's way to rank 0, and what it keeps of what it has sent. What is sent arrives in order. Safe to call from
    several threads."""

    def __init__(self, ranks: Ranks, trace_path: Path, trace_id: bytes) -> None:
        self.folder = trace_path.with_suffix(".kept") / trace_id.hex()
        self.finished = False  # whether the loop of this rank has ended well
        self.strict = False
        self._ranks = ranks
        self._trace_id = trace_id
        self._start = b""  # where a training goes on, what this start of it is known by
        self._keys: tuple[bytes, ...] = ()
        self._turn = threading.RLock()
        self._writer = b""
        self._sent = 0
        self._parcels = 0
        self._waiting: deque[tuple[int, Path]] = deque()  # parcels that rank 0 is not known to have, by number
        self._cut = ""  # why nothing more is sent
        self._heard: bytes | None = None
        self._sealed: dict[bytes, int] = {}  # writer -> how many of its entries are in the log

    @property
    def journal(self) -> Path:
        """The folder of the segments."""
        return self.folder / "journal"

    def begin(self, writer: bytes, keys: Sequence[bytes]) -> None:
        """This rank writes; one of these keys signs for rank 0."""
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable.make_folder(self.journal)
        self._writer = writer
        self._keys = tuple(keys)

    # -- sending ------------------------------------------------------------------------------------------------------

    def send(self, *what: Any) -> None:
        """What lies in the journal, or need not be kept. Once rank 0 cannot be reached, nothing more is sent."""
        with self._turn:
            if self._cut:
                return
            try:
                self._ranks.send(self._sent, list(what))
            except ConnectionError as error:
                self._cut = str(error)
            self._sent += 1

    def send_parcel(self, *what: Any) -> None:
        """Keep it, and send it. OSError where this rank's own disk refuses."""
        with self._turn:
            path = self.folder / "parcels" / f"{self._writer.hex()}-{self._parcels:08}"
            durable.write_file(path, encode(list(what)), mode=0o600)
            self._parcels += 1
            self._waiting.append((self._sent, path))
            self.send(*what)

    def send_from_before(self) -> None:
        """Send what processes that are gone have left here of this trace, and first of all whose it is. FormatError for
        a parcel that is none."""
        with self._turn:
            self._start = os.urandom(16)
            self.send("keeps", writers_in(self.folder), self._start)
            for path, what in read_kept(self.folder):
                if path is not None:
                    self._waiting.append((self._sent, path))
                self.send(*what)
            self._ranks.tell_kept(self._sent)

    # -- heads --------------------------------------------------------------------------------------------------------

    def heed(self) -> bool:
        """Let go of what rank 0 signed last to be in the log; whether that is new."""
        with self._turn:
            try:
                heard = self._ranks.hear_sealed()
                if heard is None or heard == self._heard:
                    return False
                self._heard = heard
                said, signature = decode(heard)
                _check_signature(said, signature, self._keys)
                trace_id, rank, start, writers, taken = decode(said)
                if (trace_id, rank, start) != (self._trace_id, self._ranks.rank, self._start):
                    return False  # said before rank 0 had heard of this rank, or to another one
                self._sealed = {bytes(writer): int(stop) for writer, stop in writers}
                while self._waiting and self._waiting[0][0] < taken:
                    durable.remove(self._waiting.popleft()[1])
                self._clear()
            except ConnectionError as error:
                self._cut = self._cut or str(error)
                return False
            except (FormatError, ProofError, TypeError, ValueError) as error:
                self._cut = f"what was said to be in the log is not believed: {error}"
                return False
            return True

    def _clear(self) -> None:
        clear_sealed(read_segments_of(TraceDir(self.folder), self._sealed), self._sealed)

    def close(self) -> None:
        """Wait for rank 0 to sign that all of it is in the log. Where it does not, a RuntimeWarning says what stays (in
        a strict run a CaptureError)."""
        self._clear()
        deadline = time.monotonic() + (HEAD_WAIT_S if self.finished else FAILED_WAIT_S)
        while self._left() and not self._cut and time.monotonic() < deadline:
            if not self.heed():
                time.sleep(0.05)
        self._ranks.tell_closed()
        if not self._left():
            for folder in (self.folder / "parcels", self.journal):
                durable.remove_empty(folder, self.folder.parent.parent)
            return
        words = (
            f"what this rank recorded last is not known to be in the log ({self._cut or 'rank 0 has not sealed it'}); "
            f"it stays in {self.folder}: start all ranks anew with resume=True, or bring that folder to the trace and "
            "give it to fgtrac seal --kept"
        )
        if self.strict and self.finished:
            raise CaptureError(words)
        warnings.warn(f"fgtrac: {words}", RuntimeWarning, stacklevel=2)

    def _left(self) -> bool:
        """Whether something of this rank's is not known to be covered."""
        segments = (segments_of(self.journal, self._writer)) if self._writer else []
        return bool(self._waiting) or any(path.stat().st_size for path in segments)


def _check_signature(said: bytes, signature: bytes, keys: Sequence[bytes]) -> None:
    """ProofError unless one of the keys signed it."""
    for key in keys:
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, pre_authentication(SEALED, said))
            return
        except InvalidSignature:
            continue
    raise ProofError(f"it is signed with none of the keys {', '.join(key.hex() for key in keys)}")
