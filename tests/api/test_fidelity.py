"""The fidelity of a trace's scores is measured on the user's own training, kept, and said beside every answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fgtrac
from fgtrac.errors import ScoreError, TamperError
from softmax_traces import Problem, gradients_of, scored_trace, states_of


class Training:
    """Trains a softmax regression on some rows, as the user would; remembers what it was asked."""

    def __init__(self, scored: Problem, names: list[str]) -> None:
        self.scored = scored
        self.wanted = names
        self.asked: list[Any] = []

    def __call__(self, rows: Any, seed: int) -> np.ndarray:
        self.asked.append(rows)
        called = [f"{d}:{k}" for d, k in rows] if isinstance(rows, list) else [f"digits:{row}" for row in rows]
        place = {name: row for row, name in enumerate(self.scored.names["train"])}
        mine = [place[name] for name in called]
        x, y = self.scored.inputs, self.scored.labels
        weights = states_of(x["train"][mine], y["train"][mine])[-1]
        role = next(role for role, names in self.scored.names.items() if self.wanted[0] in names)
        _gradients, losses = gradients_of(weights, x[role], y[role])
        return losses[[self.scored.names[role].index(name) for name in self.wanted]]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    return scored_trace(tmp_path_factory.mktemp("scored"))


def test_scores_of_a_convex_model_agree_with_retraining(scored: Problem) -> None:
    retrain = Training(scored, scored.names["validation"])
    found = fgtrac.open(scored.path).fidelity(retrain, method="fisher", subsets=24)
    assert found.lds > 0.3
    assert 0 < found.error < 0.2
    assert (found.subsets, found.targets) == (24, 40)
    assert all(len(rows) == 170 for rows in retrain.asked)
    assert {dataset for rows in retrain.asked for dataset, _ in rows} == {"digits", "extra"}


def test_of_one_data_set_the_rows_are_an_array_of_row_numbers(tmp_path: Path) -> None:
    mine = scored_trace(tmp_path, extra=0)
    retrain = Training(mine, ["digits:345", "digits:341"])
    found = fgtrac.open(mine.path).fidelity(retrain, "digits:345", "digits:341", subsets=4)
    assert found.targets == 2
    assert all(rows.dtype == np.int64 and rows.max() < 300 for rows in retrain.asked)


def test_finished_retrainings_are_kept_for_every_method(scored: Problem, tmp_path: Path) -> None:
    retrain, path = Training(scored, scored.names["validation"]), tmp_path / "retrainings"
    trace = fgtrac.open(scored.path)
    first = trace.fidelity(retrain, subsets=6, resume_path=path)
    assert trace.fidelity(retrain, subsets=6, resume_path=path) == first
    trace.fidelity(retrain, subsets=8, method="fisher", resume_path=path)
    assert len(retrain.asked) == 8


def test_a_recorded_measurement_is_said_beside_answers_by_that_method_and_those_checkpoints(tmp_path: Path) -> None:
    mine = scored_trace(tmp_path)
    retrain = Training(mine, mine.names["validation"])
    found = fgtrac.open(mine.path).fidelity(retrain, method="fisher", subsets=6, record=True, key=mine.key)
    trace = fgtrac.open(mine.path)
    told = trace.explain("digits:345", method="fisher")
    assert told.fidelity == found
    assert str(found) in str(told)
    assert trace.explain("digits:345").fidelity is None
    assert trace.explain("digits:345", method="fisher", damping=0.2).fidelity is None
    assert trace.explain("digits:345", method="fisher", checkpoints=[10, 20]).fidelity is None
    assert trace.verify(mine.made.signer.public_key.hex()).exit_code == 0
    (file,) = (mine.path / "artifacts/fidelity").iterdir()
    file.write_bytes(file.read_bytes().replace(b'"lds": 0', b'"lds": 1'))
    with pytest.raises(TamperError, match="is not the file that the log names"):
        fgtrac.open(mine.path).explain("digits:345", method="fisher")


def test_what_the_training_function_returns_is_checked(scored: Problem) -> None:
    trace = fgtrac.open(scored.path)
    with pytest.raises(ValueError, match=r"returned losses of shape \(3,\) for 40 targets"):
        trace.fidelity(lambda rows, seed: [1.0, 2.0, 3.0], subsets=4)
    with pytest.raises(ScoreError, match="not finite"):
        trace.fidelity(lambda rows, seed: np.full(40, np.nan), subsets=4)


def test_without_the_keys_nobody_could_train_on_the_rows(tmp_path: Path) -> None:
    mine = scored_trace(tmp_path, vault=False)
    with pytest.raises(ScoreError, match=r"put run\.vault beside the trace"):
        fgtrac.open(mine.path).fidelity(lambda rows, seed: np.zeros(40), subsets=4)


def test_a_training_function_that_raises_is_called_and_another_functions_file_is_refused(
    scored: Problem, tmp_path: Path
) -> None:
    trace, path = fgtrac.open(scored.path), tmp_path / "retrainings"
    trace.fidelity(Training(scored, scored.names["validation"]), subsets=4, resume_path=path)

    def broken(rows: Any, seed: int) -> np.ndarray:
        raise RuntimeError("no room on the device")

    with pytest.raises(ValueError, match=r"retrainings by Training.__call__ \(.*, and this is .*broken"):
        trace.fidelity(broken, subsets=4, resume_path=path)
    with pytest.raises(RuntimeError, match="no room on the device"):
        trace.fidelity(broken, subsets=4, resume_path=tmp_path / "own")
    with pytest.raises(ValueError, match="nothing to rank; see that the training function"):
        trace.fidelity(lambda rows, seed: np.ones(40), subsets=4)


def test_retrainings_of_other_samples_under_the_same_numbers_are_refused(tmp_path: Path) -> None:
    one, other = scored_trace(tmp_path / "one"), scored_trace(tmp_path / "other", shuffled=True)
    retrain, path = Training(one, one.names["validation"]), tmp_path / "retrainings"
    fgtrac.open(one.path).fidelity(retrain, subsets=4, resume_path=path)
    with pytest.raises(ValueError, match="retrainings of other samples, targets or parts"):
        fgtrac.open(other.path).fidelity(retrain, subsets=4, resume_path=path)
