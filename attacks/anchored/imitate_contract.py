"""Imitate the contract: one of the signer's own takes the rewritten heads, from the same account, with the very events.

It is the true one's source without the line that refuses a size that does not grow. What tells them apart is the code
at the address, which is not the one that everybody can read.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

from anchored import Act, AnchoredStage, caught, main, undecided
from fgtrac.anchor.account import load_account
from fgtrac.anchor.contract.calls import anchor_call
from fgtrac.anchor.node import Node
from fgtrac.anchor.transactions import Sender
from fgtrac.demo.forge import head_of, put
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.evm_receipt import EvmReceipt, format_evm_receipt
from fgtrac.verify.receipts import evm_name

REFUSAL = '    assert convert(size, uint256) > before >> SIZE_SHIFT, "the size does not grow"\n'


def tell(stage: AnchoredStage) -> Iterator[Act]:
    trace = stage.keep_only(stage.copy())
    stage.rewrite(trace)
    stage.exchange_heads(trace)
    receipt = kept_by_imitation(stage, trace)
    name = evm_name(receipt.chain_id, receipt.contract, receipt.sender)
    put(trace, f"receipts/{receipt.size}/{name}", format_evm_receipt(receipt))
    yield undecided(stage.verify(trace, "--evm", stage.services.chain.url), "evm")
    yield caught(stage.verify(trace, *stage.by("evm")), "evm")


def kept_by_imitation(stage: AnchoredStage, trace: TraceDir) -> EvmReceipt:
    """Where the imitation keeps the trace's head: a receipt of the true form."""
    from vyper import compile_code

    source = (files("fgtrac.anchor.contract") / "tree_heads.vy").read_text(encoding="utf-8")
    assert REFUSAL in source
    code = compile_code(source.replace(REFUSAL, ""), output_formats=["bytecode"])["bytecode"]
    node, head = Node(stage.services.chain.url), head_of(trace)
    sender, chain_id = Sender(load_account(stage.services.chain.account)), node.chain_id()
    contract = sender.transact(node, chain_id, None, bytes.fromhex(code[2:])).created
    assert contract is not None
    call = anchor_call(stage.kept.trace_id, head.size, head.root)
    (event,) = sender.transact(node, chain_id, contract, call).events
    return event


if __name__ == "__main__":
    main(tell)
