"""`fgtrac completion`: a script that teaches a shell what may stand on fgtrac's command line."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from fgtrac.cli.completing import MANY
from fgtrac.cli.console import AsJson, print_json


class Shell(StrEnum):
    """The shells that there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


_KINDS = {  # what an argument or an option's value is, by the name of the parameter
    "trace": "trace", "traces": "trace", "a": "trace", "b": "trace", "also": "trace", "vkey": "trace",
    "sample": "sample", "toward": "sample", "entries": "entry", "folder": "folder", "place": "folder", "path": "file",
    "checkpoint": "step", "checkpoints": "step", "step": "step",
}  # fmt: skip
_ASK = "FGTRAC_COMPLETES={tree} {python} -P -m fgtrac.cli.completing"

_BASH = """\
# fgtrac's completion for bash: source it, or keep it as ~/.local/share/bash-completion/completions/fgtrac
_fgtrac() {{
    local line=${{COMP_LINE:0:COMP_POINT}} kind offers offer current front
    COMPREPLY=()
    {{ read -r kind; mapfile -t offers; }} < <({ask} "$line" 2>/dev/null)
    current=${{line##*[[:space:]]}}
    front=
    [[ $COMP_WORDBREAKS == *:* && $current == *:* ]] && front=${{current%:*}}:
    for offer in "${{offers[@]#"$front"}}"; do
        [[ $kind == files ]] || printf -v offer %q "$offer"  # a stranger's text; of files, bash quotes the names
        COMPREPLY+=("$offer")
    done
    [[ $kind == files ]] && compopt -o filenames 2>/dev/null
    [[ ${{#offers[@]}} == 1 && $offers == *[/:] ]] && compopt -o nospace 2>/dev/null
    return 0
}}
complete -F _fgtrac fgtrac
"""
_ZSH = """\
#compdef fgtrac
# fgtrac's completion for zsh: source it behind compinit, or keep it as _fgtrac in a folder of $fpath
_fgtrac() {{
    local -a offers
    offers=("${{(@f)$({ask} "${{LBUFFER}}" 2>/dev/null)}}")
    local kind=$offers[1]
    offers=("${{(@)offers[2,-1]}}")
    (( ${{#offers}} )) || return 1
    if [[ $kind == files ]]; then
        compadd -Q -f -S '' -- "${{(@q)offers}}"
    else
        compadd -S '' -- "${{(@)offers}}"
    fi
}}
compdef _fgtrac fgtrac
"""
_FISH = """\
# fgtrac's completion for fish: keep it as ~/.config/fish/completions/fgtrac.fish
function __fgtrac_offers
    {ask} (commandline -cp | string collect) 2>/dev/null | tail -n +2
end
complete -c fgtrac -f -a '(__fgtrac_offers)'
"""
_SCRIPTS = {Shell.BASH: _BASH, Shell.ZSH: _ZSH, Shell.FISH: _FISH}


def completion(
    context: typer.Context,
    shell: Annotated[Shell, typer.Argument(help="the shell that is to complete fgtrac's command lines")],
    as_json: AsJson = False,
) -> None:
    """Print a script for a shell: source it, or keep it where it says. It completes verbs, options, traces, data sets'
    names, steps of kept states and numbers of entries. Print it anew when fgtrac was upgraded."""
    top: Any = context.find_root().command
    tree = "\n".join(_lines(top, ()))
    ask = _ASK.format(tree=shlex.quote(tree), python=shlex.quote(sys.executable))
    if shell is Shell.FISH:  # fish has no assignment before a command's name, and quotes by backslashes
        quoted = tree.replace("\\", "\\\\").replace("'", "\\'")
        ask = f"env FGTRAC_COMPLETES='{quoted}' '{sys.executable}' -P -m fgtrac.cli.completing"
    script = _SCRIPTS[shell].format(ask=ask)
    if as_json:
        print_json({"shell": shell.value, "script": script})
    else:
        typer.echo(script, nl=False)


def _lines(command: Any, path: tuple[str, ...]) -> Iterator[str]:
    """A line for each verb, as `completing.parse_tree` reads it."""
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        if not getattr(inner, "hidden", False):
            yield from _lines(inner, (*path, name))
    if path and not hasattr(command, "commands"):
        arguments, options = [], ["--help"]
        for parameter in command.params:
            kind = _kind(parameter)
            if parameter.param_type_name == "argument":
                arguments.append((kind or "word") + (MANY if parameter.nargs == -1 else ""))
            else:
                takes = "" if parameter.is_flag else f":{kind or 'word'}"
                names = (*parameter.opts, *parameter.secondary_opts)
                options += [name + takes for name in names]
        yield "\t".join((" ".join(path), " ".join(arguments), " ".join(sorted(set(options)))))


def _kind(parameter: Any) -> str:
    """What a parameter takes: one of some words, a trace, a file ...; empty where nothing can be offered."""
    wanted = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)  # typer's own
    of_click = getattr(parameter, "type", None)  # before that
    if get_origin(wanted) is Literal:
        return "=" + ",".join(map(str, get_args(wanted)))
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return "=" + ",".join(str(member.value) for member in wanted)
    if choices := getattr(of_click, "choices", None):
        return "=" + ",".join(getattr(choice, "value", str(choice)) for choice in choices)
    is_path = wanted is Path or getattr(of_click, "name", "") in ("path", "file")
    return _KINDS.get(parameter.name, "") or ("file" if is_path else "")
