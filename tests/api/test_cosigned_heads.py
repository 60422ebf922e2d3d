"""Heads that carry a witness's cosignature pass wherever a head is read: sealing, proofs, checks, rotations."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import fgtrac
from cosigned import KEY, NAME, cosigned, cosigner
from desks import Desk, holds
from fgtrac.api.bundles import verify_bundle
from fgtrac.api.export import export_proofs
from fgtrac.api.run import start_run
from fgtrac.api.sealing import seal_trace
from fgtrac.api.since import since_demand
from fgtrac.api.trace import open_for_verification
from fgtrac.api.witnessed import read_quorum
from fgtrac.commit.keys import load_key
from fgtrac.errors import ProofError
from fgtrac.store import durable
from fgtrac.tlog.cosignature import cosignature_time, format_cosigner
from fgtrac.tlog.note import Note, Signature, Verifier, format_note, parse_note
from fgtrac.tlog.proof import parse_proof
from fgtrac.verify.bundle import parse_bundle
from fgtrac.verify.quorum import Quorum
from fgtrac.verify.report import Report, Verdict
from findings import verdict_of, words_of

SECOND = Ed25519PrivateKey.from_private_bytes(b"x" * 32)
VKEY, SECOND_VKEY = format_cosigner(cosigner()), format_cosigner(cosigner("witness.example/w2", SECOND))


def heads(path: Path) -> list[Path]:
    return [path / "checkpoint", *sorted(path.glob("index/*/checkpoint"))]


def cosign(path: Path, name: str = NAME, key: Ed25519PrivateKey = KEY) -> None:
    """Put a line of a witness into every head of a trace."""
    for head in heads(path):
        durable.write_file(head, cosigned(head.read_bytes(), name, key))


def times(path: Path) -> list[bool]:
    return [cosignature_time(head.read_bytes(), cosigner()) is not None for head in heads(path)]


@pytest.fixture
def trace(desk: Desk) -> Path:
    """A sealed trace whose every head is cosigned."""
    cosign(desk.path("a"))
    assert all(times(desk.path("a")))
    return desk.path("a")


def go_on(desk: Desk) -> None:
    with start_run(desk.path("a"), resume=True, key=desk.key, flush_interval_s=0) as run:
        run.log(2, loss=0.25)


def test_a_cosigned_trace_is_verified_as_before_and_its_seal_is_found_done(desk: Desk, trace: Path) -> None:
    before = [head.read_bytes() for head in heads(trace)]
    assert holds(desk.verify("a", desk.public)), desk.verify("a", desk.public).failures()
    assert seal_trace(trace, desk.key).new_entries == 0
    assert [head.read_bytes() for head in heads(trace)] == before
    assert fgtrac.open(trace, key=desk.public.hex()).history("TensorDataset:0").rests_on.startswith("as signed")


def test_a_run_goes_on_behind_a_cosigned_head(desk: Desk, trace: Path) -> None:
    go_on(desk)
    assert times(trace).count(True) == 1  # the older full seal's
    assert holds(desk.verify("a", desk.public)), desk.verify("a", desk.public).failures()


def test_a_signer_without_memory_takes_a_cosigned_head_for_the_last(desk: Desk, trace: Path) -> None:
    shutil.rmtree(desk.key.parent / "heads")
    go_on(desk)
    assert holds(desk.verify("a", desk.public)), desk.verify("a", desk.public).failures()


def test_a_head_that_was_signed_and_not_published_follows_a_cosigned_one(desk: Desk, trace: Path) -> None:
    old = (trace / "checkpoint").read_bytes()
    go_on(desk)
    new = (trace / "checkpoint").read_bytes()
    durable.write_file(trace / "checkpoint", old)  # as a crash between signing and publishing leaves it
    seal_trace(trace, desk.key)
    assert (trace / "checkpoint").read_bytes() == new
    assert holds(desk.verify("a", desk.public)), desk.verify("a", desk.public).failures()


def test_a_key_is_replaced_behind_a_cosigned_head_and_the_new_head_is_cosigned_in_turn(desk: Desk, trace: Path) -> None:
    old = desk.public
    desk.rotate("a")
    cosign(trace)
    go_on(desk)
    cosign(trace)
    for key in (old, desk.public, None):
        assert holds(desk.verify("a", key)), desk.verify("a", key).failures()


def test_a_line_of_somebody_else_under_the_id_of_a_retired_key_is_no_signature(desk: Desk) -> None:
    retired = desk.public
    desk.rotate("a")
    path = desk.path("a") / "checkpoint"
    signed = parse_note(path.read_bytes())
    (mine,) = signed.signatures
    stranger = Signature("witness.example", Verifier(mine.name, retired).key_id, b"x")
    durable.write_file(path, format_note(Note(signed.text, (stranger, mine))))
    go_on(desk)
    assert holds(desk.verify("a", desk.public)), desk.verify("a", desk.public).failures()
    assert holds(desk.verify("a", None))


def test_older_cosigned_heads_are_taken_from_every_file_that_holds_one(desk: Desk, trace: Path, tmp_path: Path) -> None:
    (tmp_path / "old-head").write_bytes((trace / "checkpoint").read_bytes())
    (tmp_path / "old.bundle.json").write_bytes(bundle_of(desk))
    export_proofs(trace, [0], tmp_path / "old.tlog-proof")
    proof = parse_proof((tmp_path / "old.tlog-proof").read_text())
    assert cosignature_time(proof.note, cosigner()) is not None
    go_on(desk)
    cosign(trace)
    for name in ("old-head", "old.bundle.json", "old.tlog-proof"):
        demand = since_demand(tmp_path / name)
        report = open_for_verification(trace).verify(desk.public.hex(), demands=[demand])
        assert holds(report), report.failures()


# -- bundles ----------------------------------------------------------------------------------------------------------


def bundle_of(desk: Desk) -> bytes:
    return fgtrac.open(desk.path("a"), key=desk.public.hex()).prove("TensorDataset:0")


def check(desk: Desk, data: bytes, *vkeys: str, needed: int | None = None) -> Report:
    (desk.folder / "bundle.json").write_bytes(data)
    return verify_bundle(desk.folder / "bundle.json", desk.public.hex(), quorum=read_quorum(vkeys, needed))


def test_a_bundle_carries_the_cosignatures_of_its_head_and_shows_them(desk: Desk, trace: Path) -> None:
    report = check(desk, bundle_of(desk), VKEY)
    assert holds(report), report.failures()
    words = words_of(report, "witness")
    assert "is cosigned by 1 of 1 witnesses named (needed: 1)" in words
    assert f"{NAME} at 2023-11-14 22:13:20 UTC" in words


def test_without_a_named_witness_a_note_says_that_nobody_checked_the_lines(desk: Desk, trace: Path) -> None:
    report = check(desk, bundle_of(desk))
    assert holds(report)
    assert "witness" not in [f.check for f in report.findings]
    assert any(NAME in note and "nobody checked" in note for note in report.notes)


def test_a_bundle_of_a_head_without_cosignatures_cannot_tell(desk: Desk) -> None:
    report = check(desk, bundle_of(desk), VKEY)
    assert report.verdict is Verdict.CANNOT_TELL
    assert "cosigned by 0 of 1 witnesses named (needed: 1)" in words_of(report, "witness")
    assert not any("nobody checked" in note for note in check(desk, bundle_of(desk)).notes)


@pytest.mark.parametrize(
    ("vkeys", "needed", "verdict"),
    [
        ([VKEY, SECOND_VKEY], None, Verdict.CANNOT_TELL),
        ([VKEY, SECOND_VKEY], 2, Verdict.CANNOT_TELL),
        ([VKEY, SECOND_VKEY], 1, Verdict.HOLDS),
        ([VKEY, VKEY], None, Verdict.HOLDS),
        ([SECOND_VKEY], None, Verdict.CANNOT_TELL),
    ],
)
def test_so_many_of_the_named_witnesses_are_asked_for(
    desk: Desk, trace: Path, vkeys: list[str], needed: int | None, verdict: Verdict
) -> None:
    report = check(desk, bundle_of(desk), *vkeys, needed=needed)
    assert verdict_of(report, "witness") is verdict
    assert report.verdict is verdict


def test_two_witnesses_are_two(desk: Desk, trace: Path) -> None:
    cosign(trace, "witness.example/w2", SECOND)
    report = check(desk, bundle_of(desk), VKEY, SECOND_VKEY)
    assert holds(report), report.failures()
    assert "cosigned by 2 of 2 witnesses" in words_of(report, "witness")


def test_a_cosignature_that_does_not_fit_refutes(desk: Desk, trace: Path) -> None:
    data = bundle_of(desk)
    note = parse_bundle(data).proof.note
    line = note.decode().splitlines()[-1].split(" ")[2]
    wrong = line[:40] + ("A" if line[40] != "A" else "B") + line[41:]
    report = check(desk, data.replace(line.encode(), wrong.encode()), VKEY)
    assert verdict_of(report, "witness") is Verdict.REFUTED
    assert f"the cosignature of {NAME}" in words_of(report, "witness")
    assert holds(check(desk, data.replace(line.encode(), wrong.encode())))  # to who does not know the witness


@pytest.mark.parametrize(("vkeys", "needed"), [([], 1), ([VKEY], 0), ([VKEY], 2), ([VKEY, VKEY], 2), ([VKEY], -1)])
def test_a_quorum_that_cannot_be_reached_is_the_callers_mistake(vkeys: list[str], needed: int) -> None:
    with pytest.raises(ValueError, match="quorum"):
        read_quorum(vkeys, needed)


def test_two_keys_of_one_witness_are_no_quorum_of_two(desk: Desk, trace: Path) -> None:
    cosign(trace, NAME, SECOND)
    both = [VKEY, format_cosigner(cosigner(NAME, SECOND))]
    assert "by 1 of 1 witnesses" in words_of(check(desk, bundle_of(desk), *both), "witness")
    with pytest.raises(ValueError, match="a quorum of 2 of 1 witnesses"):
        read_quorum(both, 2)


def test_one_key_under_two_names_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match=rf"{NAME} and witness.example/w2 are named with one key"):
        read_quorum([VKEY, format_cosigner(cosigner("witness.example/w2"))])


def test_a_key_of_the_log_is_no_witness_s(desk: Desk) -> None:
    """The key that signs it, and one that it has replaced: each named as a witness under another name."""
    signing = load_key(desk.key)
    cosign(desk.path("a"), "independent.example", signing)
    old = format_cosigner(cosigner("independent.example", signing))
    assert "its key is the log's own" in words_of(check(desk, bundle_of(desk), old), "witness")
    desk.rotate("a")
    go_on(desk)
    cosign(desk.path("a"), "independent.example", signing)
    cosign(desk.path("a"), "another.example", load_key(desk.key))
    new = format_cosigner(cosigner("another.example", load_key(desk.key)))
    for vkey in (old, new):
        report = check(desk, bundle_of(desk), vkey, VKEY, needed=1)
        assert verdict_of(report, "witness") is Verdict.REFUTED
        assert "its key is the log's own" in words_of(report, "witness")


def test_who_signed_a_head_is_no_witness_of_it_to_who_knows_no_key_of_the_log_either(desk: Desk) -> None:
    note = cosigned(heads(desk.path("a"))[0].read_bytes(), "independent.example", load_key(desk.key))
    quorum = Quorum.of((cosigner("independent.example", load_key(desk.key)), cosigner()), 1)
    with pytest.raises(ProofError, match="its key is the log's own"):
        quorum.check(note)
    assert "cosigned by 1 of 1 witnesses" in Quorum.of((cosigner(),)).check(cosigned(note))


def test_a_cosignature_s_time_in_the_future_is_told_to_be(desk: Desk) -> None:
    for head in heads(desk.path("a")):
        durable.write_file(head, cosigned(head.read_bytes(), time=253402300800))
    words = words_of(check(desk, bundle_of(desk), VKEY), "witness")
    assert f"{NAME} at 253402300800 seconds after 1970 (not believable: it is in the future" in words
