"""Files in place whole or not at all; locks that are held once; files that are held while somebody writes them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from fgtrac.store import durable
from fgtrac.store.durable import AppendFile


def test_a_file_whose_rename_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(OSError, match="target"):
        durable.write_file(tmp_path / "target", b"data")
    assert [p.name for p in tmp_path.iterdir()] == ["target"]


def test_a_file_being_written_is_held(tmp_path: Path) -> None:
    held: list[bool] = []

    def pieces():
        yield b"first"
        held.append(durable.is_held(tmp_path / "file.tmp"))
        yield b"second"

    durable.write_file(tmp_path / "file", pieces())
    assert held == [True]
    assert (tmp_path / "file").read_bytes() == b"firstsecond"
    assert not durable.is_held(tmp_path / "file")


def test_an_append_never_goes_into_a_file_that_was_removed_before_it_was_held(tmp_path: Path, monkeypatch) -> None:
    path, opening, removed = tmp_path / "segment", os.open, []

    def open_and_lose(name, flags, mode=0o777):
        fd = opening(name, flags, mode)
        if flags & os.O_APPEND and not removed:
            removed.append(os.unlink(path))
        return fd

    monkeypatch.setattr(os, "open", open_and_lose)
    file = AppendFile(path)
    file.append(b"entry")
    file.close()
    assert removed
    assert path.read_bytes() == b"entry"


def test_a_lock_keeps_out_other_threads_of_its_own_process(tmp_path: Path) -> None:
    refused: list[BlockingIOError] = []

    def second() -> None:
        try:
            with durable.lock(tmp_path / "lock", "the trace"):
                pass
        except BlockingIOError as error:
            refused.append(error)

    with durable.lock(tmp_path / "lock", "the trace"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "the trace is being sealed" in str(refused[0])
    second()
    assert len(refused) == 1


def test_create_file_does_not_replace(tmp_path: Path) -> None:
    durable.create_file(tmp_path / "key", b"one", mode=0o600)
    with pytest.raises(FileExistsError):
        durable.create_file(tmp_path / "key", b"two", mode=0o600)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("key", b"one")]
