"""The names of files under `receipts/`: what is written is read back, and nothing else is a receipt."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtrac.verify.receipts import (
    EVM,
    NOTE,
    RFC3161,
    WITNESS,
    ReceiptFile,
    evm_name,
    note_path,
    parse_path,
    receipt_files,
    receipt_path,
    rfc3161_name,
    witness_name,
)

SIZES = st.integers(1, 10**19 - 1)


@given(SIZES, st.binary(min_size=20, max_size=20), st.binary(min_size=20, max_size=20), st.integers(1, 10**19 - 1))
def test_every_name_is_read_back_with_its_size_and_kind(size: int, contract: bytes, sender: bytes, chain: int) -> None:
    names = {
        EVM: evm_name(chain, contract, sender),
        WITNESS: witness_name(contract[:4]),
        RFC3161: rfc3161_name(f"http://{sender.hex()}.example"),
    }
    for kind, name in names.items():
        path = receipt_path(size, name)
        assert parse_path(path) == ReceiptFile(path, size, kind)
    assert parse_path(note_path(size)) == ReceiptFile(note_path(size), size, NOTE)


def test_names_are_the_digests_that_the_page_says() -> None:
    assert (
        rfc3161_name("http://tsa.example/") == f"rfc3161-{hashlib.sha256(b'http://tsa.example/').hexdigest()[:16]}.tsr"
    )
    assert rfc3161_name("http://u:1234@tsa.example/?key=56") == rfc3161_name("http://tsa.example/")
    assert rfc3161_name("http://tsa.example/other") != rfc3161_name("http://tsa.example/")
    assert evm_name(1, b"c" * 20, b"s" * 20) == f"evm-1-{hashlib.sha256(b'c' * 20 + b's' * 20).hexdigest()[:8]}.json"
    assert witness_name(bytes.fromhex("0a0b0c0d")) == "witness-0a0b0c0d.checkpoint"


@pytest.mark.parametrize(
    "path",
    [
        "receipts/0/checkpoint",
        "receipts/07/checkpoint",
        "receipts/٣/checkpoint",
        "receipts/7/checkpoint\n",
        "receipts/7/checkpoint.tmp",
        "receipts/7/x/checkpoint",
        "receipts/7/evm-0-00000000.json",
        "receipts/7/evm-1-0000000.json",
        "receipts/7/witness-ABCDEF00.checkpoint",
        "receipts/7/rfc3161-00000000.tsr",
        "receipts/checkpoint",
        "index/7/checkpoint",
    ],
)
def test_whatever_is_named_in_another_way_is_no_receipt(path: str) -> None:
    assert parse_path(path) is None
    assert receipt_files([path]) == []


def test_a_receipt_is_not_named_like_the_head_beside_it() -> None:
    for name in ("checkpoint", "../8/checkpoint", "evm.json"):
        with pytest.raises(ValueError, match="is no receipt's path"):
            receipt_path(7, name)


def test_files_are_ordered_by_size_and_then_by_name() -> None:
    names = ["receipts/10/checkpoint", "tile/0/000", f"receipts/9/{witness_name(b'abcd')}", "receipts/9/checkpoint"]
    assert [(file.size, file.kind) for file in receipt_files(names)] == [(9, NOTE), (9, WITNESS), (10, NOTE)]
