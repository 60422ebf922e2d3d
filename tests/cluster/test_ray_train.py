"""Workers of Ray Train record one trace, each its own batches; a worker that is lost is a gap."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from fgtrac.api.run import start_run
from fgtrac.frameworks import ray_train
from fgtrac.verify.report import Verdict
from ray_loops import loop
from replays import replayed, report
from told_truth import read_told

pytestmark = pytest.mark.filterwarnings("default", "error:fgtrac")  # Ray warns of itself
TESTS = str(Path(__file__).parents[1])


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", TESTS)  # in a runtime_env, Ray's waiting workers would not do
        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
    yield
    ray.shutdown()


def train(folder: Path, retries: int = 0, **config: Any) -> str:
    """Run it on two workers: the error's text, or nothing."""
    key = folder / "key.pem"
    trainer = TorchTrainer(
        loop,
        train_loop_config={"folder": str(folder), "key": str(key), **config},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(
            name="cnn", storage_path=str(folder / "ray"), failure_config=FailureConfig(max_failures=retries)
        ),
    )
    try:
        ray_train.fit(trainer, folder / "run", key=key)
    except ray.train.TrainingFailedError as error:
        return str(error)
    return ""


def told(folder: Path, attempt: int = 0) -> list[Any]:
    read = [json.loads((folder / f"told-{rank}-{attempt}").read_text()) for rank in (0, 1)]
    return [[tuple(one) for one in mine] for mine in read]


def refuted(folder: Path) -> list[str]:
    return [found.words for found in report(folder).findings if found.verdict is Verdict.REFUTED]


def test_workers_that_share_no_folder_record_one_trace(tmp_path: Path) -> None:
    assert train(tmp_path, apart=True) == ""
    said = read_told(tmp_path / "host-0" / "run.trace")
    assert [said.trained(rank) for rank in (0, 1)] == told(tmp_path)
    assert said.counts("join", "leave", "end", "gap", "checkpoint") == [2, 1, 1, 0, 2]
    assert said.attributions == {"exact"}
    assert replayed(tmp_path / "host-0").verdict is Verdict.HOLDS
    assert list((tmp_path / "host-1").iterdir()) == []


def test_a_worker_that_is_lost_is_a_gap(tmp_path: Path) -> None:
    assert train(tmp_path, killed_at=[0, 1, 2])
    said = read_told(tmp_path / "run.trace")
    gaps = [gap["reason"] for gap in said.kind("gap")]
    assert sum(reason.startswith("rank 0 of 2 ended without leaving") for reason in gaps) == 1, gaps
    assert said.counts("end") == [0]
    assert len(said.trained(0)) >= len(told(tmp_path)[0])
    assert not refuted(tmp_path)


def test_a_training_that_ray_starts_anew_goes_on_in_its_trace_and_a_namesake_does_not(tmp_path: Path) -> None:
    assert train(tmp_path, retries=1, killed_at=[1, 1, 2]) == ""
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run.trace").rglob("*")}
    with pytest.warns(RuntimeWarning, match=r"nothing of it is in .*run\.trace on this host; run fgtrac seal"):
        assert "run.trace exists already; choose another name, or continue it with resume=True" in train(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run.trace").rglob("*")} == files
    said = read_told(tmp_path / "run.trace")
    gaps = [gap["reason"] for gap in said.kind("gap")]
    assert sum(reason.startswith("rank 1 of 2 ended without leaving") for reason in gaps) == 1, gaps
    assert said.counts("run", "resume", "join", "end") == [1, 1, 4, 1]
    assert [said.trained(rank, start=1) for rank in (0, 1)] == told(tmp_path, 1)
    assert not refuted(tmp_path)


class Context:
    """Of the one worker of a training of Ray's."""

    def get_world_size(self) -> int:
        return 1

    def get_world_rank(self) -> int:
        return 0

    def get_experiment_name(self) -> str:
        return "cnn"


def test_another_fit_goes_on_with_the_config_that_the_log_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.train, "get_context", Context)
    options: dict[str, Any] = {"key": tmp_path / "key.pem"}
    for number, more in enumerate(({}, {"resume": True}, {"resume": True})):
        monkeypatch.setattr(ray_train, "_run_id", lambda run=str(number): run)
        config = None if number == 2 else {"lr": 1}
        ray_train.start_run(tmp_path / "run", config=config, **options, **more).close()  # a warning would be an error
    with pytest.warns(RuntimeWarning, match="resumed with another config"):
        ray_train.start_run(tmp_path / "run", config={"lr": 2}, resume=True, **options).close()
    said = read_told(tmp_path / "run.trace")
    assert said.kind("run")[0]["config"] == {"lr": 1, ray_train.STARTED_BY: "cnn 0"}
    assert said.counts("resume") == [3]


class Cut:
    """A trainer whose training fails; where `FGTRAC_PUSH` then sends the trace, nobody answers."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch

    def fit(self) -> None:
        start_run(self.folder / "run", key=self.folder / "key.pem", world_size=1).close(finished=False)
        for name, value in {"ENDPOINT": "http://127.0.0.1:9", "TIMEOUT_S": "1"}.items():
            self.patch.setenv(f"FGTRAC_S3_{name}", value)
        self.patch.setenv("AWS_ACCESS_KEY_ID", "no")
        self.patch.setenv("AWS_SECRET_ACCESS_KEY", "body")
        self.patch.setenv("FGTRAC_PUSH", "s3://traces/run.trace")
        raise RuntimeError("the loop failed")


def test_a_trace_that_is_sealed_and_not_pushed_is_told_to_be_just_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = r"the trace of this training is sealed at \d+ entries, and not pushed, .*; later: fgtrac push"
    with pytest.warns(RuntimeWarning, match=words), pytest.raises(RuntimeError, match="the loop failed"):
        ray_train.fit(Cut(tmp_path, monkeypatch), tmp_path / "run", key=tmp_path / "key.pem")
    assert read_told(tmp_path / "run.trace").counts("end", "seal") == [0, 1]


def test_a_relative_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'runs/cnn' is relative, and each Ray worker has a working folder of its own"):
        ray_train.start_run("runs/cnn")
