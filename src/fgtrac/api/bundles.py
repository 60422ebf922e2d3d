"""Checking a bundle offline: no trace is needed, only the key that the verifier trusts."""

from __future__ import annotations

from pathlib import Path

from fgtrac.api import naming
from fgtrac.api.trust import trusted_verifier
from fgtrac.api.witnessed import with_witnesses
from fgtrac.errors import FormatError
from fgtrac.events.identity import SECRET_BYTES
from fgtrac.store.trace_dir import ORIGIN_PREFIX
from fgtrac.store.vault import Vault
from fgtrac.tlog.proof import HEADER
from fgtrac.verify.bundle import Bundle, head_of, parse_bundle
from fgtrac.verify.checks import no_verdict
from fgtrac.verify.claims import check_bundle
from fgtrac.verify.quorum import Quorum
from fgtrac.verify.report import Report, Verdict
from fgtrac.verify.strict_json import MAX_BYTES

AS_COMMITTED = (
    "a bundle holds as its signer committed to it: that the index, the counts and the registrations are what the log's "
    "entries give is not shown; the whole trace does: fgtrac verify TRACE"
)


@no_verdict()
def verify_bundle(
    path: Path,
    key: str | None = None,
    id_key: str | None = None,
    about: str | None = None,
    quorum: Quorum | None = None,
) -> Report:
    """What the bundle in a file proves, check by check.

    `key` names the log's public key as in `trusted_verifier`; `id_key` is the run's secret id key K for those who were
    given it, as 64 hex digits or a vault; `about` names the sample or content that the bundle should be about, as in
    `naming.about`; `quorum` says which witnesses must have cosigned its head. FileNotFoundError, or FormatError for
    what is no bundle; ValueError for a name that says nothing.
    """
    _data, bundle = read_bundle(path)
    trace_id = bytes.fromhex(head_of(bundle).origin.removeprefix(ORIGIN_PREFIX))
    verifier, whose = trusted_verifier(key, trace_id, note=bundle.proof.note)
    secret = None if id_key is None else _find_id_key(id_key, trace_id)
    asked = None if about is None else naming.about(about)
    report = with_witnesses(check_bundle(bundle, verifier, secret, asked), bundle, quorum, trace_id, verifier)
    note = f"the signature was checked with {whose}" if verifier is not None else whose
    bound = (AS_COMMITTED,) if report.verdict is Verdict.HOLDS else ()
    without = () if id_key is None or secret is not None else (f"--id-key was not used: {_no_id_key(id_key)}",)
    return Report(report.findings, (*report.notes, *without, *bound, note))


def read_bundle(path: Path) -> tuple[bytes, Bundle]:
    """A file's bytes, and the bundle that they are. FileNotFoundError, or FormatError for what is no bundle."""
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if data.startswith(HEADER.encode()):
        raise FormatError(
            f"{path} is a tlog-proof, which says of one entry that it is in a log, and no bundle (fgtrac prove writes "
            "one): any c2sp.org/tlog-proof tool checks it, and fgtrac verify TRACE --since takes it as an older head"
        )
    try:
        return data, parse_bundle(data)
    except FormatError as error:
        raise FormatError(f"{path} is no bundle (fgtrac prove writes one) and no trace's folder: {error}") from error


def read_id_key(named: str, trace_id: bytes) -> bytes:
    """A run's secret id key K, from 64 hex digits or a vault. FileNotFoundError, ValueError where there is none."""
    found = _find_id_key(named, trace_id)
    if found is None:
        raise ValueError(_no_id_key(named))
    return found


def _no_id_key(named: str) -> str:
    return f"{named:.80} holds no id key of the run: it was destroyed, or the ids are public"


def _find_id_key(named: str, trace_id: bytes) -> bytes | None:
    try:
        secret = bytes.fromhex(named)
    except ValueError:
        secret = b""
    if len(secret) == SECRET_BYTES:
        return secret
    vault = Vault.open(Path(named), trace_id)
    try:
        return vault.find_secret("run")
    finally:
        vault.close()
