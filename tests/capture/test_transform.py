"""Preprocessing under trace: each stage's entries say what was kept, dropped and made, and its views lead back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from fgtrac.api.run import Run
from fgtrac.capture.contents import code_digest
from fgtrac.events.codec import encode

Read = Callable[[Path], Any]


def numbers(*values: int) -> TensorDataset:
    return TensorDataset(torch.tensor(values))


def values_of(view: Any) -> list[int]:
    return [int(view[i][0]) for i in range(len(view))]


def stage(log: Any, name: str) -> list[dict[str, Any]]:
    return [e for e in log.kind("transform") if e["stage"] == name]


def is_even(item: Any) -> bool:
    return int(item[0]) % 2 == 0


def test_a_filter_names_what_it_kept_and_what_it_dropped(run: Run, log: Read) -> None:
    data = numbers(4, 5, 6, 7, 9)
    view = run.transform("even", data, {"divisor": 2}).filter(is_even)
    run.close()
    assert values_of(view) == [4, 6]
    assert isinstance(view, Subset)
    said = log(run.path)
    kept, dropped = stage(said, "even")
    assert sorted(said.keys(kept["block"], kept["kept"])) == [0, 2]
    assert sorted(said.keys(dropped["block"], dropped["dropped"])) == [1, 3, 4]
    assert kept["operation"] == dropped["operation"] == "filter"
    assert kept["parameters"] == {"divisor": 2}
    assert kept["code"] == code_digest(is_even)


def test_a_map_changes_items_and_keeps_every_sample_itself(run: Run, log: Read) -> None:
    data = numbers(1, 2, 3)
    view = run.transform("twice", data).map(lambda item: (item[0] * 2,))
    loader = run.watch(DataLoader(view, batch_size=2))
    assert [b[0].tolist() for b in loader] == [[2, 4], [6]]
    run.close()
    said = log(run.path)
    (entry,) = stage(said, "twice")
    assert sorted(said.keys(entry["block"], entry["kept"])) == [0, 1, 2]
    assert len(said.kind("dataset")) == 1
    assert [keys for _, _, keys in said.batches("unapplied").values()] == [[0, 1], [2]]


def test_deduplication_by_content_names_the_twin_that_stays(run: Run, log: Read) -> None:
    data = ConcatDataset([numbers(8, 9, 8), numbers(9, 7)])
    view = run.transform("once", data).deduplicate()
    run.close()
    assert values_of(view) == [8, 9, 7]
    said = log(run.path)
    twins = {}
    for entry in (e for e in stage(said, "once") if "dropped" in e):
        for place, ordinal in enumerate(entry["dropped"]):
            gone = said.blocks()[entry["block"]][ordinal]
            stays = entry["same_as"][32 * place : 32 * place + 32]
            twins[said.names[gone][:2]] = said.names[stays][:2]
    first, second = "TensorDataset", "TensorDataset-2"
    assert twins == {(first, 2): (first, 0), (second, 0): (first, 1)}


def test_deduplication_by_a_function_needs_no_content(run: Run) -> None:
    assert values_of(run.transform("by", numbers(1, 11, 2)).deduplicate(by=lambda item: int(item[0]) % 10)) == [1, 2]
    items = [(1,), (1,)]
    with pytest.raises(ValueError, match="source content of list is not known"):
        run.transform("blind", items).deduplicate()


@pytest.mark.parametrize(
    "by",
    [
        lambda item: item[0] % 10,
        lambda item: (item[0] % 10).repeat(2).bfloat16(),
        lambda item: (item[0] % 10).numpy(),
        lambda item: (item[0] % 10).repeat(2).numpy(),
        lambda item: [(item[0] % 10).repeat(2), None],
    ],
    ids=["scalar tensor", "tensor", "scalar array", "array", "nested"],
)
def test_deduplication_compares_tensors_and_arrays_by_content(run: Run, by: Callable[[Any], Any]) -> None:
    assert values_of(run.transform("by", numbers(1, 11, 2)).deduplicate(by=by)) == [1, 2]


def test_tensors_of_another_shape_or_type_are_not_duplicates(run: Run) -> None:
    made = iter([torch.zeros(4), torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32), torch.zeros(4)])
    assert values_of(run.transform("by", numbers(0, 1, 2, 3)).deduplicate(by=lambda _: next(made))) == [0, 1, 2]


@pytest.mark.parametrize(
    ("value", "named"), [(object, "object"), (dict, "dict"), (lambda: np.array([None]), "ndarray")]
)
def test_values_that_only_identity_tells_apart_are_no_basis_for_deduplication(
    run: Run, value: Callable[[], Any], named: str
) -> None:
    with pytest.raises(TypeError, match=f"got a {named}, which says nothing of its content"):
        run.transform("by", numbers(1, 1)).deduplicate(by=lambda _: value())


def test_a_split_names_its_parts_and_what_fell_out(run: Run, log: Read) -> None:
    parts = run.transform("split", numbers(1, 2, 3, 4)).split(["test", "train", None, "train"])
    run.close()
    assert {name: values_of(view) for name, view in parts.items()} == {"test": [1], "train": [2, 4]}
    said = log(run.path)
    found = {}
    for entry in stage(said, "split"):
        found[entry.get("output")] = sorted(said.keys(entry["block"], entry.get("kept", entry.get("dropped"))))
    assert found == {"test": [0], "train": [1, 3], None: [2]}


def test_a_list_of_parts_of_another_length_is_refused(run: Run) -> None:
    with pytest.raises(ValueError, match="2 names for 3 items"):
        run.transform("split", numbers(1, 2, 3)).split(["a", "b"])


def test_children_are_named_by_stage_and_parents(run: Run, log: Read) -> None:
    parents = numbers(1, 2, 3)
    children = numbers(10, 11, 20, 123)
    made = run.transform("crop", parents).record(children, parents=[0, 0, 1, [0, 2]])
    run.close()
    assert made is children
    said = log(run.path)
    id_of = {key: i for i, (name, key, _) in said.names.items() if name == "TensorDataset"}
    families = [([0], 0), ([0], 1), ([1], 0), ([0, 2], 0)]
    expected = [encode(["crop", [id_of[p] for p in family], n]) for family, n in families]
    assert sorted(encode(key) for name, key, _ in said.names.values() if name == "crop") == sorted(expected)
    truth = [(p, child) for (family, _), child in zip(families, expected, strict=True) for p in family]
    pairs = []
    for entry in stage(said, "crop"):
        born = [encode(key) for key in said.keys(entry["child_block"], entry["children"])]
        pairs += zip(said.keys(entry["block"], entry["parents"]), born, strict=True)
    assert sorted(pairs) == sorted(truth)


def test_children_belong_to_their_parents_subject_where_that_is_one(run: Run, log: Read) -> None:
    data = numbers(4, 5, 6, 7)
    run.register(data, subject=["ann", "bob", "ann", 7])
    run.transform("crops", data).record(numbers(1, 2, 3), parents=[3, [0, 2], 1])
    mixed = numbers(1, 2, 3)
    run.transform("mixed", data).record(mixed, parents=[[0, 1], 2, 0])
    run.transform("all mixed", data).record(numbers(1, 2), parents=[[0, 1], [1, 2]])
    run.transform("of mixed", mixed).record(numbers(1, 2, 3), parents=[0, 1, [0, 1]])
    run.close()
    said = log(run.path)
    schemes = {e["name"]: e["id_scheme"] for e in said.kind("dataset")}
    one_each = dict.fromkeys(("TensorDataset", "crops", "mixed", "of mixed"), "subject")
    assert schemes == one_each | {"all mixed": "keyed"}
    subjects = {event["dataset"]: sorted(str(s) for s in subjects_of(said, event)) for event in said.kind("samples")}
    assert subjects == {
        "TensorDataset": ["7", "ann", "ann", "bob"],
        "crops": ["7", "ann", "bob"],
        "mixed": ["None", "ann", "ann"],
        "all mixed": ["None", "None"],
        "of mixed": ["None", "None", "ann"],
    }


def subjects_of(said: Any, event: Any) -> list[str | None]:
    """The subject of each sample of a `samples` entry, by the vault's names; samples of one share one pseudonym, which
    is no other's."""
    ids = [event["ids"][i : i + 32] for i in range(0, len(event["ids"]), 32)]
    subjects = [said.names[sample][2] for sample in ids]
    if "subjects" in event:
        pseudonyms = [event["subjects"][i : i + 32] for i in range(0, len(event["subjects"]), 32)]
        assert len(set(zip(subjects, pseudonyms, strict=True))) == len(set(subjects)) == len(set(pseudonyms))
    return subjects


