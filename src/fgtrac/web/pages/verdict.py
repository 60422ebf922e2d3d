"""How far the check of a trace has come: what the pages' scripts ask again and again."""

from __future__ import annotations

from fgtrac.web.asked import Answer, Asked, Page
from fgtrac.web.command import command_line


def show(asked: Asked) -> Answer:
    """The state of the check, and what it found."""
    data = asked.site.standing(asked.name).as_json()
    command = command_line("verify", asked.site.path_of(asked.name), *asked.site.with_key)
    return Answer("Verdict", "verdict.html", data, command)


PAGES = (Page("/run/{name}/verdict", show, needs_trace=False, waits=False),)
