"""Bundles as liars make them: changed in their JSON, pieced together, or made anew by one who holds the signing key."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.errors import FgtracError
from fgtrac.events.codec import TYPED_ARRAYS, decode, encode
from fgtrac.events.schema import decode_event
from fgtrac.tlog.index import Absence, LeafProof
from fgtrac.tlog.merkle import MemoryNodes, hash_leaves, prove_inclusion, root
from fgtrac.tlog.note import Note, TreeHead, format_note, format_tree_head, sign_note
from fgtrac.tlog.proof import TlogProof
from fgtrac.verify.bundle import CLAIMS, CONTENT_CLAIMS, Bundle, Shown, format_bundle, head_of
from fgtrac.verify.keys import rotation_message
from fgtrac.verify.sentences import sentence

KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in range(4)]  # the first one signs all traces here
PUBLIC = [key.public_key().public_bytes_raw() for key in KEYS]
ODD = [None, True, 0, 1, 1.5, -1, 65_536, 300, [], {}, "", "0", "none", "AAAA", str(2**64), str(2**64 - 1), "\ud800"]
LETTERS = ["", "0", "1", "a", "A", "/", "=", "\n", "+", "\u2014", " "]
ADDED = ["more", "graph", "hops", "hop_count", "losses", "revoked", "same_as", "kept", "digest"]

# -- changes that anyone can make ------------------------------------------------------------------------------------


def change_json(value: Any, others: Sequence[Any], rng: random.Random) -> Any:
    """The same JSON value with one thing in it exchanged, left out, added, repeated or taken from another bundle."""
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        at = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        inside = [o[at] for o in others if _has(o, value, at)]
        copy: Any = dict(value) if isinstance(value, dict) else list(value)
        how = rng.random()
        if how < 0.06:
            del copy[at]
        elif how < 0.12 and isinstance(copy, list):
            copy.insert(at, copy[at])
        elif how < 0.14 and isinstance(copy, dict):
            copy[rng.choice(["more", "rows", "holders", "children", "entries"])] = rng.choice(ODD)
        elif how < 0.3 and inside:
            copy[at] = rng.choice(inside)
        else:
            copy[at] = change_json(value[at], inside, rng)
        return copy
    if isinstance(value, str) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice([*LETTERS, value[at] * 2]) + value[at + 1 :]
    if type(value) is int and rng.random() < 0.7:
        return rng.choice([value + 1, value - 1, 255, 256, 65_535])
    return rng.choice(ODD)


def _has(other: Any, value: Any, at: Any) -> bool:
    if type(other) is not type(value):
        return False
    return at in other if isinstance(value, dict) else at < len(other)


def changed(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """The bundle's bytes with one or two changes, or with one bit flipped, or cut."""
    how = rng.random()
    if how < 0.1:
        at = rng.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if how < 0.12:
        return data[: rng.randrange(len(data))]
    said = json.loads(data)
    for _ in range(rng.choice([1, 1, 2])):
        said = change_json(said, [json.loads(other) for other in others], rng)
    return json.dumps(said, ensure_ascii=False).encode("utf-8", "surrogatepass")


# -- a log made anew by whoever holds its key ------------------------------------------------------------------------


