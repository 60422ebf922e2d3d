"""No part of a bundle can be changed, exchanged or left out: lies in every field, flipped bits, mutations."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fgtrac
from fgtrac.api.trace import Trace
from fgtrac.errors import FgtracError, FormatError
from fgtrac.tlog.note import Verifier
from fgtrac.verify.bundle import parse_bundle
from fgtrac.verify.claims import check_bundle
from fgtrac.verify.report import Verdict
from fgtrac.verify.strict_json import decode_json
from lives import SECRET, live
from proofs import CLAIMS, WITH_ENTRIES, examine, holds, prove, row
from traces import make_trace

WRONG_KEY = bytes(range(32))


@pytest.mark.parametrize("claim", CLAIMS)
def test_without_a_key_nobody_can_tell_and_with_another_one_it_is_refuted(bundles: Any, claim: str) -> None:
    verifier, made = bundles
    assert examine(made[claim], None).verdict is Verdict.CANNOT_TELL
    other = examine(made[claim], Verifier(verifier.name, WRONG_KEY))
    assert other.verdict is Verdict.REFUTED
    assert [f.check for f in other.findings if f.verdict is Verdict.REFUTED] == ["signature"]


# -- lies -----------------------------------------------------------------------------------------------------------


def lies(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The same JSON value with one thing in it changed, for everything in it."""
    if isinstance(value, dict):
        for name, inside in value.items():
            yield f"{path}/{name} is gone", {k: v for k, v in value.items() if k != name}
            yield from ((where, value | {name: lie}) for where, lie in lies(inside, f"{path}/{name}"))
        yield f"{path} has another field", value | {"more": "1"}
    elif isinstance(value, list):
        for at, inside in enumerate(value):
            yield f"{path}/{at} is gone", value[:at] + value[at + 1 :]
            yield f"{path}/{at} stands twice", value[: at + 1] + value[at:]
            yield from ((where, [*value[:at], lie, *value[at + 1 :]]) for where, lie in lies(inside, f"{path}/{at}"))
    elif isinstance(value, int):
        yield from (
            (f"{path} is {other}", other)
            for other in (value + 1, 0, -1, 1.5, True, str(value), None)
            if other is not value
        )
    else:
        yield from text_lies(value, path)


