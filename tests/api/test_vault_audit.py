"""Every registered id computed again from a vault: what holds, what is refuted, and what cannot be told."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from fgtrac.api.audit import audit_trace
from fgtrac.api.run import start_run
from fgtrac.api.trace import open_for_verification
from fgtrac.api.vault_audit import vault_demand
from fgtrac.errors import FormatError
from fgtrac.events.codec import encode
from fgtrac.events.identity import block_id, key_commitment, keyed_id, preimage, public_id, subject_commitment
from fgtrac.store.vault import Vault
from fgtrac.verify.report import Report, Verdict
from signed import TRACE_ID, VERIFIER, Event, MemoryTrace, run, seal, write

SUBJECTS = ["ada", "bob", 7]


def verify(path: Path, vault: Path | None = None) -> Report:
    trace = open_for_verification(path)
    demand = vault_demand(vault or path.with_suffix(".vault"), trace.id)
    return trace.verify(str(path.parent / "key.pem"), demands=[demand])


def said(report: Report) -> tuple[Verdict, str]:
    (found,) = [(f.verdict, f.words) for f in report.findings if f.check == "vault"]
    return found


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten rows with their numbers as keys, nine samples of three subjects, three with keys, and seven that are named by
    their rows; registered again after a restart."""
    folder = tmp_path_factory.mktemp("keyed")
    for resume in (False, True):
        with start_run(folder / "run", key=folder / "key.pem", flush_interval_s=0, resume=resume) as run:
            rows, people = (TensorDataset(torch.arange(float(n))[:, None]) for n in (10, 9))
            run.register(rows, role="train", name="rows", key=range(10).__getitem__)
            run.register(people, role="train", name="people", subject=SUBJECTS * 3)
            run.register(TensorDataset(torch.zeros(3, 1)), name="named", key=["a", b"b", ("c", 3)])
            run.register(TensorDataset(torch.ones(7, 1)), name="plain")
    return folder / "run.trace"


@pytest.fixture
def trace(recorded: Path, tmp_path: Path) -> Path:
    shutil.copytree(recorded.parent, tmp_path / "copy")
    return tmp_path / "copy" / "run.trace"


def change(trace: Path, sql: str, *arguments: Any) -> None:
    with sqlite3.connect(trace.with_suffix(".vault")) as db:
        assert db.execute(sql, arguments).rowcount > 0
    db.close()


# -- a recorded run ---------------------------------------------------------------------------------------------------


def test_every_id_of_a_run_is_that_of_its_name_under_the_committed_keys(trace: Path) -> None:
    report = verify(trace)
    assert report.verdict is Verdict.HOLDS, report.failures()
    words = said(report)[1]
    assert "all 29 registered ids are those of the names in run.vault under the key that entry 0 commits to" in words
    assert "or of its 3 subjects' keys" in words
    assert "Content digests are not computed again" in words


def test_progress_counts_the_names_of_the_vault(trace: Path) -> None:
    steps: list[tuple[int, int]] = []
    opened = open_for_verification(trace)
    demand = vault_demand(trace.with_suffix(".vault"), opened.id, lambda done, total: steps.append((done, total)))
    opened.verify(str(trace.parent / "key.pem"), demands=[demand])
    assert steps == [(22, 29), (29, 29)]


def test_a_name_that_the_vault_has_lost_cannot_be_told(trace: Path) -> None:
    change(trace, "DELETE FROM names WHERE dataset = 'rows' AND key = ?", encode(3))
    verdict, words = said(verify(trace))
    assert verdict is Verdict.CANNOT_TELL
    assert "28 of 29 registered ids are those of their names; 1 have no name or no secret in run.vault" in words
    assert "an absence still rests on the operator's word" in words


@pytest.mark.parametrize(
    ("sql", "count"), [("DELETE FROM secrets WHERE scope = 'run'", 20), ("DELETE FROM secrets WHERE scope != 'run'", 9)]
)
def test_names_without_their_secret_cannot_be_told(trace: Path, sql: str, count: int) -> None:
    change(trace, sql)
    verdict, words = said(verify(trace))
    assert (verdict, f"; {count} have no name or no secret" in words) == (Verdict.CANNOT_TELL, True)


def test_another_secret_than_the_committed_one_is_refuted_with_both_commitments(trace: Path) -> None:
    change(trace, "UPDATE secrets SET key = ? WHERE scope = 'run'", bytes(32))
    verdict, words = said(verify(trace))
    assert (verdict, key_commitment(bytes(32)).hex() in words, "entry 0 (run) commits to" in words) == (
        Verdict.REFUTED,
        True,
        True,
    )


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("UPDATE names SET key = x'187b' WHERE dataset = 'rows' AND key = x'03'", "registers the sample rows:123 as "),
        (
            "UPDATE names SET key = x'ff' WHERE dataset = 'rows' AND key = x'03'",
            "whose key is not well formed",
        ),
        ("UPDATE names SET dataset = 'people' WHERE dataset = 'rows' AND key = x'03'", "in the data set 'rows'"),
        ("UPDATE names SET subject = 'bob' WHERE subject = 'ada'", "which is not that of its subject 'bob'"),
    ],
)
def test_a_name_that_does_not_give_its_id_is_refuted_and_named(trace: Path, sql: str, words: str) -> None:
    change(trace, sql)
    verdict, found = said(verify(trace))
    assert (verdict, words in found) == (Verdict.REFUTED, True), found


