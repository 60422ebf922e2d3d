"""The anchors of a run: which heads go to which services, beside the training, and what is left over when it ends."""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from fgtrac.anchor.anchored import Anchored, reason
from fgtrac.anchor.background import BackgroundAnchor
from fgtrac.anchor.pending import MAX_PENDING, Pending, PendingFile, Settings, may_fulfil
from fgtrac.anchor.seconds import read_seconds
from fgtrac.anchor.service import Service, SignedHead
from fgtrac.api.anchor_head import Anchorer, settings_of
from fgtrac.api.anchor_services import check_receipt_names, prepare, service_of
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
    goes wrong is one RuntimeWarning in all, on the training thread.
    """

    def __init__(self, trace: TraceDir, signer: Signer, plan: AnchorPlan) -> None:
        self._plan = plan
        self._anchorer = Anchorer(trace, signer, PendingFile(signer.pending_path))
        self._turn = threading.Lock()
        self._services: dict[BackgroundAnchor, Service] = {}
        self._is_over = False
        self._due = 0.0 if plan.every_s < math.inf else math.inf  # of the schedule
        self._trouble: dict[str, str] = {}
        self._has_said = False
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
        """Complete what an earlier process left over, too."""
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
            return self.bring()
        except (FgtracError, OSError, ValueError) as error:
            self._note("the newest head", error)
            return 0

    def bring(self, *, now: bool = False) -> int:
        """Bring the newest head to every service that has not witnessed it; its size. Raises as `newest_head`."""
        signed = self._anchorer.newest_head()
        size = signed.head.size
        left = [worker for worker in self._for_new_heads if not worker.is_done(size)]
        try:
            self._anchorer.want(signed, [self._services[worker] for worker in left])
        except (FgtracError, OSError) as error:
            self._note("what is pending", error)  # it cannot be written down; it is tried all the same
        for worker in left:
            worker.submit(signed, now=now)
        return size

    def results(self, size: int, wait_s: float) -> tuple[Anchored, ...]:
        """What has become of a head of this size within so many seconds, service by service."""
        deadline = time.monotonic() + wait_s
        return tuple(worker.result(size, deadline) or self._open(worker, size) for worker in self._for_new_heads)

    def say(self) -> None:
        """Warn where something went wrong, the first time. For the training thread."""
        with self._turn:
            words = "; ".join(self._trouble.values())
        if words and not self._has_said:
            self._has_said = True
            remedy = f"what is pending in the end, fgtrac anchor {self._anchorer.trace.path} --pending completes"
            warnings.warn(f"fgtrac: not anchored: {words}; recording goes on; {remedy}", RuntimeWarning, stacklevel=3)

    def close(self) -> None:
        """Give what is under way a last try and a bounded time; the rest stays pending."""
        deadline = time.monotonic() + CLOSE_S
        for worker in self._services:
            worker.close()
        late = [service for worker, service in self._services.items() if not worker.join(deadline)]
        self._is_over = True
        for service in late:
            self._note(service.name, AnchorError(f"no answer within {CLOSE_S:g} s of the end"))
        self.say()

    def _anchor(self, signed: SignedHead, service: Service) -> Anchored:
        try:
            result = self._anchorer.anchor(signed, service, lambda: not self._is_over)
        except Exception as error:  # noqa: BLE001 - training goes on; the text of what nobody foresaw may be secret
            words = f"it failed with {type(error).__name__}"
            result = Anchored(service.kind, service.name, signed.head.size, error=AnchorError(words))
        if result.error is not None:
            self._note(result.name, result.error)
        return result

    def _open(self, worker: BackgroundAnchor, size: int) -> Anchored:
        service = self._services[worker]
        error = AnchorError(f"{service.name} has not answered yet; it is still being asked")
        return Anchored(service.kind, service.name, size, error=error)

    def _note(self, what: str, error: Exception) -> None:
        with self._turn:
            self._trouble.setdefault(what, reason(what, error))


def _prepared(settings: Settings) -> Service:
    service = service_of(settings)
    service.prepare()
    return service


def _is_of(settings: Settings, service: Service) -> bool:
    own = settings_of(service)
    return own is not None and is_same_service(settings, own)
