"""All that a report of a trace rests on: the verdict, the figures, and the scores toward the validation samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgtrac.api.explanation import Explanation
from fgtrac.api.report_figures import Figures, Progress, read_figures
from fgtrac.api.score_arrays import Scores
from fgtrac.api.trace import Trace, open_for_verification
from fgtrac.errors import FgtracError, ScoreError
from fgtrac.query.seals import NotSealedError
from fgtrac.verify.receipts import NOTE, receipt_files
from fgtrac.verify.report import Report

TOWARD = ("role:validation", "role:test")  # of the first that there are factors of
STRONGEST = 10
Watch = Callable[[str], AbstractContextManager[Progress]]


@dataclass(frozen=True, slots=True, eq=False)
class TraceReport:
    """What was found. `verified` is of this moment. Where there are no figures, `withheld` says why; where there are no
    scores, `unscored` does. `receipts` are (size, kind, file) of what outside witnesses gave, unchecked."""

    name: str
    trace_id: str
    verified: Report
    figures: Figures | None
    withheld: str
    explanation: Explanation | None
    scores: Scores | None
    unscored: str
    receipts: tuple[tuple[int, str, str], ...]


@contextmanager
def unwatched(words: str) -> Iterator[Progress]:
    """Nobody looks at the progress."""
    yield lambda done, total: None


def make_report(path: Path, *, key: str | None = None, watch: Watch = unwatched) -> TraceReport:
    """Verify a trace, read all of it, and score its training samples toward the validation samples.

    `watch(what)` is entered for each of the three, and gives what is called with (done, total). FileNotFoundError and
    FormatError where it is no trace; whatever is wrong in it is part of the report.
    """
    trace = open_for_verification(path, key=key)
    with watch("verifying") as step:
        verified = trace.verify(progress=step)
    figures, withheld = _figures(trace, watch)
    explanation, scores, unscored = None, None, withheld
    if figures is not None:
        explanation, scores, unscored = _scores(trace, watch)
    files = receipt_files(trace._directory.names())
    receipts = tuple((file.size, file.kind, file.path) for file in files if file.kind != NOTE)
    return TraceReport(path.name, trace.id.hex(), verified, figures, withheld, explanation, scores, unscored, receipts)


def _figures(trace: Trace, watch: Watch) -> tuple[Figures | None, str]:
    try:
        with watch("reading") as step:
            return read_figures(trace, step), ""
    except NotSealedError:
        return None, "nothing was fully sealed yet; fgtrac seal does that"
    except (FgtracError, OSError) as error:
        return None, _unreadable(trace, error)


def _scores(trace: Trace, watch: Watch) -> tuple[Explanation | None, Scores | None, str]:
    """Toward the first of TOWARD that can be scored; otherwise why none can."""
    reasons: list[Any] = []
    for toward in TOWARD:
        try:
            with watch(f"scoring toward {toward}") as step:
                explanation = trace.explain(toward, k=STRONGEST, progress=step)
                return explanation, trace.scores(toward, progress=step), ""
        except ScoreError as reason:
            reasons.append(reason)
        except (FgtracError, OSError) as error:
            return None, None, _unreadable(trace, error)
    return None, None, f"{reasons[0]}"


def _unreadable(trace: Trace, error: Exception) -> str:
    """Why, without the place of the trace on this machine: reports are handed on."""
    return f"the trace cannot be read as it was sealed: {error}".replace(str(trace.path), trace.path.name)
