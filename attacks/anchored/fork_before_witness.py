"""Show a fork to the witness: the signer has another log of the same size cosigned, and one that has grown from it.

The witness remembers what it cosigned, and refuses both.
"""

from __future__ import annotations

from collections.abc import Iterator

from anchored import Act, AnchoredStage, main, refused


def tell(stage: AnchoredStage) -> Iterator[Act]:
    fork = stage.copy()
    stage.rewrite(fork)
    yield refused(stage.anchor(fork, "witness"), 1, says="has seen another history of this log")
    stage.grow(fork)
    yield refused(stage.anchor(fork, "witness"), 1, says="has seen another history of this log")
    older = stage.copy("older")
    yield refused(stage.anchor(older, "witness"), 1, says="rolled back")


if __name__ == "__main__":
    main(tell)
