"""The demo's images: what is read, what is planted, what is refused."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from fgtrac.demo.data import BLANKS, DUPLICATES, LATE, find_idx, load_images, plant, read_idx


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_idx_files_are_read_gzipped_or_not(tmp_path: Path) -> None:
    images = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    labels = np.array([3, 8], dtype=np.uint8)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    read = load_images(tmp_path)
    assert np.array_equal(read.images, images)
    assert read.labels.tolist() == [3, 8]


def test_a_missing_idx_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds neither train-images-idx3-ubyte nor"):
        find_idx(tmp_path, "train-images-idx3-ubyte")


@pytest.mark.parametrize("data", [b"", b"\0\0\x0d\x01", b"PNG...."])
def test_what_is_no_idx_file_of_bytes_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "labels"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="no IDX file of bytes"):
        read_idx(path)


def test_an_idx_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_bytes(idx(np.arange(10, dtype=np.uint8))[:-1])
    with pytest.raises(ValueError, match="10 bytes of data, but 9 follow"):
        read_idx(path)


def test_copies_and_blanks_are_planted_where_they_are_said_to_be() -> None:
    source = load_images(None, small=True)
    planted = plant(source, seed=1)
    images = planted.archive.tensors[0].numpy()
    rows = len(source.labels) - LATE
    assert len(images) == rows + DUPLICATES + BLANKS
    assert np.array_equal(images[rows : rows + DUPLICATES], images[planted.copied])
    assert images[-BLANKS:].reshape(BLANKS, -1).sum(axis=1).tolist() == [1] * BLANKS
    assert len({row.tobytes() for row in images[-BLANKS:]}) == BLANKS
    assert len(planted.late.labels) == LATE
