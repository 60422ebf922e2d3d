"""What the tables of a trace hold: each view's columns, their types and meaning, as plain data.

`docs/tables.md` says the same for people, and a test compares the two. A change here makes another cache: see FORMAT.
"""

from __future__ import annotations

from typing import NamedTuple

FORMAT = "v3"  # stands in the name of a cache: one with other columns is another

# type -> what it is called in docs/tables.md; "word" is a dictionary of few texts, "hex" digits of 32 or 16 bytes
TYPES = {
    "u2": "uint16", "u4": "uint32", "u8": "uint64", "f4": "float32", "f8": "float64", "bool": "bool", "text": "string",
    "word": "dictionary of string", "hex": "string", "time": "timestamp[us]", "f4s": "list of float32",
    "f8s": "list of float64",
}  # fmt: skip


class Column(NamedTuple):
    """A column: its name, its type (a key of TYPES), and what it says; null only where `says` tells when."""

    name: str
    type: str
    says: str


_SAMPLE = Column("sample", "u4", "the sample's number: its place among all ids of the trace in ascending order, from 0")
_ENTRY = Column("entry", "u8", "the number of the entry in the log that says so")
_STEP = Column("step", "u8", "the optimizer's step, from 1")
_CHECKPOINT = Column("checkpoint", "u8", "the entry of the model state; null where none is named")
_STANDING = Column("standing", "word", "what became of that state: kept, dropped or superseded")

VIEWS: dict[str, tuple[Column, ...]] = {
    "samples": (
        _SAMPLE,
        Column("id", "hex", "the sample's id, 64 hex digits"),
        Column("dataset", "word", "the data set that its last registration names"),
        Column("subject", "text", "the pseudonym of its subject, 64 hex digits; null without subjects"),
        Column("role", "word", "the role that was given last: train, validation, test, excluded; null without one"),
        Column("dropped", "bool", "whether a preprocessing stage dropped it"),
        Column("uses", "u4", "optimizer updates in which its own loss took part, without `among`"),
        Column("perhaps", "u4", "updates of which a batch named it that may have left it out (`among`)"),
        Column("neighbours", "u4", "updates in which only its features took part (graphs)"),
        Column(
            "through",
            "word",
            "whether updates used what stages made from it, directly or not: used, perhaps (`among` alone); else null",
        ),
        Column("deliveries", "u4", "batches that were delivered and not applied"),
        Column("predictions", "u4", "recorded predictions"),
        Column("first_step", "u8", "the first step among uses and neighbours; null without any"),
        Column("last_step", "u8", "the last such step; null without any"),
        Column(
            "contribution",
            "f8",
            "the sum of its contributions toward the mean validation loss over the checkpoints that are kept, by "
            "`contribution_method`; above 0, it lowered that loss; null where it has none",
        ),
        Column("contribution_method", "word", "tracin where the log has scores by it, else the first by name; or null"),
        Column("content", "text", "the digest of its content, 64 hex digits; null where the source is not known"),
        Column("registered", "u8", "the first entry that registers it"),
        Column("erased", "bool", "whether an erasure names it"),
    ),
    "uses": (
        _SAMPLE,
        _ENTRY,
        Column("step", "u8", "the optimizer's step, from 1; null where the batch was not applied"),
        Column("epoch", "u4", "the epoch, from 0"),
        Column("batch", "u4", "the loader's batch number in the epoch"),
        Column("loader", "u8", "the loader's number, in the order of first use"),
        Column("optimizer", "u8", "the optimizer's number, in the order of first use"),
        Column("status", "word", "applied, discarded or unapplied"),
        Column("attribution", "word", "how sure the pairing with the update is: exact, sole, fifo, declared, among"),
        Column("hop", "u2", "0 for a seed (its own loss took part), else the hop at which it was a neighbour"),
        Column("role", "word", "the role in force at that entry: the last that an earlier one gave it; null without"),
        Column("loss", "f4", "its own loss (recorded as float16); null where it was not recorded"),
        Column("superseded", "bool", "whether the run was resumed later from a step before this one"),
        Column("rank", "u8", "the rank that trained on it; null outside a training of several"),
        Column("writer", "word", "the process that recorded it, 32 hex digits"),
        Column("fit", "word", "what was fitted, where no optimizer made updates; else null"),
    ),
    "checkpoints": (
        _ENTRY,
        Column("time", "time", "when the entry was written, UTC"),
        Column("step", "u8", "the last applied update"),
        Column("epoch", "u8", "the epoch; null where none was given"),
        Column("val_loss", "f8", "the validation loss; null where none was given"),
        Column("learning_rates", "f8s", "in force at the last update of each optimizer; null where not known"),
        Column("digest", "text", "SHA-256 of the tensors, 64 hex digits; null without"),
        Column("kept", "bool", "whether the entry says that the state is kept"),
        Column("standing", "word", "what became of it: kept, dropped (or never kept) or superseded"),
        Column("rule", "text", "why it was kept or not"),
        Column("writer", "word", "the process that wrote it, 32 hex digits"),
    ),
    "contributions": (
        _SAMPLE,
        _ENTRY,
        _CHECKPOINT,
        _STEP,
        Column("target", "word", "toward what: validation, id:HEX or artifact:PATH"),
        Column("method", "word", "how it was computed, with its damping"),
        Column("score", "f4", "the signed share; above 0, the sample lowered the target's loss"),
        _STANDING,
    ),
    "predictions": (
        _SAMPLE,
        _ENTRY,
        _CHECKPOINT,
        _STEP,
        Column("loss", "f4", "the loss; null where it was not recorded"),
        Column("outputs", "f4s", "the model's outputs; null where they were not recorded"),
    ),
    "attention": (
        _SAMPLE,
        _ENTRY,
        _CHECKPOINT,
        _STEP,
        Column("modality", "word", "the modality"),
        Column("weight", "f4", "its weight"),
        _STANDING,
    ),
    "metrics": (
        _ENTRY,
        Column("time", "time", "when the entry was written, UTC"),
        Column("step", "u8", "the update that the value belongs to"),
        Column("name", "word", "the metric"),
        Column("value", "f8", "its value"),
    ),
    "roles": (
        _SAMPLE,
        _ENTRY,
        Column("time", "time", "when the entry was written, UTC"),
        Column("role", "word", "train, validation, test or excluded"),
    ),
    "entries": (
        Column("number", "u8", "the entry's number in the log, from 0"),
        Column("kind", "word", "its kind"),
        Column("time", "time", "when it was written, UTC"),
        Column("writer", "word", "the process that wrote it, 32 hex digits"),
        Column("seq", "u8", "its number among that process's entries"),
        Column("step", "u8", "its step; of a use entry the last one; null without"),
        Column("size", "u4", "its bytes"),
    ),
}

NAMES: tuple[Column, ...] = (
    Column("id", "hex", "the sample's id, 64 hex digits"),
    Column("name", "text", "what `fgtrac history` takes: DATASET:ROW or DATASET:key:JSON"),
    Column("subject_name", "text", "its subject as it was given; null without"),
)
