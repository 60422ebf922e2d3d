"""The order of a pass, drawn again from what its `sampler` entry announced.

Only `_draw` needs torch, the release (major and minor) that recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fgtrac.errors import FgtracError, FormatError
from fgtrac.events.codec import decode
from fgtrac.events.orders import (
    SALT_BYTES,
    Places,
    decode_placement,
    opening_name,
    part_name,
    state_commitment,
)
from fgtrac.store.vault import Vault
from fgtrac.verify.checks import CannotTell, TraceFiles
from fgtrac.verify.passes import Drawn, Pass

MAX_DRAWS = 1 << 26
MAX_REPLICAS = 1 << 20
MAX_ROUNDS = 1 << 16  # of a sampler that goes through its rows several times
Check = Callable[[Any], bool]


def _count(most: int, least: int = 1) -> Check:
    return lambda value: type(value) is int and least <= value <= most


def _boolean(value: Any) -> bool:
    return type(value) is bool


_ROWS, _SAMPLES = _count(1 << 32), _count(MAX_DRAWS)
_RANDOM: dict[str, Check] = {
    "rows": _ROWS,
    "generator": lambda value: type(value) is str and value in ("own", "global"),
}
_PARAMETERS: dict[str, dict[str, Check]] = {
    "SequentialSampler": {"rows": _ROWS},
    "RandomSampler": {**_RANDOM, "num_samples": _SAMPLES, "replacement": _boolean},
    "WeightedRandomSampler": {**_RANDOM, "num_samples": _SAMPLES, "replacement": _boolean},
    "SubsetRandomSampler": _RANDOM,
    "DistributedSampler": {
        "rows": _ROWS, "shuffle": _boolean, "sampler_drop_last": _boolean, "rank": _count(MAX_REPLICAS, 0),
        "num_replicas": _count(MAX_REPLICAS),
    },
}  # fmt: skip
_LISTED: dict[str, np.dtype[Any]] = {"WeightedRandomSampler": np.dtype("<f8"), "SubsetRandomSampler": np.dtype("<u4")}


def vault_beside(trace_path: Path, trace_id: bytes) -> tuple[Vault | None, str]:
    """The vault beside a trace; where there is none that opens, why not."""
    try:
        return Vault.open(trace_path.with_suffix(".vault"), trace_id), ""
    except (FgtracError, FileNotFoundError) as error:
        return None, str(error)


class AnnouncedOrders:
    """Draws the orders that `sampler` entries announce. `artifacts` are those of the log, (SHA-256, path); `no_vault`
    says why there is no vault."""

    def __init__(
        self, trace: TraceFiles, artifacts: Iterable[tuple[bytes, str]], vault: Vault | None, no_vault: str
    ) -> None:
        self._trace = trace
        self._vault = vault
        self._no_vault = no_vault
        parts = [(sha, path, PurePosixPath(path).parts) for sha, path in artifacts]
        self._paths = {sha: path for sha, path, of in parts if of[:1] == ("artifacts",) and ".." not in of}
        self._places: dict[bytes, Places] = {}

    def draw(self, one: Pass) -> Drawn:
        """The order of a pass that an entry announces. CannotTell where it cannot be drawn."""
        said = read_parameters(one.event)
        origin = self._origin(one)
        places = self._placement(origin.get("placement"))
        listed = self._listed(one.event["sampler"], origin.get("listed"), said)
        _check_rows(one.event["sampler"], said, places)
        drawn = _draw(one.event["sampler"], said, origin, listed)
        if drawn[0].max(initial=0) >= len(places.ordinals):
            raise CannotTell(f"its sampler draws position {drawn[0].max()} of {len(places.ordinals)}")
        return Drawn(*drawn, said.get("batch_size"), said.get("drop_last", False), places)

    def _origin(self, one: Pass) -> Mapping[str, Any]:
        """What decides the order: in the entry, or in the opening of its commitment."""
        state = one.event.get("state")
        if state is None and "state_commitment" in one.event:
            state = self._open(one)
        try:
            origin = None if state is None else decode(state)
        except FormatError as error:
            raise CannotTell(f"the state that entry {one.number} announces is malformed: {error}") from error
        if not isinstance(origin, dict):
            raise CannotTell(f"entry {one.number} does not say what its order comes from")
        return origin

    def _open(self, one: Pass) -> bytes:
        if self._vault is None:
            raise CannotTell(f"entry {one.number} commits to its state, which a vault opens: {self._no_vault}")
        opening = self._find(opening_name(one.event["writer"], one.event["seq"]))
        if opening is None:
            why = "it was erased, or its process ended before it was written"
            raise CannotTell(f"the vault has no opening of entry {one.number}: {why}")
        if state_commitment(opening) != one.event["state_commitment"]:
            raise CannotTell(f"the vault's opening of entry {one.number} is not what was committed to")
        return opening[SALT_BYTES:]

    def _find(self, what: str) -> bytes | None:
        """An opening of the vault's; None also where there is no vault. CannotTell of a damaged one."""
        try:
            return None if self._vault is None else self._vault.find_opening(what)
        except (FormatError, OSError) as error:
            raise CannotTell(str(error)) from error

    def _part(self, digest: Any, what: str) -> bytes:
        """A part that a state names by its SHA-256: an artifact, or in the vault."""
        if type(digest) is not bytes or len(digest) != 32:
            raise CannotTell(f"its state does not name {what}")
        path = self._paths.get(digest)
        try:
            data = self._trace.read(path) if path is not None else None
        except (FormatError, OSError):
            data = None  # the check of the artifacts says so
        if data is None:
            data = self._find(part_name(digest))
        if data is None or hashlib.sha256(data).digest() != digest:
            raise CannotTell(f"{what} (SHA-256 {digest.hex()}) is in no artifact and in no vault given")
        return data

    def _placement(self, digest: Any) -> Places:
        if type(digest) is bytes and digest in self._places:
            return self._places[digest]
        data = self._part(digest, "where its positions lead")
        try:
            places = self._places[digest] = decode_placement(data)
        except FormatError as error:
            raise CannotTell(f"where its positions lead is malformed: {error}") from error
        return places

    def _listed(self, sampler: str, digest: Any, said: Mapping[str, Any]) -> Any:
        """The weights or positions that the sampler draws from; None where it needs none."""
        if sampler not in _LISTED:
            return None
        try:
            listed = decode(self._part(digest, "what its sampler draws from"))
        except FormatError as error:
            raise CannotTell(f"what its sampler draws from is malformed: {error}") from error
        is_array = isinstance(listed, np.ndarray) and listed.dtype == _LISTED[sampler]
        if not is_array or len(listed) != said["rows"]:
            raise CannotTell(f"what its sampler draws from is no array of {said['rows']} {_LISTED[sampler].name}")
        return listed


