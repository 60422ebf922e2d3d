"""One tree head to one outside service: the receipt that comes to lie in the trace, and a witness's line in the head.

The order of writes, and what a crash behind each leaves; anchoring the same head once more does the rest:

    1  the list of what is pending, beside the signing key    nothing is in the trace yet
    2  receipts/SIZE/checkpoint, the head as it was signed    as 1
    3  the receipt beside it                                  the head is anchored
    4  a witness's line in index/SIZE/checkpoint and in the tree head, where that is still the newest
    5  the service is taken off the list                      done
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from fgtrac.anchor.anchored import Anchored
from fgtrac.anchor.pending import PendingFile, Settings
from fgtrac.anchor.service import ProveFrom, Service, SignedHead
from fgtrac.api.anchor_services import prefer_contracts, settings_of
from fgtrac.api.prior import signer_of, trace_id_of
from fgtrac.commit.keys import key_path
from fgtrac.commit.signer import Signer
from fgtrac.errors import AnchorError, FgtracError, FormatError, ProofError, TamperError
from fgtrac.store import durable
from fgtrac.store.private_files import read_private
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.cosignature import cosignature_time, parse_cosigner
from fgtrac.tlog.merkle import prove_consistency, root
from fgtrac.tlog.note import Note, format_note, parse_note, parse_tree_head, with_signatures
from fgtrac.tlog.tiles import TileNodes
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.evm_receipt import parse_evm_receipt
from fgtrac.verify.receipts import EVM, RFC3161, WITNESS, note_path, receipt_path

WAIT_S = 10.0  # for a seal to end
Computed = TypeVar("Computed")
_TRIES = 4  # to read the edge of a log that grows meanwhile


class Anchorer:
    """Anchors heads of one trace. Without a signer it writes receipts, and leaves the tree head as it is."""

    def __init__(self, trace: TraceDir, signer: Signer | None, pending: PendingFile) -> None:
        self.trace = trace
        self._signer = signer
        self.pending = pending

    @classmethod
    def open(cls, trace: TraceDir, named: Path | None = None) -> Anchorer:
        """For a trace, with the user's key where it signs that trace. ValueError for a key that others may use."""
        path = key_path(named)
        if path.exists():
            read_private(path)  # raises where others may use it
            with suppress(ValueError):  # somebody else's trace: whoever has a copy may have its head witnessed
                signer = signer_of(trace, path)
                return cls(trace, signer, PendingFile(signer.pending_path))
        pending = path.parent / "heads" / f"{trace_id_of(trace).hex()}.pending"
        return cls(trace, None, PendingFile(pending))

    def newest_head(self) -> SignedHead:
        """The newest sealed head. ValueError before the first seal, ProofError where the user's key signs this trace
        and did not sign it."""
        try:
            note = self.trace.read("checkpoint")
        except FileNotFoundError:
            path = self.trace.path
            raise ValueError(f"nothing in {path} is sealed yet; seal it first: fgtrac seal {path}") from None
        if self._signer is not None:
            self._signer.key_of(note)
        return signed_head(note)

    def check(self, signed: SignedHead) -> None:
        """TamperError where the head is not one of this log."""
        size = signed.head.size
        if (reached := self._over_log(size, lambda nodes: root(size, nodes))) != signed.head.root:
            raise TamperError(
                f"the first {size} entries of {self.trace.path} have the root {reached.hex()}, and the head to be "
                f"anchored says {signed.head.root.hex()}: restore the trace that was sealed"
            )

    def want(self, signed: SignedHead, services: Sequence[Service]) -> None:
        """Put a head on the list of what is pending for these services, as far as they can be made again. ValueError
        where that grows too long."""
        self.pending.add(signed, _kept(services))

    def forget(self, signed: SignedHead, services: Sequence[Service]) -> None:
        """Take services off that list, for heads up to this one."""
        self.pending.settle(_kept(services), signed.head.size)

    def anchor(self, signed: SignedHead, service: Service, go_on: Callable[[], bool] = lambda: True) -> Anchored:
        """Have a head witnessed, and its receipt written if `go_on` still says so. Whatever goes wrong with the
        service, the log or the disk is in the result. What is done or refused is taken off the list; otherwise the list
        learns what is known now, such as a contract that was deployed, if the head still stands there."""
        try:
            result = self._try(signed, service, go_on)
        except KeyboardInterrupt:
            self._learn(signed, service)
            raise
        if result.error is not None and not go_on():
            return result
        try:
            if result.is_over:
                self.forget(signed, [service])
            else:
                self._learn(signed, service)
        except (FgtracError, OSError, ValueError) as error:
            return replace(result, error=result.error or error)
        return result

    def _learn(self, signed: SignedHead, service: Service) -> None:
        settings = settings_of(service)
        if settings is not None:
            self.pending.learn(signed, settings)

    def _try(self, signed: SignedHead, service: Service, go_on: Callable[[], bool]) -> Anchored:
        size = signed.head.size
        try:
            self.check(signed)
            prefer_contracts(service, self.trace, self.pending)
            name, receipt = service.anchor(signed, self._prove_from(signed))
            if not go_on():
                raise AnchorError(f"{service.name} answered too late; its receipt is still to be fetched")
            path, time = self._keep(signed, service, name, receipt)
            if service.kind == WITNESS:
                self._cosign(signed, receipt)
        except (FgtracError, OSError, ValueError) as error:
            return Anchored(service.kind, service.name, size, error=error)
        except Exception as error:  # noqa: BLE001 - a fault of the service's; its text may be secret
            fault = AnchorError(f"it failed with {type(error).__name__}")
            return Anchored(service.kind, service.name, size, error=fault)
        return Anchored(service.kind, service.name, size, path, time)

    def _prove_from(self, signed: SignedHead) -> ProveFrom:
        size = signed.head.size
        return lambda old: tuple(self._over_log(size, lambda nodes: prove_consistency(old, size, nodes)))

    def _over_log(self, size: int, compute: Callable[[TileNodes], Computed]) -> Computed:
        """What is computed from the hash tiles of a log that has `size` entries, and may be growing."""
        for _ in range(_TRIES):
            with suppress(FileNotFoundError):  # a seal may just have replaced a partial tile
                return compute(self._nodes(size))
        return compute(self._nodes(size))

    def _nodes(self, size: int) -> TileNodes:
        head = self.trace.head()
        if head is None or head.size < size:
            raise TamperError(f"{self.trace.path} has {head.size if head else 0} entries; {size} were sealed")
        return TileNodes(self.trace, head.size)

    def _keep(self, signed: SignedHead, service: Service, name: str, receipt: bytes) -> tuple[str, int]:
        """Write the receipt: its path and time. One that lies there already and would be written today stays: it is
        older, and says more. But a chain may have dropped what its receipt says, so that one is replaced."""
        path, note = receipt_path(signed.head.size, name), note_path(signed.head.size)
        time = receipt_time(service, receipt, signed.note)
        if self._read(note) != signed.note:
            durable.write_file(self.trace.path / note, signed.note)
        if service.kind != EVM:
            with suppress(CannotTell, FgtracError, FileNotFoundError):  # none, or a damaged one, which is replaced
                return path, receipt_time(service, self.trace.read(path), signed.note)
        durable.write_file(self.trace.path / path, receipt)
        return path, time

    def _cosign(self, signed: SignedHead, receipt: bytes) -> None:
        """Put a witness's line into the tree head, and the note of a full seal, while nothing newer is sealed."""
        if self._signer is None:
            return
        lines = parse_note(receipt).signatures
        with durable.lock(self._signer.lock_path, str(self.trace.path), WAIT_S):
            for path in (f"index/{signed.head.size}/checkpoint", "checkpoint"):
                note = self._read(path)
                if note is not None and parse_note(note).text == parse_note(receipt).text:
                    cosigned = with_signatures(note, lines)
                    if cosigned != note:
                        durable.write_file(self.trace.path / path, cosigned)

    def _read(self, path: str) -> bytes | None:
        try:
            return self.trace.read(path)
        except FileNotFoundError:
            return None


