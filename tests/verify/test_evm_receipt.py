"""An EVM receipt is written in one way, and whatever else it is given is refused in one line."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtrac.errors import FormatError
from fgtrac.verify.evm_receipt import (
    FORMAT,
    MAX_RECEIPT_BYTES,
    NUMBER,
    EvmReceipt,
    format_address,
    format_evm_receipt,
    parse_address,
    parse_evm_receipt,
)

RECEIPT = EvmReceipt(
    chain_id=31337,
    contract=bytes(range(20)),
    sender=bytes(range(20, 40)),
    trace_id=bytes(range(16)),
    size=1234,
    root=bytes(range(32)),
    transaction=bytes(range(32, 64)),
    block_number=7,
    block_hash=bytes(range(64, 96)),
    block_time=1_800_000_000,
    log_index=0,
    previous_block=6,
)
NUMBERS = ("chain_id", "size", "block_number", "block_time", "log_index", "previous_block")
BYTES = ("contract", "sender", "trace_id", "root", "transaction", "block_hash")


def changed(**values: Any) -> bytes:
    said = json.loads(format_evm_receipt(RECEIPT)) | values
    return (json.dumps({k: v for k, v in said.items() if v is not None}, indent=2) + "\n").encode()


numbers = st.integers(0, NUMBER - 1)


@given(numbers, st.binary(min_size=20, max_size=20), st.integers(1, NUMBER - 1), numbers, numbers)
def test_what_is_written_is_read_back(chain_id: int, contract: bytes, size: int, first: int, second: int) -> None:
    receipt = replace(
        RECEIPT,
        chain_id=chain_id,
        contract=contract,
        size=size,
        block_number=max(first, second),
        previous_block=min(first, second),
    )
    assert parse_evm_receipt(format_evm_receipt(receipt)) == receipt


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(FormatError) as refused:
        parse_evm_receipt(data)
    assert str(refused.value)
    assert "\n" not in str(refused.value)


def test_no_byte_can_be_changed_without_another_meaning() -> None:
    data = format_evm_receipt(RECEIPT)
    for place in range(len(data)):
        for bit in range(8):
            other = bytearray(data)
            other[place] ^= 1 << bit
            with suppress(FormatError):
                assert parse_evm_receipt(bytes(other)) != RECEIPT


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (changed(format="fgtrac-evm-receipt/v2"), FORMAT),
        (changed(size="0"), "size 0"),
        (changed(size=5), "size is text"),
        (changed(size="007"), "decimal string"),
        (changed(size="1" * 20), "at most 19"),
        (changed(previous_block="8"), "in block 7 after one in 8"),
        (changed(root="0x" + "AB" * 32), "lower case"),
        (changed(root="0x" + "ab" * 31), "64 lower case hex digits"),
        (changed(root="ab" * 32), "begins with 0x"),
        (changed(sender=None), "lacks sender"),
        (changed(url="http://x/"), "unknown 'url'"),
        (format_evm_receipt(RECEIPT).rstrip(), "one way only"),
        (json.dumps(json.loads(format_evm_receipt(RECEIPT))).encode(), "one way only"),
        (format_evm_receipt(RECEIPT) + b" " * MAX_RECEIPT_BYTES, "at most 4096 bytes"),
    ],
)
def test_each_way_to_be_wrong_has_its_words(data: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        parse_evm_receipt(data)


@pytest.mark.parametrize("name", [*NUMBERS, *BYTES])
def test_a_receipt_that_nobody_could_read_is_not_written(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        format_evm_receipt(replace(RECEIPT, **{name: NUMBER if name in NUMBERS else b"short"}))


def test_an_address_is_0x_and_40_hex_digits() -> None:
    assert parse_address("0x" + "aB" * 20) == b"\xab" * 20
    assert parse_address(format_address(RECEIPT.contract)) == RECEIPT.contract
    for text in ("ab" * 20, "0x" + "ab" * 19, "0x" + "zz" * 20, "0x" + "ab" * 20 + "\n", "0X" + "ab" * 20):
        with pytest.raises(ValueError, match="no address"):
            parse_address(text)
