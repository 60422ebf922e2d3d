"""What a log says that scores rest on: the model states it keeps, its files; the contributions and modality weights
recorded so far.

Read from an existing trace, and kept up to date by the run that records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import TamperError
from fgtrac.events.codec import encode
from fgtrac.events.schema import decode_event
from fgtrac.score.factor_files import FOLDER, State
from fgtrac.score.select import Mark
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.tiles import WIDTH, read_bundle

Told = tuple[Mark | None, float | None, bool]  # a checkpoint as a rule of selection is told of it
Ref = tuple[bytes, int]
_KINDS = ("checkpoint", "resume", "artifact", "erasure", "contribution", "attention")


class Ledger:
    """Entries of a log taken one by one; `artifacts` is path -> SHA-256, `sizes` path -> bytes, `newest` the last
    `checkpoint` entry."""

    def __init__(self) -> None:
        self.artifacts: dict[str, bytes] = {}
        self.sizes: dict[str, int] = {}
        self.newest: Ref | None = None
        self._told: list[tuple[int, Told]] = []
        self._kept: dict[Mark, State] = {}
        self._rates: dict[Ref, tuple[float, ...]] = {}
        self._contributions: set[bytes] = set()
        self._attention: set[bytes] = set()
        self._attended: dict[tuple[Ref, bytes], list[NDArray[np.uint32]]] = {}  # (checkpoint, block) -> ordinals

    @property
    def states(self) -> tuple[State, ...]:
        """The model states that are kept, in the order of training: none that was displaced, or that a resumed run
        went back behind."""
        return tuple(sorted(self._kept.values(), key=lambda state: state.step))

    def state(self, mark: Mark) -> State | None:
        """The state of a checkpoint, where it is kept; of several entries about one state, the first one's."""
        return self._kept.get(mark)

    @property
    def told(self) -> tuple[Told, ...]:
        """Every checkpoint that the run went on from, as the rule of selection learns of it."""
        return tuple(told for _step, told in self._told)

    def learning_rates(self, state: State) -> tuple[float, ...]:
        """One a group of the optimizer's, as its checkpoint says; empty where none were known."""
        return self._rates[state.ref]

    def has_contribution(self, ref: Ref, target: str, method: str, block: bytes, ordinals: NDArray[Any]) -> bool:
        """Whether an entry with exactly these samples has been recorded."""
        return _name(ref, target, method, block, ordinals) in self._contributions

    def has_attention(self, event: Mapping[str, Any]) -> bool:
        """Whether an entry has been recorded that says exactly this of exactly these samples."""
        return _weights_name(event) in self._attention

    def is_attended(self, ref: Ref, block: bytes, ordinals: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """(n,) whether each sample has modality weights at that checkpoint already."""
        told = self._attended.get((ref, block), [])
        return np.isin(ordinals, np.concatenate(told)) if told else np.zeros(len(ordinals), dtype=bool)

    def scored_files(self) -> set[str]:
        """The files of factors that the log names."""
        return {path for path in self.artifacts if path.startswith(FOLDER + "/")}

    def take(self, kind: str, event: Mapping[str, Any], ref: Ref) -> None:
        """One entry, in the order of the log; `ref` is its writer and number."""
        if kind == "checkpoint":
            self._checkpoint(event, ref)
        elif kind == "artifact":
            self.artifacts[event["path"]], self.sizes[event["path"]] = event["sha256"], event["size"]
        elif kind == "erasure":
            for path in event["artifacts"]:
                self.artifacts.pop(path, None)
        elif kind == "resume":
            self.go_back(event["step"])
        elif kind == "contribution":
            writer, seq = event["checkpoint"]
            named = (event["target"], event["method"], event["block"], event["ordinals"])
            self._contributions.add(_name((writer, seq), *named))
        elif kind == "attention":
            writer, seq = event["checkpoint"]
            self._attention.add(_weights_name(event))
            self._attended.setdefault(((writer, seq), event["block"]), []).append(np.array(event["ordinals"]))

    def go_back(self, step: int) -> None:
        """A run was resumed from this step: what came after it is superseded."""
        self._told = [(at, told) for at, told in self._told if at <= step]
        self._kept = {mark: state for mark, state in self._kept.items() if state.step <= step}

    def _checkpoint(self, event: Mapping[str, Any], ref: Ref) -> None:
        step, digest = event["step"], event.get("digest")
        mark = None if digest is None else (step, digest)
        self.newest = ref
        self._told.append((step, (mark, event.get("val_loss"), event["kept"])))
        if mark is None or digest is None:
            return
        if event["kept"]:
            self._kept.setdefault(mark, State(ref, step, digest, event.get("val_loss")))
            self._rates[ref] = tuple(float(rate) for rate in event.get("learning_rates", ()))
        else:
            self._kept.pop(mark, None)  # displaced


def state_path(state: State) -> str:
    """Where a model state itself lies."""
    return f"artifacts/checkpoint-{state.step:08d}-{state.digest.hex()[:8]}.safetensors"


def read_state(trace: TraceDir, state: State) -> bytes:
    """A kept model state's file, checked against the log. TamperError where it is gone or another."""
    path = state_path(state)
    try:
        data = trace.read(path)
    except FileNotFoundError as error:
        raise TamperError(f"{error}, which the log names; restore it, or choose other checkpoints") from error
    if (digest := hashlib.sha256(data).digest()) != state.digest:
        raise TamperError(
            f"{path} is not the model state that the log names: it has SHA-256 {digest.hex()} and the log says "
            f"{state.digest.hex()}; restore it from a copy"
        )
    return data


def _name(ref: Ref, target: str, method: str, block: bytes, ordinals: NDArray[Any]) -> bytes:
    return hashlib.sha256(encode([*ref, target, method, block, ordinals.astype("<u4")])).digest()


def _weights_name(event: Mapping[str, Any]) -> bytes:
    said = [*event["checkpoint"], list(event["modalities"]), event["block"], event["ordinals"], event["weights"]]
    return hashlib.sha256(encode(said)).digest()


def read_ledger(trace: TraceDir) -> Ledger:
    """The ledger of a trace's sealed entries; reads the whole log once, and decodes few entries of it."""
    head = trace.head()
    size = head.size if head is not None else 0
    ledger = Ledger()
    wanted = [encode("kind") + encode(kind) for kind in _KINDS]
    for number in range(-(-size // WIDTH)):
        for entry in read_bundle(trace, number, size):
            if any(words in entry for words in wanted):
                event = decode_event(entry)
                ledger.take(event["kind"], event, (event["writer"], event["seq"]))
    return ledger
