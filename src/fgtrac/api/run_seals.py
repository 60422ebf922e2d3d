"""The seals of a run: plain ones beside the training, a full one at its end; and what is anchored behind each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from fgtrac.anchor.anchored import Anchored
from fgtrac.anchor.seconds import read_seconds
from fgtrac.api.anchored_run import RunAnchors
from fgtrac.api.orders import Orders
from fgtrac.api.push_behind import PushBehind
from fgtrac.capture.recorder import Recorder
from fgtrac.commit import sequencer
from fgtrac.commit.background import BackgroundSealer
from fgtrac.commit.signer import Signer
from fgtrac.errors import ProofError
from fgtrac.store.trace_dir import TraceDir

WAIT_S = 60.0  # at the end and at a resume, for somebody else's seal
PAUSE_S = (
    0.25  # behind a checkpoint, where passes are sealed too: the next mostly begins by then, and one seal takes both
)
WAIT_BESIDE_S = 1.0  # beside the training: as long as a cosignature takes to be put into the head, and more


@dataclass(eq=False, slots=True)
class _Announced:
    """A pass that was announced: the number of the first entry behind that, and the head's size once it is sealed."""

    stop: int
    sealed: threading.Event = field(default_factory=threading.Event)
    size: int = 0


class RunSeals:
    """Seals one run's trace, and says so to its anchors. `cpu_s` is the processor time of the seals and pushes beside
    it, without what the client of object storage takes on threads of its own."""

    def __init__(
        self,
        trace: TraceDir,
        signer: Signer,
        recorder: Recorder,
        orders: Orders,
        anchors: RunAnchors,
        interval_s: float,
    ) -> None:
        self._trace = trace
        self._signer = signer
        self._recorder = recorder
        self.until: Mapping[bytes, int] = {}  # of other writers what the last seal takes, by number
        self.prepare: Callable[[], None] = orders.keep  # called before each seal: what is committed to can be opened
        self.sealed: Callable[[], None] = lambda: None  # called behind each seal
        self._anchors = anchors
        self._beside = BackgroundSealer(self._seal, interval_s)
        self._push = PushBehind(trace.path)
        self._pushes = BackgroundSealer(self._push, interval_s)  # on a thread of their own: no seal waits for a server
        self._turn = threading.Lock()
        self._announced: _Announced | None = None
        self._is_asked = False
        if anchors.at_epochs:
            orders.before, orders.announced = anchors.say, self._begin_epoch

    @property
    def cpu_s(self) -> float:
        """See the class."""
        return self._beside.cpu_s + self._pushes.cpu_s

    def ask(self) -> None:
        """Seal beside the caller what has been flushed, soon."""
        self._is_asked = True
        self._beside.ask(pause_s=PAUSE_S if self._anchors.at_epochs else 0.0)

    def check(self) -> None:
        """Say so where a seal or an anchor failed. Where somebody else was sealing, ask again."""
        self._anchors.say()
        if not self._heed(self._beside.check):
            self.ask()
        self._pushes.check()

    def finish(self) -> None:
        """Wait for what was asked for, and say so where it failed."""
        self._heed(self._beside.finish)

    def now(self) -> None:
        """A plain seal of everything, on the caller's thread."""
        self._recorder.rotate()
        self.prepare()
        self._plain(WAIT_S)
        self._push_soon()

    def last(self) -> None:
        """The full seal at the end; where registrations were lost, a plain one, and the error that names the entry."""
        try:
            sequencer.seal(self._trace, self._signer, full=True, clock=time.time_ns, wait_s=WAIT_S, before=self.until)
            self.sealed()
        except ProofError:
            self._plain(WAIT_S, self.until)
            raise
        finally:
            self._anchors.sealed(is_last=True)
            self._pushes.finish(drop=True)
            self._push()  # which may be as the interpreter ends, when no thread begins

    def anchor(self, wait_s: float) -> tuple[Anchored, ...]:
        """Seal now, and have that head anchored: what has become of it within so many seconds. ValueError where there
        is nobody to anchor with, and for a time that is none."""
        wait_s = read_seconds(wait_s, "wait_s", zero=True)
        if not self._anchors.is_any:
            raise ValueError("this run has no services to anchor with; name them: start_run(..., anchors=[...])")
        self.now()
        return self._anchors.results(self._anchors.bring(now=True), wait_s)

    def _heed(self, ask_sealer: Callable[[], None]) -> bool:
        """Whether the seals beside the training went well, or what failed was said."""
        try:
            ask_sealer()
        except BlockingIOError:
            return False  # somebody else is sealing this trace: nothing is lost, and the next seal takes it all
        except OSError as error:
            self._recorder.lose("the log could not be sealed at a checkpoint", error)
        return True

    def _plain(self, wait_s: float, before: Mapping[bytes, int] = MappingProxyType({})) -> None:
        sequencer.seal(self._trace, self._signer, full=False, clock=time.time_ns, wait_s=wait_s, before=before)
        self.sealed()

    def _begin_epoch(self) -> None:
        """A pass was just announced, on this thread, and none of its batches is drawn: seal exactly up to here."""
        mine = _Announced(self._recorder.next_seq)
        with self._turn:
            self._announced = mine
            self._is_asked = False  # what was asked for before is in this seal
        self._beside.ask(now=True)
        deadline = time.monotonic() + self._anchors.epoch_wait_s
        if self._anchors.epoch_wait_s and mine.sealed.wait(self._anchors.epoch_wait_s):
            self._anchors.results(mine.size, deadline - time.monotonic())

    def _seal(self) -> None:
        """A plain seal beside the training thread: of everything, or up to where a pass was announced."""
        self.prepare()
        if self._announced is None:
            self._recorder.rotate()
        with self._turn:
            epoch, self._announced = self._announced, None
            stop = self._recorder.next_seq if epoch is None else epoch.stop
            is_asked, self._is_asked = self._is_asked, False
        try:
            self._plain(WAIT_BESIDE_S, {self._recorder.writer: stop})
            size = self._anchors.sealed(begins_epoch=epoch is not None)
            if epoch is not None:
                epoch.size = size
                epoch.sealed.set()
                self._recorder.rotate()  # only now, so that no receipt waits for it: the next seal reads what is new
        finally:
            if epoch is not None:
                epoch.sealed.set()
                if is_asked:
                    self._beside.ask()  # since then: that is the next seal's
        self._push_soon()

    def _push_soon(self) -> None:
        if self._push.is_wanted:
            self._pushes.ask()
