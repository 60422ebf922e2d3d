#!/usr/bin/env python3
"""Checks an fgtrac bundle without fgtrac: one file, the standard library and `cryptography`, written from docs/spec/.

Ends with 0 where the claim holds, 1 where it is refuted, 2 where the bundle is malformed or the call is wrong, and 3
where nobody can tell from this bundle.
"""

import argparse
import hashlib
import hmac
import json
import re
import struct
import sys
from array import array
from base64 import b64decode
from collections import Counter
from datetime import UTC, datetime
from itertools import accumulate, pairwise
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Fault(Exception):
    """What is wrong: the words, and the verdict on the check that finds it."""


def need(condition, words, verdict="refuted"):
    if not condition:
        raise Fault(words, verdict)


def sha256(data):
    return hashlib.sha256(data).digest()


def split(ids):
    return [ids[i : i + 32] for i in range(0, len(ids), 32)]


# The file: strict JSON of one form (bundle.md, "Fields" and "Limits"). A form is one of TEXTS, a limit of numbers, a
# dict of fields (`?`: optional), or for a list (form, least, most).
MAX_BYTES, MAX_DEPTH, MAX_VALUES, MAX_ROWS = 64 << 20, 5, 5_000_000, 1_000_000
ABSENT, WHOLE = ("never registered", "content absent"), ("history", "never used", "never registered", "content absent")
NONE = 2**64 - 1  # where a row has no step
TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},:]', re.DOTALL)
NUMBER, HASH = "(?:0|[1-9][0-9]{0,19})", "[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]="
BASE64 = "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?"  # canonical only
TEXTS = {
    "text": ("(?s:.*)", str), "id": ("[0-9a-f]{64}", bytes.fromhex), "hex": ("(?:[0-9a-f]{2})*", bytes.fromhex),
    "number": (NUMBER, int), "hash": (HASH, b64decode), "base64": (BASE64, b64decode), "none": ("none", str),
}  # fmt: skip
DETAILS = {2: (1, 4), 3: (1, 3), 5: (1, 3), 6: (1, 65535), 7: (2, 3)}  # of a kind the least and the greatest; else 0
LEAF = {"index": "number", "path": ("hash", 0, 64)}
SIDE = LEAF | {"type": 256, "key": "id", "digest": "id"}
ROWS = ("row", 1, MAX_ROWS)
ENTRY = {"number": "number", "entry": "base64", "path": ("hash", 0, 64)}
FORM = {
    "format": "text", "claim": "text", "words": "text", "id": {"value": "id", "preimage?": "hex", "opening?": "id"},
    "seal": {"entry": "base64", "proof": "text"}, "entries?": (ENTRY, 0, 100_000),
}  # fmt: skip
LIFE = {"index": {"leaf": LEAF}, "rows": ROWS, "children?": ({"id": "id", "rows": ROWS, "leaf": LEAF}, 0, 10_000)}
FORMS = dict.fromkeys(("used", "history", "never used"), FORM | LIFE)
FORMS |= dict.fromkeys(ABSENT, FORM | {"index": {"left?": SIDE, "right?": SIDE}})
FORMS["content present"] = FORM | {"index": {"leaf": LEAF}, "holders": ("id", 1, MAX_ROWS)}


def fit(value, form):
    """The value, decoded, where it is of this form."""
    if isinstance(form, dict):
        inside = {name.rstrip("?"): f for name, f in form.items()}
        fits = isinstance(value, dict) and {n for n in form if n[-1] != "?"} <= value.keys() <= inside.keys()
        need(fits, f"an object with the fields {', '.join(form)} is expected, not {value!r:.60}")
        return {name: fit(item, inside[name]) for name, item in value.items()}
    if isinstance(form, tuple):
        fits = isinstance(value, list) and form[1] <= len(value) <= form[2]
        need(fits, f"a list of {form[1]} to {form[2]} items is expected, not {value!r:.60}")
        return [fit(item, form[0]) for item in value]
    if form == "row":
        need(isinstance(value, list) and len(value) == 4, f"a row of four numbers is expected, not {value!r:.60}")
        has_step = value[3] != "none"
        kind, detail, entry, step = map(fit, value, (12, 65536, "number", "number" if has_step else "none"))
        least, most = DETAILS.get(kind, (0, 0))
        fits = kind and least <= detail <= most and step != NONE and (has_step or kind not in (5, 6))
        need(fits, f"the row {value} says nothing")
        return entry, kind, detail, step if has_step else NONE
    if isinstance(form, int):
        need(type(value) is int and 0 <= value < form, f"a number below {form} is expected, not {value!r:.60}")
        return value
    need(isinstance(value, str) and re.fullmatch(TEXTS[form][0], value), f"{form} is expected, not {value!r:.60}")
    need(form != "number" or int(value) <= NONE, f"{value} is not below 2^64")
    return TEXTS[form][1](value)


