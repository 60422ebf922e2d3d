"""The demo's preprocessing, every stage of it under trace: filter, deduplicate, split, flip labels, deliver late."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from fgtrac.api.run import Run
from fgtrac.demo.data import BLANKS, DUPLICATES, Planted, as_tensors

ARCHIVE, LATE = "archive", "late delivery"
FLIPPED_SHARE = 0.1
PARTS = {"train": 0.7, "validation": 0.15, "test": 0.15}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What training sees, and what the demo knows about it.

    Rows are of the archive. `copies` are the planted ones, all of which `deduplicate` should drop; `flipped` rows are
    trained on with a wrong label; `leaked` is the training row whose image also stands, as `leaked_late`, in the late
    delivery that went into the test set.
    """

    train: ConcatDataset[Any]
    validation: Subset[Any]
    test: ConcatDataset[Any]
    blanks: int
    duplicates: int
    copies: range
    flipped: tuple[int, ...]
    clean: tuple[int, ...]
    test_rows: tuple[int, ...]
    leaked: int
    leaked_late: int


def prepare(run: Run, planted: Planted, seed: int) -> Prepared:
    """Take the archive through every stage under `run`, and register all roles."""
    generator = np.random.default_rng(seed)
    archive = planted.archive
    run.register(archive, name=ARCHIVE)
    scans = run.transform("drop blank scans", archive, {"brightest above": 1}).filter(is_no_blank)
    unique = run.transform("drop exact copies", scans).deduplicate()
    parts = run.transform("split", unique, {"seed": seed}).split(parts_of(len(unique), generator))
    train = parts["train"]
    chosen = generator.random(len(train)) < FLIPPED_SHARE
    sides = run.transform("choose labels to flip", train, {"share": FLIPPED_SHARE}).split(
        ["flip" if c else "keep" for c in chosen]
    )
    flipped = run.transform("flip label", sides["flip"]).map(flip_label)
    late, leaked_late = deliver_late(planted, train[0][0].numpy(), int(train[0][1]))
    run.register(late, name=LATE)
    prepared = Prepared(
        train=ConcatDataset([sides["keep"], flipped]),
        validation=parts["validation"],
        test=ConcatDataset([parts["test"], late]),
        blanks=len(archive) - len(scans),
        duplicates=len(scans) - len(unique),
        copies=range(len(archive) - BLANKS - DUPLICATES, len(archive) - BLANKS),
        flipped=tuple(rows_behind(flipped)),
        clean=tuple(rows_behind(sides["keep"])),
        test_rows=tuple(rows_behind(parts["test"])),
        leaked=rows_behind(train)[0],
        leaked_late=leaked_late,
    )
    for role in ("train", "validation", "test"):
        run.register(getattr(prepared, role), role=role)
    return prepared


def parts_of(rows: int, generator: np.random.Generator) -> list[str]:
    """The part that each row goes to, drawn."""
    names = np.repeat(list(PARTS), np.ceil(np.array(list(PARTS.values())) * rows).astype(int))[:rows]
    drawn: list[str] = generator.permutation(names).tolist()
    return drawn


def data_sets(planted: Planted, seed: int) -> dict[str, TensorDataset]:
    """Both registered data sets by name, the same as `prepare` makes them, without a run."""
    archive, seen, unique = planted.archive, set(), []
    for row, image in enumerate(archive.tensors[0].numpy()):
        octets = image.tobytes()
        if image.max() > 1 and octets not in seen:
            seen.add(octets)
            unique.append(row)
    image, label = archive[unique[parts_of(len(unique), np.random.default_rng(seed)).index("train")]]
    return {ARCHIVE: archive, LATE: deliver_late(planted, image.numpy(), int(label))[0]}


def is_no_blank(item: tuple[torch.Tensor, torch.Tensor]) -> bool:
    """Whether a scan shows anything: its brightest pixel is above 1."""
    return int(item[0].max()) > 1


def flip_label(item: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The next digit's label, wrong on purpose."""
    image, label = item
    return image, (label + 1) % 10


def deliver_late(planted: Planted, image: Any, label: int) -> tuple[TensorDataset, int]:
    """The late images with a copy of `image` at their end: nobody looked for copies there. Also the copy's row."""
    images = np.concatenate([planted.late.images, image[None]])
    labels = np.append(planted.late.labels, label)
    return as_tensors(images, labels), len(labels) - 1


def rows_behind(view: Subset[Any]) -> list[int]:
    """The rows of the root data set behind a view's positions."""
    rows = list(view.indices)
    while isinstance(view := view.dataset, Subset):  # type: ignore[assignment]
        rows = [view.indices[r] for r in rows]
    return rows


def read_through(view: Any) -> TensorDataset:
    """The items of a view as plain tensors: the same data set, with nothing of fgtrac in it."""
    items = [view[i] for i in range(len(view))]
    return TensorDataset(torch.stack([i[0] for i in items]), torch.stack([i[1] for i in items]))
