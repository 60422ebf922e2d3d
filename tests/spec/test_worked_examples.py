"""The pages under docs/spec and the code say the same: worked examples are recomputed, field tables compared.

An example is a fenced block whose first line is ```hex NAME or ```text NAME. In a hex block `#` starts a remark.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import cosigned
from fgtrac.commit.plan import Plan, Taken, format_plan, parse_plan
from fgtrac.events import identity, schema
from fgtrac.events.codec import TYPED_ARRAYS
from fgtrac.events.postings import KIND, PostingTable
from fgtrac.events.schema import KINDS, REQUIRED, decode_event, encode_event
from fgtrac.score import factor_files, projection
from fgtrac.score.gradients import Gradients, Layer
from fgtrac.store import journal
from fgtrac.tlog import cosignature, index, merkle, note, tiles
from fgtrac.tlog.index import Columns
from fgtrac.verify.evm_receipt import EvmReceipt, format_evm_receipt
from fgtrac.verify.keys import rotation_message
from fgtrac.verify.receipts import evm_name

PAGES = Path(__file__).parents[2] / "docs" / "spec"
BLOCK = re.compile(r"^```(hex|text) (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

SECRET = bytes(range(32))  # K
WRITER = bytes(range(16))
TRACE_ID = bytes(range(16, 32))
TIME = 1_700_000_000_000_000_000
SOURCES = [b"seven", b"three", b"seven"]  # rows 0 and 2 hold the same bytes
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
NO_STEP = 2**64 - 1


def entry(seq: int, kind: str, **fields: Any) -> bytes:
    return encode_event({"kind": kind, "time": TIME + seq, "writer": WRITER, "seq": seq, **fields})


@cache
def registered() -> tuple[list[bytes], list[bytes], bytes]:
    """Ids ascending, their content digests, and the block they make."""
    made = []
    for row, source in enumerate(SOURCES):
        content = identity.content_preimage(hashlib.sha256(source).digest())
        made.append((identity.keyed_id(SECRET, identity.preimage("digits", row)), identity.keyed_id(SECRET, content)))
    made.sort()
    ids, contents = [i for i, _ in made], [c for _, c in made]
    return ids, contents, identity.block_id(b"".join(ids))


@cache
def entries() -> tuple[bytes, ...]:
    """Three entries about three samples."""
    ids, contents, block = registered()
    return (
        entry(
            0,
            "samples",
            dataset="digits",
            block=block,
            part=0,
            parts=1,
            ids=b"".join(ids),
            contents=b"".join(contents),
        ),
        entry(1, "roles", role="train", block=block, ordinals=np.array([0, 2], "<u4")),
        entry(
            2,
            "use",
            loader=0,
            optimizer=0,
            block=block,
            epoch=np.array([0], "<u4"),
            batch=np.array([0], "<u4"),
            step=np.array([1], "<u8"),
            status=np.array([1], "<u1"),
            attribution=np.array([1], "<u1"),
            count=np.array([2], "<u4"),
            ordinals=np.array([2, 0], "<u4"),
        ),
    )


@cache
def tree() -> index.Tree:
    table = PostingTable()
    for number, data in enumerate(entries()):
        table.add(number, decode_event(data))
    return index.build(Columns(*table.columns()))


@cache
def sealed() -> tuple[bytes, ...]:
    """The three entries and the seal that commits to the index over them."""
    seal = {
        "root": tree().root,
        "leaves": len(tree()),
        "entries": 3,
        "counts": {"roles": 1, "samples": 1, "use": 1},
        "epoch_steps": np.array([1], "<u8"),
    }
    data = {"kind": "seal", "time": TIME + 3, "writer": bytes(16), "seq": 0, **seal}
    return (*entries(), encode_event(data))


def examples_of_entries() -> dict[str, bytes | str]:
    old, new = KEY, Ed25519PrivateKey.from_private_bytes(bytes(range(64, 96)))
    message = rotation_message(TRACE_ID, *(k.public_key().public_bytes_raw() for k in (old, new)), False)
    signed = {"old-signature": old.sign(message), "new-signature": new.sign(message)}
    shown = {"samples-entry": entries()[0], "roles-entry": entries()[1], "use-entry": entries()[2]}
    return {**shown, "rotation-message": message, **signed}


def examples_of_identity() -> dict[str, bytes | str]:
    """From hashlib and hmac alone, and only then compared with the code."""
    preimage = b"\x83\x6cfgtrac id v1\x66digits\x00"
    opening = hmac.digest(SECRET, b"open" + preimage, "sha256")
    content = b"\x82\x71fgtrac content v1\x58\x20" + hashlib.sha256(b"seven").digest()
    ids, contents, block = registered()
    found: dict[str, bytes | str] = {
        "preimage": preimage,
        "public-id": hashlib.sha256(preimage).digest(),
        "opening": opening,
        "keyed-id": hmac.digest(opening, preimage, "sha256"),
        "key-commitment": hashlib.sha256(b"fgtrac key v1\n" + SECRET).digest(),
        "subject-commitment": hashlib.sha256(b"fgtrac subject v1\n" + SECRET).digest(),
        "content-preimage": content,
        "content-digest": hmac.digest(hmac.digest(SECRET, b"open" + content, "sha256"), content, "sha256"),
        "block-ids": b"".join(ids),
        "block-id": hashlib.sha256(b"".join(ids)).digest()[:16],
    }
    assert found["preimage"] == identity.preimage("digits", 0)
    assert found["public-id"] == identity.public_id(preimage)
    assert found["opening"] == identity.open_key(SECRET, preimage)
    assert found["keyed-id"] == identity.id_from_opening(opening, preimage)
    assert found["keyed-id"] in ids
    assert found["key-commitment"] == identity.key_commitment(SECRET)
    assert found["subject-commitment"] == identity.subject_commitment(SECRET)
    assert found["content-digest"] in contents
    assert found["block-id"] == block
    return found


def examples_of_log() -> dict[str, bytes | str]:
    log = sealed()
    hashes = merkle.hash_leaves(log)
    nodes = merkle.MemoryNodes(hashes)
    origin = f"fgtrac/{TRACE_ID.hex()}"
    head = note.TreeHead(origin, len(log), merkle.root(len(log), nodes))
    text = note.format_tree_head(head)
    verifier = note.Verifier(origin, KEY.public_key().public_bytes_raw())
    signed = note.format_note(note.Note(text, (note.sign_note(text, origin, KEY),)))
    path = merkle.prove_inclusion(3, 4, nodes)
    note.verify_note(signed, [verifier])
    merkle.check_inclusion(head.root, 3, 4, hashes[3], path)
    files = {tile.path: data for tile, data in tiles.all_tiles(b"".join(hashes))}
    return {
        "seal-entry": log[3],
        "bundle-beginning": tiles.encode_bundle(log)[:18],
        "tile": files["tile/0/000.p/4"],
        "root": head.root,
        "inclusion-path": b"".join(path),
        "checkpoint": signed.decode(),
        "vkey": note.format_vkey(verifier) + "\n",
        "paths": "".join(
            f"{number} {tiles.tile_path(tiles.ENTRIES, number, 256)}\n" for number in (5, 1000, 1_234_067)
        ),
        "tiles-of-70000": "".join(t.path + "\n" for t in tiles.partial_tiles(70_000)),
    }


def examples_of_index() -> dict[str, bytes | str]:
    ids, contents, _block = registered()
    value = struct.pack("<BHQQ", 1, 0, 0, NO_STEP) + struct.pack("<BHQQ", 2, 1, 1, NO_STEP)
    value += struct.pack("<BHQQ", 5, 1, 2, 1)
    leaf = b"\1" + ids[0] + hashlib.sha256(value).digest()
    assert index.value_at(tree(), 0) == value
    assert index.prove_leaf(tree(), 0).data == leaf
    shared = next(c for c in contents if contents.count(c) == 2)
    at = index.find(tree(), index.CONTENT, shared)
    assert at is not None
    return {
        "rows": value,
        "sample-leaf": leaf,
        "content-leaf": index.prove_leaf(tree(), at).data,
        "holders": b"".join(i for i, c in zip(ids, contents, strict=True) if c == shared),
        "leaves": b"".join(index.prove_leaf(tree(), i).data[:33] for i in range(len(tree()))),
        "index-root": tree().root,
    }


def examples_of_journal() -> dict[str, bytes | str]:
    data = entries()[1]
    length = struct.pack("<I", len(data))
    frame = length + struct.pack("<I", zlib.crc32(length + data)) + data
    assert journal.encode_frame(data) == frame
    digest = hashlib.sha256(b"").digest()
    columns = dict.fromkeys(("digests", "keys", "nodes", "offsets", "values"), digest)
    plan = Plan(0, 4, (Taken(WRITER, 0, 3),), {WRITER: 3, bytes(16): 1}, (sealed()[3],), 4, columns)
    written = format_plan(plan)
    assert parse_plan(written) == plan
    order = 8 + struct.unpack_from("<I", written)[0]
    assert written[order:] == journal.encode_frame(sealed()[3])
    return {"segment-name": journal.segment_name(WRITER, 0) + "\n", "frame": frame, "plan-order": written[:order]}


def examples_of_factors() -> dict[str, bytes | str]:
    _ids, _contents, block = registered()
    rows = factor_files.Rows((block,), np.array([0, 2], "<u4"), None, np.array([7, 3], "<i4"))
    rows_file = factor_files.encode_rows(rows, "train")
    layer = Layer("fc", "factored", 2, 2, True)
    inputs = np.array([[1, 2], [0.5, -1]], "<f4")
    deltas = np.array([[0.25, -0.25], [-0.5, 0.5]], "<f4")
    digest, named = hashlib.sha256(b"model").digest(), hashlib.sha256(rows_file).digest()
    head = factor_files.ShardHead(digest, 1, "train", 0, 2, 2, named, (layer,), (0.1,))
    shard = factor_files.encode_shard(head, [Gradients(layer, inputs=inputs, deltas=deltas)], "float16")
    whole = [np.outer(d, [*x, 1]) for x, d in zip(inputs, deltas, strict=True)]
    assert shard.endswith(deltas.astype("<f2").tobytes() + inputs.astype("<f2").tobytes())
    projected = Layer("conv", "projected", 40, 2, False, 4, 2, 7)
    first = projection.matrices(projected)[1][0]
    assert np.allclose(np.abs(first), 0.5)
    header, data = split_tensors(rows_file)
    metadata = json.loads(split_tensors(shard)[0])["__metadata__"]
    return {
        "rows-header": header + "\n",
        "rows-data": data,
        "shard-metadata": json.dumps(metadata, indent=1) + "\n",
        "shard-data": split_tensors(shard)[1],
        "score": f"{0.1 * float((whole[0] * whole[1]).sum()):.6g}\n",
        "projection-key": hashlib.sha256(b"7 in 4 40 conv").digest()[:16],
        "projection-signs": "".join("+" if x > 0 else "-" for x in first) + "\n",
    }


def split_tensors(file: bytes) -> tuple[str, bytes]:
    """A safetensors file's header without its padding, and what follows it."""
    length = 8 + struct.unpack_from("<Q", file)[0]
    assert length % 64 == 0
    return file[8:length].decode().rstrip(" "), file[length:]


