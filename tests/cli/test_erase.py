"""`fgtrac erase`: asks first, says what it destroyed, and ends with the documented exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import typer
from torch.utils.data import TensorDataset

from erasable import ANN, BOB, files_with, key_of, pseudonym_of, write_small
from fgtrac.api import erase as erasing
from fgtrac.api.run import start_run


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run) -> Path:
    """Made after `run`, which takes the user's key away."""
    (tmp_path / "small").mkdir()
    path = write_small(tmp_path / "small")
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "small" / "key.pem"))
    return path


def test_it_says_what_it_destroyed(trace: Path, run) -> None:
    pseudonym = pseudonym_of(trace, ANN).hex()
    done = run("erase", trace, "--subject", ANN, "--yes")
    assert (done.code, done.err) == (0, "")
    words = (
        f"erased: the key of subject {pseudonym[:16]} with 3 samples; 3 names and 1 openings of samplers in the vault"
    )
    assert done.out.startswith(words)
    assert "files: artifacts/scoring/rows-train-" in done.out
    assert ANN not in done.out
    verified = run("verify", trace)
    assert verified.code == 3
    assert "was withdrawn by entry" in verified.out


def test_as_json_it_is_one_object(trace: Path, run) -> None:
    pseudonym = pseudonym_of(trace, ANN).hex()
    (said,) = run("erase", trace, "--subject", ANN, "--yes", "--json").json["erased"]
    paths = said.pop("artifacts")
    assert said == {"pseudonym": pseudonym, "samples": 3, "names": 3, "openings": 1, "resumed": False}
    assert len(paths) == 2


def test_without_a_terminal_it_erases_only_with_yes(trace: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    done = run("erase", trace, "--subject", ANN)
    assert (done.code, done.out) == (2, "")
    assert "This destroys the key of subject" in done.err
    assert done.err.endswith("fgtrac: nothing was erased: there is no terminal to ask on; add --yes\n")
    assert key_of(trace, ANN)


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_terminal_it_asks(trace: Path, run, monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    key = key_of(trace, ANN)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "confirm", lambda words, err: answer)
    done = run("erase", trace, "--subject", ANN)
    assert done.code == (0 if answer else 1)
    assert ("nothing was erased" in done.err) is not answer
    assert bool(files_with(trace.parent, key)) is not answer


@pytest.fixture
def interrupted(trace: Path, run, monkeypatch: pytest.MonkeyPatch) -> str:
    """The pseudonym of ANN, whose key is destroyed and nothing else."""
    pseudonym = pseudonym_of(trace, ANN).hex()

    def refuse(*_arguments: object) -> None:
        raise OSError(28, "no space left on device")

    with monkeypatch.context() as full:
        full.setattr(erasing, "_withdraw", refuse)
        done = run("erase", trace, "--subject", ANN, "--yes")
    assert done.code == 1
    assert done.err.startswith(
        f"fgtrac: the key of subject {pseudonym[:16]} is destroyed; these files are not: artifacts/"
    )
    assert done.err.endswith("([Errno 28] no space left on device): put that right, and run fgtrac erase again\n")
    return pseudonym


def test_an_interrupted_erasure_is_finished_first(trace: Path, run, interrupted: str) -> None:
    said = run("erase", trace, "--subject", BOB, "--yes", "--json").json["erased"]
    assert [(e["resumed"], e["samples"]) for e in said] == [(True, 3), (False, 3)]
    assert said[0]["pseudonym"] == interrupted


@pytest.mark.parametrize("subject", [ANN, "a typo"])
def test_what_was_finished_is_said_and_the_unknown_subject_too(trace, run, interrupted: str, subject: str) -> None:
    """Whose the interrupted one was nobody can tell: it may be a typo, and the person asked for is still there."""
    done = run("erase", trace, "--subject", subject, "--yes")
    assert done.code == 2
    assert done.out.startswith(
        f"an interrupted erasure was finished: the key of subject {interrupted[:16]} with 3 samp"
    )
    assert f"run.vault has no key of a subject '{subject}'" in done.err
    assert done.err.endswith("An interrupted erasure was finished just now; if it was of this subject, all is done\n")
    again = run("erase", trace, "--subject", subject, "--yes", "--json")
    assert (again.code, again.json) == (2, {"erased": []})


def test_without_a_terminal_what_was_finished_is_said(trace: Path, run, interrupted: str, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    done = run("erase", trace, "--subject", BOB, "--json")
    assert done.code == 2
    assert [(e["pseudonym"], e["resumed"]) for e in done.json["erased"]] == [(interrupted, True)]
    assert done.err.endswith("fgtrac: nothing else was erased: there is no terminal to ask on; add --yes\n")


def test_numbers_are_named_by_digits_and_a_sign(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    with start_run(tmp_path / "run") as recording:
        recording.register(TensorDataset(torch.zeros(3, 1)), subject=[-1, (1 << 64) - 1, -(1 << 63)])
    vault = recording.path.with_suffix(".vault")
    for subject in ("-1", "18446744073709551615", "-9223372036854775808"):
        kept = vault.read_bytes()
        done = run("erase", recording.path, "--subject", subject, "--yes")
        if subject != "-1":  # the text may be the one that was erased
            assert (done.code, done.out, vault.read_bytes()) == (2, "", kept)
            assert f"a key of the number {subject} and none of the text '{subject}'" in done.err
            done = run("erase", recording.path, "--subject", done.err.split()[-1], "--yes")
        assert done.code == 0
        assert " with 1 sample; 1 names " in done.out


def test_the_same_digits_twice_take_nobody_elses_key(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    with start_run(tmp_path / "run") as recording:
        recording.register(TensorDataset(torch.zeros(2, 1)), subject=["7", 7])
    text, number = (pseudonym_of(recording.path, subject).hex() for subject in ("7", 7))
    both = run("erase", recording.path, "--subject", "7", "--yes")
    assert (both.code, both.out) == (2, "")
    assert f"the text '7', pseudonym {text} and the number 7, pseudonym {number}; name the one you mean" in both.err
    assert run("erase", recording.path, "--subject", text, "--yes").code == 0
    again = run("erase", recording.path, "--subject", "7", "--yes")
    assert (again.code, again.out) == (2, "")
    assert again.err.endswith(f"; if you mean the number 7, name its pseudonym, {number}\n")
    assert key_of(recording.path, 7)


def test_what_verify_says_after_an_erasure(trace: Path, run) -> None:
    missing = run("verify", trace, "--vault", trace.parent / "missing.vault")
    assert missing.code == 2
    assert missing.err.endswith("missing.vault; name the file that lies beside the trace, or put it there\n")


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (lambda trace: None, 2, "no key of a subject 'nobody': it was erased before, or no data set was registered"),
        (lambda trace: trace.with_suffix(".vault").unlink(), 2, "there is no vault at"),
        (lambda trace: trace.with_suffix(".vault").write_bytes(b"x" * 5000), 2, "is no vault, or a damaged one"),
        (lambda trace: (trace.parent / "key.pem").unlink(), 2, "there is no key at"),
        (lambda trace: trace.rename(trace.with_name("gone.trace")), 2, "there is no trace at"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(trace: Path, run, spoil, code: int, words: str) -> None:
    spoil(trace)
    done = run("erase", trace, "--subject", "nobody", "--yes")
    assert (done.code, done.out) == (code, "")
    assert words in done.err
    assert done.err.count("\n") == 1
