"""The verbs of the user's signing key: make one, say which there are, put a new one in its place.

A rotation's order of writes, and what a crash behind each leaves; `rotate` once more finishes what was begun:

    1  key.pem.rotation: the new key, and the traces it is for    nothing else has changed
    2  the present key, once more as retired/KEY.pem              as 1
    3  where it is to be revoked: its line in `revoked`           it is not believed, and signs until it is replaced
    4  key.pem                                                    new traces begin under the new key
    5  in each trace: a `key` entry, then a full seal             the others go on under the old key
    6  key.pem.rotation goes                                      done

Copies of a key that a process was killed in writing (.tmp) are removed by whichever verb comes next.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.api import prior
from fgtrac.api.adding import adding, alone_in
from fgtrac.commit import sequencer
from fgtrac.commit.keys import Begun, Keyring, key_path, make_key, public_bytes
from fgtrac.errors import FgtracError
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
    """A trace under its new key: the public keys before and now, whether its log revokes the one before, keys from
    before that which nobody revokes, and the size of the head that the new one signed."""

    path: Path
    old: bytes
    new: bytes
    revoked: bool
    unrevoked: tuple[bytes, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Rotation:
    """What `rotate` did: the public key that signs now, the traces under it, and those that were left out, since they
    are no longer where they were when their rotation was begun."""

    public_key: bytes
    traces: tuple[Rotated, ...]
    gone: tuple[Path, ...]


def new_key(path: Path | None = None) -> tuple[Path, bytes]:
    """Make a signing key, by default where the user's is looked for: its file and public key. FileExistsError where
    there is a file; `rotate` puts a new key in its place."""
    path = key_path(path)
    Keyring(path).remove_unfinished()
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


def revoke_key(named: str, path: Path | None = None) -> bytes:
    """Believe one of the user's retired keys (64 hex digits) no longer, on this machine; no log is changed. ValueError
    for the present key and for one that is not his."""
    ring = _keyring(path)
    with ring.rotating():
        present, *retired = ring.keys()
        if named.lower() == present.hex():
            raise ValueError("that is your present key; fgtrac key rotate TRACE... --revoke puts another in its place")
        found = next((key for key in retired if key.hex() == named.lower()), None)
        if found is None:
            raise ValueError(f"{named!r:.80} is none of your retired keys; fgtrac key show lists them")
        ring.revoke(found)
    return found


def rotate(paths: Sequence[Path], *, revoke: bool = False, path: Path | None = None) -> Rotation:
    """Let a new key sign these traces from now on: the user's present one where all of them are under older keys of
    his, otherwise one that is made and takes the place of the present one. With `revoke`, the keys before are no longer
    believed: a theft that is noticed late is told to the traces that are still to come of a rotation that was begun
    without it. First finishes a rotation that was begun, and without paths nothing but that.

    FileNotFoundError where there is no key or no trace; ValueError for a trace that is somebody else's, for no `revoke`
    where the rotation begun has it, and where there is nothing to do; TamperError for a trace that was rolled back;
    CaptureError for one that a process has open for writing; BlockingIOError where another process rotates the key.
    """
    ring = _keyring(path)
    with ring.rotating(), ExitStack() as alone:
        begun = _find_begun(ring, is_new=bool(paths), revoke=revoke)
        earlier = begun.traces if begun is not None else ()
        gone = [p for p in earlier if not p.exists()]
        named = [p for p in dict.fromkeys([*earlier, *(p.absolute() for p in paths)]) if p not in gone]
        used: dict[Path, list[bytes]] = {}
        for p in named:
            with _finishing(ring, is_begun=p in earlier):
                alone.enter_context(alone_in(TraceDir.open(p)))
                used[p] = _used_keys(p, ring.path)
        key = begun.key if begun is not None else _key_for(ring, [key for keys in used.values() for key in keys])
        begun = Begun(key, tuple(named), revoke or (begun is not None and begun.revoke))
        ring.begin(begun)
        ring.install(begun)
        done = []
        for p in named:
            with _finishing(ring, is_begun=True):
                done.append(_rotate_trace(TraceDir.open(p), ring, begun, used[p]))
        ring.finish()
    return Rotation(public_bytes(key), tuple(done), tuple(gone))


def _find_begun(ring: Keyring, *, is_new: bool, revoke: bool) -> Begun | None:
    """The rotation to be finished, or None. ValueError where another one is asked for, or none is there to finish."""
    begun = ring.begun()
    if begun is None and not is_new:
        raise ValueError("no rotation was begun; name the traces that a new key is to sign")
    if begun is not None and begun.revoke and is_new and not revoke:
        raise ValueError(
            f"a rotation with --revoke was begun and is not finished, in {ring.rotation}; fgtrac key rotate, without "
            "traces, finishes it"
        )
    return begun


@contextmanager
def _finishing(ring: Keyring, *, is_begun: bool) -> Iterator[None]:
    """Where a trace of a rotation that was begun cannot be rotated, say what to do about it."""
    try:
        yield
    except (FgtracError, ValueError) as error:
        if not is_begun:
            raise
        kind = ValueError if isinstance(error, ValueError) else type(error)
        raise kind(
            f"{error}; the rotation was begun, in {ring.rotation}: fgtrac key rotate finishes it, and does so "
            "without this trace if you move that away"
        ) from error


def _keyring(path: Path | None) -> Keyring:
    path = key_path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no key at {path}; fgtrac key new makes one, FGTRAC_KEY names another")
    ring = Keyring(path)
    ring.remove_unfinished()
    return ring


def _signing_key(trace: TraceDir, path: Path | None) -> bytes:
    signer, note = prior.signer_of(trace, path), trace.head_note()
    return signer.public_key if note is None else signer.key_of(note)


def _used_keys(path: Path, key_path: Path) -> list[bytes]:
    """The public keys that a trace has been under. What waits in it is sealed first, so that a trace which the key does
    not sign any more (TamperError: rolled back, a fork) is found out before anything is changed."""
    trace = TraceDir.open(path)
    sequencer.seal(trace, prior.signer_of(trace, key_path), full=False, clock=time.time_ns)
    return [*prior.keys_of(trace), _signing_key(trace, key_path)]


def _key_for(ring: Keyring, used: Sequence[bytes]) -> Ed25519PrivateKey:
    """The key that is to sign: the present one, or one that is made where a trace has been under that already."""
    public, present = next(iter(ring.keys().items()))
    return Ed25519PrivateKey.generate() if public in used else present


def _rotate_trace(trace: TraceDir, ring: Keyring, begun: Begun, used: Sequence[bytes]) -> Rotated:
    """Write the `key` entry, unless it is there, and seal; `used` are the public keys that it has been under."""
    new = public_bytes(begun.key)
    with adding(trace, ring.path, is_alone=True) as added:  # what was there is sealed under the old key
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
    unrevoked = [key for key in dict.fromkeys(used) if key not in (old, new, *ring.revoked())]
    return Rotated(trace.path, old, new, revoked, tuple(unrevoked), head.size)