def text_lies(text: str, path: str) -> Iterator[tuple[str, Any]]:
    if text.isdigit():
        yield from ((f"{path} is {n}", str(n)) for n in (int(text) + 1, int(text) - 1, 2**64 - 1, 2**64))
        yield f"{path} has a zero in front", "0" + text
    others = {"a": "b", "0": "1", "A": "B"}
    for at in {0, len(text) // 2, len(text) - 1}:
        yield f"{path} differs at {at}", text[:at] + others.get(text[at], "a") + text[at + 1 :]
    yield f"{path} is longer", text + text[-1]
    yield f"{path} is upper case", text.swapcase()
    yield f"{path} is empty", ""
    yield f"{path} is a list", [text]


@pytest.mark.parametrize("claim", CLAIMS + WITH_ENTRIES)
def test_no_field_can_be_changed(bundles: Any, claim: str) -> None:
    verifier, made = bundles
    true = json.loads(made[claim])
    tried = 0
    for what, lie in lies(true):
        if lie == true and repr(lie) == repr(true):
            continue
        tried += 1
        assert not holds(json.dumps(lie, ensure_ascii=False).encode(), verifier), what
    assert tried > 100


@pytest.mark.parametrize("claim", CLAIMS)
def test_one_flipped_bit_in_every_byte_is_refused_or_changes_nothing(bundles: Any, claim: str) -> None:
    verifier, made = bundles
    data, chance = made[claim], random.Random(7)
    true, unchanged = parse_bundle(data), 0
    for at in range(len(data)):
        flipped = data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
        if holds(flipped, verifier):
            assert parse_bundle(flipped) == true, at
            unchanged += 1
    assert unchanged < 40  # white space between fields


def test_a_bundle_cut_anywhere_is_no_bundle(bundles: Any) -> None:
    _verifier, made = bundles
    data = made["used"].rstrip()
    for size in range(len(data)):
        with pytest.raises(FormatError):
            parse_bundle(data[:size])


def test_claims_are_not_exchangeable(bundles: Any) -> None:
    verifier, made = bundles
    for name in CLAIMS:
        for claim in CLAIMS:
            bundle = parse_bundle(made[name])
            if claim != bundle.claim and (claim.startswith("content") == bundle.claim.startswith("content")):
                lie = check_bundle(replace(bundle, claim=claim), verifier)
                assert lie.verdict is Verdict.REFUTED, (bundle.claim, claim)


def test_parts_of_two_true_bundles_do_not_make_a_third(bundles: Any) -> None:
    verifier, made = bundles
    first, second = parse_bundle(made["used"]), parse_bundle(made["history"])
    for part in ("id", "preimage", "value", "leaf"):
        assert check_bundle(replace(first, **{part: getattr(second, part)}), verifier).verdict is Verdict.REFUTED
    photos = parse_bundle(made["content present"])
    for part in ("seal", "proof"):
        assert check_bundle(replace(first, **{part: getattr(photos, part)}), verifier).verdict is Verdict.REFUTED


def test_an_entry_that_is_no_seal_cannot_stand_in_for_one(tmp_path: Path) -> None:
    made = make_trace(tmp_path, seals=(5,), plain=(8,), sealed=False)
    trace = fgtrac.open(made.trace.path)
    full, plain = trace._seal, made.trace.head()
    assert plain is not None
    assert plain.size > full.head.size
    bundle = parse_bundle(prove(full, row(0)))
    older = replace(bundle.proof, note=made.trace.read("checkpoint"))
    report = check_bundle(replace(bundle, proof=older), made.verifier)
    assert [f.check for f in report.findings if f.verdict is Verdict.REFUTED] == ["seal"]
    assert "not the last" in str(report.failures())


def test_a_proof_is_made_against_the_full_seal_even_behind_a_later_plain_head(tmp_path: Path) -> None:
    made = make_trace(tmp_path, seals=(5,), plain=(8,), sealed=False)
    trace = fgtrac.open(made.trace.path)
    bundle = parse_bundle(trace.prove("digits:0"))
    assert bundle.proof.note == made.trace.read(f"index/{trace._seal.head.size}/checkpoint")
    assert check_bundle(bundle, made.verifier).verdict is Verdict.HOLDS


def test_a_flipped_bit_in_any_file_gives_a_true_bundle_or_an_error(tmp_path: Path) -> None:
    life = live(tmp_path)
    truth = [fgtrac.open(life.path).prove(name) for name in ("digits:0", "digits:99")]
    refused = 0
    for name in life.made.trace.names():
        if not name.startswith(("tile/", "index/")):
            continue
        data = (life.path / name).read_bytes()
        for at in range(3, len(data), max(1, len(data) // 20)):
            (life.path / name).write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
            try:
                trace: Trace = fgtrac.open(life.path)
                for made, true in zip([trace.prove(n) for n in ("digits:0", "digits:99")], truth, strict=True):
                    assert made == true or examine(made, life.made.verifier).verdict is not Verdict.HOLDS, (name, at)
            except FgtracError:
                refused += 1
        (life.path / name).write_bytes(data)
    assert refused > 60


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 70_000)
    | st.text(max_size=8)
    | st.sampled_from(["0", "none", "00" * 32]),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=6), inside, max_size=4),
    max_leaves=8,
)


def mutate(draw: st.DrawFn, value: Any) -> Any:
    """The same value with something in it exchanged, left out, added or repeated."""
    how = draw(st.sampled_from(["inside"] * 6 + ["other"]))
    if how == "other" or not isinstance(value, dict | list) or not value:
        if isinstance(value, str) and value and draw(st.booleans()):
            at = draw(st.integers(0, len(value) - 1))
            return value[:at] + draw(st.sampled_from("0aA/=\n+—")) + value[at + 1 :]
        return draw(JSON)
    if isinstance(value, list):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], *draw(st.sampled_from([[], [mutate(draw, value[at])], [value[at]] * 2])), *value[at + 1 :]]
    name = draw(st.sampled_from(sorted(value)))
    return {k: v if k != name else mutate(draw, v) for k, v in value.items()}


def test_mutated_bundles_are_refused_behind_the_first_check_and_never_believed(bundles: Any) -> None:
    verifier, made = bundles
    counts = {"inputs": 0, "past the first check": 0, "parsed": 0}

    @settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.data())
    def examine_one(data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(CLAIMS + WITH_ENTRIES))
        mutated = json.loads(made[claim])
        for _ in range(data.draw(st.integers(1, 2))):
            name = data.draw(st.sampled_from(sorted(mutated)))
            mutated[name] = data.draw(st.composite(lambda draw, value=mutated[name]: mutate(draw, value))())
        counts["inputs"] += 1
        raw = json.dumps(mutated, ensure_ascii=False).encode("utf-8", "surrogatepass")
        try:
            counts["past the first check"] += decode_json(raw) is not None
            bundle = parse_bundle(raw)
        except FormatError:
            return
        counts["parsed"] += 1
        report = check_bundle(bundle, verifier, SECRET)
        assert (report.verdict is Verdict.HOLDS) == (bundle == parse_bundle(made[claim]))

    examine_one()
    assert counts["inputs"] >= 600
    assert counts["past the first check"] >= 0.9 * counts["inputs"], counts
    assert counts["parsed"] >= 0.1 * counts["inputs"], counts