def read_bundle(data):
    """The decoded fields; size, depth and number of values are looked at before anything is decoded."""
    need(len(data) <= MAX_BYTES, f"more than {MAX_BYTES} bytes")
    depth = values = 0
    for token in TOKEN.finditer(data):
        mark = data[token.start()]
        depth += (mark in b"[{") - (mark in b"]}")
        values += mark in b"[{,:"
        need(depth <= MAX_DEPTH and values <= MAX_VALUES, f"deeper than {MAX_DEPTH} or more than {MAX_VALUES} values")
    hooks = {
        "object_pairs_hook": lambda pairs: dict(pairs) if len(dict(pairs)) == len(pairs) else None,  # no form fits None
        "parse_int": lambda text: int(text) if text.isdigit() else None,
    }
    try:
        said = json.loads(data.decode(), **hooks)
    except (ValueError, RecursionError) as error:
        raise Fault(f"no strict JSON: {error}", "refuted") from error
    claim = said.get("claim") if isinstance(said, dict) else None
    bundle = fit(said, FORMS.get(str(claim), {"claim": "a known one"}))
    need(bundle["format"] == "fgtrac-bundle/v1", f"the format {bundle['format']!r:.60} is not fgtrac-bundle/v1")
    lives = [bundle.get("rows", []), *(child["rows"] for child in bundle.get("children", []))]
    fits = len(bundle["words"]) <= 4096 and sum(map(len, lives)) <= MAX_ROWS
    for keys in [e["number"] for e in bundle.get("entries", [])], [c["id"] for c in bundle.get("children", [])]:
        fits = fits and keys == sorted({*keys})
    need(fits and all(rows == sorted(rows) for rows in lives), "too much, or rows, entries or children out of order")
    return bundle


# Keys, signed tree heads and Merkle trees (log.md).
NAME = r"[^\s+\0-\x1f\ud800-\udfff]+"
PROOF = re.compile(
    f"c2sp.org/tlog-proof@v1\nindex ({NUMBER})\n((?:{HASH}\n){{0,64}})\n"
    f"((fgtrac/[0-9a-f]{{32}})\n({NUMBER})\n({HASH})\n)\n((?:\u2014 {NAME} {BASE64}\n){{1,100}})"
)


class Head:
    """A c2sp.org/tlog-proof@v1 without `extra` lines: where an entry stands under the signed head of a trace's log."""

    def __init__(self, proof):
        said = PROOF.fullmatch(proof)
        need(said, f"{proof!r:.60} is no proof under the signed head of a trace")
        index, path, self.text, self.origin, size, root, lines = said.groups()
        self.index, self.size, self.root = int(index), int(size), b64decode(root)
        self.path = [b64decode(line) for line in path.split()]
        self.lines = [(line.split(" ")[1], b64decode(line.split(" ")[2])) for line in lines.splitlines()]
        need(max(self.index, self.size) < 10**19 and all(len(raw) > 4 for _, raw in self.lines), "no size or signature")

    def is_signed(self, key):
        """Whether a line is the key's. Every line that is must be right; other people's say nothing here."""
        key_id = sha256(self.origin.encode() + b"\n\1" + key)[:4]
        mine = [raw[4:] for name, raw in self.lines if (name, raw[:4]) == (self.origin, key_id)]
        need(all(is_signed(key, s, self.text.encode()) for s in mine), f"a signature of {key.hex()} is wrong")
        return bool(mine)


def is_signed(key, signature, message):
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def read_key(named, origin):
    """The name and the public key of 64 hex digits, of a C2SP vkey, or of a file that holds one of these."""
    is_file = len(named) < 4096 and "\0" not in named and Path(named).is_file()
    said = (Path(named).read_bytes()[:10_000].decode(errors="replace") if is_file else named).strip()
    if re.fullmatch("[0-9a-fA-F]{64}", said):
        return origin, bytes.fromhex(said)
    vkey = re.fullmatch(f"({NAME})\\+([0-9a-f]{{8}})\\+({BASE64})", said)
    name, key_id, text = vkey.groups() if vkey else ("", "", "")
    raw = b64decode(text)
    fits = len(raw) == 33 and raw[0] == 1 and sha256(name.encode() + b"\n" + raw)[:4].hex() == key_id
    need(fits, f"{named!r:.80} is no key: 64 hex digits, a C2SP vkey of Ed25519 or a file of one is expected")
    return name, raw[1:]


def check_inclusion(root, index, size, leaf, path):
    """RFC 9162 section 2.1.3.2."""
    need(index < size, f"leaf {index} cannot be in a tree of {size}")
    at, last, reached = index, size - 1, sha256(b"\0" + leaf)
    for sibling in path:
        need(last, f"the path of leaf {index} of {size} is too long")
        is_right = at & 1 or at == last
        reached = sha256(b"\1" + sibling + reached if is_right else b"\1" + reached + sibling)
        while is_right and at and not at & 1:
            at, last = at >> 1, last >> 1
        at, last = at >> 1, last >> 1
    need(not last and reached == root, f"the path of leaf {index} of {size} does not lead to the root")


