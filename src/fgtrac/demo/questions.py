"""What the demo asks of its trace: whole histories, equal contents, and proofs that are checked offline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fgtrac.api.trace import open_trace
from fgtrac.demo.prepare import ARCHIVE, LATE, Prepared
from fgtrac.events.postings import CONTENT
from fgtrac.query.seals import FullSeal, open_full_seal
from fgtrac.store.trace_dir import ORIGIN_PREFIX, TraceDir
from fgtrac.tlog.index import value_at
from fgtrac.tlog.note import Verifier
from fgtrac.verify.bundle import parse_bundle
from fgtrac.verify.claims import check_bundle
from fgtrac.verify.report import Verdict


def histories(path: Path, prepared: Prepared, epochs: int, states: int) -> list[dict[str, Any]]:
    """The whole history of a training image whose label was flipped, and that of a dropped copy.

    `complete` says whether everything that the demo did to the sample is in it, its score at each of the `states`
    kept among it.
    """
    trace = open_trace(path)
    asked = {
        "a training image, from source to prediction": prepared.flipped[0],
        "a copy that was dropped": prepared.copies[0],
    }
    found = {title: trace.history(f"{ARCHIVE}:{row}") for title, row in asked.items()}
    kinds = [[event.kind for event in history.events] for history in found.values()]
    trained = {"registered": 1, "transformed": 5, "role": 1, "used": epochs, "prediction": 1, "contribution": states}
    dropped = {"registered": 1, "transformed": 2}
    return [
        {
            "title": title,
            "sample": history.name,
            "uses": history.uses,
            "complete": {kind: said.count(kind) for kind in said} == expected,
            "lines": [(str(event.entry), event.words) for event in history.events],
        }
        for (title, history), said, expected in zip(found.items(), kinds, (trained, dropped), strict=True)
    ]


def find_equal(path: Path, prepared: Prepared) -> dict[str, Any]:
    """Every group of samples with one content; which of them the demo planted, and which stand in train and test."""
    known = {bytes.fromhex(sample["id"]): sample for sample in open_trace(path).sample_counts()}
    groups = [[known[i] for i in ids] for ids in equal_ids(open_full_seal(TraceDir.open(path)))]
    leaks = [
        [first["name"], second["name"]]
        for group in groups
        for first in group
        for second in group
        if "train" in first["roles"] and "test" in second["roles"]
    ]
    names = {sample["name"] for group in groups for sample in group}
    return {
        "groups": len(groups),
        "samples": len(names),
        "copies_planted": len(prepared.copies),
        "copies_found": len(names & {f"{ARCHIVE}:{row}" for row in prepared.copies}),
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


def proofs(path: Path, prepared: Prepared, public_key: bytes) -> list[dict[str, Any]]:
    """A bundle that a training image was used, and one that a dropped copy never was, each checked from its bytes."""
    trace = open_trace(path)
    verifier = Verifier(ORIGIN_PREFIX + trace.id.hex(), public_key)
    out = []
    for row, claim in ((prepared.flipped[0], "used"), (prepared.copies[0], "never used")):
        data = trace.prove(f"{ARCHIVE}:{row}", claim)
        bundle = parse_bundle(data)
        report = check_bundle(bundle, verifier)
        said = {"claim": bundle.words, "bytes": len(data), "verdict": str(report.verdict)}
        out.append(said | {"as_foretold": report.verdict is Verdict.HOLDS})
    return out
