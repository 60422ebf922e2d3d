"""What is still to be anchored: for each service the newest head that it has not witnessed yet.

The list lies beside the signing key (heads/TRACE-ID.pending, mode 0600) and never in the trace: settings hold URLs, and
these may hold secrets. So no message here repeats what stands in it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from fgtrac.anchor.service import SignedHead
from fgtrac.errors import FormatError
from fgtrac.store import durable
from fgtrac.tlog.note import parse_note, parse_tree_head

FORMAT = "fgtrac-pending/v1"
MAX_BYTES = 1_000_000
MAX_PENDING = 100
WAIT_S = 10.0  # for another process that is changing the list
DEPLOYMENT = "deployment"  # of a contract: paid once, so no later settings that leave it open displace it
_INCIDENTAL = ("timeout_s", "confirmations", "max_fee_gwei", DEPLOYMENT)  # a service is the same one under others

_LEARNT = ("chain_id",)  # when a service is first asked

Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pending:
    """A head, and the settings of the service that is to witness it."""

    settings: Settings
    signed: SignedHead

    @property
    def size(self) -> int:
        """The head's."""
        return self.signed.head.size

    def is_for(self, settings: Settings) -> bool:
        """Whether these settings name the same service."""
        return is_same_service(self.settings, settings)

    def covers(self, other: Pending) -> bool:
        """Whether nothing is left of the other once this is done."""
        return self.size >= other.size and fulfils(self.settings, other.settings)


def is_same_service(one: Settings, other: Settings) -> bool:
    """Whether two settings name the same service: what one of them has not learnt is whatever the other says."""
    learnt = all(one.get(name) == other.get(name) or None in (one.get(name), other.get(name)) for name in _LEARNT)
    return learnt and _are_equal(one, other)


def fulfils(settings: Settings, wanted: Settings) -> bool:
    """Whether a receipt from the service of these settings is one that was wanted: of the same service, under no fewer
    blocks."""
    learnt = all(wanted.get(name) in (None, settings.get(name)) for name in _LEARNT)
    return learnt and _are_equal(settings, wanted) and _depth(settings) >= _depth(wanted)


def may_fulfil(settings: Settings, wanted: Settings) -> bool:
    """Whether it is one once that service has learnt what it does not know yet."""
    return is_same_service(settings, wanted) and _depth(settings) >= _depth(wanted)


def _are_equal(one: Settings, other: Settings) -> bool:
    return all(one.get(name) == other.get(name) for name in {*one, *other}.difference(_INCIDENTAL, _LEARNT))


def _depth(settings: Settings) -> int:
    depth = settings.get("confirmations")
    return depth if isinstance(depth, int) else 0


def check_settings(settings: Settings) -> None:
    """TypeError for settings that no list can keep; it does not repeat them."""
    for name, value in settings.items():
        if not (value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))):
            raise TypeError(
                f"the setting {name} of a service of kind {settings.get('kind')} is a {type(value).__name__} that "
                "cannot be written down: give a text or a finite number"
            )


def deployment_in(pending: Iterable[Pending], settings: Settings) -> Any:
    """What a list tells of the deployment of a contract for this service; None for nothing."""
    return next((d for p in pending if p.is_for(settings) and (d := p.settings.get(DEPLOYMENT)) is not None), None)


def _recalling(settings: Settings, pending: Iterable[Pending]) -> Settings:
    if DEPLOYMENT not in settings or settings[DEPLOYMENT] is not None:
        return settings
    return {**settings, DEPLOYMENT: deployment_in(pending, settings)}


def format_pending(pending: Iterable[Pending]) -> bytes:
    """The list's file: a JSON object of `format` and `pending`, which are {service, head}; a head is a signed note."""
    items = [{"service": dict(p.settings), "head": p.signed.note.decode()} for p in pending]
    return (json.dumps({"format": FORMAT, "pending": items}, indent=1, allow_nan=False) + "\n").encode()


