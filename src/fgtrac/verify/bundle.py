"""The bundle: one JSON file that proves one claim about one sample. Here its parts, and its strict form on disk.

docs/spec/bundle.md has the fields with a worked example. What a bundle proves is decided in `claims`.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError
from fgtrac.events.postings import KIND, ROW, decode_rows
from fgtrac.events.schema import NO_STEP
from fgtrac.tlog.index import Absence, LeafProof
from fgtrac.tlog.note import TreeHead, parse_note, parse_tree_head
from fgtrac.tlog.proof import TlogProof, format_proof, parse_proof
from fgtrac.verify.strict_json import (
    decode_json,
    read_code,
    read_entry,
    read_fields,
    read_hex,
    read_list,
    read_path,
    read_text,
    read_u64,
)

FORMAT = "fgtrac-bundle/v1"
CLAIMS = ("used", "history", "never used", "label never used", "never registered", "content present", "content absent")
ABSENCES = ("never registered", "content absent")
NON_USES = ("never used", "label never used")
WHOLE_CLAIMS = ("history", *NON_USES, *ABSENCES)  # they speak of the whole run, and so need its end
CONTENT_CLAIMS = ("content present", "content absent")
ROW_CLAIMS = ("used", "history", *NON_USES)
USES = (KIND["used"], KIND["neighbour"])
MAX_ROWS = 1_000_000
MAX_ENTRIES = 100_000
MAX_CHILDREN = 10_000
_ROW = struct.Struct("<BHQQ")
_ORIGIN = re.compile(r"fgtrac/[0-9a-f]{32}")
Rows = NDArray[np.void]  # events.postings.ROW
Leaf = tuple[int, tuple[bytes, ...]]  # its place in the index, and its audit path


@dataclass(frozen=True, slots=True)
class Shown:
    """An entry of the log that a claim needs beside the seal, and its audit path."""

    number: int
    entry: bytes
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Descendant:
    """A sample that was made from the bundle's, directly or in turn, with its own value and where that stands."""

    id: bytes
    value: bytes
    leaf: Leaf

    @property
    def rows(self) -> Rows:
        """Its value as rows."""
        return np.frombuffer(self.value, dtype=ROW)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A claim about an id and what proves it.

    `value` with `leaf` where the id is in the index, else `absence`; `preimage` is what the id is computed from,
    `opening` the k_i of a keyed one; `seal` is the seal entry, `proof` its place as the last leaf under the signed
    head.
    """

    claim: str
    words: str
    id: bytes
    preimage: bytes | None
    opening: bytes | None
    value: bytes | None
    leaf: Leaf | None
    absence: Absence | None
    seal: bytes
    proof: TlogProof
    entries: tuple[Shown, ...] = ()
    children: tuple[Descendant, ...] = ()

    @property
    def rows(self) -> Rows:
        """The sample's value as rows, ascending as `parse_bundle` has seen; none where the claim has no rows."""
        return np.frombuffer(self.value or b"" if self.claim in ROW_CLAIMS else b"", dtype=ROW)


def head_of(bundle: Bundle) -> TreeHead:
    """The tree head that the bundle carries, unchecked. FormatError where its note is none of a trace."""
    head = parse_tree_head(parse_note(bundle.proof.note).text)
    if not _ORIGIN.fullmatch(head.origin):
        raise FormatError(f"the bundle is of a log named {head.origin!r:.80}; a trace is named fgtrac/TRACE-ID")
    return head


# -- writing --------------------------------------------------------------------------------------------------------


