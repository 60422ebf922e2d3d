"""What two trainings have in common and where they part: the answer of `fgtrac.diff`, as data and in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fgtrac.drawing.notebook import shown, words
from fgtrac.events.one_line import one_line
from fgtrac.query.occurrences import plain

SECTIONS = ("samples", "contents", "roles", "used", "batches", "losses", "checkpoints", "contributions", "suspects")


@dataclass(frozen=True, slots=True)
class Compared:
    """One of the two: its path, trace id, number of sealed entries, and last applied step (None without one)."""

    path: str
    trace_id: str
    entries: int
    last_step: int | None


@dataclass(frozen=True, slots=True)
class Pair:
    """A setting, version or property by name, as each trace says it; None where it says nothing."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class Shared:
    """How many samples both have, and how many one alone, some of those named. `nameless_a` and `nameless_b` of the
    samples registered there have no name any more (they were erased): some of those that the other has alone may be
    among them."""

    both: int
    only_a: int
    only_b: int
    named_only_a: tuple[str, ...]
    named_only_b: tuple[str, ...]
    nameless_a: int
    nameless_b: int


@dataclass(frozen=True, slots=True)
class Contents:
    """Of the samples that both have: of how many the content digests are equal, of how many other ones (some of those
    named), and of how many they say nothing: one log has none, or they are keyed with two secrets, or of two kinds of
    source. A digest is of a sample's source, and no label beside it is in it."""

    equal: int
    differing: int
    cannot_tell: int
    named: tuple[str, ...]

    @property
    def are_the_same(self) -> bool:
        """Whether every sample was compared, and its digests are equal."""
        return not (self.differing or self.cannot_tell)


@dataclass(frozen=True, slots=True)
class Roles:
    """How many samples have each role, and how many of both have other roles (or none) in the one than in the other,
    some named; None where samples cannot be compared."""

    counts: tuple[Pair, ...]
    changed: int | None
    named: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Batches:
    """The updates of both that stand, step by step of each of `optimizers`, as sets of samples: how many steps both
    have, in how many the samples differ, the first of those and its optimizer, and in how many nobody can tell.
    `seeds_only`: of a graph, whose neighbours are not compared. `same_uses`: each sample was used equally often in
    both. `epochs` both have, and in how many of those the same samples were used. None where a batch is not whole."""

    optimizers: int
    seeds_only: bool
    steps_a: int
    steps_b: int
    compared: int
    differing: int
    first_differing: int | None
    first_optimizer: int | None
    cannot_tell: int
    same_uses: bool | None
    epochs: int
    same_epochs: int | None

    @property
    def is_other_order(self) -> bool:
        """Whether the same samples were used equally often, in other batches."""
        return bool(self.same_uses) and self.differing > 0


