"""A small trace whose heads an authority, a witness and a contract have seen, and those who saw them: all real ones.

The head of `FIRST` entries has the announcement of epoch 0 and no use of it. That of `LAST` entries has all uses, and
the log goes on with its end. By the log's own times the first use was between the two, `GAP_S` after the entries before
it; the authority and the witness saw the heads in the middle of that time and after it, the contract years later.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from authorities import Identity, issue, make_root
from chains import TestChain
from cosigned import cosigned, cosigner, prover, signed_head
from fgtrac.api.anchor_audit import anchor_demands
from fgtrac.api.audit import Demand, audit_trace
from fgtrac.api.trusted_anchors import TrustedAnchors
from fgtrac.tlog.cosignature import format_cosigner
from fgtrac.tlog.note import parse_note, parse_tree_head
from fgtrac.tlog.tiles import decode_bundle
from fgtrac.verify.receipts import (
    EVM,
    RFC3161,
    WITNESS,
    note_path,
    paths_of,
    receipt_path,
    rfc3161_name,
    witness_name,
)
from fgtrac.verify.report import Report
from signed import VERIFIER, WRITER, Event, Files, MemoryTrace, end, metrics, note, run, samples, seal, use, write
from stamps_by_hand import stamp

FIRST, LAST, SIZE = 3, 7, 9
BEGAN, GAP_S = 1_700_000_000, 60  # 2023-11-14 22:13:20 UTC
URL = "http://tsa.example/"
VKEY = format_cosigner(cosigner())


def sampler(epoch: int) -> Event:
    return {"kind": "sampler", "loader": 1, "epoch": epoch, "sampler": "RandomSampler"}


def use_in(epoch: int, step: int, *ordinals: int) -> Event:
    return {**use(step, *ordinals), "epoch": np.array([epoch], np.uint32)}


def events(*first_batch: int) -> list[Event]:
    """What happened: entry 3 has the first batch."""
    trained = [sampler(0), use(1, *(first_batch or (0, 1, 2))), sampler(1), use_in(1, 2, 3, 4), metrics(2)]
    told = [run(), samples(), *trained, end((WRITER, 6)), seal()]
    return [{"time": (BEGAN + (n >= FIRST) * GAP_S) * 10**9, **event} for n, event in enumerate(told)]


EVENTS = events()
REWRITTEN = events(0, 1, 5)


def entries_of(files: Files, size: int = SIZE) -> list[bytes]:
    return decode_bundle(files[f"tile/entries/000.p/{size}"], size)


@dataclass(frozen=True)
class Stage:
    """Those who witness, and the folder that has the authority's root."""

    folder: Path
    authority: Identity
    chain: TestChain

    @classmethod
    def set(cls, folder: Path) -> Stage:
        root = make_root()
        root.write(folder, "root")
        make_root("another root").write(folder, "another")
        return cls(folder, issue("test authority", root), TestChain(folder))

    def anchor(self, files: Files, *sizes: int, kinds: tuple[str, ...] = (RFC3161, WITNESS, EVM)) -> Files:
        """Have the heads of these sizes witnessed, the smallest first: the trace with the receipts."""
        entries, found = entries_of(files), dict(files)
        for size in sizes:
            head, seen_at = note(entries, size), BEGAN + GAP_S // 2 + (size > FIRST) * GAP_S
            found[note_path(size)] = head
            if RFC3161 in kinds:
                found[receipt_path(size, rfc3161_name(URL))] = stamp(
                    head, self.authority, when=datetime.fromtimestamp(seen_at, UTC)
                )
            if WITNESS in kinds:
                found[receipt_path(size, witness_name(cosigner().key_id))] = cosigned(head, time=seen_at)
            if EVM in kinds:
                name, receipt = self.chain.service().anchor(signed_head(entries, size), prover(entries, size))
                found[receipt_path(size, name)] = receipt
        return found

    def trusts(self, *kinds: str, **changes: Any) -> TrustedAnchors:
        """A verifier who believes those who witness, of these kinds; of the account and the contract by name."""
        named: dict[str, Any] = {}
        if RFC3161 in kinds:
            named["tsa_roots"] = [self.folder / "root.pem"]
        if WITNESS in kinds:
            named["witnesses"] = [VKEY]
        if EVM in kinds:
            account = str(self.chain.tester.get_accounts()[0])
            named |= {"nodes": [self.chain.provider], "contracts": [self.chain.contract], "accounts": [account]}
        return TrustedAnchors(**named | changes)


def verify(files: Files, trusted: TrustedAnchors, *more: Demand) -> Report:
    """What `fgtrac verify` answers on a trace in memory."""
    demands = anchor_demands(files, trusted)
    return audit_trace(MemoryTrace(files), VERIFIER, demands=[*demands, *more])


def without(files: Files, *kinds: str) -> Files:
    """The trace without the receipts of these kinds."""
    gone = {path for kind in kinds for path in paths_of(files, kind)}
    return {path: data for path, data in files.items() if path not in gone}


def root_of(files: Files, size: int = LAST) -> str:
    """The root over the first entries of a trace, in hex."""
    return parse_tree_head(parse_note(note(entries_of(files), size)).text).root.hex()


def onto(files: Files, anchored: Files) -> Files:
    """A trace with the receipts of another."""
    return files | {path: data for path, data in anchored.items() if path.startswith("receipts/")}


TRUE = write(*EVENTS)
FORGED = write(*REWRITTEN)
