"""Erasing a subject: its key and names are in no file any more, the log says so, and everything else still verifies."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import fgtrac
from erasable import (
    ANN,
    BOB,
    KEYS,
    ROWS,
    SEVEN,
    SUBJECTS,
    ZOE,
    files_with,
    key_of,
    people,
    pseudonym_of,
    record,
    trace_id,
)
from fgtrac.api import erase as erasing
from fgtrac.api.adding import adding
from fgtrac.api.checkpoints import say_file
from fgtrac.api.erase import Erasure
from fgtrac.api.naming import TypedSubject
from fgtrac.api.run import reopen, start_run
from fgtrac.api.summary import summarize
from fgtrac.api.vault_audit import vault_demand
from fgtrac.errors import CaptureError, ScoreError, TamperError
from fgtrac.events.codec import encode
from fgtrac.events.schema import decode_event
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from fgtrac.tlog.tiles import read_entries
from fgtrac.verify.report import Report, Verdict


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def trace(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the recorded trace with its vault, its signing key and the signer's state."""
    shutil.copytree(recorded.parent, tmp_path / "copy")
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "copy" / "key.pem"))
    return tmp_path / "copy" / "run.trace"


def erase(trace: Path, subject: Any) -> Erasure:
    (done,) = fgtrac.erase(trace, subject=subject)
    return done


def erasures(trace: Path) -> list[dict[str, Any]]:
    head = TraceDir.open(trace).head()
    assert head is not None
    events = map(decode_event, read_entries(TraceDir.open(trace), 0, head.size, head.size))
    return [e for e in events if e["kind"] == "erasure"]


def verify(trace: Path) -> Report:
    return fgtrac.open(trace).verify()


def secrets_of(trace: Path, subject: Any) -> list[bytes]:
    """What leads to a subject, as bytes on disk: its key, its name as the vault writes it, its samples' keys."""
    keys = [KEYS[row].encode() for row in range(ROWS) if SUBJECTS[row] == subject]
    return [key_of(trace, subject), encode(subject).hex().encode(), *keys]


def test_key_names_and_openings_are_in_no_file_beside_the_trace(trace: Path) -> None:
    folder, hers, his = trace.parent, secrets_of(trace, ANN), secrets_of(trace, BOB)
    vault = Vault.open(trace.with_suffix(".vault"), trace_id(trace))
    openings = [opening for what, opening in vault.openings("")]
    vault.close()
    for secret in (*hers, ANN.encode(), *openings):
        assert "run.vault" in files_with(folder, secret[:1000])
    done = erase(trace, ANN)
    assert (done.samples, done.names, done.openings) == (23, 23, len(openings))  # 20 rows and 3 crops
    assert len(openings) >= 3
    assert files_with(folder, *hers, ANN.encode(), *(o[:100] for o in openings)) == set()
    for secret in his:
        assert files_with(folder, secret) == {"run.vault"}


def test_stale_copies_in_free_pages_and_a_write_ahead_file_go_too(trace: Path) -> None:
    """A vault that somebody has set to write ahead, to keep deleted bytes, and has deleted from by hand."""
    path, hers = trace.with_suffix(".vault"), secrets_of(trace, ANN)
    db = sqlite3.connect(path)
    db.execute("PRAGMA secure_delete=OFF")
    db.execute("DELETE FROM names WHERE subject = ?", (ANN,))
    db.commit()
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA wal_autocheckpoint=0")
    db.execute("INSERT INTO secrets VALUES ('another', x'00')")
    db.commit()
    shutil.copytree(trace.parent, trace.parent.parent / "killed")  # as a killed process leaves it
    db.close()
    trace = trace.parent.parent / "killed" / "run.trace"
    assert any("run.vault" in files_with(trace.parent, secret) for secret in hers)  # which ones, the random ids decide
    assert "run.vault-wal" in files_with(trace.parent, hers[0])
    assert erase(trace, ANN).names == 0
    assert files_with(trace.parent, *hers) == set()
    assert [p.name for p in trace.parent.iterdir() if p.name.startswith("run.vault")] == ["run.vault"]


