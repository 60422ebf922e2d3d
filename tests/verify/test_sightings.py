"""Times that others claim: which can be true beside the log's own times and the verifier's clock."""

from __future__ import annotations

import pytest

from fgtrac.verify.sightings import OwnTimes, Witnessed, utc

NOW = 1_700_000_000.0
S = 10**9


def own(*times_s: float) -> OwnTimes:
    found = OwnTimes()
    for time_s in times_s:
        found.add(int(time_s * S))
    return found


def doubt(times: OwnTimes, size: int, time_s: float, accuracy_s: float = 0.0) -> str:
    return times.judge(Witnessed(size, time_s, "a", accuracy_s=accuracy_s), NOW).doubt


def test_a_time_before_the_entries_that_it_covers_were_recorded_is_not_believed() -> None:
    times = own(1000, 9000, 2000)
    assert doubt(times, 1, 700) == ""
    assert "recorded until 1970-01-01 00:16:40 UTC" in doubt(times, 1, 699)
    for size in (2, 3):  # the latest entry, not the last one
        assert doubt(times, size, 8700) == ""
        assert "recorded until 1970-01-01 02:30:00 UTC" in doubt(times, size, 8699)
    assert doubt(times, 2, 8000, accuracy_s=700) == ""


def test_a_time_in_the_future_of_the_verifier_s_clock_is_not_believed() -> None:
    assert doubt(own(0), 1, NOW + 300) == ""
    assert "in the future, and this computer's clock is at 2023-11-14" in doubt(own(0), 1, NOW + 301)
    assert doubt(own(0), 1, NOW + 1000, accuracy_s=700) == ""
    assert "in the future" in doubt(OwnTimes(), 7, 2.0**63)


@pytest.mark.parametrize("time_ns", [-(1 << 64), 1 << 64])
def test_an_entry_may_say_any_time(time_ns: int) -> None:
    times = OwnTimes()
    times.add(time_ns)
    assert bool(doubt(times, 1, 0)) == (time_ns > 0)


def test_a_time_is_told_with_its_margin_and_its_doubt() -> None:
    assert Witnessed(1, 0, "a", accuracy_s=60).told() == "1970-01-01 00:00:00 UTC"
    assert Witnessed(1, 0, "a", accuracy_s=3600).told() == "1970-01-01 00:00:00 UTC, give or take 3,600 s"
    assert Witnessed(1, 0, "a", doubt="no").told() == "1970-01-01 00:00:00 UTC (not believable: no)"


@pytest.mark.parametrize("time", [253402300800.0, 2.0**63, -(2.0**63), float("nan")])
def test_a_time_that_no_calendar_has_is_a_number(time: float) -> None:
    assert utc(time) == f"{time:.0f} seconds after 1970"
