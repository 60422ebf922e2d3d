"""The command line that tells what a page shows."""

from __future__ import annotations

import shlex


def command_line(verb: str, *arguments: object) -> str:
    """`fgtrac VERB ...`, quoted as a shell reads it; what is None is left out."""
    return shlex.join(["fgtrac", *verb.split(), *(str(one) for one in arguments if one is not None)])
