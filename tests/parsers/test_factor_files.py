"""Bytes from a stranger's trace, given to the readers of factor files: a value, or a FormatError of one line.

The outer form stays while what is inside is changed, as in test_mutations; a check of its own, written without the
parser, says how many inputs got past the first one.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fgtrac.api.explanation import Fidelity
from fgtrac.api.measured import FOLDER as MEASURES
from fgtrac.api.measured import find_fidelity
from fgtrac.errors import FormatError, ScoreError
from fgtrac.score.factor_files import (
    Rows,
    ShardHead,
    State,
    encode_ggn,
    encode_losses,
    encode_rows,
    encode_shard,
    gradients_of,
    parse_head,
    parse_rows,
)
from fgtrac.score.gradients import Gradients, Layer, parse_layer
from fgtrac.score.target_files import encode_target, target_of
from fgtrac.store.tensor_files import TYPES, Tensor, bfloat16, encode_tensors, open_tensors, parse_tensors
from fgtrac.store.trace_dir import TraceDir

Draw = Callable[[st.SearchStrategy[Any]], Any]
FACTORED = Layer("fc", "factored", 3, 2, True)
DENSE = Layer("conv.0", "dense", 2, 2, False)
PROJECTED = Layer("head", "projected", 40, 30, True, 4, 3, 7, 0.125)
LAYERS = (FACTORED, DENSE, PROJECTED)
ROWS = Rows(
    (bytes(16), bytes(range(16))), np.array([5, 0, 2], np.uint32), np.array([0, 1, 1], np.uint16),
    np.array([1, -100, 3], np.int32),
)  # fmt: skip
HEAD = ShardHead(bytes(range(32)), 28, "train", 256, 260, 1000, bytes(32), LAYERS, (0.1, 0.05, 1e-3))
few = settings(max_examples=200, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])


def gradients(n: int, seed: int = 0) -> tuple[Gradients, ...]:
    draw = np.random.default_rng(seed)

    def numbers(width: int) -> Any:
        return draw.standard_normal((n, width)).astype(np.float32)

    return (
        Gradients(FACTORED, inputs=numbers(3), deltas=numbers(2)),
        Gradients(DENSE, dense=numbers(DENSE.size)),
        Gradients(PROJECTED, dense=numbers(PROJECTED.size)),
    )


SHARD = encode_shard(HEAD, gradients(4), "float16")


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """A safetensors file's header and what follows it."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(header: Any, rest: bytes) -> bytes:
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + rest


def one_line(error: Exception) -> None:
    assert "\n" not in str(error)
    assert str(error)


# -- safetensors --------------------------------------------------------------------------------------------------

ODD = st.one_of(
    st.sampled_from([None, True, -1, 0, 2**63, 2**70, 1.5, float("nan"), "", "F32", "F8_E4M3", [], [0], [2, 2], {}]),
    st.lists(st.integers(-1, 2**50), max_size=4),
    st.text(max_size=4),
)


def mutated_tensors(draw: Draw) -> bytes:
    """The shard with one thing in its header changed, or its bytes cut, grown or shifted."""
    header, rest = split(SHARD)
    header = copy.deepcopy(header)
    names = [name for name in header if name != "__metadata__"]
    how = draw(st.sampled_from(["field", "field", "drop field", "drop", "copy", "metadata", "odd", "cut", "grow"]))
    name = draw(st.sampled_from(names))
    if how == "field":
        field = draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
        shifted = [n + draw(st.integers(-2, 2)) for n in header[name][field]] if field != "dtype" else "BF16"
        header[name][field] = draw(st.one_of(ODD, st.just(shifted)))
    elif how == "drop field":
        del header[name][draw(st.sampled_from(["dtype", "shape", "data_offsets"]))]
    elif how == "drop":
        del header[name]
    elif how == "copy":
        header[name + "'"] = header[name]
    elif how == "metadata":
        header["__metadata__"] = draw(ODD)
    elif how == "odd":
        header[name] = draw(ODD)
    elif how == "cut":
        rest = rest[: -draw(st.integers(1, len(rest)))]
    else:
        rest += draw(st.binary(min_size=1, max_size=9))
    return join(header, rest)


