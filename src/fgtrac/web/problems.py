"""What a page raised, as one clear answer: a status, words, and a verdict where it is one. Never a stack trace."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fgtrac.api.naming import UnknownSampleError
from fgtrac.errors import FgtracError, FormatError, ProofError, TamperError
from fgtrac.query.seals import NotSealedError
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.report import Verdict
from fgtrac.web.asked import NotThereError

MOST = 2000  # characters of words
TITLES = {400: "Not understood", 401: "Token needed", 403: "Refused", 404: "Not found", 405: "It only reads"}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why there is no such page, or none now."""

    status: int
    words: str
    verdict: str = ""
    heading: str = ""

    @property
    def title(self) -> str:
        """A heading."""
        if self.verdict == Verdict.REFUTED:
            return "Refuted"
        return self.heading or TITLES.get(self.status, "Cannot tell")

    def as_json(self) -> dict[str, object]:
        """Plain data."""
        return {"status": self.status, "words": self.words, "verdict": self.verdict}


def explain(error: Exception) -> Problem:
    """What an exception means to who asked. What no page raises on purpose is logged with its trace, as a fault."""
    words = " ".join(str(error).split())[:MOST] or type(error).__name__
    match error:
        case NotThereError() | UnknownSampleError() | FileNotFoundError():
            return Problem(404, words)
        case NotSealedError():
            return Problem(409, words, Verdict.CANNOT_TELL, "Nothing was sealed yet")
        case CannotTell():
            return Problem(409, words, Verdict.CANNOT_TELL)
        case FormatError() | ProofError() | TamperError():
            return Problem(500, words, Verdict.REFUTED)
        case FgtracError():
            return Problem(409, words, Verdict.CANNOT_TELL)
        case ValueError():
            return Problem(400, words)
        case OSError():
            return Problem(500, f"a file cannot be read: {words}", Verdict.CANNOT_TELL)
    logging.getLogger(__name__).error("a page failed", exc_info=error)
    fault = f"this page failed ({type(error).__name__}), a fault of fgtrac; fgtrac ui printed where"
    return Problem(500, fault, Verdict.CANNOT_TELL)
