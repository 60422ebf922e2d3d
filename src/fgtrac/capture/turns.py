"""Several processes register the same data sets: whose turn it is, and what the others then find registered."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

Registered = tuple[bytes, bytes | None]  # the block, and the SHA-256 over its content digests in the order of the ids


@dataclass(slots=True)
class Turn:
    """One process's turn at one data set: `elsewhere` says what another has registered under its name, None that this
    process is to, and then to call `done`. Where there is no other process nobody is told."""

    elsewhere: Registered | None = None
    tell: Callable[[Registered], None] | None = None
    is_done: bool = False

    def done(self, block: bytes, content_digest: Callable[[], bytes | None]) -> None:
        """It is registered."""
        self.is_done = True
        if self.tell is not None:
            self.tell((block, content_digest()))

    def difference(self, block: bytes, content_digest: Callable[[], bytes | None]) -> str:
        """What another process has else under the name, in a word."""
        if self.elsewhere is None or self.elsewhere == (block, content_digest()):
            return ""
        return "other samples" if self.elsewhere[0] != block else "other contents"


def check_same(name: str, differs: str) -> None:
    """ValueError where another process has something else under the name."""
    if differs:
        raise ValueError(
            f"another rank has registered {differs} as {name!r}; give data that are this rank's alone another name="
        )


def alone(_name: str) -> AbstractContextManager[Turn]:
    """The turns of a process that is the only one."""
    return nullcontext(Turn())


Turns = Callable[[str], AbstractContextManager[Turn]]  # data set's name -> the turn, which ends with the block
