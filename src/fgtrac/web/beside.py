"""What takes longer than a page may: found out once for each state of what it is about, beside the pages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fgtrac.web.background import Background, StoppedError

MAX_KEPT = 16  # findings; of more, those longest unasked are found out again
Make = Callable[[Callable[[int, int], None]], Any]


@dataclass(slots=True)
class Finding:
    """Something as far as it was found out, for one state of what it is about."""

    state: Hashable
    done: int = 0
    total: int = 0
    is_over: threading.Event = field(default_factory=threading.Event)
    _found: Any = None
    _error: Exception | None = None

    def known(self) -> Any:
        """What was found, None until then. Raises what finding it out raised."""
        if self._error is not None:
            raise self._error
        return self._found

    def make(self, make: Make, background: Background) -> None:
        """Find it out."""

        def progress(done: int, total: int) -> None:
            background.go_on()
            self.done, self.total = done, total

        try:
            self._found = make(progress)
        except StoppedError:
            raise
        except Exception as error:  # noqa: BLE001  raised again where somebody asks
            self._error = error
        finally:
            self.is_over.set()


class Beside:
    """Finds things out one after the other, in the order in which they are asked for."""

    def __init__(self, name: str) -> None:
        self._known: dict[Hashable, Finding] = {}
        self._turn = threading.Lock()
        self._background = Background(name)

    def of(self, what: Hashable, state: Hashable, make: Make, patience_s: float) -> Finding:
        """What `make`, called with a function of (done, total), gives; found out once for each `state` of `what`, and
        given as it is after `patience_s` at most."""
        with self._turn:
            finding = self._known.pop(what, None)
            if finding is None or finding.state != state:
                finding = Finding(state)
                self._background.do(partial(finding.make, make, self._background))
            self._known[what] = finding
            for old in list(self._known)[:-MAX_KEPT]:
                del self._known[old]
        finding.is_over.wait(patience_s)
        return finding

    def stop(self) -> None:
        """Find out nothing more; nobody waits any longer."""
        self._background.stop()
        with self._turn:
            for finding in self._known.values():
                finding.is_over.set()
