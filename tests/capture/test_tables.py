"""Tables under trace: what each stage of pandas, polars and pyarrow says, against what the rows themselves say.

Column `n` of every frame is the row's number in its source, so that whatever comes out tells where it came from.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from fgtrac.api.run import Run, start_run
from fgtrac.capture.contents import code_digest
from fgtrac.errors import CaptureError
from table_frames import Make, column, fate, ids_at, in_each_library, parents, same, spans

Read = Callable[[Path], Any]
PEOPLE = {"n": [0, 1, 2, 3, 4, 5], "age": [30, 12, 41, 30, None, 41], "name": ["a", "b", "c", "a", "e", "c"]}
LABELS = {"n2": [0, 1, 2], "name": ["a", "c", "z"], "label": [1, 2, 3]}


def source(run: Run, make: Make, columns: dict[str, list[Any]], name: str = "people") -> Any:
    frame = make(columns)
    run.register(frame, name=name)
    return frame


def named(name: str, numbers: list[Any]) -> list[tuple[str, Any]]:
    return [(name, number) for number in sorted(numbers)]


def is_old(frame: Any) -> Any:
    if isinstance(frame, pa.Table):
        return pc.greater(frame["age"], 20)
    return pl.col("age") > 20 if isinstance(frame, pl.DataFrame | pl.LazyFrame) else frame["age"] > 20


@in_each_library("filter")
def test_a_filter_says_which_rows_it_kept_and_which_it_dropped(run: Run, log: Read, make: Make) -> None:
    frame = source(run, make, PEOPLE)
    old = run.transform("old", frame, {"more than": 20}).filter(is_old)
    ids, all_ids = ids_at(run, old), ids_at(run, frame)
    run.close()
    kept = column(old, "n")
    assert kept == [0, 2, 3, 5]
    assert ids == [all_ids[n] for n in kept]
    said = log(run.path)
    assert fate(said, "old") == {"kept": named("people", kept), "dropped": named("people", [1, 4])}
    entry = said.kind("transform")[0]
    assert (entry["operation"], entry["parameters"], entry["code"]) == (
        "filter",
        {"more than": 20},
        code_digest(is_old),
    )


@in_each_library("filter by an expression or a mask")
def test_a_filter_takes_the_librarys_expressions_and_masks(run: Run, log: Read, make: Make) -> None:
    frame = source(run, make, PEOPLE)
    condition = {
        pd.DataFrame: lambda: frame["age"] > 20,
        pa.Table: lambda: pc.field("age") > 20,
    }.get(type(frame), lambda: pl.col("age") > 20)()
    assert column(run.transform("old", frame).filter(condition), "n") == [0, 2, 3, 5]
    assert column(run.transform("some", frame).filter([True, False] * 3), "n") == [0, 2, 4]
    with pytest.raises(ValueError, match="mask of 2 for 6 rows"):
        run.transform("short", frame).filter([True, False])
    run.close()
    said = log(run.path)
    assert fate(said, "some") == {"kept": named("people", [0, 2, 4]), "dropped": named("people", [1, 3, 5])}


@in_each_library("sort, shuffle and select")
def test_rows_in_another_order_are_the_same_samples(run: Run, log: Read, make: Make) -> None:
    frame = source(run, make, PEOPLE)
    all_ids = ids_at(run, frame)
    made = {
        "by name": run.transform("by name", frame).sort("name", descending=True),
        "mixed": run.transform("mixed", frame).shuffle(seed=3),
        "some": run.transform("some", frame).select([4, 0, 4]),
    }
    for stage, result in made.items():
        assert ids_at(run, result) == [all_ids[n] for n in column(result, "n")], stage
    run.close()
    assert column(made["by name"], "name") == sorted(PEOPLE["name"], reverse=True)
    assert column(made["mixed"], "n") == np.random.default_rng(3).permutation(6).tolist()
    assert column(made["some"], "n") == [4, 0, 4]
    said = log(run.path)
    assert fate(said, "mixed") == {"kept": named("people", list(range(6)))}
    assert fate(said, "some") == {"kept": named("people", [0, 4]), "dropped": named("people", [1, 2, 3, 5])}


@in_each_library("deduplicate")
def test_deduplication_names_the_row_that_a_dropped_one_repeats(run: Run, log: Read, make: Make) -> None:
    frame = source(run, make, PEOPLE)
    once = run.transform("once", frame).deduplicate(["age", "name"])
    run.transform("all columns", frame).deduplicate()
    run.close()
    assert column(once, "n") == [0, 1, 2, 4]
    said = log(run.path)
    assert fate(said, "once") == {"kept": named("people", [0, 1, 2, 4]), "dropped": named("people", [3, 5])}
    (entry,) = (e for e in said.kind("transform") if "same_as" in e)
    twins = [said.names[entry["same_as"][32 * n : 32 * n + 32]][1] for n in range(2)]
    assert dict(zip(said.keys(entry["block"], entry["dropped"]), twins, strict=True)) == {3: 0, 5: 2}
    assert fate(said, "all columns") == {"kept": named("people", list(range(6)))}


@in_each_library("map")
def test_a_map_keeps_every_row_and_gives_what_the_function_gives_alone(run: Run, log: Read, make: Make) -> None:
    frame = source(run, make, PEOPLE)

    def twice(table: Any) -> Any:
        if isinstance(table, pa.Table):
            return table.set_column(0, "n", pc.multiply(table["n"], 2))
        if isinstance(table, pd.DataFrame):
            return table.assign(n=table["n"] * 2)
        return table.with_columns(pl.col("n") * 2)

    doubled = run.transform("twice", frame).map(twice)
    ids = ids_at(run, doubled)
    assert same(doubled, twice(make(PEOPLE)))
    assert ids == ids_at(run, frame)
    with pytest.raises(ValueError, match=r"map\(\) got 3 rows for 6, or in another order"):
        run.transform("cut", frame).map(
            lambda table: table[:3] if not isinstance(table, pl.LazyFrame) else table.head(3)
        )
    run.close()
    assert fate(log(run.path), "twice") == {"kept": named("people", list(range(6)))}


@in_each_library("train_test_split")
def test_a_split_names_the_part_of_every_row(run: Run, log: Read, make: Make) -> None:
    frame = source(run, make, PEOPLE)
    train, test = run.transform("split", frame).train_test_split(1 / 3, seed=5)
    parts = run.transform("by name", frame).split(["x", "y", None, "x", "y", "x"])
    run.close()
    assert sorted(column(train, "n") + column(test, "n")) == list(range(6))
    assert len(column(test, "n")) == 2
    assert {name: column(part, "n") for name, part in parts.items()} == {"x": [0, 3, 5], "y": [1, 4]}
    said = log(run.path)
    assert fate(said, "split") == {
        "kept train": named("people", column(train, "n")), "kept test": named("people", column(test, "n")),
    }  # fmt: skip
    assert fate(said, "by name") == {
        "kept x": named("people", [0, 3, 5]), "kept y": named("people", [1, 4]), "dropped": named("people", [2]),
    }  # fmt: skip


@in_each_library("concatenate two sources")
def test_rows_of_two_sources_stay_their_samples_end_to_end(run: Run, log: Read, make: Make) -> None:
    one, two = source(run, make, PEOPLE, "one"), source(run, make, PEOPLE, "two")
    both = run.transform("both", one).concat(two)
    assert ids_at(run, both) == ids_at(run, one) + ids_at(run, two)
    old = run.transform("old", both).filter(is_old)
    run.close()
    assert column(both, "n") == [*range(6), *range(6)]
    said = log(run.path)
    assert fate(said, "both") == {"kept": named("one", list(range(6))) + named("two", list(range(6)))}
    assert fate(said, "old")["dropped"] == [("one", 1), ("one", 4), ("two", 1), ("two", 4)]
    assert column(old, "n") == [0, 2, 3, 5] * 2


@pytest.mark.parametrize("how", ["inner", "left", "right", "outer"])
@in_each_library("join two sources")
def test_a_joined_row_is_a_new_sample_with_parents_on_both_sides(run: Run, log: Read, make: Make, how: str) -> None:
    people, labels = source(run, make, PEOPLE), source(run, make, LABELS, "labels")
    joined = run.transform("join", people).join(labels, on="name", how=how)
    ids = ids_at(run, joined)
    run.close()
    truth = [
        [("labels", b)] * (b is not None) + [("people", a)] * (a is not None)
        for a, b in zip(column(joined, "n"), column(joined, "n2"), strict=True)
    ]
    assert len(truth) == {"inner": 4, "left": 6, "right": 5, "outer": 7}[how]
    said = log(run.path)
    assert parents(said, "join") == dict(zip(ids, truth, strict=True))
    gone = {
        "people": {1, 4} if how in ("inner", "right") else set(),
        "labels": {2} if how in ("inner", "left") else set(),
    }
    assert fate(said, "join").get("dropped", []) == [(name, n) for name in sorted(gone) for n in sorted(gone[name])]


@in_each_library("explode")
def test_each_item_of_a_list_becomes_a_new_sample(run: Run, log: Read, make: Make) -> None:
    frame = source(run, make, {"n": [0, 1, 2], "words": [["a", "b"], ["c"], ["d", "d", "d"]]})
    words = run.transform("words", frame).explode("words")
    ids = ids_at(run, words)
    run.close()
    assert column(words, "words") == ["a", "b", "c", "d", "d", "d"]
    assert len(set(ids)) == 6
    assert parents(log(run.path), "words") == {i: [("people", n)] for i, n in zip(ids, column(words, "n"), strict=True)}


@in_each_library("group and aggregate")
def test_a_group_has_all_its_rows_for_parents(run: Run, log: Read, make: Make) -> None:
    frame = source(run, make, PEOPLE)

    def sums(groups: Any) -> Any:
        if isinstance(frame, pd.DataFrame):
            return groups.agg(total=("n", "sum"))
        return groups.aggregate([("n", "sum")]) if isinstance(frame, pa.Table) else groups.agg(pl.col("n").sum())

    grouped = run.transform("sums", frame).aggregate("name", sums)
    ids = ids_at(run, grouped)
    run.close()
    keys = grouped.index.tolist() if isinstance(grouped, pd.DataFrame) else column(grouped, "name")
    truth = {key: [n for n, name in enumerate(PEOPLE["name"]) if name == key] for key in keys}
    sums_there = column(grouped, {pd.DataFrame: "total", pa.Table: "n_sum"}.get(type(grouped), "n"))
    assert sums_there == [sum(truth[key]) for key in keys]
    assert parents(log(run.path), "sums") == {i: named("people", truth[key]) for i, key in zip(ids, keys, strict=True)}


@in_each_library("tokenise in windows, and pack")
def test_windows_and_packed_rows_say_which_tokens_of_whom_they_have(run: Run, log: Read, make: Make) -> None:
    texts = ["abcde", "", "fg", "h", "ijklmnop"]
    frame = source(run, make, {"n": list(range(5)), "text": texts})
    cut = run.transform("windows", frame).tokenise(lambda text: [ord(c) for c in text], "text", size=3)
    windows = list(zip(ids_at(run, cut), column(cut, "n"), column(cut, "tokens"), strict=True))
    whole = run.transform("tokens", frame).tokenise(lambda text: [ord(c) for c in text], "text")
    packed = run.transform("pack", whole).pack("tokens", 4)
    rows = list(zip(ids_at(run, packed), column(packed, "tokens"), strict=True))
    assert ids_at(run, whole) == ids_at(run, frame)
    run.close()
    said = log(run.path)
    found = spans(said, "windows")
    assert {i: (n, "".join(map(chr, tokens))) for i, n, tokens in windows} == {
        i: (n, texts[n][start:stop]) for i, ((n, start, stop),) in found.items()
    }
    assert [list(map(len, column(cut, "tokens")))] == [[3, 2, 2, 1, 3, 3, 2]]
    assert fate(said, "windows") == {"dropped": named("people", [1])}
    stream = "".join(texts)
    assert ["".join(map(chr, tokens)) for _, tokens in rows] == [stream[n : n + 4] for n in range(0, 16, 4)]
    for sample, tokens in rows:
        assert "".join(texts[n][a:b] for n, a, b in sorted(spans(said, "pack")[sample])) == "".join(map(chr, tokens))
    assert fate(said, "pack") == {"dropped": named("people", [1])}


@in_each_library("any function (apply)")
def test_any_function_of_frames_says_through_the_carried_column_what_it_did(run: Run, log: Read, make: Make) -> None:
    frame = source(run, make, PEOPLE)

    def oldest_first(table: Any) -> Any:
        if isinstance(table, pd.DataFrame):
            return table.dropna(subset=["age"]).sort_values(["age", "n"], ascending=[False, True])
        if isinstance(table, pa.Table):
            return table.filter(pc.field("age").is_valid()).sort_by([("age", "descending"), ("n", "ascending")])
        return table.drop_nulls("age").sort("age", "n", descending=[True, False])

    made = run.transform("oldest", frame).apply(oldest_first)
    assert same(made, oldest_first(make(PEOPLE)))
    assert ids_at(run, made) == [ids_at(run, frame)[n] for n in column(made, "n")]
    run.close()
    assert column(made, "n") == [2, 5, 0, 3, 1]
    said = log(run.path)
    assert fate(said, "oldest") == {"kept": named("people", [0, 1, 2, 3, 5]), "dropped": named("people", [4])}
    assert said.kind("transform")[0]["code"] == code_digest(oldest_first)


@in_each_library("a function of two frames", lazy=False)
def test_a_function_of_several_frames_gives_rows_with_parents_in_each(run: Run, log: Read, make: Make) -> None:
    people, labels = source(run, make, PEOPLE), source(run, make, LABELS, "labels")

    def beside(left: Any, right: Any) -> Any:
        if isinstance(left, pd.DataFrame):
            return left.merge(right, on="name")
        return (
            left.join(right, on="name") if isinstance(left, pl.DataFrame) else left.join(right, "name", None, "inner")
        )

    made = run.transform("beside", (people, labels)).apply(beside, check=not isinstance(people, pa.Table))
    rows = zip(ids_at(run, made), column(made, "n"), column(made, "n2"), strict=True)
    truth = {i: [("labels", b), ("people", a)] for i, a, b in rows}
    run.close()
    assert len(truth) == 4
    assert parents(log(run.path), "beside") == truth


def test_a_function_may_give_several_frames(run: Run, log: Read) -> None:
    frame = source(run, pd.DataFrame, PEOPLE)
    low, high = run.transform("halves", frame).apply(lambda f: (f[f["n"] < 2], f[f["n"] > 3]))
    parts = run.transform("named", frame).apply(lambda f: {"few": f.head(1), "more": f.head(3)})
    run.close()
    assert (column(low, "n"), column(high, "n"), list(parts)) == ([0, 1], [4, 5], ["few", "more"])
    said = log(run.path)
    assert fate(said, "halves") == {
        "kept 0": named("people", [0, 1]), "kept 1": named("people", [4, 5]), "dropped": named("people", [2, 3]),
    }  # fmt: skip
    assert fate(said, "named") == {
        "kept few": named("people", [0]),
        "kept more": named("people", [0, 1, 2]),
        "dropped": named("people", [3, 4, 5]),
    }


def test_rows_that_come_out_twice_are_new_samples(run: Run, log: Read) -> None:
    frame = source(run, pd.DataFrame, PEOPLE)
    twice = run.transform("twice", frame).apply(lambda f: pd.concat([f, f]))
    ids = ids_at(run, twice)
    run.close()
    assert len(set(ids)) == 12
    assert parents(log(run.path), "twice") == {i: [("people", n)] for i, n in zip(ids, column(twice, "n"), strict=True)}


def test_groups_that_carry_their_rows_as_a_list_have_them_for_parents(run: Run, log: Read) -> None:
    frame = source(run, pl.DataFrame, PEOPLE)
    made = run.transform("groups", frame).apply(
        lambda f: f.group_by("name", maintain_order=True).agg(pl.col("n").sum(), *(pl.col(c) for c in f.columns[3:]))
    )
    ids = ids_at(run, made)
    run.close()
    assert set(made.columns) == {"name", "n"}
    truth = {name: [n for n, other in enumerate(PEOPLE["name"]) if other == name] for name in made["name"]}
    assert parents(log(run.path), "groups") == {
        i: named("people", truth[k]) for i, k in zip(ids, made["name"], strict=True)
    }


@in_each_library("a column that looks at all columns is refused", lazy=False)
def test_a_function_that_the_carried_column_changes_is_refused(run: Run, make: Make) -> None:
    frame = source(run, make, {"a": [1, 1, 2]})

    def once(table: Any) -> Any:
        if isinstance(table, pd.DataFrame):
            return table.drop_duplicates()
        if isinstance(table, pa.Table):
            names = [name for name in table.column_names if name != "fgtrac_row"]
            return table if "fgtrac_row" in table.column_names else table.group_by(names).aggregate([])
        return table.unique(maintain_order=True)

    with pytest.raises(ValueError, match="gives something else when the frame has one more column, fgtrac_row"):
        run.transform("once", frame).apply(once)


def test_a_function_that_loses_the_column_is_refused_with_the_remedy(run: Run) -> None:
    frame = source(run, pd.DataFrame, PEOPLE)
    with pytest.raises(ValueError, match=r"no column fgtrac_row.*let it keep that column.*record\(frame, parents\)"):
        run.transform("one column", frame).apply(lambda f: f[["n"]])
    with pytest.raises(TypeError, match="gave a Series, and no table"):
        run.transform("series", frame).apply(lambda f: f["n"])
    with pytest.raises(ValueError, match="it has fractions"):
        run.transform("halved", frame).apply(lambda f: f / 2 if "fgtrac_row" not in f else f.assign(fgtrac_row=0.5))
    with pytest.raises(ValueError, match="numbers outside 0 to 5"):
        run.transform("shifted", frame).apply(lambda f: f.assign(fgtrac_row=f["n"] + 1))
    with pytest.raises(ValueError, match=r"row 6 of what came out \(1 in all\) is made of no row that went in"):
        run.transform("more", frame).apply(lambda f: pd.concat([f, pd.DataFrame({"n": [9]})]))
    made = run.transform("aligned", frame).map(lambda f: f[["n"]], aligned=True)
    assert list(made.columns) == ["n"]
    assert ids_at(run, made) == ids_at(run, frame)


def test_arguments_that_do_not_fit_are_refused_in_one_line(run: Run) -> None:
    frame, other = source(run, pd.DataFrame, PEOPLE), source(run, pl.DataFrame, PEOPLE, "other")
    cases: list[tuple[type[Exception], str, Callable[[Any], Any]]] = [
        (ValueError, "how='cross' is no join", lambda s: s.join(frame, "n", "cross")),
        (TypeError, "frames of pandas, polars", lambda s: s.concat(other)),
        (TypeError, "the other table is a list", lambda s: s.concat([1])),
        (ValueError, "positions outside 0 to 5", lambda s: s.select([6])),
        (ValueError, "2 names for 6 rows", lambda s: s.split(["a", "b"])),
        (ValueError, "give shares up to 1, and a seed", lambda s: s.split({"a": 0.5})),
        (ValueError, "size=0 is no number", lambda s: s.tokenise(list, "name", size=0)),
        (ValueError, "1 rows for 4 groups", lambda s: s.aggregate("name", lambda g: g.sum().head(1))),
    ]
    for kind, words, verb in cases:
        with pytest.raises(kind, match=words):
            verb(run.transform("stage", frame))
    with pytest.raises(ValueError, match="takes one table, and the stage has 2"):
        run.transform("stage", [frame, frame]).sort("n")
    with pytest.raises(ValueError, match="a column is named 'fgtrac_row'"):
        run.transform("stage", pd.DataFrame({"fgtrac_row": [1]}))


def test_samples_are_named_by_a_column_and_belong_to_their_subjects(run: Run, log: Read) -> None:
    for number, make in enumerate((pd.DataFrame, pl.DataFrame, pa.table)):
        run.register(make({"id": ["p", "q"], "who": ["ann", "bob"]}), name=f"t{number}", key="id", subject="who")
    run.close()
    said = {(name, key): subject for name, key, subject in log(run.path).names.values()}
    assert said == {(f"t{n}", key): who for n in range(3) for key, who in (("p", "ann"), ("q", "bob"))}


class Rows(Dataset):
    """A data set over a frame."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.numbers = frame["n"].tolist()

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.tensor([float(self.numbers[row])])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.matrix("pandas", "filter, deduplicate, split, then a DataLoader", attribution="exact")
def test_what_comes_out_trains_as_the_samples_that_it_came_from(run: Run, log: Read, workers: int) -> None:
    frame = source(run, pd.DataFrame, {"n": list(range(40)), "x": [n // 2 for n in range(40)]})
    once = run.transform("once", run.transform("some", frame).filter(lambda f: f["n"] > 7)).deduplicate("x")
    train, _ = run.transform("split", once).train_test_split(0.5, seed=0)
    rows = Rows(train)
    run.register(rows, rows=train, role="train")
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    truth: list[int] = []
    context = {"multiprocessing_context": "fork"} if workers else {}
    for batch in run.watch(DataLoader(rows, batch_size=3, shuffle=True, num_workers=workers, **context)):
        truth += batch[:, 0].int().tolist()
        model(batch).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    run.close()
    used = [(use.key, use.attribution) for use in log(run.path).uses() if use.status == "applied"]
    assert sorted(used) == sorted((n, "exact") for n in truth)
    assert len(truth) == 8


def test_stages_that_are_recorded_are_read_again_without_writing(tmp_path: Path, log: Read) -> None:
    def stages(run: Any) -> list[bytes]:
        people, labels = pd.DataFrame(PEOPLE), pd.DataFrame(LABELS)
        run.register(people, name="people")
        run.register(labels, name="labels")
        return ids_at(run, run.transform("join", run.transform("old", people).filter(is_old)).join(labels, on="name"))

    with start_run(tmp_path / "a", key=tmp_path / "key.pem") as run:
        first = stages(run)
    before = len(log(run.path).events)
    with start_run(tmp_path / "a", key=tmp_path / "key.pem", resume=True) as run:
        assert stages(run) == first
    assert [e["kind"] for e in log(run.path).events[before:]].count("transform") == 5


def test_what_a_stage_made_is_not_kept_alive(run: Run) -> None:
    frame = source(run, pd.DataFrame, PEOPLE)
    some = run.transform("some", frame).filter(is_old)
    gone = weakref.ref(some)
    sorted_ids = ids_at(run, run.transform("sorted", some).sort("n"))
    del some
    assert gone() is None
    assert sorted_ids == [ids_at(run, frame)[n] for n in (0, 2, 3, 5)]


@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_a_frame_whose_rows_were_changed_in_place_is_refused(run: Run) -> None:
    frame = source(run, pd.DataFrame, PEOPLE)
    some = run.transform("some", frame).filter(is_old)
    frame["more"] = 1  # a column more is no other row
    ids_at(run, frame)
    for changed in (frame, some):
        changed.sort_values("name", inplace=True)
        with pytest.raises(CaptureError, match=r"given another index in place; make changes through run.transform"):
            run.transform("again", changed)
