"""Was my data used? A file that is digested in the browser, its SHA-256, or a name: one answer, with a receipt."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fgtrac.api.mine import CANNOT_TELL, NOT_USED, USED, WITHOUT_PROOF, Mine, ask_by_content, ask_by_name, sources
from fgtrac.api.offers import signature
from fgtrac.verify.report import Verdict
from fgtrac.web.asked import Answer, Asked, Download, NotThereError, Page
from fgtrac.web.checking import Standing
from fgtrac.web.command import command_line
from fgtrac.web.names import written_out

NO_SUCH_NAME = "No: no sample of this record, which is whole, has this name."
BESIDE = (
    "Yes, though only beside others: its features took part in training, as a neighbour's, and its own label did not."
)
BEYOND = "Yes, though only beside others: the model was given its features, out of reach of what it learned from."
POLL_S = 0.02
SAYS = {  # by the answer, and whether samples that are meant are in the record
    (USED, True): "Yes: it was used in training.",
    (NOT_USED, True): "No: it is in the record, and no training update used it.",
    (NOT_USED, False): "No: no sample of this record, which is whole, was registered with this content.",
    (CANNOT_TELL, True): "It is in the record. Whether training used it, the record cannot tell.",
    (CANNOT_TELL, False): "That cannot be told from this record.",
}


def show(asked: Asked) -> Answer | Download:
    """The form, and where something was asked the answer; with `receipt` the bundle of that number."""
    found, standing = _found(asked), Standing()
    if found is not None:
        standing = _standing(asked)
        found = _unless_refuted(found, standing)
    if found is not None and "receipt" in asked.query:
        number = asked.number("receipt", 0)
        if number >= len(found.receipts):
            raise NotThereError(f"this answer has {len(found.receipts)} receipts")
        receipt = found.receipts[number]
        return Download(receipt.data, "application/json", f"receipt-{receipt.claim}.json".replace(" ", "-"))
    data: dict[str, Any] = {"sources": sources(asked.trace), "asked": None, "path": str(asked.site.path_of(asked.name))}
    command = _command(asked, data["sources"])
    if found is not None:
        verdict, words = signature(asked.trace)
        data |= found.as_json() | {"signature": {"verdict": str(verdict), "words": words}}
        data |= {
            "verdict": {"state": standing.state, "words": standing.words},
            "says": _says(asked, found, standing, verdict),
        }
        data["here"] = {key: value for key, value in asked.query.items() if key in ("sha256", "source", "q")}
    return Answer("Was my data used?", "mine.html", data, command)


def _standing(asked: Asked) -> Standing:
    """How far the check of the whole trace has come, within the time that the asker waits."""
    until = time.monotonic() + asked.patience_s
    while (standing := asked.site.standing(asked.name)).state not in set(Verdict) and time.monotonic() < until:
        time.sleep(POLL_S)
    return standing


def _unless_refuted(found: Mine, standing: Standing) -> Mine:
    """The answer; none out of the index of a trace that is refuted: it may be false in either way."""
    if standing.state != Verdict.REFUTED:
        return found
    wrong = [f"{one['check']}: {one['words']}" for one in standing.findings if one["verdict"] == Verdict.REFUTED]
    why = f"this trace is refuted, so that nothing it says counts ({wrong[0]:.300})"
    return replace(found, answer=CANNOT_TELL, reasons=(why, *found.reasons), receipts=(), without=(WITHOUT_PROOF,))


def _command(asked: Asked, datasets: Sequence[Mapping[str, Any]]) -> str:
    """The command that asks the same, or where nothing was asked what can be; none for what no command can name."""
    asks_name, source = not asked.query.get("sha256") and asked.query.get("q", "").strip(), asked.query.get("source")
    of = [one["source"] or "" for one in datasets] if not asked.query.get("sha256") else [source or "file"]
    forms = ["file:YOURS"] * ("file" in of) + ["row:YOURS.npy:ROW"] * any(one.startswith("tensor") for one in of)
    named = [written_out(asked.query["q"])] if asks_name else forms[:1]
    end = ("-o", "receipt.json", *asked.site.with_key)
    return command_line("prove", asked.site.path_of(asked.name), *named, *end) if named else ""


def _says(asked: Asked, found: Mine, standing: Standing, signed: Verdict) -> str:
    """The answer in a sentence, and before it what was not checked."""
    says = SAYS[found.answer, bool(found.lives)]
    if found.answer == NOT_USED and not found.lives and not asked.query.get("sha256"):
        says = NO_SUCH_NAME
    if found.answer == USED and all(life.uses == life.neighbours for life in found.lives):
        says = BEYOND if all(life.uses == life.beyond for life in found.lives) else BESIDE
    if found.answer == CANNOT_TELL or standing.state == Verdict.HOLDS:
        return says
    if standing.state not in set(Verdict):
        return f"As this log says, which as a whole was not checked yet: {says}"
    unchecked = "whose signature was not" if signed is not Verdict.HOLDS else "of which not everything could be"
    return f"As this log says, {unchecked} checked: {says}"


def _found(asked: Asked) -> Mine | None:
    query = asked.query
    if query.get("sha256"):
        digits = query["sha256"].strip().lower()
        if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
            raise ValueError(f"{digits:.80} is no SHA-256: it has 64 hex digits, as sha256sum FILE prints them")
        return ask_by_content(asked.trace, bytes.fromhex(digits), query.get("source") or "file")
    if query.get("q", "").strip():
        return ask_by_name(asked.trace, written_out(query["q"]))
    return None


PAGES = (Page("/run/{name}/mine", show, nav="Was my data used?"),)
