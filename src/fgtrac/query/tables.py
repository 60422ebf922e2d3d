"""All samples of a trace as columns: who they are, where from, in which roles, how often used."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.drawing.html import table
from fgtrac.drawing.notebook import shown
from fgtrac.errors import ProofError
from fgtrac.events.postings import KIND, ROW
from fgtrac.events.schema import ATTRIBUTION, ROLES, TRANSFORM
from fgtrac.query.seals import FullSeal, expect
from fgtrac.tlog.index import CONTENT, build, lower_bound

SHOWN = 20  # rows that a notebook shows


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Every registered sample, by ascending id; columns of length n.

    `ids` (n, 32) uint8; `datasets` the data sets' names and `dataset` (n,) an index into them; `roles` (n,) a bit for
    each role, 1 << its code; `uses` (of a graph: as a seed; without those in batches that may have left it out),
    `neighbours`, `deliveries` (not applied), `predictions` (n,) counts; `dropped` (n,) whether a stage dropped it;
    `names` what the vault calls each, None without a vault.
    """

    ids: NDArray[np.uint8]
    datasets: tuple[str, ...]
    dataset: NDArray[np.intp]
    roles: NDArray[np.uint8]
    uses: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    deliveries: NDArray[np.int64]
    predictions: NDArray[np.int64]
    dropped: NDArray[np.bool_]
    names: tuple[str | None, ...] | None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, place: int) -> dict[str, Any]:
        """One sample as plain data."""
        if not -len(self) <= place < len(self):
            raise IndexError(f"there is no sample {place}; there are {len(self)}")
        bits = int(self.roles[place])
        return {
            "id": self.ids[place].tobytes().hex(),
            "name": None if self.names is None else self.names[place],
            "dataset": self.datasets[int(self.dataset[place])],
            "roles": [role for role, code in ROLES.items() if bits >> code & 1],
            "uses": int(self.uses[place]),
            "neighbours": int(self.neighbours[place]),
            "deliveries": int(self.deliveries[place]),
            "predictions": int(self.predictions[place]),
            "dropped": bool(self.dropped[place]),
        }

    def _repr_html_(self) -> str:
        """For notebooks: the first samples, and how many more there are."""
        rows = [
            [", ".join(v) if isinstance(v, list) else v for v in self[n].values()] for n in range(len(self))[:SHOWN]
        ]
        return shown(table(tuple(self[0]) if rows else ("id",), rows, more=len(self) - len(rows)))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[place] for place in range(len(self)))


def read_samples(seal: FullSeal, names: dict[bytes, str] | None) -> Samples:
    """The samples that the index holds; the whole index is hashed again and compared with the sealed root.

    ProofError where it is not the one that was sealed.
    """
    columns = seal.tree.columns
    expect(seal.tree, mmap.MADV_NORMAL)
    if build(columns).root != seal.event["root"]:
        raise ProofError(f"index/{seal.head.size} is not the index that was sealed; run fgtrac seal to rebuild it")
    n = lower_bound(seal.tree, CONTENT, bytes(32))
    offsets = np.asarray(columns.offsets[: n + 1]).astype(np.int64)
    rows = np.ascontiguousarray(columns.values[: offsets[-1]]).view(ROW)
    owner = np.repeat(np.arange(n), np.diff(offsets) // ROW.itemsize)
    kinds, details = rows["kind"], rows["detail"]

    perhaps = (kinds == KIND["used"]) & (details == ATTRIBUTION["among"])

    def count(kind: str) -> NDArray[np.int64]:
        return np.bincount(owner[(kinds == KIND[kind]) & ~perhaps], minlength=n).astype(np.int64)

    roles = np.zeros(n, dtype=np.uint8)
    for code in ROLES.values():
        roles[owner[(kinds == KIND["role"]) & (details == code)]] |= np.uint8(1 << code)
    dropped = np.zeros(n, dtype=bool)
    dropped[owner[(kinds == KIND["transformed"]) & (details == TRANSFORM["dropped"])]] = True
    registered = kinds == KIND["registered"]
    dataset, datasets = _datasets(seal, rows["entry"][registered], owner[registered], n)
    ids = np.ascontiguousarray(columns.keys[:n, 1:])
    called = None if names is None else tuple(names.get(i.tobytes()) for i in ids)
    counts = count("used"), count("neighbour"), count("delivered"), count("prediction")
    return Samples(ids, datasets, dataset, roles, *counts, dropped, called)


def _datasets(
    seal: FullSeal, entries: NDArray[np.uint64], owners: NDArray[np.intp], n: int
) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """For each sample the data set that its (last) registration names."""
    numbers, which = np.unique(entries, return_inverse=True)
    names = [str(seal.log.event(number)["dataset"]) for number in numbers.tolist()]
    known = {name: code for code, name in enumerate(dict.fromkeys(names))}
    of_entry = np.array([known[name] for name in names], dtype=np.intp)
    dataset = np.zeros(n, dtype=np.intp)
    dataset[owners] = of_entry[which]
    return dataset, tuple(known)
