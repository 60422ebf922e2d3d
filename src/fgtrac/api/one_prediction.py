"""What the model said of one sample, as the log has it, and who taught it that: the explorer's page of a prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fgtrac.api.explanation import CAUTION, Explanation, Scored
from fgtrac.api.trace import Trace

MOST_PREDICTIONS = 500
MOST_OUTPUTS = 1000
MOST_READ = 100  # of the predictions of a long history, the last ones
MOST_NAME = 300  # characters of what a listed sample is called
STRONGEST = 10
UNPREDICTED = "no prediction of it is recorded: run.predictions(data, outputs) records them while the trace is open"
HOW_TO_SCORE = (
    "give its role to run.score_with, or make the factors afterwards: fgtrac score TRACE --with FILE.py:FUNCTION"
)


def one_prediction(trace: Trace, sample_id: bytes) -> dict[str, Any]:
    """The sample and its predictions, newest last. UnknownSampleError (a ValueError) where it is not registered;
    otherwise errors as `Trace.history`."""
    history = trace.history(f"id:{sample_id.hex()}")
    events = [event for event in history.events if event.kind == "prediction"]
    if events and "code" in events[-1].details:  # too many to be read all
        read = trace._historian.newest(sample_id, "prediction", MOST_READ)
        events[-len(read) :] = read
    found = [_prediction(event.as_json()) for event in events]
    roles = sorted({e.details["role"] for e in history.events if e.kind == "role" and "role" in e.details})
    return {
        "id": sample_id.hex(),
        "name": history.name,
        "roles": roles,
        "predictions": found[-MOST_PREDICTIONS:],
        "prediction_count": len(found),
        "why_none": "" if found else UNPREDICTED,
        "size": history.size,
        "pending": history.pending,
        "rests_on": history.rests_on,
    }


def _prediction(event: Mapping[str, Any]) -> dict[str, Any]:
    said, outputs = event["details"], event["details"].get("outputs")
    numbers = [v for v in outputs or () if isinstance(v, float)]
    highest = outputs.index(max(numbers)) if len(numbers) > 1 else None
    return {
        "entry": event["entry"],
        "step": event.get("step"),
        "outputs": None if outputs is None else outputs[:MOST_OUTPUTS],
        "output_count": len(outputs or ()),
        "highest": highest,
        "loss": said.get("loss"),
        "is_read": "code" not in said,  # which only the index has
    }


def explain_one(sample_id: bytes, method: str) -> Callable[[Trace, Callable[[int, int], None]], dict[str, Any]]:
    """Who lowered the loss of that sample and who raised it, of an opened trace and with progress: plain data. Errors
    as `Trace.explain`."""

    def ask(trace: Trace, progress: Callable[[int, int], None]) -> dict[str, Any]:
        found = trace.explain(f"id:{sample_id.hex()}", method=method, k=STRONGEST, progress=progress)
        return _told(found)

    return ask


def _told(found: Explanation) -> dict[str, Any]:
    toward = found.toward[0]
    return {
        **{k: v for k, v in found.as_json().items() if k != "toward"},
        "sentence": toward.sentence,
        "label": toward.label,
        "proponents": _listed(toward.proponents),
        "opponents": _listed(toward.opponents),
        "baseline": _listed(toward.baseline),
        "attention": [one.as_json() for one in toward.attention],
        "basis": found.basis,
        "caution": CAUTION,
    }


def _listed(samples: Sequence[Scored]) -> list[dict[str, Any]]:
    return [one.as_json() | {"words": one.words[:MOST_NAME], "trace": list(one.trace)} for one in samples]
