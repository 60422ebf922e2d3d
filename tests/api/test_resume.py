"""A resumed run goes on with the data that it began with: another under the same name is refused. Where it goes on from
a step that the log does not reach, claims about the whole run cannot be told."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

import fgtrac
from fgtrac.api.bundles import verify_bundle
from fgtrac.api.prior import registered_before
from fgtrac.api.run import Run, start_run
from fgtrac.api.summary import summarize
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.report import Verdict
from replays import CANNOT_TELL, HOLDS

ROWS = 2_500  # with contents these take three `samples` entries


def numbers(count: int = ROWS, first: int = 0) -> TensorDataset:
    return TensorDataset(torch.arange(first, first + count))


def begin(folder: Path, data: Any, **options: Any) -> None:
    with start_run(folder / "a", key=folder / "key.pem") as run:
        run.register(data, **options)


def resume(folder: Path) -> Run:
    return start_run(folder / "a", key=folder / "key.pem", resume=True)


def test_the_same_data_are_registered_again(tmp_path: Path) -> None:
    begin(tmp_path, numbers(), name="digits")
    for _ in range(2):
        with resume(tmp_path) as run:
            run.register(numbers(), name="digits")
    (block, digest) = registered_before(TraceDir.open(tmp_path / "a.trace"))["digits"]
    assert (len(block), len(digest or b"")) == (16, 32)


@pytest.mark.parametrize(
    ("options", "data", "again", "what"),
    [
        ({"name": "digits"}, numbers(), numbers(ROWS - 1), "samples"),
        ({"name": "digits"}, numbers(), numbers(first=1), "contents"),
        ({}, numbers(), numbers(first=1), "contents"),
        ({"name": "digits", "content": False}, numbers(), numbers(ROWS + 1), "samples"),
    ],
)
def test_other_data_under_the_same_name_are_refused_and_nothing_is_written(
    tmp_path: Path, options: dict[str, Any], data: Any, again: Any, what: str
) -> None:
    begin(tmp_path, data, **options)
    before = registered_before(TraceDir.open(tmp_path / "a.trace"))
    with resume(tmp_path) as run:
        with pytest.raises(ValueError, match=f"registered with other {what} before .*another name="):
            run.register(again, **options)
        run.register(again, name="others")
    after = registered_before(TraceDir.open(tmp_path / "a.trace"))
    assert {name: said for name, said in after.items() if name != "others"} == before


def test_a_content_that_was_not_taken_is_not_compared(tmp_path: Path) -> None:
    """The second run takes contents, which the first did not; the third is held to them."""
    begin(tmp_path, numbers(), name="digits", content=False)
    with resume(tmp_path) as run:
        run.register(numbers(first=1), name="digits")
    with resume(tmp_path) as run:
        run.register(numbers(), name="digits", content=False)
    with resume(tmp_path) as run, pytest.raises(ValueError, match="other contents"):
        run.register(numbers(), name="digits")


def train(folder: Path, updates: int, *, dies: bool = False, **options: Any) -> None:
    """Updates on rows 0 and 1; row 5 is held out, and never used. Then a checkpoint, or the machine is gone."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    data = TensorDataset(torch.arange(6.0).reshape(6, 1))
    with (
        pytest.raises(OSError, match="gone") if dies else nullcontext(),
        start_run(folder / "a", key=folder / "key.pem", ids="public", **options) as run,
    ):
        run.register(data, name="rows")
        run.register(Subset(data, [5]), role="test")
        loader = run.watch(DataLoader(Subset(data, [0, 1]), batch_size=2), role="train")
        for _ in range(updates):
            for (batch,) in loader:
                optimizer.zero_grad()
                model(batch).square().mean().backward()
                optimizer.step()
        if dies:
            raise OSError("the machine is gone")
        run.checkpoint(model, optimizer, val_loss=1.0)


def said_of_row_5(folder: Path) -> tuple[list[str], set[Verdict]]:
    """The gaps of the log, and the verdicts over two claims and a policy, all about the whole run."""
    path, key = folder / "a.trace", str(folder / "key.pem")
    trace, file, verdicts = fgtrac.open(path), folder / "row-5.json", set()
    for claim in ("never used", "label never used"):
        file.write_bytes(trace.prove("rows:5", claim))
        verdicts.add(verify_bundle(file, key=key).verdict)
    found = {finding.check: finding.verdict for finding in fgtrac.check(path, key=key).report.findings}
    return list(summarize(path).gaps), verdicts | {found["held-out"]}


@pytest.mark.parametrize("step", [None, 0, 2, 3])
def test_a_run_that_goes_on_from_a_step_that_the_log_reaches_is_whole(tmp_path: Path, step: int | None) -> None:
    train(tmp_path, 3)
    train(tmp_path, 2, dies=True, resume=True)
    train(tmp_path, 4, resume=True, step=step)
    assert said_of_row_5(tmp_path) == ([], {HOLDS})


def test_that_a_killed_process_took_the_last_updates_with_it_is_said(tmp_path: Path) -> None:
    """It had made 5 updates, of which the log has 3; the user's own saved state is of the fifth."""
    train(tmp_path, 3, dies=True)
    with pytest.warns(RuntimeWarning, match="from step 5, and the log has no updates after step 3; go on from step 3"):
        train(tmp_path, 4, resume=True, step=5)
    gaps, verdicts = said_of_row_5(tmp_path)
    assert gaps == ["training goes on from step 5, and the log has no updates after step 3"]
    assert verdicts == {CANNOT_TELL}


def test_so_is_that_it_lost_those_after_an_earlier_return(tmp_path: Path) -> None:
    """Steps 3 to 6 of the first process no longer stand; of the second process the log has the third alone."""
    train(tmp_path, 6)
    train(tmp_path, 1, dies=True, resume=True, step=2)
    with pytest.warns(RuntimeWarning, match="from step 5, and the log has no updates after step 3"):
        train(tmp_path, 4, resume=True, step=5)
    assert said_of_row_5(tmp_path)[1] == {CANNOT_TELL}


def test_a_new_run_that_counts_on_from_elsewhere_lacks_what_came_before(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="from step 7, and the log has no updates after step 0"):
        train(tmp_path, 1, step=7)
    assert said_of_row_5(tmp_path)[1] == {CANNOT_TELL}
