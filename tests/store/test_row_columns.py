"""The vault's way back to row numbers: names without a row of a table for each sample, and ids that are computed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fgtrac.errors import FormatError
from fgtrac.events.codec import encode
from fgtrac.events.identity import keyed_id, preimage, public_id
from fgtrac.store import row_columns
from fgtrac.store.vault import Name, Vault

TRACE_ID = b"t" * 16
ROWS = 300  # numbers of one, two and three bytes, over several pages


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_columns, "PAGE_ROWS", 64)


@pytest.fixture(params=["public", "keyed"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    made = Vault.create(tmp_path / "a.vault", TRACE_ID)
    yield made
    made.close()


def put(vault: Vault, scheme: str, dataset: str = "digits", rows: int = ROWS) -> list[bytes]:
    """Remember a block of rows; the id of each row."""
    secret = vault.secret("run")
    named = [preimage(dataset, row) for row in range(rows)]
    ids = [public_id(one) if scheme == "public" else keyed_id(secret, one) for one in named]
    order = np.array(sorted(range(rows), key=ids.__getitem__), dtype=np.uint32)
    vault.put_rows(dataset, dataset.encode().ljust(16, b"\0"), scheme, order)
    return ids


def test_every_row_is_found_by_its_id_and_by_its_key(vault: Vault, scheme: str) -> None:
    ids = put(vault, scheme)
    for row, sample in enumerate(ids):
        name = Name(sample, "digits", encode(row), None)
        assert vault.find_by_id(sample) == name
        assert vault.find_by_key(encode(row)) == [name]
    assert sorted(ids) == [name.id for name in vault.names()]


def test_what_is_no_sample_is_not_found(vault: Vault, scheme: str) -> None:
    ids = put(vault, scheme)
    for stranger in (bytes(32), b"\xff" * 32, *(sample[:-1] + bytes([sample[-1] ^ 1]) for sample in ids[:20])):
        assert vault.find_by_id(stranger) is None
    for key in (encode(ROWS), encode("7"), encode((7,)), encode(-1), encode(True), b"", b"\x18\x05", b"\xff"):
        assert vault.find_by_key(key) == []
    assert vault.find_by_key(encode(7), "others") == []


@pytest.mark.parametrize("rows", [1, 2, 64, 65, 128])
def test_pages_may_be_full(vault: Vault, rows: int) -> None:
    ids = put(vault, "keyed", rows=rows)
    assert [vault.find_by_id(sample).key for sample in ids] == [encode(row) for row in range(rows)]


def test_rows_and_names_stand_beside_each_other(vault: Vault) -> None:
    digits, letters = put(vault, "keyed"), put(vault, "public", "letters", 5)
    given = Name(b"\x80" * 32, "named", encode(3), "ada")
    vault.put_names([(given.id, given.dataset, given.key, given.subject)])
    found = list(vault.names())
    assert [name.id for name in found] == sorted([*digits, *letters, given.id])
    assert given in found
    assert {name.dataset for name in vault.find_by_key(encode(3))} == {"digits", "letters", "named"}
    assert [row[0] for rows in vault.name_rows() for row in rows] == [given.id]


def test_a_block_that_is_there_stays_as_it_is(vault: Vault) -> None:
    ids = put(vault, "keyed")
    size = vault.path.stat().st_size
    vault.put_rows("digits", b"digits".ljust(16, b"\0"), "keyed", np.zeros(ROWS, dtype=np.uint32))
    assert vault.path.stat().st_size == size
    assert vault.find_by_id(ids[200]).key == encode(200)


def test_an_erasure_leaves_the_rows_of_others(vault: Vault) -> None:
    ids = put(vault, "keyed")
    vault.secret("subject:61")
    vault.put_names([(b"a" * 32, "people", encode(1), "a")])
    vault.erase("subject:61", [b"a" * 32], [], b"p" * 32, [])
    assert [name.id for name in vault.names()] == sorted(ids)


def test_without_the_runs_key_its_ids_cannot_be_computed(vault: Vault) -> None:
    keyed, public = put(vault, "keyed"), put(vault, "public", "letters")
    with sqlite3.connect(vault.path) as db:
        db.execute("DELETE FROM secrets")
    db.close()
    assert vault.find_by_id(keyed[3]) is None
    assert vault.find_by_id(public[3]).key == encode(3)


def test_four_bytes_a_row_are_kept(vault: Vault) -> None:
    before = vault.path.stat().st_size
    vault.put_rows("digits", b"b" * 16, "public", np.arange(100_000, dtype=np.uint32))
    assert vault.path.stat().st_size - before < 6 * 100_000  # small pages have more to them than large ones


def test_a_vault_from_before_is_read_and_takes_rows(vault: Vault) -> None:
    vault.put_names([(b"i" * 32, "digits", encode(3), None)])
    with sqlite3.connect(vault.path) as db:
        for statement in (
            "DROP TABLE row_columns",
            "DROP TABLE row_pages",
            "UPDATE about SET format = 'fgtrac vault v1'",
        ):
            db.execute(statement)
    db.close()
    reader = Vault.open(vault.path, TRACE_ID)
    assert [name.id for name in reader.names()] == [b"i" * 32]
    assert reader.find_by_id(b"x" * 32) is None
    ids = put(vault, "keyed", "letters")
    assert reader.find_by_id(ids[7]).dataset == "letters"
    assert reader.find_by_id(b"i" * 32).dataset == "digits"
    reader.close()


def test_a_sample_that_stands_in_several_places_is_one(vault: Vault, scheme: str) -> None:
    """As in a vault of version 1 whose run goes on, and where a run was killed before it wrote down what it named."""
    ids = put(vault, scheme)
    vault.put_names((sample, "digits", encode(row), None) for row, sample in enumerate(ids[:40]))
    order = np.array(sorted(range(200), key=ids.__getitem__), dtype=np.uint32)
    vault.put_rows("digits", b"some of them".ljust(16, b"\0"), scheme, order)
    assert [name.id for name in vault.names()] == sorted(ids)
    for row in (7, 100, 250):
        assert vault.find_by_key(encode(row)) == [Name(ids[row], "digits", encode(row), None)]


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("DELETE FROM row_pages WHERE page = 2", "it says that 'digits' has 300 samples, and has 944 bytes"),
        ("UPDATE row_pages SET page = 9 WHERE page = 2", "page 2 of its row numbers is not there"),
        ("UPDATE row_pages SET rows = x'00' WHERE page = 2", "300 samples, and has 945 bytes"),
        (
            "UPDATE row_pages SET rows = CAST(rows || x'00' AS BLOB) WHERE page = 0;"
            "UPDATE row_pages SET rows = substr(rows, 2) WHERE page = 2",
            "page 0 of the rows of 'digits' holds 257 bytes, which are not 64 row numbers",
        ),
        (
            "UPDATE row_pages SET rows = CAST(x'2c010000' || substr(rows, 5) AS BLOB) WHERE page = 2",
            "holds the row number 300, and there are 300 rows",
        ),
        *(
            (f"UPDATE row_columns SET samples = {count}", f"'digits' has {count} samples, and has 1200 bytes")
            for count in (70, 301, 0, -5, 2**63 - 1)
        ),
        ("UPDATE row_columns SET scheme = 'subject'", "'subject' is no id scheme of row numbers"),
        ("UPDATE row_columns SET dataset = x'00'", "a row holds"),
    ],
)
def test_a_damaged_column_is_said_to_be_one(vault: Vault, sql: str, words: str) -> None:
    put(vault, "keyed")
    with sqlite3.connect(vault.path) as db:
        db.executescript(sql)
    db.close()
    with pytest.raises(FormatError, match=words):
        list(vault.names())


def test_a_column_cut_short_does_not_say_that_a_row_was_never_there(vault: Vault) -> None:
    put(vault, "keyed")
    with sqlite3.connect(vault.path) as db:
        db.execute("UPDATE row_columns SET samples = 70")
    db.close()
    with pytest.raises(FormatError, match="is a damaged vault"):
        vault.find_by_key(encode(200))
