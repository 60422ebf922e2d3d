"""The second verifier reads heads that witnesses have cosigned, in bundles and in exported proofs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

import fgtrac
from cosigned import cosigned
from fgtrac.api.export import export_proofs
from fgtrac.store import durable
from fgtrac.tlog.note import MAX_SIGNATURES, Signature, with_signatures
from fgtrac.verify.bundle import format_bundle, parse_bundle
from fgtrac.verify.claims import check_bundle
from lives import Life, live
from page_verifier import PageVerifier, agrees


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """A trace whose heads are cosigned."""
    life = live(tmp_path_factory.mktemp("lived"), vault=True)
    for path in (life.path / "checkpoint", *life.path.glob("index/*/checkpoint")):
        durable.write_file(path, cosigned(path.read_bytes()))
    return life


@pytest.mark.parametrize("entries", [False, True])
@pytest.mark.parametrize("claim", ["used", "history"])
def test_all_verifiers_hold_a_bundle_under_a_cosigned_head(
    other: ModuleType, page: PageVerifier | None, lived: Life, claim: str, entries: bool
) -> None:
    key = lived.made.verifier.public_key
    data = fgtrac.open(lived.path, key=key.hex()).prove("digits:0", claim, entries=entries)
    bundle = parse_bundle(data)
    assert bundle.proof.note == cosigned(bundle.proof.note)
    verdict, found = other.Examination(other.read_bundle(data), key).report()
    report = check_bundle(bundle, lived.made.verifier)
    assert (verdict, report.verdict) == ("holds", "holds")
    assert agrees(page, "holds", data, lived.made.verifier)
    assert {name: said for name, (said, _) in found.items()}.items() <= {
        f.check: str(f.verdict) for f in report.findings
    }.items()


def test_all_take_as_many_lines_as_a_note_may_have(other: ModuleType, page: PageVerifier | None, lived: Life) -> None:
    key = lived.made.verifier.public_key
    bundle = parse_bundle(fgtrac.open(lived.path, key=key.hex()).prove("digits:0"))
    lines = [Signature(f"witness.example/{n}", b"1234", bytes(2428)) for n in range(MAX_SIGNATURES - 2)]
    full = replace(bundle, proof=replace(bundle.proof, note=with_signatures(bundle.proof.note, lines)))
    data = format_bundle(full)
    assert other.Examination(other.read_bundle(data), key).report()[0] == "holds"
    assert check_bundle(parse_bundle(data), lived.made.verifier).verdict == "holds"
    assert agrees(page, "holds", data, lived.made.verifier)


def test_an_exported_proof_carries_the_cosigned_head_and_is_read(
    other: ModuleType, lived: Life, tmp_path: Path
) -> None:
    (files,) = export_proofs(lived.path, [3], tmp_path / "three.tlog-proof")
    head = other.Head(files.proof.read_text())
    assert files.proof.read_bytes().endswith(b"\n\n" + cosigned((lived.path / "checkpoint").read_bytes()))
    assert head.is_signed(lived.made.verifier.public_key)
    other.check_inclusion(head.root, head.index, head.size, files.entry.read_bytes(), head.path)
