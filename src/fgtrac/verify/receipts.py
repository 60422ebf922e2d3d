"""The folder `receipts/` of a trace: where the receipts of outside witnesses lie, and what their names say.

    receipts/SIZE/checkpoint                     the signed head that was witnessed, with the log's own signature only
    receipts/SIZE/rfc3161-<16 hex>.tsr           a time stamp over that file's bytes (RFC 3161)
    receipts/SIZE/witness-<8 hex>.checkpoint     that head with a witness's cosignature (C2SP tlog-cosignature)
    receipts/SIZE/evm-<chain id>-<8 hex>.json    where a contract keeps that head's size and root

Names are found again by whoever anchors the same head with the same service; nothing is believed of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

FOLDER = "receipts/"
NOTE = "checkpoint"
RFC3161, WITNESS, EVM = "rfc3161", "witness", "evm"
KINDS = (RFC3161, WITNESS, EVM)
_PATH = re.compile(
    r"receipts/(?P<size>[1-9][0-9]{0,18})/(?:(?P<note>checkpoint)|rfc3161-[0-9a-f]{16}\.tsr"
    r"|witness-[0-9a-f]{8}\.checkpoint|evm-[1-9][0-9]{0,18}-[0-9a-f]{8}\.json)"
)


@dataclass(frozen=True, slots=True)
class ReceiptFile:
    """A file of the folder, by its path: the size of the head that it is about, and its kind (`NOTE` for the signed
    head itself)."""

    path: str
    size: int
    kind: str


def note_path(size: int) -> str:
    """Where the head of so many entries lies once somebody is asked to witness it."""
    return f"{FOLDER}{size}/{NOTE}"


def receipt_path(size: int, name: str) -> str:
    """Where the receipt of that name for that head lies. ValueError for what is no receipt's name."""
    path = f"{FOLDER}{size}/{name}"
    found = parse_path(path)
    if found is None or found.kind == NOTE:
        raise ValueError(f"{path!r:.200} is no receipt's path; the names are rfc3161-, witness- and evm-")
    return path


def rfc3161_name(url: str) -> str:
    """The receipt of the time-stamping authority at `url`: `rfc3161-` and the first 8 bytes of SHA-256(url) in hex, the
    URL without user, password and query: who guesses a weak password could compare."""
    parts = urlsplit(url)
    asked = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return f"{RFC3161}-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.tsr"


def witness_name(key_id: bytes) -> str:
    """The receipt of the witness whose key has that id (4 bytes, C2SP signed-note)."""
    return f"{WITNESS}-{key_id.hex()}.checkpoint"


def evm_name(chain_id: int, contract: bytes, sender: bytes) -> str:
    """The receipt of a contract and a sender (addresses, 20 bytes each) on a chain: the chain's id, and the first 4
    bytes of SHA-256(contract || sender) in hex."""
    return f"{EVM}-{chain_id}-{hashlib.sha256(contract + sender).hexdigest()[:8]}.json"


def parse_path(path: str) -> ReceiptFile | None:
    """What a path relative to the trace names, or None for what is no file of the folder."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    kind = match["note"] or path.rpartition("/")[2].partition("-")[0]
    return ReceiptFile(path, int(match["size"]), kind)


def receipt_files(names: Iterable[str]) -> list[ReceiptFile]:
    """The files of the folder among a trace's paths, by size, then by name."""
    found = [file for file in map(parse_path, names) if file is not None]
    return sorted(found, key=lambda file: (file.size, file.path))


def paths_of(names: Iterable[str], kind: str) -> list[str]:
    """The paths of the receipts of one kind."""
    return [file.path for file in receipt_files(names) if file.kind == kind]


def anchored_sizes(names: Iterable[str]) -> list[int]:
    """The sizes of the heads that have a folder, ascending."""
    return sorted({file.size for file in receipt_files(names)})
