"""What a shell offers behind the words of a command line. It is asked at each press of Tab, so it loads nothing but a
few modules of the standard library, and looks at file names and at a log's first entries alone.

    FGTRAC_COMPLETES=TREE python -P -m fgtrac.cli.completing LINE

TREE has a line for each verb, as `fgtrac completion` writes it: the verb's words, what its arguments are, and its
options with what each takes, in three columns parted by tabs. The answer's first line is `files` or `words`, then comes
an offer on each line. It never fails: where there is nothing to offer, it offers nothing.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MANY = "*"  # behind an argument's kind: it may be repeated
MOST_BYTES = 1 << 22  # of a bundle of entries that is searched for data sets
MOST_OFFERS = 200
_PLAIN = re.compile(r"[A-Za-z0-9_.:/@%+-]*")  # what no shell takes for anything but itself


@dataclass(frozen=True)
class Verb:
    """What the arguments of a verb are, and what each option takes: a kind, `=CHOICE,CHOICE`, or nothing (a flag)."""

    arguments: tuple[str, ...]
    options: Mapping[str, str]


def main() -> None:
    """Answer a shell."""
    tree = parse_tree(os.environ.get("FGTRAC_COMPLETES", ""))
    line = sys.argv[1] if len(sys.argv) > 1 else ""
    are_files, offers = offers_for(tree, line)
    if not are_files and is_quoted(line):  # how a shell goes on inside quotes is its own affair
        offers = [offer for offer in offers if _PLAIN.fullmatch(offer)]
    print("\n".join(["files" if are_files else "words", *offers]))


def parse_tree(text: str) -> dict[str, Verb]:
    """The verbs by their words; a line that is none is left out."""
    found = {}
    for line in text.splitlines():
        words, _, rest = line.partition("\t")
        arguments, _, options = rest.partition("\t")
        pairs = (option.partition(":") for option in options.split())
        found[words] = Verb(tuple(arguments.split()), {name: kind for name, _colon, kind in pairs})
    return found


def offers_for(tree: Mapping[str, Verb], line: str) -> tuple[bool, list[str]]:
    """What may stand in place of the last word of a line, and whether these are files."""
    words, current = split_line(line)
    path, given = _find_verb(tree, words[1:])
    inner = {
        name.split()[len(path)] for name in tree if name.split()[: len(path)] == path and len(name.split()) > len(path)
    }
    verb = tree.get(" ".join(path))
    if verb is None:
        return False, _beginning(sorted(inner) if not given else [], current)
    positional, waiting = _placed(verb, given)
    if waiting:
        return _offer(waiting, current, positional)
    if current.startswith("-"):
        return False, _beginning(sorted(verb.options), current)
    place = len(positional)
    if place >= len(verb.arguments) and not (verb.arguments and verb.arguments[-1].endswith(MANY)):
        return False, []
    kind = verb.arguments[min(place, len(verb.arguments) - 1)].rstrip(MANY)
    return _offer(kind, current, positional)


def split_line(line: str) -> tuple[list[str], str]:
    """The whole words of a line, and the one that is being written, without its quotes."""
    for closing in ("", '"', "'", "\\"):
        try:
            words = shlex.split(line + closing)
        except ValueError:
            continue
        if closing or (line and not line[-1].isspace()):
            return (words[:-1], words[-1]) if words else ([], "")
        return words, ""
    return line.split()[:-1], ""


def is_quoted(line: str) -> bool:
    """Whether the last word of a line stands in quotes that are open, or behind such."""
    try:
        shlex.split(line)
    except ValueError:
        return True
    return False


def _find_verb(tree: Mapping[str, Verb], words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of the verb, and those behind it."""
    path: list[str] = []
    for number, word in enumerate(words):
        if not any(name.split()[: len(path) + 1] == [*path, word] for name in tree):
            return path, list(words[number:])
        path.append(word)
    return path, []


