"""The verbs of anchoring: the newest tree head to outside witnesses, and what is left over from earlier.

anchor_trace("runs/cnn.trace", [fgtrac.TimeStampAuthority("https://tsa.example")])
complete_pending("runs/cnn.trace")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from fgtrac.anchor.anchored import Anchored
from fgtrac.anchor.pending import Settings
from fgtrac.anchor.service import Service, SignedHead
from fgtrac.api.anchor_head import Anchorer
from fgtrac.api.anchor_services import check_receipt_names, prepare, service_of
from fgtrac.errors import FgtracError
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.cosignature import Cosigner, count_distinct, parse_cosigner
from fgtrac.verify.receipts import WITNESS

Progress = Callable[[int, int], None]


def anchor_trace(
    path: str | os.PathLike[str],
    services: Sequence[Service],
    *,
    quorum: int | None = None,
    key: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> tuple[Anchored, ...]:
    """Have the newest sealed head of a trace witnessed by each service; what became of it, in their order.

    Receipts are written into the trace, a witness's cosignature into its tree head too where `key` (the signing key's
    file, by default the user's) signs this trace. What gave no usable answer is kept beside that key, and
    `complete_pending` does it later; with `quorum`, as many witnesses are enough, and those beyond are not kept.

    Raises before anything is asked: FileNotFoundError or FormatError where there is no trace, ValueError where nothing
    is sealed, the log has other signers than the user's key says, `quorum` asks for more witnesses than there are, two
    authorities would have one receipt, more would be pending than the list holds, or a service cannot be prepared;
    ProofError or TamperError for a head that is not this log's; BlockingIOError where another process keeps the list.
    Whatever happens with a service from then on is in its result.
    """
    if not services:
        raise ValueError("there is no service to anchor with; name a contract, a time-stamping authority or a witness")
    if quorum is not None and not 1 <= quorum <= (there := _count_witnesses(services)):
        raise ValueError(f"a quorum of {quorum} of {there} different witnesses; ask for 1 to as many as are named")
    anchorer = Anchorer.open(TraceDir.open(Path(path)), None if key is None else Path(key))
    check_receipt_names(services)
    for service in services:
        prepare(service)
    signed = anchorer.newest_head()
    anchorer.check(signed)
    anchorer.want(signed, services)
    results = []
    for done, service in enumerate(services):
        _tell(progress, done, len(services))
        results.append(anchorer.anchor(signed, service))
    _tell(progress, len(services), len(services))
    if quorum is not None and has_quorum(services, results, quorum):
        spare = [s for s, result in zip(services, results, strict=True) if s.kind == WITNESS and result.error]
        anchorer.forget(signed, spare)
    return tuple(results)


def complete_pending(
    path: str | os.PathLike[str],
    *,
    timeout_s: float | None = None,
    key: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> tuple[Anchored, ...]:
    """Anchor what is pending for a trace: for each service the newest head that it has not witnessed. Empty where
    nothing is. What is done or refused is no longer pending then. Each service has its time of before, or `timeout_s`.

    Raises as `anchor_trace`, and FormatError for a damaged list of what is pending; a service that cannot be prepared
    has that in its result.
    """
    anchorer = Anchorer.open(TraceDir.open(Path(path)), None if key is None else Path(key))
    pending = anchorer.pending.read()
    results = []
    for done, item in enumerate(pending):
        _tell(progress, done, len(pending))
        later = {} if timeout_s is None else {"timeout_s": timeout_s}
        results.append(_complete(anchorer, {**item.settings, **later}, item.signed))
    return tuple(results)


def forget_pending(
    path: str | os.PathLike[str], *, key: str | os.PathLike[str] | None = None
) -> tuple[tuple[str, int], ...]:
    """Take everything off the list of what is pending for a trace: for each head by whom it was to be witnessed, and
    its size. Raises as `complete_pending`."""
    anchorer = Anchorer.open(TraceDir.open(Path(path)), None if key is None else Path(key))
    return tuple((_name(item.settings), item.size) for item in anchorer.pending.clear())


def _name(settings: Settings) -> str:
    try:
        return service_of(settings).name
    except (FgtracError, ValueError):  # its extra is not installed, or it is none: that is why it is forgotten
        return f"a service of kind {settings['kind']!r:.20}"


def has_quorum(services: Sequence[Service], results: Sequence[Anchored], quorum: int) -> bool:
    """Whether at least `quorum` different witnesses among the services have cosigned."""
    return _count_witnesses([s for s, result in zip(services, results, strict=True) if result.error is None]) >= quorum


def _count_witnesses(services: Sequence[Service]) -> int:
    return count_distinct([_cosigner(s) for s in services if s.kind == WITNESS])


def _cosigner(service: Service) -> Cosigner:
    return parse_cosigner(service.settings()["key"])


def _complete(anchorer: Anchorer, settings: Settings, signed: SignedHead) -> Anchored:
    kind = str(settings["kind"])
    try:
        service = service_of(settings)
        prepare(service)
    except (FgtracError, OSError, ValueError) as error:
        return Anchored(kind, f"a pending service of kind {kind}", signed.head.size, error=error)
    return anchorer.anchor(signed, service)


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
