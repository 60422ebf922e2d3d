"""Writing the scores of a query into the log, with all that is needed to compute them again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgtrac.api.adding import Adding, adding
from fgtrac.api.contributions import parameters_of, parts_of
from fgtrac.api.explain import Explainer
from fgtrac.api.targets import Target
from fgtrac.errors import ScoreError
from fgtrac.score.cache import Cache
from fgtrac.score.gradients import Floats, Gradients
from fgtrac.score.kernel import Prepared, Progress, add_scores, block_rows
from fgtrac.score.methods import Method, prepare
from fgtrac.score.target_files import encode_target, target_path
from fgtrac.store import durable


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was added: `contribution` entries and the scores in them; those that the log had already are not again."""

    entries: int
    scores: int


def record_scores(
    explainer: Explainer,
    cache: Cache,
    targets: Sequence[Target],
    gradients: Iterable[tuple[list[int], list[tuple[Gradients, ...]]]],
    method: Method,
    key: Path | None,
    progress: Progress | None = None,
) -> Recorded:
    """Add the contribution of every training sample toward every target, checkpoint by checkpoint, and seal.

    `gradients` as `read_targets` gives them. A sample of the trace is named by its id, the validation samples as such;
    any other target by the file of its gradients, which is added too. Errors as `adding`; ScoreError where an erasure
    withdrew files since the trace was opened, which may be among those that these scores are from.
    """
    with adding(explainer.trace, key) as to:
        if gone := explainer.ledger.artifacts.keys() - to.ledger.artifacts.keys():
            raise ScoreError(f"{min(gone)} was withdrawn from {to.trace.path} since it was opened here; open it again")
        entries = counted = done = 0
        for numbers, by_state in gradients:
            for column, number in enumerate(numbers):
                own = [tuple(g.rows(slice(column, column + 1)) for g in state) for state in by_state]
                called = _name(explainer, to, cache, targets[number], own)
                for k, state in enumerate(own):
                    for scores in _record_one(to, cache, k, called, state, method):
                        entries, counted = entries + 1, counted + scores
                to.recorder.flush()
                done += 1
                if progress is not None:
                    progress(done, len(targets))
    return Recorded(entries, counted)


def _record_one(
    to: Adding, cache: Cache, k: int, target: str, gradients: Sequence[Gradients], method: Method
) -> Iterator[int]:
    """The entries of one target at one state that the log does not have; yields how many scores each holds."""
    state, rows = cache.states[k], cache.rows("train")
    missing = [
        (block, here)
        for block, here in parts_of(rows)
        if not to.ledger.has_contribution(state.ref, target, str(method), block, rows.ordinals[here])
    ]
    if not missing:
        return
    values = shares_at(cache, k, prepare(cache, k, gradients, method))[:, 0]
    fields: dict[str, Any] = {"checkpoint": list(state.ref), "step": state.step, "target": target}
    fields |= {"method": str(method), "parameters": parameters_of(cache, k, method)}
    for block, here in missing:
        said = {**fields, "block": block, "ordinals": rows.ordinals[here], "scores": values[here]}
        to.ledger.take("contribution", said, to.recorder.record("contribution", said))
        yield len(here)


def shares_at(cache: Cache, k: int, prepared: Prepared) -> Floats:
    """(n, m): the shares of one state in the scores of all training rows."""
    n, size = len(cache.rows("train")), block_rows(prepared)
    out = np.zeros((n, len(prepared)), dtype=np.float32)
    for start in range(0, n, size):
        stop = min(n, start + size)
        add_scores(cache.read(k, "train", start, stop), prepared, out[start:stop])
    return out


def _name(
    explainer: Explainer, to: Adding, cache: Cache, target: Target, gradients: Sequence[Sequence[Gradients]]
) -> str:
    """What the log calls the target. A file of its gradients is written where nothing else names it; no name of a
    sample stands in there, since names may be secret."""
    (role, rows), *more = target.rows.items()
    if target.is_single and role in ("train", "validation", "test"):
        return f"id:{explainer.blocks.id(*cache.rows(role).place(int(rows[0]))).hex()}"
    if role == "validation" and not more and len(rows) == len(cache.rows("validation")):
        return "validation"
    data = encode_target(cache.states, gradients)
    path, digest = target_path(data), hashlib.sha256(data).digest()
    if to.ledger.artifacts.get(path) != digest:
        durable.write_file(to.trace.path / path, data)
        about = f"gradients of a target of {target.samples} sample{'s' if target.samples > 1 else ''}"
        fields = {"path": path, "sha256": digest, "size": len(data), "about": about}
        ref = to.recorder.record("artifact", {**fields, "media_type": "application/vnd.safetensors"})
        to.ledger.take("artifact", fields, ref)
    return f"artifact:{path}"
