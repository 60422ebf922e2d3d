"""`fgtrac verify BUNDLE --witness-key`: whether the head of a proof was shown to witnesses, as a data subject asks."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cosigned import cosigned, cosigner
from fgtrac.store import durable
from fgtrac.tlog.cosignature import format_cosigner
from fgtrac.tlog.note import format_vkey
from lives import Life

from .conftest import Run

VKEY = format_cosigner(cosigner())
OTHER = format_cosigner(cosigner("witness.example/w2", Ed25519PrivateKey.from_private_bytes(b"x" * 32)))


@pytest.fixture
def bundle(life: Life, run: Run, tmp_path: Path) -> Path:
    """A bundle of a head that one witness cosigned."""
    for path in (life.path / "checkpoint", *life.path.glob("index/*/checkpoint")):
        durable.write_file(path, cosigned(path.read_bytes()))
    assert run("prove", life.path, "digits:0", "-o", tmp_path / "bundle.json").code == 0
    return tmp_path / "bundle.json"


def test_the_witness_is_named_by_its_vkey_or_by_a_file(bundle: Path, life: Life, run: Run, tmp_path: Path) -> None:
    (tmp_path / "witness.vkey").write_text(VKEY + "\n")
    for named in (VKEY, tmp_path / "witness.vkey"):
        done = run("verify", bundle, "--key", format_vkey(life.made.verifier), "--witness-key", named, "--json")
        said = {f["check"]: f for f in done.json["findings"]}
        assert (done.code, said["witness"]["verdict"]) == (0, "holds")
        assert "cosigned by 1 of 1 witnesses" in said["witness"]["words"]


def test_one_of_two_is_too_few_unless_one_is_asked_for(bundle: Path, life: Life, run: Run) -> None:
    named = ("verify", bundle, "--key", format_vkey(life.made.verifier), "--witness-key", VKEY, "--witness-key", OTHER)
    done = run(*named)
    assert done.code == 3
    assert "by 1 of 2 witnesses named (needed: 2); without witness.example/w2" in done.out
    assert run(*named, "--quorum", 1).code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--quorum", 1], "--quorum says how many of the witnesses named with --witness-key; name them"),
        (["--witness-key", VKEY, "--quorum", 2], "a quorum of 2 of 1 witnesses"),
        (["--witness-key", VKEY, "--quorum", 0], "a quorum of 0 of 1 witnesses"),
        (["--witness-key", "nobody"], "name a witness's vkey, or a file that holds it"),
    ],
)
def test_what_names_no_quorum_is_said_in_one_line(
    bundle: Path, life: Life, run: Run, options: list[str], words: str
) -> None:
    done = run("verify", bundle, "--key", format_vkey(life.made.verifier), *options)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert words in done.err
