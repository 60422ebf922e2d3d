"""Bundles that do not hold, each for one reason, as chance seldom makes them: changed, or signed anew by a signer."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from every_bundle import Case
from fgtrac.demo.forge import signed_note
from fgtrac.events.codec import decode, encode
from fgtrac.events.identity import content_preimage, keyed_id, preimage, public_id
from fgtrac.events.postings import KIND, decode_rows
from fgtrac.events.schema import NO_STEP
from fgtrac.tlog.merkle import MemoryNodes, hash_leaves, prove_inclusion, root
from fgtrac.tlog.note import TreeHead, Verifier
from fgtrac.tlog.proof import TlogProof
from fgtrac.verify.bundle import USES, Bundle, Descendant, Shown, format_bundle, head_of, parse_bundle
from fgtrac.verify.children import made_into, registered_by
from fgtrac.verify.claims import About, check_bundle
from fgtrac.verify.keys import rotation_message
from fgtrac.verify.report import Verdict
from forged_bundles import KEYS, PUBLIC, sign, words_of


@dataclass(frozen=True, slots=True)
class Vector:
    """A bundle that does not hold, as it is examined: with which key, id key and question."""

    data: bytes
    verifier: Verifier | None
    secret: bytes | None = None
    about: About | None = None

    def verdict(self) -> Verdict:
        return check_bundle(parse_bundle(self.data), self.verifier, self.secret, self.about).verdict


def anew(bundle: Bundle, change: Callable[[dict[int, Any], dict[str, Any]], None] = lambda events, seal: None) -> bytes:
    """The bundle in a log whose entries and seal are changed and signed by its signer, with the words that follow."""
    events, seal = {e.number: decode(e.entry) for e in bundle.entries}, decode(bundle.seal)
    change(events, seal)
    shown = {n: encode(event) for n, event in sorted(events.items())}
    made = sign(bundle, shown, seal, KEYS[0], False)
    return format_bundle(replace(made, words=words_of(made)))


def by_hand(cases: Sequence[Case]) -> Iterator[Vector]:
    """What chance seldom makes."""
    used = _first(cases, "public-4", lambda b: b.claim == "used" and not b.children and b.preimage)
    yield Vector(used.data, None)
    yield Vector(used.data, Verifier("fgtrac/" + "9" * 32, used.verifier.public_key))
    yield Vector(used.data, Verifier(used.verifier.name, bytes(32)))
    yield Vector(_behind_another(parse_bundle(used.data)), used.verifier)
    yield Vector(anew(parse_bundle(used.data), lambda _, seal: seal.update(entries=seal["entries"] - 1)), used.verifier)
    yield Vector(anew(replace(parse_bundle(used.data), preimage=None, opening=bytes(32))), used.verifier)
    yield Vector(_back_to_the_first_key(parse_bundle(used.data)), used.verifier)
    yield from _about(used, cases)
    yield from _names(cases)
    yield from _descendants(cases)
    yield from _parts(cases)
    resumed = _first(cases, "resumed", lambda b: b.claim == "used" and len(b.entries) == 2)
    yield Vector(anew(parse_bundle(resumed.data), _state_that_was_undone), resumed.verifier)


def _first(cases: Sequence[Case], where: str, test: Callable[[Bundle], Any]) -> Case:
    return next(case for case in cases if case.name.startswith(where) and test(parse_bundle(case.data)))


def _behind_another(bundle: Bundle) -> bytes:
    """The seal is the last leaf but one, and says that it covers itself too."""
    seal = encode(decode(bundle.seal) | {"entries": head_of(bundle).size})
    size = head_of(bundle).size + 1
    shown = {e.number: e.entry for e in bundle.entries}
    leaves = [shown.get(n, b"hidden %d" % n) for n in range(size - 2)] + [seal, b"another"]
    log = MemoryNodes(hash_leaves(leaves))
    note = signed_note(TreeHead(head_of(bundle).origin, size, root(size, log)), KEYS[0])
    entries = tuple(Shown(n, e, tuple(prove_inclusion(n, size, log))) for n, e in shown.items())
    proof = TlogProof(size - 2, tuple(prove_inclusion(size - 2, size, log)), note)
    made = replace(bundle, seal=seal, proof=proof, entries=entries)
    return format_bundle(replace(made, words=words_of(made)))


def _back_to_the_first_key(bundle: Bundle) -> bytes:
    """Two rotations, each of them well signed, the second one to the key that the first one replaced."""
    trace_id = bytes.fromhex(head_of(bundle).origin[-32:])

    def rotate(events: dict[int, Any], seal: dict[str, Any]) -> None:
        free = sorted(set(range(seal["entries"])) - events.keys())
        for number, (old, new) in zip(free, ((0, 1), (1, 0)), strict=False):
            message = rotation_message(trace_id, PUBLIC[old], PUBLIC[new], False)
            signed = {"old_signature": KEYS[old].sign(message), "new_signature": KEYS[new].sign(message)}
            fields = {"kind": "key", "time": 1, "writer": bytes(16), "seq": number, "public_key": PUBLIC[new]}
            events[number] = fields | signed
        seal["counts"] = seal["counts"] | {"key": 2}

    return anew(bundle, rotate)


def _state_that_was_undone(events: dict[int, Any], seal: dict[str, Any]) -> None:
    for event in events.values():
        if event["kind"] == "checkpoint":
            event["step"] = 4


def _about(used: Case, cases: Sequence[Case]) -> Iterator[Vector]:
    """True of somebody else than asked."""
    other, source = preimage("digits", 99), content_preimage(bytes(32))
    yield Vector(used.data, used.verifier, about=About("another id", id=bytes(32)))
    yield Vector(used.data, used.verifier, about=About("another name", preimage=other))
    nameless = _first(cases, "public-4", lambda b: b.preimage is None and b.claim == "used")
    yield Vector(nameless.data, nameless.verifier, about=About("a name", preimage=other))
    sample = replace(parse_bundle(used.data), id=public_id(source), preimage=None, opening=None)
    yield Vector(anew(sample), used.verifier, about=About("a content", preimage=source, source="file"))
    absent = _first(cases, "contents-public", lambda b: b.claim == "content absent" and b.preimage)
    asked = About("a content", preimage=parse_bundle(absent.data).preimage, source="tensor")
    yield Vector(absent.data, absent.verifier, about=asked)
    bare = _first(cases, "keyed-4", lambda b: b.claim == "never registered" and not b.preimage)
    by_public_id = anew(replace(parse_bundle(bare.data), id=public_id(preimage("digits", 3))))
    yield Vector(by_public_id, bare.verifier, about=About("a name", preimage=preimage("digits", 3)))


def _names(cases: Sequence[Case]) -> Iterator[Vector]:
    """Absences of names that the scheme in the log does not bear out."""
    keyed = _first(cases, "keyed-4", lambda b: b.claim == "never registered" and b.preimage)
    assert keyed.secret is not None
    bundle, wrong = parse_bundle(keyed.data), bytes(32)
    yield Vector(keyed.data, keyed.verifier)
    yield Vector(anew(replace(bundle, id=keyed_id(wrong, bundle.preimage or b""))), keyed.verifier, wrong)
    yield Vector(anew(replace(bundle, preimage=preimage("digits", 98))), keyed.verifier, keyed.secret)
    public = _first(cases, "public-4", lambda b: b.claim == "never registered" and b.preimage)
    bundle = parse_bundle(public.data)
    yield Vector(anew(replace(bundle, opening=bytes(32))), public.verifier)
    yield Vector(anew(replace(bundle, id=b"\x55" * 32)), public.verifier)

    def by_subject(events: dict[int, Any], seal: dict[str, Any]) -> None:
        for event in events.values():
            if event["kind"] == "dataset":
                event["id_scheme"] = "subject"

    yield Vector(anew(bundle, by_subject), public.verifier)

    def without_data_sets(events: dict[int, Any], seal: dict[str, Any]) -> None:
        for number in [n for n, e in events.items() if e["kind"] == "dataset"]:
            del events[number]
        seal["counts"] = {k: v for k, v in seal["counts"].items() if k != "dataset"}

    sources = _first(cases, "contents-public", lambda b: b.claim == "content absent")
    yield Vector(anew(replace(parse_bundle(sources.data), preimage=None), without_data_sets), sources.verifier)

    def with_more_in_a_row(events: dict[int, Any], seal: dict[str, Any]) -> None:
        for event in events.values():
            if event["kind"] == "dataset":
                event["beside"] = True

    yield Vector(anew(parse_bundle(sources.data), with_more_in_a_row), sources.verifier)

    def run_twice(events: dict[int, Any], seal: dict[str, Any]) -> None:
        free = max(set(range(seal["entries"])) - events.keys())
        events[free] = next(e for e in events.values() if e["kind"] == "run")
        seal["counts"] = seal["counts"] | {"run": 2}

    nameless = _first(cases, "contents-keyed", lambda b: b.claim == "content absent" and not b.preimage)
    for case in (keyed, nameless):
        yield Vector(anew(parse_bundle(case.data), run_twice), case.verifier, case.secret)


def _descendants(cases: Sequence[Case]) -> Iterator[Vector]:
    """Used through its children and said not to be; children that are none; a stage that makes nothing."""
    case = _first(cases, "public-4", lambda b: len(b.children) > 1 and b.preimage)
    parent = parse_bundle(case.data)
    rows = decode_rows(parent.value or b"")
    use = np.array([(KIND["used"], 1, head_of(parent).size - 2, 9)], dtype=rows.dtype).tobytes()
    child, *others = parent.children
    used = (replace(child, value=child.value + use), *others)
    unused = replace(parent, claim="never used", children=used, value=rows[~np.isin(rows["kind"], USES)].tobytes())
    whole = parse_bundle(_first(cases, "public-4", lambda b: b.claim == "history").data)  # it shows the end
    entries = [e for e in parent.entries if decode(e.entry)["kind"] != "checkpoint"]
    entries += [e for e in whole.entries if decode(e.entry)["kind"] == "end"]
    yield Vector(anew(replace(unused, entries=tuple(entries))), case.verifier)
    fewer = np.delete(rows, np.flatnonzero((rows["kind"] == KIND["transformed"]) & (rows["detail"] == 3))[:1])
    yield Vector(anew(replace(parent, value=fewer.tobytes())), case.verifier)
    itself = Descendant(parent.id, parent.value or b"", (0, ()))
    yield Vector(anew(_with(parent, itself)), case.verifier)
    other = parse_bundle(_first(cases, "public-4", lambda b: len(b.entries) > 3 and not b.children).data)
    stranger = Descendant(other.id, other.value or b"", (0, ()))
    samples = [e for e in other.entries if decode(e.entry)["kind"] == "samples"]
    yield Vector(anew(_with(parent, stranger, *samples)), case.verifier)
    yield Vector(_twin(parent), case.verifier)
    yield Vector(_short_part(parent), case.verifier)

    def make_nothing(events: dict[int, Any], seal: dict[str, Any]) -> None:
        for number in made_into(rows):
            same = {name: events[number][name] for name in ("time", "writer", "seq")}
            events[number] = {"kind": "metrics", "step": 0, "values": {}} | same

    yield Vector(anew(parent, make_nothing), case.verifier)


def _with(parent: Bundle, child: Descendant, *entries: Shown) -> Bundle:
    shown = {e.number: e for e in (*parent.entries, *entries)}
    children = tuple(sorted((*parent.children, child), key=lambda one: one.id))
    return replace(parent, children=children, entries=tuple(e for _, e in sorted(shown.items())))


def _twin(parent: Bundle) -> bytes:
    """Another sample in the place of a child, which a second entry registers."""
    child = parent.children[0]
    twin, again = child.id[:-1] + bytes([child.id[-1] ^ 1]), head_of(parent).size - 2
    rows = decode_rows(child.value).copy()
    (number,) = registered_by(rows)
    rows["entry"][rows["kind"] == KIND["registered"]] = again
    rows = rows[~np.isin(rows["kind"], USES)]

    def register(events: dict[int, Any], seal: dict[str, Any]) -> None:
        events[again] = events[number] | {"ids": events[number]["ids"].replace(child.id, twin), "seq": 99}

    value = np.sort(rows, order=["entry", "kind", "detail", "step"]).tobytes()
    return anew(_with(parent, Descendant(twin, value, (0, ()))), register)


def _short_part(parent: Bundle) -> bytes:
    """Parent and children in parts of one block, of which the children's is shorter and not the last."""
    rows = decode_rows(parent.value or b"")
    (own,), (theirs,) = registered_by(rows), registered_by(decode_rows(parent.children[0].value))

    def move(events: dict[int, Any], seal: dict[str, Any]) -> None:
        place = events[own]["ids"].index(parent.id) // 32
        ordinal = events[own]["part"] * (len(events[own]["ids"]) // 32) + place
        ids = events[own]["ids"] + b"\xff" * 32
        events[own] |= {"ids": ids, "part": 0, "parts": 9}
        events[theirs] |= {"block": events[own]["block"], "part": 1, "parts": 9}
        for number in made_into(rows):
            pairs = events[number]
            pairs["child_block"] = events[own]["block"]
            pairs["children"] = pairs["children"] + np.uint32(len(ids) // 32)
            pairs["parents"] = np.where(pairs["parents"] == ordinal, place, 10**6).astype("<u4")
        for number in (own, theirs):
            events[number].pop("contents", None)

    return anew(parent, move)


def _parts(cases: Sequence[Case]) -> Iterator[Vector]:
    """A block whose parts do not fit each other, and a sample that stands twice in one."""

    def shows_parts(count: int) -> Callable[[Bundle], bool]:
        return lambda b: (
            b.claim == "history"
            and not b.children
            and len(b.entries) > 3
            and sum(decode(e.entry)["kind"] == "samples" for e in b.entries) == count
        )

    last = _first(cases, "public-4", shows_parts(2))

    def lengthen(events: dict[int, Any], seal: dict[str, Any]) -> None:
        part = max((e for e in events.values() if e["kind"] == "samples"), key=lambda e: e["part"])
        part["ids"] += b"".join(b"\xff" * 31 + bytes([n]) for n in range(9))
        part.pop("contents", None)

    yield Vector(anew(parse_bundle(last.data), lengthen), last.verifier)
    case = _first(cases, "public-4", shows_parts(1))
    bundle = parse_bundle(case.data)
    number = next(e.number for e in bundle.entries if decode(e.entry)["kind"] == "samples")
    again = head_of(bundle).size - 3  # behind all that its rows name, and before the end
    row = struct.pack("<BHQQ", KIND["registered"], 0, again, NO_STEP)
    value = (bundle.value or b"") + row
    yield Vector(anew(replace(bundle, value=value), partial(_twice, bundle.id, number, again)), case.verifier)

    def register_another(events: dict[int, Any], seal: dict[str, Any]) -> None:
        another = bundle.id[:-1] + bytes([bundle.id[-1] ^ 1])
        events[number]["ids"] = events[number]["ids"].replace(bundle.id, another)

    yield Vector(anew(bundle, register_another), case.verifier)

    def register_nothing(events: dict[int, Any], seal: dict[str, Any]) -> None:
        same = {name: events[number][name] for name in ("time", "writer", "seq")}
        events[number] = {"kind": "metrics", "step": 0, "values": {}} | same

    yield Vector(anew(bundle, register_nothing), case.verifier)
    whole = _first(cases, "public-1", lambda b: b.claim == "history" and not b.children and len(b.entries) > 3)
    yield Vector(anew(parse_bundle(whole.data), _rename_block), whole.verifier)
    yield Vector(anew(parse_bundle(whole.data), _rename_data_set), whole.verifier)


def _rename_block(events: dict[int, Any], seal: dict[str, Any]) -> None:
    for event in events.values():
        if "block" in event:
            event["block"] = bytes(16)


def _rename_data_set(events: dict[int, Any], seal: dict[str, Any]) -> None:
    for event in events.values():
        if event["kind"] == "samples":
            event["dataset"] = "another"


def _twice(id: bytes, number: int, again: int, events: dict[int, Any], seal: dict[str, Any]) -> None:
    ids = events[number]["ids"]
    moved = ids[32:] + b"\xff" * 32 if ids.endswith(id) else bytes(32) + ids[:-32]
    events[again] = events[number] | {"ids": moved, "seq": 99}
