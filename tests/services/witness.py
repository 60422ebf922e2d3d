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
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fgtrac.tlog.note import Verifier, format_vkey

PROGRAM = Path(sys.executable).with_name("aics-witness")
READY_S = 30.0
STOP_S = 5.0
_LISTENING = re.compile(r"listening on (http://\S+)")
_RELOADED = re.compile(r"reloaded (\S+):")


@dataclass
class WitnessServer:
    """A witness with its folder; `vkey` is its own key, `url` its submission prefix while it runs."""

    folder: Path
    vkey: str
    url: str = ""
    _process: subprocess.Popen[str] | None = None
    _lines: queue.Queue[str] = field(default_factory=queue.Queue)

    def add_log(self, log: Verifier, origin: str | None = None) -> None:
        """Have it know a log by a key, at once where it runs."""
        self._run("add-log", "--origin", log.name if origin is None else origin, "--vkey", format_vkey(log))
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)
            _wait_for(_RELOADED, self._lines)

    @contextlib.contextmanager
    def running(self, port: int = 0) -> Iterator[str]:
        """The witness at work, on that port or a free one: its URL."""
        command = [str(PROGRAM), "serve", "--config", self._config, "--listen", f"127.0.0.1:{port}"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=_environment())
        assert process.stderr is not None
        reader = threading.Thread(target=_read, args=(process.stderr, self._lines), daemon=True)
        reader.start()
        try:
            self.url = _wait_for(_LISTENING, self._lines)
            self._process = process
            yield self.url
        finally:
            self._process = None
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:  # it hangs where it is told to stop while it is just starting
                process.kill()
                process.wait()
            reader.join(READY_S)
            process.stderr.close()

    @property
    def _config(self) -> str:
        return str(self.folder / "witness.json")

    def _run(self, *arguments: str) -> str:
        command = [str(PROGRAM), arguments[0], "--config", self._config, *arguments[1:]]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=_environment()).stdout


def make_witness(folder: Path, name: str = "witness.example/w1", prefix: str = "") -> WitnessServer:
    """A new witness in a folder of its own, which knows no log yet."""
    if not PROGRAM.exists():
        raise FileNotFoundError(f"there is no {PROGRAM}; make test-services installs it")
    folder.mkdir()
    witness = WitnessServer(folder, "")
    witness.vkey = witness._run("init", "--name", name, "--listen", "127.0.0.1:0", "--prefix", prefix).strip()
    return witness


def _wait_for(words: re.Pattern[str], lines: queue.Queue[str]) -> str:
    """What it says in these words."""
    said = []
    while True:
        try:
            said.append(lines.get(timeout=READY_S))
        except queue.Empty:
            raise AssertionError(f"the witness did not say {words.pattern}: {''.join(said)}") from None
        if found := words.search(said[-1]):
            return found[1]


def _read(source: IO[str], lines: queue.Queue[str]) -> None:
    for line in source:
        lines.put(line)


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in ("WITNESS_SEED_HEX", "AICS_WITNESS_CONFIG")}
