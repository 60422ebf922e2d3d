"""`fgtrac score`: which training samples lowered a target's loss, and which raised it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fgtrac.api.explanation import UNMEASURED, Explanation, Fidelity, Scored, Toward
from fgtrac.api.groups import check_group
from fgtrac.api.record_scores import Recorded
from fgtrac.api.trace import Trace, ensemble, open_trace
from fgtrac.api.user_functions import load_function
from fgtrac.cli.console import AsJson, answers, print_json, progress, safe
from fgtrac.cli.engine import ScoreEngineOption, workers_of
from fgtrac.engine.units import Engine

BARS = "▁▂▃▄▅▆▇█"
SHOWN_WITH_OUT = 20  # up to so many targets are shown when the matrix is written too
NUMBERED = 6  # up to so many shares are written out

TracePath = Annotated[Path, typer.Argument(help="the trace, NAME.trace")]
MethodName = Annotated[str, typer.Option("--method", help="tracin (the paper's), tracin-cos, fisher or ekfac")]
Damping = Annotated[
    float | None,
    typer.Option(
        "--damping", help="of fisher and ekfac, in mean eigenvalues (default: fisher 0.1, with --ggn 0.03, ekfac 0.3)"
    ),
]
Ggn = Annotated[bool, typer.Option("--ggn", help="fisher by the Gauss-Newton matrix, where it was kept")]
Steps = Annotated[str | None, typer.Option("--checkpoints", help="only those of these steps: 100,250")]


def score(
    trace: TracePath,
    toward: Annotated[
        list[str] | None,
        typer.Option(help="NAME:ROW, NAME:key:JSON, id:HEX, key:JSON, class:K[:ROLE] or role:ROLE; may be repeated"),
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
    also: Annotated[
        list[Path] | None,
        typer.Option(help="another trace of a training on the same samples, may be repeated: the mean of their scores"),
    ] = None,
    fidelity: Annotated[
        str | None,
        typer.Option(help="FILE.py:FUNCTION(rows, seed), which trains on these rows and returns the targets' losses"),
    ] = None,
    subsets: Annotated[int, typer.Option(min=4, help="how many random halves --fidelity trains on")] = 64,
    retrainings: Annotated[
        Path | None, typer.Option(help="where --fidelity keeps what it has trained (default: NAME.retrainings)")
    ] = None,
    engine: ScoreEngineOption = None,
    as_json: AsJson = False,
) -> None:
    """Show who lowered a target's loss (proponents) and who raised it (opponents), checkpoint by checkpoint.

    Reads the factors in the trace, and no training data. Without --toward, the target is role:validation. With --with,
    FUNCTION(run) registers the data again, calls run.score_with(...) and returns the model; this needs torch. With
    --engine, workers make the factors, each calling FUNCTION for data and a model of its own, and read them for the
    answer: the same for every engine, bit for bit.
    --fidelity measures how well the scores agree with retraining; without it, or a measurement in the log, the answer
    says that fidelity is not measured.
    """
    check_group(by)
    named: list[Any] = toward or ["role:validation"]
    targets = [named] if together else named
    how: dict[str, Any] = {"method": method, "damping": damping, "ggn": ggn, "checkpoints": parse_steps(checkpoints)}
    if also:
        for_one = {"-o": out, "--record": record, "--with": with_, "--fidelity": fidelity}
        _check_alone(for_one | {"--engine": engine if engine != os.environ.get("FGTRAC_ENGINE") else None})
        _score_together([open_trace(trace), *map(open_trace, also)], targets, top, by, how, as_json)
        return
    retrain = None if fidelity is None else load_function(fidelity)
    with workers_of(engine) as workers:
        if with_ is not None:
            make_factors(trace, with_, workers)
        opened, answer = open_trace(trace), Answer()
        if out is None or len(targets) <= SHOWN_WITH_OUT:
            with progress("scoring") as step:
                answer.found = opened.explain(*targets, k=top, by=by, engine=workers, progress=step, **how)
        if out is not None:
            with progress("writing the scores") as step:
                answer.out = opened.write_scores(out, *targets, engine=workers, progress=step, **how)
        if retrain is not None:
            kept = retrainings or trace.with_suffix(".retrainings")
            with progress("retraining") as step:
                measured = opened.fidelity(
                    retrain, *targets, subsets=subsets, resume_path=kept, record=record, progress=step, **how
                )
            answer.found = None if answer.found is None else replace(answer.found, fidelity=measured)
            answer.fidelity, answer.is_recorded = measured, record
        elif answer.found is None:
            answer.fidelity = opened.measured(**how)
        if record:
            again = open_trace(trace) if retrain else opened
            with progress("recording the scores") as step:
                answer.added = again.record(*targets, engine=workers, progress=step, **how)
    if as_json:
        print_json(answer.as_json())
    else:
        answer.print(answers())


def _check_alone(given: dict[str, Any]) -> None:
    """ValueError where an option was given that says nothing about several traces."""
    if unfit := [name for name, value in given.items() if value]:
        raise ValueError(f"--also gives the mean over traces, which goes without {' and '.join(unfit)}")


def _score_together(
    traces: list[Trace], targets: list[Any], top: int, by: str | None, how: dict[str, Any], as_json: bool
) -> None:
    """The answer by the mean over several traces."""
    with progress("scoring") as step:
        found = ensemble(traces).explain(*targets, k=top, by=by, progress=step, **how)
    if as_json:
        print_json(found.as_json())
    else:
        print_explanation(found, answers())


@dataclass(slots=True)
class Answer:
    """What the verb found and did."""

    found: Explanation | None = None
    out: Path | None = None
    fidelity: Fidelity | None = None
    added: Recorded | None = None
    is_recorded: bool = False  # the fidelity

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        said = self.found.as_json() if self.found else {}
        said |= {"out": str(self.out)} if self.out is not None else {}
        if self.found is None or self.fidelity is not None:
            said["fidelity"] = UNMEASURED if self.fidelity is None else self.fidelity.as_json()
        if self.added is not None:
            said["recorded"] = {"entries": self.added.entries, "scores": self.added.scores}
            said["recorded"] |= {"fidelity": True} if self.is_recorded else {}
        return said

    def print(self, console: Console) -> None:
        """Tables and lines."""
        if self.found is not None:
            print_explanation(self.found, console)
        else:
            console.print(safe(str(self.fidelity or UNMEASURED)), soft_wrap=True)
        if self.out is not None:
            console.print(f"the scores of all training samples are in {safe(str(self.out))}", soft_wrap=True)
        if self.added is not None:
            words = "the log has all these scores already, and none was added"
            if self.added.scores:
                words = f"{self.added.scores:,} scores in {self.added.entries} entries were added to the log"
            console.print(f"{words}; fgtrac verify computes them again", soft_wrap=True)
        if self.is_recorded:
            console.print("the measured fidelity stands in the log", soft_wrap=True)


def make_factors(trace: Path, named: str, engine: Engine | None) -> None:
    """Make the factors that the kept checkpoints lack, as the user's function says: it registers the data again, calls
    run.score_with(...) and returns the model. What an interrupted job has made is not made again. The workers of an
    engine call the function themselves."""
    function = load_function(named)
    from fgtrac.api.run import reopen  # needs torch

    with reopen(trace) as run:
        model = function(run)
        if not hasattr(model, "state_dict"):
            raise TypeError(f"{named.rpartition(':')[2]} returned {type(model).__name__}; return the model")
        run.score(model, engine=engine, function=None if engine is None else named)


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
        console.print(f"[bold]{safe(one.sentence)}[/]", soft_wrap=True)
        over = f"{found.columns[0]} to {found.columns[-1]}" if len(found.columns) > 1 else found.columns[0]
        for title, samples in (
            ("proponents: lowered the loss", one.proponents),
            ("opponents: raised it", one.opponents),
        ):
            _print_samples(title, samples, over, console)
        for line in filter(None, (one.weighed, one.free)):
            console.print(safe(line), soft_wrap=True)
        _print_shares(one, found.by, console)
    console.print(safe(found.basis), soft_wrap=True)


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
        called = safe(s.name or f"id:{s.id.hex()[:16]}") + (" (itself)" if s.is_target else "")
        table.add_row(called, "" if s.label is None else str(s.label), f"{s.score:+.4g}", sparkline(s))
    console.print(table)


def _print_shares(one: Toward, by: str | None, console: Console) -> None:
    if one.shares:
        table = Table(str(by), "samples", "sum", "mean", title=f"added up by {by}", title_justify="left")
        for share in one.shares:
            table.add_row(safe(share.group), f"{share.samples:,}", f"{share.sum:+.4g}", f"{share.mean:+.4g}")
        console.print(table)
