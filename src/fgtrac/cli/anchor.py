"""`fgtrac anchor`: the newest tree head to a contract, to time-stamping authorities, and to witnesses."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import fgtrac
from fgtrac.anchor.anchored import Anchored
from fgtrac.anchor.service import Service
from fgtrac.api.anchoring import anchor_trace, complete_pending, forget_pending, has_quorum
from fgtrac.cli.console import AsJson, answers, print_json, progress, safe
from fgtrac.commit.state import count_unsealed
from fgtrac.errors import AnchorError, FormatError, RefusedError
from fgtrac.events.one_line import one_line
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.receipts import WITNESS
from fgtrac.verify.sightings import utc

TIMEOUT_S, MAX_TIMEOUT_S = 30.0, 3600
_USAGE = (FileNotFoundError, ValueError, TypeError, FormatError)


def anchor(
    trace: Annotated[Path, typer.Argument(help="the trace, NAME.trace")],
    evm: Annotated[str | None, typer.Option(metavar="RPC_URL", help="a node of an EVM chain; needs --account")] = None,
    account: Annotated[
        Path | None, typer.Option(metavar="KEYFILE", help="who pays on the chain: a private key in hex, or a keystore")
    ] = None,
    contract: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="by default that of the newest receipt on that chain, else a new one"),
    ] = None,
    chain_id: Annotated[
        int | None, typer.Option("--chain-id", metavar="N", help="refuse a node that is on any other chain")
    ] = None,
    confirmations: Annotated[
        int, typer.Option(min=1, help="how many blocks to wait for within --timeout, the head's own included")
    ] = 1,
    max_fee: Annotated[
        float | None,
        typer.Option(metavar="GWEI", help="send nothing while a unit of gas costs more (200)"),
    ] = None,
    tsa: Annotated[list[str] | None, typer.Option(metavar="URL", help="a time-stamping authority (RFC 3161)")] = None,
    witness: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="a C2SP witness; each needs its --witness-key")
    ] = None,
    witness_key: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="the witness's vkey, or a file that holds it")
    ] = None,
    quorum: Annotated[int | None, typer.Option(metavar="K", help="so many witnesses are enough")] = None,
    pending: Annotated[
        bool, typer.Option("--pending", help="anchor what was left over earlier, and nothing else")
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="drop what was left over earlier, say what it was, and do nothing else")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(metavar="S", help="seconds for each service (30; of what is pending, as before)")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Have the newest sealed tree head witnessed outside: what is rewritten afterwards, by you too, does not fit it.

    Receipts go into the trace. Where a service gives no usable answer the exit code is 4, and --pending tries again;
    where one refuses it is 1."""
    if timeout is not None and not 0 < timeout <= MAX_TIMEOUT_S:
        raise ValueError(f"--timeout {timeout:g}; name seconds above 0, and at most {MAX_TIMEOUT_S}")
    seconds = TIMEOUT_S if timeout is None else timeout
    on_chain = {"contract": contract, "chain_id": chain_id, "max_fee_gwei": max_fee}
    options = {name: value for name, value in on_chain.items() if value is not None}
    services = _on_chain(evm, account, options, confirmations, seconds)
    services += [fgtrac.TimeStampAuthority(url, timeout_s=seconds) for url in tsa or []]
    services += _witnesses(witness or [], witness_key or [], seconds)
    if (pending or forget) and (services or quorum is not None or (pending and forget)):
        raise ValueError(
            "--pending and --forget each stand alone: they know the services from earlier; leave out --evm, --tsa, "
            "--witness and --quorum"
        )
    if forget:
        _forget(trace, as_json)
        return
    with progress("anchoring") as step:
        if pending:
            results = complete_pending(trace, timeout_s=timeout, progress=step)
        else:
            results = anchor_trace(trace, services, quorum=quorum, progress=step)
    enough = quorum is not None and has_quorum(services, results, quorum)
    _say(trace, results, as_json, unsealed=0 if pending else count_unsealed(TraceDir.open(trace)), enough=enough)
    raise typer.Exit(_exit_code([r for r in results if not (enough and r.kind == WITNESS)]))


def _forget(trace: Path, as_json: bool) -> None:
    dropped = forget_pending(trace)
    if as_json:
        print_json({"forgotten": [{"who": name, "size": size} for name, size in dropped]})
        return
    for name, size in dropped:
        answers().print(safe(f"no longer pending: {size} entries for {name}"), soft_wrap=True)
    if not dropped:
        answers().print("nothing is pending")


def _on_chain(
    evm: str | None, account: Path | None, options: dict[str, Any], confirmations: int, timeout: float
) -> list[Service]:
    if evm is None:
        if account is not None or options or confirmations != 1:
            raise ValueError(
                "--account, --contract, --chain-id, --confirmations and --max-fee are for a chain; name its node with "
                "--evm RPC_URL"
            )
        return []
    if account is None:
        raise ValueError("--evm needs an account that pays: --account KEYFILE")
    return [fgtrac.EvmContract(evm, account, confirmations=confirmations, timeout_s=timeout, **options)]


def _witnesses(urls: Sequence[str], keys: Sequence[str], timeout: float) -> list[Service]:
    if len(urls) != len(keys):
        raise ValueError(
            f"{len(urls)} --witness and {len(keys)} --witness-key; give each witness its key, in one order"
        )
    return [fgtrac.Witness(url, key, timeout_s=timeout) for url, key in zip(urls, keys, strict=True)]


def _say(trace: Path, results: Sequence[Anchored], as_json: bool, *, unsealed: int, enough: bool) -> None:
    if as_json:
        print_json({"anchored": [_fields(r) for r in results], "unsealed_entries": unsealed})
    console = answers()
    for result in results:
        if result.error is not None:
            _warn(result.reason + _remedy(trace, result, enough))
        elif not as_json:
            when = utc(result.time or 0)
            words = f"{result.size} entries anchored: {result.kind}, {result.name}, {when}, {result.receipt}"
            console.print(safe(words), soft_wrap=True)
    if not results and not as_json:
        console.print("nothing is pending")
    if unsealed:
        _warn(
            f"{unsealed} entries of the journal are in no head yet, and not anchored: fgtrac seal {trace}, then anchor"
        )


def _fields(result: Anchored) -> dict[str, Any]:
    said = {"size": result.size, "kind": result.kind, "who": result.name}
    if result.error is not None:
        return said | {"error": result.reason, "refused": isinstance(result.error, RefusedError)}
    return said | {"time": result.time, "receipt": result.receipt}


def _remedy(trace: Path, result: Anchored, enough: bool) -> str:
    if enough and result.kind == WITNESS:
        return "; the others were enough"
    return "" if isinstance(result.error, RefusedError) else f"; fgtrac anchor {trace} --pending completes it"


def _warn(words: str) -> None:
    print(f"fgtrac: {one_line(words)}", file=sys.stderr)


def _exit_code(results: Sequence[Anchored]) -> int:
    """1 where a service refused, or trace or disk are at fault; else 2 for a mistake of the caller; else 4."""
    errors = [r.error for r in results if r.error is not None]
    codes = {4 if _is_silence(e) else 2 if isinstance(e, _USAGE) else 1 for e in errors}
    return min(codes, default=0)


def _is_silence(error: Exception) -> bool:
    return isinstance(error, AnchorError) and not isinstance(error, RefusedError)
