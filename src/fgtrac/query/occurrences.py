"""What one entry says of one sample: an occurrence for each of its rows in the index, in words and as data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError
from fgtrac.events.postings import KIND
from fgtrac.events.ranks import RankTable
from fgtrac.events.schema import ATTRIBUTION, STATUS
from fgtrac.query.family import MOST, called
from fgtrac.query.places import Places
from fgtrac.query.seals import FullSeal
from fgtrac.verify.evidence import find_id

Row = tuple[int, int, int, int]  # kind, detail, entry, step
NAMED = 8  # children or outputs that a line lists; the details have them all
ATTRIBUTION_WORDS = {code: word for word, code in ATTRIBUTION.items()}
STATUS_WORDS = {code: word for word, code in STATUS.items()}
ENTRY_KINDS = {
    "registered": "samples", "role": "roles", "transformed": "transform", "derived": "transform", "used": "use",
    "neighbour": "use", "delivered": "use", "attention": "attention", "contribution": "contribution",
    "prediction": "prediction", "erased": "erasure",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One row, resolved."""

    words: str
    step: int | None = None
    epoch: int | None = None
    details: dict[str, Any] = field(default_factory=dict)


class Reader:
    """Reads occurrences out of entries; every entry that it reads is checked against the log's root."""

    def __init__(self, seal: FullSeal, places: Places, name_of: Callable[[bytes], str | None]) -> None:
        self._seal = seal
        self._places = places
        self._name_of = name_of

    @cached_property
    def _ranks(self) -> RankTable:
        """Who wrote which entries, where several processes trained together."""
        table = RankTable()
        for number in self._seal.log.find_kind("join", self._seal.event["counts"].get("join", 0)):
            table.add(self._seal.log.event(number))
        return table

    def read(
        self, sample_id: bytes, entry: int, kind: str, rows: Sequence[Row], registered: dict[bytes, int]
    ) -> list[Occurrence]:
        """The sample's occurrences of one kind in one entry: as many as `rows`.

        `registered` is block -> the entry that registers the sample in it; a registration adds itself.
        ProofError where the entry does not say what the index says it does.
        """
        event = self._seal.log.event(entry)
        if event["kind"] != ENTRY_KINDS[kind]:
            raise ProofError(
                f"the index names entry {entry} as {kind}, and it is a {event['kind']} entry; run fgtrac verify"
            )
        if kind == "registered":
            return [self._registered(sample_id, entry, event, registered)]
        block = event.get("child_block" if kind == "derived" else "block")
        if block not in registered:
            raise ProofError(f"entry {entry} ({event['kind']}) names no block that sample {sample_id.hex()} is in")
        ordinal = self._places.ordinal(sample_id, registered[block])
        found = _READERS[kind](self, entry, event, ordinal)
        if len(found) != len(rows):
            raise ProofError(
                f"the index says that entry {entry} ({event['kind']}) names {sample_id.hex()} {len(rows)} times as "
                f"{kind}, and it does {len(found)} times; run fgtrac verify"
            )
        return found

    def _registered(
        self, sample_id: bytes, entry: int, event: Mapping[str, Any], registered: dict[bytes, int]
    ) -> Occurrence:
        block = event.get("block", b"")
        again = block in registered
        registered[block] = entry
        ordinal = self._places.ordinal(sample_id, entry)
        details: dict[str, Any] = {"dataset": event["dataset"], "block": block.hex(), "ordinal": ordinal}
        place = find_id(event["ids"], sample_id)
        assert place is not None  # it has an ordinal
        for field_name, word in (("contents", "content"), ("subjects", "subject")):
            if field_name in event:
                details[word] = event[field_name][32 * place : 32 * place + 32].hex()
        words = f"registered{' again' if again else ''} in data set {event['dataset']!r}, block {block.hex()[:8]}"
        return Occurrence(words, details=details)

    def _role(self, entry: int, event: Mapping[str, Any], ordinal: int) -> list[Occurrence]:
        found = int((event["ordinals"] == ordinal).sum())
        return [Occurrence(f"role: {event['role']}", details={"role": event["role"]})] * found

    def _transformed(self, entry: int, event: Mapping[str, Any], ordinal: int) -> list[Occurrence]:
        stage = f"stage {event['stage']!r} ({event['operation']})"
        details = {k: plain(event[k]) for k in ("stage", "operation", "output", "parameters") if k in event}
        out = []
        for _ in range(_count(event, "kept", ordinal)):
            into = f" into {event['output']!r}" if "output" in event else ""
            out.append(Occurrence(f"{stage} kept it{into}", details={**details, "outcome": "kept"}))
        for place in _where(event, "dropped", ordinal):
            said = {**details, "outcome": "dropped"}
            twin = ""
            if "same_as" in event:
                same = event["same_as"][32 * place : 32 * place + 32]
                said["same_as"], twin = same.hex(), f": equal to {self._called(same)}"
            out.append(Occurrence(f"{stage} dropped it{twin}", details=said))
        children = event["children"][_where(event, "parents", ordinal)].tolist() if "parents" in event else []
        if children:
            ids = self._family(event["child_block"], children, entry, KIND["derived"])
            said = {**details, "outcome": "has children", "children": [i.hex() for i in ids]}
            said |= (cut := _spans(event, _where(event, "parents", ordinal)))
            words = f"{stage} made {self._list(ids)} from it{_span_words(cut)}"
            out += [Occurrence(words, details=said)] * len(children)
        return out

    def _derived(self, entry: int, event: Mapping[str, Any], ordinal: int) -> list[Occurrence]:
        parents = event["parents"][_where(event, "children", ordinal)].tolist()
        ids = self._family(event["block"], parents, entry, KIND["transformed"])
        details = {"stage": event["stage"], "operation": event["operation"], "parents": [i.hex() for i in ids]}
        details |= (cut := _spans(event, _where(event, "children", ordinal)))
        words = f"stage {event['stage']!r} ({event['operation']}) made it from {self._list(ids)}{_span_words(cut)}"
        return [Occurrence(words, details=details)] * len(parents)

    def _family(self, block: bytes, ordinals: list[int], entry: int, kind: int) -> list[bytes]:
        """The ids at ordinals of another block: the first MOST, which are told, must have a row of that kind for this
        entry; that all have is what `fgtrac verify` checks."""
        ids = self._places.ids(block, ordinals, entry)
        for other in islice(dict.fromkeys(ids), MOST):
            rows = self._seal.rows(other)
            if rows is None or not ((rows["entry"] == entry) & (rows["kind"] == kind)).any():
                raise ProofError(
                    f"entry {entry} ties {other.hex()} to the sample, and the index does not; run fgtrac verify"
                )
        return ids

    def _used(self, entry: int, event: Mapping[str, Any], ordinal: int) -> list[Occurrence]:
        return [o for o in self._batches(event, ordinal) if o.step is not None]

    def _delivered(self, entry: int, event: Mapping[str, Any], ordinal: int) -> list[Occurrence]:
        return [o for o in self._batches(event, ordinal) if o.step is None]

    def _batches(self, event: Mapping[str, Any], ordinal: int) -> list[Occurrence]:
        """An occurrence for each place that the sample has in the batches of a `use` entry."""
        places = _where(event, "ordinals", ordinal)
        out = []
        for place, batch in zip(places.tolist(), _owners(event["count"], places), strict=True):
            details = self._batch_details(event, batch)
            loss = ""
            if "losses" in event and not np.isnan(event["losses"][place]):
                details["loss"] = plain(event["losses"][place])
                loss = f", loss {event['losses'][place]:.4g}"
            where = f"epoch {details['epoch']}, batch {details['batch']}, loader {details['loader']}"
            where = self._ranks.words(event["writer"]) + where
            if details["status"] == "applied":
                step = int(event["step"][batch])
                words = f"{_used(details)} in step {step} ({where}; {details['attribution']}){loss}"
            else:
                step, words = None, f"delivered but not applied: {details['status']} ({where}){loss}"
            out.append(Occurrence(words, step, details["epoch"], details))
        return sorted(out, key=lambda o: (o.step or 0, o.details["batch"]))

    def _neighbour(self, entry: int, event: Mapping[str, Any], ordinal: int) -> list[Occurrence]:
        places = _where(event, "hop_ordinals", ordinal)
        out = []
        for cell in _owners(event["hop_count"], places):
            batch, hop = divmod(cell, event["hops"])
            details = {**self._batch_details(event, batch), "hop": hop + 1}
            if details["status"] == "applied":
                step, how = int(event["step"][batch]), _how(details)
                words = f"used as a neighbour (hop {hop + 1}{how}) in step {step} (epoch {details['epoch']})"
                out.append(Occurrence(words, step, details["epoch"], details))
        return sorted(out, key=lambda o: o.step or 0)

    def _batch_details(self, event: Mapping[str, Any], batch: int) -> dict[str, Any]:
        rank = self._ranks.rank(event["writer"])
        return _batch_details(event, batch) | ({} if rank is None else {"rank": rank})

    def _attention(self, entry: int, event: Mapping[str, Any], ordinal: int) -> list[Occurrence]:
        weights = event["weights"].reshape(max(1, len(event["ordinals"])), -1)
        out = []
        for place in _where(event, "ordinals", ordinal):
            said = dict(zip(event["modalities"], plain(weights[place]), strict=True))
            words = ", ".join(f"{n} {w:.3g}" for n, w in zip(event["modalities"], weights[place], strict=True))
            details = {"weights": said, "checkpoint": plain(event["checkpoint"])}
            out.append(Occurrence(f"modality weights at step {event['step']}: {words}", event["step"], details=details))
        return out

    def _contribution(self, entry: int, event: Mapping[str, Any], ordinal: int) -> list[Occurrence]:
        out = []
        target = self._target(event["target"])
        for place in _where(event, "ordinals", ordinal):
            score = event["scores"][place]
            details = {"target": event["target"], "method": event["method"], "score": plain(score)}
            details["checkpoint"] = plain(event["checkpoint"])
            details |= {"parameters": plain(event["parameters"])} if "parameters" in event else {}
            words = f"contributed {score:+.4g} toward {target} at step {event['step']} ({event['method']})"
            out.append(Occurrence(words, event["step"], details=details))
        return out

    def _prediction(self, entry: int, event: Mapping[str, Any], ordinal: int) -> list[Occurrence]:
        outputs = event["outputs"].reshape(max(1, len(event["ordinals"])), -1) if "outputs" in event else None
        out = []
        for place in _where(event, "ordinals", ordinal):
            details: dict[str, Any] = {}
            words = f"predicted at step {event['step']}"
            if outputs is not None:
                details["outputs"] = plain(outputs[place])
                words += ": " + ", ".join(f"{v:.4g}" for v in outputs[place][:NAMED])
                words += ", ..." if len(details["outputs"]) > NAMED else ""
            if "losses" in event:
                details["loss"] = plain(event["losses"][place])
                words += f", loss {event['losses'][place]:.4g}"
            out.append(Occurrence(words, event["step"], details=details))
        return out

    def _erased(self, entry: int, event: Mapping[str, Any], ordinal: int) -> list[Occurrence]:
        words = f"erased: the key of subject {event['pseudonym'].hex()[:16]} was destroyed"
        return [Occurrence(words, details={"pseudonym": event["pseudonym"].hex()})] * _count(event, "ordinals", ordinal)

    def _target(self, words: str) -> str:
        """What a contribution is toward: a sample by its name where the vault knows it."""
        form, _, digits = words.partition(":")
        is_sample = form == "id" and len(digits) == 64 and not set(digits) - set("0123456789abcdef")
        return self._called(bytes.fromhex(digits)) if is_sample else words

    def _called(self, sample_id: bytes) -> str:
        return called(sample_id, self._name_of(sample_id))

    def _list(self, ids: Sequence[bytes]) -> str:
        named = list(dict.fromkeys(ids))
        more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
        return ", ".join(self._called(i) for i in named[:NAMED]) + more


