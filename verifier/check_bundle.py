#!/usr/bin/env python3
"""Checks an fgtrac bundle without fgtrac: one file, the standard library and `cryptography`, written from docs/spec/.

Ends with 0 where the claim holds, 1 where it is refuted, 2 where the bundle is malformed or the call is wrong, and 3
where nobody can tell from this bundle.
"""

import argparse
import hmac
import json
import re
import struct
import sys
from array import array
from base64 import b64decode
from bisect import bisect_right
from collections import Counter
from datetime import UTC, datetime
from hashlib import sha256
from itertools import accumulate, pairwise
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Fault(Exception):
    """What is wrong: the words, and the verdict on the check that finds it."""


def need(condition, words, verdict="refuted"):
    if not condition:
        raise Fault(words, verdict)


# The file is strict JSON of one form (bundle.md, "Fields" and "Limits"). A form is one of TEXTS, a limit of numbers, a
# dict of fields (`?`: optional), or for a list (form, least, most). A decoded row is (entry, kind, detail, step).
MAX_BYTES, MAX_DEPTH, MAX_VALUES, MAX_ROWS = 64 << 20, 5, 5_000_000, 1_000_000
ABSENT, WHOLE = ("never registered", "content absent"), ("history", "never used", "never registered", "content absent")
NONE = 2**64 - 1  # where a row has no step
TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},:]', re.DOTALL)
NUMBER, HASH = "(?:0|[1-9][0-9]{0,19})", "[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]="
BASE64 = "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?"  # canonical only
TEXTS = {
    "text": ("(?s:.*)", str), "id": ("[0-9a-f]{64}", bytes.fromhex), "hex": ("(?:[0-9a-f]{2})*", bytes.fromhex),
    "number": (NUMBER, int), "hash": (HASH, b64decode), "base64": (BASE64, b64decode),
}  # fmt: skip
DETAILS = {2: (1, 4), 3: (1, 3), 5: (1, 3), 6: (1, 65535), 7: (2, 3)}  # of a kind the least and the greatest; else 0
LEAF = {"index": "number", "path": ("hash", 0, 64)}
SIDE, ROWS = LEAF | {"type": 256, "key": "id", "digest": "id"}, ("row", 1, MAX_ROWS)
FORM = {
    "format": "text", "claim": "text", "words": "text", "id": {"value": "id", "preimage?": "hex", "opening?": "id"},
    "index": {"leaf": LEAF}, "seal": {"entry": "base64", "proof": "text"},
    "entries?": ({"number": "number", "entry": "base64", "path": ("hash", 0, 64)}, 0, 100_000),
}  # fmt: skip
CHILDREN = ({"id": "id", "rows": ROWS, "leaf": LEAF}, 0, 10_000)
FORMS = dict.fromkeys(("used", "history", "never used"), FORM | {"rows": ROWS, "children?": CHILDREN})
FORMS |= dict.fromkeys(ABSENT, FORM | {"index": {"left?": SIDE, "right?": SIDE}})
FORMS |= {"content present": FORM | {"holders": ("id", 1, MAX_ROWS)}}


def fit(value, form):
    """The value, decoded, where it is of this form."""
    if isinstance(form, dict):
        inside = {name.rstrip("?"): f for name, f in form.items()}
        fits = isinstance(value, dict) and {n for n in form if n[-1] != "?"} <= value.keys() <= inside.keys()
        need(fits, f"no object with the fields {', '.join(form)}: {value!r:.60}")
        return {name: fit(item, inside[name]) for name, item in value.items()}
    if isinstance(form, tuple):
        need(isinstance(value, list) and form[1] <= len(value) <= form[2], f"no list of {form[1:]}: {value!r:.60}")
        return [fit(item, form[0]) for item in value]
    if form == "row":
        need(isinstance(value, list) and len(value) == 4, f"no row of four numbers: {value!r:.60}")
        kind, detail, entry = map(fit, value[:3], (12, 65536, "number"))
        step, (least, most) = NONE if value[3] == "none" else fit(value[3], "number"), DETAILS.get(kind, (0, 0))
        says = kind and least <= detail <= most and (step != NONE or (value[3] == "none" and kind not in (5, 6)))
        need(says, f"the row {value} says nothing")
        return entry, kind, detail, step
    if isinstance(form, int):
        need(type(value) is int and 0 <= value < form, f"no number below {form}: {value!r:.60}")
        return value
    need(isinstance(value, str) and re.fullmatch(TEXTS[form][0], value), f"no {form}: {value!r:.60}")
    need(len(value) <= (1 << 20 if form == "text" else 131_070), f"a {form} that is too long: {value:.60}")
    need(form != "number" or int(value) <= NONE, f"{value} is not below 2^64")
    return TEXTS[form][1](value)


