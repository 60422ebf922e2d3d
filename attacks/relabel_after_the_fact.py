"""Relabel after the fact: test rows that were trained on get the role `train` in the end.

Roles are entries like all others, and stay: who ever had a held-out role must not be used.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import TensorDataset

from fgtrac.api.run import start_run
from lying import Act, Stage, caught, main
from true_trace import train


def tell(stage: Stage) -> Iterator[Act]:
    room, exam = stage.room(), TensorDataset(torch.randn(8, 4), torch.randint(0, 2, (8,)))
    with start_run(room / "run", key=room / "key.pem") as run:
        run.register(exam, name="exam", role="test")
        train(run, exam)
        run.register(exam, role="train")
    yield caught(stage.fgtrac("check", run.path, "--key", room / "key.pem"), "held-out")


if __name__ == "__main__":
    main(tell)
