"""A bundle is strict JSON within its limits, survives a round trip, and holds under the key it was signed with."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtrac.errors import FormatError
from fgtrac.events.identity import preimage
from fgtrac.tlog.index import Absence, LeafProof
from fgtrac.tlog.proof import TlogProof
from fgtrac.verify.bundle import Bundle, Shown, format_bundle, parse_bundle
from fgtrac.verify.claims import check_bundle
from fgtrac.verify.report import Verdict
from fgtrac.verify.strict_json import MAX_BYTES, MAX_DEPTH, decode_json
from proofs import CLAIMS, examine


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_true_bundle_holds_as_committed_and_survives_a_round_trip(bundles: Any, claim: str) -> None:
    verifier, made = bundles
    report = examine(made[claim], verifier)
    assert report.verdict is Verdict.HOLDS, report.failures()
    assert "holds as committed at size" in report.findings[-1].words
    assert format_bundle(parse_bundle(made[claim])) == made[claim]
    assert parse_bundle(made[claim]).claim == claim


# -- sizes and limits -----------------------------------------------------------------------------------------------


def test_a_bundle_has_at_most_12_kb_and_40_bytes_a_row() -> None:
    """Measured where every tree has 2^40 leaves and every number eleven digits."""
    path = tuple(bytes([n]) * 32 for n in range(40))
    note = ("fgtrac/" + "0" * 32 + "\n1099511627776\n" + "A" * 44 + "\n\n" + "x" * 200).encode()
    proof, name = TlogProof(2**40 - 1, path, note), preimage("a data set with a long name", "x" * 100)
    value = b"".join(struct.pack("<BHQQ", 5, 1, 10**10 + n, 10**10 + n) for n in range(2000))
    side = LeafProof(2**40 - 2, 1, bytes(32), bytes(32), path)
    common = ("x" * 400, bytes(32), name, bytes(32))
    present = Bundle("history", *common, value, (2**40 - 1, path), None, bytes(500), proof)
    absent = Bundle("never registered", *common, None, None, Absence(side, side), bytes(500), proof)
    assert len(format_bundle(present)) <= 12_000 + 40 * 2000
    assert len(format_bundle(absent)) <= 12_000


def test_limits_are_checked_before_anything_is_decoded() -> None:
    with pytest.raises(FormatError, match="at most"):
        parse_bundle(b" " * (MAX_BYTES + 1))
    with pytest.raises(FormatError, match=f"at most {MAX_DEPTH}"):
        parse_bundle(b"[" * 100_000)
    with pytest.raises(FormatError, match="values"):
        parse_bundle(b"[" + b"0," * 5_000_001 + b"0]")


@pytest.mark.parametrize(
    "data", [b'"' + b'\\"' * 500_000, b'"a\\' * 300_000, b'"' * 999_999, b'["' + b"\\" * 1_000_000]
)
def test_a_megabyte_of_quotes_and_backslashes_is_refused_in_one_pass(data: bytes) -> None:
    """A scan that began anew at each quote would take an hour."""
    with pytest.raises(FormatError, match="no strict JSON"):
        parse_bundle(data)


def test_a_string_hides_its_brackets_and_nothing_after_it() -> None:
    assert decode_json(b'["[[[[[[[[\\\\", "\\"[[[[[[[["]') == ["[[[[[[[[\\", '"[[[[[[[[']
    with pytest.raises(FormatError, match="nested"):
        decode_json(b'["\\\\",' + b"[" * 9)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"a":1,"a":1}', "key stands twice"),
        (b'{"a":1.0}', "no whole number"),
        (b'{"a":1e3}', "no whole number"),
        (b'{"a":NaN}', "no whole number"),
        (b'{"a":65536000}', "decimal strings"),
        (b'{"a":-1}', "decimal strings"),
        (b"\xff", "no strict JSON"),
        (b"", "no strict JSON"),
        (b"[]", "a bundle is an object"),
        (b"{}", "lacks"),
    ],
)
def test_anything_but_strict_json_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        parse_bundle(data)


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_are_a_bundle_or_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_bundle(data)


def test_shown_entries_must_be_in_the_log_once(bundles: Any) -> None:
    verifier, made = bundles
    bundle = parse_bundle(made["never registered"])
    first = bundle.entries[0]
    moved = (Shown(first.number + 1, first.entry, first.path), *bundle.entries[1:])
    assert check_bundle(replace(bundle, entries=moved), verifier).verdict is Verdict.REFUTED
    for entries in ((*bundle.entries, first), bundle.entries[::-1], (first, *bundle.entries)):
        with pytest.raises(FormatError, match="ascend by number"):
            parse_bundle(format_bundle(replace(bundle, entries=entries)))


def test_a_seal_in_a_bundle_is_readable_with_json_and_base64_alone(bundles: Any) -> None:
    _verifier, made = bundles
    said = json.loads(made["used"])
    assert said["seal"]["proof"].startswith("c2sp.org/tlog-proof@v1\nindex ")
    assert b"dseal" in base64.b64decode(said["seal"]["entry"])
    assert said["rows"][0] == [1, 0, "2", "none"]
