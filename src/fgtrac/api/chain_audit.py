"""The check `evm`: the heads that contracts keep for this trace, by its receipts and by the chains themselves.

A receipt says where on its chain a head stands; whether it stands there only a node can tell. The chain is also asked
for every other head of the same account and trace: a history that was rewritten contradicts one of them, whatever
became of the receipts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from fgtrac.api.trusted_anchors import TrustedAnchors
from fgtrac.errors import ProofError
from fgtrac.tlog.note import TreeHead
from fgtrac.verify.anchors import Tally, check_folder, examine_all, read_receipt
from fgtrac.verify.auditor import Audit
from fgtrac.verify.checks import CannotTell, TraceFiles
from fgtrac.verify.evm_receipt import EvmReceipt, format_address, parse_address, parse_evm_receipt
from fgtrac.verify.receipts import EVM, evm_name, paths_of
from fgtrac.verify.sightings import Witnessed, utc
from fgtrac.verify.since import check_extends
from fgtrac.verify.tree import Log
from fgtrac.verify.updates import counted

if TYPE_CHECKING:
    from fgtrac.anchor.evm import Node

Place = tuple[int, bytes, bytes]  # chain id, contract, sender


class ChainCheck:
    """The check, for a verifier who believes certain nodes; they are asked only when it is made."""

    def __init__(self, trusted: TrustedAnchors) -> None:
        """ValueError for what is no URL, no address, or fewer than 1 confirmation."""
        self._nodes = trusted.make_nodes()
        self._contract = None if trusted.contract is None else parse_address(trusted.contract)
        self._account = None if trusted.account is None else parse_address(trusted.account)
        self._confirmations = trusted.confirmations
        if self._confirmations < 1:
            raise ValueError(f"{self._confirmations} confirmations; the block that has the head is the first")

    def examine(self, trace: TraceFiles, audit: Audit) -> str:
        """In words, which heads of the log the chains keep; needs the checks of `entries` and `run`.

        ProofError for a receipt that is malformed, moved, of another trace or contradicted by its chain, and for a head
        on a chain that is none of this log. CannotTell without a node that answers, where a receipt's head is no longer
        on its chain or not deep enough, and where there is none.
        """
        assert audit.log is not None
        log, trace_id = audit.log, audit.facts.runs[0][1]["trace"]
        receipts: dict[str, EvmReceipt] = {}

        def read(path: str) -> None:
            receipts[path] = _read(read_receipt(trace, path), path, trace_id, log)

        examine_all(paths_of(trace.names(), EVM), read)
        if not self._nodes:
            chains = ", ".join(str(chain) for chain in sorted({r.chain_id for r in receipts.values()}))
            raise CannotTell(
                f"{counted(len(receipts), 'receipt')} of heads on chain {chains}: whether they stand there only a node "
                "tells, and none is named: --evm RPC_URL"
            )
        tally = self._ask(receipts, trace_id, log)
        if not (tally.held or tally.refuted or tally.unknown):
            raise CannotTell(self._nothing(receipts))
        return tally.conclude(EVM, audit)

    def _ask(self, receipts: Mapping[str, EvmReceipt], trace_id: bytes, log: Log) -> Tally:
        """Everything that the nodes say of the receipts, and of all heads where such are kept."""
        tally = Tally()
        nodes: dict[int, Node] = {}
        for node in self._nodes:
            with tally.taking(node.name):
                nodes[node.chain_id()] = node
        for path, receipt in receipts.items():
            with tally.taking(path):
                self._check_named(receipt)
                if receipt.chain_id not in nodes:
                    raise CannotTell(f"none of the nodes is on chain {receipt.chain_id}; name one that is with --evm")
                tally.held.append(self._confirm(nodes[receipt.chain_id], receipt))
        known = set(receipts.values())
        for chain, contract, sender in self._places(known, nodes):
            with tally.taking(f"contract {format_address(contract)} on chain {chain}"):
                for head in _kept(nodes[chain], contract, sender, trace_id, log):
                    if head not in known:
                        tally.held.append(self._confirm(nodes[chain], head))
        return tally

    def _check_named(self, receipt: EvmReceipt) -> None:
        """CannotTell where the receipt is of another account or contract than those that were named."""
        for what, there, named in (
            ("account", receipt.sender, self._account),
            ("contract", receipt.contract, self._contract),
        ):
            if named not in (None, there):
                raise CannotTell(f"of the {what} {format_address(there)}, and you named {format_address(named)}")

    def _confirm(self, node: Node, receipt: EvmReceipt) -> Witnessed:
        """What the chain says of a receipt; raises as `anchor.evm.confirm`."""
        from fgtrac.anchor.evm import confirm

        confirmed = confirm(node, receipt, self._confirmations)
        who = f"account {format_address(receipt.sender)}{'' if self._account else ' (as the receipts name it)'} in "
        where = f"contract {format_address(receipt.contract)} on chain {receipt.chain_id}"
        return Witnessed(receipt.size, confirmed.block_time, who + where)

    def _places(self, receipts: set[EvmReceipt], nodes: Iterable[int]) -> list[Place]:
        """Where to ask for heads of this trace: at the account and the contract that were named, or as the receipts
        say."""
        found = set[Place]()
        for chain in nodes:
            mine = [r for r in receipts if r.chain_id == chain]
            contracts = {self._contract} if self._contract else {r.contract for r in mine}
            senders = {self._account} if self._account else {r.sender for r in mine}
            found |= {(chain, contract, sender) for contract in contracts for sender in senders}
        return sorted(found)

    def _nothing(self, receipts: Mapping[str, EvmReceipt]) -> str:
        never = "never anchored there, or the receipt vanished"
        if not receipts and not (self._account and self._contract):
            return f"no receipt: {never}; with --evm-account and --evm-contract the chain itself is asked"
        return f"the chain keeps no head of this trace by that account in that contract: {never}"


def _read(data: bytes, path: str, trace_id: bytes, log: Log) -> EvmReceipt:
    """A receipt, once it is known to be of a head of this log and to lie where it belongs."""
    receipt = parse_evm_receipt(data)
    check_folder(receipt.size, path)
    if receipt.trace_id != trace_id:
        raise ProofError(f"of the trace {receipt.trace_id.hex()}, and this one is {trace_id.hex()}")
    check_extends(TreeHead(log.head.origin, receipt.size, receipt.root), "the head that it says is kept", log)
    name = evm_name(receipt.chain_id, receipt.contract, receipt.sender)
    if PurePosixPath(path).name != name:
        raise ProofError(f"the receipt of this chain, contract and account is named {name}; it was renamed")
    return receipt


def _kept(node: Node, contract: bytes, sender: bytes, trace_id: bytes, log: Log) -> list[EvmReceipt]:
    """All heads that the contract keeps of this trace by that account, each of them one of the log; ProofError
    otherwise."""
    from fgtrac.anchor.evm import anchored_heads

    kept = anchored_heads(node, contract, sender, trace_id)
    for head in kept:
        named = (
            f"the head that {format_address(sender)} anchored in block {head.block_number} at {utc(head.block_time)}"
        )
        check_extends(TreeHead(log.head.origin, head.size, head.root), named, log)
    return kept
