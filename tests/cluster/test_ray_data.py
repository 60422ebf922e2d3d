"""Rows of Ray Data keep their names: what the batches hold and what rows were made of, against what the trace says."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
import ray.data
import torch

import fgtrac
from fgtrac.api.run import Run
from fgtrac.events.schema import STATUS
from fgtrac.frameworks import ray_data
from told_truth import read_told

pytestmark = pytest.mark.filterwarnings("default", "error:fgtrac")  # Ray warns of itself
ROWS = 40
IDS = [1000 + n for n in range(ROWS)]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    tests = str(Path(__file__).parents[1])
    ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": tests}},
    )  # fmt: skip
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
    data = people(run).random_shuffle(seed=3).repartition(3)
    held = train(data) + train(data, local_shuffle_buffer_size=10, local_shuffle_seed=1)
    assert sorted(chain(*held[:6])) == list(range(ROWS))
    assert in_log(run) == [[IDS[int(value)] for value in batch] for batch in held]
    assert read_told(run.path).attributions == {"exact"}
    assert read_told(run.path).counts("sampler", "gap") == [2, 0]


def test_a_collate_function_and_types_see_no_number(run: Run) -> None:
    data = people(run).sort("value", descending=True)

    def collate(batch: dict[str, Any]) -> dict[str, Any]:
        assert set(batch) == {"id", "value", "group"}
        return {"value": torch.as_tensor(batch["value"])}

    held = train(data, collate_fn=collate)
    assert held[0] == [39, 38, 37, 36, 35, 34, 33]
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
    with pytest.raises(TypeError, match="a stage takes a function, not"):
        data.transform("refused").map_batches(dict)
    with pytest.raises(ValueError, match="a column is named 'fgtrac_row'"):
        ray_data.trace(run, data.dataset)
    run.close()
    assert stages(run.path) == {}
