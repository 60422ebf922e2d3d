"""A real bash completes verbs, options, traces, data sets' names, steps and entries; nothing slow is loaded for it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fgtrac.cli.completing import dataset_names, offers_for, parse_tree, split_line
from fgtrac.store import durable
from lives import Life, live
from traces import make_trace

TRY = """
cd {folder}; source {script}
offer() {{
    COMP_LINE=$1; COMP_POINT=${{2:-${{#1}}}}; COMPREPLY=(); _fgtrac
    printf '%s\\n' "${{COMPREPLY[@]}}"; echo ---
}}
{calls}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with traces, one of them below a name with a space, and a file."""
    folder = tmp_path_factory.mktemp("completed")
    durable.write_file(live(folder / "runs").path / "artifacts/checkpoint-00000002-aaaaaaaa.safetensors", b"")
    live(folder / "two words")
    (folder / "runs" / "policy.toml").write_text("")
    return folder


@pytest.fixture
def bash(place: Path, run, tmp_path: Path):
    """What bash offers for each of some lines."""
    script = tmp_path / "fgtrac.bash"
    script.write_text(run("completion", "bash").out)

    def offered(*lines: str) -> list[list[str]]:
        calls = "\n".join(f"offer {shlex.quote(line)}" for line in lines)
        text = TRY.format(folder=shlex.quote(str(place)), script=script, calls=calls)
        done = subprocess.run(["bash", "--norc", "-c", text], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return [[line for line in part.splitlines() if line] for part in done.stdout.split("---\n")[:-1]]

    return offered


def test_bash_completes_verbs_and_the_words_behind_a_verb(bash) -> None:
    verbs, one, inner, nothing = bash("fgtrac ", "fgtrac hist", "fgtrac key ro", "fgtrac nonsense ")
    assert {"verify", "history", "doctor", "export", "key"} <= set(verbs)
    assert one == ["history"]
    assert inner == ["rotate"]
    assert nothing == []


def test_bash_completes_options_and_their_choices(bash) -> None:
    options, choices, one, negated = bash(
        "fgtrac verify runs/run.trace --wi",
        "fgtrac runs . --sort ",
        "fgtrac runs . --sort l",
        "fgtrac history x y --no",
    )
    assert options == ["--with", "--witness-key"]
    assert choices == ["name", "when", "loss", "steps", "size"]
    assert one == ["loss"]
    assert negated == ["--no-details"]


def test_bash_completes_traces_and_files(bash) -> None:
    top, trace, spaced, files = bash(
        "fgtrac show ", "fgtrac show runs/r", 'fgtrac show "two words/r', "fgtrac check runs/run.trace --policy runs/"
    )
    assert top == ["runs/", "two words/"]
    assert trace == ["runs/run.trace"]
    assert spaced == ["two words/run.trace"]
    assert "runs/policy.toml" in files


def test_bash_completes_data_sets_steps_and_entries_of_the_trace_on_the_line(bash) -> None:
    names, digits, steps, entries = bash(
        "fgtrac history runs/run.trace ",
        "fgtrac history runs/run.trace dig",
        "fgtrac prove runs/run.trace digits:0 --checkpoint ",
        "fgtrac export proof runs/run.trace 2",
    )
    assert names == ["digits:", "crops:", "id:", "key:"]
    assert digits == ["digits:"]
    assert steps == ["2"]
    assert entries == ["2", "20"]  # of 21 entries


def test_bash_completes_in_the_middle_of_a_line(place: Path, run, tmp_path: Path) -> None:
    script = tmp_path / "fgtrac.bash"
    script.write_text(run("completion", "bash").out)
    text = TRY.format(folder=shlex.quote(str(place)), script=script, calls="offer 'fgtrac hist runs/run.trace' 11")
    done = subprocess.run(["bash", "--norc", "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["history", "---"]


def test_a_stranger_s_text_is_a_word_of_the_line_and_no_command(run, tmp_path: Path, monkeypatch) -> None:
    name = "a$(touch ran)`touch ran`;touch ran;'\"!*~ x"
    monkeypatch.setattr("traces.DATASET", name)
    make_trace(tmp_path)
    script = tmp_path / "fgtrac.bash"
    script.write_text(run("completion", "bash").out)
    ask = 'eval "words=($(offer "fgtrac history run.trace a" | head -1))"; printf "%s\\n" "${#words[@]}" "${words[@]}"'
    lines = ("""fgtrac history run.trace "a""", """fgtrac history run.trace 'a""", 'fgtrac history run.trace "')
    quoted = "; ".join(f"offer {shlex.quote(line)}" for line in lines)  # inside quotes plain words alone are offered
    for calls, wanted in ((ask, f"1\n{name}:\n"), (quoted, "\n---\n\n---\nid:\nkey:\n---\n")):
        text = TRY.format(folder=shlex.quote(str(tmp_path)), script=script, calls=calls)
        done = subprocess.run(["bash", "--norc", "-c", text], capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == (wanted, "")
    assert not (tmp_path / "ran").exists()


def test_completing_loads_neither_numpy_nor_torch_nor_typer(place: Path) -> None:
    code = (
        "import sys; sys.argv[1:] = [sys.argv[1]]; from fgtrac.cli.completing import main; main(); "
        "assert not {'numpy', 'torch', 'typer', 'rich', 'cryptography'} & set(sys.modules), sorted(sys.modules)"
    )
    line, tree = "fgtrac history runs/run.trace ", "history\ttrace sample\t--all"
    done = subprocess.run(
        [sys.executable, "-c", code, line], capture_output=True, text=True, cwd=place, env={"FGTRAC_COMPLETES": tree}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["words", "digits:", "crops:", "id:", "key:"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_names_every_verb_and_is_printed_as_json_too(run, shell: str) -> None:
    done = run("completion", shell)
    assert done.code == 0
    assert "verify\tfile" in done.out
    assert run("completion", shell, "--json").json == {"shell": shell, "script": done.out}


def test_another_shell_is_refused(run) -> None:
    assert run("completion", "tcsh").code == 2


@pytest.mark.parametrize(
    "line", ["", "fgtrac", 'fgtrac "', "fgtrac '", "fgtrac \\", "fgtrac \0", "fgtrac show ~nobody/x"]
)
def test_whatever_stands_on_the_line_is_no_error(line: str) -> None:
    offers_for(parse_tree("show\ttrace\t--json\nbad line"), line)
    split_line(line)


def test_a_damaged_log_offers_no_names(tmp_path: Path) -> None:
    folder = tmp_path / "run.trace" / "tile" / "entries"
    folder.mkdir(parents=True)
    for data in (b"", b"\xff", b"\xff\xff" + bytes(100), b"\x00\x14\x64kind\x67dataset\x64name\x78", bytes(1000)):
        (folder / "000").write_bytes(data)
        assert dataset_names(tmp_path / "run.trace") == []


def test_a_pipe_in_place_of_a_head_keeps_no_shell_waiting(tmp_path: Path) -> None:
    trace = tmp_path / "run.trace"
    trace.mkdir()
    os.mkfifo(trace / "checkpoint")
    assert offers_for(parse_tree("export proof\ttrace entry*\t--json"), f"fgtrac export proof {trace} ") == (False, [])


def test_names_are_those_of_the_log(lived: Life) -> None:
    assert dataset_names(lived.path) == ["digits", "crops"]
