"""Which files a push reads to compute their digests: their sizes, in the order in which they are read."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from fgtrac.store import file_digests
from fgtrac.store.file_digests import Digest


def count_digests(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The list that grows with each file that is read from now on."""
    sizes: list[int] = []
    real = file_digests.digest_of

    def counted(pieces: Iterable[bytes], size: int) -> Digest:
        sizes.append(size)
        return real(pieces, size)

    monkeypatch.setattr(file_digests, "digest_of", counted)
    return sizes
