"""The addresses of the explorer's pages for a trace that was scored: docs/explorer.md lists them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import fgtrac

DEMOS = ("digits", "icons")
DAMAGED = ("tampered", "broken", "unsealed")
OF_RUN = ("", "/samples", "/sample", "/prediction", "/suspects", "/mine", "/log", "/log/entry/0")
SITE = ("/", "/compare?a=digits&b=icons", "/compare?a=digits&b=digits")


def addresses(runs: Path, name: str) -> list[str]:
    """One address of each page of a trace."""
    train, test = some_ids(runs / f"{name}.trace")
    whole = {"/sample": f"/sample/{train}", "/prediction": f"/prediction/{test}"}
    return [f"/run/{name}{whole.get(page, page)}" for page in OF_RUN]


@cache
def some_ids(trace: Path) -> tuple[str, str]:
    """A training sample that was used, and a sample with the role test, in hex."""
    samples = list(fgtrac.open(trace).sample_counts())
    used = next(s["id"] for s in samples if "train" in s["roles"] and s["uses"])
    return used, next(s["id"] for s in samples if "test" in s["roles"])