def test_a_changed_tensor_file_is_refused_or_read_whole() -> None:
    seen = passed = refused = 0

    @few
    @given(st.data())
    def run(data: st.DataObject) -> None:
        nonlocal seen, passed, refused
        file = mutated_tensors(data.draw)
        seen += 1
        passed += 0 < int.from_bytes(file[:8], "little") <= len(file) - 8
        try:
            found = parse_tensors(file)
        except FormatError as error:
            refused += 1
            one_line(error)
            return
        tensors = dict(found.tensors)
        assert sum(t.array.nbytes for t in tensors.values()) == len(split(file)[1])
        again = parse_tensors(b"".join(encode_tensors(tensors, found.metadata)))
        assert again.metadata == found.metadata
        assert same(again.tensors, tensors)

    run()
    assert passed >= 0.9 * seen
    assert 0.1 * seen <= refused < seen


def same(a: Any, b: Any) -> bool:
    return a.keys() == b.keys() and all(
        (a[n].type, a[n].array.shape, a[n].array.tobytes()) == (b[n].type, b[n].array.shape, b[n].array.tobytes())
        for n in a
    )


@few
@given(st.one_of(st.binary(max_size=100), st.binary(max_size=40).map(lambda b: len(b).to_bytes(8, "little") + b)))
def test_arbitrary_bytes_are_a_tensor_file_or_refused(data: bytes) -> None:
    try:
        parse_tensors(data)
    except FormatError as error:
        one_line(error)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (b"", "0 bytes"),
        (b"\xff" * 8, "with a header of"),
        (join([], b""), "no map"),
        (b"\x02" + bytes(7) + b"\xff\xfe", "no JSON"),
        (len(b"[" * 9000).to_bytes(8, "little") + b"[" * 9000, "no JSON"),
        (join({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)), "does not fill"),
        (join({"a": {"dtype": "I8", "shape": [2], "data_offsets": [0, 2]}}, bytes(2)), "of type 'I8'"),
        (join({"a": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}}, bytes(3)), "hole or overlap at byte 0"),
        (join({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}, bytes(3)), "of which its header names"),
        (join({"a": {"dtype": "U8", "shape": [2.0], "data_offsets": [0, 2]}}, bytes(2)), "has shape"),
        (join({"a": {"dtype": "U8", "shape": [True], "data_offsets": [0, 1]}}, bytes(1)), "has shape"),
        (join({"__metadata__": {"a": 1}}, b""), "no map from text to text"),
        (b"\x13" + bytes(7) + b'{"a": {}, "a": {}}  ', "stands there twice"),
    ],
)  # fmt: skip
def test_each_way_in_which_a_tensor_file_is_wrong_has_its_words(file: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        parse_tensors(file)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    for data in (b"", b"hello, this is no tensor file at all"):
        (tmp_path / "x.safetensors").write_bytes(data)
        with pytest.raises(FormatError, match=r"x\.safetensors is no safetensors file"):
            open_tensors(tmp_path / "x.safetensors")


ARRAYS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6).filter(lambda n: n != "__metadata__"),
    st.tuples(st.sampled_from(sorted(set(TYPES) - {"BF16"})), st.lists(st.integers(0, 3), max_size=3)).map(
        lambda pair: np.arange(int(np.prod(pair[1])), dtype=TYPES[pair[0]]).reshape(pair[1])
    ),
    max_size=4,
)
WORDS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), st.text(max_size=4), max_size=2)


@few
@given(ARRAYS)
def test_our_files_are_read_by_the_safetensors_library(arrays: dict[str, Any]) -> None:
    theirs = safetensors.numpy.load(b"".join(encode_tensors(arrays, {"format": "x"})))
    assert theirs.keys() == arrays.keys()
    assert all(theirs[n].dtype == a.dtype and np.array_equal(theirs[n], a) for n, a in arrays.items())
    assert all(theirs[n].shape == a.shape for n, a in arrays.items())


@few
@given(ARRAYS)
def test_files_of_the_safetensors_library_are_read_by_us(arrays: dict[str, Any]) -> None:
    ours = parse_tensors(safetensors.numpy.save(arrays, {"made": "elsewhere"}))
    assert ours.metadata == {"made": "elsewhere"}
    assert same(ours.tensors, {n: Tensor(kind_of(a), a) for n, a in arrays.items()})


def kind_of(array: Any) -> str:
    return next(kind for kind, dtype in TYPES.items() if kind != "BF16" and np.dtype(dtype) == array.dtype)


