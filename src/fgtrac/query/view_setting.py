"""What whoever builds views from a range of a log needs to know of the rest of it: looked up once, and kept in files
beside the views while they are built, which any number of processes map."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError
from fgtrac.events.codec import decode, encode
from fgtrac.events.ranks import RankTable
from fgtrac.events.schema import ROLES
from fgtrac.query.timeline import Timeline, superseded
from fgtrac.query.view_samples import BlockNumbers, Registry
from fgtrac.store import durable

SETTING, NUMBERS = "setting.cbor", "setting.numbers"
WRITE_NUMBERS = 1 << 18  # at once


@dataclass(frozen=True, slots=True)
class RolesFile:
    """A file with the code of the role in force of each sample (u1), and its SHA-256."""

    name: str
    sha256: bytes


@dataclass(frozen=True)
class Setting:
    """How many samples there are, and their numbers by block; the resumes (entry, step), the model states (writer, seq)
    with their entry and what became of them, and the ranks of writers."""

    samples: int
    blocks: BlockNumbers
    resumes: Sequence[tuple[int, int]]
    states: Mapping[tuple[bytes, int], tuple[int, str]]
    ranks: Mapping[bytes, int]

    def superseded(self, entries: NDArray[np.uint64], steps: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """(n,) whether a run was resumed later from before each entry's step."""
        return superseded(self.resumes, entries, steps)


def write_setting(folder: Path, registry: Registry, timeline: Timeline) -> bytes:
    """Write the setting into a folder; its SHA-256."""
    blocks, numbers = list(registry.items()), hashlib.sha256()

    def pieces() -> Iterator[memoryview]:
        for _, mine in blocks:
            for start in range(0, len(mine), WRITE_NUMBERS):
                piece = np.ascontiguousarray(mine[start : start + WRITE_NUMBERS], "<u4").data.cast("B")
                numbers.update(piece)
                yield piece

    durable.write_file(folder / NUMBERS, pieces(), mode=0o600, sync=False)
    ranks = RankTable()
    joins = [event for _, event in timeline.entries("join")]
    for event in joins:
        ranks.add(event)
    states = {(e["writer"], e["seq"]): number for number, e in timeline.entries("checkpoint")}
    said = encode(
        {
            "samples": len(registry),
            "blocks": [[block, len(mine)] for block, mine in blocks],
            "numbers": numbers.digest(),
            "resumes": [list(pair) for pair in timeline.resumes],
            "states": [[*state, number, timeline.standing(*state)] for state, number in states.items()],
            "ranks": [[event["writer"], ranks.rank(event["writer"])] for event in joins],
        }
    )
    durable.write_file(folder / SETTING, said, mode=0o600, sync=False)
    return hashlib.sha256(said).digest()


@lru_cache(maxsize=1)
def load_setting(folder: Path, sha256: bytes) -> Setting:
    """The setting of this digest. FormatError where another lies there."""
    said = decode(_checked(folder / SETTING, sha256).tobytes())
    numbers, at = _checked(folder / NUMBERS, said["numbers"]).view("<u4"), 0
    blocks = {}
    for block, count in said["blocks"]:
        blocks[block] = numbers[at : at + count]
        at += count
    return Setting(
        said["samples"],
        BlockNumbers(blocks),
        [(number, step) for number, step in said["resumes"]],
        {(writer, seq): (number, standing) for writer, seq, number, standing in said["states"]},
        dict(said["ranks"]),
    )


class Roles:
    """The roles in force, as `roles` entries come: those of the whole log, looked up beforehand."""

    def __init__(self, registry: Registry, timeline: Timeline) -> None:
        self.codes = np.zeros(len(registry), np.uint8)
        self._registry, self._entries = registry, timeline.entries("roles")
        self._taken = 0
        self._written: RolesFile | None = None

    def write(self, folder: Path, before: int) -> RolesFile:
        """The file of the roles in force before an entry; of ascending ones."""
        if self.advance(before) or self._written is None:
            data = self.codes.tobytes()
            name = f"setting.roles-{self._taken}"
            durable.write_file(folder / name, data, mode=0o600, sync=False)
            self._written = RolesFile(name, hashlib.sha256(data).digest())
        return self._written

    def advance(self, before: int) -> bool:
        """Take the entries before one; whether there were any."""
        first = self._taken
        while self._taken < len(self._entries) and self._entries[self._taken][0] < before:
            number, event = self._entries[self._taken]
            self.codes[self._registry.numbers(number, event)] = ROLES[event["role"]]
            self._taken += 1
        return self._taken > first


def load_roles(folder: Path, file: RolesFile) -> NDArray[np.uint8]:
    """(n,) a copy of the codes in a file. FormatError where it is another."""
    return _checked(folder / file.name, file.sha256).copy()


def _checked(path: Path, sha256: bytes) -> NDArray[np.uint8]:
    """The bytes of a file that has this digest, mapped."""
    data = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
    if hashlib.sha256(data.data).digest() != sha256:
        raise FormatError(f"{path} was changed while views were built from it; ask again")
    return data
