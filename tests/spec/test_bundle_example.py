"""docs/spec/bundle.md and the code say the same: the worked example is recomputed, and checked without fgtrac."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fgtrac.events.identity import keyed_id, open_key, preimage
from fgtrac.events.schema import decode_event
from fgtrac.tlog import merkle, note
from fgtrac.tlog.index import SAMPLE, find, prove_present
from fgtrac.tlog.merkle import MemoryNodes, hash_leaves
from fgtrac.tlog.proof import TlogProof
from fgtrac.verify import bundle as bundles
from fgtrac.verify import strict_json
from fgtrac.verify.bundle import Bundle, Shown, format_bundle, head_of, parse_bundle
from fgtrac.verify.claims import check_bundle
from fgtrac.verify.report import Verdict
from fgtrac.verify.sentences import sentence
from spec.test_worked_examples import KEY, SECRET, TRACE_ID, sealed, tree

PAGE = (Path(__file__).parents[2] / "docs" / "spec" / "bundle.md").read_text()


def example() -> Bundle:
    """The bundle that proves the use of row 0 of the example trace, opened, with all the entries that its rows name."""
    named = preimage("digits", 0)
    sample = keyed_id(SECRET, named)
    place = find(tree(), SAMPLE, sample)
    assert place is not None
    presence = prove_present(tree(), place)
    entries = sealed()
    nodes, size = MemoryNodes(hash_leaves(entries)), len(entries)
    origin = "fgtrac/" + TRACE_ID.hex()
    text = note.format_tree_head(note.TreeHead(origin, size, merkle.root(size, nodes)))
    signed = note.format_note(note.Note(text, (note.sign_note(text, origin, KEY),)))
    proof = TlogProof(size - 1, tuple(merkle.prove_inclusion(size - 1, size, nodes)), signed)
    leaf = (place, presence.leaf.path)
    opening = open_key(SECRET, named)
    shown = tuple(Shown(n, entries[n], tuple(merkle.prove_inclusion(n, size, nodes))) for n in range(size - 1))
    made = Bundle("used", "", sample, named, opening, presence.value, leaf, None, entries[-1], proof, shown)
    return replace(made, words=sentence(made, head_of(made), {e.number: decode_event(e.entry) for e in shown}))


def shown(name: str) -> str:
    found = re.search(rf"^```json {name}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_worked_example_is_what_the_code_writes_and_holds() -> None:
    data = format_bundle(example())
    assert shown("bundle") == data.decode()
    verifier = note.Verifier("fgtrac/" + TRACE_ID.hex(), KEY.public_key().public_bytes_raw())
    assert check_bundle(parse_bundle(data), verifier).verdict is Verdict.HOLDS


def root_of(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.3.2."""
    reached, last = hashlib.sha256(b"\0" + leaf).digest(), size - 1
    for sibling in path:
        if index % 2 or index == last:
            reached = hashlib.sha256(b"\1" + sibling + reached).digest()
            while index % 2 == 0 and index:
                index, last = index // 2, last // 2
        else:
            reached = hashlib.sha256(b"\1" + reached + sibling).digest()
        index, last = index // 2, last // 2
    assert last == 0
    return reached


def test_the_worked_example_can_be_checked_without_fgtrac() -> None:
    said: dict[str, Any] = json.loads(shown("bundle"))
    proof, _, signed = said["seal"]["proof"].partition("\n\n")
    _version, index, *path = proof.split("\n")
    text, _, line = signed.rpartition("\n\n")
    _dash, name, signature = line.strip().split(" ")
    KEY.public_key().verify(base64.b64decode(signature)[4:], (text + "\n").encode())
    assert isinstance(KEY.public_key(), Ed25519PublicKey)

    origin, size, root = text.split("\n")
    entry = base64.b64decode(said["seal"]["entry"])
    number = int(index.removeprefix("index "))
    assert (origin, number) == (name, int(size) - 1)
    assert root_of(entry, number, int(size), [base64.b64decode(h) for h in path]) == base64.b64decode(root)

    sample, row_bytes = bytes.fromhex(said["id"]["value"]), b""
    for kind, detail, at, step in said["rows"]:
        row_bytes += bytes([kind]) + detail.to_bytes(2, "little") + int(at).to_bytes(8, "little")
        row_bytes += (2**64 - 1 if step == "none" else int(step)).to_bytes(8, "little")
    leaf = b"\1" + sample + hashlib.sha256(row_bytes).digest()
    place = said["index"]["leaf"]
    above = [base64.b64decode(h) for h in place["path"]]
    index_root = root_of(leaf, int(place["index"]), entry[entry.index(b"fleaves") + 7], above)
    assert index_root == entry[entry.index(b"droot") + 7 :][:32]
    assert any(row[0] == 5 for row in said["rows"])

    for shown_entry in said["entries"]:
        above = [base64.b64decode(h) for h in shown_entry["path"]]
        number, raw = int(shown_entry["number"]), base64.b64decode(shown_entry["entry"])
        assert root_of(raw, number, int(size), above) == base64.b64decode(root)
    assert [e["number"] for e in said["entries"]] == [row[2] for row in said["rows"]]

    named, opening = bytes.fromhex(said["id"]["preimage"]), bytes.fromhex(said["id"]["opening"])
    assert hmac.digest(opening, named, "sha256") == sample


def test_the_page_names_every_claim_and_limit() -> None:
    for claim in bundles.CLAIMS:
        assert f"| `{claim}` |" in PAGE
    for limit in (
        bundles.MAX_ROWS,
        bundles.MAX_ENTRIES,
        bundles.MAX_CHILDREN,
        strict_json.MAX_VALUES,
        strict_json.MAX_TEXT,
    ):
        assert f"{limit:,}" in PAGE
    assert f"{strict_json.MAX_BYTES >> 20} MiB" in PAGE
    assert f"nested at most {strict_json.MAX_DEPTH} deep" in PAGE
