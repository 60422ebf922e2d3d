"""`fgtrac export proof` writes files that a reader who shares no code with the package checks, and refuses the rest."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fgtrac.cli.main import main
from lives import Life, live
from traces import Made, make_trace


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Life:
    return live(tmp_path_factory.mktemp("lived"), vault=True)


def fgtrac(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["fgtrac", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def check(other: ModuleType, made: Made, proof: Path) -> int:
    """The number of the entry that the proof shows under the head that the log's key signed."""
    head = other.Head(proof.read_text())
    assert (made.verifier.name, head.is_signed(made.verifier.public_key)) == (head.origin, True)
    other.check_inclusion(head.root, head.index, head.size, proof.with_suffix(".cbor").read_bytes(), head.path)
    return int(head.index)


def test_every_entry_is_proved_against_the_newest_head_plain_or_full(
    other: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_trace(tmp_path, seals=(5,), plain=(8,), sealed=False)
    head = made.trace.head()
    assert head is not None
    assert head.size > made.trace.full_seals()[-1]
    assert fgtrac(monkeypatch, "export", "proof", made.trace.path, *range(head.size), "-o", tmp_path / "out") == 0
    proofs = sorted((tmp_path / "out").glob("*.tlog-proof"))
    assert [check(other, made, p) for p in proofs] == list(range(head.size))
    for number, proof in enumerate(proofs):
        assert proof.read_bytes().endswith(b"\n\n" + made.trace.read("checkpoint"))
        assert other.Cbor(proof.with_suffix(".cbor").read_bytes()).result["kind"], number


def test_a_sample_names_all_its_entries_and_one_entry_may_be_one_file(
    other: ModuleType, lived: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out = tmp_path / "out"
    assert fgtrac(monkeypatch, "export", "proof", lived.path, "--sample", "digits:0", "-o", out, "--json") == 0
    said = json.loads(capsys.readouterr().out)["proofs"]
    kinds = [other.Cbor(Path(p["bytes"]).read_bytes()).result["kind"] for p in said]
    assert kinds == ["samples", "roles", "transform", "transform", "use", "use"]
    assert [check(other, lived.made, Path(p["proof"])) for p in said] == [p["entry"] for p in said]
    assert fgtrac(monkeypatch, "export", "proof", lived.path, "7", "-o", tmp_path / "one.tlog-proof") == 0
    assert check(other, lived.made, tmp_path / "one.tlog-proof") == 7


def test_a_proof_of_another_entry_or_another_head_is_refused(
    other: ModuleType, lived: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fgtrac(monkeypatch, "export", "proof", lived.path, "6", "7", "-o", tmp_path) == 0
    six, seven = (tmp_path / f"entry-0000000{n}.tlog-proof" for n in (6, 7))
    seven.with_suffix(".cbor").write_bytes(six.with_suffix(".cbor").read_bytes())
    with pytest.raises(other.Fault):
        check(other, lived.made, seven)
    six.write_text(six.read_text().replace("\n21\n", "\n22\n"))
    with pytest.raises(other.Fault):
        check(other, lived.made, six)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["99", "-o", "out"], "entry 99 is asked for, and the log has the entries 0 to 20"),
        (["-o", "out"], "name either entries by their numbers or a sample"),
        (["1", "--sample", "digits:0", "-o", "out"], "name either entries by their numbers or a sample"),
        (["1", "2", "-o", "one.tlog-proof"], "several entries are asked for; name a folder"),
        (["1", "-o", "no/folder/one.tlog-proof"], "there is no folder"),
        (["--sample", "digits:99", "-o", "out"], "no sample digits:99 is registered"),
        (["x", "-o", "out"], "ENTRY..."),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(
    lived: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fgtrac(monkeypatch, "export", "proof", lived.path, *arguments) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_there_are_not_replaced_unasked(
    lived: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "entry-00000003.cbor").write_bytes(b"mine")
    assert fgtrac(monkeypatch, "export", "proof", lived.path, "2", "3", "-o", tmp_path) == 2
    assert "entry-00000003.cbor is there already" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["entry-00000003.cbor"]
    assert fgtrac(monkeypatch, "export", "proof", lived.path, "2", "3", "-o", tmp_path, "--force") == 0
    assert len(list(tmp_path.iterdir())) == 4


def test_an_unsealed_trace_and_a_changed_log_have_no_proofs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    unsealed = make_trace(tmp_path / "unsealed", sealed=False).trace.path
    assert fgtrac(monkeypatch, "export", "proof", unsealed, "0", "-o", tmp_path / "out") == 2
    assert "never sealed" in capsys.readouterr().err
    made = make_trace(tmp_path / "changed")
    bundle = next(p for p in (made.trace.path / "tile" / "entries").rglob("*") if p.is_file())
    data = bundle.read_bytes()
    bundle.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    assert fgtrac(monkeypatch, "export", "proof", made.trace.path, "0", "-o", tmp_path / "out") == 1
    assert "is not the one that was sealed" in capsys.readouterr().err
