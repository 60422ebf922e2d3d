"""What became of one tree head at one outside service."""

from __future__ import annotations

from dataclasses import dataclass

from fgtrac.errors import RefusedError


@dataclass(frozen=True, slots=True)
class Anchored:
    """A receipt, or why there is none. `size` is the head's, `receipt` the file's path in the trace, `time` is in unix
    seconds as the receipt says; `error` says nothing secret."""

    kind: str
    name: str
    size: int
    receipt: str = ""
    time: int | None = None
    error: Exception | None = None

    @property
    def is_over(self) -> bool:
        """Whether trying again does not help: it is done, or was refused."""
        return self.error is None or isinstance(self.error, RefusedError)

    @property
    def reason(self) -> str:
        """Who gave no receipt, and why, in one line; the empty text where there is one."""
        return "" if self.error is None else reason(self.name, self.error)


def reason(who: str, error: Exception) -> str:
    """An error in one line that names who it is about, once."""
    words = " ".join(str(error).split())
    return words if who in words else f"{who}: {words}"
