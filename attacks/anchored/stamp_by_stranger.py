"""Have a stranger stamp it: an authority of the signer's own, whose root has the very name of the one that is trusted.

Its stamps may say any time. They lead to no root that the verifier named, and then nobody can tell.
"""

from __future__ import annotations

from collections.abc import Iterator

from anchored import Act, AnchoredStage, main, undecided
from services.openssl_tsa import running_tsa


def tell(stage: AnchoredStage) -> Iterator[Act]:
    with running_tsa(stage.room()) as strange:
        trace = stage.stamped_by(strange)
    yield undecided(stage.verify(trace, *stage.by("rfc3161")), "rfc3161")


if __name__ == "__main__":
    main(tell)
