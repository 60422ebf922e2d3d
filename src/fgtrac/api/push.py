"""The verb `push`: a sealed trace is copied to object storage, its tree head last, and only in place of one it extends.

Every object is put on a condition, and every one that lies there is compared, so that whatever is cut, repeated or done
by two at once, no head goes over what is gone or damaged. What lies there already is not sent again; what others have
signed there, and what they witnessed, is never replaced.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

from fgtrac.commit.publishing import HEAD, Contents, Signed, contents_of, stale_files
from fgtrac.errors import FormatError, ProofError, StorageError, TamperError
from fgtrac.query.found_places import decode_places
from fgtrac.query.seals import NotSealedError, open_full_seal
from fgtrac.store import durable
from fgtrac.store.far_trace import PLACES_BYTES
from fgtrac.store.file_digests import Digest, FileDigests
from fgtrac.store.object_answers import Overtaken
from fgtrac.store.object_storage import PLACES, Listed, Objects, Piece
from fgtrac.store.trace_dir import TraceDir, is_size
from fgtrac.tlog.merkle import root
from fgtrac.tlog.note import TreeHead, parse_note, parse_tree_head, with_signatures
from fgtrac.tlog.tiles import WIDTH, TileNodes, tiles_of

TRIES = 3  # for a trace that is sealed meanwhile
AT_ONCE = 8  # small files on the way, each in memory
SMALL_BYTES = 1 << 22
PIECE_BYTES = 1 << 22  # of what is read there
LOOKED_AT = 4096  # files at a time
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push came to: where it is, the head's size and root, how many files and bytes were sent, how many lay
    there already, how many stale ones were removed, and the paths of notes and receipts that are other ones there than
    here, and were left as they are."""

    url: str
    size: int
    root: bytes
    sent: int
    sent_bytes: int
    there: int
    removed: int
    left: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Plain data; the root as hex."""
        said = {"url": self.url, "size": self.size, "root": self.root.hex(), "sent": self.sent}
        return said | {
            "sent_bytes": self.sent_bytes,
            "there": self.there,
            "removed": self.removed,
            "left": list(self.left),
        }


def push_trace(
    path: str | os.PathLike[str],
    url: str,
    *,
    again: bool = False,
    progress: Progress | None = None,
    digests: FileDigests | None = None,
) -> Pushed:
    """Publish the sealed trace at `path` as `url`, s3://BUCKET/PREFIX/NAME.trace; the journal and the vault stay here.

    Only what is missing there is sent, and what lies there is compared with the files here. These are read and proven
    from the head in place on; with `again`, and where something is gone here or there, from the first entry on.
    `progress` is called with files that are there and files in all; `digests` are those that an earlier push has
    computed. A push that was cut goes on when it is repeated.
    FileNotFoundError or FormatError where there is no trace, or where what its head needs is gone, ValueError for a URL
    that is none, where nothing is sealed yet, and where more is published than this trace has; FileExistsError where
    another trace lies there; TamperError where what lies there is no beginning of this trace, or either is damaged;
    StorageError where object storage does not answer, refuses, knows no conditional writes, or somebody else published
    or sealed meanwhile.
    """
    trace = TraceDir.open(Path(path))
    digests = FileDigests() if digests is None else digests
    with Objects(url) as objects:
        for tries_left in reversed(range(TRIES)):
            note = trace.head_note()
            try:
                return _Push(trace, objects, again, digests).make(progress)
            except FileNotFoundError as error:
                if trace.head_note() == note:
                    raise
                if not tries_left:  # it was sealed meanwhile, and its older partial tiles went
                    raise StorageError(
                        f"{trace.path} was sealed {TRIES} times while it was read, and its head was not published yet: "
                        "push again"
                    ) from error
    raise AssertionError("unreachable")


@dataclass(slots=True)
class _Push:
    """One push: of the trace as its head is now."""

    trace: TraceDir
    objects: Objects
    again: bool
    digests: FileDigests
    head: TreeHead = field(init=False)
    there: dict[str, Listed] = field(init=False)
    published: TreeHead | None = field(init=False)  # and seen there before
    signed: Signed = field(init=False)
    sent: int = 0
    sent_bytes: int = 0
    kept: int = 0
    left: list[str] = field(default_factory=list)  # others' signatures and receipts, which are other ones here
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
        self.signed = Signed(self.trace, self.head)
        self.signed.check_here(HEAD, note, self.head.size)
        contents = self._contents()
        self._send(contents, progress)
        if before is not None:
            self._keep_signatures(before.data)
        if before is None or (before.data != note and self._follows(before.data, note)):
            self._publish(note, None if before is None else before.etag)
        self._leave_places()
        removed = self._remove(contents)
        said = str(self.objects.path), self.head.size, self.head.root
        return Pushed(*said, self.sent, self.sent_bytes, self.kept, removed, tuple(sorted(self.left)))

    def _contents(self) -> Contents:
        """What is to lie there: read and proven from the head in place on, or, where something that it covers is gone
        here or there, all of it. Artifacts of the head in place are among it, to be compared."""
        since = 0 if self.published is None or self.again else self.published.size
        here = {n for n in self.trace.names() if n.startswith("artifacts/") and not n.endswith(durable.TEMPORARY)}
        lacks_tile = any(tile.width == WIDTH and tile.path not in self.there for tile in tiles_of(since))
        if lacks_tile or self._artifacts_there() - here:  # of which only the log says what they are
            since = 0
        contents = contents_of(self.trace, self.head, since, self.digests)
        old = here - contents.said.keys() - contents.withdrawn
        if since and old - self.there.keys():  # gone there, or not yet in the log: the log says which
            contents = contents_of(self.trace, self.head, 0, self.digests)
            old = here - contents.said.keys() - contents.withdrawn
        contents.groups.insert(0, sorted(old & self.there.keys()))
        return contents

    def _artifacts_there(self) -> set[str]:
        return {path for path in self.there if path.startswith("artifacts/")}

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

    def _follows(self, theirs: bytes, ours: bytes) -> bool:
        """Whether a head goes in the place of another one: it covers more, or nobody signed there only."""
        assert self.published is not None
        return self.published.size < self.head.size or self._may_replace(HEAD, theirs, ours, self.head.size)

    def _keep_signatures(self, theirs: bytes) -> None:
        """What others have signed on the head that lies there goes into the note of its full seal, as it does here,
        before that head goes. StorageError where somebody else changes that note meanwhile."""
        assert self.published is not None
        path, before = f"index/{self.published.size}/{HEAD}", parse_note(theirs)
        if self.published.size == self.head.size or not (self.trace.path / path).exists():
            return
        others = [line for line in before.signatures if line.name != self.head.origin]
        if set(others) <= set(parse_note(self.trace.read(path)).signatures):
            return
        there = self.objects.read(path)
        cosigned = with_signatures(there.data, others)
        if cosigned != there.data and parse_note(cosigned).text == before.text:
            self._try_conditions()
            self.objects.put(path, cosigned, replaces=there.etag)

    # -- sending ----------------------------------------------------------------------------------------------------

    def _send(self, contents: Contents, progress: Progress | None) -> None:
        """Put what is missing there, group by group."""
        total, done = len(contents.paths), 0
        slices = (group[at : at + LOOKED_AT] for group in contents.groups for at in range(0, len(group), LOOKED_AT))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for todo in slices:
                digests = map(partial(self._digest, contents), todo)  # on this thread: one processor, which is counted
                looked = zip(todo, pool.map(partial(self._look, contents), todo, digests), strict=True)
                missing = [(path, digest) for path, digest in looked if digest is not None]
                self.kept += len(todo) - len(missing)
                done += len(todo) - len(missing)
                if missing:
                    self._try_conditions()
                small = [(p, digest) for p, digest in missing if digest.size <= SMALL_BYTES]
                large = [(p, digest) for p, digest in missing if digest.size > SMALL_BYTES]  # one by one
                for size in chain(pool.map(self._put, small), map(self._put, large)):
                    self.sent, self.sent_bytes, done = self.sent + 1, self.sent_bytes + size, done + 1
                    if progress is not None:
                        progress(done, total)

    def _digest(self, contents: Contents, path: str) -> Digest | None:
        """That of a file here; None for an artifact of the log that is gone. Raises as `TraceDir.plain`."""
        try:
            return self.digests.of(self.trace.plain(path))
        except FileNotFoundError:
            if path.startswith("artifacts/") and path in contents.said:
                return None
            raise

    def _look(self, contents: Contents, path: str, digest: Digest | None) -> Digest | None:
        """The digest of a file that has to be put there; None where it lies there, or is others' to change. TamperError
        where it is not what the log or the plan says, and where something else lies there that nobody may replace."""
        if digest is None:
            self._check_there(path, *contents.said[path])
            return None
        size_said, sha256 = contents.said.get(path, (None, bytes.fromhex(digest.sha256)))
        if sha256.hex() != digest.sha256 or size_said not in (None, digest.size):
            raise TamperError(f"{path} in {self.trace.path} is not what its log says: run fgtrac verify")
        found = self.there.get(path)
        if found is None:
            return digest
        if self._is_same(path, found, digest):
            return None
        folder, _, rest = path.partition("/")
        sealed = rest.partition("/")[0]
        if path.endswith(f"/{HEAD}") and is_size(sealed):
            theirs = self.objects.read(path).data
            return digest if self._may_replace(path, theirs, self.trace.read(path), int(sealed)) else None
        if folder == "receipts":
            self.left.append(path)
            return None
        if folder != "journal":
            raise TamperError(
                f"{self.objects.path}/{path} has {found.size:,} bytes, and not those of {self.trace.path} "
                f"({digest.size:,}): it is damaged, or of another trace's push that was cut; nothing was overwritten. "
                "Remove that object, or name another place, and push again"
            )
        return digest

    def _check_there(self, path: str, size: int | None, sha256: bytes) -> None:
        """An artifact that is gone here has to lie there as the log says: FileNotFoundError or TamperError else."""
        found, place = self.there.get(path), self.objects.path / path
        if found is None:
            raise FileNotFoundError(
                f"{path}, which the log names, is neither in {self.trace.path} nor at {place}; nothing was published: "
                "put it back here from a copy, and push again"
            )
        if found.size != size or (self.objects.sha256(path) or self._sha256_there(path, size)) != sha256.hex():
            raise TamperError(
                f"{place} has {found.size:,} bytes, and not those that the log says ({size:,}): it is damaged, and "
                f"gone here; nothing was overwritten. Put it back into {self.trace.path} from a copy, remove that "
                "object, and push again"
            )

    def _sha256_there(self, path: str, size: int) -> str:
        """That of an object's bytes, for one that somebody has put there without it."""
        sha256 = hashlib.sha256()
        for start in range(0, size, PIECE_BYTES):
            sha256.update(self.objects.read(path, start, min(PIECE_BYTES, size - start)).data)
        return sha256.hexdigest()

    def _may_replace(self, path: str, theirs: bytes, ours: bytes, size: int) -> bool:
        """Whether a note there has no signature that ours lacks; else it is left as it is. TamperError where it is no
        note of this log's first `size` entries, or its own signature fails."""
        try:
            there = self.signed.check(theirs, size)
        except (ProofError, FormatError) as error:
            raise TamperError(
                f"{self.objects.path}/{path}: {error}; nothing was overwritten. Remove that object, or name another "
                "place, and push again"
            ) from error
        if set(there.signatures) <= set(parse_note(ours).signatures):
            return True
        self.left.append(path)
        return False

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

    def _leave_places(self) -> None:
        """Say beside the trace where the entries lie that readers would go over the log for."""
        try:
            seal = open_full_seal(self.trace)
        except NotSealedError:
            return
        there = self._places_there()
        if not self.again and there is not None and decode_places(there.data, seal.head.root):
            return
        data = seal.places()
        if there is not None and there.data == data:
            return
        self._try_conditions()
        with suppress(Overtaken):  # by another push, which says so, too
            self.objects.put(PLACES, data, replaces=None if there is None else there.etag)

    def _places_there(self) -> Piece | None:
        try:
            return self.objects.read(PLACES, 0, PLACES_BYTES)
        except FileNotFoundError:
            return None

    # -- tidying up -------------------------------------------------------------------------------------------------

    def _remove(self, contents: Contents) -> int:
        """Remove what only older heads needed, and what was withdrawn; how many objects that were."""
        gone = stale_files(self.there, contents.paths, self.head.size)
        gone += sorted(p for p in contents.withdrawn & self._artifacts_there() if not (self.trace.path / p).exists())
        return self.objects.remove(gone)
