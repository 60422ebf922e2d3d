"""Stamp after the end: the authority's certificate has expired, and its key goes on stamping.

What a certificate says of a key it says of its own years only.
"""

from __future__ import annotations

from collections.abc import Iterator

from anchored import Act, AnchoredStage, caught, main
from services.openssl_tsa import make_authority, stamped


def tell(stage: AnchoredStage) -> Iterator[Act]:
    folder = stage.room()
    root = make_authority(folder, is_expired=True)
    trace = stage.keep_only(stage.copy(), "rfc3161")
    for receipt in stage.receipts(trace, "rfc3161"):
        receipt.write_bytes(stamped(folder, receipt.with_name("checkpoint").read_bytes()))
    yield caught(stage.verify(trace, "--tsa-root", root), "rfc3161")


if __name__ == "__main__":
    main(tell)
