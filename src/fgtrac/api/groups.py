"""What contributions are added up by: the data set, class or subject of each training sample."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError, ScoreError
from fgtrac.query.blocks import Blocks
from fgtrac.score.factor_files import Rows

GROUPS = ("source", "class", "subject")


def check_group(by: str | None) -> None:
    """ValueError for what nothing can be grouped by."""
    if by is not None and by not in GROUPS:
        raise ValueError(f"by={by!r:.40} is none of {', '.join(GROUPS)}")


def group_rows(rows: Rows, blocks: Blocks, by: str) -> tuple[NDArray[np.intp], list[str]]:
    """For each row the number of its group, and what the groups are called; a subject by the pseudonym in the log.

    ScoreError where the samples have no classes, or no subjects.
    """
    check_group(by)
    if by == "class":
        if rows.labels is None:
            raise ScoreError(
                "the training samples have no classes: their targets are no class numbers; group by source"
            )
        values, codes = np.unique(rows.labels, return_inverse=True)
        return codes, [f"class {value}" for value in values.tolist()]
    names: dict[str, int] = {}
    codes = np.empty(len(rows), dtype=np.intp)
    for block, mine in rows_by_block(rows):
        if by == "source":
            codes[mine] = names.setdefault(blocks.dataset(block), len(names))
            continue
        subjects = blocks.subjects(block)
        if subjects is None:
            raise ScoreError(
                f"the samples of {blocks.dataset(block)!r:.60} have no subjects; register them with subject=, or group "
                "by source"
            )
        values, which = np.unique(subjects[rows.ordinals[mine]], axis=0, return_inverse=True)
        numbers = [names.setdefault(f"subject {v.tobytes().hex()[:16]}", len(names)) for v in values]
        codes[mine] = np.array(numbers)[which.reshape(-1)]
    return codes, list(names)


def check_rows(rows: Rows, blocks: Blocks) -> None:
    """ProofError where a row is no registered sample."""
    for block, mine in rows_by_block(rows):
        n, last = len(blocks.ids(block)), int(rows.ordinals[mine].max(initial=0))
        if last >= n:
            raise ProofError(f"the factors name ordinal {last} of block {block.hex()}, which has {n} samples")


def rows_by_block(rows: Rows) -> Iterator[tuple[bytes, NDArray[np.intp]]]:
    """Each block with its rows."""
    for number, block in enumerate(rows.blocks):
        yield block, np.arange(len(rows)) if rows.which is None else np.flatnonzero(rows.which == number)


def ids_of(rows: Rows, blocks: Blocks) -> NDArray[np.uint8]:
    """(n, 32) the id of every row."""
    ids = np.empty((len(rows), 32), dtype=np.uint8)
    for block, mine in rows_by_block(rows):
        ids[mine] = blocks.ids(block)[rows.ordinals[mine]]
    return ids
