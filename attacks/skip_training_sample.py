"""Skip a training sample: a photo that is said to be trained on never is.

Each sample with the role `train` must be in an update that stands.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Subset, TensorDataset

from fgtrac.api.run import start_run
from lying import Act, Stage, caught, main
from true_trace import train


def tell(stage: Stage) -> Iterator[Act]:
    room = stage.room()
    photos, exam = (TensorDataset(torch.randn(8, 4), torch.randint(0, 2, (8,))) for _ in range(2))
    with start_run(room / "run", key=room / "key.pem") as run:
        run.register(photos, name="photos", role="train")
        run.register(exam, name="exam", role="test")
        train(run, Subset(photos, range(7)))
    yield caught(stage.fgtrac("check", run.path, "--key", room / "key.pem"), "every-training-sample-used")


if __name__ == "__main__":
    main(tell)
