"""What other people's tools read: entries of the log with their inclusion proofs, as c2sp.org/tlog-proof@v1 files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fgtrac.api.trace import open_trace
from fgtrac.query.log import SealedLog
from fgtrac.store import durable
from fgtrac.store.places import open_to_read
from fgtrac.tlog.note import parse_note, parse_tree_head
from fgtrac.tlog.proof import TlogProof, format_proof

SUFFIX = ".tlog-proof"  # the extension that the C2SP text gives it
ENTRY_SUFFIX = ".cbor"


@dataclass(frozen=True, slots=True)
class ExportedProof:
    """One entry's two files: its proof, and its bytes, without which the proof says nothing."""

    number: int
    proof: Path
    entry: Path


def entries_of_sample(trace: Path, sample: str) -> list[int]:
    """The numbers of the entries that name a sample, ascending, as the newest full seal's index has them.

    ValueError for a name that is none, or of a sample that is not registered.
    """
    opened = open_trace(trace)
    history = opened.history(sample, details=False)
    return sorted({event.entry for event in history.events})


def export_proofs(trace: Path, entries: Sequence[int], out: Path, *, replace: bool = False) -> list[ExportedProof]:
    """Write the proof and the bytes of each entry, against the newest tree head, whose signed note stands in the proof
    as it is on disk; checking its signature is the reader's part.

    `out` is a folder (made where there is none), or for one entry a file that ends in .tlog-proof; the entry lies
    beside it under the same name with .cbor. FileExistsError for files that are there, unless `replace`; ValueError
    for an entry that the log does not have; ProofError or TamperError where the log is not the one that was sealed.
    """
    directory = open_to_read(trace)
    try:
        note = directory.read("checkpoint")
    except FileNotFoundError as error:
        raise ValueError(f"{trace} was never sealed, so no entry has a proof yet; run fgtrac seal {trace}") from error
    head = parse_tree_head(parse_note(note).text)
    wanted = sorted(set(entries))
    foreign = [number for number in wanted if not 0 <= number < head.size]
    if foreign:
        raise ValueError(f"entry {foreign[0]} is asked for, and the log has the entries 0 to {head.size - 1}")
    found = [_files(out, number, alone=len(wanted) == 1) for number in wanted]
    there = [path for files in found for path in (files.proof, files.entry) if path.exists()]
    if there and not replace:
        raise FileExistsError(f"{there[0]} is there already; name another place, or replace it with --force")
    log = SealedLog(directory, head)
    for files in found:
        entry, path = log.entry(files.number), log.path(files.number)
        durable.write_file(files.entry, entry)
        durable.write_file(files.proof, format_proof(TlogProof(files.number, path, note)).encode())
    return found


def _files(out: Path, number: int, *, alone: bool) -> ExportedProof:
    if out.suffix != SUFFIX:
        name = f"entry-{number:08d}"
        return ExportedProof(number, out / (name + SUFFIX), out / (name + ENTRY_SUFFIX))
    if not alone:
        raise ValueError(f"{out} is one file, and several entries are asked for; name a folder")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {out.parent} to write {out.name} into")
    return ExportedProof(number, out, out.with_suffix(ENTRY_SUFFIX))
