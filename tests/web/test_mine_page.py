"""The page that answers whether somebody's data was used: by file, by name, with receipts, and nothing uploaded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from urllib.parse import urlencode

import pytest

from asgi import App, Response, ask
from fgtrac.api.trace import open_trace
from fgtrac.commit.keys import load_key
from fgtrac.demo.forge import all_entries, reseal, without_a_use
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.bundle import parse_bundle
from fgtrac.web.checking import Standing
from fgtrac.web.explorer import explorer_app
from fgtrac.web.names import written_out
from people_trace import SOURCE, digest_of, record_people

SCHEMES = ("public", "keyed", "subject")


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, App]:
    """A trace under each scheme, with its vault and without."""
    made: dict[str, App] = {}
    for scheme in SCHEMES:
        for vault in (True, False):
            folder = tmp_path_factory.mktemp(scheme)
            path = record_people(folder, scheme)
            if not vault:
                path.with_suffix(".vault").unlink()
            made[f"{scheme} {vault}"] = explorer_app(folder, key=str(folder / "key.pem"))
    return made


def asked(app: App, **query: object) -> Response:
    return ask(app, f"/run/run/mine?{urlencode(query)}")


def of_row(app: App, row: int, **more: object) -> Response:
    return asked(app, sha256=digest_of(row).hex(), source=SOURCE, **more)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_file_is_held_against_bytes_that_the_program_gave_where_it_is_said_to_be_such(
    tmp_path: Path, scheme: str
) -> None:
    path = record_people(tmp_path, scheme, source=lambda row: b"scan %d" % row)
    app = explorer_app(path.parent, key=str(tmp_path / "key.pem"))
    used, held_out, nobody = (hashlib.sha256(b"scan %d" % row).hexdigest() for row in (0, 7, 99))
    as_files = [json.loads(asked(app, sha256=one, format="json").text) for one in (used, held_out, nobody)]
    assert [one["answer"] for one in as_files] == ["used", "cannot tell", "cannot tell"]
    assert "that yours is not among them says nothing" in as_files[2]["reasons"][0]
    said = [json.loads(asked(app, sha256=one, source="source", format="json").text) for one in (used, held_out, nobody)]
    assert [one["answer"] for one in said] == ["used", "not used", "not used"]
    assert all(any("is what you say" in note for note in one["notes"]) for one in said)
    link = f'href="/run/run/mine?sha256={nobody}&amp;source=source"'
    assert link in asked(app, sha256=nobody).text
    assert link not in asked(app, sha256=nobody, source="source").text


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_digest_has_the_three_answers(apps: dict[str, App], scheme: str) -> None:
    app = apps[f"{scheme} True"]
    said = [json.loads(of_row(app, row, format="json").text) for row in (0, 7, 99)]
    assert [one["answer"] for one in said] == ["used", "not used", "not used"]
    assert "Yes: it was used in training." in of_row(app, 0).text
    assert "No: it is in the record, and no training update used it." in of_row(app, 7).text
    assert "No: no sample of this record, which is whole, was registered with this content." in of_row(app, 99).text
    assert said[0]["lives"][0]["kept"] == [2, 4]
    wrong = asked(app, sha256=digest_of(99).hex())  # of a file, as it says without a source
    assert "That cannot be told from this record." in wrong.text
    assert "cannot be compared" in wrong.text


@pytest.mark.parametrize("scheme", ["keyed", "subject"])
def test_without_the_key_nothing_is_told(apps: dict[str, App], scheme: str) -> None:
    for row in (0, 7, 99):
        said = json.loads(of_row(apps[f"{scheme} False"], row, format="json").text)
        assert (said["answer"], said["receipts"], bool(said["reasons"])) == ("cannot tell", [], True)


def test_an_answer_whose_signature_was_not_checked_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "none.pem"))
    record_people(tmp_path, "public")
    app = explorer_app(tmp_path)
    for row in (0, 7, 99):
        assert "As this log says, whose signature was not checked: " in of_row(app, row).text
    assert json.loads(of_row(app, 0, format="json").text)["signature"]["verdict"] == "cannot tell"


def test_a_receipt_is_a_small_bundle(apps: dict[str, App]) -> None:
    app = apps["keyed True"]
    for number, claim in enumerate(("content present", "used")):
        got = of_row(app, 0, receipt=number)
        assert got.headers["content-disposition"] == f'attachment; filename="receipt-{claim.replace(" ", "-")}.json"'
        assert len(got.body) <= 20_000
        assert parse_bundle(got.body).claim == claim
    assert of_row(app, 0, receipt=2).status == 404
    assert of_row(app, 0, receipt="x").status == 400
    assert of_row(app, 0).text.count("receipt=") == 2


def test_the_form_says_what_can_be_compared_and_sends_no_file(apps: dict[str, App]) -> None:
    text = asked(apps["public True"]).text
    assert SOURCE in text
    form = text.partition('id="mine-file"')[2].partition("</form>")[0]
    assert "method" not in form
    assert "name=" not in form  # a file input without a name is never submitted
    assert '<script src="/static/mine.js" defer></script>' in text
    script = ask(apps["public True"], "/static/mine.js")
    assert (script.status, script.headers["content-type"].partition(";")[0]) == (200, "text/javascript")
    for word in ("fetch(", "XMLHttpRequest", "sendBeacon", "WebSocket", "innerHTML", "eval("):
        assert word not in script.text


@pytest.mark.parametrize("digits", ["zz", "12", "g" * 64, "<b>", "1" * 65])
def test_what_is_no_digest_is_refused(apps: dict[str, App], digits: str) -> None:
    got = asked(apps["public True"], sha256=digits)
    assert (got.status, "no SHA-256" in got.text, "<b>" in got.text) == (400, True, False)


def test_names_are_asked_for_in_any_form(apps: dict[str, App]) -> None:
    app = apps["public True"]
    for name, answer in (("people:0", "used"), ("7", "not used"), ("people:99", "not used"), ("Ann", "cannot tell")):
        assert json.loads(asked(app, q=name, format="json").text)["answer"] == answer
    assert asked(app, q="cats:1").status == 400
    assert "No: no sample of this record, which is whole, has this name." in asked(app, q="people:99").text


def test_the_copied_command_asks_what_the_page_was_asked(apps: dict[str, App]) -> None:
    app = apps["public True"]
    for query, form in (
        ({"q": "people:0"}, "people:0"),
        ({}, "row:YOURS.npy:ROW"),
        ({"sha256": "0" * 64}, "file:YOURS"),
    ):
        assert f"run.trace {form} -o receipt.json --key " in asked(app, **query).text
    assert "run.trace row:YOURS.npy:ROW -o receipt.json --key " in of_row(app, 0).text
    assert "fgtrac prove" not in asked(app, sha256="0" * 64, source="sample").text


def test_a_tampered_trace_has_no_answer(tmp_path: Path) -> None:
    path = record_people(tmp_path, "public")
    values = next(path.glob("index/*/values.npy"))
    content = values.read_bytes()
    values.write_bytes(content[:128] + bytes(byte ^ 1 for byte in content[128:]))
    got = of_row(explorer_app(tmp_path), 0)
    assert got.status == 500
    assert "refuted" in got.text


def test_out_of_a_trace_that_is_refuted_nothing_is_answered(tmp_path: Path) -> None:
    path = record_people(tmp_path, "public")
    used, never = (open_trace(path).find(f"people:{row}").id for row in (0, 7))
    sealed = TraceDir(path)
    reseal(sealed, all_entries(sealed), load_key(tmp_path / "key.pem"), lie=lambda tree: without_a_use(tree, used))
    app = explorer_app(tmp_path, key=str(tmp_path / "key.pem"))
    for query in ({"q": "people:0"}, {"q": "people:7"}, {"sha256": digest_of(1).hex(), "source": SOURCE}):
        said = json.loads(asked(app, **query, format="json").text)
        assert (said["answer"], said["receipts"], said["verdict"]["state"]) == ("cannot tell", [], "refuted")
        assert said["reasons"][0].startswith("this trace is refuted")
        text = asked(app, **query).text
        assert "the record cannot tell" in text
        assert "Yes:" not in text
        assert "No:" not in text
    assert asked(app, q="people:0", receipt=0).status == 404
    assert "All that follows, uses and proofs too" in ask(app, f"/run/run/sample/{never.hex()}").text


def test_before_the_whole_trace_was_checked_the_answer_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgtrac.web.site.Site.standing", lambda _site, _name: Standing())
    found = explorer_app(record_people(tmp_path, "public").parent, key=str(tmp_path / "key.pem"))
    for row, answer in ((0, "Yes"), (7, "No")):
        assert f"As this log says, which as a whole was not checked yet: {answer}" in of_row(found, row).text


def test_what_is_typed_is_a_text_with_its_blanks_and_zeros() -> None:
    typed = {"7": "key:7", " 7 ": "key:7", "0": "key:0", "007": 'key:"007"', "Ann ": 'key:"Ann "', " d:7": "d:7"}
    assert {text: written_out(text) for text in typed} == typed
