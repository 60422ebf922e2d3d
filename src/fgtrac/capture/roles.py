"""The roles of samples (train, validation, test, excluded): who has which, and the entries that say so."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fgtrac.capture.recorder import Recorder
from fgtrac.capture.roots import Resolved
from fgtrac.capture.use_entries import pieces
from fgtrac.events.schema import ROLES


class Roles:
    """The roles of every registered block's samples. With `adds` false nothing is written."""

    def __init__(self, recorder: Recorder, *, adds: bool) -> None:
        self._recorder = recorder
        self._adds = adds
        self._of: dict[bytes, NDArray[np.uint8]] = {}  # block -> (rows,): 1 << code for each role

    def __contains__(self, block: bytes) -> bool:
        return block in self._of

    def begin(self, block: bytes, rows: int) -> None:
        """A block was registered; its samples have no role yet."""
        self._of[block] = np.zeros(rows, dtype=np.uint8)

    def take_over(self, earlier: Roles) -> None:
        """What an earlier run of this process gave in the same trace counts here, too."""
        self._of |= earlier._of

    def record(self, resolved: Resolved, role: str) -> None:
        """Write `roles` entries for every position that has not this role yet, each sample once. ValueError for an
        unknown role."""
        placement = resolved.placement
        for block, here in resolved.by_block():
            self.give(block, placement.ordinals[here], role)

    def give(self, block: bytes, ordinals: NDArray[np.uint32] | slice, role: str) -> None:
        """As `record`, for these samples of one block."""
        if role not in ROLES:
            raise ValueError(f"role {role!r} is none of {', '.join(ROLES)}; choose one of them")
        roles, bit = self._of[block], np.uint8(1 << ROLES[role])
        is_new = np.zeros(len(roles), dtype=bool)
        is_new[ordinals] = True
        is_new &= roles & bit == 0
        for piece in pieces(np.flatnonzero(is_new).astype(np.uint32), 4) if self._adds else ():
            self._recorder.record("roles", {"role": role, "block": block, "ordinals": piece})
        roles[is_new] |= bit

    def lacking(self, resolved: Resolved) -> Resolved:
        """The positions whose samples have no role yet."""
        placement, lacks = resolved.placement, np.zeros(len(resolved.rows), dtype=bool)
        for block, here in resolved.by_block():
            lacks[here] = self._of[block][placement.ordinals[here]] == 0
        return Resolved(resolved.roots, resolved.which[lacks], resolved.rows[lacks])

    def may_train(self, resolved: Resolved) -> bool:
        """False where every position has a role and none of them has the role "train"."""
        placement, train = resolved.placement, np.uint8(1 << ROLES["train"])
        roles = [self._of[block][placement.ordinals[here]] for block, here in resolved.by_block()]
        return not roles or any(bool(((r == 0) | (r & train != 0)).any()) for r in roles)
