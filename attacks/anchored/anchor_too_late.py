"""Anchor too late: the signer rewrites the past, throws the receipts away, and has the rewritten heads stamped.

An anchor says that a head was there by then, and nothing of the time before. An authority keeps no memory of what it
stamped, so this stamp is as true as the first: the answer says since when. The witness and the chain remember.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from anchored import Act, AnchoredStage, caught, holds, main, refused


def tell(stage: AnchoredStage) -> Iterator[Act]:
    trace = stage.copy()
    stage.rewrite(trace)
    shutil.rmtree(trace.path / "receipts")
    late = stage.anchor(trace, "rfc3161")
    assert late.code == 0, late.rest
    yield holds(stage.verify(trace, *stage.by("rfc3161")), says="1 head stamped by")
    yield caught(stage.verify(trace, *stage.by("rfc3161", "evm")), "evm")
    yield refused(stage.anchor(trace, "witness"), 1, says="has seen another history of this log")
    yield refused(stage.anchor(trace, "evm", "--contract", stage.contract), 1, says="fork")


if __name__ == "__main__":
    main(tell)
