"""A question about scores, as each of an engine's workers opens it for itself: the trace, the targets, the method."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fgtrac.api.explain import Explainer
from fgtrac.api.targets import Target
from fgtrac.errors import ScoreError
from fgtrac.score.cache import Cache
from fgtrac.score.methods import Method

FORMAT = "fgtrac scores 1"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, as the caller was asked it, and the `text` that the caller has for it (`query_text`). The method's
    curvatures lie in the folder `curvatures` once they are computed; `k` and `by` are those of an explanation."""

    trace: str
    targets: tuple[Any, ...]
    method: Method
    checkpoints: tuple[int, ...] | None
    text: str
    curvatures: str | None = None
    k: int = 0
    by: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class OpenedQuestion:
    """The factors that it rests on, and its targets."""

    explainer: Explainer
    cache: Cache
    targets: list[Target]


@lru_cache(maxsize=1)
def open_question(question: Question) -> OpenedQuestion:
    """As it is at a worker. ScoreError where the trace does not hold here what it holds for the caller."""
    from fgtrac.api.trace import open_trace

    explainer = open_trace(question.trace)._explainer
    cache = explainer.cache(question.checkpoints)
    targets = explainer.resolve(cache, question.targets) if question.targets else []
    if query_text(explainer, cache, targets, question.method) != question.text:
        raise ScoreError(f"{question.trace} has other factors or samples at a worker than where this was asked")
    if question.curvatures is not None:
        cache.curvatures[question.method] = Path(question.curvatures)
    return OpenedQuestion(explainer, cache, targets)


def frozen(target: Any) -> Any:
    """A target's name, or a group of names as a tuple, which is the same wherever it is read; all else as it is."""
    if isinstance(target, (str, bytes)) or not isinstance(target, (Sequence, Set, Iterator, np.ndarray)):
        return target
    return tuple(map(frozen, target))


def query_text(
    explainer: Explainer,
    cache: Cache,
    targets: Sequence[Target],
    method: Method,
    rows_a_part: int = 0,
    *,
    by_engine: bool = True,
) -> str:
    """What tells one question from another (query.json): the factor files that it reads, and what it computes of them.
    All units of any engine compute with one thread; without an engine the last bits are others."""
    query = _query(explainer, cache, targets, method, rows_a_part)
    query |= {"threads": "one" if by_engine else "as many as torch's"}
    return json.dumps(query, ensure_ascii=False, indent=1) + "\n"


def _query(
    explainer: Explainer, cache: Cache, targets: Sequence[Target], method: Method, rows_a_part: int
) -> dict[str, Any]:
    roles = {"train"}.union(*(target.rows for target in targets))
    wanted = tuple(f"{state.folder}/{role}-" for state in cache.states for role in roles)
    files = sorted((path, sha.hex()) for path, sha in explainer.ledger.artifacts.items() if path.startswith(wanted))
    return {
        "format": FORMAT,
        "trace": explainer.seal.head.origin,
        "factors": _digest(files),
        "method": str(method),
        "layers": [layer.name for layer in cache.layers],
        "checkpoints": [state.step for state in cache.states],
        "targets": [[t.words, t.samples, _digest([(r, rows.tolist()) for r, rows in t.rows.items()])] for t in targets],
        "rows": len(cache.rows("train")),
        "rows_a_part": rows_a_part,
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