_READERS: dict[str, Callable[[Reader, int, Mapping[str, Any], int], list[Occurrence]]] = {
    "role": Reader._role,
    "transformed": Reader._transformed,
    "derived": Reader._derived,
    "used": Reader._used,
    "neighbour": Reader._neighbour,
    "delivered": Reader._delivered,
    "attention": Reader._attention,
    "contribution": Reader._contribution,
    "prediction": Reader._prediction,
    "erased": Reader._erased,
}


def plain(value: Any) -> Any:
    """What JSON can say of an entry's value: bytes as hex, arrays as lists, numbers that are not finite as text."""
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, np.generic):
        value = value.item()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _where(event: Mapping[str, Any], column: str, ordinal: int) -> NDArray[np.intp]:
    values = event.get(column)
    return np.flatnonzero(values == ordinal) if values is not None else np.empty(0, dtype=np.intp)


def _spans(event: Mapping[str, Any], places: NDArray[np.intp]) -> dict[str, Any]:
    """Which items of parents' sequences children have, [start, stop] for each pair, where the entry says it."""
    if "starts" not in event:
        return {}
    return {"spans": [[int(event["starts"][place]), int(event["stops"][place])] for place in places]}


def _span_words(said: Mapping[str, Any]) -> str:
    if "spans" not in said:
        return ""
    spans = [f"{start} to {stop}" for start, stop in said["spans"][:NAMED]]
    return f", items {', '.join(spans)}" + (", ..." if len(said["spans"]) > NAMED else "")