@few
@given(ARRAYS, WORDS)
def test_a_tensor_file_comes_back_and_is_written_again_byte_for_byte(arrays: dict[str, Any], words: Any) -> None:
    data = b"".join(encode_tensors(arrays, words))
    found = parse_tensors(data)
    assert found.metadata == words
    assert b"".join(encode_tensors(found.tensors, found.metadata)) == data
    backwards = dict(reversed(arrays.items()))
    assert b"".join(encode_tensors(backwards, words)) == data


def test_bfloat16_and_its_rounding_are_those_of_torch(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load, save

    bits = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32)
    edges = np.array([0, 1, 0x8000, 0x18000, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x3F808000, 0x3F818000], np.uint32)
    values = np.concatenate([edges, bits]).view(np.float32)
    values = values[~np.isnan(values)]
    theirs = torch.from_numpy(values).to(torch.bfloat16)
    ours = load(b"".join(encode_tensors({"x": bfloat16(values)}, {})))["x"]
    assert torch.equal(ours, theirs)
    back = parse_tensors(save({"x": theirs})).tensors["x"]
    assert back.type == "BF16"
    assert np.array_equal(back.float32(), theirs.float().numpy())


# -- rows, shards, layers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        Rows((bytes(16),), np.arange(7, dtype=np.uint32)),
        Rows((bytes(16),), np.empty(0, np.uint32), None, np.empty(0, np.int32)),
    ],
    ids=["several blocks", "one block", "empty"],
)
def test_rows_come_back(rows: Rows) -> None:
    data = encode_rows(rows, "train")
    found = parse_rows(parse_tensors(data))
    assert encode_rows(found, "train") == data
    assert found.blocks == rows.blocks
    assert [found.place(i) for i in range(len(rows))] == [rows.place(i) for i in range(len(rows))]
    assert all(found.find(*rows.place(i)) == i for i in range(len(rows)))
    assert found.find(b"\1" * 16, 0) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"blocks": None}, "holds blocks"),
        ({"blocks": np.zeros((2, 15), np.uint8)}, "holds blocks"),
        ({"blocks": np.zeros((0, 16), np.uint8)}, "holds blocks"),
        ({"blocks": np.zeros(16, np.uint8)}, "holds blocks"),
        ({"ordinals": None}, "holds blocks"),
        ({"ordinals": np.zeros(3, np.int32)}, "do not fit"),
        ({"ordinals": np.zeros((3, 1), np.uint32)}, "do not fit"),
        ({"ordinals": np.uint32(3).reshape(())}, "do not fit"),
        ({"which": None}, "do not fit"),
        ({"which": np.array([0, 1, 2], np.uint16)}, "do not fit"),
        ({"which": np.array([0, 1], np.uint16)}, "do not fit"),
        ({"labels": np.zeros(2, np.int32)}, "do not fit"),
        ({"labels": np.zeros(3, np.float32)}, "do not fit"),
    ],
)
def test_columns_of_rows_that_do_not_fit_are_refused(change: dict[str, Any], words: str) -> None:
    held = {name: tensor.array for name, tensor in parse_tensors(encode_rows(ROWS, "train")).tensors.items()} | change
    file = parse_tensors(b"".join(encode_tensors({n: a for n, a in held.items() if a is not None}, {})))
    with pytest.raises(FormatError, match=words):
        parse_rows(file)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_shard_comes_back_and_is_written_again_byte_for_byte(dtype: str) -> None:
    data = encode_shard(HEAD, gradients(4), dtype)
    file = parse_tensors(data)
    head = parse_head(file.metadata)
    assert head == HEAD
    found = gradients_of(file, head, slice(0, 4))
    assert encode_shard(head, found, dtype) == data
    part = gradients_of(file, head, slice(1, 3))
    for whole, some, truth in zip(found, part, gradients(4), strict=True):
        assert np.array_equal(whole.whole()[1:3], some.whole())
        assert np.allclose(whole.whole(), truth.whole(), rtol=0, atol={"bfloat16": 0.1, "float16": 0.01}.get(dtype, 0))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_what_cannot_be_kept_is_refused_with_a_count_and_the_first_row(dtype: str, bad: float) -> None:
    g = gradients(4)
    g[0].deltas[[1, 3], 0] = bad
    if dtype == "float32" and bad == 1e6:
        assert np.isfinite(gradients_of(parse_tensors(encode_shard(HEAD, g, dtype)), HEAD, slice(0, 4))[0].deltas).all()
        return
    with pytest.raises(ScoreError, match=r"2 of 4 rows .*deltas.* the first is row 257 \(train\)"):
        encode_shard(HEAD, g, dtype)


