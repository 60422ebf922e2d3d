"""The verbs about losses and contributions say what is so, in words and as JSON, with the documented exit codes."""

from __future__ import annotations

import csv
import runpy
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fgtrac
from fgtrac.events.schema import ATTRIBUTION, STATUS
from lives import Life, keep_names
from softmax_traces import FLIPPED, Problem, scored_trace
from traces import Made, make_trace, start_trace

from .conftest import Run


@pytest.fixture(scope="module")
def jumped(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Eight epochs in which row 17 was corrupt once, in epoch 5."""
    folder = tmp_path_factory.mktemp("jumped")
    made, writing = start_trace(folder, samples=100)
    generator = np.random.default_rng(0)
    for epoch in range(8):
        losses = generator.uniform(0.4, 0.6, 100)
        losses[17] = 50.0 if epoch == 5 else losses[17]
        order = generator.permutation(100)
        for number, start in enumerate(range(0, 100, 10)):
            rows = order[start : start + 10]
            writing.step += 1
            said = (epoch, number, writing.step, STATUS["applied"], ATTRIBUTION["exact"])
            half = losses[rows].astype(np.float16)
            writing.recorder.use(writing.placement, 1, 1, said, array("I", rows.tolist()), half)
    writing.end()
    made.seal()
    keep_names(folder, made)
    return made


def test_spikes_names_the_step_and_the_sample(run: Run, jumped: Made) -> None:
    done = run("spikes", jumped.trace.path)
    assert done.code == 0
    assert "(epoch 5): loss" in done.out
    assert "digits:17" in done.out
    said = run("spikes", jumped.trace.path, "--json", "--top", "1", "--samples", "3").json
    (spike,) = said["spikes"]
    assert spike["samples"][0]["name"] == "digits:17"
    assert len(spike["samples"]) == 3
    assert said["events"] == 800


def test_spikes_shows_any_step_that_is_asked_for(run: Run, jumped: Made) -> None:
    assert "step 3 (epoch 0)" in run("spikes", jumped.trace.path, "--step", "3").out
    gone = run("spikes", jumped.trace.path, "--step", "999")
    assert (gone.code, gone.out) == (2, "")
    assert "no update 999 has losses; updates from 1 to 80 have some" in gone.err


def test_spikes_has_the_same_defaults_and_words_in_python(run: Run, jumped: Made) -> None:
    found = fgtrac.open(jumped.trace.path).spikes()
    assert run("spikes", jumped.trace.path, "--json").json == found.as_json()
    assert found.spikes[0].title in str(found)
    assert found.spikes[0].title in run("spikes", jumped.trace.path).out


def test_spikes_cannot_tell_without_losses(run: Run, tmp_path: Path) -> None:
    made = make_trace(tmp_path / "bare")
    for flags in ((), ("--json",)):
        done = run("spikes", made.trace.path, *flags)
        assert done.code == 3
        assert done.err.startswith("fgtrac: cannot tell: no losses are recorded")
        assert "run.losses" in done.err


def test_spikes_of_too_few_steps_shows_none(run: Run, lived: Life) -> None:
    done = run("spikes", lived.path)
    assert (done.code, done.err) == (0, "")
    assert "no step's loss jumped" in done.out


# -- scores ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    return scored_trace(tmp_path_factory.mktemp("scored"))


def test_score_shows_proponents_and_opponents_by_name_and_what_they_rest_on(run: Run, scored: Problem) -> None:
    done = run("score", scored.path, "--toward", "digits:345", "--top", "4", "--by", "source")
    assert (done.code, done.err) == (0, "")
    (one,) = fgtrac.open(scored.path).explain("digits:345", k=4).toward
    for sample in (*one.proponents, *one.opponents, *one.baseline):
        assert str(sample.name) in done.out
    assert one.sentence in done.out
    assert one.free.startswith("for comparison, free: the highest training losses of class")
    told = str(fgtrac.open(scored.path).explain("digits:345", k=4))
    assert one.free in done.out
    assert one.free in told
    assert "added up by source" in done.out
    assert "fidelity not measured" in done.out


def test_score_as_json_has_the_contribution_traces(run: Run, scored: Problem) -> None:
    said = run(
        "score", scored.path, "--toward", "digits:345", "--toward", "class:2", "--method", "fisher", "--json"
    ).json
    assert said["method"] == "fisher 0.1"
    assert [one["target"] for one in said["toward"]] == ["digits:345", "class 2 of the validation samples"]
    best = said["toward"][0]["proponents"][0]
    assert sum(best["trace"]) == pytest.approx(best["score"], rel=1e-4)
    together = run(
        "score", scored.path, "--toward", "digits:345", "--toward", "digits:346", "--together", "--json"
    ).json
    assert [one["samples"] for one in together["toward"]] == [2]


def test_score_without_a_target_explains_the_validation_samples(run: Run, scored: Problem) -> None:
    said = run("score", scored.path, "--checkpoints", "10,30", "--json").json
    assert said["toward"][0]["target"] == "all validation samples"
    assert said["steps"] == [10, 30]


def test_score_writes_the_whole_matrix_with_the_users_own_keys(run: Run, scored: Problem, tmp_path: Path) -> None:
    folder = tmp_path / "scores"
    done = run("score", scored.path, "--toward", "digits:345", "--toward", "role:test", "-o", folder)
    assert (done.code, done.err) == (0, "")
    matrix = scored.matrix("test")
    written = np.load(folder / "scores-00000.npy")
    np.testing.assert_allclose(written, np.stack([matrix[:, 5], matrix.mean(axis=1)], axis=1), rtol=1e-3, atol=1e-4)
    with (folder / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [f"{row['dataset']}:{row['key']}" for row in rows] == scored.names["train"]
    assert [int(row["label"]) for row in rows] == scored.labels["train"].tolist()
    refused = run("score", scored.path, "--toward", "digits:346", "-o", folder)
    assert refused.code == 2
    assert "has the scores of another query" in refused.err
    assert run("score", scored.path, "--toward", "digits:346", "-o", tmp_path).code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--toward", "id:" + "00" * 32), 2, "no sample id:0000"),
        (("--toward", "class:9"), 2, "no sample with factors is of class 9"),
        (("--method", "magic"), 2, "method 'magic' is none of"),
        (("--damping", "0"), 2, "damping belongs to fisher and ekfac, not to tracin"),
        (("--damping", "0", "--method", "fisher"), 2, "damping 0.0: give a number above 0"),
        (("--checkpoints", "ten"), 2, "--checkpoints ten are no steps"),
        (("--checkpoints", "11"), 2, "there are [10, 20, 30]"),
        (("--by", "colour"), 2, "by='colour' is none of"),
        (("--engine", "locall:2"), 2, "'locall:2' is no engine"),
        (("--method", "fisher", "--ggn"), 1, "no Gauss-Newton matrix"),
    ],
)
def test_score_refuses_in_one_line(
    run: Run, scored: Problem, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = run("score", scored.path, *arguments, "-o", tmp_path / "scores")
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "scores").exists()


def test_an_engine_that_would_do_nothing_is_refused_first(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = tmp_path / "none.trace"
    done = run("score", none, "--also", none, "--engine", "local:2")
    assert (done.code, "goes without --engine" in done.err) == (2, True)
    for verb in ("score", "suspects", "duplicates"):
        assert "'locall:2' is no engine" in run(verb, none, "--engine", "locall:2").err
    monkeypatch.setenv("FGTRAC_ENGINE", "local:2")  # for every verb: no word where it does nothing
    assert "--engine" not in run("score", none, "--also", none).err


def test_an_engines_answers_are_those_of_one_process(run: Run, scored: Problem, tmp_path: Path) -> None:
    for asked in (
        ("score", scored.path, "--toward", "class:2", "--method", "fisher", "--by", "class"),
        ("suspects", scored.path),
        ("duplicates", scored.path, "--by", "inputs"),
    ):
        here, there = run(*asked, "--json").json, run(*asked, "--json", "--engine", "local:1").json
        assert there.keys() == here.keys()
        for name in ("toward", "suspects", "pairs"):
            assert len(here.get(name, ())) == len(there.get(name, ()))
            for one, other in zip(here.get(name, ()), there.get(name, ()), strict=True):
                assert_alike(one, other)


def assert_alike(one: Any, other: Any) -> None:
    """The same but for the last bits of numbers."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
    if isinstance(one, (dict, list)):
        items = (one.values(), other.values()) if isinstance(one, dict) else (one, other)
        for mine, theirs in zip(*items, strict=True):
            assert_alike(mine, theirs)
    else:
        assert one == (pytest.approx(other, rel=1e-4) if isinstance(one, float) else other)


def test_score_without_factors_names_the_remedy(run: Run, lived: Life) -> None:
    done = run("score", lived.path)
    assert done.code == 1
    assert "record with run.score_with(...), or use fgtrac score --with" in done.err


def test_score_records_into_the_log_what_verify_computes_again(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    mine = scored_trace(tmp_path / "mine")
    no_key = run("score", mine.path, "--toward", "digits:345", "--record")
    assert no_key.code == 2
    assert "there is no key at" in no_key.err
    monkeypatch.setenv("FGTRAC_KEY", str(mine.key))
    said = run("score", mine.path, "--toward", "digits:345", "--toward", "class:1", "--record", "--json").json
    assert said["recorded"] == {"entries": 2 * 3 * 2, "scores": 2 * 3 * 340}
    again = run("score", mine.path, "--toward", "digits:345", "--record").out
    assert "the log has all these scores already, and none was added; fgtrac verify computes them again" in again
    assert run("verify", mine.path).code == 0
    history = run("history", mine.path, "digits:7").out
    assert "toward digits:345 at step 10 (tracin)" in history
    assert history.count("fidelity not measured here") == 1
    assert run("history", mine.path, "digits:7", "--json").json["fidelity"].startswith("fidelity not measured")
    assert "fidelity" not in run("history", mine.path, "digits:345").out  # no contribution of it is in the log
    assert "fidelity not measured" in run("show", mine.path).out
    assert {c["fidelity"] for c in run("show", mine.path, "--json").json["contributions"]} == {"fidelity not measured"}


LATER = """
import torch
from torch.utils.data import TensorDataset

def points(seed):
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, x[:, :2].argmax(1))

def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))

def again(run):
    train, validation = points(1), points(2)
    run.register(train, name="train")
    run.register(validation, name="validation")
    run.score_with(loss=torch.nn.CrossEntropyLoss(), train=train, validation=validation, factors="later")
    return model()

def forgetful(run):
    return model()

def broken(run):
    rows = []
    return rows[3]

def leaving(run):
    raise SystemExit(0)

def modelless(run):
    again(run)

value = 7
"""


@pytest.fixture
def unscored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished training without factors, and beside it later.py with the user's functions."""
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    (tmp_path / "later.py").write_text(LATER)
    module = runpy.run_path(str(tmp_path / "later.py"))
    net, train, validation = module["model"](), module["points"](1), module["points"](2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with fgtrac.start_run(tmp_path / "run", keep="all", key=tmp_path / "key.pem") as recording:
        recording.register(train, name="train", role="train")
        recording.register(validation, name="validation", role="validation")
        for inputs, targets in recording.watch(torch.utils.data.DataLoader(train, batch_size=10)):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(inputs), targets).backward()
            optimizer.step()
        recording.checkpoint(net, optimizer, val_loss=1.0)
    return tmp_path / "run.trace"


def test_score_with_a_function_makes_the_missing_factors_first(
    run: Run, unscored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(unscored.parent / "key.pem"))
    assert run("score", unscored).code == 1
    later = unscored.parent / "later.py"
    done = run("score", unscored, "--with", f"{later}:again", "--toward", "validation:3")
    assert done.code == 0, done.err
    assert "toward validation:3 (class" in done.out
    assert run("score", unscored, "--toward", "validation:3").out == done.out
    assert run("verify", unscored).code == 0


def test_score_with_an_engine_makes_the_factors_and_the_matrix(
    run: Run, unscored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(unscored.parent / "key.pem"))
    given, out = ("--with", f"{unscored.parent / 'later.py'}:again"), unscored.parent / "scores"
    for engine in ("many", "local:0"):
        refused = run("score", unscored, *given, "--engine", engine)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert engine in refused.err
        assert not list(unscored.glob("artifacts/scoring/*"))
    monkeypatch.setenv("FGTRAC_ENGINE", "local:1")
    done = run("score", unscored, *given, "-o", out, "--json")
    assert done.code == 0, done.err
    assert np.load(out / "scores-00000.npy").shape == (30, 1)
    assert run("verify", unscored).code == 0


@pytest.mark.parametrize(
    ("named", "code", "words"),
    [
        ("later.py", 2, "names no function; write FILE.py:FUNCTION"),
        ("nowhere.py:again", 2, "there is no file"),
        ("later.py:nobody", 2, "later.py has no function nobody"),
        ("later.py:value", 2, "later.py has no function value"),
        ("later.py:forgetful", 2, "call score_with() first"),
        ("later.py:broken", 1, "later.py, line 25: IndexError: list index out of range"),
        ("later.py:leaving", 1, "SystemExit: 0"),
        ("later.py:modelless", 2, "modelless returned NoneType; return the model"),
    ],
)
def test_score_with_what_is_no_such_function_says_so(
    run: Run, unscored: Path, monkeypatch: pytest.MonkeyPatch, named: str, code: int, words: str
) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(unscored.parent / "key.pem"))
    done = run("score", unscored, "--with", f"{unscored.parent}/{named}")
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert done.err.count("\n") == 1
    assert not list(unscored.glob("artifacts/scoring/*"))


GIVEN = """
from later import again, broken, model

def unknown(run):
    run.watch(None)
"""


def test_scores_are_verified_down_to_the_model_and_the_data(
    run: Run, unscored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(unscored.parent / "key.pem"))
    (unscored.parent / "given.py").write_text(GIVEN)
    given = unscored.parent / "given.py"
    assert run("score", unscored, "--with", f"{given}:again").code == 0
    done = run("verify", unscored, "--scores", 10, "--with", f"{given}:again", "--seed", 3)
    assert done.code == 0, done.out
    assert "10 of 30 scores, chosen by seed 3, follow from the committed factors; and 40 of these" in done.out
    same = ("verify", unscored, "--scores", 10, "--with", f"{given}:again", "--seed", 3, "--engine", "local:1")
    assert run(*same).out == done.out
    for named, code, words in [
        (["--with", f"{given}:unknown"], 3, "given.py, line 5: AttributeError: 'GivenData' object has no attribute"),
        (["--with", f"{given}:broken"], 3, "given.py: IndexError: list index out of range"),
        (["--with", f"{given}:model"], 3, "model() takes 0 positional arguments"),
        ([], 3, "--with FILE.py:FUNCTION"),
    ]:
        done = run("verify", unscored, "--scores", 10, *named)
        assert (done.code, words in done.out) == (code, True), done.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--scores", "0"], "ask for at least 1"),
        (["--scores", "-1"], "ask for at least 1"),
        (["--scores", "2", "--seed", "-1"], "the seed -1 is below 0"),
        (["--scores", "x"], "Invalid value for '--scores'"),
        (["--attention", "0"], "ask for at least 1"),
        (["--attention", "2", "--with", "a.py:b"], "there is no file a.py"),
        (["--seed", "1"], "belong to --scores N or --attention N"),
        (["--with", "a.py:b"], "belong to --scores"),
        (["--scores", "2", "--with", "a.py:b"], "there is no file a.py"),
    ],
)
def test_options_of_scores_that_make_no_sense_are_a_mistake_in_the_call(
    run: Run, lived: Life, options: list[str], words: str
) -> None:
    done = run("verify", lived.path, *options)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert words in done.err


