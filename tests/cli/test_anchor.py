"""`fgtrac anchor`: what it says of each service, what its exit codes mean, and what it never shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fgtrac.anchor.transactions import MAX_FEE_GWEI
from loopback_witness import LoopbackWitness, closed_witness
from traces import Made, Writing, make_trace

CLOSED = "http://user:pa55@127.0.0.1:9/secret-path?k=s3cret"
SECRETS = ("user:", "pa55", "secret-path", "s3cret")


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Any) -> Made:
    """A sealed trace of 18 entries, whose signing key is the user's."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    path = tmp_path / "key.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    monkeypatch.setenv("FGTRAC_KEY", str(path))
    return make_trace(tmp_path)


@pytest.fixture
def witness() -> Iterator[LoopbackWitness]:
    made = LoopbackWitness()
    with made.running():
        yield made


@pytest.fixture
def down() -> LoopbackWitness:
    return closed_witness()


def named(*witnesses: LoopbackWitness) -> list[str]:
    return [word for w in witnesses for word in ("--witness", w.url, "--witness-key", w.vkey)]


def silent(done: Any) -> bool:
    return not any(secret in done.out + done.err for secret in SECRETS)


def test_a_line_says_how_many_entries_who_when_and_where_the_receipt_lies(
    run: Any, made: Made, witness: LoopbackWitness
) -> None:
    done = run("anchor", made.trace.path, *named(witness))
    assert done.code == 0
    receipt = next(p.name for p in (made.trace.path / "receipts" / "18").glob("witness-*"))
    who = f"witness, the witness {witness.name} at http://127.0.0.1:{witness.port}"
    assert done.out == f"18 entries anchored: {who}, 2023-11-14 22:13:21 UTC, receipts/18/{receipt}\n"
    assert done.err == ""
    assert silent(done)


def test_json_says_the_same(run: Any, made: Made, witness: LoopbackWitness, down: LoopbackWitness) -> None:
    done = run("anchor", made.trace.path, *named(witness, down), "--json")
    assert done.code == 4
    good, bad = done.json["anchored"]
    assert done.json["unsealed_entries"] == 0
    assert (good["size"], good["kind"], good["time"]) == (18, "witness", 1_700_000_001)
    assert (made.trace.path / good["receipt"]).is_file()
    assert (bad["size"], bad["kind"], bad["refused"]) == (18, "witness", False)
    assert "Connection refused" in bad["error"]
    assert silent(done)


def test_no_usable_answer_is_code_4_with_the_remedy_and_pending_completes_it(
    run: Any, made: Made, witness: LoopbackWitness, down: LoopbackWitness
) -> None:
    done = run("anchor", made.trace.path, *named(witness, down))
    assert done.code == 4
    assert done.err.count("\n") == 1
    assert f"fgtrac anchor {made.trace.path} --pending completes it" in done.err
    assert silent(done)
    assert run("anchor", made.trace.path, "--pending").code == 4
    with down.running():
        completed = run("anchor", made.trace.path, "--pending")
    assert completed.code == 0
    assert completed.out.startswith(f"18 entries anchored: witness, the witness {down.name}")
    nothing = run("anchor", made.trace.path, "--pending")
    assert (nothing.code, nothing.out, nothing.err) == (0, "nothing is pending\n", "")
    assert run("anchor", made.trace.path, "--pending", "--json").json == {"anchored": [], "unsealed_entries": 0}


def test_pending_takes_another_timeout(run: Any, made: Made, witness: LoopbackWitness) -> None:
    witness.mode = "hangs"
    done = run("anchor", made.trace.path, *named(witness), "--timeout", 0.2)
    assert "did not answer within 0.2 s" in done.err
    assert "within 0.3 s" in run("anchor", made.trace.path, "--pending", "--timeout", 0.3).err
    assert "within 0.3 s" in run("anchor", made.trace.path, "--pending").err, "as before"


def test_a_log_that_the_witness_does_not_know_yet_is_code_4_and_its_owner_is_told_of(
    run: Any, made: Made, witness: LoopbackWitness
) -> None:
    witness.mode = "new"
    done = run("anchor", made.trace.path, *named(witness))
    assert (done.code, done.err.count(witness.name), done.err.count("\n")) == (4, 1, 1)
    assert "answers 404" in done.err
    assert done.err.endswith(f"; fgtrac anchor {made.trace.path} --pending completes it\n")
    witness.mode = "well"
    assert run("anchor", made.trace.path, "--pending").code == 0


def test_what_can_never_be_completed_is_forgotten_and_said(
    run: Any, made: Made, witness: LoopbackWitness, down: LoopbackWitness
) -> None:
    witness.mode = "busy"
    assert run("anchor", made.trace.path, *named(witness, down)).code == 4
    for more in (["--pending"], named(witness), ["--quorum", 1]):
        assert "each stand alone" in run("anchor", made.trace.path, "--forget", *more).err
    done = run("anchor", made.trace.path, "--forget")
    assert (done.code, done.err) == (0, "")
    said = [f"the witness {w.name} at http://127.0.0.1:{w.port}" for w in (witness, down)]
    assert done.out.splitlines() == [f"no longer pending: 18 entries for {who}" for who in said]
    assert silent(done)
    assert run("anchor", made.trace.path, "--forget").out == "nothing is pending\n"
    assert run("anchor", made.trace.path, "--pending").out == "nothing is pending\n"
    run("anchor", made.trace.path, *named(down))
    assert run("anchor", made.trace.path, "--forget", "--json").json == {"forgotten": [{"who": said[1], "size": 18}]}


