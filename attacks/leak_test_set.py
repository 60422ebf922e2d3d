"""Leak the test: some rows of the test set are in the training loader, under their own ids or as copies.

The log says what was trained on. Verified, it holds: it is a true record. Held to the policy that nothing held out is
ever trained on, it is refuted, by id and by content.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from fgtrac.api.run import start_run
from lying import Act, Stage, caught, holds, main
from true_trace import train


def tell(stage: Stage) -> Iterator[Act]:
    rows, labels = torch.randn(24, 4), torch.randint(0, 2, (24,))
    photos, exam = TensorDataset(rows[:16], labels[:16]), TensorDataset(rows[16:], labels[16:])
    copied = TensorDataset(torch.cat([rows[:14], rows[16:18]]), labels[:16])
    for data, policy in ((ConcatDataset([photos, Subset(exam, [0, 1])]), "held-out"), (copied, "held-out-contents")):
        room = stage.room()
        with start_run(room / "run", key=room / "key.pem") as run:
            run.register(exam, name="exam", role="test")
            train(run, data)
        key = room / "key.pem"
        yield holds(stage.fgtrac("verify", run.path, "--key", key), says="registered before it")
        yield caught(stage.fgtrac("check", run.path, "--key", key), policy)


if __name__ == "__main__":
    main(tell)
