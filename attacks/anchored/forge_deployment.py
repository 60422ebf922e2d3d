"""Forge the deployment: what deploys the contract first makes up the event, and fills the memory that tells of it.

Then the true code stands at the address, byte for byte, and says that the account gave the rewritten head, which never
heard of it. What tells is the transaction: it is no call by which that account gave that contract this head.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from anchored import Act, AnchoredStage, Answer, caught, every, main
from fgtrac.anchor.account import load_account
from fgtrac.anchor.node import Node
from fgtrac.anchor.transactions import Sender
from fgtrac.demo.forge import head_of, put
from fgtrac.verify.evm_receipt import format_address, format_evm_receipt
from fgtrac.verify.receipts import evm_name
from forged_contracts import forging_code


def tell(stage: AnchoredStage) -> Iterator[Act]:
    without, with_ = (list(forged(stage, is_planted=is_planted)) for is_planted in (False, True))
    for answers in zip(without, with_, strict=True):
        yield every(caught(answer, "evm") for answer in answers)


def forged(stage: AnchoredStage, *, is_planted: bool) -> Iterator[Answer]:
    """What is answered of a rewritten trace whose only receipt is of a forged contract: to one who names nobody, and to
    one who names the true account and the forged contract."""
    trace, chain = stage.copy(), stage.services.chain
    stage.rewrite(trace)
    shutil.rmtree(trace.path / "receipts")
    node, head = Node(chain.url), head_of(trace)
    code = forging_code([(stage.kept.sender, stage.kept.trace_id, head.size, head.root)], is_planted=is_planted)
    (event,) = Sender(load_account(chain.account)).transact(node, node.chain_id(), None, code).events
    put(trace, f"receipts/{head.size}/checkpoint", trace.read("checkpoint"))
    name = evm_name(event.chain_id, event.contract, event.sender)
    put(trace, f"receipts/{head.size}/{name}", format_evm_receipt(event))
    yield stage.verify(trace, "--evm", chain.url)
    contract = format_address(event.contract)
    yield stage.verify(trace, "--evm", chain.url, "--evm-contract", contract, "--evm-account", stage.account)


if __name__ == "__main__":
    main(tell)
