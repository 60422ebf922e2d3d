"""The factor files: which sample each row is, the gradients at one model state, losses; encoded and parsed in numpy."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError, ScoreError
from fgtrac.score.gradients import Floats, Gradients, Layer, parse_layer
from fgtrac.store.tensor_files import Tensor, TensorFile, bfloat16, encode_tensors

FOLDER = "artifacts/scoring"
FORMAT = "fgtrac factors 1"
SHARD_BYTES = 1 << 26
BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
TYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
ROWS_PATH = re.compile(rf"{FOLDER}/rows-(train|validation|test)-[0-9a-f]{{8}}\.safetensors")
STATE_PATH = re.compile(
    rf"({FOLDER}/[0-9]{{8,20}}-[0-9a-f]{{8}})/(?:(losses-)?(train|validation|test)-([0-9]{{5}})|ggn)\.safetensors"
)


@dataclass(frozen=True, slots=True)
class State:
    """A kept model state: its `checkpoint` entry's (writer, seq), step, the digest of its tensors (32 bytes), and the
    validation loss where one was given."""

    ref: tuple[bytes, int]
    step: int
    digest: bytes
    val_loss: float | None = None

    @property
    def folder(self) -> str:
        """Where its factor files lie."""
        return f"{FOLDER}/{self.step:08d}-{self.digest.hex()[:8]}"


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Which sample each row is: `blocks` are block ids, `ordinals` (n,) uint32; `which` (n,) uint16 indexes `blocks`
    where there are several; `labels` (n,) int32 where the targets are classes."""

    blocks: tuple[bytes, ...]
    ordinals: NDArray[np.uint32]
    which: NDArray[np.uint16] | None = None
    labels: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.ordinals)

    def place(self, row: int) -> tuple[bytes, int]:
        """(block, ordinal) of a row."""
        return self.blocks[0 if self.which is None else int(self.which[row])], int(self.ordinals[row])

    def find(self, block: bytes, ordinal: int) -> int | None:
        """The (first) row of a sample, or None."""
        if block not in self.blocks:
            return None
        mine = self.ordinals == ordinal
        if self.which is not None:
            mine &= self.which == self.blocks.index(block)
        found = np.flatnonzero(mine)
        return int(found[0]) if len(found) else None


@dataclass(frozen=True, slots=True)
class ShardHead:
    """What a shard holds: rows `start` up to `stop` of `total` of a role, at the model state of `digest` and `step`;
    `rows` is the SHA-256 of the rows file, `learning_rates` has one for each layer."""

    digest: bytes
    step: int
    role: str
    start: int
    stop: int
    total: int
    rows: bytes
    layers: tuple[Layer, ...]
    learning_rates: tuple[float, ...]

    @property
    def folder(self) -> str:
        """Where it lies."""
        return f"{FOLDER}/{self.step:08d}-{self.digest.hex()[:8]}"


# -- writing ------------------------------------------------------------------------------------------------------


def rows_path(role: str, data: bytes) -> str:
    """Where a rows file goes."""
    return f"{FOLDER}/rows-{role}-{hashlib.sha256(data).hexdigest()[:8]}.safetensors"


def encode_rows(rows: Rows, role: str) -> bytes:
    """The rows file."""
    columns: dict[str, NDArray[Any]] = {
        "blocks": np.frombuffer(b"".join(rows.blocks), dtype=np.uint8).reshape(-1, 16),
        "ordinals": rows.ordinals.astype(np.uint32),
    }
    if rows.which is not None:
        columns["which"] = rows.which.astype(np.uint16)
    if rows.labels is not None:
        columns["labels"] = rows.labels.astype(np.int32)
    return b"".join(encode_tensors(columns, {"format": FORMAT, "role": role}))


