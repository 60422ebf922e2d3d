"""A Ray cluster on this machine, one for each test module that asks: `ray start`, with its client server. And an S3
server, one for all, with a trace that is pushed there."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine_units import wait_until
from far_traces import Growing, new_place
from fgtrac.cli.main import main
from s3_servers import Server, ceph, free_port

TESTS = Path(__file__).parents[1]
STORE_BYTES = 200_000_000  # of shared memory
MARK = "FGTRAC_TEST_CLUSTER"
FORKS = {"GRPC_ENABLE_FORK_SUPPORT": "0"}  # a client server forks under threads of gRPC, and crashes at times


@dataclass(frozen=True)
class Cluster:
    """A head of two CPUs in a folder of its own."""

    folder: Path
    head: str  # RAY_ADDRESS of whoever is on this machine
    client: str  # the engine's name
    unseen: Path  # a folder that is another one for its workers

    def pids(self) -> list[int]:
        """Its processes: those with its mark in their environment, and their children, whose titles hide theirs."""
        parents, found = dict[int, int](), set[int]()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                if f"{MARK}={self.folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
                    found.add(int(process.name))
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return sorted(found)

    def kill(self) -> None:
        """End them, all at once."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def start_cluster() -> Cluster:
    """Without a token: what a test says of `ray://` must not depend on whoever runs it."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: a socket's path has 107 bytes
    head, client, unseen = free_port(), free_port(), folder / "unseen"
    unseen.mkdir()
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--include-dashboard=false", "--num-cpus=2"]
    apart = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {unseen} && exec "$@"', "sh"]
    subprocess.run(
        [*apart, *ray, f"--port={head}", f"--ray-client-server-port={client}", f"--object-store-memory={STORE_BYTES}",
         "--disable-usage-stats", "--node-ip-address=127.0.0.1", f"--temp-dir={folder}"],
        env={**os.environ, "PYTHONPATH": str(TESTS), "RAY_AUTH_MODE": "disabled", **FORKS, MARK: str(folder)},
        check=True,
        capture_output=True,
        timeout=120,
    )  # fmt: skip
    wait_until(lambda: listens(client))  # the client server, which comes last
    return Cluster(folder, f"127.0.0.1:{head}", f"ray://127.0.0.1:{client}", unseen)


def end_cluster(cluster: Cluster) -> None:
    """Leave neither a process nor a file of it."""
    while cluster.pids():
        cluster.kill()
    shutil.rmtree(cluster.folder)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Ceph's object gateway."""
    with ceph(tmp_path_factory.mktemp("ceph")) as server:
        yield server


@pytest.fixture
def growing(tmp_path: Path) -> Growing:
    """A sealed trace of 300 batches, to be pushed."""
    made = Growing(tmp_path)
    made.more(300)
    return made


@pytest.fixture
def url(s3: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where nothing lies on the S3 server."""
    return new_place(s3, monkeypatch)


@pytest.fixture
def run_verb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`fgtrac ARGUMENTS...`; its exit code."""

    def command(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["fgtrac", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0)

    return command


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One for all tests of a module."""
    started = start_cluster()
    yield started
    end_cluster(started)


@pytest.fixture
def passing_cluster() -> Iterator[Cluster]:
    """One that a test may end."""
    started = start_cluster()
    yield started
    end_cluster(started)


def listens(port: int) -> bool:
    """Whether anybody does on loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
