"""From a recorded run to a proof: samples are named through the vault, opened one at a time, and absent only for those
who hold the key."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import fgtrac
from fgtrac.api.bundles import verify_bundle
from fgtrac.api.trace import Trace
from fgtrac.verify.bundle import parse_bundle
from fgtrac.verify.report import Verdict


@pytest.fixture(autouse=True)
def my_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))


def record(folder: Path, ids: str = "keyed") -> Trace:
    """Ten rows named by number of which six are used, five named by text, four of two subjects."""
    rows = TensorDataset(torch.arange(20.0).reshape(10, 2))
    with fgtrac.start_run(folder / "run", ids=ids) as run:
        run.register(rows, name="rows", role="train")
        run.register(TensorDataset(torch.zeros(3, 1)), name="texts", key=["a", "b", ("c", 1)])
        run.register(TensorDataset(torch.ones(4, 1)), name="people", subject=["x", "x", 7, 7])
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for (batch,) in run.watch(DataLoader(torch.utils.data.Subset(rows, range(6)), batch_size=3)):
            optimizer.zero_grad()
            model(batch).sum().backward()
            optimizer.step()
    return fgtrac.open(folder / "run.trace")


def check(trace: Trace, name: str, claim: str | None = None, id_key: str | None = None) -> tuple[str, Verdict]:
    path = trace.path.parent / "bundle.json"
    data = trace.prove(name, claim)
    path.write_bytes(data)
    return parse_bundle(data).words, verify_bundle(path, id_key=id_key).verdict


@pytest.mark.parametrize("ids", ["keyed", "public"])
def test_named_samples_are_opened_to_whoever_gets_the_bundle(tmp_path: Path, ids: str) -> None:
    trace = record(tmp_path, ids)
    for name, who in (
        ("rows:2", 'key 2 of data set "rows"'),
        ('key:"a"', 'key "a" of data set "texts"'),
        ('key:["c",1]', 'key ["c", 1] of data set "texts"'),
        ("people:3", 'key 3 of data set "people"'),
        ("people:0", 'key 0 of data set "people"'),
    ):
        words, verdict = check(trace, name)
        assert who in words
        assert verdict is Verdict.HOLDS


def test_use_and_non_use_are_told_apart(tmp_path: Path) -> None:
    trace = record(tmp_path)
    assert trace.history("rows:5").uses == 1
    assert check(trace, "rows:5")[0].startswith('The sample with key 5 of data set "rows" was used once')
    assert check(trace, "rows:6")[0].startswith(
        'The sample with key 6 of data set "rows" is registered and was never used'
    )


def test_an_absence_holds_only_for_whoever_holds_the_key(tmp_path: Path) -> None:
    trace = record(tmp_path)
    assert check(trace, "rows:99") == (check(trace, "rows:99")[0], Verdict.CANNOT_TELL)
    assert check(trace, "rows:99", id_key=str(tmp_path / "run.vault"))[1] is Verdict.HOLDS
    assert check(trace, "rows:99", id_key="00" * 32)[1] is Verdict.REFUTED
    public = record(tmp_path / "public", "public")
    assert check(public, "rows:99")[1] is Verdict.HOLDS
    with pytest.raises(ValueError, match="are subject"):
        check(trace, "people:99")


def test_a_key_that_stands_in_two_data_sets_is_refused_with_the_ids(tmp_path: Path) -> None:
    trace = record(tmp_path)
    with pytest.raises(ValueError, match="names 2 samples: id:"):
        trace.history("key:0")


def test_without_the_vault_only_ids_and_public_names_say_anything(tmp_path: Path) -> None:
    for ids in ("keyed", "public"):
        trace = record(tmp_path / ids, ids)
        sample = trace.history("rows:5").id
        (tmp_path / ids / "run.vault").rename(tmp_path / ids / "elsewhere")
        blind = fgtrac.open(trace.path)
        assert blind.history(f"id:{sample.hex()}").uses == 1
        if ids == "public":
            assert blind.history("rows:5").id == sample
        else:
            with pytest.raises(ValueError, match="put the vault beside the trace"):
                blind.history("rows:5")


def test_the_whole_trace_verifies_with_my_own_key_and_says_whose_it_is(tmp_path: Path) -> None:
    report = record(tmp_path).verify()
    assert report.verdict is Verdict.HOLDS
    assert report.notes[-1] == "the signature was checked with your own key"
    assert record(tmp_path / "b").history("rows:0").rests_on == "as signed with your own key"
