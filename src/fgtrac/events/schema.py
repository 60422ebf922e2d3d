"""What an entry may say: the kinds, their fields and types, and the checks that every entry passes both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fgtrac.errors import FormatError
from fgtrac.events.byte_order import ascend
from fgtrac.events.codec import decode, encode
from fgtrac.events.identity import SCHEMES

MAX_ENTRY_BYTES = 65_535  # C2SP tlog-tiles: a bundle writes an entry's length as a uint16
NO_STEP = 2**64 - 1
ROLES = {"train": 1, "validation": 2, "test": 3, "excluded": 4}
STATUS = {"applied": 1, "discarded": 2, "unapplied": 3}
ATTRIBUTION = {"exact": 1, "sole": 2, "fifo": 3, "declared": 4, "among": 5}
TRANSFORM = {"kept": 1, "dropped": 2, "has children": 3}
TRAINING = ("samples", "roles", "transform", "use", "resume", "join")  # behind one of these no run has ended
NUMBERS = ("rows", "numbers")
KEYS = (*NUMBERS, "names")  # what a data set's samples are named by
GRAPHS = ("sampled", "whole")  # what the neighbours of a batch's seeds are: drawn by a sampler, or all other nodes
OPERATIONS = (
    "filter", "map", "deduplicate", "split", "select", "sort", "shuffle", "concatenate",  # a row stays its sample
    "join", "explode", "aggregate", "tokenise", "pack", "record",  # rows become new samples
    "apply",  # either
)  # fmt: skip

Check = Callable[[Any], bool]


def _integer(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 64


def _is_format_1(value: Any) -> bool:
    return type(value) is int and value == 1


def _boolean(value: Any) -> bool:
    return type(value) is bool


def _number(value: Any) -> bool:
    return type(value) is float


def _text(value: Any) -> bool:
    return type(value) is str


def _map(value: Any) -> bool:
    return isinstance(value, Mapping)


def _octets(size: int) -> Check:
    return lambda value: type(value) is bytes and len(value) == size


def _rows(value: Any) -> bool:
    return type(value) is bytes and len(value) > 0 and len(value) % 32 == 0


def _any_octets(value: Any) -> bool:
    return type(value) is bytes


def _typed(name: str) -> Check:
    dtype = np.dtype(name)
    return lambda value: type(value) is np.ndarray and value.dtype == dtype and value.ndim == 1


def _one_of(*words: str) -> Check:
    return lambda value: type(value) is str and value in words


def _ref(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and _octets(16)(value[0]) and _integer(value[1])


def _list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list | tuple) and all(map(check, value))


def _map_of(check: Check) -> Check:
    return lambda value: isinstance(value, Mapping) and all(type(k) is str and check(v) for k, v in value.items())


_BLOCK, _DIGEST = _octets(16), _octets(32)
_U8, _U32, _U64 = _typed("<u1"), _typed("<u4"), _typed("<u8")
_F16, _F32, _F64 = _typed("<f2"), _typed("<f4"), _typed("<f8")

# kind -> field -> check; a name that ends in ? is optional
_SPECIFICATION: dict[str, dict[str, Check]] = {
    "run": {
        "trace": _BLOCK, "format": _is_format_1, "public_key": _DIGEST, "id_scheme": _one_of("public", "keyed"),
        "key_commitment?": _DIGEST, "git_commit?": _text, "git_dirty?": _boolean, "versions": _map_of(_text),
        "config?": _map, "config_artifact?": _text,
    },
    "dataset": {
        "name": _text, "id_scheme": _one_of(*SCHEMES), "rows?": _integer, "keys?": _one_of(*KEYS), "content?": _text,
        "beside?": _boolean,
    },
    "samples": {
        "dataset": _text, "block": _BLOCK, "part": _integer, "parts": _integer, "ids": _rows, "contents?": _rows,
        "subjects?": _rows,
    },
    "roles": {"role": _one_of(*ROLES), "block": _BLOCK, "ordinals": _U32},
    "transform": {
        "stage": _text, "operation": _one_of(*OPERATIONS), "block": _BLOCK, "parameters?": _map, "code?": _DIGEST,
        "output?": _text, "kept?": _U32, "dropped?": _U32, "same_as?": _any_octets, "child_block?": _BLOCK,
        "parents?": _U32, "children?": _U32, "starts?": _U32, "stops?": _U32,
    },
    "sampler": {
        "loader": _integer, "epoch": _integer, "sampler": _text, "parameters?": _map, "state?": _any_octets,
        "state_commitment?": _DIGEST,
    },
    "use": {
        "loader": _integer, "optimizer": _integer, "block": _BLOCK, "epoch": _U32, "batch": _U32, "step": _U64,
        "status": _U8, "attribution": _U8, "count": _U32, "ordinals": _U32, "losses?": _F16, "graph?": _one_of(*GRAPHS),
        "hops?": _integer, "hop_count?": _U32, "hop_ordinals?": _U32, "fit?": _text,
    },
    "metrics": {"step": _integer, "values": _map_of(lambda v: type(v) in (int, float))},
    "attention": {
        "checkpoint": _ref, "step": _integer, "modalities": _list_of(_text), "block": _BLOCK, "ordinals": _U32,
        "weights": _F32,
    },
    "checkpoint": {
        "step": _integer, "epoch?": _integer, "val_loss?": _number, "learning_rates?": _F64, "digest?": _DIGEST,
        "kept": _boolean, "rule": _text,
    },
    "artifact": {"path": _text, "sha256": _DIGEST, "size": _integer, "media_type": _text, "about": _text},
    "contribution": {
        "checkpoint": _ref, "step": _integer, "target": _text, "method": _text, "block": _BLOCK, "ordinals": _U32,
        "scores": _F32, "parameters?": _map,
    },
    "prediction": {
        "checkpoint?": _ref, "step": _integer, "block": _BLOCK, "ordinals": _U32, "outputs?": _F32, "losses?": _F32,
    },
    "resume": {"writers": _list_of(_ref), "step": _integer},
    "join": {"rank": _integer, "ranks": _integer, "step": _integer, "began": _ref},
    "leave": {},
    "gap": {"reason": _text, "lost_writer?": _BLOCK, "first?": _integer, "stop?": _integer, "detail?": _text},
    "end": {"writers": _list_of(_ref)},
    "key": {"public_key": _DIGEST, "old_signature": _octets(64), "new_signature": _octets(64), "revoked?": _boolean},
    "erasure": {"pseudonym": _DIGEST, "block": _BLOCK, "ordinals": _U32, "artifacts": _list_of(_text)},
    "seal": {
        "root": _DIGEST, "leaves": _integer, "entries": _integer, "counts": _map_of(_integer), "epoch_steps": _U64,
    },
}  # fmt: skip
_ALWAYS: dict[str, Check] = {"kind": _text, "time": _integer, "writer": _BLOCK, "seq": _integer}

KINDS: dict[str, dict[str, Check]] = {
    kind: _ALWAYS | {name.rstrip("?"): check for name, check in fields.items()}
    for kind, fields in _SPECIFICATION.items()
}
REQUIRED: dict[str, frozenset[str]] = {
    kind: frozenset(_ALWAYS) | {n for n in fields if not n.endswith("?")} for kind, fields in _SPECIFICATION.items()
}


def encode_event(event: Mapping[str, Any]) -> bytes:
    """The canonical bytes of an event.

    The caller's mistakes: ValueError for an event that does not fit its kind or is too long, TypeError for a value
    inside a map (`config`, `parameters`) that has no encoding.
    """
    try:
        check_event(event)
    except FormatError as error:
        raise ValueError(str(error)) from error
    data = encode(event)
    if len(data) > MAX_ENTRY_BYTES:
        raise ValueError(
            f"the {event['kind']} entry has {len(data):,} bytes and the most is {MAX_ENTRY_BYTES:,}; "
            "split it, or write what is long to a file and record that as an artifact"
        )
    return data


def decode_event(data: bytes | memoryview) -> dict[str, Any]:
    """The event of an entry's bytes, arrays as read-only views. FormatError for anything that is no valid entry."""
    if len(data) > MAX_ENTRY_BYTES:
        raise FormatError(f"an entry of {len(data):,} bytes; the most is {MAX_ENTRY_BYTES:,}")
    event = decode(data)
    if not isinstance(event, dict):
        raise FormatError(f"an entry is a map, not {type(event).__name__}")
    check_event(event)
    return event


