"""Units of work that tests give to engines: what is squared, killed, raised, waited for, and left in files."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgtrac.engine import child
from fgtrac.errors import ProofError


@dataclass(frozen=True, slots=True)
class Unit:
    """A number, and a folder for what is to be seen of it."""

    number: int
    folder: str = ""


def units(count: int, folder: Path) -> list[Unit]:
    return [Unit(number, str(folder)) for number in range(count)]


def square(unit: Unit) -> int:
    return unit.number**2


def process(unit: Unit) -> int:
    return os.getpid()


def setting(unit: Unit) -> tuple[str | None, ...]:
    return tuple(os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"))


def killed_once(unit: Unit) -> int:
    """Number 3's worker is killed the first time, in the middle."""
    return killed(unit) if unit.number == 3 and not tries(unit) else unit.number**2


def killed(unit: Unit) -> int:
    """Number 3's worker is killed every time, as by a system that is out of memory."""
    if unit.number == 3:
        Path(unit.folder, f"try-{tries(unit)}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return unit.number**2


LARGE = 16 << 20  # bytes of a result: many times what a pipe holds


def large(unit: Unit) -> bytes:
    return bytes((unit.number,)) * LARGE


def first_small(unit: Unit) -> bytes:
    return large(unit) if unit.number else b""


def killed_sending(unit: Unit) -> bytes:
    """Number 3's worker is killed the first time, when half of the result is sent."""
    if unit.number == 3 and not tries(unit):
        Path(unit.folder, "try-0").touch()

        def send(pipe: Any, answer: bytes) -> None:
            sent = len(answer).to_bytes(8, "little") + answer[: len(answer) // 2]
            while sent:
                sent = sent[os.write(pipe.fileno(), sent) :]
            os.kill(os.getpid(), signal.SIGKILL)

        child._send = send
    return large(unit)


def killed_with_a_fork(unit: Unit) -> int:
    """Number 3's worker is killed the first time, and what it has forked lives on with all its files open."""
    if unit.number == 3 and not tries(unit):
        Path(unit.folder, "try-0").touch()
        forked = os.fork()
        if not forked:
            time.sleep(600)
            os._exit(0)
        Path(unit.folder, "forked.pid").write_text(str(forked))
        os.kill(os.getpid(), signal.SIGKILL)
    return unit.number**2


def tries(unit: Unit) -> int:
    return len(list(Path(unit.folder).glob("try-*")))


def refuted(unit: Unit) -> int:
    if unit.number == 2:
        raise ProofError("unit 2 shows something else")
    return unit.number


def leaves(unit: Unit) -> int:
    """Number 2 ends its process, as a function that finds no data may."""
    if unit.number == 2:
        raise SystemExit(0)
    return unit.number


class HiddenError(BaseException):
    """Like KeyboardInterrupt, no Exception."""


def stops(unit: Unit) -> int:
    raise (KeyboardInterrupt, GeneratorExit, HiddenError)[unit.number]("here")


class OddError(Exception):
    """An exception that cannot be made again from its pickle."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def odd(unit: Unit) -> int:
    raise OddError("this", "that")


def long(unit: Unit) -> int:
    """Says in a file which process does it, and takes longer than any test."""
    Path(unit.folder, f"{unit.number}.pid").write_text(str(os.getpid()))
    time.sleep(600)
    return 0


def first_short(unit: Unit) -> int:
    return 0 if unit.number == 0 else long(unit)


def slow(unit: Unit) -> int:
    """Leaves a file when it is done; what has one is not done again."""
    done = Path(unit.folder, f"{unit.number}.done")
    if not done.exists():
        time.sleep(0.5)
        with done.open("x") as file:  # FileExistsError where it is done twice
            file.write(str(unit.number**2))
    return int(done.read_text())


def stop_early(engine: Any, folder: Path) -> None:
    """Take the first result from two workers that are then busy for long, and no other: they are not left at it."""
    for number, _ in engine.results(first_short, units(8, folder), what="x"):
        assert number == 0
        wait_until(lambda: len(pids(folder)) == 2 and all(pids(folder)))
        break
    wait_until(lambda: not any(map(is_running, pids(folder))))


class Counted:
    """A unit that counts how often it was handed out."""

    given = 0

    def __reduce__(self) -> Any:
        Counted.given += 1
        return Unit, (1,)


def is_running(pid: int) -> bool:
    """Whether there is such a process, and not only its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(holds: Any, seconds: float = 60.0) -> None:
    """TimeoutError where it does not come true."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)


def pids(folder: Path) -> list[int]:
    """The processes that do long units."""
    return [int(path.read_text() or 0) for path in folder.glob("*.pid")]
