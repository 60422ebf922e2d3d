"""What a report says of a trace in numbers: of every sample that its newest full seal registers, and of every entry.

Every entry is checked against the sealed root as it is read, and what the index counts must be what the entries say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.told_uses import KINDS, Held, ToldUses, UseCounter
from fgtrac.api.trace import Trace
from fgtrac.errors import ProofError
from fgtrac.events.identity import subject_commitment
from fgtrac.events.ranks import RankTable
from fgtrac.events.schema import ATTRIBUTION, ROLES, STATUS, TRAINING
from fgtrac.query.course import Course, read_course
from fgtrac.query.log import whole
from fgtrac.query.tables import Samples
from fgtrac.verify.policy_file import HELD_OUT_ROLES

TOP_SUBJECTS = 20
BARS = 30  # of a distribution
MOST_METRICS = 16
NO_ROLE = "no role"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Part:
    """The samples of one kind, each under the strongest that can be said of it (`ToldUses.standing`): `used` in an
    applied update (of a graph: as a seed), only `as_neighbours`, only `through` what was made from it, `in_doubt` or
    `never`; how often in all (`superseded` is part of `uses`), and how many a stage dropped."""

    samples: int
    used: int
    as_neighbours: int
    through: int
    in_doubt: int
    never: int
    uses: int
    superseded: int
    perhaps: int
    neighbours: int
    dropped: int

    def as_json(self) -> dict[str, int]:
        """Plain data."""
        return {name: getattr(self, name) for name in Part.__slots__}


@dataclass(frozen=True, slots=True)
class Source:
    """A data set: its samples, those that have the role train, and by their roles. `made_by` are the stages that made
    its samples from others; `content` says what its content digests are of, None where there are none."""

    name: str
    id_scheme: str
    content: str | None
    registered: int  # when its last samples were, ns since 1970
    part: Part
    training: Part
    roles: Mapping[str, int]
    subjects: int
    made_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SubjectFigure:
    """One subject by its pseudonym."""

    pseudonym: str
    samples: int
    uses: int


@dataclass(slots=True)
class Told:
    """What the entries say beside the course of training."""

    run: Mapping[str, Any] = field(default_factory=dict)
    began: int = 0
    ended: int = 0
    is_finished: bool = False
    entries: Counter[str] = field(default_factory=Counter)
    datasets: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    registered: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    losses: list[NDArray[np.float64]] = field(default_factory=list)  # (n, 3): step, sum and number of losses
    attributions: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    gaps: Counter[str] = field(default_factory=Counter)
    resumes: list[tuple[int, int]] = field(default_factory=list)
    erasures: list[tuple[int, str, int]] = field(default_factory=list)  # entry, pseudonym, samples
    keys: int = 0
    ranks: int = 0

    def training_losses(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Steps (n,) and the mean loss of the samples in each (n,), where their losses were recorded."""
        rows = np.concatenate(self.losses) if self.losses else np.empty((0, 3))
        steps, which = np.unique(rows[:, 0], return_inverse=True)
        sums, counts = (np.bincount(which, rows[:, i], len(steps)) for i in (1, 2))
        return steps, sums / np.maximum(counts, 1)


@dataclass(frozen=True, slots=True)
class Figures:
    """All of it, complete for a full seal of `size` entries under `root`; `pending` later entries are not in it."""

    trace_id: str
    size: int
    root: str
    pending: int
    told: Told
    course: Course
    all: Part
    training: Part
    roles: Mapping[str, Part]
    sources: tuple[Source, ...]
    uses_of_training: tuple[tuple[str, int], ...]  # how many training samples were used so often
    subjects: tuple[SubjectFigure, ...]  # the first TOP_SUBJECTS by samples
    subject_count: int
    samples_of_subjects: int
    counts_nobody: bool  # those given no subject beside others may be counted as one subject more: there is no vault
    held: Mapping[str, Held]  # of each role that must not be trained on, with what was made from its samples
    acquired: int | None  # when the last of what the training samples come from was registered, ns since 1970
    is_training_made: bool  # some training samples were made from others


