"""What `verify` says of anchors, and every lie of an owner who has the signing key, told to each kind by itself."""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from authorities import issue, make_root
from cosigned import NAME, cosigned, cosigner
from fgtrac.anchor.service import SignedHead
from fgtrac.tlog.cosignature import format_cosigner
from fgtrac.tlog.note import Note, TreeHead, format_note, format_tree_head, parse_note, sign_note
from fgtrac.verify.evm_receipt import format_evm_receipt, parse_evm_receipt
from fgtrac.verify.receipts import (
    EVM,
    NOTE,
    RFC3161,
    WITNESS,
    note_path,
    paths_of,
    receipt_path,
    rfc3161_name,
    witness_name,
)
from fgtrac.verify.report import Report, Verdict
from findings import verdict_of, words_of
from signed import KEY, Files, note, write
from stamps_by_hand import stamp
from witnessed_traces import (
    BEGAN,
    EVENTS,
    FIRST,
    FORGED,
    GAP_S,
    LAST,
    TRUE,
    URL,
    VKEY,
    Stage,
    entries_of,
    onto,
    root_of,
    verify,
    without,
)

KINDS = (RFC3161, WITNESS, EVM)
HOLDS, REFUTED, CANNOT_TELL = Verdict.HOLDS, Verdict.REFUTED, Verdict.CANNOT_TELL


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage.set(tmp_path_factory.mktemp("stage"))


@pytest.fixture(scope="module")
def anchored(stage: Stage) -> Files:
    """The trace, seen by all three at both sizes."""
    return stage.anchor(TRUE, FIRST, LAST)


def only(kind: str, files: Files) -> Files:
    """Without the receipts of the other kinds."""
    return without(files, *(other for other in KINDS if other != kind))


def rewritten(kind: str, anchored: Files) -> Files:
    """The log rewritten from entry 3 on and signed with its own key, with the receipts of one kind."""
    return onto(FORGED, only(kind, anchored))


def assert_fork(report: Report, check: str) -> None:
    """Refuted with both roots and the consistency proof that fails."""
    assert verdict_of(report, check) is REFUTED
    words = words_of(report, check)
    for part in (root_of(TRUE), root_of(FORGED), f"consistency proof of 5 hashes from {LAST} to 9 entries"):
        assert part in words, words


# -- what holds -------------------------------------------------------------------------------------------------------


def test_who_names_everybody_learns_what_each_holds_since_when_and_by_whom(stage: Stage, anchored: Files) -> None:
    report = verify(anchored, stage.trusts(*KINDS))
    assert report.verdict is HOLDS, report.failures()
    assert words_of(report, "heads").startswith("2 heads in receipts/, from 3 to 7 entries: signed by the log's key")
    first = "2 heads {} by {}: the first of 3 entries at 2023-11-14 22:13:50 UTC, the newest of 7 entries at "
    first += "2023-11-14 22:14:50 UTC; the last 2 are not covered; "
    by = "CN=test authority (root CN=test root)"
    assert words_of(report, RFC3161).startswith(first.format("stamped", by))
    assert words_of(report, WITNESS).startswith(first.format("cosigned", NAME))
    kept = parse_evm_receipt(anchored[paths_of(anchored, EVM)[0]])
    assert f"2 heads kept by account 0x{kept.sender.hex()} in contract {stage.chain.contract}" in words_of(report, EVM)


BOUND = "; anchored before their first use, by the log's own times: {} of 2 announced epochs; "


@pytest.mark.parametrize(
    ("kind", "bound", "shows"),
    [
        (RFC3161, 1, "a time stamp shows since when a head exists, and excludes no second history"),
        (WITNESS, 1, "whoever cosigned says that it saw no other history of this log"),
        (EVM, 0, "another account may have given it another history"),
    ],
)
def test_each_kind_says_how_many_epochs_it_binds_and_what_it_shows(
    stage: Stage, anchored: Files, kind: str, bound: int, shows: str
) -> None:
    """By the log's own times the contract had the first head years after the epoch was used."""
    words = words_of(verify(anchored, stage.trusts(kind)), kind)
    assert BOUND.format(bound) in words
    assert words.endswith(shows)