def examples_of_receipts() -> dict[str, bytes | str]:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(64, 96)))
    head = str(examples_of_log()["checkpoint"]).encode()
    data = cosigned.cosigned(head, "witness.example/w1", key, 1_700_000_100)
    cosigner = cosigned.cosigner("witness.example/w1", key)
    assert cosignature.cosignature_time(data, cosigner) == 1_700_000_100
    root = note.parse_tree_head(note.parse_note(head).text).root
    contract, sender, transaction, block = (bytes(range(*r)) for r in ((20,), (20, 40), (64, 96), (96, 128)))
    receipt = EvmReceipt(
        31337, contract, sender, TRACE_ID, 4, root, transaction, 7, block, 1_700_000_200, log_index=0, previous_block=0
    )
    return {
        "cosigned-checkpoint": data.decode(),
        "cosigner": cosignature.format_cosigner(cosigner) + "\n",
        "evm-receipt": format_evm_receipt(receipt).decode(),
        "evm-receipt-name": evm_name(31337, contract, sender) + "\n",
    }


EXAMPLES = {
    "factors": examples_of_factors,
    "entries": examples_of_entries,
    "identity": examples_of_identity,
    "log": examples_of_log,
    "index": examples_of_index,
    "journal": examples_of_journal,
    "receipts": examples_of_receipts,
}


