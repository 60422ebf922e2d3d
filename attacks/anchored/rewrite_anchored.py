"""Rewrite the past after it was anchored, and sign it again: the receipts stay as they are.

The new log agrees with itself under the right key. But the heads that were witnessed are no heads of it, and each of
the three witnesses can tell by itself. So can the bare heads, which the signer's own key signed, where every receipt is
gone.
"""

from __future__ import annotations

from collections.abc import Iterator

from anchored import KINDS, Act, AnchoredStage, caught, main


def tell(stage: AnchoredStage) -> Iterator[Act]:
    for kind in KINDS:
        trace = stage.keep_only(stage.copy(), kind)
        stage.rewrite(trace)
        yield caught(stage.verify(trace, *stage.by(kind)), "heads", kind)
    trace = stage.keep_only(stage.copy())
    stage.rewrite(trace)
    yield caught(stage.verify(trace), "heads")


if __name__ == "__main__":
    main(tell)
