"""No condition in the checks of a bundle is idle: whichever one is removed, a bundle is then told better than it is.

Each `raise ProofError` and `raise CannotTell` of the modules below becomes `pass` in turn, and bundles that it stopped
are examined again: changed ones, ones that a signer made anew, and some made by hand. One must get a better verdict, or
none at all, as the examination stumbles over what the condition kept from it; or the condition is listed in FIRST.
"""

from __future__ import annotations

import ast
import inspect
import random
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np
import pytest

from every_bundle import Case, every_bundle
from fgtrac.demo.forge import signed_note
from fgtrac.errors import FgtracError, FormatError
from fgtrac.events.codec import decode, encode
from fgtrac.events.identity import content_preimage, keyed_id, preimage, public_id
from fgtrac.events.postings import KIND, decode_rows
from fgtrac.events.schema import NO_STEP
from fgtrac.tlog.merkle import MemoryNodes, hash_leaves, prove_inclusion, root
from fgtrac.tlog.note import TreeHead, Verifier
from fgtrac.tlog.proof import TlogProof
from fgtrac.verify import children, claims, evidence, keys, needs, sentences
from fgtrac.verify.bundle import USES, Bundle, Descendant, Shown, format_bundle, head_of, parse_bundle
from fgtrac.verify.checks import CannotTell, Checks
from fgtrac.verify.children import made_into, registered_by
from fgtrac.verify.claims import About, check_bundle
from fgtrac.verify.keys import rotation_message
from fgtrac.verify.report import Verdict
from forged_bundles import KEYS, PUBLIC, changed, resigned, sign, words_of

MODULES = (claims, children, evidence, needs, sentences, keys)
FIRST = {  # conditions behind which another one stands: no bundle is told better without them
    "claims.py: each subject has its own id key": "no `run` entry is shown where no ids are keyed, so no id key fits",
    "claims.py: not checked, since the check of": "what does not hold decides; this keeps the claim's own line honest",
    "children.py: {member.hex()} and {who[place].hex()} are both": "one of the two is then reached by no entry",
    "evidence.py: no part but the last of block": "`needs` asks for part 0 before it",
    "needs.py: part 0 of block": "`evidence` refuses a part whose length is not known",
    "keys.py: a head of the log": "a key's id is over its name too, so no signature line is then by the key",
    "keys.py: the log {origin!r:.80} has key entries": "a bundle of a log with another name is malformed",
    "sentences.py: {name_words(bundle)} has no row of use": "there is then no first and no last step to name",
    "sentences.py: a row of use names an entry of the kind": "`evidence` refutes it, and then no words are made",
    "sentences.py: no entry that a row of use names": "`evidence` refutes it, and then no words are made",
}
ORDER = (Verdict.REFUTED, Verdict.CANNOT_TELL, Verdict.HOLDS)
BREAKS_OFF = len(ORDER)
RANDOM = 2400
TRIED = 12  # vectors that are examined again for each condition


@dataclass(frozen=True, slots=True)
class Vector:
    """A bundle that does not hold, as it is examined: with which key, id key and question."""

    data: bytes
    verifier: Verifier | None
    secret: bytes | None = None
    about: About | None = None

    def verdict(self) -> Verdict:
        return check_bundle(parse_bundle(self.data), self.verifier, self.secret, self.about).verdict


@dataclass(frozen=True, slots=True)
class Site:
    """One `raise` statement."""

    module: ModuleType
    line: int
    end: int

    @property
    def name(self) -> str:
        """Its file and the text of its message."""
        text = " ".join(self._lines())
        words = text.partition('"')[2].partition('"')[0].strip() or text
        return f"{Path(str(self.module.__file__)).name}: {words}"

    def _lines(self) -> list[str]:
        lines = inspect.getsource(self.module).splitlines()[self.line - 1 : self.end]
        return [line.strip() for line in lines]


def sites() -> list[Site]:
    """Every condition of MODULES."""
    found = []
    for module in MODULES:
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Raise) and getattr(getattr(node.exc, "func", None), "id", "") in (
                "ProofError",
                "CannotTell",
            ):
                found.append(Site(module, node.lineno, node.end_lineno or node.lineno))
    return found


SITES = sites()


# -- removing one -----------------------------------------------------------------------------------------------------


class _Without(ast.NodeTransformer):
    def __init__(self, line: int) -> None:
        self._line = line

    def visit_Raise(self, node: ast.Raise) -> ast.stmt:
        return ast.copy_location(ast.Pass(), node) if node.lineno == self._line else node


@contextmanager
def removed(site: Site) -> Iterator[None]:
    """The module without that statement: its function runs other code for a while."""
    tree = _Without(site.line).visit(ast.parse(inspect.getsource(site.module)))
    code = _innermost(compile(tree, str(site.module.__file__), "exec"), site.line)
    function: Any = site.module
    for part in code.co_qualname.split("."):
        function = inspect.getattr_static(function, part)
    function = getattr(function, "__func__", function)
    before = function.__code__
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = before


def _innermost(code: CodeType, line: int) -> CodeType:
    """The function whose first line is the last one at or before `line`."""
    functions = [c for c in _functions(code) if c.co_firstlineno <= line and not c.co_name.startswith("<")]
    return max(functions, key=lambda c: c.co_firstlineno)


