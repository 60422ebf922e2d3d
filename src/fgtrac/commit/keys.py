"""A user's signing keys on disk: the present one, those that it replaced, which are revoked, and a rotation under way.

key.pem             the present key (or the file that FGTRAC_KEY names)
key.pem.rotation    a rotation that was begun: the new key, and the traces that it is for
key.pem.lock        held by the one rotation at work
retired/KEY.pem     keys that were replaced; KEY is the public key in hex
revoked             public keys that are no longer believed, one a line
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fgtrac.errors import FormatError
from fgtrac.store import durable
from fgtrac.store.private_files import check_names_file, read_private

ROTATION = "fgtrac rotation v1"


def default_key_path(environment: Mapping[str, str]) -> Path:
    """Where the user's key lies: $FGTRAC_KEY, else key.pem in the user's configuration folder. ValueError where the
    user has none, or put the key itself into FGTRAC_KEY."""
    if named := environment.get("FGTRAC_KEY"):
        check_names_file(Path(named))
        return Path(named)
    try:
        folder = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    except RuntimeError as error:
        raise ValueError(f"there is no folder for your key: {error}; name the key's file in FGTRAC_KEY") from error
    return Path(folder) / "fgtrac" / "key.pem"


def key_path(named: Path | None) -> Path:
    """A key file that was named, else where the user's lies. ValueError as `default_key_path`, and where the key itself
    was given in place of its file's name."""
    if named is None:
        return default_key_path(os.environ)
    check_names_file(named)
    return named


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """The 32-byte public key of a private one."""
    return key.public_key().public_bytes_raw()


def load_key(path: Path) -> Ed25519PrivateKey:
    """The private key in a PKCS8 PEM file, to sign with. FileNotFoundError, ValueError where others than its owner have
    any permission, FormatError for anything but an Ed25519 key."""
    return parse_key(read_private(path), path)


def make_key(path: Path) -> Ed25519PrivateKey:
    """A new private key, for its owner's eyes only; where several processes make one at once, all get the first's."""
    with contextlib.suppress(FileExistsError):  # somebody else was faster: that one is everybody's
        durable.create_file(path, _pem(Ed25519PrivateKey.generate()), mode=0o600)
    return load_key(path)


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def parse_key(data: bytes, path: Path) -> Ed25519PrivateKey:
    """The private key in PKCS8 PEM; `path` is for messages. FormatError for anything but an Ed25519 key."""
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FormatError(f"{path} is no unencrypted PKCS8 key: {error}") from error
    except InternalError as error:  # of lengths that belong to another kind of key; its text is a page
        raise FormatError(f"{path} holds no key that OpenSSL can read") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise FormatError(f"{path} holds a {type(key).__name__}; tree heads are signed with Ed25519")
    return key


@dataclass(frozen=True, slots=True)
class Begun:
    """A rotation under way: the key that is to sign from then on, for which traces, and whether what it replaces is
    revoked."""

    key: Ed25519PrivateKey
    traces: tuple[Path, ...]
    revoke: bool


class Keyring:
    """The keys around one key file; nothing is read before it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._retired = path.parent / "retired"
        self._revoked = path.parent / "revoked"
        self.rotation = path.with_name(path.name + ".rotation")

    def keys(self) -> dict[bytes, Ed25519PrivateKey]:
        """All keys by public key, the present one first. FileNotFoundError where there is no present one; raises as
        `load_key`."""
        found = [load_key(self.path)]
        if self._retired.is_dir():
            found += [load_key(path) for path in sorted(self._retired.glob("*.pem"))]
        return {public_bytes(key): key for key in found}

    def files(self) -> list[Path]:
        """Where all of it lies, whether or not something is there."""
        return [self.path, self._revoked, self._retired, *sorted(self._retired.glob("*.pem"))]

    def revoked(self) -> frozenset[bytes]:
        """The public keys that are no longer believed. FormatError for a list of something else."""
        if not self._revoked.exists():
            return frozenset()
        lines = self._revoked.read_bytes().decode(errors="replace").split()
        try:
            keys = frozenset(map(bytes.fromhex, lines))
        except ValueError as error:
            raise FormatError(f"{self._revoked} is no list of public keys in hex: {error}") from error
        if any(len(key) != 32 for key in keys):
            raise FormatError(f"{self._revoked} holds a line that is no public key: it has 64 hex digits")
        return keys

    def revoke(self, key: bytes) -> None:
        """Believe a key no longer."""
        known = self.revoked()
        if key not in known:
            lines = "".join(f"{k.hex()}\n" for k in sorted(known | {key}))
            durable.write_file(self._revoked, lines.encode(), mode=0o600)

    def remove_unfinished(self) -> None:
        """Remove files that a process was cut short in writing a key to; one that somebody is writing now is held, and
        stays."""
        beside = [p for p in self.path.parent.glob(f"*{durable.TEMPORARY}") if p.name.startswith(self.path.name + ".")]
        for path in [*beside, *self._retired.glob(f"*{durable.TEMPORARY}")]:
            with durable.alone_with(path) as size_bytes:
                if size_bytes is not None:
                    durable.remove(path)

    # -- rotation: begin, install, finish; each can be done again ----------------------------------------------------

    @contextlib.contextmanager
    def rotating(self) -> Iterator[None]:
        """Keep other rotations of this key out. BlockingIOError where one is under way."""
        busy = BlockingIOError(f"{self.path} is being rotated by another process; wait for it, then try again")
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(durable.lock(self.path.with_name(self.path.name + ".lock"), str(self.path)))
            except BlockingIOError:
                raise busy from None
            yield

    def begun(self) -> Begun | None:
        """The rotation under way, or None. FormatError where its file was changed; raises as `load_key`."""
        if not self.rotation.exists():
            return None
        head, mark, pem = read_private(self.rotation).partition(b"-----BEGIN")
        lines = os.fsdecode(head).splitlines()
        words = {"revoke": True, "keep": False}
        paths = [line.removeprefix("trace ") for line in lines[2:]]
        if lines[:1] != [ROTATION] or len(lines) < 2 or lines[1] not in words or len(paths) + 2 != len(lines):
            raise FormatError(f"{self.rotation} is no {ROTATION}; restore it, or remove it if key.pem is as it was")
        return Begun(parse_key(mark + pem, self.rotation), tuple(map(Path, paths)), words[lines[1]])

    def begin(self, begun: Begun) -> None:
        """Write down a rotation before anything of it is done."""
        lines = [ROTATION, "revoke" if begun.revoke else "keep", *(f"trace {path}" for path in begun.traces), ""]
        durable.write_file(self.rotation, os.fsencode("\n".join(lines)) + _pem(begun.key), mode=0o600)

    def install(self, begun: Begun) -> None:
        """Make a rotation's key the present one; the one before is kept, and revoked where it is to be."""
        old = load_key(self.path)
        if public_bytes(old) == public_bytes(begun.key):
            return
        retired = self._retired / f"{public_bytes(old).hex()}.pem"
        with contextlib.suppress(FileExistsError):  # from a rotation that was cut short
            durable.create_file(retired, _pem(old), mode=0o600)
        if begun.revoke:
            self.revoke(public_bytes(old))
        durable.write_file(self.path, _pem(begun.key), mode=0o600)

    def finish(self) -> None:
        """Forget a rotation whose every trace is sealed under the new key. Where a crash brings it back, there is
        nothing left of it to do."""
        durable.remove(self.rotation)
