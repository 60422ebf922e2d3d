"""A process beside this one that does what it is given, in turn: it ends with this one, and can be ended at any time.

It is spawned, not forked: this process may run threads (BLAS, torch, a bar), whose locks a fork would copy as they
happen to be. A spawned one imports its parent's `__main__` by default; a user's script without
`if __name__ == "__main__"` would begin again in it, so `__main__` is kept out of sight: no unit of work needs it.

It may be killed at any moment, in the middle of an answer too, and what it has forked may live on and hold its files
open. So its end is looked for by its number, and an answer is read as it comes, never waited for. Python's
ProcessPoolExecutor waits for the rest of an answer for ever there.
"""

from __future__ import annotations

import math
import os
import pickle
import queue
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.util import Finalize
from types import ModuleType
from typing import Any

from fgtrac.errors import EngineError

LOOK_S = 0.2  # between two looks whether a process lives whose answer does not come
LOST_S = 0.2  # for a process that is on its way out
PIECE = 1 << 20  # bytes that are read at once
TOO_FEW = (
    "the machine or its container has too few processes, files or memory left; --engine local:1 needs no more of them"
)

_SIZE = struct.Struct("<Q")  # before each message, how many bytes it has
_starting = threading.Lock()


class LostError(Exception):
    """The process has ended, and its answer will not come."""


class NotYetError(Exception):
    """The answer did not come in the time that it had."""


class _ThereError(Exception):
    """Where an exception was raised, in the other process: the cause of what is raised here."""


class Child:
    """One process, started when it is first needed, and anew after `end` and `lost`."""

    def __init__(self, begin: Callable[..., None], *given: Any) -> None:
        """`begin(*given)` runs in the process before anything else."""
        self._begin, self._given = begin, given
        self._process: _Process | None = None

    def give(self, do: Callable[..., Any], *given: Any) -> int:
        """Give it something to do, after what it has; returns the number to `take` its result by. EngineError where
        no process can be started."""
        message = pickle.dumps((do, given))
        if self._process is None:
            self._start()
        with suppress(BrokenPipeError, ConnectionResetError):  # it has ended since, as `take` says
            _send(self._pipe, message)
        self._asked += 1
        return self._asked

    def has_answer(self) -> bool:
        """Whether `take` will not wait long: something has come, or nothing will come any more."""
        return self._process is None or self._is_whole() or self._pipe.poll() or self._process.exitcode is not None

    def take(self, number: int, limit_s: float = math.inf) -> Any:
        """The result of what was given by this number, later than every one taken before; those between are let go.

        What was raised there is raised here. LostError where the process is lost, NotYetError after `limit_s` seconds.
        """
        end, answer = time.monotonic() + limit_s, b""
        while self._answered < number:
            answer = self._receive(end)
            self._answered += 1
        is_result, value, where = pickle.loads(answer)
        if is_result:
            return value
        raise value from _ThereError(f"\n{where}")

    def end(self) -> None:
        """End the process, in the middle of what it does where it must be."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.join()
            self._close()

    def lost(self) -> str:
        """How the process ended that did not answer, in words."""
        process = self._process
        assert process is not None
        process.join(LOST_S)
        code = process.exitcode
        self.end()
        if code is None:
            return "ended"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _start(self) -> None:
        try:
            self._pipe, theirs = SpawnContext().Pipe()
            process = _Process(target=_serve, args=(theirs, self._begin, self._given))
            process.start()
        except OSError as error:
            raise EngineError(f"no process could be started beside this one ({error}): {TOO_FEW}") from None
        self._process = process
        theirs.close()  # from here on the process alone holds it, so that its end is heard
        # Before multiprocessing waits for its processes as this one ends: they end when their pipe does.
        self._close = Finalize(self, self._pipe.close, exitpriority=1)
        self._asked = self._answered = 0
        self._come = bytearray()

    def _receive(self, end: float) -> bytes:
        """The next answer. What has come of it stays where the time is over before it is whole."""
        if self._process is None:
            raise LostError
        while not self._is_whole():
            has_ended = self._process.exitcode is not None  # before the look: what it sent is there by now
            if self._pipe.poll(0 if has_ended else max(0.0, min(LOOK_S, end - time.monotonic()))):
                try:
                    piece = os.read(self._pipe.fileno(), PIECE)
                except ConnectionResetError:
                    piece = b""
                if not piece:
                    raise LostError
                self._come += piece
            elif has_ended:
                raise LostError
            elif time.monotonic() >= end:
                raise NotYetError
        whole = _SIZE.size + _SIZE.unpack_from(self._come)[0]
        answer = bytes(memoryview(self._come)[_SIZE.size : whole])
        del self._come[:whole]
        return answer

    def _is_whole(self) -> bool:
        """Whether all of an answer has come."""
        size = _SIZE.size
        return len(self._come) >= size and len(self._come) >= size + _SIZE.unpack_from(self._come)[0]


def wait_for_any(children: Sequence[Child]) -> None:
    """Until one of these, which all have something to do, has an answer."""
    while not any(child.has_answer() for child in children):
        wait([child._pipe for child in children], LOOK_S)


class _Process(SpawnProcess):
    """A process that never imports its parent's `__main__`."""

    def start(self) -> None:
        with _starting:
            main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
            try:
                super().start()
            finally:
                sys.modules["__main__"] = main


def _serve(pipe: Connection, begin: Callable[..., None], given: tuple[Any, ...]) -> None:
    """What the process does until it is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    try:
        threading.Thread(target=_listen, args=(pipe, messages), daemon=True).start()
    except RuntimeError as error:
        told = EngineError(f"a process beside this one could not begin ({error}): {TOO_FEW}")
        _send(pipe, pickle.dumps((False, told, "")))
        return
    begin(*given)
    while True:
        _send(pipe, _answer(messages.get()))


def _listen(pipe: Connection, messages: queue.SimpleQueue[bytes]) -> None:
    """Take messages as they come, so that the parent never waits to send one; end with the parent."""
    try:
        with suppress(EOFError, OSError), open(pipe.fileno(), "rb", closefd=False) as stream:
            while size := stream.read(_SIZE.size):
                messages.put(stream.read(*_SIZE.unpack(size)))
    finally:
        os._exit(1)


def _answer(message: bytes) -> bytes:
    """(whether it is a result, the result or what was raised, where that was), pickled."""
    try:
        do, given = pickle.loads(message)
        return pickle.dumps((True, do(*given), ""))
    except BaseException as error:  # noqa: BLE001  a worker outlives what it does, and its caller hears of it
        where = traceback.format_exc()
        try:
            return pickle.dumps((False, error, where))
        except Exception:  # noqa: BLE001  whatever its own pickling raises
            return pickle.dumps((False, EngineError(f"{type(error).__name__}: {error}"), where))


def _send(pipe: Connection, message: bytes) -> None:
    left = memoryview(_SIZE.pack(len(message)) + message)
    while left:
        left = left[os.write(pipe.fileno(), left) :]
