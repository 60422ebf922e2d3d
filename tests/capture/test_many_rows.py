"""Many rows: named some at a time, their ids in a file without a name, and found again by name, id and audit."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import fgtrac
from fgtrac.api.vault_audit import vault_demand
from fgtrac.capture import blocks, sample_ids
from fgtrac.events import byte_order
from fgtrac.events.codec import encode
from fgtrac.events.identity import keyed_id, preimage
from fgtrac.store import durable, row_columns
from fgtrac.store.vault import Vault

ROWS = 5000


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done to millions of rows, done to thousands."""
    monkeypatch.setattr(sample_ids, "AT_ONCE", 700)
    monkeypatch.setattr(byte_order, "AT_ONCE", 900)
    monkeypatch.setattr(blocks, "MAPPED_ROWS", 1000)
    monkeypatch.setattr(row_columns, "PAGE_ROWS", 1024)


class Numbered(Dataset[int]):
    """Item i is i."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, row: int) -> int:
        return row


def recorded(folder: Path, scheme: str) -> tuple[Path, list[int]]:
    """A trace of a few rows trained on among many; the path, and the rows that were read from the batches."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
    data = Numbered()
    with fgtrac.start_run(folder / "a", key=folder / "key.pem", ids=scheme) as run:
        run.register(data, name="numbers", role="test")
        seen = []
        for batch in run.watch(DataLoader(Subset(data, [4999, 7, 0, 255, 256]), batch_size=2), role="train"):
            seen += batch.tolist()
            model(batch[:, None].float()).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    return folder / "a.trace", seen


@pytest.mark.parametrize("scheme", ["public", "keyed"])
def test_rows_are_named_recorded_and_found_again(tmp_path: Path, scheme: str) -> None:
    path, seen = recorded(tmp_path, scheme)
    trace = fgtrac.open(path, key=str(tmp_path / "key.pem"))
    assert trace.verify(demands=[vault_demand(path.with_suffix(".vault"), trace.id)]).verdict == "holds"
    samples = trace.sample_counts()
    assert sorted(samples.names) == sorted(f"numbers:{row}" for row in range(ROWS))
    assert sorted(name for name, uses in zip(samples.names, samples.uses, strict=True) if uses) == sorted(
        f"numbers:{row}" for row in seen
    )
    sample = trace.history("numbers:4999")
    assert str(trace.history(f"id:{sample.id.hex()}")) == str(sample)


def test_the_vault_has_no_row_of_a_table_for_each_of_them(tmp_path: Path) -> None:
    path, _ = recorded(tmp_path, "keyed")
    with sqlite3.connect(path.with_suffix(".vault")) as db:
        assert db.execute("SELECT count(*) FROM names").fetchone() == (0,)
        assert db.execute("SELECT dataset, samples FROM row_columns").fetchall() == [("numbers", ROWS)]
        assert db.execute("SELECT sum(length(rows)) FROM row_pages").fetchone() == (4 * ROWS,)
    db.close()


def test_ids_and_contents_of_many_rows_are_those_of_few(tmp_path: Path) -> None:
    """Also under texts as keys and subjects, across the boundaries of what is done at once."""
    data = TensorDataset(torch.arange(float(ROWS))[:, None] % 9)
    keys = [f"key-{row}" for row in range(ROWS)]
    whose: list[str | int | None] = [
        None if row % 5 == 0 else f"of-{row % 7}" if row % 3 else row % 4 for row in range(ROWS)
    ]
    with fgtrac.start_run(tmp_path / "a", key=tmp_path / "key.pem") as run:
        run.register(data, name="people", key=keys, subject=whose)
        root = run._registry.registered()[0]
    names = Vault.open(tmp_path / "a.vault", fgtrac.open(tmp_path / "a.trace").id)
    for row in (0, 1, 2, 699, 700, 1399, 4998, 4999):
        scope = "run" if whose[row] is None else f"subject:{encode(whose[row]).hex()}"
        secret = names.find_secret(scope)
        assert secret is not None
        assert root.ids[row].tobytes() == keyed_id(secret, preimage("people", keys[row]))
        said = names.find_by_id(root.ids[row].tobytes())
        assert said is not None
        assert (said.key, said.subject) == (encode(keys[row]), None if whose[row] is None else str(whose[row]))
    names.close()
    assert root.contents is not None
    same = [(root.contents[row] == root.contents[row + 1]).all() for row in range(8)]
    assert not any(same)
    order = np.argsort(root.ordinals)
    assert [root.ids[row].tobytes() for row in order] == sorted(row.tobytes() for row in root.ids)
    trace = fgtrac.open(tmp_path / "a.trace", key=str(tmp_path / "key.pem"))
    assert trace.verify(demands=[vault_demand(tmp_path / "a.vault", trace.id)]).verdict == "holds"


def test_a_key_that_stands_twice_among_many_is_named_with_its_rows(tmp_path: Path) -> None:
    keys = [*range(4000), *range(3000, 4000)]
    with (
        fgtrac.start_run(tmp_path / "a", key=tmp_path / "key.pem") as run,
        pytest.raises(ValueError, match=r"rows (\d+) and \d+ both have the key") as said,
    ):
        run.register(Numbered(), key=keys)
    first, second = (int(word) for word in str(said.value).split() if word.isdigit())
    assert keys[first] == keys[second]
    assert first < second


def test_where_ids_lie_has_no_name_and_no_room_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = blocks.room_in(tmp_path)
    ids = room(2000)
    ids[1999] = 7
    assert ids.shape == (2000, 32)
    assert list(tmp_path.iterdir()) == []

    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        durable.scratch(tmp_path, 100)
