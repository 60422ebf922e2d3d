"""A trace in which something of everything happens to a few samples, and what is true of them."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.commit.signer import Signer
from fgtrac.events.codec import encode
from fgtrac.events.identity import block_id, content_preimage, make_ids, preimage
from fgtrac.events.schema import ATTRIBUTION, STATUS
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from traces import DATASET, SECRET_SEED, TRACE_ID, Made, Writing, start_trace

SAMPLES = 12
STAGES = "crops"
SECRET = hashlib.sha256(SECRET_SEED).digest()  # the id key of keyed traces made here


@dataclass(frozen=True, slots=True)
class Life:
    """The trace and the ids of its crops, made of rows 0 and 1."""

    made: Made
    crops: tuple[bytes, ...]

    @property
    def path(self) -> Path:
        return self.made.trace.path

    def name(self, row: int) -> str:
        return f"id:{self.made.ids[row].hex()}"


def live(folder: Path, *, scheme: str = "public", vault: bool = False, parts: int = 3) -> Life:
    """Rows 0 to 3 are used in steps 1 and 2 (with losses in step 2), row 4 is delivered in vain, row 5 dropped as
    equal to row 0, rows 0 and 1 become three crops, row 2 is predicted at the kept checkpoint of step 2, row 6 looks on
    as a neighbour in step 3, row 7 gets a contribution; the rest is registered and no more."""
    made, writing = start_trace(folder, samples=SAMPLES, scheme=scheme, parts=parts)
    ordinal = writing.placement.ordinals
    drop(writing, ordinal)
    crops = crop(writing, ordinal, scheme)
    batch(writing, 1, [0, 1, 2, 3], 1)
    batch(writing, 2, [3, 2, 1, 0], 2, losses=[0.5, 0.25, 2.0, 1.0])
    batch(writing, 3, [4], None)
    fields = {"step": 2, "epoch": 0, "val_loss": 0.5, "kept": True, "rule": "kept: the first"}
    reference = writing.recorder.record("checkpoint", fields)
    writing.recorder.record("checkpoint", {"step": 3, "kept": False, "rule": "dropped: no better"})
    asked = {"block": writing.block, "ordinals": ordinal[[2, 8]]}
    outputs = {"outputs": np.array([0.1, 0.9, 0.8, 0.2], "<f4"), "losses": np.array([0.125, np.inf], "<f4")}
    writing.recorder.record("prediction", {"checkpoint": list(reference), "step": 2, **asked, **outputs})
    node_use(writing, 3, [9], [[6], [10]], block=writing.block, graph="sampled", ordinal=ordinal)
    scored = {"checkpoint": list(reference), "step": 2, "target": "validation", "method": "tracin"}
    scores = np.array([-0.5], "<f4")
    writing.recorder.record(
        "contribution", {**scored, "block": writing.block, "ordinals": ordinal[[7]], "scores": scores}
    )
    writing.end()
    made.seal()
    if vault:
        keep_names(folder, made)
    return Life(made, crops)


def drop(writing: Writing, ordinal: np.ndarray) -> None:
    stage = {"stage": "same", "operation": "deduplicate", "block": writing.block}
    writing.recorder.record("transform", {**stage, "kept": np.delete(ordinal, 5)})
    writing.recorder.record("transform", {**stage, "dropped": ordinal[[5]], "same_as": writing.made.ids[0]})


def crop(writing: Writing, ordinal: np.ndarray, scheme: str) -> tuple[bytes, ...]:
    """Crop 0 of row 0, crop 1 of row 0, crop 2 of rows 0 and 1."""
    return crop_of(writing, ordinal, scheme, [(0, 0), (0, 1), (0, 2), (1, 2)])[1]


def crop_of(
    writing: Writing, ordinal: np.ndarray, scheme: str, made: list[tuple[int, int]]
) -> tuple[bytes, tuple[bytes, ...], np.ndarray]:
    """Three crops, of rows as (row, crop) says: their block, their ids, and their ordinals."""
    key = SECRET if scheme == "keyed" else b""
    crops = split(make_ids(scheme, key, [preimage(STAGES, n) for n in range(3)]))
    ids = sorted(crops)
    block = block_id(b"".join(ids))
    writing.recorder.record("dataset", {"name": STAGES, "id_scheme": scheme, "rows": 3})
    fields = {"dataset": STAGES, "block": block, "part": 0, "parts": 1, "ids": b"".join(ids)}
    writing.recorder.record("samples", fields)
    place = np.array([ids.index(c) for c in crops], "<u4")
    pairs = {"parents": ordinal[[row for row, _ in made]], "children": place[[crop for _, crop in made]]}
    stage = {"stage": STAGES, "operation": "record", "block": writing.block, "child_block": block}
    writing.recorder.record("transform", {**stage, **pairs})
    return block, tuple(crops), place


def batch(writing: Writing, number: int, rows: list[int], step: int | None, losses: list[float] | None = None) -> None:
    status = "unapplied" if step is None else "applied"
    said = (0, number - 1, 2**64 - 1 if step is None else step, STATUS[status], ATTRIBUTION["exact"])
    half = None if losses is None else np.array(losses, "<f2")
    writing.recorder.use(writing.placement, 1, 1, said, array("I", rows), half)
    writing.recorder.flush()


def live_on_a_graph(folder: Path, *, scheme: str = "public") -> Life:
    """Of 9 nodes (rows) 0 to 3 are seeds. In two sampled updates 6 is a neighbour at hop 1, twice, and 4 at hop 2 once.
    Two updates on the whole graph (two message-passing steps) have 4 and 6 at hop 1, 5 at hop 2, and 7 and 8 out of
    reach; a resume undoes the first of these. A batch with the seed 7 and the neighbour 8 is delivered in vain. Crop 0,
    of rows 0 and 6, is a neighbour; crop 1, of row 5, a seed; crop 2, of row 8, neither."""
    made, writing = start_trace(folder, samples=9, scheme=scheme, parts=3)
    ordinal = writing.placement.ordinals
    block, crops, place = crop_of(writing, ordinal, scheme, [(0, 0), (6, 0), (5, 1), (8, 2)])
    mine = {"block": writing.block, "graph": "sampled", "ordinal": ordinal}
    node_use(writing, 1, [0, 1], [[2, 6], [4]], **mine)
    node_use(writing, 2, [2, 3], [[6], [0]], **mine)
    node_use(writing, None, [7], [[8], []], **mine)
    whole = mine | {"graph": "whole"}
    node_use(writing, 3, [0, 1, 2, 3], [[4, 6], [5], [7, 8]], **whole)
    writing.recorder.record("resume", {"writers": [], "step": 2})
    node_use(writing, 3, [0, 1, 2, 3], [[4, 6], [5], [7, 8]], **whole)
    node_use(writing, 4, [1], [[0]], block=block, graph="sampled", ordinal=place)
    writing.end()
    made.seal()
    return Life(made, crops)


def node_use(
    writing: Writing, step: int | None, seeds: list[int], hops: list[list[int]], *, block: bytes, graph: str,
    ordinal: np.ndarray,
) -> None:  # fmt: skip
    """One batch of nodes, applied in a step or (None) not at all."""
    one, neighbours = np.ones(1, "<u4"), [node for hop in hops for node in hop]
    status = STATUS["unapplied" if step is None else "applied"]
    columns = {"epoch": 0 * one, "batch": 3 * one, "step": np.array([2**64 - 1 if step is None else step], "<u8")}
    codes = {"status": np.array([status], "<u1"), "attribution": np.array([ATTRIBUTION["exact"]], "<u1")}
    fields = {"loader": 1, "optimizer": 1, "block": block, "count": len(seeds) * one, "ordinals": ordinal[seeds]}
    beside = {"graph": graph, "hops": len(hops), "hop_count": np.array([len(hop) for hop in hops], "<u4")}
    beside["hop_ordinals"] = ordinal[np.array(neighbours, np.intp)]
    writing.recorder.record("use", {**fields, **columns, **codes, **beside})


def among(writing: Writing, step: int, rows: list[int]) -> None:
    """A batch of an update that may have left some of these rows out."""
    one = np.ones(1, "<u4")
    columns = {"epoch": one, "batch": one, "step": np.array([step], "<u8"), "count": len(rows) * one}
    codes = {"status": np.array([STATUS["applied"]], "<u1"), "attribution": np.array([ATTRIBUTION["among"]], "<u1")}
    fields = {"loader": 1, "optimizer": 1, "block": writing.block, "ordinals": writing.placement.ordinals[rows]}
    writing.recorder.record("use", {**fields, **columns, **codes})


def use_excluded_samples(folder: Path) -> Life:
    """Of 16 rows with the role train 0 to 7 are excluded, and used in every way: 0, 1 and 2 as seeds (0 and 2 also, or
    only, in a step that a resume undid), 3 perhaps, 4 and 5 as neighbours, 6 through crop 0, a seed on a whole graph,
    and 7 through crop 2, out of its reach. Of the others 8, 9 and 11 are used, 10 perhaps, and 12 through crop 1."""
    made, writing = start_trace(folder, samples=16)
    ordinal = writing.placement.ordinals
    writing.recorder.record("roles", {"role": "excluded", "block": writing.block, "ordinals": np.sort(ordinal[:8])})
    block, crops, place = crop_of(writing, ordinal, "public", [(6, 0), (12, 1), (7, 2)])
    batch(writing, 1, [0, 1], 1)
    batch(writing, 2, [0, 2], 2)
    writing.recorder.record("resume", {"writers": [], "step": 1})
    batch(writing, 3, [8, 9], 2)
    among(writing, 3, [3, 10])
    node_use(writing, 4, [11], [[4], [5]], block=writing.block, graph="sampled", ordinal=ordinal)
    node_use(writing, 5, [0], [[1], [2]], block=block, graph="whole", ordinal=place)
    writing.end()
    made.seal()
    return Life(made, crops)


def keep_names(folder: Path, made: Made) -> None:
    """A vault that knows the rows of the data set."""
    vault = Vault.create(folder / "run.vault", TRACE_ID)
    vault.put_names((sample, DATASET, encode(row), None) for row, sample in enumerate(made.ids))
    vault.close()


def live_with_contents(folder: Path, *, scheme: str = "public", known: bool = True, ended: bool = True) -> Made:
    """Four samples of one data set `photos` whose sources are the bytes b"0", b"1", b"1", b"2", sealed.

    The id key of a keyed trace is SECRET. With known=False the data set does not say what its sources are;
    with ended=False the run has no end.
    """
    key = SECRET if scheme == "keyed" else b""
    sources = [content_preimage(hashlib.sha256(source).digest()) for source in (b"0", b"1", b"1", b"2")]
    ids, contents = (split(make_ids(scheme, key, p)) for p in ([preimage("photos", row) for row in range(4)], sources))
    signer = Signer(TRACE_ID, Ed25519PrivateKey.from_private_bytes(bytes(32)), folder / "heads" / TRACE_ID.hex())
    made = Made(TraceDir.create(folder / "run.trace"), signer, tuple(ids))
    writing = Writing(made, bytes((1,)) * 16)
    writing.run_entry(scheme)
    fields = {"name": "photos", "id_scheme": scheme, "rows": 4} | ({"content": "file"} if known else {})
    writing.recorder.record("dataset", fields)
    pairs = sorted(zip(ids, contents, strict=True))
    columns = {"ids": b"".join(i for i, _ in pairs), "contents": b"".join(c for _, c in pairs)}
    writing.recorder.record("samples", {"dataset": "photos", "block": writing.block, "part": 0, "parts": 1, **columns})
    if ended:
        writing.end()
    else:
        writing.recorder.close()
    made.seal()
    return made


def split(joined: bytes) -> list[bytes]:
    return [joined[i : i + 32] for i in range(0, len(joined), 32)]
