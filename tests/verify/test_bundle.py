"""A bundle proves what it says and nothing else: round trips, lies in every field, flipped bits, odd input."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import struct
from array import array
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
from fgtrac.events.identity import keyed_id, open_key, preimage, public_id
from fgtrac.events.schema import ATTRIBUTION, STATUS
from fgtrac.query.prove import Proof, prove
from fgtrac.tlog.index import Absence, LeafProof
from fgtrac.tlog.note import Verifier
from fgtrac.tlog.proof import TlogProof
from fgtrac.verify.bundle import MAX_BYTES, MAX_DEPTH, Bundle, Shown, decode_json, format_bundle, parse_bundle
from fgtrac.verify.claims import check_bundle, head_of, name_words, sentence
from fgtrac.verify.report import Report, Verdict
from lives import SECRET, live, live_with_contents
from traces import Made, make_trace, start_trace

WRONG_KEY = bytes(range(32))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Verifier, dict[str, bytes]]:
    """One true bundle for each claim, and the key that the log is signed with."""
    life = live(tmp_path_factory.mktemp("life"))
    photos = live_with_contents(tmp_path_factory.mktemp("photos"))
    seal, of_contents = fgtrac.open(life.path)._seal, fgtrac.open(photos.trace.path)
    made = {
        "used": prove(seal, row(0), "used"),
        "history": prove(seal, row(1), "history"),
        "never used": prove(seal, row(4), "never used"),
        "never registered": prove(seal, row(99), "never registered"),
    }
    for claim, source in (("content present", b"1"), ("content absent", b"3")):
        file = tmp_path_factory.mktemp("files") / "photo"
        file.write_bytes(source)
        made[claim] = of_contents.prove(f"file:{file}", claim)
    return life.made.verifier, made


def row(number: int, dataset: str = "digits") -> Proof:
    named = preimage(dataset, number)
    return Proof(public_id(named), named)


def examine(data: bytes, verifier: Verifier | None, secret: bytes | None = None) -> Report:
    return check_bundle(parse_bundle(data), verifier, secret)


def holds(data: bytes, verifier: Verifier) -> bool:
    """Whether a stranger who is handed these bytes would believe them."""
    try:
        return examine(data, verifier).verdict is Verdict.HOLDS
    except FormatError:
        return False


CLAIMS = ["used", "history", "never used", "never registered", "content present", "content absent"]


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_true_bundle_holds_as_committed_and_survives_a_round_trip(bundles: Any, claim: str) -> None:
    verifier, made = bundles
    report = examine(made[claim], verifier)
    assert report.verdict is Verdict.HOLDS, report.failures()
    assert "holds as committed at size" in report.findings[-1].words
    assert format_bundle(parse_bundle(made[claim])) == made[claim]
    assert parse_bundle(made[claim]).claim == claim


def test_the_sentences_say_what_happened(bundles: Any) -> None:
    _verifier, made = bundles
    said = {claim: parse_bundle(data).words.partition(", as committed")[0] for claim, data in made.items()}
    who = "sample with key {} of data set 'digits'"
    assert said["used"] == f"The {who.format(0)} was used 2 times in optimizer updates, first in step 1, last in step 2"
    assert said["never used"] == (
        f"The {who.format(4)} is registered and was never used in an optimizer update "
        "(delivered once without being applied, as far as the recorder could tell)"
    )
    assert said["never registered"] == f"The {who.format(99)} was never registered"
    assert said["content present"].endswith("is held by 2 registered samples")
    assert said["content absent"].endswith("is held by no registered sample (sources digested: photos by file)")


def test_the_sentences_count_the_uses_that_rest_on_an_assumed_order(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    for step, attribution in enumerate(("exact", "fifo", "sole", "fifo"), 1):
        batch = (0, step - 1, step, STATUS["applied"], ATTRIBUTION[attribution])
        writing.recorder.use(writing.placement, 1, 1, batch, array("I", [0, step]))
        writing.recorder.flush()
    writing.end()
    made.seal()
    trace = fgtrac.open(made.trace.path)
    said = {}
    for name, claim in (("digits:0", "used"), ("digits:0", "history"), ("digits:1", "used"), ("digits:2", "used")):
        data = trace.prove(name, claim)
        assert examine(data, made.verifier).verdict is Verdict.HOLDS
        said[name, claim] = parse_bundle(data).words
    assert "used 4 times in optimizer updates (in 2 of them by assumed order), first" in said["digits:0", "used"]
    assert "4 x used (2 of the uses by assumed order), as committed" in said["digits:0", "history"]
    assert "assumed" not in said["digits:1", "used"]
    assert "used once in optimizer updates (in 1 of them by assumed order), in step 2" in said["digits:2", "used"]


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


@pytest.mark.parametrize("claim", CLAIMS)
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
    for data in made.values():
        for claim in CLAIMS:
            bundle = parse_bundle(data)
            if claim != bundle.claim:
                lie = check_bundle(replace(bundle, claim=claim), verifier)
                assert lie.verdict is Verdict.REFUTED


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


# -- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("digits", "x" * 300 + "a"), ("digits", "x" * 300 + "b")),
        (("d" * 300 + "a", 1), ("d" * 300 + "b", 1)),
        (("digits", "x" * 198), ("digits", "x" * 198 + "...")),
        (("digits", "1"), ("digits", 1)),
        (("digits", b"1"), ("digits", "b'1'")),
    ],
)
def test_two_names_are_never_told_in_the_same_words(bundles: Any, one: Any, other: Any) -> None:
    bundle = parse_bundle(bundles[1]["used"])
    said = [name_words(replace(bundle, preimage=preimage(*name))) for name in (one, other)]
    assert said[0] != said[1]
    for words, name in zip(said, (one, other), strict=True):
        whole = repr(name[0]) in words and repr(name[1]) in words
        assert whole or hashlib.sha256(preimage(*name)).hexdigest() in words
        assert len(words) < 1000


def test_presence_under_a_keyed_id_is_opened_for_one_sample(tmp_path: Path) -> None:
    made = live_with_contents(tmp_path, scheme="keyed")
    named = preimage("photos", 2)
    seal = fgtrac.open(made.trace.path)._seal
    opened = prove(seal, Proof(made.ids[2], named, open_key(SECRET, named)))
    assert examine(opened, made.verifier).verdict is Verdict.HOLDS
    assert "key 2 of data set 'photos'" in parse_bundle(opened).words
    assert SECRET.hex() not in opened.decode()
    unopened = prove(seal, Proof(made.ids[2]))
    assert examine(unopened, made.verifier).verdict is Verdict.HOLDS
    assert "photos" not in parse_bundle(unopened).words
    other = replace(parse_bundle(opened), preimage=preimage("photos", 1))
    assert check_bundle(other, made.verifier).verdict is Verdict.REFUTED


def test_absence_under_keyed_ids_takes_the_committed_key(tmp_path: Path) -> None:
    made = live_with_contents(tmp_path, scheme="keyed")
    named = preimage("photos", 99)
    seal = fgtrac.open(made.trace.path)._seal
    absent = prove(seal, Proof(keyed(named), named))
    assert examine(absent, made.verifier).verdict is Verdict.CANNOT_TELL
    assert examine(absent, made.verifier, SECRET).verdict is Verdict.HOLDS
    assert examine(absent, made.verifier, WRONG_KEY).verdict is Verdict.REFUTED
    bare = prove(seal, Proof(keyed(named)))
    assert examine(bare, made.verifier).verdict is Verdict.HOLDS
    assert "the sample with id" in parse_bundle(bare).words.lower()


def keyed(named: bytes) -> bytes:
    return keyed_id(SECRET, named)


def test_a_public_id_proves_no_absence_where_ids_are_keyed(tmp_path: Path) -> None:
    """A registered sample's public id is of course not there: the scheme in the log decides, not the prover."""
    made = live_with_contents(tmp_path, scheme="keyed")
    named = preimage("photos", 2)
    trick = prove(fgtrac.open(made.trace.path)._seal, Proof(public_id(named), named))
    assert parse_bundle(trick).words.startswith("The sample with key 2 of data set 'photos' was never registered")
    assert examine(trick, made.verifier).verdict is Verdict.CANNOT_TELL
    assert examine(trick, made.verifier, SECRET).verdict is Verdict.REFUTED


