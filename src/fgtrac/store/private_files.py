"""Reading files that hold a private key: only such as nobody but their owner may touch."""

from __future__ import annotations

import os
import re
import shlex
import stat
from contextlib import suppress
from pathlib import Path

from fgtrac.errors import FormatError

MAX_BYTES = 100_000  # keystores have about 500
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_SECRETS = (
    re.compile(r"[^/]{256}"),  # no file's name; first, since what the others look for is shorter behind it
    re.compile(r"(?:[0-9a-fA-F][\s:_-]?){50}"),  # a key in hex; an account's address has 40 digits
    re.compile(r"MC4CAQAw|BEGIN [A-Z ]*KEY"),  # one in PEM
    re.compile(r"(?=[^/]*[a-z])(?=[^/]*[A-Z])(?=[^/]*[0-9])[A-Za-z0-9+]{32}|[A-Za-z0-9+/]{40}="),  # one in base64
    re.compile(r"(?:[a-z]+ ){11}[a-z]+"),  # a wallet's words
    re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:/|:[^/]*@"),  # a URL, which may hold a password
    re.compile(r"^[\s\"',]|[\s\"',]$|[^\S ]"),
)


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


def may_be_secret(named: str) -> bool:
    """Whether a text that was given in place of a file's name looks like a key, a wallet's words, or a URL: it is not
    to be repeated."""
    return not named.isprintable() or any(secret.search(named) for secret in _SECRETS)


def check_names_file(path: Path) -> None:
    """ValueError, without repeating it, where there is no such file and its name may be secret (`may_be_secret`)."""
    if may_be_secret(str(path)):
        with suppress(ValueError):  # a zero byte
            if os.path.exists(path):
                return
        raise ValueError(
            "that looks like a key or a URL, and not like the name of a file (it is not repeated here); name a file: a "
            "key belongs into one that only you may read"
        )
