"""The verdict that the explorer shows: each state in order, and holds for nothing but what was just checked."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from asgi import ask
from fgtrac.commit.keys import Keyring
from fgtrac.errors import EngineError, StorageError
from fgtrac.verify.report import Verdict
from fgtrac.web import checking
from fgtrac.web.check_alone import Alone
from fgtrac.web.checking import Checking, Standing
from fgtrac.web.explorer import explorer_app
from model_traces import write_key
from traces import Made, make_trace


@contextmanager
def checks(key: str | None = None) -> Iterator[Checking]:
    one = Checking(key)
    try:
        yield one
    finally:
        one.stop()


def key_of(made: Made) -> str:
    return made.verifier.public_key.hex()


def wait_for(look: Callable[[], Standing], *states: str) -> list[str]:
    """The states that were seen one after the other, until one of these."""
    seen: list[str] = []
    until = time.monotonic() + 30
    while time.monotonic() < until:
        state = look().state
        seen += [state] if seen[-1:] != [state] else []
        if state in states:
            return seen
        time.sleep(0.002)
    raise AssertionError(f"none of {states} came, only {seen}")


def flip(path: Path, at: int = 40) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes again is checked again at once."""
    monkeypatch.setattr(checking, "WAIT_S", 0.0)


class Gate:
    """Lets the check begin when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.may_go_on = threading.Event(), threading.Event()
        real = checking.open_for_verification

        def opened(*given: Any, **named: Any) -> Any:
            self.begun.set()
            assert self.may_go_on.wait(30)
            return real(*given, **named)

        monkeypatch.setattr(checking, "open_for_verification", opened)


def test_the_states_come_in_order_and_holds_is_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, gate = make_trace(tmp_path), Gate(monkeypatch)
    path = made.trace.path
    with checks(key_of(made)) as one:
        assert one.look(path).words == "not checked yet"
        assert one.standing(path).state == "waiting"
        assert gate.begun.wait(30)
        under_way = one.standing(path)
        assert (under_way.state, under_way.verdict, under_way.findings) == ("checking", "", ())
        assert under_way.words.startswith("not checked yet")
        gate.may_go_on.set()
        assert set(wait_for(lambda: one.standing(path), "holds", "refuted", "cannot tell")) <= {"checking", "holds"}
        done = one.standing(path)
        assert done.state == done.verdict == "holds"
        assert {f["verdict"] for f in done.findings} == {"holds"}
        assert "signature" in {f["check"] for f in done.findings}


def test_looking_asks_for_no_check(tmp_path: Path) -> None:
    made = make_trace(tmp_path)
    with checks() as one:
        for _ in range(3):
            assert one.look(made.trace.path).state == "waiting"
        assert one._background._thread is None


@pytest.mark.parametrize("key", [None, "00" * 32])
def test_without_the_right_key_it_does_not_hold(
    key: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    monkeypatch.delenv("FGTRAC_KEY", raising=False)
    made = make_trace(tmp_path)
    with checks(key) as one:
        seen = wait_for(lambda: one.standing(made.trace.path), "holds", "refuted", "cannot tell")
    assert seen[-1] == ("refuted" if key else "cannot tell")


@pytest.mark.usefixtures("fast")
def test_a_change_is_seen_at_once_is_checked_again_and_mends_again(tmp_path: Path) -> None:
    made = make_trace(tmp_path, uses=300)
    path = made.trace.path
    with checks(key_of(made)) as one:
        wait_for(lambda: one.standing(path), "holds")
        tile = path / "tile/entries/000"
        flip(tile)
        changed = one.look(path)
        assert (changed.state, changed.verdict) == ("changed", "holds")
        assert changed.words.startswith("changed since it was checked")
        seen = wait_for(lambda: one.standing(path), "refuted", "holds")
        assert (seen[0], seen[-1]) == ("changed", "refuted")
        refuted = [f["words"] for f in one.standing(path).findings if f["verdict"] == "refuted"]
        assert any("tile/entries/000" in words for words in refuted)
        flip(tile)
        seen = wait_for(lambda: one.standing(path), "holds")
        assert seen[0] == "changed"


@pytest.mark.usefixtures("fast")
def test_what_changes_while_it_is_checked_is_not_said_to_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, gate = make_trace(tmp_path), Gate(monkeypatch)
    path = made.trace.path
    with checks(key_of(made)) as one:
        one.standing(path)
        assert gate.begun.wait(30)
        (path / "artifacts").mkdir()
        (path / "artifacts/more").write_bytes(b"x")  # which no entry names: it holds, with a note
        gate.may_go_on.set()
        seen = wait_for(lambda: one.standing(path), "holds")
        assert "changed" in seen
        assert any("artifacts/more" in note for note in one.standing(path).notes)


def test_a_link_to_a_folder_and_an_empty_folder_are_changes(tmp_path: Path) -> None:
    made = make_trace(tmp_path)
    path = made.trace.path
    with checks(key_of(made)) as one:
        for change in (lambda: (path / "more").symlink_to(tmp_path), lambda: (path / "empty").mkdir()):
            wait_for(lambda: one.standing(path), "holds", "refuted", "cannot tell")
            change()
            assert one.look(path).state == "changed"


def test_a_change_back_to_the_same_size_and_time_is_a_change(tmp_path: Path) -> None:
    made = make_trace(tmp_path)
    path, tile = made.trace.path, made.trace.path / "checkpoint"
    with checks(key_of(made)) as one:
        wait_for(lambda: one.standing(path), "holds")
        before = tile.stat()
        flip(tile, 3)
        os.utime(tile, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (tile.stat().st_size, tile.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        assert one.look(path).state == "changed"


@pytest.mark.parametrize("what", ["empty", "garbage", "unsealed", "gone"])
def test_what_is_no_whole_trace_has_a_verdict_that_is_not_holds(what: str, tmp_path: Path) -> None:
    made = make_trace(tmp_path, sealed=what != "unsealed")
    path = made.trace.path
    if what == "empty":
        path = tmp_path / "empty.trace"
        (path / "journal").mkdir(parents=True)
    elif what == "garbage":
        (path / "checkpoint").write_bytes(b"\xff" * 100)
    elif what == "gone":
        path = tmp_path / "gone.trace"
    with checks(key_of(made)) as one:
        one.standing(path)
        seen = wait_for(lambda: one.look(path), "holds", "refuted", "cannot tell")
        assert seen[-1] != "holds"
        assert one.look(path).findings


def test_a_fault_of_the_check_itself_is_no_verdict_on_the_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*given: Any, **named: Any) -> Any:
        raise RuntimeError("inner")

    monkeypatch.setattr(checking, "open_for_verification", broken)
    made = make_trace(tmp_path)
    with checks() as one:
        one.standing(made.trace.path)
        assert wait_for(lambda: one.look(made.trace.path), "holds", "refuted", "cannot tell")[-1] == "cannot tell"
        assert "fault of fgtrac" in one.look(made.trace.path).findings[0]["words"]
    assert "inner" in caplog.text


@pytest.mark.parametrize("error", [EngineError("no worker"), StorageError("nobody answers"), MemoryError("no room")])
def test_what_ends_a_check_without_a_verdict_refutes_nothing(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("fgtrac.api.trace.audit_trace", fail)
    made = make_trace(tmp_path)
    report = checking.report_on(made.trace.path, key_of(made), lambda done, total: None)
    assert report.verdict is Verdict.CANNOT_TELL
    assert str(error) in report.findings[0].words


def test_the_check_ends_with_the_explorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, gate = make_trace(tmp_path), Gate(monkeypatch)
    one = Checking(key_of(made))
    one.standing(made.trace.path)
    assert gate.begun.wait(30)
    one.stop()
    gate.may_go_on.set()
    thread = one._background._thread
    assert thread is not None
    thread.join(30)
    assert not thread.is_alive()
    assert one.look(made.trace.path).state == "checking"  # and at no time a verdict


def test_what_was_found_before_a_change_is_told_without_its_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "WAIT_S", 600.0)
    made = make_trace(tmp_path)
    app = explorer_app(tmp_path, key=key_of(made))
    site = app.state.site
    wait_for(lambda: site.standing("run"), "holds")
    assert 'class="holds"' in ask(app, "/run/run/verdict").text
    flip(made.trace.path / "checkpoint", 3)  # which is not checked again before WAIT_S is over
    for page in ("/run/run/verdict", "/run/run/log", "/"):
        text = ask(app, page).text
        assert 'class="holds"' not in text
        assert "standing holds" not in text
    assert "before the trace changed" in ask(app, "/run/run/verdict").text
    site.stop()


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trace is large enough for a process of its own."""
    monkeypatch.setattr(checking, "ALONE_BYTES", 0)


