"""With the entries that its rows name, a bundle shows them and does not rely on the index; and it says when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fgtrac
from fgtrac.errors import ProofError
from fgtrac.events.postings import KIND, ROW, decode_rows
from fgtrac.events.schema import ATTRIBUTION, NO_STEP, decode_event
from fgtrac.query.prove import Proof
from fgtrac.query.seals import open_full_seal
from fgtrac.tlog.index import Columns, Tree, build
from fgtrac.verify.bundle import Bundle, Shown, parse_bundle
from fgtrac.verify.claims import check_bundle
from fgtrac.verify.report import Verdict
from lives import Life, live
from proofs import examine, opened, prove, refuting, reworded, row
from signed import BLOCK, IDS, VERIFIER, end, run, samples, seal, use
from traces import DATASET, start_trace


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    return live(tmp_path_factory.mktemp("life"))


def bundle_of(life: Life, number: int, claim: str | None = None) -> Bundle:
    return parse_bundle(prove(fgtrac.open(life.path)._seal, row(number), claim, entries=True))


@pytest.mark.parametrize("number", range(12))
@pytest.mark.parametrize("claim", [None, "history"])
def test_the_entries_bear_out_every_kind_of_row(life: Life, number: int, claim: str | None) -> None:
    bundle = bundle_of(life, number, claim)
    report = check_bundle(bundle, life.made.verifier)
    assert report.verdict is Verdict.HOLDS, report.failures()
    assert "evidence" in [f.check for f in report.findings]
    rows = decode_rows(bundle.value or b"")
    assert set(rows["entry"].tolist()) <= {e.number for e in bundle.entries}


def test_all_rows_of_a_life_are_examined(life: Life) -> None:
    """The fixture has every kind of row but three, which the next test makes."""
    kinds = {int(k) for n in range(12) for k in decode_rows(bundle_of(life, n, "history").value or b"")["kind"]}
    assert kinds == set(KIND.values()) - {KIND["derived"], KIND["attention"], KIND["erased"]}


def test_the_rarer_kinds_are_borne_out_too(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    ordinals = writing.placement.ordinals
    reference = writing.recorder.record("checkpoint", {"step": 1, "kept": True, "rule": "kept"})
    weights = {"modalities": ["a"], "weights": np.ones(2, "<f4"), "ordinals": ordinals[[2, 2]]}
    writing.recorder.record("attention", {"checkpoint": list(reference), "step": 1, "block": writing.block, **weights})
    said = {"pseudonym": bytes(32), "block": writing.block, "ordinals": ordinals[[2]], "artifacts": []}
    writing.recorder.record("erasure", said)
    writing.end()
    made.seal()
    data = prove(open_full_seal(made.trace), row(2), "history", entries=True)
    assert examine(data, made.verifier).verdict is Verdict.HOLDS
    assert "1 x registered, 1 x role, 2 x attention, 1 x erased" in parse_bundle(data).words


def test_a_use_is_told_with_its_times_and_epochs(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    for epoch in (0, 3, 4):
        writing.use([1, 2], epoch=epoch)
    writing.use([2], epoch=5)
    writing.end()
    made.seal()
    trace = fgtrac.open(made.trace.path)
    words = {n: parse_bundle(trace.prove(f"{DATASET}:{n}", entries=True)).words for n in (1, 2, 3)}
    second = "1970-01-01T00:00:01Z"
    at = f"By the clock of the recorder, the entries of its uses were written from {second} to {second}."
    assert f" {at} Epochs of its uses: 3, from 0 to 4. It had the role train." in words[1]
    assert f" {at} Epochs of its uses: 4, from 0 to 5. " in words[2]
    assert f" the entries about it were written from {second} to {second}. " in words[3]


# -- lies of whoever makes the bundle --------------------------------------------------------------------------------


def test_without_one_of_the_entries_that_the_rows_name_nothing_is_said_of_them(life: Life) -> None:
    bundle = bundle_of(life, 3)
    named = set(decode_rows(bundle.value or b"")["entry"].tolist())
    assert len(named) > 3
    for gone in named:
        lie = replace(bundle, entries=tuple(e for e in bundle.entries if e.number != gone))
        assert refuting(lie, life.made.verifier) == ["claim"]
        assert "By the clock" not in reworded(lie).words


def test_no_other_entry_is_shown(life: Life) -> None:
    bundle, log = bundle_of(life, 3), fgtrac.open(life.path)._seal.log
    shown = {e.number for e in bundle.entries}
    named = {n for child in bundle.children for n in child.rows["entry"].tolist()}
    for number in range(log.head.size - 1):
        event = decode_event(log.entry(number))
        if number not in shown | named and (event["kind"], event.get("part")) != ("samples", 0):
            more = (*bundle.entries, Shown(number, log.entry(number), log.path(number)))
            lie = replace(bundle, entries=tuple(sorted(more, key=lambda e: e.number)))
            assert "entries" in refuting(lie, life.made.verifier), number


def test_the_size_of_parts_is_shown_where_the_sample_is_in_the_last(life: Life) -> None:
    seal = fgtrac.open(life.path)._seal
    last = max(life.made.ids)
    bundle = parse_bundle(prove(seal, Proof(last), "history", entries=True))
    parts = {e.number: decode_event(e.entry)["part"] for e in bundle.entries if b"gsamples" in e.entry}
    assert sorted(parts.values()) == [0, 2]
    assert check_bundle(bundle, life.made.verifier).verdict is Verdict.HOLDS
    first = next(number for number, part in parts.items() if part == 0)
    without = tuple(e for e in bundle.entries if e.number != first)
    assert refuting(replace(bundle, entries=without), life.made.verifier) == ["evidence"]
    between = Shown(first + 1, seal.log.entry(first + 1), seal.log.path(first + 1))
    wrong = tuple(sorted((*without, between), key=lambda e: e.number))
    assert refuting(replace(bundle, entries=wrong), life.made.verifier) == ["entries"]


def test_an_entry_cannot_stand_under_another_number(life: Life) -> None:
    bundle = bundle_of(life, 3)
    one, two = bundle.entries[-2:]
    swapped = (*bundle.entries[:-2], replace(two, number=one.number), replace(one, number=two.number))
    assert refuting(replace(bundle, entries=swapped), life.made.verifier) == ["entries"]


# -- lies of whoever signs the index ---------------------------------------------------------------------------------


def changed(sample: bytes, change: Callable[[list[Any]], list[Any]]) -> Callable[[Tree], Tree]:
    """An index in which the rows of one sample are others."""

    def apply(tree: Tree) -> Tree:
        keys, values = tree.columns.keys, []
        for place in range(len(tree)):
            start, stop = (int(n) for n in tree.columns.offsets[place : place + 2])
            value = tree.columns.values[start:stop].tobytes()
            if keys[place].tobytes()[1:] == sample:
                rows = sorted(change(decode_rows(value).tolist()), key=lambda r: (r[2], r[0], r[1], r[3]))
                value = np.array(rows, dtype=ROW).tobytes()
            values.append(value)
        offsets = np.cumsum([0] + [len(v) for v in values]).astype(np.uint64)
        return build(Columns(keys, offsets, np.frombuffer(b"".join(values), np.uint8)))

    return apply


LIES: dict[str, Callable[[list[Any]], list[Any]]] = {
    "another step": lambda rows: [(k, d, e, 7 if k == 5 else s) for k, d, e, s in rows],
    "more sure than it is": lambda rows: [(k, ATTRIBUTION["sole"] if k == 5 else d, e, s) for k, d, e, s in rows],
    "one use of two in an entry": lambda rows: rows[:-1],
    "a use too many": lambda rows: [*rows, rows[-1]],
    "a use by an entry that does not name it": lambda rows: [*rows, (5, 1, 3, 2)],
    "a role that it was not given": lambda rows: [*rows, (2, 1, 2, NO_STEP)],
    "registered by an entry that is none": lambda rows: [*rows, (1, 0, 2, NO_STEP)],
}


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_says_more_than_the_entries_is_refuted(tmp_path: Path, lie: str) -> None:
    twice = use(1, 0, 0, 1)
    log = (run(), samples(), twice, use(2, 3), end())
    index = changed(IDS[0], LIES[lie])
    seal_of = opened(tmp_path, *log, seal(), index=index)
    proof = Proof(IDS[0])
    plain = parse_bundle(prove(seal_of, proof, "used"))
    assert check_bundle(plain, VERIFIER).verdict is Verdict.HOLDS, "without entries it holds as committed"
    try:
        bundle = parse_bundle(prove(seal_of, proof, "used", entries=True))
    except ProofError:
        return  # the prover will not even say it
    report = check_bundle(reworded(bundle), VERIFIER)
    assert [f.check for f in report.findings if f.verdict is Verdict.REFUTED] == ["evidence"]


def test_what_an_index_leaves_out_altogether_only_a_rebuild_shows(tmp_path: Path) -> None:
    """Said so in the specification: the entries shown are those that the rows name."""
    log = (run(), samples(), use(1, 0, 1), use(2, 0), end())
    seal_of = opened(tmp_path, *log, seal(), index=changed(IDS[0], lambda rows: rows[:-1]))
    bundle = parse_bundle(prove(seal_of, Proof(IDS[0]), "used", entries=True))
    assert "used once" in bundle.words
    assert check_bundle(bundle, VERIFIER).verdict is Verdict.HOLDS


def test_two_registrations_of_one_block_that_disagree_are_refuted(tmp_path: Path) -> None:
    """A sample has one ordinal in a block: two `samples` entries cannot give it two."""
    half = {**samples(), "parts": 2, "ids": b"".join(IDS[:3])}
    rest = {**samples(), "parts": 2, "part": 1, "ids": b"".join(IDS[3:])}
    shorter = {**samples(), "parts": 3, "part": 1, "ids": b"".join(IDS[3:5])}
    front = {**samples(), "parts": 3, "part": 0, "ids": b"".join(IDS[:1])}
    seal_of = opened(tmp_path, run(), front, shorter, half, rest, use(1, 3), end(), seal())
    with pytest.raises(ProofError, match="two places"):
        prove(seal_of, Proof(IDS[3]), "used", entries=True)
    assert examine(prove(seal_of, Proof(IDS[3]), "history", entries=True), VERIFIER).verdict is Verdict.REFUTED


def test_a_block_is_known_by_its_name(tmp_path: Path) -> None:
    other = {**samples(), "block": bytes(16), "ids": b"".join(IDS[1:3])}
    lying = {**use(1, 1), "block": bytes(16)}
    seal_of = opened(tmp_path, run(), samples(), use(1, 1), end(), seal())
    bundle = parse_bundle(prove(seal_of, Proof(IDS[1]), "used", entries=True))
    assert decode_event(bundle.entries[-1].entry)["block"] == BLOCK
    foreign = opened(tmp_path / "b", run(), samples(), lying, other, end(), seal())
    assert foreign.rows(IDS[1]) is not None
    assert "used" not in parse_bundle(prove(foreign, Proof(IDS[1]), "history", entries=True)).words.split(",")[0]
