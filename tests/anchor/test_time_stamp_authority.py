"""The client of time-stamping authorities: what it asks, what it takes, and every answer that is of no use."""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from http.server import BaseHTTPRequestHandler

import pytest

from authorities import Identity, issue, make_root
from cosigned import prover, signed_head
from fgtrac.anchor.der import read_elements
from fgtrac.anchor.rfc3161 import TimeStampAuthority, check_stamp
from fgtrac.errors import AnchorError, RefusedError
from served import Handle, answers, served, writes
from stamps_by_hand import WHEN, nonce_of, rejection, stamp

HEAD = signed_head([b"entry 0", b"entry 1"], 2)
PROVE = prover([b"entry 0", b"entry 1"], 2)
ROOT = make_root()
SIGNER = issue("tsa", ROOT)
ENDED = issue("tsa", ROOT, last=WHEN - timedelta(days=1))
SECRET = "k3y-th4t-is-secret"
REPLY = "application/timestamp-reply"


def replies(make: Callable[[bytes], bytes], content_type: str = REPLY, status: int = 200) -> Handle:
    """What `make` makes of the query."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        query = request.rfile.read(int(request.headers["Content-Length"]))
        body = make(query)
        request.send_response(status)
        request.send_header("Content-Type", content_type)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return handle


def honest(query: bytes) -> bytes:
    return stamp(HEAD.note, SIGNER, nonce=nonce_of(query))


def test_a_stamp_over_the_notes_exact_bytes_is_the_receipt_as_it_came() -> None:
    sent: list[bytes] = []

    def make(query: bytes) -> bytes:
        version, imprint, _, certificates = read_elements(query)[0].parts()
        assert version.content == b"\1"
        assert imprint.parts()[1].content == hashlib.sha256(HEAD.note).digest()
        assert certificates.raw == b"\1\1\xff"
        sent.append(honest(query))
        return sent[-1]

    with served(replies(make)) as url:
        service = TimeStampAuthority(f"{url}/{SECRET}", timeout_s=5)
        service.prepare()
        names = {service.anchor(HEAD, PROVE) for _ in range(2)}
    assert names == {(f"rfc3161-{hashlib.sha256(f'{url}/{SECRET}'.encode()).hexdigest()[:16]}.tsr", s) for s in sent}
    assert len(set(sent)) == 2  # each query has a nonce of its own
    assert check_stamp(sent[0], HEAD.note, [ROOT.certificate]).by == "CN=tsa"
    assert (service.kind, service.name) == ("rfc3161", url)
    assert service.settings() == {"kind": "rfc3161", "url": f"{url}/{SECRET}", "timeout_s": 5}


REFUSED: dict[str, tuple[Handle, str]] = {
    "a rejection": (replies(lambda query: rejection(0)), "refused to stamp: rejection; unrecognized .*; 'no'"),
    "a policy": (replies(lambda query: rejection(15, text="a\nb")), "rejection; policy not supported; 'a b'"),
    "an unknown failure": (replies(lambda query: rejection(31, text="")), "rejection; failure 31$"),
    "a revocation": (replies(lambda query: rejection(None, 5, "")), "revocation notification$"),
    "modifications": (
        replies(lambda query: stamp(HEAD.note, SIGNER, nonce=nonce_of(query), status=1)), "granted with modifications",
    ),
}  # fmt: skip

UNUSABLE: dict[str, tuple[Handle, str]] = {
    "waiting": (replies(lambda query: rejection(None, 3)), "waiting; 'no'; try again later"),
    "no clock": (replies(lambda query: rejection(14)), "time source not available.*try again later"),
    "a failure": (replies(lambda query: rejection(25)), "system failure.*try again later"),
    "an error": (answers(500, b"<html>"), "HTTP status 500"),
    "a page": (answers(200, b"<html>", "text/html; charset=utf-8"), "answers with 'text/html', not with application/"),
    "a type that may be an echo": (answers(200, b"x", f"x/{SECRET}"), "answers with another content type, not with"),
    "a password": (answers(401, b""), "HTTP status 401: are user and password right"),
    "a gateway": (answers(403, b""), "HTTP status 403: are user and password right"),
    "no type": (answers(200, b"x"), "answers with ''"),
    "garbage": (replies(lambda query: b"\x30\x05garbage"), "no time stamp that can be used"),
    "the query": (replies(lambda query: query), "no time stamp that can be used"),
    "nothing": (replies(lambda query: b""), "no time stamp that can be used"),
    "too much": (replies(lambda query: bytes(65_537)), "more than 65536 bytes"),
    "half": (writes(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n0"), "IncompleteRead"),
    "another query's": (replies(lambda query: stamp(HEAD.note, SIGNER, nonce=5)), "another query: nonce 5, asked"),
    "no nonce": (replies(lambda query: stamp(HEAD.note, SIGNER)), "answered another query: nonce None, asked"),
    "another note": (
        replies(lambda query: stamp(b"x", SIGNER, nonce=nonce_of(query))), "can be used: .* over other bytes",
    ),
    "an ended certificate": (
        replies(lambda query: stamp(HEAD.note, ENDED, nonce=nonce_of(query))), "that can be used: .* had expired when",
    ),
    "another key's signature": (
        replies(lambda query: stamp(HEAD.note, Identity(SIGNER.certificate, ROOT.key), nonce=nonce_of(query))),
        "that can be used: the time stamp was altered",
    ),
    "a digest that is broken": (
        replies(lambda query: stamp(HEAD.note, SIGNER, nonce=nonce_of(query), signed_over="sha1")), "not accepted",
    ),
    "another digest": (
        replies(lambda query: stamp(HEAD.note, SIGNER, nonce=nonce_of(query), digest="sha512")), "stamped a sha512",
    ),
    "granted without a token": (replies(lambda query: rejection(None, 0)), "holds no time stamp: granted"),
    "no certificate": (
        replies(lambda query: stamp(HEAD.note, SIGNER, nonce=nonce_of(query), carries_signer=False)), "not supported",
    ),
    "silence": (writes(b"", pause_s=1), "did not answer within 0.3 s"),
}  # fmt: skip


@pytest.mark.parametrize("answer", [*REFUSED, *UNUSABLE])
def test_an_answer_of_no_use_is_no_receipt(answer: str) -> None:
    handle, words = {**REFUSED, **UNUSABLE}[answer]
    with served(handle) as url:
        secret = url.replace("//", f"//u:{SECRET}@") + f"/{SECRET}?{SECRET}"
        with pytest.raises(AnchorError, match=words) as raised:
            TimeStampAuthority(secret, timeout_s=0.3 if answer == "silence" else 60).anchor(HEAD, PROVE)
        assert url in str(raised.value)
    assert isinstance(raised.value, RefusedError) == (answer in REFUSED)
    assert SECRET not in "".join(traceback.format_exception(raised.value))
    assert "\n" not in str(raised.value)


def test_what_the_caller_gets_wrong_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no URL of an outside service"):
        TimeStampAuthority("freetsa.example")
    with pytest.raises(ValueError, match="timeout_s=0; it is in seconds, above 0"):
        TimeStampAuthority("http://tsa.example", timeout_s=0)
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    with pytest.raises(ValueError, match=r"pip install 'fgtrac\[tsa\]'"):
        TimeStampAuthority("http://tsa.example").prepare()