def changed_head(draw: Draw) -> dict[str, str]:
    """A shard's metadata with one of its words changed."""
    words = dict(parse_tensors(SHARD).metadata)
    name = draw(st.sampled_from(sorted(words)))
    if draw(st.integers(0, 9)) == 0:
        del words[name]
    elif name in ("range", "layers", "learning_rates"):
        words[name] = json.dumps(change(draw, json.loads(words[name])))
    else:
        at = draw(st.integers(0, len(words[name])))
        words[name] = words[name][:at] + draw(st.sampled_from(["0", "f", "-", " ", "٣", "_", "x"])) + words[name][at:]
    return words


def change(draw: Draw, value: Any) -> Any:
    """Something small inside a JSON value changed."""
    if isinstance(value, list) and value and draw(st.integers(0, 9)):
        at = draw(st.integers(0, len(value) - 1))
        new = draw(st.sampled_from([[], [change(draw, value[at])], [value[at]] * 2]))
        return [*value[:at], *new, *value[at + 1 :]]
    if isinstance(value, dict) and draw(st.integers(0, 9)):
        name = draw(st.sampled_from(sorted(value)))
        if (how := draw(st.integers(0, 5))) == 0:
            return {n: v for n, v in value.items() if n != name}
        if how == 1:
            return value | {draw(st.sampled_from(["error", "k_in", "x"])): draw(st.sampled_from([1, 0.5, None]))}
        return value | {name: change(draw, value[name])}
    odd = [None, True, -1, 0, 1, 2.0, 2**40, 2**70, float("nan"), float("inf"), "", "1", "dense", "projected", [], {}]
    return draw(st.sampled_from(odd))


def test_a_changed_head_of_a_shard_is_refused_or_understood_whole() -> None:
    seen = refused = 0

    @few
    @given(st.data())
    def run(data: st.DataObject) -> None:
        nonlocal seen, refused
        words = changed_head(data.draw)
        seen += 1
        try:
            head = parse_head(words)
        except FormatError as error:
            refused += 1
            one_line(error)
            return
        assert written(head) == {n: json.loads(w) if w[:1] in "[{" else w for n, w in words.items()}

    run()
    assert 0.5 * seen < refused


def written(head: ShardHead) -> dict[str, Any]:
    """What the metadata say, lists parsed: a shard of no rows is written with this head."""
    empty = [Gradients(x, **{n: np.empty((0, w), np.float32) for n, w in columns_of(x)}) for x in head.layers]
    metadata = parse_tensors(encode_shard(head, empty, "float32")).metadata
    return {n: json.loads(w) if w[:1] in "[{" else w for n, w in metadata.items()}


def columns_of(layer: Layer) -> list[tuple[str, int]]:
    if layer.form == "factored":
        return [("inputs", layer.d_in), ("deltas", layer.d_out)]
    return [("dense", layer.size)]


def test_a_shard_without_its_layers_columns_is_refused() -> None:
    file = parse_tensors(SHARD)
    for name, tensor in file.tensors.items():
        wrong = [
            {n: t for n, t in file.tensors.items() if n != name},
            dict(file.tensors) | {name: Tensor("F16", tensor.array[:3])},
            dict(file.tensors) | {name: Tensor("F64", tensor.array.astype("<f8"))},
        ]
        for tensors in wrong:
            with pytest.raises(FormatError, match=name.split("/")[0]):
                gradients_of(parse_tensors(b"".join(encode_tensors(tensors, file.metadata))), HEAD, slice(0, 4))


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.form)
def test_a_layer_comes_back(layer: Layer) -> None:
    assert parse_layer(layer.as_json()) == layer
    assert parse_layer(json.loads(json.dumps(layer.as_json()))) == layer


@few
@given(st.data())
def test_a_changed_layer_is_refused_or_understood_whole(data: st.DataObject) -> None:
    said = change(data.draw, data.draw(st.sampled_from(LAYERS)).as_json())
    try:
        layer = parse_layer(said)
    except FormatError as error:
        one_line(error)
        return
    assert layer.as_json() == said
    assert layer.size >= 1


@few
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["form", "name", "d_in"]), inner),
        max_leaves=6,
    )
)
def test_any_plain_data_is_a_layer_or_refused(value: Any) -> None:  # fmt: skip
    with pytest.raises(FormatError):
        parse_layer(value)


