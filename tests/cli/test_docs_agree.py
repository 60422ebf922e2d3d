"""`fgtrac --help` and the pages agree: every verb and option is told, every command that a page shows can be given, and
every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

import fgtrac
from fgtrac.cli.main import UsageError, app
from json_schemas import verbs

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("*/README.md"),
        *ROOT.glob("*/*/README.md"),
    ]
    if not set(path.relative_to(ROOT).parts) & {".venv", "node_modules", ".git"}
)
TOLD = [path for path in PAGES if path.parent.name != "adr"]
TOP: Any = typer.main.get_command(app)
EVERYWHERE = {"--help", "--json"}  # told once, for all verbs
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*(?:\n[^`\n]+)?`")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


@cache
def command_of(verb: str) -> Any:
    found = TOP
    for word in verb.split():
        found = found.commands[word]
    return found


@cache
def options_of(verb: str) -> frozenset[str]:
    named = (
        name for p in command_of(verb).params for name in (*p.opts, *p.secondary_opts) if p.param_type_name == "option"
    )
    return frozenset(named) | {"--help"}


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


# -- what is there is told --------------------------------------------------------------------------------------------


def first_table() -> list[str]:
    """The commands at the top of docs/cli.md, a line each; a line that goes on is indented further."""
    lines = text_of(ROOT / "docs" / "cli.md").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("    fgtrac "))
    stop = next(n for n in range(start, len(lines)) if not lines[n].startswith("    "))
    return [line.strip() for line in lines[start:stop] if line.startswith("    fgtrac ")]


def verb_in(words: list[str]) -> str | None:
    """The verb that the words behind `fgtrac` begin with; `key new|show` are several, and the first counts."""
    for length in (2, 1):
        name = " ".join(words[:length])
        for one in [name, name.split("|")[0]]:
            if one in verbs():
                return one
    return None


def test_the_first_table_has_the_verbs_in_the_order_of_help() -> None:
    told = [verb_in(line.split()[1:]) for line in first_table()]
    assert None not in told, told
    top = list(dict.fromkeys(str(verb).split()[0] for verb in told))
    assert top == list(TOP.commands)


def test_every_verb_of_a_group_stands_in_the_first_table() -> None:
    table = "\n".join(first_table())
    for verb in verbs():
        *group, word = verb.split()
        line = rf"^fgtrac {group[0]} (?:\S*\|)?{word}\b" if group else rf"^fgtrac {word}\b"
        assert re.search(line, table, re.MULTILINE), f"docs/cli.md's first table lacks {verb}"


def told_pages() -> list[Path]:
    """docs/cli.md, and the pages that it links to."""
    page = ROOT / "docs" / "cli.md"
    linked = {(page.parent / target.partition("#")[0]).resolve() for target in links(page) if ".md" in target}
    return [page, *sorted(linked & set(PAGES))]


def blocks(section: str) -> Iterator[str]:
    """The paragraphs, rows of tables, items of lists and commands of a section, each with the lines that go on."""
    block = ""
    for line in section.splitlines(keepends=True):
        if re.match(r"\s*$|\||[-*] | {4}fgtrac ", line):
            if block.strip():
                yield block
            block = ""
        block += line
    if block.strip():
        yield block


def verbs_in(text: str) -> frozenset[str]:
    """The verbs that a text names: behind `fgtrac`, or as the first word of some code."""
    words = " ".join(text.split())
    codes = [" ".join(code.strip("`").split()) for code in CODE.findall(text)]
    found = set()
    for verb in verbs():
        *group, word = verb.split()
        name = rf"{''.join(f'{one} ' for one in group)}(?:[a-z-]+\|)*{word}(?![\w-])"
        if re.search(f"fgtrac {name}", words) or any(re.match(name, code) for code in codes):
            found.add(verb)
    return frozenset(found)


@cache
def own_text() -> dict[str, list[str]]:
    """What is said of each verb: blocks that name it, and those that name none in a table whose heading names it, or in
    a section whose heading or first block does."""
    found: dict[str, list[str]] = {verb: [] for verb in verbs()}
    for section in (part for path in told_pages() for part in re.split(r"(?m)^#+ ", text_of(path))):
        heading, _, body = section.partition("\n")
        every = list(blocks(body))
        opening = verbs_in(heading) or (verbs_in(every[0]) if every else frozenset())
        table: frozenset[str] | None = None
        for block in every:
            named = verbs_in(block)
            if not block.startswith("|"):
                table = None
            elif table is None:
                table = named or opening
            for verb in named or table or opening:
                found[verb].append(block)
    return found


def is_told(verb: str, option: str) -> bool:
    """Whether what is said of the verb has the option, or another name of it, as a word of its own."""
    same = next(({*p.opts} for p in command_of(verb).params if option in p.opts), {option})
    word = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, sorted(same)))})(?![\w-])")
    return any(word.search(block) for block in own_text()[verb])


def test_every_option_is_told_where_its_verb_is() -> None:
    """On docs/cli.md, or on a page that it links to."""
    missing = [
        f"{verb} {option}"
        for verb in verbs()
        for option in sorted(options_of(verb) - EVERYWHERE)
        if option.startswith("--") and not is_told(verb, option)
    ]
    assert not missing, missing


def test_an_option_that_a_verb_has_not_is_nearly_never_told_of_it() -> None:
    """So an option that is added and told nowhere is noticed, though another verb has one of that name."""
    every = sorted({option for verb in verbs() for option in options_of(verb) if option.startswith("--")} - EVERYWHERE)
    others = [(verb, option) for verb in verbs() for option in every if option not in options_of(verb)]
    wrong = [pair for pair in others if is_told(*pair)]
    assert len(wrong) < len(others) / 20, wrong
    assert not {("runs", "--cors"), ("runs", "--evm"), ("completion", "--key"), ("diff", "--force")} & set(wrong)


# -- what is told is there --------------------------------------------------------------------------------------------


def commands(path: Path) -> Iterator[str]:
    """The command lines that a page or a docstring shows: `fgtrac VERB ...` as a line of code, or as code in a
    sentence; `fgtrac factors v1` is the name of a format."""
    text = text_of(path)
    if path.suffix == ".py":
        text = "\n".join(re.findall(r'"""(.*?)"""', text, re.DOTALL))
    lines = [*text.splitlines(), *(f"    {line}" for fence in FENCE.finditer(text) for line in fence[0].splitlines())]
    for line in lines:
        match = re.match(r"    +(?:\$ )?(?:[A-Z_]+=\S+ )*(fgtrac [a-z].*)", line)
        if match and (path.suffix == ".md" or verb_in(match[1].split()[1:])):  # else a sentence of a docstring
            yield match[1].partition("  ")[0].partition(" #")[0].rstrip("\\ ")
    for code in CODE.findall(FENCE.sub("", text)):
        words = " ".join(code.strip("`").split())
        if re.match(r"fgtrac [a-z]", words) and not re.fullmatch(r"fgtrac [a-z-]+ v?\d+", words):
            yield words


SHOWN = [(path, line) for path in [*TOLD, *sorted((ROOT / "src").rglob("*.py"))] for line in commands(path)]


def test_pages_show_commands() -> None:
    assert len(SHOWN) > 200
    assert len({path for path, _line in SHOWN}) > 30


def test_every_command_that_is_shown_names_a_verb_and_options_that_are_there() -> None:
    wrong = [problem for path, line in SHOWN if (problem := problem_of(path, line))]
    assert not wrong, "\n".join(wrong)


def problem_of(path: Path, line: str) -> str | None:
    words = re.sub(r"[\[\](){},;:'\"]|\.\.\.", " ", line).split()[1:]
    if not words or words[0] in ("VERB", "verbs"):
        return None
    where = f"{path.relative_to(ROOT)}: {line}"
    verb, group = verb_in(words), words[0]
    if verb is None:
        is_group = group in TOP.commands and not re.match("[a-z]", " ".join(words[1:]))
        return None if is_group else f"{where}: there is no such verb"
    both = [verb, *(f"{verb.split()[0]} {other}" for word in words[:2] for other in word.split("|")[1:])]
    there = frozenset[str]().union(*(options_of(one) for one in both if one in verbs()))
    named = [option for word in words for option in re.split(r"[|=]", word) if re.fullmatch(r"--?[a-z][a-z-]*", option)]
    unknown = [option for option in named if option not in there]
    return f"{where}: {', '.join(unknown)} is no option of {verb}" if unknown else None


WHOLE = re.compile(r"^fgtrac [^\[\]|<>…]*$")


def parsed() -> list[tuple[Path, str]]:
    """The command lines that are whole: without brackets for what may be left out, and not only a verb's name."""
    return [(path, line) for path, line in SHOWN if WHOLE.match(line) and "..." not in line and len(line.split()) > 2]


