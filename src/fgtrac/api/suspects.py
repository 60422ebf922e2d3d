"""Training samples to look at: those that may be mislabelled, and those that are nearly the same."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.explain import Explainer, mean_losses
from fgtrac.api.explanation import UNMEASURED, Fidelity
from fgtrac.api.groups import ids_of, rows_by_block
from fgtrac.api.naming import key_of, key_text, words_of
from fgtrac.api.spread_scores import near_duplicates_by, self_influence_by
from fgtrac.engine.units import Engine
from fgtrac.errors import ScoreError
from fgtrac.events.one_line import one_line
from fgtrac.score.cache import Cache
from fgtrac.score.gradients import Floats
from fgtrac.score.kernel import Progress
from fgtrac.score.methods import Method, self_influence
from fgtrac.score.suspects import MEASURES, near_duplicates, rank_suspects

COLUMNS = (
    "dataset", "key", "id", "label", "self_influence", "mean_loss", "rank_by_self_influence", "rank_by_mean_loss",
)  # fmt: skip

LOOKED_UP = 1024  # names are looked up one by one; of more, all are read at once


@dataclass(frozen=True, slots=True)
class Row:
    """A training sample: its id, data set, key as its user writes it and name where the vault knows them, its class."""

    id: bytes
    dataset: str
    key: str | None
    name: str | None
    label: int | None

    @property
    def words(self) -> str:
        """What to call it."""
        return self.name or f"id:{self.id.hex()[:16]}"

    def as_json(self) -> dict[str, Any]:
        """Plain data; what is not known is left out."""
        said = {"dataset": self.dataset, "key": self.key, "name": self.name, "label": self.label}
        return {"id": self.id.hex()} | {k: v for k, v in said.items() if v is not None}


@dataclass(frozen=True, slots=True)
class Suspect:
    """A sample with both measures (the higher, the more suspicious) and its rank by each, 1 the most suspicious."""

    row: Row
    self_influence: float
    mean_loss: float
    rank_by_self_influence: int
    rank_by_mean_loss: int

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return self.row.as_json() | {name: getattr(self, name) for name in COLUMNS[4:]}


@dataclass(frozen=True, slots=True, eq=False)
class SelfInfluence:
    """Each training sample's score toward its own loss: `ids` (n, 32) uint8, `scores` (n,) float32 summed over the
    checkpoints of `steps`, `labels` (n,) int32 where there are classes."""

    ids: NDArray[np.uint8]
    scores: Floats
    labels: NDArray[np.int32] | None
    method: str
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SuspectList:
    """The most suspicious of `rows` training samples, in the order of the measure `by`; `agreement` is the rank
    correlation of the two measures; `words` says what is known of which is better."""

    suspects: tuple[Suspect, ...]
    rows: int
    method: str
    steps: tuple[int, ...]
    by: str
    agreement: float
    words: str
    fidelity: Fidelity | None = None

    @property
    def basis(self) -> str:
        """What the list rests on, in words."""
        measures = f"self-influence by {self.method} and the mean loss (which costs nothing)"
        return (
            f"{self.rows:,} training samples, {measures} over the checkpoints of steps "
            f"{', '.join(map(str, self.steps))}; listed by {self.by}; the two agree to {self.agreement:.2f} (rank "
            f"correlation); {self.words}; {self.fidelity or UNMEASURED}"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        said = {"method": self.method, "steps": list(self.steps), "training_samples": self.rows, "by": self.by}
        said |= {"agreement": self.agreement, "words": self.words}
        said |= {"fidelity": self.fidelity.as_json() if self.fidelity else UNMEASURED}
        return said | {"suspects": [suspect.as_json() for suspect in self.suspects]}

    def csv(self) -> str:
        """A line for each suspect under a heading, with the user's own keys."""
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(COLUMNS)
        for s in self.suspects:
            label = "" if s.row.label is None else s.row.label
            numbers = (s.self_influence, s.mean_loss, s.rank_by_self_influence, s.rank_by_mean_loss)
            lines.writerow((s.row.dataset, s.row.key or "", s.row.id.hex(), label, *numbers))
        return text.getvalue()

    def _repr_html_(self) -> str:
        """For notebooks."""
        from fgtrac.api.explanation_html import suspects_html

        return suspects_html(self)

    def __str__(self) -> str:
        lines = [
            f"{s.row.words}{'' if s.row.label is None else f' (class {s.row.label})'}: self-influence "
            f"{s.self_influence:.4g} (rank {s.rank_by_self_influence}), mean loss {s.mean_loss:.4g} (rank "
            f"{s.rank_by_mean_loss})"
            for s in self.suspects
        ]
        return "\n".join(map(one_line, [*lines, self.basis]))