def signed_head(note: bytes) -> SignedHead:
    """A tree head with the log's own signature and no others. FormatError for a note that is none or has none."""
    parsed = parse_note(note)
    head = parse_tree_head(parsed.text)
    mine = tuple(s for s in parsed.signatures if s.name == head.origin)
    if not mine:
        raise FormatError(f"a head of the log {head.origin!r:.80} that the log has not signed")
    return SignedHead(head, format_note(Note(parsed.text, mine)))


def _kept(services: Sequence[Service]) -> list[Settings]:
    return [settings for settings in map(settings_of, services) if settings is not None]


def receipt_time(service: Service, receipt: bytes, note: bytes) -> int:
    """When a receipt says that this note was there, in unix seconds. FormatError for what is no receipt of that kind,
    ProofError for one of another head, by another witness, or whose signature does not verify; CannotTell for a time
    stamp in a form that is not supported."""
    if service.kind == EVM:
        return parse_evm_receipt(receipt).block_time
    if service.kind == RFC3161:
        from fgtrac.anchor.rfc3161 import check_alone

        return int(check_alone(receipt, note).time.timestamp())
    time = cosignature_time(receipt, parse_cosigner(service.settings()["key"]))
    if time is None or parse_note(receipt).text != parse_note(note).text:
        raise ProofError(f"not this head, or not with the cosignature of {service.name}")
    return time
