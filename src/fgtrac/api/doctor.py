"""`fgtrac doctor`: what is wrong with this machine, this installation or a trace, and what to do about it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fgtrac.api.finding import Finding, cannot_tell, fine, note, to_do
from fgtrac.api.machine_checks import folder_findings, machine_findings
from fgtrac.api.trace import open_for_verification
from fgtrac.api.trace_checks import trace_findings
from fgtrac.verify.report import Report, Verdict

Progress = Callable[[int, int], None]


def examine(
    trace: Path | None = None,
    *,
    verify: bool = False,
    key: str | None = None,
    progress: Progress | None = None,
    environment: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
) -> Iterator[Finding]:
    """Look at the machine, and at a trace where one is named; `verify` also runs its whole verification, under `key`
    as `Trace.verify` takes it. Nothing is changed.

    FileNotFoundError, FormatError where there is no such trace.
    """
    if trace is None:
        yield from machine_findings(os.environ if environment is None else environment, clock())
        yield from folder_findings("folder", Path.cwd())
        return
    yield from trace_findings(trace, clock())
    if verify:
        yield _verdict(trace, open_for_verification(trace).verify(key, progress=progress))
    else:
        yield note("verification", "not run: none of this says that the log holds", f"fgtrac verify {trace}")


def _verdict(trace: Path, report: Report) -> Finding:
    """What the verification found, in one line."""
    failures = [finding for finding in report.failures() if finding.verdict is report.verdict]
    words = "; ".join(f"{finding.check}: {finding.words}" for finding in failures)
    if report.verdict is Verdict.HOLDS:
        return fine("verification", f"holds, in {len(report.findings)} checks")
    if report.verdict is Verdict.REFUTED:
        return to_do(
            "verification", f"refuted: {words}", "restore what was changed from a copy, or name the right --key"
        )
    return cannot_tell("verification", words, f"fgtrac verify {trace} says what each check lacks")
