"""One transaction from its first question to the block that has it: gas, fees, signature, sending, waiting."""

from __future__ import annotations

import time

from fgtrac.anchor.account import Account
from fgtrac.anchor.node import Mined, Node
from fgtrac.anchor.outcomes import (
    ContradictionError,
    LowBalanceError,
    LowGasError,
    NodeError,
    OutrunError,
    RevertedError,
)
from fgtrac.verify.evm_receipt import format_address

_LEAST_GAS = 21_000  # of every transaction
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 1.0


class Sender:
    """An account and what it has sent: what waits for a block is not sent twice, and nothing more is bid for it."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self._unmined: dict[tuple[int, bytes | None, bytes], tuple[bytes, int]] = {}

    def transact(self, node: Node, chain_id: int, to: bytes | None, data: bytes) -> Mined:
        """Have a transaction done. `to` None deploys.

        LowBalanceError, LowGasError, RevertedError (before it is sent, where the node foresees it), OutrunError,
        ContradictionError; TimedOutError where no block takes it in the node's time.
        """
        what = (chain_id, to, data)
        if what not in self._unmined or not node.knows(self._unmined[what][0]):
            self._send(node, chain_id, to, data)
        transaction, gas = self._unmined[what]
        mined = _wait(node, transaction, chain_id)
        del self._unmined[what]
        if mined.is_done:
            return mined
        name = f"{node.name}: transaction 0x{transaction.hex()} in block {mined.block_number}"
        if mined.gas_used >= gas:
            raise LowGasError(f"{name} ran out of gas: it had {gas} and used {mined.gas_used}")
        raise RevertedError(f"{name} was reverted: the contract refused it")

    def _send(self, node: Node, chain_id: int, to: bytes | None, data: bytes) -> None:
        """Sign and send. Its hash and gas are kept before: the node may take it and break off."""
        address = self.account.address
        fees = _fees(node)
        gas = _gas(node, address, to, data, max(fees.values()))
        nonce = node.nonce(address)
        target = {} if to is None else {"to": to}
        raw, transaction = self.account.sign(
            {"chainId": chain_id, "nonce": nonce, "gas": gas, "value": 0, "data": data, **fees, **target}
        )
        self._unmined[(chain_id, to, data)] = transaction, gas
        try:
            said = node.send(raw)
        except NodeError as error:
            if not _is_known(error):
                raise _refusal(node, error, address, nonce, gas, gas * max(fees.values())) from None
            said = transaction
        if said != transaction:
            raise ContradictionError(
                f"{node.name} was given transaction 0x{transaction.hex()} and says that it took 0x{said.hex()}"
            )


def pause(node: Node, began: float, waiting: str) -> None:
    """Sleep a tenth of the time since `began`, within limits. TimedOutError where the node's time is up then."""
    length = min(max(_FIRST_PAUSE_S, (time.monotonic() - began) / 10), _LONGEST_PAUSE_S)
    time.sleep(min(length, node.left_s(waiting)))
    node.left_s(waiting)


def _wait(node: Node, transaction: bytes, chain_id: int) -> Mined:
    began = time.monotonic()
    while (mined := node.mined(transaction, chain_id)) is None:
        pause(node, began, f"waiting for a block that takes transaction 0x{transaction.hex()}; it may still come")
    return mined


def _gas(node: Node, sender: bytes, to: bytes | None, data: bytes, price: int) -> int:
    """What the transaction takes as the chain stands, and a quarter more for what others do until then."""
    try:
        return node.estimate_gas(sender, to, data) * 5 // 4
    except NodeError as error:
        if "revert" in str(error).lower():
            raise RevertedError(f"the contract would not take it: {error}") from None
        _check_balance(node, sender, _LEAST_GAS * price)
        raise


def _fees(node: Node) -> dict[str, int]:
    """What is bid for a unit of gas, in wei: EIP-1559 where the chain has it, good for a base fee twice as high."""
    price, base = node.gas_price(), node.block().base_fee
    if base is None:
        return {"gasPrice": price}
    tip = max(price - base, min(price, 1))  # none at all is refused by some, where gas costs anything
    return {"maxFeePerGas": 2 * base + tip, "maxPriorityFeePerGas": tip}


def _is_known(error: NodeError) -> bool:
    """Whether the node says that it has this very transaction already."""
    return any(words in str(error).lower() for words in ("already known", "already imported", "known transaction"))


def _refusal(node: Node, error: NodeError, address: bytes, nonce: int, gas: int, cost: int) -> Exception:
    """What a node's refusal means. Nodes differ in words and agree on no codes; what is not known stays the node's."""
    _check_balance(node, address, cost)
    words = str(error).lower()
    if "nonce" in words or "underpriced" in words:
        return OutrunError(
            f"another transaction of {format_address(address)} took number {nonce} first; try again ({error})"
        )
    if "gas" in words:
        return LowGasError(f"the transaction has {gas} gas, which is too little or too much: {error}")
    return error


def _check_balance(node: Node, address: bytes, cost: int) -> None:
    if (balance := node.balance(address)) < cost:
        raise LowBalanceError(
            f"{node.name}: {format_address(address)} has {balance} wei; the transaction may cost {cost}: send it more"
        )