@pytest.mark.parametrize(
    ("sql", "verdict", "words"),
    [
        ("UPDATE row_pages SET rows = CAST(substr(rows, 5, 4) || substr(rows, 1, 4) || substr(rows, 9) AS BLOB)",
         Verdict.REFUTED, "registers the sample plain:"),
        ("UPDATE row_columns SET scheme = 'public'", Verdict.REFUTED, "is 7 rows of 'plain' under public ids; the log"),
        ("UPDATE row_columns SET dataset = 'rows'", Verdict.REFUTED, "is 7 rows of 'rows' under keyed ids; the log"),
        *((f"UPDATE row_columns SET samples = {n}", Verdict.CANNOT_TELL, "which are four each; restore run.vault from")
          for n in (6, 8, 0, -5)),
        ("UPDATE row_columns SET block = x'00'", Verdict.CANNOT_TELL, "7 have no name or no secret"),
        ("DELETE FROM row_columns", Verdict.CANNOT_TELL, "7 have no name or no secret"),
        ("DELETE FROM row_pages", Verdict.CANNOT_TELL, "restore run.vault from a copy"),
        ("UPDATE row_pages SET rows = x'00'", Verdict.CANNOT_TELL, "restore run.vault from a copy"),
        ("UPDATE row_pages SET rows = CAST(substr(rows, 1, 24) || x'07000000' AS BLOB)", Verdict.CANNOT_TELL,
         "holds the row number 7, and there are 7 rows"),
        ("UPDATE row_columns SET scheme = 'none'", Verdict.CANNOT_TELL, "restore run.vault from a copy"),
    ],
)  # fmt: skip
def test_row_numbers_that_do_not_give_the_ids_are_told(trace: Path, sql: str, verdict: Verdict, words: str) -> None:
    change(trace, sql)
    found, said_words = said(verify(trace))
    assert (found, words in said_words) == (verdict, True), said_words


@pytest.mark.parametrize("kept", [6, 8])
def test_a_block_of_other_rows_than_the_log_registers_is_damage_and_no_lie(trace: Path, kept: int) -> None:
    with sqlite3.connect(trace.with_suffix(".vault")) as db:
        rows = sqlite3.Binary(b"".join(row.to_bytes(4, "little") for row in range(kept)))
        db.execute("UPDATE row_columns SET samples = ?", (kept,))
        db.execute("UPDATE row_pages SET rows = ?", (rows,))
    db.close()
    verdict, words = said(verify(trace))
    assert verdict is Verdict.CANNOT_TELL
    assert ("and the log registers 7 samples there; restore run.vault" if kept == 6 else "7 have no name") in words


def test_a_name_without_a_sample_is_passed_over(trace: Path) -> None:
    change(trace, "INSERT INTO names VALUES (?, 'rows', ?, NULL)", bytes(32), encode(99))
    assert said(verify(trace))[0] is Verdict.HOLDS


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE names SET key = 'text'",
        "UPDATE names SET id = x'00' WHERE key = x'03'",
        "UPDATE names SET dataset = x'00'",
    ],
)
def test_a_vault_whose_names_are_none_cannot_tell(trace: Path, sql: str) -> None:
    change(trace, sql + (" AND dataset = 'rows'" if "WHERE" in sql else ""))
    verdict, words = said(verify(trace))
    assert (verdict, "restore run.vault from a copy" in words) == (Verdict.CANNOT_TELL, True)


def test_a_vault_that_is_none_or_of_another_trace_is_the_callers_mistake(trace: Path, tmp_path: Path) -> None:
    Vault.create(tmp_path / "other.vault", bytes(16)).close()
    (tmp_path / "no.vault").write_bytes(b"nothing at all")
    for name, error in (("other", ValueError), ("no", FormatError), ("nowhere", FileNotFoundError)):
        with pytest.raises(error):
            verify(trace, tmp_path / f"{name}.vault")


# -- lies, signed with the right key ----------------------------------------------------------------------------------


def registered(ids: list[bytes], name: str = "d", **columns: bytes) -> Event:
    joined = b"".join(sorted(ids))
    return {
        "kind": "samples",
        "dataset": name,
        "block": block_id(joined),
        "part": 0,
        "parts": 1,
        "ids": joined,
    } | columns


def dataset(scheme: str, name: str = "d") -> Event:
    return {"kind": "dataset", "name": name, "id_scheme": scheme}


def examine(vault: Vault, *events: Event) -> tuple[Verdict, str]:
    report = audit_trace(MemoryTrace(write(*events, seal())), VERIFIER, demands=[vault_demand(vault.path, TRACE_ID)])
    assert all(f.verdict is Verdict.HOLDS for f in report.findings if f.check != "vault"), report.failures()
    return said(report)


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault.create(tmp_path / "a.vault", TRACE_ID)


