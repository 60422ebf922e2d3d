"""The verbs about losses and contributions say what is so, in words and as JSON, with the documented exit codes."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
import pytest

from fgtrac.events.schema import ATTRIBUTION, STATUS
from lives import Life, keep_names
from traces import Made, make_trace, start_trace

from .conftest import Run


@pytest.fixture(scope="module")
def jumped(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Eight epochs in which row 17 was corrupt once, in epoch 5."""
    folder = tmp_path_factory.mktemp("jumped")
    made, writing = start_trace(folder, samples=100)
    generator = np.random.default_rng(0)
    for epoch in range(8):
        losses = generator.uniform(0.4, 0.6, 100)
        losses[17] = 50.0 if epoch == 5 else losses[17]
        order = generator.permutation(100)
        for number, start in enumerate(range(0, 100, 10)):
            rows = order[start : start + 10]
            writing.step += 1
            said = (epoch, number, writing.step, STATUS["applied"], ATTRIBUTION["exact"])
            half = losses[rows].astype(np.float16)
            writing.recorder.use(writing.placement, 1, 1, said, array("I", rows.tolist()), half)
    writing.end()
    made.seal()
    keep_names(folder, made)
    return made


def test_spikes_names_the_step_and_the_sample(run: Run, jumped: Made) -> None:
    done = run("spikes", jumped.trace.path)
    assert done.code == 0
    assert "(epoch 5): loss" in done.out
    assert "digits:17" in done.out
    said = run("spikes", jumped.trace.path, "--json", "--top", "1", "--samples", "3").json
    (spike,) = said["spikes"]
    assert spike["samples"][0]["name"] == "digits:17"
    assert len(spike["samples"]) == 3
    assert said["events"] == 800


def test_spikes_shows_any_step_that_is_asked_for(run: Run, jumped: Made) -> None:
    assert "step 3 (epoch 0)" in run("spikes", jumped.trace.path, "--step", "3").out
    assert "no update 999 has losses" in run("spikes", jumped.trace.path, "--step", "999").out


def test_spikes_cannot_tell_without_losses(run: Run, tmp_path: Path) -> None:
    made = make_trace(tmp_path / "bare")
    for flags in ((), ("--json",)):
        done = run("spikes", made.trace.path, *flags)
        assert done.code == 3
        assert done.err.startswith("fgtrac: cannot tell: no losses are recorded")
        assert "run.losses" in done.err


def test_spikes_of_too_few_steps_shows_none(run: Run, lived: Life) -> None:
    done = run("spikes", lived.path)
    assert (done.code, done.err) == (0, "")
    assert "no step's loss jumped" in done.out
