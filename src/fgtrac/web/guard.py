"""Who may ask the explorer, and what a browser may do with its answers."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from ipaddress import ip_address

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-store",
}
MIN_TOKEN = 16


def is_loopback(host: str) -> bool:
    """Whether a host's name is this machine's own, as an address or as `localhost`."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def names_loopback(host_header: str) -> bool:
    """Whether a Host header names this machine. A page elsewhere whose name was made to lead here (DNS rebinding) sends
    its own name."""
    name, colon, port = host_header.rpartition(":")
    if colon and port.isascii() and port.isdigit():
        host_header = name
    if ":" in host_header and not (host_header.startswith("[") and host_header.endswith("]")):
        return False
    return is_loopback(host_header)


def is_embedded(headers: Mapping[str, str]) -> bool:
    """Whether a page of another site asks for a part of itself here, as browsers say in each request (Fetch Metadata,
    https://www.w3.org/TR/fetch-metadata/): a picture, a script, a frame. Following a link to here is none of these."""
    is_foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    return is_foreign and headers.get("sec-fetch-dest") != "document"


def new_token() -> str:
    """A token that nobody guesses: 128 random bits."""
    return secrets.token_urlsafe(16)


def check_token(token: str) -> None:
    """ValueError for a token that can be guessed, or does not go into a URL and a cookie as it is."""
    if len(token) < MIN_TOKEN or not all(c.isascii() and (c.isalnum() or c in "-_") for c in token):
        raise ValueError(f"a token has at least {MIN_TOKEN} letters, digits, - or _; leave --token out to get one")


def is_token(given: str, token: str) -> bool:
    """Whether the token is the right one; takes as long for every wrong one."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def cookie_name(token: str) -> str:
    """A name for each token: cookies belong to a host and not to a port, so that two explorers share them."""
    return f"fgtrac_{hashlib.sha256(token.encode()).hexdigest()[:8]}"


def cookie_for(token: str) -> str:
    """The Set-Cookie header that keeps a token in the browser: no script reads it, no other site's page sends it."""
    return f"{cookie_name(token)}={token}; HttpOnly; SameSite=Strict; Path=/"