@pytest.mark.usefixtures("fast", "alone")
def test_a_large_trace_is_checked_in_a_process_of_its_own_with_the_same_answer(tmp_path: Path) -> None:
    made = make_trace(tmp_path, uses=300)
    with checks(key_of(made)) as one:
        seen = wait_for(lambda: one.standing(made.trace.path), "holds", "refuted", "cannot tell")
        assert seen[-1] == "holds"
        large = one.standing(made.trace.path)
        small = checking.report_on(made.trace.path, key_of(made), lambda done, total: None)
        assert list(large.findings) == small.as_json()["findings"]
        assert large.notes == small.notes
        flip(made.trace.path / "checkpoint", 3)
        assert wait_for(lambda: one.standing(made.trace.path), "holds", "refuted")[-1] == "refuted"


@pytest.mark.usefixtures("alone")
def test_a_process_that_ends_without_an_answer_is_no_verdict(tmp_path: Path) -> None:
    made = make_trace(tmp_path)
    with checks("--no-key-but-an-option") as one:
        assert wait_for(lambda: one.standing(made.trace.path), "holds", "refuted", "cannot tell")[-1] == "cannot tell"
    process = Alone(made.trace.path, None)
    process.stop()
    assert process.report(lambda done, total: None) is None


@pytest.mark.usefixtures("fast", "alone")
@pytest.mark.parametrize("module", ["json", "numpy", "fgtrac"])
def test_nothing_that_lies_in_the_current_folder_is_run(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_trace(tmp_path / "downloaded")
    flip(made.trace.path / "checkpoint", 3)
    said = {"findings": [{"check": "signature", "verdict": "holds", "words": "signed by you"}], "notes": []}
    lie = f"open('run', 'w').close(); print({json.dumps(said)!r}, flush=True); import os; os._exit(0)"
    (tmp_path / "downloaded" / f"{module}.py").write_text(lie)
    monkeypatch.chdir(tmp_path / "downloaded")
    with checks(key_of(made)) as one:
        assert wait_for(lambda: one.standing(made.trace.path), "holds", "refuted", "cannot tell")[-1] == "refuted"
    assert not Path("run").exists()


def test_ctrl_c_reaches_the_explorer_and_not_the_check_beside_it(tmp_path: Path) -> None:
    process = Alone(make_trace(tmp_path).trace.path, None)
    try:
        assert os.getpgid(process._process.pid) != os.getpgid(0)
    finally:
        process.stop()
        process._process.communicate()


@pytest.mark.usefixtures("fast")
def test_another_key_in_the_file_that_was_named_is_a_change(tmp_path: Path) -> None:
    made, key = make_trace(tmp_path), tmp_path / "key.txt"
    key.write_text(key_of(made))
    with checks(str(key)) as one:
        wait_for(lambda: one.standing(made.trace.path), "holds")
        key.write_text("00" * 32)
        assert one.look(made.trace.path).state == "changed"
        assert wait_for(lambda: one.standing(made.trace.path), "holds", "refuted", "cannot tell")[-1] == "refuted"


@pytest.mark.usefixtures("fast")
def test_a_key_that_is_revoked_is_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    made = make_trace(tmp_path)
    for key in (None, key_of(made)):  # as the user's own, and as one that was named
        (tmp_path / "revoked").unlink(missing_ok=True)
        write_key(tmp_path / "key.pem")
        with checks(key) as one:
            wait_for(lambda one=one: one.standing(made.trace.path), "holds")  # type: ignore[misc]
            Keyring(tmp_path / "key.pem").revoke(made.verifier.public_key)
            assert one.look(made.trace.path).state == "changed"
            wait_for(lambda one=one: one.standing(made.trace.path), "cannot tell")  # type: ignore[misc]


@pytest.mark.usefixtures("fast")
def test_what_no_time_of_change_tells_is_found_when_it_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_trace(tmp_path, uses=300)
    path, tile = made.trace.path, made.trace.path / "tile/entries/000"
    monkeypatch.setattr(checking, "AGAIN_S", 0.5)
    monkeypatch.setattr(checking, "AGAIN_SHARE", 0.0)
    real, frozen = checking._files, threading.Event()
    with checks(key_of(made)) as one:
        wait_for(lambda: one.standing(path), "holds")
        before = real(path)
        monkeypatch.setattr(checking, "_files", lambda path: before if frozen.is_set() else real(path))
        frozen.set()  # as a write through a memory map that was there before: no time of change moves
        flip(tile)
        assert wait_for(lambda: one.standing(path), "refuted") == ["holds", "refuted"]


def test_many_traces_are_not_all_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "MAX_KNOWN", 2)
    made = make_trace(tmp_path)
    with checks(key_of(made)) as one:
        for number in range(6):
            (path := tmp_path / f"{number}.trace").mkdir()
            wait_for(lambda path=path: one.standing(path), "refuted")  # type: ignore[misc]
        assert len(one._known) <= 3


