"""The engine of a Ray cluster, as this process sees it: Ray's driver is a process of its own.

Ray ends its driver a minute after the cluster's head is gone, prints to its standard output and takes over its signals.
The driver is a child, so that nothing of this reaches the process that asked.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fgtrac.engine.child import Child, LostError, NotYetError
from fgtrac.engine.units import IN_FLIGHT, LOST, RAISED, TRIES, R, U, gone, lost
from fgtrac.errors import EngineError, not_installed
from fgtrac.store import durable

ANSWER_S, JOIN_S, START_S, LEAVE_S = 5.0, 60.0, 120.0, 15.0  # a port, a cluster, one of our own, its end
LOOK_S, LOOKS = 2.0, 3  # between two looks whether the cluster's head still listens, and how many it takes
QUIET_S = 60.0  # without a unit that has ended, until something is said

_HOST_PORT = re.compile(r"(?:ray://)?([^\s/:]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")


class RayCluster:
    """The cluster at `ray://HOST:PORT`; without an address, the one that this process is part of, RAY_ADDRESS or
    `ray start` names, else one of this machine's own, which ends with `close`."""

    def __init__(self, address: str | None, cores: int) -> None:
        """ValueError where Ray is not installed, EngineError where no such cluster is there or may be used."""
        for module in ("ray", "grpc") if address else ("ray",):
            if importlib.util.find_spec(module) is None:
                raise not_installed(f"--engine {address or 'ray'} needs", module, "ray")
        self.name = address or "ray"
        if address is None:
            address = running_cluster()
        else:
            _ask_port(address)
        self._folder = tempfile.mkdtemp(
            prefix="fgtrac-ray-", dir="/tmp"
        )  # of our own cluster: its sockets' paths are short
        self._driver: Child | None = Child(_silence)
        self._head: str | None = None  # where it listens, once it is joined
        try:
            limit = JOIN_S if address else START_S
            joined: tuple[int, str] = self._ask("join", address, cores, self._folder, limit_s=limit)
            self.workers, self._head = joined
            self._ask("check_versions")
        except BaseException:
            self.close()
            raise

    def results(
        self,
        work: Callable[[U], R],
        units: Sequence[U],
        *,
        what: str,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[tuple[int, R]]:
        """As `Engine.results`."""
        waiting, tries, under_way, done = deque(range(len(units))), [0] * len(units), 0, 0
        heard = time.monotonic()
        try:
            while done < len(units):
                now = [waiting.popleft() for _ in range(min(len(waiting), self.workers * IN_FLIGHT - under_way))]
                under_way += len(now)
                outcomes = self._ask("step", work, [(number, units[number]) for number in now])
                under_way -= len(outcomes)
                for number, kind, value in outcomes:
                    if kind == RAISED:
                        raise value
                    if kind == LOST:
                        tries[number] += 1
                        if tries[number] == TRIES:
                            raise lost(what, number, len(units), value)
                        waiting.appendleft(number)
                        continue
                    done += 1
                    if progress is not None:
                        progress(done, len(units))
                    yield number, value
                heard = time.monotonic() if outcomes else self._mind_quiet(heard, what)
        finally:
            if under_way and self._driver:
                with suppress(EngineError):  # it is gone, or being ended: there is nothing to give up
                    self._ask("give_up", limit_s=LEAVE_S)

    def _mind_quiet(self, heard: float, what: str) -> float:
        """Say once that no unit has ended for long: Ray has them wait for CPUs without a word. When one was last heard
        of, as far as that is still to be said."""
        if time.monotonic() - heard < QUIET_S:
            return heard
        warnings.warn(
            f"fgtrac: {what}: no unit has ended on {self.name} for {QUIET_S:.0f} seconds; each takes a CPU, and waits "
            "where other work has them all (`ray status` says so): leave it some, or take another --engine",
            RuntimeWarning,
            stacklevel=3,
        )
        return math.inf

    def check_shared(self, folder: Path) -> None:
        """As `Engine.check_shared`. OSError where nothing may be written there. A command that is killed meanwhile
        leaves a file in a trace, which is known by its name there, and removed once nobody holds it."""
        probe = folder / f"engine-{secrets.token_hex(8)}{durable.TEMPORARY}"
        content = secrets.token_bytes(16)
        durable.write_file(probe, content, sync=False)
        try:
            with durable.alone_with(probe):
                self._ask("check_seen", str(probe.absolute()), content)
        finally:
            durable.remove(probe)

    def close(self) -> None:
        """Leave the cluster; one of our own ends."""
        try:
            if self._driver:
                with suppress(EngineError):  # it is gone: there is nothing to leave
                    self._ask("leave", limit_s=LEAVE_S)
        finally:
            self._end_driver()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, question: str, *given: Any, limit_s: float = math.inf) -> Any:
        """What a function of `ray.py` gives in the driver's process; a cluster that is gone may leave it waiting."""
        if self._driver is None:
            raise gone(f"the Ray cluster {self.name}")
        number, end = self._driver.give(_in_driver, question, *given), time.monotonic() + limit_s
        while True:
            try:
                return self._driver.take(number, min(LOOK_S, max(0.0, end - time.monotonic())))
            except LostError:
                driver, self._driver = self._driver, None
                raise gone(f"the process that drives Ray ({driver.lost()})") from None
            except ConnectionError:  # Ray's: what a unit raises is an outcome
                self._end_driver()
                raise gone(f"the Ray cluster {self.name}") from None
            except NotYetError:
                if time.monotonic() >= end:
                    self._end_driver()
                    raise EngineError(f"{self.name}: no answer of a Ray cluster within {limit_s:.0f} seconds") from None
                if self._head and _went_away(self._head):
                    self._end_driver()
                    raise gone(f"the Ray cluster {self.name}") from None

    def _end_driver(self) -> None:
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.end()


