"""What two logs say of how their trainings were set up (configuration, code, versions, orders, stages), held against
each other, and what of it they leave untold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fgtrac.api.difference import Pair
from fgtrac.api.same_samples import Side
from fgtrac.errors import FormatError
from fgtrac.events.codec import decode, encode
from fgtrac.events.orders import SALT_BYTES, UNREAD, opening_name, state_commitment
from fgtrac.query.training import TrainingLog

WITH_A_FUNCTION = ("filter", "map", "explode", "apply")  # stages that do what a function of the user does
Untold = list[str]  # reasons why what is compared is not all there is


def pair_up(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Pair, ...]:
    """What differs, by name."""
    names = sorted(a.keys() | b.keys())
    return tuple(Pair(name, a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name))


def compare_settings(sides: Sequence[Side]) -> tuple[tuple[Pair, ...], Untold]:
    """The configuration, the code's commit, and how each loader is ordered: the first pass that differs."""
    configured = pair_up(*(_configuration(side.log) for side in sides))
    orders, untold = _orders(sides)
    return configured + orders, [*_resumed(sides, "configuration"), *untold]


def compare_versions(sides: Sequence[Side]) -> tuple[tuple[Pair, ...], Untold]:
    """The versions of libraries."""
    said = [{n: v for _, run in side.log.events("run") for n, v in run["versions"].items()} for side in sides]
    return pair_up(*said), _resumed(sides, "versions")


def compare_stages(sides: Sequence[Side]) -> tuple[tuple[Pair, ...], Untold]:
    """What stages did to the samples: operation, parameters, and the digest of the function's own source text."""
    found, untold = [], dict[str, None]()
    for side in sides:
        found.append(dict[str, Any]())
        variants: dict[str, list[bytes]] = {}
        for _, event in side.log.events("transform"):
            output = f", output {event['output']}" if "output" in event else ""
            name = f"stage {event['stage']}{output}"
            said = {word: event[word] for word in ("operation", "parameters", "code") if word in event}
            known = variants.setdefault(name, [])
            if (mark := encode(said)) in known:
                continue
            known.append(mark)
            front = name if len(known) == 1 else f"{name} ({len(known)})"
            found[-1] |= {front: event["operation"], **dict(_flat(front, event.get("parameters", {})))}
            if "code" in event:
                found[-1][f"{front}: code"] = _plain(event["code"])
            elif event["operation"] in WITH_A_FUNCTION:
                untold[f"the log of {side.name} has no digest of the function of {name}"] = None
    return pair_up(*found), list(untold)


def _configuration(log: TrainingLog) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _, run in log.events("run"):
        found |= {name: run[name] for name in ("git_commit", "git_dirty", "config_artifact") if name in run}
        found |= dict(_flat("config", run.get("config", {})))
    return found


def _resumed(sides: Sequence[Side], what: str) -> Untold:
    """A log has these of its start alone."""
    return [
        f"the run of {side.name} was resumed, and its log has the {what} of its start alone"
        for side in sides
        if side.log.resumes
    ]


def _flat(front: str, said: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """A map's values by the names that lead to them; an empty map inside is a value too."""
    for name, value in said.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(f"{front}.{name}", value)
        else:
            yield f"{front}.{name}", _plain(value)


def _plain(value: Any) -> Any:
    """A setting as JSON has it; of long bytes their SHA-256."""
    if isinstance(value, bytes):
        return value.hex() if len(value) <= 32 else f"SHA-256 {hashlib.sha256(value).hexdigest()}"
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return {name: _plain(item) for name, item in value.items()} if isinstance(value, Mapping) else value


# -- orders ---------------------------------------------------------------------------------------------------------

Pass = tuple[int, int, int]  # loader, epoch and rank


def _orders(sides: Sequence[Side]) -> tuple[tuple[Pair, ...], Untold]:
    """Of each loader what differs in the first pass that does, or that one alone announced it."""
    passes = [_passes(side.log) for side in sides]
    pairs, untold, parted = list[Pair](), dict[str, None](), set[int]()
    for key in sorted(passes[0].keys() | passes[1].keys()):
        (loader, epoch, rank), entries = key, [mine.get(key, []) for mine in passes]
        front = f"loader {loader}" + (f", epoch {epoch}" if epoch else "") + (f", rank {rank}" if rank else "")
        for numbers in zip(*entries, strict=False):
            if loader in parted:
                break
            told = [_pass(side, number) for side, number in zip(sides, numbers, strict=True)]
            for side, (_, state) in zip(sides, told, strict=True):
                if state is None:
                    untold[_sealed_state(side)] = None
            are_told = all(state is not None for _, state in told)
            found = pair_up(
                *(dict(_flat(front, said | ({"state": state} if are_told else {}))) for said, state in told)
            )
            if found:
                parted.add(loader)
                pairs += found
        if loader not in parted and len(entries[0]) != len(entries[1]):
            parted.add(loader)
            pairs.append(Pair(f"{front}: passes", *map(len, entries)))
    return tuple(pairs), list(untold)


def _sealed_state(side: Side) -> str:
    where = "its vault has not what opens that" if side.vault else side.needs_vault
    return f"the log of {side.name} has no open state that its batches were drawn from: {where}"


def _passes(log: TrainingLog) -> dict[Pass, list[int]]:
    """The entries that announce each pass; several where a resumed run began one anew."""
    found: dict[Pass, list[int]] = {}
    for number, event in log.events("sampler"):
        if event["sampler"] != UNREAD:
            rank = event.get("parameters", {}).get("rank", 0)
            key = event["loader"], event["epoch"], rank if type(rank) is int else 0
            found.setdefault(key, []).append(number)
    return found


def _pass(side: Side, number: int) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
    """A pass's sampler and parameters, and what decides its order, but for where positions lead; None where that is
    not told."""
    event = side.log.log.event(number)
    said = {"sampler": event["sampler"], **event.get("parameters", {})}
    data = event.get("state")
    if data is None and side.vault is not None and "state_commitment" in event:
        opening = side.vault.find_opening(opening_name(event["writer"], event["seq"]))
        if opening is not None and state_commitment(opening) == event["state_commitment"]:
            data = opening[SALT_BYTES:]
    if data is None:
        return said, None
    try:
        state = decode(data)
    except FormatError:
        state = None
    if not isinstance(state, Mapping):
        return said, {"state": data}
    return said, {str(name): value for name, value in state.items() if name != "placement"}
