"""Hugging Face data sets: what is chosen, ordered and written anew leads to the rows that it is made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader

from fgtrac.api.check import check_trace
from fgtrac.api.run import Run, start_run
from fgtrac.errors import CaptureError
from fgtrac.verify.report import Verdict
from hf_rows_truth import ROWS, ids_in, keys_of, made

Read = Callable[[Path], Any]

pytestmark = pytest.mark.filterwarnings("ignore:Specifying null_placement:FutureWarning")  # datasets, as it sorts


VIEWS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda ds: ds,
    "shuffle": lambda ds: ds.shuffle(seed=1),
    "select": lambda ds: ds.select([5, 5, 2]),
    "select a range": lambda ds: ds.select(range(3, 9)),
    "filter": lambda ds: ds.filter(lambda row: row["id"] % 3 == 0),
    "shard": lambda ds: ds.shard(3, 1),
    "sort": lambda ds: ds.sort("text", reverse=True),
    "train_test_split": lambda ds: ds.train_test_split(test_size=0.25, seed=0)["test"],
    "train_test_split, unshuffled": lambda ds: ds.train_test_split(test_size=0.25, shuffle=False)["train"],
    "concatenate": lambda ds: datasets.concatenate_datasets([ds.select([3, 4]), ds]),
    "interleave": lambda ds: datasets.interleave_datasets([ds.select([1, 2, 3]), ds.select([7, 8, 9])]),
    "repeat, skip, take": lambda ds: ds.repeat(2).skip(20).take(9),
    "remove and rename columns": lambda ds: ds.remove_columns("text").rename_column("group", "label").shuffle(seed=3),
    "add a column": lambda ds: ds.select([4, 1]).add_column("z", [1, 2]),
    "set_format and with_transform": lambda ds: ds.with_format("torch").shuffle(seed=2).with_transform(lambda b: b),
    "cast_column": lambda ds: ds.shuffle(seed=5).cast_column("text", datasets.Value("large_string")),
    "class_encode_column": lambda ds: ds.class_encode_column("text").select([9, 2]),
    "cast_column to a file": lambda ds: ds.shuffle(seed=5).cast_column("text", datasets.Image(decode=False)),
    "replace a column": lambda ds: ds.remove_columns("text").add_column("text", ["new"] * ROWS).select([5, 3]),
    "flatten": lambda ds: ds.add_column("pair", [{"a": 1}] * ROWS).shuffle(seed=8).flatten().select([2, 0]),
    "concatenate with a column of nulls": lambda ds: datasets.concatenate_datasets(
        [ds.select(range(3)).remove_columns("text"), ds.select(range(5, 9))]
    ),
    "flatten_indices": lambda ds: ds.shuffle(seed=4).flatten_indices().select([0, 3]),
    "map, row by row": lambda ds: ds.shuffle(seed=6).map(lambda row: {"twice": 2 * row["id"]}).shuffle(seed=7),
    "map that changes nothing": lambda ds: ds.select([3, 1]).map(lambda row: None, batched=True),
    "from a dict of splits": lambda ds: datasets.DatasetDict(a=ds.select([8, 6])).map(lambda row: {"x": 1})["a"],
}


@pytest.mark.matrix("HF datasets", "views, orders, splits, shards, formats and columns, as the user calls them")
@pytest.mark.parametrize("view", VIEWS)
def test_rows_are_told_through_what_users_call(run: Run, view: str) -> None:
    data = made()
    run.register(data, name="rows")
    seen = VIEWS[view](data)
    assert keys_of(run, seen) == [("rows", i) for i in ids_in(seen)]
    assert [e["name"] for e in [{"name": r.name} for r in run._registry.registered()]] == ["rows"]


@pytest.mark.matrix("HF datasets", "a loader over a shuffled, filtered, formatted view, each batch against its rows")
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_a_view_are_those_of_the_rows(run: Run, log: Read, workers: int) -> None:
    data = made()
    seen = data.shuffle(seed=1).filter(lambda row: row["group"] != 2).remove_columns("text").with_format("torch")
    context = "fork" if workers else None
    loader = DataLoader(seen, batch_size=5, shuffle=True, num_workers=workers, multiprocessing_context=context)
    truth = [sorted(batch["id"].tolist()) for batch in run.watch(loader)]
    run.close()
    assert [keys for _, _, keys in log(run.path).batches("unapplied").values()] == truth


@pytest.mark.matrix("HF datasets", "two sources concatenated")
def test_rows_of_two_sources_are_told_apart(run: Run) -> None:
    one, other = made(6), made(4, first=100)
    run.register(one, name="one")
    run.register(other, name="other")
    both = datasets.concatenate_datasets([one.shuffle(seed=0), other.select([3, 1])])
    truth = [("other", i - 100) if i >= 100 else ("one", i) for i in ids_in(both)]
    assert keys_of(run, both) == truth
    stranger = datasets.concatenate_datasets([one, made(3, first=50)])
    with pytest.raises(ValueError, match="some rows of this table are registered, and others are not"):
        run.register(stranger)


def test_a_view_that_comes_first_registers_the_whole_table(run: Run, log: Read) -> None:
    data = made()
    run.register(data.select([7, 3]), role="train", key="id")
    assert keys_of(run, data.shuffle(seed=0)) == [("Dataset", i) for i in ids_in(data.shuffle(seed=0))]
    run.close()
    found = log(run.path)
    assert [e["rows"] for e in found.kind("dataset")] == [ROWS]
    (roles,) = found.kind("roles")
    assert sorted(found.keys(roles["block"], roles["ordinals"])) == [3, 7]


@pytest.mark.matrix("HF datasets", "map of batches without lineage: refused with the remedy")
def test_a_map_of_batches_that_nobody_can_trace_is_refused(run: Run) -> None:
    data = made()
    run.register(data, name="rows")
    lost = data.map(lambda batch: {"id": batch["id"][::-1]}, batched=True)
    for seen in (lost, lost.shuffle(seed=0), lost.map(lambda row: {"x": 1}), lost.remove_columns("text")):
        with pytest.raises(CaptureError, match=r"nobody can tell .* run\.transform\(STAGE, data\)\.map\(function, ba"):
            run.watch(DataLoader(seen))
    with pytest.raises(ValueError, match="has 24 rows, and its samples are 3"):
        run.register(lost, rows=data.select([1, 2, 3]))
    run.register(lost, rows=data.select(range(ROWS - 1, -1, -1)))  # its function turned each batch round
    assert keys_of(run, lost.shuffle(seed=0)) == [("rows", i) for i in ids_in(lost.shuffle(seed=0))]


def test_rows_that_are_known_are_not_said_to_be_others(run: Run) -> None:
    data = made()
    run.register(data, name="rows")
    run.register(data.with_format("torch"), rows=data)
    with pytest.raises(ValueError, match="the rows of this Dataset are registered samples, and others than rows= says"):
        run.register(data.with_format("numpy"), rows=data.shuffle(seed=1))


EIGHT = pa.array(np.arange(8.0))
OFFSETS, CODES = pa.array([0, 1, 3, 4], pa.int32()), pa.array([0, 1, 0], pa.int32())
HALVES: dict[str, Callable[[Any], Any]] = {
    "slices": lambda half: half,
    "lists of one size": lambda half: pa.FixedSizeListArray.from_arrays(half, 1),
    "lists": lambda half: pa.ListArray.from_arrays(OFFSETS, half),
    "records": lambda half: pa.StructArray.from_arrays([half], ["x"]),
    "lists of records": lambda half: pa.ListArray.from_arrays(OFFSETS, pa.StructArray.from_arrays([half], ["x"])),
    "words": lambda half: pa.DictionaryArray.from_arrays(CODES, half),
}


@pytest.mark.parametrize("kind", HALVES)
def test_rows_that_share_some_memory_are_others(run: Run, kind: str) -> None:
    """Two halves of one array: of either, offsets, codes or the whole buffer are the other's, too."""
    train, test = (datasets.Dataset(pa.table({"x": HALVES[kind](EIGHT[n : n + 4])})) for n in (0, 4))
    run.register(train, name="train", role="train")
    run.register(test, name="test", role="test")
    for name, data in (("train", train), ("test", test)):
        every = list(range(len(data)))
        assert keys_of(run, data.select([2, 0])) == [(name, 2), (name, 0)]
        assert keys_of(run, data.skip(1)) == [(name, i) for i in every[1:]]
        twice = datasets.concatenate_datasets([data.skip(2), data])
        assert keys_of(run, twice) == [(name, i) for i in (*every[2:], *every)]


