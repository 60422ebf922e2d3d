"""Streams: samples without row numbers are named as they come, and counted as often as an update rests on them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from torch.utils.data import DataLoader, default_collate

from fgtrac.api.audit import audit_trace
from fgtrac.api.run import Run, start_run
from fgtrac.capture.envelope import Envelope, content_digest
from fgtrac.capture.streams import Marks
from fgtrac.errors import CaptureError
from fgtrac.store.trace_dir import TraceDir
from loader_truth import Read, Trainer, check, updates
from stream_truth import Batched, Numbers, from_shards, number_of, numbers_of, write_shards

UNCLOSED = pytest.mark.filterwarnings(  # shards, by webdataset
    "ignore:unclosed file:ResourceWarning",
    "ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning",
)
WORKERS = pytest.mark.parametrize("workers", [0, 2])


def without_threes(samples: list[Any]) -> Any:
    return default_collate([sample for sample in samples if sample[1] % 3])


def loader_of(data: Any, workers: int = 0, batch_size: int | None = 3, **options: Any) -> DataLoader[Any]:
    return DataLoader(data, batch_size=batch_size, num_workers=workers, **options)


@pytest.mark.matrix("Streams", "IterableDataset, key function", attribution="exact")
@WORKERS
def test_a_sample_is_the_same_in_every_pass_by_its_key(run: Run, log: Read, workers: int) -> None:
    loader = loader_of(Numbers(14), workers)
    assert run.watch(loader, role="train", key=number_of, name="numbers") is loader
    trainer = Trainer()
    for _epoch in range(3):
        trainer.over(loader)
    said = check(run, log, trainer)
    assert Counter(use.key for use in said.uses()) == dict.fromkeys(range(14), 3)
    assert len(said.names) == 14
    assert {e["name"] for e in said.kind("dataset")} == {"numbers"}
    roles = [said.keys(e["block"], e["ordinals"]) for e in said.kind("roles")]
    assert sorted(key for keys in roles for key in keys) == list(range(14))  # once each, whatever comes again


@pytest.mark.matrix("Streams", "IterableDataset, content digest", attribution="exact")
@WORKERS
def test_a_sample_without_a_key_is_named_by_its_content(run: Run, log: Read, workers: int) -> None:
    data = Numbers(14)
    who = {content_digest((data.features[row], row)): row for row in range(14)}
    loader, trainer = run.watch(loader_of(data, workers), role="train"), Trainer()
    for _epoch in range(2):
        trainer.over(loader)
    run.close()
    said = log(run.path)
    assert [sorted(who[key] for key in keys) for keys in updates(said, "exact")] == trainer.truth
    assert len(trainer.truth) >= 10


@pytest.mark.matrix("Streams", "batch_size=None: a sample at a time", attribution="exact")
@WORKERS
def test_samples_that_are_not_batched_are_named_one_by_one(run: Run, log: Read, workers: int) -> None:
    trainer = Trainer()
    trainer.over(run.watch(loader_of(Numbers(6), workers, batch_size=None), role="train", key=number_of))
    check(run, log, trainer)


@pytest.mark.matrix("Streams", "batch_size=None: ready batches", attribution="exact")
@WORKERS
def test_ready_batches_are_named_by_a_list_of_keys(run: Run, log: Read, workers: int) -> None:
    trainer = Trainer()
    trainer.over(run.watch(loader_of(Batched(10), workers, batch_size=None), role="train", key=numbers_of))
    check(run, log, trainer)


@pytest.mark.matrix("Streams", "early break and peek", attribution="exact")
@WORKERS
def test_what_a_stream_had_prefetched_is_no_use(run: Run, log: Read, workers: int) -> None:
    loader = run.watch(loader_of(Numbers(20), workers, persistent_workers=workers > 0), role="train", key=number_of)
    next(iter(loader))
    trainer = Trainer()
    for _epoch in range(3):
        for number, batch in enumerate(loader):
            trainer.step(batch)
            if number == 1:
                break
    check(run, log, trainer)


@pytest.mark.matrix("Streams", "spawn", attribution="exact")
def test_workers_that_were_spawned_name_samples(run: Run, log: Read) -> None:
    trainer, how = Trainer(), {"multiprocessing_context": "spawn"}
    trainer.over(run.watch(loader_of(Numbers(8), 2, **how), role="train", key=number_of))
    check(run, log, trainer)


@pytest.mark.matrix("Streams", "a new loader around the same stream", attribution="exact")
@WORKERS
def test_a_new_loader_around_a_watched_stream_is_followed(run: Run, log: Read, workers: int) -> None:
    data = Numbers(8)
    run.watch(loader_of(data), role="train", key=number_of)
    trainer = Trainer()
    for _epoch in range(2):
        trainer.over(loader_of(data, workers, batch_size=2))
    check(run, log, trainer)


@pytest.mark.matrix("Streams", "WebDataset: (__url__, __key__)", attribution="exact")
@UNCLOSED
@WORKERS
def test_samples_of_shards_are_told_apart_by_shard_and_key(run: Run, log: Read, tmp_path: Path, workers: int) -> None:
    data = webdataset.WebDataset(write_shards(tmp_path), shardshuffle=False, empty_check=False).decode()
    loader, trainer = loader_of(data, workers, collate_fn=from_shards), Trainer()
    run.watch(loader, role="train", name="shards")
    for _epoch in range(2):
        trainer.over(loader)
    run.close()
    said = log(run.path)
    shown = [[100 * int(url[-5]) + int(key[-1]) for url, key in keys] for keys in updates(said, "exact")]
    assert [sorted(rows) for rows in shown] == trainer.truth
    assert len(said.names) == 12


@pytest.mark.matrix("Streams", "WebDataset: WebLoader, batched in the pipeline", attribution="exact")
@UNCLOSED
@WORKERS
def test_batches_of_a_pipeline_keep_their_keys_where_samples_are_maps(
    run: Run, log: Read, tmp_path: Path, workers: int
) -> None:
    data = webdataset.WebDataset(write_shards(tmp_path), shardshuffle=False, empty_check=False).decode().batched(4)
    loader = webdataset.WebLoader(data, batch_size=None, num_workers=workers)
    assert run.watch(loader, role="train") is loader
    trainer = Trainer()
    for batch in loader:
        trainer.step((torch.as_tensor(batch["features.npy"]), torch.as_tensor(np.stack(batch["who.npy"]))))
    run.close()
    said = log(run.path)
    shown = [[100 * int(url[-5]) + int(key[-1]) for url, key in keys] for keys in updates(said, "exact")]
    assert [sorted(rows) for rows in shown] == trainer.truth
    with (
        pytest.raises(CaptureError, match="1 stages behind its DataLoader"),
        start_run(tmp_path / "other", key=tmp_path / "key.pem") as other,
    ):
        other.watch(loader.unbatched())


@pytest.mark.matrix("Streams", "collate_fn drops samples", note="said to be among those named")
def test_a_batch_of_a_stream_that_lost_samples_holds_at_most_those_named(run: Run, log: Read) -> None:
    loader = run.watch(loader_of(Numbers(9), collate_fn=without_threes), role="train", key=number_of)
    trainer = Trainer()
    with pytest.warns(RuntimeWarning, match="holds another number"):
        trainer.over(loader)
    run.close()
    uses = log(run.path).uses()
    assert "among" in {use.attribution for use in uses}
    for step, rows in enumerate(trainer.truth, 1):
        mine = [use for use in uses if use.step == step]
        assert {use.attribution for use in mine} == {"exact" if len(rows) == 3 else "among"}
        assert set(rows) <= {use.key for use in mine}


@pytest.mark.matrix("Streams", "samples that change at random", note="a warning: they are others in each pass")
def test_contents_that_change_in_each_pass_are_said_to(run: Run) -> None:
    loader = run.watch(loader_of(Numbers(40, changes=True)), role="train")
    trainer = Trainer()
    for _epoch in range(2):
        trainer.over(loader)
        run._recorder.flush()
    with pytest.warns(RuntimeWarning, match="were all new, and it is not its first pass") as warned:
        trainer.over(loader)
    assert len(warned) == 1


@WORKERS
def test_the_loop_gets_the_very_batches_and_the_loader_its_function_back(run: Run, log: Read, workers: int) -> None:
    def batches(loader: DataLoader[Any]) -> list[Any]:
        torch.manual_seed(3)
        return [(features.tolist(), who.tolist()) for features, who in loader]

    loader = loader_of(Numbers(8), workers)
    plain = batches(loader)
    run.watch(loader, key=number_of)
    assert batches(loader) == plain
    late = iter(loader)
    next(late)
    run.close()
    assert loader.collate_fn is default_collate
    assert all(isinstance(batch, list) for batch in late)
    assert batches(loader) == plain


def test_a_stream_trace_is_verified_like_any_other(run: Run, tmp_path: Path) -> None:
    loader, trainer = run.watch(loader_of(Numbers(14)), role="train", key=number_of), Trainer()
    for _epoch in range(2):
        trainer.over(loader)
        run._recorder.flush()
    run.close()
    report = audit_trace(TraceDir.open(run.path), None)
    assert {f.check for f in report.findings if f.verdict.value == "refuted"} == set()
    assert {f.check: f.verdict.value for f in report.findings}["index"] == "holds"


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (({"when": object()}, 1), "a object, without canonical bytes"),
        (np.array([object()]), "an array of object has no canonical bytes"),
        (torch.eye(3).to_sparse(), "sparse"),
    ],
)
def test_what_has_no_canonical_bytes_is_refused_by_its_type_with_the_remedy(sample: Any, words: str) -> None:
    with pytest.raises(CaptureError, match=words) as caught:
        content_digest(sample)
    assert "watch(loader, key=...)" in str(caught.value)


def test_contents_differ_where_values_types_or_shapes_do(rows: Any) -> None:
    samples = [
        torch.zeros(2), torch.zeros(1, 2), torch.zeros(2, dtype=torch.int32), (0, 0), [0, [0]], [[0], 0], b"", "x",
        [b"x"], ["x"], None, [None], [True], [1], [1.0], {"a": 1}, {"b": 1}, {"a": 1, "b": 2}, [-0.0], [0.0], ["1"],
        np.zeros(2), [np.zeros(2)], torch.zeros(2, dtype=torch.bfloat16),
    ]  # fmt: skip
    digests = [content_digest(sample) for sample in samples]
    assert len(set(digests)) == len(samples)
    assert content_digest({"b": 2, "a": 1}) == content_digest({"a": 1, "b": 2})
    assert content_digest(np.zeros(2, np.float32)) == content_digest(torch.zeros(2))


def test_marks_tell_what_was_met_before() -> None:
    made = np.random.default_rng(0).integers(0, 256, (5000, 32), dtype=np.uint8)
    marks, met = Marks(), 0
    for start in range(0, 5000, 70):
        some = made[max(0, start - 30) : start + 70]
        fresh = marks.add(some)
        assert fresh.sum() == min(start + 70, 5000) - met
        assert not fresh[: len(some) - fresh.sum()].any()
        met = min(start + 70, 5000)
    assert len(marks) == 5000


def test_what_is_asked_of_a_stream_and_cannot_be_is_refused(run: Run, tmp_path: Path) -> None:
    loader = run.watch(loader_of(Numbers(4)), role="train", name="numbers", key=number_of)
    assert run.watch(loader, role="train") is loader
    with pytest.raises(ValueError, match="is watched as 'numbers', train"):
        run.watch(loader, role="validation")
    with pytest.raises(ValueError, match="'numbers' is registered already"):
        run.watch(loader_of(Numbers(4)), name="numbers")
    with pytest.raises(ValueError, match="for iterable-style data sets"):
        run.watch(DataLoader([1, 2]), key=number_of)  # type: ignore[arg-type]
    wrong = run.watch(loader_of(Numbers(4)), key=_no_key)
    with pytest.warns(RuntimeWarning, match=r"is no key; .*name the samples by watch\(loader, key=...\)"):
        next(iter(wrong))


def _no_key(sample: Any) -> Any:
    return 1.5


def test_a_loader_that_got_another_collate_function_is_said_to_be_unrecorded(run: Run, log: Read) -> None:
    loader = run.watch(loader_of(Numbers(4)), key=number_of)
    batches = iter(loader)
    batches._dataset_fetcher.collate_fn = default_collate  # type: ignore[attr-defined]
    with pytest.warns(RuntimeWarning, match="given another collate_fn"):
        next(batches)
    run.close()
    assert len(log(run.path).kind("gap")) == 1


def test_an_envelope_is_pinned_with_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[Any] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, *_: pinned.append(self) or self)
    made = Envelope([1], [b"1"], {"x": torch.zeros(1)}).pin_memory()
    assert (made.keys, made.digests, len(pinned)) == ([1], [b"1"], 1)
