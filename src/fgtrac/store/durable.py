"""The only place that changes a trace's files: write, sync, rename, remove, lock.

Every system call goes through one of four functions below, so that tests can make each of them fail once.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY = ".tmp"
ZEROS = 1 << 20  # bytes written at once by `overwrite`
_NO_LINK = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a file itself: no link is followed, no pipe waited for
_ONE_NAME = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)  # of a hard link that cannot be


def _write(fd: int, data: bytes | memoryview) -> int:
    return os.write(fd, data)


def _fsync(fd: int) -> None:
    os.fsync(fd)


def _rename(source: Path, target: Path) -> None:
    os.replace(source, target)


def _remove(path: Path) -> None:
    os.unlink(path)


def write_file(path: Path, data: bytes | Iterable[bytes | memoryview], *, mode: int = 0o644, sync: bool = True) -> None:
    """Put a whole file in place: the old one, or nothing, until the new one is complete and on disk.

    Of several writers at once each puts a whole file in place. A crash before the rename leaves a file ending in .tmp,
    which recovery removes unless somebody still holds it.
    OSError where the disk refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + TEMPORARY)
    fd = _open_held(temporary, os.O_WRONLY | os.O_CREAT, mode)
    try:
        os.ftruncate(fd, 0)  # of a process that was cut short; only now, since until then it was somebody else's
        for piece in [data] if isinstance(data, bytes) else data:
            _write_all(fd, piece)
        if sync:
            _fsync(fd)
        _rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        _let_go(fd)
    if sync:
        sync_folder(path.parent)


def write_at(path: Path, offset: int, data: Iterable[bytes | memoryview], *, cut: bool = False) -> None:
    """Put bytes at a place in a file, which is made where it is not there; with `cut`, nothing stays behind them.

    Not on disk before `sync_file`: of a file that is being put together, whose reader checks it. OSError where the disk
    refuses, or a link or a pipe has the name.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | _NO_LINK, 0o644)
    try:
        os.lseek(fd, offset, os.SEEK_SET)
        for piece in data:
            _write_all(fd, piece)
        if cut:
            os.ftruncate(fd, os.lseek(fd, 0, os.SEEK_CUR))
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """Wait until all that was written into a file is on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _fsync(fd)
    finally:
        os.close(fd)


def put_also(source: Path, target: Path) -> None:
    """Give a file that is on disk another name as well, in the place of what has that name. On a file system where a
    file has one name, it is moved. OSError where the disk refuses."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + TEMPORARY)
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError as error:
        if error.errno not in _ONE_NAME:
            raise
        _rename(source, target)
    else:
        _rename(temporary, target)
        temporary.unlink(missing_ok=True)  # two names of one file: the rename does nothing
    sync_folder(target.parent)


def create_file(path: Path, data: bytes, *, mode: int) -> None:
    """Put a whole file in place where there is none. FileExistsError where there is one, even one made just now.

    A crash before the end leaves a file ending in .tmp, which nobody holds.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f"{path.name}.{os.urandom(8).hex()}{TEMPORARY}")
    fd = _open_held(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        _write_all(fd, data)
        _fsync(fd)
        os.link(temporary, path)
    finally:
        temporary.unlink()
        _let_go(fd)
    sync_folder(path.parent)


def _open_held(path: Path, flags: int, mode: int) -> int:
    """Open a file and hold it (flock); never one that was removed between the two, nor a link or a pipe (OSError)."""
    while True:
        fd = os.open(path, flags | _NO_LINK, mode)
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except FileNotFoundError:
            pass  # whoever held it has removed it: a new one is opened
        os.close(fd)


def _let_go(fd: int) -> None:
    fcntl.flock(fd, fcntl.LOCK_UN)  # for forked children's copies too
    os.close(fd)


def _write_all(fd: int, data: bytes | memoryview) -> None:
    rest = memoryview(data).cast("B") if len(data) else memoryview(b"")
    while len(rest):
        rest = rest[_write(fd, rest) :]


def sync_folder(folder: Path) -> None:
    """Wait until a folder's own entries (new names, removed names) are on disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, and sync the one that it appears in."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


def make_own_folder(folder: Path) -> None:
    """Make a folder, and those above it, that is for this user alone (0700); what is there of the user's becomes so. A
    link or file of its name is removed, not followed. PermissionError where the folder is another user's."""
    if os.path.lexists(folder) and not stat.S_ISDIR(folder.lstat().st_mode):
        _remove(folder)
    make_folder(folder)
    if folder.lstat().st_uid != os.geteuid():
        raise PermissionError(f"{folder} is another user's folder; remove it, then try again")
    folder.chmod(0o700)


def remove(path: Path) -> None:
    """Remove a file, or the link that has its name; it may have gone already."""
    if os.path.lexists(path):
        _remove(path)


def remove_folder(folder: Path) -> None:
    """Remove a folder and all that is in it, following no link; what has gone already is passed over."""
    for path in sorted(folder.rglob("*"), reverse=True):
        with suppress(FileNotFoundError):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                _remove(path)
    with suppress(FileNotFoundError):
        folder.rmdir()


def overwrite(path: Path) -> None:
    """Put zeros where a file's bytes are, on disk before this returns, and leave it as long as it is."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for rest in range(os.fstat(fd).st_size, 0, -ZEROS):
            _write_all(fd, bytes(min(rest, ZEROS)))
        _fsync(fd)
    finally:
        os.close(fd)


def scratch(folder: Path, size: int) -> mmap.mmap:
    """So many bytes of the folder's disk (the system's, where it is not there), mapped, in a file without a name: gone
    when nobody holds them, also of a process that is killed. OSError where the disk has not the room."""
    with tempfile.TemporaryFile(dir=folder if folder.is_dir() else None) as file:
        os.posix_fallocate(file.fileno(), 0, size)  # else a disk that fills up later would be a SIGBUS
        return mmap.mmap(file.fileno(), size)


def remove_empty(folder: Path, top: Path) -> None:
    """Remove a folder and those above it as long as they are empty, up to but not including `top`."""
    while folder != top and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def rename(source: Path, target: Path) -> None:
    """Give a file another name in the same folder, on disk before this returns."""
    _rename(source, target)
    sync_folder(target.parent)


class AppendFile:
    """A file that only grows; it appears with the first append, and each append is one write call.

    While it is open it is held (flock): a sealer in this or any other process sees that more may come. A forked
    data-loader worker inherits the hold, so `close` gives it up for all of them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._size = 0
        self._named = True

    def append(self, data: bytes) -> None:
        """Add bytes at the end, all or none: what a failed write left is cut off again. OSError where it fails."""
        if self._fd < 0:
            self._fd = _open_held(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            self._size = os.fstat(self._fd).st_size
            self._named = False  # for certain on disk
        try:
            _write_all(self._fd, data)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)

    def sync(self) -> None:
        """Wait until everything appended, and the file's name, is on disk."""
        if self._fd >= 0:
            _fsync(self._fd)
            if not self._named:
                sync_folder(self.path.parent)
                self._named = True

    def close(self) -> None:
        """Close the file; appending opens it again."""
        if self._fd >= 0:
            _let_go(self._fd)
            self._fd = -1


