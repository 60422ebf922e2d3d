"""The bundle: one JSON file that proves one claim about one sample. Here its parts, and its strict form on disk.

docs/spec/bundle.md has the fields with a worked example. What a bundle proves is decided in `claims`.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from fgtrac.errors import FormatError
from fgtrac.events.postings import decode_rows
from fgtrac.events.schema import MAX_ENTRY_BYTES, NO_STEP
from fgtrac.tlog.index import Absence, LeafProof
from fgtrac.tlog.note import decode_base64
from fgtrac.tlog.proof import MAX_PATH, TlogProof, format_proof, parse_proof

FORMAT = "fgtrac-bundle/v1"
CLAIMS = ("used", "history", "never used", "never registered", "content present", "content absent")
ABSENCES = ("never registered", "content absent")
CONTENT_CLAIMS = ("content present", "content absent")
MAX_BYTES = 64 << 20
MAX_DEPTH = 5
MAX_VALUES = 5_000_000  # commas, colons and brackets: what the JSON decoder would have to make
MAX_ROWS = 1_000_000
MAX_ENTRIES = 256
MAX_TEXT = 4096
_ROW = struct.Struct("<BHQQ")
# Possessive, and an unterminated string is one too: what was passed over is never tried again, so it is linear.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Shown:
    """An entry of the log that a claim needs beside the seal, and its audit path."""

    number: int
    entry: bytes
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A claim about an id and what proves it.

    `value` with `leaf` (index, path) where the id is in the index, else `absence`; `preimage` is what the id is
    computed from, `opening` the k_i of a keyed one; `seal` is the seal entry, `proof` its place as the last leaf under
    the signed head.
    """

    claim: str
    words: str
    id: bytes
    preimage: bytes | None
    opening: bytes | None
    value: bytes | None
    leaf: tuple[int, tuple[bytes, ...]] | None
    absence: Absence | None
    seal: bytes
    proof: TlogProof
    entries: tuple[Shown, ...] = ()


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
            said["rows"] = [_row_json(*row) for row in _ROW.iter_unpack(bundle.value)]
    said["index"] = _index_json(bundle)
    said["seal"] = {"entry": _base64(bundle.seal), "proof": format_proof(bundle.proof)}
    if bundle.entries:
        said["entries"] = [
            {"number": str(e.number), "entry": _base64(e.entry), "path": [_base64(h) for h in e.path]}
            for e in bundle.entries
        ]
    lines = [f'"{k}":{json.dumps(v, ensure_ascii=False, separators=(",", ":"))}' for k, v in said.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _row_json(kind: int, detail: int, entry: int, step: int) -> list[Any]:
    return [kind, detail, str(entry), "none" if step == NO_STEP else str(step)]


def _index_json(bundle: Bundle) -> dict[str, Any]:
    if bundle.leaf is not None:
        index, path = bundle.leaf
        return {"leaf": {"index": str(index), "path": [_base64(h) for h in path]}}
    sides = {} if bundle.absence is None else {"left": bundle.absence.left, "right": bundle.absence.right}
    return {
        side: {
            "index": str(leaf.index),
            "type": leaf.type,
            "key": leaf.key.hex(),
            "digest": leaf.digest.hex(),
            "path": [_base64(h) for h in leaf.path],
        }
        for side, leaf in sides.items()
        if leaf is not None
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# -- reading --------------------------------------------------------------------------------------------------------


def parse_bundle(data: bytes) -> Bundle:
    """The bundle of a file's bytes. FormatError for anything else; limits are checked before anything is decoded."""
    said = _fields(
        decode_json(data),
        "a bundle",
        ("format", "claim", "words", "id", "index", "seal"),
        ("rows", "holders", "entries"),
    )
    if said["format"] != FORMAT:
        raise FormatError(f"format {said['format']!r:.60} is not {FORMAT}; use a fgtrac that reads it")
    claim = said["claim"]
    if claim not in CLAIMS:
        raise FormatError(f"claim {claim!r:.60} is none of {', '.join(CLAIMS)}")
    column = None if claim in ABSENCES else "holders" if claim in CONTENT_CLAIMS else "rows"
    if ("rows" in said, "holders" in said) != (column == "rows", column == "holders"):
        raise FormatError(f"a bundle that claims {claim!r} has {column or 'neither rows nor holders'}")
    identity = _fields(said["id"], "id", ("value",), ("preimage", "opening"))
    value = None if column is None else _rows(said["rows"]) if column == "rows" else _holders(said["holders"])
    leaf, absence = _index(said["index"], value is not None)
    seal = _fields(said["seal"], "seal", ("entry", "proof"))
    return Bundle(
        claim,
        _text(said["words"], "words"),
        _hex(identity["value"], "id.value", 32),
        _hex(identity["preimage"], "id.preimage") if "preimage" in identity else None,
        _hex(identity["opening"], "id.opening", 32) if "opening" in identity else None,
        value,
        leaf,
        absence,
        _entry(seal["entry"], "seal.entry"),
        parse_proof(_text(seal["proof"], "seal.proof", 1 << 20)),
        tuple(_shown(e) for e in _list(said.get("entries", []), "entries", MAX_ENTRIES)),
    )


def decode_json(data: bytes) -> Any:
    """The value of strict JSON: UTF-8, no key twice, whole numbers only, within the limits. FormatError otherwise."""
    if len(data) > MAX_BYTES:
        raise FormatError(f"the file has {len(data):,} bytes; a bundle has at most {MAX_BYTES:,}")
    bare = _STRING.sub(b"", data)
    depth = deepest = 0
    for bracket in re.findall(rb"[\[\]{}]", bare):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    values = sum(map(bare.count, (b",", b":", b"[", b"{")))
    if deepest > MAX_DEPTH or values > MAX_VALUES:
        raise FormatError(
            f"nested {deepest} deep with {values:,} values; a bundle has at most {MAX_DEPTH} and {MAX_VALUES:,}"
        )
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_unique, parse_float=_refuse, parse_constant=_refuse, parse_int=_small
        )
    except (ValueError, RecursionError) as error:
        raise FormatError(f"no strict JSON: {error}") from error


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text:.40} is no whole number")


