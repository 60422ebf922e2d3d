"""The first page: the runs of the folder."""

from __future__ import annotations

from fgtrac.web.asked import Answer, Asked, Elsewhere, Page, address


def show(asked: Asked) -> Answer | Elsewhere:
    """A line for each run; of a site with one trace, that run's page."""
    if asked.site.only:
        return Elsewhere(address("run", asked.site.only))
    names = sorted(
        str(path.relative_to(asked.site.place)).removesuffix(".trace") for path in asked.site.place.rglob("*.trace")
    )
    return Answer("Runs", "runs.html", {"runs": [{"name": name} for name in names]})


PAGES = (Page("/", show),)