def shard_rows(layers: Sequence[Layer], dtype: str) -> int:
    """How many rows a shard has (the last one fewer): it follows from the layers, so that an interrupted pass goes on
    with the same shards."""
    width = sum(width for layer in layers for width in layer.columns.values()) * BYTES[dtype]
    return max(256, min(1 << 16, SHARD_BYTES // width) // 256 * 256)


def shard_path(head: ShardHead, part: int) -> str:
    """Where the shard number `part` of its role goes."""
    return f"{head.folder}/{head.role}-{part:05d}.safetensors"


def encode_shard(
    head: ShardHead, gradients: Sequence[Gradients], dtype: str, name_of: Callable[[int], str] = "row {}".format
) -> bytes:
    """The shard's file, its numbers rounded to `dtype`: "float16", "bfloat16" or "float32".

    ScoreError for NaN and infinity, and for what is too large for float16, with a count and the first row, called as
    `name_of` says.
    """
    tensors: dict[str, NDArray[Any] | Tensor] = {}
    for g in gradients:
        columns = {"inputs": g.inputs, "deltas": g.deltas} if g.is_factored else {"gradients": g.dense}
        for name, values in columns.items():
            assert values is not None
            what = f"{name} of layer {g.layer.name!r}"
            tensors[f"{g.layer.name}/{name}"] = _rounded(values, dtype, head, what, name_of)
    return b"".join(encode_tensors(tensors, _metadata(head)))


def _metadata(head: ShardHead) -> dict[str, str]:
    return {
        "format": FORMAT,
        "digest": head.digest.hex(),
        "step": str(head.step),
        "role": head.role,
        "range": json.dumps([head.start, head.stop, head.total]),
        "rows": head.rows.hex(),
        "layers": json.dumps([layer.as_json() for layer in head.layers], separators=(",", ":")),
        "learning_rates": json.dumps([float(rate) for rate in head.learning_rates]),
    }


def _rounded(
    values: Floats, dtype: str, head: ShardHead, what: str, name_of: Callable[[int], str]
) -> NDArray[Any] | Tensor:
    if not (finite := np.isfinite(values)).all():
        bad = np.flatnonzero(~finite.all(axis=1))
        raise ScoreError(
            f"{len(bad)} of {len(values)} rows have NaN or infinite {what}, the first is "
            f"{name_of(head.start + int(bad[0]))} ({head.role}); look at its data, or at the model at step {head.step}"
        )
    if dtype == "bfloat16":
        return bfloat16(values)
    if dtype == "float32":
        return values.astype(np.float32, copy=False)
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        bad = np.flatnonzero(~np.isfinite(half).all(axis=1))
        raise ScoreError(
            f"{len(bad)} of {len(values)} rows have {what} above 65,504, the first is "
            f"{name_of(head.start + int(bad[0]))} ({head.role}): too large for float16; "
            "choose dtype='bfloat16' or 'float32'"
        )
    return half


def losses_path(shard: str) -> str:
    """Where the losses of the rows of a shard go, which lies at `shard`."""
    folder, _, name = shard.rpartition("/")
    return f"{folder}/losses-{name}"


def encode_losses(losses: Floats) -> bytes:
    """The file of the (n,) losses of a shard's rows."""
    return b"".join(encode_tensors({"losses": losses.astype(np.float32)}, {"format": FORMAT}))


def ggn_path(state: State) -> str:
    """Where the Gauss-Newton matrices of a model state go."""
    return f"{state.folder}/ggn.safetensors"


def encode_ggn(matrices: Mapping[str, Floats]) -> bytes:
    """The file of one (p, p) matrix for each layer's name."""
    return b"".join(encode_tensors({n: m.astype(np.float32) for n, m in matrices.items()}, {"format": FORMAT}))


def is_factor_file(path: str) -> bool:
    """Whether a path of a trace is one that a factor pass writes."""
    return bool(ROWS_PATH.fullmatch(path) or STATE_PATH.fullmatch(path))


def is_shard(path: str) -> bool:
    """Whether a path is that of a shard of factors: neither losses, nor matrices, nor a list of rows."""
    found = STATE_PATH.fullmatch(path)
    return found is not None and found[2] is None and found[3] is not None


# -- parsing ------------------------------------------------------------------------------------------------------


def parse_rows(file: TensorFile) -> Rows:
    """A rows file. FormatError for what is none."""
    held = {name: tensor.array for name, tensor in file.tensors.items()}
    blocks, ordinals, which = held.get("blocks"), held.get("ordinals"), held.get("which")
    if blocks is None or ordinals is None or blocks.dtype != np.uint8 or blocks.shape[1:] != (16,) or not len(blocks):
        raise FormatError("a rows file holds blocks of 16 bytes and ordinals")
    n, labels = len(ordinals) if ordinals.ndim == 1 else -1, held.get("labels")
    fits = [
        ordinals.dtype == np.uint32 and n >= 0,
        len(blocks) == 1 if which is None else which.dtype == np.uint16 and which.shape == (n,),
        which is None or bool((which < len(blocks)).all()),
        labels is None or (labels.dtype == np.int32 and labels.shape == (n,)),
    ]
    if not all(fits):
        raise FormatError(f"the columns of a rows file of {n} rows do not fit each other")
    return Rows(tuple(bytes(b) for b in blocks), ordinals, which, labels)


def parse_head(metadata: Mapping[str, str]) -> ShardHead:
    """A shard's metadata. FormatError for what is none."""
    if metadata.get("format") != FORMAT:
        raise FormatError(f"it is no {FORMAT!r} but {metadata.get('format', '')!r:.40}")
    try:
        start, stop, total = (_natural(n) for n in json.loads(metadata["range"]))
        layers = tuple(parse_layer(layer) for layer in json.loads(metadata["layers"]))
        rates = tuple(float(rate) for rate in json.loads(metadata["learning_rates"]))
        head = ShardHead(
            bytes.fromhex(metadata["digest"]), _natural(int(metadata["step"])), metadata["role"],
            start, stop, total, bytes.fromhex(metadata["rows"]), layers, rates,
        )  # fmt: skip
    except (KeyError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise FormatError(f"its metadata are not those of factors: {error!r:.200}") from error
    names = {layer.name for layer in layers}
    if not (start <= stop <= total and layers and len(rates) == len(layers) == len(names)):
        raise FormatError(f"rows {start} to {stop} of {total}, {len(layers)} layers and {len(rates)} learning rates")
    if not all(np.isfinite(rates)) or len(head.digest) != 32 or len(head.rows) != 32:
        raise FormatError("its learning rates or digests are none")
    if head.role not in ("train", "validation", "test") or _metadata(head) != metadata:
        raise FormatError("its metadata are not written as fgtrac writes them")  # one head has one form
    return head


def _natural(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"{value!r:.40} is no count")
    return value


def losses_of(file: TensorFile, head: ShardHead) -> Floats:
    """(n,) losses of a shard's rows. FormatError for another number of them."""
    tensor, n = file.tensors.get("losses"), head.stop - head.start
    if tensor is None or tensor.type != "F32" or tensor.array.shape != (n,):
        raise FormatError(f"it has no losses of {n} rows")
    return tensor.float32()


def gradients_of(file: TensorFile, head: ShardHead, rows: slice | NDArray[np.int64]) -> tuple[Gradients, ...]:
    """Some rows of a shard (counted within it), as float32. FormatError where the file is not as its head says."""
    found = []
    for layer in head.layers:
        parts: dict[str, Floats] = {}
        for name, width in layer.columns.items():
            tensor = file.tensors.get(f"{layer.name}/{name}")
            if tensor is None or tensor.array.shape != (head.stop - head.start, width):
                raise FormatError(f"it has no {name} of {head.stop - head.start} x {width} for layer {layer.name!r}")
            if tensor.type not in ("F16", "BF16", "F32"):
                raise FormatError(f"the {name} of layer {layer.name!r} are of type {tensor.type}")
            values = Tensor(tensor.type, tensor.array[rows])
            if name == "inputs" and layer.bias:
                extended = np.ones((len(values.array), layer.d_in + 1), dtype=np.float32)
                extended[:, :-1] = values.float32()
                parts |= {"inputs": extended[:, :-1], "extended": extended}
            else:
                parts["dense" if name == "gradients" else name] = values.float32()
        found.append(Gradients(layer, **parts))
    return tuple(found)