def resigned(bundle: Bundle, rng: random.Random) -> bytes:
    """The bundle with changed rows, entries, descendants, counts, claim or keys, all of it in a log and an index made
    for it and signed; its words are those that follow, where any do."""
    events: dict[int, Any] = {e.number: decode(e.entry) for e in bundle.entries}
    seal = decode(bundle.seal)
    signer = KEYS[0]
    for _ in range(rng.choice([1, 1, 2])):
        how = rng.random()
        if how < 0.35 and events:
            number = rng.choice(list(events))
            events[number] = change_event(events[number], rng)
        elif how < 0.42 and events:
            del events[rng.choice(list(events))]
        elif how < 0.5 and events:
            free = set(range(head_of(bundle).size - 1)) - events.keys()
            events[rng.choice(sorted(free | {0}))] = change_event(rng.choice(list(events.values())), rng)
        elif how < 0.65 and bundle.value:
            bundle = replace(bundle, value=change_value(bundle.value, rng))
        elif how < 0.78 and bundle.children:
            at = rng.randrange(len(bundle.children))
            child = bundle.children[at]
            kept = (replace(child, value=change_value(child.value, rng)),) if rng.random() < 0.7 else ()
            bundle = replace(bundle, children=bundle.children[:at] + kept + bundle.children[at + 1 :])
        elif how < 0.84:
            seal["counts"] = change_value_of(seal.get("counts"), rng)  # an earlier change may have taken them
        elif how < 0.88:
            seal = change_event(seal, rng)
        elif how < 0.92:
            others = [
                c for c in CLAIMS if (c in CONTENT_CLAIMS, "no" in c) == (bundle.claim in CONTENT_CLAIMS, "no" in c)
            ]
            bundle = replace(bundle, claim=rng.choice(others))
        elif how < 0.95 and bundle.preimage:
            bundle = replace(bundle, preimage=encode(change_value_of(decode(bundle.preimage), rng)))
        else:
            signer = add_keys(events, seal, head_of(bundle), rng)
    shown = {n: encode(e) for n, e in sorted(events.items())}
    made = sign(bundle, shown, seal, signer, rng.random() < 0.02)
    return format_bundle(replace(made, words=words_of(made)))


def words_of(bundle: Bundle) -> str:
    """The words that follow from what is shown; the old ones where none do."""
    try:
        return sentence(bundle, head_of(bundle), {e.number: decode_event(e.entry) for e in bundle.entries})
    except (FgtracError, ValueError, KeyError, TypeError, OverflowError):  # a liar's entries are of any form
        return bundle.words


def add_keys(events: dict[int, Any], seal: dict[str, Any], head: TreeHead, rng: random.Random) -> Ed25519PrivateKey:
    """One to three `key` entries, some of them false; the key that signs the head then."""
    count, trace_id = rng.randrange(1, 4), bytes.fromhex(head.origin[-32:])
    free = sorted(set(range(head.size - 1)) - events.keys())
    numbers = sorted(rng.sample(free, min(count, len(free))))
    for place, number in enumerate(numbers):
        old, new = place, rng.choice([place + 1] * 6 + [0])
        message = rotation_message(trace_id, PUBLIC[old], PUBLIC[new], revoked := rng.random() < 0.2)
        fields = {"kind": "key", "time": 1, "writer": bytes(16), "seq": number, "public_key": PUBLIC[new]}
        pair = KEYS[old].sign(message), KEYS[rng.choice([new] * 6 + [old])].sign(message)
        fields |= {"old_signature": pair[0], "new_signature": pair[1]} | ({"revoked": True} if revoked else {})
        events[number] = fields
    counts = seal.get("counts")
    seal["counts"] = (counts if isinstance(counts, dict) else {}) | {"key": len(numbers)}
    return KEYS[rng.choice([len(numbers)] * 6 + [0])]