def test_a_contract_that_has_an_announcement_before_the_first_use_binds_it(tmp_path: Path) -> None:
    stage = Stage.set(tmp_path)
    began = int(time.time())
    told = [{**event, "time": (began + (n >= FIRST) * 250) * 10**9} for n, event in enumerate(EVENTS)]
    report = verify(stage.anchor(write(*told), FIRST, LAST, kinds=(EVM,)), stage.trusts(EVM))
    assert BOUND.format(1) in words_of(report, EVM)
    assert "not believable" not in words_of(report, EVM)
    assert "in 1 of 2 epochs: only there" in note_about_epochs(report)


@pytest.mark.parametrize("unnamed", [("accounts",), ("contracts",), ("accounts", "contracts")])
def test_a_second_history_is_excluded_only_by_an_account_and_a_contract_that_were_both_named(
    tmp_path: Path, unnamed: tuple[str, ...]
) -> None:
    stage = Stage.set(tmp_path)
    began = int(time.time())
    told = [{**event, "time": (began + (n >= FIRST) * 250) * 10**9} for n, event in enumerate(EVENTS)]
    files = stage.anchor(write(*told), FIRST, LAST, kinds=(EVM,))
    (words,) = [n for n in verify(files, stage.trusts(EVM)).notes if "--since" in n]
    assert "is shown by who witnessed it for its first 7 entries" in words
    report = verify(files, stage.trusts(EVM, **dict.fromkeys(unnamed, ())))
    assert verdict_of(report, EVM) is HOLDS
    (words,) = [n for n in report.notes if "--since" in n]
    assert (
        "is not shown by heads that a chain keeps, unless you name the account and the contract (--evm-account and "
        "--evm-contract): that its first 7 entries existed at 20"
    ) in words
    assert "excludes no second history" in words
    assert "in 0 of 2 epochs" in note_about_epochs(report)
    assert (
        "; a chain shows the same of 1, and excludes a second history only where you name the account and the contract "
        "(--evm-account and --evm-contract)"
    ) in note_about_epochs(report)


def note_about_epochs(report: Report) -> str:
    (words,) = [note for note in report.notes if note.startswith("the announced order binds")]
    return words


def test_a_note_says_of_how_many_epochs_the_order_is_bound_and_a_stamp_alone_binds_none(
    stage: Stage, anchored: Files
) -> None:
    assert "in 1 of 2 epochs: only there" in note_about_epochs(verify(anchored, stage.trusts(*KINDS)))
    assert "in 1 of 2 epochs: only there" in note_about_epochs(verify(anchored, stage.trusts(WITNESS)))
    words = note_about_epochs(verify(anchored, stage.trusts(RFC3161)))
    assert "in 0 of 2 epochs: only there" in words
    assert words.endswith("; time stamps show the same of 1, and exclude no second history")


@pytest.mark.parametrize(("second_s", "bound"), [(20, 1), (40, 0)])
def test_one_witness_of_several_that_saw_the_uses_earlier_shows_that_the_log_s_times_are_false(
    stage: Stage, second_s: int, bound: int
) -> None:
    """Two saw the announcement before the log's own time of the first use; but one saw uses before the other did."""
    key = Ed25519PrivateKey.from_private_bytes(b"2" * 32)
    second = cosigner("second", key)
    files = stage.anchor(TRUE, FIRST, LAST, kinds=())
    for size, at_s in ((FIRST, 10), (LAST, 30)):
        lines = cosigned(files[note_path(size)], time=BEGAN + at_s)
        files[receipt_path(size, witness_name(cosigner().key_id))] = lines
    lines = cosigned(files[note_path(FIRST)], "second", key, BEGAN + second_s)
    files[receipt_path(FIRST, witness_name(second.key_id))] = lines
    report = verify(files, stage.trusts(WITNESS, witnesses=[VKEY, format_cosigner(second)]))
    assert BOUND.format(bound) in words_of(report, WITNESS)
    assert f"in {bound} of 2 epochs" in note_about_epochs(report)


