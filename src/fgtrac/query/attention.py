"""Modality weights over the checkpoints: of one sample, or of all that have any."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import ProofError
from fgtrac.events.one_line import one_line
from fgtrac.events.postings import KIND
from fgtrac.query.blocks import Blocks
from fgtrac.query.occurrences import plain
from fgtrac.query.places import Places
from fgtrac.query.seals import FullSeal
from fgtrac.query.timeline import Timeline

STANDINGS = {"kept": "", "dropped": "dropped later", "superseded": "the run went on from before it"}

Part = tuple[NDArray[np.uint8], NDArray[np.float32]]  # ids (n, 32), weights (n, m)


@dataclass(frozen=True, slots=True, eq=False)
class ModalityWeights:
    """How much the model of one checkpoint weighs the modalities of n samples.

    `weights` (n, m) float32: row i is of the sample `ids[i]` ((n, 32) uint8, ascending), column j of `modalities[j]`.
    `step` is the checkpoint's; `standing` says what became of it: "kept", "dropped" (kept, and displaced later) or
    "superseded" (the run was resumed from before it).
    """

    step: int
    standing: str
    modalities: tuple[str, ...]
    ids: NDArray[np.uint8]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    def __str__(self) -> str:
        mean = self.weights.mean(axis=0, dtype=np.float64)
        said = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(self.modalities, mean, strict=True))
        over = f", the mean of {len(self):,} samples" if len(self) > 1 else ""
        standing = f" ({STANDINGS[self.standing]})" if STANDINGS[self.standing] else ""
        return one_line(f"step {self.step}{standing}: {said}{over}")

    def as_json(self) -> dict[str, Any]:
        """Plain data; ids as hex."""
        said = {"step": self.step, "standing": self.standing, "modalities": list(self.modalities)}
        return said | {"ids": [sample.tobytes().hex() for sample in self.ids], "weights": plain(self.weights)}


class AttentionReader:
    """Reads the `attention` entries of one full seal; each is checked against the root."""

    def __init__(self, seal: FullSeal, timeline: Timeline) -> None:
        self._seal = seal
        self._timeline = timeline
        self._places = Places(seal.log)

    def of_sample(self, sample_id: bytes) -> tuple[ModalityWeights, ...] | None:
        """The weights of a sample, checkpoint by checkpoint; None where it is not registered (its neighbours in the
        index show that). ProofError where an entry does not say what the index says it does."""
        rows = self._seal.rows(sample_id)
        if rows is None:
            return None
        named = {kind: np.unique(rows["entry"][rows["kind"] == KIND[kind]]) for kind in ("registered", "attention")}
        if not len(named["attention"]):
            return ()
        log, ordinals, found = self._seal.log, {}, []
        for number in named["registered"].tolist():
            ordinals[log.event(number)["block"]] = self._places.ordinal(sample_id, number)
        mine = np.frombuffer(sample_id, dtype=np.uint8)
        for number in named["attention"].tolist():
            event = log.event(number)
            is_said = event["kind"] == "attention" and event["block"] in ordinals
            places = np.flatnonzero(event["ordinals"] == ordinals[event["block"]]) if is_said else ()
            if not len(places):
                raise ProofError(f"entry {number} gives no weights of {sample_id.hex()}, which the index says it does")
            found.append((event, (np.broadcast_to(mine, (len(places), 32)), _weights_of(event)[places])))
        return self._gather(found)

    def of_all(self, blocks: Blocks) -> tuple[ModalityWeights, ...]:
        """The weights of all samples that have any, checkpoint by checkpoint."""
        found = []
        for number, event in self._timeline.entries("attention"):
            ids, ordinals = blocks.ids(event["block"]), event["ordinals"]
            if len(ordinals) and int(ordinals.max()) >= len(ids):
                raise ProofError(f"entry {number} names ordinal {ordinals.max()} of a block of {len(ids)} samples")
            found.append((event, (ids[ordinals], _weights_of(event))))
        return self._gather(found)

    def _gather(self, found: Iterable[tuple[Mapping[str, Any], Part]]) -> tuple[ModalityWeights, ...]:
        """What belongs to one checkpoint and the same modalities, put together; in the order of steps."""
        parts: dict[tuple[int, bytes, int, tuple[str, ...]], list[Part]] = defaultdict(list)
        for event, part in found:
            parts[event["step"], *event["checkpoint"], tuple(event["modalities"])].append(part)
        joined = (self._joined(*key, each) for key, each in parts.items())
        return tuple(sorted(joined, key=lambda one: one.step))  # stable: else as in the log

    def _joined(
        self, step: int, writer: bytes, seq: int, modalities: tuple[str, ...], parts: Sequence[Part]
    ) -> ModalityWeights:
        ids, weights = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        order = np.argsort(np.ascontiguousarray(ids).view("V32").reshape(-1), kind="stable")
        standing = self._timeline.standing(writer, seq)
        return ModalityWeights(step, standing, modalities, ids[order], weights[order])


def _weights_of(event: Mapping[str, Any]) -> NDArray[np.float32]:
    weights: NDArray[np.float32] = event["weights"].reshape(len(event["ordinals"]), len(event["modalities"]))
    return weights
