"""Bundles that break one rule each: of JSON, of the form, of CBOR inside a signed entry, of neighbours and of names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bundles_by_hand import Vector, anew
from every_bundle import Case
from fgtrac.demo.forge import signed_note
from fgtrac.events.codec import decode, encode
from fgtrac.events.identity import content_preimage, public_id
from fgtrac.tlog.index import Absence
from fgtrac.tlog.merkle import MemoryNodes, hash_leaves, leaf_hash, node_hash, prove_inclusion, root
from fgtrac.tlog.note import TreeHead, Verifier
from fgtrac.tlog.proof import TlogProof
from fgtrac.verify.bundle import Bundle, format_bundle, head_of, parse_bundle
from fgtrac.verify.claims import About
from fgtrac.verify.keys import rotation_message
from forged_bundles import KEYS, PUBLIC, sign, words_of

Change = Callable[[dict[str, Any]], object]
MARK = b"the place where odd bytes go"
ODD_CBOR = (
    "d84841 00", "d845 41 00", "5f ff", "18 05", "3b 8000000000000000", "d840 60", "f6", "fb 7ff8000000000000",
    "81" * 17 + "00", "a1 40 00", "a2 6162 00 6161 00", "a2 6161 00 6161 00", "61 ff", "fa 3f800000", "9f ff", "1c",
    "c1 00", "83 01",
)  # fmt: skip
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def odd(cases: Sequence[Case]) -> Iterator[Vector]:
    """All of them; `cases` are those of `every_bundle`."""
    yield from _of_json(cases)
    yield from _of_form(cases)
    yield from _of_cbor(cases)
    yield from _of_neighbours(cases)
    yield from _of_names(cases)
    yield from _of_claims(cases)
    yield from _of_the_log(cases)


def first(cases: Sequence[Case], where: str, test: Callable[[Bundle], Any]) -> Case:
    return next(case for case in cases if case.name.startswith(where) and test(parse_bundle(case.data)))


def _of_json(cases: Sequence[Case]) -> Iterator[Vector]:
    case = first(cases, "public-4", lambda b: b.claim == "used" and b.entries and not b.children)
    text = case.data.decode()
    path = text.index('"path":["')
    end = text.index("]", path)
    for odd_text in (
        text[:end] + "," + text[end:], text[:end] + "}" + text[end + 1 :], text.replace("{", '{"words":"",', 1),
        text + ",", text.replace(":", "::", 1), text.replace('"used"', '"us\ted"', 1),
        text.replace('"claim":', '"claim"', 1),
    ):  # fmt: skip
        yield Vector(odd_text.encode(), case.verifier)
    yield Vector(b"\xef\xbb\xbf" + case.data, case.verifier)
    yield Vector(case.data.replace(b"SHA", b"S\xc0\x80A").replace(b"digits", b"dig\xffits"), case.verifier)


def _of_form(cases: Sequence[Case]) -> Iterator[Vector]:
    case = first(cases, "public-4", lambda b: b.claim == "history" and len(b.entries) > 3 and b.children)
    entry, last = json.loads(case.data)["entries"][0], json.loads(case.data)["rows"][-1]
    changes: list[Change] = [
        lambda b: b.update(more="x"),
        lambda b: b["id"].update(preimage="00" * 65_536),
        lambda b: b["rows"].append([200, 0, last[2], "none"]),
        lambda b: b["rows"].append([5, 1, str(int(last[2]) + 1), "none"]),
        lambda b: b["rows"].append([4, 1, str(int(last[2]) + 1), "none"]),
        lambda b: b["entries"][0].update(entry="A" * 87_384),
        lambda b: b["entries"][0]["path"].append("A" * 44),
        lambda b: b["index"]["leaf"]["path"].append("A" * 43 + "="),
        lambda b: b["index"]["leaf"].update(path=b["index"]["leaf"]["path"][:-1]),
        lambda b: b["entries"][0].update(entry=_with_last_bits(entry["entry"])),
        lambda b: b["children"].reverse(),
        lambda b: b["entries"].reverse(),
        lambda b: b["rows"].reverse(),
    ]
    for line in ("x", "- name AAAAAAAA\n", "— a AAAA\n", "— a\tb AAAAAAAA\n", f"— a {'AAAA' * 250_000}\n"):
        changes.append(lambda b, line=line: b["seal"].update(proof=b["seal"]["proof"] + line))  # type: ignore[misc]
    for change in changes:
        yield _changed(case, change)
    held = first(cases, "contents", lambda b: b.claim == "content present")
    yield _changed(held, lambda b: b.update(claim="content here"))
    yield _changed(held, lambda b: b["holders"].reverse())


def _with_last_bits(text: str) -> str:
    """Base64 that decodes to the same bytes, if one does not look; the whole where it has no padding."""
    bare = text.rstrip("=")
    return bare[:-1] + ALPHABET[ALPHABET.index(bare[-1]) + 1] + text[len(bare) :] if bare != text else text[:-1] + "="


def _changed(case: Case, change: Change) -> Vector:
    said = json.loads(case.data)
    change(said)
    return Vector(json.dumps(said).encode(), case.verifier, case.secret)


def _of_cbor(cases: Sequence[Case]) -> Iterator[Vector]:
    """Inside the parameters of a stage, and around an entry: all of it signed by the log's key."""
    case = first(cases, "public-4", lambda b: any(decode(e.entry)["kind"] == "transform" for e in b.entries))
    bundle = parse_bundle(case.data)
    number = next(e.number for e in bundle.entries if decode(e.entry)["kind"] == "transform")
    shown = {e.number: e.entry for e in bundle.entries}
    event = decode(shown[number])

    def signed(entry: bytes) -> Vector:
        made = sign(bundle, shown | {number: entry}, decode(bundle.seal), KEYS[0], False)
        return Vector(format_bundle(made), case.verifier)

    marked = encode(event | {"parameters": {"a": MARK}})
    for hex_digits in ODD_CBOR:
        yield signed(marked.replace(encode(MARK), bytes.fromhex(hex_digits)))
    yield signed(shown[number] + b"\0")
    yield signed(shown[number][:-1])
    yield signed(b"")
    yield signed(encode([event["kind"]]))


