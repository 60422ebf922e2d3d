"""Stamp after the end: the authority's certificate has expired, and its key goes on stamping.

What a certificate says of a key it says of its own years only.
"""

from __future__ import annotations

from collections.abc import Iterator

from anchored import Act, AnchoredStage, caught, main
from services.openssl_tsa import running_tsa


def tell(stage: AnchoredStage) -> Iterator[Act]:
    with running_tsa(stage.room(), is_expired=True) as expired:
        trace = stage.stamped_by(expired)
    yield caught(stage.verify(trace, "--tsa-root", expired.root), "rfc3161")


if __name__ == "__main__":
    main(tell)
