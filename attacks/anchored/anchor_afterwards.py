"""Anchor afterwards: of a finished run, the signer has heads witnessed that end at the announcements of its epochs.

Each is a head of this log, and has an epoch's order and none of its batches. But it left the signer's hands when the
training was over, and until then another order could be announced: the log's own times tell.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

from anchored import KINDS, Act, AnchoredStage, holds, main
from fgtrac.anchor.evm import EvmContract
from fgtrac.anchor.rfc3161 import TimeStampAuthority
from fgtrac.anchor.service import SignedHead
from fgtrac.anchor.witness import Witness
from fgtrac.demo.forge import all_entries, head_of, put, signed_note
from fgtrac.events.schema import decode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.merkle import MemoryNodes, hash_leaves, prove_consistency, root
from fgtrac.tlog.note import TreeHead, Verifier
from fgtrac.verify.receipts import note_path, receipt_path
from lying import silence
from true_trace import record


def tell(stage: AnchoredStage) -> Iterator[Act]:
    trace = recorded(stage)
    time.sleep(1)  # the witnesses' clocks know whole seconds
    have_witnessed(stage, trace)
    for kind in KINDS:
        alone = stage.keep_only(TraceDir(shutil.copytree(trace.path, stage.room() / "run.trace")), kind)
        yield holds(stage.verify(alone, *stage.by(kind)), says="by the log's own times: 0 of 3 announced epochs")


def recorded(stage: AnchoredStage) -> TraceDir:
    """A trace that nobody has witnessed, by the same signer; the witness knows its log."""
    room = stage.room()
    shutil.copy(stage.trace.path.with_name("key.pem"), room)
    with silence():
        trace = record(room)
    stage.services.witness.add_log(Verifier(head_of(trace).origin, bytes.fromhex(stage.public_key)))
    return trace


def have_witnessed(stage: AnchoredStage, trace: TraceDir) -> None:
    """Every head that ends at an announcement, by all three."""
    chain, authority, witness = stage.services.chain, stage.services.authority, stage.services.witness
    services = (
        EvmContract(chain.url, chain.account, contract=stage.contract),
        TimeStampAuthority(authority.url),
        Witness(witness.url, witness.vkey),
    )
    entries = all_entries(trace)
    nodes = MemoryNodes(hash_leaves(entries))
    for size in (n for n, entry in enumerate(entries, 1) if decode_event(entry)["kind"] == "sampler"):
        head = TreeHead(head_of(trace).origin, size, root(size, nodes))
        signed = SignedHead(head, signed_note(head, stage.key))
        put(trace, note_path(size), signed.note)
        for service in services:
            name, receipt = service.anchor(signed, lambda old, new=size: tuple(prove_consistency(old, new, nodes)))
            put(trace, receipt_path(size, name), receipt)


if __name__ == "__main__":
    main(tell)
