"""Explaining from the factors in a trace: the answers are those of explicit gradients, and nothing else is read."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fgtrac
from fgtrac.api.explanation import Explanation, Scored
from fgtrac.api.naming import UnknownSampleError
from fgtrac.errors import ProofError, ScoreError, TamperError
from softmax_traces import EXTRA, FLIPPED, PARTS, Problem, scored_trace
from traces import make_trace


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    return scored_trace(tmp_path_factory.mktemp("scored"), unscored=3)


@pytest.fixture
def own(problem: Problem, tmp_path: Path) -> Path:
    """A copy of the trace, to be damaged."""
    shutil.copytree(problem.path.parent, tmp_path / "own")
    return tmp_path / "own" / problem.path.name


def names(samples: tuple[Scored, ...]) -> list[str | None]:
    return [sample.name for sample in samples]


def agrees(problem: Problem, told: Explanation, truth: np.ndarray, k: int, place: int = 0) -> None:
    """Proponents, opponents and their scores are those of a column of the full matrix."""
    order = np.argsort(-truth, kind="stable")
    one = told.toward[place]
    up, down = order[:k][truth[order[:k]] > 0], order[::-1][:k][truth[order[::-1][:k]] < 0]
    assert names(one.proponents) == [problem.names["train"][i] for i in up]
    assert names(one.opponents) == [problem.names["train"][i] for i in down]
    listed = [s.score for s in (*one.proponents, *one.opponents)]
    np.testing.assert_allclose(listed, truth[[*up, *down]], rtol=1e-4, atol=1e-5 * np.abs(truth).max())


@pytest.mark.parametrize("role", ["train", "validation", "test"])
def test_a_sample_is_explained_as_by_explicit_gradients(problem: Problem, role: str) -> None:
    trace, matrix = fgtrac.open(problem.path), problem.matrix(role)
    for row in (0, 7, 19):
        agrees(problem, trace.explain(problem.names[role][row]), matrix[:, row], 10)


def test_several_targets_are_answered_in_one_call_in_their_order(problem: Problem) -> None:
    wanted = ["digits:345", ["digits:301", "digits:350", "digits:0"], "digits:3", "role:validation"]
    told = fgtrac.open(problem.path).explain(*wanted, k=5)
    single, train, validation, test = (problem.matrix(r) for r in ("test", "train", "validation", "test"))
    agrees(problem, told, single[:, 5], 5, 0)
    agrees(problem, told, (validation[:, 1] + test[:, 10] + train[:, 0]) / 3, 5, 1)
    agrees(problem, told, train[:, 3], 5, 2)
    agrees(problem, told, validation.mean(axis=1), 5, 3)
    assert [one.samples for one in told.toward] == [1, 3, 1, 40]


@pytest.mark.parametrize(
    ("name", "role"), [("class:2", "validation"), ("class:2:test", "test"), ("class:1:train", "train")]
)
def test_a_class_is_the_mean_over_its_samples(problem: Problem, name: str, role: str) -> None:
    told = fgtrac.open(problem.path).explain(name)
    mine = problem.labels[role] == int(name[6])
    agrees(problem, told, problem.matrix(role)[:, mine].mean(axis=1), 10)
    assert told.toward[0].samples == mine.sum()
    assert role in told.toward[0].sentence


def test_the_shares_of_the_checkpoints_add_up_to_the_score(problem: Problem) -> None:
    told = fgtrac.open(problem.path).explain("digits:310")
    assert told.columns == ("step 10", "step 20", "step 30")
    for sample in (*told.toward[0].proponents, *told.toward[0].opponents):
        row = problem.names["train"].index(str(sample.name))
        np.testing.assert_allclose(
            sample.trace, [problem.matrix("validation", k=k)[row, 10] for k in range(3)], rtol=1e-4
        )
        assert sum(sample.trace) == pytest.approx(sample.score, rel=1e-5)


def test_checkpoints_are_chosen_by_step(problem: Problem) -> None:
    trace = fgtrac.open(problem.path)
    told = trace.explain("digits:310", checkpoints=[30, 10])
    assert told.steps == (10, 30)
    agrees(problem, told, (problem.matrix("validation", k=0) + problem.matrix("validation", k=2))[:, 10], 10)
    with pytest.raises(ValueError, match=r"no state with factors is kept at step 11; there are \[10, 20, 30\]"):
        trace.explain("digits:310", checkpoints=[11])
    with pytest.raises(ValueError, match=r"at step 11; there are \[10, 20, 30\]"):
        trace.explain("digits:310", checkpoints=[10, 11])


@pytest.mark.parametrize("method", ["tracin", "tracin-cos", "fisher", "ekfac"])
def test_every_method_answers_and_says_which_it_is(problem: Problem, method: str) -> None:
    told = fgtrac.open(problem.path).explain("digits:345", "role:test", method=method)
    assert told.method.startswith(method)
    assert f"by {told.method}" in str(told)
    assert all(len(one.proponents) == 10 for one in told.toward)


def test_shares_by_source_class_and_subject_are_sums_over_all_training_samples(problem: Problem) -> None:
    trace, truth = fgtrac.open(problem.path), problem.matrix("validation")[:, 3]
    for by, groups in (("source", 2), ("class", 4), ("subject", 5)):
        told = trace.explain("digits:303", "digits:304", by=by).toward
        shares = told[0].shares
        assert len(shares) == groups
        assert sum(s.samples for s in shares) == 300 + EXTRA
        assert sum(s.sum for s in shares) == pytest.approx(truth.sum(), rel=1e-3)
        assert [s.sum for s in shares] == sorted((s.sum for s in shares), reverse=True)
        assert told[1].shares != shares
    of_class = {s.group: s for s in trace.explain("digits:303", by="class").toward[0].shares}
    mine = problem.labels["train"] == 2
    assert of_class["class 2"].sum == pytest.approx(truth[mine].sum(), rel=1e-3)
    assert of_class["class 2"].mean == pytest.approx(truth[mine].mean(), rel=1e-3)
    of_source = {s.group: s.sum for s in trace.explain("digits:303", by="source").toward[0].shares}
    assert of_source["extra"] == pytest.approx(truth[300:].sum(), rel=1e-3)


def test_beside_the_opponents_stand_the_highest_training_losses_of_the_class(problem: Problem) -> None:
    (one,) = fgtrac.open(problem.path).explain("digits:303", k=5).toward
    losses = np.mean([problem.losses[k, "train"] for k in range(3)], axis=0)
    mine = np.flatnonzero(problem.labels["train"] == one.label)
    best = mine[np.argsort(-losses[mine])[:5]]
    assert names(one.baseline) == [problem.names["train"][i] for i in best]
    assert [s.score for s in one.baseline] == pytest.approx(losses[best].tolist())


def test_a_training_sample_that_explains_itself_is_marked(problem: Problem) -> None:
    (one,) = fgtrac.open(problem.path).explain(f"digits:{FLIPPED - 1}").toward
    assert [s.name for s in one.proponents if s.is_target] == [f"digits:{FLIPPED - 1}"]


def test_the_answer_is_json_and_says_what_it_rests_on(problem: Problem) -> None:
    told = fgtrac.open(problem.path).explain("digits:303", by="class")
    said = json.loads(json.dumps(told.as_json(), allow_nan=False))
    assert said["fidelity"] == "fidelity not measured"
    assert said["training_samples"] == 300 + EXTRA
    assert len(said["toward"][0]["proponents"][0]["trace"]) == len(said["columns"]) == 3
    assert said["toward"][0]["proponents"][0]["role"] == "train"
    words = str(told)
    assert "fidelity not measured" in words
    assert "steps 10, 20, 30" in words
    assert "influence is not causation" in words


def test_without_a_vault_samples_are_told_by_their_ids(own: Path) -> None:
    asked = f"id:{fgtrac.open(own).history('digits:303').id.hex()}"
    own.with_suffix(".vault").unlink()
    (one,) = fgtrac.open(own).explain(asked).toward
    assert one.proponents[0].name is None
    assert one.proponents[0].words.startswith(f"id:{one.proponents[0].id.hex()[:16]} (class ")


def test_an_opened_trace_answers_again_without_anything_but_its_factor_files(own: Path) -> None:
    trace = fgtrac.open(own)
    first = trace.explain("digits:303")
    shutil.rmtree(own / "tile")
    assert trace.explain("digits:303") == first


def test_every_factor_file_that_is_used_is_checked_against_the_log(own: Path) -> None:
    shard = next((own / "artifacts/scoring").glob("*/train-00001.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(TamperError, match="train-00001"):
        fgtrac.open(own).explain("digits:303")
    shard.unlink()
    with pytest.raises(TamperError, match="train-00001"):
        fgtrac.open(own).explain("digits:303")


def test_factors_of_a_sample_that_was_never_registered_are_refused(tmp_path: Path) -> None:
    trace = fgtrac.open(scored_trace(tmp_path, past=1000).path)
    for ask in (lambda: trace.explain("digits:345"), trace.self_influence, trace.suspects, trace.duplicates):
        with pytest.raises(ProofError, match=r"the factors name ordinal 1\d\d\d of block .* which has 360 samples"):
            ask()


@pytest.mark.parametrize(
    ("target", "options", "error", "words"),
    [
        ("id:" + "00" * 32, {}, UnknownSampleError, "no sample id:0000.* is registered"),
        ("digits:361", {}, ScoreError, "digits:361 is registered, but it is among the factors of no role"),
        ("class:9", {}, ValueError, "no sample with factors is of class 9; there are 0, 1, 2, 3"),
        ("class:x", {}, ValueError, "names no class"),
        ("class:1:nobody", {}, ValueError, "names no class"),
        ("role:nobody", {}, ValueError, "role:nobody is none of"),
        ([], {}, ValueError, "group of no samples"),
        ("digits:1", {"method": "magic"}, ValueError, "method 'magic' is none of"),
        ("digits:1", {"damping": 0.1}, ValueError, "damping belongs to fisher and ekfac, not to tracin"),
        ("digits:1", {"k": 0}, ValueError, "at least 1"),
        ("digits:1", {"by": "colour"}, ValueError, "by='colour' is none of source, class, subject"),
        ("digits:1", {"method": "fisher", "ggn": True}, ScoreError, "no Gauss-Newton matrix"),
        ("digits:1", {"loss": len}, ValueError, "pass model= too"),
        ("digits:1", {"model": object()}, ValueError, "needs loss="),
    ],
)
def test_what_cannot_be_explained_is_refused_with_the_reason(
    problem: Problem, target: object, options: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        fgtrac.open(problem.path).explain(target, **options)


def test_nothing_named_is_refused(problem: Problem) -> None:
    with pytest.raises(ValueError, match="nothing was named"):
        fgtrac.open(problem.path).explain()


def test_a_trace_without_factors_says_what_to_do(tmp_path: Path) -> None:
    made = make_trace(tmp_path)
    with pytest.raises(ScoreError, match=r"no kept checkpoint; record with run.score_with\(...\)"):
        fgtrac.open(made.trace.path).explain("digits:1")


def test_a_role_without_factors_is_named(tmp_path: Path) -> None:
    trace = fgtrac.open(scored_trace(tmp_path, roles=("train", "validation")).path)
    with pytest.raises(ScoreError, match="no test factors"):
        trace.explain("role:test")
    assert trace.explain("class:1").toward[0].target == "class 1 of the validation samples"


def test_explaining_needs_neither_torch_nor_the_data(problem: Problem) -> None:
    code = f"import fgtrac, sys; print(fgtrac.open({str(problem.path)!r}).explain('digits:5').toward[0].sentence)"
    code += "; assert not {m for m in sys.modules if m.partition('.')[0] in ('torch', 'safetensors')}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "lowered its loss most" in done.stdout


def test_all_rows_of_the_data_set_have_a_place(problem: Problem) -> None:
    assert [len(problem.names[role]) for role in PARTS] == [300 + EXTRA, 40, 20]


def test_no_step_and_what_is_no_target_are_told_as_such(problem: Problem) -> None:
    trace = fgtrac.open(problem.path)
    with pytest.raises(ValueError, match=r"no step named in checkpoints=\[\]; there are \[10, 20, 30\]"):
        trace.explain("digits:345", checkpoints=[])
    for what in (3, b"digits:345", {"digits": 345}, None):
        with pytest.raises(TypeError, match=r"is no target: a target is a name \(NAME:ROW.* or a list of names"):
            trace.explain(what)
