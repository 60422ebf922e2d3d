"""Heads that somebody outside saw, when they say that it was, and which of these times can be true.

Every time here is somebody's word. The log says of each of its entries when it was recorded, and an authority, a
witness or a chain when it saw a head of them. Of two clocks that differ by more than `TOLERANCE_S` nobody can say which
is right: such a time is told, and nothing rests on it.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace
from datetime import UTC, datetime

TOLERANCE_S = 300.0
MARGIN_S = 60.0  # a stamp that is exact to so much counts as exact: two clocks are not better than that
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Witnessed:
    """That somebody outside saw so many entries of the log: when (unix seconds, by the witness's clock, exact to
    `accuracy_s` as it says), who, and what kind of witness it is (see `verify.receipts`). `excludes` says that a second
    history is excluded: by a witness's word, or by a contract and an account that the verifier named. `exact` says that
    it was the head of that very size, and not only a later one that extends it; `counts` that nobody else has to say so
    too; `doubt` why the time cannot be true, if it cannot."""

    size: int
    time_s: float
    by: str
    kind: str = ""
    accuracy_s: float = 0.0
    excludes: bool = False
    exact: bool = True
    counts: bool = True
    doubt: str = ""

    @property
    def margin_s(self) -> float:
        """By how much the time may be wrong by its own word, where that is worth telling."""
        return self.accuracy_s if self.accuracy_s > MARGIN_S else 0.0

    def told(self) -> str:
        """The time in words, with its margin and its doubt."""
        margin = f", give or take {self.margin_s:,.0f} s" if self.margin_s else ""
        return f"{utc(self.time_s)}{margin}" + (f" (not believable: {self.doubt})" if self.doubt else "")


class OwnTimes:
    """When the entries of a log were recorded, by their own word."""

    def __init__(self) -> None:
        self._latest = array("q")  # nanoseconds since 1970, by number: the latest up to that entry

    def add(self, time_ns: int) -> None:
        """Take the time of the next entry."""
        time_ns = max(_LEAST, min(time_ns, _MOST))
        self._latest.append(max(time_ns, self._latest[-1]) if self._latest else time_ns)

    def judge(self, seen: Witnessed, now_s: float) -> Witnessed:
        """The same, with what speaks against its time: that it is over `TOLERANCE_S` before the latest entry that it
        covers, or as far in the future of the verifier's own clock."""
        doubt = ""
        if seen.time_s - seen.accuracy_s > now_s + TOLERANCE_S:
            doubt = f"it is in the future, and this computer's clock is at {utc(now_s)}"
        elif 0 < seen.size <= len(self._latest):
            recorded_s = self._latest[seen.size - 1] / 1e9
            if seen.time_s + seen.accuracy_s < recorded_s - TOLERANCE_S:
                doubt = f"the entries that it covers say that they were recorded until {utc(recorded_s)}"
        return replace(seen, doubt=doubt)


def utc(time_s: float) -> str:
    """A time as people read it, in whole seconds; one that no calendar has as a number, since clocks may say any."""
    try:
        return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{time_s:.0f} seconds after 1970"
