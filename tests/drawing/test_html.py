"""Pieces of HTML: escaped text, tables, verdict marks, colours that can be told apart, and pictures."""

from __future__ import annotations

import io
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from jinja2 import Environment
from PIL import Image

from fgtrac.drawing.html import Html, escape, link, number, short, table, verdict_mark
from fgtrac.drawing.png import grey_or_rgb
from fgtrac.drawing.style import CSS, DARK, LIGHT


class Tags(HTMLParser):
    """The tags and the text of a piece of HTML, as a browser's parser finds them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") or name == "style" for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_text_is_escaped_once_and_html_is_left_alone() -> None:
    assert escape("<a href='x'>&\"") == "&lt;a href=&#x27;x&#x27;&gt;&amp;&quot;"
    assert escape(Html("<b>")) == "<b>"
    assert escape("a\x00b\u202ec\ud800") == "a\\x00b\\u202ec\\ud800"
    assert Environment(autoescape=True).from_string("{{ a }}{{ b }}").render(a=Html("<b>"), b="<i>") == "<b>&lt;i&gt;"


def test_a_table_names_its_columns_and_rows_and_says_what_it_leaves_out() -> None:
    made = table(["<b>", "uses"], [["</td><script>", 1234], [None, 0.5]], caption="<i>", more=7)
    found = Tags(made)
    assert set(found.tags) <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "span"}
    assert 'scope="col"' in made
    assert 'scope="row"' in made
    assert "1,234" in found.text
    assert "and 7 more" in found.text
    assert "none" in Tags(table(["a"], [])).text
    with pytest.raises(ValueError, match="1 cells under a head of 2"):
        table(["a", "b"], [["x"]])


def test_numbers_are_written_as_people_read_them() -> None:
    assert [number(x) for x in (0, 1234567, -0.5, 0.03125, 1e300, 10**400, np.int64(5))] == [
        "0", "1,234,567", "-0.5", "0.03125", "1e+300", "over 1e+300", "5",
    ]  # fmt: skip
    assert [number(x) for x in (math.nan, math.inf, -math.inf)] == ["not a number", "infinity", "minus infinity"]
    assert short("a" * 1000, 10) == "a" * 9 + "…"


def test_only_a_verdict_that_holds_is_green() -> None:
    for said, kind in {"holds": "holds", "refuted": "refuted", "cannot tell": "unsure"}.items():
        assert f"fg-{kind}" in verdict_mark(said, "<words>")
        assert "&lt;words&gt;" in verdict_mark(said, "<words>")
    for said in ("not checked yet", "", "HOLDS", "ok", "holds ", "<script>"):
        assert 'class="fg-verdict fg-unchecked"' in verdict_mark(said)
        assert "<script" not in verdict_mark(said)
    assert (
        len({verdict_mark(v).split("</span>")[0] for v in ("holds", "refuted", "cannot tell", "x")}) == 4
    )  # the signs


def test_a_link_stays_on_the_site() -> None:
    assert link("/run/a", "<a>") == '<a href="/run/a">&lt;a&gt;</a>'
    with pytest.raises(ValueError, match="leads out"):
        link("javascript:1", "a")


@pytest.mark.parametrize(("colours", "paper"), [(LIGHT, "#ffffff"), (DARK, "#16181d")])
def test_colours_stand_out_on_their_paper(colours: dict[str, str], paper: str) -> None:
    for name, colour in colours.items():
        least = 3.0 if name.startswith("s") and name[1:].isdecimal() else 4.5
        assert _contrast(colour, paper) >= least, name
        assert f"--fg-{name}: {colour};" in CSS


def test_a_picture_is_read_back_by_another_library() -> None:
    random = np.random.default_rng(0)
    for shape in ((3, 5), (4, 7, 3), (1, 1)):
        pixels = random.integers(0, 256, shape, dtype=np.uint8)
        assert (np.asarray(Image.open(io.BytesIO(grey_or_rgb(pixels)))) == pixels).all()
    for wrong in (np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2), np.uint8), np.zeros(3, np.uint8)):
        with pytest.raises(ValueError, match="they are uint8"):
            grey_or_rgb(wrong)


def _contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2.2, from the relative luminance of sRGB."""
    bright = []
    for colour in (one, other):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        bright.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(bright) + 0.05) / (min(bright) + 0.05)
