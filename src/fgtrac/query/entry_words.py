"""An entry in words, and its fields in bounded form: for people who look at the log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.events.schema import ATTRIBUTION, NO_STEP, STATUS

MAX_TEXT = 600
MAX_BYTES = 64
MAX_ITEMS = 24
MAX_DEPTH = 6
Event = Mapping[str, Any]


def words_of(event: Event) -> str:
    """What an entry says, in a line."""
    return _WORDS[event["kind"]](event)[:MAX_TEXT]


def bounded(value: Any, depth: int = 0) -> Any:
    """A field's value as plain data that is never long: where it is, its beginning, and in words what is left out.

    Bytes are hex, an array is a list.
    """
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]}… ({len(value):,} characters)"
    if isinstance(value, bytes):
        return value.hex() if len(value) <= MAX_BYTES else f"{value[:MAX_BYTES].hex()}… ({len(value):,} bytes)"
    if depth >= MAX_DEPTH and isinstance(value, Mapping | list | tuple):
        return f"… ({len(value):,} inside)"
    if isinstance(value, Mapping):
        some = {bounded(str(key)): bounded(value[key], depth + 1) for key in list(value)[:MAX_ITEMS]}
        return some | ({"…": f"{len(value) - MAX_ITEMS:,} more"} if len(value) > MAX_ITEMS else {})
    if isinstance(value, np.ndarray | list | tuple):
        first = value[:MAX_ITEMS].tolist() if isinstance(value, np.ndarray) else value[:MAX_ITEMS]
        more = [f"… {len(value) - MAX_ITEMS:,} more"] if len(value) > MAX_ITEMS else []
        return [bounded(one, depth + 1) for one in first] + more
    return value


def fields_of(event: Event) -> dict[str, Any]:
    """All fields of an entry, bounded; the codes of batches as their words, no step as nothing."""
    found = {name: bounded(value) for name, value in event.items()}
    if event["kind"] == "use":
        for name, codes in (("status", STATUS), ("attribution", ATTRIBUTION)):
            names = {code: word for word, code in codes.items()}
            found[name] = [names.get(code, code) for code in found[name]]
        found["step"] = [None if step == NO_STEP else step for step in found["step"]]
    return found


def _samples(n: int) -> str:
    return f"{n:,} sample{'' if n == 1 else 's'}"


def _of(event: Event) -> str:
    return f"of block {event['block'].hex()[:8]}"


def _from_to(name: str, values: NDArray[Any]) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{name} {low}" if low == high else f"{name}s {low} to {high}"


def _use(event: Event) -> str:
    counts, applied = event["count"], event["status"] == STATUS["applied"]
    batches = f"{len(counts):,} batch{'' if len(counts) == 1 else 'es'}"
    steps = _from_to("step", event["step"][applied]) if applied.any() else "no update"
    left = f", {int((~applied).sum()):,} of them without an update" if applied.any() and not applied.all() else ""
    losses = ", with losses" if "losses" in event else ""
    graph = f", with {len(event['hop_ordinals']):,} neighbours" if "hops" in event else ""
    total = _samples(len(event["ordinals"]))
    return f"{batches} with {total} {_of(event)}: {_from_to('epoch', event['epoch'])}, {steps}{left}{losses}{graph}"


def _register(event: Event) -> str:
    part = f", part {event['part'] + 1} of {event['parts']}" if event["parts"] > 1 else ""
    return f"{_samples(len(event['ids']) // 32)} of {event['dataset']}{part}, block {event['block'].hex()[:8]}"


def _transform(event: Event) -> str:
    parts = [f"{len(event[name]):,} {name}" for name in ("kept", "dropped") if name in event]
    if "children" in event:
        parts.append(f"{len(np.unique(event['children'])):,} made from {len(np.unique(event['parents'])):,}")
    return f"{event['stage']} ({event['operation']}) {_of(event)}: {', '.join(parts)}"


def _metrics(event: Event) -> str:
    return f"step {event['step']}: " + ", ".join(
        f"{name} {value:.6g}" for name, value in sorted(event["values"].items())
    )


def _checkpoint(event: Event) -> str:
    loss = f", validation loss {event['val_loss']:.6g}" if "val_loss" in event else ""
    return f"step {event['step']}{loss}: {'kept' if event['kept'] else 'not kept'} ({event['rule']})"


def _prediction(event: Event) -> str:
    return f"{_samples(len(event['ordinals']))} {_of(event)} at step {event['step']}"


def _contribution(event: Event) -> str:
    scores = f"scores of {_samples(len(event['ordinals']))} at step {event['step']}"
    return f"{scores} toward {event['target']}, by {event['method']}"


def _gap(event: Event) -> str:
    lost = f", entries {event['first']} to {event['stop'] - 1} of a writer" if "first" in event else ""
    return f"{event['reason']}{lost}"


_WORDS: dict[str, Callable[[Event], str]] = {
    "run": lambda e: f"the run of trace {e['trace'].hex()}, ids {e['id_scheme']}",
    "dataset": lambda e: f"{e['name']}, ids {e['id_scheme']}" + (f", {e['rows']:,} rows" if "rows" in e else ""),
    "samples": _register,
    "roles": lambda e: f"{e['role']}: {_samples(len(e['ordinals']))} {_of(e)}",
    "transform": _transform,
    "sampler": lambda e: f"loader {e['loader']}, epoch {e['epoch']}: {e['sampler']}, before it began",
    "use": _use,
    "metrics": _metrics,
    "attention": lambda e: f"weights of {', '.join(e['modalities'])} for {_prediction(e)}",
    "checkpoint": _checkpoint,
    "artifact": lambda e: f"{e['path']}, {e['size']:,} bytes: {e['about']}",
    "contribution": _contribution,
    "prediction": _prediction,
    "resume": lambda e: f"from step {e['step']}",
    "join": lambda e: f"rank {e['rank']} of {e['ranks']}, from step {e['step']}",
    "leave": lambda e: "this rank has recorded everything",
    "gap": _gap,
    "end": lambda e: "registration, preprocessing and training are complete",
    "key": lambda e: (
        f"from here on {e['public_key'].hex()} signs" + (", the one before is revoked" * bool(e.get("revoked")))
    ),
    "erasure": lambda e: (
        f"the key of subject {e['pseudonym'].hex()[:16]} was destroyed: {_samples(len(e['ordinals']))}"
    ),
    "seal": lambda e: f"an index of {e['leaves']:,} leaves over the {e['entries']:,} entries before",
}