def test_a_trace_is_checked_once_whatever_links_lead_to_it(tmp_path: Path) -> None:
    made = make_trace(tmp_path)
    (tmp_path / "loop").symlink_to(".")
    app = explorer_app(tmp_path, key=key_of(made))
    wait_for(lambda: app.state.site.standing("run"), "holds")
    assert app.state.site.standing("loop/loop/run").state == "holds"
    app.state.site.stop()


def test_what_is_no_key_is_said_before_anything_is_served(tmp_path: Path) -> None:
    make_trace(tmp_path)
    with pytest.raises(ValueError, match=r"'nonsense.pem' is no key and no file"):
        explorer_app(tmp_path, key="nonsense.pem")


@pytest.mark.usefixtures("alone")
def test_where_no_check_was_made_it_does_not_say_that_one_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_trace(tmp_path)
    real = Alone.report

    def killed(alone: Alone, progress: Any) -> Any:
        alone.stop()
        return real(alone, progress)

    monkeypatch.setattr(Alone, "report", killed)
    with checks() as one:
        wait_for(lambda: one.standing(made.trace.path), "cannot tell")
        words = one.look(made.trace.path).words
    assert words.startswith("cannot tell: no check could be made at")
    assert "ended without an answer" in words


@pytest.mark.usefixtures("fast")
def test_every_page_of_a_run_shows_it_as_a_word_a_mark_and_a_class(tmp_path: Path) -> None:
    made = make_trace(tmp_path)
    app = explorer_app(tmp_path, key=key_of(made))
    first = ask(app, "/run/run").text
    assert 'data-state="waiting"' in first or 'data-state="checking"' in first
    assert "not checked yet" in first

    def state() -> Standing:
        return Standing(json.loads(ask(app, "/run/run/verdict?format=json").text)["state"])

    wait_for(state, "holds")
    for page in ("", "/log", "/log/entry/2", "/verdict"):
        text = ask(app, f"/run/run{page}").text
        assert 'class="standing holds"' in text
        assert ">✓</span>" in text
        assert "holds: all of it was checked at" in text
    assert '<td class="holds">holds</td>' in ask(app, "/").text
    flip(made.trace.path / "checkpoint", 3)
    assert 'data-state="holds"' not in ask(app, "/run/run/log").text
    assert 'class="holds"' not in ask(app, "/").text
    wait_for(state, "refuted")
    text = ask(app, "/run/run/verdict").text
    assert 'class="standing refuted"' in text
    assert '<td class="refuted">refuted</td>' in text
    app.state.site.stop()


