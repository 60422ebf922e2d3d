"""The file of finished retrainings: a measurement that is interrupted goes on where it stopped.

A line of JSON for each: the first says which function, samples, targets and parts the others are of. Every line carries
the CRC-32 of what it says. A line that was cut short by a crash is taken away when the file is opened.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError
from fgtrac.score.functions import Function
from fgtrac.store import durable

FORMAT = "fgtrac retrainings 2"
Doubles = NDArray[np.float64]


class Retrainings:
    """Losses (m,) float64 of the retraining on part `i` with a seed, kept at `path` (None: in memory only).

    Opening raises ValueError where the file is of another function, other samples, targets or parts, FormatError where
    a whole line is damaged.
    """

    def __init__(
        self,
        path: Path | None,
        function: Function,
        rows: NDArray[np.int64],
        targets: Sequence[str],
        keep: float,
        seed: int,
        about: str = "",
    ) -> None:
        self._path = path
        self._targets = len(targets)
        self._losses: dict[tuple[int, int], Doubles] = {}
        told = json.dumps([rows.tolist(), list(targets), keep, seed, about]).encode()
        of = hashlib.sha256(told).hexdigest()
        head = {"format": FORMAT, "function": function.name, "digest": function.digest, "of": of}
        if path is None:
            return
        lines = _whole_lines(path)
        if not lines:
            durable.write_file(path, _line(head))
        elif lines[0] != head:
            raise ValueError(f"{path} {_other(lines[0], function)}; name another --retrainings file (resume_path=)")
        for line in lines[1:]:
            self._take(line)

    def get(self, part: int, seed: int) -> Doubles | None:
        """The losses of that retraining, if it is finished."""
        return self._losses.get((part, seed))

    def add(self, part: int, seed: int, losses: Doubles) -> None:
        """Keep one; it is on disk when this returns."""
        self._losses[part, seed] = losses
        if self._path is not None:
            file = durable.AppendFile(self._path)
            file.append(_line({"part": part, "seed": seed, "losses": losses.tolist()}))
            file.sync()
            file.close()

    def _take(self, line: dict[str, Any]) -> None:
        part, seed, losses = (line.get(name) for name in ("part", "seed", "losses"))
        numbers = isinstance(losses, list) and all(type(loss) is float for loss in losses)
        if len(line) != 3 or type(part) is not int or type(seed) is not int or not numbers:
            raise FormatError(f"{self._path} has a line that is no retraining: {line!s:.60}")
        found = np.array(losses, dtype=np.float64)
        if found.shape != (self._targets,) or not np.isfinite(found).all():
            raise FormatError(f"{self._path}: part {part} with seed {seed} has no {self._targets} finite losses")
        self._losses[part, seed] = found


def _other(head: dict[str, Any], function: Function) -> str:
    """Whose retrainings these are instead, in words."""
    if head.get("format") != FORMAT:
        return f"is no {FORMAT!r}, but {head.get('format')!r:.40}"
    told = Function(str(head.get("function")), str(head.get("digest")))
    if told != function:
        return f"holds retrainings by {told}, and this is {function}"
    return "holds retrainings of other samples, targets or parts"


def _line(value: dict[str, Any]) -> bytes:
    """What the value says, with its checksum behind a tab; one line."""
    text = json.dumps(value)
    return f"{text}\t{zlib.crc32(text.encode()):08x}\n".encode()


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """What the file's lines say. The last one is cut off where it is not whole: a crash leaves that."""
    data = path.read_bytes() if path.exists() else b""
    end = data.rfind(b"\n") + 1
    if end < len(data):
        durable.write_file(path, data[:end])
    return [_parse(path, number, line) for number, line in enumerate(data[:end].splitlines(), 1)]


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    text, _, check = line.rpartition(b"\t")
    if check != f"{zlib.crc32(text):08x}".encode():
        raise FormatError(f"line {number} of {path} is damaged; remove that line, and it is retrained")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"line {number} of {path} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise FormatError(f"line {number} of {path} is no retraining")
    return value
