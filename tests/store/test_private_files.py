"""Key files are read where nobody but their owner may touch them, and otherwise refused with the remedy."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from fgtrac.errors import FormatError
from fgtrac.store.private_files import MAX_BYTES, read_private


def key_file(path: Path, mode: int, data: bytes = b"a secret") -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_of_its_owner_alone_is_read(tmp_path: Path, mode: int) -> None:
    assert read_private(key_file(tmp_path / "key", mode)) == b"a secret"


@pytest.mark.parametrize("bit", [0o001, 0o002, 0o004, 0o010, 0o020, 0o040])
def test_any_permission_of_others_is_refused_and_what_the_message_says_to_do_helps(tmp_path: Path, bit: int) -> None:
    path = key_file(tmp_path / "it's my key", 0o600 | bit)
    with pytest.raises(ValueError, match=f"has mode {0o600 | bit:04o}") as refused:
        read_private(path)
    assert "a secret" not in str(refused.value)
    remedy = str(refused.value).rpartition("0600 or less: ")[2]
    subprocess.run(remedy, shell=True, check=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_private(path) == b"a secret"


def test_a_link_is_judged_by_what_it_leads_to(tmp_path: Path) -> None:
    target, link = key_file(tmp_path / "key", 0o644), tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(ValueError, match="has mode 0644"):
        read_private(link)
    target.chmod(0o600)
    assert read_private(link) == b"a secret"


def test_no_file_and_a_file_too_large_for_a_key_are_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="key"):
        read_private(tmp_path / "key")
    assert len(read_private(key_file(tmp_path / "full", 0o600, bytes(MAX_BYTES)))) == MAX_BYTES
    with pytest.raises(FormatError, match=f"more than {MAX_BYTES:,} bytes"):
        read_private(key_file(tmp_path / "large", 0o600, bytes(MAX_BYTES + 1)))


@pytest.mark.parametrize("named", ["ab" * 32, "0x" + "AB" * 32, "ab" * 31 + "a", "-----BEGIN PRIVATE KEY-----abab"])
def test_a_key_in_place_of_a_files_name_is_not_repeated(named: str, tmp_path: Path) -> None:
    for path in (Path(named), tmp_path / named):
        with pytest.raises(ValueError, match="looks like a key or a URL, and not like the name of a file") as refused:
            read_private(path)
        assert "abab" not in str(refused.value).lower()
