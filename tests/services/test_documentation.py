"""What docs/anchors.md tells to try on one machine, line by line as it stands there; only the ports are others."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from services.anvil import ANVIL
from services.witness import PROGRAM

ROOT = Path(__file__).parents[2]
PORTS = ("8545", "8318", "8319")  # as the page has them: the chain, the authority, the witness
START = re.compile(r"npm install \S+ && npx anvil|python examples/local_tsa\.py|aics-witness serve")


def commands() -> list[str]:
    """The indented lines of the section, without what only installs."""
    page = (ROOT / "docs/anchors.md").read_text()
    section = page.partition("## Try it on one machine\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^    (.+)$", section, re.MULTILINE)
    return [line for line in lines if not line.startswith("pip install")]


ADD_LOG = """\
    origin = run.vkey.partition("+")[0]
    command = ["aics-witness", "add-log", "--config", "witness.json", "--vkey", run.vkey, "--origin", origin]
    subprocess.run(command, check=True)
    os.kill(int(open("witness.pid").read()), signal.SIGHUP)
"""  # what the witness's owner does with the line that is printed


def while_training(places: dict[str, str]) -> str:
    """The page's lines of Python, with something to load, this test's services, and a witness's owner who reads."""
    (code,) = re.findall(r"```python\n(.+?)```", (ROOT / "docs/anchors.md").read_text(), re.DOTALL)
    for name, port in (("tsa", "8318"), ("witness", "8319")):
        assert f"https://{name}.example/" in code
        code = code.replace(f"https://{name}.example/", f"http://127.0.0.1:{places[port]}/")
    before, told, after = re.split(r"(    print\(run\.vkey\).*\n)", code)
    return (
        "import fgtrac, os, signal, subprocess, torch\n"
        "loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(8, 1)))\n"
        + before + told + ADD_LOG + after.replace("    ...", "    list(loader)")
    )  # fmt: skip


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return str(found.getsockname()[1])


@contextmanager
def service(command: str, folder: Path, environment: dict[str, str], port: str) -> Iterator[int]:
    """A command that goes on until the block is left, once its port is open: its process."""
    process = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=folder, env=environment, stderr=subprocess.PIPE)
    try:
        for _ in range(600):
            assert process.poll() is None, (command, process.communicate())
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", int(port))) == 0:
                    break
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.skipif(not (ANVIL.exists() and PROGRAM.exists()), reason="make test-services installs what it takes")
def test_the_commands_work_as_written(tmp_path: Path) -> None:
    places = {
        "npm install @foundry-rs/anvil && npx anvil": str(ANVIL),
        "python examples/": f"{sys.executable} {ROOT}/examples/",
        **{port: free_port() for port in PORTS},
    }
    bins = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": bins, "FGTRAC_KEY": str(tmp_path / "key.pem"), "COLUMNS": "300"}
    subprocess.run([sys.executable, ROOT / "examples/ten_lines.py"], cwd=tmp_path, env=environment, check=True)
    (tmp_path / "while_training.py").write_text(while_training(places))
    said, ports = [], iter(PORTS)
    with ExitStack() as running:
        for line in [*commands(), "python while_training.py"]:
            is_service = START.match(line)
            for there, here in places.items():
                line = line.replace(there, here)
            if is_service:
                pid = running.enter_context(service(line, tmp_path, environment, places[next(ports)]))
                (tmp_path / "witness.pid").write_text(str(pid))  # the last is the witness's
                continue
            done = subprocess.run(
                ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, (line, done.stdout, done.stderr)
            said.append(done.stdout + done.stderr)
    *_, verified, stamped, _ = said
    assert re.findall(r"^ (rfc3161|witness|evm) +│ (\w+)", verified, re.MULTILINE) == [
        ("rfc3161", "holds"), ("witness", "holds"), ("evm", "holds"),
    ]  # fmt: skip
    assert verified.rstrip().endswith("holds")
    assert "Verification: OK" in stamped
    for receipt in ("*.tsr", "witness-*"):
        assert len(list((tmp_path / "runs/cnn.trace/receipts").glob(f"*/{receipt}"))) == 2  # its one epoch, and the end
