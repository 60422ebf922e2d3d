"""scikit-learn under trace: each row counts once for each fit that it was given to, in this process or in others.

Column 0 of every table is the row's number, and the estimator notes the numbers that each of its fits saw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_val_score, learning_curve
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import fgtrac
from fgtrac.api.run import Run, start_run

ROWS = 12


class Spy(ClassifierMixin, BaseEstimator):
    """Notes the row numbers of each fit."""

    fits: ClassVar[list[list[int]]] = []

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength

    def fit(self, X: Any, y: Any) -> Spy:
        numbers = np.asarray(X)[:, 0].astype(int).tolist()
        Spy.fits.append(numbers)
        self.classes_ = np.unique(y)
        return self

    def partial_fit(self, X: Any, y: Any) -> Spy:
        return self.fit(X, y)

    def predict(self, X: Any) -> Any:
        return self.classes_[np.asarray(X)[:, 0].astype(int) % len(self.classes_)]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    Spy.fits.clear()
    made = start_run(tmp_path / "run", key=tmp_path / "key.pem", ids="public")
    yield made
    made.close()


@pytest.fixture
def table(run: Run) -> pd.DataFrame:
    frame = pd.DataFrame({"n": range(ROWS), "x": np.sin(range(ROWS)), "y": [0, 1] * (ROWS // 2)})
    run.register(frame, name="rows")
    return frame


def uses(run: Run) -> Counter[int]:
    run.close()
    trace = fgtrac.open(run.path)
    return Counter({row: n for row in range(ROWS) if (n := trace.history(f"rows:{row}").uses)})


def seen() -> Counter[int]:
    return Counter(number for numbers in Spy.fits for number in numbers)


def words(run: Run, row: int) -> list[str]:
    return [e.words for e in fgtrac.open(run.path).history(f"rows:{row}").events if e.kind == "used"]


@pytest.mark.matrix("scikit-learn", "fit and partial_fit, on frames and arrays", attribution="declared")
def test_a_fit_is_participation_of_the_rows_that_it_was_given(run: Run, table: pd.DataFrame) -> None:
    train, _ = run.transform("split", table).train_test_split(0.5, seed=1)
    run.fit(Spy(), train[["n", "x"]], train["y"], data=train)
    run.partial_fit(Spy(), train[["n", "x"]].to_numpy(), train["y"], data=train)
    few = run.transform("few", table).select([3, 5, 3])
    run.fit(Spy(), few, few["y"])
    assert uses(run) == seen()
    assert seen()[3] >= 2
    (*_, last) = words(run, 3)
    assert last.startswith("used in a fit of Spy, in step 3 (epoch 0, batch 0, loader 2; declared)")


@pytest.mark.matrix("scikit-learn", "pipeline", attribution="declared")
def test_a_pipeline_is_named_with_its_last_step(run: Run, table: pd.DataFrame) -> None:
    run.fit(make_pipeline(FunctionTransformer(), Spy()), table[["n", "x"]], table["y"], data=table)
    assert uses(run) == seen() == Counter(range(ROWS))
    assert words(run, 0)[0].startswith("used in a fit of Pipeline(Spy), in step 1")


@pytest.mark.matrix("scikit-learn", "GridSearchCV through run.splitter", attribution="declared")
def test_a_search_counts_each_fold_for_each_candidate_and_the_last_fit(run: Run, table: pd.DataFrame) -> None:
    folds = run.splitter(StratifiedKFold(3), data=table)
    search = GridSearchCV(make_pipeline(Spy()), {"spy__strength": [1.0, 2.0]}, cv=folds)
    assert run.fit(search, table[["n", "x"]], table["y"], data=table) is search
    assert len(Spy.fits) == 3 * 2 + 1
    assert uses(run) == seen()
    assert "used in a fit of GridSearchCV(Pipeline(Spy)), fold 1 of 3, in step 1" in " ".join(words(run, 11))
    stages = [e for e in fgtrac.open(run.path).history("rows:0").events if e.kind == "transformed"]
    assert sorted(e.details["output"] for e in stages) == ["fold 1 test", "fold 2 train", "fold 3 train"]
    assert stages[0].details["parameters"]["splitter"].startswith("StratifiedKFold(")


@pytest.mark.matrix("scikit-learn", "GridSearchCV, n_jobs=2: the folds are drawn here", attribution="declared")
def test_fits_in_other_processes_are_counted_by_the_folds_that_they_get(run: Run, table: pd.DataFrame) -> None:
    cv = KFold(4, shuffle=True, random_state=0)
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0, 10.0]}, cv=run.splitter(cv), n_jobs=2, refit=False)
    X = run.transform("features", table).map(lambda f: f[["n", "x"]], aligned=True)
    run.fit(search, X, table["y"])
    truth = Counter(row for train, _ in cv.split(X) for row in train.tolist() for _ in range(3))
    assert uses(run) == truth


@pytest.mark.matrix("scikit-learn", "cross_val_score through run.splitter", attribution="among")
def test_cross_validation_without_a_search_perhaps_uses_each_fold_once(run: Run, table: pd.DataFrame) -> None:
    cross_val_score(Spy(), table, table["y"], cv=run.splitter(KFold(3)))
    assert len(Spy.fits) == 3
    assert seen() == Counter(dict.fromkeys(range(ROWS), 2))
    assert not uses(run)
    assert all(
        [word.split(",")[0] for word in words(run, row)] == ["perhaps used in a fit of an estimator"] * 2
        for row in range(ROWS)
    )


def test_parts_of_folds_are_perhaps_used(run: Run, table: pd.DataFrame) -> None:
    learning_curve(Spy(), table, table["y"], cv=run.splitter(KFold(3)), train_sizes=[2], shuffle=False)
    assert not uses(run)
    assert not seen()[ROWS - 1]
    assert [word.startswith("perhaps used") for word in words(run, ROWS - 1)] == [True, True]


class Picky(Spy):
    """Cannot be fitted with a negative strength."""

    def fit(self, X: Any, y: Any) -> Spy:
        if self.strength < 0:
            raise ValueError("a negative strength")
        return super().fit(X, y)


def test_the_folds_of_a_search_that_failed_are_not_those_of_the_next(run: Run, table: pd.DataFrame) -> None:
    folds = run.splitter(KFold(3), data=table)
    X, y = table[["n", "x"]], table["y"]
    with pytest.raises(ValueError, match="a negative strength"):
        run.fit(GridSearchCV(Picky(), {"strength": [-1.0]}, cv=folds, error_score="raise"), X, y, data=table)
    assert not Spy.fits
    run.fit(GridSearchCV(Picky(), {"strength": [1.0]}, cv=folds, refit=False), X, y, data=table)
    assert uses(run) == seen() == Counter(dict.fromkeys(range(ROWS), 2))


@pytest.mark.parametrize("error_score", [-5.0, np.nan])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning", "ignore:One or more of the test scores")
def test_a_candidate_whose_fit_failed_is_perhaps_used(run: Run, table: pd.DataFrame, error_score: float) -> None:
    folds = run.splitter(KFold(3), data=table)
    search = GridSearchCV(Picky(), {"strength": [-1.0, 1.0]}, cv=folds, error_score=error_score)
    run.fit(search, table[["n", "x"]], table["y"], data=table)
    assert uses(run) == seen() == Counter(dict.fromkeys(range(ROWS), 3))
    assert sum(word.startswith("perhaps") for word in words(run, 0)) == 2


@pytest.mark.matrix("scikit-learn", "predictions by row")
def test_predictions_are_recorded_by_row_and_classes_by_their_place(run: Run, table: pd.DataFrame) -> None:
    names = table["y"].map({0: "no", 1: "yes"})
    model = run.fit(Spy(), table[["n", "x"]], names, data=table)
    assert run.predict(model, table[["n", "x"]], data=table).tolist() == ["no", "yes"] * (ROWS // 2)
    run.close()
    history = fgtrac.open(run.path).history("rows:7")
    assert [e.details["outputs"] for e in history.events if e.kind == "prediction"] == [[1.0]]


def test_the_model_is_the_same_with_and_without(run: Run, table: pd.DataFrame) -> None:
    X, y = table[["n", "x"]].to_numpy(), table["y"].to_numpy()
    alone = SGDClassifier(random_state=0).fit(X, y)
    traced = run.fit(SGDClassifier(random_state=0), X, y, data=table)
    assert alone.coef_.tobytes() == traced.coef_.tobytes()
    folds = [(a.tolist(), b.tolist()) for a, b in KFold(3).split(X)]
    assert [(a.tolist(), b.tolist()) for a, b in run.splitter(KFold(3), data=table).split(X)] == folds


def test_what_cannot_be_told_is_refused_with_the_remedy(run: Run, table: pd.DataFrame) -> None:
    X = table[["n", "x"]]
    with pytest.raises(ValueError, match=r"DataFrame of 12 rows is not registered.* or say data="):
        run.fit(Spy(), X, table["y"])
    with pytest.raises(ValueError, match="X has 3 rows, and data= has 12"):
        run.fit(Spy(), X[:3], table["y"][:3], data=table)
    with pytest.raises(TypeError, match=r"takes an object with split\(\), such as KFold\(5\), not 5"):
        run.splitter(5)
    with pytest.raises(ValueError, match="method='score' gives no predictions"):
        run.predict(Spy(), X, data=table, method="score")
    lazy = pl.DataFrame({"n": range(ROWS)}).lazy()
    with pytest.raises(ValueError, match=r"a LazyFrame may have its rows in another order.*collect it once"):
        run.fit(Spy(), X, table["y"], data=lazy)
    assert not Spy.fits
