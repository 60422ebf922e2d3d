"""Charts: every text escaped, a name for those who do not see them, and no number that breaks one."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest

from fgtrac.drawing import charts
from fgtrac.drawing.charts import Event, Lane, Mark, Series

HOSTILE = "</title><script>alert('x')</script>\" onload=\"y\x00\u202e\ud800&"
SVG = "{http://www.w3.org/2000/svg}"
VALUES = {
    "none": [],
    "one": [0.5],
    "constant": [3.0] * 5,
    "zeros": [0.0] * 5,
    "huge": [1e300, -1e308, 1.7e308, 0.0],
    "tiny": [1e-300, 2e-300, 5e-324],
    "not finite": [math.nan, math.inf, -math.inf, 1.0],
    "all not a number": [math.nan, math.nan],
    "far from zero": [1e15, 1e15 + 1, 1e15 + 2],
    "whole": [1, 2, 10**18],
}
CHARTS: dict[str, Callable[[list[float]], str]] = {
    "lines": lambda v: charts.lines([Series("a", range(len(v)), v), Series("b", v, v)], title="t", y="loss"),
    "bars": lambda v: charts.bars([(str(i), x) for i, x in enumerate(v)], title="t"),
    "columns": lambda v: charts.columns([(str(i), x) for i, x in enumerate(v)], title="t"),
    "signed bars": lambda v: charts.signed_bars([(str(i), x) for i, x in enumerate(v)], title="t"),
    "lying signed bars": lambda v: charts.signed_bars([(str(i), x) for i, x in enumerate(v)], title="t", lying=True),
    "stacked": lambda v: charts.stacked([(str(i), {"a": x, "b": x}) for i, x in enumerate(v)], title="t"),
    "timeline": lambda v: charts.timeline([Lane("a", [Event(x, "e") for x in v]), Lane("b", at=v)], title="t"),
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
@pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS.keys())
def test_a_chart_of_any_numbers_is_well_formed_and_lies_in_its_frame(
    chart: Callable[[list[float]], str], values: list[float]
) -> None:
    root = ElementTree.fromstring(chart(values))
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    for element in root.iter():
        for name, value in element.attrib.items():
            if name in ("x", "x1", "x2", "cx"):
                assert -1 <= float(value) <= width + 1
            if name in ("y", "y1", "y2", "cy"):
                assert -1 <= float(value) <= height + 1
    for numbers in re.findall(r' d="([^"]*)"', chart(values)):
        assert all(math.isfinite(float(x)) for x in re.split("[ML ]+", numbers) if x)


@pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS.keys())
def test_a_chart_has_a_name_and_a_description_and_only_classes_style_it(chart: Callable[[list[float]], str]) -> None:
    drawn = chart([1.0, 2.0])
    root = ElementTree.fromstring(drawn)
    assert root.attrib["role"] == "img"
    assert root[0].tag == f"{SVG}title"
    assert root[0].text == "t"
    assert root[1].tag == f"{SVG}desc"
    assert root[1].text
    assert "style=" not in drawn
    assert "<script" not in drawn
    assert not re.search(r"\son[a-z]+=|url\(|href=\"http", drawn)


def test_every_text_of_a_chart_is_escaped() -> None:
    drawn = [
        charts.lines([Series(HOSTILE, [1, 2], [1, 2]), Series(HOSTILE, [1], [1])], title=HOSTILE, x=HOSTILE, y=HOSTILE),
        charts.lines([], title=HOSTILE, marks=[Mark(1, HOSTILE)]),
        charts.bars([(HOSTILE, 1.0)], title=HOSTILE, x=HOSTILE),
        charts.columns([(HOSTILE, 1.0)], title=HOSTILE, x=HOSTILE, y=HOSTILE),
        charts.signed_bars([(HOSTILE, -1.0)], title=HOSTILE, above=HOSTILE, below=HOSTILE),
        charts.stacked([(HOSTILE, {HOSTILE: 1.0})], title=HOSTILE),
        charts.timeline([Lane(HOSTILE, [Event(1, HOSTILE)], at=[1], each=HOSTILE)], title=HOSTILE, x=HOSTILE),
    ]
    for one in drawn:
        assert "<script" not in one
        assert "alert" in one
        tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(one).iter()}
        assert tags <= {"svg", "title", "desc", "text", "line", "path", "rect", "circle", "g", "a"}
        one.encode("utf-8")  # no lone surrogate
        assert not re.search("[\x00\u202e]", one)


def test_a_long_text_is_cut() -> None:
    assert len(charts.bars([("x" * 10_000_000, 1.0)], title="y" * 10_000_000)) < 5_000


def test_many_points_are_few_and_the_extremes_are_among_them() -> None:
    y = np.sin(np.arange(1_000_000) / 5e4)
    y[123_456], y[654_321] = 9.0, -7.0
    drawn = charts.lines([Series("loss", np.arange(1_000_000), y)], title="t")
    places = [float(pair.split(" ")[1]) for pair in re.findall(r' d="M([^"]*)"', drawn)[0].split("L")]
    assert len(places) < 4_000
    root = ElementTree.fromstring(drawn)
    grid = {e.text: float(e.attrib["y"]) - 4 for e in root.iter(f"{SVG}text") if "fg-end" in e.attrib["class"]}
    unit = (grid["0"] - grid["10"]) / 10
    assert min(places) == pytest.approx(grid["0"] - 9 * unit, abs=0.1)
    assert max(places) == pytest.approx(grid["0"] + 7 * unit, abs=0.1)
    assert "lowest -7, highest 9" in (root[1].text or "")


def test_many_bars_are_few_and_the_largest_is_among_them() -> None:
    values = [(str(i), -50.0 if i == 7_001 else 1.0) for i in range(10_000)]
    drawn = charts.signed_bars(values, title="t")
    assert drawn.count("<rect") < 300
    assert "7001: -50" in drawn
    assert "of 10,000 the largest of each 42 neighbours is drawn" in drawn
    assert "and 9,970 more, not drawn" in charts.bars(values, title="t")


def test_the_heights_of_bars_are_in_the_ratio_of_their_values() -> None:
    root = ElementTree.fromstring(charts.columns([("a", 10.0), ("b", 40.0)], title="t"))
    heights = [float(e.attrib["height"]) for e in root.iter(f"{SVG}rect")]
    assert heights[1] == pytest.approx(4 * heights[0], abs=0.3)


def test_a_value_that_is_not_finite_cuts_its_line_and_is_counted() -> None:
    drawn = charts.lines([Series("a", [1, 2, 3, 4, 5], [1, 2, math.nan, 4, 5])], title="t")
    assert len(re.findall("M", re.findall(r' d="([^"]*)"', drawn)[0])) == 2
    assert "Values that are not finite: 1." in drawn


def test_many_marks_are_short_and_those_at_one_place_are_one() -> None:
    few = charts.lines([Series("a", [0, 9], [0, 1])], title="t", marks=[Mark(3, "kept")])
    many = charts.lines([Series("a", [0, 9], [0, 1])], title="t", marks=[Mark(i / 1e4, "kept") for i in range(90_000)])
    heights = [
        {float(e.attrib["y2"]) - float(e.attrib["y1"]) for e in ElementTree.fromstring(drawn).iter(f"{SVG}line")
         if e.attrib["class"] == "fg-mark"}
        for drawn in (few, many)
    ]  # fmt: skip
    assert min(heights[0]) > 100
    assert heights[1] == {8}
    assert many.count('class="fg-mark"') < 720
    assert "90,000 marks" in many


def test_events_at_one_place_are_one_mark_that_counts_them() -> None:
    drawn = charts.timeline([Lane("uses", at=[5] * 1000 + [900], each="used")], title="t")
    assert drawn.count("<rect") == 2
    assert "1,000 times used, step 5<" in drawn
    assert "used, step 900<" in drawn


def test_a_link_leads_to_a_page_of_the_site_only() -> None:
    drawn = charts.timeline([Lane("a", [Event(1, "e", href="/run/a?x=1&y=2")])], title="t")
    assert 'href="/run/a?x=1&amp;y=2"' in drawn
    assert 'role="group"' in drawn
    for path in ("javascript:alert(1)", "http://a", "//a", "/\\a", "a", "/a\nb"):
        with pytest.raises(ValueError, match="leads out of the site"):
            charts.timeline([Lane("a", [Event(1, "e", href=path)])], title="t")


def test_values_that_do_not_fit_their_places_are_refused() -> None:
    with pytest.raises(ValueError, match="3 values of x and 2 of y"):
        charts.lines([Series("a", [1, 2, 3], [1, 2])], title="t")


def test_a_chart_is_the_same_bytes_each_time() -> None:
    code = (
        "from fgtrac.drawing.charts import *;"
        "print(stacked([('a',{'x':1.,'y':2.}),('b',{'z':3.})],title='t'), lines([Series('a',[1,2],[3,4])],title='t'))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1
