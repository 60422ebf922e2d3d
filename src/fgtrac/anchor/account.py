"""The account that pays for and signs transactions: its private key from a file that is its owner's alone.

The file holds the key in hex, or a keystore (Web3 Secret Storage, version 3, as wallets and geth write it). No error
and no representation shows the key or the password, also not by way of a library's exception.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fgtrac.anchor.json_rpc import needs_evm
from fgtrac.errors import FormatError
from fgtrac.store.private_files import read_private
from fgtrac.verify.strict_json import measure_json

PASSWORD = "FGTRAC_ACCOUNT_PASSWORD"
_KEY = re.compile(rb"(?:0x)?([0-9a-fA-F]{64})")


class Account:
    """An account of which the private key is known. `address` has 20 bytes."""

    __slots__ = ("_signer", "address")

    def __init__(self, key: bytes) -> None:
        """ValueError for 32 bytes that are no key of the curve, or without the extra `evm`."""
        accounts = needs_evm("eth_account")
        try:
            self._signer = accounts.Account.from_key(key)
        except Exception:  # noqa: BLE001  whatever the library says of a key is not shown
            raise ValueError("these bytes are no private key of an account: zero, or too large") from None
        self.address = bytes.fromhex(self._signer.address[2:])

    def sign(self, transaction: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """The signed transaction's bytes, and its hash. ValueError for fields that make no transaction."""
        try:
            signed = self._signer.sign_transaction(dict(transaction))
        except Exception as error:  # noqa: BLE001  whatever the library says beside its kind is not shown
            raise ValueError(f"the transaction cannot be signed ({type(error).__name__})") from None
        return bytes(signed.raw_transaction), bytes(signed.hash)


def load_account(path: Path, environment: Mapping[str, str] | None = None, *, may_ask: bool = True) -> Account:
    """The account of a key file. A keystore's password is FGTRAC_ACCOUNT_PASSWORD, or asked for on a terminal if that
    is allowed.

    FileNotFoundError; ValueError for a file that others may use, a password that is missing or wrong, or without the
    extra `evm`; FormatError for a file that holds no key.
    """
    try:
        data = read_private(path).strip()
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path} with the key of an account (--account)") from None
    if found := _KEY.fullmatch(data):
        key = bytes.fromhex(found[1].decode())
    elif data.startswith(b"{"):
        key = _from_keystore(data, path, _password(path, os.environ if environment is None else environment, may_ask))
    else:
        raise FormatError(f"{path} holds no account key: 64 hex digits, or a keystore in JSON")
    try:
        return Account(key)
    except ValueError as error:
        raise type(error)(f"{path}: {error}") from None


def _password(path: Path, environment: Mapping[str, str], may_ask: bool) -> str:
    if PASSWORD in environment:
        return environment[PASSWORD]
    if not may_ask or sys.stdin is None or not sys.stdin.isatty():
        raise ValueError(f"{path} is a keystore, and its password is not known: set {PASSWORD}")
    return getpass.getpass(f"password of {path}: ")


def _from_keystore(data: bytes, path: Path, password: str) -> bytes:
    accounts = needs_evm("eth_account")
    try:
        keystore = json.loads(data) if measure_json(data)[0] < 10 else None
    except ValueError:
        raise FormatError(f"{path} begins like a keystore, and is no JSON") from None
    if not isinstance(keystore, dict) or keystore.get("version") != 3 or not isinstance(keystore.get("crypto"), dict):
        raise FormatError(f"{path} is no keystore of version 3")
    try:
        key = bytes(accounts.Account.decrypt(keystore, password))
    except ValueError as error:
        if "MAC" in str(error):
            raise ValueError(f"the password does not open {path}; {PASSWORD} holds it, or a terminal asks") from None
        raise FormatError(f"{path} is a keystore that cannot be read") from None
    except Exception:  # noqa: BLE001  fields that are missing or of another kind; the library's words may quote them
        raise FormatError(f"{path} is a keystore that cannot be read") from None
    named = str(keystore.get("address", "")).lower().removeprefix("0x")
    if named and Account(key).address.hex() != named:  # the check value of a keystore leaves out its cipher's start
        raise FormatError(f"{path} is a keystore that does not hold the key of the account {named:.40} that it names")
    return key
