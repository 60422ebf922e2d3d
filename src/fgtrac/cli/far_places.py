"""Which verbs take a trace on object storage: the others are refused here, and told what to do instead."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fgtrac.store.object_storage import is_url

READING = (
    "verify", "show", "history", "prove", "check", "diff", "report", "sql", "export", "spikes", "suspects",
    "duplicates",
)  # fmt: skip
WRITING = ("seal", "score", "erase", "anchor", "key", "demo")
IN_A_FOLDER = ("runs", "ui", "serve", "doctor")
_VAULT = re.compile(r"\b(?:a|its|no|own|the) vault\b")  # not a bucket's name, nor a file's
_ONLY_READ = "a trace on object storage is only read"


def refuse_far_places(arguments: Sequence[str]) -> None:
    """ValueError where a verb that needs a folder is asked about a place on object storage. The place is not repeated:
    it may hold a password."""
    verb = next(iter(arguments), "")
    if not any(map(is_url, arguments)) or "--help" in arguments:
        return
    if verb in WRITING:
        raise ValueError(
            f"{_ONLY_READ}, and {verb} writes: do it on the machine where it was recorded, then fgtrac push"
        )
    if verb in IN_A_FOLDER:
        raise ValueError(f"{verb} looks at folders of this machine; s3:// is read by {', '.join(READING)}")
    if verb == "push" and is_url(arguments[1]):
        raise ValueError(
            f"{_ONLY_READ}: push sends one from this machine, fgtrac push NAME.trace s3://BUCKET/PREFIX/NAME.trace"
        )


def remedy_far(words: str, arguments: Sequence[str]) -> str:
    """What went wrong, and how what it advises can be done where the trace lies on object storage."""
    is_far = any(map(is_url, arguments)) and next(iter(arguments)) in READING
    if is_far and "fgtrac seal" in words:
        return f"{words} (where the trace was recorded; then fgtrac push --again)"
    if is_far and _VAULT.search(words):
        return f"{words} (no vault is on object storage: ask where the trace was recorded)"
    return words
