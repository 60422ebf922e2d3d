"""Erasures in the log: each names its subject's samples, all of them and no others, and none of it comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError

IdsOf = Callable[[bytes], NDArray[np.uint8]]  # a block's ids (n, 32) by ordinal; ProofError where it is not whole


@dataclass(frozen=True, slots=True)
class Erased:
    """What a log has erased so far: pseudonym -> the first entry that says so, and block -> the first entry that names
    samples in it."""

    subjects: dict[bytes, int] = field(default_factory=dict)
    blocks: dict[bytes, int] = field(default_factory=dict)

    def add(self, number: int, event: Mapping[str, Any]) -> None:
        """Take `erasure` entry `number`."""
        self.subjects.setdefault(event["pseudonym"], number)
        if len(event["ordinals"]):
            self.blocks.setdefault(event["block"], number)


class Erasures:
    """What `samples` entries say of subjects and `erasure` entries of them, taken in the order of the log."""

    def __init__(self) -> None:
        self._registered: list[
            tuple[int, bytes, NDArray[np.void], NDArray[np.void]]
        ] = []  # entry, block, ids, subjects
        self._erased: dict[bytes, list[tuple[int, bytes, NDArray[np.uint32]]]] = {}  # subject -> entry, block, ordinals

    @property
    def subjects(self) -> dict[bytes, int]:
        """The pseudonym of each subject that is said to be erased, with the first entry that says so."""
        return {pseudonym: said[0][0] for pseudonym, said in self._erased.items()}

    @property
    def last(self) -> int:
        """The last entry that erases somebody, -1 where none does."""
        return max((number for said in self._erased.values() for number, _block, _ordinals in said), default=-1)

    def in_block(self, block: bytes) -> Iterator[tuple[int, NDArray[np.uint32]]]:
        """The ordinals of erased samples in a block, each with the entry that names them."""
        for said in self._erased.values():
            yield from ((number, ordinals) for number, named, ordinals in said if named == block)

    def add(self, number: int, event: Mapping[str, Any]) -> None:
        """Take entry `number`."""
        if event["kind"] == "samples" and "subjects" in event:
            ids, subjects = (np.frombuffer(event[column], dtype="V32") for column in ("ids", "subjects"))
            self._registered.append((number, event["block"], ids, subjects))
        elif event["kind"] == "erasure":
            said = (number, event["block"], event["ordinals"])
            self._erased.setdefault(event["pseudonym"], []).append(said)

    def check(self, ids_of: IdsOf) -> str:
        """In words why every erasure is what it says; ProofError where one is not."""
        registered, total = self._samples(ids_of), 0
        for pseudonym, erased in self._erased.items():
            named: dict[bytes, int] = {}
            for number, block, ordinals in erased:
                ids = np.ascontiguousarray(ids_of(block)[ordinals]).view("V32").reshape(-1)
                named |= dict.fromkeys(ids.tolist(), number)
            _check_one(pseudonym, erased[0][0], registered.get(pseudonym, {}), named)
            total += len(named)
        return (
            f"{len(self._erased)} subjects are erased: all of their {total} samples are named and none came later; "
            "that the keys are gone shows only in the vault"
        )

    def _samples(self, ids_of: IdsOf) -> dict[bytes, dict[bytes, int]]:
        """Pseudonym of an erased subject -> id of each of its samples -> the entry that registered it last."""
        erased, found = np.array(list(self._erased), dtype="V32"), dict[bytes, dict[bytes, int]]()
        for number, block, ids, subjects in self._registered:
            here = np.isin(subjects, erased)
            if here.any() and _is_whole(block, ids_of):
                for sample, pseudonym in zip(ids[here].tolist(), subjects[here].tolist(), strict=True):
                    found.setdefault(pseudonym, {})[sample] = number
        return found


def _is_whole(block: bytes, ids_of: IdsOf) -> bool:
    """Whether samples of the block have ordinals: a registration that was cut short gives none."""
    try:
        ids_of(block)
    except ProofError:
        return False
    return True


def _check_one(pseudonym: bytes, first: int, mine: Mapping[bytes, int], named: Mapping[bytes, int]) -> None:
    who = f"subject {pseudonym.hex()[:16]}"
    if not mine and not named:
        raise ProofError(f"entry {first} (erasure) erases {who}, which has no sample")
    for sample, number in named.items():
        if sample not in mine:
            raise ProofError(f"entry {number} (erasure) names sample {sample.hex()}, which is none of {who}'s")
    for sample, number in mine.items():
        if sample not in named:
            raise ProofError(
                f"entry {first} (erasure) of {who} leaves out {len(mine) - len(named)} of its {len(mine)} samples, the "
                f"first is {sample.hex()}"
            )
        if number > first:
            raise ProofError(
                f"entry {number} registers sample {sample.hex()} of {who} under the key that entry {first} (erasure) "
                "says was destroyed: it was kept"
            )