def test_everything_else_still_verifies(trace: Path) -> None:
    assert verify(trace).verdict is Verdict.HOLDS
    before = {name: TraceDir.open(trace).read(name) for name in TraceDir.open(trace).names() if "/tile" in name}
    erase(trace, ZOE)
    report = verify(trace)
    found = {f.check: f for f in report.findings}
    assert {name for name, f in found.items() if f.verdict is not Verdict.HOLDS} == {"artifacts", "contributions"}
    assert report.verdict is Verdict.CANNOT_TELL
    assert "was withdrawn by entry" in found["artifacts"].words
    assert "have the size and SHA-256" in found["artifacts"].words
    assert "was withdrawn by entry" in found["contributions"].words
    assert "1 subjects are erased: all of their 1 samples" in found["erasures"].words
    assert {name: TraceDir.open(trace).read(name) for name in before} == before


def test_files_that_hold_the_subjects_rows_are_withdrawn_and_no_others(trace: Path) -> None:
    fgtrac.open(trace).record("class:1")  # a target whose gradients are a file
    there = {n for n in TraceDir.open(trace).names() if n.startswith("artifacts/")}
    gone = set(erase(trace, ZOE).artifacts)
    assert there - set(TraceDir.open(trace).names()) == gone
    assert {p for e in erasures(trace) for p in e["artifacts"]} == gone
    names = sorted(n.removeprefix("artifacts/") for n in gone)
    of_states, (of_rows, of_targets) = names[:-2], names[-2:]
    parts = ("00000.safetensors", "00001.safetensors")  # whichever her row is in: without their list both say nothing
    of_state = [f"{name}-{part}" for name in ("losses-train", "train") for part in parts]
    assert [n.rpartition("/")[2] for n in of_states] == of_state * 2
    assert of_rows.startswith("scoring/rows-train-")
    assert of_targets.startswith("targets/")


def test_histories_stay_and_show_the_erasure(trace: Path) -> None:
    opened = fgtrac.open(trace)
    hers, his = opened.find(f'key:"{KEYS[3]}"'), opened.find(f'key:"{KEYS[100]}"')
    before = opened.history(f"id:{hers.id.hex()}")
    erase(trace, ANN)
    opened = fgtrac.open(trace)
    after = opened.history(f"id:{hers.id.hex()}")
    assert after.uses == before.uses == 2
    assert "erased: the key of subject" in str(after)
    assert KEYS[3] not in str(after)
    assert opened.find(f"id:{hers.id.hex()}").opening is None
    assert opened.find(f'key:"{KEYS[100]}"') == his
    with pytest.raises(ValueError, match=r"is no key of any sample in run\.vault"):
        opened.find(f'key:"{KEYS[3]}"')