@dataclass(frozen=True, slots=True)
class Pair:
    """Two samples that are alike: the cosine of their gradients, that of what the layers read (None where that is not
    kept), and whether their contents are equal (None where contents are not known)."""

    first: Row
    second: Row
    gradients: float
    inputs: float | None
    equal_content: bool | None

    def as_json(self) -> dict[str, Any]:
        """Plain data; what is not known is left out."""
        said = {"gradients": self.gradients, "inputs": self.inputs, "equal_content": self.equal_content}
        known = {k: v for k, v in said.items() if v is not None}
        return {"first": self.first.as_json(), "second": self.second.as_json()} | known


@dataclass(frozen=True, slots=True)
class Duplicates:
    """The pairs that are most alike by the factors of one state, and for comparison what costs nothing: how many
    samples have exactly the content of another (None where contents are not known)."""

    pairs: tuple[Pair, ...]
    rows: int
    step: int
    by: str
    equal_contents: int | None

    @property
    def basis(self) -> str:
        """What the list rests on, in words."""
        free = "contents are not known, so that equal ones cannot be told"
        if self.equal_contents is not None:
            free = f"for comparison, free: {self.equal_contents:,} samples hold exactly the content of another"
        where = f"the {self.by} at the checkpoint of step {self.step}"
        return f"{self.rows:,} training samples by {where}; {free}; {UNMEASURED}"

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        said: dict[str, Any] = {"training_samples": self.rows, "step": self.step, "by": self.by}
        said["fidelity"] = UNMEASURED
        said |= {} if self.equal_contents is None else {"equal_contents": self.equal_contents}
        return said | {"pairs": [pair.as_json() for pair in self.pairs]}

    def _repr_html_(self) -> str:
        """For notebooks."""
        from fgtrac.api.explanation_html import duplicates_html

        return duplicates_html(self)

    def __str__(self) -> str:
        said = {True: ", equal contents", False: ", other contents", None: ""}
        lines = [f"{p.first.words} and {p.second.words}: {p.gradients:.4f}{said[p.equal_content]}" for p in self.pairs]
        return "\n".join(map(one_line, [*lines, self.basis]))


def measure_self_influence(
    explainer: Explainer,
    method: Method,
    checkpoints: Sequence[int] | None,
    engine: str | Engine | None = None,
    progress: Progress | None = None,
) -> SelfInfluence:
    """The self-influence of every training sample. Errors as `Explainer.cache` and `methods.self_influence`."""
    cache = explainer.cache(checkpoints)
    rows, steps = cache.rows("train"), tuple(state.step for state in cache.states)
    found = _self_influence(explainer, cache, method, checkpoints, engine, progress)
    return SelfInfluence(ids_of(rows, explainer.blocks), found, rows.labels, str(method), steps)


def _self_influence(
    explainer: Explainer,
    cache: Cache,
    method: Method,
    checkpoints: Sequence[int] | None,
    engine: str | Engine | None,
    progress: Progress | None,
) -> Floats:
    if engine is None:
        return self_influence(cache, method, progress)
    return self_influence_by(explainer, engine, method, checkpoints, progress)


def list_suspects(
    explainer: Explainer,
    method: Method,
    k: int | None,
    *,
    checkpoints: Sequence[int] | None = None,
    by: str | None = None,
    wrong: Sequence[str] | None = None,
    engine: str | Engine | None = None,
    progress: Progress | None = None,
) -> SuspectList:
    """The k training samples (None: all) whose labels are most suspicious. `by` is "self-influence" or "mean loss",
    `wrong` names the samples whose labels are known to be wrong (all others being right): then the better measure is
    known.

    ScoreError where the losses were not kept; ValueError for an unknown measure or name.
    """
    if by not in (None, *MEASURES) or (k is not None and k < 1):
        raise ValueError(f"the {k} first by {by!r:.40}; ask for at least 1, by {' or '.join(MEASURES)}")
    cache = explainer.cache(checkpoints)
    known = None if wrong is None else _marked(explainer, cache, wrong)
    losses = mean_losses(cache)
    if losses is None:
        raise ScoreError("the losses of the training samples were not kept at every checkpoint; score these anew")
    own = _self_influence(explainer, cache, method, checkpoints, engine, progress)
    found = rank_suspects(own, losses, len(own) if k is None else k, by=by, wrong=known)
    places = [_ranks(values) for values in (own, losses)]
    rows = _rows(explainer, cache, found.rows.tolist())
    suspects = tuple(
        Suspect(row, float(own[n]), float(losses[n]), int(places[0][n]), int(places[1][n]))
        for row, n in zip(rows, found.rows.tolist(), strict=True)
    )
    steps = tuple(state.step for state in cache.states)
    told = (found.by, found.agreement, found.words, explainer.fidelity(method, steps))
    return SuspectList(suspects, len(own), str(method), steps, *told)