def format_bundle(bundle: Bundle) -> bytes:
    """The bundle's bytes: JSON, one field a line."""
    identity = {"value": bundle.id, "preimage": bundle.preimage, "opening": bundle.opening}
    said: dict[str, Any] = {
        "format": FORMAT,
        "claim": bundle.claim,
        "words": bundle.words,
        "id": {k: v.hex() for k, v in identity.items() if v is not None},
    }
    if bundle.value is not None:
        if bundle.claim in CONTENT_CLAIMS:
            said["holders"] = [bundle.value[i : i + 32].hex() for i in range(0, len(bundle.value), 32)]
        else:
            said["rows"] = _rows_json(bundle.value)
    said["index"] = _index_json(bundle)
    said["seal"] = {"entry": _base64(bundle.seal), "proof": format_proof(bundle.proof)}
    if bundle.entries:
        said["entries"] = [
            {"number": str(e.number), "entry": _base64(e.entry), "path": _path_json(e.path)} for e in bundle.entries
        ]
    if bundle.children:
        said["children"] = [
            {"id": c.id.hex(), "rows": _rows_json(c.value), "leaf": _leaf_json(c.leaf)} for c in bundle.children
        ]
    lines = [f'"{k}":{json.dumps(v, ensure_ascii=False, separators=(",", ":"))}' for k, v in said.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _rows_json(value: bytes) -> list[list[Any]]:
    return [
        [kind, detail, str(entry), "none" if step == NO_STEP else str(step)]
        for kind, detail, entry, step in _ROW.iter_unpack(value)
    ]


def _leaf_json(leaf: Leaf) -> dict[str, Any]:
    return {"index": str(leaf[0]), "path": _path_json(leaf[1])}


def _index_json(bundle: Bundle) -> dict[str, Any]:
    if bundle.leaf is not None:
        return {"leaf": _leaf_json(bundle.leaf)}
    sides = {} if bundle.absence is None else {"left": bundle.absence.left, "right": bundle.absence.right}
    return {
        side: {
            "index": str(leaf.index),
            "type": leaf.type,
            "key": leaf.key.hex(),
            "digest": leaf.digest.hex(),
            "path": _path_json(leaf.path),
        }
        for side, leaf in sides.items()
        if leaf is not None
    }


def _path_json(path: Sequence[bytes]) -> list[str]:
    return [_base64(h) for h in path]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# -- reading --------------------------------------------------------------------------------------------------------


def parse_bundle(data: bytes) -> Bundle:
    """The bundle of a file's bytes. FormatError for anything else; limits are checked before anything is decoded."""
    said = read_fields(
        decode_json(data),
        "a bundle",
        ("format", "claim", "words", "id", "index", "seal"),
        ("rows", "holders", "entries", "children"),
    )
    if said["format"] != FORMAT:
        raise FormatError(f"format {said['format']!r:.60} is not {FORMAT}; use a fgtrac that reads it")
    claim = said["claim"]
    if claim not in CLAIMS:
        raise FormatError(f"claim {claim!r:.60} is none of {', '.join(CLAIMS)}")
    column = None if claim in ABSENCES else "holders" if claim in CONTENT_CLAIMS else "rows"
    if ("rows" in said, "holders" in said) != (column == "rows", column == "holders"):
        raise FormatError(f"a bundle that claims {claim!r} has {column or 'neither rows nor holders'}")
    if "children" in said and column != "rows":
        raise FormatError(f"a bundle that claims {claim!r} has no children")
    identity = read_fields(said["id"], "id", ("value",), ("preimage", "opening"))
    value = None if column is None else _rows(said["rows"]) if column == "rows" else _holders(said["holders"])
    leaf, absence = _index(said["index"], value is not None)
    seal = read_fields(said["seal"], "seal", ("entry", "proof"))
    bundle = Bundle(
        claim,
        read_text(said["words"], "words"),
        read_hex(identity["value"], "id.value", 32),
        read_hex(identity["preimage"], "id.preimage") if "preimage" in identity else None,
        read_hex(identity["opening"], "id.opening", 32) if "opening" in identity else None,
        value,
        leaf,
        absence,
        read_entry(seal["entry"], "seal.entry"),
        parse_proof(read_text(seal["proof"], "seal.proof")),
        tuple(_shown(e) for e in read_list(said.get("entries", []), "entries", MAX_ENTRIES)),
        tuple(_descendant(c) for c in read_list(said.get("children", []), "children", MAX_CHILDREN)),
    )
    _check_ascending([shown.number for shown in bundle.entries], "entries ascend by number, none twice")
    _check_ascending([child.id for child in bundle.children], "children ascend by id, none twice")
    if column == "rows" and (len(value or b"") + sum(len(c.value) for c in bundle.children)) // _ROW.size > MAX_ROWS:
        raise FormatError(f"the sample and its descendants have more than {MAX_ROWS:,} rows")
    head_of(bundle)
    return bundle


def _check_ascending(keys: Sequence[Any], rule: str) -> None:
    if any(first >= second for first, second in pairwise(keys)):
        raise FormatError(rule)


def _rows(value: Any) -> bytes:
    out = []
    for row in read_list(value, "rows", MAX_ROWS, 1):
        if len(read_list(row, "a row", 4)) != 4:
            raise FormatError(f"a row is [kind, detail, entry, step], not {row!r:.60}")
        kind = read_code(row[0], "kind", 256)
        step = NO_STEP if row[3] == "none" else read_u64(row[3], "a row's step")
        if step == NO_STEP and kind in USES:
            raise FormatError(f"a row of kind {kind} has a step, and this one says none")
        out.append(_ROW.pack(kind, read_code(row[1], "detail", 65536), read_u64(row[2], "entry"), step))
    joined = b"".join(out)
    decode_rows(joined)
    return joined


def _holders(value: Any) -> bytes:
    holders = [read_hex(item, "a holder", 32) for item in read_list(value, "holders", MAX_ROWS, 1)]
    _check_ascending(holders, "holders ascend, none twice")
    return b"".join(holders)


def _leaf(value: Any, what: str) -> Leaf:
    said = read_fields(value, what, ("index", "path"))
    return read_u64(said["index"], f"{what}.index"), read_path(said["path"], f"{what}.path")


def _index(value: Any, present: bool) -> tuple[Leaf | None, Absence | None]:
    if present:
        return _leaf(read_fields(value, "index", ("leaf",))["leaf"], "index.leaf"), None
    sides = read_fields(value, "index", (), ("left", "right"))
    return None, Absence(*(_neighbour(sides[s], f"index.{s}") if s in sides else None for s in ("left", "right")))


def _neighbour(value: Any, what: str) -> LeafProof:
    said = read_fields(value, what, ("index", "type", "key", "digest", "path"))
    return LeafProof(
        read_u64(said["index"], f"{what}.index"),
        read_code(said["type"], f"{what}.type", 256),
        read_hex(said["key"], f"{what}.key", 32),
        read_hex(said["digest"], f"{what}.digest", 32),
        read_path(said["path"], f"{what}.path"),
    )


def _shown(value: Any) -> Shown:
    said = read_fields(value, "an entry", ("number", "entry", "path"))
    return Shown(
        read_u64(said["number"], "an entry's number"),
        read_entry(said["entry"], "an entry"),
        read_path(said["path"], "path"),
    )


def _descendant(value: Any) -> Descendant:
    said = read_fields(value, "a child", ("id", "rows", "leaf"))
    return Descendant(read_hex(said["id"], "a child's id", 32), _rows(said["rows"]), _leaf(said["leaf"], "leaf"))
