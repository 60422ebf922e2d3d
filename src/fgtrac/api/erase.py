"""The verb `erase`: a subject's key, its names and what opens the order of epochs go, and the log says so.

The order of writes, and what a kill behind each of them leaves:

    1  one transaction of the vault: key, names and openings go;    before: nothing is erased. Behind: `erase` goes on
       a note stays of what is left to do                           here; the deleted bytes may lie in the vault's files
    2  the vault is written anew, its journal overwritten           as 1, without the bytes
    3  artifacts that hold the subject's rows are removed           as 2; `fgtrac verify` misses the files
    4  the `erasure` entries, synced in the journal                 as 3; the next seal takes them
    5  a seal                                                       done, but for the note
    6  the vault forgets the note

The log speaks last: a sealed `erasure` entry tells of a key and of files that are gone. `erase`, whoever it is asked to
erase, first finishes what was interrupted. From 1 to 6 no other process has the trace open for writing.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.adding import WAIT_S, alone_in, take_up
from fgtrac.api.naming import Subject, by_pseudonym, find_scope, key_of, number_of, subject_of, subject_words, typed
from fgtrac.api.prior import trace_id_of
from fgtrac.commit import sequencer
from fgtrac.commit.signer import Signer
from fgtrac.errors import FormatError, ProofError, TamperError
from fgtrac.events.codec import encode
from fgtrac.events.identity import keyed_id, preimage, subject_commitment
from fgtrac.events.postings import PostingTable
from fgtrac.events.schema import decode_event, encode_event
from fgtrac.query.view_cache import forget_views
from fgtrac.score import target_files
from fgtrac.score.factor_files import FOLDER, Rows, is_factor_file, is_shard, losses_path, parse_head, parse_rows
from fgtrac.store import durable
from fgtrac.store.journal import JournalWriter
from fgtrac.store.tensor_files import open_tensors
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from fgtrac.tlog.tiles import WIDTH, read_bundle

OPENINGS = ("sampler/", "placement/")  # they tell which row of a data set each sample is, of every subject
ORDINALS_AN_ENTRY, PATHS_AN_ENTRY = 10_000, 100  # together below the 65,535 bytes of an entry
_FINISHED = ". An interrupted erasure was finished just now; if it was of this subject, all is done"
_KINDS = ("samples", "artifact", "erasure")


@dataclass(frozen=True, slots=True)
class Erasure:
    """What an erasure takes, or took: the subject's pseudonym, how many samples of it the log registers, how many names
    and openings the vault has, and the paths of the artifacts. `resumed`: an earlier erasure was interrupted, and is
    done now; the names and openings that it took are not counted."""

    pseudonym: bytes
    samples: int
    names: int
    openings: int
    artifacts: tuple[str, ...]
    resumed: bool = False


def erase(
    trace: str | os.PathLike[str],
    *,
    subject: Subject,
    key: str | os.PathLike[str] | None = None,
    agree: Callable[[Erasure], bool] = lambda found: True,
    report: Callable[[Erasure], object] = lambda done: None,
) -> list[Erasure]:
    """Erase a subject from the trace at `trace`; what was erased, interrupted erasures first. This cannot be undone.

    `subject` is what `register(subject=...)` was given, a text or a number, or its pseudonym in hex, of which the first
    16 digits do. `key` is the signing key's file. `agree` is asked before anything of this subject is destroyed; False
    leaves it. `report` is told of each erasure as it is done, also where an error follows. What can still be linked to
    the subject afterwards: docs/erasure.md.

    ValueError for a subject that the vault has no key of, and for typed digits that may mean another's (a text and a
    number are two subjects, and one of them may be erased); FileNotFoundError without the trace, its vault or the
    signing key; CaptureError or BlockingIOError while another process has the trace open for writing or holds the
    vault; TamperError for a file of factors that is not the log's; OSError where the disk refuses, which says whether
    the key is destroyed: erase again goes on from there.
    """
    folder = TraceDir.open(Path(trace))
    trace_id = trace_id_of(folder)
    if not folder.vault_path.exists():
        raise FileNotFoundError(
            f"there is no vault at {folder.vault_path}: the keys that an erasure destroys lie in it; erase where it is"
        )
    signing_key, done = None if key is None else Path(key), list[Erasure]()
    vault = Vault.open(folder.vault_path, trace_id, read_only=False)

    def say(found: Erasure) -> None:
        done.append(found)
        report(found)

    try:
        with alone_in(folder):
            signer = take_up(folder, signing_key)
            for note in vault.unfinished():
                say(_resume(folder, vault, signer, *note))
        try:
            scope = _scope_of(folder, vault, subject)
        except ValueError as error:
            raise ValueError(f"{error}{_FINISHED if done else ''}") from error
        if agree(_look(folder, vault, scope)[0]):
            with alone_in(folder):  # asking may have taken a while
                say(_erase(folder, vault, take_up(folder, signing_key), scope))
        return done
    finally:
        vault.close()


# -- who, and what is there -----------------------------------------------------------------------------------------


def _scope_of(trace: TraceDir, vault: Vault, subject: Subject) -> str:
    """The vault's scope of a subject's key. ValueError where it has none, or where it may be another's."""
    scope, others = find_scope(vault, subject)
    keys = {scope: subject_commitment(key) for scope, key in vault.secrets() if scope.startswith("subject:")}
    if scope is not None and others and (lost := _without_key(trace, vault)):
        mine, other = subject_words(scope), subject_words(others[0])
        raise ValueError(
            f"{vault.path.name} has a key of {mine} and none of {other}, which may be one of the log's subjects whose "
            f"keys are gone ({lost}); if you mean {mine}, name its pseudonym, {keys[scope].hex()}"
        )
    if scope is not None:
        return scope
    if (pseudonym := by_pseudonym(subject, keys.values())) is not None:
        return next(scope for scope in keys if keys[scope] == pseudonym)
    if keys:
        why = "it was erased before, or no data set was registered with it"
    else:
        why = (
            "no data set has subjects, or all are erased. Samples without one share the run's key and cannot be erased "
            "one by one: register them with subject= in the next run, or destroy this whole vault"
        )
    raise ValueError(
        f"{vault.path.name} has no key of a subject {typed(subject)!r:.80}: {why}{number_of(vault, subject)}"
    )