def test_a_file_that_cannot_be_run_is_a_mistake_in_the_call(run: Run, lived: Life, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("1 / 0\n")
    done = run("verify", lived.path, "--scores", 1, "--with", f"{tmp_path / 'bad.py'}:f")
    assert (done.code, done.out) == (2, "")
    assert "bad.py, line 1: ZeroDivisionError" in done.err


TRAINING = """
import sys
sys.path.insert(0, {tests!r})
import numpy as np
from softmax_traces import data, gradients_of, states_of

NAMES = {names!r}
x, _, y = data(NAMES, 0)

def again(rows, seed):
    place = {{name: row for row, name in enumerate(NAMES["train"])}}
    mine = [place[f"{{dataset}}:{{key}}"] for dataset, key in rows]
    return gradients_of(states_of(x["train"][mine], y["train"][mine])[-1], x["validation"], y["validation"])[1]
"""


def test_score_measures_fidelity_and_says_it_from_then_on(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    mine = scored_trace(tmp_path / "mine")
    monkeypatch.setenv("FGTRAC_KEY", str(mine.key))
    (tmp_path / "train.py").write_text(TRAINING.format(tests=str(Path(__file__).parents[1]), names=mine.names))
    asked = ("score", mine.path, "--fidelity", f"{tmp_path}/train.py:again", "--subsets", "6", "--method", "fisher")
    done = run(*asked)
    assert done.code == 0, done.err
    assert "fidelity: LDS 0." in done.out
    assert (tmp_path / "mine" / "run.retrainings").exists()
    assert "fidelity not measured" in run("score", mine.path, "--method", "fisher").out
    said = run(*asked, "--record", "--json").json
    assert said["fidelity"]["subsets"] == 6
    assert said["recorded"]["fidelity"] is True
    assert "the measured fidelity stands in the log" in run(*asked, "--record").out
    assert said["fidelity"]["lds"] == run("suspects", mine.path, "--json").json["fidelity"]["lds"]
    assert f"LDS {said['fidelity']['lds']:.3f}" in run("show", mine.path).out
    out = run("score", mine.path, "--method", "fisher", "-o", tmp_path / "all", *many_targets(), "--json").json
    assert out["fidelity"] == said["fidelity"]
    later = run("score", mine.path, "--method", "fisher", "--toward", "digits:345", "--json").json
    assert later["fidelity"] == said["fidelity"]
    assert run("verify", mine.path).code == 0


def many_targets() -> list[str]:
    return [word for n in range(340, 360) for word in ("--toward", f"digits:{n}")] + ["--toward", "class:1"]


def test_every_answer_with_scores_says_that_their_fidelity_is_not_measured(
    run: Run, scored: Problem, tmp_path: Path
) -> None:
    for number, verb in enumerate(("score", "suspects", "duplicates")):
        assert run(verb, scored.path).out.count("fidelity not measured") == 1
        assert run(verb, scored.path, "--json").json["fidelity"] == "fidelity not measured"
        if verb != "duplicates":
            out = run(verb, scored.path, "-o", tmp_path / f"out{number}")
            assert out.out.count("fidelity not measured") == 1
    written = run("score", scored.path, *many_targets(), "-o", tmp_path / "many")
    assert "toward" not in written.out
    assert "fidelity not measured" in written.out
    said = run("score", scored.path, *many_targets(), "-o", tmp_path / "many", "--json").json
    assert said == {"out": str(tmp_path / "many"), "fidelity": "fidelity not measured"}


def test_a_training_function_that_raises_is_named_with_its_line_and_no_other_functions_losses_are_taken(
    run: Run, scored: Problem, tmp_path: Path
) -> None:
    own, kept = tmp_path / "train.py", tmp_path / "retrainings"
    own.write_text("import sys\n\ndef again(rows, seed):\n    raise RuntimeError(f'no room for {len(rows)} rows')\n")
    asked = ("score", scored.path, "--subsets", "4", "--retrainings", kept, "--fidelity")
    done = run(*asked, f"{own}:again")
    assert (done.code, done.out) == (1, "")
    assert done.err == f"fgtrac: {own}, line 4: RuntimeError: no room for 170 rows\n"
    other = tmp_path / "other.py"
    other.write_text("def constant(rows, seed):\n    return [1.0] * 40\n")
    refused = run(*asked, f"{other}:constant")
    assert refused.code == 2
    assert "holds retrainings by again (" in refused.err
    assert "and this is constant (" in refused.err
    kept.unlink()
    assert "nothing to rank; see that the training function" in run(*asked, f"{other}:constant").err
    other.write_text("import nothing_of_the_kind\n")
    missing = run(*asked, f"{other}:constant")
    assert missing.code == 1
    assert f"{other}, line 1: ModuleNotFoundError" in missing.err


def test_score_also_takes_the_mean_over_several_traces(run: Run, scored: Problem, tmp_path: Path) -> None:
    other = scored_trace(tmp_path, seed=1, trace_id=bytes(16))
    said = run("score", scored.path, "--also", other.path, "--toward", "digits:345", "--json").json
    together = fgtrac.ensemble([fgtrac.open(scored.path), fgtrac.open(other.path)]).explain("digits:345")
    assert said == together.as_json()
    assert said["columns"] == [str(scored.path), str(other.path)]
    assert "2 traces" in run("score", scored.path, "--also", other.path).out
    asked = ("score", scored.path, "--also", other.path, "--by", "class", "--checkpoints", "20,30")
    few = run(*asked)
    assert "the checkpoints of steps 20, 30, the mean over 2 traces; fidelity not measured" in few.out
    assert "added up by class" in few.out
    assert "for comparison, free: the highest training losses" in few.out
    assert run(*asked, "--json").json["steps_of_traces"] == [[20, 30], [20, 30]]
    refused = run(*asked, "--record", "-o", tmp_path / "out")
    assert refused.code == 2
    assert "goes without -o and --record" in refused.err


# -- suspects and duplicates -------------------------------------------------------------------------------------------


def test_suspects_lists_both_measures_and_writes_a_table_to_relabel(run: Run, scored: Problem, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    done = run("suspects", scored.path, "--top", "30", "-o", out)
    assert (done.code, done.err) == (0, "")
    assert "nobody knows" in done.out
    assert "30 samples are in" in done.out
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert sum(row["dataset"] == "digits" and int(row["key"]) < FLIPPED for row in rows) > 20
    everything = run("suspects", scored.path, "-o", tmp_path / "all.csv")
    assert "340 samples are in" in everything.out
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 341
    assert len(run("suspects", scored.path, "--json").json["suspects"]) == 20
    for wrong in (tmp_path, tmp_path / "none.txt"):
        refused = run("suspects", scored.path, "--wrong", wrong)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert f"--wrong {wrong} cannot be read" in refused.err
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    assert (
        f"--wrong {tmp_path}/bytes.txt cannot be read"
        in run("suspects", scored.path, "--wrong", tmp_path / "bytes.txt").err
    )
    assert run("suspects", scored.path, "-o", out).code == 2
    assert run("suspects", scored.path, "-o", out, "--force").code == 0
    assert run("suspects", scored.path, "-o", tmp_path / "none" / "rows.csv").code == 2


def test_suspects_tells_which_measure_is_better_where_wrong_labels_are_known(
    run: Run, scored: Problem, tmp_path: Path
) -> None:
    (tmp_path / "wrong.txt").write_text("".join(f"digits:{n}\n" for n in range(FLIPPED)))
    done = run("suspects", scored.path, "--wrong", tmp_path / "wrong.txt", "--by", "self-influence")
    assert done.code == 0, done.err
    assert "AUC self-influence 0.9" in done.out
    said = run("suspects", scored.path, "--by", "self-influence", "--json").json
    assert [s["rank_by_self_influence"] for s in said["suspects"]] == list(range(1, 21))


def test_duplicates_lists_pairs_and_what_is_free_beside_them(run: Run, scored: Problem) -> None:
    done = run("duplicates", scored.path, "--top", "5")
    assert (done.code, done.err) == (0, "")
    assert "340 samples hold exactly the content of another" in done.out
    said = run("duplicates", scored.path, "--top", "5", "--by", "inputs", "--checkpoint", "20", "--json").json
    assert (said["step"], said["by"], len(said["pairs"])) == (20, "inputs", 5)
    assert run("duplicates", scored.path, "--by", "colour").code == 2
    assert run("duplicates", scored.path, "--checkpoint", "21").code == 2


@pytest.mark.parametrize("verb", ["score", "suspects", "spikes", "duplicates"])
def test_every_verb_has_help_and_refuses_what_is_no_trace(run: Run, tmp_path: Path, verb: str) -> None:
    told = run(verb, "--help")
    assert told.code == 0
    assert "--json" in told.out
    gone = run(verb, tmp_path / "none.trace")
    assert (gone.code, gone.out) == (2, "")
    assert "there is no trace at" in gone.err
