"""Parsers of the log: notes, tree heads, verifier keys, tiles, bundles of entries, entries, proofs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fgtrac.events import codec, schema
from fgtrac.tlog import note, proof, tiles
from target import Real, Target, bytes_of, filled, text_of

ENTRY_BYTES = schema.MAX_ENTRY_BYTES


class OneFile:
    """A reader to whom every path is the same file."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, path: str) -> bytes:
        return self._data


def bundle_of(data: bytes) -> list[bytes]:
    """As many entries as the first byte says (0: 256), of the rest."""
    return tiles.decode_bundle(data[1:], (data[0] if data else 0) or 256)


def write_bundle(entries: list[bytes]) -> bytes:
    return bytes((len(entries) % 256,)) + tiles.encode_bundle(entries)


def hash_tile(data: bytes) -> bytes:
    """A tile of as many hashes as the first byte says (0: 256), of the rest."""
    width = (data[0] if data else 0) or 256
    return bytes((width % 256,)) + tiles.read_tile(OneFile(data[1:]), tiles.Tile(0, 0, width))


def entries_of(real: Real) -> Iterator[bytes]:
    for path in sorted((real.trace / "tile/entries").rglob("*")):
        if path.is_file():
            width = int(path.name) if path.parent.suffix == ".p" else 256
            yield from tiles.decode_bundle(path.read_bytes(), width)


def bundle_seeds(real: Real) -> Iterator[bytes]:
    entries = list(entries_of(real))
    for size in (1, 3, min(len(entries), 255)):
        yield write_bundle(entries[:size])


def head_text(data: bytes) -> bytes:
    return note.parse_note(data).text.encode()


def proofs(real: Real) -> Iterator[bytes]:
    for data in real.files("checkpoint"):
        yield proof.format_proof(proof.TlogProof(5, (bytes(32), bytes(range(32))), data)).encode()


def worst_notes() -> Iterator[bytes]:
    yield filled(b"\n")
    yield filled(b"a\n", 1 << 20) + b"\n" + filled("— a AAAA\n".encode(), 1 << 19)
    yield b"a\n\n" + filled("— a AAAAAAAA\n".encode())
    yield b"a\n\n" + "— a ".encode() + filled(b"A") + b"\n"
    yield filled("—".encode())


def worst_values() -> Iterator[bytes]:
    """Arrays of empty arrays, maps, texts and numbers, deep nesting, and huge lengths that are announced."""
    for size in (ENTRY_BYTES, 1 << 20):
        for item in (b"\x80", b"\xa0", b"\x60", b"\x40", b"\x00", b"\x61a", b"\x81\x80", b"\xd8\x40\x40"):
            count = (size - 9) // len(item)
            yield codec.head(4, count) + item * count
        yield filled(b"\x81", size)
        yield b"\x9b" + b"\xff" * 8 + bytes(size)
        yield b"\xbb" + (1 << 18).to_bytes(8, "big") + bytes(size)
        yield codec.head(3, size) + bytes(size)
        yield codec.head(2, size) + bytes(size)
        pairs = b"".join(codec.encode(f"{n:05}") + b"\xa0" for n in range((size - 9) // 7))
        yield codec.head(5, len(pairs) // 7) + pairs


def worst_bundles() -> Iterator[bytes]:
    yield b"\0" + bytes(1 << 20)
    yield b"\0" + filled(b"\xff")


def worst_proofs() -> Iterator[bytes]:
    front = f"{proof.HEADER}\nindex 1\n".encode()
    yield front + filled(b"A" * 43 + b"=\n")
    yield front + filled(b"A" * 44)
    yield front + b"\n" + filled(b"\n")
    yield f"{proof.HEADER}\nindex ".encode() + filled(b"9")


def text_target(name: str, parse: Callable[[str], object], write: Callable[..., str], **more: object) -> Target:
    """A parser of text, given any bytes as one."""
    return Target(name, lambda data: parse(text_of(data)), format=lambda v: bytes_of(write(v)), **more)  # type: ignore[arg-type]


TARGETS = [
    Target("note", note.parse_note, lambda r: r.files("checkpoint"), note.format_note, worst=worst_notes),
    text_target(
        "tree head", note.parse_tree_head, note.format_tree_head,
        seeds=lambda r: [head_text(d) for d in r.files("checkpoint")],
        worst=lambda: [filled(b"\n"), b"a\n" + filled(b"9") + b"\nA\n", b"a\n1\n" + filled(b"A") + b"\n"],
    ),
    text_target(
        "verifier key", note.parse_vkey, note.format_vkey,
        seeds=lambda r: [note.format_vkey(note.Verifier("fgtrac/x", bytes(32))).encode()],
        worst=lambda: [filled(b"+"), b"a+00000000+" + filled(b"A"), filled(b"a")],
    ),
    Target("bundle of entries", bundle_of, bundle_seeds, write_bundle, worst=worst_bundles),
    Target(
        "hash tile", hash_tile, lambda r: [bytes((len(d) // 32 % 256,)) + d for d in r.files("tile/0/**/*")], bytes,
        worst=worst_bundles,
    ),
    text_target(
        "tile path", tiles.parse_tile_path, lambda tile: tile.path,
        seeds=lambda r: [b"tile/0/x001/234", b"tile/entries/000.p/7", b"tile/63/x001/x002/003.p/255"],
        worst=lambda: [b"tile/0/" + filled(b"x001/") + b"000", filled(b"tile/"), b"tile/0/000.p/" + filled(b"1")],
    ),
    Target("value (CBOR)", codec.decode, entries_of, codec.encode, worst=worst_values),
    Target("entry", schema.decode_event, entries_of, schema.encode_event, worst=worst_values),
    text_target("proof (c2sp.org/tlog-proof)", proof.parse_proof, proof.format_proof, seeds=proofs, worst=worst_proofs),
]  # fmt: skip
