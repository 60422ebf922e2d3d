"""The grammar of names reads what it writes, and a data set's keys are called what they are."""

from __future__ import annotations

from typing import Any

import pytest

from fgtrac.events.sample_names import SampleName, check_dataset_name, kind_of_keys, parse_sample_name

ID = "ab" * 32
NAMES = {
    f"id:{ID}": SampleName(id=bytes.fromhex(ID)),
    'key:"a:key:b"': SampleName(key="a:key:b"),
    "photos:7": SampleName(dataset="photos", key=7, by_number=True),
    "a:b:7": SampleName(dataset="a:b", key=7, by_number=True),
    "photos:key:7": SampleName(dataset="photos", key=7),
    'photos:key:["s",{"hex":"00ff"}]': SampleName(dataset="photos", key=("s", b"\0\xff")),
    'photos:key:"a:key:b"': SampleName(dataset="photos", key="a:key:b"),
}


@pytest.mark.parametrize("text", NAMES)
def test_each_form_names_one_thing(text: str) -> None:
    assert parse_sample_name(text) == NAMES[text]


@pytest.mark.parametrize(
    "text", ["", "7", "id:7", "key:", "key:1.5", "key:-1", "a:-1", "a: 7", "a:٣", "file:a", "row:a:1"]
)
def test_what_names_no_sample_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no|has none of the forms|64 hex digits|names a content"):
        parse_sample_name(text)


@pytest.mark.parametrize("name", ["photos", "a:b", "keys", "monkey", "ideas", "Files-2", ""])
def test_a_data_set_s_name_is_read_back(name: str) -> None:
    check_dataset_name(name)
    assert parse_sample_name(f"{name}:7") == SampleName(dataset=name, key=7, by_number=True)
    assert parse_sample_name(f"{name}:key:7") == SampleName(dataset=name, key=7)


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (range(3), "rows"), ([0, 1, 2], "rows"), ([2, 1, 0], "numbers"), ([0, 2], "numbers"), (["0", "1"], "names"),
        ([0, "1"], "names"), ([(0,)], "names"), ([b"0"], "names"),
    ],
)  # fmt: skip
def test_keys_are_rows_only_where_each_is_its_row(keys: Any, kind: str) -> None:
    assert kind_of_keys(keys) == kind
