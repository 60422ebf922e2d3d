"""Exchange the anchored heads: the signer rewrites the past, and puts the rewritten heads where the anchored ones lay.

Now the folder's heads are of this log. What was stamped, cosigned and kept on the chain is of another one.
"""

from __future__ import annotations

from collections.abc import Iterator

from anchored import KINDS, Act, AnchoredStage, caught, main


def tell(stage: AnchoredStage) -> Iterator[Act]:
    for kind in KINDS:
        trace = stage.keep_only(stage.copy(), kind)
        stage.rewrite(trace)
        stage.exchange_heads(trace)
        yield caught(stage.verify(trace, *stage.by(kind)), kind)


if __name__ == "__main__":
    main(tell)
