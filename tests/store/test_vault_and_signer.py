"""The vault and the signing key: private, bound to one trace, and never two heads of one size."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fgtrac.commit.keys import default_key_path, load_key
from fgtrac.commit.signer import Signer
from fgtrac.errors import FormatError, TamperError
from fgtrac.events.codec import encode
from fgtrac.store import durable
from fgtrac.store.vault import Vault
from fgtrac.tlog.note import TreeHead, verify_note

TRACE_ID = b"t" * 16


def test_a_vault_is_for_its_owner_only_and_keeps_what_it_was_told(tmp_path: Path) -> None:
    vault = Vault.create(tmp_path / "a.vault", TRACE_ID)
    assert stat.S_IMODE((tmp_path / "a.vault").stat().st_mode) == 0o600
    secret = vault.secret("run")
    vault.put_names([(b"i" * 32, "digits", encode(3), "ada")])
    vault.close()
    again = Vault.open(tmp_path / "a.vault", TRACE_ID)
    assert again.secret("run") == secret
    assert again.find_secret("subject:x") is None
    assert again.find_by_id(b"i" * 32).subject == "ada"
    assert [n.id for n in again.find_by_key(encode(3))] == [b"i" * 32]
    assert again.find_by_key(encode(3), "other") == []
    again.close()


def test_a_vault_of_another_trace_is_refused(tmp_path: Path) -> None:
    Vault.create(tmp_path / "a.vault", TRACE_ID).close()
    with pytest.raises(TamperError, match="belongs to trace"):
        Vault.open(tmp_path / "a.vault", b"u" * 16)


def test_what_is_no_vault_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.vault").write_bytes(b"no database" * 50)
    with pytest.raises(FormatError, match="no vault"):
        Vault.open(tmp_path / "a.vault", TRACE_ID)
    with pytest.raises(FileNotFoundError, match="no vault"):
        Vault.open(tmp_path / "b.vault", TRACE_ID)


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = default_key_path({"XDG_CONFIG_HOME": str(tmp_path)})
    first, second = Signer.open(TRACE_ID, path), Signer.open(TRACE_ID, path)
    assert first.public_key == second.public_key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert default_key_path({"FGTRAC_KEY": "/elsewhere"}) == Path("/elsewhere")
    with pytest.raises(ValueError, match="looks like a key or a URL, and not like the name of a file"):
        default_key_path({"FGTRAC_KEY": path.read_text()})


def test_a_key_that_is_not_ed25519_is_refused(tmp_path: Path) -> None:
    other = generate_private_key(65537, 2048)
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    durable.write_file(tmp_path / "k.pem", pem, mode=0o600)
    with pytest.raises(FormatError, match="Ed25519"):
        load_key(tmp_path / "k.pem")
    (tmp_path / "k.pem").write_text("nothing")
    with pytest.raises(FormatError, match="PKCS8"):
        load_key(tmp_path / "k.pem")


def test_the_signer_never_signs_two_roots_of_one_size_or_a_smaller_one(tmp_path: Path) -> None:
    signer = Signer.open(TRACE_ID, tmp_path / "k.pem")
    head = TreeHead(signer.name, 5, b"r" * 32)
    note = signer.sign(head)
    verify_note(note, [signer.verifier])
    assert signer.sign(head) == note
    with pytest.raises(TamperError, match="has signed size 5"):
        signer.sign(TreeHead(signer.name, 5, b"s" * 32))
    with pytest.raises(TamperError, match="has signed size 5"):
        signer.sign(TreeHead(signer.name, 4, b"s" * 32))
    assert Signer.open(TRACE_ID, tmp_path / "k.pem").last() == (head, note)


def test_only_the_last_two_plans_are_believed(tmp_path: Path) -> None:
    signer = Signer.open(TRACE_ID, tmp_path / "k.pem")
    for plan in (b"one", b"two", b"three"):
        signer.remember_plan(plan)
    assert [signer.is_known_plan(p) for p in (b"one", b"two", b"three", b"four")] == [False, True, True, False]


def test_processes_that_make_the_first_key_at_once_all_get_the_same(tmp_path: Path, monkeypatch) -> None:
    path, create = tmp_path / "k.pem", durable.create_file
    others: list[bytes] = []

    def beaten(*arguments, **named) -> None:
        monkeypatch.undo()
        others.append(Signer.open(TRACE_ID, path).public_key)  # another process makes its key just before
        create(*arguments, **named)

    monkeypatch.setattr(durable, "create_file", beaten)
    assert [Signer.open(TRACE_ID, path).public_key] == others
    assert [p.name for p in tmp_path.iterdir()] == ["k.pem"]


def test_an_existing_trace_is_signed_with_its_own_key_only(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no key at"):
        Signer.of(TRACE_ID, b"p" * 32, tmp_path / "k.pem")
    mine = Signer.open(TRACE_ID, tmp_path / "k.pem")
    assert Signer.of(TRACE_ID, mine.public_key, tmp_path / "k.pem").public_key == mine.public_key
    with pytest.raises(ValueError, match=f"{mine.public_key.hex()}; name the right one"):
        Signer.of(TRACE_ID, b"p" * 32, tmp_path / "k.pem")
