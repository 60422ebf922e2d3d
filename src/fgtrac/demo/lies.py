"""Seven lies that the demo tells about copies of its trace, and the check that must catch each one.

The others are scripts of their own, in the repository's folder attacks/.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.api.audit import audit_trace
from fgtrac.demo.forge import (
    Key,
    all_entries,
    find,
    head_of,
    put,
    put_entry,
    reseal,
    reseal_with,
    tile_at,
    with_another_sample,
    without_a_use,
)
from fgtrac.events.schema import encode_event
from fgtrac.store.index_files import load_index, write_index
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.merkle import leaf_hash
from fgtrac.tlog.note import Verifier
from fgtrac.tlog.tiles import WIDTH, read_tile
from fgtrac.verify.report import Report, Verdict


@dataclass(frozen=True, slots=True)
class Lie:
    """One lie: what is done to the trace, and the name of the check that refutes it."""

    name: str
    words: str
    check: str
    tell: Callable[[TraceDir, Key], None]


def edit_entry(trace: TraceDir, key: Key) -> None:
    """One sample of one batch becomes another; nothing else is touched."""
    number, event = find(trace, "use")
    put_entry(trace, number, encode_event(with_another_sample(event)))


def edit_entry_and_hash(trace: TraceDir, key: Key) -> None:
    """The same, and the entry's hash in its tile is made to fit."""
    number, event = find(trace, "use")
    entry = encode_event(with_another_sample(event))
    put_entry(trace, number, entry)
    tile = tile_at(trace, 0, number // WIDTH)
    data = bytearray(read_tile(trace, tile))
    data[number % WIDTH * 32 : number % WIDTH * 32 + 32] = leaf_hash(entry)
    put(trace, tile.path, bytes(data))


def sign_with_another_key(trace: TraceDir, key: Key) -> None:
    """The log is rewritten without one batch's true sample and signed by somebody else, all of it consistent."""
    number, event = find(trace, "use")
    reseal_with(trace, number, with_another_sample(event), Ed25519PrivateKey.generate())


def hide_use_in_index(trace: TraceDir, key: Key) -> None:
    """One use disappears from the index on disk, whose hashes are made to fit; log and head stay."""
    size = trace.full_seals()[-1]
    write_index(trace.path, size, without_a_use(load_index(trace.mapped, size, b"")))


def swap_artifact(trace: TraceDir, key: Key) -> None:
    """A saved model becomes another saved model (or, where there is one only, loses a byte)."""
    first, *others = sorted((trace.path / "artifacts").glob("checkpoint-*"))
    data = others[0].read_bytes() if others else first.read_bytes()[:-1]
    put(trace, str(first.relative_to(trace.path)), data)


def drop_entry_and_sign(trace: TraceDir, key: Key) -> None:
    """The signer leaves an entry out, builds log and index anew and signs."""
    number, _event = find(trace, "use")
    entries = all_entries(trace)
    del entries[number]
    reseal(trace, entries, key)


def change_score_and_sign(trace: TraceDir, key: Key) -> None:
    """The signer makes one contribution larger than all others."""
    number, event = find(trace, "contribution")
    scores = event["scores"].copy()
    scores[0] = 2 * np.abs(scores).max() + 1
    reseal_with(trace, number, event | {"scores": scores}, key)


LIES = (
    Lie("edit an entry", "one sample of a recorded batch becomes another", "entries", edit_entry),
    Lie("edit an entry and its hash", "... and the hash in its tile is made to fit", "tiles", edit_entry_and_hash),
    Lie("sign as a stranger", "log, index and head rewritten, another's signature", "signature", sign_with_another_key),
    Lie("hide a use", "one use vanishes from the index, whose hashes are made to fit", "index", hide_use_in_index),
    Lie("swap an artifact", "a saved model is replaced by another", "artifacts", swap_artifact),
    Lie("leave an entry out", "the signer drops an entry, rebuilds and signs", "sequences", drop_entry_and_sign),
    Lie("change a score", "the signer changes a recorded contribution", "contributions", change_score_and_sign),
)


def answer(trace: TraceDir, lie: Lie, key: Key) -> Report:
    """What a full verification under the key says of a copy of the trace that the lie was told about."""
    with tempfile.TemporaryDirectory(prefix="fgtrac-lie-") as folder:
        copy = TraceDir(Path(shutil.copytree(trace.path, Path(folder) / trace.path.name)))
        verifier = Verifier(head_of(trace).origin, key.public_key().public_bytes_raw())
        lie.tell(copy, key)
        return audit_trace(copy, verifier)


def is_as_foretold(lie: Lie, report: Report) -> bool:
    """Whether exactly the lie's check refutes."""
    return {f.check for f in report.findings if f.verdict is Verdict.REFUTED} == {lie.check}
