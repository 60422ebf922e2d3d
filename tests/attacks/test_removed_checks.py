"""No check is idle: whichever one is removed, at least one lie that it stops is then believed."""

from __future__ import annotations

from typing import Any

import pytest

from lies_pages import ATTACKS, stopped_in
from removed_checks import assert_believed_without

STOPPED = stopped_in(ATTACKS)


@pytest.mark.parametrize("check", STOPPED)
def test_a_lie_is_believed_once_its_check_is_removed(check: str, stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _ = stage.trace  # recorded, and sealed, while all checks are there
    assert_believed_without(check, STOPPED[check], stage, monkeypatch)
