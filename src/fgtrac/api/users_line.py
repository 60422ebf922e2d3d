"""Warnings that point at the user's own line, however deep in this package or in torch they arise."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from pathlib import Path
from types import FrameType

import torch

_FOLDERS = tuple(f"{folder}{os.sep}" for folder in (Path(__file__).parents[1], Path(torch.__file__).parent))
_NOT_THE_USERS = (*_FOLDERS, contextlib.__file__)


def warn_user(words: str) -> None:
    """A RuntimeWarning at the line of the nearest caller who is neither; where there is none, as at an interpreter's
    end, at this one."""
    level = 1
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_THE_USERS):
        level, frame = level + 1, frame.f_back
    warnings.warn(words, RuntimeWarning, stacklevel=1 if frame is None else level)
