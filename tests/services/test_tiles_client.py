"""`aics-tlog` (from PyPI, not ours) reads a served trace: its head, an entry's inclusion, and that it only grew."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.tlog.note import Verifier, format_vkey
from fgtrac.tlog.tiles import read_entries
from traces import Made, start_trace

PROGRAM = Path(sys.executable).with_name("aics-tlog")
SIZE = 700


@dataclass(frozen=True)
class Log:
    """A served log of 700 entries: its URL, and the head that was signed at 300 of them."""

    made: Made
    url: str
    old_note: Path


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    folder = tmp_path_factory.mktemp("log")
    made, writing = start_trace(folder)
    for size in (300, SIZE):
        while writing.recorder.next_seq < size:
            writing.use([writing.step % 20])
        made.seal(full=False)
        (folder / str(size)).write_bytes(made.trace.read("checkpoint"))
    writing.recorder.close()
    command = [sys.executable, "-c", "from fgtrac.cli.main import main; main()", "serve", made.trace.path, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield Log(made, json.loads(server.stdout.readline())["url"], folder / "300")
        finally:
            server.terminate()


def ask(log: Log, *arguments: object, key: Verifier | None = None) -> tuple[int, dict[str, object]]:
    """What the client makes of the log under a key (default: the log's): exit code and the object that it prints."""
    named = ["--tiles", log.url, "--log-key", format_vkey(key or log.made.verifier)]
    done = subprocess.run([PROGRAM, *map(str, arguments), *named], capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout)


def test_it_checks_the_head(log: Log) -> None:
    code, said = ask(log, "verify-checkpoint")
    assert (code, said["size"]) == (0, SIZE), said


@pytest.mark.parametrize("index", [0, 255, 256, SIZE - 1])
def test_it_checks_that_an_entry_is_in_the_log_and_gets_its_bytes(log: Log, index: int, tmp_path: Path) -> None:
    code, said = ask(log, "verify-inclusion", "--index", index, "--entry-out", tmp_path / "entry")
    assert code == 0, said
    assert [(tmp_path / "entry").read_bytes()] == list(read_entries(log.made.trace, index, index + 1, SIZE))


def test_it_checks_that_the_log_extends_an_older_head(log: Log) -> None:
    code, said = ask(log, "verify-consistency", "--old-checkpoint", log.old_note)
    assert code == 0, said


def test_it_refuses_another_key_and_an_entry_that_is_not_there(log: Log) -> None:
    code, said = ask(log, "verify-inclusion", "--index", SIZE)
    assert code == 1, said
    stranger = Ed25519PrivateKey.from_private_bytes(b"s" * 32).public_key().public_bytes_raw()
    code, said = ask(log, "verify-checkpoint", key=Verifier(log.made.verifier.name, stranger))
    assert (code, "signature" in str(said)) == (1, True), said
