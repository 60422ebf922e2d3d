"""While any process has a trace open for writing nobody is erased from it and no key replaced, and a kill lets go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

import fgtrac
from erasable import ANN, files_with, key_of, trace_id, write_small
from fgtrac.api.adding import adding, alone_in
from fgtrac.api.keys import rotate
from fgtrac.api.run import Run, reopen, start_run
from fgtrac.errors import CaptureError
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault

NOBODY = 65534


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    return write_small(tmp_path)


def resumed(trace: Path) -> Run:
    return start_run(trace, resume=True)


@pytest.mark.parametrize("begin", [resumed, reopen])
def test_a_run_that_has_written_nothing_yet_keeps_them_out(trace: Path, begin) -> None:
    hers = key_of(trace, ANN)
    run = begin(trace)
    for change in (lambda: fgtrac.erase(trace, subject=ANN), lambda: rotate([trace])):
        with pytest.raises(CaptureError, match=r"is being recorded by a process now, or open in one that may"):
            change()
    assert files_with(trace.parent, hers) == {"run.vault"}
    run.close()
    rotate([trace])
    fgtrac.erase(trace, subject=ANN)
    assert files_with(trace.parent, hers) == set()


def test_a_new_run_and_scores_that_are_added_keep_them_out_too(trace: Path, tmp_path: Path) -> None:
    with start_run(tmp_path / "new") as run:
        run.register(TensorDataset(torch.zeros(2, 1)), subject=[ANN, "bob"])
        with pytest.raises(CaptureError, match="is being recorded"):
            fgtrac.erase(run.path, subject=ANN)
    with adding(TraceDir.open(trace)), pytest.raises(CaptureError, match="is being recorded"):
        fgtrac.erase(trace, subject=ANN)
    fgtrac.erase(trace, subject=ANN)


def test_another_process_keeps_them_out_until_it_is_killed(trace: Path) -> None:
    program = (
        "import sys; from fgtrac.api.run import reopen; run = reopen(sys.argv[1]); "
        "print('open', flush=True); sys.stdin.read()"
    )
    child = [sys.executable, "-c", program, str(trace)]
    with subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(CaptureError, match="is being recorded"):
            fgtrac.erase(trace, subject=ANN)
        process.send_signal(signal.SIGKILL)
    fgtrac.erase(trace, subject=ANN)


def test_who_wants_to_write_waits_while_somebody_is_alone(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgtrac.api.adding.WAIT_S", 0.1)
    with alone_in(TraceDir.open(trace)):
        for begin in (resumed, reopen):
            with pytest.raises(BlockingIOError, match=r"a subject is being erased from .* or its key replaced; wait"):
                begin(trace)
    reopen(trace).close()


def test_a_run_that_cannot_begin_lets_go(trace: Path) -> None:
    vault = trace.with_suffix(".vault")
    vault.rename(trace.parent / "away")
    for begin in (resumed, reopen):
        with pytest.raises(FileNotFoundError, match="there is no vault at"):
            begin(trace)
    (trace.parent / "away").rename(vault)
    fgtrac.erase(trace, subject=ANN)


# -- what the disk refuses ------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_removed_is_named_after_the_key_is_gone(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hers, (rows,) = key_of(trace, ANN), trace.glob("artifacts/scoring/rows-*")
    remove = durable._remove

    def refuse(path: Path) -> None:
        if path == rows:
            raise OSError(5, "Input/output error")
        remove(path)

    monkeypatch.setattr(durable, "_remove", refuse)
    with pytest.raises(OSError, match=r"is destroyed; these files are not: .*rows-train-.*run fgtrac erase again"):
        fgtrac.erase(trace, subject=ANN)
    assert files_with(trace.parent, hers) == set()
    with pytest.raises(OSError, match=r"is destroyed; these files are not: .*rows-train-"):  # as long as it is so
        fgtrac.erase(trace, subject=ANN)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="An interrupted erasure was finished just now"):
        fgtrac.erase(trace, subject=ANN, key=trace.parent / "key.pem")
    assert not rows.exists()


def test_folders_that_cannot_be_written_stop_it_before_anything_is_destroyed() -> None:
    """In a child that is not root, who may write everywhere; so outside pytest's folder, which is the user's own."""
    with tempfile.TemporaryDirectory() as name:
        trace = write_small(Path(name))
        (trace / "artifacts/targets").chmod(0o555)
        if (child := os.fork()) == 0:
            code = 1
            try:
                if os.getuid() == 0:
                    for path in (Path(name), *Path(name).rglob("*")):
                        os.chown(path, NOBODY, NOBODY)
                    os.setgroups([])
                    os.setgid(NOBODY)
                    os.setuid(NOBODY)
                with pytest.raises(PermissionError, match=r"nothing of this subject was erased: .*/targets cannot be"):
                    fgtrac.erase(trace, subject=ANN, key=Path(name) / "key.pem")
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert key_of(trace, ANN)


def test_verify_with_the_vault_tells_of_an_interrupted_erasure(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fgtrac.api import erase as erasing
    from fgtrac.api.vault_audit import vault_demand

    def refuse(*_arguments: object) -> None:
        raise OSError(28, "no space left on device")

    path = trace.with_suffix(".vault")
    monkeypatch.setattr(erasing, "_withdraw", refuse)
    with pytest.raises(OSError, match="is destroyed"):
        fgtrac.erase(trace, subject=ANN)
    report = fgtrac.open(trace).verify(demands=[vault_demand(path, trace_id(trace))])
    (said,) = [note for note in report.notes if "an erasure was interrupted" in note]
    who = said.partition("subject ")[2][:16]
    assert f"run fgtrac erase again, with --subject {who}" in said
    monkeypatch.undo()
    with pytest.raises(ValueError, match="just now"):
        fgtrac.erase(trace, subject=ANN, key=trace.parent / "key.pem")
    vault = Vault.open(path, trace_id(trace))
    assert vault.unfinished() == []
    vault.close()
    report = fgtrac.open(trace).verify(demands=[vault_demand(path, trace_id(trace))])
    assert not any("interrupted: the key" in note or "an erasure was" in note for note in report.notes)
