"""A folder as if it lay on object storage: a trace far away without a server, and what was asked of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from fgtrac.errors import StorageError
from fgtrac.store.far_trace import FarTrace
from fgtrac.store.object_storage import PLACES, FarPath, Listed, Piece
from fgtrac.store.trace_dir import TraceDir


class FolderObjects:
    """What `Objects` answers, of the files of a trace on this machine; without its journal, which is not pushed."""

    path = FarPath("s3:/bucket/run.trace")

    def __init__(self, folder: Path, places: bytes | None = None) -> None:
        """`places` is what a push has left beside the trace."""
        self._trace, self._places = TraceDir(folder), places
        self.asked: Counter[str] = Counter()  # requests, by path
        self.bytes_read = 0
        self.answers = True

    @property
    def requests(self) -> int:
        """How many there were."""
        return self.asked.total()

    def read(self, path: str, start: int = 0, length: int | None = None) -> Piece:
        """As `Objects.read`."""
        self._ask(path)
        try:
            data = self._beside() if path == PLACES else self._trace.read(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"there is no object s3://bucket/run.trace/{path}") from error
        piece = data[start:] if length is None else data[start : start + length]
        self.bytes_read += len(piece)
        return Piece(piece, len(data), "")

    def listed(self, prefix: str = "") -> dict[str, Listed]:
        """As `Objects.listed`."""
        self._ask(f"list {prefix}")
        names = (name for name in self._trace.names() if name.startswith(prefix) and not name.endswith(".wal"))
        return {name: Listed((self._trace.path / name).stat().st_size, "") for name in names}

    def folders(self, prefix: str) -> list[str]:
        """As `Objects.folders`."""
        return sorted({name.removeprefix(prefix).partition("/")[0] for name in self.listed(prefix)})

    def close(self) -> None:
        """There is no connection."""

    def _beside(self) -> bytes:
        if self._places is None:
            raise FileNotFoundError("nothing lies beside the trace")
        return self._places

    def _ask(self, what: str) -> None:
        if not self.answers:
            raise StorageError("nobody answers")
        self.asked[what] += 1


def far(folder: Path, places: bytes | None = None) -> FarTrace:
    """The trace in a folder, far away; `objects` counts."""
    return FarTrace(FolderObjects(folder, places))  # type: ignore[arg-type]  # it answers what a reader asks
