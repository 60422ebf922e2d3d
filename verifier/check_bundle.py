#!/usr/bin/env python3
"""Checks an fgtrac bundle without fgtrac: one file, the standard library and `cryptography`, written from docs/spec/.

Ends with 0 where the claim holds, 1 where it is refuted, 2 for no bundle or a wrong call, 3 where nobody can tell.
"""

import argparse
import hmac
import json
import re
import struct
import sys
import time
from base64 import b64decode
from bisect import bisect_right
from collections import Counter
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
MAX_BYTES, MAX_VALUES, MAX_ROWS = 64 << 20, 5_000_000, 1_000_000
ABSENT, WITH_ROWS = ("never registered", "content absent"), ("used", "history", "never used", "label never used")
NONE = 2**64 - 1  # where a row has no step
NUMBER, HASH = "(?:0|[1-9][0-9]{0,18})", "[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]="
BASE64 = "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?"  # canonical only
TEXTS = {"text": ("(?s:.{0,1048576})", str), "format": ("fgtrac-bundle/v1", str), "number": (NUMBER, int),
    "id": ("[0-9a-f]{64}", bytes.fromhex), "hex": ("(?:[0-9a-f]{2}){0,65535}", bytes.fromhex),
    "hash": (HASH, b64decode), "base64": ("(?!.{87381})" + BASE64, b64decode)}  # fmt: skip
DETAILS = {2: (1, 4), 3: (1, 3), 5: (1, 5), 6: (1, 65535), 7: (2, 3)}  # of a kind the least and the greatest; else 0
LEAF = {"index": "number", "path": ("hash", 0, 64)}
SIDE, ROWS = LEAF | {"type": 256, "key": "id", "digest": "id"}, ("row", 1, MAX_ROWS)
FORM = {"format": "format", "claim": "text", "words": "text", "seal": {"entry": "base64", "proof": "text"},
    "id": {"value": "id", "preimage?": "hex", "opening?": "id"}, "index": {"leaf": LEAF},
    "entries?": ({"number": "number", "entry": "base64", "path": ("hash", 0, 64)}, 0, 100_000)}  # fmt: skip
FAMILY = {"rows": ROWS, "children?": ({"id": "id", "rows": ROWS, "leaf": LEAF}, 0, 10_000)}
FORMS = dict.fromkeys(WITH_ROWS, FORM | FAMILY) | {"content present": FORM | {"holders": ("id", 1, MAX_ROWS)}}
FORMS |= dict.fromkeys(ABSENT, FORM | {"index": {"left?": SIDE, "right?": SIDE}})


def fit(value, form):
    """The value, decoded, where it is of this form."""
    if isinstance(form, dict) and isinstance(value, dict):
        inside = {name.rstrip("?"): f for name, f in form.items()}
        need({n for n in form if n[-1] != "?"} <= value.keys() <= inside.keys(), f"not {[*form]}: {value!r:.60}")
        return {name: fit(item, inside[name]) for name, item in value.items()}
    if isinstance(form, tuple) and isinstance(value, list) and form[1] <= len(value) <= form[2]:
        return [fit(item, form[0]) for item in value]
    if isinstance(form, int) and type(value) is int and 0 <= value < form:
        return value
    if form == "row" and isinstance(value, list) and len(value) == 4:
        kind, detail, entry = map(fit, value[:3], (12, 65536, "number"))
        step, (least, most) = NONE if value[3] == "none" else fit(value[3], "number"), DETAILS.get(kind, (0, 0))
        need(kind and least <= detail <= most and (step, kind) not in ((NONE, 5), (NONE, 6)), f"no row: {value}")
        return entry, kind, detail, step
    fits = str(form) in TEXTS and isinstance(value, str) and re.fullmatch(TEXTS[form][0], value)
    need(fits, f"no {form!r:.60}: {value!r:.60}")
    return TEXTS[form][1](value)