def read_figures(trace: Trace, progress: Progress | None = None) -> Figures:
    """Read every sample and every entry of a trace's newest full seal. NotSealedError where there is none; ProofError
    or TamperError where log or index are not what was sealed, or contradict each other."""
    counts = trace.sample_counts()
    seal = trace._seal
    with whole("the report"):
        course = read_course(seal, trace._historian.timeline, trace._blocks, (), progress)
        told, uses = _read(trace, counts)
    if wrong := int((counts.uses != uses.uses).sum()):
        raise ProofError(f"the index and the entries count other uses of {wrong:,} samples; run fgtrac verify")
    trains = in_role(counts, "train")
    subjects, owners, counts_nobody = _subjects(trace, counts)
    parts = _Parts(counts, uses)
    held = {role: uses.held(in_role(counts, role)) for role in HELD_OUT_ROLES}
    sources = uses.sources(trains)
    acquired = [told.registered.get(counts.datasets[code], 0) for code in np.unique(counts.dataset[sources]).tolist()]
    return Figures(
        trace.id.hex(), seal.head.size, seal.head.root.hex(), trace.pending, told, course,
        parts.of(np.ones(len(counts), dtype=bool)), parts.of(trains), parts.by_roles(),
        _sources(parts, trains, course, told, owners), _distribution(counts.uses[trains]),
        subjects[:TOP_SUBJECTS], len(subjects), sum(one.samples for one in subjects), counts_nobody,
        {role: one for role, one in held.items() if one.samples}, max(acquired, default=None),
        bool((sources & ~trains).any()),
    )  # fmt: skip


def in_role(counts: Samples, role: str) -> NDArray[np.bool_]:
    """(n,) who ever had a role."""
    return (counts.roles >> ROLES[role] & 1).astype(bool)


class _Parts:
    """The figures of chosen samples."""

    def __init__(self, counts: Samples, uses: ToldUses) -> None:
        self.counts, self._uses, self._standing = counts, uses, uses.standing()

    def of(self, some: NDArray[np.bool_]) -> Part:
        """Those of these samples (n,)."""
        standing = {name: int((mine & some).sum()) for name, mine in self._standing}
        sums = {name: int(getattr(self._uses, name)[some].sum()) for name in KINDS if name != "far"}
        return Part(int(some.sum()), **standing, **sums, dropped=int(self.counts.dropped[some].sum()))

    def by_roles(self) -> dict[str, Part]:
        """Each set of roles that samples have, those without any last; these parts add up to all samples."""
        roles = self.counts.roles
        found = sorted(np.unique(roles).tolist(), key=lambda bits: (not bits, bits))
        return {role_words(bits): self.of(roles == bits) for bits in found}


def role_words(bits: int) -> str:
    """The roles of these bits, in words."""
    return ", ".join(role for role, code in ROLES.items() if bits >> code & 1) or NO_ROLE


def _sources(
    parts: _Parts, trains: NDArray[np.bool_], course: Course, told: Told, owners: Mapping[str, int]
) -> tuple[Source, ...]:
    counts, found = parts.counts, []
    for code, name in sorted(enumerate(counts.datasets), key=lambda pair: pair[1]):
        mine, said = counts.dataset == code, told.datasets.get(name, {})
        bits, numbers = np.unique(counts.roles[mine], return_counts=True)
        roles = {role_words(b): n for b, n in zip(bits.tolist(), numbers.tolist(), strict=True)}
        made_by = tuple(sorted({stage.name for stage in course.stages.values() if name in stage.made}))
        both = parts.of(mine), parts.of(mine & trains)
        scheme, when = said.get("id_scheme", "unknown"), told.registered.get(name, 0)
        found.append(Source(name, scheme, said.get("content"), when, *both, roles, owners.get(name, 0), made_by))
    return tuple(found)


