"""No private key, no password and nothing secret of a URL is printed, logged, part of an error's text or in a trace."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import logging
import socket
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from eth_account import Account

import fgtrac
from fgtrac.anchor.local_chain import LocalChain
from fgtrac.api.anchoring import anchor_trace, complete_pending
from fgtrac.cli.main import main
from fgtrac.commit.keys import load_key
from fgtrac.store import durable
from fgtrac.tlog.cosignature import Cosigner, format_cosigner

SEED = hashlib.sha256(b"the signing key").digest()
ACCOUNT = hashlib.sha256(b"the account of the hex file").digest()
KEPT = hashlib.sha256(b"the account of the keystore").digest()
PASSWORD = "correct horse 7f3a battery"
USER, WORD, API, TOKEN = "u5er-name-9c1e", "p4ss-word-77aa", "apikey-5d2c8e1f", "token-0aa9c3b2"
SECRETS = {
    "the signing key": SEED, "the account's key": ACCOUNT, "the keystore's key": KEPT,
    "the keystore's password": PASSWORD.encode(), "a URL's user": USER.encode(), "a URL's password": WORD.encode(),
    "a URL's path": API.encode(), "a URL's query": TOKEN.encode(),
}  # fmt: skip
WITNESS = format_cosigner(Cosigner("witness.example", bytes(range(32))))


def forms(secret: bytes) -> set[bytes]:
    """How a secret may be written: raw, hex, decimal, as Python shows it, and in base64 wherever it begins."""
    found = {secret, secret.hex().encode(), secret.hex().upper().encode(), repr(secret)[2:-1].encode()}
    found |= {str(int.from_bytes(secret, "big")).encode(), str(list(secret))[1:-1].encode()}
    for before in range(3):
        for encoded in (base64.b64encode, base64.urlsafe_b64encode):
            text = encoded(bytes(before) + secret)
            found.add(text[(0, 2, 3)[before] : len(text) - (0, 3, 2)[(before + len(secret)) % 3]])
    return found


FORMS = {form: name for name, secret in SECRETS.items() for form in forms(secret)}


def told(data: bytes) -> set[str]:
    """Which secrets stand in some bytes; lines that were folded are looked at as one too."""
    unfolded = data.replace(b"\n", b"")
    return {name for form, name in FORMS.items() if form in data or form in unfolded}


class Heard:
    """Everything that was said while it listened: by commands, errors, warnings and logs."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.folder, self.trace = folder, folder / "run.trace"
        self.key, self.account, self.keystore = (folder / "keys" / n for n in ("key.pem", "account", "keystore"))
        self.said: list[str] = []
        self._capsys, self._patch = capsys, patch
        key = Ed25519PrivateKey.from_private_bytes(SEED)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        kept = json.dumps(Account.encrypt(KEPT, PASSWORD, kdf="pbkdf2", iterations=1000))
        for path, data in ((self.key, pem), (self.account, ACCOUNT.hex().encode()), (self.keystore, kept.encode())):
            durable.write_file(path, data, mode=0o600)

    def run(self, *arguments: object, code: int | tuple[int, ...]) -> str:
        """`fgtrac ARGUMENTS...`, which ends with `code`, or one of them: what it printed."""
        self._patch.setattr("sys.argv", ["fgtrac", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        self.hear(stopped.value)
        written = self._capsys.readouterr()
        self.said += [written.out, written.err]
        assert stopped.value.code in (code if isinstance(code, tuple) else (code,)), (arguments, written)
        return written.out + written.err

    def fails(self, call: Callable[[], object]) -> str:
        """A call from Python that raises: what a traceback shows of it."""
        with pytest.raises(Exception) as failed:  # noqa: PT011  whatever it is, it must not say too much
            call()
        return self.hear(failed.value)

    def hear(self, error: BaseException) -> str:
        """What a traceback shows of an error, and what it is in a log."""
        shown = "".join(traceback.format_exception(error))
        self.said += [shown, repr(error)]
        return shown

    def check(self) -> None:
        """Nothing secret was said, nor lies in the trace, or in the vault beside it."""
        written = self._capsys.readouterr()
        for text in (*self.said, written.out, written.err):
            assert not told(text.encode()), text
        files = [path for path in (*self.trace.rglob("*"), self.folder / "run.vault") if path.is_file()]
        assert len(files) > 5
        for path in files:
            assert not told(path.read_bytes() + str(path).encode()), path


@pytest.fixture
def heard(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Heard]:
    """A user with keys, and a finished trace; whatever is logged is heard at every level."""
    listening = Heard(tmp_path, capsys, monkeypatch)
    monkeypatch.setenv("FGTRAC_KEY", str(listening.key))
    monkeypatch.setenv("FGTRAC_ACCOUNT_PASSWORD", PASSWORD)
    monkeypatch.setenv("COLUMNS", "500")
    with caplog.at_level(logging.DEBUG):
        record(listening.trace)
        yield listening
    listening.said += [f"{r.getMessage()} {r.exc_text}" for r in caplog.records]
    listening.check()


def record(path: Path, **options: Any) -> None:
    with fgtrac.start_run(path, flush_interval_s=0, **options) as run:
        run.log(1, loss=1.0)


def url(port: int) -> str:
    return f"http://{USER}:{WORD}@127.0.0.1:{port}/v2/{API}?token={TOKEN}"


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, and that nobody else gets meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextmanager
def echo(status: int, content_type: str, wrap: Callable[[str], str] = str) -> Iterator[int]:
    """A service that throws back whatever it was sent: path, headers and body."""

    class Echo(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["content-length"])).decode(errors="replace")
            plain = base64.b64decode(self.headers.get("authorization", "").removeprefix("Basic ")).decode()
            body = wrap(f"denied: {self.path} {plain} {self.headers.as_string()} {sent}").encode()
            self.send_response(status, f"denied {self.path} {plain}")
            self.send_header("content-type", content_type)
            self.send_header("location", f"http://127.0.0.1:9{self.path}")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def each_service(heard: Heard, address: str) -> list[list[object]]:
    return [
        ["--evm", address, "--account", heard.account],
        ["--evm", address, "--account", heard.keystore],
        ["--tsa", address],
        ["--witness", address, "--witness-key", WITNESS],
    ]


# -- what is looked for is found where it is --------------------------------------------------------------------------


def test_the_key_files_and_a_request_do_hold_what_is_looked_for(heard: Heard) -> None:
    assert told(heard.key.read_bytes()) == {"the signing key"}
    assert told(heard.account.read_bytes()) == {"the account's key"}
    assert told(url(1).encode()) == {"a URL's user", "a URL's password", "a URL's path", "a URL's query"}
    assert told(base64.b64encode(f"{USER}:{WORD}".encode())) == {"a URL's user", "a URL's password"}
    assert told(f"{list(KEPT)} {PASSWORD!r}".encode()) == {"the keystore's key", "the keystore's password"}


# -- the verbs --------------------------------------------------------------------------------------------------------


def test_recording_sealing_reading_and_the_verbs_of_a_key(heard: Heard) -> None:
    for arguments in (
        ["seal", heard.trace], ["show", heard.trace], ["show", heard.trace, "--json"], ["show", heard.trace, "--vkey"],
        ["verify", heard.trace], ["verify", heard.trace, "--json"], ["verify", heard.trace, "--key", heard.key],
        ["key", "show"], ["key", "show", "--json"], ["key", "show", "--vkey", heard.trace],
        ["key", "rotate", heard.trace, "--revoke"], ["key", "show"],
    ):  # fmt: skip
        heard.run(*arguments, code=0)
    heard.run("key", "new", code=2)
    new = load_key(heard.key).private_bytes_raw()
    assert not any(form in text.encode() for form in forms(new) for text in heard.said)
    assert not any(form in p.read_bytes() for form in forms(new) for p in heard.trace.rglob("*") if p.is_file())


def test_anchoring_where_nobody_answers(heard: Heard) -> None:
    with closed_port() as port:
        for arguments in each_service(heard, url(port)):
            for more in ([], ["--json"]):
                assert f"http://127.0.0.1:{port}" in heard.run("anchor", heard.trace, *arguments, *more, code=4)
        heard.run("anchor", heard.trace, "--pending", code=4)
        heard.run("verify", heard.trace, "--evm", url(port), code=3)
        for done in complete_pending(heard.trace):
            heard.hear(done.error)


def test_training_where_nobody_answers(heard: Heard) -> None:
    with closed_port() as port:
        services = [
            fgtrac.TimeStampAuthority(url(port)),
            fgtrac.Witness(url(port), WITNESS),
            fgtrac.EvmContract(url(port), heard.account),
        ]
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            record(heard.folder / "other.trace", anchors=services)
        assert warned
        heard.said += [str(w.message) for w in warned]
        heard.said += [repr(service) for service in services] + [service.name for service in services]
        heard.run("show", heard.folder / "other.trace", code=0)
    for path in (heard.folder / "other.trace").rglob("*"):
        assert not path.is_file() or not told(path.read_bytes()), path


def test_a_chain_in_this_process(heard: Heard) -> None:
    chain = LocalChain(heard.folder / "keys")
    paid = chain.account.read_bytes()
    for path in (heard.account, heard.keystore):  # accounts without money: the chain refuses
        (done,) = anchor_trace(heard.trace, [fgtrac.EvmContract(chain.provider, path)])
        assert done.error is not None
        heard.hear(done.error)
    (done,) = anchor_trace(heard.trace, [fgtrac.EvmContract(chain.provider, chain.account)])
    assert done.error is None
    secret = bytes.fromhex(paid.decode().strip().removeprefix("0x"))
    files = [path.read_bytes() for path in heard.trace.rglob("*") if path.is_file()]
    assert any(b"fgtrac-evm-receipt" in data for data in files)
    assert not any(form in data for form in (secret, secret.hex().encode()) for data in files)
    heard.run("verify", heard.trace, code=3)


# -- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", ["application/json", "application/timestamp-reply", "text/x.tlog.size"])
def test_services_that_throw_back_what_they_were_sent(heard: Heard, content_type: str) -> None:
    def as_error(words: str) -> str:
        return json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": words, "data": words}})

    for status in (200, 302, 401, 403, 409, 422, 500):
        with echo(status, content_type, as_error if content_type == "application/json" else str) as port:
            for arguments in each_service(heard, url(port)):
                said = heard.run("anchor", heard.trace, *arguments, "--timeout", 5, code=(1, 4))
                assert f"http://127.0.0.1:{port}" in said


def test_key_files_that_are_damaged_or_open_to_others(heard: Heard) -> None:
    pem, rest = heard.key.read_bytes(), {path: path.read_bytes() for path in (heard.account, heard.keystore)}
    for damaged in (pem[:-30], pem.replace(b"PRIVATE", b"PUBLIC"), pem.replace(b"MC4C", b"MC5C"), SEED.hex().encode()):
        heard.key.write_bytes(damaged)
        heard.run("seal", heard.trace, code=2)
        heard.fails(lambda: load_key(heard.key))
    heard.key.write_bytes(pem)
    with closed_port() as port:
        for path, whole in rest.items():
            for damaged in (whole[:-30], whole.replace(b"e", b"g"), b"x" + whole, whole + whole, b"{" + whole, pem):
                path.write_bytes(damaged)
                heard.run("anchor", heard.trace, "--evm", url(port), "--account", path, code=2)
                heard.fails(lambda path=path: load_key(path) and fgtrac.EvmContract(url(port), path).prepare())
            path.write_bytes(whole)
        for path in (heard.key, *rest):
            path.chmod(0o644)
            account = heard.keystore if path == heard.key else path
            said = heard.run("anchor", heard.trace, "--evm", url(port), "--account", account, code=2)
            assert f"chmod 600 {path}" in said
            heard.fails(lambda path=path: load_key(path))
            path.chmod(0o600)


def test_wrong_passwords_and_secrets_in_the_wrong_place(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    with closed_port() as port:
        anchor = ["anchor", heard.trace, "--evm", url(port), "--account"]
        for wrong in (PASSWORD + "!", PASSWORD[:-1], ""):
            monkeypatch.setenv("FGTRAC_ACCOUNT_PASSWORD", wrong)
            heard.run(*anchor, heard.keystore, code=2)
            heard.fails(lambda: fgtrac.EvmContract(url(port), heard.keystore).prepare())
        monkeypatch.delenv("FGTRAC_ACCOUNT_PASSWORD")
        heard.run(*anchor, heard.keystore, code=2)
        for key in (ACCOUNT.hex(), "0x" + ACCOUNT.hex()):
            heard.run(*anchor, key, code=2)
            heard.run("anchor", heard.trace, "--evm", "--account", heard.account, url(port), key, code=2)
    monkeypatch.setenv("FGTRAC_KEY", heard.key.read_text())
    heard.run("seal", heard.trace, code=2)
    monkeypatch.setenv("FGTRAC_KEY", SEED.hex())
    heard.run("seal", heard.trace, code=2)


def test_urls_that_are_none(heard: Heard) -> None:
    for wrong in (
        f"ftp://{USER}:{WORD}@host/{API}", f"http://{USER}:{WORD}/{API}@host/?token={TOKEN}",
        f"http://:{WORD}/{API}", f"http://{USER}:{WORD}@host:99999/{API}", f"http://{USER}:{WORD}@[host/{API}",
        f"{USER}:{WORD}@host/{API}", f"http://{USER} {WORD}@host/{API}", f"https://{USER}:{WORD}@/{API}?{TOKEN}",
    ):  # fmt: skip
        for arguments in each_service(heard, wrong):
            heard.run("anchor", heard.trace, *arguments, code=2)
        heard.run("verify", heard.trace, "--evm", wrong, code=2)
        heard.fails(lambda wrong=wrong: fgtrac.TimeStampAuthority(wrong))
        heard.fails(lambda wrong=wrong: fgtrac.Witness(wrong, WITNESS))
        heard.fails(lambda wrong=wrong: fgtrac.EvmContract(wrong, heard.account))


def keys_in_place_of_names(heard: Heard) -> list[str]:
    """A key as it may be given in place of its file's name: read from the file, quoted, as a wallet shows it."""
    pem, hexadecimal = heard.key.read_text(), ACCOUNT.hex()
    body, grouped = pem.splitlines()[1], " ".join(hexadecimal[n : n + 8] for n in range(0, 64, 8))
    return [
        pem, body, f"{body}\n", f"{hexadecimal}\n", f" {hexadecimal}", f"0X{hexadecimal}", f"{hexadecimal},",
        f"'0x{hexadecimal}'", f'"{hexadecimal}"', grouped, base64.b64encode(ACCOUNT).decode(),
        f"https://{USER}:{WORD}@rpc.example/{API}", f"{USER}:{WORD}@rpc.example/{API}",
    ]  # fmt: skip


def test_a_key_or_a_url_in_place_of_a_files_name_from_python(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    there = sorted(heard.folder.rglob("*"))
    monkeypatch.chdir(heard.folder)
    with closed_port() as port:
        services = [fgtrac.TimeStampAuthority(url(port), timeout_s=1)]
        for secret in keys_in_place_of_names(heard):
            for call in (
                lambda secret: fgtrac.EvmContract(url(port), secret),
                lambda secret: fgtrac.EvmContract(url(port), heard.account, contract=secret),
                lambda secret: fgtrac.Witness(url(port), secret),
                lambda secret: fgtrac.start_run("new", key=secret),
                lambda secret: fgtrac.start_run("run", resume=True, key=secret),
                lambda secret: fgtrac.reopen("run", key=secret),
                lambda secret: fgtrac.anchor_trace("run.trace", services, key=secret),
                lambda secret: complete_pending("run.trace", key=secret),
                lambda secret: fgtrac.open(secret),
            ):
                heard.fails(lambda call=call, secret=secret: call(secret))
    assert sorted(heard.folder.rglob("*")) == there, "nothing was made that is named by a key"


def test_a_key_or_a_url_in_place_of_a_files_name_on_the_command_line(heard: Heard) -> None:
    with closed_port() as port:
        chain = ["anchor", heard.trace, "--evm", url(port), "--account"]
        for secret in keys_in_place_of_names(heard):
            heard.run(*chain, secret, code=2)
            heard.run(*chain, heard.account, "--contract", secret, code=2)
            heard.run("anchor", heard.trace, "--witness", url(port), "--witness-key", secret, code=2)
            heard.run("anchor", secret, "--tsa", url(port), code=2)
            heard.run("verify", heard.trace, "--evm", url(port), "--evm-account", secret, code=2)
            heard.run("verify", secret, code=2)
            heard.run("verify", heard.trace, "--key", secret, code=2)
            heard.run("verify", heard.trace, "--witness-key", secret, code=2)


def test_a_key_file_named_as_a_witness_key(heard: Heard) -> None:
    with closed_port() as port:
        for path in (heard.key, heard.account, heard.keystore):
            heard.run("anchor", heard.trace, "--witness", url(port), "--witness-key", path, code=2)
            heard.run("verify", heard.trace, "--witness-key", path, code=2)
            heard.fails(lambda path=path: fgtrac.Witness(url(port), path))


def test_an_authority_that_throws_back_the_url_as_its_content_type(heard: Heard) -> None:
    for echoed in (f"/v2/{API}", f"{API}/x", f"x/{TOKEN}", f"http://{USER}:{WORD}@host/"):
        with echo(200, echoed) as port:
            heard.run("anchor", heard.trace, "--tsa", url(port), "--timeout", 5, code=4)


def test_what_is_forgotten_is_said_without_what_is_secret(heard: Heard) -> None:
    with closed_port() as port:
        for arguments in each_service(heard, url(port)):
            heard.run("anchor", heard.trace, *arguments, code=4)
        assert f"http://127.0.0.1:{port}" in heard.run("anchor", heard.trace, "--forget", code=0)
