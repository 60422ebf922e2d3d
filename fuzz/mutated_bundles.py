"""Changed bundles, by the thousand: none holds that says anything else than a true bundle does.

    python fuzz/mutated_bundles.py [COUNT] [SEED]

A change keeps the form and tries the content: bits, numbers by one, values of other bundles in their place, lists cut,
repeated or in another order, other words, bytes inside hex and base64, fields inside entries. Prints how many were
malformed, were refuted, could not be told, or still were a true bundle, but for blanks and signature lines that are
nobody's; ends with 1 where one held and was anything else. (Two neighbours show the absence of every id between them: a
bundle that exchanges nothing but such an id, everywhere, is true as well, and is counted by itself.)
"""

from __future__ import annotations

import base64
import binascii
import json
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

import numpy as np

from every_bundle import Case, every_bundle
from fgtrac.errors import FormatError
from fgtrac.events.codec import decode, encode
from fgtrac.tlog.note import parse_note
from fgtrac.verify.bundle import Bundle, parse_bundle
from fgtrac.verify.claims import check_bundle
from fgtrac.verify.report import Verdict

Place = tuple[Any, Any]  # a list or a map, and the index or name within it
Change = Callable[[random.Random, Any, Any], None]  # changes a bundle's JSON; the second is another bundle's


# -- where to change ------------------------------------------------------------------------------------------------


def places(value: Any) -> Iterator[Place]:
    """Every place in a JSON value that holds something."""
    if isinstance(value, dict | list):
        for name in value if isinstance(value, dict) else range(len(value)):
            yield value, name
            yield from places(value[name])


def some_place(draw: random.Random, value: Any, fits: Callable[[Any], bool] = lambda v: True) -> Place | None:
    found = [(holder, name) for holder, name in places(value) if fits(holder[name])]
    return draw.choice(found) if found else None


def is_number(value: Any) -> bool:
    return type(value) is int or (isinstance(value, str) and value.isdecimal())


# -- changes --------------------------------------------------------------------------------------------------------


def by_one(draw: random.Random, said: Any, _other: Any) -> None:
    """A number becomes its neighbour."""
    if place := some_place(draw, said, is_number):
        holder, name = place
        changed = int(holder[name]) + draw.choice([-1, 1])
        holder[name] = changed if type(holder[name]) is int else str(changed)


def from_another(draw: random.Random, said: Any, other: Any) -> None:
    """The value that another bundle has at the same place."""
    theirs = [place for place in _paths(other) if _get(said, place) not in (None, _get(other, place))]
    if theirs:
        path = draw.choice(theirs)
        _get(said, path[:-1])[path[-1]] = _get(other, path)


def whole_from_another(draw: random.Random, said: Any, other: Any) -> None:
    """One to three of the outer fields of another bundle, also those that this one has not."""
    for name in draw.sample(sorted(other), draw.randint(1, 3)):
        said[name] = other[name]


def in_another_order(draw: random.Random, said: Any, _other: Any) -> None:
    if place := some_place(draw, said, lambda v: isinstance(v, list) and len(v) > 1):
        items = place[0][place[1]]
        at = draw.randrange(len(items) - 1)
        items[at], items[at + 1] = items[at + 1], items[at]


def cut_or_repeated(draw: random.Random, said: Any, _other: Any) -> None:
    """A list, or a path, loses an item or has one twice."""
    if place := some_place(draw, said, lambda v: isinstance(v, list) and v):
        items = place[0][place[1]]
        at = draw.randrange(len(items))
        items[at : at + 1] = draw.choice([[], [items[at], items[at]]])


def field_gone(draw: random.Random, said: Any, _other: Any) -> None:
    if place := some_place(draw, said):
        holder, name = place
        del holder[name]


