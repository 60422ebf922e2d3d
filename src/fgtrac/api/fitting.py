"""Estimators in scikit-learn's style: which rows each fit was given, each fold trained on, each prediction is about.

A fit makes no updates that anybody could watch. What is recorded is participation, as the program says it: `use`
entries with the attribution `declared` that name what was fitted, each fit counted as one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fgtrac.api.declaring import Declaring
from fgtrac.capture.lineage import Lineage
from fgtrac.capture.roots import Resolved
from fgtrac.capture.tables import check_settled
from fgtrac.capture.use_entries import pieces
from fgtrac.events.schema import ATTRIBUTION, STATUS

OUTPUTS = ("predict_proba", "decision_function", "predict")


class Fitting(Declaring):
    """Takes estimators, and splitters for cross-validation."""

    predictions: Callable[..., None]
    _splitters: list[Splitter] | None = None  # those whose folds belong to the fit that is going on

    def fit(self, estimator: Any, X: Any, y: Any = None, *, data: Any = None, options: Any = None) -> Any:
        """`estimator.fit(X, y)`, and every row of `X` is recorded as taking part. Returns what `fit` returns.

        `X` is registered, or came out of a stage; otherwise `data` says what is: its row i is row i of `X`. `options`
        are more keyword arguments of `fit`. A search (`GridSearchCV` and its like) whose `cv` is `run.splitter(...)`
        is recorded fold by fold, once for each candidate that was fitted on it, and then as the fit on all rows. One
        without is recorded as one fit on all rows; one that raises is not recorded. Candidates with `error_score` for a
        score may not have been fitted: theirs is `among`. Rows are those that are given: where a step of a pipeline
        drops some, as imbalanced-learn's do, it has them all.

        Raises ValueError for an `X` that nobody knows without `data`, or with `data` of another length.
        """
        self._check_training("fit()")
        resolved, known = self._rows_of(X, data)
        self._splitters = splitters = list[Splitter]()
        try:
            fitted = estimator.fit(X, **_targets(y), **(options or {}))
        finally:
            self._splitters = None
            folds = [fold for splitter in splitters for fold in splitter.take()]  # those of a fit that failed go
        candidates = len(getattr(estimator, "cv_results_", {}).get("params", ())) or 1
        sure = "among" if hasattr(estimator, "n_resources_") else "declared"  # halving fits on a part of each fold
        for place, fold in enumerate(folds):
            finished = _finished(estimator, place, candidates)
            for number in range(candidates):
                how = sure if number < finished else "among"  # a candidate whose fit may have failed
                self._say_fit(f"{_name(estimator)}, fold {fold.number} of {fold.of}", fold.known, fold.rows, how)
        if not folds or getattr(estimator, "refit", True):
            self._say_fit(_name(estimator), known, np.arange(len(resolved.rows)))
        return fitted

    def partial_fit(self, estimator: Any, X: Any, y: Any = None, *, data: Any = None, options: Any = None) -> Any:
        """`estimator.partial_fit(X, y)`, and every row of `X` is recorded as taking part; arguments as for `fit`."""
        self._check_training("partial_fit()")
        resolved, known = self._rows_of(X, data)
        fitted = estimator.partial_fit(X, **_targets(y), **(options or {}))
        self._say_fit(_name(estimator), known, np.arange(len(resolved.rows)))
        return fitted

    def predict(self, estimator: Any, X: Any, *, data: Any = None, method: str = "predict") -> Any:
        """`estimator.predict(X)` (or another `method`: predict_proba, decision_function), recorded row by row.

        Classes that are no numbers are recorded as their place in `classes_`. Returns what the method returns.
        """
        if method not in OUTPUTS:
            raise ValueError(f"method={method!r:.40} gives no predictions; choose {', '.join(OUTPUTS)}")
        _, known = self._rows_of(X, data)
        made = getattr(estimator, method)(X)
        values = np.asarray(made)
        if values.dtype.kind not in "biuf":
            classes = getattr(estimator, "classes_", None)
            if classes is None:
                raise ValueError(
                    f"{_name(estimator)} predicts {values.dtype}, which are no numbers, and has no classes_"
                )
            values = np.searchsorted(classes, values)
        outputs = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        self.predictions(known, outputs)
        return made

    def splitter(self, cv: Any, *, data: Any = None, name: str = "cross-validation") -> Splitter:
        """A cross-validation splitter such as `KFold(5)`, recorded: pass it as `cv=` in the place of `cv`.

        Each fold is a `split` stage called `name`, with the outputs "fold N train" and "fold N test"; in `run.fit` of a
        search, its training rows take part; elsewhere, as in `cross_val_score`, they are recorded as `among` where they
        are handed out, since nobody says whether all of them were used. Splits are
        drawn in this process, so that `n_jobs` does not matter. TypeError for what has no `split`.
        """
        if not hasattr(cv, "split") or isinstance(cv, str):
            raise TypeError(f"splitter() takes an object with split(), such as KFold(5), not {cv!r:.40}")
        return Splitter(self, cv, data, name)

    def _rows_of(self, X: Any, data: Any) -> tuple[Resolved, Any]:
        """The samples that the rows of `X` are, and the data set that says so."""
        known = X if data is None else data
        check_settled(known)
        if data is None and not self._registry.is_known(X):
            raise ValueError(
                f"this {type(X).__name__} of {len(X)} rows is not registered, and came out of no stage; register it, "
                "or say data=: the registered data whose row i is row i of it"
            )
        resolved = self._registry.resolve(known)
        if (rows := X.shape[0] if hasattr(X, "shape") else len(X)) != len(resolved.rows):
            raise ValueError(f"X has {rows} rows, and data= has {len(resolved.rows)}; give data with the same rows")
        return resolved, known

    def _say_fit(self, what: str, known: Any, rows: NDArray[Any], sure: str = "declared") -> None:
        """One more fit, on these rows of data that are known."""
        declared, resolved = self._declared_of(known), self._registry.resolve(known)
        step = self._step_of(None)
        ordinals = declared.placement.ordinals
        said: dict[str, Any] = {
            "loader": declared.loader, "optimizer": self._declared_optimizer, "fit": what,
            "epoch": np.full(1, declared.epoch, np.uint32), "batch": np.full(1, declared.batches, np.uint32),
            "step": np.full(1, step, np.uint64), "status": np.full(1, STATUS["applied"], np.uint8),
            "attribution": np.full(1, ATTRIBUTION[sure], np.uint8),
        }  # fmt: skip
        for block, here in resolved.by_block(rows):
            for piece in pieces(ordinals[rows[here]], 4):
                count = np.array([len(piece)], dtype=np.uint32)
                self._recorder.record("use", said | {"block": block, "count": count, "ordinals": piece})
        declared.batches += 1
        self._declared_step = step


class _Fold:
    """Which rows of known data one fold trains on."""

    def __init__(self, number: int, of: int, known: Any, rows: NDArray[Any]) -> None:
        self.number, self.of, self.known, self.rows = number, of, known, rows


class Splitter:
    """A splitter that says what it hands out."""

    def __init__(self, run: Fitting, cv: Any, data: Any, name: str) -> None:
        self._run, self._cv, self._data, self._name = run, cv, data, name
        self._folds: list[_Fold] = []

    def __repr__(self) -> str:
        return f"recorded {self._cv!r}"

    def __deepcopy__(self, memo: Mapping[int, Any]) -> Splitter:
        return self  # a clone() of the search is recorded, too

    def __reduce__(self) -> tuple[Any, ...]:
        return copy, (self._cv,)  # in another process, which records nothing, it is the splitter alone

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """How many folds there are."""
        return int(self._cv.get_n_splits(X, y, groups))

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Training and test rows of each fold."""
        resolved, known = self._run._rows_of(X, self._data)
        lineage = Lineage(self._run._recorder, self._run._registry, self._name, {"splitter": repr(self._cv)})
        of, fits = self.get_n_splits(X, y, groups), self._run._splitters
        if fits is not None and self not in fits:
            fits.append(self)
        for number, (train, test) in enumerate(self._cv.split(X, y, groups), 1):
            for part, rows in (("train", train), ("test", test)):
                lineage.keep("split", resolved, np.asarray(rows), None, output=f"fold {number} {part}")
            if fits is None:
                what = f"an estimator, fold {number} of {of}"  # or parts of it, as learning_curve fits them
                self._run._say_fit(what, known, np.asarray(train), "among")
            else:
                self._folds.append(_Fold(number, of, known, np.asarray(train)))
            yield train, test

    def take(self) -> list[_Fold]:
        """The folds that were handed out since the last time."""
        folds, self._folds = self._folds, []
        return folds


def _finished(estimator: Any, place: int, candidates: int) -> int:
    """How many candidates of a search have another score than `error_score` on the fold at `place`, in any metric."""
    results, fallback = getattr(estimator, "cv_results_", {}), getattr(estimator, "error_score", "raise")
    scores = [column for name, column in results.items() if name.startswith(f"split{place}_test_")]
    if fallback == "raise" or not scores:
        return candidates
    given = np.array(scores, dtype=np.float64)
    return int((~((given == fallback) | np.isnan(given))).any(axis=0).sum())


def _targets(y: Any) -> dict[str, Any]:
    return {} if y is None else {"y": y}


def _name(estimator: Any) -> str:
    """What an estimator is called: of a pipeline with its last step, of a search with what it searches."""
    steps, searched = getattr(estimator, "steps", None), getattr(estimator, "estimator", None)
    inner = steps[-1][1] if steps else searched
    return type(estimator).__name__ + (f"({_name(inner)})" if inner is not None and hasattr(inner, "fit") else "")
