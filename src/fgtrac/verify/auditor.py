"""A trace read again from its first byte to its last, as a stranger would who trusts one public key and nothing else.

signature    the newest head is signed by the key that the caller names
tiles        every hash tile leads to its root
entries      every entry's bytes are valid and hash to their leaf
run          there is one run, the one that the head names, under that key
sequences    no writer's sequence has a hole that no gap entry names
registered   whatever names a sample comes after its registration, which is as its data set is described
seals        every full seal's note is there, signed, and says the root of its size
index        rebuilt from the log, it is the one that was sealed, and byte for byte the one on disk
artifacts    every file that an entry names has its size and SHA-256, or was withdrawn
graphs       where batches of a graph are: none names a neighbour twice, and one on the whole graph names all its nodes
attention    where there are modality weights: each is of a kept checkpoint, finite, and its sample's only one there
erasures     where there are some: each names all of its subject's samples and no others, and none came later
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fgtrac.errors import FgtracError, FormatError, ProofError
from fgtrac.tlog.note import TreeHead, Verifier
from fgtrac.tlog.npy import COLUMNS, column_path
from fgtrac.tlog.tiles import Tile
from fgtrac.verify.checks import CannotTell, Checks, TraceFiles
from fgtrac.verify.facts import Artifact, Facts, check_index, check_registered, check_run, check_sequences, read_facts
from fgtrac.verify.log_reader import Column, InProcess, LogReader
from fgtrac.verify.report import Verdict
from fgtrac.verify.sightings import Witnessed
from fgtrac.verify.tree import (
    HEAD,
    Log,
    check_entries,
    check_note,
    check_signature,
    check_tiles,
    partials,
    read_head,
    read_log,
)
from fgtrac.verify.updates import counted

ORIGIN_PREFIX = "fgtrac/"
NAMES = ("tiles", "entries", "run", "sequences", "registered", "seals", "index", "artifacts")
Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Audit:
    """What the checks found out, for those that follow: `verifier` is whose signature counts; `log` and `facts` are
    believed where `checks` hold only; `known` is the files that were read or are explained; `index_digests` the SHA-256
    of the rebuilt columns; `witnessed` what outside witnesses saw of the log, as later checks find out."""

    checks: Checks = field(default_factory=Checks)
    verifier: Verifier | None = None
    log: Log | None = None
    facts: Facts = field(default_factory=Facts)
    known: set[str] = field(default_factory=set)
    index_digests: dict[str, bytes] = field(default_factory=dict)
    witnessed: list[Witnessed] = field(default_factory=list)


def audit_log(
    files: TraceFiles,
    verifier: Verifier | None,
    *,
    progress: Progress | None = None,
    is_new: bool = False,
    reader: LogReader | None = None,
) -> Audit:
    """Make the checks above, in that order; never raises for anything that the files hold.

    `is_new` says that the first seal was interrupted, so that tiles without a head are no loss. `progress` is called
    with bundles hashed and bundles in all. `reader` goes over the log (default: this process does).
    """
    audit, reader = Audit(verifier=verifier), reader or InProcess(files)
    head = _start(audit, files, verifier, is_new=is_new)
    if head is None:
        for name in NAMES:
            audit.checks.make(name, _not_without_head)
        return audit
    names = files.names()
    log = audit.log = read_log(files, head, progress, reader)
    audit.known.add(HEAD)
    _check_log(audit, log, names, reader)
    make, facts = audit.checks.make, audit.facts
    make("run", lambda: check_run(facts, files.read(HEAD), verifier, ORIGIN_PREFIX), ("entries",))
    make("sequences", lambda: check_sequences(facts), ("entries",))
    make("registered", lambda: check_registered(facts), ("entries",))
    make("seals", lambda: _check_seals(audit, files, names, verifier), ("entries",))
    make("index", lambda: _check_index(audit, files, reader), ("entries", "registered"))
    make("artifacts", lambda: _check_artifacts(audit, files), ("entries",))
    if facts.graphs.entries:
        make("graphs", lambda: facts.graphs.check(facts.sequences.gaps, facts.ids_of), ("entries", "registered"))
    if facts.attention.entries:
        make("attention", lambda: facts.attention.check(facts.sequences, facts.ids_of), ("entries", "registered"))
    if facts.erasures.subjects:
        make("erasures", lambda: facts.erasures.check(facts.ids_of), ("entries", "registered"))
    audit.known |= log.used
    _note(audit)
    return audit


def _start(audit: Audit, files: TraceFiles, verifier: Verifier | None, *, is_new: bool) -> TreeHead | None:
    """Check the head; None where there is none to go on with: missing, malformed, or signed by somebody else."""

    def check() -> str:
        names = files.names()
        if HEAD not in names:
            sealed = [n for n in names if n.startswith(("tile/", "index/"))]
            if sealed and not is_new:
                raise ProofError(f"{HEAD} is missing, and {sealed[0]} says that there was one; restore it from a copy")
            raise CannotTell("nothing is sealed yet; run fgtrac seal")
        return check_signature(files, verifier)

    audit.checks.make("signature", check)
    if audit.checks.findings[-1].verdict is Verdict.REFUTED:
        return None
    try:
        return read_head(files)
    except (FormatError, OSError, MemoryError):
        return None  # the finding says so


def _not_without_head() -> str:
    raise CannotTell("not checked, since there is no signed head to check against")


def _check_log(audit: Audit, log: Log, names: Iterable[str], reader: LogReader) -> None:
    bad_entry: Exception | None = None
    if log.is_whole:
        try:
            audit.facts = read_facts(log, reader)
        except (FgtracError, OSError, MemoryError) as error:  # a file may go while it is read
            bad_entry = error
    older: list[Tile] = []
    if bad_entry is None and log.is_whole:
        needed, left = partials(log, names, [size for size in audit.facts.full_seals if size < log.head.size])
        older = needed + left
        audit.checks.notes += [f"{t.path} is left over from an older head; the next seal removes it" for t in left]

    def entries() -> str:
        if bad_entry is not None:
            raise bad_entry
        return check_entries(log, older, tiles_hold=tiles_hold)

    tiles_hold = audit.checks.make("tiles", lambda: check_tiles(log, older))
    audit.checks.make("entries", entries)


def _check_seals(audit: Audit, files: TraceFiles, names: Iterable[str], verifier: Verifier | None) -> str:
    assert audit.log is not None
    sizes = audit.facts.full_seals
    notes = [n for n in names if n.startswith("index/") and n.endswith(f"/{HEAD}")]
    stray = [n for n in notes if _size_of(n) not in sizes and _size_of(n) <= audit.log.head.size]
    audit.known |= {f"index/{size}/{HEAD}" for size in sizes} | set(stray)
    for size in sizes:
        path = f"index/{size}/{HEAD}"
        head = check_note(files, path, _signer_of(audit, size, verifier))
        expected = TreeHead(audit.log.head.origin, size, audit.log.root_at(size))
        if head != expected:
            raise ProofError(
                f"{path} says {head.size} entries of {head.origin!r:.100} with root {head.root.hex()}; the log gives "
                f"{size} with root {expected.root.hex()}"
            )
    if stray:
        raise ProofError(f"{stray[0]} is the note of a full seal, and the log has no seal entry for it")
    seals = counted(len(sizes), "full seal")
    if verifier is None:
        raise CannotTell(f"{seals}, with the root of its size each; who signed is not checked")
    return f"{seals}, each with its signed note" if sizes else "there is no full seal, and no note of one"


def _signer_of(audit: Audit, size: int, verifier: Verifier | None) -> Verifier | None:
    """Who must have signed a head of that size, where the newest one is by the verifier or by who took its place."""
    if verifier is None or not audit.facts.rotations:
        return verifier
    return Verifier(verifier.name, [*audit.facts.signers_from(size), verifier.public_key][0])


def _size_of(path: str) -> int:
    number = path.split("/")[1]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 20 else 0


def _check_index(audit: Audit, files: TraceFiles, reader: LogReader) -> str:
    assert audit.log is not None
    size = (audit.facts.full_seals or [0])[-1]
    audit.known |= {column_path(size, name) for name in COLUMNS}
    words, columns = check_index(audit.facts, audit.log, reader)
    audit.index_digests = {name: column.sha256 for name, column in columns.items()}
    for name in COLUMNS:
        _compare_column(files, column_path(size, name), columns[name])
    return words + "; its files on disk are the same"


def _compare_column(files: TraceFiles, path: str, column: Column) -> None:
    """ProofError unless the file has the size and the SHA-256 of the rebuilt column."""
    digest, size = hashlib.sha256(), 0
    for piece in files.pieces(path):
        digest.update(piece)
        size += len(piece)
        if size > column.size:  # what comes behind may have no end
            break
    if size < column.size:
        raise ProofError(
            f"{path} has {size} bytes and the column rebuilt from the log {column.size}; fgtrac seal rebuilds it"
        )
    if (size, digest.digest()) != (column.size, column.sha256):
        raise ProofError(f"{path} is not the column rebuilt from the log; fgtrac seal rebuilds it")


def _check_artifacts(audit: Audit, files: TraceFiles) -> str:
    artifacts, gone = audit.facts.artifacts, audit.facts.withdrawn
    audit.known |= {artifact.path for artifact in artifacts}
    present, withdrawn = set(files.names()), [a.path for a in artifacts if a.path in gone]
    for path in withdrawn:
        if path in present:
            raise ProofError(f"entry {gone[path]} (erasure) says that {path} was withdrawn, and it is there: remove it")
    for artifact in artifacts:
        if artifact.path not in gone:
            _check_artifact(files, artifact)
    held = f"{len(artifacts) - len(withdrawn)} artifacts have the size and SHA-256 that the log says"
    if withdrawn:
        more = f" (and {len(withdrawn) - 1} more)" if len(withdrawn) > 1 else ""
        raise CannotTell(f"{withdrawn[0]} was withdrawn by entry {gone[withdrawn[0]]} (erasure){more}; {held}")
    return held


def _check_artifact(files: TraceFiles, artifact: Artifact) -> None:
    parts = artifact.path.split("/")
    is_odd = any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts)
    if parts[0] != "artifacts" or len(parts) < 2 or is_odd:
        raise ProofError(f"entry {artifact.number} (artifact) names {artifact.path!r:.100}, outside artifacts/")
    digest, size = hashlib.sha256(), 0
    for piece in files.pieces(artifact.path):
        digest.update(piece)
        size += len(piece)
        if size > artifact.size:  # what comes behind may have no end
            raise ProofError(
                f"{artifact.path} has more bytes than the {artifact.size} that entry {artifact.number} says"
            )
    if (size, digest.digest()) != (artifact.size, artifact.sha256):
        raise ProofError(
            f"{artifact.path} has {size} bytes with SHA-256 {digest.hexdigest()}; entry {artifact.number} says "
            f"{artifact.size} with {artifact.sha256.hex()}"
        )


def _note(audit: Audit) -> None:
    facts, notes = audit.facts, audit.checks.notes
    notes += [*facts.sequences.gaps, *facts.joins.missing()]
    notes += [f"block {block.hex()} was registered in part only" for block in facts.incomplete_blocks()]
    if audit.log is not None and audit.log.is_whole and not facts.has_end:
        notes.append("no end entry: the run was interrupted, is still going on, or its end is not sealed")
