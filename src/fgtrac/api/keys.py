"""The verbs of the user's signing key: make one, say which there are, put a new one in its place.

A rotation's order of writes, and what a crash behind each leaves; `rotate` once more finishes what was begun:

    1  key.pem.rotation: the new key, and the traces it is for    nothing else has changed
    2  the present key, once more as retired/KEY.pem              as 1
    3  where it is to be revoked: its line in `revoked`           it is not believed, and signs until it is replaced
    4  key.pem                                                    new traces begin under the new key
    5  in each trace: a `key` entry, then a full seal             the others go on under the old key
    6  key.pem.rotation goes                                      done
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.api import prior
from fgtrac.api.adding import adding
from fgtrac.commit.gather import read_segments
from fgtrac.commit.keys import Begun, Keyring, default_key_path, make_key, public_bytes
from fgtrac.errors import CaptureError
from fgtrac.store import durable
from fgtrac.store.trace_dir import ORIGIN_PREFIX, TraceDir
from fgtrac.tlog.note import Verifier, format_vkey
from fgtrac.verify.keys import rotation_message


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """The user's public keys: the present one, those it replaced, those that are revoked, and the traces of a rotation
    that was begun and not finished."""

    path: Path
    present: bytes
    retired: tuple[bytes, ...]
    revoked: tuple[bytes, ...]
    unfinished: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Rotated:
    """A trace under its new key: the public keys before and now, and the size of the head that the new one signed."""

    path: Path
    old: bytes
    new: bytes
    revoked: bool
    size: int


def new_key(path: Path | None = None) -> tuple[Path, bytes]:
    """Make a signing key, by default where the user's is looked for: its file and public key. FileExistsError where
    there is a file; `rotate` puts a new key in its place."""
    path = path or default_key_path(os.environ)
    if path.exists():
        raise FileExistsError(f"{path} is there already; fgtrac key rotate TRACE... puts a new key in its place")
    return path, public_bytes(make_key(path))


def own_keys(path: Path | None = None) -> OwnKeys:
    """What there is of keys. FileNotFoundError where there is none."""
    ring = _keyring(path)
    present, *retired = ring.keys()
    begun = ring.begun()
    return OwnKeys(ring.path, present, tuple(retired), tuple(sorted(ring.revoked())), begun.traces if begun else ())


def own_vkey(trace_path: Path, path: Path | None = None) -> str:
    """The C2SP verifier key, for one trace, of the user's key that signs it. ValueError where it is somebody else's."""
    trace = TraceDir.open(trace_path)
    return format_vkey(Verifier(ORIGIN_PREFIX + prior.trace_id_of(trace).hex(), _signing_key(trace, path)))


def rotate(paths: Sequence[Path], *, revoke: bool = False, path: Path | None = None) -> list[Rotated]:
    """Let a new key sign these traces from now on: the user's present one where all of them are under older keys of
    his, otherwise one that is made and takes the place of the present one. With `revoke`, the keys before are no longer
    believed. First finishes a rotation that was begun.

    FileNotFoundError where there is no key or no trace, ValueError for a trace that is somebody else's and for another
    `revoke` than that of the rotation begun, CaptureError for a trace that is being recorded now, BlockingIOError where
    another process rotates the same key.
    """
    ring = _keyring(path)
    with ring.rotating():
        begun = ring.begun()
        if begun is not None and begun.revoke != revoke:
            said = "with" if begun.revoke else "without"
            raise ValueError(f"a rotation {said} --revoke was begun and is not finished; finish it {said} --revoke")
        named = dict.fromkeys([*(begun.traces if begun else ()), *(p.absolute() for p in paths)])
        used = [key for p in named for key in _check_ready(p, ring.path)]
        begun = Begun(begun.key if begun is not None else _key_for(ring, used), tuple(named), revoke)
        ring.begin(begun)
        ring.install(begun)
        rotated = [_rotate_trace(TraceDir.open(p), ring, begun) for p in named]
        ring.finish()
    return rotated


def _keyring(path: Path | None) -> Keyring:
    path = path or default_key_path(os.environ)
    if not path.exists():
        raise FileNotFoundError(f"there is no key at {path}; fgtrac key new makes one, FGTRAC_KEY names another")
    return Keyring(path)


def _signing_key(trace: TraceDir, path: Path | None) -> bytes:
    signer, note = prior.signer_of(trace, path), trace.head_note()
    return signer.public_key if note is None else signer.key_of(note)


def _check_ready(path: Path, key_path: Path) -> list[bytes]:
    """The public keys that a trace has been under, once it is known that it can be rotated."""
    trace = TraceDir.open(path)
    if any(durable.is_held(segment.path) for segment in read_segments(trace)):
        raise CaptureError(f"{path} is being recorded by a process now; rotate its key when that has ended")
    return [*prior.keys_of(trace), _signing_key(trace, key_path)]


def _key_for(ring: Keyring, used: Sequence[bytes]) -> Ed25519PrivateKey:
    """The key that is to sign: the present one, or one that is made where a trace has been under that already."""
    public, present = next(iter(ring.keys().items()))
    return Ed25519PrivateKey.generate() if public in used else present


def _rotate_trace(trace: TraceDir, ring: Keyring, begun: Begun) -> Rotated:
    """Write the `key` entry, unless it is there, and seal."""
    new = public_bytes(begun.key)
    with adding(trace, ring.path) as added:  # seals what was there under the old key, and what is added under the new
        signer = added.signer
        old = signer.key_of(trace.read("checkpoint"))
        revoked = begun.revoke or old in ring.revoked()
        if old != new:
            if revoked:
                ring.revoke(old)
            signatures = signer.rotate(old, new, rotation_message(signer.trace_id, old, new, revoked))
            fields = {"public_key": new, **dict(zip(("old_signature", "new_signature"), signatures, strict=True))}
            added.recorder.record("key", fields | ({"revoked": True} if revoked else {}))
    head = trace.head()
    assert head is not None
    return Rotated(trace.path, old, new, revoked, head.size)
