"""`fgtrac history`: everything that happened to one sample, or to all samples of one subject."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from fgtrac.api.naming import TypedSubject
from fgtrac.api.trace import Trace, open_trace
from fgtrac.cli.console import AsJson, answers, cannot_tell, print_json
from fgtrac.verify.checks import CannotTell

FORMS = "id:HEX, key:JSON, NAME:key:JSON or NAME:ROW (whose key is the number ROW: its row, where no key= was given)"
Sample = Annotated[str | None, typer.Argument(help=FORMS)]
Key = Annotated[
    str | None, typer.Option("--key", help="the public key you trust: 64 hex digits, a file, or a verifier key")
]


def history(
    trace: Annotated[Path, typer.Argument(help="the trace, NAME.trace")],
    sample: Sample = None,
    subject: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="all samples of this subject, by its name or its pseudonym's hex digits"),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="a line for each event, or sample, however many")] = False,
    key: Key = None,
    details: Annotated[bool | None, typer.Option(help="read the entries, or not (default: where they are few)")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a sample's whole history, or what a subject's samples went through, proved against the newest full seal. A
    long history begins with what it comes to: by epoch as a seed, and of a graph as a neighbour by hop."""
    if (sample is None) == (subject is None):
        given = "Missing argument 'sample'" if sample is None else "a sample and --subject are two questions"
        raise ValueError(f"{given}: name a sample, or a subject with --subject")
    opened = open_trace(trace, key=key)
    if sample is not None:
        found, remark = opened.history(sample, details=details), opened.remark(sample)
        text, said = found.text(every_event=every), found.as_json() | ({"remark": remark} if remark else {})
        text += f"\nnote: {remark}" if remark else ""
    else:
        assert subject is not None
        if details is not None:
            raise ValueError("--details and --no-details are about one sample's entries; leave them out with --subject")
        text, said = _of_subject(opened, subject, every, as_json)
    if as_json:
        print_json(said)
    else:
        answers().print(escape(text), soft_wrap=True)


def _of_subject(opened: Trace, subject: str, every: bool, as_json: bool) -> tuple[str, dict[str, object]]:
    """The answer about a subject in words and as data; where nobody can tell, exit code 3."""
    try:
        found = opened.subject(TypedSubject(subject))
    except CannotTell as reason:
        if as_json:
            print_json({"subject": subject, "verdict": "cannot tell", "words": str(reason)})
        cannot_tell(str(reason))
    return found.text(every_sample=every), found.as_json()
