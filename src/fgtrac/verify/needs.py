"""Which entries of the log a bundle's claim needs: all of those are shown, and no others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fgtrac.errors import ProofError
from fgtrac.verify.bundle import ABSENCES, ROW_CLAIMS, WHOLE_CLAIMS, Bundle
from fgtrac.verify.children import count_uses, made_into, registered_by
from fgtrac.verify.evidence import Event, Shown


def needs_datasets(claim: str, preimage: bytes | None) -> bool:
    """Whether the claim rests on what the data sets say: of an absent name how its id is made, of an absent content
    what was digested."""
    return claim == "content absent" or (claim in ABSENCES and preimage is not None)


def needed_kinds(claim: str, preimage: bytes | None, datasets: Sequence[Event]) -> list[str]:
    """The kinds of which the claim needs every entry, given the `dataset` entries."""
    kinds = ["key"]
    if claim != "content present":
        kinds.append("resume")  # they undo uses, and an `end` before them
    if claim in WHOLE_CLAIMS:
        kinds += ["end", "join", "leave"]  # whether the record is whole, of every rank
    if needs_datasets(claim, preimage):
        kinds.append("dataset")
        if any(e["id_scheme"] == "keyed" for e in datasets):
            kinds.append("run")  # which commits to the key
    return kinds


def may_show_checkpoint(bundle: Bundle) -> bool:
    """Whether the sentence can say up to which model state the uses came."""
    return bundle.claim == "used" and count_uses(bundle.rows) > 0


def shows_evidence(bundle: Bundle, shown: Mapping[int, Any]) -> bool:
    """Whether every entry that the sample's rows name is shown."""
    return bundle.claim in ROW_CLAIMS and set(bundle.rows["entry"].tolist()) <= shown.keys()


def has_descendants(bundle: Bundle) -> bool:
    """Whether a stage made new samples from the bundle's, or it carries some."""
    return bool(bundle.children or made_into(bundle.rows))


def check_needed(bundle: Bundle, counts: Mapping[str, int], shown: Shown) -> str:
    """ProofError unless the shown entries are those that the claim needs; `counts` are the seal's."""
    needed = _by_kind(bundle, counts, shown) | _by_rows(bundle, shown)
    if missing := needed - shown.keys():
        raise ProofError(f"the claim needs entry {min(missing)}, and it is not shown")
    named = {n for rows in (bundle.rows, *(c.rows for c in bundle.children)) for n in rows["entry"].tolist()}
    if more := shown.keys() - needed - named - _first_parts(shown):
        raise ProofError(f"entry {min(more)} ({shown[min(more)]['kind']}) is shown, and the claim does not need it")
    others = (
        "1 other entry is shown, which is" if len(shown) == 1 else f"{len(shown)} other entries are shown, each of them"
    )
    return f"{others} in the log, and all that the claim needs"


def _by_kind(bundle: Bundle, counts: Mapping[str, int], shown: Shown) -> set[int]:
    """Those that are needed for what they are: all of their kind."""
    kinds = needed_kinds(bundle.claim, bundle.preimage, [e for e in shown.values() if e["kind"] == "dataset"])
    there = Counter(e["kind"] for e in shown.values())
    for kind in kinds:
        if there[kind] != counts.get(kind, 0):
            raise ProofError(f"{there[kind]} {kind} entries are shown; the seal counts {counts.get(kind, 0)}")
        if kind == "run" and there[kind] != 1:
            raise ProofError(f"{there[kind]} run entries are shown; a log has one")
    states = [n for n, e in shown.items() if e["kind"] == "checkpoint"]
    if len(states) > 1 or (states and not (may_show_checkpoint(bundle) and shown[states[0]]["kept"])):
        raise ProofError(f"entry {states[0]} (checkpoint) is shown; only a use is told of one state, which was kept")
    return {n for n, e in shown.items() if e["kind"] in (*kinds, "checkpoint")}


def _by_rows(bundle: Bundle, shown: Shown) -> set[int]:
    """Those that rows name: all of the sample's for evidence, some of it and its descendants' for the latter."""
    needed: set[int] = set()
    if has_descendants(bundle):
        everybody = (bundle.rows, *(child.rows for child in bundle.children))
        needed = {n for rows in everybody for n in (*made_into(rows), *registered_by(rows))}
    return needed | set(bundle.rows["entry"].tolist()) if shows_evidence(bundle, shown) else needed


def _first_parts(shown: Shown) -> set[int]:
    """Registrations' first parts: they say how long the parts of a block are."""
    return {n for n, e in shown.items() if e["kind"] == "samples" and e["part"] == 0}
