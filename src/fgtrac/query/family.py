"""A sample's family: what it was made from, stage by stage back to the sources, and what was made from it and used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

MOST = 256  # relatives on either side; of a larger family the nearest are told
LONG_NAME = 80  # more than this of a name is no help in a line
NAMED = 4  # of those of one stage that a line names


@dataclass(frozen=True, slots=True)
class Relative:
    """A sample before or behind another: through which stage, how many stages away, how often updates used it (as a
    seed or as a neighbour), first and last in which step, and whether a stage dropped it."""

    id: bytes
    called: str
    stage: str
    generation: int
    uses: int = 0
    steps: tuple[int, int] | None = None
    dropped: bool = False

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        said = {"id": self.id.hex(), "called": self.called, "stage": self.stage, "generation": self.generation}
        said |= {"uses": self.uses, "dropped": self.dropped}
        return said | ({} if self.steps is None else {"steps": list(self.steps)})


@dataclass(frozen=True, slots=True)
class Family:
    """Ancestors and descendants, the nearest first; not `whole` where there are more than MOST on a side."""

    ancestors: tuple[Relative, ...] = ()
    descendants: tuple[Relative, ...] = ()
    whole: bool = field(default=True)

    @property
    def uses(self) -> int:
        """How often samples that were made from it took part in updates."""
        return sum(one.uses for one in self.descendants)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "ancestors": [one.as_json() for one in self.ancestors],
            "descendants": [one.as_json() for one in self.descendants],
            "whole": self.whole,
        }

    def lines(self) -> Iterator[str]:
        """A line for each stage: the way from the sources, then the way to the uses."""
        back = sorted(self.ancestors, key=lambda one: -one.generation)
        for stage, ones in groupby(back, key=lambda one: (one.generation, one.stage)):
            yield f"came from {_list(list(ones))} through stage {stage[1]!r}"
        for stage, ones in groupby(self.descendants, key=lambda one: (one.generation, one.stage)):
            mine = list(ones)
            yield f"went into {_list(mine)} through stage {stage[1]!r}: {_uses(mine)}"
        if not self.whole:
            yield f"its family is larger: the nearest {MOST} on each side are told"


def short(name: str) -> str:
    """A name, or of a long one (as those of samples that stages made are) the data set."""
    return name if len(name) <= LONG_NAME else f"{name.partition(':key:')[0]:.{LONG_NAME}}"


def called(sample_id: bytes, name: str | None) -> str:
    """What a line calls a sample so that it can be asked for: its name, or where that is long its id."""
    if name is not None and len(name) <= LONG_NAME:
        return name
    return f"id:{sample_id.hex()}" + ("" if name is None else f" ({short(name)})")


def trace_family(
    sample_id: bytes,
    parents: Callable[[bytes], Sequence[tuple[bytes, str]]],
    children: Callable[[bytes], Sequence[tuple[bytes, str]]],
    relative: Callable[[bytes, str, int], Relative],
) -> Family:
    """Walk up and down from a sample, each relative once: `parents` and `children` give (id, stage) of the next."""
    up, all_up = _walk(sample_id, parents, relative)
    down, all_down = _walk(sample_id, children, relative)
    return Family(tuple(up), tuple(down), all_up and all_down)


def _walk(
    start: bytes,
    following: Callable[[bytes], Sequence[tuple[bytes, str]]],
    relative: Callable[[bytes, str, int], Relative],
) -> tuple[list[Relative], bool]:
    found: list[Relative] = []
    seen, waiting, generation = {start}, [start], 0
    while waiting:
        generation += 1
        following_ones = []
        for one in waiting:
            for other, stage in following(one):
                if other in seen:
                    continue
                if len(found) == MOST:
                    return found, False
                seen.add(other)
                found.append(relative(other, stage, generation))
                following_ones.append(other)
        waiting = following_ones
    return sorted(found, key=lambda one: (one.generation, one.stage)), True


def _list(ones: Sequence[Relative]) -> str:
    more = f" and {len(ones) - NAMED:,} more" if len(ones) > NAMED else ""
    return ", ".join(one.called for one in ones[:NAMED]) + more


def _uses(ones: Sequence[Relative]) -> str:
    total, spans = sum(one.uses for one in ones), [one.steps for one in ones if one.steps is not None]
    dropped = sum(one.dropped for one in ones)
    if not spans:
        return "no part in any update" + (f", {dropped:,} of {len(ones):,} dropped later" if dropped else "")
    first, last = min(span[0] for span in spans), max(span[1] for span in spans)
    used = "used once" if total == 1 else f"used {total:,} times"
    return f"{used} (step {first})" if first == last else f"{used} (steps {first} to {last})"
