"""What a report says of one check."""

from __future__ import annotations

from fgtrac.verify.report import Finding, Report, Verdict


def verdict_of(report: Report, check: str) -> Verdict:
    """The verdict of the one finding of that check."""
    (found,) = [f.verdict for f in report.findings if f.check == check]
    return found


def words_of(report: Report, check: str) -> str:
    """The words of the one finding of that check."""
    (found,) = [f.words for f in report.findings if f.check == check]
    return found


def assert_cannot_tell(finding: Finding, *words: str) -> None:
    """The check cannot tell, in words that hold all of `words`."""
    assert finding.verdict is Verdict.CANNOT_TELL, finding.words
    for word in words:
        assert word in finding.words
