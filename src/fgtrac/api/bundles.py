"""Checking a bundle offline: no trace is needed, only the key that the verifier trusts."""

from __future__ import annotations

from pathlib import Path

from fgtrac.api.trust import trusted_verifier
from fgtrac.errors import FormatError
from fgtrac.events.identity import SECRET_BYTES
from fgtrac.store.trace_dir import ORIGIN_PREFIX
from fgtrac.store.vault import Vault
from fgtrac.verify.bundle import MAX_BYTES, parse_bundle
from fgtrac.verify.claims import check_bundle, head_of
from fgtrac.verify.report import Report


def verify_bundle(path: Path, key: str | None = None, id_key: str | None = None) -> Report:
    """What the bundle in a file proves, check by check.

    `key` names the log's public key as in `trusted_verifier`; `id_key` is the run's secret id key K for those who were
    given it, as 64 hex digits or a vault. FileNotFoundError, or FormatError for what is no bundle.
    """
    with path.open("rb") as file:
        bundle = parse_bundle(file.read(MAX_BYTES + 1))
    origin = head_of(bundle).origin
    trace_id = _trace_id(origin)
    verifier, whose = trusted_verifier(key, trace_id)
    secret = None if id_key is None else _read_id_key(id_key, trace_id)
    report = check_bundle(bundle, verifier, secret)
    note = f"the signature was checked with {whose}" if verifier is not None else whose
    return Report(report.findings, (*report.notes, note))


def _trace_id(origin: str) -> bytes:
    try:
        trace_id = bytes.fromhex(origin.removeprefix(ORIGIN_PREFIX))
    except ValueError:
        trace_id = b""
    if origin != ORIGIN_PREFIX + trace_id.hex() or len(trace_id) != 16:
        raise FormatError(f"the bundle is of a log named {origin!r:.80}; a trace is named {ORIGIN_PREFIX}TRACE-ID")
    return trace_id


def _read_id_key(named: str, trace_id: bytes) -> bytes:
    try:
        secret = bytes.fromhex(named)
    except ValueError:
        secret = b""
    if len(secret) == SECRET_BYTES:
        return secret
    vault = Vault.open(Path(named), trace_id)
    try:
        found = vault.find_secret("run")
    finally:
        vault.close()
    if found is None:
        raise ValueError(f"{named:.80} holds no id key of the run: it was destroyed, or the ids are public")
    return found
