"""Whom a verifier believes of those who witness tree heads: authorities' roots, witnesses' keys, nodes of chains."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgtrac.verify.quorum import Quorum

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from fgtrac.anchor.evm import Node


@dataclass(frozen=True, slots=True)
class TrustedAnchors:
    """Whom a verifier believes. Receipts of others are looked at, and what they show cannot be told.

    `tsa_roots` are PEM files with root certificates of time-stamping authorities; `witnesses` are vkeys, or files that
    hold one, of which `quorum` must have cosigned (None: all). `nodes` are URLs of nodes of EVM chains (or web3
    providers of a chain in this process); those of one chain have to agree. `contracts` and `accounts` (0x and 40 hex
    digits) say where heads are kept and by whom, instead of the receipts. A head on a chain counts once it is
    `confirmations` blocks deep (1: its own).
    """

    tsa_roots: Sequence[str | os.PathLike[str]] = ()
    witnesses: Sequence[str | os.PathLike[str]] = ()
    quorum: int | None = None
    nodes: Sequence[Any] = ()
    contracts: Sequence[str] = ()
    accounts: Sequence[str] = ()
    confirmations: int = 1

    def read_roots(self) -> tuple[Certificate, ...]:
        """The certificates. FileNotFoundError, ValueError (a folder) and FormatError naming the file."""
        if not self.tsa_roots:
            return ()
        from fgtrac.anchor.certificates import read_roots

        return tuple(certificate for path in self.tsa_roots for certificate in read_roots(Path(path)))

    def read_quorum(self) -> Quorum | None:
        """The witnesses, and how many of them are asked for; None where nobody is named. ValueError for what is no
        vkey, and for a number that they cannot reach."""
        if not self.witnesses and self.quorum is None:
            return None
        from fgtrac.api.witnessed import read_quorum

        return read_quorum([os.fspath(key) for key in self.witnesses], self.quorum)

    def make_nodes(self) -> tuple[Node, ...]:
        """Whom to ask about chains; asks nobody yet. ValueError for what is no URL."""
        if not self.nodes:
            if self.contracts or self.accounts:
                raise ValueError("a contract or an account is looked up on its chain; name a node too: --evm RPC_URL")
            return ()
        from fgtrac.anchor.evm import Node

        return tuple(Node(node) for node in self.nodes)
