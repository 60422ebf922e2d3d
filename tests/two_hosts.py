"""Two hosts on one machine, for tests: two network namespaces with a cable between them. Run as a script, one rank of a
training, which tells what its batches held."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rank_processes import Plan, fit

ADDRESSES = ("10.213.7.1", "10.213.7.2")
PORT = 29517
PATIENCE_S = 120.0


def why_not() -> str:
    """Why this machine has no two hosts in it; nothing where it has."""
    if shutil.which("ip") is None:
        return "two hosts need `ip` (iproute2) on PATH"
    if os.geteuid():
        return "two hosts need network namespaces, which only root makes here"
    name = f"fgtrac-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"two hosts need network namespaces, which are refused here: {made.stderr.strip()}"
    entered = subprocess.run(["ip", "netns", "exec", name, "true"], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return f"no process may enter a network namespace here: {entered.stderr.strip()}" if entered.returncode else ""


@contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """The names of two network namespaces, each with its end of one cable, and with nothing else in common."""
    names = f"fgtrac-a-{os.getpid()}", f"fgtrac-b-{os.getpid()}"
    cables = f"fga{os.getpid() % 10**8}", f"fgb{os.getpid() % 10**8}"
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        for name, cable, address in zip(names, cables, ADDRESSES, strict=True):
            _ip("link", "set", cable, "netns", name, "name", "wire")
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "wire")
            for device in ("lo", "wire"):
                _ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def train_on(hosts: tuple[str, str], folders: list[Path], plan: Plan, environment: dict[str, str]) -> list[Any]:
    """Run one rank on each host, in its own folder: what it trained on; of one that failed the error's text."""
    processes = []
    for rank, (host, folder) in enumerate(zip(hosts, folders, strict=True)):
        command = [
            "ip",
            "netns",
            "exec",
            host,
            sys.executable,
            __file__,
            str(rank),
            str(folder),
            json.dumps(asdict(plan)),
        ]
        known = (
            os.environ | environment | {"PYTHONPATH": os.pathsep.join(sys.path), "FGTRAC_KEY": str(folder / "key.pem")}
        )
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, env=known, cwd=folder, **pipes))
    try:
        told = [process.communicate(timeout=PATIENCE_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
    found = []
    for process, (out, error) in zip(processes, told, strict=True):
        found.append(_trained(json.loads(out.splitlines()[-1])) if process.returncode == 0 else error)
    return found


def _trained(said: list[Any]) -> list[tuple[Any, ...]]:
    return [tuple(one) for one in said]


def main() -> None:
    """One rank."""
    import torch
    import torch.distributed as dist

    rank, folder, plan = int(sys.argv[1]), Path(sys.argv[2]), Plan(**json.loads(sys.argv[3]))
    if plan.killed_at is not None:
        plan = Plan(**asdict(plan) | {"killed_at": tuple(plan.killed_at)})
    os.environ |= {"MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": str(PORT), "GLOO_SOCKET_IFNAME": "wire"}
    torch.set_num_threads(1)
    if plan.grouped:
        dist.init_process_group("gloo", rank=rank, world_size=2)
    print(json.dumps(fit(rank, 2, folder, plan)[0]), flush=True)


if __name__ == "__main__":
    main()
