"""What counts as fgtrac's own time in a loop over a graph: what it counts itself, and nothing of the sampler's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from fgtrac.api.run import start_run
from fgtrac.capture import full_batch
from fgtrac.capture.own_time import own_time
from graphs import FewNeighbours, make_graph, node_loader

SLOW_S = 0.2


def slowed(function: Any) -> Any:
    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(SLOW_S)
        return function(*args, **kwargs)

    return slow


@pytest.mark.parametrize("by_worker", [False, True])
def test_what_the_users_sampler_takes_is_not_fgtracs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_worker: bool
) -> None:
    monkeypatch.setattr(FewNeighbours, "sample_from_nodes", slowed(FewNeighbours.sample_from_nodes))
    with own_time() as meter, start_run(tmp_path / "run", key=tmp_path / "key.pem") as run:
        loader = run.watch(node_loader(make_graph(), filter_per_worker=by_worker), role="train")
        start = meter.seconds
        batches = len(list(loader))
        assert meter.seconds - start < SLOW_S * batches / 2


def test_counting_the_hops_of_a_whole_graph_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_batch, "whole_graph", slowed(full_batch.whole_graph))
    with own_time() as meter, start_run(tmp_path / "run", key=tmp_path / "key.pem") as run:
        passes = run.full_batch(make_graph(), "train_mask", hops=2, role="train")
        start = meter.seconds
        list(passes)
        assert meter.seconds - start > SLOW_S
