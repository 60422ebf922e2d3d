"""What an engine is: something that does independent units of work, anywhere, and gives each one's result.

A unit is a small frozen dataclass of plain values (paths as text, numbers, bytes), `work` a function at the top of a
module, and a result small: all three are pickled. Whatever is large goes through files, which a unit writes whole or
not at all in a folder that its caller names. How the work is cut into units shows in no byte that they give together,
and nothing is summed in the order in which they finish: so every engine gives the same bytes.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from fgtrac.errors import EngineError

TRIES = 3  # of a unit whose worker is lost
IN_FLIGHT = 2  # units a worker has: the one it does, and the next
DONE, RAISED, LOST = "done", "raised", "lost"  # outcomes of a unit: its result, an exception, how its worker was lost

U = TypeVar("U")
R = TypeVar("R")


class Engine(Protocol):
    """Where units of work are done."""

    @property
    def name(self) -> str:
        """How the engine is called, as in `local:2` or `ray://head:10001`."""

    @property
    def workers(self) -> int:
        """How many units are done at once, at least 1."""

    def results(
        self,
        work: Callable[[U], R],
        units: Sequence[U],
        *,
        what: str,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[tuple[int, R]]:
        """Each unit's number and result, as they finish; `progress` hears how many of how many are done.

        At most a few units a worker are under way or waiting to be taken, so memory does not grow with their number.
        What `work` raises is raised here as itself, and the rest is given up; so it is where the caller stops early.
        EngineError, which names the unit of `what`, where its worker was lost three times; and where the engine went.
        """

    def check_shared(self, folder: Path) -> None:
        """That every worker sees this folder, which is there, and the files that are put into it. EngineError where one
        does not."""


def attempt(work: Callable[[U], R], unit: U) -> R:
    """`work(unit)`, at a worker: what it raises can be taken to its caller."""
    try:
        return work(unit)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # noqa: BLE001  whatever its own pickling raises
            raise EngineError(f"{type(error).__name__}: {error}") from None
        raise
    except BaseException as error:  # noqa: BLE001  as its caller would take it for its own
        raise left(work, error) from None


def left(work: Callable[[U], R], error: BaseException) -> EngineError:
    """Of a unit that ends its process, which its caller must not take for its own end."""
    return EngineError(f"{getattr(work, '__name__', 'a unit')} left with {type(error).__name__}({error}), work undone")


def lost(what: str, number: int, total: int, how: str) -> EngineError:
    """Of a unit that no worker survives."""
    return EngineError(
        f"{what}: unit {number + 1} of {total} lost its worker {TRIES} times ({how}); where the memory ran out, "
        "a smaller --memory or fewer workers (--engine local:1) need less. What is done stays: the same command goes on"
    )


def gone(where: str) -> EngineError:
    """Of a cluster that is not there any more."""
    return EngineError(f"{where} went away; what is done so far stays, and the same command goes on")
