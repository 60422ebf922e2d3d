"""Which training function a file of retrainings is of: its name, and a digest of what it says."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

PLAIN = (bool, int, float, complex, str, bytes, type(None))


@dataclass(frozen=True, slots=True)
class Function:
    """A function's qualified name, and a SHA-256 (hex) over the bytes of its source file (of its code, where there is
    no such file) and the plain values bound to it: arguments of a partial, closed-over variables, an object's
    attributes. What it imports is not looked at."""

    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name[-60:]} ({self.digest[:16]})"


def identify(function: Callable[..., Any]) -> Function:
    """Which function this is."""
    bound: list[str] = []
    while isinstance(function, functools.partial) or hasattr(function, "__wrapped__"):
        if isinstance(function, functools.partial):
            bound += _plain([*function.args, *sorted(function.keywords.items())])
        function = function.func if isinstance(function, functools.partial) else function.__wrapped__
    if (owner := getattr(function, "__self__", None)) is not None:
        bound += _plain(sorted(getattr(owner, "__dict__", {}).items()))
    inner = getattr(function, "__func__", function)
    if not hasattr(inner, "__code__") and not hasattr(inner, "__qualname__"):
        bound += _plain(sorted(getattr(inner, "__dict__", {}).items()))
        inner = getattr(type(inner).__call__, "__func__", type(inner).__call__)
    code = getattr(inner, "__code__", None)
    bound += _plain(_contents(inner))
    name = str(getattr(inner, "__qualname__", type(inner).__qualname__))
    digest = hashlib.sha256(_source(inner, code))
    digest.update(repr((name, getattr(code, "co_firstlineno", 0), bound)).encode())
    return Function(name, digest.hexdigest())


def _contents(function: Any) -> Iterator[Any]:
    """The values that a function closes over; those not bound yet have none."""
    for cell in getattr(function, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:
            yield None


def _plain(values: Any) -> list[str]:
    """Each value where it says the same in every process, else what kind it is."""
    out = []
    for value in values:
        if isinstance(value, tuple):
            out.append("(" + ", ".join(_plain(value)) + ")")
        else:
            out.append(repr(value) if type(value) in PLAIN else type(value).__qualname__)
    return out


def _source(function: Any, code: CodeType | None) -> bytes:
    try:
        path = inspect.getsourcefile(function)
    except TypeError:  # built into Python
        path = None
    if path is not None and Path(path).is_file():
        return Path(path).read_bytes()
    return b"" if code is None else repr(_said(code)).encode()


def _said(code: CodeType) -> list[Any]:
    """What a code object does, without addresses and places."""
    consts = [_said(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return [code.co_code, code.co_names, code.co_varnames, consts]
