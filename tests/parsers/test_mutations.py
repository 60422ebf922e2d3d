"""Arbitrary bytes and mutated valid bytes to every parser: a value that is written back the same, or a FormatError.

Random damage mostly dies at a parser's first check and shows little of what stands behind it. So every mutator here
keeps the outer form and changes what is inside; a check of its own, written without the parser, says how many inputs
got past the first one, and each test demands nine in ten.
"""

from __future__ import annotations

import base64
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fgtrac.commit.plan import Plan, Taken, format_plan, parse_plan
from fgtrac.errors import FormatError
from fgtrac.events.codec import decode, encode
from fgtrac.events.postings import ROW, decode_rows
from fgtrac.events.schema import decode_event, encode_event
from fgtrac.store.journal import encode_frame, parse_segment_name, scan, segment_name
from fgtrac.tlog import note, tiles

Draw = Callable[[st.SearchStrategy[Any]], Any]
WRITER = bytes(range(16))


@dataclass(frozen=True)
class Parser:
    """One parser: how to make mutated input, what its first check asks, and what it makes of input."""

    name: str
    mutate: Callable[[Draw], Any]
    passes_first: Callable[[Any], bool]
    rewrite: Callable[[Any], Any]  # parse, and write again what was understood
    arbitrary: st.SearchStrategy[Any]


# -- mutators -----------------------------------------------------------------------------------------------------


