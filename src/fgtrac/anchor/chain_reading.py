"""Whether a receipt's event stands on its chain, and all heads that one sender's log has there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from fgtrac.anchor.contract.calls import anchor_call
from fgtrac.anchor.node import Node
from fgtrac.anchor.outcomes import ContradictionError, NoContractError, NonsenseError, OtherCodeError
from fgtrac.errors import ProofError
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.evm_receipt import EvmReceipt, format_address

MAX_HEADS = 100_000


class OwnCallError(ProofError):
    """The sender called the contract itself, and not to give it this head as `anchor_call` does."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The event stands on the chain: since when (unix seconds), and in how many blocks, its own and those after it."""

    block_time: int
    depth: int


def confirm(node: Node, receipt: EvmReceipt, confirmations: int = 1) -> Confirmed:
    """Ask a node whether the receipt's event stands where it says, by a call of a contract of exactly this code.

    ProofError where the chain contradicts the receipt. CannotTell where it is on another chain, has no such contract at
    the address, has the transaction no longer or in another block, or not `confirmations` deep (1: in the newest block
    at least). AnchorError where the node does not answer, or contradicts itself. ValueError for less than 1. See
    `check_call` too. That the contract still tells of the event is for `anchored_heads` to say.
    """
    check_confirmations(confirmations)
    where = f"{node.name}, chain {receipt.chain_id}"
    _check_chain(node, receipt.chain_id)
    _check_contract(node, receipt.contract)
    mined = node.mined(receipt.transaction, receipt.chain_id)
    if mined is None:
        raise CannotTell(f"{where}: transaction 0x{receipt.transaction.hex()} is in no block (any more); anchor again")
    if mined.block_hash != receipt.block_hash:
        raise CannotTell(
            f"{where}: the transaction is in block {mined.block_number} (0x{mined.block_hash.hex()}), not in "
            f"{receipt.block_number} (0x{receipt.block_hash.hex()}) as the receipt says: the chain was reorganised; "
            "anchor again, for a new receipt"
        )
    event = next((e for e in mined.events if e.log_index == receipt.log_index), None)
    if event is None:
        raise ProofError(f"{where}: 0x{receipt.transaction.hex()} has no event of the contract at {receipt.log_index}")
    for field in fields(EvmReceipt):
        if (said := getattr(receipt, field.name)) != (there := getattr(event, field.name)):
            raise ProofError(f"{where}: the event has {field.name} {_words(there)}, the receipt {_words(said)}")
    if not mined.is_done:
        raise ContradictionError(f"{where}: transaction 0x{receipt.transaction.hex()} failed, and has an event")
    check_block(node, event)
    check_call(node, event)
    depth = node.height() - receipt.block_number + 1
    if node.chain_id() != receipt.chain_id:
        raise ContradictionError(f"{node.name} was on chain {receipt.chain_id}, and is on another now")
    if depth < confirmations:
        raise CannotTell(f"{where}: {depth} of {confirmations} confirmations; ask again when there are more blocks")
    return Confirmed(receipt.block_time, depth)


def anchored_heads(node: Node, contract: bytes, sender: bytes, trace_id: bytes) -> list[EvmReceipt]:
    """Every head that the contract has from this sender for this trace, newest first, as receipts. `check_call` says
    of each whether the sender gave it, `confirm` whether it stands.

    CannotTell where there is no such contract; AnchorError where the node does not answer or contradicts itself. Each
    event names the block of the one before, so that this takes one question for each block with such events.
    """
    _check_contract(node, contract)
    heads: list[EvmReceipt] = []
    for head in walk(node, node.chain_id(), contract, sender, trace_id):
        if len(heads) == MAX_HEADS:
            raise NonsenseError(f"{node.name} tells of more than {MAX_HEADS:,} heads of one log")
        heads.append(head)
    return heads