def read_bundle(data):
    """The decoded fields; size, depth and number of values are looked at before anything is decoded."""
    need(len(data) <= MAX_BYTES, f"more than {MAX_BYTES} bytes")
    depth = values = 0
    for token in TOKEN.finditer(data):
        depth += (data[token.start()] in b"[{") - (data[token.start()] in b"]}")
        values += data[token.start()] in b"[{,:"
        need(depth <= MAX_DEPTH and values <= MAX_VALUES, f"deeper than {MAX_DEPTH} or more than {MAX_VALUES} values")
    hooks = {  # no form fits None
        "object_pairs_hook": lambda pairs: dict(pairs) if len(dict(pairs)) == len(pairs) else None,
        "parse_int": lambda text: int(text) if text.isdigit() else None,
    }
    try:
        said = json.loads(data.decode(), **hooks)
    except (ValueError, RecursionError) as error:
        raise Fault(f"no strict JSON: {error}", "refuted") from error
    bundle = fit(said, FORMS.get(str(said.get("claim")) if isinstance(said, dict) else "", {"a known claim": "text"}))
    entries, children = bundle.get("entries", []), bundle.get("children", [])
    lives = [bundle.get("rows", []), *(child["rows"] for child in children)]
    need(len(bundle["words"]) <= 4096 and sum(map(len, lives)) <= MAX_ROWS, f"too long words, or over {MAX_ROWS} rows")
    keys = [e["number"] for e in entries], [child["id"] for child in children]
    fits = all(some == sorted({*some}) for some in keys) and all(rows == sorted(rows) for rows in lives)
    need(fits and bundle["format"] == "fgtrac-bundle/v1", "another format, or what should ascend does not")
    return bundle


# Keys, signed tree heads and Merkle trees (log.md).
NAME = r"[^\s+\0-\x1f\ud800-\udfff]+"
PROOF = re.compile(
    f"c2sp\\.org/tlog-proof@v1\nindex ({NUMBER})\n((?:{HASH}\n){{0,64}})\n"
    f"((fgtrac/[0-9a-f]{{32}})\n({NUMBER})\n({HASH})\n)\n((?:\u2014 {NAME} {BASE64}\n){{1,100}})"
)


class Head:
    """A c2sp.org/tlog-proof@v1 without `extra` lines: where an entry stands under the signed head of a trace's log."""

    def __init__(self, proof):
        need(PROOF.fullmatch(proof), f"{proof!r:.60} is no proof under the signed head of a trace")
        index, path, self.text, self.origin, size, root, lines = PROOF.fullmatch(proof).groups()
        self.index, self.size, self.root = int(index), int(size), b64decode(root)
        self.path = [b64decode(line) for line in path.split()]
        self.lines = [(line.split(" ")[1], b64decode(line.split(" ")[2])) for line in lines.splitlines()]
        need(max(self.index, self.size) < 10**19 and all(len(raw) > 4 for _, raw in self.lines), "no size or signature")

    def is_signed(self, key):
        """Whether a line is the key's. Every line that is must be right; other people's say nothing here."""
        mine = (self.origin, sha256(self.origin.encode() + b"\n\1" + key).digest()[:4])
        signatures = [raw[4:] for name, raw in self.lines if (name, raw[:4]) == mine]
        need(all(is_signed(key, s, self.text.encode()) for s in signatures), f"a signature of {key.hex()} is wrong")
        return bool(signatures)


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
    raw = b64decode(vkey[3]) if vkey else b""
    fits = len(raw) == 33 and raw[0] == 1 and sha256(vkey[1].encode() + b"\n" + raw).hexdigest()[:8] == vkey[2]
    need(fits, f"{named!r:.80} is no key: 64 hex digits, a C2SP vkey of Ed25519 or a file of one is expected")
    return vkey[1], raw[1:]


