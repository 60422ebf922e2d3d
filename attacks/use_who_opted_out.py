"""Use somebody who opted out: a photo is trained on though its owner said no.

The list comes from the verifier: whoever is on it must not be in any update.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import TensorDataset

from fgtrac.api.run import start_run
from lying import Act, Stage, caught, main
from true_trace import train


def tell(stage: Stage) -> Iterator[Act]:
    room = stage.room()
    photos, exam = (TensorDataset(torch.randn(8, 4), torch.randint(0, 2, (8,))) for _ in range(2))
    with start_run(room / "run", key=room / "key.pem") as run:
        run.register(photos, name="photos")
        run.register(exam, name="exam", role="test")
        train(run, photos)
    (room / "no.txt").write_text("photos:5\n")
    policy = room / "policy.toml"
    policy.write_text('format = "fgtrac-policies/v1"\n[[opt-out]]\nname = "letter"\nsamples = "no.txt"\n')
    asked = ("check", run.path, "--policy", policy, "--key", room / "key.pem")
    yield caught(stage.fgtrac(*asked), "opt-out letter")


if __name__ == "__main__":
    main(tell)
