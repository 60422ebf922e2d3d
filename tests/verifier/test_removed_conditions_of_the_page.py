"""No condition of the page's verifier that ends a check by itself (`need`, `form`, `throw`) is idle: whichever one is
removed, some bundle is then told better than it is. Those inside expressions have bundles of their own, in odd_bundles.

As tests/attacks/test_removed_conditions.py does of fgtrac: bundles that a condition stops are examined again without
it, and one must get a better verdict, or none at all, as the verifier stumbles over what the condition kept from it;
or the condition is listed in FIRST.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bundles_by_hand import Vector, by_hand
from every_bundle import Case, every_bundle, of_an_uncertain_batch
from fgtrac.verify.bundle import parse_bundle
from forged_bundles import changed, resigned
from odd_bundles import odd
from page_verifier import NO_NODE, PageVerifier, asked, has_node, running

pytestmark = pytest.mark.skipif(not has_node(), reason=NO_NODE)
ORDER = ["malformed", "refuted", "cannot tell", "holds", "crashed"]
SHOWN = " What it shows is: "
FIRST = {  # words of conditions without which no bundle here is told better
    "this browser knows no Ed25519": "it takes another browser",
    "over ${values} values": "such a bundle is too large for a quick test",
    "more than ${MAX_BYTES} bytes": "such a bundle is too large for a quick test",
    "more than ${MAX_ROWS} rows": "more rows are more values than a bundle may have",
    "nested more than ${depth} deep": "no field is nested deeper, so the form of its field refuses it",
    "a text in JSON that does not end": "it ends where JSON may not, so that the next condition refuses it",
    "no JSON text: ": "what is then no text is refused by the form of its field",
    "CBOR ends in the middle": "what is read then ends behind the bytes, which is refused next",
    "an indefinite length or a reserved head": "such a head has no shortest form, which is refused next",
    "not checked, since the check of ${missing.check}": "what does not hold decides; this keeps checks honest",
    "not checked, since the check of ${other.check}": "what does not hold decides; this keeps the claim's line honest",
    "two samples have one ordinal": "one of the two is then reached by no entry",
}
RANDOM = 1200
TRIED = 8  # vectors that are examined again for each condition


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageVerifier]:
    with running(tmp_path_factory.mktemp("watched"), "--watched") as verifier:
        yield verifier


def vectors(cases: Sequence[Case]) -> Iterator[Vector]:
    yield from odd(cases)
    yield from (vector for vector in by_hand(cases) if vector.about is None or vector.about.source in (None, "file"))
    yield from (Vector(case.data, None) for case in cases[:4])
    rng = random.Random(12)
    for number in range(RANDOM):
        case = rng.choice(cases)
        if number % 2:
            data = resigned(parse_bundle(case.data), rng)
        else:
            data = changed(case.data, [other.data for other in rng.sample(cases, 3)], rng)
        yield Vector(data, case.verifier, case.secret)


def test_a_bundle_is_told_better_than_it_is_once_a_condition_is_removed(watched: PageVerifier, tmp_path: Path) -> None:
    cases = [*every_bundle(tmp_path), *of_an_uncertain_batch(tmp_path / "unsure")]
    stopped: dict[int, list[tuple[int, int, Vector, str]]] = defaultdict(list)
    for number, vector in enumerate(vectors(cases)):
        answer = ask(watched, vector)
        assert answer["verdict"] != "crashed", answer["words"]
        failures = sum(f["verdict"] != "holds" for f in answer["findings"])
        for site in answer["hit"]:
            stopped[site].append((failures, number, vector, answer["verdict"]))
    wrong = []
    for site, words in enumerate(watched.sites):
        tried = sorted(stopped[site], key=lambda one: one[:2])[:TRIED]
        is_needed = any(is_better(watched, vector, before, site) for _, _, vector, before in tried)
        reasons = [reason for said, reason in FIRST.items() if said in words.partition(");")[0]]
        if is_needed == bool(reasons):
            wrong.append(f"{len(tried)} bundles are stopped by it: {words}; listed: {reasons}")
    assert not wrong
    assert len(watched.sites) > 100


def ask(watched: PageVerifier, vector: Vector, without: int = -1) -> dict[str, Any]:
    return watched.ask(vector.data, vector.verifier, vector.secret, asked(vector.about), without)


def is_better(watched: PageVerifier, vector: Vector, before: str, site: int) -> bool:
    """Whether the liar, who may also write the words that follow now, is told better without the condition."""
    told = ask(watched, vector, site)
    claim = next((f for f in told["findings"] if (f["check"], f["verdict"]) == ("claim", "refuted")), None)
    if claim is not None and SHOWN in claim["words"]:
        said = json.loads(vector.data) | {"words": claim["words"].partition(SHOWN)[2]}
        reworded = Vector(json.dumps(said).encode(), vector.verifier, vector.secret, vector.about)
        told = max(told, ask(watched, reworded, site), key=lambda one: ORDER.index(one["verdict"]))
    return ORDER.index(told["verdict"]) > ORDER.index(before)
