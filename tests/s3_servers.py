"""Real S3 servers on loopback: Ceph's object gateway over a store in memory; rclone's, which heeds no conditions."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KEY, SECRET = "AKIDEXAMPLE", "secretexample"
STRANGER = "STRANGEREXAMPLE"  # may log in, and has no bucket

CONF = """[global]
fsid = {fsid}
mon host = [v1:127.0.0.1:{mon}]
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
run dir = {folder}/run
log file = {folder}/$name.log
admin socket = {folder}/run/$name.asok
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 2
osd pool default pgp num = 2
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail crit = 1
osd objectstore = memstore
memstore device bytes = 1073741824
osd memory target = 939524096
ms bind msgr2 = false
[mon.a]
mon data = {folder}/mon
[osd.0]
osd data = {folder}/osd
public addr = 127.0.0.1
cluster addr = 127.0.0.1
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw data = {folder}/rgw
rgw enable usage log = false
"""


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server listens, and the environment that a client needs."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self, port: int | None = None, key: str = KEY) -> dict[str, str]:
        """What says who asks and where; `port` is that of a proxy before it."""
        return {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_EC2_METADATA_DISABLED": "true",
            "FGTRAC_S3_ENDPOINT": f"http://127.0.0.1:{port or self.port}",
            "FGTRAC_S3_TIMEOUT_S": "20",
        }


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def ceph(folder: Path) -> Iterator[Server]:
    """As `_ceph`; begun anew where the store does not come up in time, as happens where the machine is busy."""
    with contextlib.ExitStack() as stack:
        for tries_left in (2, 1, 0):
            try:
                server = stack.enter_context(_ceph(folder))
                break
            except subprocess.TimeoutExpired:
                if not tries_left:
                    raise
        yield server


@contextlib.contextmanager
def _ceph(folder: Path) -> Iterator[Server]:
    """A monitor, one store in memory, and the gateway; two users. They end with the block."""
    missing = [tool for tool in ("ceph-mon", "ceph-osd", "radosgw") if shutil.which(tool) is None]
    assert not missing, f"{missing[0]} is not on PATH: apt-get install radosgw ceph-mon ceph-osd"
    short = Path(f"/tmp/fgtrac-ceph-{os.getpid()}-{uuid.uuid4().hex[:6]}")  # a socket's path has at most 107 bytes
    for name in ("mon", "osd", "run", "rgw"):
        (short / name).mkdir(parents=True, mode=0o700)
    fsid, mon, port = str(uuid.uuid4()), free_port(), free_port()
    conf = short / "ceph.conf"
    conf.write_text(CONF.format(fsid=fsid, mon=mon, port=port, folder=short))

    def run(*command: str) -> str:
        said = subprocess.run([*command[:1], "-c", str(conf), *command[1:]], capture_output=True, text=True, timeout=30)
        assert said.returncode == 0, f"{command}: {said.stderr[-2000:]}"
        return said.stdout

    keyring = [
        "ceph-authtool",
        "--create-keyring",
        str(short / "keyring"),
        "--gen-key",
        "-n",
        "mon.",
        "--cap",
        "mon",
        "allow *",
    ]
    monmap = ["monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v1:127.0.0.1:{mon}]", str(short / "monmap")]
    for command in (keyring, monmap):
        subprocess.run(command, check=True, capture_output=True)
    run("ceph-mon", "--mkfs", "-i", "a", "--monmap", str(short / "monmap"), "--keyring", str(short / "keyring"))
    running: list[subprocess.Popen[bytes]] = []

    def begin(*command: str) -> None:
        with (folder / f"{command[0]}.out").open("wb") as out:
            running.append(subprocess.Popen([command[0], "-c", str(conf), "-f", *command[1:]], stdout=out, stderr=out))

    try:
        begin("ceph-mon", "-i", "a")
        store = str(uuid.uuid4())
        run("ceph", "--connect-timeout", "30", "osd", "new", store)
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", store)
        begin("ceph-osd", "-i", "0")
        for name in (KEY, STRANGER):
            run(
                "radosgw-admin",
                "user",
                "create",
                "--uid",
                name,
                "--display-name",
                name,
                "--access-key",
                name,
                "--secret-key",
                SECRET,
            )
        begin("radosgw", "-n", "client.rgw")
        await_answer(port)
        yield Server(port)
    finally:
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
        for process in reversed(running):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(short)


@contextlib.contextmanager
def rclone(folder: Path) -> Iterator[Server]:
    """`rclone serve s3` over a folder."""
    port = free_port()
    program = Path(sys.executable).with_name("rclone")
    command = [str(program), "serve", "s3", "--auth-key", f"{KEY},{SECRET}", "--addr", f"127.0.0.1:{port}", str(folder)]
    environment = {**os.environ, "RCLONE_CONFIG": "/dev/null"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as server:
        try:
            await_answer(port)
            yield Server(port)
        finally:
            server.terminate()


def await_answer(port: int, limit_s: float = 60.0) -> None:
    """Wait until somebody answers HTTP there."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            assert time.monotonic() < deadline, f"nobody answers at port {port}"
            time.sleep(0.1)
