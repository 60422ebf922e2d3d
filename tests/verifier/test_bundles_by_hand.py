"""Where chance seldom comes: all verifiers say the same of bundles made by hand, and refuse the same forms."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bundles_by_hand import by_hand
from every_bundle import every_bundle
from fgtrac.errors import FormatError
from fgtrac.events.codec import encode
from fgtrac.events.identity import block_id, content_preimage, preimage, public_id
from fgtrac.query.prove import Proof
from fgtrac.tlog.note import Verifier
from fgtrac.verify.bundle import format_bundle, head_of, parse_bundle
from fgtrac.verify.claims import check_bundle
from page_verifier import PageVerifier, agrees
from proofs import opened, prove
from signed import OTHER, VERIFIER, WRITER, Event, by, end, run, seal, use

Others = tuple[ModuleType, PageVerifier | None]
CONTENT = public_id(content_preimage(bytes(32)))


@pytest.fixture
def others(other: ModuleType, page: PageVerifier | None) -> Others:
    return other, page


def all_say(others: Others, data: bytes, verifier: Verifier | None = VERIFIER, secret: bytes | None = None) -> str:
    """What all of them say."""
    other, page = others
    key = None if verifier is None else verifier.public_key
    try:
        ours = str(check_bundle(parse_bundle(data), verifier, secret).verdict)
    except FormatError:
        ours = "malformed"
    try:
        theirs, _found = other.Examination(other.read_bundle(data), key, secret).report()
    except other.Fault:
        theirs = "malformed"
    assert theirs == ours
    assert agrees(page, ours, data, verifier, secret)
    return ours


def test_they_agree_on_bundles_made_by_hand(others: Others, tmp_path: Path) -> None:
    said = []
    for vector in by_hand(list(every_bundle(tmp_path))):
        origin = head_of(parse_bundle(vector.data)).origin
        if vector.about is None and (vector.verifier is None or vector.verifier.name == origin):
            said.append(all_say(others, vector.data, vector.verifier, vector.secret))
    assert {"refuted", "cannot tell"} == set(said)
    assert len(said) > 15


def samples(dataset: str, count: int, **changes: Any) -> tuple[list[bytes], Event]:
    """The ids of so many rows, ascending, and the entry that registers them, all with one content."""
    ids = sorted(public_id(preimage(dataset, n)) for n in range(count))
    fields = {"dataset": dataset, "block": block_id(b"".join(ids)), "part": 0, "parts": 1, "ids": b"".join(ids)}
    return ids, {"kind": "samples", **fields, "contents": CONTENT * count, **changes}


IDS, D = samples("d", 3)
SET = {"kind": "dataset", "name": "d", "id_scheme": "public", "content": "file"}
RESUME = by(OTHER, 0, {"kind": "resume", "writers": [[WRITER, 4]], "step": 1})


def test_a_run_that_was_resumed_after_its_end_has_not_ended(others: Others, tmp_path: Path) -> None:
    ended = run(), SET, D, use(1, 0) | {"block": D["block"]}, end((WRITER, 3))
    again = by(OTHER, 1, end((WRITER, 4), (OTHER, 0)))
    for name, more, verdict in (("going on", (), "cannot tell"), ("ended", (again,), "holds")):
        trace = opened(tmp_path / name, *ended, RESUME, *more, seal())
        for asked in (Proof(IDS[1]), Proof(bytes(32)), Proof(bytes(32), is_content=True)):
            assert all_say(others, prove(trace, asked)) == verdict
        assert all_say(others, prove(trace, Proof(IDS[0]))) == "holds"


def test_assumed_and_undone_uses_of_descendants_are_counted(others: Others, tmp_path: Path) -> None:
    _ids, crops = samples("crops", 2)
    pairs = {"parents": np.array([0, 1], np.uint32), "children": np.array([0, 1], np.uint32)}
    stage = {"kind": "transform", "stage": "crops", "operation": "record", "block": D["block"], **pairs}
    used = use(2, 0) | {"block": crops["block"], "attribution": np.array([3], np.uint8)}
    events = run(), SET, SET | {"name": "crops"}, D, crops, stage | {"child_block": crops["block"]}, used
    resume = RESUME | {"writers": [[WRITER, 6]]}
    trace = opened(tmp_path, *events, resume, by(OTHER, 1, end((WRITER, 6), (OTHER, 0))), seal())
    for claim in ("used", "history"):
        data = prove(trace, Proof(IDS[0]), claim)
        assert "which undid 1 of" in parse_bundle(data).words
        assert all_say(others, data) == "holds"


def test_the_sample_is_registered_in_the_data_set_of_its_name(others: Others, tmp_path: Path) -> None:
    licensed = run(), SET | {"name": "licensed"}, D | {"dataset": "licensed"}, end((WRITER, 2)), seal()
    trace = opened(tmp_path, *licensed)
    named = next(n for n in (preimage("d", row) for row in range(3)) if public_id(n) == IDS[0])
    assert all_say(others, prove(trace, Proof(IDS[0], named), entries=True)) == "refuted"
    assert all_say(others, prove(trace, Proof(IDS[0], named))) == "holds"  # which says nothing of that entry


@pytest.mark.parametrize("key", [[{"hex": "00ff"}], {"hex": "00ff"}, True, -1, 1.5])
def test_a_key_is_a_number_text_bytes_or_keys(others: Others, tmp_path: Path, key: Any) -> None:
    named = encode(["fgtrac id v1", "d", key])
    trace = opened(tmp_path, run(), SET, D, end((WRITER, 2)), seal())
    said = json.loads(prove(trace, Proof(public_id(preimage("d", b"\0\xff")), preimage("d", b"\0\xff"))))
    said["id"] = {"value": public_id(named).hex(), "preimage": named.hex()}
    bare = json.loads(prove(trace, Proof(public_id(named))))
    assert all_say(others, json.dumps(said | {"index": bare["index"]}).encode()) == "refuted"


def test_what_nobody_would_see_is_escaped(others: Others, tmp_path: Path) -> None:
    name = "a\x7f\x80\x9f\u200b\u200f\u2028\u202e\u2066\u2069\ufeff\xa0\u2010\u2030\u2065\x1b\u00e9"
    trace = opened(tmp_path, run(), SET | {"name": name}, D | {"dataset": name}, end((WRITER, 2)), seal())
    data = prove(trace, Proof(public_id(preimage(name, (name, 1))), preimage(name, (name, 1))))
    assert "\u202e" not in parse_bundle(data).words
    assert all_say(others, data) == "holds"


def test_holders_that_do_not_ascend_and_notes_that_are_too_long_are_malformed(others: Others, tmp_path: Path) -> None:
    trace = opened(tmp_path, run(), SET, D, end((WRITER, 2)), seal())
    said = json.loads(prove(trace, Proof(CONTENT, is_content=True)))
    assert all_say(others, json.dumps(said).encode()) == "holds"
    for holders in (said["holders"][::-1], said["holders"][:1] * 2):
        assert all_say(others, json.dumps(said | {"holders": holders}).encode()) == "malformed"
    bundle = parse_bundle(json.dumps(said).encode())
    free = 1_000_000 - len(bundle.proof.note) - len("— a \n".encode())
    for size, verdict in ((free // 4, "holds"), (free // 4 + 1, "malformed")):
        seal_of = said["seal"] | {"proof": f"{said['seal']['proof']}— a {'AAAA' * size}\n"}
        assert all_say(others, json.dumps(said | {"seal": seal_of}).encode()) == verdict
    assert all_say(others, format_bundle(bundle)) == "holds"
