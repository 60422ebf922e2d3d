"""The receipt of a tree head that a contract on an EVM chain keeps: its parts, and its one form as JSON.

It says where on which chain the contract's event stands (docs/spec/receipts.md). By itself it proves nothing: who asks
a node of the chain finds out whether it is there. No web3 here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from typing import Any

from fgtrac.errors import FormatError
from fgtrac.verify.strict_json import decode_json, read_fields, read_hex, read_text, read_u64

FORMAT = "fgtrac-evm-receipt/v1"
MAX_RECEIPT_BYTES = 4096
NUMBER = 10**19  # numbers are below it, as a tree head's size is
_SIZES = {"contract": 20, "sender": 20, "trace_id": 16, "root": 32, "transaction": 32, "block_hash": 32}
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


@dataclass(frozen=True, slots=True)
class EvmReceipt:
    """The event by which `contract` took this head from `sender`.

    `contract` and `sender` have 20 bytes, `trace_id` 16, `root`, `transaction` and `block_hash` 32; `size` is the
    head's, `block_time` unix seconds, `log_index` the event's place among all of its block, and `previous_block` the
    number of the block with the head before of the same sender and trace, 0 for the first one.
    """

    chain_id: int
    contract: bytes
    sender: bytes
    trace_id: bytes
    size: int
    root: bytes
    transaction: bytes
    block_number: int
    block_hash: bytes
    block_time: int
    log_index: int
    previous_block: int


def format_evm_receipt(receipt: EvmReceipt) -> bytes:
    """The receipt's bytes: a JSON object, one field a line, numbers as decimal strings, bytes as 0x and hex.

    ValueError for a receipt that `parse_evm_receipt` would not take.
    """
    said = {"format": FORMAT}
    for field in fields(EvmReceipt):
        value = getattr(receipt, field.name)
        size = _SIZES.get(field.name)
        if size is not None and len(value) != size:
            raise ValueError(f"a receipt's {field.name} has {size} bytes, not {len(value)}")
        if size is None and not 0 <= value < NUMBER:
            raise ValueError(f"a receipt's {field.name} is a number below 10^19, not {value}")
        said[field.name] = str(value) if size is None else "0x" + value.hex()
    if receipt.size == 0 or receipt.previous_block > receipt.block_number:
        raise ValueError(
            f"no receipt for size {receipt.size} in block {receipt.block_number} after one in {receipt.previous_block}"
        )
    return (json.dumps(said, indent=2) + "\n").encode()


def parse_evm_receipt(data: bytes) -> EvmReceipt:
    """The receipt that these bytes are. FormatError for all that `format_evm_receipt` would not have written."""
    if len(data) > MAX_RECEIPT_BYTES:
        raise FormatError(f"an EVM receipt has at most {MAX_RECEIPT_BYTES} bytes, not {len(data):,}")
    names = [field.name for field in fields(EvmReceipt)]
    said = read_fields(decode_json(data), "an EVM receipt", ["format", *names])
    if said["format"] != FORMAT:
        raise FormatError(f"an EVM receipt's format is {FORMAT}, not {said['format']!r:.60}")
    read: dict[str, Any] = {name: _read(said[name], name) for name in names}
    receipt = EvmReceipt(**read)
    try:
        written = format_evm_receipt(receipt)
    except ValueError as error:
        raise FormatError(str(error)) from None
    if written != data:
        raise FormatError("an EVM receipt is written in one way only, and this is another")
    return receipt


def _read(value: object, name: str) -> int | bytes:
    what = f"an EVM receipt's {name}"
    if name not in _SIZES:
        return read_u64(value, what)
    text = read_text(value, what, 66)
    if not text.startswith("0x"):
        raise FormatError(f"{what} begins with 0x, unlike {text!r}")
    return read_hex(text[2:], what, _SIZES[name])


def parse_address(text: str) -> bytes:
    """The 20 bytes of an address, 0x and 40 hex digits. ValueError for other text. Upper and lower case are the same:
    a checksum in them (EIP-55) is not looked at, since code and events at a mistyped address are not there."""
    if not _ADDRESS.fullmatch(text):
        shown = repr(text) if len(text) <= 42 else f"a text of {len(text)} characters"  # which may be a private key
        raise ValueError(f"{shown} is no address: 0x and 40 hex digits")
    return bytes.fromhex(text[2:])


def format_address(address: bytes) -> str:
    """0x and 40 hex digits in lower case."""
    return "0x" + address.hex()
