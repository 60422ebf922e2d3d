"""Ranks that share no folder keep what they send until a head covers it: nothing is lost where rank 0 dies."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import fgtrac
from fgtrac.api.kept_folder import KeptWriter, read_kept
from fgtrac.api.sealing import seal_trace
from fgtrac.errors import FormatError
from fgtrac.store.journal import encode_frame
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from fgtrac.verify.report import Verdict
from rank_processes import Plan, together
from replays import report
from told_truth import read_told

OPTIONS: dict[str, Any] = {"gather": True, "flush_interval_s": 0.05}
CUT = Plan(own_folders=True, killed_at=(0, 1, 2), options=OPTIONS, checkpoints="none")


def cut_by_rank_0(folder: Path) -> Path:
    """Rank 0 is killed in the second epoch; the folder of what rank 1 keeps."""
    results = together(2, folder, CUT)
    assert results[0] is None
    (kept,) = (folder / "1" / "run.kept").iterdir()
    return kept


def refuted(folder: Path) -> list[str]:
    return [found.words for found in report(folder).findings if found.verdict is Verdict.REFUTED]


@pytest.mark.matrix("DDP", "no common folder, rank 0 is killed: what the others kept comes in at the resume")
def test_what_a_rank_kept_comes_in_when_the_training_goes_on(tmp_path: Path) -> None:
    kept = cut_by_rank_0(tmp_path)
    assert list((kept / "parcels").iterdir())
    for lost in (tmp_path / "0" / "run.trace" / "journal").glob("*.wal"):
        if any(lost.name == mine.name for mine in (kept / "journal").iterdir()):
            lost.unlink()  # what rank 0 had written of it: nothing rests on that
    again = together(2, tmp_path, Plan(own_folders=True, epochs=1, options=OPTIONS | {"resume": True}))
    assert all(isinstance(result, tuple) for result in again), again
    said = read_told(tmp_path / "0" / "run.trace")
    assert said.counts("run", "resume", "join", "leave", "end", "gap") == [1, 1, 4, 2, 1, 0]
    assert [len(said.trained(1, start)) for start in (0, 1)] == [10, 7]
    assert not (tmp_path / "1" / "run.kept").exists()
    assert not refuted(tmp_path / "0")


def test_what_a_rank_kept_can_be_brought_to_the_trace(tmp_path: Path) -> None:
    cut_by_rank_0(tmp_path)
    trace, brought = tmp_path / "0" / "run.trace", tmp_path / "brought.kept"
    shutil.copytree(tmp_path / "1" / "run.kept", brought)
    for _ in range(2):  # twice does no harm
        seal_trace(trace, tmp_path / "key.pem", kept=[brought])
    said = read_told(trace)
    assert [len(said.trained(rank)) for rank in (0, 1)] == [9, 10]
    assert said.counts("gap", "leave") == [1, 1]
    assert said.kind("gap")[0]["reason"].startswith("rank 0 of 2 ended without leaving")
    assert not refuted(tmp_path / "0")
    assert fgtrac.open(trace).history("TensorDataset:5").uses > 0  # the vault has its name


def test_a_folder_that_keeps_nothing_of_the_trace_is_refused(tmp_path: Path) -> None:
    fgtrac.start_run(tmp_path / "run", key=tmp_path / "key.pem").close()
    with pytest.raises(FileNotFoundError, match=r"keeps nothing of trace .*; name the NAME\.kept of a rank of it"):
        seal_trace(tmp_path / "run.trace", tmp_path / "key.pem", kept=[tmp_path])


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (["frames", bytes(16), encode_frame(b"entry")[:-1]], "are no whole frames"),
        (["frames", bytes(16), b"\xff" * 40], "are no whole frames"),
        (["frames", bytes(16), encode_frame(b"no entry")], "."),
        (["file", "checkpoint", b""], "is no file that a rank writes"),
        (["file", "artifacts/../checkpoint", b""], "is no file that a rank writes"),
        (["pickle", b""], "is nothing that a rank sends"),
        (["names", [[b"1"]]], "."),
        (["names"], "."),
        ([], "."),
        (None, "."),
    ],
)
def test_what_no_rank_can_have_sent_is_not_written(tmp_path: Path, said: Any, words: str) -> None:
    trace = TraceDir.create(tmp_path / "run.trace")
    vault = Vault.create(trace.vault_path, bytes(16))
    with pytest.raises(FormatError, match=words):
        KeptWriter(trace, vault).write(said)
    assert list(trace.journal.iterdir()) == []
    assert list(vault.names()) == []
    vault.close()


def test_a_parcel_that_is_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "parcels").mkdir()
    (tmp_path / "parcels" / f"{bytes(16).hex()}-00000000").write_bytes(b"\xff")
    with pytest.raises(FormatError):
        list(read_kept(tmp_path))