def test_a_data_set_with_one_column_of_another_is_not_taken_for_it(run: Run) -> None:
    labels = pa.array([0, 1, 0, 1])
    one, other = (datasets.Dataset(pa.table({"x": pa.array(x), "y": labels})) for x in ([1, 2, 3, 4], [5, 6, 7, 8]))
    run.register(one, name="one", role="train")
    words = r"'y' of this table is a registered one, and 'x' is not.*rows=THAT\); where .* run\.register\(data, name="
    for view in (other, other.shuffle(seed=0)):
        with pytest.raises(ValueError, match=words):
            run.register(view, role="test")
    run.register(other.shuffle(seed=0), name="other", role="test")
    assert keys_of(run, one.select([3])) + keys_of(run, other.select([3])) == [("one", 3), ("other", 3)]
    with pytest.raises(ValueError, match=r"several registered rows share.*say so with run\.register\(data, rows="):
        run.watch(DataLoader(other.select_columns("y")))


def test_a_data_set_with_one_column_of_another_has_the_rows_that_it_is_said_to_have(run: Run) -> None:
    data = made()
    wider = data.add_column("more", [1] * ROWS)
    run.register(data, name="rows")
    with pytest.raises(ValueError, match="'id' of this table is a registered one, and 'more' is not"):
        run.watch(DataLoader(wider))
    run.register(wider, rows=data)
    assert keys_of(run, wider.select([4, 2])) + keys_of(run, data.select([3])) == [("rows", i) for i in (4, 2, 3)]