def _without_key(trace: TraceDir, vault: Vault) -> int:
    """Of how many subjects in the log the vault has no key: they were erased, or another vault has it."""
    named = set[bytes]()
    for _number, event in _events(trace):
        if event["kind"] == "erasure":
            named.add(event["pseudonym"])
        elif "subjects" in event:
            named.update(np.frombuffer(event["subjects"], dtype="V32").tolist())
    return len(named - {subject_commitment(key) for _scope, key in vault.secrets()})


def _look(trace: TraceDir, vault: Vault, scope: str) -> tuple[Erasure, list[bytes]]:
    """What erasing that subject takes, and the ids of its names in the vault. Changes nothing."""
    secret = vault.find_secret(scope)
    assert secret is not None
    pseudonym, subject = subject_commitment(secret), subject_of(scope)
    named = vault.names_of(str(subject))  # a number and its digits alike: the ids tell them apart
    names = [n.id for n in named if keyed_id(secret, preimage(n.dataset, key_of(n.key))) == n.id]
    log = _Log(trace, pseudonym)
    samples = log.samples()
    artifacts = tuple(dict.fromkeys(_artifacts_of(trace, log.artifacts, samples)))
    openings = sum(len(vault.openings(prefix)) for prefix in OPENINGS)
    return Erasure(pseudonym, sum(map(len, samples.values())), len(names), openings, artifacts), names


class _Log:
    """What the log says of one subject: its samples, the artifacts that there are, what is erased already."""

    def __init__(self, trace: TraceDir, pseudonym: bytes) -> None:
        self.artifacts: dict[str, bytes] = {}  # path -> SHA-256
        self.erased: dict[bytes, list[NDArray[np.uint32]]] = {}
        self._blocks, self._mine = PostingTable(), dict[bytes, list[NDArray[np.void]]]()
        self._pseudonym = np.array([pseudonym], dtype="V32")
        for number, event in _events(trace):
            if event["kind"] == "samples":
                self._register(number, event)
            elif event["kind"] == "artifact":
                self.artifacts[event["path"]] = event["sha256"]
            else:
                for path in event["artifacts"]:
                    self.artifacts.pop(path, None)
                if event["pseudonym"] == pseudonym:
                    self.erased.setdefault(event["block"], []).append(event["ordinals"])

    def _register(self, number: int, event: dict[str, Any]) -> None:
        self._blocks.recall(number, event)
        if "subjects" in event:
            ids, subjects = (np.frombuffer(event[column], dtype="V32") for column in ("ids", "subjects"))
            self._mine.setdefault(event["block"], []).append(ids[np.isin(subjects, self._pseudonym)])

    def samples(self) -> dict[bytes, NDArray[np.uint32]]:
        """Block -> the ordinals of the subject's samples, ascending. A registration that was cut short has none."""
        found = {}
        for block, mine in self._mine.items():
            if block not in self._blocks.missing_parts():
                ids = np.ascontiguousarray(self._blocks.ids(block)).view("V32").reshape(-1)
                ordinals = np.flatnonzero(np.isin(ids, np.concatenate(mine))).astype(np.uint32)
                if len(ordinals):
                    found[block] = ordinals
        return found


