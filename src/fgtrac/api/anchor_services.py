"""The outside services by their settings, each loaded on first use; and where a contract was deployed before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from fgtrac.anchor.pending import DEPLOYMENT, PendingFile, Settings, check_settings, deployment_in
from fgtrac.anchor.service import Service
from fgtrac.errors import FormatError
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.evm_receipt import parse_evm_receipt
from fgtrac.verify.receipts import EVM, RFC3161, WITNESS, receipt_files, rfc3161_name


def service_of(settings: Mapping[str, Any]) -> Service:
    """The service that these settings make again (`Service.settings`). FormatError where they make none; it does not
    repeat them, since they may hold what is secret."""
    said = dict(settings)
    kind = said.pop("kind", None)
    try:
        if kind == RFC3161:
            from fgtrac.anchor.rfc3161 import TimeStampAuthority

            return TimeStampAuthority(**said)
        if kind == WITNESS:
            from fgtrac.anchor.witness import Witness

            return Witness(**said)
        if kind == EVM:
            from fgtrac.anchor.evm import EvmContract

            return EvmContract(**said)
    except (TypeError, ValueError, OverflowError):
        raise FormatError(f"the settings of a pending anchor (kind {kind}) make no such service") from None
    raise FormatError(f"there is no service of kind {kind!r:.20}; the kinds are {RFC3161}, {WITNESS} and {EVM}")


def settings_of(service: Service) -> Settings | None:
    """What makes a service again; None for one that lives in this process only, and so cannot stay pending."""
    try:
        return service.settings()
    except TypeError:
        return None


def prepare(service: Service, *, may_ask: bool = True) -> None:
    """`Service.prepare`, once its settings are such as can be kept; without `may_ask` nobody is asked for a password.
    TypeError for settings that cannot be written down."""
    check_settings(settings_of(service) or {})
    if service.kind == EVM and not may_ask:
        from fgtrac.anchor.evm import EvmContract

        if isinstance(service, EvmContract):
            service.prepare(may_ask=False)
            return
    service.prepare()


def check_receipt_names(services: Iterable[Service]) -> None:
    """ValueError for two time-stamping authorities whose receipts would have one name: one of them would be dropped."""
    known: dict[str, Service] = {}
    for service in (one for one in services if one.kind == RFC3161):
        if (settings := settings_of(service)) is None:
            continue
        name = rfc3161_name(settings["url"])
        other = known.setdefault(name, service)
        if other is not service:
            raise ValueError(
                f"the time-stamping authorities {other.name} and {service.name} are named by URLs that differ in user, "
                f"password and query at most: the receipt of both would be {name}; name one of them"
            )


def prefer_contracts(service: Service, trace: TraceDir, pending: PendingFile) -> None:
    """Where a contract was not named: let it be the one of the trace's newest receipt on the chain in question, else
    the one of a deployment that was sent earlier."""
    if service.kind == EVM:
        from fgtrac.anchor.evm import EvmContract

        if isinstance(service, EvmContract) and service.contract is None:
            service.prefer(_contracts_in(trace))
            with suppress(TypeError):  # a chain in this process has no settings
                settings = service.settings()
                if settings[DEPLOYMENT] is None:
                    service.recall(deployment_in(pending.read(), settings))


def _contracts_in(trace: TraceDir) -> dict[int, bytes]:
    """The contract of the newest receipt on each chain, by the chain's id. Receipts that cannot be read name none."""
    found: dict[int, bytes] = {}
    paths = (trace.path / "receipts").glob("*/evm-*.json")
    for file in receipt_files(str(path.relative_to(trace.path)) for path in paths):
        with suppress(FormatError, OSError):
            receipt = parse_evm_receipt(trace.read(file.path))
            found[receipt.chain_id] = receipt.contract
    return found