def check_inclusion(root, index, size, leaf, path):
    """RFC 9162 section 2.1.3.2."""
    at, last, reached = index, size - 1, sha256(b"\0" + leaf).digest()
    for sibling in path:
        need(last > 0, f"the path of leaf {index} of {size} is too long")
        is_right = at & 1 or at == last
        reached = sha256(b"\1" + sibling + reached if is_right else b"\1" + reached + sibling).digest()
        while is_right and at and not at & 1:
            at, last = at >> 1, last >> 1
        at, last = at >> 1, last >> 1
    need(index < size and not last and reached == root, f"leaf {index} of {size} does not lead to the root by its path")


# Entries: deterministic CBOR, and the fields of each kind that a claim can need (entries.md), as name=type: a number of
# bytes, a letter for the elements of a typed array, ...; ? is optional, and what follows a slash is as long.
ARRAYS = {64: "B", 69: "H", 70: "I", 71: "Q", 84: "h", 85: "f", 86: "d"}  # by tag; h: the bits of a float16
ENTRIES = """
run: trace=16 format=int public_key=32 id_scheme=public|keyed key_commitment?=32 git_commit?=text git_dirty?=bool
 versions={text} config?=map config_artifact?=text
dataset: name=text id_scheme=public|keyed|subject rows?=int keys?=rows|numbers|names content?=text
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
    """Deterministic CBOR, decoded in `result`: whatever is not the one encoding of its value is refused."""

    def __init__(self, data):
        self.data, self.at, self.items = data, 0, 0
        self.result = self.value(0)
        need(self.at == len(data), "bytes behind the value")

    def take(self, size):
        need(size <= len(self.data) - self.at, "CBOR ends in the middle of a value")
        self.at += size
        return self.data[self.at - size : self.at]

    def value(self, depth):
        major, info = divmod(self.take(1)[0], 32)
        need(info < 28, "an indefinite length or a reserved head")
        argument = info if info < 24 else int.from_bytes(self.take(1 << info - 24), "big")
        is_shortest = info < 24 or argument >= (24, 1 << 8, 1 << 16, 1 << 32)[info - 24]
        need((is_shortest or major == 7) and (major != 1 or argument < 1 << 63), "a head too long, or below -2^63")
        if major < 2:
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
        return type(value) is bytes and (
            len(value) % 32 == 0 < len(value) if form == "32n" else len(value) == int(form)
        )
    if form in TYPES or "|" in form:
        return type(value) is TYPES.get(form, str) and (form in TYPES or value in form.split("|"))
    return isinstance(value, array) and value.typecode == form


def decode_entry(data):
    """The fields of an entry: of a kind that can be shown, all that it needs and no others, fitting each other."""
    need(len(data) < 65536, "an entry of more than 65,535 bytes")
    e = Cbor(data).result
    need(isinstance(e, dict) and str(e.get("kind")) in FIELDS, "no entry of a kind that is ever shown")
    forms = {name.rstrip("?"): form.split("/") for name, form in FIELDS[e["kind"]].items()}
    for name in {*e, *(name for name in FIELDS[e["kind"]] if name[-1] != "?")}:
        need(name in forms and name in e and is_of(e[name], forms[name][0]), f"{name!r:.40} of the entry {e!r:.100}")
        fits = all(other in e and len(e[other]) == len(e[name]) for other in forms[name][1:])
        need(fits, f"{name} and {forms[name][1:]} of the entry {e!r:.100}")
    if "ids" in e:
        e["ids"] = [e["ids"][i : i + 32] for i in range(0, len(e["ids"]), 32)]
    need(fits_together(e, e["kind"], len(e.get("ordinals", ()))), f"fields that do not fit each other: {e!r:.100}")
    return e


def fits_together(e, kind, n):
    """What the types of an entry's fields do not say; `n` is the number of ordinals."""
    if kind == "run":
        return e["format"] == 1 and (e["id_scheme"] == "public" or "key_commitment" in e)
    if kind == "samples":
        return e["part"] < e["parts"] and all(a < b for a, b in pairwise(e["ids"]))
    if kind == "transform":
        same = e.get("same_as")
        fits = same is None or ("dropped" in e and len(same) == 32 * len(e["dropped"]))
        return (
            fits
            and ("parents" in e) == ("child_block" in e)
            and not e.keys().isdisjoint(("parents", "kept", "dropped"))
        )
    if kind == "use":
        batches, hops = len(e["count"]), {"hops", "hop_count", "hop_ordinals"} & e.keys()
        whole = not hops or (len(hops) == 3 and len(e["hop_count"]) == batches * e["hops"])
        sums = sum(e["count"]) == n and sum(e.get("hop_count", ())) == len(e.get("hop_ordinals", ()))
        steps = all((step == NONE) == (status != 1) for step, status in zip(e["step"], e["status"], strict=True))
        return batches and whole and sums and steps and {*e["status"], *e["attribution"]} <= {1, 2, 3}
    if kind == "prediction":
        return len(e.get("outputs", ())) % (n or NONE) == 0
    return kind != "attention" or len(e["weights"]) == n * len(e["modalities"])


