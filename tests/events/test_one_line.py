"""What a log holds ends no line and moves no cursor where people read it."""

from __future__ import annotations

import sys

import pytest

from fgtrac.events.one_line import one_line


@pytest.mark.parametrize("text", ["", "icons:7", 'people:key:"Zoë"', "日本語, 7 × 8 → 56", "a  b"])
def test_what_can_be_read_stays_as_it_is(text: str) -> None:
    assert one_line(text) == text


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("a\n  erased", r"a\n  erased"),
        ("\x1b[2J\x1b[31mred", r"\x1b[2J\x1b[31mred"),
        ("\r\t\0\x7f\x9b", r"\r\t\x00\x7f\x9b"),
        ("to\u202eright\u2028\ud800", r"to\u202eright\u2028\ud800"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_would_act_on_a_terminal_is_written_out(text: str, safe: str) -> None:
    assert one_line(text) == safe


def test_no_character_survives_that_is_not_printable() -> None:
    every = one_line("".join(map(chr, range(sys.maxunicode + 1))))
    assert every.isprintable()
    assert len(every.splitlines()) == 1