def other_words(draw: random.Random, said: Any, other: Any) -> None:
    """The sentence of another bundle, or this one with a number or a word changed."""
    words = said.get("words", "")
    numbers = list(re.finditer(r"\d+", words))
    how = draw.randrange(3)
    if how == 0 or not numbers:
        said["words"] = other.get("words", "")
    elif how == 1:
        at = draw.choice(numbers)
        said["words"] = words[: at.start()] + str(int(at[0]) + 1) + words[at.end() :]
    else:
        said["words"] = words.replace("never ", "").replace(" was ", " was not ", 1)


def byte_inside(draw: random.Random, said: Any, _other: Any) -> None:
    """A bit of what stands in hex or base64; the text stays as it should be written."""
    if place := some_place(draw, said, lambda v: _raw(v) is not None):
        holder, name = place
        raw, write = _raw(holder[name]) or (b"", str)
        changed = bytearray(raw)
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        holder[name] = write(bytes(changed))


def inside_an_entry(draw: random.Random, said: Any, _other: Any) -> None:
    """A field of an entry (or of a key) in CBOR; the entry stays one."""

    def is_value(text: Any) -> bool:
        found = _raw(text)
        try:
            return found is not None and isinstance(decode(found[0]), dict | list)
        except FormatError:
            return False

    if place := some_place(draw, said, is_value):
        holder, name = place
        raw, write = _raw(holder[name]) or (b"", str)
        value = decode(raw)
        inner = some_place(draw, value)
        if inner is not None:
            inner[0][inner[1]] = _nudged(draw, inner[0][inner[1]])
            holder[name] = write(encode(value))


def signature_lines(draw: random.Random, said: Any, other: Any) -> None:
    """The note has a line more, another's lines, or another's text under its own."""
    proof, theirs = said.get("seal", {}).get("proof", ""), other.get("seal", {}).get("proof", "")
    if "\n\n" in proof and "\n\n" in theirs:
        mine, its = proof.rsplit("\n\n", 1), theirs.rsplit("\n\n", 1)
        line = "— fgtrac.test/witness " + base64.b64encode(draw.randbytes(68)).decode() + "\n"
        said["seal"]["proof"] = "\n\n".join(
            draw.choice([[mine[0], mine[1] + line], [mine[0], line + mine[1]], [mine[0], its[1]], [its[0], mine[1]]])
        )


CHANGES: dict[str, Change] = {
    change.__name__.replace("_", " "): change
    for change in (
        by_one, from_another, whole_from_another, in_another_order, cut_or_repeated, field_gone, other_words,
        byte_inside, inside_an_entry, signature_lines,
    )
}  # fmt: skip


def bits(draw: random.Random, data: bytes) -> bytes:
    """One to three bits of the file."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def blanks(draw: random.Random, data: bytes) -> bytes:
    """The same JSON with blanks elsewhere."""
    return json.dumps(json.loads(data), indent=draw.choice([None, 1, 3]), ensure_ascii=draw.random() < 0.5).encode()


def _paths(value: Any, front: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        for name in value if isinstance(value, dict) else range(min(len(value), 4)):
            yield (*front, name)
            yield from _paths(value[name], (*front, name))


def _get(value: Any, path: Sequence[Any]) -> Any:
    for name in path:
        try:
            value = value[name]
        except (LookupError, TypeError):
            return None
    return value


def _raw(text: Any) -> tuple[bytes, Callable[[bytes], str]] | None:
    """The bytes behind hex or base64, and how they are written."""
    if not isinstance(text, str) or len(text) < 8:
        return None
    if re.fullmatch(r"([0-9a-f]{2})+", text):
        return bytes.fromhex(text), bytes.hex
    try:
        return base64.b64decode(text, validate=True), lambda raw: base64.b64encode(raw).decode()
    except (binascii.Error, ValueError):
        return None


def _nudged(draw: random.Random, value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return max(0, value + draw.choice([-1, 1]))
    if isinstance(value, np.ndarray) and len(value):
        return np.roll(value, 1) if draw.random() < 0.5 else value[:-1]
    if isinstance(value, bytes) and value:
        return value[:-1] + bytes((value[-1] ^ 1,))
    if isinstance(value, str):
        return draw.choice(["", value + "x", "train", "validation", "applied", "used"])
    return value


# -- what becomes of them -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one changed bundle. `is_another`: it holds, and says what no true bundle of its log says."""

    how: str
    is_another: bool