def test_every_whole_command_line_can_be_given() -> None:
    lines = parsed()
    assert len(lines) > 60
    wrong = [f"{path.relative_to(ROOT)}: {line}: {error}" for path, line in lines if (error := refusal(line))]
    assert not wrong, "\n".join(wrong)


def refusal(line: str) -> str | None:
    """What typer's parser says of a command line; nothing is run. A verb in a sentence may lack its arguments, but not
    some of them."""
    words = shlex.split(line.replace("FILE.py:FUNCTION", "file.py:function"))[1:]
    verb = verb_in(words)
    if verb is None:
        return None  # a group's name, or --help
    command, rest = command_of(verb), words[len(verb.split()) :]
    numbers = [re.sub(r"^(ENTRY|N|S|K|STEP|GWEI|PORT)$", "7", word) for word in rest]
    try:
        command.make_context(verb, numbers, resilient_parsing=False)
    except UsageError as error:
        said: str = error.format_message()
        is_bare = not rest or rest[0].startswith("-")
        return None if is_bare and ("Missing" in said or "requires an argument" in said) else said
    return None


WRONG = (
    "histroy a.trace x", "verify a.trace --kye K", "key rotat a.trace", "runs runs --sort colour",
    "seal a.trace b.trace", "export proof a.trace first -o out", "diff a.trace", "sql a.trace", "doctor a.trace --key",
)  # fmt: skip


