"""Parsers of what lies beside the log: journal segments, plans, vaults, key files, what is still to be anchored."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from heapq import merge
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.anchor.pending import MAX_BYTES, Pending, format_pending, parse_pending
from fgtrac.api.anchor_head import signed_head
from fgtrac.api.trust import trusted_verifier
from fgtrac.commit.keys import ROTATION, Keyring, load_key
from fgtrac.commit.plan import format_plan, parse_plan
from fgtrac.errors import FormatError, TamperError
from fgtrac.events.codec import encode
from fgtrac.events.orders import Places, decode_placement, encode_placement
from fgtrac.store.journal import encode_frame, parse_segment_name, scan, segment_name
from fgtrac.store.vault import Vault
from log_parsers import entries_of, text_target, worst_values
from target import Real, Target, filled, scratch_folder

_SCRATCH = scratch_folder()
_FOLDER = Path(_SCRATCH.name)
TRACE_ID = bytes(range(16))


def segment(data: bytes) -> bytes:
    """A segment, put together again from what was found in it: nothing is counted twice, and nothing left out."""
    found = scan(data)
    whole = ((at, encode_frame(entry)) for at, entry in found.frames)
    bad = ((at, data[at : at + length]) for at, length in found.bad)
    out = b"".join(piece for _at, piece in merge(whole, bad))
    return out + data[len(out) : len(out) + found.torn]


def vault(data: bytes) -> None:
    path = _FOLDER / "x.vault"
    path.write_bytes(data)
    Vault.open(path, TRACE_ID).close()


def vaults(real: Real) -> Iterator[bytes]:
    path = real.folder / "run.vault"
    yield path.read_bytes()


def public_key_file(data: bytes) -> object:
    """A file that the user names with --key."""
    path = _FOLDER / "key"
    path.write_bytes(data)
    return trusted_verifier(str(path), TRACE_ID, {"FGTRAC_KEY": str(_FOLDER / "none.pem")})


def of_its_owner(name: str, data: bytes) -> Path:
    """A file that nobody else may read."""
    path = _FOLDER / name
    path.touch(mode=0o600)
    path.write_bytes(data)
    return path


def private_key_file(data: bytes) -> object:
    return load_key(of_its_owner("key.pem", data))


def revoked_keys(data: bytes) -> object:
    (_FOLDER / "revoked").write_bytes(data)
    return Keyring(_FOLDER / "key.pem").revoked()


def rotation(data: bytes) -> object:
    of_its_owner("key.pem.rotation", data)
    return Keyring(_FOLDER / "key.pem").begun()


def rotations(real: Real) -> Iterator[bytes]:
    pem = next(iter(key_files(real)))
    yield f"{ROTATION}\nrevoke\ntrace /a/b.trace\n".encode() + pem
    yield f"{ROTATION}\nkeep\n".encode() + pem


def placements(_real: Real) -> Iterator[bytes]:
    ordinals = np.arange(5, dtype="<u4")
    yield encode_placement((bytes(16),), ordinals, None)
    yield encode_placement((bytes(16), bytes(range(16))), ordinals, np.array([0, 1, 1, 0, 1], "<u2"))


def write_placement(places: Places) -> bytes:
    """As it was written: of one block, without saying of each position that it is in it."""
    return encode_placement(places.blocks, places.ordinals, places.which if len(places.blocks) > 1 else None)


def key_files(_real: Real) -> Iterator[bytes]:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    yield key.private_bytes(pem, form, serialization.NoEncryption())
    yield key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    yield key.public_key().public_bytes_raw().hex().encode()
    yield b"fgtrac/x+00000000+AQ" + b"A" * 42


def segments(real: Real) -> Iterator[bytes]:
    frames = [encode_frame(entry) for entry in entries_of(real)]
    for some in (frames[:2], frames[5:12], frames):
        yield b"".join(some)


def worst_segments() -> Iterator[bytes]:
    """Bytes that look like the heads of frames, each of which is as long as it may be."""
    yield bytes(1 << 20)
    yield filled(b"\0\0\x08\0")
    yield filled(struct.pack("<I", (1 << 19) + 1) + b"xxxx" + b"\xa5")
    yield filled(encode_frame(b"\xa0"))
    yield filled(struct.pack("<I", 0x00010001))
    yield filled(encode_frame(b"\xa0") + b"\xff")
    yield filled(encode_frame(b"\xa0") + struct.pack("<I", (1 << 19) + 1))
    yield filled(b"\xff")


def worst_plans() -> Iterator[bytes]:
    for item in (b"\x80", b"\xa0", b"\x00", b"\x61a"):
        size = (1 << 20) - 64
        count = size // len(item)
        yield encode_frame(b"\xa1\x61a\x9a" + count.to_bytes(4, "big") + item * count)
    yield encode_frame(encode({"kind": "order"})) + filled(encode_frame(b"\xa0"))
    yield filled(b"\0\0\x08\0")


def pending(real: Real) -> Iterator[bytes]:
    (head,) = map(signed_head, real.files("checkpoint"))
    services = [
        {"kind": "rfc3161", "url": "https://a.b/c", "timeout_s": 2.5},
        {"kind": "evm", "contract": None, "n": 1},
    ]
    yield format_pending([Pending(service, head) for service in services])
    yield format_pending([])


def worst_pending() -> Iterator[bytes]:
    """Values that take much more memory than text, in what looks like a list."""
    for piece in (b"[],", b"{},", b'{"a":[]},', b"0.5,", b'"",', b"[[[[]]]],"):
        yield b'{"format":"fgtrac-pending/v1","pending":[' + filled(piece, MAX_BYTES - 100) + b"0]}"
    yield filled(b"[", MAX_BYTES)
    yield filled(b'{"a":', MAX_BYTES)
    yield filled(b"9", MAX_BYTES)
    yield b'{"pending":' + filled(b'"\\u00', MAX_BYTES - 100)
    yield b"{" + b",".join(b'"%d":0' % n for n in range(100_000)) + b"}"


def worst_keys() -> Iterator[bytes]:
    yield b"-----BEGIN PRIVATE KEY-----\n" + filled(b"A") + b"\n-----END PRIVATE KEY-----\n"
    yield filled(b"-----BEGIN ")
    yield filled(b"+")
    yield filled(b"a")


TARGETS = [
    Target("journal segment", segment, segments, bytes, worst=worst_segments),
    text_target(
        "segment's name", parse_segment_name, lambda pair: segment_name(*pair),
        seeds=lambda r: [segment_name(bytes(range(16)), n).encode() for n in (0, 12)],
        worst=lambda: [b"ab" * 16 + b"-" + filled(b"9") + b".wal", filled(b"-"), filled(b"ab") + b"-1.wal"],
    ),
    Target("plan of a seal", parse_plan, lambda r: r.files("journal/*.seal"), format_plan, worst=worst_plans),
    Target(
        "vault", vault, vaults, refusals=(FormatError, TamperError),
        worst=lambda: [b"SQLite format 3\0" + bytes(1 << 20), filled(b"SQLite format 3\0")],
    ),
    Target(
        "public key's file", public_key_file, key_files, refusals=(FormatError, ValueError), worst=worst_keys,
    ),
    Target("private key's file", private_key_file, key_files, worst=worst_keys),
    Target(
        "revoked keys", revoked_keys, lambda r: [(b"ab" * 32 + b"\n") * 2],
        worst=lambda: [filled(b"ab" * 32 + b"\n"), filled(b"ab"), filled(b"\n"), filled(b"\xff ")],
    ),
    Target("rotation under way", rotation, rotations,
           worst=lambda: [f"{ROTATION}\nkeep\n".encode() + filled(b"trace a\n"), *worst_keys()]),
    Target("pending anchors", parse_pending, pending, format_pending, is_canonical=False, worst=worst_pending),
    Target("placement of a loader", decode_placement, placements, write_placement, worst=worst_values),
]  # fmt: skip
