"""How long something may take or wait, as a caller says it: looked at before anything waits."""

from __future__ import annotations

from numbers import Real

MAX_S = 86_400  # a day; what the system can wait for ends somewhere


def read_seconds(value: object, what: str, *, zero: bool = False) -> float:
    """A number of seconds above 0 (or 0, with `zero`) and at most a day, numpy's numbers too; `what` names it.

    TypeError for what is no number, ValueError for one out of range, infinite, or not a number at all.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{what} is a {type(value).__name__}; it is a number of seconds")
    seconds = float(value)
    if not 0 <= seconds <= MAX_S or (seconds == 0 and not zero):
        least = "0 or more" if zero else "above 0"
        raise ValueError(f"{what}={seconds:g}; it is in seconds, {least} and at most {MAX_S:,}")
    return seconds