def _distribution(uses: NDArray[np.int64]) -> tuple[tuple[str, int], ...]:
    """How many samples were used 0, 1, 2 ... times; of a wide range in bars of equal width, 0 by itself."""
    if not len(uses):
        return ()
    most = int(uses.max())
    width = max(1, -(-most // BARS))
    counts = np.bincount(np.where(uses > 0, (uses - 1) // width + 1, 0), minlength=-(-most // width) + 1)
    labels = ["0"] + [f"{1 + i * width}" + (f"–{(i + 1) * width}" * (width > 1)) for i in range(len(counts) - 1)]
    return tuple(zip(labels, counts.tolist(), strict=True))


def _subjects(trace: Trace, counts: Samples) -> tuple[tuple[SubjectFigure, ...], dict[str, int], bool]:
    """Every subject that the log names, most samples first, how many each data set has, and whether one may be none:
    samples that were given no subject beside others that were have a pseudonym in common, and only with the vault at
    hand is it known and left out."""
    blocks, found, datasets = trace._blocks, dict[bytes, list[int]](), dict[str, set[bytes]]()
    ids, taken = counts.ids.view("V32").reshape(-1), np.zeros(len(counts), dtype=bool)
    for block in blocks.whole():
        column = blocks.subjects(block)
        if column is None:
            continue
        places = np.searchsorted(ids, np.ascontiguousarray(blocks.ids(block)).view("V32").reshape(-1))
        names, which = np.unique(np.ascontiguousarray(column).view("V32").reshape(-1), return_inverse=True)
        new = ~taken[places]  # a sample that stands in two blocks counts once
        taken[places] = True
        samples = np.bincount(which[new], minlength=len(names)).tolist()
        uses = np.bincount(which[new], counts.uses[places][new], len(names)).astype(np.int64).tolist()
        owners = [name.tobytes() for name in names]
        datasets.setdefault(blocks.dataset(block), set()).update(owners)
        for owner, n, used in zip(owners, samples, uses, strict=True):
            sums = found.setdefault(owner, [0, 0])
            sums[0], sums[1] = sums[0] + n, sums[1] + used
    secret = None if trace._vault is None else trace._vault.find_secret("run")
    nobody = b"" if secret is None else subject_commitment(secret)
    figures = [SubjectFigure(who.hex(), n, uses) for who, (n, uses) in found.items() if n and who != nobody]
    figures.sort(key=lambda one: (-one.samples, -one.uses, one.pseudonym))
    owners_in = {name: len(who - {nobody}) for name, who in datasets.items()}
    return tuple(figures), owners_in, bool(figures) and secret is None


def _read(trace: Trace, counts: Samples) -> tuple[Told, ToldUses]:
    told, ranks, log, uses = Told(), RankTable(), trace._seal.log, UseCounter(trace._historian.timeline)
    for number in range(log.head.size):
        event = log.event(number)
        told.entries[event["kind"]] += 1
        told.began, told.ended = told.began or event["time"], event["time"]
        told.is_finished = event["kind"] == "end" or (told.is_finished and event["kind"] not in TRAINING)
        ranks.add(event)
        take = _TAKES.get(event["kind"])
        if take is not None:
            take(told, number, event)
        if event["kind"] == "use":
            uses.use(number, event)
        elif event["kind"] == "transform":
            uses.transform(number, event)
    told.ranks = ranks.count
    return told, uses.finish(counts.ids)


def _use(told: Told, number: int, event: Mapping[str, Any]) -> None:
    for name, codes, words in (("status", event["status"], STATUS), ("attribution", event["attribution"], ATTRIBUTION)):
        counts = np.bincount(codes, minlength=len(words) + 1).tolist()
        kept = told.statuses if name == "status" else told.attributions
        kept.update({word: counts[code] for word, code in words.items() if counts[code]})
    if "losses" not in event:
        return
    applied = event["status"] == STATUS["applied"]
    losses = event["losses"].astype(np.float64)
    batch = np.repeat(np.arange(len(applied)), event["count"])
    known = np.isfinite(losses)
    sums = np.bincount(batch[known], losses[known], len(applied))
    numbers = np.bincount(batch[known], minlength=len(applied))
    some = applied & (numbers > 0)
    told.losses.append(np.stack([event["step"][some].astype(np.float64), sums[some], numbers[some]], axis=1))


def _metrics(told: Told, number: int, event: Mapping[str, Any]) -> None:
    for name, value in event["values"].items():
        if name in told.metrics or len(told.metrics) < MOST_METRICS:
            told.metrics.setdefault(name, []).append((event["step"], float(value)))


def _run(told: Told, number: int, event: Mapping[str, Any]) -> None:
    told.run = told.run or event


def _dataset(told: Told, number: int, event: Mapping[str, Any]) -> None:
    told.datasets[event["name"]] = event


def _samples(told: Told, number: int, event: Mapping[str, Any]) -> None:
    told.registered[event["dataset"]] = max(told.registered.get(event["dataset"], 0), event["time"])


def _gap(told: Told, number: int, event: Mapping[str, Any]) -> None:
    told.gaps[event["reason"]] += 1


def _resume(told: Told, number: int, event: Mapping[str, Any]) -> None:
    told.resumes.append((number, event["step"]))


def _erasure(told: Told, number: int, event: Mapping[str, Any]) -> None:
    told.erasures.append((number, event["pseudonym"].hex(), len(event["ordinals"])))


def _key(told: Told, number: int, event: Mapping[str, Any]) -> None:
    told.keys += 1


_TAKES: dict[str, Callable[[Told, int, Mapping[str, Any]], None]] = {
    "run": _run, "dataset": _dataset, "samples": _samples, "metrics": _metrics, "use": _use, "gap": _gap,
    "resume": _resume, "erasure": _erasure, "key": _key,
}  # fmt: skip