@pytest.mark.parametrize("line", WRONG)
def test_a_command_that_cannot_be_given_is_noticed(line: str) -> None:
    assert problem_of(ROOT / "README.md", f"fgtrac {line}") or refusal(f"fgtrac {line}")


# -- links ------------------------------------------------------------------------------------------------------------


def links(path: Path) -> list[str]:
    """The targets of the relative links of a page."""
    text = CODE.sub("", FENCE.sub("", text_of(path)))
    found = (one or other for one, other in LINK.findall(text))
    return [target for target in found if not re.match(r"[a-z][a-z0-9+.-]*:", target)]


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: dict[str, int] = {}
    out = set(re.findall(r'<a (?:name|id)="([^"]+)"', text_of(path)))
    for heading in re.findall(r"^#+ +(.+?)\s*$", FENCE.sub("", text_of(path)), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", words.lower().replace("`", "")).replace(" ", "-")
        number = found.get(anchor, 0)
        found[anchor] = number + 1
        out.add(f"{anchor}-{number}" if number else anchor)
    return frozenset(out)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_and_anchor_leads_somewhere(path: Path) -> None:
    for target in links(path):
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{path.name} links to {target}, and {there} is not there"
        assert there.is_relative_to(ROOT), f"{path.name} links out of the repository: {target}"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), f"{path.name} links to {target}, and {there.name} has no such heading"


def test_every_page_of_the_docs_is_linked_from_another() -> None:
    linked = {
        (path.parent / target.partition("#")[0]).resolve()
        for path in PAGES
        for target in links(path)
        if target.partition("#")[0]
    }
    folders = {folder for folder in linked if folder.is_dir()}
    alone = [
        str(path.relative_to(ROOT))
        for path in PAGES
        if path.is_relative_to(ROOT / "docs") and path not in linked and path.parent not in folders
    ]
    assert not alone, alone


def test_the_package_says_no_other_usage_than_the_pages() -> None:
    """The lines at the top of the package name what it exports."""
    shown = re.findall(r"fgtrac\.([a-z_]+)\(", fgtrac.__doc__ or "")
    assert shown
    assert set(shown) <= set(fgtrac.__all__)
