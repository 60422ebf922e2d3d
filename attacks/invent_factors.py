"""Invent factors: the signer turns the gradients of a checkpoint around, and the scores with them.

The scores follow from the factors in the log. That these are no gradients of that model on that data shows where the
verifier has both, and runs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from forge_factors import invent_factors_and_sign
from lying import Act, Stage, caught, main, passes


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    invent_factors_and_sign(trace, stage.key)
    yield passes(stage.verify(trace), says="that the recorded factors are gradients of the saved states is not shown")
    again = f"{Path(__file__).with_name('true_trace.py')}:again"
    yield caught(stage.verify(trace, "--scores", "200", "--with", again), "scores")


if __name__ == "__main__":
    main(tell)
