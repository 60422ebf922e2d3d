"""Whether training used what was made from a sample: the word for each, from the pairs that stages name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.verify.roster import Kin

WORDS = ("used", "perhaps")  # each by its code; -1 is neither
Pair = tuple[NDArray[Any], NDArray[Any]]


def kin_of(pairs: Sequence[Pair]) -> Kin:
    """Who was made from whom, from the numbers of parents and those of their children, piece by piece."""
    none = np.empty(0, np.intp)
    return Kin(*(np.concatenate([none, *(pair[side].astype(np.intp) for pair in pairs)]) for side in (0, 1)))


def used_through(kin: Kin, used: NDArray[np.bool_], perhaps: NDArray[np.bool_]) -> NDArray[np.int8]:
    """(n,) a code of WORDS for each sample: whether one made from it, directly or not, is `used` (n,), or at most
    `perhaps` (n,)."""
    found = np.full(len(used), -1, np.int8)
    for code, those in ((1, perhaps), (0, used)):
        found[kin.parents[kin.above(those)[kin.children]]] = code
    return found