# Entries: deterministic CBOR, and the fields of each kind that a claim can need (entries.md), as name=type: a number of
# bytes, a letter for the elements of a typed array, ...; ? is optional, and what follows a slash is as long.
ARRAYS = {64: "B", 69: "H", 70: "I", 71: "Q", 84: "h", 85: "f", 86: "d"}  # by tag; h: the bits of a float16
ENTRIES = """
run: trace=16 format=int public_key=32 id_scheme=public|keyed key_commitment?=32 git_commit?=text git_dirty?=bool
 versions={text} config?=map config_artifact?=text
dataset: name=text id_scheme=public|keyed|subject rows?=int content?=text
samples: dataset=text block=16 part=int parts=int ids=32n contents?=32n/ids subjects?=32n/ids
roles: role=train|validation|test|excluded block=16 ordinals=I
transform: stage=text operation=filter|map|deduplicate|split|record block=16 parameters?=map code?=32 output?=text
 kept?=I dropped?=I same_as?=bytes child_block?=16 parents?=I/children children?=I/parents
use: loader=int optimizer=int block=16 epoch=I/count batch=I/count step=Q/count status=B/count attribution=B/count
 count=I ordinals=I losses?=h/ordinals hops?=int hop_count?=I hop_ordinals?=I
attention: checkpoint=ref step=int modalities=[text] block=16 ordinals=I weights=f
checkpoint: step=int epoch?=int val_loss?=float learning_rates?=d digest?=32 kept=bool rule=text
contribution: checkpoint=ref step=int target=text method=text block=16 ordinals=I scores=f/ordinals parameters?=map
prediction: checkpoint?=ref step=int block=16 ordinals=I outputs?=f losses?=f/ordinals
resume: writers=[ref] step=int
key: public_key=32 old_signature=64 new_signature=64 revoked?=bool
erasure: pseudonym=32 block=16 ordinals=I artifacts=[text]
seal: root=32 leaves=int entries=int counts={int} epoch_steps=Q
"""
FIELDS = {
    kind: dict(field.split("=") for field in f"kind=text time=int writer=16 seq=int {fields}".split())
    for kind, fields in re.findall(r"^(\w+): (.*(?:\n .*)*)", ENTRIES, re.MULTILINE)
}
TYPES = {"text": str, "bytes": bytes, "bool": bool, "float": float, "map": dict}


class Cbor:
    """A cursor over deterministic CBOR: whatever is not the one encoding of its value is refused."""

    def __init__(self, data):
        self.data, self.at, self.items = data, 0, 0

    def take(self, size):
        need(size <= len(self.data) - self.at, "CBOR ends in the middle of a value")
        self.at += size
        return self.data[self.at - size : self.at]

    def value(self, depth=0):
        major, info = divmod(self.take(1)[0], 32)
        need(info < 28, "an indefinite length or a reserved head")
        argument = info if info < 24 else int.from_bytes(self.take(1 << info - 24), "big")
        is_shortest = info < 24 or argument >= (24, 1 << 8, 1 << 16, 1 << 32)[info - 24]
        need(is_shortest or major == 7, "a head that is not the shortest")
        if major < 2:
            need(major == 0 or argument < 1 << 63, "an integer below -2^63")
            return -1 - argument if major else argument
        if major < 4:
            raw = self.take(argument)
            need(major == 2 or raw.decode(errors="replace").encode() == raw, "text that is no UTF-8")
            return raw if major == 2 else raw.decode()
        if major == 6:
            letter, raw = ARRAYS.get(argument, "B"), self.value(16)
            n, rest = divmod(len(raw), struct.calcsize(letter)) if type(raw) is bytes else (0, 1)
            need(argument in ARRAYS and not rest, f"no typed array of tag {argument}")
            return array(letter, struct.unpack(f"<{n}{letter}", raw))
        if major == 7:
            number = struct.unpack(">d", argument.to_bytes(8, "big"))[0]
            need(info in (20, 21) or (info == 27 and number == number), "NaN, or a value that no entry has")
            return number if info == 27 else info == 21
        self.items += argument
        need(depth < 16 and self.items <= 1 << 18, "nested more than 16 deep, or too many items")
        if major == 4:
            return [self.value(depth + 1) for _ in range(argument)]
        found, before = {}, b""
        for _ in range(argument):
            start, name = self.at, self.value(16)
            need(type(name) is str and self.data[start : self.at] > before, "map keys that are no text, or unordered")
            before = self.data[start : self.at]
            found[name] = self.value(depth + 1)
        return found


def decode(data):
    reader = Cbor(data)
    value = reader.value()
    need(reader.at == len(data), "bytes behind the value")
    return value


def is_of(value, form):
    """Whether a field's value is of its type, as ENTRIES writes it."""
    if form[0] in "[{":
        inside = value.values() if isinstance(value, dict) else value
        return isinstance(value, list if form[0] == "[" else dict) and all(is_of(item, form[1:-1]) for item in inside)
    if form == "ref":
        return isinstance(value, list) and len(value) == 2 and is_of(value[0], "16") and is_of(value[1], "int")
    if form == "int":
        return type(value) is int and value >= 0
    if form[0].isdigit():
        return type(value) is bytes and (len(value) % 32 == 0 < len(value) if form == "32n" else len(value) == int(form))
    if form in TYPES or "|" in form:
        return type(value) is TYPES.get(form, str) and (form in TYPES or value in form.split("|"))
    return isinstance(value, array) and value.typecode == form


