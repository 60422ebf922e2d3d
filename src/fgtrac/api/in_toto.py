"""An in-toto statement about the kept model states of a trace, in a DSSE envelope that the log's key signs.

The statement (https://in-toto.io/Statement/v1) says of each model file, by its SHA-256, which log tells how it was
trained: docs/exports.md has the fields, ADR 34 why this key signs it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgtrac.api import prior
from fgtrac.api.exported_files import check_place, write_export
from fgtrac.api.trace import Trace, open_trace
from fgtrac.commit.signer import Signer
from fgtrac.query.log import whole
from fgtrac.query.timeline import Timeline
from fgtrac.tlog.dsse import format_envelope, key_id
from fgtrac.tlog.note import Verifier, format_vkey

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:fgtrac:training-record:v1"  # a name and no address: the project has no domain of its own
PAYLOAD = "application/vnd.in-toto+json"


class NoModelFileError(ValueError):
    """The trace keeps no model file that a statement could be about."""


@dataclass(frozen=True, slots=True)
class Attested:
    """An envelope as it is written to a file, the statement in it, and the DSSE id of the key that signed it."""

    envelope: bytes
    statement: dict[str, Any]
    key_id: str


def attest(trace: Trace, key: Path | None = None) -> Attested:
    """The signed statement about the model states that a trace keeps, as of its newest full seal. Every entry of the
    log is read and hashed before it is signed.

    `key` is the signing key's file (default: the user's). FileNotFoundError or ValueError where the key that signs the
    trace is not at hand, or was revoked; ValueError where the trace keeps no model file; TamperError or ProofError
    where what it rests on is not what was sealed.
    """
    signer = prior.signer_of(trace._directory, key)
    trace._seal.log.check_all()
    return _attest(trace, signer, signer.key_of(trace._seal.note))


def export_in_toto(path: Path, out: Path, *, key: Path | None = None, replace: bool = False) -> Attested:
    """Write the envelope of `attest` to a file, as one line of JSON. FileExistsError where one is there, unless
    `replace`; otherwise as `attest`."""
    check_place(out, replace=replace)
    done = attest(open_trace(path), key)
    write_export(out, done.envelope, replace=replace)
    return done


def _attest(trace: Trace, signer: Signer, public_key: bytes) -> Attested:
    statement = _statement(trace, public_key)
    payload = json.dumps(statement, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
    signature = signer.sign_envelope(public_key, PAYLOAD, payload)
    return Attested(format_envelope(PAYLOAD, payload, public_key, signature), statement, key_id(public_key))


def _statement(trace: Trace, public_key: bytes) -> dict[str, Any]:
    seal = trace._seal
    with whole("the statement"):
        subjects = _subjects(trace._historian.timeline)
        datasets = _datasets(trace._historian.timeline)
        run = seal.log.event(0)
    if not subjects:
        raise NoModelFileError(
            f"{trace.path} keeps no model file, and an in-toto statement is about some: none was saved"
        )
    predicate = {
        "traceId": trace.id.hex(),
        "treeHead": {
            "origin": seal.head.origin,
            "size": seal.head.size,
            "rootHash": seal.head.root.hex(),
            "note": seal.note.decode(),
        },
        "verifierKey": format_vkey(Verifier(seal.head.origin, public_key)),
        "seal": {"indexRoot": seal.event["root"].hex(), "leaves": seal.event["leaves"]},
        "entries": dict(sorted(seal.event["counts"].items())),
        "laterEntries": trace.pending,
        "dataSets": list(datasets.values()),
        "versions": dict(sorted(run.get("versions", {}).items())),
    }
    return {"_type": STATEMENT, "subject": subjects, "predicateType": PREDICATE, "predicate": predicate}


def _datasets(timeline: Timeline) -> dict[str, dict[str, Any]]:
    """What the log says of each data set; of one that a resumed run registered again, the last."""
    said = [e for _, e in timeline.entries("dataset")]
    return {e["name"]: {k: e[k] for k in ("name", "id_scheme", "rows") if k in e} for e in said}


def _subjects(timeline: Timeline) -> list[dict[str, Any]]:
    """A resource descriptor for each model file that is kept; the entries that say so are checked against the root."""
    files: dict[bytes, list[tuple[int, Mapping[str, Any]]]] = {}
    for number, event in timeline.entries("artifact"):
        files.setdefault(event["sha256"], []).append((number, event))
    kept = dict(timeline.kept)
    found = []
    for number, event in timeline.entries("checkpoint"):
        if number not in kept or event.get("digest") not in files:
            continue
        same = files[event["digest"]]  # its own is written just before it
        at, file = next((one for one in reversed(same) if one[0] < number), same[0])
        said = {"entry": number, "fileEntry": at, "stateDigest": event["digest"].hex(), "bytes": file["size"]}
        said |= {name: event[name] for name in ("step", "epoch", "val_loss") if name in event}
        about = {"name": file["path"], "digest": {"sha256": file["sha256"].hex()}, "mediaType": file["media_type"]}
        found.append(about | {"annotations": said})
    return found
