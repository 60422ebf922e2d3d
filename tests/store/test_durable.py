"""Files in place whole or not at all; locks that are held once; files that are held while somebody writes them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from fgtrac.store import durable
from fgtrac.store.durable import AppendFile


def test_a_file_whose_rename_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(OSError, match="target"):
        durable.write_file(tmp_path / "target", b"data")
    assert [p.name for p in tmp_path.iterdir()] == ["target"]


NOTES = [bytes([n]) * 5000 for n in range(1, 5)]


def write_often(path: Path, number: int) -> None:
    for _ in range(20):
        durable.write_file(path, NOTES[number])


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_several_writers_of_one_file_show_a_reader_a_whole_one_at_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    fsync = durable._fsync

    def slow(fd: int) -> None:
        time.sleep(0.001)  # the others come to wait for it
        fsync(fd)

    monkeypatch.setattr(durable, "_fsync", slow)
    write_often(tmp_path / "file", 0)
    fork = multiprocessing.get_context("fork")
    begin = threading.Thread if kind == "threads" else fork.Process
    writers = [begin(target=write_often, args=(tmp_path / "file", n)) for n in range(len(NOTES))]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        seen.add((tmp_path / "file").read_bytes())
    for writer in writers:
        writer.join()
        assert getattr(writer, "exitcode", 0) == 0
    assert seen <= set(NOTES)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_longer_temporary_of_a_process_that_was_cut_short_leaves_nothing_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "file.tmp").write_bytes(b"longer than what is written")
    durable.write_file(tmp_path / "file", b"data")
    assert (tmp_path / "file").read_bytes() == b"data"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


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


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tmp")
    (tmp_path / "link.tmp").symlink_to(tmp_path / "pipe.tmp")
    assert not durable.is_held(tmp_path / "pipe.tmp")
    assert not durable.is_held(tmp_path / "link.tmp")
    with durable.alone_with(tmp_path / "pipe.tmp") as size:
        assert size == 0


def test_a_child_that_was_forked_meanwhile_does_not_hold_what_its_parent_let_go(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    with durable.alone_with(tmp_path / "file") as size:
        assert size == 4
        if (child := os.fork()) == 0:
            signal.pause()
    try:
        assert not durable.is_held(tmp_path / "file")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


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


def test_a_folder_is_removed_with_all_in_it_and_nothing_behind_its_links(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    (folder / "a" / "b").mkdir(parents=True)
    outside.mkdir()
    (outside / "kept").touch()
    (folder / "a" / "b" / "file").touch()
    (folder / "link").symlink_to(outside, target_is_directory=True)
    durable.remove_folder(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (outside / "kept").exists()
    durable.remove_folder(folder)  # gone already


def test_what_is_written_goes_through_no_link_and_waits_for_no_pipe(tmp_path: Path) -> None:
    theirs, link, pipe = tmp_path / "theirs", tmp_path / "link", tmp_path / "pipe"
    theirs.write_bytes(b"mine")
    link.symlink_to(theirs)
    os.mkfifo(pipe)
    for name in (link, pipe):
        with pytest.raises(OSError, match=name.name):
            durable.write_at(name, 0, [b"other"])
        with pytest.raises(OSError, match=name.name):
            durable.AppendFile(name).append(b"other")
        (tmp_path / "whole.tmp").unlink(missing_ok=True)
        name.rename(tmp_path / "whole.tmp")
        with pytest.raises(OSError, match="whole"):
            durable.write_file(tmp_path / "whole", b"other")
    assert theirs.read_bytes() == b"mine"


def test_a_folder_of_another_user_is_refused_as_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    durable.make_own_folder(tmp_path / "mine")
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PermissionError, match="mine is another user's folder"):
        durable.make_own_folder(tmp_path / "mine")
