"""What every lie here shares: a little recorded trace, copies to lie about, fgtrac's command line to ask, a verdict.

A script has a title (the first line of its docstring) and a story, `tell(stage)`, which does the deed and yields for
each question what the design promises and what fgtrac answered: `caught`, `passes`, `holds`, `undecided`, `refused`.
A lie that passes is answered with the sentence that says so, in fgtrac's answer or in the design's table of promises.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from fgtrac.cli.main import main as fgtrac_main
from fgtrac.commit.keys import load_key
from fgtrac.errors import ProofError
from fgtrac.events.schema import decode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.bundle import Bundle, format_bundle, head_of, parse_bundle
from fgtrac.verify.sentences import sentence

DESIGN = Path(__file__).parents[1] / "docs/design.md"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one command of fgtrac said: its exit code, each check's verdict and words, notes, or its line of error."""

    command: str
    code: int
    verdicts: Mapping[str, str]
    words: Mapping[str, str]
    notes: tuple[str, ...]
    error: str

    @property
    def rest(self) -> str:
        """What was said beside the checks."""
        return "; ".join(filter(None, (*self.notes, self.error)))

    def of(self, verdict: str) -> set[str]:
        """The checks with that verdict."""
        return {check for check, found in self.verdicts.items() if found == verdict}


@dataclass(frozen=True, slots=True)
class Act:
    """One question about a lie: what the design promises as the answer, what came, and whether they agree. `checks`
    are those that stop the lie: each one alone refutes it, or alone keeps it from being believed."""

    answer: Answer
    promised: str
    checks: tuple[str, ...]
    message: str
    is_kept: bool


Story = Callable[["Stage"], Iterator[Act]]


def caught(answer: Answer, *checks: str, says: str = "") -> Act:
    """Exactly these checks refute it, in words with `says` in them."""
    message = "; ".join(answer.words[check] for check in checks if check in answer.words) or answer.rest
    kept = (answer.code, answer.of("refuted")) == (1, set(checks)) and says in message
    return Act(answer, "refuted", checks, message, kept)


def undecided(answer: Answer, *checks: str) -> Act:
    """Nothing refutes it; of these checks fgtrac says that it cannot tell, and so of the whole."""
    message = "; ".join(answer.words[check] for check in checks if check in answer.words) or answer.rest
    kept = answer.code == 3 and set(checks) <= answer.of("cannot tell") and not answer.of("refuted")
    return Act(answer, "cannot tell", checks, message, kept)


def passes(answer: Answer, *, says: str = "", design: str = "") -> Act:
    """It holds: no check that was made can tell. That this cannot be told says a sentence of the answer with the words
    `says`, or, where the answer is silent, a row of the design's table of promises with the words `design`."""
    assert bool(says) != bool(design)
    sentences = (*answer.words.values(), *answer.notes) if says else admissions()
    said = next((sentence for sentence in sentences if (says or design) in sentence), "")
    who = "the answer" if says else "docs/design.md"
    kept = answer.code == 0 and not answer.of("refuted") and bool(said)
    return Act(answer, f"not caught, and {who} says so", (), said or answer.rest, kept)


def admissions() -> list[str]:
    """The rows of the design's table of promises that say what is not caught, or ignored."""
    rows = DESIGN.read_text(encoding="utf-8").partition("## Promises")[2].partition("\n## ")[0].splitlines()
    said = (row.strip("| ").replace(" | ", ": ") for row in rows if "**not caught" in row.lower() or "**ignored" in row)
    return [row.replace("*", "").replace("::", ":") for row in said]


def holds(answer: Answer, *, says: str) -> Act:
    """What was said up to here is true: it holds, in these words."""
    said = next((words for words in answer.words.values() if says in words), "")
    kept = answer.code == 0 and not answer.of("refuted") and bool(said)
    return Act(answer, "holds, being true", (), said or answer.rest, kept)


def refused(answer: Answer, code: int, *, says: str) -> Act:
    """The command stops with one line: the signer refuses (1), or the bytes are malformed (2)."""
    kept = answer.code == code and not answer.verdicts and says in answer.rest
    return Act(answer, "refused" if code == 1 else "malformed", (), answer.rest, kept)


