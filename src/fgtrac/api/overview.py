"""The verb behind the explorer's page of a run: everything that its log tells of it, in one reading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fgtrac.query.log import whole
from fgtrac.query.overview import Overview, read_overview
from fgtrac.query.seals import NotSealedError
from fgtrac.store.places import open_to_read
from fgtrac.tlog.note import TreeHead


def newest_head(path: Path) -> TreeHead:
    """The newest tree head of a trace, its signature unchecked. NotSealedError (a ValueError) before the first seal,
    otherwise raises as `fgtrac.open`."""
    head = open_to_read(path).head()
    if head is None:
        raise NotSealedError(
            f"{path} has no tree head yet: nothing was sealed. A run is sealed at its checkpoints and at its end; "
            f"where it was cut off, run fgtrac seal {path}"
        )
    return head


def overview(path: Path, head: TreeHead, progress: Callable[[int, int], None] | None = None) -> Overview:
    """What the log up to a head tells. ProofError, FormatError or TamperError where its files are not those of that
    head."""
    with whole("an overview"):
        return read_overview(open_to_read(path), head, progress)
