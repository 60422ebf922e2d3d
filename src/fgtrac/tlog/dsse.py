"""DSSE envelopes (https://github.com/secure-systems-lab/dsse): what is signed, and the JSON around it.

What is signed begins with "DSSEv1 "; a tree head begins with its origin, "fgtrac/", and a key rotation with
"fgtrac key": no signature over one of them is a signature over another.
"""

from __future__ import annotations

import base64
import hashlib
import json


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """PAE(type, body) of the DSSE protocol, v1: both with their lengths in front."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def key_id(public_key: bytes) -> str:
    """What names an Ed25519 key in an envelope: TUF's key id (section 4.2 of its specification), in hex. A hint, which
    nothing rests on."""
    said = {"keytype": "ed25519", "keyval": {"public": public_key.hex()}, "scheme": "ed25519"}
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def format_envelope(payload_type: str, payload: bytes, public_key: bytes, signature: bytes) -> bytes:
    """The envelope's JSON, on one line, with one signature."""
    signed = {"keyid": key_id(public_key), "sig": base64.b64encode(signature).decode()}
    envelope = {"payloadType": payload_type, "payload": base64.b64encode(payload).decode(), "signatures": [signed]}
    return json.dumps(envelope).encode() + b"\n"
