"""A function of the user's own, named as FILE.py:FUNCTION."""

from __future__ import annotations

import functools
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from fgtrac.errors import FgtracError


class FunctionFailedError(FgtracError):
    """The user's own function raised: where, and what."""


def load_function(named: str) -> Callable[..., Any]:
    """The function FUNCTION of the file FILE.py; the file's folder can be imported from, as python FILE.py would.

    ValueError for what is named otherwise, FileNotFoundError for no such file, FunctionFailedError for whatever
    the file raises when it is run, or the function when it is called.
    """
    return load_functions(named, "")[0]


def load_functions(named: str, other: str) -> tuple[Callable[..., Any], Callable[..., Any] | None]:
    """`load_function`, and the function `other` of the same file; None where it has none."""
    path, name, module = _load(named)
    function, beside = getattr(module, name, None), getattr(module, other, None)
    if not callable(function):
        raise ValueError(f"{path} has no function {name}")
    return _calling(path, function), _calling(path, beside) if callable(beside) else None


def _load(named: str) -> tuple[Path, str, ModuleType]:
    """The file that is named, the function's name, and the file as a module that was run."""
    path_text, colon, name = named.rpartition(":")
    path = Path(path_text)
    if not colon or path.suffix != ".py" or not name.isidentifier():
        raise ValueError(f"{named:.80} names no function; write FILE.py:FUNCTION")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules.setdefault(path.stem, module)  # data loaders' workers look their classes up by it
    _calling(path, spec.loader.exec_module)(module)
    return path, name, module


def _calling(path: Path, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose exceptions name the last line of `path` that they went through."""

    @functools.wraps(function, updated=())
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (Exception, SystemExit) as error:  # sys.exit() would end the command as if all were done
            frames = traceback.extract_tb(error.__traceback__)
            mine = [f.lineno for f in frames if Path(f.filename).resolve() == path.resolve()]
            line = mine[-1] if mine else getattr(error, "lineno", None)
            where = str(path) + (f", line {line}" if line else "")
            raise FunctionFailedError(f"{where}: {type(error).__name__}: {error}") from error

    return call
