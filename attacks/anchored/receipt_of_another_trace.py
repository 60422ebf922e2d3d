"""Show the receipts of another trace, which the same three witnessed.

Every head names its log, and the chain's event the trace's id: a true receipt of something else counts for nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from anchored import KINDS, Act, AnchoredStage, caught, main


def tell(stage: AnchoredStage) -> Iterator[Act]:
    for kind in KINDS:
        trace = stage.keep_only(stage.copy(), kind)
        mine, others = stage.receipts(trace, kind)[-1], stage.receipts(stage.other, kind)[-1]
        shutil.copy(others, mine)
        yield caught(stage.verify(trace, *stage.by(kind)), kind)


if __name__ == "__main__":
    main(tell)
