"""The sections of a report, one function each: what a trace's samples are, how they were used, what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np

from fgtrac.api.explanation import Scored
from fgtrac.api.report import TraceReport
from fgtrac.api.report_figures import TOP_SUBJECTS, Figures, Part
from fgtrac.drawing.charts import Mark, Series, bars, columns, lines, signed_bars, stacked
from fgtrac.drawing.html import Html, escape, number, table, verdict_mark
from fgtrac.web.ai_act import NOBODY
from fgtrac.web.use_words import held_words

SHOWN = 40  # rows of a table
BINS = 40
CHARTS = 6  # of metrics that are no losses
PART = ("samples", "used", "uses", "as neighbours", "dropped by a stage")
HOW = ("samples", "used", "only as a neighbour", "only through what was made from it", "perhaps", "never")
NOT_PROVED = (
    "A log binds what the recorder saw. It does not see physical reality, and training outside the traced loop does "
    "not appear in it.",
    "A score estimates an influence on a loss; influence is not causation.",
    "Absence is by exact identity: a near duplicate of a sample is another sample.",
)


@dataclass(frozen=True, slots=True)
class Said:
    """A report, and whether samples are called by their names."""

    report: TraceReport
    names: bool

    @property
    def figures(self) -> Figures | None:
        """The figures, where there are some."""
        return self.report.figures

    def call(self, sample: Scored) -> str:
        """What a sample is called."""
        called = sample.name if self.names and sample.name else f"id:{sample.id.hex()[:16]}"
        return called + (f" (class {sample.label})" if sample.label is not None else "")


def section_html(name: str, title: str, inner: Html) -> Html:
    """A section under its heading."""
    return Html(f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(title)}</h2>{inner}</section>')


def _glance(said: Said) -> Iterator[str]:
    figures = said.figures
    if figures is None:
        yield _p(f"No figures are given: {said.report.withheld}.")
        return
    told, course = figures.told, figures.course
    steps = [epoch.steps[1] for epoch in course.epochs.values() if epoch.steps]
    near = figures.training.as_neighbours + figures.training.through
    finished = "yes" if told.is_finished else "no end entry behind its last training: unfinished, or cut off"
    rows: list[Sequence[object]] = [
        ("samples", figures.all.samples),
        ("with the role train", figures.training.samples),
        ("of these used in updates", figures.training.used),
        ("of these used as neighbours alone, or through what was made from them", near),
        ("of these perhaps used", figures.training.in_doubt),
        ("uses of samples in applied updates", figures.all.uses),
        ("uses as neighbours in a graph", figures.all.neighbours),
        ("uses that may not have been (batches of another number)", course.total("perhaps")),
        ("delivered and not applied", course.total("deliveries")),
        ("superseded by a restart", course.total("superseded")),
        ("passes over a loader", len(course.epochs)),
        ("last step", max(steps, default=None)),
        ("kept model states", sum(state.standing == "kept" for state in course.states)),
        ("predictions recorded", sum(s.samples for s in course.said.values() if s.what == "prediction")),
        ("began", when(told.began)),
        ("last entry", when(told.ended)),
        ("finished", finished),
        ("git commit", told.run.get("git_commit", "") + (" (changed)" if told.run.get("git_dirty") else "") or None),
        ("versions", ", ".join(f"{k} {v}" for k, v in sorted(told.run.get("versions", {}).items())) or None),
    ]
    yield table(["what", "value"], [row for row in rows if row[1] != 0 or row[0] == "samples"])
    if figures.pending:
        yield _p(
            f"{figures.pending:,} later entries are in no index yet, and in no figure here; fgtrac seal takes them."
        )


def _composition(said: Said) -> Iterator[str]:
    figures = said.figures
    if figures is None:
        return
    yield "<h3>By role</h3>"
    yield bars([(words, part.samples) for words, part in figures.roles.items()], title="Samples by role", x="samples")
    yield _parts("roles", figures.roles.items())
    yield "<h3>By data set</h3>"
    sources = sorted(figures.sources, key=lambda s: (-s.part.samples, s.name))
    by_roles = [(s.name, {words: s.roles.get(words, 0) for words in figures.roles}) for s in sources]
    yield stacked(by_roles, title="Samples by data set", x="samples", lying=True)
    head = ["data set", "ids", "contents of", "made by", *PART]
    rows = [
        (s.name, s.id_scheme, s.content, ", ".join(s.made_by) or None, *_cells(s.part)) for s in sources[:SHOWN]
    ]  # fmt: skip
    yield table(head, rows, more=len(sources) - len(rows))
    yield "<h3>By subject</h3>"
    if not figures.subject_count:
        yield _p("No sample was registered as a person's; that does not mean that there is none.")
        return
    yield _p(
        f"{figures.samples_of_subjects:,} samples belong to {figures.subject_count:,} subjects, under pseudonyms. "
        + (NOBODY if figures.counts_nobody else "")
    )
    top = [(s.pseudonym[:16], s.samples, s.uses) for s in figures.subjects]
    if len(top) > 1:
        yield bars([(name, n) for name, n, _ in top], title="Subjects with the most samples", x="samples")
    yield table(["pseudonym", "samples", "uses"], top, more=max(0, figures.subject_count - TOP_SUBJECTS))


def _uses(said: Said) -> Iterator[str]:
    figures = said.figures
    if figures is None:
        return
    epochs = sorted(figures.course.epochs.values(), key=lambda e: (e.epoch, e.loader))
    by_epoch: dict[str, dict[str, float]] = {}
    for one in epochs:
        sums = by_epoch.setdefault(str(one.epoch), {})
        for word, n in (
            ("uses", one.uses), ("perhaps", one.perhaps), ("as neighbours", one.neighbours),
            ("not applied", one.deliveries),
        ):  # fmt: skip
            if n or word == "uses":
                sums[word] = sums.get(word, 0) + n
    yield stacked(list(by_epoch.items()), title="Uses by epoch", x="epoch", y="samples in batches")
    yield columns(
        figures.uses_of_training,
        title="How often a training sample itself was used for certain",
        x="uses",
        y="training samples",
    )
    how = [
        (words, part.samples, part.used, part.as_neighbours, part.through, part.in_doubt, part.never)
        for words, part in figures.roles.items()
    ]
    yield table(["role", *HOW], how, caption="Each sample once, by the strongest that the log says of its use")
    yield "".join(_p(held_words(role, held)) for role, held in figures.held.items())
    stages = sorted(figures.course.stages.values(), key=lambda s: (-s.dropped, s.name))
    rows = [(s.name, s.operation, s.dataset, s.output or None, s.kept, s.dropped, s.children) for s in stages[:SHOWN]]
    head = ["stage", "operation", "of data set", "into", "kept", "dropped", "made"]
    yield table(head, rows, caption="Dropped by stages: the stage is the reason", more=len(stages) - len(rows))


def _losses(said: Said) -> Iterator[str]:
    figures = said.figures
    if figures is None:
        return
    told, states = figures.told, figures.course.states
    steps, means = told.training_losses()
    series = [Series("loss in training", steps, means)] if len(steps) else []
    known = [(s.step, s.val_loss) for s in states if s.val_loss is not None]
    series += [Series("val_loss of states", *zip(*known, strict=True))] if known else []
    others: list[Series] = []
    for name, values in told.metrics.items():
        one = Series(name, *zip(*values, strict=True))
        (series if "loss" in name.lower() else others).append(one)
    marks = [Mark(s.step, "kept state") for s in states if s.standing == "kept"]
    if series:
        yield lines(series, title="Losses, and the states that were kept", y="loss", marks=marks)
    else:
        yield _p("No losses were recorded (run.losses, run.log).")
    for one in others[:CHARTS]:
        yield lines([one], title=one.name, marks=marks, height=200)
    if len(others) > CHARTS:
        yield _p(f"{len(others) - CHARTS} more metrics are not drawn.")
    rows = [(s.step, s.epoch, s.val_loss, s.standing, s.digest.hex()[:16] or None) for s in states[:SHOWN]]
    head = ["step", "epoch", "validation loss", "standing", "digest"]
    yield table(head, rows, caption="Model states", more=len(states) - len(rows))


def _contributions(said: Said) -> Iterator[str]:
    report, figures = said.report, said.figures
    if figures is None:
        return
    if report.explanation is None or report.scores is None:
        yield _p(f"No training sample was scored: {report.unscored}.")
    else:
        toward = report.explanation.toward[0]
        scores = report.scores.scores[:, 0].astype(np.float64)
        counts, edges = np.histogram(scores[np.isfinite(scores)], bins=BINS)
        middles = [number(float(f"{(a + b) / 2:.2g}")) for a, b in pairwise(edges.tolist())]
        title = f"Scores of {len(scores):,} training samples toward {toward.target}"
        items = list(zip(middles, counts.tolist(), strict=True))
        yield columns(items, title=title, x="score (above 0: lowered the loss)", y="samples")
        strongest = [*toward.proponents, *reversed(toward.opponents)]
        drawn = [(said.call(s), s.score) for s in strongest]
        yield signed_bars(drawn, title=f"Strongest toward {toward.target}", x="score", lying=True)
        yield f"<details><summary>As a table</summary>{table(['training sample', 'score'], drawn)}</details>"
        yield _p(f"Rests on: {report.explanation.basis}.")
        if toward.baseline:
            rows = [(said.call(s), s.score) for s in toward.baseline]
            yield table(["training sample", "loss"], rows, caption="For comparison, free: the highest training losses")
    recorded: dict[tuple[str, ...], list[int]] = {}
    for one in figures.course.said.values():
        if one.what == "contribution":
            recorded.setdefault(one.about, []).append(one.samples)
    if recorded:
        listed = [(*about, len(numbers), sum(numbers)) for about, numbers in sorted(recorded.items())]
        head = ["target", "method", "model states", "scores"]
        caption = "Contributions in the log, which the check of contributions computes again"
        yield table(head, listed[:SHOWN], caption=caption, more=max(0, len(listed) - SHOWN))


def _integrity(said: Said) -> Iterator[str]:
    report, figures = said.report, said.figures
    findings = [(f.check, verdict_mark(f.verdict), Html(escape(f.words))) for f in report.verified.findings]
    yield table(["check", "verdict", "what was found"], findings, caption="Every check that was made")
    if report.receipts:
        yield table(["head of entries", "kind", "file"], report.receipts, caption="Receipts of outside witnesses")
    else:
        yield _p("No receipt of an outside witness lies in this trace (fgtrac anchor asks for one).")
    if figures is None:
        return
    told = figures.told
    rows: list[Sequence[object]] = [
        ("sealed entries", figures.size),
        ("root", figures.root),
        ("later entries", figures.pending),
        ("index", "covers all sealed entries" if not figures.pending else "does not cover the later entries"),
        ("public key, as the log names it", told.run["public_key"].hex() if told.run else None),
        ("signing keys that were replaced", told.keys),
        ("processes that trained together", told.ranks or None),
        *((f"{kind} entries", n) for kind, n in sorted(told.entries.items())),
    ]
    yield table(["log", "value"], rows)
    yield table(["pairing of batch and update", "batches"], sorted(told.attributions.items()), caption="Attributions")
    yield table(["what became of a batch", "batches"], sorted(told.statuses.items()))
    gaps = sorted(told.gaps.items(), key=lambda pair: (-pair[1], pair[0]))
    resumes = [(f"entry {n}", step) for n, step in told.resumes]
    erased = [(pseudonym[:16], f"entry {n}", samples) for n, pseudonym, samples in told.erasures]
    for title, head, found in (
        ("Gaps", ("gap in the record", "entries"), gaps),
        ("Restarts", ("restart", "from step"), resumes),
        ("Erasures", ("pseudonym of an erased subject", "said in", "samples"), erased),
    ):
        if found:
            yield table(head, found[:SHOWN], caption=title, more=max(0, len(found) - SHOWN))
        else:
            yield _p(f"{title}: none is recorded.")


def _not_proved(said: Said) -> Iterator[str]:
    items = [*said.report.verified.notes, *NOT_PROVED]
    yield "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


SECTIONS: tuple[tuple[str, str, Callable[[Said], Iterator[str]]], ...] = (
    ("glance", "At a glance", _glance),
    ("composition", "What the samples are", _composition),
    ("uses", "How they were used", _uses),
    ("losses", "Losses and model states", _losses),
    ("contributions", "Contributions", _contributions),
    ("integrity", "Integrity", _integrity),
    ("not-proved", "What is not proved", _not_proved),
)


def when(nanoseconds: int) -> str:
    """A time in UTC, to the second."""
    try:
        return datetime.fromtimestamp(nanoseconds // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{nanoseconds} ns after 1970"


def _p(words: str) -> Html:
    return Html(f"<p>{escape(words)}</p>")


def _cells(part: Part) -> tuple[int, ...]:
    return part.samples, part.used, part.uses, part.neighbours, part.dropped


def _parts(name: str, parts: Iterable[tuple[str, Part]]) -> Html:
    rows = [(words, *_cells(part)) for words, part in parts]
    return table([name, *PART], rows)
