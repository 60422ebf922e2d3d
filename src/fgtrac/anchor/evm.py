"""Tree heads into a contract on an EVM chain: deploy it or use one, send the head, and wait until the chain has it.

No answer of the node is taken for granted: the contract's code is compared before and after, the event that it made is
read back and compared with what was sent, and the contract has to tell of it afterwards.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from fgtrac.anchor.account import Account, load_account
from fgtrac.anchor.chain_reading import (
    Confirmed,
    anchored_heads,
    check_block,
    check_call,
    check_confirmations,
    confirm,
    walk,
)
from fgtrac.anchor.contract.calls import anchor_call, artifact
from fgtrac.anchor.node import Node
from fgtrac.anchor.outcomes import (
    ContradictionError,
    NoContractError,
    NonsenseError,
    OtherCodeError,
    OtherHeadError,
    PlantedHeadError,
    ReorganisedError,
    RevertedError,
    WrongChainError,
)
from fgtrac.anchor.seconds import read_seconds
from fgtrac.anchor.service import ProveFrom, SignedHead
from fgtrac.anchor.transactions import MAX_FEE_GWEI, Sender, check_max_fee, pause
from fgtrac.errors import ProofError
from fgtrac.store.private_files import check_names_file
from fgtrac.store.trace_dir import ORIGIN_PREFIX
from fgtrac.tlog.note import TreeHead
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.evm_receipt import EvmReceipt, format_address, format_evm_receipt, parse_address
from fgtrac.verify.receipts import evm_name

__all__ = ["Confirmed", "EvmContract", "Node", "anchored_heads", "check_call", "confirm"]


class EvmContract:
    """A contract that keeps tree heads, and the account that gives them to it; a `Service` (service.py).

    `rpc_url` is a node's URL, or a web3 provider of a chain in this process. `account` is a file with a private key
    (account.py). Without `contract`, an address, the first head deploys one; afterwards `contract` has its address.
    A head counts as anchored with `confirmations` blocks, its own and those after it. `timeout_s` bounds one anchor
    as a whole, the wait for those blocks too. With `chain_id` no other chain is used, and without it none but the first
    one met. Nothing is sent while a unit of gas costs more than `max_fee_gwei` (gwei). `deployment` is the transaction
    of an earlier deployment, as `settings` tells it.
    """

    kind = "evm"

    def __init__(
        self,
        rpc_url: str | Any,
        account: str | Path,
        *,
        contract: str | None = None,
        confirmations: int = 1,
        timeout_s: float = 30.0,
        chain_id: int | None = None,
        max_fee_gwei: float = MAX_FEE_GWEI,
        deployment: str | None = None,
    ) -> None:
        confirmations, max_fee_gwei = operator.index(confirmations), float(max_fee_gwei)
        chain_id = None if chain_id is None else operator.index(chain_id)
        check_confirmations(confirmations)
        check_max_fee(max_fee_gwei)
        check_names_file(Path(account))
        self._rpc_url, self._account_file = rpc_url, Path(account).absolute()
        timeout_s = read_seconds(timeout_s, "timeout_s")
        self._node_name = Node(rpc_url, timeout_s).name
        self._named = self._contract = None if contract is None else parse_address(contract)
        self._confirmations, self._timeout_s, self._chain_id = confirmations, timeout_s, chain_id
        self._max_fee_gwei = max_fee_gwei
        self._known: Mapping[int, bytes] = {}
        self._gone: bytes | None = None
        self.recall(deployment)
        self._sender: Sender | None = None

    @property
    def contract(self) -> str | None:
        """The contract's address, 0x and hex; None before the first deployment."""
        return None if self._contract is None else format_address(self._contract)

    @property
    def name(self) -> str:
        """See Service."""
        gone = "" if self._gone is None else f" (deployed anew: it was gone from {format_address(self._gone)})"
        return f"contract {self.contract or '(to be deployed)'}{gone} by way of {self._node_name}"

    def settings(self) -> Mapping[str, Any]:
        """See Service. TypeError for a provider in this process, which cannot be made again."""
        if not isinstance(self._rpc_url, str):
            raise TypeError(f"{self._node_name} ends with this process; anchor to a node's URL for what is to last")
        return {
            "kind": self.kind,
            "rpc_url": self._rpc_url,
            "account": str(self._account_file),
            "contract": None if self._named is None else format_address(self._named),
            "confirmations": self._confirmations,
            "timeout_s": self._timeout_s,
            "chain_id": self._chain_id,
            "max_fee_gwei": self._max_fee_gwei,
            "deployment": None if self._deployment is None else "0x" + self._deployment.hex(),
        }

    def prefer(self, contracts: Mapping[int, bytes]) -> None:
        """Where no contract was named: the one to use on a chain, by its id, in place of a new one."""
        self._known = dict(contracts)

    def recall(self, deployment: str | None) -> None:
        """Where no contract is known: the transaction (0x and hex) that deploys one, sent earlier and perhaps still
        waiting, in place of another. ValueError for what is no hash."""
        self._deployment = None if deployment is None else bytes.fromhex(deployment.removeprefix("0x"))
        if len(self._deployment or bytes(32)) != 32:
            raise ValueError(f"the hash of a transaction has 32 bytes, not {len(self._deployment or b'')}")

    def prepare(self, *, may_ask: bool = True) -> None:
        """See Service; without `may_ask`, ValueError where the account's password would be asked for."""
        artifact()
        self._account(may_ask=may_ask)

    def _account(self, *, may_ask: bool = True) -> Sender:
        if self._sender is None:
            self._sender = Sender(load_account(self._account_file, may_ask=may_ask), self._max_fee_gwei)
        return self._sender

    def anchor(self, signed: SignedHead, prove_from: ProveFrom) -> tuple[str, bytes]:
        """See Service; outcomes.py has the ways to fail. ValueError for the head of an empty log."""
        head = signed.head
        trace_id = _trace_id(head)
        sender = self._account()
        node = Node(self._rpc_url, self._timeout_s)
        node.allow(self._timeout_s)
        chain_id = self._met(node)
        contract = self._contract = self._place(node, chain_id, sender)
        event = standing = _standing(node, chain_id, contract, sender.account, trace_id, head)
        if event is None:
            event = self._sent(node, chain_id, contract, sender, trace_id, head)
        self._settle(node, event)
        if standing is None and _standing(node, chain_id, contract, sender.account, trace_id, head) != event:
            raise ContradictionError(f"{node.name}: the contract took size {head.size}, and does not tell of it")
        try:
            receipt = format_evm_receipt(event)
        except ValueError as error:
            raise NonsenseError(f"{node.name}: {error}") from None
        return evm_name(chain_id, contract, sender.account.address), receipt

    def _met(self, node: Node) -> int:
        """The node's chain, if it is the one of before."""
        found = node.chain_id()
        if self._chain_id not in (None, found):
            raise WrongChainError(f"{node.name} is on chain {found}; this trace is to be anchored on {self._chain_id}")
        self._chain_id = found
        return found

    def _place(self, node: Node, chain_id: int, sender: Sender) -> bytes:
        """The contract to use: the one that was named, or the one used before; where that is gone, as after a
        reorganisation, or there is none, a new one."""
        before = self._contract or self._known.get(chain_id)
        if before is None:
            return self._deploy(node, chain_id, sender)
        try:
            node.check_contract(before)
        except (NoContractError, OtherCodeError):
            if before == self._named:
                raise
            made = self._deploy(node, chain_id, sender)
            self._gone = before
            return made
        return before

    def _deploy(self, node: Node, chain_id: int, sender: Sender) -> bytes:
        """Deploy it; what was sent for that is kept whatever happens then, so that it is paid once."""
        creation = artifact().creation
        if self._deployment is not None:
            sender.recall(chain_id, creation, self._deployment)
        try:
            mined = sender.transact(node, chain_id, None, creation)
        finally:
            self._deployment = sender.deployment(chain_id, creation)
        if mined.created is None:
            raise ContradictionError(f"{node.name} took the contract's code and says that nothing was deployed")
        node.check_contract(mined.created)
        return mined.created

    def _sent(
        self, node: Node, chain_id: int, contract: bytes, sender: Sender, trace_id: bytes, head: TreeHead
    ) -> EvmReceipt:
        """The event of a transaction with this head."""
        try:
            mined = sender.transact(node, chain_id, contract, anchor_call(trace_id, head.size, head.root))
        except RevertedError:  # somebody else with this account may have been faster
            event = _standing(node, chain_id, contract, sender.account, trace_id, head)
            if event is None:
                raise
            return event
        wanted = (contract, sender.account.address, trace_id, head.size, head.root)
        for event in mined.events:
            if (event.contract, event.sender, event.trace_id, event.size, event.root) == wanted:
                return event
        raise ContradictionError(
            f"{node.name} says that size {head.size} with root {head.root.hex()} was taken, and shows "
            + (f"{mined.events[0].size} with {mined.events[0].root.hex()}" if mined.events else "no event")
        )

    def _settle(self, node: Node, event: EvmReceipt) -> None:
        """Wait until the event's block is deep enough, and see that it is still in the chain."""
        began, depth = time.monotonic(), 1
        while depth < self._confirmations:
            depth = node.height() - event.block_number + 1
            self._check_standing(node, event)
            if depth < self._confirmations:
                wanted = f"{depth} of {self._confirmations}"
                pause(node, began, f"waiting for confirmations of block {event.block_number}: {wanted}")
        try:
            check_block(node, event)
        except (ContradictionError, NonsenseError):
            self._check_standing(node, event)  # the chain may have been reorganised just now
            raise
        node.check_contract(event.contract, event.block_number)
        if (chain_id := node.chain_id()) != event.chain_id:
            raise ContradictionError(f"{node.name} was on chain {event.chain_id} and is on {chain_id} now")

    def _check_standing(self, node: Node, event: EvmReceipt) -> None:
        mined = node.mined(event.transaction, event.chain_id)
        if mined is None or mined.block_hash != event.block_hash:
            now = "in no block" if mined is None else f"in block {mined.block_number} (0x{mined.block_hash.hex()})"
            raise ReorganisedError(
                f"{node.name}: the chain was reorganised: transaction 0x{event.transaction.hex()} was in block "
                f"{event.block_number} (0x{event.block_hash.hex()}) and is {now}; try again"
            )