@pytest.mark.parametrize(("stamped_s", "bound"), [(20, 0), (40, 1)])
def test_a_stamp_over_uses_before_a_witness_saw_the_announcement_speaks_against_it(
    stage: Stage, stamped_s: int, bound: int
) -> None:
    files = stage.anchor(TRUE, FIRST, kinds=(WITNESS,))  # 30 s after the log began
    head = note(entries_of(TRUE), LAST)
    when = datetime.fromtimestamp(BEGAN + stamped_s, UTC)
    files |= {note_path(LAST): head, receipt_path(LAST, rfc3161_name(URL)): stamp(head, stage.authority, when=when)}
    assert f"in {bound} of 2 epochs" in note_about_epochs(verify(files, stage.trusts(WITNESS, RFC3161)))


def test_two_histories_that_are_both_stamped_before_their_training_are_not_said_to_be_bound(stage: Stage) -> None:
    for files in (TRUE, FORGED):
        report = verify(stage.anchor(files, FIRST, kinds=(RFC3161,)), stage.trusts(RFC3161))
        assert "binds whoever signed in 0 of 2 epochs" in note_about_epochs(report)
        (words,) = [n for n in report.notes if "--since" in n]
        assert "is not shown by time stamps: that its first 3 entries existed at 2023-11-14 22:13:50 UTC exclu" in words


@pytest.mark.parametrize(("late_s", "bound"), [(GAP_S, 1), (GAP_S + 6, 0), (10**6, 0)])
def test_a_head_from_before_an_epoch_that_is_stamped_after_its_first_use_binds_nothing(
    stage: Stage, late_s: int, bound: int
) -> None:
    head = note(entries_of(TRUE), FIRST)
    late = stamp(head, stage.authority, when=datetime.fromtimestamp(BEGAN + late_s, UTC))
    files = TRUE | {note_path(FIRST): head, receipt_path(FIRST, rfc3161_name(URL)): late}
    assert BOUND.format(bound) in words_of(verify(files, stage.trusts(RFC3161)), RFC3161)


@pytest.mark.parametrize(("when_s", "words"), [(946684800, "the entries that it covers say"), (4e9, "in the future")])
def test_a_time_that_cannot_be_true_is_told_and_since_when_rests_on_the_others(
    stage: Stage, anchored: Files, when_s: float, words: str
) -> None:
    """A witness says the year 2000, or 2096, of what an authority and another witness saw in 2023."""
    name = receipt_path(LAST, witness_name(cosigner().key_id))
    files = anchored | {name: cosigned(anchored[note_path(LAST)], time=int(when_s))}
    del files[receipt_path(FIRST, witness_name(cosigner().key_id))]
    report = verify(files, stage.trusts(WITNESS))
    assert verdict_of(report, WITNESS) is HOLDS
    assert "(not believable: " in words_of(report, WITNESS)
    assert words in words_of(report, WITNESS)
    (note,) = [n for n in report.notes if "--since" in n]
    assert "for its first 7 entries, and for nothing behind them" in note
    (note,) = [n for n in verify(files, stage.trusts(WITNESS, EVM)).notes if "--since" in n]
    assert "for its first 7 entries since 20" in note
    assert "since 2000" not in note


def test_the_note_about_older_heads_says_how_far_anchors_go(stage: Stage, anchored: Files) -> None:
    (words,) = [n for n in verify(anchored, stage.trusts(WITNESS)).notes if "--since" in n]
    assert "is shown by who witnessed it for its first 7 entries since 2023-11-14 22:14:50 UTC" in words
    (words,) = [n for n in verify(anchored, stage.trusts(RFC3161)).notes if "--since" in n]
    assert "not shown by time stamps: that its first 7 entries existed at 2023-11-14 22:14:50 UTC excludes" in words
    for files, trusted in (
        (TRUE, stage.trusts()),
        (anchored, stage.trusts()),
        (rewritten(RFC3161, anchored), stage.trusts(RFC3161)),
    ):
        (words,) = [n for n in verify(files, trusted).notes if "--since" in n]
        assert "rewritten and signed again, is not shown; an older head" in words