def test_losses_and_matrices_are_plain_tensor_files() -> None:
    losses = parse_tensors(encode_losses(np.array([0.5, 2], np.float32)))
    assert losses.tensors["losses"].float32().tolist() == [0.5, 2]
    matrix = parse_tensors(encode_ggn({"fc": np.eye(3, dtype=np.float32)}))
    assert np.array_equal(matrix.tensors["fc"].float32(), np.eye(3))


# -- targets, and what was measured -------------------------------------------------------------------------------

STATES = (State((bytes(16), 3), 28, bytes(range(32))), State((bytes(16), 9), 56, bytes(32)))


def target_file() -> bytes:
    """A target at two states: factored in the first layer of the first, whole everywhere else."""
    first, second = gradients(1, 1), gradients(1, 2)
    return encode_target(STATES, [first, (Gradients(FACTORED, dense=second[0].whole()), *second[1:])])


def test_a_target_comes_back_and_is_written_again_byte_for_byte() -> None:
    data = target_file()
    found = [target_of(parse_tensors(data), state, LAYERS) for state in STATES]
    assert encode_target(STATES, found) == data
    assert [g.is_factored for g in found[0]] == [True, False, False]
    assert np.array_equal(found[1][0].whole(), gradients(1, 2)[0].whole())


@pytest.mark.parametrize("state", STATES, ids=["first", "second"])
def test_a_target_file_that_lacks_or_adds_something_is_refused(state: State) -> None:
    file = parse_tensors(target_file())
    front = f"{state.step:08d}-{state.digest.hex()[:8]}/"
    for name, tensor in file.tensors.items():
        wrong: list[dict[str, Any]] = [
            {n: t for n, t in file.tensors.items() if n != name},
            dict(file.tensors) | {name: Tensor("F32", np.concatenate([tensor.array] * 2))},
            dict(file.tensors) | {name: Tensor("F64", tensor.array.astype("<f8"))},
        ]
        for tensors in wrong if name.startswith(front) else ():
            with pytest.raises(FormatError):
                target_of(parse_tensors(b"".join(encode_tensors(tensors, file.metadata))), state, LAYERS)
    both = dict(file.tensors) | {f"{front}fc/{n}": Tensor("F32", np.zeros((1, w), "<f4")) for n, w in SIZES}
    with pytest.raises(FormatError, match="no gradient of layer 'fc'"):
        target_of(parse_tensors(b"".join(encode_tensors(both, file.metadata))), state, LAYERS)


SIZES = (("inputs", 3), ("deltas", 2), ("gradients", 8))


@pytest.mark.parametrize("layers", [LAYERS[:2], LAYERS[::-1], (replace(FACTORED, bias=False), *LAYERS[1:])])
def test_a_target_of_other_layers_is_refused(layers: tuple[Layer, ...]) -> None:
    with pytest.raises(FormatError, match="of the layers"):
        target_of(parse_tensors(target_file()), STATES[0], layers)


MEASURED = {
    "format": "fgtrac fidelity 1", "method": "fisher 0.1", "steps": [3, 6], "lds": 0.5, "standard_error": 0.01,
    "subsets": 64, "targets": 200,
}  # fmt: skip


def measured(folder: Path, data: bytes) -> Fidelity | None:
    """What a trace with this file says of fidelity."""
    path = f"{MEASURES}/0.json"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(data)
    return find_fidelity(TraceDir(folder), {path: hashlib.sha256(data).digest()}, "fisher 0.1", (3, 6))


def test_what_was_measured_is_read_or_refused(tmp_path: Path) -> None:
    assert measured(tmp_path, json.dumps(MEASURED).encode()) == Fidelity(0.5, 0.01, 64, 200)
    seen = refused = 0

    @few
    @given(st.data())
    def run(data: st.DataObject) -> None:
        nonlocal seen, refused
        seen += 1
        said = change(data.draw, MEASURED)
        try:
            found = measured(tmp_path, json.dumps(said).encode())
        except FormatError as error:
            refused += 1
            one_line(error)
            return
        if found is not None:
            assert found.as_json() == {n: said[n] for n in ("lds", "standard_error", "subsets", "targets")}
            assert -1 <= found.lds <= 1
            assert found.error >= 0

    run()
    assert 0.3 * seen < refused < seen


@few
@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_no_measurement(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    with pytest.raises(FormatError):
        measured(tmp_path_factory.getbasetemp() / "measured", data)
