"""DER elements (X.690), as far as a time stamp's outer parts need them: one-byte tags, lengths below 2^32."""

from __future__ import annotations

from dataclasses import dataclass

from fgtrac.errors import FormatError

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, OBJECT_ID = 0x01, 0x02, 0x03, 0x04, 0x06
GENERALIZED_TIME, SEQUENCE, SET = 0x18, 0x30, 0x31


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its tag, its content, and all of its bytes."""

    tag: int
    content: bytes
    raw: bytes

    def parts(self) -> list[Element]:
        """The elements that the content is made of."""
        return read_elements(self.content)


def read_elements(data: bytes) -> list[Element]:
    """The elements that `data` is a sequence of, nothing between them and nothing behind. FormatError otherwise."""
    found: list[Element] = []
    at = 0
    while at < len(data):
        if len(data) - at < 2 or data[at] & 0x1F == 0x1F:
            raise FormatError(f"no DER element begins at byte {at}")
        start, length = at + 2, data[at + 1]
        if length >= 0x80:
            start, digits = start + length - 0x80, data[start : start + length - 0x80]
            length = int.from_bytes(digits)
            if not 0 < len(digits) < 5 or length < 0x80 or digits[0] == 0:
                raise FormatError(f"the DER element at byte {at} has no length as DER writes it")
        stop = start + length
        if stop > len(data):
            raise FormatError(f"the DER element at byte {at} ends at {stop}, behind the last of {len(data)}")
        found.append(Element(data[at], data[start:stop], data[at:stop]))
        at = stop
    return found


def take(element: Element, *tags: int) -> list[Element]:
    """The parts of a constructed element, whose first ones have these tags. FormatError otherwise."""
    parts = element.parts()
    if [part.tag for part in parts[: len(tags)]] != list(tags):
        found = " ".join(f"{part.tag:02x}" for part in parts[: len(tags)])
        raise FormatError(f"DER elements with the tags {' '.join(f'{t:02x}' for t in tags)} are expected, not {found}")
    return parts