def test_a_subject_with_many_samples_and_files_takes_several_entries(trace: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(erasing, "ORDINALS_AN_ENTRY", 9)
    monkeypatch.setattr(erasing, "PATHS_AN_ENTRY", 1)
    done = erase(trace, ANN)
    entries = erasures(trace)
    files_only = [0] * (len(done.artifacts) - 4)
    assert [len(e["ordinals"]) for e in entries] in ([9, 9, 2, 3, *files_only], [3, 9, 9, 2, *files_only])
    assert [p for e in entries for p in e["artifacts"]] == list(done.artifacts)
    assert {f.check for f in verify(trace).failures()} == {"artifacts", "contributions"}


def test_what_is_asked_first_and_refused_changes_nothing(trace: Path) -> None:
    before = {p: p.read_bytes() for p in trace.parent.rglob("*") if p.is_file()}
    seen: list[Erasure] = []
    assert fgtrac.erase(trace, subject=ANN, agree=lambda found: bool(seen.append(found))) == []
    assert (seen[0].samples, seen[0].pseudonym) == (23, pseudonym_of(trace, ANN))
    after = {p: p.read_bytes() for p in trace.parent.rglob("*") if p.is_file() and not p.name.endswith(".lock")}
    assert after == {p: data for p, data in before.items() if not p.name.endswith(".lock")}


def test_a_number_is_no_text_and_typed_digits_may_be_either(trace: Path) -> None:
    pseudonym = pseudonym_of(trace, SEVEN)
    with pytest.raises(ValueError, match=r"no key of a subject '7': .*; the number 7 has a key: name it as a number"):
        fgtrac.erase(trace, subject="7")
    with pytest.raises(ValueError, match="no key of a subject '07'"):
        fgtrac.erase(trace, subject=TypedSubject("07"))
    assert erase(trace, TypedSubject("7")).pseudonym == pseudonym


def test_a_subject_is_erased_by_its_pseudonym(trace: Path) -> None:
    pseudonym = pseudonym_of(trace, BOB)
    assert erase(trace, pseudonym.hex()[:16].upper()).pseudonym == pseudonym
    with pytest.raises(ValueError, match=f"no key of a subject '{pseudonym.hex()}'"):
        fgtrac.erase(trace, subject=pseudonym.hex())


def test_a_text_and_a_number_are_two_people_and_none_is_erased_for_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    with start_run(tmp_path / "run") as run:
        run.register(TensorDataset(torch.zeros(4, 1)), subject=["7", 7, 8, "9"])
    path = run.path
    pseudonyms = {subject: pseudonym_of(path, subject) for subject in ("7", 7, 8, "9")}
    with pytest.raises(ValueError, match=f"two such subjects: the text '7', pseudonym {pseudonyms['7'].hex()} and the"):
        fgtrac.erase(path, subject=TypedSubject("7"))
    assert erase(path, "7").pseudonym == pseudonyms["7"]
    for number in (7, 8):  # of both the text may be the one that was erased
        words = f"a key of the number {number} and none of the text '{number}'.*pseudonym, {pseudonyms[number].hex()}"
        with pytest.raises(ValueError, match=words):
            fgtrac.erase(path, subject=TypedSubject(str(number)))
        assert key_of(path, number)
    with pytest.raises(ValueError, match="a key of the text '9' and none of the number 9"):
        fgtrac.erase(path, subject=TypedSubject("9"))
    assert erase(path, TypedSubject(pseudonyms[7].hex())).pseudonym == pseudonyms[7]
    assert [erase(path, subject).samples for subject in (8, "9")] == [1, 1]  # Python tells them apart


def test_who_cannot_be_erased_is_said_in_a_line(trace: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no key of a subject 'nobody': it was erased before, or no data set"):
        fgtrac.erase(trace, subject="nobody")
    erase(trace, ANN)
    with pytest.raises(ValueError, match=f"no key of a subject '{ANN}': it was erased before"):
        fgtrac.erase(trace, subject=ANN)
    for subject in (BOB, SEVEN, ZOE):
        erase(trace, subject)
    with pytest.raises(ValueError, match=r"or all are erased\. Samples without one share the run's key"):
        fgtrac.erase(trace, subject=ANN)
    report = verify(trace)
    assert {f.check for f in report.failures()} == {"artifacts", "contributions"}
    (order,) = [note for note in report.notes if "epochs" in note]
    assert "the order of 2 epochs cannot be drawn again: an erasure destroyed what gives it" in order
    assert "--replay" not in order


def test_epochs_after_an_erasure_can_be_drawn_again(trace: Path) -> None:
    erase(trace, ANN)
    with start_run(trace, resume=True, key=trace.parent / "key.pem") as run:
        data = TensorDataset(torch.zeros(4, 1))
        assert len(list(run.watch(DataLoader(data, batch_size=2, shuffle=True)))) == 2
    (order,) = [note for note in verify(trace).notes if "epoch" in note]
    assert "of 1 epoch was not drawn again; --replay does that, and of 2 nothing can: an erasure" in order


def test_without_the_vault_or_the_signing_key_nothing_is_erased(trace: Path, monkeypatch: Any) -> None:
    hers = key_of(trace, ANN)
    monkeypatch.setenv("FGTRAC_KEY", str(trace.parent / "other.pem"))
    with pytest.raises(FileNotFoundError, match="there is no key at"):
        fgtrac.erase(trace, subject=ANN)
    assert files_with(trace.parent, hers) == {"run.vault"}
    trace.with_suffix(".vault").rename(trace.parent / "away.vault")
    with pytest.raises(
        FileNotFoundError, match=r"there is no vault at .*run\.vault: the keys that an erasure destroys"
    ):
        fgtrac.erase(trace, subject=ANN)
    Vault.create(trace.with_suffix(".vault"), b"another trace id")
    monkeypatch.setenv("FGTRAC_KEY", str(trace.parent / "key.pem"))
    with pytest.raises(TamperError, match="belongs to trace"):
        fgtrac.erase(trace, subject=ANN)


def test_while_a_run_records_or_another_process_holds_the_vault_nothing_is_erased(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hers, connect = key_of(trace, ANN), sqlite3.connect
    with start_run(trace, resume=True, key=trace.parent / "key.pem") as run:
        run.register(people(), name="people", key=KEYS, subject=SUBJECTS)
        with pytest.raises(CaptureError, match="is being recorded by a process now"):
            fgtrac.erase(trace, subject=ANN)
    reader = sqlite3.connect(trace.with_suffix(".vault"))
    rows = reader.execute("SELECT * FROM names")
    next(rows)
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, **named, timeout=0.1))
    with pytest.raises(BlockingIOError, match=r"run\.vault: database is locked; another process holds it"):
        fgtrac.erase(trace, subject=ANN)
    rows.close()
    reader.close()
    assert files_with(trace.parent, hers) == {"run.vault"}
    erase(trace, ANN)


def test_a_run_that_begins_while_the_question_is_asked_is_noticed(trace: Path) -> None:
    hers, runs = key_of(trace, ANN), []

    def begin(found: Erasure) -> bool:
        runs.append(start_run(trace, resume=True, key=trace.parent / "key.pem"))
        return True

    with pytest.raises(CaptureError, match="is being recorded"):
        fgtrac.erase(trace, subject=ANN, agree=begin)
    runs[0].register(TensorDataset(torch.zeros(2, 1)), name="more", subject=[ANN, BOB])
    runs[0].close()
    assert files_with(trace.parent, hers) == {"run.vault"}


def test_what_was_recorded_while_the_question_was_asked_is_erased_too(trace: Path) -> None:
    def record_more(found: Erasure) -> bool:
        with start_run(trace, resume=True, key=trace.parent / "key.pem") as run:
            run.register(TensorDataset(torch.zeros(2, 1)), name="more", key=["late-scan", "other"], subject=[ANN, BOB])
        return True

    (done,) = fgtrac.erase(trace, subject=ANN, agree=record_more)
    assert (done.samples, done.names) == (24, 24)
    assert files_with(trace.parent, ANN.encode(), b"late-scan") == set()
    assert {f.check for f in verify(trace).failures()} == {"artifacts", "contributions"}


def test_a_factor_file_that_is_not_the_logs_stops_the_erasure(trace: Path) -> None:
    (path,) = trace.glob("artifacts/scoring/rows-train-*")
    data = path.read_bytes()
    path.write_bytes(data[:-4] + b"\0\0\0\0")
    with pytest.raises(TamperError, match="whose rows it holds cannot be told; restore it, or remove it"):
        fgtrac.erase(trace, subject=ANN)
    path.unlink()
    erase(trace, ANN)
    assert {f.check for f in verify(trace).failures()} >= {"artifacts"}
    assert verify(trace).verdict is Verdict.REFUTED  # what was gone before is no withdrawal


def test_an_erased_subject_does_not_come_back_in_a_resumed_or_reopened_run(trace: Path) -> None:
    erase(trace, ANN)
    given = {"name": "people", "key": KEYS, "subject": SUBJECTS}
    with reopen(trace, key=trace.parent / "key.pem") as run, pytest.raises(ValueError, match="their key was destroyed"):
        run.register(people(), **given)
    with (
        start_run(trace, resume=True, key=trace.parent / "key.pem") as run,
        pytest.raises(ValueError, match=r"samples of a subject that was erased \(entry \d+\).*under another name="),
    ):
        run.register(people(), **given)
    assert {f.check for f in verify(trace).failures()} == {"artifacts", "contributions"}
    assert files_with(trace.parent, encode(ANN).hex().encode()) == set()  # and no new key of hers was made


def test_a_restored_key_is_refused_when_it_is_used_and_can_be_erased_again(trace: Path) -> None:
    """A vault restored from a backup: without the refusal the log would be refuted for ever."""
    backup, key = trace.with_suffix(".vault").read_bytes(), trace.parent / "key.pem"
    erase(trace, ANN)
    trace.with_suffix(".vault").write_bytes(backup)
    given = {"key": KEYS, "subject": SUBJECTS}
    for begin in (lambda: reopen(trace, key=key), lambda: start_run(trace, resume=True, key=key)):
        for name in ("people", "people again"):
            with (
                begin() as run,
                pytest.raises(ValueError, match=r"was erased \(entry \d+\), and the vault has its key"),
            ):
                run.register(people(), name=name, **given)
    assert {f.check for f in verify(trace).failures()} == {"artifacts", "contributions"}
    assert erase(trace, ANN).artifacts == ()
    assert files_with(trace.parent, ANN.encode()) == set()


def test_scores_say_that_factors_are_missing(trace: Path) -> None:
    assert fgtrac.open(trace).explain("role:validation")
    erase(trace, ZOE)
    with pytest.raises(ScoreError, match="kept checkpoints and factors of none"):
        fgtrac.open(trace).explain("role:validation")


def test_what_a_trace_says_of_itself_counts_no_withdrawn_files(trace: Path) -> None:
    assert {f["roles"] for f in summarize(trace).factors} == {"train, validation"}
    fgtrac.erase(trace, subject=BOB)  # who has rows in every shard
    assert {f["roles"] for f in summarize(trace).factors} == {"validation"}


def test_factors_may_be_made_again_where_withdrawn_ones_lay(trace: Path) -> None:
    """A path that was withdrawn, and is named again by a later entry, is a file like any other."""
    gone = erase(trace, ZOE).artifacts
    with adding(TraceDir.open(trace), trace.parent / "key.pem") as to:
        assert not set(gone) & set(to.ledger.artifacts)
        durable.write_file(trace / gone[-1], b"anew")
        say_file(to.recorder, to.ledger, gone[-1], hashlib.sha256(b"anew").digest(), 4, "made again")
    found = {f.check: f for f in verify(trace).findings}
    assert found["artifacts"].verdict is Verdict.CANNOT_TELL
    (trace / gone[-1]).write_bytes(b"another")
    found = {f.check: f for f in verify(trace).findings}
    assert found["artifacts"].verdict is Verdict.REFUTED


def test_a_key_or_a_name_that_was_kept_is_found_with_the_vault(trace: Path) -> None:
    """The log alone cannot tell that a key is gone."""
    kept = shutil.copy(trace.with_suffix(".vault"), trace.parent / "kept.vault")
    erase(trace, ANN)
    report = fgtrac.open(trace).verify(demands=[vault_demand(trace.with_suffix(".vault"), trace_id(trace))])
    assert [f.verdict for f in report.findings if f.check == "vault"] == [Verdict.CANNOT_TELL]
    report = fgtrac.open(trace).verify(demands=[vault_demand(kept, trace_id(trace))])
    (finding,) = [f for f in report.findings if f.check == "vault"]
    assert finding.verdict is Verdict.REFUTED
    assert "kept.vault still holds the key of subject" in finding.words
    with sqlite3.connect(kept) as db:
        db.execute("DELETE FROM secrets WHERE scope = ?", (f"subject:{encode(ANN).hex()}",))
    db.close()
    report = fgtrac.open(trace).verify(demands=[vault_demand(kept, trace_id(trace))])
    (finding,) = [f for f in report.findings if f.check == "vault"]
    assert finding.verdict is Verdict.REFUTED
    assert "the vault still names the sample" in finding.words


def test_a_key_that_was_kept_after_all_can_be_erased_again(trace: Path) -> None:
    """A vault restored from a backup: erasing again destroys it there too, and adds nothing to the log."""
    kept = trace.with_suffix(".vault").read_bytes()
    first = erase(trace, ANN)
    trace.with_suffix(".vault").write_bytes(kept)
    again = erase(trace, ANN)
    assert (again.pseudonym, again.artifacts) == (first.pseudonym, ())
    assert len(erasures(trace)) == 2  # one block each: people and crops
    assert files_with(trace.parent, ANN.encode()) == set()
