"""One transaction from its first question to the block that has it: gas, fees, signature, sending, waiting."""

from __future__ import annotations

import threading
import time

from fgtrac.anchor.account import Account
from fgtrac.anchor.node import Mined, Node
from fgtrac.anchor.outcomes import (
    ContradictionError,
    FeeError,
    LowBalanceError,
    LowGasError,
    NodeError,
    OutrunError,
    RevertedError,
)
from fgtrac.verify.evm_receipt import format_address

MAX_FEE_GWEI = 200.0
_GWEI = 10**9  # wei
_LEAST_GAS = 21_000  # of every transaction
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 1.0


class Sender:
    """An account and what it has sent: what waits for a block is not sent twice, and nothing more is bid for it. More
    than `max_fee_gwei` is never bid for a unit of gas. ValueError for a bid that is not above 0."""

    def __init__(self, account: Account, max_fee_gwei: float = MAX_FEE_GWEI) -> None:
        check_max_fee(max_fee_gwei)
        self.account = account
        self._max_fee = int(max_fee_gwei * _GWEI)
        self._turn = threading.Lock()
        self._sent: dict[tuple[int, bytes | None, bytes], bytes] = {}

    def recall(self, chain_id: int, code: bytes, transaction: bytes) -> None:
        """Tell of a deployment of this code that was sent earlier, by another process with the same account."""
        self._sent.setdefault((chain_id, None, code), transaction)

    def deployment(self, chain_id: int, code: bytes) -> bytes | None:
        """The transaction that deploys this code: the last that was sent and did not fail."""
        return self._sent.get((chain_id, None, code))

    def transact(self, node: Node, chain_id: int, to: bytes | None, data: bytes) -> Mined:
        """Have a transaction done. `to` None deploys; what was deployed once is not deployed again.

        FeeError, LowBalanceError, LowGasError, RevertedError (before it is sent, where the node foresees it),
        OutrunError, ContradictionError; TimedOutError where no block takes it in the node's time. What was outrun is
        remembered: it is sent anew, unless the node has it again, as after a reorganisation.
        """
        what = (chain_id, to, data)
        transaction = self._sent.get(what)
        known = None if transaction is None else node.transaction(transaction)
        if transaction is not None and known is not None:
            nonce = known.nonce
        else:
            with self._turn:  # of several threads each takes a number of its own
                transaction, nonce = self._send(node, chain_id, to, data)
        mined = self._wait(node, chain_id, transaction, nonce)
        if to is not None or not mined.is_done:
            self._sent.pop(what, None)
        if mined.is_done:
            return mined
        name = f"{node.name}: transaction 0x{transaction.hex()} in block {mined.block_number}"
        asked = node.transaction(transaction)
        if asked is not None and mined.gas_used >= asked.gas:
            raise LowGasError(f"{name} ran out of gas: it had {asked.gas} and used {mined.gas_used}")
        raise RevertedError(f"{name} was reverted: the contract refused it")

    def _send(self, node: Node, chain_id: int, to: bytes | None, data: bytes) -> tuple[bytes, int]:
        """Sign and send: the hash, which is kept before, since the node may take it and break off; and the number."""
        address = self.account.address
        fees = _fees(node, self._max_fee)
        gas = _gas(node, address, to, data, max(fees.values()))
        nonce = node.nonce(address)
        target = {} if to is None else {"to": to}
        raw, transaction = self.account.sign(
            {"chainId": chain_id, "nonce": nonce, "gas": gas, "value": 0, "data": data, **fees, **target}
        )
        self._sent[(chain_id, to, data)] = transaction
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
        return transaction, nonce

    def _wait(self, node: Node, chain_id: int, transaction: bytes, nonce: int) -> Mined:
        """Wait for its block. OutrunError where blocks have another of its number: a node may take both, and keeps one.

        The numbers are asked for before the transaction, since it may come into a block in between.
        """
        address, began = self.account.address, time.monotonic()
        while (mined := node.mined(transaction, chain_id)) is None:
            if node.nonce(address, with_waiting=False) > nonce and node.transaction(transaction) is None:
                raise _outrun(address, nonce, f"{node.name} no longer knows transaction 0x{transaction.hex()}")
            pause(node, began, f"waiting for a block that takes transaction 0x{transaction.hex()}; it may still come")
        return mined


def pause(node: Node, began: float, waiting: str) -> None:
    """Sleep a tenth of the time since `began`, within limits. TimedOutError where the node's time is up then."""
    length = min(max(_FIRST_PAUSE_S, (time.monotonic() - began) / 10), _LONGEST_PAUSE_S)
    time.sleep(min(length, node.left_s(waiting)))
    node.left_s(waiting)


def _gas(node: Node, sender: bytes, to: bytes | None, data: bytes, price: int) -> int:
    """What the transaction takes as the chain stands, and a quarter more for what others do until then."""
    try:
        return node.estimate_gas(sender, to, data) * 5 // 4
    except NodeError as error:
        if "revert" in str(error).lower():
            raise RevertedError(f"the contract would not take it: {error}") from None
        _check_balance(node, sender, _LEAST_GAS * price)
        raise


def check_max_fee(max_fee_gwei: float) -> None:
    """ValueError for no amount above 0."""
    if not 0 < max_fee_gwei < 10**9:
        raise ValueError(f"at most {max_fee_gwei:g} gwei for a unit of gas; name an amount above 0 (and below 1 ether)")


def _fees(node: Node, most: int) -> dict[str, int]:
    """What is bid for a unit of gas, in wei, at most so much: EIP-1559 where the chain has it, good for a base fee
    twice as high. FeeError where it costs more now."""
    price, base = node.gas_price(), node.block().base_fee
    tip = 0 if base is None else max(price - base, min(price, 1))  # some refuse none at all, where gas costs anything
    if (now := price if base is None else base + tip) > most:
        raise FeeError(
            f"{node.name}: a unit of gas costs {now / _GWEI:g} gwei now, and at most {most / _GWEI:g} are to be paid; "
            "try again later, or allow more (--max-fee GWEI, max_fee_gwei)"
        )
    if base is None:
        return {"gasPrice": price}
    return {"maxFeePerGas": min(2 * base + tip, most), "maxPriorityFeePerGas": tip}


def _is_known(error: NodeError) -> bool:
    """Whether the node says that it has this very transaction already."""
    return any(words in str(error).lower() for words in ("already known", "already imported", "known transaction"))


def _refusal(node: Node, error: NodeError, address: bytes, nonce: int, gas: int, cost: int) -> Exception:
    """What a node's refusal means. Nodes differ in words and agree on no codes; what is not known stays the node's."""
    _check_balance(node, address, cost)
    words = str(error).lower()
    if "nonce" in words or "underpriced" in words:
        return _outrun(address, nonce, str(error))
    if "gas" in words:
        return LowGasError(f"the transaction has {gas} gas, which is too little or too much: {error}")
    return error


def _outrun(address: bytes, nonce: int, why: str) -> OutrunError:
    return OutrunError(f"another transaction of {format_address(address)} took number {nonce} first; try again ({why})")


def _check_balance(node: Node, address: bytes, cost: int) -> None:
    if (balance := node.balance(address)) < cost:
        raise LowBalanceError(
            f"{node.name}: {format_address(address)} has {balance} wei; the transaction may cost {cost}: send it more"
        )
