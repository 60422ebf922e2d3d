"""The demo's anchor: its tree head into a contract on a chain in this process, and a rewriting that only the chain
refutes.

Such a chain ends with the process and proves nothing to anybody else; `fgtrac anchor TRACE --evm RPC_URL` does.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from fgtrac.anchor.evm import EvmContract, Node
from fgtrac.anchor.local_chain import LocalChain
from fgtrac.api.anchor_audit import anchor_demands
from fgtrac.api.anchoring import anchor_trace
from fgtrac.api.audit import audit_trace
from fgtrac.api.trusted_anchors import TrustedAnchors
from fgtrac.demo.forge import Key, find, head_of, reseal_with, with_another_sample
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.note import Verifier
from fgtrac.verify.evm_receipt import EvmReceipt, format_address, parse_evm_receipt
from fgtrac.verify.report import Report, Verdict

Figures = dict[str, Any]


def anchored(trace: TraceDir, chain: LocalChain, key: Key, key_path: Path) -> Figures:
    """Anchor the trace's head, and ask four times whether to believe: the trace and a rewriting of it, each without the
    chain and with it. `key` signs the trace, `key_path` is its file. Raises what keeps the head from being anchored."""
    began_s = time.perf_counter()
    (result,) = anchor_trace(trace.path, [EvmContract(chain.provider, chain.account)], key=key_path)
    if result.error is not None:
        raise result.error
    anchor_s = time.perf_counter() - began_s
    assert result.receipt is not None
    data = trace.read(result.receipt)
    receipt = parse_evm_receipt(data)
    trusted = TrustedAnchors(
        nodes=(chain.provider,),
        contracts=(format_address(receipt.contract),),
        accounts=(format_address(receipt.sender),),
    )
    figures = {
        **receipt_figures(receipt, Node(chain.provider)),
        "anchor_s": anchor_s,
        "receipt": result.receipt,
        "receipt_b": len(data),
        "answers": [
            answer("the trace, without the chain", audited(trace, key)),
            answer("the trace, with the chain", audited(trace, key, trusted)),
        ],
    }
    with tempfile.TemporaryDirectory(prefix="fgtrac-rewritten-") as folder:
        copy = rewritten(trace, Path(folder), key)
        figures["rewritten_root"] = head_of(copy).root.hex()
        figures["answers"] += [
            answer("a rewriting, without the chain", audited(copy, key)),
            answer("a rewriting, with the chain", audited(copy, key, trusted)),
        ]
    return figures


def receipt_figures(receipt: EvmReceipt, node: Node) -> Figures:
    """What the receipt says, and what the chain took for it. The chain's first transaction made the contract."""
    deployment, head = (
        node.mined(transaction, receipt.chain_id) for transaction in (*node.block(1).transactions, receipt.transaction)
    )
    assert deployment is not None
    assert deployment.created == receipt.contract
    assert head is not None
    return {
        "chain_id": receipt.chain_id,
        "contract": format_address(receipt.contract),
        "sender": format_address(receipt.sender),
        "transaction": receipt.transaction.hex(),
        "block": receipt.block_number,
        "size": receipt.size,
        "root": receipt.root.hex(),
        "gas": head.gas_used,
        "gas_deployment": deployment.gas_used,
    }


def rewritten(trace: TraceDir, folder: Path, key: Key) -> TraceDir:
    """A copy whose owner has exchanged a sample of a recorded batch, made everything else fit, signed it again with the
    right key, and removed the receipts."""
    copy = TraceDir(Path(shutil.copytree(trace.path, folder / trace.path.name)))
    shutil.rmtree(copy.path / "receipts")
    number, event = find(copy, "use")
    reseal_with(copy, number, with_another_sample(event), key)
    return copy


def audited(trace: TraceDir, key: Key, trusted: TrustedAnchors | None = None) -> Report:
    """A full verification under the key, by somebody who believes those anchors, or none."""
    verifier = Verifier(head_of(trace).origin, key.public_key().public_bytes_raw())
    demands = anchor_demands(trace.names(), trusted or TrustedAnchors())
    return audit_trace(trace, verifier, demands=demands)


def answer(question: str, report: Report) -> Figures:
    """The verdict, and the checks that are the reason for it where it is not that all hold."""
    reasons = report.failures()
    return {
        "question": question,
        "verdict": str(report.verdict),
        "checks": [finding.check for finding in reasons],
        "words": "; ".join(finding.words for finding in reasons),
    }


def claims(f: Figures) -> dict[str, bool]:
    """What the demo says of its anchor, and whether it was so."""
    found = [(a["verdict"], a["checks"]) for a in f["answers"]]
    refuted = f["answers"][3]["words"]
    return {
        "without the chain nobody can tell": found[0] == (Verdict.CANNOT_TELL, ["evm"]),
        "the anchored trace verifies against its chain": found[1] == (Verdict.HOLDS, []),
        "a rewriting under the right key passes every other check": found[2] == (Verdict.HOLDS, []),
        "the chain alone refutes the rewriting, with both roots": found[3] == (Verdict.REFUTED, ["evm"])
        and f["root"] in refuted
        and f["rewritten_root"] in refuted,
    }