def read_bundle(data):
    """The decoded fields; the size and the number of values are looked at before anything is decoded."""
    need(len(data) <= MAX_BYTES, f"more than {MAX_BYTES} bytes")
    bare = re.sub(rb'"(?:[^"\\]++|\\.)*+"?', b"", data, flags=re.DOTALL)
    need(sum(map(bare.count, (b",", b":", b"[", b"{"))) <= MAX_VALUES and b"-" not in bare, "too many, or below 0")
    try:
        said = json.loads(data.decode(), object_pairs_hook=lambda pairs: len(pairs) == len(dict(pairs)) and dict(pairs))
        bundle = fit(said, FORMS[said["claim"]])
    except (LookupError, RecursionError, TypeError, ValueError) as error:
        raise Fault(f"no strict JSON of a known claim: {error!r:.200}", "refuted") from error
    numbers, children = [e["number"] for e in bundle.get("entries", [])], bundle.get("children", [])
    ids = bundle.get("holders", [child["id"] for child in children])
    lives = [bundle.get("rows", []), *(child["rows"] for child in children)]
    ascend = numbers == sorted({*numbers}) and ids == sorted({*ids}) and all(rows == sorted(rows) for rows in lives)
    need(ascend and sum(map(len, lives)) <= MAX_ROWS, f"what should ascend does not, or over {MAX_ROWS} rows")
    return bundle


# Signed tree heads and Merkle trees (log.md).
LINE = f"\u2014 ([^\\s+\\0-\\x1f\\ud800-\\udfff]+) ({BASE64})\n"
PROOF = re.compile(f"c2sp\\.org/tlog-proof@v1\nindex ({NUMBER})\n((?:{HASH}\n){{0,64}})\n"
    f"((fgtrac/[0-9a-f]{{32}})\n({NUMBER})\n({HASH})\n)\n((?:{LINE}){{1,100}})")  # fmt: skip


class Head:
    """A c2sp.org/tlog-proof@v1 without `extra` lines: where an entry stands under the signed head of a trace's log."""

    def __init__(self, proof):
        need(PROOF.fullmatch(proof), f"{proof!r:.60} is no proof under the signed head of a trace")
        index, path, self.text, self.origin, size, root, lines, *_ = PROOF.fullmatch(proof).groups()
        self.index, self.size, self.root = int(index), int(size), b64decode(root)
        self.path = [b64decode(line) for line in path.split()]
        self.lines = [(name, b64decode(signature)) for name, signature in re.findall(LINE, lines)]
        need(len((self.text + lines).encode()) < 1_000_000 and all(len(raw) > 4 for _, raw in self.lines), "no note")

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


def check_inclusion(root, index, size, leaf, path):
    """The audit path of RFC 9162 section 2.1.3.2: siblings to the index's split from the last leaf, then left ones."""
    split, reached = (index ^ size - 1).bit_length(), sha256(b"\0" + leaf).digest()
    for level, sibling in enumerate(path):
        is_left = level < split and not index >> level & 1
        reached = sha256(b"\1" + (reached + sibling if is_left else sibling + reached)).digest()
    need(index < size and len(path) == split + (index >> split).bit_count() and reached == root, "no path to the root")


# Entries (entries.md): deterministic CBOR. What is missing or malformed refutes the check that reads it (bundle.md).
ARRAYS = {64: "B", 69: "H", 70: "I", 71: "Q", 84: "h", 85: "f", 86: "d"}  # by tag; h: the bits of a float16
ROLES = ("train", "validation", "test", "excluded")
UNSEEN = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")  # controls, and marks of direction
KINDS = "registered role transformed derived used neighbour delivered attention contribution prediction erased"
NAMING = {"roles": 2, "attention": 8, "contribution": 9, "prediction": 10, "erasure": 11}  # kinds of entry and of row


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
        n = info if info < 24 else int.from_bytes(self.take(1 << info - 24), "big")
        need(info < 24 or major == 7 or n >= (24, 1 << 8, 1 << 16, 1 << 32)[info - 24], "a head that is too long")
        need(major != 1 or n < 1 << 63, "a number below -2^63")
        if major < 2:
            return -1 - n if major else n
        if major < 4:
            return self.take(n) if major == 2 else self.take(n).decode()
        if major == 6:
            letter, raw = ARRAYS[n], self.value(16)
            return struct.unpack(f"<{len(raw) // struct.calcsize(letter)}{letter}", raw)
        if major == 7:
            number = struct.unpack(">d", n.to_bytes(8, "big"))[0]
            need(info in (20, 21) or (info == 27 and number == number), "NaN, or a value that no entry has")
            return number if info == 27 else info == 21
        self.items += n
        need(depth < 16 and self.items <= 1 << 18, "nested more than 16 deep, or too many items")
        if major == 4:
            return [self.value(depth + 1) for _ in range(n)]
        found, before = {}, b""
        for _ in range(n):
            start, name = self.at, self.value(16)
            need(type(name) is str and self.data[start : self.at] > before, "map keys that are no text, or unordered")
            before, found[name] = self.data[start : self.at], self.value(depth + 1)
        return found


