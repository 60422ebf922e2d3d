"""A report as a notebook shows it: the verdict as a word, a sign and a colour, then check by check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fgtrac.drawing.html import Html, escape, short, table, verdict_mark
from fgtrac.drawing.notebook import LONGEST, listed, shown

if TYPE_CHECKING:
    from fgtrac.verify.report import Report


def report_pieces(report: Report) -> tuple[Html, ...]:
    """The verdict, the findings and the notes."""
    rows = [(f.check, verdict_mark(f.verdict), escape(short(f.words, LONGEST))) for f in report.findings]
    findings = table(("check", "verdict", "what was found"), rows)
    return verdict_mark(report.verdict), findings, listed(report.notes)


def report_html(report: Report) -> str:
    """The whole report."""
    return shown(*report_pieces(report))
