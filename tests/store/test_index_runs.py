"""Runs of postings on disk are merged by sample, of however many files few at a time."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fgtrac.events.posting_runs import Run
from fgtrac.events.postings import KIND, ROW, run_of
from fgtrac.store.index_runs import count_postings, merge_samples, write_run

RUNS, SAMPLES = 60, 5


@pytest.fixture
def few_files() -> Iterator[None]:
    """Twenty more files than are open may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(name) for name in os.listdir("/proc/self/fd")) + 20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("at_once", [1, RUNS * SAMPLES])
def test_more_runs_are_merged_than_files_may_be_open(tmp_path: Path, few_files: None, at_once: int) -> None:
    ranks = np.arange(SAMPLES, dtype=np.uint32)
    for entry in range(RUNS):
        run = Run(ranks, np.zeros(SAMPLES, np.uint32), run_of(entry, KIND["registered"]))
        write_run(tmp_path / str(entry), run, {})
    paths = [tmp_path / str(entry) for entry in range(RUNS)]
    assert count_postings(paths, 1, 4) == RUNS * 3
    ids, values = np.zeros((SAMPLES, 32), np.uint8), bytearray()
    ids[:, 31] = ranks
    leaves = merge_samples(paths, ids, 0, values.extend, None, at_once)
    assert leaves.sizes.tolist() == [RUNS * ROW.itemsize] * SAMPLES
    assert np.frombuffer(values, ROW)["entry"].tolist() == list(range(RUNS)) * SAMPLES
