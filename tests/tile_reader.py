"""A reader of served logs, written from the specifications and without fgtrac: c2sp.org/tlog-tiles, tlog-checkpoint and
signed-note; RFC 6962 for the tree, and RFC 9162 for checking proofs."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from urllib.error import HTTPError
from urllib.request import urlopen

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True)
class Head:
    """A checkpoint whose signature was checked."""

    origin: str
    size: int
    root: bytes


def check_head(note: bytes, vkey: str) -> Head:
    """signed-note and tlog-checkpoint: the head, once the key named has signed it."""
    name, _key_id, material = vkey.split("+", 2)
    key = base64.b64decode(material)
    assert key[0] == 1, "an Ed25519 key"
    key_id = hashlib.sha256(name.encode() + b"\n" + key).digest()[:4]
    text, _, lines = note.decode().rpartition("\n\n")
    signatures = [line.split(" ") for line in lines.splitlines()]
    mine = [base64.b64decode(signature) for dash, who, signature in signatures if (dash, who) == ("—", name)]
    (signature,) = [raw[4:] for raw in mine if raw[:4] == key_id]
    Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature, f"{text}\n".encode())
    origin, size, root = text.split("\n")
    return Head(origin, int(size), base64.b64decode(root))


class TileReader:
    """One log under a URL prefix that ends with a slash, as of one head: what it fetches leads to the head's root."""

    def __init__(self, prefix: str, vkey: str, head: Head | None = None) -> None:
        self._prefix = prefix
        self._tiles: dict[str, bytes] = {}
        self.head = head or check_head(self._fetch("checkpoint"), vkey)
        assert self.subtree(0, self.head.size) == self.head.root, "the tiles do not lead to the signed root"

    def _fetch(self, path: str) -> bytes:
        with urlopen(self._prefix + path, timeout=60) as response:
            return response.read()

    def _tile(self, kind: str, number: int, width: int) -> bytes:
        """A tile by its path, or the full one where the partial one has gone."""
        groups = [f"{number % 1000:03}"]
        while number := number // 1000:
            groups.insert(0, f"x{number % 1000:03}")
        full = f"tile/{kind}/{'/'.join(groups)}"
        path = full if width == 256 else f"{full}.p/{width}"
        if path not in self._tiles:
            try:
                self._tiles[path] = self._fetch(path)
            except HTTPError as error:
                if width == 256 or error.code != 404:
                    raise
                self._tiles[path] = self._fetch(full)
        return self._tiles[path]

    def _hashes(self, level: int, number: int) -> bytes:
        """A tile's hashes: a full one's lead to its hash in the level above, the partial ones together to the root."""
        width = min(256, self.head.size // 256**level - 256 * number)
        hashes = self._tile(str(level), number, width)[: 32 * width]
        if width == 256:
            row = [hashes[at : at + 32] for at in range(0, len(hashes), 32)]
            while len(row) > 1:
                row = [node_hash(*pair) for pair in zip(row[::2], row[1::2], strict=True)]
            span = 256 ** (level + 1)
            assert row[0] == self.subtree(number * span, (number + 1) * span), "a tile is not what the one above says"
        return hashes

    def subtree(self, start: int, stop: int) -> bytes:
        """RFC 6962 section 2.1: MTH(D[start:stop]), from the tiles' hashes."""
        count = stop - start
        if count == 0:
            return hashlib.sha256(b"").digest()
        level = (count.bit_length() - 1) // 8
        if count == 256**level and start % count == 0:
            number, place = divmod(start // count, 256)
            return self._hashes(level, number)[32 * place : 32 * place + 32]
        cut = start + (1 << (count - 1).bit_length() - 1)
        return node_hash(self.subtree(start, cut), self.subtree(cut, stop))

    def inclusion(self, index: int) -> list[bytes]:
        """RFC 6962 section 2.1.1: the path of one leaf."""

        def path(start: int, stop: int) -> list[bytes]:
            if stop - start == 1:
                return []
            cut = start + (1 << (stop - start - 1).bit_length() - 1)
            if index < cut:
                return [*path(start, cut), self.subtree(cut, stop)]
            return [*path(cut, stop), self.subtree(start, cut)]

        return path(0, self.head.size)

    def consistency(self, size: int) -> list[bytes]:
        """RFC 6962 section 2.1.2: the proof from a smaller tree."""

        def proof(start: int, stop: int, is_whole: bool) -> list[bytes]:
            if stop == size:
                return [] if is_whole else [self.subtree(start, stop)]
            cut = start + (1 << (stop - start - 1).bit_length() - 1)
            if size <= cut:
                return [*proof(start, cut, is_whole), self.subtree(cut, stop)]
            return [*proof(cut, stop, False), self.subtree(start, cut)]

        return proof(0, self.head.size, True)

    def entries(self) -> list[bytes]:
        """Every entry of every bundle; each one's hash stands in its level 0 tile."""
        found: list[bytes] = []
        for number in range(-(-self.head.size // 256)):
            hashes = self._hashes(0, number)
            bundle = self._tile("entries", number, len(hashes) // 32)
            at = 0
            for place in range(len(hashes) // 32):
                length = int.from_bytes(bundle[at : at + 2], "big")
                entry = bundle[at + 2 : at + 2 + length]
                assert len(entry) == length, "a bundle is cut"
                assert leaf_hash(entry) == hashes[32 * place : 32 * place + 32], "a bundle is not what its tile says"
                found.append(entry)
                at += 2 + length
        return found


def check_inclusion(entry: bytes, index: int, head: Head, path: list[bytes]) -> None:
    """RFC 9162 section 2.1.3.2."""
    assert index < head.size
    fn, sn, r = index, head.size - 1, leaf_hash(entry)
    for p in path:
        assert sn != 0, "the path is too long"
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    assert (sn, r) == (0, head.root), "the path does not lead to the root"


def check_consistency(old: Head, new: Head, proof: list[bytes]) -> None:
    """RFC 9162 section 2.1.4.2, for 0 < old size < new size."""
    path = [old.root, *proof] if old.size & (old.size - 1) == 0 else proof
    assert path
    fn, sn = old.size - 1, new.size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        assert sn != 0, "the proof is too long"
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1
    assert (sn, fr, sr) == (0, old.root, new.root), "the newer head does not extend the older one"
