"""A malformed bundle, policy, key, head or trace: one clear line, exit code 2; what is well formed and wrong: 1."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from lives import Life

NO_BUNDLE = {
    "nothing": b"",
    "no text": bytes(range(256)),
    "another encoding": '{"format":"fgtrac-bundle/v1"}'.encode("utf-16"),
    "a list": b"[]",
    "a number": b"7",
    "nested too deep": b"[" * 100_000,
    "a name that stands twice": b'{"format":"a","format":"b"}',
    "a fraction": b'{"format":1.5}',
    "a number of a million digits": b'{"format":' + b"9" * 1_000_000 + b"}",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "another version": b'{"format":"fgtrac-bundle/v9","claim":"used","words":"","id":{},"index":{},"seal":{}}',
}
NO_POLICY = {
    "nothing": b"",
    "no text": b"\xff\xfe",
    "no TOML": b"format = \n",
    "another version": b'format = "fgtrac-policies/v9"\n',
    "an unknown field": b'format = "fgtrac-policies/v1"\nmood = "good"\n',
    "nested too deep": b'format = "fgtrac-policies/v1"\na = ' + b"[" * 900 + b"\n",
    "a list that is none": b'format = "fgtrac-policies/v1"\nopt-out = 7\n',
    "a name that stands twice": b'format = "fgtrac-policies/v1"\nformat = "fgtrac-policies/v1"\n',
}
RSA = rsa.generate_private_key(65537, 2048)
NO_KEY = {
    "nothing": b"",
    "a text": b"secret\n",
    "no text": b"\xff\xfe\x00",
    "a digit short": b"0" * 63 + b"\n",
    "a PEM of nothing": b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
    "a PEM of something else": b"-----BEGIN PUBLIC KEY-----\nQUJD\n-----END PUBLIC KEY-----\n",
    "an RSA key": RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "a private RSA key": RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    "a verifier key of another kind": b"fgtrac/x+00000000+Ag" + b"A" * 42,
    "a verifier key that is cut": b"fgtrac/x+00000000+AQAA",
}
NO_HEAD = {
    "nothing": b"",
    "no text": b"\xff" * 200,
    "no signature": b"fgtrac/00\n1\nAAAA\n",
    "a signature without a head": "\n\n— a AAAAAAAA\n".encode(),
    "a size with a zero before it": (
        b"fgtrac/" + b"00" * 16 + b"\n01\n" + b"A" * 43 + b"=\n\n" + "— a ".encode() + b"A" * 92 + b"\n"
    ),
}


def written(folder: Path, data: bytes) -> Path:
    (folder / "malformed").write_bytes(data)
    return folder / "malformed"


def assert_malformed(done: object) -> None:
    assert (done.code, done.out) == (2, ""), done
    assert done.err.startswith("fgtrac: ")
    assert done.err.count("\n") == 1
    assert 20 < len(done.err) < 500, done.err


@pytest.mark.parametrize("case", NO_BUNDLE)
def test_what_is_no_bundle(case: str, run, tmp_path: Path) -> None:
    assert_malformed(run("verify", written(tmp_path, NO_BUNDLE[case])))


@pytest.mark.parametrize("case", NO_POLICY)
def test_what_is_no_policy(case: str, life: Life, run, tmp_path: Path) -> None:
    assert_malformed(run("check", life.path, "--policy", written(tmp_path, NO_POLICY[case])))


@pytest.mark.parametrize("case", NO_KEY)
def test_what_is_no_key(case: str, life: Life, run, tmp_path: Path) -> None:
    for verb in (["verify", life.path], ["history", life.path, life.name(0)], ["check", life.path]):
        assert_malformed(run(*verb, "--key", written(tmp_path, NO_KEY[case])))


@pytest.mark.parametrize("case", NO_HEAD)
@pytest.mark.parametrize("verb", ["verify", "show", "history", "prove", "seal", "score", "check"])
def test_a_trace_whose_head_is_none(case: str, verb: str, life: Life, run, tmp_path: Path) -> None:
    (life.path / "checkpoint").write_bytes(NO_HEAD[case])
    more = {"history": [life.name(0)], "prove": [life.name(0), "-o", tmp_path / "o"]}
    assert_malformed(run(verb, life.path, *more.get(verb, [])))


@pytest.mark.parametrize("case", NO_HEAD)
def test_what_is_no_older_head(case: str, life: Life, run, tmp_path: Path) -> None:
    assert_malformed(run("verify", life.path, "--since", written(tmp_path, NO_HEAD[case])))


def test_what_is_no_vault(life: Life, run, tmp_path: Path) -> None:
    assert_malformed(run("verify", life.path, "--vault", written(tmp_path, b"no database")))


def test_a_head_of_a_log_that_is_no_trace(life: Life, run) -> None:
    (life.path / "checkpoint").write_bytes(
        b"example.org/log\n1\n" + b"A" * 43 + b"=\n\n" + "— example.org/log ".encode() + b"A" * 92 + b"\n"
    )
    assert_malformed(run("verify", life.path))


def bundle(life: Life, run, tmp_path: Path) -> dict:
    assert run("prove", life.path, life.name(0), "-o", tmp_path / "b.json").code == 0
    return json.loads((tmp_path / "b.json").read_bytes())


Lie = Callable[[dict], object]
WRONG: dict[str, Lie] = {
    "another sentence": lambda said: said.update(words=said["words"].replace("2", "3")),
    "a row less": lambda said: said["rows"].pop(),
    "another leaf": lambda said: said["index"]["leaf"].update(index=str(int(said["index"]["leaf"]["index"]) ^ 1)),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_bundle_that_is_well_formed_and_wrong_is_refuted(case: str, life: Life, run, tmp_path: Path) -> None:
    said = bundle(life, run, tmp_path)
    WRONG[case](said)
    key = life.made.verifier.public_key.hex()
    done = run("verify", written(tmp_path, json.dumps(said).encode()), "--key", key, "--json")
    assert (done.code, done.json["verdict"]) == (1, "refuted")


def test_the_same_bundle_unchanged_holds(life: Life, run, tmp_path: Path) -> None:
    data = json.dumps(bundle(life, run, tmp_path)).encode()
    done = run("verify", written(tmp_path, data), "--key", life.made.verifier.public_key.hex(), "--json")
    assert (done.code, done.json["verdict"]) == (0, "holds"), done.json