def meaning(bundle: Bundle) -> Bundle:
    """All of a bundle but the signature lines of its note: the specification lets anybody add some."""
    text = parse_note(bundle.proof.note).text
    return replace(bundle, proof=replace(bundle.proof, note=text.encode()))


def judge(data: bytes, case: Case, secret: bytes | None, true: set[Bundle]) -> Outcome:
    """Any exception but FormatError is a finding too, and is not caught."""
    try:
        bundle = parse_bundle(data)
    except FormatError:
        return Outcome("malformed", False)
    report = check_bundle(bundle, case.verifier, secret)
    if report.verdict is not Verdict.HOLDS:
        return Outcome(str(report.verdict), False)
    if meaning(bundle) in true:
        return Outcome("holds, and says the same", False)
    if is_between(meaning(bundle), true):
        return Outcome("holds for another absent id", False)
    return Outcome("HOLDS, ANOTHER", True)


def is_between(bundle: Bundle, true: set[Bundle]) -> bool:
    """Whether a true bundle shows this very absence of another id: two neighbours show it of every id between them, so
    that this is no lie, where nothing but the id was exchanged."""
    shown = [t for t in true if t.absence is not None and t.absence == bundle.absence]
    return any(
        replace(bundle, id=t.id, words=t.words) == t and bundle.words == t.words.replace(t.id.hex(), bundle.id.hex())
        for t in shown
    )


def changed(draw: random.Random, cases: Sequence[Case]) -> tuple[str, Case, bytes]:
    """A bundle, changed once to three times."""
    case, other = draw.choice(cases), draw.choice(cases)
    how = draw.choice(["bits", "blanks", *CHANGES, *CHANGES])
    if how in ("bits", "blanks"):
        return how, case, (bits if how == "bits" else blanks)(draw, case.data)
    said, others = json.loads(case.data), json.loads(other.data)
    for name in [how, *draw.sample(sorted(CHANGES), draw.choice([0, 0, 1, 2]))]:
        CHANGES[name](draw, said, others)
    return how, case, json.dumps(said, ensure_ascii=False).encode("utf-8", "surrogatepass")


def run(count: int, seed: int, cases: Sequence[Case]) -> tuple[Counter[tuple[str, str]], list[bytes]]:
    """How many of each change came to what, and the bundles that hold for another claim."""
    draw, counts, findings = random.Random(seed), Counter(), []
    true = {meaning(parse_bundle(case.data)) for case in cases}
    for _ in range(count):
        how, case, data = changed(draw, cases)
        outcome = judge(data, case, case.secret if draw.random() < 0.5 else None, true)
        counts[how, outcome.how] += 1
        if outcome.is_another:
            findings.append(data)
    return counts, findings


def main(arguments: list[str]) -> int:
    count, seed = [int(a) for a in (*arguments, *("100000", "1")[len(arguments) :])]
    with tempfile.TemporaryDirectory(prefix="fgtrac-fuzz-") as folder:
        cases = list(every_bundle(Path(folder)))
    counts, findings = run(count, seed, cases)
    outcomes = sorted({outcome for _how, outcome in counts})
    for how in sorted({how for how, _outcome in counts}):
        said = (f"{counts[how, outcome]:>7,} {outcome}" for outcome in outcomes if counts[how, outcome])
        print(f"{how:20} {'  '.join(said)}")
    total = Counter({o: sum(n for (_h, of), n in counts.items() if of == o) for o in outcomes})
    print(f"{count:,} changes of {len(cases)} true bundles, seed {seed}: " + ", ".join(
        f"{n:,} {outcome}" for outcome, n in total.most_common()))  # fmt: skip
    folder = Path(__file__).resolve().parent / "findings"
    for number, data in enumerate(findings):
        folder.mkdir(exist_ok=True)
        (folder / f"bundle-{number}.json").write_bytes(data)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
