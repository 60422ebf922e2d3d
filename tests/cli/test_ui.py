"""`fgtrac ui` as a user starts and stops it, and each way in which it cannot start."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError

import pytest


@contextmanager
def looking(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command and the line that it prints."""
    command = [sys.executable, "-c", "from fgtrac.cli.main import main; main()", "ui", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            process.kill()


def get(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_answers_and_ends_with_0(life, stop: signal.Signals) -> None:
    with looking(life.path) as (process, line):
        found = re.fullmatch(r"looking at run\.trace at (http://127\.0\.0\.1:\d+/)\n", line)
        assert found is not None
        url = found[1]
        assert "run" in get(url)[1]
        assert get(f"{url}run/run")[0] == 200  # a check of the trace is under way
        process.send_signal(stop)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (0, "", "")


def test_another_address_than_this_machine_s_has_a_token(life) -> None:
    with looking(life.path, "--host", "0.0.0.0", "--json") as (process, line):
        said = json.loads(line)
        url, token = said["url"], said["token"]
        assert len(token) >= 20
        own = url.replace("0.0.0.0", "127.0.0.1")
        assert get(own.partition("?")[0])[0] == 401
        assert get(own.partition("?")[0], authorization=f"Bearer {token}")[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_a_token_of_one_s_own_is_asked_for_here_too(life) -> None:
    with looking(life.path, "--token", "x" * 20, "--json") as (_process, line):
        said = json.loads(line)
        assert said["url"].endswith("/?token=" + "x" * 20)
        assert get(said["url"].partition("?")[0])[0] == 401


def test_each_way_in_which_it_cannot_start_is_one_line(run, life, tmp_path: Path) -> None:
    for arguments, words in (
        ((tmp_path / "none",), "there is no trace or folder"),
        ((life.path / "checkpoint",), "is no folder"),
        ((life.path, "--token", "weak"), "a token has at least 16"),
        ((life.path, "--with", "nothing"), "names no function"),
        ((life.path, "--port", "65536"), "65535"),
        ((life.path, "--memory", "much"), "no amount of memory"),
    ):
        done = run("ui", *arguments)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
        assert words in done.err
    done = run("ui", life.path, "--host", "192.0.2.1")
    assert (done.code, "cannot listen on 192.0.2.1" in done.err) == (1, True)


@pytest.mark.parametrize("missing", ["starlette", "jinja2", "uvicorn"])
def test_without_the_extra_it_says_what_to_install(run, life, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in [m for m in sys.modules if m.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    done = run("ui", life.path)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"fgtrac: the explorer needs {missing}: pip install 'fgtrac[ui]'\n"