def _count(event: Mapping[str, Any], column: str, ordinal: int) -> int:
    return len(_where(event, column, ordinal))


def _owners(counts: NDArray[np.uint32], places: NDArray[np.intp]) -> list[int]:
    """The batch (or hop) in which each place lies, where element i of `counts` is how many places it has."""
    stops = np.cumsum(counts.astype(np.int64))
    return [int(b) for b in np.searchsorted(stops, places, side="right")]


def _used(details: Mapping[str, Any]) -> str:
    if "fit" in details:
        return f"{'perhaps ' if details['attribution'] == 'among' else ''}used in a fit of {details['fit']},"
    if details["attribution"] == "among":
        return "drawn for a batch that held another number of samples, and perhaps used with it"
    return "used as a seed" if "hops" in details else "used"


def _how(details: Mapping[str, Any]) -> str:
    """What a neighbour's line adds where the whole graph went through the model."""
    if details.get("graph") != "whole":
        return ""
    return ", beyond reach, whole graph" if details["hop"] == details["hops"] else ", whole graph"


def _batch_details(event: Mapping[str, Any], batch: int) -> dict[str, Any]:
    said = {k: event[k] for k in ("graph", "hops", "fit") if k in event}
    return said | {
        "epoch": int(event["epoch"][batch]),
        "batch": int(event["batch"][batch]),
        "loader": event["loader"],
        "optimizer": event["optimizer"],
        "status": STATUS_WORDS[int(event["status"][batch])],
        "attribution": ATTRIBUTION_WORDS[int(event["attribution"][batch])],
    }
