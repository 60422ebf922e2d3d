"""Roll back below an anchored head: the signer restores the folder from before the last epoch.

With the newer receipts still there, each of the three can tell. Without them only the chain can; of an authority and a
witness the older receipts are all that there is to see, and the answer says how far they reach.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from anchored import KINDS, Act, AnchoredStage, caught, holds, main


def tell(stage: AnchoredStage) -> Iterator[Act]:
    for kind in KINDS:
        older = stage.copy("older")
        shutil.copytree(stage.trace.path / "receipts", older.path / "receipts", dirs_exist_ok=True)
        yield caught(stage.verify(stage.keep_only(older, kind), *stage.by(kind)), "heads", kind)
    older = stage.keep_only(stage.copy("older"), "evm")
    yield caught(stage.verify(older, *stage.by("evm")), "evm")
    for kind, verb in (("rfc3161", "stamped"), ("witness", "cosigned")):
        older = stage.keep_only(stage.copy("older"), kind)
        yield holds(stage.verify(older, *stage.by(kind)), says=f"1 head {verb} by")


if __name__ == "__main__":
    main(tell)