@pytest.mark.matrix("HF datasets", "save_to_disk and load_from_disk, by rows=")
def test_a_data_set_from_disk_has_the_rows_that_it_is_said_to_have(run: Run, tmp_path: Path) -> None:
    data = made()
    run.register(data, name="rows")
    view = data.shuffle(seed=3).select(range(10))
    view.save_to_disk(tmp_path / "saved")
    loaded = datasets.load_from_disk(tmp_path / "saved")
    run.register(loaded, rows=view)
    again = loaded.shuffle(seed=1)
    assert keys_of(run, again) == [("rows", i) for i in ids_in(again)]


def test_splits_are_registered_one_by_one(run: Run) -> None:
    with pytest.raises(
        TypeError, match=r"a DatasetDict is several data sets; register each of its splits: for name, sp"
    ):
        run.register(made().train_test_split(test_size=0.5, seed=0))
    with pytest.raises(ValueError, match="key='nr' names no column; this Dataset has id, text, group"):
        run.register(made(), key="nr")


def test_a_version_that_keeps_no_index_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    data = made(3)
    monkeypatch.delattr(data, "_indices")
    with pytest.raises(CaptureError, match=r"datasets .* does not tell which rows a Dataset has; known are datasets 3"):
        run.register(data)


def test_rows_of_nothing_but_nulls_are_told_by_their_object(run: Run) -> None:
    data = datasets.Dataset.from_dict({"x": [None] * 4})
    view = data.select([2, 0])
    assert keys_of(run, view) == keys_of(run, view) == [("Dataset", 2), ("Dataset", 0)]


def test_weights_and_generators_are_the_same_with_and_without(run: Run) -> None:
    def train(traced: bool) -> tuple[Any, Any]:
        torch.manual_seed(0)
        np.random.seed(0)
        data = made()
        if traced:
            run.register(data, name="rows")
        tokens = (run.transform("add", data) if traced else data).map(lambda row: {"x": float(row["id"])})
        loader = DataLoader(tokens.with_format("torch"), batch_size=5, shuffle=True)
        model = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        for batch in run.watch(loader) if traced else loader:
            optimizer.zero_grad()
            model(batch["x"][:, None]).square().mean().backward()
            optimizer.step()
        return [p.detach().clone() for p in model.parameters()], np.random.random()

    with pytest.warns(RuntimeWarning, match="not watched"):  # the run is open
        one, drawn = train(traced=False)
    other, drawn_too = train(traced=True)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert drawn == drawn_too


# -- contents ---------------------------------------------------------------------------------------------------------


@pytest.mark.matrix("Content", "HF Arrow rows: equal rows of two data sets, and images by their files")
def test_equal_rows_have_equal_contents_whatever_holds_them(run: Run, log: Read, tmp_path: Path) -> None:
    data = made(6)
    data.save_to_disk(tmp_path / "saved")
    run.register(data, name="memory")
    run.register(datasets.load_from_disk(tmp_path / "saved"), name="disk")
    run.register(pa.table(data.with_format("arrow")[:].to_pydict()), name="table")
    run.close()
    found = log(run.path)
    contents: dict[str, dict[Any, bytes]] = {}
    for event in found.kind("samples"):
        for at in range(0, len(event["ids"]), 32):
            dataset, key, _ = found.names[event["ids"][at : at + 32]]
            contents.setdefault(dataset, {})[key] = event["contents"][at : at + 32]
    assert contents["memory"] == contents["disk"] == contents["table"]
    assert len({e["content"] for e in found.kind("dataset")}) == 1


