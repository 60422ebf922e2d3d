"""`fgtrac suspects`: training samples that may be mislabelled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fgtrac.api.suspects import SuspectList
from fgtrac.api.trace import open_trace
from fgtrac.cli.console import AsJson, answers, print_json, progress, safe
from fgtrac.cli.engine import ScoreEngineOption, workers_of
from fgtrac.cli.score import Damping, Ggn, Steps, TracePath, parse_steps
from fgtrac.store.durable import write_file

SHOWN = 20  # lines of the table, where a file has them all


def suspects(
    trace: TracePath,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="write them as CSV too, with your own keys")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="how many (default: 20; with -o all)")] = None,
    method: Annotated[str, typer.Option(help="of the self-influence: fisher, tracin or ekfac")] = "fisher",
    damping: Damping = None,
    ggn: Ggn = False,
    checkpoints: Steps = None,
    by: Annotated[str | None, typer.Option(help='order by "self-influence" or "mean loss"')] = None,
    wrong: Annotated[
        Path | None,
        typer.Option(
            help="a file that names a sample a line whose label is known to be wrong: tells which measure is better"
        ),
    ] = None,
    engine: ScoreEngineOption = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite the file")] = False,
    as_json: AsJson = False,
) -> None:
    """Show training samples that may be mislabelled: by self-influence, and by the mean loss, which costs nothing."""
    if out is not None and out.exists() and not force:
        raise FileExistsError(f"{out} exists; name another file, or overwrite it with --force")
    if out is not None and not out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {out.parent} to write {out.name} into")
    named = None if wrong is None else _read_names(wrong)
    count = top or (SHOWN if out is None else None)
    how = {"method": method, "damping": damping, "ggn": ggn, "checkpoints": parse_steps(checkpoints)}
    with workers_of(engine) as workers, progress("measuring self-influence") as step:
        found = open_trace(trace).suspects(
            count,
            by=by,
            wrong=named,
            engine=workers,
            progress=step,
            **how,  # type: ignore[arg-type]
        )
    if out is not None:
        write_file(out, found.csv().encode())
    if as_json:
        print_json(found.as_json() | ({"out": str(out)} if out is not None else {}))
    else:
        _print(found, out)


def _read_names(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--wrong {path} cannot be read as text: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _print(found: SuspectList, out: Path | None) -> None:
    console = answers()
    table = Table("sample", "class", "self-influence", "rank", "mean loss", "rank")
    for s in found.suspects if out is None else found.suspects[:SHOWN]:
        numbers = (
            f"{s.self_influence:.4g}",
            str(s.rank_by_self_influence),
            f"{s.mean_loss:.4g}",
            str(s.rank_by_mean_loss),
        )
        table.add_row(safe(s.row.words), "" if s.row.label is None else str(s.row.label), *numbers)
    console.print(table)
    console.print(safe(found.basis), soft_wrap=True)
    if out is not None:
        console.print(f"{len(found.suspects):,} samples are in {safe(str(out))}", soft_wrap=True)
