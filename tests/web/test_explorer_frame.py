"""The explorer's frame: who may ask, which addresses there are, and what becomes of whatever a page raises."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from asgi import Response, ask
from fgtrac.errors import FormatError, ProofError, ScoreError, TamperError
from fgtrac.query.seals import NotSealedError
from fgtrac.verify.checks import CannotTell
from fgtrac.web import explorer, guard
from fgtrac.web.asked import Answer, Asked, Download, Elsewhere, NotThereError, Page, address
from fgtrac.web.explorer import PAGES, explorer_app
from fgtrac.web.problems import explain
from fgtrac.web.templating import Templates
from traces import make_trace

TOKEN = "a-token-of-24-letters-00"
OWN_PAGES = (
    "/", "/run/run", "/run/run/log", "/run/run/log?page=1&kind=use", "/run/run/log?first=3&second=9",
    "/run/run/log/entry/4", "/run/run/verdict", "/compare", "/compare?a=run&b=run",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frame")
    make_trace(folder)
    return folder


def test_two_explorers_of_one_host_do_not_take_each_others_cookie(folder: Path) -> None:
    other = TOKEN[::-1]
    first, second = (explorer_app(folder, token=token, is_local=False) for token in (TOKEN, other))
    set_cookies = [
        ask(app, f"/?token={token}").headers["set-cookie"] for app, token in ((first, TOKEN), (second, other))
    ]
    jar = dict(one.partition(";")[0].split("=") for one in set_cookies)
    cookie = "; ".join(f"{name}={value}" for name, value in jar.items())
    assert [ask(app, "/", cookie=cookie).status for app in (first, second)] == [200, 200]


def test_commands_name_the_key_that_the_explorer_was_given(tmp_path: Path) -> None:
    key = make_trace(tmp_path).verifier.public_key.hex()
    app = explorer_app(tmp_path, key=key)
    listed = json.loads(ask(app, "/run/run/samples?format=json").text)["samples"]
    one = f"sample/{listed[0]['id']}"
    for page in ("verdict", "samples", one, f"mine?q=id:{listed[0]['id']}", "log", "log/entry/2"):
        command = re.search(r'data-copy="([^"]*)"', ask(app, f"/run/run/{page}").text)
        assert command is not None, page
        assert command[1].endswith(f"--key {key}"), page
    app.state.site.stop()


@pytest.mark.parametrize("what", ["pipe", "folder"])
def test_what_is_no_file_in_the_vaults_place_is_said_to_lie_there(what: str, tmp_path: Path) -> None:
    vault = make_trace(tmp_path).trace.path.with_suffix(".vault")
    vault.unlink(missing_ok=True)
    if what == "pipe":
        os.mkfifo(vault)
    else:
        vault.mkdir()
    app = explorer_app(tmp_path)
    answer = ask(app, "/run/run/samples")
    assert answer.status == 500
    assert "a file cannot be read" in answer.text
    assert "is a pipe or a folder, and no vault" in answer.text
    assert "<h1>Cannot tell</h1>" in answer.text
    app.state.site.stop()


def with_page(monkeypatch: pytest.MonkeyPatch, show: Any) -> None:
    """One more page, /try."""
    monkeypatch.setattr(explorer, "PAGES", (*PAGES, Page("/try", show)))


@pytest.mark.parametrize("path", OWN_PAGES)
def test_a_page_is_whole_and_its_data_is_its_json(path: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[Any] = []
    render = Templates.render

    def spy(self: Templates, template: str, pictures: Any, **values: Any) -> str:
        rendered.append(values["data"])
        return render(self, template, pictures, **values)

    monkeypatch.setattr(Templates, "render", spy)
    app = explorer_app(folder)
    as_json = ask(app, path + ("&" if "?" in path else "?") + "format=json")
    page = ask(app, path)
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.text.count("<h1") == 1
    assert "style=" not in page.text
    assert "<script src=" in page.text
    assert page.text.count("<script") == 1
    if "verdict" not in path:
        assert json.loads(as_json.text) == json.loads(json.dumps(rendered[-1]))
    for answer in (page, as_json):
        assert {name: answer.headers[name] for name in guard.HEADERS} == guard.HEADERS


def test_no_policy_lets_a_page_load_from_elsewhere_or_run_what_stands_in_it() -> None:
    rules = dict(rule.strip().split(" ", 1) for rule in guard.CONTENT_POLICY.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["frame-ancestors"] == "'none'"
    assert {rules[name] for name in ("script-src", "style-src", "connect-src", "form-action")} == {"'self'"}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
def test_it_only_reads(method: str, folder: Path) -> None:
    answer = ask(explorer_app(folder), "/run/run", method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize(
    ("host", "is_own"),
    [("127.0.0.1", True), ("127.0.0.1:8000", True), ("localhost:1", True), ("LOCALHOST", True), ("[::1]:80", True),
     ("127.9.9.9", True), ("localhost.", True), ("fgtrac.example", False), ("localhost.example", False),
     ("127.0.0.1.example:80", False), ("10.0.0.1", False), ("", False), ("::1", False), ("2130706433", False),
     ("127.0.0.1:80:80", False), ("0.0.0.0", False)],
)  # fmt: skip
def test_only_this_machine_s_names_are_answered(host: str, is_own: bool, folder: Path) -> None:
    answer = ask(explorer_app(folder), "/run/run", host=host)
    assert answer.status == (200 if is_own else 403)
    assert ("verdict" in answer.text) == is_own


def test_whoever_has_no_token_sees_nothing(folder: Path) -> None:
    app = explorer_app(folder, token=TOKEN, is_local=False)
    for given in ({}, {"cookie": f"{guard.cookie_name(TOKEN)}=wrong"}, {"authorization": "Bearer wrong"}):
        for path in ("/", "/run/run", "/static/style.css", "/run/run?format=json", "/nothing", "/?token=wrong"):
            answer = ask(app, path, host="fgtrac.example", **given)
            assert answer.status == 401
            assert "/run/" not in answer.text
            assert "set-cookie" not in answer.headers
    assert ask(app, "/run/run", cookie=f"x=1; {guard.cookie_name(TOKEN)}={TOKEN}").status == 200
    assert ask(app, "/run/run", authorization=f"Bearer {TOKEN}").status == 200


@pytest.mark.parametrize(
    ("path", "to"),
    [("/", "/"), ("/run/run?page=2", "/run/run?page=2"), ("//elsewhere.example/", "/elsewhere.example/"),
     ("/\\elsewhere.example", "/elsewhere.example"), ("/a\\b", "/a%5Cb")],
)  # fmt: skip
def test_a_token_becomes_a_cookie_and_leaves_the_address(path: str, to: str, folder: Path) -> None:
    app = explorer_app(folder, token=TOKEN, is_local=False)
    answer = ask(app, path + ("&" if "?" in path else "?") + f"token={TOKEN}")
    assert (answer.status, answer.headers["location"]) == (303, to)
    assert answer.headers["set-cookie"] == f"{guard.cookie_name(TOKEN)}={TOKEN}; HttpOnly; SameSite=Strict; Path=/"
    assert TOKEN not in answer.text


def test_another_machine_needs_a_token_that_nobody_guesses(folder: Path) -> None:
    with pytest.raises(ValueError, match="set a token"):
        explorer_app(folder, is_local=False)
    for weak in ("", "short", "a token with spaces", "ümlaute-in-it-and-long", "x" * 15, "semi;colon-and-long-enough"):
        with pytest.raises(ValueError, match="letters, digits"):
            explorer_app(folder, token=weak)
    assert len({guard.new_token() for _ in range(50)}) == 50
    guard.check_token(guard.new_token())


@pytest.mark.parametrize(
    "name",
    ["log", "run", "static", "a/log", "samples/sample/x", "log/entry/5", "x/verdict", "ä ö", "50%", "a#b", "q?x=1",
     "compare", "<b>", 'quo"te', "a&b", "\udcff"],
)  # fmt: skip
def test_every_name_of_a_run_has_an_address_that_is_no_other_page_s(name: str, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.trace"
    path.parent.mkdir(parents=True, exist_ok=True)
    (folder / "run.trace").rename(path)
    try:
        app = explorer_app(tmp_path)
        for page in ((), ("log",), ("log", "entry", 3)):
            answer = ask(app, address("run", name, *page))
            assert answer.status == 200, answer.text
            assert ("<h1>Entry 3</h1>" in answer.text) == ("entry" in page)
        listed = ask(app, "/").text
        assert f'href="{address("run", name)}"' in listed
        assert "<b>" not in listed
    finally:
        path.rename(folder / "run.trace")


def test_nothing_but_two_files_is_static(folder: Path) -> None:
    app = explorer_app(folder)
    style = ask(app, "/static/style.css")
    assert (style.status, style.headers["content-type"]) == (200, "text/css; charset=utf-8")
    assert b".standing" in style.body
    assert b".fg-chart" in style.body
    assert ask(app, "/static/explorer.js").headers["content-type"].startswith("text/javascript")
    for path in (
        "/static/frame.html",
        "/static/style.css/x",
        "/static/",
        "/templates/frame.html",
        "/static/..%2fsite.py",
    ):
        assert ask(app, path).status == 404


def said_by(error: Exception) -> tuple[int, str]:
    said = explain(error)
    return said.status, str(said.verdict)


def test_each_error_is_a_status_and_where_it_is_one_a_verdict() -> None:
    assert said_by(NotThereError("no")) == said_by(FileNotFoundError("no")) == (404, "")
    assert said_by(ValueError("no")) == (400, "")
    assert (
        said_by(NotSealedError("no")) == said_by(CannotTell("no")) == said_by(ScoreError("no")) == (409, "cannot tell")
    )
    for error in (FormatError("no"), ProofError("no"), TamperError("no")):
        assert said_by(error) == (500, "refuted")
    assert said_by(PermissionError("no")) == (500, "cannot tell")


def test_a_fault_of_a_page_is_one_clear_page_and_is_told_where_the_explorer_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def show(asked: Asked) -> Answer:
        raise KeyError("inner secret")

    with_page(monkeypatch, show)
    for form in ("", "?format=json"):
        answer = ask(explorer_app(folder), f"/try{form}")
        assert answer.status == 500
        assert "KeyError" in answer.text
        assert "cannot tell" in answer.text
        assert "inner secret" not in answer.text
        assert "Traceback" not in answer.text
    assert "inner secret" in caplog.text


def test_a_trace_that_goes_while_it_is_looked_at_is_a_clear_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_trace(tmp_path)

    def show(asked: Asked) -> Answer:
        made.trace.path.rename(tmp_path / "gone")
        raise ProofError("it changed")

    monkeypatch.setattr(explorer, "PAGES", (*PAGES, Page("/run/{name}/try", show)))
    answer = ask(explorer_app(tmp_path), "/run/run/try")
    assert answer.status == 500
    assert "it changed" in answer.text


def test_words_of_any_length_and_any_letters_are_one_bounded_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def show(asked: Asked) -> Answer:
        raise ValueError("<script>alert(1)</script>\u202egnp.exe\x1b[31m\n" + "x" * 10_000_000)

    with_page(monkeypatch, show)
    answer = ask(explorer_app(folder), "/try")
    assert answer.status == 400
    assert len(answer.body) < 8000
    assert "<script>alert" not in answer.text
    assert not {"\u202e", "\x1b"} & set(answer.text)


def test_what_no_json_number_is_has_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_page(
        monkeypatch,
        lambda asked: Answer("Try", "problem.html", {"status": float("nan"), "words": float("inf"), "verdict": ""}),
    )
    answer = ask(explorer_app(folder), "/try?format=json")
    assert json.loads(answer.text) == {"status": "nan", "words": "inf", "verdict": ""}


def test_a_download_is_saved_under_a_plain_name_and_a_redirect_keeps_the_form(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_page(monkeypatch, lambda asked: Download(b"\x00", "application/octet-stream", 'a"\r\nX: y/../é.json'))
    answer = ask(explorer_app(folder), "/try")
    assert answer.headers["content-disposition"] == 'attachment; filename="a___X__y_..__.json"'
    with_page(monkeypatch, lambda asked: Elsewhere("/run/run?page=1"))
    answer = ask(explorer_app(folder), "/try?format=json")
    assert (answer.status, answer.headers["location"]) == (303, "/run/run?page=1&format=json")


def test_a_place_that_is_none_is_said_before_anything_is_served(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no trace or folder"):
        explorer_app(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FormatError, match="no folder"):
        explorer_app(tmp_path / "file")


def test_a_site_of_one_trace_has_that_one_alone(folder: Path, tmp_path: Path) -> None:
    make_trace(tmp_path)
    (tmp_path / "run.trace").rename(tmp_path / "other.trace")
    app = explorer_app(tmp_path / "other.trace")
    assert ask(app, "/run/other").status == 200
    assert 'href="/run/other"' in ask(app, "/").text
    for name in ("run", "other.trace", "..", "%2e%2e"):
        assert ask(app, f"/run/{name}").status == 404


def answers(app: Any, *paths: str) -> list[Response]:
    return [ask(app, path) for path in paths]


def test_an_empty_folder_has_a_first_page(tmp_path: Path) -> None:
    first, compare = answers(explorer_app(tmp_path), "/", "/compare")
    assert (first.status, compare.status) == (200, 200)
    assert "no trace here" in first.text
    assert "no trace here" in compare.text