def parse_pending(data: bytes) -> tuple[Pending, ...]:
    """The list in a file's bytes. FormatError for anything that is none."""
    if len(data) > MAX_BYTES:
        raise FormatError(f"a list of pending anchors has at most {MAX_BYTES:,} bytes, not {len(data):,}")
    try:
        said = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refuse, parse_int=_whole
        )
    except (ValueError, RecursionError) as error:
        words = str(error) if not isinstance(error, UnicodeDecodeError) else "no UTF-8"
        raise FormatError(f"a list of pending anchors is strict JSON: {words}") from None
    if not isinstance(said, dict) or set(said) != {"format", "pending"} or said["format"] != FORMAT:
        raise FormatError(f"a list of pending anchors is an object of format ({FORMAT}) and pending, and this is not")
    if not isinstance(said["pending"], list) or len(said["pending"]) > MAX_PENDING:
        raise FormatError(f"a list of pending anchors is a list of at most {MAX_PENDING}")
    return tuple(map(_read_item, said["pending"]))


def _read_item(item: Any) -> Pending:
    if not isinstance(item, dict) or set(item) != {"service", "head"}:
        raise FormatError("a pending anchor is an object of service and head, and nothing else")
    settings, note = item["service"], item["head"]
    if not isinstance(settings, dict) or not isinstance(settings.get("kind"), str):
        raise FormatError("a pending anchor's service is an object with its kind")
    if any(isinstance(value, dict | list) for value in settings.values()):
        raise FormatError("the settings of a pending anchor's service are single values")
    try:
        data = note.encode()
    except (AttributeError, UnicodeEncodeError):
        raise FormatError("a pending anchor's head is the text of a signed note") from None
    return Pending(settings, SignedHead(parse_tree_head(parse_note(data).text), data))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _whole(text: str) -> int:
    return int(text) if len(text) < 16 else _refuse(text)


def _refuse(_text: str) -> NoReturn:
    raise ValueError("it holds a number out of range")


class PendingFile:
    """The list of one trace, on disk; each change of it keeps other processes out."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[Pending, ...]:
        """What is pending. FormatError, with the remedy, for a file that is no such list."""
        try:
            with self.path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return ()
        try:
            return parse_pending(data)
        except FormatError as error:
            raise FormatError(f"{self.path}: {error}; remove that file, and anchor the newest head") from error

    def add(self, signed: SignedHead, services: Iterable[Settings]) -> None:
        """Have a head anchored by these services too. For one service the larger of two heads stays, and the later of
        two settings. ValueError, and the list stays as it is, where it would grow too long."""
        wanted = [Pending(dict(settings), signed) for settings in services]

        def added(before: list[Pending]) -> list[Pending]:
            after = before
            for told in wanted:
                new = Pending(_recalling(told.settings, before), signed)
                if all(p != new and (not p.covers(new) or new.covers(p)) for p in after):
                    after = [*(p for p in after if not new.covers(p)), new]
            return after

        if wanted:
            self._change(added)

    def learn(self, signed: SignedHead, service: Settings) -> None:
        """Where this head is to be anchored by this service, keep what is known of the service now."""
        new = Pending(dict(service), signed)
        self._change(lambda before: [new if p.size == new.size and new.covers(p) else p for p in before])

    def settle(self, services: Iterable[Settings], size: int) -> None:
        """Take what these services have witnessed, or refused, off the list: heads up to this size."""
        over = list(services)
        self._change(
            lambda before: [p for p in before if p.size > size or not any(fulfils(s, p.settings) for s in over)]
        )

    def clear(self) -> tuple[Pending, ...]:
        """Take everything off the list; what that was."""
        dropped: list[Pending] = []

        def cleared(before: list[Pending]) -> list[Pending]:
            dropped.extend(before)
            return []

        self._change(cleared)
        return tuple(dropped)

    def _change(self, change: Callable[[list[Pending]], list[Pending]]) -> None:
        with self._alone():
            before = list(self.read())
            after = change(before)
            if not after:
                durable.remove(self.path)
            elif after != before:
                data = format_pending(after)
                if len(after) > max(MAX_PENDING, len(before)) or len(data) > MAX_BYTES:
                    raise ValueError(
                        f"{len(after)} heads would be pending in {self.path}, of {len(data):,} bytes; it holds at most "
                        f"{MAX_PENDING} in {MAX_BYTES:,} bytes: name fewer services, or complete what is pending first"
                    )
                durable.write_file(self.path, data, mode=0o600)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                stack.enter_context(durable.lock(self.path.with_name(self.path.name + ".lock"), "", WAIT_S))
            except BlockingIOError:
                raise BlockingIOError(f"{self.path} is being changed by another process; try again") from None
            yield
