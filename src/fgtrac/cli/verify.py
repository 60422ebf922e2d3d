"""`fgtrac verify`: check a whole trace, or a bundle without its trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from fgtrac.api.audit import Demand
from fgtrac.api.bundles import verify_bundle
from fgtrac.api.replay import replay_demand
from fgtrac.api.rescore import scores_demand
from fgtrac.api.reweigh import weights_demand
from fgtrac.api.since import since_demand
from fgtrac.api.trace import Trace, open_for_verification
from fgtrac.api.trusted_anchors import TrustedAnchors
from fgtrac.api.user_functions import FunctionFailedError, load_function
from fgtrac.api.vault_audit import vault_demand
from fgtrac.api.witnessed import read_quorum
from fgtrac.cli.console import AsJson, answers, print_json, progress, safe
from fgtrac.cli.engine import MEMORY, EngineOption, MemoryOption
from fgtrac.cli.history import Key
from fgtrac.store.object_storage import is_url
from fgtrac.store.private_files import check_names_file
from fgtrac.verify.report import Report, Verdict

COLORS = {Verdict.HOLDS: "green", Verdict.REFUTED: "red", Verdict.CANNOT_TELL: "yellow"}


def verify(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="a trace (NAME.trace, s3://BUCKET/PREFIX/NAME.trace) or a bundle")],
    key: Key = None,
    id_key: Annotated[
        str | None,
        typer.Option("--id-key", help="for an absence under keyed ids: their key, 64 hex digits or a vault"),
    ] = None,
    about: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="refuse a bundle about anybody else: id:HEX, NAME:ROW, NAME:key:JSON, file:PATH or row:FILE.npy:INDEX",
        ),
    ] = None,
    scores: Annotated[
        int | None,
        typer.Option(help="also compute so many recorded scores again, chosen at random, down to model and data"),
    ] = None,
    attention: Annotated[
        int | None,
        typer.Option(metavar="N", help="also compute N recorded rows of modality weights again, chosen at random"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="choose those of --scores and --attention by this number (default: at random)")
    ] = None,
    with_: Annotated[
        str | None,
        typer.Option("--with", help="FILE.py:FUNCTION, called with what takes a run's verbs: gives data and model"),
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="also draw the order of every epoch again (needs torch), and compare")
    ] = False,
    since: Annotated[
        Path | None,
        typer.Option(
            metavar="OLDHEAD",
            help="also check that the log extends an older head: a copy of its checkpoint, a bundle or a tlog-proof",
        ),
    ] = None,
    vault: Annotated[
        Path | None, typer.Option(help="also compute every registered id again, from the names and secrets of a vault")
    ] = None,
    witness_key: Annotated[
        list[str] | None,
        typer.Option(
            "--witness-key", metavar="VKEY", help="a witness whose cosignature counts: its vkey, or a file (repeatable)"
        ),
    ] = None,
    quorum: Annotated[
        int | None, typer.Option(help="so many of the witnesses named must have cosigned (default: all of them)")
    ] = None,
    tsa_root: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="a time-stamping authority's root certificate (PEM) that you trust (repeatable)"
        ),
    ] = None,
    evm: Annotated[
        list[str] | None,
        typer.Option(metavar="RPC_URL", help="ask this node for heads in contracts on its chain (repeatable)"),
    ] = None,
    evm_contract: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="the contract, where not as the receipts say (repeatable)"),
    ] = None,
    evm_account: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="the owner's account, where not as the receipts say (repeatable)"),
    ] = None,
    confirmations: Annotated[
        int | None, typer.Option(metavar="N", help="blocks on a head's, its own included (default: 1)")
    ] = None,
    engine: EngineOption = "local",
    memory: MemoryOption = MEMORY,
    scratch: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="where an index that does not fit in --memory is rebuilt, with 12 bytes a use (default: your cache)",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check everything: exit code 0 where it holds, 1 where it is refuted, 3 where nobody can tell. The network is
    asked with --evm only."""
    if scores is None and attention is None and (seed is not None or with_ is not None):
        raise ValueError(
            "--seed and --with belong to --scores N or --attention N, which say how many; add one, or leave them out"
        )
    for_chain = {"--evm-contract": evm_contract, "--evm-account": evm_account, "--confirmations": confirmations}
    unused = [option for option, value in for_chain.items() if value is not None and not evm]
    if unused:
        raise ValueError(f"{unused[0]} belongs to --evm RPC_URL, the node to ask; add that, or leave it out")
    for_trace: dict[str, Any] = {"--scores": scores, "--replay": replay or None, "--since": since, "--vault": vault}
    for_trace |= {"--attention": attention, "--tsa-root": tsa_root, "--evm": evm, "--scratch": scratch}
    for_trace |= {f"--{name}": name for name in ("engine", "memory") if _is_given(context, name)}
    for_bundle: dict[str, Any] = {"--id-key": id_key, "--about": about}
    is_bundle = not is_url(path) and _is_file(path)
    for option, value in (for_trace if is_bundle else for_bundle).items():
        if value is not None:
            raise ValueError(
                f"{option} belongs to a {'trace' if is_bundle else 'bundle'}, and {path} is none; leave it out"
            )
    if is_bundle:
        report = verify_bundle(path, key, id_key, about, read_quorum(witness_key or (), quorum))
    else:
        trace = open_for_verification(path)
        with progress("verifying") as step:
            workers = engine if _is_given(context, "engine", "ENVIRONMENT") else None
            demands = _demands(trace, scores, attention, seed, with_, replay, since, vault, step, workers)
            deep = 1 if confirmations is None else confirmations
            anchors = TrustedAnchors(
                tsa_root or (), witness_key or (), quorum, evm or (), evm_contract or (), evm_account or (), deep
            )
            report = trace.verify(
                key,
                anchors=anchors,
                demands=demands,
                progress=step,
                engine=engine,
                memory_bytes=memory,
                scratch=scratch,
            )
    if as_json:
        print_json(report.as_json())
    else:
        print_report(report)
    raise typer.Exit(report.exit_code)