def decode_entry(data):
    """The fields of an entry: of a kind that can be shown, all that it needs and no others, fitting each other."""
    e = decode(data)
    need(len(data) < 65536 and isinstance(e, dict) and str(e.get("kind")) in FIELDS, "no entry of a kind that is shown")
    kind = e["kind"]
    forms = {name.rstrip("?"): form.split("/") for name, form in FIELDS[kind].items()}
    for name in {*e, *(name for name in FIELDS[kind] if name[-1] != "?")}:
        need(name in forms and name in e and is_of(e[name], forms[name][0]), f"the field {name!r:.40} of a {kind} entry")
        for other in forms[name][1:]:
            need(other in e and len(e[other]) == len(e[name]), f"a {kind} entry whose {name} and {other} do not fit")
    need(FITS.get(kind, bool)(e), f"a {kind} entry whose fields do not fit")
    return e


def use_fits(e):
    is_whole = len({"hops", "hop_count", "hop_ordinals"} & e.keys()) in (0, 3)
    hops = e.get("hop_count", ()), e.get("hop_ordinals", ())
    fits = is_whole and len(hops[0]) == len(e["count"]) * e.get("hops", 0) and sum(hops[0]) == len(hops[1])
    fits = fits and len(e["count"]) > 0 and sum(e["count"]) == len(e["ordinals"])
    steps = all((step == NONE) == (status != 1) for step, status in zip(e["step"], e["status"], strict=True))
    return fits and steps and {*e["status"], *e["attribution"]} <= {1, 2, 3}


FITS = {
    "run": lambda e: e["format"] == 1 and (e["id_scheme"] == "public" or "key_commitment" in e),
    "samples": lambda e: e["part"] < e["parts"] and all(a < b for a, b in pairwise(split(e["ids"]))),
    "transform": lambda e: ("parents" in e) == ("child_block" in e)
    and {"parents", "kept", "dropped"} & e.keys()
    and ("same_as" not in e or ("dropped" in e and len(e["same_as"]) == 32 * len(e["dropped"]))),
    "use": use_fits,
    "attention": lambda e: len(e["weights"]) == len(e["ordinals"]) * len(e["modalities"]),
    "prediction": lambda e: len(e.get("outputs", ())) % (len(e["ordinals"]) or NONE) == 0,
}


# The checks (bundle.md, "Checking one"). A row is (entry, kind, detail, step).
KINDS = "registered role transformed derived used neighbour delivered attention contribution prediction erased".split()
ROLES = ("train", "validation", "test", "excluded")
CHECKS = {"seal": "", "entries": "seal", "signature": "seal entries", "index": "seal", "identity": "entries"}
CHECKS |= {"about": "entries", "evidence": "entries index", "children": "entries index", "complete": "seal", "sources": "entries"}
CHECKS["claim"] = "entries index evidence children"  # a check, and those that it needs