def test_a_trace_without_receipts_has_no_finding_about_them(stage: Stage) -> None:
    assert not {f.check for f in verify(TRUE, stage.trusts()).findings} & {"heads", *KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_where_nobody_of_a_kind_is_named_nobody_can_tell_and_the_option_is_said(
    stage: Stage, anchored: Files, kind: str
) -> None:
    report = verify(only(kind, anchored), stage.trusts())
    assert [f.check for f in report.failures()] == [kind]
    assert verdict_of(report, kind) is CANNOT_TELL
    option = {RFC3161: "--tsa-root", WITNESS: "--witness-key", EVM: "--evm RPC_URL"}[kind]
    assert option in words_of(report, kind)


def test_a_head_without_a_receipt_is_a_note(stage: Stage, anchored: Files) -> None:
    report = verify(without(anchored, *KINDS), stage.trusts())
    assert verdict_of(report, "heads") is HOLDS
    assert "receipts/3/ has no receipt: that anchor is pending, or its receipt was lost" in report.notes


def test_files_of_the_folder_are_explained_and_unknown_ones_are_not(stage: Stage, anchored: Files) -> None:
    assert verdict_of(verify(anchored, stage.trusts()), "files") is HOLDS
    for name in ("receipts/7/checkpoint.bak", "receipts/07/checkpoint", "receipts/7/evm-1-00000000.txt"):
        report = verify(anchored | {name: b""}, stage.trusts(*KINDS))
        assert f"{name} is no file that the log explains" in words_of(report, "files")
    assert "not written whole" in " ".join(verify(anchored | {"receipts/7/x.tmp": b""}, stage.trusts()).notes)


# -- who rewrites the log after it was anchored -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_receipts_that_were_left_refute_a_rewritten_log(stage: Stage, anchored: Files, kind: str) -> None:
    report = verify(rewritten(kind, anchored), stage.trusts(kind))
    assert {f.check for f in report.failures()} == {"heads", kind}
    assert_fork(report, kind)
    assert_fork(report, "heads")


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_of_the_new_log_beside_the_old_receipt_refutes_it(stage: Stage, anchored: Files, kind: str) -> None:
    files = rewritten(kind, anchored) | {note_path(LAST): note(entries_of(FORGED), LAST)}
    report = verify(files, stage.trusts(kind))
    assert [f.check for f in report.failures()] == [kind]
    if kind == RFC3161:
        assert "the time stamp is over other bytes: sha256" in words_of(report, kind)
    else:
        assert_fork(report, kind)
    report = verify(files, stage.trusts())  # what is wrong without anybody's word is wrong without a name
    assert verdict_of(report, kind) is REFUTED


def test_a_receipt_that_was_changed_to_the_new_head_too_is_altered(stage: Stage, anchored: Files) -> None:
    new = note(entries_of(FORGED), LAST)
    files = onto(FORGED, anchored) | {note_path(LAST): new}
    (witness,) = [p for p in paths_of(files, WITNESS) if f"/{LAST}/" in p]
    line = parse_note(files[witness]).signatures[-1]
    altered = format_note(Note(parse_note(new).text, (*parse_note(new).signatures, line)))
    report = verify(files | {witness: altered}, stage.trusts(WITNESS))
    assert "does not fit the text" in words_of(report, WITNESS)
    assert verdict_of(report, WITNESS) is REFUTED
    (evm,) = [p for p in paths_of(files, EVM) if f"/{LAST}/" in p]
    changed = dataclasses.replace(parse_evm_receipt(files[evm]), root=bytes.fromhex(root_of(FORGED)))
    report = verify(files | {evm: format_evm_receipt(changed)}, stage.trusts(EVM))
    assert "the event has root" in words_of(report, EVM)
    assert verdict_of(report, EVM) is REFUTED


@pytest.mark.parametrize("kind", KINDS)
def test_removed_receipts_leave_nothing_green_and_the_chain_remembers(stage: Stage, anchored: Files, kind: str) -> None:
    for files in (without(onto(FORGED, anchored), *KINDS), FORGED):
        report = verify(files, stage.trusts(kind))
        if kind == EVM:
            assert_fork(report, kind)
            assert "anchored in block" in words_of(report, kind)
            report = verify(files, stage.trusts(kind, accounts=(), contracts=()))
        assert verdict_of(report, kind) is CANNOT_TELL
        assert "or the receipt vanished" in words_of(report, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_receipts_under_another_name_or_size_refute_all_the_same(stage: Stage, anchored: Files, kind: str) -> None:
    other = {RFC3161: f"rfc3161-{'0' * 16}.tsr", WITNESS: "witness-00000000.checkpoint", EVM: "evm-1-00000000.json"}
    for base in (TRUE, FORGED):
        files = onto(base, only(kind, anchored))
        (path,) = [p for p in paths_of(files, kind) if f"/{LAST}/" in p]
        renamed = {p: d for p, d in files.items() if p != path} | {receipt_path(LAST, other[kind]): files[path]}
        report = verify(renamed, stage.trusts(kind))
        honest = kind == RFC3161 and base is TRUE  # whose name says nothing: what it stamps is what it stamps
        assert verdict_of(report, kind) is (HOLDS if honest else REFUTED), words_of(report, kind)
        moved = {p.replace(f"receipts/{LAST}/", "receipts/8/"): d for p, d in files.items()}
        report = verify(moved, stage.trusts(kind))
        assert {f.check for f in report.failures()} == {"heads", kind}
        if base is TRUE or kind == RFC3161:
            assert "of a head of 7 entries, in the folder of 8; it was moved" in words_of(report, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_receipts_of_another_trace_are_refuted_with_both_names(stage: Stage, anchored: Files, kind: str) -> None:
    origin = "fgtrac/" + "ff" * 16
    head = TreeHead(origin, LAST, bytes.fromhex(root_of(TRUE)))
    text = format_tree_head(head)
    foreign = format_note(Note(text, (sign_note(text, origin, KEY),)))
    paths = {k: next(p for p in paths_of(anchored, k) if f"/{LAST}/" in p) for k in KINDS}
    made = {RFC3161: stamp(foreign, stage.authority), WITNESS: cosigned(foreign)}
    made[EVM] = stage.chain.service().anchor(SignedHead(head, foreign), lambda size: ())[1]
    report = verify(only(kind, anchored) | {note_path(LAST): foreign, paths[kind]: made[kind]}, stage.trusts(kind))
    assert {f.check for f in report.failures()} == {"heads", kind}
    assert "ff" * 16 in words_of(report, kind)
    assert bytes(range(16)).hex() in words_of(report, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_log_that_was_rolled_back_to_before_a_head_is_refuted_with_both_sizes(
    stage: Stage, anchored: Files, kind: str
) -> None:
    report = verify(onto(write(*EVENTS[: LAST - 1]), only(kind, anchored)), stage.trusts(kind))
    for check in ("heads", kind):
        assert verdict_of(report, check) is REFUTED
        assert "has 7 entries, and this log 6: it was rolled back" in words_of(report, check)


def test_cosignatures_and_chains_speak_though_the_log_s_own_signature_was_taken_away(
    stage: Stage, anchored: Files
) -> None:
    def stripped(data: bytes) -> bytes:
        found = parse_note(data)
        return format_note(Note(found.text, found.signatures[1:] or (sign_note(found.text, "x", KEY),)))

    for kind in (WITNESS, EVM):
        files = rewritten(kind, anchored)
        notes = {p: stripped(files[p]) for k in (NOTE, WITNESS) for p in paths_of(files, k)}
        report = verify(files | notes, stage.trusts(kind))
        assert_fork(report, kind)
        assert verdict_of(report, "heads") is REFUTED
    unsigned = verify(anchored | {note_path(LAST): stripped(anchored[note_path(LAST)])}, stage.trusts())
    assert "not signed by" in words_of(unsigned, "heads")


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_any_byte_of_a_receipt_that_is_changed_is_never_green(stage: Stage, anchored: Files, kind: str) -> None:
    (path,) = [p for p in paths_of(anchored, kind) if f"/{LAST}/" in p]
    data = anchored[path]
    for at in [*range(0, len(data), max(1, len(data) // 12)), len(data) - 1]:
        changed = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
        report = verify(only(kind, anchored) | {path: changed}, stage.trusts(kind))
        assert verdict_of(report, kind) is not HOLDS, at
    for data in (b"", b"{}", b"\x30\x00", b"\n\n"):
        assert verdict_of(verify(anchored | {path: data}, stage.trusts(kind)), kind) is REFUTED


@pytest.mark.parametrize("kind", KINDS)
def test_a_receipt_whose_head_is_missing_is_refuted(stage: Stage, anchored: Files, kind: str) -> None:
    files = {p: d for p, d in only(kind, anchored).items() if p != note_path(LAST)}
    report = verify(files, stage.trusts(kind))
    assert "receipts/7/checkpoint" in words_of(report, "heads")
    assert verdict_of(report, "heads") is REFUTED


def test_nothing_is_said_of_anchors_where_the_entries_are_not_the_log_s(stage: Stage, anchored: Files) -> None:
    bundle = "tile/entries/000.p/9"
    files = anchored | {bundle: anchored[bundle].replace(b"loss", b"lost")}
    report = verify(files, stage.trusts(*KINDS))
    for check in ("heads", *KINDS):
        assert "not checked, since the check of entries does not hold" in words_of(report, check)


# -- whose word counts ------------------------------------------------------------------------------------------------


def test_a_stamp_that_leads_to_another_root_cannot_be_told_even_beside_one_that_does(
    stage: Stage, anchored: Files
) -> None:
    another = [stage.folder / "another.pem"]
    report = verify(anchored, stage.trusts(RFC3161, tsa_roots=another))
    assert verdict_of(report, RFC3161) is CANNOT_TELL
    assert "leads to no root that you named (CN=another root)" in words_of(report, RFC3161)
    foreign = stamp(anchored[note_path(LAST)], issue("foreign", make_root("foreign root")))
    files = anchored | {receipt_path(LAST, f"rfc3161-{'0' * 16}.tsr"): foreign}
    report = verify(files, stage.trusts(RFC3161))
    assert verdict_of(report, RFC3161) is CANNOT_TELL
    assert "beside that, 2 heads stamped by CN=test authority" in words_of(report, RFC3161)


def test_a_stamp_whose_certificate_has_ended_since_holds_and_says_so(stage: Stage, anchored: Files) -> None:
    root = make_root("old root")
    root.write(stage.folder, "old")
    ended, during = datetime(2022, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)
    old = stamp(anchored[note_path(LAST)], issue("old authority", root, last=ended), when=during)
    files = without(anchored, *KINDS) | {receipt_path(LAST, rfc3161_name("http://old.example/")): old}
    report = verify(files, stage.trusts(RFC3161, tsa_roots=[stage.folder / "old.pem"]))
    assert verdict_of(report, RFC3161) is HOLDS
    ended_since = "(root CN=old root, whose certificates ended on 2022-01-01): of 7 entries at 2021"
    assert ended_since in words_of(report, RFC3161)
    assert "ended" not in words_of(verify(anchored, stage.trusts(RFC3161)), RFC3161)


def test_a_head_cosigned_by_a_witness_that_nobody_named_counts_for_nothing(stage: Stage, anchored: Files) -> None:
    stranger = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
    files = without(anchored, *KINDS)
    name = f"witness-{_line(files, stranger).key_id.hex()}.checkpoint"
    files[receipt_path(LAST, name)] = cosigned(files[note_path(LAST)], NAME, stranger)
    report = verify(files, stage.trusts(WITNESS))
    assert verdict_of(report, WITNESS) is CANNOT_TELL
    assert f"there is no cosignature by {NAME}" in words_of(report, WITNESS)


def _line(files: Files, key: Ed25519PrivateKey):  # type: ignore[no-untyped-def]
    return parse_note(cosigned(files[note_path(LAST)], NAME, key)).signatures[-1]
