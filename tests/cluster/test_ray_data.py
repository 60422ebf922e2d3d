"""Rows of Ray Data keep their names: what the batches hold and what rows were made of, against what the trace says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import ray
import ray.data
import torch
from ray.data.collate_fn import ArrowBatchCollateFn, PandasBatchCollateFn
from ray.data.util.torch_utils import arrow_batch_to_tensors
from ray.exceptions import RayError

import fgtrac
from fgtrac.api.run import Run
from fgtrac.events.schema import STATUS
from fgtrac.frameworks import ray_data
from fgtrac.frameworks.ray_batches import carried
from told_truth import read_told

pytestmark = pytest.mark.filterwarnings("default", "error:fgtrac")  # Ray warns of itself
TESTS = str(Path(__file__).parents[1])
ROWS = 40
IDS = [1000 + n for n in range(ROWS)]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", TESTS)  # in a runtime_env, Ray's waiting workers would not do
        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with fgtrac.start_run(tmp_path / "run", key=tmp_path / "key.pem", flush_interval_s=0.0) as run:
        yield run


def people(run: Run) -> ray_data.TracedData:
    """`value` of row i is i, so that whatever holds it says which row it is."""
    table = pa.table({"id": IDS, "value": np.arange(ROWS, dtype=np.float32), "group": np.arange(ROWS) % 3})
    blocks = [table.slice(start, 10) for start in range(0, ROWS, 10)]
    return ray_data.trace(run, ray.data.from_arrow(blocks), name="people", key="id")


def train(data: ray_data.TracedData, **options: Any) -> list[list[float]]:
    """What the batches of a pass held that an update was made of."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    held = []
    for batch in data.iter_torch_batches(role="train", batch_size=7, **options):
        assert "fgtrac_row" not in batch
        assert "dtypes" not in options or batch["value"].dtype == torch.float64
        values = batch["value"].float()[:, None]
        model(values).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        held.append(values.flatten().tolist())
    return held


def in_log(run: Run) -> list[list[Any]]:
    """The keys of each batch that took part in an update, in order."""
    run.close()
    said = read_told(run.path)
    ids = {event["block"]: event["ids"] for event in said.kind("samples")}
    found = []
    for event in said.kind("use"):
        stops = np.cumsum(event["count"]).tolist()
        for n, stop in enumerate(stops):
            assert event["status"][n] == STATUS["applied"]
            mine = event["ordinals"][stop - int(event["count"][n]) : stop].tolist()
            found.append([said.rows[ids[event["block"]][32 * o : 32 * o + 32]] for o in mine])
    return found


def stages(path: Path) -> dict[str, list[dict[str, Any]]]:
    said: dict[str, list[dict[str, Any]]] = {}
    for event in read_told(path).kind("transform"):
        said.setdefault(event["stage"], []).append(event)
    return said


def test_batches_are_told_by_what_they_hold(run: Run) -> None:
    data = people(run)
    held = train(data.random_shuffle(seed=3).repartition(3))
    assert sorted(chain(*held)) == list(range(ROWS))
    held += train(data.sort("value", descending=True), local_shuffle_buffer_size=10, local_shuffle_seed=1)
    assert sorted(chain(*held[6:])) == list(range(ROWS))
    assert in_log(run) == [[IDS[int(value)] for value in batch] for batch in held]
    assert read_told(run.path).attributions == {"exact"}
    assert read_told(run.path).counts("sampler", "gap") == [2, 0]


class InArrow(ArrowBatchCollateFn):
    """Chunks for each column, as Ray's own makes them."""

    def __call__(self, batch: pa.Table) -> Any:
        assert set(batch.column_names) == {"id", "value", "group"}
        return arrow_batch_to_tensors(batch)


class InPandas(PandasBatchCollateFn):
    def __call__(self, batch: Any) -> Any:
        assert set(batch) == {"id", "value", "group"}
        return {"value": torch.as_tensor(batch["value"].to_numpy())}


def in_numpy(batch: dict[str, Any]) -> Any:
    assert set(batch) == {"id", "value", "group"}
    return {"value": torch.as_tensor(batch["value"])}


def test_a_collate_function_sees_its_format_and_no_number(run: Run) -> None:
    data = people(run)
    passes = [train(data, collate_fn=collate) for collate in (in_numpy, InArrow(), InPandas())]
    assert passes[0][0] == [0, 1, 2, 3, 4, 5, 6]
    assert passes[1] == passes[2] == passes[0]
    assert in_log(run) == [[IDS[int(value)] for value in batch] for held in passes for batch in held]


