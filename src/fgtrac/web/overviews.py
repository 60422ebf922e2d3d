"""What each trace's log tells of its run, read once for each of its heads, beside the pages."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fgtrac.api.overview import newest_head, overview
from fgtrac.errors import FgtracError
from fgtrac.query.overview import Overview
from fgtrac.tlog.note import TreeHead
from fgtrac.web.background import Background

MAX_KEPT = 16  # traces; of more, those longest unasked are read again


@dataclass(slots=True)
class Reading:
    """A log as far as it was read: `found` once it is all read, or else `error`."""

    head: TreeHead
    done: int = 0
    found: Overview | None = None
    error: FgtracError | OSError | None = None
    is_over: threading.Event = field(default_factory=threading.Event)

    def known(self) -> Overview | None:
        """What was found, None while it is read. Raises what reading it raised."""
        if self.error is not None:
            raise self.error
        return self.found


class Overviews:
    """Reads logs in the order in which somebody asks for them."""

    def __init__(self) -> None:
        self._known: dict[Path, Reading] = {}
        self._turn = threading.Lock()
        self._background = Background("fgtrac reads logs")

    def of(self, path: Path, patience_s: float) -> Reading:
        """What the trace's log tells as of its newest head, where that is read within `patience_s`. Raises as
        `newest_head`."""
        head = newest_head(path)
        with self._turn:
            reading = self._known.pop(path, None)
            if reading is None or reading.head != head or isinstance(reading.error, OSError):
                reading = Reading(head)
                self._background.do(partial(self._read, path, reading))
            self._known[path] = reading
            for old in list(self._known)[:-MAX_KEPT]:
                del self._known[old]
        reading.is_over.wait(patience_s)
        return reading

    def stop(self) -> None:
        """Read nothing more."""
        self._background.stop()

    def _read(self, path: Path, reading: Reading) -> None:
        def progress(done: int, _total: int) -> None:
            self._background.go_on()
            reading.done = done

        try:
            reading.found = overview(path, reading.head, progress)
        except (FgtracError, OSError) as error:
            reading.error = error
        finally:
            reading.is_over.set()
