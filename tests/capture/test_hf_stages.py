"""Stages over Hugging Face data sets: what they kept, dropped and made, as the rows tell it themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch.utils.data import DataLoader

import fgtrac
from fgtrac.api.run import Run, start_run
from fgtrac.errors import CaptureError
from hf_rows_truth import ROWS, ids_in, is_third, keys_of, made, pairs_of, said, stage, truth_of, words

Read = Callable[[Path], Any]

pytestmark = pytest.mark.filterwarnings("ignore:Specifying null_placement:FutureWarning")  # datasets, as it sorts


@pytest.mark.matrix("HF datasets", "transform: filter, select, shuffle, shard, sort, split, deduplicate, concatenate")
def test_stages_say_what_they_kept_and_dropped(run: Run, log: Read) -> None:
    data = made()
    run.register(data, name="rows")
    results = {
        "filter": run.transform("filter", data, {"why": "test"}).filter(is_third, batch_size=7),
        "select": run.transform("select", data).select([5, 5, 2]),
        "shuffle": run.transform("shuffle", data).shuffle(seed=1),
        "shard": run.transform("shard", data).shard(3, index=1),
        "sort": run.transform("sort", data).sort("text", reverse=True),
        "once": run.transform("once", data.shuffle(seed=2)).deduplicate("group"),
        "flat": run.transform("flat", data.shuffle(seed=2)).flatten_indices(),
        "both": run.transform("both", data.select([1, 2])).concat(data.select([9])),
        "apply": run.transform("apply", data).apply(lambda ds: ds.filter(is_third).shuffle(seed=1)),
        "none": run.transform("none", data).filter(lambda row: False),
    }
    plain = {
        "filter": data.filter(is_third),
        "shuffle": data.shuffle(seed=1),
        "shard": data.shard(3, 1),
        "sort": data.sort("text", reverse=True),
    }
    parts = run.transform("split", data).train_test_split(test_size=4, train_size=10, seed=0)
    run.close()
    found = log(run.path)
    for name, result in results.items():
        ids = set(ids_in(result))
        before = {1, 2, 9} if name == "both" else set(range(ROWS))
        assert set(said(found, name, "kept").get(None, [])) == ids, name
        assert set(said(found, name, "dropped").get(None, [])) == before - ids, name
    for name, result in plain.items():
        assert results[name].to_dict() == result.to_dict()
    assert said(found, "split", "kept") == {part: sorted(ids_in(parts[part])) for part in ("train", "test")}
    assert len(said(found, "split", "dropped")[None]) == ROWS - 14
    assert len(results["once"]) == 5
    assert len(results["none"]) == 0
    (entry,) = [e for e in stage(found, "filter") if "kept" in e]
    assert (entry["operation"], entry["parameters"]) == ("filter", {"batch_size": 7, "why": "test"})
    assert "code" in entry


def test_of_equal_rows_the_first_stays_and_its_twins_name_it(run: Run, log: Read) -> None:
    data = made(10).select([9, 4, 3, 8, 1])  # groups 4, 4, 3, 3, 1
    result = run.transform("once", data).deduplicate("group")
    run.close()
    assert ids_in(result) == [9, 3, 1]
    found = log(run.path)
    (entry,) = [e for e in stage(found, "once") if "dropped" in e]
    twins = [found.names[entry["same_as"][n : n + 32]][1] for n in range(0, len(entry["same_as"]), 32)]
    assert dict(zip(found.keys(entry["block"], entry["dropped"]), twins, strict=True)) == {4: 9, 8: 3}


def test_a_sample_that_stands_twice_is_no_twin_of_itself(run: Run, log: Read) -> None:
    data = made(6).select([3, 5, 3])
    assert ids_in(run.transform("once", data).deduplicate()) == [3, 5]
    with pytest.raises(ValueError, match=r"deduplicate\(\) got 'nr', which is no column; there are id, text, group"):
        run.transform("x", data).deduplicate(["id", "nr"])
    run.close()
    assert said(log(run.path), "once", "kept") == {None: [3, 5]}
    assert said(log(run.path), "once", "dropped") == {}


@pytest.mark.matrix(
    "HF datasets", "map one to one: row by row, in batches, with indices, in two processes, on all splits"
)
@pytest.mark.parametrize("processes", [None, 2])
def test_a_map_of_batches_keeps_every_row_itself(run: Run, log: Read, processes: int | None) -> None:
    data = made()
    run.register(data, name="rows")
    shuffled = data.shuffle(seed=1)

    def twice(batch: Any, places: Any) -> Any:
        return {"twice": [2 * i for i in batch["id"]], "place": places}

    options = {"batched": True, "batch_size": 5, "with_indices": True, "num_proc": processes}
    result = run.transform("twice", shuffled).map(twice, **options)
    assert result.to_dict() == shuffled.map(twice, **options).to_dict()
    assert result.features == shuffled.map(twice, **options).features
    assert keys_of(run, result.shuffle(seed=2)) == [("rows", i) for i in ids_in(result.shuffle(seed=2))]
    single = run.transform("single", result).map(lambda row: {"id": row["id"], "n": 1}, remove_columns=["text"])
    assert keys_of(run, single) == [("rows", i) for i in ids_in(single)]
    run.close()
    assert said(log(run.path), "twice", "kept") == {None: list(range(ROWS))}
    assert said(log(run.path), "single", "kept") == {None: list(range(ROWS))}


def test_a_stage_over_splits_gives_splits(run: Run, log: Read) -> None:
    parts = made().train_test_split(test_size=6, seed=0)
    result = run.transform("long", parts).filter(lambda row: row["text"] != "")
    tokens = run.transform("words", result).tokenise(words, parents="of", remove_columns=["text", "id", "group"])
    with pytest.raises(AttributeError, match="a stage over a DatasetDict has no 'concat'; it has filter"):
        run.transform("x", parts).concat()
    run.close()
    assert isinstance(result, datasets.DatasetDict)
    found = log(run.path)
    assert said(found, "long", "kept") == {name: sorted(ids_in(part)) for name, part in result.items()}
    assert {e["name"]: e["rows"] for e in found.kind("dataset") if "/" in e["name"]} == {
        f"words/{name}": len(part) for name, part in tokens.items()
    }


@pytest.mark.matrix("HF datasets", "tokenise, one row to many, in batches and in two processes, out of the cache too")
@pytest.mark.parametrize("processes", [None, 2])
def test_rows_made_of_one_row_name_it(run: Run, log: Read, tmp_path: Path, processes: int | None) -> None:
    made().save_to_disk(tmp_path / "data")
    data = datasets.load_from_disk(tmp_path / "data")
    run.register(data, name="rows")
    shuffled = data.shuffle(seed=1)
    options = {"batch_size": 5, "remove_columns": data.column_names, "num_proc": processes}
    result = run.transform("words", shuffled).tokenise(words, parents="of", **options)
    assert result.to_dict() == shuffled.map(words, batched=True, **options).to_dict()
    truth = truth_of(run, result.shuffle(seed=2), lambda row: [row["from"]])
    with start_run(tmp_path / "second", key=tmp_path / "key.pem") as second:
        second.register(data, name="rows")
        again = second.transform("words", shuffled).tokenise(words, parents="of", **options)
        assert again._data.table.equals(result._data.table)
        assert again.cache_files == result.cache_files  # the function was not called again
        cached = truth_of(second, again, lambda row: [row["from"]])
    run.close()
    assert pairs_of(log(run.path), "words") == truth
    assert pairs_of(log(second.path), "words") == cached
    assert said(log(run.path), "words", "dropped") == {None: [i for i in range(ROWS) if i % 4 == 0]}
    assert {e["operation"] for e in stage(log(run.path), "words")} == {"tokenise"}


def gather(batch: Any) -> dict[str, list[Any]]:
    """Three rows of a batch as one; the last one has what is left."""
    cuts = [list(range(n, min(n + 3, len(batch["id"])))) for n in range(0, len(batch["id"]), 3)]
    return {"ids": [[batch["id"][p] for p in cut] for cut in cuts], "made_of": cuts}


@pytest.mark.matrix("HF datasets", "many rows to one, in batches")
def test_rows_made_of_many_name_them_all(run: Run, log: Read) -> None:
    data = made()
    run.register(data, name="rows")
    options = {"batched": True, "batch_size": 7, "remove_columns": data.column_names}
    result = run.transform("gather", data.shuffle(seed=1)).map(gather, parents="made_of", **options)
    truth = truth_of(run, result, lambda row: row["ids"])
    run.close()
    assert pairs_of(log(run.path), "gather") == truth
    assert {e["operation"] for e in stage(log(run.path), "gather")} == {"pack"}


@pytest.mark.matrix("HF datasets", "pack: rows of tokens laid end to end, with the spans that each row has")
def test_packed_rows_say_which_tokens_of_which_rows_they_have(run: Run, log: Read) -> None:
    lists = [[1000 * i + n for n in range(i % 5)] for i in range(ROWS)]
    data = datasets.Dataset.from_dict({"id": list(range(ROWS)), "tokens": lists})
    run.register(data, name="rows")
    shuffled = data.shuffle(seed=1)
    result = run.transform("pack", shuffled).pack("tokens", 4)
    end_to_end = [token for row in shuffled["tokens"] for token in row]
    assert result["tokens"][:] == [end_to_end[n : n + 4] for n in range(0, len(end_to_end) - 3, 4)]
    assert result.features["tokens"] == data.features["tokens"]
    ids = [bytes(i) for i in run._registry.resolve(result).ids()]
    run.close()
    found = log(run.path)
    pieces = {}
    for entry in (e for e in stage(found, "pack") if "parents" in e):
        rows = found.keys(entry["block"], entry["parents"])
        born = [found.blocks()[entry["child_block"]][child] for child in entry["children"]]
        for row, child, start, stop in zip(rows, born, entry["starts"], entry["stops"], strict=True):
            pieces.setdefault(child, []).append([1000 * row + n for n in range(start, stop)])
    for child, tokens in zip(ids, result["tokens"], strict=True):
        assert sorted(t for piece in pieces[child] for t in piece) == sorted(tokens)


@pytest.mark.parametrize("kind", ["arrow", "pandas", "polars"])
def test_functions_of_tables_are_traced_too(run: Run, log: Read, kind: str) -> None:
    data = made()
    run.register(data, name="rows")
    result = run.transform("same", data.with_format(kind)).map(lambda table: table, batched=True, batch_size=7)
    assert keys_of(run, result) == [("rows", i) for i in range(ROWS)]
    assert result.with_format(None).to_dict() == data.to_dict()


def test_the_features_that_are_given_are_those_that_come_out(run: Run) -> None:
    features = datasets.Features(
        {"word": datasets.Value("large_string"), "of": datasets.Value("int32"), "from": datasets.Value("int16")}
    )
    data = made()
    options = {"features": features, "remove_columns": data.column_names}
    result = run.transform("words", data).tokenise(words, parents="of", **options)
    assert result.features == features


def test_a_packed_token_is_trained_as_a_sample_of_its_own(run: Run, log: Read) -> None:
    data = made()
    tokens = run.transform("words", data).tokenise(words, parents="of", remove_columns=data.column_names)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = tokens.with_format("torch").shuffle(seed=1).select(range(8))
    for batch in run.watch(DataLoader(seen, batch_size=4), role="train"):
        model(batch["from"].float()[:, None]).sum().backward()
        optimizer.step()
    ids = {bytes(i) for i in run._registry.resolve(seen).ids()}
    run.close()
    trace = fgtrac.open(run.path)
    assert {u.dataset for u in log(run.path).uses()} == {"words"}
    assert all(trace.history(f"id:{sample.hex()}").uses == 1 for sample in ids)


@pytest.mark.matrix("HF datasets", "a function whose rows cannot be told: refused with the remedy")
@pytest.mark.parametrize(
    ("function", "options", "match"),
    [
        (
            words,
            {},
            r"the function made \d+ rows of a batch of 24, and nobody can tell which of which: let it give a col",
        ),
        (lambda batch: {"x": [1]}, {"parents": "of"}, "the function gave no column 'of', as parents= says"),
        (lambda batch: {"x": [1], "of": [99]}, {"parents": "of"}, r"the places \[99\] of a batch of 24, as 'of' says"),
        (lambda batch: {"x": [1], "of": [[]]}, {"parents": "of"}, r"the places \[\] of a batch of 24"),
        (lambda batch: [1], {}, "the function of batches gave a list; it gives a dict, or a table"),
        (lambda row: row, {"batched": False, "parents": "of"}, "pass batched=True, too"),
    ],
    ids=["other length", "no column", "no such place", "no parent", "no batch", "no batches"],
)
def test_a_function_that_does_not_tell_is_refused(run: Run, function: Any, options: Any, match: str) -> None:
    data = made()
    with pytest.raises((ValueError, TypeError), match=match):
        run.transform("bad", data).map(function, remove_columns=data.column_names, **{"batched": True} | options)


def test_rows_that_did_not_go_in_are_refused(run: Run) -> None:
    data, other = made(), made(3, first=100)
    run.register(other, name="other")
    with pytest.raises(ValueError, match="rows of 'other' came out, which did not go in; use concat"):
        run.transform("x", data).apply(lambda ds: other)
    with pytest.raises(CaptureError, match="nobody can tell which of which"):
        run.transform("x", data).apply(lambda ds: ds.map(words, batched=True, remove_columns=ds.column_names))


def test_rows_of_the_users_own_making_are_recorded(run: Run, log: Read) -> None:
    data = made(6)
    children = made(3, first=50).shuffle(seed=0)
    assert run.transform("own", data).record(children, parents=[0, [1, 2], 5]) is children
    assert keys_of(run, children) == [("own", n) for n in range(3)]
    ids = [bytes(i) for i in run._registry.resolve(children).ids()]
    run.close()
    assert pairs_of(log(run.path), "own") == {(0, ids[0]), (1, ids[1]), (2, ids[1]), (5, ids[2])}


@pytest.mark.matrix(
    "HF datasets", "the whole way: filter, tokenise, pack, split, and the updates of what came of each row"
)
def test_a_history_shows_the_way_of_a_source_row_to_its_uses(run: Run) -> None:
    data = made()
    run.register(data, name="docs")
    clean = run.transform("clean", data).filter(is_third)
    tokens = run.transform("tokenise", clean).tokenise(numbered, remove_columns=["text", "group"])
    blocks = run.transform("pack", tokens).pack("tokens", 2)
    parts = run.transform("split", blocks).train_test_split(test_size=2, seed=0)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    used: dict[int, list[int]] = {row: [] for row in range(ROWS)}
    for step, batch in enumerate(run.watch(DataLoader(parts["train"].with_format("torch"), batch_size=2)), 1):
        model(batch["tokens"].float()).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        for block in batch["tokens"].tolist():
            for row in {token // 10 for token in block}:
                used[row].append(step)
    run.close()
    trace = fgtrac.open(run.path)
    for row in range(ROWS):
        history = trace.history(f"docs:{row}")
        assert history.family.uses == len(used[row])
        steps = [step for child in history.family.descendants if child.steps for step in child.steps]
        assert {*steps} == ({min(used[row]), max(used[row])} if used[row] else set())
        said = history.text()
        assert f"stage 'clean' (filter) {'kept' if row % 3 == 0 else 'dropped'} it" in said
        assert ("stage 'pack' (pack) made" in said) == (row % 3 == 0 and row % 4 > 0)


def numbered(batch: Any) -> dict[str, list[Any]]:
    """10 i + n for word n of row i."""
    return {"tokens": [[10 * i + n for n in range(i % 4)] for i in batch["id"]]}