def test_an_absent_name_needs_all_data_sets_shown(bundles: Any) -> None:
    verifier, made = bundles
    bundle = parse_bundle(made["never registered"])
    assert len(bundle.entries) == 2
    for kept in (bundle.entries[:1], bundle.entries[1:], ()):
        assert check_bundle(replace(bundle, entries=kept), verifier).verdict is Verdict.REFUTED
    unknown = replace(bundle, preimage=preimage("nosuch", 99), id=public_id(preimage("nosuch", 99)))
    assert check_bundle(unknown, verifier).verdict is not Verdict.HOLDS


def test_absent_content_cannot_be_told_where_some_source_is_unknown(tmp_path: Path) -> None:
    made = live_with_contents(tmp_path, known=False)
    (tmp_path / "photo").write_bytes(b"3")
    absent = fgtrac.open(made.trace.path).prove(f"file:{tmp_path / 'photo'}")
    assert examine(absent, made.verifier).verdict is Verdict.CANNOT_TELL


def test_absent_content_cannot_be_told_without_the_data_sets(tmp_path: Path, bundles: Any) -> None:
    """Also where the bundle names the digest alone."""
    verifier, made = bundles
    true = parse_bundle(made["content absent"])
    for preimage_of in (true.preimage, None):
        forged = replace(true, preimage=preimage_of, entries=())
        forged = replace(forged, words=sentence(forged, head_of(forged), []))
        assert check_bundle(forged, verifier).verdict is not Verdict.HOLDS
        assert [f.verdict for f in check_bundle(forged, verifier).findings if f.check == "sources"] == [
            Verdict.CANNOT_TELL
        ]
    known, unknown = live_with_contents(tmp_path / "a"), live_with_contents(tmp_path / "b", known=False)
    for life, verdict in ((known, Verdict.HOLDS), (unknown, Verdict.CANNOT_TELL)):
        bare = prove(fgtrac.open(life.trace.path)._seal, Proof(bytes(32), is_content=True))
        assert examine(bare, life.verifier).verdict is verdict