def _demands(
    trace: Trace,
    scores: int | None,
    attention: int | None,
    seed: int | None,
    with_: str | None,
    replay: bool,
    since: Path | None,
    vault: Path | None,
    step: Callable[[int, int], None],
    engine: str | None,
) -> list[Demand]:
    """One for each option that asks for more than the usual checks; `engine` is one that was named."""
    demands, function = [], None if with_ is None else _load(with_)
    if scores is not None:
        demands.append(scores_demand(scores, seed, function, step, named=with_, engine=engine))
    if attention is not None:
        demands.append(weights_demand(attention, seed, function))
    if replay:
        demands.append(replay_demand(trace.path, trace.id, vault))
    if since is not None:
        demands.append(since_demand(since))
    if vault is not None:
        demands.append(vault_demand(vault, trace.id, step))
    return demands


def _is_given(context: typer.Context, name: str, *also: str) -> bool:
    """Whether an option that has a default was written on the command line, or came from one of these sources."""
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", *also)


def _is_file(path: Path) -> bool:
    """Whether it is a file, a bundle's; else a folder. FileNotFoundError where it is neither."""
    check_names_file(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file or trace {path}")
    return path.is_file()


def _load(named: str) -> Callable[[Any], Any]:
    """The function of `--with`. ValueError too where its file cannot be run: nothing has been verified then."""
    try:
        return load_function(named)
    except FunctionFailedError as error:
        raise ValueError(str(error)) from error


def print_report(report: Report) -> None:
    """The findings as a table, the notes, and the verdict over all."""
    console = answers()
    check, found = (Column(name, overflow="fold") for name in ("check", "what was found"))  # names are shown whole
    table = Table(check, "verdict", found, show_edge=False)
    for finding in report.findings:
        color = COLORS[finding.verdict]
        table.add_row(finding.check, f"[{color}]{finding.verdict}[/{color}]", safe(finding.words))
    console.print(table)
    for note in report.notes:
        console.print(f"note: {safe(note)}", soft_wrap=True)
    console.print(f"[{COLORS[report.verdict]}]{report.verdict}[/]")
