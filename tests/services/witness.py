"""The witness `aics-witness` (from PyPI, not ours) on loopback: started, told of logs, stopped and started again."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from fgtrac.tlog.note import Verifier, format_vkey

PROGRAM = Path(sys.executable).with_name("aics-witness")
READY_S = 30.0
_LISTENING = re.compile(r"listening on (http://\S+)")


@dataclass
class WitnessServer:
    """A witness with its folder; `vkey` is its own key, `url` its submission prefix while it runs."""

    folder: Path
    vkey: str
    url: str = ""

    def add_log(self, log: Verifier, origin: str | None = None) -> None:
        """Have it know a log by a key, from its next start on."""
        self._run("add-log", "--origin", log.name if origin is None else origin, "--vkey", format_vkey(log))

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """The witness at work, on a free port: its URL."""
        command = [str(PROGRAM), "serve", "--config", self._config]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=_environment())
        assert process.stderr is not None
        lines: queue.Queue[str] = queue.Queue()
        reader = threading.Thread(target=_read, args=(process.stderr, lines), daemon=True)
        reader.start()
        try:
            self.url = _listening(lines)
            yield self.url
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(READY_S)
            reader.join(READY_S)
            process.stderr.close()

    @property
    def _config(self) -> str:
        return str(self.folder / "witness.json")

    def _run(self, *arguments: str) -> str:
        command = [str(PROGRAM), arguments[0], "--config", self._config, *arguments[1:]]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=_environment()).stdout


def make_witness(folder: Path, name: str = "witness.example/w1", prefix: str = "") -> WitnessServer:
    """A new witness in a folder of its own, which knows no log yet. The test is skipped where it is not installed."""
    if not PROGRAM.exists():
        pytest.skip("aics-witness is not installed; make test-services installs it")
    folder.mkdir()
    witness = WitnessServer(folder, "")
    witness.vkey = witness._run("init", "--name", name, "--listen", "127.0.0.1:0", "--prefix", prefix).strip()
    return witness


def _listening(lines: queue.Queue[str]) -> str:
    """The URL that it says it listens on."""
    said = []
    while True:
        try:
            said.append(lines.get(timeout=READY_S))
        except queue.Empty:
            raise AssertionError(f"the witness did not start: {''.join(said)}") from None
        if found := _LISTENING.search(said[-1]):
            return found[1]


def _read(source: IO[str], lines: queue.Queue[str]) -> None:
    for line in source:
        lines.put(line)


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in ("WITNESS_SEED_HEX", "AICS_WITNESS_CONFIG")}