def _events(trace: TraceDir) -> Iterator[tuple[int, dict[str, Any]]]:
    head = trace.head()
    size = head.size if head is not None else 0
    wanted = [encode("kind") + encode(kind) for kind in _KINDS]
    for bundle in range(-(-size // WIDTH)):
        for place, entry in enumerate(read_bundle(trace, bundle, size)):
            if any(words in entry for words in wanted):
                event = decode_event(entry)
                if event["kind"] in _KINDS:
                    yield bundle * WIDTH + place, event


def _artifacts_of(
    trace: TraceDir, artifacts: dict[str, bytes], samples: dict[bytes, NDArray[np.uint32]]
) -> Iterator[str]:
    """The files that hold rows of these samples, or may: lists of rows with their labels; the factors of such a list,
    and of one that is gone, so that nobody can say whose they are, with their losses; what no entry names, as a killed
    scoring leaves it; and every file of a target's gradients, which does not say of whom they are."""
    if not samples:
        return
    there = [path for path in trace.names() if path.startswith("artifacts/")]
    others = set[bytes]()  # SHA-256 of lists without a row of the subject
    for path, digest in artifacts.items():
        if path.startswith(f"{FOLDER}/rows-") and _is_there(trace, path, digest):
            if _has_any(parse_rows(open_tensors(trace.plain(path))), samples):
                yield path
            else:
                others.add(digest)
    for path in there:
        if path.startswith(f"{target_files.FOLDER}/") or (is_factor_file(path) and path not in artifacts):
            yield path
    for path, digest in artifacts.items():
        if is_shard(path) and not (_is_there(trace, path, digest) and _rows_of(trace, path) in others):
            yield from (p for p in (path, losses_path(path)) if p in there)


def _is_there(trace: TraceDir, path: str, digest: bytes) -> bool:
    """Whether the file is there. TamperError where it is not the log's: then it does not say whose rows it holds."""
    try:
        found = hashlib.sha256()
        for piece in trace.pieces(path):
            found.update(piece)
    except FileNotFoundError:
        return False  # it cannot be withdrawn; `verify` misses it
    except FormatError as error:
        raise TamperError(str(error)) from error
    if found.digest() != digest:
        raise TamperError(
            f"{path} has SHA-256 {found.hexdigest()} and the log says {digest.hex()}: whose rows it holds cannot be "
            "told; restore it, or remove it (fgtrac verify will miss it), and erase again"
        )
    return True


def _rows_of(trace: TraceDir, shard: str) -> bytes:
    """The SHA-256 of the list of a shard's rows."""
    return parse_head(open_tensors(trace.plain(shard)).metadata).rows


def _has_any(rows: Rows, samples: dict[bytes, NDArray[np.uint32]]) -> bool:
    """Whether some row is one of these samples."""
    none = np.empty(0, np.uint32)
    which = rows.which if rows.which is not None else np.zeros(len(rows), np.uint16)
    mine = [np.isin(rows.ordinals[which == n], samples.get(block, none)) for n, block in enumerate(rows.blocks)]
    return any(bool(found.any()) for found in mine)


# -- steps 1 to 6 ---------------------------------------------------------------------------------------------------


def _erase(trace: TraceDir, vault: Vault, signer: Signer, scope: str) -> Erasure:
    """All steps. OSError that says so where the key is destroyed and something else is not."""
    found, names = _look(trace, vault, scope)
    _check_writable(trace, signer, found.artifacts)
    openings = [what for prefix in OPENINGS for what, _opening in vault.openings(prefix)]
    try:
        vault.erase(scope, names, openings, found.pseudonym, found.artifacts)
        _withdraw(trace, found.pseudonym, found.artifacts)
        _conclude(trace, vault, signer, found.pseudonym)
    except OSError as error:
        if vault.find_secret(scope) is not None:
            raise
        raise _half_done(trace, found, error) from error
    return found


def _resume(trace: TraceDir, vault: Vault, signer: Signer, pseudonym: bytes, noted: Sequence[str]) -> Erasure:
    """Go on with an erasure that was interrupted, from wherever it stopped; files may have come since then."""
    log = _Log(trace, pseudonym)
    samples = log.samples()
    artifacts = tuple(dict.fromkeys([*noted, *_artifacts_of(trace, log.artifacts, samples)]))
    found = Erasure(pseudonym, sum(map(len, samples.values())), 0, 0, artifacts, resumed=True)
    try:
        vault.purge()
        _withdraw(trace, pseudonym, artifacts)
        _conclude(trace, vault, signer, pseudonym)
    except OSError as error:
        raise _half_done(trace, found, error) from error
    return found


def _half_done(trace: TraceDir, found: Erasure, error: OSError) -> OSError:
    left = [path for path in found.artifacts if (trace.path / path).exists()]
    files = f"these files are not: {', '.join(left[:5])}" if left else "the log does not say so yet"
    more = f" and {len(left) - 5} more" if len(left) > 5 else ""
    who = f"the key of subject {found.pseudonym.hex()[:16]} is destroyed"
    return OSError(f"{who}; {files}{more} ({error}): put that right, and run fgtrac erase again")


def _check_writable(trace: TraceDir, signer: Signer, artifacts: Sequence[str]) -> None:
    """PermissionError, while nothing is destroyed, where files cannot be removed or the log not be written."""
    folders = {(trace.path / path).parent for path in artifacts} | {trace.path, trace.journal, signer.lock_path.parent}
    for folder in sorted(folders):
        if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"nothing of this subject was erased: the folder {folder} cannot be written")


def _withdraw(trace: TraceDir, pseudonym: bytes, artifacts: Sequence[str]) -> None:
    """Steps 3 and 4, as far as they are not done."""
    for path in artifacts:
        durable.remove(trace.path / path)
    for folder in {(trace.path / path).parent for path in artifacts}:
        if folder.is_dir():
            durable.sync_folder(folder)
            durable.remove_empty(folder, trace.path)
    log = _Log(trace, pseudonym)
    _record(trace, pseudonym, _left(log.samples(), log.erased), [path for path in artifacts if path in log.artifacts])


def _conclude(trace: TraceDir, vault: Vault, signer: Signer, pseudonym: bytes) -> None:
    """Steps 5 and 6, and the tables that were made of the log go from the cache."""
    try:
        sequencer.seal(trace, signer, full=True, clock=time.time_ns, wait_s=WAIT_S)
    except ProofError:  # registrations were lost, so that no index can be made; the log itself can be sealed
        sequencer.seal(trace, signer, full=False, clock=time.time_ns, wait_s=WAIT_S)
    forget_views(trace_id_of(trace))
    vault.finish(pseudonym)


def _left(
    samples: dict[bytes, NDArray[np.uint32]], erased: dict[bytes, list[NDArray[np.uint32]]]
) -> dict[bytes, NDArray[np.uint32]]:
    """Of the samples in each block, those that no `erasure` entry names yet."""
    nothing = [np.empty(0, np.uint32)]
    return {block: np.setdiff1d(all_, np.concatenate(erased.get(block, nothing))) for block, all_ in samples.items()}


def _record(
    trace: TraceDir, pseudonym: bytes, samples: dict[bytes, NDArray[np.uint32]], artifacts: Sequence[str]
) -> None:
    """Put the `erasure` entries into the journal, on disk before this returns; none where nothing is left to say."""
    cut = [
        (block, ordinals[at : at + ORDINALS_AN_ENTRY])
        for block, ordinals in samples.items()
        for at in range(0, len(ordinals), ORDINALS_AN_ENTRY)
    ]
    paths = [artifacts[at : at + PATHS_AN_ENTRY] for at in range(0, len(artifacts), PATHS_AN_ENTRY)]
    spare = next(iter(samples), b"")
    writer, entries = os.urandom(16), list[bytes]()
    for part, withdrawn in itertools.zip_longest(cut, paths):
        block, ordinals = part or (spare, np.empty(0, np.uint32))
        said = {"pseudonym": pseudonym, "block": block, "ordinals": ordinals, "artifacts": list(withdrawn or ())}
        own = {"kind": "erasure", "time": time.time_ns(), "writer": writer, "seq": len(entries)}
        entries.append(encode_event(own | said))
    if not entries:
        return
    journal = JournalWriter(trace.journal, writer)
    try:
        journal.append(entries)
        journal.sync()
    finally:
        journal.close()