def sign(
    bundle: Bundle, shown: dict[int, bytes], seal: dict[str, Any], signer: Ed25519PrivateKey, is_torn: bool
) -> Bundle:
    """The bundle in a log of these entries, with the index that they are said to give."""
    type = 2 if bundle.claim in CONTENT_CLAIMS else 1
    values = {bundle.id: bundle.value} | {c.id: c.value for c in bundle.children}
    keys = sorted({k for k, v in values.items() if v is not None} | {bytes(32), b"\xff" * 32} - {bundle.id})
    digests = [_sha256(values.get(k) or b"") for k in keys]
    tree = MemoryNodes(hash_leaves([bytes((type,)) + k + d for k, d in zip(keys, digests, strict=True)]))
    proofs = {
        k: LeafProof(i, type, k, digests[i], tuple(prove_inclusion(i, len(keys), tree))) for i, k in enumerate(keys)
    }
    if bundle.value is None:
        below, above = [k for k in keys if k < bundle.id], [k for k in keys if k > bundle.id]
        left, right = (proofs[side[at]] if side else None for side, at in ((below, -1), (above, 0)))
        bundle = replace(bundle, absence=Absence(left, right))
    else:
        bundle = replace(bundle, leaf=(proofs[bundle.id].index, proofs[bundle.id].path))
    children = tuple(replace(c, leaf=(proofs[c.id].index, proofs[c.id].path)) for c in bundle.children)
    number, origin = head_of(bundle).size - 1, head_of(bundle).origin
    said = seal | {"root": root(len(keys), tree), "leaves": len(keys)}
    entry = bundle.seal if is_torn else encode(said)
    leaves = hash_leaves([shown.get(n, b"hidden %d" % n) for n in range(number)] + [entry])
    log = MemoryNodes(leaves)
    text = format_tree_head(TreeHead(origin, number + 1, root(number + 1, log)))
    note = format_note(Note(text, (sign_note(text, origin, signer),)))
    entries = tuple(Shown(n, e, tuple(prove_inclusion(n, number + 1, log))) for n, e in shown.items())
    proof = TlogProof(number, tuple(prove_inclusion(number, number + 1, log)), note)
    return replace(bundle, seal=entry, proof=proof, entries=entries, children=children)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def change_event(event: Any, rng: random.Random) -> Any:
    """An entry with one field changed, left out or added."""
    copy = dict(event)
    how, name = rng.random(), rng.choice(list(copy))
    if how < 0.06:
        del copy[name]
    elif how < 0.1:
        copy[rng.choice(ADDED)] = rng.choice([1, True, b"x"])
    else:
        copy[name] = change_value_of(copy[name], rng)
    return copy


def change_value(value: bytes, rng: random.Random) -> bytes:
    """A sample's rows or a content's holders with one of them changed, left out or repeated."""
    width = 19 if len(value) % 19 == 0 else 32
    rows = [value[i : i + width] for i in range(0, len(value), width)]
    at = rng.randrange(len(rows))
    raw = bytearray(rows[at])
    place = rng.choice([0, 1, 3, 3, 11, 11])
    raw[place] = (raw[place] + rng.choice([1, -1, 2])) % 256
    rows[at : at + 1] = rng.choice([[], [rows[at]] * 2, [bytes(raw)], [bytes(raw)]])
    rows.sort(key=lambda row: (row[3:11][::-1], row[0], row[1:3][::-1], row[11:][::-1]))
    return b"".join(rows) or value


def change_value_of(value: Any, rng: random.Random) -> Any:
    """A value of an entry, a little different."""
    if isinstance(value, np.ndarray):
        kind = rng.random()
        if kind < 0.1:
            return value.astype(rng.choice(list(TYPED_ARRAYS.values())), copy=True)
        if kind < 0.3 or not len(value):
            return np.append(value, value.dtype.type(1)) if rng.random() < 0.5 else value[:-1]
        copy = value.copy()
        copy[rng.randrange(len(copy))] = rng.choice([*copy.tolist(), 0, 1, 2, 3, 4])
        return copy
    if isinstance(value, dict) and value:
        name = rng.choice(list(value))
        return {k: v for k, v in value.items() if k != name or rng.random() < 0.7} | (
            {name: change_value_of(value[name], rng)} if rng.random() < 0.7 else {}
        )
    if isinstance(value, list) and value:
        at = rng.randrange(len(value))
        return [*value[:at], *rng.choice([[], [value[at]] * 2, [change_value_of(value[at], rng)]]), *value[at + 1 :]]
    if isinstance(value, bytes) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice([b"", bytes([value[at] ^ 1])]) + value[at + 1 :]
    if isinstance(value, bool):
        return rng.choice([not value, 1])
    if isinstance(value, int):
        return rng.choice([min(value + 1, 2**64 - 1), max(0, value - 1), 0, 1, 2**64 - 1, -1, value // 2 + 10**9, "1"])
    if isinstance(value, str):
        return rng.choice([value + "x", "train", "test", "public", "keyed", "subject", "filter", "map", ""])
    return rng.choice([1, True, "x", b"x", 1.5, [], {}])