@dataclass(frozen=True, slots=True)
class LossDifference:
    """A loss or metric at the steps that both have it at: how many, the largest difference, where, and both values."""

    name: str
    compared: int
    largest: float
    step: int
    a: float
    b: float


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The model states at steps that both have: how many have the same digest (bit-identical tensors), how many
    another, the first of those, and how many have none in one of the logs; and at how many steps one alone has one."""

    compared: int
    identical: int
    differing: int
    first_differing: int | None
    without_digest: int
    only_a: int
    only_b: int


@dataclass(frozen=True, slots=True)
class Correlation:
    """The rank correlation (Spearman's) of recorded contributions, summed over the kept checkpoints of each trace, of
    the samples that both have some of; None where all of one are equal."""

    method: str
    target: str
    samples: int
    correlation: float | None


@dataclass(frozen=True, slots=True)
class Suspects:
    """How many of the `listed` first suspects of both traces are the same samples (some named)."""

    listed: int
    common: int
    named: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Two traces side by side; no verdict. `same_trace`: copies of one trace, of which one may be longer; `forked`: two
    logs under one trace id that part. A section that is None is explained in `cannot_tell`, by its name; so is why
    settings, versions and stages may differ in more than the logs tell."""

    a: Compared
    b: Compared
    same_trace: bool
    forked: bool
    settings: tuple[Pair, ...]
    versions: tuple[Pair, ...]
    datasets: tuple[Pair, ...]
    stages: tuple[Pair, ...]
    compared_by: str | None
    samples: Shared | None
    contents: Contents | None
    roles: Roles | None
    used: Shared | None
    batches: Batches | None
    losses: tuple[LossDifference, ...] | None
    checkpoints: Checkpoints | None
    contributions: tuple[Correlation, ...] | None
    suspects: Suspects | None
    cannot_tell: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain data; numbers that are not finite as text."""
        said: dict[str, Any] = plain(asdict(self))
        if self.batches is not None:
            said["batches"] |= {"same_samples_in_other_order": self.batches.is_other_order}
        return said

    def _repr_html_(self) -> str:
        """For notebooks."""
        return shown(words(self.text()))

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """A paragraph for each section."""
        return "\n".join(_lines(self))


def _lines(found: Difference) -> Iterator[str]:
    for letter, one in (("A", found.a), ("B", found.b)):
        steps = "no updates" if one.last_step is None else f"updates up to step {one.last_step:,}"
        yield f"{letter} {one_line(one.path)}: trace {one.trace_id}, {one.entries:,} entries, {steps}"
    if found.same_trace:
        longer = "" if found.a.entries == found.b.entries else ", of which one is longer"
        yield f"these are copies of one trace{longer}"
    if found.forked:
        yield "these are two logs under one trace id, and neither continues the other: they were written apart"
    for title in ("settings", "versions", "stages"):
        yield from _pairs(title, getattr(found, title), is_all=title not in found.cannot_tell)
    yield from _pairs("data sets, as declared", found.datasets)
    for name in SECTIONS:
        if (section := getattr(found, name)) is not None:
            yield from _WORDS[name](section, found)
    for reason in dict.fromkeys(found.cannot_tell.values()):
        names = [name for name, why in found.cannot_tell.items() if why == reason]
        yield f"{', '.join(names)}: cannot tell: {one_line(reason)}"


def _pairs(title: str, pairs: Sequence[Pair], *, is_all: bool = True) -> Iterator[str]:
    same = "the same" if is_all else "none that is told differs"
    yield f"{title}: {f'{len(pairs)} differ' if pairs else same}"
    for pair in pairs:
        yield f"  {one_line(pair.name)}: {_value(pair.a)} in A, {_value(pair.b)} in B"


def _value(value: Any) -> str:
    return "not said" if value is None else one_line(str(value))[:120]


def _named(names: Sequence[str], count: int) -> str:
    more = ", ..." if count > len(names) else ""
    short = [one_line(name[:19] if name.startswith("id:") else name) for name in names]
    return f" ({', '.join(short)}{more})" if names else ""


def _shared(what: str, found: Shared) -> str:
    sides = (
        ("A", found.only_a, found.named_only_a, "B", found.nameless_b),
        ("B", found.only_b, found.named_only_b, "A", found.nameless_a),
    )
    said = []
    for letter, count, names, other, nameless in sides:
        perhaps = f", unless among the {nameless:,} of {other} that have no name any more" if nameless and count else ""
        said += [f"{count:,} in {letter} alone{_named(names, count)}{perhaps}"] if count else []
    return f"{what}: {found.both:,} in both; {'; '.join(said) or 'none in one alone'}"


def _samples(found: Shared, whole: Difference) -> Iterator[str]:
    by = "their ids" if whole.compared_by == "id" else "their names, as the vaults have them"
    yield _shared(f"samples, by {by}", found)


def _contents(found: Contents, _whole: Difference) -> Iterator[str]:
    differing = f"{found.differing:,} others{_named(found.named, found.differing)}"
    untold = f", {found.cannot_tell:,} that cannot be compared: cannot tell" if found.cannot_tell else ""
    yield f"contents, by the logs' digests, without labels beside them: {found.equal:,} equal, {differing}{untold}"


def _used(found: Shared, whole: Difference) -> Iterator[str]:
    seeds = ", as seeds" if whole.batches is not None and whole.batches.seeds_only else ""
    yield _shared(f"used in updates{seeds}", found)


def _roles(found: Roles, _whole: Difference) -> Iterator[str]:
    counts = "; ".join(f"{pair.name} {pair.a:,} in A, {pair.b:,} in B" for pair in found.counts)
    named = _named([f"{pair.name}: {pair.a} in A, {pair.b} in B" for pair in found.named], found.changed or 0)
    changed = "" if found.changed is None else f"; {found.changed:,} samples have other roles{named}"
    yield f"roles: {counts or 'none'}{changed}"


def _batches(found: Batches, whole: Difference) -> Iterator[str]:
    several = found.optimizers > 1
    of = f" of {found.optimizers:,} optimizers, each counted by itself" if several else ""
    what = "seeds" if found.seeds_only else "samples"
    is_certain = whole.contents is not None and whole.contents.are_the_same
    same = f"the same {what}" if is_certain else f"{what} of the same {whole.compared_by}s"
    yield f"steps{of}: {found.steps_a:,} in A, {found.steps_b:,} in B, {found.compared:,} in both"
    if found.differing:
        first = f"step {found.first_differing:,}" + (f" of optimizer {found.first_optimizer}" if several else "")
        yield f"batches: the {what} differ in {found.differing:,} steps, first in {first}"
    elif found.compared > found.cannot_tell:
        yield f"batches: {same} in each of {found.compared - found.cannot_tell:,} steps"
    if found.cannot_tell:
        yield f"batches: cannot tell of {found.cannot_tell:,} steps, whose {what} are not all known by name"
    if found.seeds_only:
        yield "batches: the seeds' neighbours are not compared"
    if found.is_other_order:
        other = "in other batches" if several else "in another order"
        yield f"order: {same}, each used equally often in both, {other}"
    if found.epochs and found.same_epochs is not None:
        yield f"epochs: {found.epochs:,} in both, {found.same_epochs:,} of them with {same}"


def _losses(found: Sequence[LossDifference], _whole: Difference) -> Iterator[str]:
    for one in found:
        largest = f"largest difference {one.largest:.6g} at step {one.step:,} ({one.a:.6g} in A, {one.b:.6g} in B)"
        yield f"{one_line(one.name)}: {one.compared:,} steps in both; {largest if one.largest else 'equal at each'}"


def _checkpoints(found: Checkpoints, _whole: Difference) -> Iterator[str]:
    first = f", first at step {found.first_differing:,}" if found.differing else ""
    without = f", {found.without_digest:,} without a digest: cannot tell" if found.without_digest else ""
    yield (
        f"checkpoints: {found.compared:,} steps in both, {found.identical:,} bit-identical, {found.differing:,} "
        f"different{first}{without}; {found.only_a:,} in A alone, {found.only_b:,} in B alone"
    )


def _contributions(found: Sequence[Correlation], _whole: Difference) -> Iterator[str]:
    for one in found:
        said = "cannot be ranked: all of one are equal" if one.correlation is None else f"{one.correlation:.4f}"
        what = f"{one_line(one.method)} toward {one_line(one.target)}"
        yield f"contributions, {what}: rank correlation {said} over {one.samples:,} samples"


def _suspects(found: Suspects, _whole: Difference) -> Iterator[str]:
    yield f"suspects: {found.common} of the first {found.listed} are the same{_named(found.named, found.common)}"


_WORDS: dict[str, Any] = {
    "samples": _samples, "contents": _contents, "roles": _roles, "used": _used, "batches": _batches, "losses": _losses,
    "checkpoints": _checkpoints, "contributions": _contributions, "suspects": _suspects,
}  # fmt: skip
