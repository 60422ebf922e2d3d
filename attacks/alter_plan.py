"""Alter the plan: the newest seal's plan says that a writer was sealed further than it was.

A seal that believed it would skip entries; the log says how far each writer is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fgtrac.commit.plan import format_plan
from fgtrac.demo.forge import plan_of, put
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    plan = plan_of(trace)
    further = {writer: stop + 1 for writer, stop in plan.writers.items()}
    put(trace, plan.path, format_plan(replace(plan, writers=further)))
    yield caught(stage.verify(trace), "plan")


if __name__ == "__main__":
    main(tell)
