"""Chains in process for tests: heads to anchor, and a node that lies about what the chain says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fgtrac.anchor.evm import EvmContract
from fgtrac.anchor.json_rpc import needs_evm
from fgtrac.anchor.local_chain import LocalChain
from fgtrac.anchor.node import Node
from fgtrac.anchor.service import SignedHead
from fgtrac.errors import ProofError
from fgtrac.tlog.note import TreeHead
from fgtrac.verify.evm_receipt import EvmReceipt, parse_evm_receipt
from forged_contracts import Head, forging_code

Lie = Callable[[Any], Any]
OTHER_CODE = "0x6001600c60003960016000f300"  # deploys the one byte 0x00


def root_of(text: str) -> bytes:
    return text.encode().ljust(32, b".")


def evm_head(trace_id: bytes, size: int, root: str = "") -> SignedHead:
    """A head as it is anchored; its note is of no concern to a contract."""
    return SignedHead(TreeHead(f"fgtrac/{trace_id.hex()}", size, root_of(root or f"root {size}")), b"")


def no_proof(size: int) -> tuple[bytes, ...]:
    raise ProofError("a contract asks for no consistency proof")


def anchored(service: EvmContract, signed: SignedHead) -> EvmReceipt:
    """Anchor a head: the receipt, read."""
    return parse_evm_receipt(service.anchor(signed, no_proof)[1])


class LyingProvider(needs_evm("web3").EthereumTesterProvider):  # type: ignore[misc]
    """A chain in process whose node says what `lies` make of its answers, by method; what it was asked and sent."""

    def __init__(self, tester: Any) -> None:
        super().__init__(tester)
        self.start_afresh()

    def start_afresh(self) -> None:
        self.lies: dict[str, Lie] = {}
        self.answers: dict[str, Any] = {}  # given without asking the chain
        self.asked: list[str] = []
        self.sent: list[str] = []

    def make_request(self, method: Any, params: Any) -> Any:
        self.asked.append(method)
        if method == "eth_sendRawTransaction":
            self.sent.append(params[0])
        if method in self.answers:
            return {"jsonrpc": "2.0", "id": 1, "result": self.answers[method]}
        answer = super().make_request(method, params)
        if method in self.lies and "result" in answer:
            return {**answer, "result": self.lies[method](answer["result"])}
        return answer


class TestChain(LocalChain):
    """A local chain with fgtrac's contract at `contract`, and `liar`, a node of it that lies when told to."""

    __test__ = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tester = self.provider.ethereum_tester
        self.liar = LyingProvider(self.tester)
        first = EvmContract(self.provider, self.account)
        anchored(first, evm_head(bytes(16), 1))
        self.contract = str(first.contract)

    def service(self, **options: Any) -> EvmContract:
        """Anchors by way of the node that may lie, in the contract that is there."""
        return EvmContract(self.liar, self.account, **{"contract": self.contract, **options})

    def deploy(self, code: str) -> str:
        """Put a contract of any code on the chain: its address."""
        return str(self.tester.get_transaction_receipt(self.send("", code))["contract_address"]).lower()

    def send(self, to: str, data: str) -> str:
        """Have a stranger send a transaction: its hash."""
        sender = self.tester.get_accounts()[1]
        return str(self.tester.send_transaction({"from": sender, "to": to, "gas": 3_000_000, "data": data}))

    def forge(self, *heads: Head, is_planted: bool = True) -> tuple[EvmReceipt, ...]:
        """Have a stranger deploy the contract with these heads in it, as if their senders had given them: what would be
        their receipts."""
        sent = self.send("", "0x" + forging_code(heads, is_planted=is_planted).hex())
        node = Node(self.provider)
        mined = node.mined(bytes.fromhex(sent[2:]), node.chain_id())
        assert mined is not None
        return mined.events
