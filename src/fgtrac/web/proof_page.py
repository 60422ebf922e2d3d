"""The page that verifies by itself: a bundle and a verifier in one HTML file that asks no network."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from fgtrac.verify.bundle import parse_bundle

VERIFIER = (  # in the order in which they are joined
    "hashes.js", "bundle_form.js", "entries.js", "sentences.js", "evidence.js", "check_bundle.js", "named.js",
)  # fmt: skip
PAGE = (*VERIFIER, "page.js")


def proof_page(bundle: bytes | None) -> bytes:
    """The HTML file that checks `bundle`, or with None one that a reader drops bundles on.

    FormatError for what is no bundle. One that is false is embedded like any other: the page says so.
    """
    if bundle is not None:
        parse_bundle(bundle)
    style, script = _read("page.css"), _joined(PAGE)
    only = {name: f"'sha256-{_base64(_sha256(text))}'" for name, text in (("script", script), ("style", style))}
    policy = (
        f"default-src 'none'; script-src {only['script']}; style-src {only['style']}; "
        "base-uri 'none'; form-action 'none'"
    )
    inside = {"POLICY": policy, "STYLE": style, "SCRIPT": script, "BUNDLE": _base64(bundle or b"")}
    front, *rest = _read("page.html").split("@")
    return (front + "".join(inside.get(part, part) for part in rest)).encode()


def verifier_digest() -> str:
    """SHA-256 of the page's script in hex, which every page of this fgtrac has."""
    return _sha256(_joined(PAGE)).hex()


def verifier_source() -> str:
    """The verifier alone, without the page around it: JavaScript that runs elsewhere too."""
    return _joined(VERIFIER)


def _joined(names: tuple[str, ...]) -> str:
    return "\n".join(map(_read, names))


def _read(name: str) -> str:
    return files("fgtrac.web").joinpath("proof", name).read_text(encoding="utf-8")


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
