"""A name in a bundle is opened for one sample, absent only under the committed key, and never told as another's."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fgtrac
from fgtrac.events.identity import keyed_id, open_key, preimage, public_id
from fgtrac.query.prove import Proof
from fgtrac.verify.bundle import parse_bundle
from fgtrac.verify.claims import check_bundle
from fgtrac.verify.report import Verdict
from fgtrac.verify.sentences import as_json, name_words
from lives import SECRET, live, live_with_contents
from proofs import examine, prove, reworded

WRONG_KEY = bytes(range(32))


# -- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("digits", "x" * 300 + "a"), ("digits", "x" * 300 + "b")),
        (("d" * 300 + "a", 1), ("d" * 300 + "b", 1)),
        (("digits", "x" * 198), ("digits", "x" * 198 + "...")),
        (("digits", "1"), ("digits", 1)),
        (("digits", b"1"), ("digits", '{"hex": "31"}')),
        (("digits", ("a", 1)), ("digits", '["a", 1]')),
        (('a" of data set "b', 1), ("a", '1 of data set "b"')),
    ],
)
def test_two_names_are_never_told_in_the_same_words(bundles: Any, one: Any, other: Any) -> None:
    bundle = parse_bundle(bundles[1]["used"])
    said = [name_words(replace(bundle, preimage=preimage(*name))) for name in (one, other)]
    assert said[0] != said[1]
    for words, name in zip(said, (one, other), strict=True):
        whole = as_json(name[0]) in words and as_json(name[1]) in words
        assert whole or hashlib.sha256(preimage(*name)).hexdigest() in words
        assert len(words) < 1000


def test_presence_under_a_keyed_id_is_opened_for_one_sample(tmp_path: Path) -> None:
    made = live_with_contents(tmp_path, scheme="keyed")
    named = preimage("photos", 2)
    seal = fgtrac.open(made.trace.path)._seal
    opened = prove(seal, Proof(made.ids[2], named, open_key(SECRET, named)))
    assert examine(opened, made.verifier).verdict is Verdict.HOLDS
    assert 'key 2 of data set "photos"' in parse_bundle(opened).words
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
    assert parse_bundle(trick).words.startswith('The sample with key 2 of data set "photos" was never registered')
    assert examine(trick, made.verifier).verdict is Verdict.CANNOT_TELL
    assert examine(trick, made.verifier, SECRET).verdict is Verdict.REFUTED


def test_an_absent_name_needs_all_data_sets_shown(bundles: Any) -> None:
    verifier, made = bundles
    bundle = parse_bundle(made["never registered"])
    digits, crops, end = bundle.entries
    for kept in ((digits, end), (crops, end), (end,)):
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
        forged = reworded(replace(true, preimage=preimage_of, entries=()))
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
