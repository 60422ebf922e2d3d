"""The in-toto statement, read back by in-toto's own classes and by securesystemslib; refused where it was altered."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

import google.protobuf.json_format as protobuf_json
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

import fgtrac
from fgtrac.api.in_toto import PAYLOAD, PREDICATE, export_in_toto
from fgtrac.api.keys import rotate
from fgtrac.api.since import since_demand
from fgtrac.commit.keys import Keyring, load_key
from fgtrac.errors import ProofError
from fgtrac.tlog.note import parse_vkey, verify_note
from fgtrac.verify.report import Verdict
from model_traces import STATES, change_a_use, leave_pending, resumed_trace, trace_with_models, write_key
from traces import Made, make_trace


@pytest.fixture
def made(tmp_path: Path) -> Made:
    write_key(tmp_path / "key.pem")
    return trace_with_models(tmp_path)


@pytest.fixture
def envelope(made: Made, tmp_path: Path) -> dict[str, Any]:
    export_in_toto(made.trace.path, tmp_path / "models.json", key=tmp_path / "key.pem")
    return json.loads((tmp_path / "models.json").read_bytes())


def public_key(made: Made) -> SSlibKey:
    return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(made.signer.public_key))


def read(envelope: dict[str, Any]) -> Envelope:
    return Envelope.from_dict(json.loads(json.dumps(envelope)))  # it changes what it is given


def test_in_toto_accepts_the_statement_whose_subjects_are_the_kept_model_files(made: Made, envelope) -> None:
    payload = read(envelope).payload
    statement = Statement.copy_from_pb(protobuf_json.Parse(payload, StatementMessage()))
    statement.validate()
    assert statement.pb.predicate_type == PREDICATE
    digests = [subject.digest["sha256"] for subject in statement.pb.subject]
    assert digests == [hashlib.sha256(state).hexdigest() for state in STATES]
    for subject in statement.pb.subject:
        data = (made.trace.path / subject.name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == subject.digest["sha256"] == subject.annotations["stateDigest"]
    assert [subject.annotations["step"] for subject in statement.pb.subject] == [2, 4]


def test_the_predicate_says_what_the_log_says(made: Made, envelope) -> None:
    said = json.loads(read(envelope).payload)["predicate"]
    head = made.trace.head()
    assert (said["treeHead"]["size"], said["treeHead"]["rootHash"]) == (head.size, head.root.hex())
    verifier = parse_vkey(said["verifierKey"])
    assert verifier == made.verifier
    verify_note(said["treeHead"]["note"].encode(), [verifier])
    assert said["traceId"] == made.signer.trace_id.hex()
    assert sum(said["entries"].values()) == head.size - 1  # all but the seal itself
    assert said["dataSets"] == [{"name": "digits", "id_scheme": "keyed", "rows": 20}]


def test_the_signature_is_verified_by_securesystemslib(made: Made, envelope) -> None:
    key = public_key(made)
    assert list(read(envelope).verify([key], 1)) == [key.keyid]


@pytest.mark.parametrize("change", ["payload", "type", "signature", "key"])
def test_an_altered_envelope_is_refused(made: Made, envelope, tmp_path: Path, change: str) -> None:
    key = public_key(made)
    if change == "payload":
        altered = base64.b64decode(envelope["payload"]).replace(b'"step": 4', b'"step": 5')
        assert altered != base64.b64decode(envelope["payload"])
        envelope["payload"] = base64.b64encode(altered).decode()
    elif change == "type":
        envelope["payloadType"] = PAYLOAD + "+x"
    elif change == "signature":
        signature = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
        signature[0] ^= 1
        envelope["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    else:
        other = load_key(write_key(tmp_path / "other.pem", bytes((1,)) * 32)).public_key()
        key = SSlibKey.from_crypto(other, keyid=key.keyid)
    with pytest.raises(VerificationError):
        read(envelope).verify([key], 1)


def test_a_signature_over_an_envelope_is_none_over_a_tree_head_and_the_other_way_round(made: Made, envelope) -> None:
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    payload = base64.b64decode(envelope["payload"])
    for text in (payload, made.trace.read("checkpoint").split(b"\n\n")[0] + b"\n"):
        assert not made.verifier.is_signed(text.decode(), signature)
    note = read(envelope)
    line = made.trace.read("checkpoint").decode().split(" ")[-1]
    envelope["signatures"][0]["sig"] = base64.b64encode(base64.b64decode(line)[4:]).decode()
    with pytest.raises(VerificationError):
        read(envelope).verify([public_key(made)], 1)
    assert note.pae().startswith(b"DSSEv1 28 application/vnd.in-toto+json ")


def test_who_has_no_private_key_is_told_so_in_one_line(made: Made, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no key at .*absent\.pem"):
        export_in_toto(made.trace.path, tmp_path / "x.json", key=tmp_path / "absent.pem")
    write_key(tmp_path / "other.pem", bytes((1,)) * 32)
    with pytest.raises(ValueError, match=f"signed with the key {made.signer.public_key.hex()}"):
        export_in_toto(made.trace.path, tmp_path / "x.json", key=tmp_path / "other.pem")
    assert not (tmp_path / "x.json").exists()


def test_a_revoked_key_signs_no_statement(made: Made, tmp_path: Path) -> None:
    Keyring(tmp_path / "key.pem").revoke(made.signer.public_key)
    with pytest.raises(ValueError, match="is revoked"):
        export_in_toto(made.trace.path, tmp_path / "x.json", key=tmp_path / "key.pem")


def test_behind_a_rotation_the_new_key_signs(made: Made, tmp_path: Path) -> None:
    new = rotate([made.trace.path], path=tmp_path / "key.pem").public_key
    done = export_in_toto(made.trace.path, tmp_path / "x.json", key=tmp_path / "key.pem")
    key = SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(new))
    assert key.keyid == done.key_id
    read(json.loads(done.envelope)).verify([key], 1)
    assert parse_vkey(done.statement["predicate"]["verifierKey"]).public_key == new


def test_the_check_that_the_docs_tell_accepts_it_and_the_note_in_it_is_an_older_head(
    made: Made, envelope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "exports.md").read_text()
    code = re.search(r"\n\n((?:       .*\n|\n)+)", docs[docs.index("1. **The signature**") :])
    assert code is not None
    (tmp_path / "log.key").write_text(f"{made.signer.public_key.hex()}\n")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(textwrap.dedent(code[1]), found)
    assert found["statement"]["predicateType"] == PREDICATE
    (tmp_path / "head").write_text(found["statement"]["predicate"]["treeHead"]["note"])
    demands = [since_demand(tmp_path / "head")]
    report = fgtrac.open(made.trace.path).verify(made.signer.public_key.hex(), demands=demands)
    assert [f.verdict for f in report.findings if f.check == "since"] == [Verdict.HOLDS]
    other = load_key(write_key(tmp_path / "theirs.pem", bytes((1,)) * 32)).public_key()
    (tmp_path / "log.key").write_text(other.public_bytes_raw().hex())
    with pytest.raises(VerificationError):
        exec(textwrap.dedent(code[1]), {})


def test_a_trace_without_model_files_is_no_subject(tmp_path: Path) -> None:
    made = make_trace(tmp_path)
    write_key(tmp_path / "key.pem")
    with pytest.raises(ValueError, match="keeps no model file"):
        export_in_toto(made.trace.path, tmp_path / "x.json", key=tmp_path / "key.pem")


def test_a_file_that_is_there_stays_unless_it_is_to_be_replaced(made: Made, tmp_path: Path) -> None:
    out, key = tmp_path / "x.json", tmp_path / "key.pem"
    out.write_text("mine")
    with pytest.raises(FileExistsError, match="--force"):
        export_in_toto(made.trace.path, out, key=key)
    assert out.read_text() == "mine"
    export_in_toto(made.trace.path, out, key=key, replace=True)
    assert json.loads(out.read_bytes())["payloadType"] == PAYLOAD
    with pytest.raises(FileNotFoundError, match="no folder"):
        export_in_toto(made.trace.path, tmp_path / "no" / "x.json", key=key)


def test_nothing_is_signed_of_a_log_with_a_changed_entry(made: Made, tmp_path: Path) -> None:
    change_a_use(made.trace.path)
    with pytest.raises(ProofError, match="do not lead to the root"):
        export_in_toto(made.trace.path, tmp_path / "x.json", key=tmp_path / "key.pem")
    assert not (tmp_path / "x.json").exists()


def test_later_entries_are_named_and_a_data_set_that_was_registered_again_is_one(tmp_path: Path) -> None:
    made, go_on = resumed_trace(tmp_path)
    write_key(tmp_path / "key.pem")
    go_on()
    leave_pending(made)
    done = export_in_toto(made.trace.path, tmp_path / "x.json", key=tmp_path / "key.pem")
    predicate, (kept,) = done.statement["predicate"], done.statement["subject"]
    assert predicate["laterEntries"] == 1
    assert predicate["dataSets"] == [{"name": "digits", "id_scheme": "public", "rows": 20}]
    assert (kept["annotations"]["step"], kept["annotations"]["val_loss"]) == (4, 0.9)


@pytest.mark.parametrize("place", ["run.trace/x.json", "run.trace/checkpoint", "copy/tile/x.json"])
def test_no_export_goes_into_a_trace(made: Made, tmp_path: Path, place: str) -> None:
    shutil.copytree(made.trace.path, tmp_path / "copy")
    before = made.trace.read("checkpoint")
    with pytest.raises(ValueError, match="lies in the trace"):
        export_in_toto(made.trace.path, tmp_path / place, key=tmp_path / "key.pem", replace=True)
    assert made.trace.read("checkpoint") == before
