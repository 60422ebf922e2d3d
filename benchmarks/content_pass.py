"""How fast contents are digested, against how fast the data sets themselves read their rows.

Each share is seconds of one pass of a loader without workers, in batches of 256, by those of the content pass over the
same rows: SHA-256 of each source, and the keyed digest that the log gets. Each pass is the fastest of several, taken in
turn. `content_read_share` is the least share but that of rows of 12 KB in memory (`wide_read_share`): to read these is
to copy memory, and no pass over them is faster than SHA-256 itself, in two threads.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset

from fgtrac.capture.blocks import content_ids
from fgtrac.capture.contents import source_digests
from fgtrac.capture.sample_ids import IdKeys
from harness import report

ROUNDS = 5
BATCH = 256
WORDS = 60  # of a row's text


class Folder(Dataset[Any]):
    """Pictures of 64 x 64 in files, as image folders list and open them."""

    def __init__(self, folder: Path, rows: int) -> None:
        generator = np.random.default_rng(0)
        self.samples = [(str(folder / f"{row:06}.png"), row % 10) for row in range(rows)]
        for path, _ in self.samples:
            Image.fromarray(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path, compress_level=1)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        path, label = self.samples[row]
        with Image.open(path) as picture:
            return np.array(picture.convert("RGB")), label


def tensor_rows(folder: Path) -> Any:
    """Pictures of 28 x 28 as floats, and their labels: those of the demo."""
    return random_pictures(30_000, 1, 28, 28)


def wide_rows(folder: Path) -> Any:
    """Pictures of 3 x 32 x 32 as floats, and their labels."""
    return random_pictures(10_000, 3, 32, 32)


def random_pictures(*shape: int) -> Any:
    """Pictures in memory."""
    pictures = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return TensorDataset(pictures, torch.arange(len(pictures)) % 10)


def files(folder: Path) -> Any:
    """Pictures in files."""
    return Folder(folder, 2000)


def arrow_rows(folder: Path) -> Any:
    """Texts and labels in an Arrow file on disk."""
    generator = np.random.default_rng(0)
    texts = [" ".join(map(str, row)) for row in generator.integers(0, 10_000, (20_000, WORDS)).tolist()]
    made = datasets.Dataset.from_dict({"text": texts, "label": [row % 10 for row in range(len(texts))]})
    made.save_to_disk(folder / "arrow")
    return datasets.load_from_disk(folder / "arrow")


def token_rows(folder: Path) -> Any:
    """Tokens in an Arrow file on disk, read as tensors."""
    tokens = np.random.default_rng(0).integers(0, 50_000, (10_000, 128)).tolist()
    datasets.Dataset.from_dict({"input_ids": tokens}).save_to_disk(folder / "tokens")
    return datasets.load_from_disk(folder / "tokens").with_format("torch")


CASES: dict[str, Callable[[Path], Any]] = {
    "tensor": tensor_rows, "wide": wide_rows, "file": files, "arrow": arrow_rows, "token": token_rows
}  # fmt: skip


def read(data: Any) -> None:
    """One pass over all rows, by a loader in this process."""
    for _batch in DataLoader(data, batch_size=BATCH):
        pass


def digest(data: Any) -> None:
    """The content pass over all rows."""
    _, digests = source_digests(data, len(data), None)
    if digests is None:
        raise SystemExit(f"the source of {type(data).__name__} is not known")
    content_ids(IdKeys("keyed", [bytes(32)]), digests, lambda rows: np.empty((rows, 32), dtype=np.uint8))


def seconds(work: Callable[[Any], None], data: Any) -> float:
    """What one pass takes."""
    start = time.perf_counter()
    work(data)
    return time.perf_counter() - start


def content_figures() -> dict[str, float]:
    """The share of each kind of data, and the least."""
    datasets.disable_progress_bars()
    figures = {}
    for name, make in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            data = make(Path(folder))
            taken = [(seconds(read, data), seconds(digest, data)) for _ in range(ROUNDS)]
            reading, digesting = (min(column) for column in zip(*taken, strict=True))
            figures[f"{name}_read_share"] = reading / digesting
            figures[f"{name}_digest_us"] = digesting / len(data) * 1e6
            del data
    shares = [figure for name, figure in figures.items() if name.endswith("share") and not name.startswith("wide")]
    return {"content_read_share": min(shares), **figures}


if __name__ == "__main__":
    report("content_pass", content_figures())
