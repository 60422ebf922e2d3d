"""What an auditor answers: holds, refuted or cannot tell, check by check, and what no check can say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """The only three answers. What was not checked is never `HOLDS`."""

    HOLDS = "holds"
    REFUTED = "refuted"
    CANNOT_TELL = "cannot tell"


EXIT_CODES = {Verdict.HOLDS: 0, Verdict.REFUTED: 1, Verdict.CANNOT_TELL: 3}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's answer: `check` is its short name (`signature`, `tiles`, ...), `words` one line that names the file
    or entry and, where it holds, what it rests on."""

    check: str
    verdict: Verdict
    words: str


@dataclass(frozen=True, slots=True)
class Report:
    """Every check's answer in the order they were made, and notes that carry no verdict of their own."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Refuted where anything is; holds only where every check holds and there is at least one."""
        verdicts = {f.verdict for f in self.findings}
        if Verdict.REFUTED in verdicts:
            return Verdict.REFUTED
        return Verdict.HOLDS if verdicts == {Verdict.HOLDS} else Verdict.CANNOT_TELL

    @property
    def exit_code(self) -> int:
        """0 holds, 1 refuted, 3 cannot tell."""
        return EXIT_CODES[self.verdict]

    def failures(self) -> tuple[Finding, ...]:
        """The findings that do not hold."""
        return tuple(f for f in self.findings if f.verdict is not Verdict.HOLDS)

    def _repr_html_(self) -> str:
        """For notebooks."""
        from fgtrac.verify.report_html import report_html

        return report_html(self)

    def as_json(self) -> dict[str, Any]:
        """Plain data: verdict, findings, notes."""
        findings = [{"check": f.check, "verdict": str(f.verdict), "words": f.words} for f in self.findings]
        return {"verdict": str(self.verdict), "findings": findings, "notes": list(self.notes)}
