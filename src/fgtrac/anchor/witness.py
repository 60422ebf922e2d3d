"""The client side of C2SP tlog-witness: a witness sees that the log only grew, and cosigns its head."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit, urlunsplit

from fgtrac.anchor.seconds import read_seconds
from fgtrac.anchor.service import ProveFrom, SignedHead
from fgtrac.anchor.transport import Answer, check_url, fetch, shown
from fgtrac.errors import AnchorError, FormatError, ProofError, RefusedError
from fgtrac.store.private_files import may_be_secret
from fgtrac.tlog.cosignature import MAX_TIME, Cosigner, cosignature_time, format_cosigner, parse_cosigner
from fgtrac.tlog.note import TreeHead, parse_signatures, with_signatures
from fgtrac.verify.receipts import WITNESS, witness_name

MAX_ROUNDS = 4  # it tells a size, and may have cosigned a larger one by the time it is asked again
MAX_ANSWER_BYTES = 100_000
MAX_KEY_FILE_BYTES = 10_000
SIZE_TYPE = "text/x.tlog.size"
_VKEY = re.compile(r"[^+\s]+\+[0-9a-f]{8}\+")
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,18})\n")


class Witness:
    """A C2SP witness, as a service of `anchor/service.py`.

    `url` is its submission prefix; `key` its vkey of type 0x04, or a file that holds it; `timeout_s` (seconds) bounds
    each of the few requests for one head. ValueError for what is none of these.
    """

    kind = WITNESS

    def __init__(self, url: str, key: str | Path, *, timeout_s: float = 30.0) -> None:
        check_url(url)
        self.cosigner = read_cosigner(key)
        self._url, self._timeout_s = url, read_seconds(timeout_s, "timeout_s")
        self._sizes: dict[str, int] = {}  # by log, what it is known to have cosigned

    @property
    def name(self) -> str:
        """The cosigner's name, and where it is asked."""
        return f"the witness {self.cosigner.name} at {shown(self._url)}"

    def settings(self) -> Mapping[str, Any]:
        """The arguments that make it again, with the vkey itself."""
        key = format_cosigner(self.cosigner)
        return {"kind": self.kind, "url": self._url, "key": key, "timeout_s": self._timeout_s}

    def prepare(self) -> None:
        """Nothing is left to load."""

    def anchor(self, signed: SignedHead, prove_from: ProveFrom) -> tuple[str, bytes]:
        """Have the head cosigned: the receipt's name, and the note with the witness's line behind the log's own.

        The proof starts from the size that the witness is known to have cosigned, else it is asked as if that were
        none, and tells (tlog-witness, add-checkpoint). Other people's lines in its answer are left out; its time is
        its own word. Errors as in `Service.anchor`, and those of `prove_from`.
        """
        head = signed.head
        old = self._sizes.get(head.origin, 0)
        if old > head.size:
            old = 0  # it answers with its size, and that is the reason to give
        for _ in range(MAX_ROUNDS):
            answer = self._ask(old, prove_from(old) if old else (), signed.note)
            if answer[0] == 200:
                note = self._cosigned(signed.note, answer[2])
                self._sizes[head.origin] = head.size
                return witness_name(self.cosigner.key_id), note
            if answer[0] != 409:
                self._fail(answer[0], old, head)
            old = self._sizes[head.origin] = self._size(answer, old, head)
        raise AnchorError(f"{self.name} named another size of this log in each of {MAX_ROUNDS} rounds; try again")

    def _ask(self, old: int, proof: Sequence[bytes], note: bytes) -> Answer:
        parts = urlsplit(self._url)
        url = urlunsplit(parts._replace(path=parts.path.rstrip("/") + "/add-checkpoint"))
        lines = [f"old {old}", *(base64.b64encode(h).decode() for h in proof)]
        body = "".join(f"{line}\n" for line in lines).encode() + b"\n" + note
        return fetch(url, data=body, content_type="text/plain", timeout_s=self._timeout_s, max_bytes=MAX_ANSWER_BYTES)

    def _size(self, answer: Answer, old: int, head: TreeHead) -> int:
        """The size that the witness cosigned last, from its answer 409 to a request that named `old`."""
        _, content_type, body = answer
        found = _SIZE.fullmatch(body) if content_type == SIZE_TYPE else None
        size = None if found is None or int(found[1]) > MAX_TIME else int(found[1])
        if old == head.size and size in (None, old):
            self._fail(422, old, head)  # as tlog-witness v1.0.0 answers where the sizes are equal and the roots are not
        if size is None or size == old:
            raise AnchorError(f"{self.name} answers 409 and names no size other than {old}; is the URL a witness's?")
        if size > head.size:
            raise RefusedError(
                f"{self.name} has cosigned {size} entries of this log, and this head has {head.size}: the trace was "
                "rolled back, or this is an old copy; anchor the newest head, or find out who has the longer log"
            )
        return size

    def _cosigned(self, note: bytes, answer: bytes) -> bytes:
        """The note with the line of the witness's key in an answer, once that is checked."""
        try:
            lines = parse_signatures(answer)
        except FormatError as error:
            raise AnchorError(f"{self.name} gave no usable answer: it is no signature lines") from error
        mine = [s for s in lines if (s.name, s.key_id) == (self.cosigner.name, self.cosigner.key_id)]
        if not mine:
            raise RefusedError(
                f"{self.name} cosigned, but not with the key that you named (key id {self.cosigner.key_id.hex()}); "
                "ask its owner for the vkey, and name that"
            )
        cosigned = with_signatures(note, mine)
        try:
            cosignature_time(cosigned, self.cosigner)
        except ProofError as error:
            raise AnchorError(f"{self.name} gave no usable answer: {error}") from error
        return cosigned

    def _fail(self, status: int, old: int, head: TreeHead) -> NoReturn:
        """The error that an answer's status means, with the remedy."""
        if status == 404:
            raise AnchorError(
                f"{self.name} answers 404: it does not know the log {head.origin} yet, or the URL's path is not its "
                "own; its owner has to add that log with its vkey (fgtrac show TRACE --vkey, or run.vkey)"
            )
        if status == 403:
            raise RefusedError(
                f"{self.name} answers 403: it knows the log {head.origin} by another key than the one that signed this "
                "head (was the key replaced?); give its owner the vkey that fgtrac show TRACE --vkey prints"
            )
        if status == 422 and old:
            raise RefusedError(
                f"{self.name} has seen another history of this log: it cosigned {old} entries, and this head of "
                f"{head.size} does not continue them. This is a fork: find out who signed the other one"
            )
        if status in (429, 503):
            raise AnchorError(f"{self.name} answers {status}: it has no time or no storage just now; try again later")
        raise AnchorError(f"{self.name} answers {status}, which a witness does not; is the URL the right one?")


def read_cosigner(named: str | Path) -> Cosigner:
    """The witness that a vkey, or a file that holds one, names. ValueError for anything else."""
    text = str(named)
    if _is_file(Path(named)):
        with Path(named).open("rb") as file:
            text = file.read(MAX_KEY_FILE_BYTES).decode(errors="replace").strip()
    try:
        return parse_cosigner(text)
    except FormatError as error:
        if text != str(named):  # the error's words say what stands there, which may be another key
            raise ValueError(f"{named} holds no witness's vkey (name+keyid+base64, type 0x04)") from None
        if may_be_secret(text) and not _VKEY.match(text):
            words = "that is no witness's vkey (it is not repeated here, since it may be secret)"
            raise ValueError(f"{words}; name a witness's vkey, or a file that holds it") from None
        raise ValueError(f"{error}; name a witness's vkey, or a file that holds it") from error


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False  # too long for a file's name: it is a key itself
