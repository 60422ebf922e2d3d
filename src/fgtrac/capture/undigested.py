"""The error for a source that has no canonical bytes."""

from fgtrac.errors import CaptureError


class UndigestedError(CaptureError):
    """The source of a data set is known, and holds what has no canonical bytes."""


def undigested(what: str) -> UndigestedError:
    """The error for what has no canonical bytes, with what to do about it."""
    return UndigestedError(
        f"{what} has no canonical bytes that a content digest could be taken from; give the bytes with source=, or "
        "pass content=False"
    )
