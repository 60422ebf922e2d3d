"""The command `fgtrac`: one verb each, and one line on standard error for whatever goes wrong."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import typer

from fgtrac.cli.anchor import anchor
from fgtrac.cli.check import check
from fgtrac.cli.completion import completion
from fgtrac.cli.demo import demo
from fgtrac.cli.diff import diff
from fgtrac.cli.doctor import doctor
from fgtrac.cli.duplicates import duplicates
from fgtrac.cli.erase import erase
from fgtrac.cli.export import export
from fgtrac.cli.far_places import refuse_far_places, remedy_far
from fgtrac.cli.history import history
from fgtrac.cli.key import key
from fgtrac.cli.prove import prove
from fgtrac.cli.push import push
from fgtrac.cli.report import report
from fgtrac.cli.runs import runs
from fgtrac.cli.score import score
from fgtrac.cli.seal import seal
from fgtrac.cli.serve import serve
from fgtrac.cli.show import show
from fgtrac.cli.spikes import spikes
from fgtrac.cli.sql import sql
from fgtrac.cli.suspects import suspects
from fgtrac.cli.ui import ui
from fgtrac.cli.verify import verify
from fgtrac.errors import AnchorError, EngineError, FgtracError, FormatError, RefusedError, StorageError
from fgtrac.events.one_line import one_line
from fgtrac.store.private_files import may_be_secret

EPILOG = (
    "Exit codes: 0 holds or done, 1 refuted or failed, 2 usage or malformed input, 3 cannot tell, "
    "4 an outside service, a worker or memory was not there."
)

UsageError: Any = typer.BadParameter.__mro__[1]  # typer brings its own click along, or uses the one installed
_EXTRA = re.compile(r"(unexpected extra argument\S*) \(.*\)", re.DOTALL)  # it may be a key, or a URL that holds one

app = typer.Typer(
    name="fgtrac",
    help="What happened to one training sample, with proof.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich reads `:key:` in a help text as a picture, and what stands in brackets as markup
)
VERBS: dict[Callable[..., None], str] = {  # a line each, that fits beside the verb
    demo: "the main job on real images, or on a real graph",
    runs: "the traces below a folder, a line each, unverified",
    show: "what a trace says of itself, unverified",
    diff: "two trainings side by side, and where they part",
    history: "everything that happened to one sample, or to a subject's",
    prove: "a bundle that proves a claim to others",
    verify: "check a whole trace, or a bundle without its trace",
    check: "hold a trace to policies: test data, opt-outs, erasures",
    report: "a trace in one page, and a draft for the AI Act",
    seal: "put the journal into the log, and sign it",
    push: "publish what is sealed on object storage",
    anchor: "have the tree head witnessed outside your reach",
    ui: "runs, samples and what of it holds, in the browser",
    serve: "the log over HTTP, for tools that read C2SP tlog-tiles",
    erase: "destroy a person's key, and what leads to their samples",
    score: "who lowered a target's loss, and who raised it",
    suspects: "training samples that may be mislabelled",
    spikes: "where the training loss jumped, and whose loss it was",
    duplicates: "training samples that are nearly the same",
    sql: "ask with SQL: samples, uses, checkpoints, contributions",
    doctor: "what is wrong with this machine or a trace, and what to do",
    completion: "a script that teaches bash, zsh or fish these verbs",
}
for verb, line in VERBS.items():
    app.command(short_help=line)(verb)
app.add_typer(export, name="export", short_help="what a trace holds, in forms that other tools read")
app.add_typer(key, name="key", short_help="your signing key: make, show, replace or revoke it")


def main() -> None:
    """Run the command line; ends the process with the documented exit code."""
    try:
        refuse_far_places(sys.argv[1:])
        code = app(standalone_mode=False)
    except typer.Exit as stop:
        code = stop.exit_code
    except UsageError as error:
        words = _EXTRA.sub(r"\1", error.format_message().rstrip("."))
        if may_be_secret(getattr(error, "option_name", None) or "-"):  # a key in PEM begins like an option
            words = "no such option (it looks like a key, and is not repeated here)"
        code = fail(f"{words}; fgtrac --help lists what there is", 2)
    except (KeyboardInterrupt, typer.Abort):
        code = fail("interrupted", 130)
    except (FileNotFoundError, FileExistsError, ValueError, TypeError, FormatError) as error:
        code = fail(error, 2)
    except RefusedError as error:
        code = fail(error, 1)
    except (AnchorError, EngineError, StorageError) as error:
        code = fail(error, 4)
    except MemoryError as error:
        code = fail(
            f"the memory ran out ({str(error) or 'MemoryError'}); where the verb has --memory and --engine, a "
            "smaller one and local:1 need less",
            4,
        )
    except (FgtracError, OSError) as error:
        code = fail(error, 1)
    sys.exit(code or 0)


def fail(error: BaseException | str, code: int) -> int:
    """Say what went wrong, on one line, and give the exit code back."""
    words = remedy_far(" ".join(str(error).split()) or type(error).__name__, sys.argv[1:])
    print(f"fgtrac: {one_line(words)}", file=sys.stderr)
    return code