def test_a_subject_is_a_text_or_a_whole_number(run: Run, log: Read) -> None:
    for subject in (("clinic", 3), b"ann", ["ann"], 1.5, True):
        with pytest.raises(TypeError, match=r"row 1 has the subject .*; a subject is a text or a whole number"):
            run.register(numbers(1, 2), name="people", subject=["ann", subject])
    with pytest.raises(ValueError, match="does not fit 64 bits"):
        run.register(numbers(1, 2), name="people", subject=["ann", 1 << 64])
    run.register(numbers(1, 2, 3), name="people", subject=["ann", -1, (1 << 64) - 1])
    run.close()
    assert [e["name"] for e in log(run.path).kind("dataset")] == ["people"]


def test_a_parent_that_is_no_position_is_refused(run: Run) -> None:
    with pytest.raises(ValueError, match=r"child 1 names parents \[7\]; positions are 0 to 1"):
        run.transform("crop", numbers(1, 2)).record(numbers(3, 4), parents=[0, 7])
    with pytest.raises(ValueError, match="parents for 1 children, but there are 2"):
        run.transform("crop", numbers(1, 2)).record(numbers(3, 4), parents=[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_views_of_views_train_as_their_root_rows(run: Run, log: Read, workers: int) -> None:
    kept = run.transform("even", numbers(*range(20))).filter(is_even)
    parts = run.transform("split", kept).split(lambda item: "train" if int(item[0]) < 12 else "test")
    pool = ConcatDataset([parts["test"], Subset(parts["train"], [5, 0])])
    loader = run.watch(DataLoader(pool, batch_size=3, shuffle=True, num_workers=workers))
    truth = [sorted(b[0].tolist()) for b in loader]
    run.close()
    assert [keys for _, _, keys in log(run.path).batches("unapplied").values()] == truth
    assert sorted(v for b in truth for v in b) == [0, 10, 12, 14, 16, 18]
