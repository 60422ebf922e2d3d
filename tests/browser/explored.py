"""Traces as users have them, and `fgtrac ui` over them in a process of its own, as a user starts it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from traces import make_trace

FGTRAC = Path(sys.executable).with_name("fgtrac")
ICONS = Path(sys.prefix) / "icons"


@dataclass(frozen=True)
class User:
    """Somebody with a key, a folder of traces and caches of their own."""

    home: Path

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    def environment(self) -> dict[str, str]:
        own = {k: v for k, v in os.environ.items() if not k.startswith("FGTRAC_")}
        cache, config = self.home / "cache", self.home / "config"
        return {**own, "FGTRAC_KEY": str(self.home / "key.pem"), "XDG_CACHE_HOME": str(cache),
                "XDG_CONFIG_HOME": str(config), "COLUMNS": "100"}  # fmt: skip

    def fgtrac(self, *arguments: object, code: int | None = 0) -> str:
        """`fgtrac ARGUMENTS...`, which ends with `code`: what it printed."""
        command = [str(FGTRAC), *map(str, arguments)]
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True, check=False)
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done.stdout


@dataclass
class Explorer:
    """A running `fgtrac ui`: its address, and what it says on stderr meanwhile."""

    url: str
    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    @property
    def origin(self) -> str:
        return "/".join(self.url.split("/")[:3])

    def at(self, path: str) -> str:
        return self.origin + path

    def json(self, path: str) -> Any:
        """What a page's JSON says."""
        joint = "&" if "?" in path else "?"
        with urllib.request.urlopen(f"{self.at(path)}{joint}format=json", timeout=60) as answer:
            return json.load(answer)


@contextmanager
def exploring(user: User, place: Path, *options: object) -> Iterator[Explorer]:
    """`fgtrac ui PLACE`, until the block is left."""
    command = [str(FGTRAC), "ui", str(place), "--port", "0", "--json", *map(str, options)]
    process = subprocess.Popen(
        command, env=user.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=user.home
    )
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []
    listener = threading.Thread(target=said.extend, args=(process.stderr,), daemon=True)
    listener.start()
    try:
        line = process.stdout.readline()
        assert line, "".join(said)
        yield Explorer(json.loads(line)["url"], process, said)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        listener.join(5)
        process.stdout.close()
        process.stderr.close()


def make_demos(user: User) -> None:
    """Both demos' traces, `digits` and `icons`, in the user's folder."""
    user.runs.mkdir(parents=True)
    user.fgtrac("demo", "cnn", "--small", "--out", user.runs / "digits")
    user.fgtrac("demo", "graph", "--small", "--out", user.runs / "icons", "--data-dir", ICONS)


def make_runs(user: User) -> None:
    """The demos' traces, and damaged ones: `tampered` (a bit of an entry),
    `broken` (everything behind the middle of its entries is gone) and `unsealed`."""
    make_demos(user)
    for name in ("tampered", "broken"):
        copy_trace(user.runs / "digits.trace", user.runs / f"{name}.trace")
    change_byte(entries_of(user.runs / "tampered.trace"))
    broken = entries_of(user.runs / "broken.trace")
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    made = make_trace(user.home / "unsealed", sealed=False)
    copy_trace(made.trace.path, user.runs / "unsealed.trace")


def copy_trace(trace: Path, copy: Path) -> None:
    """A trace and its vault under another name."""
    shutil.copytree(trace, copy)
    vault = trace.with_suffix(".vault")
    if vault.exists():
        shutil.copy(vault, copy.with_suffix(".vault"))


def entries_of(trace: Path) -> Path:
    """The last file of a trace's entries."""
    files = [p for p in sorted((trace / "tile/entries").rglob("*")) if p.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def change_byte(path: Path, at: int | None = None) -> None:
    """One bit of a file, in its middle by default, is changed."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)
