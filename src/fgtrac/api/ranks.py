"""The ranks of one training: how they find each other, and who of them writes what all of them would say.

They meet in the process group's store, or in a folder beside the trace. Nothing in it is collective,
so that a rank may call less than the others do, or die; and no step waits for it.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from fgtrac.api.last_start import MAY_MISS
from fgtrac.capture.recorder import Recorder
from fgtrac.capture.turns import Registered, Turn
from fgtrac.errors import CaptureError
from fgtrac.events.codec import decode, encode
from fgtrac.store.folder_store import FolderStore
from fgtrac.store.journal import is_writing

BEGIN_WAIT_S = 600.0  # for rank 0, which may prepare its data first; and for a registration by another rank
END_WAIT_S = 600.0  # for the other ranks, at the end
FAILED_WAIT_S = 5.0  # for them where rank 0 has failed: they mostly have too, or wait for it in vain
JOIN_WAIT_S = 5.0  # for one that has not joined by then
SILENT_S = 60.0  # after which a rank that sends its journal, and nothing else, counts as dead
POLL_S = 0.05
BEGAN, KEPT = "began", "kept"
_LEFT_HOW = {
    "unknown": "recorded nothing: what it trained on is not known",
    "dead": f"ended without leaving: {MAY_MISS}",
    "writes": f"was still recording when rank 0 ended: {MAY_MISS}",
    "lost": f"cannot be asked, as the group's store is gone: {MAY_MISS}",
}
Heard = TypeVar("Heard")


@dataclass(frozen=True, slots=True)
class Began:
    """What rank 0 tells the others: the trace, the entry that it began with, how samples are named, the step that
    updates are counted from, whose signature the log bears, whether the trace was there before and which pass of each
    loader then comes next; where their journals are gathered, the secret that ids are made with, and the keys that may
    sign heads."""

    trace_id: bytes
    entry: tuple[bytes, int]
    scheme: str
    step: int
    public_key: bytes
    resumes: bool
    next_passes: tuple[tuple[int, int], ...] = ()
    secret: bytes = b""
    keys: tuple[bytes, ...] = ()


class Ranks:
    """One rank among `count`, which write one trace together. Rank 0 makes it and seals it. `store` is a FolderStore,
    or torch.distributed's, whose methods raise RuntimeError where whoever keeps it is gone."""

    def __init__(self, rank: int, count: int, store: Any, *, gathers: bool = False) -> None:
        self.rank = rank
        self.count = count
        self.gathers = gathers
        self.is_grouped = not isinstance(store, FolderStore)  # by torch.distributed: then the store is this training's
        self.has_failed = False  # another rank, whose loop ended by an error
        self._writer = b""
        self._journal: Path | None = None
        self._before_told: Callable[[], None] = lambda: None
        self._store = store
        self._said: Counter[str] = Counter()
        self._joined: dict[int, bytes] = {}
        self._last_seen: dict[int, tuple[bytes, float]] = {}
        self._left: list[tuple[int, bytes, int]] = []  # rank, writer, how many entries it wrote

    def begin_writing(self, writer: bytes, journal: Path, before_told: Callable[[], None]) -> None:
        """This rank writes; `before_told` is called before another one is told of what is written."""
        self._writer, self._before_told = writer, before_told
        self._journal = None if self.gathers else journal

    # -- beginning ----------------------------------------------------------------------------------------------------

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Rank 0 begins inside the block; where it cannot, the others are told why."""
        try:
            yield
        except BaseException as error:
            self._store.set(BEGAN, encode({"error": f"{type(error).__name__}: {error}"[:2000]}))
            deadline = time.monotonic() + FAILED_WAIT_S  # this process may keep the store
            while not self._store.check([f"heard/{rank}" for rank in range(1, self.count)]):
                if time.monotonic() >= deadline:
                    break
                time.sleep(POLL_S)
            self._clear()
            raise

    def tell_began(self, began: Began) -> None:
        """Let the others join."""
        self._store.set(BEGAN, encode(asdict(began)))

    def hear_began(self, is_it: Callable[[Began], bool]) -> Began:
        """What rank 0 tells; wait for it, and for it to be the one. CaptureError where it cannot begin, or does not."""
        return self._hear(BEGAN, _read_began, is_it)

    def _hear(self, key: str, read: Callable[[bytes], Heard], is_it: Callable[[Heard], bool] = lambda _: True) -> Heard:
        deadline = time.monotonic() + BEGIN_WAIT_S
        while True:
            try:
                said = self._store.get(key) if self._store.check([key]) else b""
                self._heed_error()
                heard = read(said) if said else None
            except FileNotFoundError:
                heard = None  # rank 0 removed just now what an earlier run had left
            except RuntimeError as error:
                raise CaptureError(f"rank 0 ended before rank {self.rank} could join it: {error!s:.200}") from error
            if heard is not None and is_it(heard):
                return heard
            if time.monotonic() >= deadline:
                raise CaptureError(
                    f"rank {self.rank} of {self.count} waited {BEGIN_WAIT_S:g} s for rank 0 to record; call start_run "
                    "in every rank with the same path, or with world_size=1 to record this process alone"
                )
            time.sleep(POLL_S)

    def _heed_error(self) -> None:
        said = decode(self._store.get(BEGAN)) if self._store.check([BEGAN]) else {}
        if "error" in said:
            self._tell(f"heard/{self.rank}", b"heard")
            raise CaptureError(f"rank 0 could not begin to record: {said['error']}")

    # -- what all would say -------------------------------------------------------------------------------------------

    @contextmanager
    def turn(self, name: str) -> Iterator[Turn]:
        """Whose turn it is to register the data set of that name: see `Turn`."""
        turn = Turn(self._registered_elsewhere(name), lambda known: self._tell_registered(name, known))
        try:
            yield turn
        finally:
            if turn.elsewhere is None and not turn.is_done:
                self._tell(f"data/{name}", b"")  # it cannot be: let the others find out why

    def _registered_elsewhere(self, name: str) -> Registered | None:
        if self._is_first(f"turn/{name}"):
            self._tell(f"whose/{name}", self._writer)
            return None
        try:
            packed = self._hear_registered(name)
        except RuntimeError:
            return None  # whoever kept the store is gone: better said twice than not at all
        block, contents = decode(packed) if packed else (b"", b"")
        return (block, contents or None) if packed else None

    def _hear_registered(self, name: str) -> bytes:
        deadline = time.monotonic() + BEGIN_WAIT_S
        while True:
            is_gone = self._is_gone(name)  # looked at first, as it may tell and end in between
            if self._store.check([f"data/{name}"]):
                return bytes(self._store.get(f"data/{name}"))
            if is_gone:
                raise CaptureError(f"the rank that was registering {name!r} ended before that was done")
            if time.monotonic() >= deadline:
                raise CaptureError(f"another rank has been registering {name!r} for {BEGIN_WAIT_S:g} s; did it die?")
            time.sleep(POLL_S)

    def _is_gone(self, name: str) -> bool:
        """Whether the rank whose turn it is has ended, where its journal shows that."""
        if self._journal is None or not self._store.check([f"whose/{name}"]):
            return False
        return not is_writing(self._journal, self._store.get(f"whose/{name}"))

    def _tell_registered(self, name: str, known: Registered) -> None:
        self._before_told()
        self._tell(f"data/{name}", encode([known[0], known[1] or b""]))

    def is_said(self, entry: bytes) -> bool:
        """Whether another rank has said just this, as often as this one. What it says first, the others leave out."""
        digest = hashlib.sha256(entry).hexdigest()
        self._said[digest] += 1
        return not self._is_first(f"said/{digest}/{self._said[digest]}")

    def _is_first(self, key: str) -> bool:
        try:
            return bool(self._store.add(key, 1) == 1)
        except RuntimeError:
            return True  # whoever kept the store is gone: better said twice than not at all

    # -- ending -------------------------------------------------------------------------------------------------------

    def take_place(self) -> None:
        """This rank is to join. CaptureError where one has before: a start of a training has each rank once."""
        if not self._is_first(f"place/{self.rank}"):
            raise CaptureError(
                f"rank {self.rank} of {self.count} has joined this training before; start all of its ranks anew, with "
                "resume=True"
            )

    def tell_joined(self) -> None:
        """This rank writes."""
        self._tell(f"joined/{self.rank}", self._writer)

    def tell_left(self, entries: int, *, finished: bool) -> None:
        """All that this rank has written, so many entries, is on disk, or was sent."""
        self._tell(f"left/{self._writer.hex()}", encode([entries, finished]))

    def _tell(self, key: str, value: bytes) -> None:
        try:
            self._store.set(key, value)
        except RuntimeError:
            return  # nobody is left to hear it; the journal says it too

    def await_others(
        self, recorder: Recorder, journal: Path, meanwhile: Callable[[], None], finished: bool
    ) -> list[str]:
        """Wait for the other ranks to leave, as long as they live and not for ever. What is said in the log of each
        that has not; and, there not, of each that left by an error."""
        told = self._missing(journal, END_WAIT_S if finished else FAILED_WAIT_S, meanwhile)
        for reason, writer in told:
            recorder.record("gap", {"reason": reason} | ({"detail": writer} if writer else {}))
        failed = self._read_left()
        self._clear()
        return [*(reason for reason, _writer in told), *failed]

    def _read_left(self) -> list[str]:
        failed = []
        for rank in range(1, self.count):
            try:
                writer = bytes(self._store.get(f"joined/{rank}")) if self._store.check([f"joined/{rank}"]) else b""
                if not self._store.check([f"left/{writer.hex()}"]):
                    continue
                entries, finished = decode(self._store.get(f"left/{writer.hex()}"))
            except RuntimeError:
                continue  # the store is gone, which is told
            self._left.append((rank, writer, entries))
            if not finished:
                self.has_failed = True
                failed.append(f"rank {rank} of {self.count} ended by an error, so that the run has no end")
        return failed

    def say_lacking(self, recorder: Recorder, sealed: Mapping[bytes, int]) -> list[str]:
        """Say in the log which entries of the ranks that left did not come in; `sealed` is how many of each writer's
        did."""
        said = []
        for rank, writer, entries in self._left:
            if (there := sealed.get(writer, 0)) < entries:
                said.append(f"rank {rank} of {self.count} left, and the last {entries - there} of its entries are lost")
                lost = {"lost_writer": writer, "first": there, "stop": entries}
                recorder.record("gap", {"reason": said[-1], **lost})
        return said

    def _clear(self) -> None:
        if isinstance(self._store, FolderStore):
            self._store.clear()

    def _missing(self, journal: Path, wait_s: float, meanwhile: Callable[[], None]) -> list[tuple[str, str]]:
        now, told = time.monotonic(), []
        until = {"writes": now + wait_s, "unknown": now + JOIN_WAIT_S}
        for rank in range(1, self.count):
            try:
                while (state := self._state_of(rank, journal)) in until and time.monotonic() < until[state]:
                    meanwhile()
                    time.sleep(POLL_S)
                writer = f"writer {self._store.get(f'joined/{rank}').hex()}" if state in ("writes", "dead") else ""
            except RuntimeError as error:
                state, writer = "lost", str(error)[:200]
            if state != "left":
                told.append((f"rank {rank} of {self.count} {_LEFT_HOW[state]}", writer))
        meanwhile()
        return told

    def _state_of(self, rank: int, journal: Path) -> str:
        if not self._store.check([f"joined/{rank}"]):
            return "unknown"
        writer = bytes(self._store.get(f"joined/{rank}"))
        if self._store.check([f"left/{writer.hex()}"]):
            return "left"
        if self.gathers:
            beat, now = self._store.get(f"alive/{rank}"), time.monotonic()
            if self._last_seen.setdefault(rank, (beat, now))[0] != beat:
                self._last_seen[rank] = beat, now
            return "writes" if now - self._last_seen[rank][1] < SILENT_S else "dead"
        if is_writing(journal, writer):
            return "writes"
        is_told = self._store.check([f"left/{writer.hex()}"])  # it says so before it lets its journal go
        return "left" if is_told else "dead"

    # -- journals that are sent ---------------------------------------------------------------------------------------

    def send(self, number: int, what: Any) -> None:
        """Give rank 0 something of this rank's, the next in order. ConnectionError where it cannot be reached."""
        try:
            self._store.set(f"sent/{self.rank}/{number}", encode(what))
            self._store.set(f"alive/{self.rank}", str(time.monotonic_ns()).encode())
        except RuntimeError as error:
            raise ConnectionError(f"rank 0 does not take the journal any more: {error}") from error

    def receive(self, rank: int, number: int) -> bytes | None:
        """What a rank has sent, or None where it has not yet."""
        key = f"sent/{rank}/{number}"
        return bytes(self._store.get(key)) if self._store.check([key]) else None

    def writer_of(self, rank: int) -> bytes:
        """The writer that a rank joined as, as it said at first, or this rank's own; b"" before there is one."""
        if rank == self.rank:
            return self._writer
        if rank not in self._joined and self._store.check([f"joined/{rank}"]):
            self._joined[rank] = bytes(self._store.get(f"joined/{rank}"))
        return self._joined.get(rank, b"")

    def forget(self, rank: int, number: int) -> None:
        """It is written."""
        self._store.delete_key(f"sent/{rank}/{number}")

    def tell_sealed(self, rank: int, said: bytes) -> None:
        """Let a rank know how much of what it has sent is in the log, and kept."""
        self._tell(f"sealed/{rank}", said)

    def hear_sealed(self) -> bytes | None:
        """What rank 0 said last of that, None before it has. ConnectionError where it cannot be reached."""
        key = f"sealed/{self.rank}"
        try:
            return bytes(self._store.get(key)) if self._store.check([key]) else None
        except RuntimeError as error:
            raise ConnectionError(f"rank 0 cannot be asked any more: {error}") from error

    def tell_closed(self) -> None:
        """This rank waits for no other head."""
        self._tell(f"closed/{self.rank}", b"closed")

    def await_closed(self) -> None:
        """Let the ranks that left hear of the last head, before this process ends and the store with it."""
        deadline = time.monotonic() + FAILED_WAIT_S
        keys = [f"closed/{rank}" for rank, _writer, _entries in self._left] if self.gathers else []
        try:
            while keys and not self._store.check(keys) and time.monotonic() < deadline:
                time.sleep(POLL_S)
        except RuntimeError:
            return  # another process kept the store, and is gone: the ranks say what they keep

    def ask_kept(self, trace_id: bytes) -> None:
        """Have the other ranks send first what they keep of a trace from before; b"" for a new one."""
        self._store.set(KEPT, encode(trace_id))

    def hear_kept(self) -> bytes:
        """The trace of which rank 0 asks what is kept, b"" for none. Waits and raises as `hear_began`."""
        return self._hear(KEPT, lambda data: bytes(decode(data)))

    def tell_kept(self, parcels: int) -> None:
        """So many parcels were sent of what was kept."""
        self._tell(f"kept/{self.rank}", encode(parcels))

    def kept_of(self, rank: int) -> int | None:
        """How many parcels a rank has sent of what it kept, None before it said so."""
        key = f"kept/{rank}"
        return int(decode(self._store.get(key))) if self._store.check([key]) else None


def _read_began(data: bytes) -> Began:
    said = decode(data)
    lists = {"entry": tuple(said["entry"]), "next_passes": tuple(map(tuple, said["next_passes"]))}
    return Began(**said | lists | {"keys": tuple(said["keys"])})
