"""The verb `push`: a sealed trace is copied to object storage, its tree head last, and only in place of one it extends.

Every object is put on a condition, so that whatever is cut, repeated or done by two at once, a head that lies there
has all that it covers, byte for byte. What lies there already is not sent again.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

from fgtrac.commit.publishing import HEAD, Contents, contents_of, stale_files, withdrawn_artifacts
from fgtrac.errors import FgtracError, FormatError, StorageError, TamperError
from fgtrac.store.object_answers import Overtaken
from fgtrac.store.object_storage import Digest, Listed, Objects, digest_of, is_url, parse_url, part_bytes
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.merkle import root
from fgtrac.tlog.note import TreeHead, parse_note, parse_tree_head
from fgtrac.tlog.tiles import WIDTH, TileNodes, parse_tile_path

SETTING = "FGTRAC_PUSH"
TRIES = 3  # for a trace that is sealed meanwhile
AT_ONCE = 16  # small files on the way
SMALL_BYTES = 1 << 22
_MAY_CHANGE = ("journal/", "receipts/")  # and full seals' notes, which cosignatures are added to
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push came to: where it is, the head's size and root, how many files and bytes were sent, how many lay
    there already, and how many stale ones were removed."""

    url: str
    size: int
    root: bytes
    sent: int
    sent_bytes: int
    there: int
    removed: int

    def as_json(self) -> dict[str, object]:
        """Plain data; the root as hex."""
        said = {"url": self.url, "size": self.size, "root": self.root.hex(), "sent": self.sent}
        return said | {"sent_bytes": self.sent_bytes, "there": self.there, "removed": self.removed}


def push_trace(
    path: str | os.PathLike[str],
    url: str,
    *,
    again: bool = False,
    progress: Progress | None = None,
) -> Pushed:
    """Publish the sealed trace at `path` as `url`, s3://BUCKET/PREFIX/NAME.trace; the journal and the vault stay here.

    Only what is missing there is sent; with `again`, what earlier heads published is looked at too, and put back where
    it is gone. `progress` is called with files that are there and files in all. A push that was cut goes on when it is
    repeated. FileNotFoundError or FormatError where there is no trace, ValueError for a URL that is none, where nothing
    is sealed yet, and where more is published than this trace has; FileExistsError where another trace lies there;
    TamperError where what lies there is no beginning of this trace, or this one is damaged; StorageError where object
    storage does not answer, refuses, knows no conditional writes, or somebody else published meanwhile.
    """
    trace = TraceDir.open(Path(path))
    with Objects(url) as objects:
        for tries_left in reversed(range(TRIES)):
            note = trace.head_note()
            try:
                return _Push(trace, objects, again).make(progress)
            except FileNotFoundError:
                if not tries_left or trace.head_note() == note:
                    raise  # else it was sealed meanwhile, and its older partial tiles went
    raise AssertionError("unreachable")


def pushed_to(path: Path, environment: Mapping[str, str] | None = None) -> str | None:
    """Where a trace goes after each of its seals, as FGTRAC_PUSH=s3://BUCKET/PREFIX says; None where it says nothing.
    ValueError where it is no such place."""
    said = (os.environ if environment is None else environment).get(SETTING)
    if not said:
        return None
    url = f"{said.rstrip('/')}/{path.name}"
    if not is_url(said):
        raise ValueError(f"{SETTING} names no place on object storage; set it to s3://BUCKET/PREFIX, or unset it")
    parse_url(url)
    return url


class PushBehind:
    """Pushes a run's trace behind its seals, where FGTRAC_PUSH says so. ValueError, at once, where that is no place."""

    def __init__(self, path: Path) -> None:
        self._path, self._url = path, pushed_to(path)

    def __call__(self) -> None:
        """Push. Where that fails nothing is lost: a RuntimeWarning says so, and the next push sends all."""
        if self._url is None:
            return
        try:
            push_trace(self._path, self._url)
        except (FgtracError, OSError, ValueError) as error:
            words = f"{self._path.name} was sealed and not pushed: {error}"
            warnings.warn(f"fgtrac: {words}; later: fgtrac push {self._path} {self._url}", RuntimeWarning, stacklevel=3)


