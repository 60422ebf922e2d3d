"""Every sort of bundle that a trace gives: all claims, id schemes and records, with and without entries and names."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgtrac.events.identity import content_preimage, keyed_id, open_key, preimage, public_id
from fgtrac.events.schema import ATTRIBUTION, STATUS
from fgtrac.query.prove import Proof, Prover
from fgtrac.query.seals import open_full_seal
from fgtrac.query.timeline import Timeline
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.note import Verifier
from lives import SAMPLES, SECRET, STAGES, live, live_on_a_graph, live_with_contents
from traces import Writing, start_trace


@dataclass(frozen=True, slots=True)
class Case:
    """A true bundle, the key that its log is signed with, and the id key where ids are keyed."""

    name: str
    data: bytes
    verifier: Verifier
    secret: bytes | None = None


class Prove:
    """Bundles of one trace."""

    def __init__(self, folder: Path, trace: TraceDir, verifier: Verifier, secret: bytes | None = None) -> None:
        seal = open_full_seal(trace)
        self._prover = Prover(seal, Timeline(seal))
        self._where, self._verifier, self._secret = folder.name, verifier, secret

    def __call__(self, name: str, asked: Proof, claim: str | None = None, **how: Any) -> Case:
        data = self._prover.prove(asked, claim, **how)
        return Case(f"{self._where}: {name}, {claim}, {how}", data, self._verifier, self._secret)


def every_bundle(folder: Path) -> Iterator[Case]:
    """All of them; the traces go into `folder`."""
    for scheme in ("public", "keyed"):
        for parts in (1, 4):
            yield from of_lives(folder / f"{scheme}-{parts}", scheme, parts)
        yield from of_contents(folder / f"contents-{scheme}", scheme)
    yield from of_contents(folder / "contents-unknown", "public", known=False)
    yield from of_contents(folder / "contents-unended", "keyed", ended=False)
    yield from of_a_resumed_run(folder / "resumed")
    yield from of_rare_kinds(folder / "rare")
    for scheme in ("public", "keyed"):
        yield from of_a_graph(folder / f"graph-{scheme}", scheme)


def named(scheme: str, dataset: str, key: Any) -> Proof:
    """A sample with its name, opened where ids are keyed."""
    said = preimage(dataset, key)
    return (
        Proof(keyed_id(SECRET, said), said, open_key(SECRET, said))
        if scheme == "keyed"
        else Proof(public_id(said), said)
    )


def of_lives(folder: Path, scheme: str, parts: int) -> Iterator[Case]:
    life = live(folder, scheme=scheme, parts=parts)
    prove = Prove(folder, life.made.trace, life.made.verifier, SECRET if scheme == "keyed" else None)
    for row in range(SAMPLES):
        asked = named(scheme, "digits", row)
        for entries in (False, True):
            yield prove(f"row {row}", asked, entries=entries)
            yield prove(f"row {row}", asked, "history", entries=entries)
    yield prove("row 3", named(scheme, "digits", 3), "used", checkpoint=2)
    yield prove("a crop", Proof(life.crops[2]), "history", entries=True)
    yield prove("the id of row 0", Proof(life.made.ids[0]))
    yield prove("no row", named(scheme, "digits", 99))
    yield prove(
        "no name that JSON could not write", named(scheme, "digits", ("a\n\u2028é", b"\0\xff", (3, ("x" * 300,))))
    )
    yield prove("no name of an unknown data set", named(scheme, "letters", 0))
    yield prove("no crop", named(scheme, STAGES, "seven"))
    for id in (bytes(32), b"\xff" * 32, bytes.fromhex("80" * 32)):
        yield prove(f"id {id.hex():.4}", Proof(id))


def of_contents(folder: Path, scheme: str, **how: bool) -> Iterator[Case]:
    made = live_with_contents(folder, scheme=scheme, **how)
    prove = Prove(folder, made.trace, made.verifier, SECRET if scheme == "keyed" else None)
    for source in (b"0", b"1", b"3"):
        said = content_preimage(hashlib.sha256(source).digest())
        if scheme == "keyed":
            asked = Proof(keyed_id(SECRET, said), said, open_key(SECRET, said), is_content=True)
        else:
            asked = Proof(public_id(said), said, is_content=True)
        yield prove(f"source {source!r}", asked)
        yield prove(f"digest of {source!r}", Proof(asked.id, is_content=True))
    yield prove("row 0", named(scheme, "photos", 0))


def of_a_resumed_run(folder: Path) -> Iterator[Case]:
    """Steps 3 and 4 are undone by a resume from step 2, and taken again; the record has a gap."""
    made, writing = start_trace(folder, samples=8, parts=3)
    for rows in ([0, 1], [0, 2], [0, 3], [0, 4]):
        writing.use(rows)
        keep(writing)
    writing.recorder.record("resume", {"writers": [], "step": 2})
    writing.step = 2
    writing.use([0, 5], epoch=1)
    writing.recorder.record("gap", {"reason": "a worker died"})
    writing.end()
    made.seal()
    prove = Prove(folder, made.trace, made.verifier)
    for row in range(7):
        for entries in (False, True):
            yield prove(f"row {row}", named("public", "digits", row), entries=entries)
            yield prove(f"row {row}", named("public", "digits", row), "history", entries=entries)
    yield prove("row 0", named("public", "digits", 0), checkpoint=1)


def of_an_uncertain_batch(folder: Path) -> Iterator[Case]:
    """A batch that may have left samples out, one that the recording program declared, and one that was seen."""
    made, writing = start_trace(folder, samples=4)
    for step, (row, sure) in enumerate(((0, "among"), (1, "declared"), (2, "exact")), 1):
        batch = (0, step - 1, step, STATUS["applied"], ATTRIBUTION[sure])
        writing.recorder.use(writing.placement, 1, 1, batch, array("I", [row]))
        writing.recorder.flush()
    writing.end()
    made.seal()
    prove = Prove(folder, made.trace, made.verifier)
    for row in range(4):
        for entries in (False, True):
            yield prove(f"row {row}", named("public", "digits", row), entries=entries)
            yield prove(f"row {row}", named("public", "digits", row), "history", entries=entries)


def of_a_graph(folder: Path, scheme: str) -> Iterator[Case]:
    """Nodes as seeds, as neighbours at each hop of sampled and of whole graphs, and delivered in vain."""
    life = live_on_a_graph(folder, scheme=scheme)
    prove = Prove(folder, life.made.trace, life.made.verifier, SECRET if scheme == "keyed" else None)
    for row in range(9):
        for claim in (None, "history", *(["label never used"] if row in (4, 6, 7, 8) else [])):
            for entries in (False, True):
                yield prove(f"row {row}", named(scheme, "digits", row), claim, entries=entries)
    for number in (0, 2):
        yield prove(f"crop {number}", Proof(life.crops[number]), "label never used", entries=True)


def keep(writing: Writing) -> None:
    digest = hashlib.sha256(b"%d" % writing.step).digest()
    writing.recorder.record("checkpoint", {"step": writing.step, "kept": True, "digest": digest, "rule": "all"})


def of_rare_kinds(folder: Path) -> Iterator[Case]:
    """Attention (twice in one entry) and an erasure; the run has not ended, and nobody has a role twice."""
    made, writing = start_trace(folder, samples=4)
    ordinals = writing.placement.ordinals
    reference = writing.recorder.record("checkpoint", {"step": 1, "kept": True, "rule": "kept"})
    weights = {"modalities": ["a"], "weights": np.ones(2, "<f4"), "ordinals": ordinals[[2, 2]]}
    writing.recorder.record("attention", {"checkpoint": list(reference), "step": 1, "block": writing.block, **weights})
    said = {"pseudonym": bytes(32), "block": writing.block, "ordinals": ordinals[[2]], "artifacts": ["x"]}
    writing.recorder.record("erasure", said)
    writing.recorder.record("roles", {"role": "excluded", "block": writing.block, "ordinals": ordinals[[2]]})
    writing.recorder.rotate()
    made.seal()
    prove = Prove(folder, made.trace, made.verifier)
    for entries in (False, True):
        yield prove("row 2", named("public", "digits", 2), "history", entries=entries)
        yield prove("row 3", named("public", "digits", 3), entries=entries)
