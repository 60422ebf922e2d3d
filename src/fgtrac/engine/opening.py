"""An engine by its name: `local`, `local:N`, `ray` or `ray://HOST:PORT`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

from fgtrac.engine.alone import Alone
from fgtrac.engine.local import LocalPool, cores
from fgtrac.engine.units import Engine

FORMS = "local, local:N (N processes), ray (your cluster, else one of this machine) or ray://HOST:PORT"
MOST_PROCESSES = 1024
MOST_PORT = (1 << 16) - 1

_LOCAL = re.compile(r"local(?::([0-9]{1,9}))?")
_RAY = re.compile(r"ray(?:://([^\s/:]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5}))?")


def named_engine(environment: Mapping[str, str] = os.environ) -> str:
    """The engine that is meant where none is named: FGTRAC_ENGINE, else `local`."""
    return environment.get("FGTRAC_ENGINE") or "local"


def check_engine(text: str) -> None:
    """ValueError for a name that no engine has; nothing is started."""
    local, far = _LOCAL.fullmatch(text), _RAY.fullmatch(text)
    if not (local or far):
        raise ValueError(f"{text!r:.200} is no engine; an engine is {FORMS}")
    if local and local[1] and not 0 < int(local[1]) <= MOST_PROCESSES:
        raise ValueError(f"{text} is no engine: local:N has 1 to {MOST_PROCESSES} processes")
    if far and far[2] and not 0 < int(far[2]) <= MOST_PORT:
        raise ValueError(f"{text} is no engine: a port is 1 to {MOST_PORT}")


@contextmanager
def open_engine(text: str | None = None) -> Iterator[Engine]:
    """The engine of this name, None for the one that FGTRAC_ENGINE names, else `local`: ended with the block.

    ValueError for a name that is none, and where Ray is not installed; EngineError where no cluster is there.
    """
    text = named_engine() if text is None else text
    check_engine(text)
    if local := _LOCAL.fullmatch(text):
        workers = cores() if local[1] is None else int(local[1])
        if workers == 1:
            yield Alone()
            return
        with closing(LocalPool(workers)) as pool:
            yield pool
        return
    from fgtrac.engine.cluster import RayCluster  # the only one that needs a network

    with closing(RayCluster(None if text == "ray" else text, cores())) as cluster:
        yield cluster