def check_event(event: Mapping[str, Any]) -> None:
    """FormatError unless `event` has a known kind, its fields and no others, of their types, with fitting lengths."""
    kind = event.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise FormatError(f"entry kind {_describe(kind)} is none of {', '.join(KINDS)}")
    fields, required = KINDS[kind], REQUIRED[kind]
    for name, value in event.items():
        check = fields.get(name)
        if check is None:
            raise FormatError(f"a {kind} entry has no field {name!r:.60}; its fields are {', '.join(fields)}")
        if not check(value):
            raise FormatError(f"field {name} of a {kind} entry cannot be {_describe(value)}")
    for name in fields:
        if name in required and name not in event:
            raise FormatError(f"a {kind} entry needs the field {name}")
    special = _COLUMNS.get(kind)
    if special is not None:
        special(event)


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.size} {value.dtype}"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return f"{type(value).__name__} {value!r:.60}"


def _same_length(event: Mapping[str, Any], first: str, *others: str) -> None:
    n = len(event[first])
    for name in others:
        if name in event and len(event[name]) != n:
            raise FormatError(
                f"a {event['kind']} entry has {n} {first} and {len(event[name])} {name}; they belong together"
            )


def _check_run(event: Mapping[str, Any]) -> None:
    if event["id_scheme"] == "keyed" and "key_commitment" not in event:
        raise FormatError(
            "a run entry with keyed ids needs the field key_commitment: it binds every absence to one key"
        )


