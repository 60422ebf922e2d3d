"""killed_seal.py TRACE STATE RENAME: seal in pieces, and be killed at that rename; what a test runs and looks at."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.commit.indexer import Means
from fgtrac.commit.sequencer import seal
from fgtrac.commit.signer import Signer
from fgtrac.store import durable, index_build
from fgtrac.store.trace_dir import TraceDir


def main() -> None:
    trace, state, moment = sys.argv[1:]
    numbers, rename = itertools.count(), durable._rename

    def killing(source: Path, target: Path) -> None:
        if next(numbers) == int(moment):
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    durable._rename = killing
    index_build.FEWEST = 16
    signer = Signer(bytes(range(16)), Ed25519PrivateKey.from_private_bytes(bytes(32)), Path(state))
    clock = itertools.count(10**6)
    means = Means("local:1", 1 << 17)
    seal(TraceDir.open(Path(trace)), signer, full=True, clock=lambda: next(clock), means=means)


if __name__ == "__main__":
    main()
