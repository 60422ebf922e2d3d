"""Reading files that hold a private key: only such as nobody but their owner may touch."""

from __future__ import annotations

import os
import re
import shlex
import stat
from pathlib import Path

from fgtrac.errors import FormatError

MAX_BYTES = 100_000  # keystores have about 500
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_KEY = re.compile(r"(?:.*/)?(?:0x)?[0-9a-fA-F]{60,70}|.*BEGIN [A-Z ]*PRIVATE KEY.*", re.DOTALL)


def read_private(path: Path) -> bytes:
    """A key file's bytes. FileNotFoundError where there is none; ValueError, with the remedy, where its mode gives
    group or others any permission, and as `check_names_file`; FormatError for one that is too large. No message says
    what stands in it."""
    check_names_file(path)
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)  # of what was opened, not of what has its name by now
        if mode & _OTHERS:
            raise ValueError(
                f"{path} has mode {mode:04o}: others than its owner may use it; a private key asks for 0600 or less: "
                f"chmod 600 {shlex.quote(str(path))}"
            )
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise FormatError(f"{path} has more than {MAX_BYTES:,} bytes; no private key has")
    return data


def check_names_file(path: Path) -> None:
    """ValueError, without repeating it, where somebody gave a key itself in place of a key file's name."""
    if _KEY.fullmatch(str(path)) and not os.path.exists(path):
        raise ValueError("that is a private key, and not the name of a file: put it into one that only you may read")