def _functions(code: CodeType) -> Iterator[CodeType]:
    for inside in code.co_consts:
        if isinstance(inside, CodeType):
            if inside.co_flags & inspect.CO_NEWLOCALS and inside.co_flags & inspect.CO_OPTIMIZED:
                yield inside
            yield from _functions(inside)


# -- vectors ----------------------------------------------------------------------------------------------------------


def fired(vector: Vector) -> tuple[int, set[Site]]:
    """How many checks do not hold, and the conditions that stop them. FormatError for what is no bundle."""
    bundle, found, make = parse_bundle(vector.data), set(), Checks.make

    def watched(self: Checks, name: str, examine: Callable[[], str], needed: Sequence[str] = ()) -> bool:
        def examined() -> str:
            try:
                return examine()
            except (FgtracError, CannotTell, ValueError) as error:
                found.update(_sites_of(error))
                raise

        return make(self, name, examined, needed)

    Checks.make = watched  # type: ignore[method-assign]
    try:
        report = check_bundle(bundle, vector.verifier, vector.secret, vector.about)
    finally:
        Checks.make = make  # type: ignore[method-assign]
    return len(report.failures()), found


def _sites_of(error: BaseException) -> Iterator[Site]:
    """The statement that raised it, if it is one of SITES."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is not None:
        file = place.tb_frame.f_code.co_filename
        yield from (s for s in SITES if s.module.__file__ == file and s.line <= place.tb_lineno <= s.end)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[Site, list[Vector]]:
    """For each condition bundles that it stops, those that nothing else stops first."""
    cases = list(every_bundle(tmp_path_factory.mktemp("bundles")))
    by_site: dict[Site, list[tuple[int, int, Vector]]] = defaultdict(list)
    for number, vector in enumerate([*by_hand(cases), *at_random(cases)]):
        try:
            count, hit = fired(vector)
        except FormatError:
            continue
        for site in hit:
            by_site[site].append((count, number, vector))
    return {site: [v for _, _, v in sorted(found, key=lambda f: f[:2])[:TRIED]] for site, found in by_site.items()}


def at_random(cases: Sequence[Case]) -> Iterator[Vector]:
    rng = random.Random(11)
    for number in range(RANDOM):
        case = rng.choice(cases)
        if number % 3:
            data = resigned(parse_bundle(case.data), rng)
        else:
            data = changed(case.data, [other.data for other in rng.sample(cases, 3)], rng)
        yield Vector(data, case.verifier, case.secret)


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
        events.clear()
        seal["counts"] = {k: v for k, v in seal["counts"].items() if k != "dataset"}

    sources = _first(cases, "contents-public", lambda b: b.claim == "content absent")
    yield Vector(anew(replace(parse_bundle(sources.data), preimage=None), without_data_sets), sources.verifier)


def _descendants(cases: Sequence[Case]) -> Iterator[Vector]:
    """Used through its children and said not to be; children that are none; a stage that makes nothing."""
    case = _first(cases, "public-4", lambda b: len(b.children) > 1 and b.preimage)
    parent = parse_bundle(case.data)
    rows = decode_rows(parent.value or b"")
    use = np.array([(KIND["used"], 1, head_of(parent).size - 2, 9)], dtype=rows.dtype).tobytes()
    child, *others = parent.children
    used = (replace(child, value=child.value + use), *others)
    unused = replace(parent, claim="never used", children=used, value=rows[~np.isin(rows["kind"], USES)].tobytes())
    unused = replace(unused, entries=tuple(e for e in parent.entries if decode(e.entry)["kind"] != "checkpoint"))
    yield Vector(anew(unused), case.verifier)
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
    again = head_of(bundle).size - 2
    row = struct.pack("<BHQQ", KIND["registered"], 0, again, NO_STEP)
    value = (bundle.value or b"") + row
    yield Vector(anew(replace(bundle, value=value), partial(_twice, bundle.id, number, again)), case.verifier)


def _twice(id: bytes, number: int, again: int, events: dict[int, Any], seal: dict[str, Any]) -> None:
    ids = events[number]["ids"]
    moved = ids[32:] + b"\xff" * 32 if ids.endswith(id) else bytes(32) + ids[:-32]
    events[again] = events[number] | {"ids": moved, "seq": 99}


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_a_bundle_is_told_better_than_it_is_once_a_condition_is_removed(
    site: Site, stopped: dict[Site, list[Vector]]
) -> None:
    vectors = stopped.get(site, [])
    before = [ORDER.index(vector.verdict()) for vector in vectors]
    with removed(site):
        after = [_told(vector) for vector in vectors]
    is_needed = any(now > then for then, now in zip(before, after, strict=True))
    reasons = [reason for words, reason in FIRST.items() if site.name.startswith(words)]
    assert is_needed != bool(reasons), f"{site.name}: {len(vectors)} bundles are stopped by it; listed: {reasons}"


def _told(vector: Vector) -> int:
    """The best verdict that the liar gets, who may also write the words that follow now; BREAKS_OFF where no verdict
    is reached, as the examination reads what the condition would have kept from it."""
    bundle = parse_bundle(vector.data)
    try:
        reworded = replace(vector, data=format_bundle(replace(bundle, words=words_of(bundle))))
        return max(ORDER.index(one.verdict()) for one in (vector, reworded))
    except (KeyError, IndexError, TypeError, AttributeError, AssertionError):
        return BREAKS_OFF