def test_types_are_asked_for_of_all_columns_or_of_each(run: Run) -> None:
    data = people(run)
    types = dict.fromkeys(("id", "value", "group"), torch.float64)
    held = train(data, dtypes=torch.float64) + train(data, dtypes=types)
    assert in_log(run) == [[IDS[int(value)] for value in batch] for batch in held]


def test_rows_go_on_or_are_dropped_by_their_stage(run: Run) -> None:
    def even(row: dict[str, Any]) -> bool:
        assert set(row) == {"id", "value", "group"}
        return row["value"] % 2 == 0

    clean = people(run).transform("clean", {"why": "test"}).filter(even)
    doubled = clean.transform("double").map(lambda row: {"value": row["value"] * 2, "group": row["group"]})
    last = doubled.transform("first group").map_batches(
        lambda batch: {name: column[batch["group"] == 0] for name, column in batch.items()}, batch_size=4
    )
    held = train(last)
    truth = [n for n in range(ROWS) if n % 2 == 0 and n % 3 == 0]
    assert sorted(chain(*held)) == [2 * n for n in truth]
    assert in_log(run) == [[IDS[int(value) // 2] for value in batch] for batch in held]
    said = stages(run.path)
    names = {name: sorted(_rows(run, event, "dropped") for event in events) for name, events in said.items()}
    assert list(chain(*names["clean"])) == [n for n in range(ROWS) if n % 2]
    assert list(chain(*names["double"])) == []
    assert list(chain(*names["first group"])) == [n for n in range(ROWS) if n % 2 == 0 and n % 3]
    assert said["clean"][0]["parameters"]["why"] == "test"


def _rows(run: Run, event: dict[str, Any], column: str) -> list[int]:
    said = read_told(run.path)
    ids = next(e["ids"] for e in said.kind("samples") if e["block"] == event["block"])
    return sorted(IDS.index(said.rows[ids[32 * o : 32 * o + 32]]) for o in event.get(column, np.zeros(0, int)).tolist())


def test_flat_map_makes_children_of_its_rows(run: Run) -> None:
    def cut(row: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"value": row["value"] * 100 + n} for n in range(int(row["group"]))]

    parts = people(run).transform("cut").flat_map(cut)
    assert len(parts) == sum(n % 3 for n in range(ROWS))
    held = train(parts.random_shuffle())
    logged = in_log(run)
    ids = {key: sample for sample, key in read_told(run.path).rows.items() if isinstance(key, int)}
    for values, keys in zip(held, logged, strict=True):
        for value, (stage, parents, number) in zip(values, keys, strict=True):
            assert (stage, number) == ("cut", value % 100)
            assert parents == [ids[IDS[int(value) // 100]]]
    dropped = [row for event in stages(run.path)["cut"] for row in _rows(run, event, "dropped")]
    assert dropped == [n for n in range(ROWS) if n % 3 == 0]
    history = fgtrac.open(run.path).history("people:1005")
    assert "cut" in str(history)


def test_a_batch_function_that_repeats_rows_makes_children(run: Run) -> None:
    twice = (
        people(run)
        .transform("twice")
        .map_batches(lambda batch: {name: np.repeat(column, 2, axis=0) for name, column in batch.items()})
    )
    assert len(twice) == 2 * ROWS
    held = train(twice)
    for values, keys in zip(held, in_log(run), strict=True):
        assert [stage for stage, _parents, _n in keys] == ["twice"] * len(values)


@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "pyarrow"])
def test_a_batch_function_that_is_aligned_sees_no_number(run: Run, batch_format: str) -> None:
    def same(batch: Any) -> Any:
        assert "fgtrac_row" not in (batch.column_names if batch_format == "pyarrow" else list(batch))
        return batch

    data = people(run).transform("same").map_batches(same, aligned=True, batch_format=batch_format)
    held = train(data)
    assert in_log(run) == [[IDS[int(value)] for value in batch] for batch in held]


def test_a_function_that_changes_cells_in_place_changes_them_once(run: Run) -> None:
    def more(batch: Any) -> Any:
        for cell in batch["cell"]:
            cell["n"] += 1
        return batch

    cells = [{"n": 1}, {"n": 5}]
    items = ray.data.from_items([{"cell": cell} for cell in cells], override_num_blocks=1)
    made = ray_data.trace(run, items).transform("more").map_batches(more)
    assert [row["cell"] for row in made.dataset.take_all()] == [{"n": 2}, {"n": 6}]
    frame = pd.DataFrame({"cell": pd.Series(cells, dtype=object), "fgtrac_row": [0, 1]})  # Ray may give it such a one
    carried(more, aligned=False, check=True)(frame)
    assert cells == [{"n": 2}, {"n": 6}]


@pytest.mark.parametrize("batch_format", ["numpy", "pandas"])
@pytest.mark.parametrize("cell", [threading.Lock(), torch.ones(1, requires_grad=True) * 2], ids=["lock", "graph"])
def test_a_cell_that_cannot_be_copied_needs_check_false(batch_format: str, cell: Any) -> None:
    batch: Any = {"cell": np.fromiter([cell], dtype=object), "fgtrac_row": np.array([0])}
    batch = pd.DataFrame(batch) if batch_format == "pandas" else batch
    with pytest.raises(ValueError, match=r"a cell of the batch cannot be copied, .*: pass check=False .*Error: "):
        carried(lambda batch: batch, aligned=False, check=True)(batch)
    assert list(carried(lambda batch: batch, aligned=False, check=False)(batch)["cell"]) == [cell]


def test_more_arguments_reach_a_function_as_rays_do(run: Run) -> None:
    few = people(run).transform("few").filter(lambda row, below: row["id"] < below, fn_args=(1003,))
    more = few.transform("more").map(lambda row, by: {"value": row["value"] + by}, fn_kwargs={"by": 10})
    twice = more.transform("twice").map_batches(lambda batch, by: {**batch, "value": batch["value"] * by}, fn_args=(2,))
    each = twice.transform("each").flat_map(lambda row, times: [row] * times, fn_kwargs={"times": 2})
    assert sorted(row["value"] for row in each.dataset.take_all()) == [20, 20, 22, 22, 24, 24]


def test_rows_in_a_block_that_fails_are_not_dropped_whatever_ray_may_leave_out(run: Run) -> None:
    def broken(row: dict[str, Any]) -> dict[str, Any]:
        if row["id"] == 1001:
            raise RuntimeError("a worker broke")
        return row

    def loses(batch: dict[str, Any]) -> dict[str, Any]:
        return {"id": batch["id"]} if 1001 in batch["id"] else batch

    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1
    try:
        data = people(run)
        with pytest.raises(RayError, match="a worker broke"):
            data.transform("broken").map(broken)
        with pytest.raises(ValueError, match="has no column fgtrac_row"):
            data.transform("loses").map_batches(loses)
        failing = data.dataset.drop_columns(["fgtrac_row"]).map(broken)
        with pytest.raises(RayError, match="a worker broke"):
            ray_data.trace(run, failing, name="some", key="id")
        assert failing.context.max_errored_blocks == -1
    finally:
        context.max_errored_blocks = 0
    run.close()
    assert stages(run.path) == {}


def test_a_key_that_is_missing_is_told_by_its_row(run: Run) -> None:
    blocks = [pa.table({"id": pa.array(ids, pa.int64())}) for ids in ([10, 11], [12, None])]
    with pytest.raises(TypeError, match=r"the key of row 3 of 'some': None of type NoneType is no key"):
        ray_data.trace(run, ray.data.from_arrow(blocks), name="some", key="id")


def test_stages_and_passes_over_no_rows_are_empty(run: Run) -> None:
    none = people(run).transform("none").flat_map(lambda row: [])
    assert len(none) == len(none.transform("more").map(lambda row: row)) == 0
    assert len(none.transform("cut").flat_map(lambda row: [row])) == 0
    assert list(none.iter_torch_batches(role="train", batch_size=2)) == []
    run.close()
    assert sorted(_rows(run, stages(run.path)["none"][0], "dropped")) == list(range(ROWS))


def test_names_that_are_lost_or_invented_are_refused(run: Run) -> None:
    data = people(run)

    def refused(words: str, function: Any, verb: str = "map_batches", **options: Any) -> None:
        with pytest.raises(ValueError, match=rf"stage 'refused': {verb}\(\): .*{words}"):
            getattr(data.transform("refused"), verb)(function, **options)

    refused("has no column fgtrac_row", lambda batch: {"value": batch["value"]})
    refused("numbers that no row", lambda batch: {**batch, "fgtrac_row": batch["fgtrac_row"] + 1000}, check=False)
    refused("names other rows", lambda batch: {"fgtrac_row": np.array([batch["fgtrac_row"].max()])})
    refused("gave 3 rows for a batch", lambda batch: {"value": batch["value"][:3]}, aligned=True)
    refused("rename it", lambda row: {"fgtrac_row": 1}, "map")
    refused("gave a NoneType, and no row: return one dict for each row", lambda row: None, "map")
    refused("gave a NoneType, and no rows: return a list of dicts, empty where", lambda row: None, "flat_map")
    refused("gave a str, and no row: return a list of dicts", lambda row: row, "flat_map")
    with pytest.raises(TypeError, match="a stage takes a function, not"):
        data.transform("refused").map_batches(dict)
    with pytest.raises(ValueError, match="a column is named 'fgtrac_row'"):
        ray_data.trace(run, data.dataset)
    run.close()
    assert stages(run.path) == {}