def test_an_image_is_its_file_whatever_its_name_is_and_wherever_it_lies(run: Run, tmp_path: Path) -> None:
    for number, octets in enumerate((b"one picture", b"another", b"one picture")):
        (tmp_path / f"{number}.png").write_bytes(octets)
    features = datasets.Features({"image": datasets.Image()})
    beside = datasets.Dataset.from_dict({"image": [str(tmp_path / f"{n}.png") for n in range(3)]}, features=features)
    inside = datasets.Dataset.from_dict({"image": [{"bytes": b"another", "path": "x.png"}, None]}, features=features)
    run.register(beside, name="beside")
    run.register(inside, name="inside")
    files, held = (run._registry.resolve(data).contents() for data in (beside, inside))
    assert [bytes(a) == bytes(b) for a, b in ((files[0], files[2]), (files[0], files[1]), (files[1], held[0]))] == [
        True, False, True,
    ]  # fmt: skip
    lost = datasets.Dataset.from_dict({"image": ["gone.png"]}, features=features)
    with pytest.warns(RuntimeWarning, match=r"a file that is neither in the table nor at 'gone\.png' has no canonical"):
        run.register(lost, name="lost")


def test_images_in_lists_and_records_are_their_files_too(run: Run, tmp_path: Path) -> None:
    for number, octets in enumerate((b"one picture", b"another", b"one picture")):
        (tmp_path / f"{number}.png").write_bytes(octets)
    one, another, again = (str(tmp_path / f"{n}.png") for n in range(3))
    features = datasets.Features({"x": {"many": datasets.List(datasets.Image()), "n": datasets.Value("int64")}})
    cells = [[one, another], [another], [again, another], [again], None, []]
    rows = [{"x": {"many": cell, "n": 1}} for cell in cells]
    data = datasets.Dataset.from_list([*rows, {"x": None}], features=features)
    run.register(data, name="all")
    found = [bytes(row) for row in run._registry.resolve(data).contents()]
    assert found[0] == found[2]
    assert len(set(found)) == 6
    (tmp_path / "1.png").write_bytes(b"a new one")
    later = datasets.Dataset.from_list(rows[:2], features=features)
    run.register(later, name="later")
    assert not {bytes(row) for row in run._registry.resolve(later).contents()} & set(found)


@pytest.mark.matrix("Content", "planted leak: one row of a Hugging Face data set in train and in test")
def test_a_row_in_train_and_test_is_found_by_its_content(tmp_path: Path) -> None:
    held = made(6, first=100).select([4, 1]).flatten_indices()
    data = datasets.concatenate_datasets([made(8), made(6, first=100).select([1])]).shuffle(seed=0).flatten_indices()
    leaked = ids_in(data).index(101)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
    with start_run(tmp_path / "run", key=tmp_path / "key.pem") as run:
        run.register(held, name="held", role="test")
        run.register(data, name="data")
        loader = DataLoader(data.with_format("torch").remove_columns("text"), batch_size=3, shuffle=True)
        for batch in run.watch(loader, role="train"):
            optimizer.zero_grad()
            model(batch["id"].float()[:, None]).sum().backward()
            optimizer.step()
    checked = check_trace(run.path, key=str(tmp_path / "key.pem"))
    assert [f.check for f in checked.report.findings if f.verdict is Verdict.REFUTED] == ["held-out-contents"]
    assert [v["sample"] for v in checked.violations()] == [f"data:{leaked}"]


# -- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.matrix("HF datasets", "IterableDataset, shuffled by its buffer, named by key=", attribution="exact")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_of_rows_is_trained_as_its_keys(run: Run, log: Read, workers: int) -> None:
    stream = made().to_iterable_dataset(num_shards=2).shuffle(seed=1, buffer_size=5).remove_columns("text")
    loader = DataLoader(stream, batch_size=5, num_workers=workers, multiprocessing_context="fork" if workers else None)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    truth = []
    for batch in run.watch(loader, role="train", key=row_id, name="stream"):
        truth.append(sorted(batch["id"].tolist()))
        inputs = batch["id"].float()[:, None]
        model(inputs).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    run.close()
    found = log(run.path)
    assert sorted(keys for _, _, keys in found.batches().values()) == sorted(truth)
    assert [step for step, _, _ in found.batches().values()] == list(range(1, len(truth) + 1))
    assert {u.dataset for u in found.uses()} == {"stream"}
    assert sorted(key for keys in truth for key in keys) == list(range(ROWS))


def row_id(row: Any) -> int:
    return int(row["id"])


@pytest.mark.matrix("Content", "a random with_transform of a Hugging Face Dataset draws nothing and changes no digest")
def test_contents_are_taken_before_a_random_transform(run: Run) -> None:
    def noisy(batch: Any) -> Any:
        return {"x": [float(torch.rand(())) for _ in batch["id"]]}

    data = made()
    before = torch.get_rng_state()
    run.register(data.with_transform(noisy), name="noisy")
    run.register(made(), name="plain")
    assert torch.equal(torch.get_rng_state(), before)
    noisy_root, plain_root = run._registry.registered()
    assert noisy_root.contents is not None
    assert np.array_equal(noisy_root.contents, plain_root.contents)
    assert len(np.unique(noisy_root.contents, axis=0)) == ROWS
