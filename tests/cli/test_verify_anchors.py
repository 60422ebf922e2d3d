"""`fgtrac verify` on an anchored trace: whom it is told to trust, exit codes, and what the seal leaves of old heads."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from authorities import issue, make_root
from cosigned import cosigned, cosigner
from fgtrac.commit.tidy import remove_unfinished
from fgtrac.demo.forge import all_entries, reseal
from fgtrac.events.schema import decode_event, encode_event
from fgtrac.tlog.cosignature import format_cosigner
from fgtrac.verify.receipts import note_path, receipt_path, rfc3161_name, witness_name
from stamps_by_hand import stamp
from traces import Made, make_trace, start_trace

URL = "http://user:secret@tsa.example/key-of-the-api"
VKEY = format_cosigner(cosigner())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("authority")
    root = make_root()
    root.write(folder, "root")
    make_root("another").write(folder, "another")
    return folder, issue("authority", root)


def anchor(made: Made, authority, *kinds: str) -> int:
    """Have the trace's newest head witnessed: its size."""
    folder, head = made.trace.path, made.trace.head()
    note = made.trace.read("checkpoint")
    receipts = {note_path(head.size): note}
    if "rfc3161" in kinds:
        receipts[receipt_path(head.size, rfc3161_name(URL))] = stamp(note, authority[1])
    if "witness" in kinds:
        receipts[receipt_path(head.size, witness_name(cosigner().key_id))] = cosigned(note)
    for path, data in receipts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return head.size


def record(folder: Path, authority) -> tuple[Made, int]:
    """A trace with a plain seal in the middle, whose head was anchored, and a full one at the end."""
    made, writing = start_trace(folder)
    writing.use([0, 1, 2])
    writing.recorder.rotate()
    made.seal(full=False)
    size = anchor(made, authority, "rfc3161", "witness")
    writing.use([3, 4, 5])
    writing.end()
    made.seal()
    return made, size


def key_of(made: Made) -> str:
    return made.signer.public_key.hex()


def found(done) -> dict[str, str]:
    return {f["check"]: f["verdict"] for f in done.json["findings"]}


def test_who_names_root_and_key_gets_a_green_answer_and_who_names_nobody_does_not(tmp_path, authority, run) -> None:
    made, size = record(tmp_path, authority)
    trusted = ("--tsa-root", authority[0] / "root.pem", "--witness-key", VKEY)
    done = run("verify", made.trace.path, "--key", key_of(made), *trusted, "--json")
    assert (done.code, {found(done)[c] for c in ("heads", "rfc3161", "witness")}) == (0, {"holds"})
    done = run("verify", made.trace.path, "--key", key_of(made), "--json")
    assert (done.code, found(done)["heads"]) == (3, "holds")
    assert (found(done)["rfc3161"], found(done)["witness"]) == ("cannot tell", "cannot tell")
    file = tmp_path / "witness.vkey"
    file.write_text(VKEY + "\n")
    done = run("verify", made.trace.path, "--key", key_of(made), *trusted[:2], "--witness-key", file)
    assert (done.code, f"of {size} entries at 2023-11-14" in done.out) == (0, True)


def test_a_rewritten_log_ends_with_exit_code_1_by_each_kind_alone(tmp_path, authority, run) -> None:
    made, _size = record(tmp_path, authority)
    events = [decode_event(entry) for entry in all_entries(made.trace)]
    use = next(event for event in events if event["kind"] == "use")
    use["ordinals"] = use["ordinals"][::-1].copy()
    reseal(made.trace, [encode_event(event) for event in events], Ed25519PrivateKey.from_private_bytes(bytes(32)))
    for kind, option in (("rfc3161", ("--tsa-root", authority[0] / "root.pem")), ("witness", ("--witness-key", VKEY))):
        done = run("verify", made.trace.path, "--key", key_of(made), *option, "--json")
        assert (done.code, found(done)[kind], found(done)["heads"]) == (1, "refuted", "refuted")


def test_a_receipt_that_was_not_written_whole_goes_with_the_next_seal(tmp_path, authority, run) -> None:
    made, size = record(tmp_path, authority)
    left = made.trace.path / f"receipts/{size}/{rfc3161_name(URL)}.tmp"
    left.write_bytes(b"half")
    done = run("verify", made.trace.path, "--key", key_of(made))
    assert f"{left.name} was not written whole; the next seal removes it" in done.out
    remove_unfinished(made.trace)
    assert not left.exists()


def test_show_lists_the_receipts_and_heads_that_wait_for_one(tmp_path, authority, run) -> None:
    made, size = record(tmp_path, authority)
    newest = anchor(made, authority)
    said = run("show", made.trace.path, "--json").json["receipts"]
    assert [(row["size"], row["by"]) for row in said] == [(size, "rfc3161"), (size, "witness"), (newest, "nobody yet")]
    done = run("show", made.trace.path)
    assert "receipts of outside witnesses (fgtrac verify looks at them)" in done.out
    assert rfc3161_name(URL) in done.out


def test_a_check_of_policies_says_that_it_did_not_look_at_anchors(tmp_path, authority, run) -> None:
    made, _size = record(tmp_path, authority)
    words = "what outside witnesses said of the log's heads was not looked at; fgtrac verify does that"
    assert words in run("check", made.trace.path, "--key", key_of(made), "--json").json["notes"]
    (tmp_path / "plain").mkdir()
    made = make_trace(tmp_path / "plain")
    assert words not in run("check", made.trace.path, "--key", key_of(made), "--json").json["notes"]


def test_an_option_without_what_it_belongs_to_is_a_usage_error(tmp_path, authority, run) -> None:
    made = make_trace(tmp_path)
    (tmp_path / "bundle").write_text("{}")
    (tmp_path / "no-root.pem").write_text("no certificate")
    path = made.trace.path
    for arguments, words in [
        ((path, "--evm-account", "0x" + "00" * 20), "--evm-account belongs to --evm RPC_URL"),
        ((path, "--confirmations", 2), "--confirmations belongs to --evm RPC_URL"),
        ((path, "--evm", "http://127.0.0.1:1", "--confirmations", 0), "0 confirmations"),
        ((path, "--evm", "no url"), "no URL of an outside service"),
        ((path, "--quorum", 1), "--quorum says how many of the witnesses named with --witness-key"),
        ((path, "--witness-key", "nobody"), "no cosigner's key"),
        ((path, "--tsa-root", tmp_path / "nowhere.pem"), "nowhere.pem"),
        ((path, "--tsa-root", tmp_path / "no-root.pem"), "holds no PEM certificates"),
        ((tmp_path / "bundle", "--tsa-root", tmp_path / "no-root.pem"), "--tsa-root belongs to a trace"),
        ((tmp_path / "bundle", "--evm", "http://127.0.0.1:1"), "--evm belongs to a trace"),
    ]:
        done = run("verify", *arguments)
        assert (done.code, words in done.err) == (2, True), done.err


def test_a_node_that_does_not_answer_is_cannot_tell_and_its_url_stays_secret(tmp_path, authority, run) -> None:
    made = make_trace(tmp_path)
    node = "http://user:secret@127.0.0.1:1/key-of-the-api"
    done = run("verify", made.trace.path, "--key", key_of(made), "--evm", node, "--json")
    assert (done.code, found(done)["evm"]) == (3, "cannot tell")
    assert "secret" not in done.out + done.err
    assert "key-of-the-api" not in done.out + done.err
