"""A report as plain data: the same numbers as its page."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fgtrac.api.report import TraceReport
from fgtrac.api.report_figures import Figures
from fgtrac.web.ai_act import draft
from fgtrac.web.plain_data import plain


def report_data(report: TraceReport) -> dict[str, Any]:
    """The verdict, and beside it figures, contributions and the EU AI Act's summary, each null where there is none."""
    figures = report.figures
    data = {
        "trace": report.name,
        "trace_id": report.trace_id,
        **report.verified.as_json(),
        "withheld": report.withheld,
        "figures": None if figures is None else _figures(figures),
        "contributions": None if report.explanation is None else report.explanation.as_json(),
        "unscored": report.unscored,
        "receipts": [{"size": size, "kind": kind, "file": file} for size, kind, file in report.receipts],
        "ai_act": draft(report),
    }
    found: dict[str, Any] = plain(data)
    return found


def _figures(figures: Figures) -> dict[str, Any]:
    told, course = figures.told, figures.course
    steps, means = told.training_losses()
    return {
        "size": figures.size,
        "root": figures.root,
        "pending": figures.pending,
        "finished": told.is_finished,
        "began": told.began,
        "ended": told.ended,
        "versions": told.run.get("versions", {}),
        "entries": dict(sorted(told.entries.items())),
        "samples": figures.all.as_json(),
        "training": figures.training.as_json(),
        "roles": {words: part.as_json() for words, part in figures.roles.items()},
        "sources": [
            {
                "name": s.name, "id_scheme": s.id_scheme, "content": s.content, "made_by": s.made_by,
                **s.part.as_json(), "training": s.training.as_json(), "roles": s.roles, "subjects": s.subjects,
            }
            for s in figures.sources
        ],
        "subjects": {
            "count": figures.subject_count, "samples": figures.samples_of_subjects,
            "counts_nobody": figures.counts_nobody,
            "top": [asdict(s) for s in figures.subjects],
        },
        "held": {role: held.as_json() for role, held in figures.held.items()},
        "uses_of_training": [{"uses": words, "samples": n} for words, n in figures.uses_of_training],
        "epochs": [
            {
                "loader": e.loader, "epoch": e.epoch, "uses": e.uses, "perhaps": e.perhaps,
                "neighbours": e.neighbours, "deliveries": e.deliveries, "superseded": e.superseded,
            }
            for e in course.epochs.values()
        ],
        "stages": [
            {
                "stage": s.name, "operation": s.operation, "dataset": s.dataset, "kept": s.kept,
                "dropped": s.dropped, "made": s.children,
            }
            for s in course.stages.values()
        ],
        "losses": {"step": steps, "mean": means},
        "metrics": {name: [list(pair) for pair in values] for name, values in told.metrics.items()},
        "states": [
            {"step": s.step, "epoch": s.epoch, "val_loss": s.val_loss, "standing": s.standing, "digest": s.digest}
            for s in course.states
        ],
        "attributions": dict(sorted(told.attributions.items())),
        "statuses": dict(sorted(told.statuses.items())),
        "gaps": dict(sorted(told.gaps.items())),
        "resumes": [{"entry": n, "step": step} for n, step in told.resumes],
        "erasures": [{"entry": n, "pseudonym": who, "samples": count} for n, who, count in told.erasures],
        "ranks": told.ranks,
    }  # fmt: skip
