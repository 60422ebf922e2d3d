"""The one door to Ray: what runs in the process that is Ray's driver. `cluster.py` starts that process, and asks it.

What is printed there goes nowhere: Ray tells a driver's standard output of lost workers.
"""

from __future__ import annotations

import logging
import os
import pathlib
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import ray
from ray.exceptions import GetTimeoutError, LocalRayletDiedError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fgtrac.engine.units import DONE, LOST, RAISED, attempt, gone
from fgtrac.errors import EngineError

WAIT_S = 2.0  # so that a command that is stopped need not wait for a long unit
NODES_S = 60.0  # for every node to answer
STORE_BYTES = 128 << 20  # of a cluster of our own: results are small, Ray asks for 75 MB at least

# Ray's types are too many for the first two, and none for the others.
_init: Any = partial(ray.init, log_to_driver=False, logging_level=logging.CRITICAL)
_remote: Any = ray.remote
_cluster_resources: Any = ray.cluster_resources
_nodes: Any = ray.nodes


class _Driver:
    """The state of the driver's process: the task that does a unit, and which units are under way."""

    task: ClassVar[Any]
    under_way: ClassVar[dict[Any, int]] = {}


def silence() -> None:
    """Send what this process and all it starts print nowhere."""
    warnings.simplefilter("ignore")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    if nowhere > 2:
        os.close(nowhere)
    else:  # it is one of them, which was closed before
        os.set_inheritable(nowhere, True)


def join(address: str | None, cores: int, folder: str) -> tuple[int, str]:
    """Drive the cluster at an address (`ray://HOST:PORT`, HOST:PORT of its head, or `auto` for what `ray start` began
    here), or one of this machine's own, which has its sockets and logs in the folder. How many units it does at once,
    and the address where it listens; EngineError where Ray will not."""
    try:
        if address is None:
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # its workers import from where we do
            own = {"num_cpus": cores, "include_dashboard": False, "object_store_memory": STORE_BYTES}
            _init("local", _temp_dir=folder, **own)
        else:
            _init(address)
    except (ConnectionError, RuntimeError) as error:  # RuntimeError: versions of Ray or Python differ
        raise EngineError(_not_joined(address, error)) from None
    _Driver.task = _remote(num_cpus=1, max_retries=0)(attempt)
    workers = int(_cluster_resources().get("CPU", 0))
    if not workers:
        raise EngineError(f"the Ray cluster at {address} has no CPU for units of work")
    return workers, address if address and ":" in address else ray.get_runtime_context().gcs_address


def _not_joined(address: str | None, error: Exception) -> str:
    where, words = address or "this machine", " ".join(str(error).split())
    if "Authentication token" in f"{error.__cause__}":
        return f"the Ray cluster at {where} asks for a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
    if "ersion" in words or "ncompatible" in words:
        return f"the Ray cluster at {where} is of another version: {words:.400}"
    return (
        f"the Ray cluster at {where} cannot be joined: {words:.400}; a machine that is no node of it names it "
        "ray://HOST:10001, and a cluster that asks for a token needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
    )


def check_versions() -> None:
    """That every node has this process's fgtrac and Python. EngineError where one does not."""

    def installed() -> str:  # a function in a function is pickled by value: this one runs where there is no fgtrac
        import platform
        from importlib import metadata

        try:
            version = metadata.version("fgtrac")
        except metadata.PackageNotFoundError:
            version = "none"
        return f"fgtrac {version} on Python {platform.python_version()}"

    ours = installed()
    for node, theirs in _on_every_node(installed):
        if theirs != ours:
            raise EngineError(
                f"the Ray node {node} has {theirs}, and this machine {ours}: install the same there, so that every "
                "worker writes the same bytes"
            )


def check_seen(path: str, content: bytes) -> None:
    """That every node reads these bytes at this path. EngineError where one does not."""

    def seen() -> bool:
        try:
            return pathlib.Path(path).read_bytes() == content
        except OSError:
            return False

    for node, sees in _on_every_node(seen):
        if not sees:
            raise EngineError(
                f"the Ray node {node} does not see {pathlib.Path(path).parent} of this machine, where units of work "
                "read and write; put the trace and its scratch on a disk that all nodes mount at the same path"
            )


def step(work: Callable[[Any], Any], units: list[tuple[int, Any]]) -> list[tuple[int, str, Any]]:
    """Begin these units, and wait a while for an outcome: of none or more units the number, of which kind, and what.
    EngineError where this machine is no node any more."""
    for number, unit in units:
        _Driver.under_way[_Driver.task.remote(work, unit)] = number
    waits = list(_Driver.under_way)
    ray.wait(waits, num_returns=1, timeout=WAIT_S)
    ready = ray.wait(waits, num_returns=len(waits), timeout=0)[0]
    return [(_Driver.under_way.pop(task), *_outcome(task)) for task in ready]


def give_up() -> None:
    """Cancel whatever is under way."""
    for task in _Driver.under_way:
        ray.cancel(task, force=True)
    _Driver.under_way.clear()


def leave() -> None:
    """Leave the cluster, which ends one of our own."""
    ray.shutdown()


def _outcome(task: Any) -> tuple[str, Any]:
    try:
        return DONE, ray.get(task)
    except RayTaskError as error:
        return RAISED, error.cause if isinstance(error.cause, Exception) else EngineError(str(error))
    except LocalRayletDiedError:
        raise gone("the Ray node of this machine") from None
    except RayError as error:
        return LOST, type(error).__name__


def _on_every_node(ask: Callable[[], Any]) -> list[tuple[str, Any]]:
    """The address of each living node, and what it answers."""
    asked = []
    for node in _nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            answer = _remote(num_cpus=0, scheduling_strategy=there)(ask).remote()
            asked.append((node["NodeManagerAddress"], answer))
    deadline = time.monotonic() + NODES_S
    answers = []
    for node, answer in asked:
        try:
            answers.append((node, ray.get(answer, timeout=max(1.0, deadline - time.monotonic()))))
        except GetTimeoutError:
            raise EngineError(f"the Ray node {node} started no worker within {NODES_S:.0f} seconds") from None
        except RayError as error:
            raise EngineError(f"the Ray node {node} runs no unit: {str(error).splitlines()[0]}") from None
    return answers
