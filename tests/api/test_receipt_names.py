"""Two time-stamping authorities whose receipts would have one name are refused before anything is asked or made."""

from __future__ import annotations

from pathlib import Path

import pytest

from desks import Desk
from fgtrac.anchor.rfc3161 import TimeStampAuthority
from fgtrac.api.anchoring import anchor_trace
from fgtrac.api.run import start_run

ALIKE = [
    ("https://tsa.example/stamp?key=s3cret", "https://tsa.example/stamp?key=0ther"),
    ("https://me:s3cret@tsa.example/stamp", "https://you:0ther@tsa.example/stamp"),
    ("https://tsa.example/stamp", "https://tsa.example/stamp"),
]
WORDS = "https://tsa.example and https://tsa.example are named by URLs that differ in user, password and query at most"


@pytest.mark.parametrize("urls", ALIKE)
def test_alike_but_for_what_is_secret(urls: tuple[str, str], desk: Desk, tmp_path: Path) -> None:
    services = [TimeStampAuthority(url) for url in urls]
    with pytest.raises(ValueError, match=WORDS) as told:
        anchor_trace(desk.path("a"), services, key=desk.key)
    assert "s3cret" not in str(told.value)
    with pytest.raises(ValueError, match=WORDS):
        start_run(tmp_path / "run", key=desk.key, anchors=services)
    assert not (tmp_path / "run.trace").exists()


def test_another_path_is_another_authority(desk: Desk, tmp_path: Path) -> None:
    services = [TimeStampAuthority(f"http://127.0.0.1:9/{path}", timeout_s=1) for path in ("one", "two")]
    assert len(anchor_trace(desk.path("a"), services, key=desk.key)) == 2
