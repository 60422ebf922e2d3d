"""Every error that fgtrac raises on purpose, and whose fault each one is.

    FgtracError
    |- FormatError    these bytes are no well-formed X (whoever wrote them; never the caller's arguments)
    |- ProofError     well formed, but shows something other than what is claimed
    |- TamperError    a state that no crash can leave: somebody changed the trace
    |- CaptureError   an event could not be recorded (full disk, unsupported loader, a run already closed)
    |- ScoreError     a contribution cannot be computed as asked
    |- EngineError    workers were lost or cannot be had, or the machine cannot do it: what was done stays, and the
    |                 same command goes on
    |- StorageError   object storage did not answer, refused, or cannot do what is needed: nothing is half published
    `- AnchorError    an outside witness did not answer, or gave no usable answer; trying again may help
       `- RefusedError   it answered, and refused; trying again does not help

The caller's own mistakes stay `ValueError` and `TypeError`; a path that does not exist stays `FileNotFoundError`.
Messages are one line, name both values, and say what to do about it.
"""


class FgtracError(Exception):
    """The root of every error below."""


class FormatError(FgtracError):
    """These bytes are no well-formed X."""


class ProofError(FgtracError):
    """Well formed, but shows something other than what is claimed."""


class TamperError(FgtracError):
    """A state that no crash can leave."""


class CaptureError(FgtracError):
    """An event could not be recorded."""


class ScoreError(FgtracError):
    """A contribution cannot be computed as asked."""


class EngineError(FgtracError):
    """Workers were lost or cannot be had, or this machine cannot do what a verdict takes; what was done stays, and
    trying again may help."""


class StorageError(FgtracError):
    """Object storage did not answer, refused, or cannot do what is needed: the message says which, and what to do."""


class AnchorError(FgtracError):
    """An outside witness did not answer, or gave no usable answer; trying again may help."""


class RefusedError(AnchorError):
    """An outside witness answered and refused; trying again does not help."""


def not_installed(what_needs: str, module: str | None, extra: str) -> ValueError:
    """Of a library that is the caller's to install: what needs it (as in "PROV needs"), and the extra it comes with."""
    return ValueError(f"{what_needs} {str(module).partition('.')[0]}: pip install 'fgtrac[{extra}]'")
