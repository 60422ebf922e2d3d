"""Swap a checkpoint and sign: the signer puts another model in place, and lets every digest in the log fit.

The scores still follow from the factors, and those no longer from the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fgtrac.demo.forge import all_entries, reseal
from forge_factors import put_artifacts
from lying import Act, Stage, caught, main, passes


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    first, *_others, last = sorted(str(p.relative_to(trace.path)) for p in trace.path.glob("artifacts/checkpoint-*"))
    data = trace.read(last)
    entries = put_artifacts(trace, all_entries(trace), {first: data})
    reseal(trace, entries, stage.key)
    yield passes(stage.verify(trace), says="that the recorded factors are gradients of the saved states is not shown")
    again = f"{Path(__file__).with_name('true_trace.py')}:again"
    yield caught(stage.verify(trace, "--scores", "200", "--with", again), "scores")


if __name__ == "__main__":
    main(tell)
