"""Scoring that was interrupted and goes on, and scores added to a trace that has ended."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import fgtrac
from fgtrac.api.audit import audit_trace
from fgtrac.api.bundles import verify_bundle
from fgtrac.api.ledger import state_path
from fgtrac.api.prior import trace_id_of
from fgtrac.api.run import Run, reopen
from fgtrac.commit.signer import Signer
from fgtrac.errors import CaptureError, ScoreError, TamperError
from fgtrac.score.cache import Cache
from fgtrac.store import durable
from fgtrac.verify.report import Verdict

MOMENTS = ("00000006/train", "00000012/validation", "00000012/losses-test", "00000012/contributions")


def again(problem: Any) -> Run:
    return reopen(problem.folder / "run", key=problem.folder / "key.pem")


def trained(problem: Any, **options: Any) -> nn.Module:
    """A finished run without factors, or scored as `options` say."""
    model = problem.model()
    torch.manual_seed(1)
    with problem.start(ids="public") as run:
        for role, data in problem.data.items():
            run.register(data, role=role)
        if options:
            problem.score_with(run, **options)
        problem.fit(run, model)
    return model


def holds(problem: Any) -> None:
    trace = problem.trace
    key = problem.folder / "key.pem"
    report = audit_trace(trace, Signer.open(trace_id_of(trace), key).verifier)
    assert report.verdict is Verdict.HOLDS, report.failures()
    assert not [note for note in report.notes if "not named by any" in note]


def scores(problem: Any) -> dict[Any, bytes]:
    """Recorded contributions: (step, method, block, first ordinal) -> their bytes."""
    events = problem.events("contribution")
    found = {(e["step"], e["method"], e["block"], int(e["ordinals"][0])): e["scores"].tobytes() for e in events}
    assert len(found) == len(events)  # nothing twice
    return found


# -- interrupted ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that were killed with SIGKILL at each moment."""
    folder = tmp_path_factory.mktemp("killed")
    program = Path(__file__).with_name("killed_scoring.py")
    done = [sys.executable, str(program), str(folder), "256", *MOMENTS]
    subprocess.run(done, check=True, timeout=600, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return folder


@pytest.mark.parametrize("how", ["resume", "reopen"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_pass_that_was_killed_is_made_up_for_and_equals_an_undisturbed_one(
    killed: Path, problem: Any, another: Any, tmp_path: Path, moment: str, how: str
) -> None:
    trained(another, loss=nn.CrossEntropyLoss())
    left = killed / moment.replace("/", "-")
    shutil.copytree(left, problem.folder, dirs_exist_ok=True)
    folder = problem.folder / "run.trace" / "artifacts" / "scoring"
    done = step_of(moment) if moment.endswith("contributions") else step_of(moment) - 1
    named = {p: p.stat().st_ino for p in folder.rglob("*") if p.is_file() and 0 < step_of(p.parent.name) <= done}
    with problem.start(resume=True) if how == "resume" else again(problem) as run:
        problem.score_with(run)
        run.score(problem.model())
    expected = {path: data for path, data in another.files().items() if not path.startswith("00000018")}
    if moment.startswith("00000006"):
        expected = {path: data for path, data in expected.items() if not path.startswith("00000012")}
    assert problem.files() == expected
    assert {p: p.stat().st_ino for p in named} == named  # what the log names is not made again
    undisturbed = {k: v for k, v in scores(another).items() if k[0] in {s.step for s in problem.ledger.states}}
    assert scores(problem) == undisturbed
    holds(problem)


def step_of(name: str) -> int:
    match = re.match(r"[0-9]{8}", name)
    return int(match[0]) if match else 0


def test_an_interrupt_leaves_no_unnamed_file_and_the_next_call_goes_on(problem: Any, another: Any) -> None:
    model = trained(problem)
    trained(another, loss=nn.CrossEntropyLoss())
    seen: list[tuple[int, int]] = []

    def interrupt(done: int, total: int) -> None:
        seen.append((done, total))
        if done >= 125 + 90:
            raise KeyboardInterrupt

    def begin() -> None:
        with again(problem) as run:
            problem.score_with(run)
            run.score(model, progress=interrupt)

    with pytest.raises(KeyboardInterrupt):
        begin()
    assert seen[-1] == (215, 375)
    assert {path.split("/")[0] for path in problem.files() if "rows" not in path} == {
        s.folder.rpartition("/")[2] for s in problem.ledger.states[:1]
    }
    holds(problem)
    with again(problem) as run:
        problem.score_with(run)
        run.score(model)
    assert problem.files() == another.files()
    assert scores(problem) == scores(another)
    holds(problem)


# -- added to a trace that has ended --------------------------------------------------------------------------------


def test_scores_and_predictions_are_added_behind_the_end_and_the_trace_still_holds(problem: Any) -> None:
    model = trained(problem)
    before = problem.events("run", "end", "resume", "dataset", "samples", "roles", "use", "transform", "checkpoint")
    with again(problem) as run:
        problem.score_with(run)
        run.score(model)
        run.predictions(problem.test, torch.zeros(15, 3))
    kinds = ("run", "end", "resume", "dataset", "samples", "roles", "use", "transform", "checkpoint")
    assert [e["seq"] for e in problem.events(*kinds)] == [e["seq"] for e in before]
    assert len(problem.events("end")) == 1
    first = problem.events("artifact", "contribution", "prediction")
    assert {e["writer"] for e in first if e["kind"] != "artifact"} == {first[-1]["writer"]}
    (prediction,) = problem.events("prediction")
    newest = problem.events("checkpoint")[-1]
    assert (tuple(prediction["checkpoint"]), prediction["step"]) == ((newest["writer"], newest["seq"]), 18)
    holds(problem)
    bundle = problem.folder / "bundle.json"
    bundle.write_bytes(fgtrac.open(problem.trace.path).prove("TensorDataset:5", "history"))
    report = verify_bundle(bundle, str(problem.folder / "key.pem"))
    assert report.verdict is Verdict.HOLDS, report.failures()
    history = fgtrac.open(problem.trace.path).history("TensorDataset:5")
    told = [event.words for event in history.events if event.kind == "contribution"]
    assert [words.split(" toward ")[1] for words in told] == [
        f"validation at step {step} (tracin)" for step in (6, 12, 18)
    ]


def test_a_second_method_and_a_further_role_are_added_to_what_is_there(problem: Any) -> None:
    model = trained(problem, loss=nn.CrossEntropyLoss(), test=None)
    before = problem.files()
    with again(problem) as run:
        problem.score_with(run, method="fisher")
        run.score(model)
    assert {method for _, method, _, _ in scores(problem)} == {"tracin", "fisher 0.1"}
    new = problem.files()
    assert {k: new[k] for k in before} == before
    assert sorted(k.split("/")[-1] for k in new.keys() - before.keys() if "00000012" in k) == [
        "losses-test-00000.safetensors", "test-00000.safetensors",
    ]  # fmt: skip
    holds(problem)


def test_nothing_is_added_where_nothing_is_asked_for(problem: Any) -> None:
    trained(problem)
    with again(problem):
        pass
    holds(problem)


def test_training_belongs_to_a_resumed_run(problem: Any) -> None:
    model = trained(problem)
    with again(problem) as run:
        for verb in (
            lambda: run.watch(DataLoader(problem.train)),
            lambda: run.checkpoint(model),
            lambda: run.losses(torch.zeros(1)),
        ):
            with pytest.raises(ValueError, match=r"belongs to training, .* start_run\(\.\.\., resume=True\)"):
                verb()
        assert run.step == 18


def test_a_trace_that_is_being_recorded_is_not_opened_again(problem: Any) -> None:
    with problem.start() as run:
        run.register(problem.train)
        run._recorder.sync()
        with pytest.raises(CaptureError, match="is being recorded by a process now"):
            again(problem)


def test_a_data_set_made_anew_is_recognised_by_its_contents(problem: Any) -> None:
    """Three data sets of one type: each is found under its own name, whatever comes first."""
    model = trained(problem)
    fresh = {role: TensorDataset(*(t.clone() for t in data.tensors)) for role, data in problem.data.items()}
    with again(problem) as run:
        run.register(fresh["test"])
        assert run._registry.resolve(fresh["test"]).roots[0].name == "TensorDataset-3"
        run.score_with(loss=nn.CrossEntropyLoss(), **fresh)
        run.score(model)
    holds(problem)


def test_another_data_set_is_refused_and_nothing_is_written(problem: Any) -> None:
    trained(problem)
    other = TensorDataset(torch.zeros(7, 8), torch.zeros(7).long())
    with again(problem) as run:
        before = run._recorder.next_seq
        with pytest.raises(ValueError, match=r"which is not this TensorDataset of 7 rows; it has 'TensorDataset', "):
            problem.score_with(run, train=other)
        with pytest.raises(ValueError, match="no data set as 'others'"):
            run.register(other, name="others")
        assert run._recorder.next_seq == before


def test_factors_of_other_samples_are_not_mixed(problem: Any) -> None:
    trained(problem, loss=nn.CrossEntropyLoss())
    with (
        again(problem) as run,
        pytest.raises(ScoreError, match=r"the trace has train factors of 90 samples, and train= gives 50"),
    ):
        problem.score_with(run, train=Subset(problem.train, range(50)))


def test_stages_are_gone_through_again_and_not_recorded_twice(problem: Any) -> None:
    with problem.start() as run:
        clean = run.transform("clean", problem.train).filter(lambda item: item[1] > 0)
        model = problem.model()
        run.checkpoint(model, torch.optim.SGD(model.parameters(), lr=0.1))
    before = len(problem.events("transform"))
    with again(problem) as run:
        clean = run.transform("clean", problem.train).filter(lambda item: item[1] > 0)
        run.score_with(loss=nn.CrossEntropyLoss(), train=clean)
        run.score(model)
    assert len(problem.events("transform")) == before
    holds(problem)


def test_a_model_of_another_architecture_is_refused_by_its_first_tensor(problem: Any) -> None:
    trained(problem)
    other = nn.Sequential(nn.Linear(8, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(0.3), nn.Linear(7, 3))
    words = r"the checkpoint of step 6 is of another architecture: '0\.bias' has shape \(6,\) there and shape \(7,\) in"
    with again(problem) as run:
        problem.score_with(run)
        with pytest.raises(ScoreError, match=words):
            run.score(other)
        with pytest.raises(ScoreError, match=r"'1\.bias' has shape \(6,\) there and no such tensor in the model"):
            run.score(nn.Sequential(nn.Linear(8, 6), nn.ReLU()))
    assert problem.files() == {}
    holds(problem)


def test_other_layers_than_before_are_refused(problem: Any) -> None:
    trained(problem, loss=nn.CrossEntropyLoss())
    with (
        again(problem) as run,
        pytest.raises(ScoreError, match=r"has factors of '4' and layer= is '0'; leave layer= out"),
    ):
        problem.score_with(run, layer="0")


def test_all_layers_are_not_taken_for_those_that_there_are(problem: Any) -> None:
    model = trained(problem, loss=nn.CrossEntropyLoss())
    with again(problem) as run:
        problem.score_with(run, layer="all")
        with pytest.raises(ScoreError, match=r"has factors of '4' and layer='all' means '0', '4'; leave layer= out"):
            run.score(model)
    holds(problem)


def test_factors_of_two_losses_are_not_mixed(problem: Any) -> None:
    model = trained(problem, loss=nn.CrossEntropyLoss(), max_kept=1)
    before = scores(problem)
    other = nn.CrossEntropyLoss(label_smoothing=0.3)
    with again(problem) as run:
        problem.score_with(run, loss=other)
        with pytest.raises(ScoreError, match=r"are of another loss or forward: at step 6 row \d+ has the loss"):
            run.score(model)
    with problem.start(resume=True, keep="all") as run:
        problem.score_with(run, loss=other)
        with pytest.raises(ScoreError, match="are of another loss or forward"):
            problem.fit(run, model)
    assert scores(problem) == before
    with again(problem) as run:
        problem.score_with(run)
        run.score(model)
    assert len(scores(problem)) > len(before)
    holds(problem)


def test_further_roles_are_scored_by_the_layers_that_there_are(problem: Any) -> None:
    model = trained(problem, loss=nn.CrossEntropyLoss(), layer=["0", "4"], test=None)
    with again(problem) as run:
        problem.score_with(run)
        run.score(model)
    cache = Cache(problem.trace, problem.ledger.artifacts, problem.ledger.states)
    assert [layer.name for layer in cache.layers] == ["0", "4"]
    assert cache.has("test")
    holds(problem)


def test_one_process_at_a_time_scores_a_trace(problem: Any) -> None:
    model = trained(problem)
    with again(problem) as run:
        problem.score_with(run)
        other = durable.lock(run._signer.lock_path.with_suffix(".scoring"), "the trace")
        with other, pytest.raises(ScoreError, match=r"run\.trace is being scored by another process; wait"):
            run.score(model)
        run.score(model)
    holds(problem)


def test_several_learning_rates_ask_for_the_optimizer(problem: Any) -> None:
    model = problem.model()
    groups = [{"params": model[0].parameters(), "lr": 0.5}, {"params": model[4].parameters(), "lr": 0.25}]
    optimizer = torch.optim.SGD(groups)
    with problem.start() as run:
        for role, data in problem.data.items():
            run.register(data, role=role)
        run.checkpoint(model, optimizer)
    with again(problem) as run:
        problem.score_with(run)
        with pytest.raises(ScoreError, match=r"2 learning rates \(0\.5, 0\.25\), .* pass the optimizer= of as"):
            run.score(model)
        run.score(model, optimizer=optimizer)
    assert {tuple(e["parameters"]["learning_rates"]) for e in problem.events("contribution")} == {(0.25,)}
    holds(problem)


def test_a_saved_state_that_was_exchanged_is_not_scored(problem: Any) -> None:
    model = trained(problem)
    path = problem.trace.path / state_path(problem.ledger.states[1])
    path.write_bytes(path.read_bytes()[:-4] + b"0000")
    with again(problem) as run:
        problem.score_with(run)
        with pytest.raises(TamperError, match=f"{path.name} is not the model state that the log names"):
            run.score(model)


def test_subjects_of_a_trace_are_known_and_new_ones_are_not(problem: Any) -> None:
    with problem.start() as run:
        run.register(problem.train, subject=["a", "b", "c"] * 30)
        model = problem.model()
        run.checkpoint(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with again(problem) as run:
        with pytest.raises(ValueError, match="has no secret for 'subject' ids"):
            run.register(problem.train, subject=["a", "b", "d"] * 30)
        run.register(problem.train, subject=["a", "b", "c"] * 30)
        run.score_with(loss=nn.CrossEntropyLoss(), train=problem.train)
        run.score(model)
    holds(problem)


def test_scores_of_a_resumed_run_are_those_of_the_states_that_it_went_on_from(problem: Any) -> None:
    """The state of step 12 was superseded: nothing is made up for it."""
    model = trained(problem)
    with problem.start(ids="public", resume=True, step=6) as run:
        problem.score_with(run)
        run.score(model)
    assert sorted({step for step, *_ in scores(problem)}) == [6]


def test_the_sum_over_checkpoints_is_the_whole(problem: Any) -> None:
    trained(problem, loss=nn.CrossEntropyLoss())
    whole = fgtrac.open(problem.trace.path).explain("role:validation", k=90)
    told: dict[bytes, float] = {}
    place = {}
    for event in problem.events("samples"):
        ids = [event["ids"][i : i + 32] for i in range(0, len(event["ids"]), 32)]
        place |= {(event["block"], n): sample for n, sample in enumerate(ids)}
    for event in problem.events("contribution"):
        for ordinal, score in zip(event["ordinals"].tolist(), event["scores"].tolist(), strict=True):
            sample = place[event["block"], ordinal]
            told[sample] = told.get(sample, 0.0) + score
    (toward,) = whole.toward
    expected = {scored.id: scored.score for scored in (*toward.proponents, *toward.opponents)}
    assert expected.keys() == told.keys()
    largest = max(map(abs, expected.values()))
    assert max(abs(expected[i] - told[i]) for i in told) < 1e-5 * largest
