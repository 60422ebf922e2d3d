"""Alter a receipt: any field of what the chain is said to have; digest, time or signature of the two others.

A transaction or a block that the chain does not have may also have been lost in a reorganisation: of these two fields
nobody can tell. Nothing that is altered holds.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace

from anchored import KINDS, Act, AnchoredStage, Answer, caught, every, main, undecided
from fgtrac.verify.evm_receipt import EvmReceipt, format_evm_receipt, parse_evm_receipt

LOST = ["block_hash", "transaction"]


def tell(stage: AnchoredStage) -> Iterator[Act]:
    stamp, cosigned, kept = (stage.receipts(stage.trace, kind)[-1].read_bytes() for kind in KINDS)
    others = [field.name for field in fields(EvmReceipt) if field.name not in LOST]
    yield every(caught(a, "evm") for a in answered(stage, "evm", (with_another(kept, name) for name in others)))
    yield every(undecided(a, "evm") for a in answered(stage, "evm", (with_another(kept, name) for name in LOST)))
    yield every(caught(a, "rfc3161") for a in answered(stage, "rfc3161", other_stamps(stage, stamp)))
    yield every(caught(a, "witness") for a in answered(stage, "witness", other_cosignatures(cosigned)))


def answered(stage: AnchoredStage, kind: str, lies: Iterable[bytes]) -> Iterator[Answer]:
    """What is answered where the newest receipt of a kind is one of these."""
    trace = stage.keep_only(stage.copy(), kind)
    file = stage.receipts(trace, kind)[-1]
    for lie in lies:
        file.write_bytes(lie)
        yield stage.verify(trace, *stage.by(kind))


def with_another(receipt: bytes, field: str) -> bytes:
    """The receipt of a chain with one field said otherwise."""
    said = parse_evm_receipt(receipt)
    value = getattr(said, field)
    return format_evm_receipt(replace(said, **{field: value ^ 1 if isinstance(value, int) else flip(value, 0)}))


def other_stamps(stage: AnchoredStage, stamp: bytes) -> Iterator[bytes]:
    """The stamp with one bit turned over: of the digest, of the time behind it, of the signature at its end."""
    note = stage.receipts(stage.trace, "rfc3161")[-1].with_name("checkpoint").read_bytes()
    digest = stamp.index(hashlib.sha256(note).digest())
    time = stamp.index(b"\x18\x0f20", digest)  # GeneralizedTime, YYYYMMDDHHMMSSZ
    for at in (digest, time + 7, len(stamp) - 1):
        yield flip(stamp, at)


def other_cosignatures(note: bytes) -> Iterator[bytes]:
    """The cosigned head with one bit turned over: of its root, of the witness's time and of its signature."""
    lines = note.decode().split("\n")
    yield "\n".join([*lines[:2], altered(lines[2], 0), *lines[3:]]).encode()
    for at in (11, 75):  # 4 bytes of key id, 8 of time, 64 of signature
        line, _, signature = lines[-2].rpartition(" ")
        yield "\n".join([*lines[:-2], f"{line} {altered(signature, at)}", ""]).encode()


def altered(text: str, at: int) -> str:
    """Base64 of the same bytes, with one bit turned over."""
    return base64.b64encode(flip(base64.b64decode(text), at)).decode()


def flip(data: bytes, at: int) -> bytes:
    """The bytes with the lowest bit of one turned over."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


if __name__ == "__main__":
    main(tell)
