"""The client of C2SP witnesses against one that we did not write: heads that grow, and every refusal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cosigned import cosigner, prover, signed_head
from fgtrac.anchor.witness import Witness
from fgtrac.api.anchoring import anchor_trace, complete_pending
from fgtrac.api.bundles import verify_bundle
from fgtrac.api.run import start_run
from fgtrac.api.trace import open_trace
from fgtrac.api.witnessed import read_quorum
from fgtrac.errors import AnchorError, RefusedError
from fgtrac.tlog.cosignature import cosignature_time, format_cosigner, parse_cosigner
from fgtrac.tlog.note import Verifier, parse_vkey, verify_note
from fgtrac.verify.report import Verdict
from findings import words_of
from services.witness import WitnessServer, make_witness
from signed import KEY, VERIFIER
from traces import start_trace

ENTRIES = [b"entry %d" % n for n in range(300)]
FORK = [*ENTRIES[:5], b"another", *ENTRIES[6:]]
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WitnessServer]:
    """A witness that knows the log of `signed`, under a path of its own."""
    witness = make_witness(tmp_path / "witness", prefix="/log/witness")
    witness.add_log(VERIFIER)
    with witness.running():
        yield witness


def anchored(witness: Witness, size: int, entries: list[bytes] = ENTRIES, key: Ed25519PrivateKey = KEY) -> bytes:
    """The head of so many entries with the witness's line, checked as a stranger would."""
    head = signed_head(entries, size, key)
    name, note = witness.anchor(head, prover(entries, size))
    assert name == f"witness-{witness.cosigner.key_id.hex()}.checkpoint"
    assert note.startswith(head.note)
    assert verify_note(note, [VERIFIER])
    assert cosignature_time(note, witness.cosigner) is not None
    return note


def test_every_head_of_a_log_that_grows_is_cosigned(server: WitnessServer) -> None:
    witness = Witness(server.url, server.vkey)
    for size in (1, 2, 7, 256, 257, 300):
        anchored(witness, size)


def test_who_does_not_know_what_was_cosigned_learns_it_from_the_witness(server: WitnessServer) -> None:
    for size in (3, 3, 200):
        anchored(Witness(server.url + "/", server.vkey), size)


def test_a_head_is_cosigned_again_as_often_as_it_is_asked_for(server: WitnessServer) -> None:
    witness = Witness(server.url, server.vkey)
    first = anchored(witness, 9)
    again = anchored(witness, 9)
    assert cosignature_time(again, witness.cosigner) >= cosignature_time(first, witness.cosigner)  # type: ignore[operator]


def test_a_witness_that_was_started_again_remembers(tmp_path: Path) -> None:
    server = make_witness(tmp_path / "witness")
    server.add_log(VERIFIER)
    with server.running() as url:
        anchored(Witness(url, server.vkey), 9)
    with server.running() as url:
        anchored(Witness(url, server.vkey), 20)
        with pytest.raises(RefusedError, match="another history of this log: it cosigned 20 entries"):
            anchored(Witness(url, server.vkey), 30, FORK)


@pytest.mark.parametrize("size", [9, 30])
def test_a_fork_is_refused_and_said_to_be_one(server: WitnessServer, size: int) -> None:
    witness = Witness(server.url, server.vkey)
    anchored(witness, 9)
    with pytest.raises(RefusedError, match=f"it cosigned 9 entries, and this head of {size} does not continue them"):
        anchored(witness, size, FORK)
    anchored(witness, 20)


def test_a_smaller_head_is_refused_with_both_sizes(server: WitnessServer) -> None:
    anchored(Witness(server.url, server.vkey), 9)
    with pytest.raises(RefusedError, match="has cosigned 9 entries of this log, and this head has 8"):
        anchored(Witness(server.url, server.vkey), 8)


@pytest.mark.filterwarnings("ignore:fgtrac. not anchored")
def test_a_run_s_log_is_cosigned_once_the_witness_s_owner_has_added_its_vkey(tmp_path: Path) -> None:
    server = make_witness(tmp_path / "witness")
    with (
        server.running() as url,
        start_run(tmp_path / "run", key=tmp_path / "key.pem", anchors=[Witness(url, server.vkey)]) as run,
    ):
        run.log(0, loss=0.5)
        (unknown,) = run.anchor(wait_s=0.5)
        assert not unknown.is_over
        server.add_log(parse_vkey(run.vkey))
        (known,) = run.anchor()
        assert known.error is None
    assert complete_pending(run.path, key=tmp_path / "key.pem") == ()


def test_a_path_that_is_not_the_witness_s_is_said_to_be_one(server: WitnessServer) -> None:
    with pytest.raises(AnchorError, match="or the URL's path is not its own"):
        anchored(Witness(server.url.removesuffix("/witness"), server.vkey), 9)


def test_a_head_under_another_key_of_the_log_is_refused(server: WitnessServer) -> None:
    with pytest.raises(RefusedError, match=r"403: it knows the log .* by another key"):
        anchored(Witness(server.url, server.vkey), 9, key=OTHER_KEY)


def test_a_replaced_key_is_taken_once_the_witness_s_owner_names_it(tmp_path: Path) -> None:
    server = make_witness(tmp_path / "witness")
    server.add_log(VERIFIER)
    head = signed_head(ENTRIES, 20, OTHER_KEY)
    with server.running() as url:
        anchored(Witness(url, server.vkey), 9)
        with pytest.raises(RefusedError, match="was the key replaced"):
            Witness(url, server.vkey).anchor(head, prover(ENTRIES, 20))
    server.add_log(Verifier(VERIFIER.name, OTHER_KEY.public_key().public_bytes_raw()))
    with server.running() as url:
        _, note = Witness(url, server.vkey).anchor(head, prover(ENTRIES, 20))
    assert cosignature_time(note, parse_cosigner(server.vkey)) is not None


def test_a_key_that_is_not_the_witness_s_is_refused(server: WitnessServer) -> None:
    wrong = format_cosigner(cosigner(parse_cosigner(server.vkey).name, OTHER_KEY))
    with pytest.raises(RefusedError, match="cosigned, but not with the key that you named"):
        anchored(Witness(server.url, wrong), 9)


def test_a_witness_that_was_stopped_does_not_answer(tmp_path: Path) -> None:
    server = make_witness(tmp_path / "witness")
    with server.running() as url:
        pass
    with pytest.raises(AnchorError) as caught:
        anchored(Witness(url, server.vkey, timeout_s=5), 9)
    assert not isinstance(caught.value, RefusedError)


def test_a_trace_is_anchored_as_it_grows_and_a_proof_shows_the_witness_s_line(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    key = tmp_path / "key.pem"
    key.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key.chmod(0o600)
    server = make_witness(tmp_path / "witness")
    server.add_log(made.verifier)
    with server.running() as url:
        for step in range(3):
            writing.use([step, step + 1])
            writing.recorder.rotate()
            made.seal()
            (done,) = anchor_trace(made.trace.path, [Witness(url, server.vkey)], key=key)
            assert done.error is None
    public = made.verifier.public_key.hex()
    (tmp_path / "bundle.json").write_bytes(open_trace(made.trace.path, key=public).prove("digits:1"))
    report = verify_bundle(tmp_path / "bundle.json", public, quorum=read_quorum([server.vkey]))
    assert report.verdict is Verdict.HOLDS, report.failures()
    assert "cosigned by 1 of 1 witnesses" in words_of(report, "witness")
