"""Equal source bytes, found in the index's second kind of leaf: copies, and leaks between splits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fgtrac.api.prior import trace_id_of
from fgtrac.demo.prepare import ARCHIVE, LATE, Prepared
from fgtrac.events.codec import decode
from fgtrac.events.postings import CONTENT, KIND
from fgtrac.events.schema import ROLES
from fgtrac.query.seals import FullSeal, open_full_seal
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from fgtrac.tlog.index import value_at


def find_equal(trace: TraceDir, prepared: Prepared) -> dict[str, Any]:
    """Every group of samples with one content; which of them the demo planted, and which stand in train and test.

    Names are `NAME:ROW`, from the vault.
    """
    seal = open_full_seal(trace)
    vault = Vault.open(trace.vault_path, trace_id_of(trace))
    try:
        groups = [[(name_of(vault, i), roles_of(seal, i)) for i in ids] for ids in equal_ids(seal)]
    finally:
        vault.close()
    leaks = [
        [first, second]
        for group in groups
        for first, of_first in group
        for second, of_second in group
        if "train" in of_first and "test" in of_second
    ]
    grouped = {name for group in groups for name, _ in group}
    return {
        "groups": len(groups),
        "samples": len(grouped),
        "copies_planted": len(prepared.copies),
        "copies_found": len(grouped & {f"{ARCHIVE}:{row}" for row in prepared.copies}),
        "leak_planted": [f"{ARCHIVE}:{prepared.leaked}", f"{LATE}:{prepared.leaked_late}"],
        "leaks": leaks,
    }


def equal_ids(seal: FullSeal) -> Iterator[list[bytes]]:
    """The ids of each content that more than one sample holds."""
    columns = seal.tree.columns
    first = int(np.searchsorted(columns.keys[:, 0], CONTENT))
    sizes = np.diff(columns.offsets[first:].astype(np.int64)) // 32
    for place in np.flatnonzero(sizes > 1).tolist():
        value = value_at(seal.tree, first + place)
        yield [value[i : i + 32] for i in range(0, len(value), 32)]


def roles_of(seal: FullSeal, sample_id: bytes) -> set[str]:
    """The roles that a sample was given."""
    rows = seal.rows(sample_id)
    if rows is None:
        return set()
    words = {code: word for word, code in ROLES.items()}
    return {words[int(row["detail"])] for row in rows if row["kind"] == KIND["role"]}


def name_of(vault: Vault, sample_id: bytes) -> str:
    """A sample as `NAME:KEY`, or `id:HEX` where the vault does not know it."""
    name = vault.find_by_id(sample_id)
    return f"id:{sample_id.hex()}" if name is None else f"{name.dataset}:{decode(name.key)}"
