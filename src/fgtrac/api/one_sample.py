"""Everything that a trace knows of one sample, as plain data: what the explorer's page of it shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from fgtrac.api.offers import signature, true_offers
from fgtrac.api.trace import Trace
from fgtrac.query.prove import Proof
from fgtrac.tlog.index import CONTENT

MOST_EVENTS = 500  # that are told one by one
MOST_SHARING = 20  # other samples with the same content
LONGEST = 500  # characters of a name, or of an event's words
READ_WHERE_FEW = ("contribution", "attention", "prediction")  # else only that they are there is known
COUNTED = ("used", "neighbour", "delivered")  # told one by one only where there are few: the epochs have them


def one_sample(trace: Trace, sample_id: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What there is to say of a registered sample, and its events (kind, entry, step, epoch, words), all of them.

    UnknownSampleError (a ValueError) where it is not registered; otherwise errors as `Trace.history`.
    """
    history = trace.history(f"id:{sample_id.hex()}")
    said = history.as_json()
    events = said.pop("events")
    few = len(events) <= MOST_EVENTS
    told = [event for event in events if few or event["kind"] not in COUNTED]
    registered = [event["details"] for event in events if event["kind"] == "registered"]
    offers, left = true_offers(trace, Proof(sample_id))
    verdict, words = signature(trace)
    sharing, sharing_in_all = _sharing(trace, sample_id, registered)
    predictions = [event for event in events if event["kind"] == "prediction"]
    data = {
        "id": said["id"],
        "name": _cut(history.name),
        "datasets": sorted({one["dataset"] for one in registered}),
        "subject": next((one["subject"] for one in registered if "subject" in one), None),
        "content": next((one["content"] for one in registered if "content" in one), None),
        "same_content": sharing,
        "same_content_in_all": sharing_in_all,
        "roles": sorted({event["details"]["role"] for event in events if event["kind"] == "role"}),
        "size": history.size,
        "pending": history.pending,
        "signature": {"verdict": str(verdict), "words": words},
        "uses": {
            "all": history.uses,
            "superseded": history.superseded,
            "neighbour": history.tally.neighbours,
            "delivered": history.tally.delivered,
            "perhaps": history.tally.perhaps,
            "epochs": history.tally.epochs_as_json(),
            "by_step": history.is_by_step,
        },
        "kept": {"checkpoints": list(history.checkpoints), "undecided": list(history.undecided)},
        "family": history.family.as_json(),
        "contributions": _contributions(events),
        "attention": said["summary"]["attention"],
        "predictions": _bounded(predictions[-MOST_EVENTS:]),
        "predictions_in_all": len(predictions),
        "unread": {kind: sum(e["kind"] == kind and "code" in e["details"] for e in events) for kind in READ_WHERE_FEW},
        "erased": any(event["kind"] == "erased" for event in events),
        "events": _bounded(told[:MOST_EVENTS]),
        "events_in_all": len(events),
        "offers": [offer.as_json() for offer in offers],
        "without": left,
    }
    return data, events


def is_registered(trace: Trace, sample_id: bytes) -> bool:
    """Whether the index has a sample of this id; its neighbours show it where it has none."""
    return trace._seal.rows(sample_id) is not None


def prove_one(trace: Trace, sample_id: bytes, claim: str | None, *, with_name: bool) -> bytes:
    """The bundle of a claim about the sample of this id, which names it by nothing else unless `with_name`. Errors as
    `Trace.prove`."""
    if with_name:
        return trace.prove(f"id:{sample_id.hex()}", claim)
    return trace._prover.prove(Proof(sample_id), claim)


def has_vault(trace: Trace) -> bool:
    """Whether names can be looked up."""
    return trace._vault is not None


def names_of(trace: Trace, ids: Sequence[bytes]) -> list[str | None]:
    """What the vault calls samples, of long names the beginning; None of those that it does not know."""
    return [_cut(trace._namer.name_of(sample_id)) for sample_id in ids]


def seems_scored(trace: Trace) -> bool:
    """Whether files of factors lie in the trace; whether they can be used, only their entries tell."""
    return (trace.path / "artifacts" / "scoring").is_dir()


def dataset_names(trace: Trace) -> list[str]:
    """The data sets that the log describes."""
    return sorted({str(event["name"]) for _, event in trace._historian.timeline.entries("dataset")})


def _sharing(
    trace: Trace, sample_id: bytes, registered: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], int]:
    """The first other samples that hold this content, as the index has them (exact copies, and leaks between splits),
    and how many there are."""
    holders: set[bytes] = set()
    for content in sorted({one["content"] for one in registered if "content" in one}):
        found = trace._seal.find(CONTENT, bytes.fromhex(content))
        value = b"" if found is None else found.value
        holders |= {value[at : at + 32] for at in range(0, len(value), 32)}
    holders -= {sample_id}
    others = sorted(holders)[:MOST_SHARING]
    told = [{"id": one.hex(), "name": name} for one, name in zip(others, names_of(trace, others), strict=True)]
    return told, len(holders)


def _contributions(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The scores at the checkpoints that are kept, by target and method, those with the largest sums first."""
    groups: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for event in events:
        said = event["details"]
        if event["kind"] == "contribution" and said.get("standing") == "kept" and isinstance(said.get("score"), float):
            groups[said["target"], said["method"]].append((event["step"], said["score"]))
    found = [
        {"target": target, "method": method, "sum": sum(score for _, score in sorted(scores)), "scores": sorted(scores)}
        for (target, method), scores in groups.items()
    ]
    return sorted(found, key=lambda one: (-abs(one["sum"]), one["target"], one["method"]))


def _bounded(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Events without their details, which may be long: a stage's thousands of children."""
    return [
        {key: _cut(value) if key == "words" else value for key, value in event.items() if key != "details"}
        for event in events
    ]


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= LONGEST else f"{text[:LONGEST]}…"