def test_more_services_than_the_list_holds_are_refused_and_nothing_is_lost(run: Any, made: Made) -> None:
    assert run("anchor", made.trace.path, "--tsa", CLOSED).code == 4
    many = [word for n in range(100) for word in ("--tsa", f"http://127.0.0.1:9/{n}")]
    done = run("anchor", made.trace.path, *many)
    assert done.code == 2
    assert "101 heads would be pending" in done.err
    assert len(run("anchor", made.trace.path, "--forget").out.splitlines()) == 1


def test_a_refusal_is_code_1_and_nothing_completes_it(
    run: Any, made: Made, witness: LoopbackWitness, down: LoopbackWitness
) -> None:
    witness.mode = "refuses"
    done = run("anchor", made.trace.path, *named(witness, down))
    assert done.code == 1
    refused, failed = done.err.splitlines()
    assert "answers 403" in refused
    assert "--pending" not in refused
    assert "--pending" in failed


def test_a_quorum_that_is_reached_is_code_0_and_says_who_failed(
    run: Any, made: Made, witness: LoopbackWitness, down: LoopbackWitness
) -> None:
    done = run("anchor", made.trace.path, *named(down, witness), "--quorum", 1)
    assert done.code == 0
    assert done.err.endswith("; the others were enough\n")
    assert run("anchor", made.trace.path, *named(down, witness), "--quorum", 2).code == 4


def test_entries_that_are_not_sealed_are_said(run: Any, made: Made, witness: LoopbackWitness) -> None:
    writing = Writing(made, bytes((2,)) * 16)
    writing.use([1, 2])
    writing.use([3])
    writing.recorder.close()
    done = run("anchor", made.trace.path, *named(witness))
    assert done.code == 0
    assert done.out.startswith("18 entries anchored")
    assert "2 entries of the journal are in no head yet" in done.err
    assert f"fgtrac seal {made.trace.path}" in done.err


USAGE = {
    "nobody": ([], "no service to anchor with"),
    "no account": (["--evm", CLOSED], "--account KEYFILE"),
    "an account without a chain": (["--account", "key"], "--evm RPC_URL"),
    "a contract without a chain": (["--contract", "0x00"], "--evm RPC_URL"),
    "a chain's number without a chain": (["--chain-id", "1"], "--evm RPC_URL"),
    "a limit without a chain": (["--max-fee", "5"], "--evm RPC_URL"),
    "no limit": (["--evm", CLOSED, "--account", "a", "--max-fee", "0"], "name an amount above 0"),
    "no such account file": (["--evm", CLOSED, "--account", "nowhere.hex"], "(--account)"),
    "a witness without its key": (["--witness", CLOSED], "1 --witness and 0 --witness-key"),
    "no witness's key": (["--witness", CLOSED, "--witness-key", "x"], "vkey"),
    "no URL": (["--tsa", "ftp://user:pa55@h/secret-path"], "needs http:// or https://"),
    "a quorum of nobody": (["--tsa", CLOSED, "--quorum", "1"], "a quorum of 1 of 0 different witnesses"),
    "pending and more": (["--pending", "--tsa", CLOSED], "leave out --evm"),
    "no time": (["--tsa", CLOSED, "--timeout", "0"], "--timeout 0"),
    "an endless time": (["--tsa", CLOSED, "--timeout", "nan"], "--timeout nan"),
}


@pytest.mark.parametrize("case", USAGE)
def test_what_is_asked_wrongly_is_code_2_in_one_line(run: Any, made: Made, case: str) -> None:
    arguments, words = USAGE[case]
    done = run("anchor", made.trace.path, *arguments)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert done.err.count("\n") == 1
    assert silent(done)


def test_the_help_names_the_limit_of_fees(run: Any) -> None:
    assert f"costs more ({MAX_FEE_GWEI:g})" in " ".join(run("anchor", "--help").out.replace("│", "").split())


def test_no_trace_and_no_head_are_code_2(run: Any, made: Made, witness: LoopbackWitness, tmp_path: Path) -> None:
    assert run("anchor", tmp_path / "none.trace", *named(witness)).code == 2
    (tmp_path / "other").mkdir()
    unsealed = make_trace(tmp_path / "other", sealed=False)
    done = run("anchor", unsealed.trace.path, *named(witness))
    assert done.code == 2
    assert "is sealed yet; seal it first: fgtrac seal" in done.err


def test_a_trace_that_was_rewritten_is_code_1_and_nobody_is_asked(
    run: Any, made: Made, witness: LoopbackWitness
) -> None:
    tile = made.trace.path / "tile" / "0" / "000.p" / "18"
    data = tile.read_bytes()
    tile.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    done = run("anchor", made.trace.path, *named(witness))
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "restore the trace that was sealed" in done.err
    assert witness.requests == 0