def _standing(
    node: Node, chain_id: int, contract: bytes, account: Account, trace_id: bytes, head: TreeHead
) -> EvmReceipt | None:
    """The event of this very head, if the chain has it. OtherHeadError for another or a larger one in its place,
    PlantedHeadError where the contract has heads of the log that the account did not give."""
    heads = walk(node, chain_id, contract, account.address, trace_id)
    newest = next(heads, None)
    if newest is None:
        return None
    _check_given(node, newest)
    if newest.size < head.size:
        return None
    event = next((event for event in chain([newest], heads) if event.size <= head.size), None)
    if event is not None and (event.size, event.root) == (head.size, head.root):
        if event is not newest:
            _check_given(node, event)
        return event
    other, kind = newest, "this is an older head"
    if event is not None and event.size == head.size:
        other, kind = event, "a fork of the log"
    raise OtherHeadError(
        f"{node.name}: {format_address(account.address)} has anchored size {other.size} with root {other.root.hex()}; "
        f"size {head.size} with root {head.root.hex()} cannot follow: {kind}"
    )


def _check_given(node: Node, event: EvmReceipt) -> None:
    try:
        check_call(node, event)
    except (ProofError, CannotTell) as error:
        raise PlantedHeadError(f"{error}; use another contract than this one") from None


def _trace_id(head: TreeHead) -> bytes:
    """The trace that a head is of. ValueError for an empty log, or one that is no trace's."""
    name = head.origin.removeprefix(ORIGIN_PREFIX)
    if head.origin != ORIGIN_PREFIX + name or len(name) != 32 or not set(name) <= set("0123456789abcdef"):
        raise ValueError(f"{head.origin!r:.80} is not the origin of a trace")
    if head.size == 0:
        raise ValueError("the log is empty: there is nothing to anchor yet")
    return bytes.fromhex(name)
