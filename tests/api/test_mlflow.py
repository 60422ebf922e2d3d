"""A trace in MLflow: what a real tracking store (SQLite, here) has of it afterwards, and that no secret is among it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

import fgtrac
from fgtrac.errors import ProofError
from fgtrac.mlflow import Logged, log_trace
from fgtrac.store.vault import Vault
from lives import live
from model_traces import change_a_use, leave_pending, resumed_trace, trace_with_models, write_key
from traces import TRACE_ID, Made

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tracking store of this test's own; SQLite's tables take MLflow two seconds to make."""
    folder = tmp_path_factory.mktemp("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    experiment = mlflow.create_experiment("traces", artifact_location=str(folder / "artifacts"))
    mlflow.set_experiment(experiment_id=experiment)
    yield experiment
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("traced")
    write_key(folder / "key.pem")
    return trace_with_models(folder)


@pytest.fixture(scope="module")
def logged(store: str, made: Made) -> Logged:
    return log_trace(made.trace.path, report=True, key=made.trace.path.parent / "key.pem")


def artifact(run_id: str, name: str) -> str:
    return mlflow.artifacts.load_text(f"runs:/{run_id}/fgtrac/{name}")


def test_without_an_active_run_one_is_made_and_ended(logged: Logged) -> None:
    run = mlflow.get_run(logged.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    assert mlflow.active_run() is None


def test_tags_name_the_trace_its_head_and_the_verdict(logged: Logged, made: Made) -> None:
    tags, head = mlflow.get_run(logged.run_id).data.tags, made.trace.head()
    assert tags["fgtrac.trace_id"] == TRACE_ID.hex()
    assert (tags["fgtrac.tree_size"], tags["fgtrac.tree_root"]) == (str(head.size), head.root.hex())
    report = json.loads(artifact(logged.run_id, "verification.json"))
    assert tags["fgtrac.verdict"] == logged.verdict == report["verdict"] == "holds"


def test_metrics_have_their_steps(logged: Logged) -> None:
    history = mlflow.MlflowClient().get_metric_history(logged.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(step, 1 / step) for step in (1, 2, 3, 4)]
    losses = mlflow.MlflowClient().get_metric_history(logged.run_id, "checkpoint.val_loss")
    assert [(m.step, m.value) for m in losses] == [(2, 0.5), (4, 0.25)]
    assert logged.metrics == 10


def test_data_sets_are_inputs_whose_digest_is_their_block(logged: Logged, made: Made) -> None:
    (given,) = mlflow.get_run(logged.run_id).inputs.dataset_inputs
    ids = b"".join(sorted(made.ids))
    assert (given.dataset.name, given.dataset.digest) == ("digits", hashlib.sha256(ids).digest()[:16].hex())
    assert json.loads(given.dataset.profile) == {"samples": 20}
    assert {tag.key: tag.value for tag in given.tags} == {"mlflow.data.context": "train"}


def test_the_signed_head_and_the_statement_are_artifacts(logged: Logged, made: Made) -> None:
    assert artifact(logged.run_id, "tree-head.txt").encode() == made.trace.read("checkpoint")
    assert json.loads(artifact(logged.run_id, "models.in-toto.json"))["payloadType"].endswith("in-toto+json")
    summary = json.loads(artifact(logged.run_id, "summary.json"))
    assert summary["uses"] == 32
    assert f"<h1>Report on {made.trace.path.name}</h1>" in artifact(logged.run_id, "report.html")
    assert logged.left_out == ()
    found = mlflow.artifacts.list_artifacts(run_id=logged.run_id, artifact_path="fgtrac")
    assert {one.path for one in found} == set(logged.artifacts)


def test_a_second_call_adds_nothing(logged: Logged, made: Made) -> None:
    log_trace(made.trace.path, run_id=logged.run_id, key=made.trace.path.parent / "key.pem")
    assert len(mlflow.MlflowClient().get_metric_history(logged.run_id, "loss")) == 4
    assert len(mlflow.get_run(logged.run_id).inputs.dataset_inputs) == 1
    assert mlflow.get_run(logged.run_id).data.tags["fgtrac.verdict"] == "not checked"  # of this call


def points(run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in mlflow.MlflowClient().get_metric_history(run_id, name))


def test_of_a_run_that_was_resumed_after_it_was_logged_it_says_what_stays(store: str, tmp_path: Path) -> None:
    made, go_on = resumed_trace(tmp_path)
    first = log_trace(made.trace.path)
    go_on()
    again = log_trace(made.trace.path, run_id=first.run_id)
    assert points(first.run_id, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0), (3, 300.0), (4, 4.0), (4, 400.0)]
    assert again.left_out[0] == "3 values that a restart undid, of which MLflow keeps 3 that an earlier call put there"
    fresh = log_trace(made.trace.path)
    assert points(fresh.run_id, "loss") == [(1, 1.0), (2, 2.0), (3, 300.0), (4, 400.0)]
    assert points(fresh.run_id, "checkpoint.val_loss") == [(2, 0.5), (4, 0.9)]
    assert fresh.left_out[0] == "3 values that a restart undid"


def test_a_metric_of_mlflow_s_own_stays_at_the_second_call_too(store: str, tmp_path: Path) -> None:
    made, _ = resumed_trace(tmp_path)
    with mlflow.start_run() as active:
        mlflow.log_metric("loss", 7.0, step=1)
    for _ in range(2):
        done = log_trace(made.trace.path, run_id=active.info.run_id)
        assert "metric loss: the MLflow run has its own" in done.left_out
    assert points(active.info.run_id, "loss") == [(1, 7.0)]
    assert points(active.info.run_id, "checkpoint.val_loss") == [(2, 0.5), (4, 0.4)]


def test_a_store_that_keeps_everything_twice_gets_nothing_twice(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = resumed_trace(tmp_path)
    done, sent = log_trace(made.trace.path), []
    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", lambda *_, metrics=(), **__: sent.extend(metrics))
    log_trace(made.trace.path, run_id=done.run_id)
    assert sent == []


def test_a_second_trace_in_a_run_is_refused(logged: Logged, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    with fgtrac.start_run(folder / "run", key=tmp_path / "key.pem") as run:
        run.register(TensorDataset(torch.arange(3)), name="three", role="train")
    with pytest.raises(ValueError, match=rf"has trace {TRACE_ID.hex()}; log trace .* into a run of its own"):
        log_trace(run, run_id=logged.run_id)
    assert mlflow.get_run(logged.run_id).data.tags["fgtrac.trace_id"] == TRACE_ID.hex()


def test_a_changed_entry_is_refused_and_later_entries_are_named(store: str, tmp_path: Path) -> None:
    made, _ = resumed_trace(tmp_path)
    leave_pending(made)
    assert log_trace(made.trace.path).left_out[0].startswith("1 later entry is in no full seal yet")
    change_a_use(made.trace.path)
    with mlflow.start_run() as active, pytest.raises(ProofError, match="do not lead to the root"):
        log_trace(made.trace.path)
    assert "fgtrac.trace_id" not in mlflow.get_run(active.info.run_id).data.tags


def test_what_was_not_checked_and_not_signed_is_said(store: str, made: Made, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "absent.pem"))
    with mlflow.start_run() as run:
        done = log_trace(fgtrac.open(made.trace.path))
    assert done.run_id == run.info.run_id
    assert mlflow.get_run(done.run_id).data.tags["fgtrac.verdict"] == done.verdict == "not checked"
    (left_out,) = done.left_out
    assert left_out.startswith("the in-toto statement: there is no key at")
    assert "fgtrac/verification.json" not in done.artifacts
    with mlflow.start_run(), pytest.raises(FileNotFoundError, match="there is no key at"):
        log_trace(fgtrac.open(made.trace.path), key=tmp_path / "absent.pem")


def test_settings_are_parameters_within_mlflow_s_limits(store: str, tmp_path: Path) -> None:
    many = {f"many {n}": n for n in range(1200)}
    config = {"lr": 0.1, "net": {"width": 64, "layers": [1, 2]}, "long": "x" * 7000, "<b>": "y", "own": 1, **many}
    with (
        mlflow.start_run() as active,
        fgtrac.start_run(tmp_path / "run", key=tmp_path / "key.pem", config=config) as run,
    ):
        mlflow.log_param("own", 2)
        mlflow.log_metric("loss", 7.0, step=1)
        run.register(TensorDataset(torch.arange(3)), name="three", role="train")
        run.log(1, **{"loss": 1.0, "bad/../name": 2.0})
    done = log_trace(run, run_id=active.info.run_id, key=tmp_path / "key.pem")
    data = mlflow.get_run(active.info.run_id).data
    assert (data.params["lr"], data.params["net.width"], data.params["net.layers"]) == ("0.1", "64", "[1, 2]")
    assert (data.params["own"], data.metrics["loss"]) == ("2", 7.0)  # MLflow's own stay
    assert len(data.params["long"]) == 6000
    assert [v for k, v in data.params.items() if k.startswith("_b_-")] == ["y"]
    assert [v for k, v in data.metrics.items() if k.startswith("bad_.._name-")] == [2.0]
    assert len(data.params) == 1000  # of 1206, and one that is MLflow's own
    assert [words[:40] for words in done.left_out] == [
        "206 of 1,206 settings: the log has them ",
        "setting own: the MLflow run has another ",
        "the end of setting long, which has 7,000",
        "metric loss: the MLflow run has its own",
        "the in-toto statement: " + str(tmp_path)[:17],
    ]


def test_nothing_of_the_vault_gets_into_the_store(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_key(tmp_path / "key.pem")
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    life = live(tmp_path, scheme="keyed", vault=True)
    done = log_trace(life.path, report=True)
    vault = Vault.open(life.path.with_suffix(".vault"), TRACE_ID)
    secrets = [secret for _, secret in vault.secrets()] + [(tmp_path / "key.pem").read_bytes().split(b"\n")[1]]
    run = mlflow.get_run(done.run_id)
    said = repr(run.to_dictionary()) + "".join(artifact(done.run_id, Path(a).name) for a in done.artifacts)
    for secret in secrets:
        assert secret.hex() not in said
        assert secret.decode("latin-1") not in said
    assert "digits:0" not in said


def test_the_names_do_not_shadow_each_other() -> None:
    assert fgtrac.mlflow is not mlflow
    assert fgtrac.mlflow.log_trace is log_trace
    assert callable(mlflow.start_run)


def test_without_mlflow_it_says_what_to_install(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ValueError, match=r"pip install 'fgtrac\[mlflow\]'"):
        log_trace(made.trace.path)