def _small(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise ValueError(f"{text:.40} is no code from 0 to 65535; larger numbers are decimal strings")
    return int(text)


def _fields(value: Any, what: str, needed: Sequence[str], optional: Sequence[str] = ()) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"{what} is an object, not {value!r:.60}")
    missing = [name for name in needed if name not in value]
    unknown = [name for name in value if name not in needed and name not in optional]
    if missing or unknown:
        raise FormatError(f"{what} lacks {missing} or has the unknown {unknown!r:.80}")
    return value


def _list(value: Any, what: str, limit: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > limit:
        raise FormatError(f"{what} is a list of at most {limit} items, not {value!r:.60}")
    return value


def _text(value: Any, what: str, limit: int = MAX_TEXT) -> str:
    if not isinstance(value, str) or len(value) > limit:
        raise FormatError(f"{what} is text of at most {limit} characters, not {value!r:.60}")
    return value


def _hex(value: Any, what: str, size: int | None = None) -> bytes:
    text = _text(value, what, 2 * MAX_ENTRY_BYTES)
    try:
        raw = bytes.fromhex(text)
    except ValueError as error:
        raise FormatError(f"{what} is hex digits, not {text!r:.60}") from error
    if raw.hex() != text or size not in (None, len(raw)):
        raise FormatError(f"{what} is {'' if size is None else 2 * size} lower case hex digits, not {text!r:.80}")
    return raw


def _u64(value: Any, what: str) -> int:
    text = _text(value, what, 20)
    if not (text.isascii() and text.isdigit()) or str(int(text)) != text or int(text) >= 1 << 64:
        raise FormatError(f"{what} is a decimal string below 2^64, not {text!r}")
    return int(text)


def _code(value: Any, what: str, below: int) -> int:
    if type(value) is not int or not 0 <= value < below:
        raise FormatError(f"{what} is a number below {below}, not {value!r:.40}")
    return value


def _entry(value: Any, what: str) -> bytes:
    return decode_base64(_text(value, what, 2 * MAX_ENTRY_BYTES), what)


def _path(value: Any, what: str) -> tuple[bytes, ...]:
    hashes = tuple(decode_base64(_text(h, what, 44), what) for h in _list(value, what, MAX_PATH))
    if any(len(h) != 32 for h in hashes):
        raise FormatError(f"{what} holds a hash that has not 32 bytes")
    return hashes


def _rows(value: Any) -> bytes:
    out = []
    for row in _list(value, "rows", MAX_ROWS):
        if len(_list(row, "a row", 4)) != 4:
            raise FormatError(f"a row is [kind, detail, entry, step], not {row!r:.60}")
        step = NO_STEP if row[3] == "none" else _u64(row[3], "a row's step")
        if row[3] != "none" and step == NO_STEP:
            raise FormatError("a row without a step says none")
        out.append(_ROW.pack(_code(row[0], "kind", 256), _code(row[1], "detail", 65536), _u64(row[2], "entry"), step))
    joined = b"".join(out)
    decode_rows(joined)
    return joined


def _holders(value: Any) -> bytes:
    return b"".join(_hex(item, "a holder", 32) for item in _list(value, "holders", MAX_ROWS))


def _index(value: Any, present: bool) -> tuple[tuple[int, tuple[bytes, ...]] | None, Absence | None]:
    if present:
        leaf = _fields(_fields(value, "index", ("leaf",))["leaf"], "index.leaf", ("index", "path"))
        return (_u64(leaf["index"], "index.leaf.index"), _path(leaf["path"], "index.leaf.path")), None
    sides = _fields(value, "index", (), ("left", "right"))
    return None, Absence(*(_neighbour(sides[s], f"index.{s}") if s in sides else None for s in ("left", "right")))


def _neighbour(value: Any, what: str) -> LeafProof:
    said = _fields(value, what, ("index", "type", "key", "digest", "path"))
    return LeafProof(
        _u64(said["index"], f"{what}.index"),
        _code(said["type"], f"{what}.type", 256),
        _hex(said["key"], f"{what}.key", 32),
        _hex(said["digest"], f"{what}.digest", 32),
        _path(said["path"], f"{what}.path"),
    )


def _shown(value: Any) -> Shown:
    said = _fields(value, "an entry", ("number", "entry", "path"))
    return Shown(
        _u64(said["number"], "an entry's number"), _entry(said["entry"], "an entry"), _path(said["path"], "path")
    )
