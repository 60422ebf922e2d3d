"""A chain, a time-stamping authority and a witness: all three on loopback, stopped together."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.anvil import ANVIL, Anvil, running_anvil
from services.openssl_tsa import Responder, running_tsa
from services.witness import PROGRAM, WitnessServer, make_witness

KINDS = ("rfc3161", "witness", "evm")


def missing() -> str:
    """What to say where a service is not installed; empty where all are."""
    gone = [str(program) for program in (ANVIL, PROGRAM, "openssl") if shutil.which(program) is None]
    return f"not there: {', '.join(gone)}; make test-services installs what is asked for here" if gone else ""


@dataclass(frozen=True, slots=True)
class Services:
    """The three, while they run."""

    chain: Anvil
    authority: Responder
    witness: WitnessServer

    def anchor_options(self, *kinds: str) -> list[str | Path]:
        """What `fgtrac anchor` is told to have a head witnessed by these kinds, all by default."""
        told: dict[str, list[str | Path]] = {
            "rfc3161": ["--tsa", self.authority.url],
            "witness": ["--witness", self.witness.url, "--witness-key", self.witness.vkey],
            "evm": ["--evm", self.chain.url, "--account", self.chain.account],
        }
        return [option for kind in kinds or KINDS for option in told[kind]]


@contextmanager
def started(folder: Path) -> Iterator[Services]:
    """All three, with their files in `folder`, until the block is left."""
    folder.mkdir()
    witness = make_witness(folder / "witness")
    with running_anvil(folder / "chain") as chain, running_tsa(folder / "tsa") as authority, witness.running():
        yield Services(chain, authority, witness)
