"""Traces that are damaged at any place: every page answers with a page, soon, and none is ever green."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from asgi import App, ask
from fgtrac.web.explorer import explorer_app
from hostile_trace import make_hostile_trace

CHANGES = 120  # bytes changed and files cut, in all, at places that a fixed seed draws
FRESH = 10  # of so many changes, one is looked at by an explorer that never saw the whole trace
PATIENCE_S = 20
FINAL = ("holds", "refuted", "cannot tell")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one small trace of every kind of entry, under the name `run`. It is copied, not changed."""
    folder = tmp_path_factory.mktemp("whole") / "runs"
    folder.mkdir()
    trace = make_hostile_trace(folder, long=False)
    trace.with_suffix(".vault").rename(folder / "run.vault")
    trace.rename(folder / "run.trace")
    return folder


@pytest.fixture
def place(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "runs")


def explorer_of(place: Path) -> App:
    """The explorer of somebody who trusts the trace's key."""
    return explorer_app(place, key=str(place / "key.pem"))


def pages_of(app: App) -> list[str]:
    """One address of each page of the whole trace."""
    samples = ask(app, "/run/run/samples?format=json").text
    known = sorted({word for word in samples.split('"') if len(word) == 64 and set(word) <= set("0123456789abcdef")})
    one = known[0]
    return ["/", "/run/run", "/run/run/samples", f"/run/run/sample/{one}", f"/run/run/sample/{one}/proof",
            f"/run/run/prediction/{one}", "/run/run/suspects", "/run/run/mine", f"/run/run/mine?id={one}",
            "/run/run/log", "/run/run/log/entry/4", "/compare?a=run&b=run"]  # fmt: skip


def check_answers(app: App, pages: list[str], where: str) -> None:
    """Every page is answered by a page, within the second that a person waits, and without a stack trace."""
    for page in pages:
        began = time.monotonic()
        answer = ask(app, page)
        took = time.monotonic() - began
        assert answer.status in (200, 303, 400, 404, 409, 500), (where, page, answer.status)
        assert took < 10, (where, page, took)
        assert "Traceback" not in answer.text, (where, page)
        if answer.status != 303 and "proof" not in page:
            assert answer.headers["content-type"].startswith("text/html"), (where, page)
            assert "<h1" in answer.text, (where, page)


def verdict(app: App, name: str = "run") -> str:
    """What the explorer says of the trace when it has looked at it as it now stands."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if (now := standing(app, name))["state"] in FINAL:
            return str(now["state"])
        time.sleep(0.02)
    raise AssertionError(f"no verdict in {PATIENCE_S} s: {now}")


def standing(app: App, name: str = "run") -> dict[str, str]:
    """What the explorer says of the trace at this moment."""
    return dict(json.loads(ask(app, f"/run/{name}/verdict?format=json").body))


def test_a_trace_that_is_whole_is_answered_in_full(place: Path) -> None:
    app = explorer_of(place)
    for page in pages_of(app):
        assert ask(app, page).status == 200, page
    assert verdict(app) == "holds"


def test_a_trace_damaged_at_any_place_is_answered_by_pages_and_never_green(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pages = pages_of(explorer_of(place))
    app = explorer_of(place)
    files = [p for p in sorted(place.glob("run.*/**/*")) if p.is_file() and p.stat().st_size] + [place / "run.vault"]
    draw = np.random.default_rng(8)
    for n in range(CHANGES):
        path = files[n % len(files)]
        data = path.read_bytes()
        at, bits = int(draw.integers(len(data))), int(draw.integers(1, 256))
        is_cut = n % 3 == 2
        where = f"{path.relative_to(place)}, {'cut' if is_cut else 'changed'} at {at}"
        path.write_bytes(data[:at] + (b"" if is_cut else bytes([data[at] ^ bits]) + data[at + 1 :]))
        if n % FRESH == 0:
            app = explorer_of(place)
            check_answers(app, pages, where)
            assert path.suffix == ".vault" or verdict(app) != "holds", where
        check_answers(app, [pages[n % len(pages)], pages[(n // 3) % len(pages)]], where)
        assert path.suffix == ".vault" or standing(app)["state"] != "holds", where
        path.write_bytes(data)
    assert not caplog.records, caplog.records


def test_a_trace_that_changes_while_it_is_shown_is_never_green_again_until_it_is_mended(place: Path) -> None:
    app = explorer_of(place)
    assert verdict(app) == "holds"
    entries = max((place / "run.trace/tile/entries").rglob("*"), key=lambda p: p.stat().st_size)
    data = entries.read_bytes()
    entries.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    assert standing(app)["state"] != "holds"
    assert verdict(app) == "refuted"
    entries.write_bytes(data)
    assert standing(app)["state"] != "holds"
    assert verdict(app) == "holds"


@pytest.mark.parametrize(
    "what", ["FIFO", "sparse", "folder", "link out", "link to itself", "device", "unreadable", "gone"]
)
@pytest.mark.parametrize("name", ["checkpoint", "tile/entries/*", "index/*/keys.npy", "artifacts/*.safetensors"])
def test_something_else_in_place_of_a_file_is_a_clear_page(name: str, what: str, whole: Path, place: Path) -> None:
    pages = pages_of(explorer_of(whole))
    path = next(p for p in sorted((place / "run.trace").glob(name)) for p in [p, *sorted(p.rglob("*"))] if p.is_file())
    data = path.read_bytes()
    path.unlink()
    if what == "FIFO":
        os.mkfifo(path)
    elif what == "sparse":
        path.touch()
        os.truncate(path, 1 << 40)
    elif what == "folder":
        path.mkdir()
    elif what == "link out":
        outside = place.parent / "outside"
        outside.write_bytes(data[:-1] + b"x")
        path.symlink_to(outside)
    elif what == "link to itself":
        path.symlink_to(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "unreadable":
        path.touch(mode=0)
    app = explorer_of(place)
    check_answers(app, pages[::2], what)
    assert verdict(app) != "holds"


@pytest.mark.parametrize("vault", ["empty", "noise", "another kind of database", "FIFO", "folder", "sparse", "gone"])
def test_any_vault_is_a_clear_page(vault: str, whole: Path, place: Path) -> None:
    import sqlite3

    pages = pages_of(explorer_of(whole))
    path = place / "run.vault"
    path.unlink()
    if vault in ("empty", "noise"):
        path.write_bytes(b"" if vault == "empty" else os.urandom(5000))
    elif vault == "another kind of database":
        with sqlite3.connect(path) as made:
            made.execute("CREATE TABLE names (a)")
        made.close()
    elif vault == "FIFO":
        os.mkfifo(path)
    elif vault == "folder":
        path.mkdir()
    elif vault == "sparse":
        path.touch()
        os.truncate(path, 1 << 40)
    check_answers(explorer_of(place), pages[::2], vault)