class Stage:
    """A folder with the recorded trace, its signer's key and memory, and room for copies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._copies = 0

    @cached_property
    def trace(self) -> TraceDir:
        """The true trace, run.trace; beside it run.vault, and older.trace: a copy from before its last epoch."""
        from true_trace import record

        with silence():
            return record(self.folder)

    @property
    def key_file(self) -> Path:
        """The signing key's file; the signer's memory, heads/, lies beside it."""
        return self.folder / "key.pem"

    @property
    def key(self) -> Ed25519PrivateKey:
        """The signing key: a lie of the signer's takes it."""
        return load_key(self.key_file)

    @property
    def public_key(self) -> str:
        """The public key that the verifier names."""
        return self.key.public_key().public_bytes_raw().hex()

    def copy(self, name: str = "run") -> TraceDir:
        """A copy of the trace in a folder of its own, to lie about; with its vault, its key and the signer's memory."""
        room, original = self.room(), self.trace.path.with_name(f"{name}.trace")
        for file in (self.trace.vault_path, self.key_file):
            shutil.copy(file, room / file.name)
        shutil.copytree(self.folder / "heads", room / "heads")
        return TraceDir(Path(shutil.copytree(original, room / "run.trace")))

    def room(self) -> Path:
        """A new empty folder."""
        self._copies += 1
        room = self.folder / f"copy-{self._copies}"
        room.mkdir()
        return room

    # -- asking ---------------------------------------------------------------------------------------------------

    def fgtrac(self, *arguments: str | Path, key_file: Path | None = None) -> Answer:
        """What `fgtrac ARGUMENTS --json` says, asked in this process; `key_file` is the asker's own key, if any."""
        out, err = io.StringIO(), io.StringIO()
        before = sys.argv, os.environ.get("FGTRAC_KEY")
        sys.argv = ["fgtrac", *map(str, arguments), "--json"]
        os.environ["FGTRAC_KEY"] = str(key_file or self.folder / "no-key.pem")
        code = 0
        try:
            with redirect_stdout(out), redirect_stderr(err):
                fgtrac_main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            sys.argv = before[0]
            os.environ.pop("FGTRAC_KEY")
            if before[1] is not None:
                os.environ["FGTRAC_KEY"] = before[1]
        here = f"{self.folder}{os.sep}"
        said = json.loads(out.getvalue().replace(here, "") or "{}")
        findings = said.get("findings", [])
        return Answer(
            shlex.join(["fgtrac", *(a.name if isinstance(a, Path) else _short(a) for a in arguments)]),
            code,
            {f["check"]: f["verdict"] for f in findings},
            {f["check"]: f["words"] for f in findings},
            tuple(said.get("notes", [])),
            err.getvalue().strip().replace(here, ""),
        )

    def verify(self, trace: TraceDir, *options: str | Path) -> Answer:
        """`fgtrac verify TRACE --key KEY OPTIONS`, with the key that the verifier knows from the signer."""
        return self.fgtrac("verify", trace.path, "--key", self.public_key, *options)

    def seal(self, trace: TraceDir) -> Answer:
        """`fgtrac seal TRACE` by the signer, whose key and memory lie beside the copy."""
        return self.fgtrac("seal", trace.path, key_file=trace.path.with_name("key.pem"))

    def prove(self, sample: str, *options: str, trace: TraceDir | None = None) -> Bundle:
        """`fgtrac prove TRACE SAMPLE OPTIONS`: a true bundle, to be changed."""
        file = self.room() / "true.bundle"
        answer = self.fgtrac("prove", (trace or self.trace).path, sample, "-o", file, *options)
        if answer.code:
            raise ValueError(f"{answer.command} failed: {answer.rest}")
        return parse_bundle(file.read_bytes())

    def check(self, bundle: Bundle | bytes, *options: str | Path, has_key: bool = True) -> Answer:
        """`fgtrac verify BUNDLE --key KEY OPTIONS`, or without a key."""
        file = self.room() / "lie.bundle"
        file.write_bytes(bundle if isinstance(bundle, bytes) else format_bundle(bundle))
        return self.fgtrac("verify", file, *(("--key", self.public_key) if has_key else ()), *options)


def reworded(bundle: Bundle) -> Bundle:
    """The bundle with the words that follow from it, where any do."""
    with suppress(ProofError):
        shown = {entry.number: decode_event(entry.entry) for entry in bundle.entries}
        bundle = replace(bundle, words=sentence(bundle, head_of(bundle), shown))
    return bundle


def _short(argument: str) -> str:
    return argument if len(argument) < 40 else argument[:8] + "..."


@contextmanager
def silence() -> Iterator[None]:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


# -- telling them -------------------------------------------------------------------------------------------------


def title_of(story: Story) -> str:
    """The first line of the story's script."""
    words = sys.modules[story.__module__].__doc__ or ""
    return words.strip().splitlines()[0]


def show(console: Console, stories: Mapping[str, Story], stage: Stage) -> int:
    """Tell the stories, print one table, a line for each answer as soon as its story is told, and return how many were
    not answered as the design promises."""
    surprises = 0
    console.print(_table(is_head=True))
    for name, story in stories.items():
        acts = list(story(stage))
        surprises += not (acts and all(act.is_kept for act in acts))
        table = _table()
        for at, act in enumerate(acts):
            by = f"{act.promised}: {', '.join(act.checks)}" if act.checks else act.promised
            mark = by if act.is_kept else f"SURPRISE: {by}, but exit code {act.answer.code}"
            said = act.message if act.is_kept else f"{dict(act.answer.verdicts)} {act.message}"
            lie = "" if at else f"{name}: {title_of(story)}"
            table.add_row(*map(escape, (lie, act.answer.command, mark, said)))
        console.print(table)
        console.rule(style="")
    return surprises


def _table(*, is_head: bool = False) -> Table:
    """A part of the table, with columns as wide as in every other; nothing in them is cut."""
    shares = {"lie": 3, "asked": 2, "promised": 2, "answer": 4}
    columns = [Column(name, ratio=share, overflow="fold") for name, share in shares.items()]
    return Table(*columns, expand=True, show_edge=False, show_lines=True, show_header=is_head)


def answers() -> Console:
    """Where the table goes: as wide as the terminal, 160 columns elsewhere unless COLUMNS says otherwise."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
    return Console(highlight=False, emoji=False, width=width)  # `ring:key:"a"` is a name


def main(story: Story) -> None:
    """Run one script: exit code 0 where everything was answered as the design promises, 1 otherwise."""
    with tempfile.TemporaryDirectory(prefix="fgtrac-lie-") as folder:
        name = Path(sys.argv[0]).stem
        surprises = show(answers(), {name: story}, Stage(Path(folder)))
    sys.exit(1 if surprises else 0)
