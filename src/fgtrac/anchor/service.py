"""What every outside witness of a tree head has in common: it takes the signed head and hands back a receipt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fgtrac.tlog.note import TreeHead


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A tree head as the log signed it: `note` is its exact bytes, with the log's own signature and no others."""

    head: TreeHead
    note: bytes


ProveFrom = Callable[[int], tuple[bytes, ...]]
"""The RFC 6962 consistency proof (hashes of 32 bytes) from a smaller size of the log, 0 < size, to the head that is
being anchored; empty for equal sizes. ProofError or OSError where the log cannot be read."""


class Service(Protocol):
    """An outside witness: an EVM contract, a time-stamping authority, a C2SP witness."""

    @property
    def kind(self) -> str:
        """`evm`, `rfc3161` or `witness`."""

    @property
    def name(self) -> str:
        """For people: who it is, without anything secret (no user, password, path or query of a URL)."""

    def settings(self) -> Mapping[str, Any]:
        """What makes the same service again (`api/anchor_services.py`), as JSON: `kind` and its arguments. Never a
        private key; the names of key files and whole URLs, which is why it is never written into a trace."""

    def prepare(self) -> None:
        """Load what it needs and look at its key files, without asking the network. ValueError for a missing extra or
        a key file that others can read, FileNotFoundError, FormatError."""

    def anchor(self, signed: SignedHead, prove_from: ProveFrom) -> tuple[str, bytes]:
        """Have the head witnessed: the name of the receipt's file in `receipts/SIZE/`, and its bytes.

        Done again for the same head, it gives a receipt again. AnchorError where no usable answer came (all network
        errors, time-outs, malformed answers), RefusedError where the answer is no.
        """
