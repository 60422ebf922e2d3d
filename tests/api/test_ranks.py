"""Several ranks of a training record one trace, and it tells the truth of all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import fgtrac
from fgtrac.api.ranks import Began
from fgtrac.api.run import start_run
from fgtrac.api.sealing import seal_trace
from fgtrac.events.codec import encode
from fgtrac.store.folder_store import FolderStore
from fgtrac.verify.report import Verdict
from rank_processes import Plan, Trained, only_rank_0, other_data, own_data, together
from replays import replayed, report
from told_truth import Told, read_told


def told_by(results: list[Any]) -> list[Trained]:
    """What the ranks say they trained on."""
    for result in results:
        assert isinstance(result, tuple), result
    return [trained for trained, _weights in results]


def in_log(folder: Path) -> tuple[Told, list[Trained]]:
    """The log, and what it says each rank trained on."""
    said = read_told(folder / "run.trace")
    return said, [said.trained(rank) for rank in range(said.ranks)]


def refuted(folder: Path) -> list[str]:
    """What is refuted."""
    return [found.words for found in report(folder).findings if found.verdict is Verdict.REFUTED]


@pytest.mark.matrix("DDP", "DistributedSampler, 51 rows padded to 52, two ranks", attribution="exact")
@pytest.mark.parametrize("workers", [0, 2])
def test_two_ranks_record_one_trace_that_tells_what_both_trained_on(tmp_path: Path, workers: int) -> None:
    results = together(2, tmp_path, Plan(workers=workers))
    said, logged = in_log(tmp_path)
    assert logged == told_by(results)
    uses = Counter(row for trained in logged for *_, rows in trained for row in rows)
    assert len(uses) == 51
    assert sum(uses.values()) == 104
    assert said.counts("dataset", "samples", "roles", "artifact", "end") == [1, 1, 1, 2, 1]
    assert said.counts("join", "leave", "gap") == [2, 1, 0]
    assert said.attributions == {"exact"}
    twice = next(row for row, times in uses.items() if times == 3)  # of the padding
    history = fgtrac.open(tmp_path / "run.trace").history(f"TensorDataset:{twice}")
    assert history.uses == 3
    assert {event.details["rank"] for event in history.events if event.kind == "used"} == {0, 1}
    assert "(rank 1, epoch" in str(history)
    found = replayed(tmp_path)
    assert found.verdict is Verdict.HOLDS, found.words
    assert "28 batches took part in 14 updates on 2 ranks" in found.words


@pytest.mark.matrix("DDP", "weights with and without recording: the same bits")
def test_weights_are_the_same_without_recording(tmp_path: Path) -> None:
    recorded, plain = (together(2, tmp_path, Plan(record=record, workers=2)) for record in (True, False))
    assert len(told_by(recorded)[0]) == len(told_by(plain)[0]) == 14
    assert [weights for _trained, weights in recorded] == [weights for _trained, weights in plain]


@pytest.mark.matrix("DDP", "accumulation by no_sync, persistent workers", attribution="exact")
def test_batches_that_are_accumulated_without_synchronising_belong_to_one_update(tmp_path: Path) -> None:
    results = together(2, tmp_path, Plan(workers=1, accumulate=2))
    said, logged = in_log(tmp_path)
    assert logged == told_by(results)
    assert [step for _, _, step, _ in logged[0]] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert said.attributions == {"exact"}


@pytest.mark.matrix("DDP", "set_epoch forgotten: every epoch has the same order, and the log shows it")
def test_an_order_that_was_never_shuffled_anew_shows(tmp_path: Path) -> None:
    results = together(2, tmp_path, Plan(shuffles_anew=False))
    _said, logged = in_log(tmp_path)
    assert logged == told_by(results)
    for trained in logged:
        orders = [[rows for at, _, _, rows in trained if at == epoch] for epoch in (0, 1)]
        assert orders[0] == orders[1]


@pytest.mark.matrix("DDP", "uneven inputs under join()", note="each rank counts its own updates")
def test_a_rank_with_fewer_batches_has_fewer_uses(tmp_path: Path) -> None:
    results = together(2, tmp_path, Plan(uneven=True, epochs=1))
    _said, logged = in_log(tmp_path)
    assert logged == told_by(results)
    assert [len(trained) for trained in logged] == [7, 6]


@pytest.mark.matrix("DDP", "four ranks, ids anybody can compute, checkpoints by rank 0 alone", attribution="exact")
def test_four_ranks_record_one_trace(tmp_path: Path) -> None:
    results = together(4, tmp_path, Plan(checkpoints="rank 0", options={"ids": "public", "seal_interval_s": 0.0}))
    said, logged = in_log(tmp_path)
    assert logged == told_by(results)
    assert said.counts("samples", "checkpoint", "join", "leave", "end", "gap") == [1, 2, 4, 3, 1, 0]
    assert [e["about"] for e in said.kind("artifact")].count("the order of a loader: where its positions lead") == 1
    assert replayed(tmp_path).verdict is Verdict.HOLDS


@pytest.mark.matrix("DDP", "gathered by torch.distributed, no common folder", attribution="exact")
@pytest.mark.parametrize("ids", ["keyed", "public"])
def test_journals_are_gathered_where_ranks_share_no_folder(tmp_path: Path, ids: str) -> None:
    results = together(2, tmp_path, Plan(own_folders=True, options={"gather": True, "ids": ids}))
    said, logged = in_log(tmp_path / "0")
    assert logged == told_by(results)
    assert said.counts("samples", "join", "leave", "end", "gap") == [1, 2, 1, 1, 0]
    assert replayed(tmp_path / "0").verdict is Verdict.HOLDS
    assert list((tmp_path / "1").iterdir()) == []


@pytest.mark.matrix("DDP", "rank= and world_size= without a process group, over what a dead run has left")
def test_ranks_meet_in_a_folder_where_there_is_no_process_group(tmp_path: Path) -> None:
    options = {"rank": None, "world_size": 2}
    dead = Began(bytes(16), (bytes(16), 0), "keyed", 0, bytes(32), resumes=False)
    FolderStore(tmp_path / "run.ranks").set("began", encode(asdict(dead)))
    results = together(2, tmp_path, Plan(grouped=False, options=options))
    _said, logged = in_log(tmp_path)
    assert logged == told_by(results)
    assert not (tmp_path / "run.ranks").exists()


@pytest.mark.matrix("DDP", "a rank is killed: a gap says so, the trace seals without an end")
def test_a_rank_that_is_killed_leaves_a_gap(tmp_path: Path) -> None:
    results = together(2, tmp_path, Plan(killed_at=(1, 1, 2), options={"flush_interval_s": 0.05}))
    assert results[1] is None
    assert "RuntimeError" in results[0]  # the others cannot exchange gradients any more
    said, logged = in_log(tmp_path)
    (gap,) = said.kind("gap")
    assert gap["reason"] == "rank 1 of 2 ended without leaving: the last of what it trained on may be missing"
    assert [len(trained) for trained in logged] == [10, 9]  # rank 1 had given its part of the gradients
    assert said.counts("end", "seal") == [0, 1]
    assert not refuted(tmp_path)


@pytest.mark.matrix("DDP", "rank 0 is killed: the others end cleanly, fgtrac seal finishes")
def test_where_rank_0_is_killed_a_seal_takes_what_all_recorded(tmp_path: Path) -> None:
    results = together(2, tmp_path, Plan(killed_at=(0, 1, 2), options={"flush_interval_s": 0.05}))
    assert results[0] is None
    assert "RuntimeError" in results[1]
    seal_trace(tmp_path / "run.trace", tmp_path / "key.pem")
    said, logged = in_log(tmp_path)
    assert [len(trained) for trained in logged] == [9, 10]
    assert said.counts("leave", "end", "seal") == [1, 0, 1]
    assert not refuted(tmp_path)
    again = together(2, tmp_path, Plan(epochs=1, options={"resume": True}))
    said, _logged = in_log(tmp_path)
    assert said.counts("run", "resume", "join", "end") == [1, 1, 4, 1]
    for rank, trained in enumerate(told_by(again)):  # the epoch that was cut, from the checkpoint on
        assert said.trained(rank, start=1) == [(1, *rest) for _epoch, *rest in trained]


def test_the_others_hear_why_rank_0_cannot_begin(tmp_path: Path) -> None:
    (tmp_path / "run.trace").mkdir()
    results = together(2, tmp_path, Plan())
    assert "FileExistsError" in results[0]
    assert "CaptureError: rank 0 could not begin to record: FileExistsError" in results[1]


def test_a_rank_that_is_given_another_folder_is_told(tmp_path: Path) -> None:
    results = together(2, tmp_path, Plan(own_folders=True, epochs=0))
    assert "rank 1 of 2 does not see the trace that rank 0 records" in results[1]
    assert "gather=True" in results[1]


def test_a_rank_that_recorded_nothing_is_a_gap(tmp_path: Path) -> None:
    together(2, tmp_path, Plan(), only_rank_0)
    (gap,) = read_told(tmp_path / "run.trace").kind("gap")
    assert gap["reason"] == "rank 1 of 2 recorded nothing: what it trained on is not known"


def test_other_data_under_one_name_are_refused(tmp_path: Path) -> None:
    results = together(2, tmp_path, Plan(), other_data)
    assert any("another rank has registered other samples as 'TensorDataset'" in str(result) for result in results)


def test_data_of_one_rank_alone_are_registered_by_it(tmp_path: Path) -> None:
    results = together(2, tmp_path, Plan(), own_data)
    assert results == [None, None]
    said = read_told(tmp_path / "run.trace")
    assert sorted(e["dataset"] for e in said.kind("samples")) == ["shard-0", "shard-1"]
    assert not refuted(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 1}, "go together"),
        ({"rank": 2, "world_size": 2}, "counted from 0"),
        ({"gather": True, "rank": 0, "world_size": 2}, "needs torch.distributed"),
        ({"gather": True}, "needs torch.distributed"),
    ],
)
def test_ranks_that_are_none_are_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        start_run(tmp_path / "run", key=tmp_path / "key.pem", **options)


def test_world_size_1_records_alone(tmp_path: Path) -> None:
    with start_run(tmp_path / "run", key=tmp_path / "key.pem", world_size=1):
        pass
    assert read_told(tmp_path / "run.trace").kind("join") == []
