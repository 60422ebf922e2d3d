"""The cache: rows come back however they are asked for, and a file that is not the log's is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import caches
from caches import DENSE, FACTORED, PROJECTED
from fgtrac.errors import ScoreError, TamperError
from fgtrac.score import factor_files as files
from fgtrac.score.cache import Cache
from fgtrac.score.factor_files import Rows
from fgtrac.store.trace_dir import TraceDir


@pytest.mark.parametrize(("keep_bytes", "open_files"), [(0, 256), (0, 2), (1 << 27, 256)])
def test_rows_come_back_as_they_were_written(
    tmp_path: Path, keep_bytes: int, open_files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fgtrac.score.cache.OPEN_FILES", open_files)
    written, held = caches.write_cache(tmp_path, (FACTORED, DENSE, PROJECTED), n=450)
    cache = Cache(TraceDir(tmp_path), written._artifacts, written.states, keep_bytes=keep_bytes)
    assert cache.layers == (FACTORED, DENSE, PROJECTED)
    assert [cache.learning_rates(k)[0] for k in range(3)] == list(caches.RATES)
    for start, stop in ((0, 450), (0, 1), (199, 201), (300, 300), (150, 450)):
        for found, whole in zip(cache.read(1, "train", start, stop), held[1, "train"], strict=True):
            assert np.array_equal(found.whole(), whole.rows(slice(start, stop)).whole())
    rows = np.array([449, 0, 200, 200, 5])
    for found, whole in zip(cache.take(2, "train", rows), held[2, "train"], strict=True):
        assert np.array_equal(found.whole(), whole.whole()[rows])
    assert len(cache.take(2, "train", rows[:0])[0]) == 0
    with pytest.raises(ValueError, match="of 1 rows 0 are among"):
        cache.take(0, "train", np.array([450]))
    losses = cache.losses(0, "validation")
    assert losses is not None
    assert losses.shape == (90,)
    assert cache.ggn(0) is None
    assert len(cache.rows("train")) == 450
    assert cache.rows("validation").place(7) == (bytes([1] * 16), 7)


def test_rows_are_found_by_sample_in_one_block_or_several() -> None:
    one = Rows((b"a" * 16,), np.array([4, 2, 9], dtype=np.uint32))
    assert [one.find(b"a" * 16, ordinal) for ordinal in (2, 9, 3)] == [1, 2, None]
    assert one.find(b"b" * 16, 2) is None
    two = Rows((b"a" * 16, b"b" * 16), np.array([4, 4], dtype=np.uint32), np.array([1, 0], dtype=np.uint16))
    assert [two.find(block * 16, 4) for block in (b"a", b"b")] == [1, 0]
    assert two.place(0) == (b"b" * 16, 4)


def test_states_with_factors_of_some_rows_only_are_left_out(tmp_path: Path) -> None:
    cache, _held = caches.write_cache(tmp_path)
    artifacts = {p: d for p, d in cache._artifacts.items() if not p.endswith("/train-00001.safetensors")}
    with pytest.raises(ScoreError, match=r"has 3 kept checkpoints and factors of none; record with run\.score_with"):
        Cache(TraceDir(tmp_path), artifacts, cache.states)
    first = f"{cache.states[0].folder}/train-00001.safetensors"
    some = Cache(TraceDir(tmp_path), artifacts | {first: cache._artifacts[first]}, cache.states)
    assert some.states == cache.states[:1]
    with pytest.raises(ScoreError, match="no kept checkpoint"):
        Cache(TraceDir(tmp_path), artifacts, [])
    assert not some.has("test")
    with pytest.raises(ScoreError, match="no complete test factors at step 10"):
        some.rows("test")


def test_a_file_that_is_not_the_one_of_the_log_is_refused(tmp_path: Path) -> None:
    cache, _held = caches.write_cache(tmp_path)
    for path in [*list(cache._artifacts)[:3], f"{cache.states[2].folder}/losses-train-00000.safetensors"]:
        (file := tmp_path / path).write_bytes((data := file.read_bytes())[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(TamperError, match="the log says"):
            Cache(TraceDir(tmp_path), cache._artifacts, cache.states).check()
        file.unlink()
        with pytest.raises(TamperError, match=r"no file artifacts/scoring/.*, which the log names"):
            Cache(TraceDir(tmp_path), cache._artifacts, cache.states).check()
        file.write_bytes(data)
    Cache(TraceDir(tmp_path), cache._artifacts, cache.states).check()


def test_factors_of_another_state_under_this_ones_name_are_refused(tmp_path: Path) -> None:
    cache, _held = caches.write_cache(tmp_path)
    other = replace(cache.states[0], digest=cache.states[0].digest[:4] + bytes(28))
    with pytest.raises(TamperError, match="another state"):
        Cache(TraceDir(tmp_path), cache._artifacts, [other])


def test_states_scored_by_different_layers_are_refused(tmp_path: Path) -> None:
    first, _ = caches.write_cache(tmp_path)
    second, _ = caches.write_cache(tmp_path / "other", (DENSE,))
    folder = first.states[1].folder
    moved = {p: d for p, d in second._artifacts.items() if p.startswith(folder)}
    for path in moved:
        (tmp_path / path).write_bytes((tmp_path / "other" / path).read_bytes())
    with pytest.raises(ScoreError, match="steps 10 and 20 were scored by different layers"):
        Cache(TraceDir(tmp_path), first._artifacts | moved, first.states)


def test_what_cannot_be_rounded_is_refused_with_a_count_and_the_first_row() -> None:
    gradients = caches.random_gradients(FACTORED, 6, 0)
    assert gradients.deltas is not None
    head = files.ShardHead(bytes(32), 10, "train", 100, 106, 200, bytes(32), (FACTORED,), (0.1,))
    gradients.deltas[4, 1] = 70_000.0
    gradients.deltas[5, 0] = -70_000.0
    with pytest.raises(ScoreError, match=r"2 of 6 rows .* above 65,504, the first is row 104 .*bfloat16"):
        files.encode_shard(head, [gradients], "float16")
    assert files.encode_shard(head, [gradients], "bfloat16")
    gradients.deltas[3, 0] = np.nan
    for dtype in files.BYTES:
        with pytest.raises(ScoreError, match="1 of 6 rows") as caught:
            files.encode_shard(head, [gradients], dtype)
        assert "the first is row 103" in str(caught.value)
