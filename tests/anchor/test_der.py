"""The DER reader: every element as it was written, and no other writing of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtrac.anchor.der import SEQUENCE, read_elements, take
from fgtrac.errors import FormatError
from stamps_by_hand import der

TAGS = st.integers(0, 255).filter(lambda tag: tag & 0x1F != 0x1F)


@given(st.lists(st.tuples(TAGS, st.one_of(st.binary(max_size=300), st.just(bytes(70_000)))), max_size=4))
def test_elements_are_read_as_they_were_written(elements: list[tuple[int, bytes]]) -> None:
    written = [der(tag, content) for tag, content in elements]
    read = read_elements(b"".join(written))
    assert [(e.tag, e.content, e.raw) for e in read] == [
        (*element, raw) for element, raw in zip(elements, written, strict=True)
    ]


@given(st.binary(max_size=12))
def test_what_is_read_is_written_as_it_was(data: bytes) -> None:
    try:
        read = read_elements(data)
    except FormatError:
        return
    assert b"".join(der(element.tag, element.content) for element in read) == data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x30", "no DER element begins at byte 0"),
        (b"\x05\0\x1f\x20\0", "no DER element begins at byte 2"),  # a tag of more bytes
        (b"\x30\x80\0\0", "no length as DER writes it"),  # BER's indefinite length
        (b"\x30\x81\x05hello", "no length as DER writes it"),  # a short one in two bytes
        (b"\x30\x82\0\x80" + bytes(128), "no length as DER writes it"),  # a leading zero
        (b"\x30\x85\0\0\0\0\0", "no length as DER writes it"),
        (b"\x30\x82\1", "no length as DER writes it"),
        (b"\x30\x02\0", "ends at 4, behind the last of 3"),
    ],
)
def test_anything_else_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        read_elements(data)


def test_parts_of_other_kinds_are_refused_with_both_tags() -> None:
    (outer,) = read_elements(der(SEQUENCE, der(0x02, b"\1"), der(0x04, b"x")))
    assert [part.content for part in take(outer, 0x02)] == [b"\1", b"x"]
    for tags in ((0x04,), (0x02, 0x04, 0x05)):
        with pytest.raises(FormatError, match="are expected, not 02"):
            take(outer, *tags)
