"""An account's key comes from a file that is its owner's alone, and nothing says what it is."""

from __future__ import annotations

import io
import json
import traceback
from pathlib import Path
from typing import Any

import pytest

from fgtrac.anchor.account import PASSWORD, Account, load_account
from fgtrac.errors import FormatError

KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
ADDRESS = "2c7536e3605d9c16a7a3d7b1898e529396a65c23"  # of this key, in the documentation of several wallets
SECRET_WORDS = "correct horse"


@pytest.fixture(scope="module")
def keystore() -> str:
    from eth_account import Account as Accounts

    return json.dumps(Accounts.encrypt("0x" + KEY, SECRET_WORDS, kdf="pbkdf2", iterations=10))


def key_file(folder: Path, text: str) -> Path:
    path = folder / "account"
    path.write_text(text)
    path.chmod(0o600)
    return path


def told(path: Path, kind: type[Exception] | tuple[type[Exception], ...], environment: Any = None) -> str:
    """How loading fails, with all that a traceback would show."""
    with pytest.raises(kind) as failed:
        load_account(path, environment or {})
    assert "\n" not in str(failed.value)
    return "".join(traceback.format_exception(failed.value))


@pytest.mark.parametrize("text", [KEY, "0x" + KEY, KEY.upper(), f"  0x{KEY}\n"])
def test_a_key_in_hex(tmp_path: Path, text: str) -> None:
    account = load_account(key_file(tmp_path, text), {})
    assert account.address.hex() == ADDRESS
    for shown in (repr(account), str(account)):
        assert KEY not in shown


def test_a_keystore_and_its_password(tmp_path: Path, keystore: str) -> None:
    path = key_file(tmp_path, keystore)
    assert load_account(path, {PASSWORD: SECRET_WORDS}).address.hex() == ADDRESS


def test_a_keystore_of_another_version_is_said_to_be_one(tmp_path: Path, keystore: str) -> None:
    whole = json.loads(keystore)
    for other in ({**whole, "version": 1}, {**whole, "crypto": []}, {}):
        shown = told(key_file(tmp_path, json.dumps(other)), FormatError, {PASSWORD: SECRET_WORDS})
        assert "no keystore of version 3" in shown


def test_a_keystore_need_not_name_its_account(tmp_path: Path, keystore: str) -> None:
    whole = json.loads(keystore)
    del whole["address"]
    assert load_account(key_file(tmp_path, json.dumps(whole)), {PASSWORD: SECRET_WORDS}).address.hex() == ADDRESS


def test_a_keystore_whose_password_is_missing_or_wrong(tmp_path: Path, keystore: str, monkeypatch: Any) -> None:
    path = key_file(tmp_path, keystore)
    for nobody in (None, io.StringIO()):
        monkeypatch.setattr("sys.stdin", nobody)
        assert f"set {PASSWORD}" in told(path, ValueError)
    shown = told(path, ValueError, {PASSWORD: "wrong guess"})
    assert "does not open" in shown
    assert "wrong guess" not in shown


def test_a_password_is_asked_for_on_a_terminal(tmp_path: Path, keystore: str, monkeypatch: Any) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    asked: list[str] = []
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", lambda words: asked.append(words) or SECRET_WORDS)
    path = key_file(tmp_path, keystore)
    assert load_account(path, {}).address.hex() == ADDRESS
    assert asked == [f"password of {path}: "]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_file_that_others_may_use_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, KEY)
    path.chmod(mode)
    assert f"chmod 600 {path}" in told(path, ValueError)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "account" in told(tmp_path / "account", FileNotFoundError)


@pytest.mark.parametrize(
    "text",
    ["", KEY[:-1], KEY + "0", KEY + "\n" + KEY, "0x" + KEY[:-1] + "g", "\x80", "[]", "{", "{}", '{"version": 3}'],
)
def test_what_is_no_key_is_said_to_be_none_and_not_shown(tmp_path: Path, text: str) -> None:
    shown = told(key_file(tmp_path, text), FormatError, {PASSWORD: SECRET_WORDS})
    assert KEY[:16] not in shown
    assert SECRET_WORDS not in shown


@pytest.mark.parametrize("text", ["00" * 32, "ff" * 32])
def test_no_point_of_the_curve(tmp_path: Path, text: str) -> None:
    assert text not in told(key_file(tmp_path, text), ValueError)


def test_a_damaged_keystore_shows_neither_key_nor_password(tmp_path: Path, keystore: str) -> None:
    for change in ({"ciphertext": "zz"}, {"kdf": 5}, {"kdfparams": {}}, {"mac": None}, {"iv": ""}):
        whole = json.loads(keystore)
        crypto = {**whole["crypto"], **change}
        if "iv" in change:
            crypto = {**whole["crypto"], "cipherparams": change}
        shown = told(
            key_file(tmp_path, json.dumps({**whole, "crypto": crypto})),
            (FormatError, ValueError),
            {PASSWORD: SECRET_WORDS},
        )
        assert KEY not in shown
        assert SECRET_WORDS not in shown


def test_a_transaction_that_cannot_be_signed_shows_no_key() -> None:
    with pytest.raises(ValueError, match="cannot be signed") as failed:
        Account(bytes.fromhex(KEY)).sign({"nonce": "x"})
    assert KEY not in "".join(traceback.format_exception(failed.value))


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "eth_account", None)
    assert "pip install 'fgtrac[evm]'" in told(key_file(tmp_path, KEY), ValueError)
