"""Parsers of what outside witnesses hand back, and of what says which of them are trusted."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import stamps_by_hand
from authorities import authority_rights, issue, make_root, pem
from claim_parsers import worst_json
from fgtrac.anchor.contract.calls import artifact
from fgtrac.anchor.json_rpc import HttpRpc
from fgtrac.anchor.node import Node
from fgtrac.anchor.rfc3161 import check_stamp, read_roots
from fgtrac.anchor.stamp_reply import MAX_BYTES
from fgtrac.errors import AnchorError, FormatError, ProofError
from fgtrac.tlog import cosignature, note
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.evm_receipt import EvmReceipt, format_evm_receipt, parse_evm_receipt
from log_parsers import text_target
from target import Real, Target, filled, scratch_folder

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
STAMPS = Path(__file__).resolve().parents[1] / "tests" / "anchor" / "stamps"
NOTE = (STAMPS / "checkpoint").read_bytes()
ROOT, PEER = make_root(), make_root("peer")
AUTHORITY = issue("tsa", ROOT)
_SCRATCH = scratch_folder()
COSIGNER = cosignature.Cosigner("w", KEY.public_key().public_bytes_raw())


def line_over(head: bytes) -> note.Signature:
    """The cosignature of a head, by the witness that is looked for."""
    signed = KEY.sign(cosignature.cosignature_message(note.parse_note(head).text, 1))
    return note.Signature(COSIGNER.name, COSIGNER.key_id, (1).to_bytes(8, "big") + signed)


def cosigned_heads(real: Real) -> Iterator[bytes]:
    for head in real.files("checkpoint"):
        yield note.with_signatures(head, [line_over(head)])


def witness_answers(real: Real) -> Iterator[bytes]:
    for head in real.files("checkpoint"):
        yield note.format_signatures([line_over(head), *note.parse_note(head).signatures])


def worst_lines() -> Iterator[bytes]:
    """As many lines as fit, of the witness that is looked for; and one long one."""
    mine = note.format_signatures([note.Signature(COSIGNER.name, COSIGNER.key_id, bytes(72))])
    yield filled(mine)
    yield mine * note.MAX_SIGNATURES
    yield filled(b"\n")
    yield "— w ".encode() + filled(b"A", 900_000) + b"\n"


def checked_stamp(data: bytes) -> object:
    """A time stamp, read and checked against a root as far as it goes."""
    return check_stamp(data, NOTE, [ROOT.certificate])


def time_stamps(_real: Real) -> Iterator[bytes]:
    yield from (path.read_bytes() for path in sorted(STAMPS.glob("*.tsr")))
    yield stamps_by_hand.stamp(NOTE, AUTHORITY, [ROOT.certificate])
    yield stamps_by_hand.rejection(25)


def worst_stamps() -> Iterator[bytes]:
    """Much behind a length, as many small elements as fit, deep nesting, and certificates that could all be issuers."""
    der, size = stamps_by_hand.der, MAX_BYTES - 16
    yield filled(b"\x30")
    yield der(0x30, filled(b"\x05\0", size))
    yield der(0x30, der(0x30, b"\x02\1\2", der(0x30, filled(b"\x0c\0", size - 16))))
    yield filled(b"\x30\x84\0\0\xff\0", size)
    each_other = [issue("peer", PEER, extensions=authority_rights(), key=PEER.key).certificate for _ in range(15)]
    yield stamps_by_hand.stamp(NOTE, issue("tsa", PEER), each_other)


def roots_file(data: bytes) -> object:
    path = Path(_SCRATCH.name) / "roots.pem"
    path.write_bytes(data)
    return read_roots(path)


class OneAnswer(HttpRpc):
    """A node that answers every question with the same bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__("http://node.example/")
        self.answer = self.result("eth_call", 200, data)

    def ask(self, method: str, params: object, timeout_s: float) -> object:
        return self.answer


def answers_of_a_node(data: bytes) -> object:
    """What a node says, read as the answer to each question; AnchorError where it is the answer to none."""
    node = Node("http://node.example/")
    node._rpc = OneAnswer(data)
    address = bytes(20)
    questions = [
        node.chain_id,
        node.block,
        lambda: node.mined(bytes(32), 1),
        lambda: node.transaction(bytes(32)),
        lambda: node.newest(address, address, bytes(16)),
        lambda: node.events_in(1, address, address, bytes(16), 1),
        lambda: node.check_contract(address),
    ]
    failures: list[AnchorError] = []
    for question in questions:
        try:
            question()
        except AnchorError as error:
            failures.append(error)
    if len(failures) == len(questions):
        raise failures[0]
    return len(questions) - len(failures)


def node_answers(_real: Real) -> Iterator[bytes]:
    """A block, a receipt of a transaction, a number, and an error."""
    hashed, event = "0x" + "00" * 32, [artifact().anchored, bytes(32), bytes(32)]
    log = {
        "address": "0x" + "00" * 20, "topics": ["0x" + topic.hex() for topic in event], "data": "0x" + "00" * 128,
        "blockNumber": "0x1", "blockHash": hashed, "transactionHash": hashed, "logIndex": "0x0",
    }  # fmt: skip
    block = {"number": "0x1", "hash": hashed, "timestamp": "0x2", "baseFeePerGas": "0x7", "transactions": [hashed]}
    mined = {
        "transactionHash": hashed, "blockNumber": "0x1", "blockHash": hashed, "status": "0x1", "gasUsed": "0x5208",
        "contractAddress": None, "logs": [log],
    }  # fmt: skip
    for result in (block, mined, [log], "0x7a69", "0x" + "00" * 128, "0x" + artifact().runtime.hex(), None):
        yield json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()
    yield b'{"jsonrpc": "2.0", "id": 1, "error": {"code": 3, "message": "execution reverted"}}'


EVM_RECEIPT = EvmReceipt(31337, bytes(20), bytes(20), bytes(16), 7, bytes(32), bytes(32), 9, bytes(32), 1, 0, 3)


TARGETS = [
    Target(
        "time stamp", checked_stamp, time_stamps, refusals=(FormatError, ProofError, CannotTell), worst=worst_stamps,
    ),
    Target(
        "file of roots", roots_file, lambda r: [pem(ROOT.certificate, AUTHORITY.certificate)],
        worst=lambda: [filled(pem(ROOT.certificate)), filled(b"-----BEGIN CERTIFICATE-----\n"), b"\0" * (1 << 20)],
    ),
    text_target(
        "cosigner's key", cosignature.parse_cosigner, cosignature.format_cosigner,
        seeds=lambda r: [cosignature.format_cosigner(COSIGNER).encode()],
        worst=lambda: [filled(b"+"), b"w+00000000+" + filled(b"A"), filled(b"w")],
    ),
    Target(
        "cosigned head", lambda data: cosignature.cosignature_time(data, COSIGNER), cosigned_heads,
        refusals=(FormatError, ProofError),
        worst=lambda: (filled(b"a\n", 1 << 19) + b"\n" + lines for lines in worst_lines()),
    ),
    Target(
        "EVM receipt", parse_evm_receipt, lambda r: [format_evm_receipt(EVM_RECEIPT)], format_evm_receipt,
        worst=worst_json,
    ),
    Target("answer of a node", answers_of_a_node, node_answers, refusals=(AnchorError,), worst=worst_json),
    Target("answer of a witness", note.parse_signatures, witness_answers, note.format_signatures, worst=worst_lines),
]  # fmt: skip