@pytest.mark.usefixtures("fast")
def test_only_where_all_holds_does_it_say_that_all_was_checked(tmp_path: Path) -> None:
    made = make_trace(tmp_path, uses=30)
    with checks() as one:
        wait_for(lambda: one.standing(made.trace.path), "holds", "refuted", "cannot tell")
        unsure = one.look(made.trace.path)
        flip(next((made.trace.path / "tile/entries").rglob("*.p/*")))
        wait_for(lambda: one.standing(made.trace.path), "refuted")
        refuted = one.look(made.trace.path)
    for standing, least in ((unsure, 1), (refuted, 5)):
        missing = sum(finding["verdict"] == "cannot tell" for finding in standing.findings)
        assert missing >= least
        assert f"; {missing} of {len(standing.findings)} checks cannot tell; no change seen since" in standing.words
        assert "all of it" not in standing.words


@pytest.mark.usefixtures("fast")
def test_a_page_that_a_refuted_trace_does_not_have_says_what_was_found(tmp_path: Path) -> None:
    made = make_trace(tmp_path, uses=30)
    flip(next((made.trace.path / "tile/entries").rglob("*.p/*")))
    app = explorer_app(tmp_path, key=key_of(made))
    wait_for(lambda: app.state.site.standing("run"), "refuted")
    page = ask(app, "/run/run")
    assert page.status == 500
    assert "<h1>Refuted</h1>" in page.text
    for finding in app.state.site.standing("run").findings:
        assert f'<th scope="row">{finding["check"]}</th>' in page.text
    assert f'data-copy="fgtrac verify {made.trace.path} --key {key_of(made)}"' in page.text
    line = json.loads(ask(app, "/?format=json").text)["runs"][0]
    assert (line["check"]["state"], line["check"]["words"]) == ("refuted", app.state.site.standing("run").words)
    app.state.site.stop()