def walk(node: Node, chain_id: int, contract: bytes, sender: bytes, trace_id: bytes) -> Iterator[EvmReceipt]:
    """The heads of a sender's log, newest first. A contract of the right code at the address is taken for granted."""
    newest = node.newest(contract, sender, trace_id)
    if (newest.size == 0) != (newest.block_number == 0):
        raise ContradictionError(f"{node.name}: a head of size {newest.size} in block {newest.block_number}")
    block, below = newest.block_number, newest.size + 1
    while block:
        events = node.events_in(block, contract, sender, trace_id, chain_id)
        if not events:
            raise ContradictionError(
                f"{node.name}: block {block} has no event of this log, and the contract says that it has; ask again. "
                "On a chain whose contracts count another chain's blocks (Arbitrum) it stays so: that is not supported"
            )
        sizes = [event.size for event in events]
        ends = [event.previous_block for event in events]
        if (
            sizes != sorted(set(sizes))
            or not 0 < sizes[0] <= sizes[-1] < below
            or not ends[0] < block
            or any(end != block for end in ends[1:])
        ):
            raise ContradictionError(f"{node.name}: the events of block {block} are not what later ones say; ask again")
        if below == newest.size + 1 and (sizes[-1], events[-1].root) != (newest.size, newest.root):
            raise ContradictionError(
                f"{node.name}: the contract's newest head is size {newest.size}, its newest event's {sizes[-1]}, or "
                "the roots differ"
            )
        yield from reversed(events)
        block, below = ends[0], sizes[0]


def check_call(node: Node, event: EvmReceipt) -> None:
    """Whether the event comes from a call by which its sender gave the contract this head.

    The code at an address does not show it: what deploys a contract may write into its memory and make any event before
    that code stands there. ProofError for an event without such a call (OwnCallError where the sender's own transaction
    made it in another way), CannotTell where the call may have come by way
    of another contract.
    """
    call = node.transaction(event.transaction)
    name = f"{node.name}, chain {event.chain_id}: transaction 0x{event.transaction.hex()}"
    if call is None or call.block_hash != event.block_hash:
        raise ContradictionError(f"{name} is said to be in block {event.block_number}, and not to be there; ask again")
    wanted = anchor_call(event.trace_id, event.size, event.root)
    if (call.sender, call.to, call.data, call.value) == (event.sender, event.contract, wanted, 0):
        return
    what = f"size {event.size} to {format_address(event.contract)}"
    if (call.sender, call.to) == (event.sender, event.contract):
        raise OwnCallError(
            f"{name} does not give {what} as fgtrac does, and {format_address(event.sender)} itself sent it: only the "
            "key of that account can arrange this"
        )
    if call.to is None:
        raise ProofError(f"{name} does not give {what}: its event was made up, as one who deploys a contract can do")
    if call.to == event.sender:
        raise CannotTell(
            f"{name} is of {format_address(call.sender)} to {format_address(event.sender)}, which gave {what} as a "
            "contract does (EIP-7702, a smart account): only who has that account can arrange this, and it is not "
            "supported"
        )
    raise CannotTell(
        f"{name} is of {format_address(call.sender)} to {format_address(call.to)}, and not of "
        f"{format_address(event.sender)}, giving {what}: its event was made up, or that account is itself a contract, "
        "which is not supported"
    )


def check_block(node: Node, event: EvmReceipt) -> None:
    """Whether the block of that number is the one that the event names. ContradictionError where it is not."""
    block = node.block(event.block_number)
    if block.hash != event.block_hash or event.transaction not in block.transactions:
        raise ContradictionError(
            f"{node.name}: transaction 0x{event.transaction.hex()} is said to be in block {event.block_number} "
            f"(0x{event.block_hash.hex()}), and that block is 0x{block.hash.hex()} or does not have it"
        )
    if block.time != event.block_time:
        raise ContradictionError(
            f"{node.name}: block {event.block_number} has time {block.time}, the event in it {event.block_time}"
        )


def check_confirmations(confirmations: int) -> None:
    """ValueError for fewer than 1."""
    if confirmations < 1:
        raise ValueError(f"at least 1 confirmation (the block itself) is asked for, not {confirmations}")


def _check_chain(node: Node, wanted: int) -> None:
    found = node.chain_id()
    if found != wanted:
        raise CannotTell(f"{node.name} is on chain {found}, the receipt on {wanted}; name a node of that chain")


def _check_contract(node: Node, contract: bytes) -> None:
    try:
        node.check_contract(contract)
    except (NoContractError, OtherCodeError) as error:
        raise CannotTell(str(error)) from None


def _words(value: bytes | int) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)
