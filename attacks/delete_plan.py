"""Delete the plan: the newest seal's plan goes.

It is part of the trace, and missed.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import plan_of
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    (trace.path / plan_of(trace).path).unlink()
    yield caught(stage.verify(trace), "plan")


if __name__ == "__main__":
    main(tell)
