"""What a bundle rests on is checked, or said: names, absent ids, blocks, the end of a run, characters and limits."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgtrac.api.audit import audit_trace
from fgtrac.errors import FormatError
from fgtrac.events.codec import encode
from fgtrac.events.identity import (
    block_id,
    content_preimage,
    key_commitment,
    keyed_id,
    preimage,
    public_id,
    subject_commitment,
)
from fgtrac.events.postings import ROW
from fgtrac.events.schema import ATTRIBUTION, NO_STEP
from fgtrac.query.prove import Proof
from fgtrac.query.seals import FullSeal
from fgtrac.tlog.index import Columns, Tree, build
from fgtrac.verify.bundle import parse_bundle
from fgtrac.verify.claims import About, check_bundle
from fgtrac.verify.report import Finding, Report, Verdict
from fgtrac.verify.sentences import as_json, preimage_words
from proofs import examine, opened, prove, refuting, reworded
from signed import OTHER, VERIFIER, WRITER, Event, MemoryTrace, by, end, run, seal, use, write

SECRET = b"k" * 32
NAMES = [preimage("d", n) for n in range(3)]


def of(report: Report, check: str) -> Finding:
    return next(f for f in report.findings if f.check == check)


def dataset(**changes: Any) -> Event:
    return {"kind": "dataset", "name": "d", "id_scheme": "public", "content": "file", **changes}


def registered(ids: list[bytes], **changes: Any) -> Event:
    """One `samples` entry of these ids, each with a content of its own."""
    joined = b"".join(sorted(ids))
    contents = b"".join(public_id(content_preimage(bytes([n]) * 32)) for n in range(len(ids)))
    fields = {"dataset": "d", "block": block_id(joined), "part": 0, "parts": 1, "ids": joined, "contents": contents}
    return {"kind": "samples", **fields, **changes}


PUBLIC = sorted(map(public_id, NAMES))
D = registered(PUBLIC)


def batch(step: int, *ordinals: int, **changes: Any) -> Event:
    return use(step, *ordinals) | {"block": D["block"], **changes}


# -- whom an absence is about ---------------------------------------------------------------------------------------


def keyed_seal(folder: Path) -> FullSeal:
    """All of NAMES are registered and used, under SECRET."""
    registers = registered(
        [keyed_id(SECRET, n) for n in NAMES], contents=keyed_id(SECRET, content_preimage(b"c" * 32)) * 3
    )
    used = use(1, 0, 1, 2) | {"block": registers["block"]}
    committed = run(id_scheme="keyed", key_commitment=key_commitment(SECRET))
    return opened(folder, committed, dataset(id_scheme="keyed"), registers, used, end((WRITER, 3)), seal())


@pytest.mark.parametrize("wrong", [None, b"w" * 32], ids=["public id", "under a wrong key"])
def test_that_an_id_is_absent_is_not_told_of_a_name_that_is_there_under_another_id(
    tmp_path: Path, wrong: bytes | None
) -> None:
    trace = keyed_seal(tmp_path)
    id = public_id(NAMES[0]) if wrong is None else keyed_id(wrong, NAMES[0])
    bare = prove(trace, Proof(id))
    for secret in (wrong, SECRET, None):
        asked = of(examine(bare, VERIFIER, secret, About("d:0", preimage=NAMES[0])), "about")
        assert (asked.verdict, "proof that was made by name" in asked.words) == (Verdict.CANNOT_TELL, True)
    assert of(examine(bare, VERIFIER, None, About("the id", id=id)), "about").verdict is Verdict.HOLDS
    bare = prove(trace, Proof(public_id(content_preimage(b"c" * 32)), is_content=True))
    about = About("file:c", preimage=content_preimage(b"c" * 32), source="file")
    assert of(examine(bare, VERIFIER, None, about), "about").verdict is Verdict.CANNOT_TELL


def test_that_an_id_is_there_is_told_of_its_name(tmp_path: Path) -> None:
    bare = prove(keyed_seal(tmp_path), Proof(keyed_id(SECRET, NAMES[0])))
    about = About("d:0", preimage=NAMES[0])
    assert of(examine(bare, VERIFIER, SECRET, about), "about").verdict is Verdict.HOLDS
    assert of(examine(bare, VERIFIER, None, about), "about").verdict is Verdict.CANNOT_TELL


# -- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [[{"hex": "00ff"}], {"hex": "00ff"}, [["a", {"hex": ""}]], True, -1, 1.5, [[False]]])
def test_a_preimage_whose_key_is_none_names_nobody(tmp_path: Path, key: Any) -> None:
    named = encode(["fgtrac id v1", "d", key])
    with pytest.raises(FormatError, match="is no preimage of a sample id"):
        preimage_words(named, False)
    trace = opened(tmp_path, run(), dataset(), D, end((WRITER, 2)), seal())
    true = parse_bundle(prove(trace, Proof(public_id(named))))
    shown = parse_bundle(prove(trace, Proof(public_id(preimage("d", 9)), preimage("d", 9)))).entries
    lie = replace(true, preimage=named, entries=shown, words='The sample with key [{"hex": "00ff"}] of data set "d"')
    assert set(refuting(lie, VERIFIER)) >= {"identity", "claim"}


def test_characters_that_nobody_sees_are_escaped() -> None:
    name = "a\x7f\x80\x9f\u200b\u200f\u2028\u202e\u2066\u2069\ufeff\xa0\u2010\u2030\u2065\x1b\u00e9"
    escaped = (
        r'"a\u007f\u0080\u009f\u200b\u200f\u2028\u202e\u2066\u2069\ufeff' + "\xa0\u2010\u2030\u2065" + r"\u001bé" + '"'
    )
    assert as_json(name) == escaped
    assert json.loads(as_json((name, {}))) == [name, {}]
    words = preimage_words(preimage("\u202ed", (name, b"\x9f")), False)
    assert words == f'the sample with key [{escaped}, {{"hex": "9f"}}] of data set "\\u202ed"'


# -- blocks and data sets -------------------------------------------------------------------------------------------


def with_sample(id: bytes, *rows: tuple[int, int, int, int]) -> Any:
    """A change of the index: this sample has these rows."""

    def changed(tree: Tree) -> Tree:
        values = {k.tobytes(): v for k, v in zip(tree.columns.keys, split_at(tree), strict=True)}
        values[b"\1" + id] = np.array(list(rows), dtype=ROW).tobytes()
        keys = sorted(values)
        offsets = np.cumsum([0] + [len(values[k]) for k in keys]).astype(np.uint64)
        joined = (np.frombuffer(b"".join(some), np.uint8) for some in (keys, (values[k] for k in keys)))
        return build(Columns(next(joined).reshape(-1, 33), offsets, next(joined)))

    return changed


def split_at(tree: Tree) -> list[bytes]:
    offsets = tree.columns.offsets.tolist()
    return [tree.columns.values[a:b].tobytes() for a, b in pairwise(offsets)]


def test_a_block_of_one_part_holds_the_ids_that_its_name_says(tmp_path: Path) -> None:
    """Registered by the signer under the name of a block in which it is not, a stranger would get another's uses."""
    stranger = preimage("d", 77)
    again = registered([public_id(stranger)], block=D["block"])
    rows = (1, 0, 3, NO_STEP), (5, ATTRIBUTION["exact"], 4, 1)
    events = run(), dataset(), D, again, batch(1, 0), end((WRITER, 4)), seal()
    trace = opened(tmp_path, *events, index=with_sample(public_id(stranger), *rows))
    lie = parse_bundle(prove(trace, Proof(public_id(stranger), stranger), "history", entries=True))
    assert refuting(lie, VERIFIER) == ["evidence"]
    assert "its name is not the hash" in of(check_bundle(lie, VERIFIER), "evidence").words


