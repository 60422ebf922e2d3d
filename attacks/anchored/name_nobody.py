"""Name nobody: receipts are there, and the verifier knows none of those who gave them.

Whoever owns the trace can also make receipts, with an authority, a witness and a chain of his own. So they count for
nothing until the verifier says whom he believes.
"""

from __future__ import annotations

from collections.abc import Iterator

from anchored import KINDS, Act, AnchoredStage, main, undecided


def tell(stage: AnchoredStage) -> Iterator[Act]:
    yield undecided(stage.verify(stage.trace), *KINDS)


if __name__ == "__main__":
    main(tell)
