"""The pictures of a page's samples, as many as can be drawn in the time that a page has for them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from fgtrac.web.asked import Asked
from fgtrac.web.thumbnails import Thumbnails

DRAWING_S = 1.0  # what is drawn is remembered, and there at once next time


def pictures_of(asked: Asked, ids: Iterable[str]) -> dict[str, Any] | None:
    """What is drawn of samples (ids in hex), by id; those that there was no time for are left out. None where there is
    no data to draw from (`fgtrac ui --with`)."""
    if not isinstance(asked.given, Thumbnails):
        return None
    found, end = {}, time.monotonic() + DRAWING_S
    with asked.site.opened(asked.name) as trace:
        for sample_id in dict.fromkeys(ids):
            if time.monotonic() > end:
                break
            found[sample_id] = asked.given.of(trace, bytes.fromhex(sample_id)).as_json()
    return found
