"""A history reads the entries that it names as long as they are few and short, and says the same of the counts else."""

from __future__ import annotations

from pathlib import Path

import pytest

import fgtrac
from fgtrac.query import history as history_module
from traces import make_trace


def test_entries_that_are_long_together_are_left_out_as_many_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = make_trace(tmp_path)
    sample = f"id:{made.ids[3].hex()}"
    whole = fgtrac.open(made.trace.path).history(sample)
    assert whole.uses > 1
    assert not whole.is_by_step
    monkeypatch.setattr(history_module, "READ_BYTES", 1)
    outlined = fgtrac.open(made.trace.path).history(sample)
    assert outlined.is_by_step
    assert outlined.uses == whole.uses
    assert [event.step for event in outlined.events] == [event.step for event in whole.events]
    asked = fgtrac.open(made.trace.path).history(sample, details=True)
    assert [event.as_json() for event in asked.events] == [event.as_json() for event in whole.events]


def test_of_long_entries_no_more_is_looked_at_than_shows_that_they_are_too_long(tmp_path: Path):
    log = fgtrac.open(make_trace(tmp_path).trace.path)._seal.log
    sizes = [len(log.peek(number)) for number in range(5)]
    assert log.fits(range(5), sum(sizes))
    assert not log.fits(range(5), sum(sizes) - 1)
    assert not log.fits([0, 10**9], sizes[0] - 1)