def blocks_of(page: str) -> dict[str, bytes | str]:
    """The examples that a page shows."""
    shown: dict[str, bytes | str] = {}
    for kind, name, body in BLOCK.findall((PAGES / f"{page}.md").read_text(encoding="utf-8")):
        assert name not in shown, f"{page}.md shows {name} twice"
        shown[name] = bytes.fromhex(re.sub(r"#.*", "", body)) if kind == "hex" else body
    return shown


@pytest.mark.parametrize("page", EXAMPLES)
def test_every_worked_example_of_a_page_is_what_the_code_writes(page: str) -> None:
    shown, computed = blocks_of(page), EXAMPLES[page]()
    assert shown.keys() == computed.keys()
    for name, value in computed.items():
        assert shown[name] == value, f"{name} in docs/spec/{page}.md"


def tables_of(text: str) -> dict[str, list[list[str]]]:
    """The rows of the table under each heading, cells stripped."""
    found: dict[str, list[list[str]]] = {}
    for title, body in re.findall(r"^#+ (.+?)\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL):
        lines = re.findall(r"^\|(.+)\|$", body, re.MULTILINE)
        found[title.strip("`")] = [[c.strip() for c in re.split(r"(?<!\\)\|", line)] for line in lines[2:]]
    return found


ENTRY_TABLES = tables_of((PAGES / "entries.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_kinds_table_names_its_fields_and_no_others(kind: str) -> None:
    rows = ENTRY_TABLES[kind]
    always = {"kind", "time", "writer", "seq"}
    assert {row[0].strip("`") for row in rows} == KINDS[kind].keys() - always
    assert {row[0].strip("`") for row in rows if "optional" not in row[1]} == REQUIRED[kind] - always


def test_the_tables_of_codes_and_array_types_are_the_codes() -> None:
    codes = {row[0]: row[1] for row in ENTRY_TABLES["Codes"]}
    for name, table in {
        "role": schema.ROLES,
        "status": schema.STATUS,
        "attribution": schema.ATTRIBUTION,
        "transform": schema.TRANSFORM,
    }.items():
        assert codes[name] == ", ".join(f"{word} {code}" for word, code in table.items())
    arrays = {int(row[0]): row[1] for row in ENTRY_TABLES["Typed arrays"]}
    assert arrays == {tag: np.dtype(name).name for tag, name in TYPED_ARRAYS.items()}


def test_the_table_of_row_kinds_is_the_codes() -> None:
    rows = tables_of((PAGES / "index.md").read_text(encoding="utf-8"))["Rows"]
    assert {row[1]: int(row[0]) for row in rows} == KIND
