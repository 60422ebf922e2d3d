"""The page of the capture matrix has every case that is tested, and says of all that they agree."""

from __future__ import annotations

from capture_matrix import PAGE, PARTS, collect


def test_the_page_has_exactly_the_cases_that_are_tested() -> None:
    lines = PAGE.read_text().splitlines()
    collected = collect()
    first = lines.index(next(line for line in collected if line.startswith("## ")))
    assert ["", *lines[first:]] == collected, "run `make capture-matrix`"
    assert {f"## {part}" for part in PARTS} <= set(collected)


def test_the_page_says_that_all_agree() -> None:
    assert "agree with the truth" in PAGE.read_text()
    assert "not** agree" not in PAGE.read_text()
    assert "not run" not in PAGE.read_text()
