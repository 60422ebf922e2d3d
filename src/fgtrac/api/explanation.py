"""What `explain` answers: who lowered the loss of a target and who raised it, and by how much at each checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fgtrac.events.one_line import one_line
from fgtrac.query.attention import ModalityWeights

UNMEASURED = "fidelity not measured"
CAUTION = "a score estimates an influence; influence is not causation"
SAMPLED = "gradients are of nodes with the neighbours that forward gives them, and training drew some of theirs"


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How well the scores of a method agreed with retraining: the linear datamodeling score (arXiv:2303.14186) with its
    standard error, over how many retrained subsets and targets; as recorded in the trace, or measured now."""

    lds: float
    error: float
    subsets: int
    targets: int

    def __str__(self) -> str:
        over = f"{self.subsets} retrained subsets, {self.targets} target{'s' if self.targets > 1 else ''}"
        return f"fidelity: LDS {self.lds:.3f} +- {self.error:.3f} (standard error; {over})"

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        counts = {"subsets": self.subsets, "targets": self.targets}
        return {"lds": self.lds, "standard_error": self.error, **counts}


@dataclass(frozen=True, slots=True)
class Scored:
    """One training sample with its score toward a target; `trace` has the share of each checkpoint (of each trace for
    an ensemble), which add up to the score (whose mean is the score). `label` is its class where classes are known."""

    id: bytes
    name: str | None
    role: str
    label: int | None
    score: float
    trace: tuple[float, ...] = ()
    is_target: bool = False

    @property
    def words(self) -> str:
        """What to call it: its name where the vault knows it, else the beginning of its id; with its class."""
        called = self.name or f"id:{self.id.hex()[:16]}"
        return called + (f" (class {self.label})" if self.label is not None else "")

    def as_json(self) -> dict[str, Any]:
        """Plain data; the id as hex."""
        said: dict[str, Any] = {"id": self.id.hex(), "name": self.name, "role": self.role, "label": self.label}
        said = {k: v for k, v in said.items() if v is not None} | {"score": self.score}
        said |= {"trace": list(self.trace)} if self.trace else {}
        return said | ({"is_target": True} if self.is_target else {})


@dataclass(frozen=True, slots=True)
class Share:
    """What the training samples of one group (a data set, class or subject) contributed together."""

    group: str
    samples: int
    sum: float

    @property
    def mean(self) -> float:
        """For each sample."""
        return self.sum / self.samples

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"group": self.group, "samples": self.samples, "sum": self.sum, "mean": self.mean}


@dataclass(frozen=True, slots=True)
class Toward:
    """The answer for one target: proponents (their scores lowered its loss), largest first; opponents, smallest
    first; with `by` the shares of groups, largest first.

    `baseline` is what costs nothing beside the opponents: the training samples of the highest loss (`score` is that
    loss, the mean over checkpoints), of the target's class where it has one; empty where no losses were kept.
    `attention` is the modality weights of a target that is one sample, at each kept checkpoint that has some."""

    target: str
    samples: int
    label: int | None
    proponents: tuple[Scored, ...]
    opponents: tuple[Scored, ...]
    baseline: tuple[Scored, ...] = ()
    shares: tuple[Share, ...] = ()
    attention: tuple[ModalityWeights, ...] = ()

    @property
    def sentence(self) -> str:
        """The answer in one sentence."""
        first = next((s for s in self.proponents if s.score > 0 and not s.is_target), None)
        last = next((s for s in self.opponents if s.score < 0 and not s.is_target), None)
        said = [
            f"{s.words} {verb} its loss most ({s.score:+.4g})"
            for s, verb in ((first, "lowered"), (last, "raised"))
            if s
        ]
        called = self.target + (f" (class {self.label})" if self.label is not None and self.samples == 1 else "")
        return f"toward {called}: {' and '.join(said) or 'no training sample contributed anything'}"

    @property
    def weighed(self) -> str:
        """The modality weights in one line; empty where there are none."""
        return f"its modality weights: {'; '.join(map(str, self.attention))}" if self.attention else ""

    @property
    def free(self) -> str:
        """The baseline in one line; empty where there is none."""
        which = f" of class {self.label}" if self.label is not None else ""
        samples = ", ".join(f"{s.name or s.id.hex()[:16]} {s.score:.3g}" for s in self.baseline)
        return f"for comparison, free: the highest training losses{which}: {samples}" if samples else ""

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        said: dict[str, Any] = {"target": self.target, "samples": self.samples}
        said |= {"label": self.label} if self.label is not None else {}
        for name in ("proponents", "opponents", "baseline", "shares"):
            said[name] = [one.as_json() for one in getattr(self, name)]
        said |= {"attention": [one.as_json() for one in self.attention]} if self.attention else {}
        return said | {"sentence": self.sentence}


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer of `explain`, for one target or several, and all that the numbers rest on.

    `method` in words as entries write it; `layers` the names of the prediction layers, with the error of a projection;
    `steps` the checkpoints (for an ensemble `columns` are the traces instead, and `steps_of_traces` the checkpoints of
    each); `rows` how many training samples were scored; `by` what the shares are grouped by; `is_sampled` whether
    training drew the neighbours of a graph's nodes."""

    toward: tuple[Toward, ...]
    method: str
    layers: tuple[str, ...]
    steps: tuple[int, ...]
    columns: tuple[str, ...]
    rows: int
    by: str | None = None
    fidelity: Fidelity | None = None
    steps_of_traces: tuple[tuple[int, ...], ...] = ()
    is_sampled: bool = False

    @property
    def basis(self) -> str:
        """What the numbers rest on, in words."""
        where = ", ".join(self.layers)
        each = dict.fromkeys(self.steps_of_traces or (self.steps,))
        steps = "the checkpoints of steps " + " and of ".join(", ".join(map(str, some)) for some in each)
        steps += f", the mean over {len(self.columns)} traces" if self.steps_of_traces else ""
        said = [f"{self.rows:,} training samples by {self.method}, layer {where}, {steps}"]
        said += [SAMPLED] if self.is_sampled else []
        return "; ".join([*said, str(self.fidelity or UNMEASURED), CAUTION])

    def as_json(self) -> dict[str, Any]:
        """Plain data: contribution traces have one number for each of `columns`."""
        return {
            "method": self.method,
            "layers": list(self.layers),
            "steps": list(self.steps),
            "columns": list(self.columns),
            **({"steps_of_traces": list(map(list, self.steps_of_traces))} if self.steps_of_traces else {}),
            "training_samples": self.rows,
            **({"neighbours_sampled": True} if self.is_sampled else {}),
            **({"by": self.by} if self.by else {}),
            "fidelity": self.fidelity.as_json() if self.fidelity else UNMEASURED,
            "toward": [one.as_json() for one in self.toward],
        }

    def _repr_html_(self) -> str:
        """For notebooks."""
        from fgtrac.api.explanation_html import explanation_html

        return explanation_html(self)

    def __str__(self) -> str:
        lines = []
        for one in self.toward:
            lines += [one.sentence, *_listed("proponents", one.proponents), *_listed("opponents", one.opponents)]
            lines += [f"  {line}" for line in (one.weighed, one.free) if line]
            lines += [f"  {s.group}: {s.sum:+.4g} by {s.samples:,} samples" for s in one.shares]
        return "\n".join(map(one_line, [*lines, self.basis]))


def _listed(title: str, samples: Sequence[Scored]) -> list[str]:
    return [f"  {title}: " + ", ".join(f"{s.words} {s.score:+.4g}" for s in samples)] if samples else []
