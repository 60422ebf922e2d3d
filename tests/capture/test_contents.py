"""Content digests come from the source of a data set, never from behind a random transform, and find planted leaks."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset

from fgtrac.api.check import check_trace
from fgtrac.api.run import Run, start_run
from fgtrac.capture import contents
from fgtrac.capture.beside import holds_more
from fgtrac.capture.contents import array_digests, code_digest, source_digests, stacked, tensor_digests
from fgtrac.errors import CaptureError
from fgtrac.events.codec import encode
from fgtrac.verify.report import Verdict

Read = Callable[[Path], Any]


class RandomCrop:
    """A square of 8 x 8 from a random place of a picture, as a tensor."""

    def __call__(self, picture: torch.Tensor) -> torch.Tensor:
        top, left = torch.randint(picture.shape[-2] - 7, (2,)).tolist()
        return picture[..., top : top + 8, left : left + 8].float() / 255


class Folder(Dataset[Any]):
    """Images in one folder for each class, in torchvision's style: `samples` (and `imgs`) list (path, class)."""

    def __init__(self, root: Path, listed: str = "samples") -> None:
        paths = sorted(root.glob("*/*.png"))
        setattr(self, listed, [(str(p), int(p.parent.name)) for p in paths])
        self.listed = listed
        self.transform = RandomCrop()

    def __len__(self) -> int:
        return len(getattr(self, self.listed))

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        path, label = getattr(self, self.listed)[row]
        with Image.open(path) as picture:
            return self.transform(torch.from_numpy(np.array(picture))[None]), label


class Pictures(Dataset[Any]):
    """Images in memory, in torchvision's style: `data` and `targets`."""

    def __init__(self, data: Any, targets: Any) -> None:
        self.data, self.targets = data, targets
        self.transform = RandomCrop()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.transform(torch.as_tensor(self.data[row])), int(self.targets[row])


def draw(folder: Path, seeds: list[int]) -> Path:
    """One picture for each seed, in two classes."""
    for number, seed in enumerate(seeds):
        place = folder / str(number % 2)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(seed)).save(place / f"{number:02}.png")
    return folder


def noise(seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (12, 12), dtype=np.uint8)


def contents_of(log: Any) -> dict[tuple[str, Any], bytes]:
    """(data set, key) -> content digest, of every sample that has one."""
    found = {}
    for event in (e for e in log.kind("samples") if "contents" in e):
        for at in range(0, len(event["ids"]), 32):
            dataset, key, _ = log.names[event["ids"][at : at + 32]]
            found[dataset, key] = event["contents"][at : at + 32]
    return found


