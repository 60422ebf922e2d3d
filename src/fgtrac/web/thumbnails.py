"""Small pictures of samples out of the user's own data: images, strips of numbers, text; bounded in size and time."""

from __future__ import annotations

import math
import queue
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.own_data import NOT_CHECKED, Found, NoItemError, OwnData, as_array, compare, read_item
from fgtrac.api.trace import Trace
from fgtrac.drawing.png import grey_or_rgb

SIDE = 128  # pixels of a picture's longer side
MAX_PIXELS = 1 << 26  # a larger image is not looked at
STRIP, STRIP_HEIGHT = 64, 32  # numbers and pixels of a strip of bars
MAX_NUMBERS = 1 << 20
SHOWN = 280  # characters of a text
FIELDS = 12  # of a mapping that are looked at
WAIT_S = 2.0  # for the data set to give an item
KEPT = 4096  # pictures that are remembered, at most about 50 KB each
CHANNELS = (1, 3, 4)


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture (`png`) or words (`text`) of a sample, its label (which is in no digest) where it has one, and whether
    its bytes are those that the log's content digest names (`check`: matches, source matches, differs or not checked;
    `words` say why)."""

    png: bytes | None
    text: str
    label: str
    check: str
    words: str

    def as_json(self) -> dict[str, Any]:
        """Plain data, without the picture."""
        kind = "picture" if self.png is not None else "text" if self.text else "none"
        return {"kind": kind, "text": self.text, "label": self.label, "check": self.check, "words": self.words}


class Thumbnails:
    """Thumbnails of the samples of traces, drawn by one thread: the user's data set is never asked twice at a time.

    `render(item)` may give an array, a picture or a text in the place of an item.
    """

    def __init__(self, data: Any, render: Callable[[Any], Any] | None = None, *, wait_s: float = WAIT_S) -> None:
        self._given = OwnData(data)
        self._render = render
        self._wait_s = wait_s
        self._kept: OrderedDict[tuple[Path, bytes], Thumbnail] = OrderedDict()
        self._opened: dict[Path, weakref.ref[Trace]] = {}
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._turn = threading.Lock()
        self._late: _Job | None = None
        threading.Thread(target=self._work, name="thumbnails", daemon=True).start()

    def of(self, trace: Trace, sample_id: bytes) -> Thumbnail:
        """The thumbnail of a sample; one without a picture, and the reason in words, where there is none."""
        mark = trace.path, sample_id
        with self._turn:
            self._forget_older(trace)
            known, busy = self._kept.get(mark), self._late is not None and not self._late.done.is_set()
        if known is not None:
            return known
        if busy:
            return _nothing(f"the data set is still busy with a sample for which it took more than {self._wait_s:g} s")
        try:
            found = self._given.find(trace, sample_id)
        except NoItemError as reason:
            return _nothing(str(reason))
        job = _Job(found)
        self._jobs.put(job)
        if not job.done.wait(self._wait_s):
            with self._turn:
                self._late = job
            return _nothing(f"the data set took more than {self._wait_s:g} s to give this sample")
        check = (NOT_CHECKED, job.failed)
        if not job.failed:
            check = compare(trace, found, job.source, is_shown=job.is_source)
        drawn = Thumbnail(job.png, job.text, job.label, *check)
        with self._turn:
            self._kept[mark] = drawn
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return drawn

    def _forget_older(self, trace: Trace) -> None:
        """Drop what was drawn of this trace as it was opened before: it is opened anew whenever it, or what its vault
        knows, has changed, and who was erased since is not shown."""
        before = self._opened.get(trace.path)
        if before is None or before() is not trace:
            for mark in [mark for mark in self._kept if mark[0] == trace.path]:
                del self._kept[mark]
            self._opened[trace.path] = weakref.ref(trace)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                self._draw(job)
            except Exception as error:  # noqa: BLE001  the user's own code: whatever it raises is told
                job.failed = _raised(error)
            job.done.set()

    def _draw(self, job: _Job) -> None:
        """Nothing of the trace is touched here: a page may read it meanwhile."""
        item = read_item(job.found)
        value, job.source = item.value, item.source
        job.is_source = item.is_source and self._render is None
        if self._render is not None:
            value = self._render(value)
        elif isinstance(value, tuple | list) and 1 <= len(value) <= 4:
            value, job.label = value[0], _label(value[1:])
        job.png, job.text = draw(value)


@dataclass(slots=True, eq=False)
class _Job:
    found: Found
    done: threading.Event = field(default_factory=threading.Event)
    png: bytes | None = None
    text: str = ""
    label: str = ""
    source: tuple[str, bytes] | None = None
    is_source: bool = False
    failed: str = ""


def draw(value: Any) -> tuple[bytes | None, str]:
    """A PNG file of a value, or else a text. Arrays (H, W), (C, H, W) and (H, W, C) are images, as are Pillow's; (N,) a
    strip of bars; of a mapping the first picture, else its fields; whatever else is there by its kind."""
    if isinstance(value, str):
        return None, _cut(value)
    if isinstance(value, Mapping):
        pictures = (draw(one)[0] for one in list(value.values())[:FIELDS] if _is_picture(one))
        png = next((one for one in pictures if one is not None), None)
        return png, "" if png is not None else _fields(value)
    if _is_pillow(value):
        return _of_pillow(value), ""
    array = as_array(value)
    if array is None:
        return None, _repr(value)
    pixels = _pixels(array)
    if pixels is not None:
        return grey_or_rgb(pixels), ""
    if array.ndim == 0:
        return None, _repr(array.item())
    return None, f"{array.dtype} array of {' x '.join(map(str, array.shape))}"


def _pixels(array: NDArray[Any]) -> NDArray[np.uint8] | None:
    """(h, w) or (h, w, 3) uint8 of an array that is an image or a row of numbers, None of any other."""
    if array.dtype.kind not in "biuf" or array.size == 0 or array.size > 4 * MAX_PIXELS:
        return None
    if array.ndim == 1 or (array.ndim == 2 and 1 in array.shape):
        return _strip(array.reshape(-1)) if 1 < array.size <= MAX_NUMBERS else None
    if array.ndim == 3 and array.shape[2] not in CHANNELS and array.shape[0] in CHANNELS:
        array = np.moveaxis(array, 0, 2)
    if (array.ndim == 3 and array.shape[2] not in CHANNELS) or array.ndim not in (2, 3):
        return None
    return _grey_or_rgb(_bytes(_small(array)))


def _small(array: NDArray[Any]) -> NDArray[Any]:
    """At most SIDE rows and columns: the mean over squares of pixels, of very large images some of them."""
    side = max(array.shape[:2])
    if side > 8 * SIDE:
        array = array[:: -(-side // (8 * SIDE)), :: -(-side // (8 * SIDE))]
        side = max(array.shape[:2])
    n = -(-side // SIDE)
    if n == 1:
        return array
    height, width = (max(1, size // n) for size in array.shape[:2])
    cut = array[: height * n, : width * n]
    rows, columns = min(n, cut.shape[0]), min(n, cut.shape[1])
    squares = cut[: height * rows, : width * columns].reshape(height, rows, width, columns, *cut.shape[2:])
    mean: NDArray[Any] = squares.mean(axis=(1, 3), dtype=np.float64)
    return mean if array.dtype.kind == "f" else np.rint(mean).astype(np.int64)


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Values as 0 to 255: bytes as they are, floats from 0 to 1 and booleans stretched, others from least to most."""
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    values = np.nan_to_num(array.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if array.dtype.kind == "f" and low >= 0 and high <= 1:
        values = values * 255
    elif low < 0 or high > 255 or (array.dtype.kind == "f" and high <= 1):
        largest = max(abs(low), abs(high), 1e-300)
        values, low, high = values / largest, low / largest, high / largest  # no difference of these is infinite
        values = (values - low) / (high - low if high > low else 1.0) * 255
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _grey_or_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return np.ascontiguousarray(pixels.reshape(pixels.shape[:2]))
    colours = pixels[:, :, :3].astype(np.float64)
    if pixels.shape[2] == 4:  # on white
        cover = pixels[:, :, 3:].astype(np.float64) / 255
        colours = colours * cover + 255 * (1 - cover)
    return np.ascontiguousarray(np.rint(colours).astype(np.uint8))


def _strip(numbers: NDArray[Any]) -> NDArray[np.uint8]:
    """A bar for each number, or for each mean of several: up where above 0, down where below."""
    values = np.nan_to_num(numbers.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    values = values / max(float(np.abs(values).max()), 1e-300)
    parts = np.array_split(values, STRIP) if len(values) > STRIP else [values]
    bars = np.array([part.mean() for part in parts]) if len(values) > STRIP else values
    wide = max(2, SIDE // len(bars))
    out = np.full((STRIP_HEIGHT, len(bars) * wide), 255, dtype=np.uint8)
    lowest = float(bars.min()) < 0
    base, room = (STRIP_HEIGHT // 2, STRIP_HEIGHT // 2 - 1) if lowest else (STRIP_HEIGHT - 1, STRIP_HEIGHT - 2)
    out[base] = 192
    for n, bar in enumerate(bars.tolist()):
        height = math.ceil(abs(bar) * room)
        top, bottom = (base - height, base) if bar >= 0 else (base + 1, base + 1 + height)
        out[top:bottom, n * wide : n * wide + wide - 1] = 64
    return out


def _is_pillow(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "PIL" and hasattr(value, "convert")


def _of_pillow(image: Any) -> bytes:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"an image of {width:,} x {height:,} pixels is larger than is drawn")
    mode = "L" if image.mode in ("1", "L") else "RGBA" if "A" in image.mode or "transparency" in image.info else "RGB"
    return grey_or_rgb(_grey_or_rgb(_bytes(_small(np.asarray(image.convert(mode))))))


def _is_picture(value: Any) -> bool:
    array = None if _is_pillow(value) else as_array(value)
    return _is_pillow(value) or (array is not None and array.ndim > 0)


def _label(rest: Any) -> str:
    """What stands behind an item's first element, where that is one number or a short text."""
    if len(rest) != 1:
        return ""
    array = as_array(rest[0])
    if array is not None:
        return _repr(array.item()) if array.size == 1 else ""
    return _cut(str(rest[0]), 60) if isinstance(rest[0], str | int | float) else ""


def _repr(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        return f"{len(value):,} bytes, beginning {bytes(value[:16]).hex()}"
    if isinstance(value, int) and abs(value) >> 256:
        return f"an integer of {value.bit_length()} bits"
    return _cut(f"{value!r}") if isinstance(value, int | float | complex | str | None) else f"a {type(value).__name__}"


def _fields(value: Mapping[Any, Any]) -> str:
    return _cut(", ".join(f"{str(name)[:40]}: {_field(one)}" for name, one in list(value.items())[:FIELDS]))


def _field(value: Any) -> str:
    array = None if isinstance(value, str) else as_array(value)
    if array is not None and array.ndim == 0:
        return _repr(array.item())
    return value[:SHOWN] if isinstance(value, str) else _repr(value)


def _cut(text: str, most: int = SHOWN) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _raised(error: Exception) -> str:
    """What is told of an error: of our own the words, of the user's code also its kind."""
    words = _cut(str(error))
    return words if isinstance(error, NoItemError) else f"the function's data raised {type(error).__name__}: {words}"


def _nothing(words: str) -> Thumbnail:
    return Thumbnail(None, "", "", NOT_CHECKED, words)
