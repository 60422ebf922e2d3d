"""Two verifiers that share no code say the same of every bundle, true or forged.

The second one stops at the first check that is refuted, and decides in `claim` what fgtrac calls `complete` and
`sources`: so where nothing is refuted they agree check by check.
"""

from __future__ import annotations

import ast
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from every_bundle import Case, every_bundle
from fgtrac.errors import FormatError
from fgtrac.events.codec import decode, encode
from fgtrac.events.schema import decode_event
from fgtrac.tlog.note import parse_vkey
from fgtrac.verify.bundle import Bundle, format_bundle, parse_bundle
from fgtrac.verify.claims import check_bundle
from fgtrac.verify.report import EXIT_CODES
from forged_bundles import KEYS, changed, resigned, sign

VERIFIER = Path(__file__).parents[2] / "verifier" / "check_bundle.py"
WRONG = bytes(range(32))
Said = tuple[str, dict[str, str]]  # the verdict, and that of each check


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    return list(every_bundle(tmp_path_factory.mktemp("bundles")))


def ours(case: Case, data: bytes, secret: bytes | None, *, is_named: bool = True) -> Said:
    """What fgtrac says."""
    try:
        report = check_bundle(parse_bundle(data), case.verifier if is_named else None, secret)
    except FormatError:
        return "malformed", {}
    return str(report.verdict), {f.check: str(f.verdict) for f in report.findings}


def theirs(other: ModuleType, case: Case, data: bytes, secret: bytes | None, *, is_named: bool = True) -> Said:
    """What the other verifier says."""
    try:
        key = case.verifier.public_key if is_named else None
        verdict, found = other.Examination(other.read_bundle(data), key, secret).report()
    except other.Fault:
        return "malformed", {}
    return verdict, {check: said for check, (said, _words) in found.items()}


def assert_same(said: Said, other_said: Said, what: object) -> None:
    """The same verdict, for the same reason."""
    (verdict, checks), (other_verdict, other_checks) = said, other_said
    assert other_verdict == verdict, (what, said, other_said)
    if verdict == "refuted":
        assert "refuted" in checks.values()
        assert list(other_checks.values()).count("refuted") == 1
    else:
        assert other_checks == {name: checks[name] for name in other_checks}, what
        assert checks.keys() - other_checks.keys() <= {"complete", "sources"}, what


def is_malformed(data: bytes) -> bool:
    """Whether an entry that the bundle shows is not as docs/spec/entries.md says."""
    bundle = parse_bundle(data)
    for entry in (bundle.seal, *(shown.entry for shown in bundle.entries)):
        try:
            decode_event(entry)
        except FormatError:
            return True
    return False


def test_they_agree_on_every_true_bundle_with_the_right_the_wrong_and_no_keys(
    other: ModuleType, cases: list[Case]
) -> None:
    seen: Counter[str] = Counter()
    checks: set[str] = set()
    for case in cases:
        for secret in {case.secret, None, WRONG}:
            for is_named in (True, False):
                said = ours(case, case.data, secret, is_named=is_named)
                assert_same(said, theirs(other, case, case.data, secret, is_named=is_named), case.name)
                seen[said[0]] += 1
                checks |= said[1].keys()
                assert is_named or said[0] != "holds"
    assert seen["holds"] > 400
    assert seen["cannot tell"] > 400
    assert seen["refuted"] > 5
    assert checks >= {"evidence", "children", "complete", "sources"}


def agree_on(
    other: ModuleType, cases: list[Case], forge: Callable[[Case, random.Random], bytes], count: int, seed: int
) -> tuple[Counter[str], Counter[str]]:
    """Forge so many bundles; how often each verdict was given, and which checks the second verifier refuted."""
    rng, verdicts, refuting = random.Random(seed), Counter[str](), Counter[str]()
    for number in range(count):
        case = rng.choice(cases)
        secret = rng.choice([case.secret, case.secret, None, WRONG])
        data = forge(case, rng)
        said, other_said = ours(case, data, secret), theirs(other, case, data, secret)
        refuting.update(check for check, verdict in other_said[1].items() if verdict == "refuted")
        if said[0] != other_said[0] and said[0] == "refuted" and is_malformed(data):
            verdicts["malformed where only fgtrac looks"] += 1
            continue
        assert_same(said, other_said, (seed, number, case.name))
        verdicts[said[0]] += 1
    return verdicts, refuting


def test_they_agree_on_bundles_changed_in_any_field_bit_or_part(other: ModuleType, cases: list[Case]) -> None:
    others = random.Random(0).sample(cases, 12)

    def forge(case: Case, rng: random.Random) -> bytes:
        return changed(case.data, [o.data for o in rng.sample(others, 3)], rng)

    verdicts, _findings = agree_on(other, cases, forge, 2500, 1)
    assert verdicts["malformed"] > 500
    assert verdicts["refuted"] > 250


