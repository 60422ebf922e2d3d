"""The folder in which ranks meet: keys, values, and who comes first."""

from pathlib import Path

import pytest

from fgtrac.store import durable
from fgtrac.store.folder_store import FolderStore
from fgtrac.store.journal import JournalWriter, segments_of

WRITER = b"w" * 16


def test_all_who_have_the_folder_see_what_one_has_put_there(tmp_path: Path) -> None:
    one, other = FolderStore(tmp_path / "run.ranks"), FolderStore(tmp_path / "run.ranks")
    assert not other.check(["data/a/b"])
    one.set("data/a/b", b"first")
    one.set("data/a/b", b"second")
    assert other.check(["data/a/b"])
    assert not other.check(["data/a/b", "data/c"])
    assert other.get("data/a/b") == b"second"
    with pytest.raises(FileNotFoundError):
        other.get("data/c")


def test_one_of_several_is_the_first(tmp_path: Path) -> None:
    stores = [FolderStore(tmp_path / "run.ranks") for _ in range(3)]
    assert [store.add("turn", 1) for store in stores] == [1, 2, 2]


def test_nothing_is_left_of_it(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "run.ranks")
    store.clear()
    store.set("a", b"")
    store.clear()
    assert list(tmp_path.iterdir()) == []


def test_a_journal_that_stays_holds_a_segment_from_beginning_to_end(tmp_path: Path) -> None:
    def held() -> int:
        return sum(map(durable.is_held, segments_of(tmp_path, WRITER)))

    journal = JournalWriter(tmp_path, WRITER, stays=True)
    assert held() == 1
    journal.rotate()  # an empty one goes on
    assert len(segments_of(tmp_path, WRITER)) == 1
    journal.append([b"entry"])
    journal.rotate()
    assert [path.stat().st_size > 0 for path in segments_of(tmp_path, WRITER)] == [True, False]
    assert held() == 1
    journal.close()
    assert held() == 0
