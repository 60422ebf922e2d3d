"""What was made from a sample belongs to its proof: every descendant is carried, none is hidden, their uses count."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fgtrac
from fgtrac.events.identity import block_id, preimage, public_id
from fgtrac.query.prove import Proof
from fgtrac.query.seals import FullSeal, open_full_seal
from fgtrac.tlog.note import Verifier
from fgtrac.verify import bundle as bundles
from fgtrac.verify.bundle import Bundle, format_bundle, parse_bundle
from fgtrac.verify.claims import check_bundle
from fgtrac.verify.report import Verdict
from lives import batch
from proofs import examine, prove, refuting, reworded, row
from traces import Writing, start_trace


@dataclass(frozen=True, slots=True)
class Family:
    """Row 0 was made into two children, the first of those into three grandchildren, of which one was used in step 1;
    row 1 is a parent of the second child too; row 2 has a child that was never used; row 3 has none."""

    seal: FullSeal
    verifier: Verifier
    children: list[bytes]
    grandchildren: list[bytes]

    def proof(self, number: int, claim: str | None = None, **options: Any) -> Bundle:
        return parse_bundle(prove(self.seal, row(number), claim, **options))


@pytest.fixture(scope="module", params=[1, 2], ids=["blocks of one part", "blocks of two parts"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    made, writing = start_trace(tmp_path_factory.mktemp("family"), samples=6, parts=request.param)
    rows = list(made.ids)
    children = register(writing, "pieces", 3, request.param)
    stage(writing, rows, children, [(0, 0), (0, 1), (1, 1), (2, 2)])
    grandchildren = register(writing, "words", 3, request.param)
    stage(writing, children, grandchildren, [(0, 0), (0, 1), (0, 2)])
    use_of(writing, grandchildren, 1, step=1)
    batch(writing, 2, [4], None)
    writing.end()
    made.seal()
    return Family(open_full_seal(made.trace), made.verifier, children, grandchildren)


def register(writing: Writing, name: str, count: int, parts: int) -> list[bytes]:
    """A data set of new samples: their ids by row."""
    ids = [public_id(preimage(name, n)) for n in range(count)]
    writing.recorder.record("dataset", {"name": name, "id_scheme": "public", "rows": count})
    joined, size = sorted(ids), -(-count // parts)
    for part in range(parts):
        fields = {"dataset": name, "block": block_id(b"".join(joined)), "part": part, "parts": parts}
        writing.recorder.record("samples", {**fields, "ids": b"".join(joined[part * size : (part + 1) * size])})
    return ids


def stage(writing: Writing, parents: list[bytes], children: list[bytes], pairs: list[tuple[int, int]]) -> None:
    places = [[sorted(ids).index(ids[pair[n]]) for pair in pairs] for n, ids in enumerate((parents, children))]
    columns = {"parents": np.array(places[0], "<u4"), "children": np.array(places[1], "<u4")}
    blocks = {"block": block_id(b"".join(sorted(parents))), "child_block": block_id(b"".join(sorted(children)))}
    writing.recorder.record("transform", {"stage": "cut", "operation": "record", **blocks, **columns})


def use_of(writing: Writing, ids: list[bytes], number: int, *, step: int) -> None:
    one = np.ones(1, "<u4")
    columns = {"epoch": 0 * one, "batch": 0 * one, "step": np.array([step], "<u8"), "count": one}
    codes = {"status": np.ones(1, "<u1"), "attribution": np.ones(1, "<u1")}
    ordinals = np.array([sorted(ids).index(ids[number])], "<u4")
    block = block_id(b"".join(sorted(ids)))
    writing.recorder.record(
        "use", {"loader": 1, "optimizer": 1, "block": block, "ordinals": ordinals, **columns, **codes}
    )


def test_a_sample_is_used_through_what_was_made_from_it(family: Family) -> None:
    bundle = family.proof(0)
    report = check_bundle(bundle, family.verifier)
    assert report.verdict is Verdict.HOLDS, report.failures()
    who = 'The sample with key 0 of data set "digits"'
    assert bundle.words.startswith(
        f"{who} was used through samples made from it, once in optimizer updates, in step 1, as committed by"
    )
    assert bundle.words.endswith("It had the role train. Samples made from it: 5. Uses of those in updates: 1.")
    assert {c.id for c in bundle.children} == {*family.children[:2], *family.grandchildren}


def test_a_sample_and_what_was_made_from_it_were_never_used(family: Family) -> None:
    for number, who in ((1, family.children[1:2]), (2, family.children[2:])):
        bundle = family.proof(number)
        assert bundle.claim == "never used"
        assert check_bundle(bundle, family.verifier).verdict is Verdict.HOLDS
        assert "is registered, and no optimizer update ever used it or a sample made from it" in bundle.words
        assert [c.id for c in bundle.children] == who
    assert "Samples made from it: 1. Uses of those in updates: 0." in bundle.words


@pytest.mark.parametrize("claim", ["used", "history"])
def test_with_entries_and_descendants_it_holds_as_well(family: Family, claim: str) -> None:
    bundle = family.proof(0, claim, entries=True)
    report = check_bundle(bundle, family.verifier)
    assert report.verdict is Verdict.HOLDS, report.failures()
    assert {"evidence", "children"} <= {f.check for f in report.findings}
    assert format_bundle(parse_bundle(format_bundle(bundle))) == format_bundle(bundle)


def test_a_child_that_has_no_children_is_proved_without_any(family: Family) -> None:
    used = parse_bundle(prove(family.seal, Proof(family.grandchildren[1])))
    assert used.claim == "used"
    assert not used.children
    assert check_bundle(used, family.verifier).verdict is Verdict.HOLDS


@pytest.mark.parametrize("claim", ["used", "history"])
def test_no_descendant_can_be_hidden(family: Family, claim: str) -> None:
    bundle = family.proof(0, claim)
    lies = [replace(bundle, children=tuple(c for c in bundle.children if c is not gone)) for gone in bundle.children]
    lies += [replace(bundle, children=()), replace(bundle, children=(), entries=())]
    lies = lies if claim == "used" else [reworded(lie) for lie in lies]
    assert all(is_caught(lie, family) for lie in lies)
    assert ["children"] in [refuting(lie, family.verifier) for lie in lies]


def is_caught(lie: Bundle, family: Family) -> bool:
    """Whether a lie about what is carried is refuted by the checks that are for it, though the words fit."""
    found = refuting(lie, family.verifier)
    return bool(found) and set(found) <= {"entries", "children"}


def test_hiding_the_used_child_does_not_make_it_unused(family: Family) -> None:
    """Even where the entries that would name it are left out as well, and the words fit."""
    true = family.proof(0, "history")
    rest = tuple(c for c in true.children if c.id not in family.grandchildren)
    for entries in (true.entries, true.entries[:-1], true.entries[1:], ()):
        lie = replace(true, claim="never used", children=rest, entries=entries)
        assert is_caught(reworded(lie), family)


def test_no_stranger_is_carried_as_a_child(family: Family) -> None:
    bundle, other = family.proof(1, "history"), family.proof(2, "history")
    joined = tuple(sorted((*bundle.children, *other.children), key=lambda c: c.id))
    entries = {e.number: e for e in (*bundle.entries, *other.entries)}
    lie = replace(bundle, children=joined, entries=tuple(entries[n] for n in sorted(entries)))
    assert refuting(reworded(lie), family.verifier) == ["children"]
    exchanged = replace(bundle, children=other.children, entries=other.entries)
    assert is_caught(reworded(exchanged), family)


def test_a_child_has_its_own_value_and_place(family: Family) -> None:
    bundle = family.proof(0, "history")
    first, second, *rest = bundle.children
    for lie in (replace(first, value=second.value), replace(first, leaf=second.leaf), replace(first, id=bytes(32))):
        assert is_caught(replace(bundle, children=(lie, second, *rest)), family)
    assert is_caught(replace(bundle, children=(first, replace(second, value=first.value), *rest)), family)


def test_children_are_carried_only_by_claims_about_samples_and_in_order(family: Family) -> None:
    true = family.proof(0, "history")
    for children in (true.children[::-1], (true.children[0], *true.children)):
        with pytest.raises(bundles.FormatError, match="ascend by id"):
            parse_bundle(format_bundle(replace(true, children=children)))
    absent = family.proof(99)
    with pytest.raises(bundles.FormatError, match="has no children"):
        parse_bundle(format_bundle(replace(absent, children=true.children)))


def test_more_descendants_than_a_bundle_carries_are_refused(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgtrac.query.prove.MAX_CHILDREN", 4)
    with pytest.raises(ValueError, match="more than 4 samples were made from"):
        family.proof(0)


def test_a_delivery_of_a_child_is_told_with_its_parent(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path, samples=4)
    children = register(writing, "pieces", 1, 1)
    stage(writing, list(made.ids), children, [(0, 0)])
    ordinals = np.zeros(1, "<u4")
    codes = {"status": np.array([3], "<u1"), "attribution": np.ones(1, "<u1"), "step": np.array([2**64 - 1], "<u8")}
    columns = {"epoch": ordinals, "batch": ordinals, "count": np.ones(1, "<u4"), "ordinals": ordinals}
    fields = {"loader": 1, "optimizer": 1, "block": block_id(children[0])}
    writing.recorder.record("use", {**fields, **codes, **columns})
    writing.end()
    made.seal()
    data = fgtrac.open(made.trace.path).prove("digits:0")
    assert examine(data, made.verifier).verdict is Verdict.HOLDS
    assert "Deliveries without an update, as far as the recorder could tell: 1." in parse_bundle(data).words