def train(path: Path, data: Any, held: Any, workers: int) -> Path:
    """Train on `data`, with `held` as the test set, through random crops; the trace."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with start_run(path, key=path.parent / "key.pem") as run:
        run.register(held, name="held", role="test")
        run.register(data, name="data")
        loader = DataLoader(
            data, batch_size=4, shuffle=True, num_workers=workers, multiprocessing_context="fork" if workers else None
        )
        for pictures, labels in run.watch(loader, role="train"):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(pictures), labels).backward()
            optimizer.step()
    return run.path


@pytest.mark.matrix("Content", "planted leak behind random crops: one picture's file in the train and the test folder")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_in_both_folders_is_found_by_its_content(tmp_path: Path, workers: int) -> None:
    data = Folder(draw(tmp_path / "train", [0, 1, 2, 3, 4, 5, 6, 7]))
    held = Folder(draw(tmp_path / "test", [10, 11, 5, 12]))
    leaked = [Path(path).read_bytes() for path, _ in data.samples].index(noise_file(held, seed=5))
    trace = train(tmp_path / "run", data, held, workers)
    checked = check_trace(trace, key=str(tmp_path / "key.pem"))
    refuted = [f.check for f in checked.report.findings if f.verdict is Verdict.REFUTED]
    assert refuted == ["held-out-contents"]
    assert [v["sample"] for v in checked.violations()] == [f"data:{leaked}"]


def noise_file(folder: Folder, seed: int) -> bytes:
    """The bytes of the picture that was drawn with this seed."""
    for path, _ in folder.samples:
        with Image.open(path) as picture:
            if np.array_equal(np.array(picture), noise(seed)):
                return Path(path).read_bytes()
    raise AssertionError(f"no picture of seed {seed}")


@pytest.mark.matrix("Content", "two data sets over the same files")
def test_two_data_sets_over_the_same_files_have_equal_contents_and_are_other_samples(
    run: Run, log: Read, tmp_path: Path
) -> None:
    draw(tmp_path / "files", [0, 1, 2])
    run.register(Folder(tmp_path / "files"), name="a")
    run.register(Folder(tmp_path / "files", listed="imgs"), name="b")
    run.close()
    found = contents_of(log(run.path))
    assert len(log(run.path).names) == 6
    assert len(set(found.values())) == 3
    assert all(found["a", row] == found["b", row] for row in range(3))
    assert {e["content"] for e in log(run.path).kind("dataset")} == {"file"}


@pytest.mark.matrix("Content", "random transforms draw nothing while contents are taken, and change no digest")
@pytest.mark.parametrize("kind", ["folder", "tensor", "array"])
def test_contents_are_taken_before_the_transform_and_draw_nothing(tmp_path: Path, kind: str) -> None:
    pictures = np.stack([noise(seed) for seed in range(4)])
    data: Any = {
        "folder": lambda: Folder(draw(tmp_path / "files", [0, 1, 2, 3])),
        "tensor": lambda: Pictures(torch.from_numpy(pictures), torch.arange(4)),
        "array": lambda: Pictures(pictures, [0, 1, 2, 3]),
    }[kind]()
    before = torch.get_rng_state()
    word, first = source_digests(data, 4, None)
    _, second = source_digests(data, 4, None)
    assert torch.equal(torch.get_rng_state(), before)
    assert word == ("file" if kind == "folder" else "tensor uint8 12x12")
    assert np.array_equal(first, second)
    if kind == "folder":
        truth = [hashlib.sha256(Path(p).read_bytes()).digest() for p, _ in data.samples]
    else:
        truth = [hashlib.sha256(encode(["uint8", [12, 12], p.tobytes()])).digest() for p in pictures]
    assert [bytes(d) for d in first] == truth


@pytest.mark.matrix("Content", "TensorDataset, tensors, arrays and memory-mapped arrays: equal rows have equal digests")
def test_a_row_has_one_digest_whatever_holds_it(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    holders: list[Any] = [
        TensorDataset(torch.from_numpy(rows), torch.arange(5)),
        torch.from_numpy(rows),
        rows,
        mapped,
        rows.astype(">f4"),
        np.asfortranarray(rows),
        torch.from_numpy(np.repeat(rows, 2, axis=0))[::2],
        Pictures(mapped, np.arange(5)),
    ]
    truth = [hashlib.sha256(encode(["float32", [3, 2], r.tobytes()])).digest() for r in rows]
    for data in holders:
        word, digests = source_digests(data, 5, None)
        assert word == "tensor float32 3x2"
        assert [bytes(d) for d in digests] == truth


class Listed(Dataset[Any]):
    """A data set that holds what it is given."""

    def __init__(self, **held: Any) -> None:
        self.__dict__.update(held)


@pytest.mark.parametrize(
    ("more", "held"),
    [
        (False, {"samples": [("a.png", 0), ("b.png", 1)], "targets": [0, 1], "classes": ["cat", "dog"]}),
        (False, {"samples": ["a.png", "b.png"]}),
        (False, {"data": torch.zeros(2, 3), "targets": np.zeros((2, 1))}),
        (True, {"samples": [("a.png", "b.png"), ("b.png", "a.png")]}),
        (True, {"samples": [("a.png", 0), ("b.png", 1)], "captions": ["a cat", "a dog"]}),
        (True, {"imgs": ["a.png", "b.png"], "masks": ["b.png", "a.png"]}),
        (True, {"data": torch.zeros(2, 3), "targets": torch.zeros(2, 3)}),
        (True, {"data": np.zeros((2, 3)), "labels": [[0, 1], [1]]}),
    ],
)
def test_what_a_row_holds_beside_its_source_is_seen(
    more: bool, held: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        Path(name).write_bytes(name.encode())
    same = {"imgs": held["samples"]} if "samples" in held else {}  # as in torchvision's folders
    data = Listed(**held, **same)
    described, digests = source_digests(data, 2, None)
    assert digests is not None
    assert holds_more(data, 2, described) is more


def test_a_second_tensor_that_is_no_label_is_said_to_be_there(run: Run, log: Read) -> None:
    rows = torch.arange(8.0).reshape(4, 2)
    run.register(TensorDataset(rows, torch.arange(4)), name="labelled")
    run.register(TensorDataset(rows, torch.arange(4.0).reshape(4, 1), rows + 1), name="pairs")
    run.register(rows, name="alone")
    run.close()
    assert {e["name"]: e.get("beside") for e in log(run.path).kind("dataset")} == {
        "labelled": None, "pairs": True, "alone": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tensor", "named"),
    [
        (torch.arange(6).to(torch.bfloat16), "bfloat16"),
        (torch.tensor([True, False, True]), "bool"),
        (torch.randn(3, 2, dtype=torch.complex64).conj(), "complex64"),
        (torch.empty(3, 0), "float32"),
        (torch.randn(3, 2, requires_grad=True), "float32"),
        (torch.randn(70, 100, 100).transpose(1, 2), "float32"),
    ],
    ids=["bfloat16", "bool", "conjugate", "empty", "leaf", "several pieces"],
)
def test_every_plain_dtype_of_torch_is_digested(tensor: torch.Tensor, named: str) -> None:
    octets = [r.detach().resolve_conj().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for r in tensor]
    truth = [hashlib.sha256(encode([named, list(tensor.shape[1:]), raw])).digest() for raw in octets]
    assert [bytes(d) for d in tensor_digests(tensor)] == truth


def test_long_rows_are_digested_by_two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(101, 700)).astype(np.float32)
    alone, threads = array_digests(rows), set()
    monkeypatch.setattr(contents, "THREADED_BYTES", 1)
    monkeypatch.setattr(contents, "THREADED_ROW", 2048)
    monkeypatch.setattr(contents.os, "cpu_count", lambda: 3)
    monkeypatch.setattr(contents, "stacked", lambda found: (threads.add(threading.get_ident()), stacked(found))[1])
    assert np.array_equal(array_digests(rows), alone)
    assert threading.get_ident() in threads
    assert len(threads) > 1
    threads.clear()
    array_digests(rows[:, :9])
    assert threads == {threading.get_ident()}


def test_rows_of_other_dtype_or_shape_are_other_contents() -> None:
    zeros: list[Any] = [
        np.zeros((1, 4), "i4"),
        np.zeros((1, 4), "f4"),
        np.zeros((1, 2, 2), "i4"),
        np.zeros((1, 8), "i2"),
    ]
    assert len({bytes(array_digests(a)[0]) for a in zeros}) == 4


@pytest.mark.matrix("Content", "a dtype that cannot be digested: one line with the remedy")
@pytest.mark.parametrize(
    ("made", "named"),
    [
        (lambda: np.array([None, {}]), "an array of object"),
        (lambda: np.zeros(2, dtype=[("a", "i4")]), r"an array of \[\('a', '<i4'\)\]"),
        (lambda: np.zeros(2, dtype=np.longdouble), "an array of float128"),
        (lambda: torch.eye(2).to_sparse(), "a sparse_coo tensor of float32"),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8), "a quantized tensor of quint8"),
        (lambda: torch.empty(2, device="meta"), "a meta tensor of float32"),
    ],
    ids=["object", "record", "long double", "sparse", "quantized", "meta"],
)
@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor.*:DeprecationWarning", "ignore:.*quantiz.*:UserWarning")
def test_what_has_no_canonical_bytes_is_said_and_registered_without(
    run: Run, log: Read, made: Callable[[], Any], named: str, tmp_path: Path
) -> None:
    rows = made()
    said = f"{named} has no canonical bytes .*; give the bytes with source=, or pass content=False"
    with pytest.warns(RuntimeWarning, match=f"the contents of data set 'odd' cannot be digested: {said}"):
        run.register(rows, name="odd")
    run.register(made(), name="plain", content=False)
    run.close()
    found = log(run.path)
    assert [("content" in e, e["rows"]) for e in found.kind("dataset")] == [(False, 2), (False, 2)]
    (gap,) = found.kind("gap")
    assert "'odd'" in gap["reason"]
    with (
        start_run(tmp_path / "strict", key=tmp_path / "key.pem", strict=True) as strict,
        pytest.raises(CaptureError, match=said),
    ):
        strict.register(rows)


class Odd(Dataset[Any]):
    """A data set that says nothing of where its rows come from, or something else than it seems."""

    def __init__(self, **held: Any) -> None:
        self.__dict__.update(held)

    def __len__(self) -> int:
        return 3

    def __getitem__(self, row: int) -> int:
        return row


class Computed(Odd):
    """Its `data` is computed, and must not be."""

    @property
    def data(self) -> Any:
        raise AssertionError("a property was read")


@pytest.mark.parametrize(
    "data",
    [
        Odd(),
        Odd(samples=[("a text", 0)] * 3),
        Odd(samples=["a text"] * 3),
        Odd(samples=[(1, 0)] * 3),
        Odd(data=np.zeros((3, 2))),  # rows in another order, for all that anyone can tell
        Odd(data=np.zeros((4, 2)), targets=[0] * 4),
        Odd(data=torch.tensor(1.0), targets=[0] * 3),
        Computed(targets=[0] * 3),
        [1, 2, 3],
    ],
    ids=["bare", "texts", "plain texts", "numbers", "no targets", "other length", "scalar", "property", "list"],
)
def test_where_no_source_is_known_none_is_made_up(data: Any) -> None:
    assert source_digests(data, 3, None) == (None, None)


def test_a_source_of_the_users_gives_bytes(run: Run) -> None:
    _, digests = source_digests(Odd(), 3, lambda row: bytearray([row]))
    assert [bytes(d) for d in digests] == [hashlib.sha256(bytes([row])).digest() for row in range(3)]
    with pytest.raises(TypeError, match=r"source\(0\) gave a str; it gives the bytes of the row's source"):
        run.register(Odd(), source=lambda row: "text")


def test_a_missing_file_is_named(run: Run, tmp_path: Path) -> None:
    data = Folder(draw(tmp_path / "files", [0, 1, 2]))
    Path(data.samples[0][0]).unlink()
    with pytest.raises(CaptureError, match=r"00\.png cannot be read .*; repair it or pass content=False"):
        run.register(data)
    run.register(data, content=False)


def test_a_lambda_has_the_digest_of_its_own_text() -> None:
    few, many = lambda f: f > 2, lambda f: f > 3  # fmt: skip
    assert code_digest(few) == hashlib.sha256(b"lambda f: f > 2").digest()
    assert code_digest(many) == hashlib.sha256(b"lambda f: f > 3").digest()
    held = [lambda é, *, k=(lambda z: z): (é, k), (lambda é: (
        "ü" + é))]  # fmt: skip
    assert code_digest(held[0]) == hashlib.sha256("lambda é, *, k=(lambda z: z): (é, k)".encode()).digest()
    assert code_digest(held[1]) == hashlib.sha256('lambda é: (\n        "ü" + é)'.encode()).digest()
    assert code_digest(eval("lambda f: f > 2")) is None