class FolderHold:
    """A folder that is held (flock) until `close`, along with others or alone. BlockingIOError, at once, where somebody
    else's hold forbids it. The system lets go of a process that ends, however it does; a forked data-loader worker
    inherits the hold, so `close` gives it up for all of them."""

    def __init__(self, folder: Path, *, alone: bool) -> None:
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._fd, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        """Let go; once is enough."""
        if self._fd >= 0:
            _let_go(self._fd)
            self._fd = -1


@contextmanager
def alone_with(path: Path) -> Iterator[int | None]:
    """Hold a file that nobody is writing, and give its size; None where somebody is, or where it is not there. A pipe
    keeps nobody waiting."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        yield None
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = os.fstat(fd).st_size
    except BlockingIOError:
        size = None
    try:
        yield size
    finally:
        _let_go(fd)  # else a child that was forked meanwhile would hold it


def is_held(path: Path) -> bool:
    """Whether somebody is writing this file. False where it is not there, and for what is no plain file: a stranger's
    link or pipe is not opened."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
    except FileNotFoundError:
        return False
    with alone_with(path) as size:
        return size is None and path.exists()


_locked_here: set[Path] = set()  # a POSIX lock does not keep out its own process
_locking = threading.Lock()


@contextmanager
def lock(path: Path, what: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the file's lock; BlockingIOError, naming `what`, where somebody else does for longer than `wait_s`.

    fcntl.lockf: the lock belongs to the process, so a forked data-loader worker does not inherit it.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    deadline = time.monotonic() + wait_s
    while (fd := _try_lock(path)) is None:
        if time.monotonic() >= deadline:
            raise BlockingIOError(f"{what} is being sealed by another process or thread; wait for it, then try again")
        time.sleep(0.05)
    try:
        yield
    finally:
        with _locking:
            _locked_here.discard(path)
            os.close(fd)


def _try_lock(path: Path) -> int | None:
    with _locking:
        if path in _locked_here:
            return None
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)  # somebody else's: the caller decides whether to wait
            return None
        _locked_here.add(path)
        return fd


def try_locks(folder: Path) -> str | None:
    """Whether a folder's file system keeps two holders of a file apart, tried on a file without a name: None where it
    does, else what went wrong. OSError where no file can be made there."""
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as seals do
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as writers of the journal do
        except OSError as error:
            return f"a lock is refused: {error.strerror}"
        other = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        finally:
            os.close(other)
    return "two holders of one file are not kept apart"