def read_parameters(event: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a sampler that can be replayed, their types and sizes checked. CannotTell for any other."""
    sampler, said = event["sampler"], dict(event.get("parameters", {}))
    if sampler not in _PARAMETERS:
        raise CannotTell(f"its sampler or loader is {sampler!r:.80}, whose order cannot be drawn again")
    checks = dict(_PARAMETERS[sampler])
    if "batch_size" in said:
        checks |= {"batch_size": _count(1 << 32), "drop_last": _boolean}
    wrong = [name for name, check in checks.items() if not check(said.get(name))]
    if wrong:
        raise CannotTell(f"its {sampler} has {wrong[0]} = {said.get(wrong[0])!r:.40}, which cannot be drawn again")
    if said.get("in_order") is False:
        raise CannotTell("its workers deliver in whatever order they finish (in_order=False)")
    return said


def _check_rows(sampler: str, said: Mapping[str, Any], places: Places) -> None:
    if sampler not in _LISTED and said["rows"] > len(places.ordinals):
        raise CannotTell(f"its sampler draws from {said['rows']} rows, and {len(places.ordinals)} are placed")
    if sampler == "DistributedSampler" and said["rank"] >= said["num_replicas"]:
        raise CannotTell(f"its sampler is rank {said['rank']} of {said['num_replicas']}, counted from 0")
    if sampler == "RandomSampler" and not said["replacement"] and said["num_samples"] // said["rows"] > MAX_ROUNDS:
        raise CannotTell(f"its sampler draws {said['num_samples']} from {said['rows']} rows, in too many rounds")


def _draw(sampler: str, said: Mapping[str, Any], origin: Mapping[str, Any], listed: Any) -> tuple[Any, int]:
    try:
        from fgtrac.capture.draws import MACHINE, VERSION, draw
    except ModuleNotFoundError as error:
        raise CannotTell(f"{error.name} is not installed here; install fgtrac[torch] to draw orders again") from error
    recorded = said.get("torch")
    if not isinstance(recorded, str) or recorded.split(".")[:2] != VERSION.split(".")[:2]:
        raise CannotTell(f"it was recorded with torch {recorded!s:.40}, and torch {VERSION} may draw another order")
    if sampler == "WeightedRandomSampler" and str(said.get("machine")) != MACHINE:
        raise CannotTell(f"its weights were drawn on {said.get('machine')!s:.40}; {MACHINE} may round otherwise")
    try:
        return draw(sampler, said, origin, listed)
    except ValueError as error:
        raise CannotTell(str(error)) from error