class Examination:
    """One bundle under examination. A check raises, or it holds, and then its first line says what holds."""

    def __init__(self, bundle, key=None, id_key=None, about=None):
        self.bundle, self.claim, self.head = bundle, bundle["claim"], Head(bundle["seal"]["proof"])
        self.key = None if key is None else read_key(key, self.head.origin)
        self.id_key, self.about = id_key, None if about is None else read_about(about)
        self.id, self.preimage, self.opening = (bundle["id"].get(name) for name in ("value", "preimage", "opening"))
        self.is_absent, self.is_content, self.rows = self.claim in ABSENT, "content" in self.claim, bundle.get("rows", [])
        self.below = {child["id"]: child["rows"] for child in bundle.get("children", [])}  # of its descendants
        self.uses = [row for row in self.rows if row[1] in (5, 6)]
        self.uses_below = [row for rows in self.below.values() for row in rows if row[1] in (5, 6)]
        self.is_evident = bool(self.rows) and entries_of(self.rows) <= {e["number"] for e in bundle.get("entries", [])}
        self.has_children = bool(self.below or entries_of(self.rows, 3, 3))
        self.shown = {}

    def report(self):
        """The verdict, and (verdict, words) of each check that is made for this bundle."""
        asked = {"about": self.about, "evidence": self.is_evident, "children": self.has_children}
        asked |= {"complete": self.claim in WHOLE, "sources": self.claim == "content absent"}
        found = {}
        for name in (name for name in CHECKS if asked.get(name, True)):
            check, failed = getattr(self, f"check_{name}"), [other for other in found if found[other][0] != "holds"]
            missing = [other for other in failed if other in CHECKS[name].split()]
            try:
                need(not missing, f"not checked, since the check {missing[:1]} does not hold", "cannot tell")
                found[name] = "holds", check() or check.__doc__
                need(name != "claim" or {*failed} <= {"about"}, f"{failed[:1]} does not hold", "cannot tell")
            except Fault as fault:
                found[name] = fault.args[1], fault.args[0]
        return max((verdict for verdict, _ in found.values()), key=["holds", "cannot tell", "refuted"].index), found

    def of(self, kind):
        return {n: e for n, e in self.shown.items() if e["kind"] == kind}

    def check_seal(self):
        """the last entry under the head is a seal over all entries before it"""
        entry, at, size = self.bundle["seal"]["entry"], self.head.index, self.head.size
        need(at == size - 1, f"the seal is entry {at} of {size}, not the last")
        check_inclusion(self.head.root, at, size, entry, self.head.path)
        self.seal = decode_entry(entry)
        need(self.seal["kind"] == "seal" and self.seal["entries"] == at, f"entry {at} seals other entries, or none")
        gaps, has_end = self.seal["counts"].get("gap", 0), self.seal["counts"].get("end")
        lost = f"{'' if has_end else ','} with {count(gaps, 'gap')} in its record" if gaps else ""
        self.record = "" if has_end and not gaps else f" of a run{'' if has_end else ' that has not ended'}{lost}"

    def check_entries(self):
        """the other entries shown are in the log, and they are those that the claim needs"""
        for e in self.bundle.get("entries", []):
            check_inclusion(self.head.root, e["number"], self.head.size, e["entry"], e["path"])
            self.shown[e["number"]] = decode_entry(e["entry"])
        kinds = ["key", "resume"] if self.claim in ("used", "history") else ["key"]
        if self.claim == "content absent" or (self.is_absent and self.preimage is not None):
            is_keyed = any(e["id_scheme"] == "keyed" for e in self.of("dataset").values())
            kinds += ["dataset", "run"] if is_keyed else ["dataset"]
        for kind in kinds:
            need(len(self.of(kind)) == self.seal["counts"].get(kind, 0), f"not all {kind} entries are shown")
        states = [e["kept"] for e in self.of("checkpoint").values()]
        need(not states or (states == [True] and self.claim == "used" and self.uses), "a checkpoint out of place")
        needed = {n for n, e in self.shown.items() if e["kind"] in (*kinds, "checkpoint")}
        needed |= entries_of(self.rows) if self.is_evident else set()
        for rows in [self.rows, *self.below.values()] if self.has_children else []:
            needed |= entries_of(rows, 3, 3) | entries_of(rows, 1, 0)
        samples = {n: ((e["block"], e["parts"]), e["part"]) for n, e in self.of("samples").items()}
        parts = {samples[n] for n in needed & samples.keys()}
        lasts = {b for b, part in parts if b[1] > 1} - {b for b, part in parts if part < b[1] - 1}
        sizes = {n: block for n, (block, part) in samples.items() if n not in needed and part == 0 and block in lasts}
        need(len(sizes) == len(lasts) == len({*sizes.values()}), "part 0 of a block is not shown, or twice")
        need(self.shown.keys() == needed | sizes.keys(), "an entry that the claim needs is missing, or one too many")

    def check_signature(self):
        """signed by the key that you named, or by one that it leads to"""
        need(self.key, "no public key was named, and no bundle vouches for its own", "cannot tell")
        name, mine = self.key
        need(name == self.head.origin, f"a head of {self.head.origin}, and the key is that of {name!r:.80}")
        context = b"fgtrac key rotation v1\n" + bytes.fromhex(name[7:])
        rotations, chain = list(self.of("key").values()), [e["public_key"] for e in self.of("run").values()]
        for e in rotations:
            new, end = e["public_key"], e["public_key"] + bytes((e.get("revoked", False),))
            if not chain and is_signed(mine, e["old_signature"], context + mine + end):
                chain = [mine]
            pairs = ((chain[-1], e["old_signature"]), (new, e["new_signature"])) if chain else ()
            fits = new not in chain and all(is_signed(key, s, context + chain[-1] + end) for key, s in pairs)
            need(fits, f"the key entry of {new.hex()} is not signed, or goes back to an earlier key")
            chain.append(new)
        chain = chain or [mine]
        signers = [key for key in {*chain, mine} if self.head.is_signed(key)]
        need(mine in chain and chain[-1] in signers, "signed by another key than yours and the last that it leads to")
        is_revoked = any(e.get("revoked") for e in rotations[len(rotations) - len(chain) + 1 + chain.index(mine) :])
        need(not is_revoked, "a key on the way from yours is revoked: ask the log's owner for the new one", "cannot tell")

    def check_leaf(self, key, value, leaf):
        data = bytes((1 + self.is_content,)) + key + sha256(value)
        check_inclusion(self.seal["root"], leaf["index"], self.seal["leaves"], data, leaf["path"])

    def check_index(self):
        """the index that the seal commits to has this value, or these neighbours"""
        index, first, last = self.bundle["index"], -1, self.seal["leaves"]
        if not self.is_absent:
            return self.check_leaf(self.id, pack(self.rows) or b"".join(self.bundle["holders"]), index["leaf"])
        wanted = bytes((1 + self.is_content,)) + self.id
        for side, leaf in index.items():
            key = bytes((leaf["type"],)) + leaf["key"]
            check_inclusion(self.seal["root"], leaf["index"], self.seal["leaves"], key + leaf["digest"], leaf["path"])
            need(key < wanted if side == "left" else wanted < key, f"the {side} neighbour stands on the other side")
            first, last = (leaf["index"], last) if side == "left" else (first, leaf["index"])
        is_empty = not index and self.seal["root"] == sha256(b"")
        need(last - first == 1 and (index or is_empty), f"leaves {first} and {last} are no neighbours")

    def scheme(self):
        """The id scheme of an absent name, empty where the data sets do not settle it."""
        name = None if self.is_content else decode(self.preimage)[1]
        schemes = {e["id_scheme"] for e in self.of("dataset").values() if self.is_content or e["name"] == name}
        return schemes.pop() if len(schemes) == 1 else ""

    def check_identity(self):
        """the id is that of the name, or no name is given"""
        if self.preimage is None:
            return need(self.opening is None, "an opening of nothing")
        who, found = self.who(), sha256(self.preimage)
        need(not (self.is_absent and self.opening), "an absent id has no opening")
        if self.is_absent and self.scheme() != "public":
            need(self.scheme() == "keyed" and self.id_key, f"only who holds the id key can look for {who}", "cannot tell")
            commitment = sha256(b"fgtrac key v1\n" + self.id_key)
            need([e.get("key_commitment") for e in self.of("run").values()] == [commitment], "not the committed id key")
            found = keyed_id(self.id_key, self.preimage)
        if self.opening is not None:
            found = hmac.digest(self.opening, self.preimage, "sha256")
        need(found == self.id, f"{who} has the id {found.hex()}, not {self.id.hex()}")

    def check_about(self):
        """it is about whom you named"""
        what, named = self.about
        if what == "id":
            return need(named == self.id, f"the bundle is about {self.id.hex()}")
        need(self.is_content == (what == "content"), f"{self.claim!r} is not said of a {what}")
        ids = [sha256(named), *([keyed_id(self.id_key, named)] if self.id_key else [])]
        if self.preimage is not None:
            need(named == self.preimage, "the bundle is about another name")
        else:
            need(self.id in ids, f"nothing shows whether {self.id.hex()} is the id of this name", "cannot tell")
        others = {e.get("content", "file") for e in self.of("dataset").values()} - {"file"}
        need(not (self.is_content and self.is_absent and others), f"{others} are no files", "cannot tell")

    def places(self, lives):
        """By sample its ordinals by block, from the entries that register it."""
        sizes, samples, found = {}, self.of("samples"), {}
        for e in sorted(samples.values(), key=lambda e: e["part"] == e["parts"] - 1):  # the last parts last
            n, block, is_last = len(e["ids"]) // 32, (e["block"], e["parts"]), e["part"] == e["parts"] - 1
            need(n <= sizes.get(block, n) if is_last else n == sizes.setdefault(block, n), "parts that do not fit")
        where = {n: {id: place for place, id in enumerate(split(e["ids"]))} for n, e in samples.items()}
        for id, n in ((id, n) for id, rows in lives.items() for n in entries_of(rows, 1, 0)):
            need(id in where.get(n, ()), f"entry {n} does not register {id.hex()}")
            block, part, size = samples[n]["block"], samples[n]["part"], sizes.get((samples[n]["block"], samples[n]["parts"]))
            need(part == 0 or size, "the size of a block's parts is not known")
            ordinal = part and part * size + where[n][id] or where[n][id]
            need(found.setdefault(id, {}).setdefault(block, ordinal) == ordinal, f"{id.hex()} has two places in a block")
        return found

    def check_evidence(self):
        """the entries that the rows name give these rows and no others"""
        places, given = self.places({self.id: self.rows}).get(self.id, {}), []
        for n in sorted(entries_of(self.rows)):
            given += sorted((n, *row) for row in rows_given(self.shown[n], self.id, places))
        need([row[:4] for row in given] == self.rows, "the entries that the rows name give other rows")
        self.epochs = sorted({row[4] for row in given if row[1] in (5, 6)})

    def check_children(self):
        """all samples that were made from it are shown, and no others"""
        lives = {**self.below, self.id: self.rows}
        need(self.id not in self.below, "the sample is carried as a descendant of its own")
        for child in self.bundle.get("children", []):
            self.check_leaf(child["id"], pack(child["rows"]), child["leaf"])
        places, reached, waiting = self.places(lives), {self.id}, [self.id]
        who = {place: id for id, mine in places.items() for place in mine.items()}
        need(len(who) == sum(map(len, places.values())), "two samples have one ordinal")
        for parent in waiting:
            for n, pairs in Counter(row[0] for row in lives[parent] if row[1:3] == (3, 3)).items():
                e = self.shown[n]
                need("parents" in e, f"entry {n} makes no samples")
                at = places.get(parent, {}).get(e["block"])
                made = [child for p, child in zip(e["parents"], e["children"], strict=True) if p == at]
                children = {who.get((e["child_block"], child)) for child in made}
                need(len(made) == pairs, f"entry {n} makes {len(made)} samples of {parent.hex()}, its rows say {pairs}")
                need(None not in children, f"entry {n} makes a sample of {parent.hex()} that is not shown")
                waiting += children - reached
                reached |= children
        need(reached == lives.keys(), "a sample is carried that was not made from this one")

    def check_complete(self):
        """the run has ended, and no gap is known in its record"""
        need(not self.record, f"this is the record{self.record}: what it does not hold may have happened", "cannot tell")

    def check_sources(self):
        """each data set says what its contents are the digests of"""
        datasets = self.of("dataset").values()
        need(datasets and all("content" in e for e in datasets), "the source of some contents is not known", "cannot tell")

    def check_claim(self):
        uses, words = len(self.uses) + len(self.uses_below), " ".join(self.sentences())
        need(self.claim not in ("used", "never used") or (uses > 0) == (self.claim == "used"), f"there are {uses} uses")
        need(words == self.bundle["words"], f"the bundle says {self.bundle['words']!r:.200}, and what it shows is: {words}")
        return f"holds as committed at size {self.head.size}: {words}"

    def who(self):
        what, named = ("content", "digest") if self.is_content else ("sample", "id")
        if self.preimage is None:
            return f"the {what} with {named} {self.id.hex()}"
        parts = decode(self.preimage)
        form, parts = (parts[0], parts[1:]) if isinstance(parts, list) and parts else ("", [])
        if self.is_content:
            need(form == "fgtrac content v1" and len(parts) == 1 and is_of(parts[0], "32"), "no preimage of a content")
            return f"the content whose source has SHA-256 {parts[0].hex()}"
        fits = form == "fgtrac id v1" and len(parts) == 2 and type(parts[0]) is str and is_key(parts[1])
        need(fits, "no preimage of a sample")
        if max(map(len, map(as_json, parts))) <= 200:
            return f"the sample with key {as_json(parts[1])} of data set {as_json(parts[0])}"
        shown = f"key {as_json(parts[1], 200)} of data set {as_json(parts[0], 200)}, shown in part"
        return f"the sample whose preimage has SHA-256 {sha256(self.preimage).hex()} ({shown})"

    def is_undone(self, row):
        return any(n > row[0] and e["step"] < row[3] for n, e in self.of("resume").items())

    def claim_words(self):
        who, steps = self.who(), sorted(row[3] for row in self.uses or self.uses_below) or [0]
        span = f"in step {steps[0]}" if steps[0] == steps[-1] else f"first in step {steps[0]}, last in step {steps[-1]}"
        kinds = ", ".join(f"{n} x {KINDS[kind - 1]}" for kind, n in sorted(Counter(row[1] for row in self.rows).items()))
        through = "used in optimizer updates through samples made from it"
        return {
            "used": f"{who} was used {count(len(self.uses))} in optimizer updates, {span}"
            if self.uses
            else f"{who} was {through}, {count(len(self.uses_below))} in all, {span}",
            "history": f"the whole history of {who} is {count(len(self.rows), 'row')}: {kinds}",
            "never used": f"{who} is registered, and neither it nor a sample made from it was ever used in an optimizer update"
            if self.below
            else f"{who} is registered and was never used in an optimizer update",
            "never registered": f"{who} was never registered",
            "content present": f"{who} is held by {count(len(self.bundle.get('holders', ())), 'registered sample')}",
            "content absent": f"{who} is held by no registered sample",
        }[self.claim]

    def sentences(self):
        """The words (bundle.md, "The words"): each sentence whose condition holds, in order."""
        said, uses, shown, is_used = self.claim_words(), self.uses, self.shown, self.claim == "used"
        out = [f"{said[0].upper()}{said[1:]}, as committed by {self.head.origin} at size {self.head.size}"]
        out[0] += f"{self.record if self.claim in WHOLE else ''}."
        left = [row for row in uses if not self.is_undone(row)]
        if is_used and (n := sum(row[1] == 6 for row in uses)):
            out.append(f"It was a neighbour of other samples in {n} of its uses.")
        if self.claim in ("used", "history"):
            if n := sum(row[1:3] == (5, 3) for row in uses):
                out.append(f"Which update took it is assumed from the order of the batches in {n} of its uses.")
            if n := len(uses) - len(left):
                out.append(f"The run was resumed from an earlier step, which undid {n} of its uses.")
        if self.is_evident:
            ns = [shown[n]["time"] for n in entries_of(uses if is_used and uses else self.rows)]
            at = [datetime.fromtimestamp(t // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for t in (min(ns), max(ns))]
            when = f"at {at[0]}" if at[0] == at[1] else f"from {at[0]} to {at[1]}"
            of = "of its uses" if is_used and uses else "about it"
            out.append(f"By the clock of the recorder, the entries {of} were written {when}.")
        if self.is_evident and is_used and uses:
            first, last, n = self.epochs[0], self.epochs[-1], len(self.epochs)
            out.append(f"The uses are of {f'epoch {first}' if n == 1 else f'{n} epochs from {first} to {last}'}.")
        for n, e in self.of("checkpoint").items():
            need(not self.is_undone((n, 0, 0, e["step"])), "the model state was undone by a resume")
            digest = f" with SHA-256 {e['digest'].hex()}" if "digest" in e else ""
            before = sum(row[3] <= e["step"] for row in left)
            out.append(f"The model state of step {e['step']}{digest} was saved after {before} of its uses.")
        delivered = sum(row[1] == 7 for rows in [self.rows, *self.below.values()] for row in rows)
        if self.claim == "never used" and delivered:
            whom = "It and the samples made from it were" if self.below else "It was"
            out.append(f"{whom} delivered {count(delivered)} without being applied, as far as the recorder could tell.")
        if self.rows:
            roles = [ROLES[detail - 1] for detail in sorted({row[2] for row in self.rows if row[1] == 2})]
            out.append(f"It had the role{'s' * (len(roles) > 1)} {', '.join(roles)}." if roles else "It had no role.")
        if self.below:
            made = f"Samples that were made from it: {len(self.below)}."
            out.append(f"{made} Uses of those in optimizer updates: {len(self.uses_below)}.")
        if self.is_absent and self.preimage is not None and self.scheme() == "keyed":
            out.append("This rests on every id and content digest being derived from the committed key.")
        if self.claim == "content absent":
            sets = [f"{as_json(e['name'], 60)} by {as_json(e.get('content'), 60)}" for e in self.of("dataset").values()]
            more = f" and {len(sets) - 8} more" if len(sets) > 8 else ""
            out.append(f"Contents were taken from: {', '.join(sets[:8])}{more}.")
        return out


def entries_of(rows, *of):
    """The entries that rows name; with a kind and a detail, those of these."""
    return {row[0] for row in rows if not of or row[1:3] == of}


def pack(rows):
    return b"".join(struct.pack("<BHQQ", kind, detail, entry, step) for entry, kind, detail, step in rows)


def rows_given(e, id, places):
    """What an entry says of a sample by the rules of index.md: (kind, detail, step, epoch) once for each occurrence."""
    kind, at, below = e["kind"], places.get(e.get("block"), -1), places.get(e.get("child_block"), -1)
    n = {name: e.get(name, []).count(below if name == "children" else at) for name in ("ordinals", "kept", "dropped", "parents", "children")}
    if kind == "samples":
        return [(1, 0, NONE, 0)] * (id in split(e["ids"]))
    if kind == "roles":
        return [(2, ROLES.index(e["role"]) + 1, NONE, 0)] * n["ordinals"]
    if kind == "transform":
        kept, dropped, parents = ([(3, detail + 1, NONE, 0)] * n[name] for detail, name in enumerate(("kept", "dropped", "parents")))
        return kept + dropped + parents + [(4, 0, NONE, 0)] * n["children"]
    if kind in ("attention", "contribution", "prediction", "erasure"):
        return [(KINDS.index(kind.replace("erasure", "erased")) + 1, 0, e.get("step", NONE), 0)] * n["ordinals"]
    found = []
    for batch, (start, stop) in enumerate(pairwise([0, *accumulate(e.get("count", ()))])):
        code = (5, e["attribution"][batch]) if e["status"][batch] == 1 else (7, e["status"][batch])
        found += [(*code, e["step"][batch], e["epoch"][batch])] * e["ordinals"][start:stop].count(at)
    for place, (start, stop) in enumerate(pairwise([0, *accumulate(e.get("hop_count", ()))])):
        batch, hop = divmod(place, e["hops"])
        if e["status"][batch] == 1:
            found += [(6, hop + 1, e["step"][batch], e["epoch"][batch])] * e["hop_ordinals"][start:stop].count(at)
    return found


def keyed_id(secret, preimage):
    return hmac.digest(hmac.digest(secret, b"open" + preimage, "sha256"), preimage, "sha256")


def is_key(value):
    return all(map(is_key, value)) if isinstance(value, list) else type(value) in (str, bytes) or is_of(value, "int")


def as_json(value, most=NONE):
    """A key or a name as JSON, cut behind `most` characters; what is not there is nothing."""
    def plain(part):
        return {"hex": part.hex()} if isinstance(part, bytes) else [*map(plain, part)] if isinstance(part, list) else part

    said = "nothing" if value is None else json.dumps(plain(value), ensure_ascii=False)
    return said if len(said) <= most else said[:most] + "..."


def count(n, what=""):
    if not what:
        return "once" if n == 1 else f"{n} times"
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def cbor_head(major, n):
    size = 0 if n < 24 else 1 if n < 1 << 8 else 2 if n < 1 << 16 else 4 if n < 1 << 32 else 8
    return bytes((major << 5 | (23 + size.bit_length() if size else n),)) + (n.to_bytes(size, "big") if size else b"")


def read_about(named):
    """Whom somebody asks about: ("id", id), or ("sample" or "content", preimage)."""
    form, _, rest = named.partition(":") if named.startswith(("id:", "file:")) else named.rpartition(":")
    if form == "id":
        return "id", fit(rest.lower(), "id")
    if form == "file":
        return "content", b"\x82\x71fgtrac content v1\x58\x20" + sha256(Path(rest).read_bytes())
    need(":" in named, f"{named!r:.80} is neither id:HEX, DATASET:ROW nor file:PATH")
    name, row = form.encode(), fit(rest, "number")
    return "sample", b"\x83\x6cfgtrac id v1" + cbor_head(3, len(name)) + name + cbor_head(0, row)


def main():
    parser = argparse.ArgumentParser(description="Check an fgtrac bundle.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--key", help="the log's public key that you trust: 64 hex digits, a C2SP vkey or a file of one")
    parser.add_argument("--id-key", help="the run's id key, 64 hex digits, if you were given it")
    parser.add_argument("--about", metavar="NAME", help="whom you ask about: id:HEX, DATASET:ROW or file:PATH")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    said = parser.parse_args()
    try:
        id_key = None if said.id_key is None else fit(said.id_key.lower(), "id")
        with said.bundle.open("rb") as file:
            bundle = read_bundle(file.read(MAX_BYTES + 1))
        verdict, found = Examination(bundle, said.key, id_key, said.about).report()
    except (Fault, OSError) as error:
        print(f"check_bundle: {error if isinstance(error, OSError) else error.args[0]}", file=sys.stderr)
        return 2
    if said.json:
        findings = [{"check": name, "verdict": verdict, "words": words} for name, (verdict, words) in found.items()]
        print(json.dumps({"verdict": verdict, "findings": findings}, ensure_ascii=False))
    else:
        print("\n".join(f"{name:<10} {verdict:<12} {words}" for name, (verdict, words) in found.items()))
    return {"holds": 0, "refuted": 1, "cannot tell": 3}[verdict]


if __name__ == "__main__":
    sys.exit(main())