def _placed(verb: Verb, given: Sequence[str]) -> tuple[list[str], str]:
    """The arguments among the words behind a verb, and what an option at their end waits for."""
    positional: list[str] = []
    waiting = ""
    for word in given:
        if waiting:
            waiting = ""
        elif word.startswith("-"):
            waiting = "" if "=" in word else verb.options.get(word, "")
        else:
            positional.append(word)
    return positional, waiting


def _offer(kind: str, current: str, given: Sequence[str]) -> tuple[bool, list[str]]:
    trace = next((Path(word) for word in given if word.rstrip("/").endswith(".trace")), None)
    if kind.startswith("="):
        return False, _beginning(kind[1:].split(","), current)
    if kind in ("trace", "file", "folder"):
        return True, list(_files(kind, current))
    if trace is None or kind not in ("sample", "step", "entry"):
        return False, []
    found = {"sample": _samples, "step": _steps, "entry": _entries}[kind](trace, current)
    return False, _beginning(found, current)


def _beginning(words: Sequence[str], current: str) -> list[str]:
    return [word for word in words if word.startswith(current)][:MOST_OFFERS]


def _files(kind: str, current: str) -> Iterator[str]:
    """Folders (with a slash, as they lead on), traces, and where they are asked for files."""
    front, name = os.path.split(current)
    try:
        entries = sorted(os.scandir(os.path.expanduser(front) or "."), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if not entry.name.startswith(name) or (entry.name.startswith(".") and not name):
            continue
        path = os.path.join(front, entry.name)
        if entry.is_dir():
            yield path if entry.name.endswith(".trace") else path + "/"
        elif kind == "file":
            yield path


def _samples(trace: Path, _current: str) -> list[str]:
    return [*(f"{name}:" for name in dataset_names(trace)), "id:", "key:"]


def _steps(trace: Path, _current: str) -> list[str]:
    """The steps whose model states lie in the trace, by the names of their files."""
    try:
        names = os.listdir(trace / "artifacts")
    except OSError:
        return []
    found = {int(match[1]) for name in names if (match := re.match(r"checkpoint-(\d{1,20})-", name))}
    return [str(step) for step in sorted(found)]


def _entries(trace: Path, current: str) -> list[str]:
    """The numbers of entries that begin with these digits, as far as one more digit goes."""
    path = trace / "checkpoint"
    try:
        if not path.is_file():  # a pipe would keep the shell waiting
            return []
        with path.open("rb") as file:
            size = int(file.read(1000).split(b"\n")[1])
    except (OSError, IndexError, ValueError):
        return []
    digits = [f"{current}{digit}" for digit in ("", *"0123456789")]
    return [n for n in digits if n.isdigit() and str(int(n)) == n and int(n) < size]


def dataset_names(trace: Path) -> list[str]:
    """The data sets that a log's first 256 entries describe, as they stand on disk."""
    folder = trace / "tile" / "entries"
    bundles = sorted(folder.glob("000.p/*"), key=lambda path: path.stat().st_mtime, reverse=True)
    path = next((path for path in (folder / "000", *bundles) if path.is_file()), None)
    if path is None:
        return []
    with path.open("rb") as file:
        data = file.read(MOST_BYTES)
    found, at = [], 0
    while at + 2 <= len(data):
        stop = at + 2 + int.from_bytes(data[at : at + 2], "big")
        name = _dataset_name(data[at + 2 : stop])
        found += [name] if name else []
        at = stop
    return list(dict.fromkeys(found))


def _dataset_name(entry: bytes) -> str:
    """The name in a `dataset` entry's CBOR: the text behind the key `name`. Empty for any other entry."""
    head, _, rest = entry.partition(b"\x64name")
    if b"\x64kind\x67dataset" not in head or not rest:
        return ""
    first = rest[0]
    start, size = (
        (1, first - 0x60) if 0x60 <= first < 0x78 else (2, rest[1]) if first == 0x78 and len(rest) > 1 else (0, 0)
    )
    name = rest[start : start + size].decode(errors="replace")
    return name if name.isprintable() else ""


if __name__ == "__main__":
    main()
