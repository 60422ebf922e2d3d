"""The verifier of `fgtrac export html` under node: one process that is asked about many bundles."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fgtrac.events.codec import decode
from fgtrac.tlog.note import Verifier, format_vkey
from fgtrac.verify.claims import About
from fgtrac.web.proof_page import verifier_source

HARNESS = Path(__file__).parent / "verifier" / "page_verifier.mjs"
NO_NODE = "there is no node here: the page's verifier was not run"
Said = tuple[str, dict[str, str]]  # the verdict, and that of each check


def has_node() -> bool:
    return shutil.which("node") is not None


class PageVerifier:
    """The running process. `sites`, where it is watched: the conditions of its source by number."""

    def __init__(self, process: subprocess.Popen[str], *, is_watched: bool) -> None:
        self._process = process
        self.sites: list[str] = self._read() if is_watched else []

    def ask(
        self, data: bytes, key: Verifier | str | None, secret: bytes | None = None, about: Any = None, without: int = -1
    ) -> dict[str, Any]:
        """What it answers about a bundle's bytes. `about`: {"name": NAME} or {"file": SHA-256 in hex}."""
        named = format_vkey(key) if isinstance(key, Verifier) else key
        id_key = None if secret is None else secret.hex()
        asked = {"bundle": base64.b64encode(data).decode(), "key": named, "idKey": id_key, "about": about}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked | {"without": without}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = self._read()
        return answer

    def said(self, *asked: Any) -> Said:
        """Its verdict and that of each check. AssertionError where it fell over."""
        answer = self.ask(*asked)
        assert answer["verdict"] != "crashed", answer["words"]
        return answer["verdict"], {f["check"]: f["verdict"] for f in answer["findings"]}

    def parsed(self, name: str) -> tuple[bytes | None, bytes | None] | None:
        """The id and the preimage that it reads out of a name; None where it is none."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"name": name}) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        assert answer.get("verdict") != "crashed", answer["words"]
        id, preimage = (bytes.fromhex(answer[part]) if part in answer else None for part in ("id", "preimage"))
        return None if "verdict" in answer else (id, preimage)

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"node is gone; it ended with {self._process.wait()}"
        return json.loads(line)


def asked(about: About | None) -> dict[str, str] | None:
    """A question as somebody types it into the page."""
    if about is None:
        return None
    if about.id is not None:
        return {"name": f"id:{about.id.hex()}"}
    said = decode(about.preimage or b"")
    return {"file": said[1].hex()} if about.source else {"name": f"{said[1]}:{said[2]}"}


def agrees(
    page: PageVerifier | None, verdict: str, data: bytes, key: Verifier | None, secret: bytes | None = None
) -> bool:
    """Whether the page's verifier gives this verdict too; where there is no node, nobody asks it."""
    return page is None or page.said(data, key, secret)[0] == verdict


@contextmanager
def running(folder: Path, *flags: str) -> Iterator[PageVerifier]:
    """The verifier until the block is left; its source goes into `folder`."""
    script = folder / "verifier.js"
    script.write_text(verifier_source(), encoding="utf-8")
    command = ["node", str(HARNESS), *flags, str(script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield PageVerifier(process, is_watched=bool(flags))
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(15)