def test_non_use_is_not_shown_by_a_sample_that_was_made_into_others(tmp_path: Path) -> None:
    life = live(tmp_path)
    trace = fgtrac.open(life.path)
    with pytest.raises(ValueError, match="is not true"):
        trace.prove("digits:0", "never used")
    bundle = parse_bundle(trace.prove("digits:0", "history"))
    assert check_bundle(replace(bundle, claim="never used"), life.made.verifier).verdict is Verdict.REFUTED


@pytest.mark.parametrize(
    ("name", "claim", "words"),
    [
        ("digits:0", "never used", "prove 'used'"),
        ("digits:4", "used", "prove 'never used'"),
        ("digits:99", "used", "not there"),
        ("digits:4", "never registered", "it is there"),
        ("digits:4", "content present", "no claim about a sample"),
        ("digits:4", "nonsense", "no claim about a sample"),
    ],
)
def test_an_untrue_claim_is_not_proved(tmp_path: Path, name: str, claim: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fgtrac.open(live(tmp_path).path).prove(name, claim)


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


# -- a whole run ----------------------------------------------------------------------------------------------------


def proved(made: Made, unused: int = 9) -> dict[str, tuple[str, Verdict]]:
    """Of each claim about a sample what the bundle says of the record, and its verdict."""
    trace, out = fgtrac.open(made.trace.path), {}
    asked = {"used": row(0), "history": row(0), "never used": row(unused), "never registered": row(99)}
    for claim, proof in asked.items():
        data = prove(trace._seal, proof, claim)
        end = parse_bundle(data).words.partition(f" at size {trace._seal.head.size}")[2]
        report = examine(data, made.verifier)
        if claim == "used":
            assert "complete" not in [f.check for f in report.findings]
        else:
            assert [f.verdict for f in report.findings if f.check in ("complete", "claim")] == [report.verdict] * 2
        out[claim] = (end, report.verdict)
    return out


def test_of_a_run_that_has_not_ended_only_what_was_used_can_be_told(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    writing.use([0, 1])
    writing.recorder.rotate()
    made.seal()
    said = proved(made)
    assert said.pop("used") == (".", Verdict.HOLDS)
    assert set(said.values()) == {(" of a run that has not ended.", Verdict.CANNOT_TELL)}
    writing.end()
    made.seal()
    assert set(proved(made).values()) == {(".", Verdict.HOLDS)}


@pytest.mark.parametrize(("gaps", "words"), [(1, "1 gap"), (2, "2 gaps")])
@pytest.mark.parametrize("ended", [True, False])
def test_of_a_record_with_gaps_only_what_was_used_can_be_told(
    tmp_path: Path, gaps: int, words: str, ended: bool
) -> None:
    made, writing = start_trace(tmp_path)
    writing.use([0, 1])
    for _ in range(gaps):
        writing.recorder.record("gap", {"reason": "a worker died"})
    if ended:
        writing.end()
    else:
        writing.recorder.rotate()
    made.seal()
    said = proved(made)
    record = f" of a run{'' if ended else ' that has not ended,'} with {words} in its record."
    assert said.pop("used") == (".", Verdict.HOLDS)
    assert set(said.values()) == {(record, Verdict.CANNOT_TELL)}


def test_no_absent_content_is_shown_by_a_run_that_has_not_ended(tmp_path: Path) -> None:
    made = live_with_contents(tmp_path, ended=False)
    data = prove(fgtrac.open(made.trace.path)._seal, Proof(bytes(32), is_content=True))
    assert parse_bundle(data).words.endswith(" of a run that has not ended.")
    report = examine(data, made.verifier)
    assert report.verdict is Verdict.CANNOT_TELL
    assert [f.check for f in report.failures()] == ["complete", "claim"]


def test_leaving_out_that_a_run_has_not_ended_is_a_lie(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    writing.recorder.rotate()
    made.seal()
    bundle = parse_bundle(fgtrac.open(made.trace.path).prove("digits:9"))
    told = replace(bundle, words=bundle.words.replace(" of a run that has not ended", ""))
    assert told != bundle
    assert check_bundle(told, made.verifier).verdict is Verdict.REFUTED


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
        claim = data.draw(st.sampled_from(CLAIMS))
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


def test_shown_entries_must_be_in_the_log_once(bundles: Any) -> None:
    verifier, made = bundles
    bundle = parse_bundle(made["never registered"])
    first = bundle.entries[0]
    for entries in ((*bundle.entries, first), (Shown(first.number + 1, first.entry, first.path), *bundle.entries[1:])):
        assert check_bundle(replace(bundle, entries=entries), verifier).verdict is Verdict.REFUTED


def test_a_seal_in_a_bundle_is_readable_with_json_and_base64_alone(bundles: Any) -> None:
    _verifier, made = bundles
    said = json.loads(made["used"])
    assert said["seal"]["proof"].startswith("c2sp.org/tlog-proof@v1\nindex ")
    assert b"dseal" in base64.b64decode(said["seal"]["entry"])
    assert said["rows"][0] == [1, 0, "2", "none"]