def running_cluster(environment: Mapping[str, str] = os.environ) -> str | None:
    """The address of the cluster that this process is part of, else RAY_ADDRESS, else `auto` where `ray start` began
    one on this machine. EngineError where nobody listens at RAY_ADDRESS."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        return str(ray.get_runtime_context().gcs_address)
    named = environment.get("RAY_ADDRESS")
    if named and named not in ("auto", "local"):
        _ask_port(named)
        return named
    noted = Path(environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp") / "ray" / "ray_current_cluster"
    try:
        address = noted.read_text("utf-8").strip()
        _ask_port(address)
    except (OSError, EngineError):
        return None  # none was started, or it has ended since
    return "auto"


def _ask_port(address: str) -> None:
    """EngineError where nobody listens, at once; Ray itself would try for half a minute."""
    if _HOST_PORT.fullmatch(address) is None:
        raise EngineError(f"{address!r:.200} is no address of a Ray cluster: ray://HOST:PORT, or HOST:PORT of its head")
    if not _listens(address):
        raise EngineError(
            f"no Ray cluster at {address}: nobody listens there. `ray status` on its head says whether one runs; it "
            "listens for ray:// at port 10001 unless it was told another"
        )


def _listens(address: str) -> bool:
    parts = _HOST_PORT.fullmatch(address)
    assert parts is not None
    try:
        socket.create_connection((parts[1].strip("[]"), int(parts[2])), timeout=ANSWER_S).close()
    except (OSError, OverflowError):
        return False
    return True


def _went_away(address: str) -> bool:
    """Whether nobody listens any more: asked several times, since one packet may be lost, or the head be busy."""
    for look in range(LOOKS):
        if look:
            time.sleep(LOOK_S)
        if _listens(address):
            return False
    return True


def _silence() -> None:
    _in_driver("silence")


def _in_driver(question: str, *given: Any) -> Any:
    """Only the driver's process imports Ray."""
    return getattr(importlib.import_module("fgtrac.engine.ray"), question)(*given)
