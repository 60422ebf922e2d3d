"""`fgtrac report`: a trace in one page, verdict first, and a draft of the EU AI Act's training-data summary."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fgtrac.api.report import make_report
from fgtrac.cli.console import AsJson, answers, print_json, progress, safe
from fgtrac.cli.history import Key
from fgtrac.store.durable import write_file
from fgtrac.store.object_storage import FarPath, is_url
from fgtrac.web.ai_act import draft
from fgtrac.web.report_data import report_data
from fgtrac.web.report_page import report_page

SUFFIX = ".report.html"


def report(
    trace: Annotated[Path, typer.Argument(help="the trace, NAME.trace")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="the page to write (default: NAME.report.html beside the trace, or here)"),
    ] = None,
    key: Key = None,
    ai_act: Annotated[
        Path | None,
        typer.Option("--ai-act", metavar="FILE.json", help="also write the draft of the EU AI Act's summary as JSON"),
    ] = None,
    names: Annotated[
        bool, typer.Option("--names", help="call samples by their names in the vault, not by their ids")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="replace files that are there")] = False,
    as_json: AsJson = False,
) -> None:
    """Verify a trace, and write what it says as one page that needs nothing else: composition, uses, losses,
    contributions, integrity, what is not proved, and a draft of the EU AI Act's training-data summary.

    Exit code as of verify. With --json the figures are printed too; a page is then written with -o only.
    """
    whole = FarPath(trace) if is_url(trace) else trace.absolute()
    beside = Path.cwd() if is_url(trace) else whole.parent
    page = out or (None if as_json else beside / (whole.name.removesuffix(".trace") + SUFFIX))
    for place in (page, ai_act):
        if place is not None:
            _check_place(place, force)
    made = make_report(whole, key=key, watch=progress)
    written = []
    if page is not None:
        write_file(page, report_page(made, made=datetime.now(UTC), names=names).encode("utf-8", "replace"))
        written.append(page)
    summary = draft(made)
    if ai_act is not None and summary is not None:
        write_file(ai_act, (json.dumps(summary, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "replace"))
        written.append(ai_act)
    if as_json:
        print_json(report_data(made) | {"files": list(map(str, written))})
    else:
        lines = [f"{made.name}: {made.verified.verdict}", *map(str, written)]
        lines += [f"no figures: {made.withheld}"] if made.withheld else []
        if ai_act is not None and summary is None:
            lines.append(f"no draft for the AI Act is made of a trace that is {made.verified.verdict}")
        answers().print("\n".join(map(safe, lines)), soft_wrap=True)
    raise typer.Exit(made.verified.exit_code)


def _check_place(place: Path, force: bool) -> None:
    if place.exists() and not force:
        raise FileExistsError(f"{place} is there already; name another file, or replace it with --force")
    if not place.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {place.parent} to write {place.name} into")
