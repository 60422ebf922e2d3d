"""The anchors of a run: which heads go to which services, beside the training, and what is left over when it ends."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

from fgtrac.anchor.anchored import Anchored, reason
from fgtrac.anchor.background import BackgroundAnchor
from fgtrac.anchor.pending import MAX_PENDING, Pending, PendingFile, Settings, may_fulfil
from fgtrac.anchor.seconds import read_seconds
from fgtrac.anchor.service import Service, SignedHead
from fgtrac.api.anchor_head import Anchorer
from fgtrac.api.anchor_services import check_receipt_names, prepare, service_of, settings_of
from fgtrac.api.users_line import warn_user
from fgtrac.commit.signer import Signer
from fgtrac.errors import AnchorError, FgtracError, RefusedError
from fgtrac.store.trace_dir import TraceDir

END, EPOCH = "end", "epoch"
CLOSE_S = 10.0  # at the end of a run, for what is under way


@dataclass(frozen=True, slots=True)
class AnchorPlan:
    """Who witnesses the heads of a run, and which: see `start_run`. `every_s` is the schedule, where there is one."""

    services: tuple[Service, ...] = ()
    at_epochs: bool = False
    every_s: float = math.inf
    wait_s: float = 0.0


NO_ANCHORS = AnchorPlan()


def read_plan(anchors: Iterable[Service], at: str | float, wait_s: float) -> AnchorPlan:
    """What `start_run` was given, its services prepared. ValueError or TypeError for what is no plan; and whatever
    `Service.prepare` raises."""
    services = tuple(anchors)
    for service in services:
        if not callable(getattr(service, "anchor", None)):
            known = "fgtrac.EvmContract, fgtrac.TimeStampAuthority or fgtrac.Witness"
            raise TypeError(f"anchors holds a {type(service).__name__}, which is no service such as {known}")
    if len(services) > MAX_PENDING:
        raise ValueError(f"anchors holds {len(services)} services; name at most {MAX_PENDING}")
    wait_s = read_seconds(wait_s, "anchor_wait_s", zero=True)
    every_s = math.inf
    if isinstance(at, Real) and not isinstance(at, bool):
        every_s = float(at)
    if not 0 < every_s < math.inf and not (isinstance(at, str) and at in (END, EPOCH)):
        raise ValueError(
            f"anchor_at={at!r:.60} is no time to anchor; choose 'end', 'epoch', or a number of seconds above 0"
        )
    check_receipt_names(services)
    for service in services:
        prepare(service)
    return AnchorPlan(services, at == EPOCH, every_s, wait_s)


class RunAnchors:
    """Takes each head that a run seals, and brings to the services those that its plan asks for.

    Before a service is asked, the head stands on the list of what is pending: a killed process leaves it there. What
    goes wrong is one RuntimeWarning, on the training thread; and one more at the end, where the first did not say how
    that has ended.
    """

    def __init__(self, trace: TraceDir, signer: Signer, plan: AnchorPlan) -> None:
        self._plan = plan
        self._anchorer = Anchorer(trace, signer, PendingFile(signer.pending_path))
        self._turn = threading.Lock()
        self._services: dict[BackgroundAnchor, Service] = {}
        self._size = 0  # of the newest head that was brought to them
        self._is_over = False
        self._due = 0.0 if plan.every_s < math.inf else math.inf  # of the schedule
        self._trouble: dict[str, Exception] = {}  # by whom it is about
        self._told: dict[str, str] | None = None  # of that, in the first warning
        self._unbrought: Exception | None = None  # why the newest head was not brought to anybody
        for service in plan.services:
            self._add(service)
        self._for_new_heads = tuple(self._services)

    def _add(self, service: Service) -> BackgroundAnchor:
        worker = BackgroundAnchor(lambda signed: self._anchor(signed, service), service.kind)
        self._services[worker] = service
        return worker

    @property
    def is_any(self) -> bool:
        """Whether there is a service that new heads go to."""
        return bool(self._for_new_heads)

    @property
    def at_epochs(self) -> bool:
        """Whether heads are anchored at the beginning of each pass."""
        return self._plan.at_epochs

    @property
    def epoch_wait_s(self) -> float:
        """How long a pass waits for its receipts before its first batch."""
        return self._plan.wait_s

    @property
    def cpu_s(self) -> float:
        """The processor time that anchoring has taken."""
        return sum(worker.cpu_s for worker in self._services)

    def take_up(self) -> None:
        """Complete what an earlier process left over, too. Nobody is asked for a password: `fgtrac anchor` does."""
        try:
            pending = self._anchorer.pending.read()
        except (FgtracError, OSError) as error:
            self._note("what is pending", error)
            return
        for item in pending:
            worker = next((w for w in self._for_new_heads if _is_of(item.settings, self._services[w])), None)
            try:
                worker = worker or self._add(_prepared(item.settings))
            except (FgtracError, OSError, ValueError) as error:
                self._note(f"a pending service of kind {item.settings['kind']}", error)
            else:
                worker.submit(item.signed)

    def sealed(self, *, begins_epoch: bool = False, is_last: bool = False) -> int:
        """The trace has been sealed: bring its head to the services if this is the time. Its size; 0 for none."""
        if not self._for_new_heads or not (begins_epoch or is_last or time.monotonic() >= self._due):
            return 0
        self._due = time.monotonic() + self._plan.every_s
        try:
            size, self._unbrought = self.bring(), None
        except (FgtracError, OSError, ValueError) as error:
            self._note("the newest head", error)
            size, self._unbrought = 0, error
        return size

    def bring(self, *, now: bool = False) -> int:
        """Bring the newest head to every service that has not witnessed it; its size. Raises as `newest_head`."""
        signed = self._anchorer.newest_head()
        self._size = signed.head.size
        left = [worker for worker in self._for_new_heads if not worker.is_done(self._size)]
        try:
            self._anchorer.want(signed, [self._services[worker] for worker in left])
        except (FgtracError, OSError, ValueError) as error:
            self._note("the list of what is pending", error)  # it cannot be written down; it is tried all the same
        for worker in left:
            worker.submit(signed, now=now)
        return self._size

    def results(self, size: int, wait_s: float) -> tuple[Anchored, ...]:
        """What has become of a head of this size within so many seconds, service by service."""
        deadline = time.monotonic() + wait_s
        return tuple(worker.result(size, deadline) or self._open(worker, size) for worker in self._for_new_heads)

    def say(self) -> None:
        """Warn where something went wrong, the first time. For the training thread."""
        troubles = self._troubles()
        if troubles and self._told is None:
            self._told = {name: reason(name, error) for name, error in troubles.items()}
            remedy = f"what is pending in the end, fgtrac anchor {self._anchorer.trace.path} --pending completes"
            if any(isinstance(error, RefusedError) for error in troubles.values()):
                remedy += "; what was refused is not: name it again once that is mended"
            warn_user(f"fgtrac: not anchored: {'; '.join(self._told.values())}; recording goes on; {remedy}")

    def close(self) -> None:
        """Give what is under way a last try and a bounded time; the rest stays pending. Say how it has ended."""
        deadline = time.monotonic() + CLOSE_S
        for worker in self._services:
            worker.close()
        try:
            late = [worker for worker in self._services if not worker.join(deadline)]
        finally:
            self._is_over = True
            for worker in self._services:
                worker.give_up()
        ends = [end for worker in self._services if (end := self._end(worker, worker in late)) is not None]
        if self._unbrought is not None:
            ends.append(_End("the newest head", self._unbrought, is_pending=False))
        self._say_end(ends)

    def _end(self, worker: BackgroundAnchor, is_late: bool) -> _End | None:
        """What became of the newest head that a service was to witness; None where it has."""
        service, size = self._services[worker], self._size if worker in self._for_new_heads else 0
        result = worker.result(size, time.monotonic())
        if (result is not None and result.error is None) or (size == 0 and worker in self._for_new_heads):
            return None
        error = None if result is None or is_late else result.error
        own = settings_of(service)
        is_pending = own is not None and any(p.size >= size and p.is_for(own) for p in self._pending())
        silence = AnchorError(f"no answer within {CLOSE_S:g} s of the end")
        return _End(service.name, error or silence, is_pending)

    def _pending(self) -> tuple[Pending, ...]:
        try:
            return self._anchorer.pending.read()
        except (FgtracError, OSError):
            return ()  # what cannot be read will not be completed

    def _say_end(self, ends: Sequence[_End]) -> None:
        """Warn of these once more where the first warning did not say it: what is not pending; and what failed where
        others did not."""
        told, troubles = self._told, self._troubles()
        if told is not None:
            are_some_well = len(ends) < len(self._services)
            if not any(end.is_news(told, are_some_well) for end in ends):
                return
            troubles = {}
        names = {end.name for end in ends}
        left = [reason(end.name, end.error) for end in ends if end.is_pending]
        left += [reason(name, error) for name, error in troubles.items() if name not in names]
        lost = [reason(end.name, end.error) for end in ends if not end.is_pending]
        command, words = f"fgtrac anchor {self._anchorer.trace.path}", []
        if left:
            words.append(f"{'; '.join(left)}; what is pending, {command} --pending completes")
        if lost:
            words.append(f"{'; '.join(lost)}; not pending: once that is mended, name the service again to {command}")
        if words:
            warn_user(f"fgtrac: not anchored: {'; '.join(words)}")

    def _troubles(self) -> dict[str, Exception]:
        with self._turn:
            return dict(self._trouble)

    def _anchor(self, signed: SignedHead, service: Service) -> Anchored:
        result = self._anchorer.anchor(signed, service, lambda: not self._is_over)
        if result.error is not None:
            self._note(result.name, result.error)
        return result

    def _open(self, worker: BackgroundAnchor, size: int) -> Anchored:
        service = self._services[worker]
        error = AnchorError(f"{service.name} has not answered yet; it is still being asked")
        return Anchored(service.kind, service.name, size, error=error)

    def _note(self, what: str, error: Exception) -> None:
        with self._turn:
            self._trouble.setdefault(what, error)


@dataclass(frozen=True, slots=True)
class _End:
    """A service that has not witnessed the newest head of a run that ends."""

    name: str
    error: Exception
    is_pending: bool

    def is_news(self, told: Mapping[str, str], are_some_well: bool) -> bool:
        """Whether a user who was told this, and how to complete what is pending, does not know how it ended. Where all
        services fail, they do."""
        if self.is_pending:
            return self.name not in told and are_some_well
        return not isinstance(self.error, RefusedError) or told.get(self.name) != reason(self.name, self.error)


def _prepared(settings: Settings) -> Service:
    service = service_of(settings)
    prepare(service, may_ask=False)
    return service


def _is_of(settings: Settings, service: Service) -> bool:
    """Whether what is pending for these settings can be this service's to do."""
    own = settings_of(service)
    return own is not None and may_fulfil(own, settings)
