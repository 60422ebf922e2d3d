"""What an entry may say: every kind and field of the design, and every way in which an event does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from fgtrac.errors import FormatError
from fgtrac.events import schema
from fgtrac.events.codec import encode
from fgtrac.events.schema import KINDS, MAX_ENTRY_BYTES, REQUIRED, decode_event, encode_event

Examples = Mapping[str, Mapping[str, Any]]

# The design's table of entries, section 4: what each kind must be able to say.
DESIGN = {
    "run": {"trace", "format", "git_commit", "git_dirty", "versions", "config", "public_key", "key_commitment"},
    "dataset": {"name", "id_scheme", "rows"},
    "samples": {"dataset", "block", "ids", "contents", "subjects", "part", "parts"},
    "roles": {"role", "block", "ordinals"},
    "transform": {
        "stage", "parameters", "code", "kept", "dropped", "parents", "children", "child_block", "starts", "stops",
    },
    "sampler": {"epoch", "sampler", "parameters", "state", "state_commitment"},
    "use": {
        "loader", "optimizer", "block", "epoch", "batch", "step", "status", "attribution", "count", "ordinals",
        "losses", "graph", "hops", "hop_count", "hop_ordinals", "fit",
    },
    "metrics": {"step", "values"},
    "attention": {"checkpoint", "modalities", "ordinals", "weights"},
    "checkpoint": {"step", "epoch", "val_loss", "learning_rates", "digest", "kept", "rule"},
    "artifact": {"path", "sha256", "size", "media_type", "about"},
    "contribution": {"checkpoint", "target", "method", "ordinals", "scores", "parameters"},
    "prediction": {"checkpoint", "ordinals", "outputs", "losses"},
    "resume": {"writers"},
    "join": {"rank", "ranks", "began"},
    "leave": set(),
    "gap": {"reason", "first", "stop"},
    "end": {"writers"},
    "key": {"public_key", "old_signature", "new_signature"},
    "erasure": {"pseudonym", "block", "ordinals", "artifacts"},
    "seal": {"root", "leaves", "entries", "counts", "epoch_steps"},
}  # fmt: skip


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.tobytes() == b.tobytes()
    return bool(a == b)


def changed(event: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """The event with other fields; None takes one away."""
    return {name: value for name, value in (event | fields).items() if value is not None}


def refused(event: Mapping[str, Any], words: str) -> None:
    """The event is refused as a value and as bytes."""
    with pytest.raises(ValueError, match=words):
        encode_event(event)
    with pytest.raises(FormatError, match=words):
        decode_event(encode(event))


def test_every_kind_and_field_of_the_design_is_there(examples: Examples) -> None:
    assert KINDS.keys() == DESIGN.keys() == examples.keys()
    for kind, fields in DESIGN.items():
        assert fields | {"kind", "time", "writer", "seq"} <= KINDS[kind].keys()
        assert examples[kind].keys() == KINDS[kind].keys()


@pytest.mark.parametrize("kind", DESIGN)
def test_an_entry_of_every_kind_comes_back(examples: Examples, kind: str) -> None:
    data = encode_event(examples[kind])
    back = decode_event(data)
    assert back.keys() == examples[kind].keys()
    assert all(same(back[name], value) for name, value in examples[kind].items())
    assert encode_event(back) == data


@pytest.mark.parametrize("kind", DESIGN)
def test_an_entry_needs_its_required_fields_and_takes_no_others(examples: Examples, kind: str) -> None:
    for name in REQUIRED[kind]:
        if name != "kind":
            refused(changed(examples[kind], **{name: None}), f"needs the field {name}")
    refused(changed(examples[kind], surprise=1), f"a {kind} entry has no field 'surprise'")


ODD = [
    0, 1, -1, 2**63, True, 1.0, float("inf"), "", "train", b"", bytes(16), bytes(32), [], [1], [[]], [[b"", 1]], [""],
    {}, {"a": {}}, {"": b""}, np.zeros(0, "u1"), np.zeros(2, "u4"), np.ones(3, "u8"), np.zeros(1, "f4"), [{"a": []}],
]  # fmt: skip


@pytest.mark.parametrize("kind", DESIGN)
def test_any_type_in_any_field_gives_a_format_error_or_an_entry(examples: Examples, kind: str) -> None:
    wrong = 0
    for name in KINDS[kind]:
        for odd in ODD:
            data = encode(changed(examples[kind], **{name: odd}))
            try:
                back = decode_event(data)
            except FormatError:
                wrong += 1
            else:
                assert encode_event(back) == data
    assert wrong > 15 * len(KINDS[kind])


def test_an_array_without_dimensions_is_described_not_stumbled_over(examples: Examples) -> None:
    for odd in (np.array(5, "u4"), np.zeros((2, 2), "u4"), None, object(), {1: 2}):
        with pytest.raises(ValueError, match="ordinals of a roles entry cannot be"):
            encode_event(dict(examples["roles"]) | {"ordinals": odd})


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("run", {"key_commitment": None}, "keyed ids needs the field key_commitment"),
        ("run", {"format": 2}, "format of a run"),
        ("run", {"format": True}, "format of a run"),
        ("run", {"id_scheme": "secret"}, "id_scheme of a run"),
        ("samples", {"ids": bytes(96)}, "do not ascend"),
        ("samples", {"ids": b"\2" * 32 + b"\1" * 32 + b"\3" * 32}, "do not ascend"),
        ("samples", {"ids": bytes(32)}, "1 ids?|belong|32 ids"),
        ("samples", {"contents": bytes(64)}, "96 ids and 64 contents"),
        ("samples", {"subjects": bytes(64)}, "96 ids and 64 subjects"),
        ("samples", {"part": 1}, "part 1 of 1"),
        ("roles", {"role": "practice"}, "role of a roles entry"),
        ("transform", {"operation": "stir"}, "operation of a transform"),
        ("transform", {"children": None}, "together, or none"),
        ("transform", {"children": np.zeros(1, "u4")}, "3 parents and 1 children"),
        ("transform", {"starts": None}, "starts and stops together"),
        ("transform", dict.fromkeys(("child_block", "parents", "children")), "beside parents and children"),
        ("transform", {"stops": np.zeros(1, "u4")}, "3 parents and 1 stops"),
        ("transform", {"stops": np.zeros(3, "u4")}, "stops before it starts"),
        ("transform", {"same_as": bytes(64)}, "32 bytes for each dropped"),
        ("transform", {"same_as": b"", "dropped": None}, "32 bytes for each dropped"),
        (
            "transform",
            dict.fromkeys(("kept", "dropped", "same_as", "child_block", "parents", "children", "starts", "stops")),
            "names nothing",
        ),
        ("use", {"count": np.array([2, 2], "u4")}, "add up to 4, but it has 3"),
        ("use", {"count": np.array([2**32 - 1, 4], "u4")}, "add up to 4294967299"),
        ("use", {"count": np.array([3], "u4")}, "1 count and 2 epoch"),
        ("use", {"losses": np.zeros(2, "f2")}, "3 ordinals and 2 losses"),
        ("use", {"status": np.array([0, 2], "u1")}, "status .* not 0"),
        ("use", {"status": np.array([1, 4], "u1")}, "status .* not 4"),
        ("use", {"attribution": np.array([1, 9], "u1")}, "attribution .* not 9"),
        ("use", {"status": np.array([1, 1], "u1")}, "step for applied batches"),
        ("use", {"step": np.array([1, 2], "u8")}, "step for applied batches"),
        ("use", {"attribution": np.array([1, 4], "u1")}, "names a fit is declared"),
        ("use", {"hops": None}, "together, or none"),
        ("use", {"graph": None}, "together, or none"),
        ("use", dict.fromkeys(("hops", "hop_count", "hop_ordinals")), "together, or none"),
        ("use", {"graph": "full"}, "graph of a use entry"),
        ("use", {"hops": 2**63}, "each of 2 batches and"),
        ("use", {"hop_count": np.array([1, 0, 0, 2], "u4")}, "do not add up"),
        (
            "use",
            {n: np.zeros(0, t) for n, t in (("count", "u4"), ("epoch", "u4"), ("batch", "u4"), ("step", "u8"),
             ("status", "u1"), ("attribution", "u1"), ("ordinals", "u4"), ("losses", "f2"))},
            "at least one batch",
        ),
        ("metrics", {"values": {"loss": True}}, "values of a metrics"),
        ("attention", {"weights": np.zeros(3, "f4")}, "3 weights and needs 2"),
        ("contribution", {"scores": np.zeros(3, "f4")}, "2 ordinals and 3 scores"),
        ("contribution", {"checkpoint": [bytes(16)]}, "checkpoint of a contribution"),
        ("prediction", {"outputs": np.zeros(3, "f4")}, "3 outputs for 2 samples"),
        ("prediction", {"losses": np.zeros(3, "f4")}, "2 ordinals and 3 losses"),
        ("join", {"rank": 2}, "rank 2 of 2"),
        ("join", {"began": [bytes(16)]}, "began of a join"),
        ("gap", {"first": None}, "together"),
        ("gap", {"first": 5}, "first below stop"),
        ("key", {"old_signature": bytes(63)}, "cannot be 63 bytes"),
        ("seal", {"counts": {"use": -1}}, "counts of a seal"),
    ],
)  # fmt: skip
def test_an_event_that_does_not_fit_its_kind_is_refused(
    examples: Examples, kind: str, fields: dict[str, Any], words: str
) -> None:
    refused(changed(examples[kind], **fields), words)


@pytest.mark.parametrize("kind", [None, 5, [], {}, "", "USE", "useful" * 100])
def test_an_unknown_kind_is_refused_in_one_short_line(kind: Any) -> None:
    event = {"kind": kind} if kind is not None else {}
    with pytest.raises(FormatError, match="entry kind") as caught:
        decode_event(encode(event))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [5, [], "text", b"bytes", np.zeros(3, "u4")])
def test_an_entry_is_a_map(value: Any) -> None:
    with pytest.raises(FormatError, match="an entry is a map"):
        decode_event(encode(value))


def test_an_entry_of_65535_bytes_is_the_longest(examples: Examples) -> None:
    event = dict(examples["gap"])
    event["detail"] = "x" * (MAX_ENTRY_BYTES - len(encode_event(event | {"detail": "x" * 60_000})) + 60_000)
    assert len(encode_event(event)) == MAX_ENTRY_BYTES
    event["detail"] += "x"
    with pytest.raises(ValueError, match="65,536 bytes and the most is 65,535"):
        encode_event(event)
    with pytest.raises(FormatError, match="the most is 65,535"):
        decode_event(encode(event))


def test_codes_are_numbered_from_1_without_a_hole() -> None:
    for codes in (schema.ROLES, schema.STATUS, schema.ATTRIBUTION, schema.TRANSFORM):
        assert list(codes.values()) == list(range(1, len(codes) + 1))