def change_bytes(draw: Draw, data: bytes, start: int, *, same_length: bool = False) -> bytes:
    """One to three small changes behind `start`."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(start, len(out) - 1))
        how = "set" if same_length else draw(st.sampled_from(["set", "set", "insert", "delete", "repeat", "cut"]))
        if how == "set":
            out[at] = draw(st.sampled_from([0, 1, 0x18, 0x40, 0x60, 0x80, 0xA1, 0xD8, 0xF6, 0xFB, 0xFF, out[at] ^ 1]))
        elif how == "insert":
            out[at:at] = draw(st.binary(min_size=1, max_size=4))
        elif how == "repeat":
            out[at:at] = out[max(start, at - 8) : at]
        elif how == "cut" and at > start + 40:
            del out[at:]
        elif len(out) > start + 2:
            del out[at]
    return bytes(out)


ODD_VALUES = st.one_of(
    st.sampled_from([0, -1, 2**64 - 1, True, 1.5, float("inf"), "", "x" * 40, b"", bytes(16), bytes(32), [], {}, [[]]]),
    st.sampled_from([[WRITER, 0]], ).map(list),
    st.sampled_from(["<u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8"]).flatmap(
        lambda name: st.integers(0, 3).map(lambda n: np.zeros(n, dtype=name))
    ),
    st.text(max_size=5),
)  # fmt: skip


def change_value(draw: Draw, value: Any) -> Any:
    """The same value with something small inside it changed; maps stay maps."""
    if isinstance(value, dict) and value:
        name = draw(st.sampled_from(sorted(value)))
        how = draw(st.sampled_from(["inside", "inside", "inside", "odd", "drop", "add"]))
        if how == "drop":
            return {k: v for k, v in value.items() if k != name}
        if how == "add":
            return value | {draw(st.text(max_size=4)): draw(ODD_VALUES)}
        return value | {name: draw(ODD_VALUES) if how == "odd" else change_value(draw, value[name])}
    if isinstance(value, list) and value:
        at = draw(st.integers(0, len(value) - 1))
        return [
            *value[:at],
            *draw(st.sampled_from([[], [change_value(draw, value[at])], value[at:] * 2])),
            *value[at + 1 :],
        ]
    if isinstance(value, np.ndarray) and len(value):
        raw = bytearray(value.tobytes())
        raw[draw(st.integers(0, len(raw) - 1))] ^= draw(st.integers(1, 255))
        changed = np.frombuffer(bytes(raw), dtype=value.dtype)
        return draw(st.sampled_from([changed, changed, changed[:-1], np.concatenate([changed, changed[:1]])]))
    if isinstance(value, bytes) and value:
        return draw(st.sampled_from([value[:-1], value + b"\0", value[:-1] + bytes((value[-1] ^ 1,))]))
    if type(value) is int:
        return draw(st.sampled_from([max(value - 1, 0), min(value + 1, 2**64 - 1), 2**63, 0]))
    return draw(ODD_VALUES)


# -- valid inputs -------------------------------------------------------------------------------------------------


def u4(*numbers: int) -> Any:
    return np.array(numbers, dtype="<u4")


ALWAYS = {"time": 1, "writer": WRITER, "seq": 0}
EVENTS: list[dict[str, Any]] = [
    {"kind": "run", "trace": WRITER, "format": 1, "public_key": bytes(32), "id_scheme": "public",
     "versions": {"numpy": "2"}, "config": {"lr": 0.1, "layers": [1, [2, {"a": b"b"}]]}},
    {"kind": "samples", "dataset": "d", "block": WRITER, "part": 0, "parts": 2,
     "ids": b"\1" * 32 + b"\2" * 32 + b"\3" * 32, "contents": bytes(96)},
    {"kind": "use", "loader": 0, "optimizer": 0, "block": WRITER, "epoch": u4(0, 0), "batch": u4(0, 1),
     "step": np.array([1, 2**64 - 1], "<u8"), "status": np.array([1, 2], "<u1"),
     "attribution": np.array([1, 1], "<u1"), "count": u4(2, 1), "ordinals": u4(0, 2, 1), "graph": "whole", "hops": 1,
     "hop_count": u4(1, 0), "hop_ordinals": u4(1)},
    {"kind": "transform", "stage": "s", "operation": "filter", "block": WRITER, "kept": u4(0), "dropped": u4(1, 2)},
    {"kind": "transform", "stage": "p", "operation": "pack", "block": WRITER, "child_block": bytes(16),
     "parents": u4(0, 1), "children": u4(0, 0), "starts": u4(0, 3), "stops": u4(4, 9)},
    {"kind": "use", "loader": 0, "optimizer": 0, "block": WRITER, "epoch": u4(0), "batch": u4(0), "fit": "Ridge",
     "step": np.array([1], "<u8"), "status": np.array([1], "<u1"), "attribution": np.array([4], "<u1"),
     "count": u4(1), "ordinals": u4(0)},
    {"kind": "end", "writers": [[WRITER, 4], [bytes(16), 0]]},
    {"kind": "gap", "reason": "disk full", "lost_writer": WRITER, "first": 2, "stop": 3},
    {"kind": "join", "rank": 1, "ranks": 2, "step": 0, "began": [WRITER, 0]},
]  # fmt: skip
EVENTS = [event | ALWAYS for event in EVENTS]
PLAN = Plan(
    10, 16, (Taken(WRITER, 2, 5), Taken(bytes(16), 0, 1)), {WRITER: 5, bytes(16): 1},
    (encode_event(EVENTS[5]), encode_event(EVENTS[4])), 10, {"keys": bytes(32), "values": bytes(32)},
)  # fmt: skip
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NAME = "fgtrac/" + "0" * 32
HEAD_TEXT = note.format_tree_head(note.TreeHead(NAME, 1234, bytes(range(32))))
NOTE = note.format_note(note.Note(HEAD_TEXT, (note.sign_note(HEAD_TEXT, NAME, KEY),))).decode()
ROWS = b"".join(struct.pack("<BHQQ", *row) for row in [(1, 0, 0, 2**64 - 1), (2, 1, 3, 2**64 - 1), (5, 1, 7, 1)])
BUNDLE = tiles.encode_bundle([b"first entry", b"", b"x" * 300, b"last"])
FRAMES = [encode_frame(encode(event)) for event in EVENTS]


def mutated_note(draw: Draw) -> bytes:
    text = list(NOTE)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text) - 1))
        new = draw(st.sampled_from(["\n", "\n\n", " ", "—", "+", "=", "A", "é", "\x7f", "\u00a0", "", text[at] * 2]))
        text[at] = new
    return "".join(text).encode()


def mutated_head(draw: Draw) -> str:
    origin, size, root, _ = HEAD_TEXT.split("\n")
    origin = draw(st.sampled_from([origin, origin + " ", "x", "é"]))
    size = draw(st.sampled_from([size, "0" + size, "-1", "", "1e3", "٣", size * 6, "1_0", " 1", str(2**63)]))
    at = draw(st.integers(0, len(root) - 1))
    root = root[:at] + draw(st.sampled_from(["", "A", "=", "+", "B", "-", "é"])) + root[at + 1 :]
    return f"{origin}\n{size}\n{root}\n"


def mutated_vkey(draw: Draw) -> str:
    name, identity, material = note.format_vkey(note.Verifier(NAME, KEY.public_key().public_bytes_raw())).split("+", 2)
    raw = base64.b64decode(material)
    raw = draw(st.sampled_from([raw, raw[:-1], raw + b"\0", b"\2" + raw[1:], b"", raw[:-1] + b"\0"]))
    identity = draw(st.sampled_from([identity, identity.upper(), "", identity[:-1], "é", "0" * 8, identity + " "]))
    name = draw(st.sampled_from([name, "", " ", "a b", "a\u00a0b", "a\nb", "\udc80", "x" * 200]))
    return f"{name}+{identity}+{base64.b64encode(raw).decode()}"


def mutated_path(draw: Draw) -> str:
    level = draw(st.sampled_from(["entries", "0", "00", "7", "63", "64", "99", "100", "٣", "-1", "Entries"]))
    groups = draw(st.lists(st.integers(0, 999), min_size=1, max_size=9))
    number = "/".join([f"x{g:03d}" for g in groups[:-1]] + [f"{groups[-1]:03d}"])
    width = draw(st.sampled_from(["", ".p/1", ".p/255", ".p/256", ".p/0", ".p/01", ".p/999", ".p/1000"]))
    return f"tile/{level}/{number}{width}"


def mutated_segment(draw: Draw) -> str:
    stem = list(WRITER.hex())
    for _ in range(draw(st.integers(0, 3))):
        stem[draw(st.integers(0, 31))] = draw(st.sampled_from([*"0aF GZ", "é", "٣"]))
    number = draw(st.sampled_from(["0", "7", "00", "07", "+1", " 1", "-1", "٣", "²", "9" * 30, "9" * 5000, "1_0"]))
    return f"{''.join(stem)}-{number}.wal"


def mutated_plan(draw: Draw) -> bytes:
    frames = [frame for _, frame in scan(format_plan(PLAN)).frames]
    order = change_value(draw, decode(frames[0]))
    own = draw(st.sampled_from([frames[1:], frames[1:2], frames[1:] * 2, frames[:1]]))
    return b"".join(map(encode_frame, [encode(order), *own]))


def mutated_rows(draw: Draw) -> bytes:
    rows = np.frombuffer(ROWS, dtype=ROW).copy()
    for _ in range(draw(st.integers(1, 3))):
        name, at = draw(st.sampled_from(["kind", "detail", "entry", "step"])), draw(st.integers(0, len(rows) - 1))
        rows[name][at] = draw(st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 255]))
    return rows[draw(st.permutations(range(len(rows))))].tobytes()


def mutated_segment_bytes(draw: Draw) -> bytes:
    return change_bytes(draw, b"".join(FRAMES), len(FRAMES[0]))


# -- what the first check asks ------------------------------------------------------------------------------------


def is_map_that_fits(data: bytes) -> bool:
    return 0xA0 < data[0] < 0xB8 and 2 * (data[0] - 0xA0) < len(data)


def is_well_formed(data: bytes) -> bool:
    try:
        decode(data)
    except FormatError:
        return False
    return True


def is_clean_text(data: bytes) -> bool:
    return not re.search(r"[\x00-\x09\x0b-\x1f]", data.decode("utf-8", "strict"))


def has_whole_frames(data: bytes) -> bool:
    at = 0
    while at < len(data):
        length, crc = struct.unpack_from("<II", data, at)
        if zlib.crc32(data[at : at + 4] + data[at + 8 : at + 8 + length]) != crc:
            return False
        at += 8 + length
    return at == len(data) > 0


def rewrite_rows(data: bytes) -> bytes:
    return decode_rows(data).tobytes()


def rewrite_scan(data: bytes) -> bytes:
    """Frames, damaged stretches and a torn tail make up the segment, without a gap and without an overlap."""
    found = scan(data)
    pieces = [(at, encode_frame(entry)) for at, entry in found.frames]
    pieces += [(at, data[at : at + length]) for at, length in found.bad]
    out = b"".join(piece for _, piece in sorted(pieces))
    return out + data[len(out) : len(out) + found.torn]


ANY_BYTES, ANY_TEXT = st.binary(max_size=200), st.text(max_size=80)
PARSERS = [
    Parser(
        "codec.decode",
        lambda draw: change_bytes(draw, encode(draw(st.sampled_from(EVENTS))), 1),
        is_map_that_fits,
        lambda data: encode(decode(data)),
        ANY_BYTES,
    ),
    Parser(
        "decode_event",
        lambda draw: encode(change_value(draw, draw(st.sampled_from(EVENTS)))),
        is_well_formed,
        lambda data: encode_event(decode_event(data)),
        ANY_BYTES,
    ),
    Parser("parse_note", mutated_note, is_clean_text, lambda d: note.format_note(note.parse_note(d)), ANY_BYTES),
    Parser(
        "parse_tree_head",
        mutated_head,
        lambda text: re.fullmatch(r"[^\n]+\n[^\n]*\n[^\n]*\n", text) is not None,
        lambda text: note.format_tree_head(note.parse_tree_head(text)),
        ANY_TEXT,
    ),
    Parser(
        "parse_vkey",
        mutated_vkey,
        lambda text: re.fullmatch(r"(?s).*\+.*\+(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/=]{4})?", text) is not None,
        lambda text: note.format_vkey(note.parse_vkey(text)),
        ANY_TEXT,
    ),
    Parser(
        "parse_tile_path",
        mutated_path,
        lambda path: re.fullmatch(r"tile/[^/]+/(x\d{3}/)*\d{3}(\.p/\d+)?", path) is not None,
        lambda path: tiles.parse_tile_path(path).path,
        ANY_TEXT | st.from_regex(r"tile/(entries|[0-9]+)/(x[0-9]{3}/)*[0-9]{3}(\.p/[0-9]+)?", fullmatch=True),
    ),
    Parser(
        "decode_bundle",
        lambda draw: change_bytes(draw, BUNDLE, 13),
        lambda data: data[:13] == BUNDLE[:13],
        lambda data: tiles.encode_bundle(tiles.decode_bundle(data, 4)),
        ANY_BYTES,
    ),
    Parser("decode_rows", mutated_rows, lambda data: len(data) % 19 == 0, rewrite_rows, ANY_BYTES),
    Parser(
        "journal.scan",
        mutated_segment_bytes,
        lambda data: has_whole_frames(data[: len(FRAMES[0])]),
        rewrite_scan,
        ANY_BYTES,
    ),
    Parser(
        "parse_segment_name",
        mutated_segment,
        lambda name: re.fullmatch(r"(?s).{32}-.+\.wal", name) is not None,
        lambda name: segment_name(*parse_segment_name(name)),
        ANY_TEXT,
    ),
    Parser("parse_plan", mutated_plan, has_whole_frames, lambda data: format_plan(parse_plan(data)), ANY_BYTES),
]


@pytest.mark.parametrize("parser", PARSERS, ids=lambda p: p.name)
def test_mutated_input_is_refused_or_understood_whole(parser: Parser) -> None:
    seen = passed = refused = 0
    words: list[str] = []

    @settings(max_examples=400, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.data())
    def run(data: st.DataObject) -> None:
        nonlocal seen, passed, refused
        given_input = parser.mutate(data.draw)
        seen += 1
        passed += parser.passes_first(given_input)
        try:
            written = parser.rewrite(given_input)
        except FormatError as error:
            refused += 1
            words.append(str(error))
        else:
            assert written == given_input

    run()
    assert passed >= 0.9 * seen, f"{parser.name}: {passed} of {seen} mutated inputs got past the first check"
    assert not [w for w in words if "\n" in w]
    assert refused >= 0.1 * seen or parser.name == "journal.scan"  # scan says what is damaged instead


@pytest.mark.parametrize("parser", PARSERS, ids=lambda p: p.name)
def test_arbitrary_input_is_refused_or_understood_whole(parser: Parser) -> None:
    @settings(max_examples=300, deadline=None, database=None)
    @given(parser.arbitrary)
    def run(given_input: Any) -> None:
        try:
            written = parser.rewrite(given_input)
        except FormatError:
            return
        assert written == given_input

    run()


def test_a_damaged_frame_costs_no_other_frame() -> None:
    whole = b"".join(FRAMES)
    starts = [sum(map(len, FRAMES[:i])) for i in range(len(FRAMES))]
    for at in range(len(whole)):
        data = whole[:at] + bytes((whole[at] ^ 0x55,)) + whole[at + 1 :]
        hit = max(i for i, start in enumerate(starts) if start <= at)
        found = scan(data)
        assert [offset for offset, _ in found.frames] == starts[:hit] + starts[hit + 1 :]
        assert found.bad or found.torn