def test_evidence_says_what_it_rests_on(tmp_path: Path) -> None:
    trace = opened(tmp_path / "one", run(), dataset(), D, batch(1, 0), end((WRITER, 3)), seal())
    words = of(examine(prove(trace, Proof(PUBLIC[0]), entries=True), VERIFIER), "evidence").words
    assert words.endswith("and no others; that no row is missing rests on the index")
    first = D | {"parts": 2, "ids": b"".join(PUBLIC[:2]), "contents": D["contents"][:64]}
    second = first | {"part": 1, "ids": PUBLIC[2], "contents": D["contents"][64:]}
    trace = opened(tmp_path / "two", run(), dataset(), first, second, batch(1, 0), end((WRITER, 4)), seal())
    words = of(examine(prove(trace, Proof(PUBLIC[0]), entries=True), VERIFIER), "evidence").words
    assert words.endswith("; that its ordinals are right, on the parts shown being those of one block")


def test_a_sample_is_registered_in_the_data_set_of_its_name(tmp_path: Path) -> None:
    events = run(), dataset(name="licensed"), D | {"dataset": "licensed"}, batch(1, 0), end((WRITER, 3)), seal()
    trace = opened(tmp_path, *events)
    named = next(n for n in NAMES if public_id(n) == PUBLIC[0])
    lie = parse_bundle(prove(trace, Proof(PUBLIC[0], named), entries=True))
    assert refuting(lie, VERIFIER) == ["evidence"]
    assert "registers it in data set 'licensed', not 'd'" in of(check_bundle(lie, VERIFIER), "evidence").words
    assert check_bundle(reworded(replace(lie, preimage=None)), VERIFIER).verdict is Verdict.HOLDS