def _of_neighbours(cases: Sequence[Case]) -> Iterator[Vector]:
    """An id on the wrong side, leaves that are no neighbours, and an empty index with a root."""
    bare = [c for c in cases if c.name.startswith("public-4") and parse_bundle(c.data).claim == "never registered"]
    bare = [c for c in bare if parse_bundle(c.data).preimage is None]
    bundles = [parse_bundle(c.data) for c in bare]
    between, left, right = next(
        (b, b.absence.left, b.absence.right)
        for b in bundles
        if b.absence and b.absence.left and b.absence.right and b.absence.right.type == 1
    )
    nearest = [leaf for b in bundles if b.absence for leaf in (b.absence.left, b.absence.right) if leaf]
    least, greatest = (choose(nearest, key=lambda leaf: leaf.index) for choose in (min, max))
    for absence in (Absence(least, right), Absence(left, greatest), Absence(left, None), Absence(None, right)):
        yield _worded(replace(between, absence=absence), bare[0].verifier)
    for id in (left.key, right.key, bytes(32), b"\xff" * 32):
        yield _worded(replace(between, id=id), bare[0].verifier)
    empty = replace(_with_index(between, 0, bytes(32)), absence=Absence(None, None))
    yield Vector(format_bundle(empty), bare[0].verifier)
    present = first(cases, "public-4", lambda b: b.claim == "used" and not b.children)
    yield Vector(format_bundle(_behind_the_end(parse_bundle(present.data))), present.verifier)


def _worded(bundle: Bundle, verifier: Verifier) -> Vector:
    return Vector(format_bundle(replace(bundle, words=words_of(bundle))), verifier)


def _with_index(bundle: Bundle, leaves: int, root_hash: bytes) -> Bundle:
    """The bundle in a log made anew, whose seal commits to an index of so many leaves under this root."""
    head, entries = head_of(bundle), {e.number: e.entry for e in bundle.entries}
    seal = encode(decode(bundle.seal) | {"leaves": leaves, "root": root_hash})
    log, size = (
        MemoryNodes(hash_leaves([entries.get(n, b"hidden %d" % n) for n in range(head.size - 1)] + [seal])),
        head.size,
    )
    note = signed_note(TreeHead(head.origin, size, root(size, log)), KEYS[0])
    shown = tuple(replace(e, path=tuple(prove_inclusion(e.number, size, log))) for e in bundle.entries)
    proof = TlogProof(size - 1, tuple(prove_inclusion(size - 1, size, log)), note)
    return replace(bundle, seal=seal, proof=proof, entries=shown)


def _behind_the_end(bundle: Bundle) -> Bundle:
    """Leaf 1 of an index that says to have one leaf, with a path that leads from there to the root."""
    leaf, sibling = b"\1" + bundle.id + hashlib.sha256(bundle.value or b"").digest(), bytes(32)
    return replace(_with_index(bundle, 1, node_hash(sibling, leaf_hash(leaf))), leaf=(1, (sibling,)))


def _of_names(cases: Sequence[Case]) -> Iterator[Vector]:
    """Preimages of another form under ids that are theirs, and keys that the log's own entries do not know."""
    case = first(cases, "public-4", lambda b: b.claim == "used" and b.preimage and len(b.entries) == 1)
    bundle = parse_bundle(case.data)
    said = decode(bundle.preimage or b"")
    for other in ([*said, 0], [said[0] + "1", *said[1:]], said[1], [said[0], said[1], True]):
        yield Vector(anew(replace(bundle, preimage=encode(other), id=public_id(encode(other)))), case.verifier)
    held = first(cases, "contents-public", lambda b: b.claim == "content present" and b.preimage)
    bundle = parse_bundle(held.data)
    said = decode(bundle.preimage or b"")
    for other in (["fgtrac content v2", said[1]], [*said, 0]):
        yield Vector(anew(replace(bundle, preimage=encode(other), id=public_id(encode(other)))), held.verifier)
    keyed = first(cases, "keyed-4", lambda b: b.claim == "never registered" and b.preimage)
    yield Vector(keyed.data, Verifier(keyed.verifier.name, bytes(32)), keyed.secret)
    yield from _about_a_file(cases)


