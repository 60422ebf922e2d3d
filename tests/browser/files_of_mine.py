"""A run over files, each a photo of somebody's: one was trained on, one was only registered, one is nobody's here."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset, Subset

import fgtrac
from browser.explored import User

SECRET_WORD = b"petrichor"
USED, UNUSED, UNKNOWN = (b"GIF89a, %s; %s" % (word, SECRET_WORD) for word in (b"used", b"kept", b"not given"))


class Photos(Dataset[tuple[torch.Tensor, int]]):
    """Files and classes, in torchvision's style."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        contents = [USED, UNUSED, *(b"GIF89a %d" % n for n in range(14))]
        for n, data in enumerate(contents):
            (folder / f"{n:02}.gif").write_bytes(data)
        self.samples = [(str(folder / f"{n:02}.gif"), n % 2) for n in range(len(contents))]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        path, label = self.samples[row]
        return torch.tensor([float(Path(path).stat().st_size), 1.0]), label


def train_on_photos(user: User, runs: Path, name: str, *, ids: str) -> Path:
    """A trace NAME of two epochs over all photos but UNUSED."""
    torch.manual_seed(0)
    photos = Photos(user.home / f"photos-{name}")
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with fgtrac.start_run(runs / name, ids=ids, key=user.home / "key.pem") as run:
            run.register(photos, name="photos")
            train = Subset(photos, [0, *range(2, 16)])
            for _ in range(2):
                for inputs, labels in run.watch(DataLoader(train, batch_size=5), role="train"):
                    optimizer.zero_grad()
                    torch.nn.functional.cross_entropy(model(inputs), labels).backward()
                    optimizer.step()
            run.checkpoint(model, optimizer, val_loss=0.5)
    return runs / f"{name}.trace"
