"""The verifier of the HTML page says of every bundle, true or forged, what fgtrac says, check by check.

It looks at all of every entry, as fgtrac does; the second verifier need not, so that it may take what they refuse.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import resource
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

import mutated_bundles
from bundles_by_hand import Vector, anew, by_hand
from every_bundle import Case, every_bundle, of_an_uncertain_batch
from fgtrac.api import naming
from fgtrac.errors import FormatError
from fgtrac.events.identity import content_preimage, preimage
from fgtrac.events.schema import KINDS, REQUIRED, decode_event
from fgtrac.tlog.note import Verifier, format_vkey
from fgtrac.verify.bundle import format_bundle, parse_bundle
from fgtrac.verify.claims import About, check_bundle
from fgtrac.web.proof_page import verifier_source
from forged_bundles import changed, resigned
from odd_bundles import odd
from page_verifier import NO_NODE, PageVerifier, Said, asked, has_node

pytestmark = pytest.mark.skipif(not has_node(), reason=NO_NODE)
WRONG = bytes(range(32))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    folder = tmp_path_factory.mktemp("bundles")
    return [*every_bundle(folder), *of_an_uncertain_batch(folder / "unsure")]


def ours(data: bytes, verifier: Verifier | None, secret: bytes | None = None, about: About | None = None) -> Said:
    """What fgtrac says."""
    try:
        report = check_bundle(parse_bundle(data), verifier, secret, about)
    except FormatError:
        return "malformed", {}
    return str(report.verdict), {f.check: str(f.verdict) for f in report.findings}


def theirs(other: ModuleType, data: bytes, verifier: Verifier, secret: bytes | None) -> str:
    """The verdict of the second verifier."""
    try:
        return str(other.Examination(other.read_bundle(data), verifier.public_key, secret).report()[0])
    except other.Fault:
        return "malformed"


def is_malformed(data: bytes) -> bool:
    """Whether an entry that the bundle shows is not as docs/spec/entries.md says."""
    bundle = parse_bundle(data)
    try:
        for entry in (bundle.seal, *(shown.entry for shown in bundle.entries)):
            decode_event(entry)
    except FormatError:
        return True
    return False


def test_they_agree_on_every_true_bundle_with_the_right_the_wrong_and_no_keys(
    page: PageVerifier, cases: list[Case]
) -> None:
    seen: Counter[str] = Counter()
    for case in cases:
        for secret, verifier in ((case.secret, case.verifier), (WRONG, case.verifier), (case.secret, None)):
            said = ours(case.data, verifier, secret)
            assert page.said(case.data, verifier, secret) == said, case.name
            seen[said[0]] += 1
    assert seen["holds"] > 300
    assert seen["cannot tell"] > 300
    assert seen["refuted"] > 5


FORGE: dict[str, Callable[[list[Case], random.Random], tuple[Case, bytes]]] = {}


def forging(make: Callable[[list[Case], random.Random], tuple[Case, bytes]]) -> None:
    FORGE[make.__name__] = make


@forging
def changed_in_any_field_bit_or_part(cases: list[Case], rng: random.Random) -> tuple[Case, bytes]:
    case = rng.choice(cases)
    return case, changed(case.data, [other.data for other in rng.sample(cases, 3)], rng)


@forging
def made_up_by_the_holder_of_the_key(cases: list[Case], rng: random.Random) -> tuple[Case, bytes]:
    case = rng.choice(cases)
    return case, resigned(parse_bundle(case.data), rng)


@forging
def mutated_within_its_form(cases: list[Case], rng: random.Random) -> tuple[Case, bytes]:
    _how, case, data = mutated_bundles.changed(rng, cases)
    return case, data


@pytest.mark.parametrize("how", FORGE)
def test_all_three_agree_on_bundles(how: str, page: PageVerifier, other: ModuleType, cases: list[Case]) -> None:
    rng, seen = random.Random(how), Counter[str]()
    for number in range(450):
        case, data = FORGE[how](cases, rng)
        secret = rng.choice([case.secret, case.secret, None, WRONG])
        said = ours(data, case.verifier, secret)
        assert page.said(data, case.verifier, secret) == said, (how, number, case.name)
        second = theirs(other, data, case.verifier, secret)
        assert second == said[0] or (said[0] == "refuted" and is_malformed(data)), (how, number, case.name)
        seen[said[0]] += 1
    assert sum(seen.values()) - seen["holds"] > 150
    assert len(seen) > 2


def test_all_three_agree_on_bundles_made_by_hand_and_on_whom_they_are_about(
    page: PageVerifier, other: ModuleType, cases: list[Case]
) -> None:
    for number, vector in enumerate([*by_hand(cases), *odd(cases)]):
        if vector.about is not None and vector.about.source not in (None, "file"):
            continue  # the page computes digests of files only
        expected = ours(vector.data, vector.verifier, vector.secret, vector.about)
        assert page.said(vector.data, vector.verifier, vector.secret, asked(vector.about)) == expected, number
        if vector.about is None and vector.verifier is not None and is_own(vector):
            second = theirs(other, vector.data, vector.verifier, vector.secret)
            assert second == expected[0], number


def is_own(vector: Vector) -> bool:
    """Whether the key is named for the log itself: the second verifier takes keys without a name."""
    assert vector.verifier is not None
    return vector.verifier.name.encode() in vector.data


@pytest.mark.parametrize("key", [0, 23, 24, 255, 256, 65_536, 2**32, 2**64 - 1, "seven", "é\u2028", ["a", [1, "b"]]])
def test_it_makes_the_preimage_of_a_name_as_fgtrac_does(page: PageVerifier, cases: list[Case], key: object) -> None:
    true = next(case for case in cases if parse_bundle(case.data).claim == "never registered" and not case.secret)
    frozen = json.loads(json.dumps(key), object_hook=dict)
    frozen = (frozen[0], tuple(frozen[1])) if isinstance(frozen, list) else frozen
    said = preimage("a:b é", frozen)
    bundle = parse_bundle(true.data)
    value = hashlib.sha256(said).digest()
    data = anew(replace(bundle, preimage=said, id=value))
    about = {"name": f"a:b é:key:{json.dumps(key)}"}
    expected = ours(data, true.verifier, None, About("it", preimage=said))
    assert expected[1]["about"] == "holds"
    assert page.said(data, true.verifier, None, about) == expected
    assert page.said(data, true.verifier, None, {"name": "a:b é:key:6"})[1]["about"] == "refuted"


NAMES = [
    "digits:0", " digits:0", "\ufeffdigits:0", "digits:0 ", "digits: 0", "digits :0", "digits:007", "digits:-1", "d:+1",
    "digits:9999999999999999999", "digits:18446744073709551615", "digits:\u0663", "digits:1_0", "digits", ":0", "", " ",
    "id:" + "AB" * 32, "id: " + "ab" * 32, "id:" + "ab" * 31, "Id:" + "ab" * 32, "key:5", "row:0", "row:a:0", "array:0",
    "d:key:1", "d:key:  5 ", "d:key:-0", "d:key:-1", "d:key:01", "d:key:1.0", "d:key:1.", "d:key:1e2", "d:key:NaN",
    "d:key:18446744073709551615", "d:key:18446744073709551616", "d:key:" + "9" * 30, "d:key:true", "d:key:null",
    "d:key:", 'd:key:"x"', 'd:key:"a\tb"', 'd:key:"\\ud800"', 'd:key:"\\ud83d\\ude00"', 'd:key:"\\u00e9"', "d:key:'x'",
    'd:key:{"hex":"00FF"}', 'd:key:{"hex":" 00 \\tff\\u000b"}', 'd:key:{"hex":"0 0"}', 'd:key:{"hex":""}', "d:key:{}",
    'd:key:{"hex":"00","hex":"01"}', 'd:key:{"hex":5}', 'd:key:{"hex":"00","a":1}', 'd:key:{"hex":"\\u00a000"}',
    "d:key:[]", 'd:key:[1,[2,"a"]]', "d:key:[1,]", 'a:key:b:key:"x"', 'a:key:"b:key:c"', ":key:0", "e\u0301:0",
    *(f"d:key:{'[' * n}1{']' * n}" for n in (14, 15, 16, 17, 5000)),
    *(f'd:key:{"[" * n}{{"hex":"00"}}{"]" * n}' for n in (15, 16)),
    "d:key:[" + ",".join(["7"] * 150_000) + "]",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_it_reads_names_as_fgtrac_does(page: PageVerifier, name: str) -> None:
    try:
        said = naming.about(name)
    except (ValueError, FileNotFoundError):
        assert page.parsed(name) is None
        return
    assert page.parsed(name) == (said.id, said.preimage)


def test_a_name_with_a_blank_is_another_name(page: PageVerifier, cases: list[Case]) -> None:
    case = next(c for c in cases if c.name.startswith("public-4") and parse_bundle(c.data).preimage)
    (name,) = asked(About("it", preimage=parse_bundle(case.data).preimage)).values()  # type: ignore[union-attr]
    for typed in (name, f" {name}", f"\ufeff{name}"):
        expected = ours(case.data, case.verifier, case.secret, naming.about(typed))
        assert expected[1]["about"] == ("holds" if typed == name else "refuted")
        assert page.said(case.data, case.verifier, case.secret, {"name": typed}) == expected


def test_a_file_is_asked_about_by_its_digest(page: PageVerifier, cases: list[Case]) -> None:
    for case in (
        c for c in cases if parse_bundle(c.data).claim.startswith("content") and parse_bundle(c.data).preimage
    ):
        for source in (b"0", b"3"):
            digest = hashlib.sha256(source).digest()
            about = About("it", preimage=content_preimage(digest), source="file")
            expected = ours(case.data, case.verifier, case.secret, about)
            assert page.said(case.data, case.verifier, case.secret, {"file": digest.hex()}) == expected


NO_JSON = [
    "", " ", "{", "[]", "7", "null", '"a"', "{}", "{}x", '{"a":1,"a":2}', "\ufeff{}", '{"claim":"used"}', "[" * 9000,
    '{"a":' * 9000, '{"a":01}', '{"a":1.0}', '{"a":1e3}', '{"a":-1}', '{"a":NaN}', '{"a":true}', "{'a':1}", '{"a" 1}',
    '{"a":1,}', "[1,]", "[,1]", '{"a":"\t"}', '{"a":"\\x"}', '{"a":"\\u12"}', '{"a":"', '"\\', "]", "}", ":", ",", "{]",
    "[}", "[1 2]", "\x00", "/**/{}",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_JSON)
def test_what_is_no_strict_json_is_malformed(page: PageVerifier, cases: list[Case], text: str) -> None:
    assert page.said(text.encode(), None) == ours(text.encode(), None) == ("malformed", {})


def test_the_same_json_in_another_spelling_is_the_same_bundle(page: PageVerifier, cases: list[Case]) -> None:
    case = next(c for c in cases if '\\"digits' in c.data.decode())
    said = json.loads(case.data)
    backwards = dict(reversed(said.items()))
    for data in (json.dumps(said), json.dumps(backwards, indent=3), "\r\n\t " + json.dumps(said) + " "):
        assert page.said(data.encode(), case.verifier) == ours(case.data, case.verifier)
    for words in ("\ud800", said["words"] + "\udc00"):  # half a character is text like any other
        lone = json.dumps(said | {"words": words}).encode()
        assert page.said(lone, case.verifier) == ours(lone, case.verifier)
    assert ours(lone, case.verifier)[0] == "refuted"


def test_limits_are_counted_in_characters_and_bytes(page: PageVerifier, cases: list[Case]) -> None:
    case = cases[0]
    said = json.loads(case.data)
    for words in ("\U0001f600" * 2**20, "\U0001f600" * 2**20 + "x", "x" * 2**20, "x" * (2**20 + 1)):
        data = json.dumps(said | {"words": words}, ensure_ascii=False).encode()
        expected = ours(data, case.verifier)
        assert expected[0] == ("refuted" if len(words) <= 2**20 else "malformed")
        assert page.said(data, case.verifier) == expected
    for size in (65_535, 65_536):
        data = json.dumps(said | {"id": said["id"] | {"preimage": "00" * size}}).encode()
        assert page.said(data, case.verifier)[0] == ours(data, case.verifier)[0]


@pytest.mark.parametrize("kind", ["constructor", "toString", "__proto__", "valueOf", [], [5], {}])
def test_a_kind_of_rows_is_a_number(page: PageVerifier, cases: list[Case], kind: object) -> None:
    case = next(c for c in cases if parse_bundle(c.data).claim == "used")
    said = json.loads(case.data)
    said["rows"][0][0] = kind
    data = json.dumps(said).encode()
    assert page.said(data, case.verifier) == ours(data, case.verifier) == ("malformed", {})


TIMED = """
const page = new Function(`${require("node:fs").readFileSync("verifier.js")}; return { checkBundle }`)();
const bytes = require("node:fs").readFileSync("large.json");
page.checkBundle(bytes).catch((error) => console.log(error.constructor.name));
"""


def test_a_text_over_its_limit_is_refused_before_it_is_worked_on(cases: list[Case], tmp_path: Path) -> None:
    (tmp_path / "verifier.js").write_text(verifier_source(), encoding="utf-8")
    said = json.loads(cases[0].data) | {"words": "@"}
    data = json.dumps(said).replace('"@"', '"' + "\U0001f600" * 16_000_000 + '"').encode()
    assert len(data) < 1 << 26
    (tmp_path / "large.json").write_bytes(data)
    command = ["node", "--no-warnings", "--max-old-space-size=250", "-e", TIMED]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Malformed"
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 1.5


def test_where_it_computes_another_sha_256_nothing_is_checked(tmp_path: Path) -> None:
    (tmp_path / "verifier.js").write_text(verifier_source(), encoding="utf-8")
    script = (
        "const source = require('node:fs').readFileSync('verifier.js');"
        "const page = new Function(`${source}; return { whyNothingIsChecked }`)();"
        "const true_one = crypto.subtle.digest.bind(crypto.subtle);"
        "const tell = async () => console.log(await page.whyNothingIsChecked());"
        "tell().then(() => { crypto.subtle.digest = async (how, data) => "
        "data.length === 119 ? new ArrayBuffer(32) : true_one(how, data); }).then(tell);"
    )
    command = ["node", "--no-warnings", "-e", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "\nthis page computes another SHA-256 than this browser\n"


@pytest.mark.parametrize(
    "space", ["\x1c", "\x7f", "\x85", "\xa0", "\u180e", "\u2028", "\u3000", "\ufeff", "+", "\U0001f600"]
)
def test_key_names_in_notes_have_no_white_space_of_unicodes(page: PageVerifier, cases: list[Case], space: str) -> None:
    said = json.loads(cases[0].data)
    said["seal"]["proof"] += f"— a{space}b {'AAAA' * 17}\n"
    data = json.dumps(said).encode()
    assert page.said(data, cases[0].verifier) == ours(data, cases[0].verifier)


def test_keys_are_named_by_hex_or_vkey_and_nothing_else(page: PageVerifier, cases: list[Case]) -> None:
    case = next(c for c in cases if ours(c.data, c.verifier, c.secret)[0] == "holds")
    key, vkey = case.verifier.public_key.hex(), format_vkey(case.verifier)
    for right in (key, key.upper(), f" {key}\n", vkey):
        assert page.said(case.data, right, case.secret)[0] == "holds"
    for wrong in (key[:-1], key + "0", vkey[:-1], vkey.replace("+", "-"), vkey.replace("fgtrac", "fgtrad"), "yes"):
        assert page.said(case.data, wrong, case.secret)[0] == "malformed"


def test_it_knows_the_kinds_and_fields_of_entries_that_fgtrac_knows() -> None:
    source = verifier_source()
    table = source[source.index("const KINDS = {") : source.index("const FIELDS")]
    said = {}
    for kind, text in re.findall(r"^  (\w+):\s((?:.|\n)*?),\n(?=  \w+:|};)", table, re.MULTILINE):
        said[kind] = re.findall(r"(\w+)(\??):", re.sub(r"[\"`+\n]", "", text))
    assert said.keys() == KINDS.keys()
    always = {"kind", "time", "writer", "seq"}
    for kind, fields in said.items():
        assert {name for name, _ in fields} | always == KINDS[kind].keys(), kind
        assert {name for name, mark in fields if not mark} | always == REQUIRED[kind], kind


def test_the_worked_example_holds(page: PageVerifier) -> None:
    pages = Path(__file__).parents[2] / "docs" / "spec"
    bundle = (pages / "bundle.md").read_text().partition("```json bundle\n")[2].partition("\n```")[0]
    vkey = (pages / "log.md").read_text().partition("```text vkey\n")[2].partition("\n```")[0]
    assert page.said(bundle.encode(), vkey)[0] == "holds"


def test_bundles_as_they_are_written_are_read_back(page: PageVerifier, cases: list[Case]) -> None:
    for case in cases[:40]:
        assert format_bundle(parse_bundle(case.data)) == case.data
        told = page.ask(case.data, case.verifier, case.secret)
        bundle = parse_bundle(case.data)
        assert (told["claim"], told["words"], told["id"]) == (bundle.claim, bundle.words, bundle.id.hex())
