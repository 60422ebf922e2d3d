"""Every parser that is fuzzed. A new one joins the list of its family; a new family is added here."""

from __future__ import annotations

import claim_parsers
import index_parsers
import log_parsers
import receipt_parsers
import score_parsers
import store_parsers
from target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for family in (log_parsers, index_parsers, claim_parsers, store_parsers, score_parsers, receipt_parsers)
    for target in family.TARGETS
}
