"""Move a receipt to another size: what was witnessed of the older head is shown as if it were the newer one's.

Each receipt is bound to the head itself, and not to the folder that it lies in.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from anchored import KINDS, Act, AnchoredStage, caught, main


def tell(stage: AnchoredStage) -> Iterator[Act]:
    for kind in KINDS:
        trace = stage.keep_only(stage.copy(), kind)
        older, newer = stage.receipts(trace, kind)
        shutil.copy(older, newer)
        yield caught(stage.verify(trace, *stage.by(kind)), kind)


if __name__ == "__main__":
    main(tell)