def decode_entry(data):
    """The fields of an entry; `ids` as the place of each."""
    e = Cbor(data).result
    if e["kind"] == "samples":
        ids = [e["ids"][i : i + 32] for i in range(0, len(e["ids"]), 32)]
        need(ids == sorted({*ids}) and len(ids[-1]) == 32 and e["part"] < e["parts"], f"no registration: {e!r:.100}")
        e["ids"] = dict(zip(ids, range(len(ids)), strict=True))
    if e["kind"] == "use":
        columns = {len(e[name]) for name in ("count", "epoch", "step", "status", "attribution")}
        sums = [sum(e["count"]), sum(e.get("hop_count", ()))] == [len(e["ordinals"]), len(e.get("hop_ordinals", ()))]
        need(len(columns) == 1 and sums, f"columns that do not fit each other: {e!r:.100}")
    return e


class Examination:
    """One bundle under examination (bundle.md, "Checking one"): a check raises, or its first line says what holds."""

    def __init__(self, bundle, key=None, id_key=None):
        self.bundle, self.claim, self.key, self.id_key = bundle, bundle["claim"], key, id_key
        self.head, self.shown = Head(bundle["seal"]["proof"]), {}
        self.id, self.preimage, self.opening = (bundle["id"].get(name) for name in ("value", "preimage", "opening"))
        self.is_absent, self.is_content, self.scheme, self.found = self.claim in ABSENT, "content" in self.claim, "", {}
        self.rows, self.below = bundle.get("rows", []), {c["id"]: c["rows"] for c in bundle.get("children", [])}
        self.lives = {**self.below, self.id: self.rows}  # the rows of the sample and of its descendants
        self.uses = [row for row in self.rows if row[1] in (5, 6)]
        self.uses_below = [row for rows in self.below.values() for row in rows if row[1] in (5, 6)]
        self.is_evident = bool(self.rows) and entries_of(self.rows) <= {e["number"] for e in bundle.get("entries", [])}
        self.checks = ["seal", "entries", "signature", "index", "identity"] + ["evidence"] * self.is_evident
        self.checks += ["children"] * bool(self.below or entries_of(self.rows, 3, 3)) + ["claim"]

    def report(self):
        """The verdict, and (verdict, words) of each check that is made; the first that is refuted is the last."""
        for name in self.checks:
            check = getattr(self, f"check_{name}")
            try:
                self.found[name] = "holds", check() or check.__doc__
            except Fault as fault:
                self.found[name] = fault.args[1], fault.args[0]
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error) as error:
                self.found[name] = "refuted", f"an entry that is needed is missing or malformed: {error!r}"
            if self.found[name][0] == "refuted":
                break
        return self.found[name][0], self.found  # `claim`, the last, holds where all others do

    def of(self, kind):
        return {n: e for n, e in self.shown.items() if e["kind"] == kind}

    def check_seal(self):
        """the last entry under the head is a seal over all entries before it"""
        entry, at = self.bundle["seal"]["entry"], self.head.index
        check_inclusion(self.head.root, at, self.head.size, entry, self.head.path)
        self.seal = decode_entry(entry)
        need(self.seal["kind"] == "seal" and self.seal["entries"] == at == self.head.size - 1, "no seal of the rest")
        need(all(type(n) is int and n >= 0 for n in self.seal["counts"].values()), "counts that are no numbers")

    def check_entries(self):
        """the other entries shown are in the log, and they are those that the claim needs"""
        for e in self.bundle.get("entries", []):
            check_inclusion(self.head.root, e["number"], self.head.size, e["entry"], e["path"])
            self.shown[e["number"]] = decode_entry(e["entry"])
        counts, is_whole = Counter(self.seal["counts"]), self.claim not in ("used", "content present")
        kinds = ["key"] + ["resume"] * (self.claim != "content present") + ["end", "join", "leave"] * is_whole
        if self.is_absent and (self.is_content or self.preimage is not None):
            kinds += ["dataset"] + ["run"] * any(e["id_scheme"] == "keyed" for e in self.of("dataset").values())
        for kind in kinds:
            need(len(self.of(kind)) == counts[kind] and (kind != "run" or counts[kind] == 1), f"not all {kind} entries")
        allowed = set().union(*map(entries_of, self.lives.values()), *map(self.of, (*kinds, "checkpoint")))
        allowed |= {n for n, e in self.of("samples").items() if e["part"] == 0}  # they say how long a part is
        need(self.shown.keys() <= allowed and len(self.of("checkpoint")) < 2, "an entry that the claim does not need")
        self.resumes, steps = list(self.of("resume")), [e["step"] for e in self.of("resume").values()]
        marks = "".join(e["kind"][0] for e in self.shown.values() if e["kind"] in ("end", "resume"))
        ended = "ended" if marks[-1:] == "e" else "not ended"
        lacks = ", and of some ranks it is not whole" * (ended == "ended" and not self.has_all_ranks())
        words = f" of a run that has {ended} (gaps in its record: {counts['gap']}{lacks})"
        self.record = words if is_whole and (counts["gap"] or lacks or ended != "ended") else ""
        self.cuts = is_whole and marks.count("r") - marks.count("er")
        self.least_steps = [*accumulate([NONE, *steps[::-1]], min)][::-1]  # of each resume and those behind it

    def has_all_ranks(self):
        """Whether each start of the training has each of its ranks once, and all behind rank 0 left as their last."""
        joins, last = self.of("join").values(), {*map(tuple, [*self.of("end").values()][-1]["writers"])}
        left = {e["writer"] for e in self.of("leave").values() if (e["writer"], e["seq"]) in last}
        sizes = Counter(tuple(e["began"]) for e in joins)
        whole = (e for e in joins if sizes[tuple(e["began"])] == e["ranks"] > e["rank"])
        places = {(*e["began"], e["rank"]) for e in whole if e["writer"] in (left if e["rank"] else e["began"][:1])}
        return len(places) == len({e["writer"] for e in joins}) == len(joins)

    def check_signature(self):
        """signed by the key that you named, or by one that it leads to"""
        need(self.key, "no public key was named, and no bundle vouches for its own", "cannot tell")
        context = b"fgtrac key rotation v1\n" + bytes.fromhex(self.head.origin[7:])
        rotations, chain = self.of("key").values(), [e["public_key"] for e in self.of("run").values()]
        for e in rotations:
            new, end = e["public_key"], e["public_key"] + bytes((e.get("revoked", False),))
            if not chain and is_signed(self.key, e["old_signature"], context + self.key + end):
                chain = [self.key]
            pairs = ((chain[-1], e["old_signature"]), (new, e["new_signature"])) if chain else ()
            fits = new not in chain and all(is_signed(key, s, context + chain[-1] + end) for key, s in pairs)
            need(fits, f"the key entry of {new.hex()} is not signed, or goes back to an earlier key")
            chain.append(new)
        chain = chain or [self.key]
        is_last = [self.head.is_signed(key) for key in chain][-1]
        need(self.key in chain and is_last, "signed by another key than yours, or the last that it leads to")
        revoked = {e["public_key"] for e in rotations if e.get("revoked")} & {*chain[chain.index(self.key) + 1 :]}
        need(not revoked, "a key on the way from yours is revoked: ask the owner for the new one", "cannot tell")

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
        return need(last - first == 1 and (index or self.seal["root"] == sha256().digest()), "no neighbours")

    def check_identity(self):
        """the id is that of the name, or no name is given"""
        self.named = [None, None] if self.preimage is None else Cbor(self.preimage).result
        who, opening = self.who(), self.opening
        if self.preimage is None:
            return need(opening is None, "an opening of nothing")
        if self.is_absent:
            need(opening is None, "an absent id has no opening")
            sets = [e for e in self.of("dataset").values() if self.is_content or e["name"] == self.named[1]]
            self.scheme = next((s for s in ("public", "keyed") if {e["id_scheme"] for e in sets} == {s}), "")
            need(self.scheme == "public" or (self.scheme and self.id_key), "the id takes a key", "cannot tell")
        if self.scheme == "keyed":
            commitment = sha256(b"fgtrac key v1\n" + self.id_key).digest()
            need([e.get("key_commitment") for e in self.of("run").values()] == [commitment], "not the committed id key")
            opening = hmac.digest(self.id_key, b"open" + self.preimage, "sha256")
        found = hmac.digest(opening, self.preimage, "sha256") if opening else sha256(self.preimage).digest()
        return need(found == self.id, f"{who} has the id {found.hex()}, not {self.id.hex()}")

    def places(self, lives):
        """By sample its ordinals by block, from the entries that register it."""
        samples, found = self.of("samples"), {id: {} for id in lives}
        sizes = {(e["block"], e["parts"]): len(e["ids"]) for e in samples.values() if e["part"] < e["parts"] - 1}
        for e in samples.values():
            n, size, is_last = len(e["ids"]), sizes.get((e["block"], e["parts"])), e["part"] == e["parts"] - 1
            fits = n == size or (is_last and n < (size or NONE))
            need(fits and (e["parts"] > 1 or e["block"] == sha256(b"".join(e["ids"])).digest()[:16]), "no such block")
        for id, n in ((id, n) for id, rows in lives.items() for n in entries_of(rows, 1, 0)):
            e = self.shown[n]
            ordinal = e["ids"][id] + (e["part"] and e["part"] * sizes[e["block"], e["parts"]])
            need(found[id].setdefault(e["block"], ordinal) == ordinal, f"{id.hex()} has two places in a block")
        return found

    def rows_given(self, e, places):
        """What an entry says of the sample by the rules of index.md: (kind, detail, step, epoch) each time."""
        kind, at, found = e["kind"], places.get(e.get("block"), -1), []
        if kind == "samples":
            return [(1, 0, NONE, 0)] * (self.id in e["ids"])
        if kind in NAMING:
            detail = ROLES.index(e["role"]) + 1 if kind == "roles" else 0
            return [(NAMING[kind], detail, e.get("step", NONE), 0)] * e["ordinals"].count(at)
        if kind == "transform":
            for detail, name in enumerate(("kept", "dropped", "parents"), 1):
                found += [(3, detail, NONE, 0)] * e.get(name, ()).count(at)
            return found + [(4, 0, NONE, 0)] * e.get("children", ()).count(places.get(e.get("child_block"), -1))
        need(kind == "use", f"an entry of the kind {kind!r:.60} names no sample")
        for batch, (start, stop) in enumerate(pairwise([0, *accumulate(e["count"])])):
            code = (5, e["attribution"][batch]) if e["status"][batch] == 1 else (7, e["status"][batch])
            found += [(*code, e["step"][batch], e["epoch"][batch])] * e["ordinals"][start:stop].count(at)
        for place, (start, stop) in enumerate(pairwise([0, *accumulate(e.get("hop_count", ()))])):
            batch, hop = divmod(place, e["hops"])
            if e["status"][batch] == 1:
                found += [(6, hop + 1, e["step"][batch], e["epoch"][batch])] * e["hop_ordinals"][start:stop].count(at)
        return found

    def check_evidence(self):
        """the entries that the rows name give these rows and no others"""
        places, given = self.places({self.id: self.rows})[self.id], []
        sets = {self.shown[n]["dataset"] for n in entries_of(self.rows, 1, 0)}
        need(self.preimage is None or sets <= {self.named[1]}, f"registered in {sets}, which its name is not of")
        for n in sorted(entries_of(self.rows)):
            given += sorted((n, *row) for row in self.rows_given(self.shown[n], places))
        need([row[:4] for row in given] == self.rows, "the entries that the rows name give other rows")
        self.when = sorted({row[4] for row in given if row[1] in (5, 6)}) or [0]

    def check_children(self):
        """all samples that were made from it are shown, and no others"""
        need(self.id not in self.below, "the sample is carried as a descendant of its own")
        for child in self.bundle.get("children", []):
            self.check_leaf(child["id"], child["rows"], child["leaf"])
        places, reached, waiting, made = self.places(self.lives), {self.id}, [self.id], {}
        who = {place: id for id, mine in places.items() for place in mine.items()}
        need(len(who) == sum(map(len, places.values())), "two samples have one ordinal")
        for n, e in self.of("transform").items():
            for parent, child in zip(e.get("parents", ()), e.get("children", ()), strict=True):
                made.setdefault((n, parent), []).append(who.get((e["child_block"], child)))
        for parent in waiting:
            for n, pairs in Counter(row[0] for row in self.lives[parent] if row[1:3] == (3, 3)).items():
                children = made.get((n, places[parent].get(self.shown[n].get("block"))), [])
                need(len(children) == pairs and None not in children, f"entry {n} makes others of {parent.hex()}")
                waiting += {*children} - reached
                reached |= {*children}
        need(reached == self.lives.keys(), "a sample is carried that was not made from this one")

    def check_claim(self):
        uses, words = {row[1:3] for row in self.uses + self.uses_below}, " ".join(w for so, w in self.sentences() if so)
        is_so = {"used": uses, "never used": not uses, "label never used": 5 not in dict(uses)}
        need(is_so.get(self.claim, True), f"the kinds of use are {uses or 'none'}")
        need(words == self.bundle["words"], f"it says {self.bundle['words']!r:.200}, and what it shows is: {words}")
        need(not self.record, f"the record{self.record}: what it does not hold may have happened", "cannot tell")
        are_all = {"content" in e and not e.get("beside") for e in self.of("dataset").values()} == {True}
        need(are_all or self.claim != "content absent", "not every content has a digest of known source", "cannot tell")
        need({verdict for verdict, _ in self.found.values()} == {"holds"}, "not all other checks hold", "cannot tell")
        need(self.claim != "used" or uses - {(5, 5)}, "the batches of all its uses may have left it out", "cannot tell")
        return f"holds as committed at size {self.head.size}: {words}"

    def who(self):
        said, what = self.named, "content with digest" if self.is_content else "sample with id"
        if self.preimage is None:
            return f"the {what} {self.id.hex()}"
        if self.is_content:
            need(said == ["fgtrac content v1", self.preimage[-32:]], "no preimage of a content")
            return f"the content whose source has SHA-256 {said[1].hex()}"
        need(type(said) is list and len(said) == 3 and type(said[1]) is str and said[0] == "fgtrac id v1", "no sample")
        return f"the sample with key {as_json(said[2])} of data set {as_json(said[1])}"

    def is_undone(self, row):
        return self.least_steps[bisect_right(self.resumes, row[0])] < row[3]  # a later resume went on from before it

    def claim_words(self):
        who, uses, via = self.who(), self.uses or self.uses_below, "" if self.uses else " through samples made from it,"
        steps, times = sorted(row[3] for row in uses) or [0], "once" if len(uses) == 1 else f"{len(uses)} times"
        span = f"in step {steps[0]}" if steps[0] == steps[-1] else f"first in step {steps[0]}, last in step {steps[-1]}"
        kinds, unused = Counter(row[1] for row in self.rows), f"{who} is registered, and no optimizer update ever used"
        rows = ", ".join(f"{n} x {KINDS.split()[kind - 1]}" for kind, n in sorted(kinds.items()))
        return {"used": f"{who} was used{via} {times} in optimizer updates, {span}",
            "never used": f"{unused} it or a sample made from it in any batch",
            "label never used": f"{unused} its label: neither it nor a sample made from it was ever a seed",
            "never registered": f"{who} was never registered", "history": f"the whole history of {who} is {rows}",
            "content present": f"{who} is held by {len(self.bundle.get('holders', ()))} of the registered samples",
            "content absent": f"{who} is held by no registered sample"}[self.claim]  # fmt: skip

    def sentences(self):
        """The words, sentence by sentence (bundle.md, "The words"): (whether its condition holds, what it says)."""
        said, uses, log = self.claim_words(), self.uses, f"{self.head.origin} at size {self.head.size}"
        is_used, all_uses = self.claim == "used", uses + self.uses_below
        yield True, f"{said[0].upper()}{said[1:]}, as committed by {log}{self.record}."
        yield self.cuts, f"Resumes without an end before: {self.cuts}. What was done last before those may be lost."
        hops = sorted((row[2], row[0]) for row in uses if row[1] == 6)
        at = f", at hops from {hops[0][0]} to {hops[-1][0]}" if hops else ""
        yield hops or "label" in self.claim, f"Uses as a neighbour, with its features alone: {len(hops)}{at}."
        far = [h == self.shown[n]["hops"] for h, n in hops if self.is_evident and self.shown[n].get("graph") == "whole"]
        yield far, f"In updates on the whole graph: {len(far)}, {sum(far)} of them out of the seeds' reach."
        yield "label" in self.claim, "What a model reads beside its batches is not recorded."
        how, undone = [row[2] for row in all_uses if row[1] == 5], sum(map(self.is_undone, all_uses))
        yield 3 in how, f"Which update took it is assumed from the order of the batches in {how.count(3)} of all uses."
        yield 4 in how, f"Told by the recording program itself, which nothing watched: {how.count(4)} of all uses."
        yield 5 in how, f"In batches that may have left it out: {how.count(5)} of all uses."
        yield undone, f"The run was resumed from an earlier step, which undid {undone} of all uses."
        if self.is_evident:
            about, rows = ("of its uses", uses) if is_used and uses else ("about it", self.rows)
            seconds = sorted(self.shown[n]["time"] // 10**9 for n in entries_of(rows))
            first, last = (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds[end])) for end in (0, -1))
            yield True, f"By the clock of the recorder, the entries {about} were written from {first} to {last}."
            yield is_used and uses, f"Epochs of its uses: {len(self.when)}, from {self.when[0]} to {self.when[-1]}."
        for n, e in self.of("checkpoint").items():
            need(is_used and uses and e["kept"] is True and not self.is_undone((n, 0, 0, e["step"])), "no kept state")
            state = f"step {e['step']} with SHA-256 {e['digest'].hex()}" if "digest" in e else f"step {e['step']}"
            ranks = ", by the steps that each rank counts" * ("join" in self.seal["counts"])
            until = [row[0] < n or ranks > "" for row in uses if row[3] <= e["step"] and not self.is_undone(row)]
            yield True, f"The model state of {state} was saved after {sum(until)} of its uses{ranks}."
        n = sum(row[1] == 7 for rows in self.lives.values() for row in rows)
        yield "never used" in self.claim and n, f"Deliveries without an update, as far as the recorder could tell: {n}."
        roles = [ROLES[detail - 1] for detail in sorted({row[2] for row in self.rows if row[1] == 2})]
        yield self.rows, f"It had the role{'s' * (len(roles) > 1)} {', '.join(roles)}." if roles else "It had no role."
        yield self.below, f"Samples made from it: {len(self.below)}. Uses of those in updates: {len(self.uses_below)}."
        yield self.scheme, "This rests on every id and content digest being made as its data set says."
        sets = (as_json(e["name"]) + " by " + as_json(e.get("content", "unknown")) for e in self.of("dataset").values())
        yield self.claim == "content absent", f"Contents were taken from: {', '.join(sets)}."


