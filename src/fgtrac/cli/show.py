"""`fgtrac show`: what a trace says of itself, unverified, and the key that other people's tools check it by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fgtrac.api.resumes import Affected, Resume, find_resumes
from fgtrac.api.summary import Summary, summarize
from fgtrac.cli.console import AsJson, answers, print_json, safe

NAMED = 8  # samples named in one line


def show(
    trace: Annotated[Path, typer.Argument(help="the trace, NAME.trace")],
    vkey: Annotated[bool, typer.Option("--vkey", help="print the log's C2SP verifier key and nothing else")] = False,
    resumes: Annotated[
        bool,
        typer.Option("--resumes", help="the restarts, and which samples each repeated or skipped in the pass it cut"),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a trace: head, entries by kind, data sets, checkpoints, receipts. Verifies nothing; `fgtrac verify` does."""
    if resumes:
        found = find_resumes(trace)
        if as_json:
            print_json([one.as_json() for one in found])
        else:
            _print_resumes(found, answers())
        return
    summary = summarize(trace)
    if vkey:
        typer.echo(summary.vkey)
    elif as_json:
        print_json(summary.as_json())
    else:
        _print(summary, answers())


def _print(summary: Summary, console: Console) -> None:
    if summary.indexed and summary.indexed == summary.size - 1:
        indexed = "the index covers all of them"
    else:
        indexed = f"the index covers the first {summary.indexed}; fgtrac seal commits one over all"
    state = "complete" if not summary.unsealed else "complete as far as it is sealed"
    state = state if summary.ended else "no end entry after its last training: unfinished, or cut off"
    console.print(f"trace    {summary.trace_id.hex()} ({state})")
    console.print(f"log      {summary.size} entries; {indexed}")
    console.print(f"unsealed {summary.unsealed} entries in the journal")
    console.print(f"root     {summary.root.hex() or 'none yet'}")
    console.print(
        f"key      {summary.public_key.hex()} (as the trace says; name it to fgtrac verify only if you know it)"
    )
    seeds = " (of graphs: as seeds)" if summary.neighbours else ""
    console.print(f"uses     {summary.uses:,} of samples in applied updates{seeds}")
    if summary.ranks:
        console.print(f"ranks    {summary.ranks} that trained together")
    for gap in summary.gaps:
        console.print(f"gap      {safe(gap)}")
    counts = Table("kind", "entries", title="entries", title_justify="left")
    for kind, count in sorted(summary.counts.items()):
        counts.add_row(kind, str(count))
    console.print(counts)
    for title, rows in (
        ("data sets", summary.datasets),
        ("neighbours", summary.neighbours),
        ("checkpoints", summary.checkpoints),
        ("modality weights", summary.attention),
        ("factors", summary.factors),
        ("contributions", summary.contributions),
        ("receipts of outside witnesses (fgtrac verify looks at them)", summary.receipts),
    ):
        if rows:
            names = list(dict.fromkeys(name for row in rows for name in row))
            table = Table(*names, title=title, title_justify="left")
            for row in rows:
                table.add_row(*(safe(str(row.get(name, ""))) for name in names))
            console.print(table)


def _print_resumes(found: Sequence[Resume], console: Console) -> None:
    if not found:
        console.print("the run was never resumed")
    for one in found:
        undone = f"; the log had reached step {one.reached}" if one.reached > one.step else ""
        console.print(f"entry {one.entry}: resumed from step {one.step}{undone}")
        if not one.passes:
            console.print("  between passes: none was cut")
        for cut in one.passes:
            uses = f"{cut.before:,} uses before and {cut.after:,} after, of {cut.expected:,}"
            console.print(f"  loader {cut.loader}, epoch {cut.epoch}: {uses} by {safe(cut.against)}")
            if cut.unknown:
                console.print(f"    cannot tell the order: {safe(cut.unknown)}")
            if cut.is_whole and cut.expected:
                console.print("    every sample was used as often as that says")
            _print_affected("repeated", cut.repeated, console)
            may_come = " (the log ends in this pass: they may still come)" if cut.is_last else ""
            _print_affected(f"skipped{may_come}", cut.skipped, console)


def _print_affected(what: str, samples: Sequence[Affected], console: Console) -> None:
    if samples:
        named = [f"{one.name or one.id.hex()} ({one.uses} for {one.expected})" for one in samples[:NAMED]]
        more = f" and {len(samples) - NAMED:,} more (--json has all)" if len(samples) > NAMED else ""
        console.print(f"    {what}: {len(samples):,} samples: {safe(', '.join(named))}{more}")
