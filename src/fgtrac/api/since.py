"""The demand `since`: a trace is held against an older head of it, which the verifier has kept."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from fgtrac.api.audit import SINCE, Demand
from fgtrac.api.trust import revoked_keys
from fgtrac.errors import FormatError
from fgtrac.verify.auditor import Audit
from fgtrac.verify.checks import TraceFiles
from fgtrac.verify.since import KeptHead, LogKeys, check_not_behind, check_since, read_kept_head
from fgtrac.verify.strict_json import MAX_BYTES
from fgtrac.verify.tree import HEAD, read_head


def since_demand(path: Path) -> Demand:
    """The check that a log extends the head in a file: a copy of its `checkpoint`, a bundle, a tlog-proof, or a folder
    that holds a `checkpoint`, such as an older copy of the trace.

    FileNotFoundError, or FormatError for a file that holds none of these; both name it.
    """
    kept, distrusted = _read(path), revoked_keys()

    def examine(trace: TraceFiles, audit: Audit) -> str:
        if audit.log is None and audit.verifier is not None:
            with suppress(FormatError, OSError):  # without a head: the check of the signature says so
                check_not_behind(kept, path.name, read_head(trace), audit.verifier, distrusted)
        audit.checks.require("signature", "entries", "run")
        assert audit.log is not None
        run = audit.facts.runs[0][1]
        keys = LogKeys(run["trace"], run["public_key"], audit.facts.rotations, distrusted)
        return check_since(kept, path.name, audit.log, keys)

    return Demand(SINCE, examine, ())


def _read(path: Path) -> KeptHead:
    file_path = path / HEAD if path.is_dir() else path
    if not file_path.is_file():
        raise FileNotFoundError(f"there is no older head at {file_path}; name a copy of a checkpoint, or a bundle")
    with file_path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    try:
        return read_kept_head(data)
    except FormatError as error:
        raise FormatError(
            f"{file_path} holds no older head (a copy of a checkpoint, a bundle or a tlog-proof): {error}"
        ) from error
