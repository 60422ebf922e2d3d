"""Remove the receipts: the signer rewrites the past, and takes everything out of the folder that speaks against it.

Who named an authority or a witness misses its receipts, and is told so: nothing holds, and nothing is refuted. The
chain is asked for what the account anchored, whatever the folder has: it refutes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from anchored import Act, AnchoredStage, caught, main, undecided


def tell(stage: AnchoredStage) -> Iterator[Act]:
    trace = stage.copy()
    stage.rewrite(trace)
    shutil.rmtree(trace.path / "receipts")
    for kind in ("rfc3161", "witness"):
        yield undecided(stage.verify(trace, *stage.by(kind)), kind)
    yield caught(stage.verify(trace, *stage.by("evm")), "evm")


if __name__ == "__main__":
    main(tell)
