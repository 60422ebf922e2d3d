"""Which samples of two traces are the same: by their ids, or by what their vaults call them.

Ids can be held against each other where they are public, or keyed with one secret that both logs commit to. Otherwise
each sample is given the id that its name would have under the public scheme; that takes a vault beside each trace whose
ids are keyed. The vaults are believed here: `fgtrac verify --vault` holds one against its log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.naming import key_of, words_of
from fgtrac.errors import FormatError
from fgtrac.events.codec import decode, encode
from fgtrac.events.identity import make_ids, number_preimages, preimage, public_id
from fgtrac.query.step_samples import Numbers
from fgtrac.query.training import Block, TrainingLog
from fgtrac.store.object_storage import is_url
from fgtrac.store.vault import Vault
from fgtrac.verify.checks import CannotTell

Ids = NDArray[np.void]  # (n,) V32
_STAGE = b"\x83"  # of a key's CBOR: a list of three, as stages name their samples


@dataclass(slots=True)
class Side:
    """One of the two: what to call it, its log, its blocks, and its vault where there is one."""

    name: str
    log: TrainingLog
    vault: Vault | None
    blocks: dict[bytes, Block] = field(init=False)
    schemes: dict[str, str] = field(init=False)
    commitment: bytes | None = field(init=False)

    def __post_init__(self) -> None:
        self.blocks = self.log.blocks()
        self.schemes = {event["name"]: event["id_scheme"] for _, event in self.log.events("dataset")}
        runs = [event for _, event in self.log.events("run")]
        self.commitment = runs[0].get("key_commitment") if runs else None

    @property
    def is_far(self) -> bool:
        """Whether it lies on object storage, where no vault is beside it."""
        return is_url(self.name)

    @property
    def needs_vault(self) -> str:
        """What to do where its vault is missing."""
        return "compare it where its vault is" if self.is_far else "put its vault beside it"

    @property
    def keyed(self) -> set[str]:
        """The schemes of its data sets, but for `public`."""
        return set(self.schemes.values()) - {"public"}

    def name_of(self, sample_id: bytes) -> str:
        """What the vault calls a sample, else its id."""
        known = self.vault.find_by_id(sample_id) if self.vault is not None else None
        return f"id:{sample_id.hex()}" if known is None else words_of(known.dataset, key_of(known.key))


@dataclass(frozen=True, slots=True, eq=False)
class SameSamples:
    """The samples of both, numbered from 0 to `total`; the same sample has the same number in both. `a` and `b`: of
    each block the number at each ordinal, -1 for a sample that has no name any more (an erased one)."""

    by: str
    total: int
    sides: tuple[Side, Side]
    a: dict[bytes, Numbers]
    b: dict[bytes, Numbers]

    def registered(self, which: int) -> NDArray[np.bool_]:
        """(total,) whether each sample is registered in the first (0) or second (1) trace."""
        mask = np.zeros(self.total + 1, dtype=bool)
        for numbers in (self.a, self.b)[which].values():
            mask[numbers] = True
        return mask[:-1]

    def names(self, numbers: NDArray[np.intp]) -> list[str]:
        """What to call some samples: as the first trace calls them, else as the second does."""
        return [self._name(int(number)) for number in numbers]

    def _name(self, number: int) -> str:
        for side, blocks in zip(self.sides, (self.a, self.b), strict=True):
            for block, mine in blocks.items():
                found = np.flatnonzero(mine == number)
                if len(found):
                    return side.name_of(side.blocks[block].ids[found[0]].tobytes())
        raise LookupError(f"no sample has the number {number}; there are {self.total}")

    def find(self, which: int, sample_id: bytes) -> int:
        """The number of the sample of that id in the first (0) or second (1) trace; -1 where it has none."""
        side, numbers = self.sides[which], (self.a, self.b)[which]
        for block, of in side.blocks.items():
            ids = _as_ids(of.ids)
            at = int(np.searchsorted(ids, np.void(sample_id)))
            if at < len(ids) and ids[at].tobytes() == sample_id:
                return int(numbers[block][at])
        return -1


def match_samples(a: Side, b: Side) -> SameSamples:
    """Number the samples of both. CannotTell, with what is missing, where their ids cannot be held against each other
    and a vault is missing."""
    keyed = a.keyed | b.keyed
    by_id = not keyed or (keyed == {"keyed"} and a.commitment is not None and a.commitment == b.commitment)
    columns = [_by_id(side) if by_id else _by_name(side) for side in (a, b)]
    known = [ids[named] for side in columns for ids, named in side.values()]
    unique = np.unique(np.concatenate(known)) if known else np.empty(0, "V32")
    numbered = [
        {
            block: np.where(named, np.searchsorted(unique, ids), -1).astype(np.int64)
            for block, (ids, named) in side.items()
        }
        for side in columns
    ]
    return SameSamples("id" if by_id else "name", len(unique), (a, b), *numbered)


Comparable = dict[bytes, tuple[Ids, NDArray[np.bool_]]]  # of each block: ids, and whether each can be compared


def _as_ids(rows: NDArray[np.uint8]) -> Ids:
    return np.ascontiguousarray(rows).view("V32").reshape(-1)


def _by_id(side: Side) -> Comparable:
    return {block: (_as_ids(of.ids), np.ones(len(of.ids), bool)) for block, of in sorted(side.blocks.items())}


def _by_name(side: Side) -> Comparable:
    """The public ids of the samples' names; public ids as they are."""
    own = np.empty(0, "V32"), np.empty(0, "V32")
    if side.keyed:
        if side.vault is None:
            raise CannotTell(
                f"the ids of {side.name} are keyed, so they say nothing about another run's: {side.needs_vault}, "
                "and the samples are compared by their names"
            )
        own = _public_ids(side.vault)
    found: Comparable = {}
    for block, of in sorted(side.blocks.items()):
        ids = _as_ids(of.ids)
        if side.schemes.get(of.dataset) == "public":
            found[block] = ids, np.ones(len(ids), bool)
            continue
        places = np.minimum(np.searchsorted(own[0], ids), max(len(own[0]) - 1, 0))
        named = own[0][places] == ids if len(own[0]) else np.zeros(len(ids), bool)
        found[block] = own[1][places] if len(own[1]) else ids, named
    return found


