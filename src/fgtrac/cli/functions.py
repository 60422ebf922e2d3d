"""A function of the user's own, named as FILE.py:FUNCTION."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def load_function(named: str) -> Callable[..., Any]:
    """The function FUNCTION of the file FILE.py; the file's folder can be imported from, as python FILE.py would.

    ValueError for what is named otherwise, FileNotFoundError for no such file. What the file itself raises is raised.
    """
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
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"{path} has no function {name}")
    return function  # type: ignore[no-any-return]