def _about_a_file(cases: Sequence[Case]) -> Iterator[Vector]:
    """The digest of a file is absent from data sets whose contents are no files."""
    case = first(cases, "contents-public", lambda b: b.claim == "content absent" and b.preimage)
    bundle = parse_bundle(case.data)
    digest = decode(bundle.preimage or b"")[1]

    def of_tensors(events: dict[int, Any], seal: dict[str, Any]) -> None:
        for event in events.values():
            if event["kind"] == "dataset":
                event["content"] = "tensor float32"

    def of_tensors_in_another(events: dict[int, Any], seal: dict[str, Any]) -> None:
        one = next(e for e in events.values() if e["kind"] == "dataset")
        free = max(set(range(seal["entries"])) - events.keys())
        events[free] = one | {"name": "another", "content": "tensor float32", "seq": free}
        seal["counts"] = seal["counts"] | {"dataset": seal["counts"]["dataset"] + 1}

    asked = About("a file", preimage=content_preimage(digest), source="file")
    yield Vector(anew(bundle, of_tensors), case.verifier, about=asked)
    yield Vector(anew(bundle, of_tensors_in_another), case.verifier, about=asked)
    yield Vector(anew(bundle, of_tensors), case.verifier)


def _of_claims(cases: Sequence[Case]) -> Iterator[Vector]:
    """Claims that the rows do not bear out, and a part whose block's first part is not shown."""
    unused = first(cases, "public-4", lambda b: b.claim == "never used" and not b.children)
    yield Vector(anew(replace(parse_bundle(unused.data), claim="used", entries=())), unused.verifier)
    seeds = first(cases, "public-4", lambda b: b.claim == "history" and not b.children and 5 in b.rows["kind"])
    for claim in ("never used", "label never used"):
        yield Vector(anew(replace(parse_bundle(seeds.data), claim=claim)), seeds.verifier)
    parts = next(_parts_of(cases))
    yield Vector(parts[0], parts[1])


def _parts_of(cases: Sequence[Case]) -> Iterator[tuple[bytes, Verifier]]:
    """The last part alone, and the other entries name the sample by its place in that."""
    for case in cases:
        bundle = parse_bundle(case.data)
        events = {e.number: decode(e.entry) for e in bundle.entries}
        samples = {n: e for n, e in events.items() if e["kind"] == "samples"}
        if bundle.claim != "history" or bundle.children or len(samples) != 2 or not case.name.startswith("public-4"):
            continue
        (_, one), (number, last) = sorted(samples.items(), key=lambda pair: pair[1]["part"])
        if one["part"] != 0 or last["part"] == 0:
            continue
        place = last["ids"].index(bundle.id) // 32
        ordinal = last["part"] * (len(one["ids"]) // 32) + place

        def move(
            events: dict[int, Any], seal: dict[str, Any], number: int = number, ordinal: int = ordinal, to: int = place
        ) -> None:
            for other in [n for n, e in events.items() if e["kind"] == "samples" and n != number]:
                del events[other]
            for event in events.values():
                for name in ("ordinals", "kept", "dropped"):
                    if name in event:
                        event[name] = np.where(
                            event[name] == ordinal, to, np.where(event[name] == to, ordinal, event[name])
                        ).astype("<u4")

        yield anew(bundle, move), case.verifier


def _of_the_log(cases: Sequence[Case]) -> Iterator[Vector]:
    """A key that was revoked, with another one behind it or before it, and the first one is named."""
    used = first(cases, "public-4", lambda b: b.claim == "used" and not b.children and b.preimage)
    bundle = parse_bundle(used.data)
    trace_id = bytes.fromhex(head_of(bundle).origin[-32:])
    for revoked in ((True, False), (False, True)):
        events, seal = {e.number: decode(e.entry) for e in bundle.entries}, decode(bundle.seal)
        free = sorted(set(range(seal["entries"])) - events.keys())
        for place, number in enumerate(free[:2]):
            message = rotation_message(trace_id, PUBLIC[place], PUBLIC[place + 1], revoked[place])
            pair = {"old_signature": KEYS[place].sign(message), "new_signature": KEYS[place + 1].sign(message)}
            fields = {"kind": "key", "time": 1, "writer": bytes(16), "seq": number, "public_key": PUBLIC[place + 1]}
            events[number] = fields | pair | ({"revoked": True} if revoked[place] else {})
        seal["counts"] = seal["counts"] | {"key": 2}
        shown = {n: encode(event) for n, event in sorted(events.items())}
        made = sign(bundle, shown, seal, KEYS[2], False)
        yield _worded(made, used.verifier)