KINDS = (
    "registered", "role", "transformed", "derived", "used", "neighbour", "delivered", "attention", "contribution",
    "prediction", "erased",
)  # fmt: skip
ROLES = ("train", "validation", "test", "excluded")
CHECKS = {  # each check, and those that it needs
    "seal": "", "entries": "seal", "signature": "seal entries", "index": "seal", "identity": "entries",
    "about": "entries", "evidence": "entries index", "children": "entries index", "complete": "seal",
    "sources": "entries", "claim": "entries index evidence children",
}  # fmt: skip


class Examination:
    """One bundle under examination (bundle.md, "Checking one"): a check raises, or its first line says what holds."""

    def __init__(self, bundle, key=None, id_key=None, about=None):
        self.bundle, self.claim, self.head = bundle, bundle["claim"], Head(bundle["seal"]["proof"])
        self.key = None if key is None else read_key(key, self.head.origin)
        self.id_key, self.about = id_key, None if about is None else read_about(about)
        self.id, self.preimage, self.opening = (bundle["id"].get(name) for name in ("value", "preimage", "opening"))
        self.is_absent, self.is_content = self.claim in ABSENT, "content" in self.claim
        self.rows, self.below = bundle.get("rows", []), {c["id"]: c["rows"] for c in bundle.get("children", [])}
        self.lives = {**self.below, self.id: self.rows}  # the rows of the sample and of its descendants
        self.uses = [row for row in self.rows if row[1] in (5, 6)]
        self.uses_below = [row for rows in self.below.values() for row in rows if row[1] in (5, 6)]
        self.is_evident = bool(self.rows) and entries_of(self.rows) <= {e["number"] for e in bundle.get("entries", [])}
        self.has_children, self.shown = bool(self.below or entries_of(self.rows, 3, 3)), {}

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
                need(name != "claim" or {*failed} <= {"about"}, f"true if the check {failed[:1]} holds", "cannot tell")
            except Fault as fault:
                found[name] = fault.args[1], fault.args[0]
        return max((verdict for verdict, _ in found.values()), key=["holds", "cannot tell", "refuted"].index), found

    def of(self, kind):
        return {n: e for n, e in self.shown.items() if e["kind"] == kind}

    def check_seal(self):
        """the last entry under the head is a seal over all entries before it"""
        entry, at = self.bundle["seal"]["entry"], self.head.index
        check_inclusion(self.head.root, at, self.head.size, entry, self.head.path)
        self.seal = decode_entry(entry)
        fits = self.seal["kind"] == "seal" and self.seal["entries"] == at == self.head.size - 1
        need(fits, f"entry {at} of {self.head.size} is no seal over all others")
        gaps, has_end = self.seal["counts"].get("gap", 0), self.seal["counts"].get("end")
        lost = f"{'' if has_end else ','} with {gaps} gap{'s' * (gaps != 1)} in its record" if gaps else ""
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
        for rows in self.lives.values() if self.has_children else ():
            needed |= entries_of(rows, 3, 3) | entries_of(rows, 1, 0)
        samples = {n: ((e["block"], e["parts"]), e["part"]) for n, e in self.of("samples").items()}
        parts = {samples[n] for n in needed & samples.keys()}
        lasts = {b for b, part in parts if b[1] > 1} - {b for b, part in parts if part < b[1] - 1}
        sizes = {n: block for n, (block, part) in samples.items() if n not in needed and part == 0 and block in lasts}
        need(len(sizes) == len(lasts) == len({*sizes.values()}), "part 0 of a block is not shown, or twice")
        need(self.shown.keys() == needed | sizes.keys(), "an entry that the claim needs is missing, or one too many")
        self.resumes, steps = list(self.of("resume")), [e["step"] for e in self.of("resume").values()]
        self.least_steps = [*accumulate([NONE, *steps[::-1]], min)][::-1]  # of each resume and those behind it

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
        need(not is_revoked, "a key on the way from yours is revoked: ask the owner for the new one", "cannot tell")

    def check_leaf(self, key, rows, leaf):
        value = b"".join(row if type(row) is bytes else struct.pack("<BHQQ", *row[1:3], row[0], row[3]) for row in rows)
        data = bytes((1 + self.is_content,)) + key + sha256(value).digest()
        check_inclusion(self.seal["root"], leaf["index"], self.seal["leaves"], data, leaf["path"])

    def check_index(self):
        """the index that the seal commits to has this value, or these neighbours"""
        index, first, last = self.bundle["index"], -1, self.seal["leaves"]
        if not self.is_absent:
            return self.check_leaf(self.id, self.rows or self.bundle["holders"], index["leaf"])
        wanted = bytes((1 + self.is_content,)) + self.id
        for side, leaf in index.items():
            key = bytes((leaf["type"],)) + leaf["key"]
            check_inclusion(self.seal["root"], leaf["index"], self.seal["leaves"], key + leaf["digest"], leaf["path"])
            need(key < wanted if side == "left" else wanted < key, f"the {side} neighbour stands on the other side")
            first, last = (leaf["index"], last) if side == "left" else (first, leaf["index"])
        fits = last - first == 1 and (index or self.seal["root"] == sha256().digest())
        return need(fits, f"leaves {first} and {last} are no neighbours")

    def scheme(self):
        """The id scheme of an absent name, empty where the data sets do not settle it."""
        name = None if self.is_content else Cbor(self.preimage).result[1]
        schemes = {e["id_scheme"] for e in self.of("dataset").values() if self.is_content or e["name"] == name}
        return schemes.pop() if len(schemes) == 1 else ""

    def check_identity(self):
        """the id is that of the name, or no name is given"""
        if self.preimage is None:
            return need(self.opening is None, "an opening of nothing")
        who, found = self.who(), sha256(self.preimage).digest()
        need(not (self.is_absent and self.opening), "an absent id has no opening")
        if self.is_absent and self.scheme() != "public":
            need(self.scheme() == "keyed" and self.id_key, f"the id of {who} takes a key to compute", "cannot tell")
            commitment = sha256(b"fgtrac key v1\n" + self.id_key).digest()
            need([e.get("key_commitment") for e in self.of("run").values()] == [commitment], "not the committed id key")
            found = keyed_id(self.id_key, self.preimage)
        if self.opening is not None:
            found = hmac.digest(self.opening, self.preimage, "sha256")
        return need(found == self.id, f"{who} has the id {found.hex()}, not {self.id.hex()}")

    def check_about(self):
        """it is about whom you named"""
        what, named = self.about
        if what == "id":
            return need(named == self.id, f"the bundle is about {self.id.hex()}")
        need(self.is_content == (what == "content"), f"{self.claim!r} is not said of a {what}")
        ids = [sha256(named).digest(), *([keyed_id(self.id_key, named)] if self.id_key else [])]
        need(self.preimage in (None, named), "the bundle is about another name")
        need(self.preimage or self.id in ids, f"nothing shows whose id {self.id.hex()} is", "cannot tell")
        others = {e.get("content", "file") for e in self.of("dataset").values()} - {"file"} if self.is_content else ()
        return need(not others, f"a file's digest says nothing of contents that are no files: {others}", "cannot tell")

    def places(self, lives):
        """By sample its ordinals by block, from the entries that register it."""
        sizes, samples, found = {}, self.of("samples"), {id: {} for id in lives}
        for e in sorted(samples.values(), key=lambda e: e["part"] == e["parts"] - 1):  # the last parts last
            n, block, is_last = len(e["ids"]), (e["block"], e["parts"]), e["part"] == e["parts"] - 1
            need(n <= sizes.get(block, n) if is_last else n == sizes.setdefault(block, n), "parts that do not fit")
        where = {n: {id: place for place, id in enumerate(e["ids"])} for n, e in samples.items()}
        for id, n in ((id, n) for id, rows in lives.items() for n in entries_of(rows, 1, 0)):
            need(id in where.get(n, ()), f"entry {n} does not register {id.hex()}")
            block, part = samples[n]["block"], samples[n]["part"]
            size = sizes.get((block, samples[n]["parts"]), 0)
            ordinal = part * size + where[n][id]
            fits = (part == 0 or size) and found[id].setdefault(block, ordinal) == ordinal
            need(fits, f"{id.hex()} has two places in a block, or one that cannot be known")
        return found

    def check_evidence(self):
        """the entries that the rows name give these rows and no others"""
        places, given = self.places({self.id: self.rows})[self.id], []
        for n in sorted(entries_of(self.rows)):
            given += sorted((n, *row) for row in rows_given(self.shown[n], self.id, places))
        need([row[:4] for row in given] == self.rows, "the entries that the rows name give other rows")
        self.epochs = sorted({row[4] for row in given if row[1] in (5, 6)})

    def check_children(self):
        """all samples that were made from it are shown, and no others"""
        need(self.id not in self.below, "the sample is carried as a descendant of its own")
        for child in self.bundle.get("children", []):
            self.check_leaf(child["id"], child["rows"], child["leaf"])
        places, reached, waiting, pairs_of = self.places(self.lives), {self.id}, [self.id], {}
        who = {place: id for id, mine in places.items() for place in mine.items()}
        need(len(who) == sum(map(len, places.values())), "two samples have one ordinal")
        for parent in waiting:
            for n, pairs in Counter(row[0] for row in self.lives[parent] if row[1:3] == (3, 3)).items():
                e = self.shown[n]
                if n not in pairs_of:
                    pairs_of[n] = {}
                    for p, c in zip(e.get("parents", ()), e.get("children", ()), strict=True):
                        pairs_of[n].setdefault(p, []).append(c)
                made = pairs_of[n].get(places[parent].get(e.get("block")), [])
                children = {who.get((e["child_block"], child)) for child in made}
                need(len(made) == pairs, f"entry {n} makes {len(made)} samples of {parent.hex()}, its rows say {pairs}")
                need(None not in children, f"entry {n} makes a sample of {parent.hex()} that is not shown")
                waiting += children - reached
                reached |= children
        need(reached == self.lives.keys(), "a sample is carried that was not made from this one")

    def check_complete(self):
        """the run has ended, and no gap is known in its record"""
        need(
            not self.record, f"this is the record{self.record}: what it does not hold may have happened", "cannot tell"
        )

    def check_sources(self):
        """each data set says what its contents are the digests of"""
        are_known = {"content" in e for e in self.of("dataset").values()} == {True}
        need(are_known, "the source of some contents is not known", "cannot tell")

    def check_claim(self):
        uses, words = len(self.uses + self.uses_below), " ".join(words for holds, words in self.sentences() if holds)
        need(self.claim not in ("used", "never used") or (uses > 0) == (self.claim == "used"), f"there are {uses} uses")
        need(words == self.bundle["words"], f"it says {self.bundle['words']!r:.200}, and what it shows is: {words}")
        return f"holds as committed at size {self.head.size}: {words}"

    def who(self):
        if self.preimage is None:
            return f"the {'content with digest' if self.is_content else 'sample with id'} {self.id.hex()}"
        parts = Cbor(self.preimage).result
        form, *rest = parts if isinstance(parts, list) and parts else [""]
        if self.is_content:
            need(form == "fgtrac content v1" and len(rest) == 1 and is_of(rest[0], "32"), "no preimage of a content")
            return f"the content whose source has SHA-256 {rest[0].hex()}"
        need(form == "fgtrac id v1" and len(rest) == 2 and type(rest[0]) is str, "no preimage of a sample")
        if max(map(len, map(as_json, rest))) <= 200:
            return f"the sample with key {as_json(rest[1])} of data set {as_json(rest[0])}"
        shown = f"key {as_json(rest[1], 200)} of data set {as_json(rest[0], 200)}, shown in part"
        return f"the sample whose preimage has SHA-256 {sha256(self.preimage).hexdigest()} ({shown})"

    def is_undone(self, row):
        """Whether a later resume went on from before the row's step."""
        return self.least_steps[bisect_right(self.resumes, row[0])] < row[3]

    def claim_words(self):
        who, uses, n = self.who(), self.uses or self.uses_below, len(self.rows or self.bundle.get("holders", ()))
        steps = sorted(row[3] for row in uses) or [0]
        span = f"in step {steps[0]}" if steps[0] == steps[-1] else f"first in step {steps[0]}, last in step {steps[-1]}"
        kinds = ", ".join(
            f"{n} x {KINDS[kind - 1]}" for kind, n in sorted(Counter(row[1] for row in self.rows).items())
        )
        used = f"was used {times(len(uses))} in optimizer updates, {span}"
        never = "is registered and was never used in an optimizer update"
        if self.below:
            never = "is registered, and neither it nor a sample made from it was ever used in an optimizer update"
        if not self.uses:
            used = f"was used in optimizer updates through samples made from it, {times(len(uses))} in all, {span}"
        return {
            "used": f"{who} {used}",
            "never used": f"{who} {never}",
            "never registered": f"{who} was never registered",
            "history": f"the whole history of {who} is {n} row{'s' * (n != 1)}: {kinds}",
            "content present": f"{who} is held by {n} registered sample{'s' * (n != 1)}",
            "content absent": f"{who} is held by no registered sample",
        }[self.claim]

    def sentences(self):
        """The words, sentence by sentence (bundle.md, "The words"): (whether its condition holds, what it says)."""
        said, uses, record = self.claim_words(), self.uses, self.record if self.claim in WHOLE else ""
        is_used, is_told = self.claim == "used", self.claim in ("used", "history")
        left = [row for row in uses if not self.is_undone(row)]
        yield True, f"{said[0].upper()}{said[1:]}, as committed by {self.head.origin} at size {self.head.size}{record}."
        n = sum(row[1] == 6 for row in uses)
        yield is_used and n, f"It was a neighbour of other samples in {n} of its uses."
        n = sum(row[1:3] == (5, 3) for row in uses)
        yield is_told and n, f"Which update took it is assumed from the order of the batches in {n} of its uses."
        n = len(uses) - len(left)
        yield is_told and n, f"The run was resumed from an earlier step, which undid {n} of its uses."
        if self.is_evident:
            about, rows = ("of its uses", uses) if is_used and uses else ("about it", self.rows)
            ns = sorted(self.shown[n]["time"] for n in entries_of(rows))
            ends = (datetime.fromtimestamp(t // 10**9, UTC) for t in (ns[0], ns[-1]))
            first, last = (end.strftime("%Y-%m-%dT%H:%M:%SZ") for end in ends)
            when = f"at {first}" if first == last else f"from {first} to {last}"
            yield True, f"By the clock of the recorder, the entries {about} were written {when}."
            a, b, n = (*self.epochs[:1], *self.epochs[-1:], len(self.epochs)) if self.epochs else (0, 0, 0)
            yield is_used and uses, f"The uses are of {f'epoch {a}' if n == 1 else f'{n} epochs from {a} to {b}'}."
        for n, e in self.of("checkpoint").items():
            need(not self.is_undone((n, 0, 0, e["step"])), "the model state was undone by a resume")
            state = f"step {e['step']} with SHA-256 {e['digest'].hex()}" if "digest" in e else f"step {e['step']}"
            before = sum(row[0] < n and row[3] <= e["step"] for row in left)
            yield True, f"The model state of {state} was saved after {before} of its uses."
        n = sum(row[1] == 7 for rows in self.lives.values() for row in rows)
        told = f"delivered {times(n)} without being applied, as far as the recorder could tell."
        yield (
            self.claim == "never used" and n,
            f"{'It and the samples made from it were' if self.below else 'It was'} {told}",
        )
        roles = [ROLES[detail - 1] for detail in sorted({row[2] for row in self.rows if row[1] == 2})]
        yield self.rows, f"It had the role{'s' * (len(roles) > 1)} {', '.join(roles)}." if roles else "It had no role."
        made = f"Samples that were made from it: {len(self.below)}."
        yield self.below, f"{made} Uses of those in optimizer updates: {len(self.uses_below)}."
        is_keyed = self.is_absent and self.preimage is not None and self.scheme() == "keyed"
        yield is_keyed, "This rests on every id and content digest being derived from the committed key."
        sets = [f"{as_json(e['name'], 60)} by {as_json(e.get('content'), 60)}" for e in self.of("dataset").values()]
        more = f" and {len(sets) - 8} more" if len(sets) > 8 else ""
        yield self.claim == "content absent", f"Contents were taken from: {', '.join(sets[:8])}{more}."


def entries_of(rows, *of):
    """The entries that rows name; with a kind and a detail, those of these."""
    return {row[0] for row in rows if not of or row[1:3] == of}


def rows_given(e, id, places):
    """What an entry says of a sample by the rules of index.md: (kind, detail, step, epoch) once for each occurrence."""
    kind, at, found = e["kind"], places.get(e.get("block"), -1), []
    n = {name: column.count(at) for name, column in e.items() if isinstance(column, array)}
    if kind == "samples":
        return [(1, 0, NONE, 0)] * (id in e["ids"])
    if kind == "roles":
        return [(2, ROLES.index(e["role"]) + 1, NONE, 0)] * n["ordinals"]
    if kind == "transform":
        for detail, name in enumerate(("kept", "dropped", "parents"), 1):
            found += [(3, detail, NONE, 0)] * n.get(name, 0)
        return found + [(4, 0, NONE, 0)] * e.get("children", []).count(places.get(e.get("child_block"), -1))
    if kind in ("attention", "contribution", "prediction", "erasure"):
        return [(KINDS.index(kind.replace("erasure", "erased")) + 1, 0, e.get("step", NONE), 0)] * n["ordinals"]
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


def times(n):
    return "once" if n == 1 else f"{n} times"


def as_json(value, most=NONE):
    """A key or a name as JSON, cut behind `most` characters; what is not there is nothing."""

    def plain(part):
        need(type(part) in (str, bytes, list) or is_of(part, "int"), "no key of a sample")
        return {"hex": part.hex()} if type(part) is bytes else [*map(plain, part)] if type(part) is list else part

    said = "nothing" if value is None else json.dumps(plain(value), ensure_ascii=False)
    return said if len(said) <= most else said[:most] + "..."


def cbor_head(major, n):
    size = 0 if n < 24 else 1 if n < 1 << 8 else 2 if n < 1 << 16 else 4 if n < 1 << 32 else 8
    return bytes((major << 5 | (23 + size.bit_length() if size else n),)) + (n.to_bytes(size, "big") if size else b"")


def read_about(named):
    """Whom somebody asks about: ("id", id), or ("sample" or "content", preimage)."""
    form, _, rest = named.partition(":") if named.startswith(("id:", "file:")) else named.rpartition(":")
    if form == "id":
        return "id", fit(rest.lower(), "id")
    if form == "file":
        return "content", b"\x82\x71fgtrac content v1\x58\x20" + sha256(Path(rest).read_bytes()).digest()
    need(":" in named, f"{named!r:.80} is neither id:HEX, DATASET:ROW nor file:PATH")
    name, row = form.encode(), fit(rest, "number")
    return "sample", b"\x83\x6cfgtrac id v1" + cbor_head(3, len(name)) + name + cbor_head(0, row)


def main():
    parser = argparse.ArgumentParser(description="Check an fgtrac bundle.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument(
        "--key", help="the log's public key that you trust: 64 hex digits, a C2SP vkey or a file of one"
    )
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
    findings = [{"check": name, "verdict": verdict, "words": words} for name, (verdict, words) in found.items()]
    lines = [f"{name:<10} {verdict:<12} {words}" for name, (verdict, words) in found.items()]
    print(json.dumps({"verdict": verdict, "findings": findings}) if said.json else "\n".join(lines))
    return {"holds": 0, "refuted": 1, "cannot tell": 3}[verdict]


if __name__ == "__main__":
    sys.exit(main())
