"""`fgtrac serve` as a user starts and stops it, and each way in which it cannot start."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fgtrac.api.keys import own_keys, rotate
from fgtrac.api.run import start_run
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.note import format_vkey, parse_vkey
from fgtrac.web.listening import listen
from fgtrac.web.tiles_server import log_vkey
from tile_reader import TileReader


@contextmanager
def serving(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The command and the first two lines that it prints (with --json, the first)."""
    command = [sys.executable, "-c", "from fgtrac.cli.main import main; main()", "serve", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process, [process.stdout.readline() for _ in range(1 if "--json" in arguments else 2)]
        finally:
            process.kill()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_under_which_key_answers_and_ends_with_0(life, stop: signal.Signals) -> None:
    vkey = format_vkey(life.made.verifier)
    with serving(life.path) as (process, lines):
        url = lines[0].rpartition(" ")[2].strip()
        assert lines == [f"serving run.trace at {url}\n", f"vkey    {vkey} (as the trace says)\n"]
        assert url.startswith("http://127.0.0.1:")
        assert len(TileReader(url, vkey).entries()) == life.made.trace.head().size
        process.send_signal(stop)
        assert (process.wait(120), *process.communicate()) == (0, "", "")


def test_the_first_line_can_be_json_and_the_address_any_that_this_machine_has(life) -> None:
    with serving(life.path, "--host", "127.0.0.2", "--json") as (process, lines):
        said = json.loads(lines[0])
        assert said["url"].startswith("http://127.0.0.2:")
        TileReader(said["url"], said["vkey"])
        process.terminate()
        assert process.wait(120) == 0


def test_a_log_under_a_new_key_is_served_under_that_key(tmp_path: Path) -> None:
    path, key = tmp_path / "run.trace", tmp_path / "key.pem"
    with start_run(path, key=key, ids="public", flush_interval_s=0) as run:
        run.log(1, loss=1.0)
    trace, first = TraceDir.open(path), own_keys(key).present
    assert parse_vkey(log_vkey(trace)).public_key == first
    rotate([path], path=key)
    assert parse_vkey(log_vkey(trace)).public_key == own_keys(key).present != first


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_of_either_family_is_shown_as_a_url_says_it(host: str) -> None:
    try:
        listener, url = listen(host, 0)
    except OSError as error:
        pytest.skip(f"this machine has no {host}: {error}")
    with listener:
        shown = f"[{host}]" if ":" in host else host
        assert url == f"http://{shown}:{listener.getsockname()[1]}/"


def test_each_way_in_which_it_cannot_start_is_one_line(run, life, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        done = run("serve", life.path, "--port", port)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use; name an address" in done.err
    done = run("serve", life.path, "--host", "192.0.2.1")
    assert (done.code, "cannot listen on 192.0.2.1 port 0" in done.err) == (1, True), done
    done = run("serve", tmp_path / "no.trace")
    assert (done.code, "there is no trace at" in done.err) == (2, True), done
    assert run("serve", life.path, "--port", 65536).code == 2


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_the_extra_it_says_what_to_install(run, life, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in [m for m in sys.modules if m.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    done = run("serve", life.path)
    assert (done.code, done.out) == (2, "")
    assert f"{missing}: pip install 'fgtrac[web]'" in done.err