def test_they_agree_on_what_the_holder_of_the_signing_key_makes_up(other: ModuleType, cases: list[Case]) -> None:
    """But for entries with something malformed in them that a verifier need not read (docs/spec/bundle.md)."""
    verdicts, refuting = agree_on(other, cases, lambda case, rng: resigned(parse_bundle(case.data), rng), 900, 2)
    assert verdicts["refuted"] > 250
    assert verdicts["holds"] > 250
    assert 0 < verdicts["malformed where only fgtrac looks"] < 120
    assert refuting.keys() == {"seal", "entries", "signature", "index", "identity", "evidence", "children", "claim"}


MUST_READ = {  # what docs/spec/bundle.md says that a verifier must look at
    "samples": ("dataset", "block", "part", "parts", "ids"),
    "roles": ("role", "block", "ordinals"),
    "use": ("block", "epoch", "step", "status", "attribution", "count", "ordinals"),
    "transform": ("block", "child_block", "parents", "children"),
    "seal": ("entries", "counts"),
}


def test_both_refute_an_entry_without_a_field_that_is_read(other: ModuleType, cases: list[Case]) -> None:
    done: set[tuple[str, str]] = set()
    for name in MUST_READ["seal"]:
        forged = without(parse_bundle(cases[0].data), None, name)
        assert theirs(other, cases[0], forged, None)[0] == ours(cases[0], forged, None)[0] == "refuted", name
        done.add(("seal", name))
    for case in cases:
        bundle = parse_bundle(case.data)
        is_whole = theirs(other, case, case.data, case.secret)[1].get("evidence") == "holds"
        for number, entry in ((e.number, e.entry) for e in bundle.entries if is_whole):
            kind = decode(entry)["kind"]
            for name in MUST_READ.get(kind, ()):
                if (kind, name) in done or name not in decode(entry) or (kind == "transform" and not bundle.children):
                    continue
                forged = without(bundle, number, name)
                assert ours(case, forged, case.secret)[0] == "refuted", (kind, name)
                assert theirs(other, case, forged, case.secret)[0] == "refuted", (kind, name)
                done.add((kind, name))
    assert done == {(kind, name) for kind, names in MUST_READ.items() for name in names}


def without(bundle: Bundle, number: int | None, name: str) -> bytes:
    """The bundle in a log made anew, in which an entry (None: the seal) lacks a field."""
    events: dict[int | None, Any] = {e.number: decode(e.entry) for e in bundle.entries} | {None: decode(bundle.seal)}
    del events[number][name]
    seal = events.pop(None)
    return format_bundle(sign(bundle, {n: encode(e) for n, e in events.items() if n is not None}, seal, KEYS[0], False))


def run(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """The file as a stranger runs it: no package, no environment."""
    command = [sys.executable, "-I", "-c", BARE, str(VERIFIER), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


BARE = """
import sys, runpy
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("fgtrac", "numpy", "typer", "rich"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_as_a_command_it_ends_with_the_documented_codes(cases: list[Case], tmp_path: Path) -> None:
    used = next(case for case in cases if "row 3, None" in case.name)
    absent = next(case for case in cases if "keyed" in case.name and "no row" in case.name)
    for case, key, more, code in (
        (used, used.verifier.public_key.hex(), (), 0),
        (used, WRONG.hex(), (), 1),
        (absent, absent.verifier.public_key.hex(), (), 3),
        (absent, absent.verifier.public_key.hex(), ("--id-key", absent.secret.hex() if absent.secret else ""), 0),
        (used, "no key", (), 2),
    ):
        (tmp_path / "bundle.json").write_bytes(case.data)
        done = run("bundle.json", "--key", key, *more, folder=tmp_path)
        assert done.returncode == code, done
        if code == 2:
            assert (done.stdout, done.stderr.count("\n")) == ("", 1)
        else:
            last = done.stdout.splitlines()[-1]
            assert last[11:24].strip() == next(str(verdict) for verdict, at in EXIT_CODES.items() if at == code)
            assert code == 1 or last.startswith("claim")
    (tmp_path / "bundle.json").write_text("{}")
    assert run("bundle.json", "--key", WRONG.hex(), folder=tmp_path).returncode == 2
    assert run("nowhere.json", "--key", WRONG.hex(), folder=tmp_path).returncode == 2


def test_it_shares_no_code_with_the_package() -> None:
    tree = ast.parse(VERIFIER.read_text())
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add((node.module or "").partition(".")[0])
        assert not (isinstance(node, ast.Name) and node.id in ("__import__", "exec", "eval", "compile"))
    assert names - sys.stdlib_module_names == {"cryptography"}
    assert names.isdisjoint({"importlib", "runpy", "pickle", "ctypes", "subprocess", "socket"})
    assert len(VERIFIER.read_text().splitlines()) < 500  # it is to be read in an hour


def test_the_worked_example_of_the_page_holds(other: ModuleType) -> None:
    pages = VERIFIER.parents[1] / "docs" / "spec"
    bundle = (pages / "bundle.md").read_text().partition("```json bundle\n")[2].partition("\n```")[0]
    vkey = (pages / "log.md").read_text().partition("```text vkey\n")[2].partition("\n```")[0]
    key = parse_vkey(vkey).public_key
    verdict, found = other.Examination(other.read_bundle(bundle.encode()), key).report()
    assert (verdict, set(found) >= {"evidence", "identity"}) == ("holds", True)
