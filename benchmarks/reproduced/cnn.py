"""The convolutional half: the demo's images and network, with and without a run around the training."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from fgtrac.demo import training
from fgtrac.demo.training import LeNet, Trained
from reproduced.measure import PREPARED_BY, Clock, Costs, Ended, Recording

if TYPE_CHECKING:
    from fgtrac.demo.data import Planted
    from fgtrac.demo.truth import Update

BATCH, EPOCHS = 128, 12
Parts = dict[str, NDArray[Any]]


def make_data(shared: Path, icons: Path | None) -> dict[str, Any]:
    """Prepare the images once as the traced trainings do, and leave in `shared` what all trainings read; no icons."""
    from fgtrac.api.run import start_run
    from fgtrac.demo.data import load_images, plant
    from fgtrac.demo.prepare import prepare, rows_behind

    source = load_images(None)
    planted = plant(source, PREPARED_BY)
    with tempfile.TemporaryDirectory() as name, start_run(Path(name) / "run", key=Path(name) / "key.pem") as run:
        prepared = prepare(run, planted, PREPARED_BY)
    late = prepared.test.datasets[1]
    parts = {
        "source_images": source.images, "source_labels": source.labels,
        "images": planted.archive.tensors[0], "labels": planted.archive.tensors[1],
        "late_images": late.tensors[0], "late_labels": late.tensors[1],
        "kept": prepared.clean, "flipped": prepared.flipped, "test": prepared.test_rows,
        "validation": rows_behind(prepared.validation),
    }  # fmt: skip
    np.savez(shared / "cnn.npz", **{name: np.asarray(part) for name, part in parts.items()})
    sizes = {role: len(getattr(prepared, role)) for role in ("train", "validation", "test")}
    weights = sum(p.numel() for p in LeNet().parameters())
    recipe = {"weights": weights, "batch": BATCH, "classes": 10}
    return {"origin": source.origin, **sizes, "flipped": len(prepared.flipped), **recipe}


def read_source(shared: Path) -> Planted:
    """The images before their preparation. Not from where the demo takes them: reading that takes more memory than a
    training does."""
    from fgtrac.demo.data import Images, plant

    with np.load(shared / "cnn.npz") as parts:
        source = Images(parts["source_images"], parts["source_labels"], "")
    return plant(source, PREPARED_BY)


def warm_up() -> None:
    """One update: what torch loads and sets up at the first one belongs to no arm."""
    model = LeNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.zeros(BATCH, 28, 28, dtype=torch.uint8)).sum().backward()
    optimizer.step()


class Flipped(Dataset[Any]):
    """The same images with the next digit's label."""

    def __init__(self, data: Dataset[Any]) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)  # type: ignore[arg-type]

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, label = self._data[row]
        return image, (label + 1) % 10


def train_plain(shared: Path, seed: int, epochs: int, clock: Clock) -> Trained:
    """The training as anybody would write it: ordinary data sets, and nothing of fgtrac."""
    parts: Parts = dict(np.load(shared / "cnn.npz"))
    archive = TensorDataset(torch.from_numpy(parts["images"]), torch.from_numpy(parts["labels"]))
    late = TensorDataset(torch.from_numpy(parts["late_images"]), torch.from_numpy(parts["late_labels"]))
    views = {name: Subset(archive, parts[name].tolist()) for name in ("kept", "flipped", "validation", "test")}
    train = ConcatDataset([views["kept"], Flipped(views["flipped"])])
    test = ConcatDataset([views["test"], late])
    loaders = training.make_loaders(train, views["validation"], BATCH)
    with clock.running():
        trained = training.train(loaders, test, epochs=epochs, seed=seed)
    for data in (train, test):
        training.predict(trained.model, data)
    return trained


def train_traced(shared: Path, recording: Recording, seed: int, epochs: int, clock: Clock) -> Ended:
    """The same under trace, from the preparation to the predictions."""
    from fgtrac.demo.cnn import record_predictions
    from fgtrac.demo.prepare import prepare

    planted = read_source(shared)
    with recording.run({"epochs": epochs, "batch": BATCH, "seed": seed}) as run:
        prepared = prepare(run, planted, PREPARED_BY)
        loaders = training.make_loaders(prepared.train, prepared.validation, BATCH)
        run.watch(loaders[0])
        if recording.is_scored:
            samples = {role: getattr(prepared, role) for role in ("train", "validation", "test")}
            run.score_with(loss=nn.CrossEntropyLoss(), **samples)
        costs = Costs(run, recording.own)
        with clock.running(), costs.counted():
            trained = training.train(
                loaders, prepared.test, epochs=epochs, seed=seed,
                after_epoch=lambda model, optimizer, loss: costs.checkpoint(model, optimizer, val_loss=loss),
            )  # fmt: skip
        record_predictions(run, trained, prepared)
    return Ended(trained, costs)


class Witness:
    """Which archive rows each training forward pass received, told by the images' bytes alone."""

    dataset, network = "archive", LeNet

    def __init__(self, shared: Path) -> None:
        archive = read_source(shared).archive.tensors[0].numpy()
        self._rows: dict[bytes, int] = {}
        for row, image in enumerate(archive):  # of equal images all but the first are dropped
            self._rows.setdefault(image.tobytes(), row)
        self._batches: list[NDArray[np.uint8]] = []

    def row_of(self, key: Any) -> int:
        """The row that a key names."""
        return int(key)

    def __call__(self, images: torch.Tensor) -> None:
        self._batches.append(images.numpy().copy())

    def updates(self) -> list[Update]:
        """The rows of each batch."""
        from fgtrac.demo.truth import Update

        return [Update(np.sort([self._rows[image.tobytes()] for image in batch])) for batch in self._batches]
