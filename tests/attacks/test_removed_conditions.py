"""No condition in the checks of a bundle is idle: whichever one is removed, a bundle is then told better than it is.

Each `raise ProofError` and `raise CannotTell` of the modules below becomes `pass` in turn, and bundles that it stopped
are examined again: changed ones, ones that a signer made anew, and some made by hand. One must get a better verdict, or
none at all, as the examination stumbles over what the condition kept from it; or the condition is listed in FIRST.
"""

from __future__ import annotations

import ast
import inspect
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

from bundles_by_hand import Vector, by_hand
from every_bundle import Case, every_bundle, of_an_uncertain_batch
from fgtrac.errors import FgtracError, FormatError
from fgtrac.verify import children, claims, evidence, keys, needs, sentences
from fgtrac.verify.bundle import format_bundle, parse_bundle
from fgtrac.verify.checks import CannotTell, Checks
from fgtrac.verify.claims import check_bundle
from fgtrac.verify.report import Verdict
from forged_bundles import changed, resigned, words_of

MODULES = (claims, children, evidence, needs, sentences, keys)
FIRST = {  # conditions behind which another one stands: no bundle is told better without them
    "claims.py: each subject has its own id key": "no `run` entry is shown where no ids are keyed, so no id key fits",
    "claims.py: not checked, since the check of": "what does not hold decides; this keeps the claim's own line honest",
    "children.py: {member.hex()} and {who[place].hex()} are both": "one of the two is then reached by no entry",
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
    unsure = of_an_uncertain_batch(tmp_path_factory.mktemp("bundles"))
    true = [Vector(case.data, case.verifier, case.secret) for case in unsure]
    for number, vector in enumerate([*by_hand(cases), *at_random(cases), *true]):
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