def entries_of(rows, *of):
    """The entries that rows name; with a kind and a detail, those of these."""
    return {row[0] for row in rows if not of or row[1:3] == of}


def as_json(value):
    if type(value) in (list, bytes):
        return f"[{', '.join(map(as_json, value))}]" if type(value) is list else f'{{"hex": "{value.hex()}"}}'
    need(type(value) is str or (type(value) is int and value >= 0), "no key of a sample")
    return UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


def main():
    parser = argparse.ArgumentParser(description="Check an fgtrac bundle.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--key", help="the log's public key that you trust: 64 hex digits")
    parser.add_argument("--id-key", help="the run's id key, 64 hex digits, if you were given it")
    said = parser.parse_args()
    try:
        key, id_key = (named and fit(named.lower(), "id") for named in (said.key, said.id_key))
        with said.bundle.open("rb") as file:
            verdict, found = Examination(read_bundle(file.read(MAX_BYTES + 1)), key, id_key).report()
    except (Fault, OSError) as error:
        print(f"check_bundle: {error if isinstance(error, OSError) else error.args[0]}", file=sys.stderr)
        return 2
    print("\n".join(f"{name:<10} {outcome:<12} {words}" for name, (outcome, words) in found.items()))
    return {"holds": 0, "refuted": 1, "cannot tell": 3}[verdict]


if __name__ == "__main__":
    sys.exit(main())