def test_subjects_in_a_data_set_of_another_scheme_are_refuted_by_whoever_has_the_log() -> None:
    mine = registered([keyed_id(SECRET, n) for n in NAMES], subjects=subject_commitment(SECRET) * 3)
    for scheme, verdict in (("public", Verdict.REFUTED), ("keyed", Verdict.REFUTED), ("subject", Verdict.HOLDS)):
        files = write(run(), dataset(id_scheme=scheme), mine, end((WRITER, 2)), seal())
        found = of(audit_trace(MemoryTrace(files), VERIFIER), "registered")
        assert found.verdict is verdict
        assert verdict is Verdict.HOLDS or f"names subjects, and the ids of 'd' are {scheme}" in found.words


# -- the end of a run -----------------------------------------------------------------------------------------------


def resume(seq: int, step: int, *writers: tuple[bytes, int]) -> Event:
    return by(OTHER, seq, {"kind": "resume", "writers": [list(w) for w in writers], "step": step})


def test_a_run_that_was_resumed_after_its_end_has_not_ended(tmp_path: Path) -> None:
    unused = Proof(PUBLIC[2])
    ended = run(), dataset(), D, batch(1, 0), end((WRITER, 3))
    more = resume(0, 1, (WRITER, 4)), by(OTHER, 1, batch(2, 1))
    again = by(OTHER, 2, end((WRITER, 4), (OTHER, 1)))
    going_on = opened(tmp_path / "going on", *ended, *more, seal())
    for claim, asked in (
        ("never used", unused),
        ("label never used", unused),
        ("history", unused),
        ("never registered", Proof(bytes(32))),
        ("content absent", Proof(bytes(32), is_content=True)),
    ):
        report = examine(prove(going_on, asked, claim), VERIFIER)
        assert {f.check for f in report.failures()} == {"complete", "claim"}
        assert report.verdict is Verdict.CANNOT_TELL
        assert (
            " of a run that has not ended (gaps in its record: 0)." in parse_bundle(prove(going_on, asked, claim)).words
        )
        whole = opened(tmp_path / claim, *ended, *more, again, seal())
        assert examine(prove(whole, asked, claim), VERIFIER).verdict is Verdict.HOLDS


def test_neither_an_end_nor_a_resume_can_be_left_out(tmp_path: Path) -> None:
    more = resume(0, 0, (WRITER, 3)), by(OTHER, 1, end((WRITER, 3), (OTHER, 0)))
    trace = opened(tmp_path, run(), dataset(), D, end((WRITER, 2)), *more, seal())
    bundle = parse_bundle(prove(trace, Proof(PUBLIC[0])))
    assert [e.number for e in bundle.entries] == [3, 4, 5]
    assert check_bundle(bundle, VERIFIER).verdict is Verdict.HOLDS
    for gone in range(3):
        lie = reworded(replace(bundle, entries=bundle.entries[:gone] + bundle.entries[gone + 1 :]))
        assert "entries" in refuting(lie, VERIFIER)
    used = parse_bundle(
        prove(opened(tmp_path / "used", run(), dataset(), D, batch(1, 0), end((WRITER, 3)), seal()), Proof(PUBLIC[0]))
    )
    assert used.entries == ()


