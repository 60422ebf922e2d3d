"""Where a loader stands in a framework, such as the second that is validated: there it keeps its number and its data's
names, also in the next process."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fgtrac.api.run import Run


@dataclass(slots=True)
class Places:
    """place -> the number of the loader there in the log, and the names of the data sets behind it.

    Frameworks take loaders up in another order when they resume, and a loader that goes on is known by its number.
    """

    numbers: dict[str, int] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """For a framework's checkpoint: texts and whole numbers."""
        return {"numbers": dict(self.numbers), "names": {place: list(names) for place, names in self.names.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """From a framework's checkpoint."""
        self.numbers, self.names = dict(state["numbers"]), dict(state["names"])

    def number_next(self, run: Run, place: str) -> None:
        """The loader that is watched next is the one at that place."""
        taken = max([0, *run._watches, *self.numbers.values()])
        number = self.numbers.get(place, taken + 1)
        if number in run._watches:  # there are other data now
            number = taken + 1
        self.numbers[place] = number
        run._loader_numbers = itertools.chain((number,), itertools.count(max(taken, number) + 1))

    def name_data(self, run: Run, place: str, data: Any, role: str | None) -> None:
        """Register what is new behind map-style `data` as it was named there before; else, where all of a data set is
        only evaluated, as "TYPE-ROLE". What else is new is named when it is watched."""
        registry = run._registry
        roots, known = registry.roots_of(data), self.names.get(place, [])
        taken = {root.name for root in registry.registered()}
        for root, name in zip(roots, known, strict=False):
            if len(roots) == len(known) and name not in taken and not registry.is_known(root):
                run.register(root, name=name)
        if role not in (None, "train") and len(roots) == 1 and roots[0] is data and not registry.is_known(data):
            run.register(data, name=_free_name(f"{type(data).__name__}-{role}", taken))

    def note_names(self, run: Run, place: str, data: Any) -> None:
        """Remember what the data there are called; the data are registered."""
        self.names[place] = [root.name for root in run._registry.resolve(data).roots]


def _free_name(base: str, taken: set[str]) -> str:
    numbered = (base if number == 1 else f"{base}-{number}" for number in itertools.count(1))
    return next(name for name in numbered if name not in taken)
