"""Two verifiers that share no code say the same of every bundle, true or forged, check by check."""

from __future__ import annotations

import ast
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from every_bundle import Case, every_bundle
from fgtrac.errors import FormatError
from fgtrac.verify.bundle import parse_bundle
from fgtrac.verify.claims import check_bundle
from fgtrac.verify.report import EXIT_CODES
from forged_bundles import changed, resigned

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
        verdict, found = other.Examination(other.read_bundle(data), case.vkey if is_named else None, secret).report()
    except other.Fault:
        return "malformed", {}
    return verdict, {check: said for check, (said, _words) in found.items()}


def test_they_agree_on_every_true_bundle_with_the_right_the_wrong_and_no_keys(
    other: ModuleType, cases: list[Case]
) -> None:
    seen: Counter[str] = Counter()
    checks: set[str] = set()
    for case in cases:
        for secret in {case.secret, None, WRONG}:
            for is_named in (True, False):
                said = ours(case, case.data, secret, is_named=is_named)
                assert theirs(other, case, case.data, secret, is_named=is_named) == said, case.name
                seen[said[0]] += 1
                checks |= said[1].keys()
                assert is_named or said[0] != "holds"
    assert seen["holds"] > 400
    assert seen["cannot tell"] > 400
    assert seen["refuted"] > 5
    assert checks == set(other.CHECKS) - {"about"}


def agree_on(
    other: ModuleType, cases: list[Case], forge: Callable[[Case, random.Random], bytes], count: int, seed: int
) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Forge so many bundles; how often each verdict was given, in all and by which check."""
    rng, verdicts, findings = random.Random(seed), Counter[str](), Counter[tuple[str, str]]()
    for number in range(count):
        case = rng.choice(cases)
        secret = rng.choice([case.secret, case.secret, None, WRONG])
        data = forge(case, rng)
        said = ours(case, data, secret)
        assert theirs(other, case, data, secret) == said, (seed, number, case.name)
        verdicts[said[0]] += 1
        findings.update(said[1].items())
    return verdicts, findings


def test_they_agree_on_bundles_changed_in_any_field_bit_or_part(other: ModuleType, cases: list[Case]) -> None:
    others = random.Random(0).sample(cases, 12)

    def forge(case: Case, rng: random.Random) -> bytes:
        return changed(case.data, [o.data for o in rng.sample(others, 3)], rng)

    verdicts, _findings = agree_on(other, cases, forge, 2500, 1)
    assert verdicts["malformed"] > 500
    assert verdicts["refuted"] > 250


def test_they_agree_on_what_the_holder_of_the_signing_key_makes_up(other: ModuleType, cases: list[Case]) -> None:
    verdicts, findings = agree_on(other, cases, lambda case, rng: resigned(parse_bundle(case.data), rng), 900, 2)
    assert verdicts["refuted"] > 250
    assert verdicts["holds"] > 250
    refuting = {check for check, verdict in findings if verdict == "refuted"}
    assert refuting == {"seal", "entries", "signature", "index", "identity", "evidence", "children", "claim"}


@pytest.mark.parametrize("about", ["digits:0", "digits:3", "letters:3", "digits:key", "id:00", "file:{file}", "plain"])
def test_they_agree_on_whom_a_bundle_is_about(other: ModuleType, cases: list[Case], tmp_path: Path, about: str) -> None:
    from fgtrac.api import naming

    (tmp_path / "source").write_bytes(b"1")
    about = about.format(file=tmp_path / "source")
    for case in cases[::3]:
        try:
            asked = naming.about(about)
        except ValueError:
            with pytest.raises(other.Fault):
                other.read_about(about)
            continue
        report = check_bundle(parse_bundle(case.data), case.verifier, case.secret, asked)
        bundle = other.read_bundle(case.data)
        _verdict, found = other.Examination(bundle, case.vkey, case.secret, about).report()
        assert {c: v for c, (v, _w) in found.items()} == {f.check: str(f.verdict) for f in report.findings}, case.name
        for id in (bundle["id"]["value"], bytes(32)):
            named, holds = f"id:{id.hex()}", id == bundle["id"]["value"]
            said = other.Examination(bundle, case.vkey, case.secret, named).report()[1]["about"][0]
            assert said == ("holds" if holds else "refuted")


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
        (used, used.vkey, (), 0),
        (used, used.verifier.public_key.hex(), ("--about", "digits:3"), 0),
        (used, used.vkey, ("--about", "digits:4"), 1),
        (used, WRONG.hex(), (), 1),
        (absent, absent.vkey, (), 3),
        (absent, absent.vkey, ("--id-key", absent.secret.hex() if absent.secret else ""), 0),
        (used, "no key", (), 2),
    ):
        (tmp_path / "bundle.json").write_bytes(case.data)
        done = run("bundle.json", "--key", key, "--json", *more, folder=tmp_path)
        assert done.returncode == code, done
        if code == 2:
            assert (done.stdout, done.stderr.count("\n")) == ("", 1)
        else:
            assert EXIT_CODES[json.loads(done.stdout)["verdict"]] == code
    words = run("bundle.json", "--key", used.vkey, folder=tmp_path)
    assert [line.split()[0] for line in words.stdout.splitlines()][-1] == "claim"
    (tmp_path / "bundle.json").write_text("{}")
    assert run("bundle.json", "--key", used.vkey, folder=tmp_path).returncode == 2
    assert run("nowhere.json", "--key", used.vkey, folder=tmp_path).returncode == 2


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
    assert len(VERIFIER.read_text().splitlines()) <= 720  # it is to be read in an hour


def test_the_worked_example_of_the_page_holds(other: ModuleType) -> None:
    pages = VERIFIER.parents[1] / "docs" / "spec"
    bundle = (pages / "bundle.md").read_text().partition("```json bundle\n")[2].partition("\n```")[0]
    vkey = (pages / "log.md").read_text().partition("```text vkey\n")[2].partition("\n```")[0]
    verdict, found = other.Examination(other.read_bundle(bundle.encode()), vkey).report()
    assert (verdict, set(found) >= {"evidence", "identity"}) == ("holds", True)
