"""NaN and infinity are an error with a count and a row, never a zero."""

from __future__ import annotations

import torch

from fgtrac.errors import ScoreError


class NotFinite(ScoreError):
    """NaN or infinity in a loss or a gradient: of `count` samples of the batch, the first of them in row `row`."""

    def __init__(self, what: str, count: int, row: int) -> None:
        super().__init__(f"NaN or infinity in the {what} in {count} rows of the batch, first in row {row}")
        self.what, self.count, self.row = what, count, row

    def __reduce__(self) -> tuple[type[NotFinite], tuple[str, int, int]]:
        return NotFinite, (self.what, self.count, self.row)  # a worker's comes home as itself


class SamplesNotFinite(ScoreError):
    """The same of all rows of a role, with the name of the first such sample."""

    def __init__(self, count: int, total: int, role: str, step: int, name: str) -> None:
        super().__init__(
            f"NaN or infinity in the factors of {count:,} of {total:,} {role} samples at step {step}, the first is "
            f"{name}: look at its data, or at the learning rate"
        )
        self._said = count, total, role, step, name

    def __reduce__(self) -> tuple[type[SamplesNotFinite], tuple[int, int, str, int, str]]:
        return SamplesNotFinite, self._said


def check_finite(what: str, values: torch.Tensor) -> None:
    """NotFinite unless every number is finite; `values` (n, ...), a row for each sample."""
    if values.sum().isfinite() or torch.isfinite(values).all():  # a sum is quicker, and hides neither
        return
    bad = ~torch.isfinite(values.reshape(len(values), -1)).all(1)
    raise NotFinite(what, int(bad.sum()), int(bad.nonzero()[0]))
