"""Whatever is wrong with the input: one line that says what, the documented exit code, and nothing written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lives import Life
from traces import make_trace

WRONG = "11" * 32


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-7])
    return path


def changed(path: Path, old: bytes, new: bytes) -> Path:
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    return path


def bundle(life: Life, run, folder: Path) -> Path:
    run("prove", life.path, "digits:0", "-o", folder / "bundle.json")
    return folder / "bundle.json"


def entries_of(life: Life) -> Path:
    return life.path / next(n for n in life.made.trace.names() if n.startswith("tile/entries"))


def column_of(life: Life, name: str) -> Path:
    return life.path / next(n for n in life.made.trace.names() if n.endswith(f"{name}.npy"))


def empty_folder(folder: Path) -> Path:
    (folder / "empty.trace").mkdir()
    return folder / "empty.trace"


def text_file(folder: Path, text: str = "nothing of the kind\n") -> Path:
    (folder / "text").write_text(text)
    return folder / "text"


Make = Callable[[Life, object, Path], list[object]]
CASES: dict[str, tuple[Make, int, str]] = {
    "no such trace, history": (lambda _l, _r, f: ["history", f / "x.trace", "d:0"], 2, "there is no trace at"),
    "no such trace, show": (lambda _l, _r, f: ["show", f / "x.trace"], 2, "there is no trace at"),
    "no such trace, verify": (lambda _l, _r, f: ["verify", f / "x.trace"], 2, "there is no file or trace"),
    "no such bundle, asked about somebody": (
        lambda _l, _r, f: ["verify", f / "x.bundle", "--about", "d:0"], 2, "there is no file or trace"),
    "no such trace, seal": (lambda _l, _r, f: ["seal", f / "x.trace"], 2, "there is no trace at"),
    "no such trace, prove": (lambda _l, _r, f: ["prove", f / "x.trace", "d:0", "-o", f / "o"], 2, "there is no trace"),
    "not a trace": (lambda _l, _r, f: ["show", empty_folder(f)], 2, "is no trace"),
    "a file in place of a trace": (lambda _l, _r, f: ["history", text_file(f), "d:0"], 2, "is no trace"),
    "not sealed yet": (
        lambda _l, _r, f: ["history", make_trace(f / "u", sealed=False).trace.path, "digits:0"], 2, "run fgtrac seal"),
    "unknown sample": (lambda i, _r, _f: ["history", i.path, "digits:99"], 2, "no sample digits:99 is registered"),
    "unknown id": (lambda i, _r, _f: ["history", i.path, "id:" + "ab" * 32], 2, "no sample id:abab"),
    "unknown data set": (lambda i, _r, _f: ["history", i.path, "nosuch:1"], 2, "no data set 'nosuch'"),
    "no name at all": (lambda i, _r, _f: ["history", i.path, "seven"], 2, "names no sample"),
    "an id that is cut": (lambda i, _r, _f: ["history", i.path, "id:ab"], 2, "64 hex digits"),
    "a key that is no JSON": (lambda i, _r, _f: ["history", i.path, "key:{"], 2, "no key in JSON"),
    "an unknown key": (lambda i, _r, _f: ["history", i.path, 'key:"x"'], 2, "no key of any sample"),
    "a vault that is none": (
        lambda i, _r, _f: i.path.with_suffix(".vault").write_bytes(b"x") and ["history", i.path, "digits:0"], 2,
        "is no vault"),
    "wrong key for a history": (
        lambda i, _r, _f: ["history", i.path, "digits:0", "--key", WRONG], 1, "not by"),
    "a key that is none": (lambda i, _r, _f: ["verify", i.path, "--key", "secret"], 2, "is no key and no file"),
    "an empty key": (lambda i, _r, _f: ["verify", i.path, "--key", ""], 2, "'' is no key and no file"),
    "an empty key for a bundle": (
        lambda i, r, f: ["verify", bundle(i, r, f), "--key", ""], 2, "'' is no key and no file"),
    "an empty key for a history": (
        lambda i, _r, _f: ["history", i.path, "digits:0", "--key", ""], 2, "'' is no key and no file"),
    "a file that holds no key": (
        lambda i, _r, f: ["verify", i.path, "--key", text_file(f)], 2, "text holds no key: give 64 hex"),
    "a file that is much like a verifier key": (
        lambda i, _r, f: ["verify", i.path, "--key", text_file(f, "1 + 1 + 1\n")], 2, "text holds no key: give 64 hex"),
    "a verifier key with another id": (
        lambda i, _r, _f: ["verify", i.path, "--key", "fgtrac/x+00000000+AQ" + "A" * 42], 2, "key id"),
    "a claim that is not true": (
        lambda i, _r, f: ["prove", i.path, "digits:0", "-o", f / "o", "--claim", "never used"], 2, "is not true"),
    "a claim that is none": (
        lambda i, _r, f: ["prove", i.path, "digits:0", "-o", f / "o", "--claim", "x"], 2, "is no claim"),
    "nowhere to write": (
        lambda i, _r, f: ["prove", i.path, "digits:0", "-o", f / "no" / "o"], 2, "there is no folder"),
    "a bundle that is there already": (
        lambda i, r, f: ["prove", i.path, "digits:0", "-o", bundle(i, r, f)], 2, "is there already"),
    "no such file to look for": (
        lambda i, _r, f: ["prove", i.path, f"file:{f / 'photo'}", "-o", f / "o"], 2, "there is no file"),
    "a truncated bundle": (lambda i, r, f: ["verify", cut(bundle(i, r, f))], 2, "no strict JSON"),
    "a text in place of a bundle": (
        lambda _l, _r, f: ["verify", text_file(f)], 2,
        "text is no bundle (fgtrac prove writes one) and no trace's folder: no strict JSON"),
    "another kind of JSON": (
        lambda _l, _r, f: ["verify", text_file(f, "{}")], 2, "a bundle lacks format, claim, words"),
    "JSON with something else": (
        lambda i, r, f: ["verify", changed(bundle(i, r, f), b"{", b'{"mood":7,')], 2,
        "a bundle has the unknown 'mood'"),
    "a tlog-proof in place of a bundle": (
        lambda _l, _r, f: ["verify", text_file(f, "c2sp.org/tlog-proof@v1\nindex 0\n")], 2, "text is a tlog-proof"),
    "a checkpoint that was not kept": (
        lambda i, _r, f: ["prove", i.path, "digits:0", "-o", f / "o", "--checkpoint", "3"], 2, "no model state of"),
    "entries of what is not there": (
        lambda i, _r, f: ["prove", i.path, "digits:99", "-o", f / "o", "--entries"], 2, "leave --entries out"),
    "somebody whom a trace is not about": (
        lambda i, _r, _f: ["verify", i.path, "--about", "digits:0"], 2, "--about belongs to a bundle"),
    "an engine for a bundle": (
        lambda i, r, f: ["verify", bundle(i, r, f), "--engine", "local"], 2, "--engine belongs to a trace"),
    "memory for a bundle": (
        lambda i, r, f: ["verify", bundle(i, r, f), "--memory", "2GiB"], 2, "--memory belongs to a trace"),
    "scratch files where no folder is": (
        lambda i, _r, f: ["verify", i.path, "--scratch", f / "none"], 2, "there is no folder"),
    "a name that says too little": (
        lambda i, r, f: ["verify", bundle(i, r, f), "--about", 'key:"a"'], 2, 'write NAME:key:"a"'),
    "a row of no array": (
        lambda i, _r, f: ["prove", i.path, f"row:{text_file(f)}:0", "-o", f / "o"], 2, "is no .npy file"),
    "an id key for a trace": (lambda i, _r, _f: ["verify", i.path, "--id-key", WRONG], 2, "belongs to a bundle"),
    "an id key that is none": (
        lambda i, r, f: ["verify", bundle(i, r, f), "--id-key", f / "nothing"], 2, "there is no vault at"),
    "truncated entries": (lambda i, _r, _f: cut(entries_of(i)) and ["history", i.path, "digits:0"], 2, "is cut"),
    "a missing bundle of entries": (
        lambda i, _r, _f: entries_of(i).unlink() or ["history", i.path, "digits:0"], 1, "has no file tile/entries"),
    "a missing bundle of entries, show": (
        lambda i, _r, _f: entries_of(i).unlink() or ["show", i.path], 1, "has no file tile/entries"),
    "a truncated index column": (
        lambda i, _r, _f: cut(column_of(i, "keys")) and ["history", i.path, "digits:0"], 2, "keys.npy is no .npy file"),
    "a missing index column": (
        lambda i, _r, _f: column_of(i, "values").unlink() or ["prove", i.path, "digits:0", "-o", _f / "o"], 1,
        "values.npy"),
    "a truncated head": (
        lambda i, _r, _f: cut(i.path / "checkpoint") and ["history", i.path, "digits:0"], 2, "the note"),
    "no verb": (lambda _l, _r, _f: ["explain"], 2, "No such command 'explain'"),
    "no sample given": (lambda i, _r, _f: ["history", i.path], 2, "Missing argument 'sample'"),
    "an unknown option": (lambda i, _r, _f: ["show", i.path, "--nosuch"], 2, "No such option"),
    "an unknown demo": (lambda _l, _r, _f: ["demo", "nosuch"], 2, "nosuch"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_gives_one_line_and_an_exit_code_and_writes_nothing(
    case: str, life: Life, run, tmp_path: Path
) -> None:
    make, code, words = CASES[case]
    arguments = make(life, run, tmp_path)
    before = files_below(tmp_path)
    done = run(*arguments)
    assert done.code == code, done
    assert done.err.startswith("fgtrac: ")
    assert done.err.count("\n") == 1
    assert words in done.err
    assert done.out == ""
    assert files_below(tmp_path) == before


def test_every_case_has_its_own_message(life: Life) -> None:
    assert len({(words, code) for _make, code, words in CASES.values()}) > 25


def test_the_wrong_key_refutes_a_trace_and_a_bundle(life: Life, run, tmp_path: Path) -> None:
    for path in (life.path, bundle(life, run, tmp_path)):
        done = run("verify", path, "--key", WRONG, "--json")
        assert (done.code, done.json["verdict"]) == (1, "refuted")
        refuted = [f for f in done.json["findings"] if f["verdict"] == "refuted"]
        assert [f["check"] for f in refuted] == ["signature"]
        assert "not by" in refuted[0]["words"]


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


ODD_FILES: dict[str, tuple[Callable[[Life], object], str, str]] = {
    "a pipe in place of a column": (lambda i: pipe(column_of(i, "offsets")), "index", "offsets.npy is no plain file"),
    "a link in place of a column": (lambda i: link(column_of(i, "keys"), "/dev/zero"), "index", "keys.npy is no plain"),
    "a link in place of entries": (lambda i: link(entries_of(i), "/dev/zero"), "entries", "is no plain file"),
    "a link to another folder": (lambda i: link(i.path / "extra", "/etc"), "files", "extra is no plain file"),
    "a link to nowhere": (lambda i: link(i.path / "tile" / "x", "nowhere"), "files", "tile/x is no plain file"),
    "a pipe among what a crash leaves": (
        lambda i: pipe(i.path / "journal" / "x.wal.damaged"),
        "files",
        "x.wal.damaged",
    ),
    "a pipe as a journal": (lambda i: pipe(i.path / "journal" / f"{'ab' * 16}-0.wal"), "journal", "is no plain file"),
}


@pytest.mark.parametrize("case", ODD_FILES)
def test_what_is_no_plain_file_is_refuted_unread(case: str, life: Life, run) -> None:
    make, check, words = ODD_FILES[case]
    make(life)
    done = run("verify", life.path, "--json")
    refuted = {f["check"]: f["words"] for f in done.json["findings"] if f["verdict"] == "refuted"}
    assert done.code == 1
    assert words in refuted[check]


def test_a_head_that_is_a_link_to_a_device_is_refused(life: Life, run) -> None:
    link(life.path / "checkpoint", "/dev/zero")
    done = run("verify", life.path)
    assert (done.code, "checkpoint is no plain file" in done.err) == (2, True)


def test_a_user_without_a_home_is_told_how_to_name_a_key(life: Life, run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FGTRAC_KEY", "XDG_CONFIG_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])  # no such user
    done = run("verify", life.path)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "FGTRAC_KEY" in done.err


def test_where_the_memory_runs_out_one_line_says_so(life: Life, run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError("no room for 4 GiB")

    monkeypatch.setattr("fgtrac.cli.history.open_trace", fail)
    done = run("history", life.path, "digits:0")
    assert (done.code, done.out, done.err.count("\n")) == (4, "", 1)
    assert "the memory ran out (no room for 4 GiB); " in done.err


@pytest.mark.parametrize("verb", ["history", "show"])
def test_a_pipe_in_place_of_what_a_verb_reads_keeps_nobody_waiting(life: Life, run, verb: str) -> None:
    pipe(entries_of(life))
    done = run(verb, life.path, *(["digits:0"] if verb == "history" else []))
    assert (done.code, "is no plain file" in done.err) == (2, True)


def test_a_pipe_in_the_journal_keeps_nobody_waiting(life: Life, run) -> None:
    pipe(life.path / "journal" / f"{'ab' * 16}-0.wal")
    done = run("history", life.path, "digits:0")
    assert (done.code, "is no plain file" in done.err) == (2, True)
