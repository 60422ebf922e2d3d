"""Where the verbs print: answers to standard output, progress to standard error and only on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TimeRemainingColumn

from fgtrac.events.one_line import one_line

AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object instead of text")]


def answers() -> Console:
    """Standard output."""
    return Console(highlight=False, emoji=False)  # `people:key:"a"` is a name


def safe(text: str) -> str:
    """A text for one line of `answers()`: what a log or a name holds is neither markup there nor a second line."""
    return escape(one_line(text))


def print_json(value: Any) -> None:
    """One JSON object on standard output, keys as given."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def cannot_tell(words: str) -> NoReturn:
    """One line on standard error, and exit code 3."""
    print(f"fgtrac: cannot tell: {one_line(words)}", file=sys.stderr)
    raise typer.Exit(3)


@contextmanager
def progress(words: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error while the block runs; call what it yields with (done, total)."""
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:-1], TimeRemainingColumn(elapsed_when_finished=True))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(words, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def stages(words: str) -> Iterator[Callable[[str, int, int], None]]:
    """As `progress`, of work in stages: call what it yields with (stage, done, total)."""
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:-1], TimeRemainingColumn(elapsed_when_finished=True))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, current = bar.add_task(words, total=None), ""

        def told(stage: str, done: int, total: int) -> None:
            nonlocal current
            if stage != current:
                current = stage
                bar.reset(task, description=f"{words}: {stage}")
            bar.update(task, completed=done, total=total)

        yield told