def list_duplicates(
    explainer: Explainer,
    k: int,
    *,
    checkpoint: int | None = None,
    by: str = "gradients",
    engine: str | Engine | None = None,
    progress: Progress | None = None,
) -> Duplicates:
    """The k pairs of training samples that are most alike by "gradients" or "inputs" at one checkpoint, by default the
    last. Errors as `Explainer.cache` and `near_duplicates`."""
    cache = explainer.cache(None if checkpoint is None else [checkpoint])
    last, n = len(cache.states) - 1, len(cache.rows("train"))
    if engine is None:
        found = near_duplicates(lambda a, b: cache.read(last, "train", a, b), n, k, by=by, progress=progress)
    else:
        found = near_duplicates_by(explainer, engine, k, checkpoint=checkpoint, by=by, progress=progress)
    contents = _contents(explainer, cache)
    flat = _rows(explainer, cache, found.rows.reshape(-1).tolist())
    pairs = tuple(
        Pair(
            flat[2 * i], flat[2 * i + 1], float(found.gradients[i]),
            None if np.isnan(found.inputs[i]) else float(found.inputs[i]),
            None if contents is None else bool((contents[a] == contents[b]).all()),
        )
        for i, (a, b) in enumerate(found.rows.tolist())
    )  # fmt: skip
    return Duplicates(pairs, n, cache.states[last].step, by, None if contents is None else _shared(contents))


def _rows(explainer: Explainer, cache: Cache, rows: Sequence[int]) -> list[Row]:
    of, out = cache.rows("train"), []
    names = explainer.namer.names() if len(rows) > LOOKED_UP else None
    for row in rows:
        block, ordinal = of.place(row)
        sample_id = explainer.blocks.id(block, ordinal)
        if names is None:
            one = explainer.namer.known(sample_id)
            known = None if one is None else (one.dataset, one.key)
        else:
            known = names.get(sample_id)
        key, name = (None, None) if known is None else (key_of(known[1]), words_of(known[0], key_of(known[1])))
        label = None if of.labels is None else int(of.labels[row])
        text = None if known is None else key_text(key)
        out.append(Row(sample_id, explainer.blocks.dataset(block), text, name, label))
    return out


def _marked(explainer: Explainer, cache: Cache, names: Sequence[str]) -> NDArray[np.bool_]:
    """(n,) whether a row is one of the named samples. ScoreError for a name that is not among the training factors."""
    rows = cache.rows("train")
    out = np.zeros(len(rows), dtype=bool)
    for name in names:
        places = [rows.find(*place) for place in explainer.find(name)]
        mine = [row for row in places if row is not None]
        if not mine:
            raise ScoreError(f"{name} is not among the training samples that were scored")
        out[mine] = True
    return out


def _ranks(values: Floats) -> NDArray[np.intp]:
    """(n,) 1 for the largest."""
    out = np.empty(len(values), dtype=np.intp)
    out[np.argsort(-values, kind="stable")] = np.arange(1, len(values) + 1)
    return out


def _contents(explainer: Explainer, cache: Cache) -> NDArray[np.uint8] | None:
    """(n, 32) the content digests of the rows; None where those of a data set are not known."""
    rows = cache.rows("train")
    out = np.empty((len(rows), 32), dtype=np.uint8)
    for block, mine in rows_by_block(rows):
        contents = explainer.blocks.contents(block)
        if contents is None:
            return None
        out[mine] = contents[rows.ordinals[mine]]
    return out


def _shared(contents: NDArray[np.uint8]) -> int:
    """How many rows have the content of another."""
    counts = Counter(row.tobytes() for row in contents)
    return sum(count for count in counts.values() if count > 1)