def test_of_an_end_that_a_row_names_evidence_decides(tmp_path: Path) -> None:
    """It is no entry that a use needs for itself, but one that the sample's rows name."""
    rows = (1, 0, 2, NO_STEP), (5, ATTRIBUTION["exact"], 3, 1), (9, 0, 4, 1)
    events = run(), dataset(), D, batch(1, 0), end((WRITER, 3)), seal()
    trace = opened(tmp_path, *events, index=with_sample(PUBLIC[0], *rows))
    assert refuting(parse_bundle(prove(trace, Proof(PUBLIC[0]), entries=True)), VERIFIER) == ["evidence"]


# -- uses through descendants ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", ["used", "history"])
def test_assumed_and_undone_uses_of_descendants_are_told(tmp_path: Path, claim: str) -> None:
    crops = registered([public_id(preimage("crops", n)) for n in range(2)], dataset="crops")
    pairs = {"parents": np.array([0, 1], np.uint32), "children": np.array([0, 1], np.uint32)}
    stage = {"kind": "transform", "stage": "crops", "operation": "record", "block": D["block"]} | pairs
    assumed = {"attribution": np.array([ATTRIBUTION["fifo"]], np.uint8)}
    events = [
        run(), dataset(), dataset(name="crops"), D, crops, stage | {"child_block": crops["block"]},
        batch(1, 0), use(2, 0) | {"block": crops["block"]} | assumed, batch(3, 0) | assumed,
        resume(0, 1, (WRITER, 8)), by(OTHER, 1, end((WRITER, 8), (OTHER, 0))), seal(),
    ]  # fmt: skip
    trace = opened(tmp_path, *events)
    data = prove(trace, Proof(PUBLIC[0]), claim)
    assert examine(data, VERIFIER).verdict is Verdict.HOLDS
    whose = "2 of all uses."
    words = parse_bundle(data).words
    assert f"Which update took it is assumed from the order of the batches in {whose}" in words
    assert f"The run was resumed from an earlier step, which undid {whose}" in words


# -- forms ----------------------------------------------------------------------------------------------------------


def test_holders_ascend_and_nobody_stands_twice(tmp_path: Path) -> None:
    same = registered(PUBLIC, contents=public_id(content_preimage(bytes(32))) * 3)
    trace = opened(tmp_path, run(), dataset(), same, end((WRITER, 2)), seal())
    said = json.loads(prove(trace, Proof(public_id(content_preimage(bytes(32))), is_content=True)))
    assert said["holders"] == [id.hex() for id in PUBLIC]
    for holders in (said["holders"][::-1], [PUBLIC[0].hex()] * 2):
        with pytest.raises(FormatError, match="holders ascend, none twice"):
            parse_bundle(json.dumps(said | {"holders": holders}).encode())


def test_a_note_of_more_than_a_million_bytes_is_none(tmp_path: Path) -> None:
    """Anybody adds a line of a key that nobody knows; the text of the proof may be a little longer."""
    said = json.loads(prove(opened(tmp_path, run(), dataset(), D, end((WRITER, 2)), seal()), Proof(PUBLIC[0])))
    proof = said["seal"]["proof"]
    note = proof.partition("\n\n")[2]
    free = 1_000_000 - len(note.encode()) - len("— a \n".encode())
    for size, fits in ((free // 4 * 4, True), (free // 4 * 4 + 4, False)):
        data = json.dumps(said | {"seal": said["seal"] | {"proof": f"{proof}— a {'AAAA' * (size // 4)}\n"}}).encode()
        if fits:
            assert examine(data, VERIFIER).verdict is Verdict.HOLDS
        else:
            with pytest.raises(FormatError, match="a note of"):
                parse_bundle(data)