def _public_ids(vault: Vault) -> tuple[Ids, Ids]:
    """The ids in a vault, ascending, and the id that each sample's name has under the public scheme."""
    pieces = [
        (ids, make_ids("public", b"", number_preimages(column.dataset, rows)))
        for column in vault.row_columns()
        for rows, ids in column.each_page()
    ]
    mine, made_of = dict[bytes, bytes](), dict[bytes, tuple[str, tuple[str, list[bytes], int]]]()
    for rows in vault.name_rows():
        for sample_id, dataset, key, _subject in rows:
            if not (type(sample_id) is bytes and len(sample_id) == 32 and type(dataset) is str and type(key) is bytes):
                raise FormatError(f"{vault.path} is a damaged vault: a name is none; restore it from a copy")
            if (stage := _stage_key(key)) is not None:
                made_of[sample_id] = dataset, stage
            else:
                mine[sample_id] = _public_id(dataset, key)
    ids = b"".join([*(piece[0] for piece in pieces), *mine])
    public = b"".join([*(piece[1] for piece in pieces), *mine.values()])
    if made_of:
        split = ([data[at : at + 32] for at in range(0, len(data), 32)] for data in (ids, public))
        mine = _follow_stages(dict(zip(*split, strict=True)), made_of)
        ids, public = b"".join(mine), b"".join(mine.values())
    columns = [np.frombuffer(data, "V32") for data in (ids, public)]
    order = np.argsort(columns[0])
    return columns[0][order], columns[1][order]


def _public_id(dataset: str, encoded_key: bytes) -> bytes:
    """The id under the public scheme of a key that is encoded already."""
    return public_id(preimage(dataset, 0)[:-1] + encoded_key)  # the key comes last


def _stage_key(key: bytes) -> tuple[str, list[bytes], int] | None:
    """The stage, the parents' ids and the number in a key that a stage gave; None for any other key."""
    if not key.startswith(_STAGE):
        return None
    value = decode(key)
    if type(value[0]) is not str or not isinstance(value[1], list) or type(value[2]) is not int:
        return None
    return (value[0], value[1], value[2]) if all(type(p) is bytes and len(p) == 32 for p in value[1]) else None


def _follow_stages(
    public: dict[bytes, bytes], made_of: Mapping[bytes, tuple[str, tuple[str, list[bytes], int]]]
) -> dict[bytes, bytes]:
    """Name the samples that stages made by the public ids of their parents. One whose parents have no name any more
    has none either."""
    waiting = dict(made_of)
    while waiting:
        ready = {child: of for child, of in waiting.items() if all(parent in public for parent in of[1][1])}
        if not ready:
            break
        for child, (dataset, (stage, parents, number)) in ready.items():
            key = encode([stage, [public[parent] for parent in parents], number])
            public[child] = _public_id(dataset, key)
            del waiting[child]
    return public
