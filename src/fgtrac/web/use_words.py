"""In words how often and how surely samples were used: the same ones in a report and in the draft of a summary."""

from __future__ import annotations

from fgtrac.api.report_figures import Part
from fgtrac.api.told_uses import Held


def part_words(part: Part) -> str:
    """How many of some samples were used, those that were not said apart."""
    undone = f" ({part.superseded:,} of them in updates that a resume undid)" if part.superseded else ""
    others = (
        (part.as_neighbours, "others were only neighbours in a graph, with their features alone"),
        (part.through, "others were not, and what was made from them was"),
        (part.in_doubt, f"others perhaps were, {AMONG}"),
    )
    told = "".join(f"; {count:,} {words}" for count, words in others if count)
    used = f"{part.used:,} of them were used in updates, {part.uses:,} times in all"
    return f"{used}{undone}{_beside(part.neighbours)}{told}"


def held_words(role: str, held: Held | None) -> str:
    """How often samples of a role that must not be trained on were used, and what was made from them, as `fgtrac check`
    counts it. One sentence or two."""
    if held is None:
        return f"No sample has the role {role}."
    what = f"{held.samples:,} samples have the role {role}"
    who = "the log records"
    if held.made:
        what += f", and {held.made:,} more were made from them"
        who = "of all these the log records"
    undone = f", {held.superseded:,} of them in updates that a resume undid" if held.superseded else ""
    far = f" ({held.far:,} of these out of the seeds' reach)" if held.far else ""
    beside = f"{_beside(held.neighbours)}{far}" if held.neighbours else ""
    doubt = f"; perhaps {held.perhaps:,} more, {AMONG}" if held.perhaps else ""
    return f"{what}: {who} {held.uses:,} uses{undone}{beside}{doubt}."


AMONG = "by batches that held another number of samples than were drawn"


def _beside(neighbours: int) -> str:
    return f", and {neighbours:,} as neighbours" if neighbours else ""