def _check_samples(event: Mapping[str, Any]) -> None:
    _same_length(event, "ids", "contents", "subjects")
    if not event["part"] < event["parts"]:
        raise FormatError(f"samples part {event['part']} of {event['parts']}; parts count from 0")
    if not ascend(np.frombuffer(event["ids"], np.uint8).reshape(-1, 32)):
        raise FormatError("the ids of a samples entry do not ascend; a block lists them in order, each once")


def _check_transform(event: Mapping[str, Any]) -> None:
    pairs = [n in event for n in ("child_block", "parents", "children")]
    if any(pairs) and not all(pairs):
        raise FormatError("a transform entry has child_block, parents and children together, or none of them")
    if all(pairs):
        _same_length(event, "parents", "children")
    spans = [n in event for n in ("starts", "stops")]
    if any(spans):
        if not all(pairs + spans):
            raise FormatError("a transform entry has starts and stops together, beside parents and children")
        _same_length(event, "parents", "starts", "stops")
        if (event["starts"] > event["stops"]).any():
            raise FormatError("a span of a transform entry stops before it starts")
    if not (all(pairs) or "kept" in event or "dropped" in event):
        raise FormatError("a transform entry names what it kept, dropped or derived; it names nothing")
    if "same_as" in event and ("dropped" not in event or len(event["same_as"]) != 32 * len(event["dropped"])):
        raise FormatError("same_as of a transform entry holds 32 bytes for each dropped ordinal")


def _check_use(event: Mapping[str, Any]) -> None:
    _same_length(event, "count", "epoch", "batch", "step", "status", "attribution")
    _same_length(event, "ordinals", "losses")
    batches = len(event["count"])
    if batches == 0:
        raise FormatError("a use entry names at least one batch")
    total = int(event["count"].sum(dtype=np.uint64))
    if total != len(event["ordinals"]):
        raise FormatError(f"the counts of a use entry add up to {total}, but it has {len(event['ordinals'])} ordinals")
    for name, codes in (("status", STATUS), ("attribution", ATTRIBUTION)):
        if event[name].min() < 1 or event[name].max() > len(codes):
            wrong = next(code for code in event[name].tolist() if not 1 <= code <= len(codes))
            raise FormatError(f"{name} of a use entry is a code from 1 to {len(codes)}, not {wrong}")
    if not np.array_equal(event["step"] == NO_STEP, event["status"] != STATUS["applied"]):
        raise FormatError("a use entry gives a step for applied batches and for no others")
    watched = [ATTRIBUTION[word] for word in ("exact", "sole", "fifo")]
    if "fit" in event and np.isin(event["attribution"], watched).any():
        raise FormatError("a use entry that names a fit is declared, or among the declared: no optimizer was watched")
    hops = [n in event for n in ("graph", "hops", "hop_count", "hop_ordinals")]
    if any(hops):
        _check_hops(event, all(hops), batches)


def _check_hops(event: Mapping[str, Any], complete: bool, batches: int) -> None:
    if not complete:
        raise FormatError("a use entry has graph, hops, hop_count and hop_ordinals together, or none of them")
    if len(event["hop_count"]) != batches * event["hops"]:
        raise FormatError(f"hop_count holds a number for each of {batches} batches and {event['hops']} hops")
    if int(event["hop_count"].sum(dtype=np.uint64)) != len(event["hop_ordinals"]):
        raise FormatError("the hop counts of a use entry do not add up to its hop ordinals")


def _check_attention(event: Mapping[str, Any]) -> None:
    expected = len(event["ordinals"]) * len(event["modalities"])
    if len(event["weights"]) != expected:
        raise FormatError(f"an attention entry has {len(event['weights'])} weights and needs {expected}")


def _check_contribution(event: Mapping[str, Any]) -> None:
    _same_length(event, "ordinals", "scores")


def _check_prediction(event: Mapping[str, Any]) -> None:
    _same_length(event, "ordinals", "losses")
    n, m = len(event["ordinals"]), len(event.get("outputs", ()))
    if (m % n if n else m) != 0:
        raise FormatError(f"a prediction entry has {m} outputs for {n} samples; each has the same number")


def _check_join(event: Mapping[str, Any]) -> None:
    if not event["rank"] < event["ranks"]:
        raise FormatError(f"a join entry of rank {event['rank']} of {event['ranks']}; ranks count from 0")


def _check_gap(event: Mapping[str, Any]) -> None:
    given = [n in event for n in ("lost_writer", "first", "stop")]
    if any(given) and not (all(given) and event["first"] < event["stop"]):
        raise FormatError("a gap entry names lost_writer, first and stop together, first below stop, or none of them")


_COLUMNS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "run": _check_run,
    "samples": _check_samples,
    "transform": _check_transform,
    "use": _check_use,
    "attention": _check_attention,
    "contribution": _check_contribution,
    "prediction": _check_prediction,
    "join": _check_join,
    "gap": _check_gap,
}
