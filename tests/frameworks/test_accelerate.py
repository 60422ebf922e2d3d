"""Loops over what Accelerate has prepared: a batch is in the log when the loop trained on it, not when it was read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from accelerate_truth import Marked, accelerator, fit, prepared, train
from capture.conftest import Log
from fgtrac.api.run import Run, start_run
from fgtrac.frameworks.accelerate import watch
from fgtrac.verify.report import Verdict
from rank_processes import Plan, together
from replays import replayed
from told_truth import read_told

pytestmark = pytest.mark.filterwarnings("ignore:.set_vital. is deprecated:UserWarning")  # torchdata, as it is made
WORKERS = pytest.mark.parametrize("workers", [0, 2])
Read = Callable[[Path], Log]


def said(log: Log) -> list[list[Any]]:
    """The samples of each batch that took part in an update, in order."""
    return [keys for _step, _sure, keys in log.batches().values()]


def sureness(log: Log) -> set[str]:
    return {use.attribution for use in log.uses() if use.status == "applied"}


def ordered(batches: list[list[int]]) -> list[list[int]]:
    return [sorted(rows) for rows in batches]


@pytest.mark.matrix("Accelerate", "prepared loader, two epochs, shuffled", attribution="exact")
@WORKERS
def test_batches_count_as_the_loop_gets_them(tmp_path: Path, run: Run, log: Read, workers: int) -> None:
    made = accelerator()
    model, optimizer, loader = prepared(made, Marked(43), workers=workers)
    assert watch(run, loader, role="train") is loader
    batches = [*train(made, model, optimizer, loader), *train(made, model, optimizer, loader)]
    run.close()
    assert said(log(run.path)) == ordered(batches)
    assert sureness(log(run.path)) == {"exact"}
    assert replayed(tmp_path).verdict is Verdict.HOLDS


@pytest.mark.matrix("Accelerate", "batches copied, as to another device", attribution="sole")
@WORKERS
def test_one_batch_at_a_time_is_told_from_the_next_also_where_it_is_copied(run: Run, log: Read, workers: int) -> None:
    made = accelerator()
    model, optimizer, loader = prepared(made, Marked(43), workers=workers)
    run.watch(loader, role="train")
    batches = train(made, model, optimizer, loader, copies=True)
    run.close()
    assert (said(log(run.path)), sureness(log(run.path))) == (ordered(batches), {"sole"})


@pytest.mark.matrix("Accelerate", "gradients accumulated over 3 batches", attribution="exact")
@WORKERS
def test_accumulated_batches_belong_to_the_update_behind_them(run: Run, log: Read, workers: int) -> None:
    made = accelerator(accumulate=3)
    model, optimizer, loader = prepared(made, Marked(43), workers=workers)
    watch(run, loader, role="train")
    batches = train(made, model, optimizer, loader)
    run.close()
    found = log(run.path)
    assert (said(found), sureness(found)) == (ordered(batches), {"exact"})
    assert [step for step, *_ in found.batches().values()] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4]


@pytest.mark.matrix("Accelerate", "one process that dispatches batches", attribution="exact")
@pytest.mark.parametrize("is_dict", [False, True])
@WORKERS
def test_dispatched_batches_are_traced(run: Run, log: Read, workers: int, is_dict: bool) -> None:
    made = accelerator(dispatch_batches=True)
    model, optimizer, loader = prepared(made, Marked(43, is_dict=is_dict), workers=workers)
    watch(run, loader, role="train")
    batches = [*train(made, model, optimizer, loader), *train(made, model, optimizer, loader)]
    run.close()
    assert (said(log(run.path)), sureness(log(run.path))) == (ordered(batches), {"exact"})


@pytest.mark.matrix("Accelerate", "skip_first_batches", attribution="exact")
@WORKERS
def test_batches_that_are_skipped_were_not_used(run: Run, log: Read, workers: int) -> None:
    made = accelerator()
    model, optimizer, loader = prepared(made, Marked(43), workers=workers)
    watch(run, loader, role="train")
    batches = train(made, model, optimizer, made.skip_first_batches(loader, 4))
    run.close()
    assert len(batches) == 7
    assert (said(log(run.path)), sureness(log(run.path))) == (ordered(batches), {"exact"})
    assert len(log(run.path).uses()) == 27


@pytest.mark.matrix("Accelerate", "left in the middle of an epoch", attribution="exact")
@WORKERS
def test_what_was_read_ahead_of_a_break_was_not_used(run: Run, log: Read, workers: int) -> None:
    made = accelerator()
    model, optimizer, loader = prepared(made, Marked(43), workers=workers)
    watch(run, loader, role="train")
    batches = train(made, model, optimizer, (batch for batch, _ in zip(loader, range(3), strict=False)))
    batches += train(made, model, optimizer, loader)
    run.close()
    assert sorted(said(log(run.path))) == sorted(ordered(batches[:3]) + ordered(batches[3:]))
    assert sum(use.status == "unapplied" for use in log(run.path).uses()) == 4  # what `zip` took, and threw away


@pytest.mark.matrix("Accelerate", "steps skipped by a gradient scaler", attribution="exact")
def test_a_step_that_was_skipped_uses_nothing(run: Run, log: Read) -> None:
    made = accelerator()
    model, optimizer, loader = prepared(made, Marked(24))
    watch(run, loader, role="train")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    applied = []
    for number, (features, labels, rows) in enumerate(loader):
        loss = torch.nn.functional.cross_entropy(model(features), labels) * (float("inf") if number == 2 else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer.optimizer)
        scaler.update()
        optimizer.zero_grad()
        applied += [] if number == 2 else [sorted(rows.tolist())]
    run.close()
    assert said(log(run.path)) == applied
    assert sum(use.status == "discarded" for use in log(run.path).uses()) == 4


def test_weights_and_generators_are_the_same_with_and_without(tmp_path: Path) -> None:
    def trained(run: Run | None) -> tuple[Any, ...]:
        made = accelerator(accumulate=2)
        model, optimizer, loader = prepared(made, Marked(43))
        if run is not None:
            watch(run, loader, role="train")
        batches = [train(made, model, optimizer, loader) for _ in range(2)]
        return batches, [p.tolist() for p in model.parameters()], torch.get_rng_state().tolist()

    without = trained(None)
    with start_run(tmp_path / "run", key=tmp_path / "key.pem") as run:
        assert trained(run) == without


def test_a_loader_that_was_not_prepared_is_refused(run: Run) -> None:
    with pytest.raises(ValueError, match=r"has not prepared this DataLoader; call accelerator\.prepare"):
        watch(run, DataLoader(Marked(8)))


def test_an_unknown_version_is_said_with_those_that_are_known(
    run: Run, log: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerate, "__version__", "2.0.0")
    made = accelerator()
    model, optimizer, loader = prepared(made, Marked(8))
    with pytest.warns(RuntimeWarning, match=r"Accelerate 2\.0\.0, and fgtrac knows 1\.1 to 1\.15"):
        watch(run, loader, role="train")
    batches = train(made, model, optimizer, loader)
    run.close()
    assert said(log(run.path)) == ordered(batches)
    assert len(log(run.path).kind("gap")) == 1


def of_two_ranks(folder: Path, *, is_dict: bool = True, workers: int = 0, **loader: Any) -> tuple[Any, list[Any]]:
    """The log of 43 samples on two ranks, and what each rank says that it trained on."""
    plan = Plan(rows=43, workers=workers, options={"is_dict": is_dict, "loader": loader})
    results = together(2, folder, plan, fit, method="fork")
    for result in results:
        assert isinstance(result, tuple), result
    return read_told(folder / "run.trace"), [trained for trained, _weights in results]


@pytest.mark.matrix("Accelerate", "two processes, a shard for each, padded to even batches", attribution="exact")
@WORKERS
def test_each_rank_s_shard_is_in_one_trace(tmp_path: Path, workers: int) -> None:
    found, trained = of_two_ranks(tmp_path, is_dict=False, workers=workers)
    assert [found.trained(rank) for rank in range(2)] == trained
    uses = Counter(row for rank in trained for *_, rows in rank for row in rows)
    assert sum(uses.values()) == 2 * 48  # 43 samples: five are repeated, and really are used
    assert len(uses) == 43


@pytest.mark.matrix("Accelerate", "two processes, one reads and dispatches slices", attribution="exact")
@pytest.mark.parametrize("is_dict", [False, True])
def test_slices_of_dispatched_batches_are_told_apart(tmp_path: Path, is_dict: bool) -> None:
    found, trained = of_two_ranks(tmp_path, is_dict=is_dict, dispatch_batches=True)
    assert [found.trained(rank) for rank in range(2)] == trained
    uses = Counter(row for rank in trained for *_, rows in rank for row in rows)
    assert sum(uses.values()) == 2 * 44
    assert len(uses) == 43
    assert replayed(tmp_path).verdict is Verdict.CANNOT_TELL  # no sampler's order is that of the slices


def test_slices_that_nobody_can_tell_apart_are_said(tmp_path: Path) -> None:
    options = {"is_dict": True, "loader": {"dispatch_batches": True}, "drops": True}
    results = together(2, tmp_path, Plan(rows=40, options=options), fit, method="fork")
    assert all(isinstance(result, tuple) for result in results), results
    told = read_told(tmp_path / "run.trace")
    who = "Accelerate's dispatcher, in several processes over batches whose rows nobody can tell apart,"
    reason = f"{who} delivers batches of watched data, and they are not recorded"
    assert [e["reason"] for e in told.kind("gap")] == [reason, reason]
    assert not told.kind("use")


class Stream(IterableDataset[Any]):
    """The same rows in order, without row numbers."""

    def __init__(self, rows: int) -> None:
        self.rows = Marked(rows)

    def __iter__(self) -> Any:
        yield from (self.rows[row] for row in range(len(self.rows)))


def row_of(sample: Any) -> int:
    return int(sample[2])


@pytest.mark.matrix("Accelerate", "a stream, dispatched in one process, with skip_first_batches", attribution="exact")
@pytest.mark.parametrize("skipped", [0, 3])
def test_samples_of_a_stream_count_as_the_loop_gets_them(run: Run, log: Read, skipped: int) -> None:
    made = accelerator()
    model, optimizer, loader = prepared(made, Stream(43), shuffle=False)
    run.watch(loader, role="train", key=row_of)
    batches = train(made, model, optimizer, made.skip_first_batches(loader, skipped) if skipped else loader)
    run.close()
    assert len(batches) == 11 - skipped
    assert (said(log(run.path)), sureness(log(run.path))) == (ordered(batches), {"exact"})


@pytest.mark.matrix("Accelerate", "torchdata's StatefulDataLoader inside", note="its first pass begins in prepare()")
@WORKERS
def test_a_pass_that_prepare_has_begun_is_said_and_the_next_is_recorded(run: Run, log: Read, workers: int) -> None:
    made = accelerator(use_stateful_dataloader=True)
    model, optimizer, loader = prepared(made, Marked(43), workers=workers)
    watch(run, loader, role="train")
    with pytest.warns(RuntimeWarning, match="an iterator that was begun before"):
        train(made, model, optimizer, loader)
    batches = train(made, model, optimizer, loader)
    run.close()
    assert (said(log(run.path)), sureness(log(run.path))) == (ordered(batches), {"exact"})
    assert len(log(run.path).kind("gap")) == 1
