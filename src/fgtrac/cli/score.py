"""`fgtrac score`: which training samples lowered a target's loss, and which raised it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fgtrac.api.explanation import Explanation, Scored, Toward
from fgtrac.api.groups import check_group
from fgtrac.api.trace import open_trace
from fgtrac.cli.console import AsJson, answers, print_json, progress
from fgtrac.cli.functions import load_function

BARS = "▁▂▃▄▅▆▇█"
SHOWN_WITH_OUT = 20  # up to so many targets are shown when the matrix is written too
NUMBERED = 6  # up to so many shares are written out

TracePath = Annotated[Path, typer.Argument(help="the trace, NAME.trace")]
MethodName = Annotated[str, typer.Option("--method", help="tracin (the paper's), tracin-cos, fisher or ekfac")]
Damping = Annotated[
    float | None, typer.Option("--damping", help="of fisher and ekfac, in mean eigenvalues (default 0.1)")
]
Ggn = Annotated[bool, typer.Option("--ggn", help="fisher by the Gauss-Newton matrix, where it was kept")]
Steps = Annotated[str | None, typer.Option("--checkpoints", help="only those of these steps: 100,250")]


def score(
    trace: TracePath,
    toward: Annotated[
        list[str] | None,
        typer.Option(help="NAME:ROW, id:HEX, key:JSON, class:K[:ROLE] or role:ROLE; may be repeated"),
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="take the named samples as one group: their mean loss")
    ] = False,
    method: MethodName = "tracin",
    damping: Damping = None,
    ggn: Ggn = False,
    top: Annotated[int, typer.Option(min=1, help="how many of each kind")] = 10,
    checkpoints: Steps = None,
    by: Annotated[str | None, typer.Option(help="add up by source (data set), class or subject")] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="write the scores of all training samples into this folder")
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="write the scores into the log too, and seal it with the trace's key")
    ] = False,
    with_: Annotated[
        str | None,
        typer.Option("--with", help="FILE.py:FUNCTION, called with the run: makes the factors that are missing first"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show who lowered a target's loss (proponents) and who raised it (opponents), checkpoint by checkpoint.

    Reads the factors in the trace, and no training data. Without --toward, the target is role:validation. With --with,
    FUNCTION(run) registers the data again, calls run.score_with(...) and returns the model; this needs torch.
    """
    check_group(by)
    if with_ is not None:
        make_factors(trace, with_)
    opened = open_trace(trace)
    named: list[Any] = toward or ["role:validation"]
    targets = [named] if together else named
    how: dict[str, Any] = {"method": method, "damping": damping, "ggn": ggn, "checkpoints": parse_steps(checkpoints)}
    found = None
    if out is None or len(targets) <= SHOWN_WITH_OUT:
        with progress("scoring") as step:
            found = opened.explain(*targets, k=top, by=by, progress=step, **how)
    if out is not None:
        with progress("writing the scores") as step:
            opened.write_scores(out, *targets, progress=step, **how)
    added = None
    if record:
        with progress("recording the scores") as step:
            added = opened.record(*targets, progress=step, **how)
    if as_json:
        said = found.as_json() if found else {}
        said |= {"out": str(out)} if out is not None else {}
        print_json(said | ({"recorded": {"entries": added.entries, "scores": added.scores}} if added else {}))
        return
    console = answers()
    if found is not None:
        print_explanation(found, console)
    if out is not None:
        console.print(f"the scores of all training samples are in {escape(str(out))}", soft_wrap=True)
    if added is not None:
        words = f"{added.scores:,} scores in {added.entries} entries were added to the log"
        console.print(f"{words}; fgtrac verify computes them again", soft_wrap=True)


def make_factors(trace: Path, named: str) -> None:
    """Make the factors that the kept checkpoints lack, as the user's function says: it registers the data again, calls
    run.score_with(...) and returns the model. What an interrupted job has made is not made again."""
    function = load_function(named)
    from fgtrac.api.run import reopen  # needs torch

    with reopen(trace) as run:
        model = function(run)
        if not hasattr(model, "state_dict"):
            raise TypeError(f"{named:.80} returned {type(model).__name__}; return the model")
        run.score(model)


def parse_steps(text: str | None) -> list[int] | None:
    """Steps as one option: "100,250". ValueError for what is none."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"--checkpoints {text:.60} are no steps; write 100,250")
    return [int(part) for part in parts]


def print_explanation(found: Explanation, console: Console) -> None:
    """Tables for each target, and what the numbers rest on."""
    for one in found.toward:
        console.print(f"[bold]{escape(one.sentence)}[/]", soft_wrap=True)
        over = f"{found.columns[0]} to {found.columns[-1]}" if len(found.columns) > 1 else found.columns[0]
        for title, samples in (
            ("proponents: lowered the loss", one.proponents),
            ("opponents: raised it", one.opponents),
        ):
            _print_samples(title, samples, over, console)
        _print_baseline(one, console)
        _print_shares(one, found.by, console)
    console.print(escape(found.basis), soft_wrap=True)


def sparkline(sample: Scored) -> str:
    """A bar for each share, the higher the more it made of the score; with few shares, their numbers too."""
    shares = [share if sample.score >= 0 else -share for share in sample.trace]
    low, high = min([0.0, *shares]), max([0.0, *shares])
    bars = "".join(BARS[round((share - low) / ((high - low) or 1.0) * (len(BARS) - 1))] for share in shares)
    return bars if len(shares) > NUMBERED else " ".join([bars, *(f"{share:+.3g}" for share in sample.trace)])


def _print_samples(title: str, samples: tuple[Scored, ...], over: str, console: Console) -> None:
    if not samples:
        console.print(f"{title}: none")
        return
    table = Table("sample", "class", "score", over, title=title, title_justify="left")
    for s in samples:
        called = escape(s.name or f"id:{s.id.hex()[:16]}") + (" (itself)" if s.is_target else "")
        table.add_row(called, "" if s.label is None else str(s.label), f"{s.score:+.4g}", sparkline(s))
    console.print(table)


def _print_baseline(one: Toward, console: Console) -> None:
    if one.baseline:
        samples = ", ".join(f"{s.name or s.id.hex()[:16]} {s.score:.3g}" for s in one.baseline)
        which = f" of class {one.label}" if one.label is not None else ""
        console.print(escape(f"for comparison, free: the highest training losses{which}: {samples}"), soft_wrap=True)


def _print_shares(one: Toward, by: str | None, console: Console) -> None:
    if one.shares:
        table = Table(str(by), "samples", "sum", "mean", title=f"added up by {by}", title_justify="left")
        for share in one.shares:
            table.add_row(escape(share.group), f"{share.samples:,}", f"{share.sum:+.4g}", f"{share.mean:+.4g}")
        console.print(table)
