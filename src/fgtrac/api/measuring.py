"""How faithful the scores of a trace are, measured by retraining; and where the log keeps what was measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fgtrac.api.adding import adding
from fgtrac.api.explain import Explainer
from fgtrac.api.explanation import Fidelity
from fgtrac.api.groups import ids_of
from fgtrac.api.measured import FOLDER, FORMAT
from fgtrac.api.naming import key_of
from fgtrac.api.targets import Target, prepare_targets
from fgtrac.errors import ScoreError
from fgtrac.score.cache import Cache
from fgtrac.score.factor_files import Rows
from fgtrac.score.fidelity import measure
from fgtrac.score.functions import identify
from fgtrac.score.kernel import Progress, scores
from fgtrac.score.methods import Method
from fgtrac.store import durable

MOST_TARGETS = 200  # of a whole role: evenly spread over its samples

Retrain = Callable[[Any, int], ArrayLike]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Single targets, what the training function returns the losses of, and which of those losses are theirs."""

    targets: tuple[Target, ...]
    losses: int
    chosen: NDArray[np.intp]


def measure_fidelity(
    explainer: Explainer,
    cache: Cache,
    targets: Sequence[Target],
    method: Method,
    retrain: Retrain,
    *,
    subsets: int,
    resume_path: Path | None,
    progress: Progress | None = None,
) -> Fidelity:
    """The linear datamodeling score of a method (arXiv:2303.14186): the training samples that the factors are of are
    halved at random, `retrain(rows, seed)` trains on each half and returns the losses of the targets, in order.

    `rows` are the user's own keys, as `training_keys` gives them. One target that is a whole role stands for each of
    its samples, in the order of their keys. ScoreError where keys are not known, otherwise as `score.fidelity.measure`.
    """
    wanted = _wanted(explainer, cache, targets)
    keys = training_keys(explainer, cache)
    n, m = len(keys), len(wanted.targets)
    matrix = np.empty((n, m), dtype=np.float32)
    for numbers, ready in prepare_targets(cache, wanted.targets, method):
        matrix[:, numbers] = scores(cache, ready, 0, n)
    called = [target.words for target in wanted.targets]

    def losses(rows: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
        some = keys[rows] if isinstance(keys, np.ndarray) else [keys[row] for row in rows.tolist()]
        found = np.asarray(retrain(some, seed), dtype=np.float64)
        if found.shape != (wanted.losses,):
            raise ValueError(
                f"the training function returned losses of shape {found.shape} for {wanted.losses} targets"
            )
        return found[wanted.chosen]

    found = measure(
        losses, np.arange(n), called, matrix, subsets=subsets, resume_path=resume_path, progress=progress,
        function=identify(retrain), about=_who(explainer, cache, wanted.targets),
    )  # fmt: skip
    return Fidelity(found.value, found.standard_error, found.subsets, found.tests)


def record_fidelity(explainer: Explainer, cache: Cache, method: Method, found: Fidelity, key: Path | None) -> None:
    """Put what was measured into the log, so that later answers by the same method at the same checkpoints say it."""
    said = {"format": FORMAT, "method": str(method), "steps": [s.step for s in cache.states], **found.as_json()}
    data = (json.dumps(said, sort_keys=True) + "\n").encode()
    digest = hashlib.sha256(data).digest()
    path = f"{FOLDER}/{digest.hex()[:8]}.json"
    with adding(explainer.trace, key) as to:
        if path not in to.ledger.artifacts:
            durable.write_file(to.trace.path / path, data)
            fields = {"path": path, "sha256": digest, "size": len(data), "media_type": "application/json"}
            to.recorder.record("artifact", {**fields, "about": "fidelity of scores, measured by retraining"})


def training_keys(explainer: Explainer, cache: Cache) -> NDArray[np.int64] | list[Any]:
    """What the user calls the training rows: their keys; (data set, key) where there are several data sets. An array
    where all are row numbers. ScoreError where the vault does not know them."""
    named = _named(explainer, cache.rows("train"))
    if len({dataset for dataset, _ in named}) > 1:
        return list(named)
    keys = [key for _, key in named]
    return np.array(keys, dtype=np.int64) if all(type(key) is int for key in keys) else keys


def _named(explainer: Explainer, rows: Rows) -> list[tuple[str, Any]]:
    known = explainer.namer.names()
    ids = [sample.tobytes() for sample in ids_of(rows, explainer.blocks)]
    lacking = sum(sample not in known for sample in ids)
    if lacking:
        raise ScoreError(
            f"the keys of {lacking:,} of {len(ids):,} samples are not known, and a training function is told by keys "
            f"which rows to train on; put {explainer.trace.vault_path.name} beside the trace"
        )
    return [(known[sample][0], key_of(known[sample][1])) for sample in ids]


def _who(explainer: Explainer, cache: Cache, targets: Sequence[Target]) -> str:
    """A digest of who the training rows and the targets are, by the user's own keys or, where those are not known, ids:
    rows and targets of another trace may be called the same."""
    known, digest = explainer.namer.names(), hashlib.sha256()
    roles = {"train"}.union(*(target.rows for target in targets))
    names = {}
    for role in sorted(roles):
        ids = [sample.tobytes() for sample in ids_of(cache.rows(role), explainer.blocks)]
        names[role] = [repr(known.get(sample, sample)).encode() for sample in ids]
    for some in ([names["train"]], *([[names[r][i] for i in rows] for r, rows in t.rows.items()] for t in targets)):
        for one in some:
            digest.update(hashlib.sha256(b"\n".join(one)).digest())
    return digest.hexdigest()


def _wanted(explainer: Explainer, cache: Cache, targets: Sequence[Target]) -> Wanted:
    if len(targets) > 1 or targets[0].samples == 1:
        return Wanted(tuple(targets), len(targets), np.arange(len(targets)))
    (role, rows), *more = targets[0].rows.items()
    if more or len(rows) < len(cache.rows(role)):
        return Wanted(tuple(targets), 1, np.arange(1))
    named = _named(explainer, cache.rows(role))
    order = sorted(range(len(named)), key=lambda row: (named[row][0], str(type(named[row][1])), named[row][1]))
    chosen = np.unique(np.linspace(0, len(order) - 1, min(MOST_TARGETS, len(order))).round().astype(np.intp))
    singles = tuple(
        Target(f"{role} sample {place} by key", {role: np.array([order[place]])}, is_single=True)
        for place in chosen.tolist()
    )
    return Wanted(singles, len(order), chosen)
