"""Bundles that say of a node of a graph that no update used its label, however often it was a neighbour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import fgtrac
from fgtrac.events.schema import decode_event
from fgtrac.verify.bundle import Bundle, parse_bundle
from fgtrac.verify.claims import check_bundle
from fgtrac.verify.report import Verdict
from lives import Life, live_on_a_graph
from proofs import examine, prove, refuting, reworded, row

CLAIM = "label never used"
NO_LABEL = (
    "is registered, and no optimizer update ever used its label: neither it nor a sample made from it was ever a seed"
)


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    return live_on_a_graph(tmp_path_factory.mktemp("graph"))


def bundle_of(life: Life, number: int, claim: str | None = CLAIM, *, entries: bool = False) -> Bundle:
    bundle = parse_bundle(prove(fgtrac.open(life.path)._seal, row(number), claim, entries=entries))
    assert check_bundle(bundle, life.made.verifier).verdict is Verdict.HOLDS
    return bundle


def test_a_neighbour_is_used_and_its_label_is_not(life: Life) -> None:
    assert bundle_of(life, 4, None).claim == "used"
    words = bundle_of(life, 4).words
    assert words.startswith(f'The sample with key 4 of data set "digits" {NO_LABEL}, as committed by')
    assert "Uses as a neighbour, with its features alone: 3, at hops from 1 to 2." in words
    assert "The run was resumed from an earlier step, which undid 1 of all uses." in words


def test_of_a_node_that_was_no_neighbour_either_it_says_so(life: Life) -> None:
    bundle = parse_bundle(fgtrac.open(life.path).prove(f"id:{life.crops[2].hex()}", CLAIM))
    assert (
        examine(fgtrac.open(life.path).prove(f"id:{life.crops[2].hex()}"), life.made.verifier).verdict is Verdict.HOLDS
    )
    assert (
        "Uses as a neighbour, with its features alone: 0. What a model reads beside its batches is not recorded. It"
        in bundle.words
    )


def test_with_its_entries_it_tells_the_whole_graph_and_what_no_message_reaches(life: Life) -> None:
    said = {number: bundle_of(life, number, entries=True).words for number in (4, 6, 7)}
    assert (
        "neighbour, with its features alone: 3, at hops from 1 to 2. In updates on the whole graph: 2, 0 of" in said[4]
    )
    assert "with its features alone: 4, at hops from 1 to 1. In updates on the whole graph: 2, 0 of them out" in said[6]
    far = "alone: 2, at hops from 3 to 3. In updates on the whole graph: 2, 2 of them out of the seeds' reach."
    assert far in said[7]
    assert "whole graph" not in bundle_of(life, 7).words  # the rows alone do not say it


def test_what_was_delivered_as_a_seed_and_not_applied_is_said(life: Life) -> None:
    delivered = "Deliveries without an update, as far as the recorder could tell: 1."
    assert delivered in bundle_of(life, 7).words
    assert "Deliveries" not in bundle_of(life, 8).words  # a neighbour of what was not applied gave nothing to an update


@pytest.mark.parametrize("number", [0, 3, 5])
def test_it_is_not_proved_of_a_seed_nor_of_what_a_seed_was_made_from(life: Life, number: int) -> None:
    with pytest.raises(ValueError, match=r"'label never used' is not true of .*; prove 'used'"):
        fgtrac.open(life.path).prove(f"digits:{number}", CLAIM)


def test_what_was_made_from_it_may_be_a_neighbour_too(life: Life) -> None:
    bundle = bundle_of(life, 6, entries=True)
    assert "Samples made from it: 1. Uses of those in updates: 1." in bundle.words
    assert [child.id for child in bundle.children] == [life.crops[0]]
    assert refuting(reworded(replace(bundle, children=())), life.made.verifier) == ["children"]


def test_never_used_is_not_said_of_a_neighbour(life: Life) -> None:
    with pytest.raises(ValueError, match="prove 'used' or 'label never used'"):
        fgtrac.open(life.path).prove("digits:4", "never used")
    lie = replace(bundle_of(life, 4), claim="never used")
    assert refuting(lie, life.made.verifier) == ["claim"]


@pytest.mark.parametrize("number", [1, 5])
def test_the_claim_about_a_seed_or_its_maker_is_refuted(life: Life, number: int) -> None:
    """With all that the claim needs: the end is shown too."""
    whole = bundle_of(life, number, "history")
    words = whole.words.partition("as committed by")
    lie = replace(whole, claim=CLAIM, words=f"It {NO_LABEL}, {''.join(words[1:])}")
    assert refuting(lie, life.made.verifier) == ["claim"]


def test_it_needs_the_end_of_the_run(life: Life) -> None:
    bundle = bundle_of(life, 4)
    kinds = [decode_event(e.entry)["kind"] for e in bundle.entries]
    assert sorted(kinds) == ["end", "resume"]
    for kind, entry in zip(kinds, bundle.entries, strict=True):
        less = reworded(replace(bundle, entries=tuple(e for e in bundle.entries if e is not entry)))
        assert refuting(less, life.made.verifier) == ["entries"], kind


def test_the_sentence_counts_every_neighbours_row(life: Life) -> None:
    bundle = bundle_of(life, 4)
    lie = replace(bundle, words=bundle.words.replace("alone: 3", "alone: 2"))
    assert lie != bundle
    assert refuting(lie, life.made.verifier) == ["claim"]


def test_a_file_with_the_claim_is_checked_by_name(life: Life, tmp_path: Path) -> None:
    from fgtrac.api.bundles import verify_bundle

    file = tmp_path / "node.json"
    file.write_bytes(fgtrac.open(life.path).prove("digits:4", CLAIM))
    key = life.made.signer.public_key.hex()
    assert verify_bundle(file, key, about="digits:4").verdict is Verdict.HOLDS
    assert verify_bundle(file, key, about="digits:6").verdict is Verdict.REFUTED