@dataclass(slots=True)
class _Push:
    """One push: of the trace as its head is now."""

    trace: TraceDir
    objects: Objects
    again: bool
    head: TreeHead = field(init=False)
    there: dict[str, Listed] = field(init=False)
    published: TreeHead | None = field(init=False)  # and seen there before
    sent: int = 0
    sent_bytes: int = 0
    kept: int = 0
    is_tried: bool = False  # that conditions are heeded

    def make(self, progress: Progress | None) -> Pushed:
        """All of it."""
        note = self.trace.head_note()
        if note is None:
            raise ValueError(f"{self.trace.path} has no sealed entries; run fgtrac seal {self.trace.path} first")
        self.head = parse_tree_head(parse_note(note).text)
        self.there = self.objects.listed()
        before = self.objects.read(HEAD) if HEAD in self.there else None
        self.published = None if before is None else self._extended(before.data)
        since = 0 if self.published is None or self.again else self.published.size
        contents = contents_of(self.trace, self.head, since)
        self._send(contents, since, progress)
        if before is None or before.data != note:
            self._publish(note, None if before is None else before.etag)
        removed = self._remove(contents)
        said = str(self.objects.path), self.head.size, self.head.root
        return Pushed(*said, self.sent, self.sent_bytes, self.kept, removed)

    def _extended(self, note: bytes) -> TreeHead:
        """The head that lies there, which this trace's must extend."""
        where = self.objects.path
        try:
            found = parse_tree_head(parse_note(note).text)
        except FormatError as error:
            raise FormatError(f"{where}/{HEAD}: {error}; name another place, or remove what lies there") from error
        if found.origin != self.head.origin:
            raise FileExistsError(f"{where} is another trace ({found.origin:.80}); name another place")
        if found.size > self.head.size:
            raise ValueError(
                f"{where} has {found.size} entries published, and {self.trace.path} has {self.head.size}: push the "
                "trace that has them all, or name another place"
            )
        if found.size and root(found.size, TileNodes(self.trace, self.head.size)) != found.root:
            raise TamperError(
                f"the {found.size} entries published as {where} are not the first of the {self.head.size} in "
                f"{self.trace.path}: one of the two is a fork; nothing was overwritten"
            )
        return found

    # -- sending ----------------------------------------------------------------------------------------------------

    def _send(self, contents: Contents, since: int, progress: Progress | None) -> None:
        """Put what is missing there, group by group."""
        total, done = len(contents.paths), 0
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for group in contents.groups:
                todo = [path for path in group if not self._is_covered(path, since)]
                looked = zip(todo, pool.map(partial(self._look, contents), todo), strict=True)
                missing = [(path, digest) for path, digest in looked if digest is not None]
                self.kept += len(group) - len(missing)
                done += len(group) - len(missing)
                if missing:
                    self._try_conditions()
                small = [(p, digest) for p, digest in missing if digest.size <= SMALL_BYTES]
                large = [(p, digest) for p, digest in missing if digest.size > SMALL_BYTES]  # one by one
                for size in chain(pool.map(self._put, small), map(self._put, large)):
                    self.sent, self.sent_bytes, done = self.sent + 1, self.sent_bytes + size, done + 1
                    if progress is not None:
                        progress(done, total)

    def _is_covered(self, path: str, since: int) -> bool:
        """Whether a full tile lies there that the head in place covers: it was there before that head was."""
        if not path.startswith("tile/") or path not in self.there:
            return False
        tile = parse_tile_path(path)
        return tile.width == WIDTH and (tile.number + 1) * WIDTH <= since >> 8 * max(tile.level, 0)

    def _look(self, contents: Contents, path: str) -> Digest | None:
        """The digest of a file that has to be put there; None where it lies there. TamperError where it is not what
        the log says, and where something else lies there that nobody may replace."""
        place = self.trace.plain(path)
        size = place.stat().st_size
        with place.open("rb") as file:
            digest = digest_of(iter(lambda: file.read(part_bytes(size)), b""), size)
        said = contents.said.get(path, (digest.size, bytes.fromhex(digest.sha256)))
        if said != (digest.size, bytes.fromhex(digest.sha256)):
            raise TamperError(f"{path} in {self.trace.path} is not what its log says: run fgtrac verify")
        found = self.there.get(path)
        if found is None:
            return digest
        if self._is_same(path, found, digest):
            return None
        if not path.startswith(_MAY_CHANGE) and not path.endswith(f"/{HEAD}"):
            raise TamperError(
                f"{self.objects.path}/{path} has {found.size:,} bytes, and not those of {self.trace.path} "
                f"({digest.size:,}): it is damaged, or of another trace's push that was cut; nothing was overwritten. "
                "Remove that object, or name another place, and push again"
            )
        return digest

    def _is_same(self, path: str, found: Listed, digest: Digest) -> bool:
        """Whether an object has a file's bytes: by its ETag, or, where that is no MD5, by the SHA-256 noted with it."""
        if found.size != digest.size:
            return False
        return found.etag == digest.etag or self.objects.sha256(path) == digest.sha256

    def _put(self, missing: tuple[str, Digest]) -> int:
        """Put one file; its size. TamperError where another one was put there meanwhile."""
        path, digest = missing
        found = self.there.get(path)
        try:
            replaces = None if found is None else found.etag
            self.objects.put_file(path, self.trace.plain(path), digest, replaces=replaces)
        except Overtaken:  # perhaps by this very put, whose answer was lost
            now = self.objects.listed(path).get(path)
            if now is None or not self._is_same(path, now, digest):
                raise
        return digest.size

    def _try_conditions(self) -> None:
        if not self.is_tried:
            self.objects.check_conditions()
            self.is_tried = True

    def _publish(self, note: bytes, replaces: str | None) -> None:
        """Put the head in place of the one that was seen there. StorageError where it is another by now."""
        self._try_conditions()
        try:
            self.objects.put(HEAD, note, replaces=replaces)
            return
        except Overtaken as error:
            now = self.objects.read(HEAD).data
            if now == note:
                return  # it is this one: the answer was lost
            theirs = parse_tree_head(parse_note(now).text)
            before = 0 if self.published is None else self.published.size
            raise StorageError(
                f"somebody else published {theirs.size} entries as {self.objects.path} while {self.head.size} were "
                f"sent to follow {before}; nothing was overwritten: push again"
            ) from error

    # -- tidying up -------------------------------------------------------------------------------------------------

    def _remove(self, contents: Contents) -> int:
        """Remove what only older heads needed, and what was withdrawn; how many objects that were."""
        gone = stale_files(self.there, contents.paths, self.head.size)
        lost = [p for p in self.there if p.startswith("artifacts/") and not (self.trace.path / p).exists()]
        if lost:
            gone += sorted(withdrawn_artifacts(self.trace, self.head).intersection(lost))
        return self.objects.remove(gone)