def keep(vault: Vault, ids: list[bytes], *, subject: str | None = None, name: str = "d") -> None:
    vault.put_names((sample, name, encode(row), subject) for row, sample in enumerate(ids))


def keyed_run(vault: Vault) -> Event:
    return run(id_scheme="keyed", key_commitment=key_commitment(vault.secret("run")))


@pytest.mark.parametrize("lie", [lambda p: keyed_id(b"x" * 32, p), public_id], ids=["another key", "no key"])
def test_an_id_under_another_key_than_the_committed_one_is_refuted(vault: Vault, lie: Callable[[bytes], bytes]) -> None:
    """It is registered, and an absence under the committed key would hold."""
    honest = [keyed_id(vault.secret("run"), preimage("d", row)) for row in range(4)]
    ids = [*honest[:3], lie(preimage("d", 3))]
    keep(vault, ids)
    verdict, words = examine(vault, keyed_run(vault), dataset("keyed"), registered(ids))
    assert verdict is Verdict.REFUTED
    expected = f"entry 2 registers the sample d:3 as {ids[3].hex()}, and the committed key gives {honest[3].hex()}"
    assert words == f"{expected}: an absence of it would be false"
    assert examine(vault, keyed_run(vault), dataset("keyed"), registered(honest[:3]))[0] is Verdict.HOLDS


def test_a_key_that_is_no_number_is_refuted_where_the_log_says_that_keys_are(vault: Vault) -> None:
    """Else `d:1` would pass for a name of its row, and be said to be absent."""
    keys = ["a", 1, ("b", 2)]
    ids = [public_id(preimage("d", key)) for key in keys]
    vault.put_names((sample, "d", encode(key), None) for key, sample in zip(keys, ids, strict=True))
    for said, verdict in (("names", Verdict.HOLDS), ("rows", Verdict.REFUTED), ("numbers", Verdict.REFUTED)):
        found, words = examine(vault, run(), dataset("public") | {"keys": said}, registered(ids))
        assert found is verdict
        assert ("and the keys of 'd' are said to be numbers" in words) is (verdict is Verdict.REFUTED)


def test_public_ids_are_computed_again_too(vault: Vault) -> None:
    ids = [public_id(preimage("d", row)) for row in range(3)]
    keep(vault, ids)
    verdict, words = examine(vault, run(), dataset("public"), registered(ids))
    assert (verdict, "under the key" in words) == (Verdict.HOLDS, False)
    wrong = [public_id(preimage("e", 0))]
    keep(vault, wrong)
    assert examine(vault, run(), dataset("public"), registered(wrong))[0] is Verdict.REFUTED


def test_a_pseudonym_that_commits_to_another_subjects_key_is_refuted(vault: Vault) -> None:
    ada, bob = (vault.secret(f"subject:{encode(s).hex()}") for s in ("ada", "bob"))
    ids = [keyed_id(ada, preimage("d", 0))]
    keep(vault, ids, subject="ada")
    events = keyed_run(vault), dataset("subject")
    right = registered(ids, subjects=subject_commitment(ada))
    assert examine(vault, *events, right)[0] is Verdict.HOLDS
    verdict, words = examine(vault, *events, registered(ids, subjects=subject_commitment(bob)))
    assert (verdict, f"under the pseudonym {subject_commitment(bob).hex()}" in words) == (Verdict.REFUTED, True)


def test_one_id_for_two_subjects_is_refuted(vault: Vault) -> None:
    ada, bob = (vault.secret(f"subject:{encode(s).hex()}") for s in ("ada", "bob"))
    ids = [keyed_id(ada, preimage("d", 0))]
    keep(vault, ids, subject="ada")
    twice = [registered(ids, subjects=subject_commitment(key)) for key in (ada, bob)]
    verdict, words = examine(vault, keyed_run(vault), dataset("subject"), *twice)
    assert (verdict, "entries 2 and 3 register the id" in words) == (Verdict.REFUTED, True)


def test_a_data_set_whose_scheme_is_not_said_or_said_twice_is_refuted(vault: Vault) -> None:
    ids = [public_id(preimage("d", 0))]
    keep(vault, ids)
    verdict, words = examine(vault, run(), dataset("public"), registered(ids), dataset("keyed"))
    assert (verdict, words) == (Verdict.REFUTED, "entry 3 gives 'd' keyed ids, an entry before it public ones")
    verdict, words = examine(vault, run(), registered(ids))
    assert (verdict, "no entry says how its ids are made" in words) == (Verdict.REFUTED, True)


def test_public_ids_in_a_keyed_run_are_said(vault: Vault) -> None:
    ids = [public_id(preimage("d", 0))]
    keep(vault, ids)
    verdict, words = examine(vault, keyed_run(vault), dataset("public"), registered(ids))
    assert (verdict, "(1 data sets have public ids, 'd' first)" in words) == (Verdict.HOLDS, True)


def test_a_trace_without_samples_has_nothing_to_refute(vault: Vault) -> None:
    verdict, words = examine(vault, keyed_run(vault))
    assert (verdict, "all 0 registered ids" in words) == (Verdict.HOLDS, True)
