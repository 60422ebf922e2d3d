"""A log's files: paths, bundles, tiles that grow, and files that are not what they should be."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgtrac.errors import FormatError
from fgtrac.events import schema
from fgtrac.tlog import merkle, tiles
from fgtrac.tlog.merkle import MemoryNodes
from fgtrac.tlog.tiles import ENTRIES, WIDTH, Tile, TileNodes, all_tiles, grow, parse_tile_path, tile_path


class Files:
    """A log in memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.read_paths: list[str] = []

    def read(self, path: str) -> bytes:
        self.read_paths.append(path)
        try:
            return self.files[path]
        except KeyError:
            raise FileNotFoundError(path) from None


def entries_of(start: int, stop: int) -> list[bytes]:
    return [b"entry %d" % i for i in range(start, stop)]


def log_of(size: int) -> Files:
    log = Files()
    log.files = grow(0, log, entries_of(0, size)).files
    return log


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, "000"), (5, "005"), (999, "999"), (1000, "x001/000"), (1234067, "x001/x234/067")],
)
def test_a_tile_number_is_written_in_groups_of_three_digits(number: int, name: str) -> None:
    assert tile_path(0, number, WIDTH) == f"tile/0/{name}"
    assert tile_path(ENTRIES, number, 7) == f"tile/entries/{name}.p/7"
    assert parse_tile_path(f"tile/entries/{name}.p/7") == Tile(ENTRIES, number, 7)


@given(st.integers(-1, 63), st.integers(0, 2**64 - 1), st.integers(1, WIDTH))
def test_every_tile_path_is_parsed_back(level: int, number: int, width: int) -> None:
    assert parse_tile_path(tile_path(level, number, width)) == Tile(level, number, width)


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/x000/005",
        "tile/0/5",
        "tile/0/0005",
        "tile/0/x001",
        "tile/0/001/000",
        "tile/00/000",
        "tile/64/000",
        "tile/0/000.p/0",
        "tile/0/000.p/07",
        "tile/0/000.p/256",
        "tile/0/000.p/300",
        "tile/0/000.p/1000",
        "tile/0/000\n",
        "tile/0/٠٠٠",
        "/tile/0/000",
        "tile/0/../000",
        "tile/-1/000",
        "tile/entries/" + "x999/" * 3000 + "999",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "",
    ],
)
def test_a_path_that_no_tile_has_is_refused(path: str) -> None:
    with pytest.raises(FormatError):
        parse_tile_path(path)


def test_a_log_of_70000_entries_has_the_tiles_of_the_specifications_example() -> None:
    found = tiles.tiles_of(70_000)
    hashes = [t for t in found if t.level >= 0]
    assert [t for t in hashes if t.width < WIDTH] == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert [t.number for t in hashes if t.level == 0 and t.width == WIDTH] == list(range(273))
    assert [t.number for t in hashes if t.level == 1 and t.width == WIDTH] == [0]
    assert [t for t in found if t.level == ENTRIES][-1] == Tile(ENTRIES, 273, 112)
    assert set(tiles.partial_tiles(70_000)) == {t for t in found if t.width < WIDTH}


def test_a_log_of_256_entries_has_a_full_tile_and_one_hash_above_it() -> None:
    assert [t.path for t in tiles.tiles_of(256)] == ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]
    assert tiles.tiles_of(0) == []


def test_a_tile_holds_the_roots_of_the_subtrees_below_it() -> None:
    size = 70_000
    hashes = merkle.hash_leaves(entries_of(0, size))
    written = {tile.path: data for tile, data in all_tiles(b"".join(hashes))}
    assert set(written) == {t.path for t in tiles.tiles_of(size) if t.level >= 0}
    nodes = MemoryNodes(hashes)
    assert written["tile/2/000.p/1"] == merkle.root(65_536, nodes)
    assert written["tile/1/001.p/17"][:32] == nodes.node(8, 256)
    assert written["tile/0/273.p/112"] == b"".join(hashes[273 * 256 :])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 2, 100, 255, 256, 257, 511, 700]), min_size=1, max_size=7))
def test_a_log_that_grows_in_steps_equals_one_written_at_once(steps: list[int]) -> None:
    log, size = Files(), 0
    for step in steps:
        growth = grow(size, log, entries_of(size, size + step))
        stale = [t.path for t in tiles.partial_tiles(size)]
        log.files |= growth.files
        size += step
        assert growth.size == size
        wanted = {t.path for t in tiles.tiles_of(size)}
        for path in set(stale) - wanted:  # the sealer removes a partial tile once its successor is there
            log.files.pop(path, None)
        assert set(log.files) == wanted
        hashes = merkle.hash_leaves(entries_of(0, size))
        assert growth.root == merkle.root(size, MemoryNodes(hashes))
    for tile, data in all_tiles(b"".join(merkle.hash_leaves(entries_of(0, size)))):
        assert log.files[tile.path] == data
    assert list(tiles.read_entries(log, 0, size, size)) == entries_of(0, size)


def test_growing_reads_only_the_right_edge() -> None:
    log = log_of(70_000)
    log.read_paths.clear()
    grow(70_000, log, entries_of(70_000, 70_010))
    assert len(set(log.read_paths)) <= 2 * len(tiles.partial_tiles(70_000))


def test_every_node_is_read_from_tiles_as_from_memory() -> None:
    size = 1000
    log, memory = log_of(size), MemoryNodes(merkle.hash_leaves(entries_of(0, size)))
    read = TileNodes(log, size)
    for level in range(10):
        for index in range(size >> level):
            assert read.node(level, index) == memory.node(level, index)
    assert merkle.prove_inclusion(999, size, read) == merkle.prove_inclusion(999, size, memory)


def test_a_proof_of_an_older_size_is_read_from_the_full_tile_that_took_the_partial_ones_place() -> None:
    log, older = log_of(600), MemoryNodes(merkle.hash_leaves(entries_of(0, 300)))
    log.files["tile/1/000.p/1"] = log_of(300).files["tile/1/000.p/1"]  # kept, as for every anchored or full seal
    assert merkle.root(300, TileNodes(log, 300)) == merkle.root(300, older)
    assert tiles.read_bundle(log, 1, 300) == entries_of(256, 300)


@pytest.mark.parametrize("change", [b"", b"\0" * 32, b"\0"], ids=["cut", "a hash more", "a byte more"])
def test_a_tile_of_another_length_is_refused_by_name(change: bytes) -> None:
    log = log_of(300)
    path = "tile/0/001.p/44"
    log.files[path] = log.files[path] + change if change else log.files[path][:-32]
    with pytest.raises(FormatError, match=r"tile/0/001\.p/44"):
        merkle.root(300, TileNodes(log, 300))


def test_a_full_tile_in_a_partial_ones_place_is_refused_when_it_is_not_full() -> None:
    log = log_of(300)
    log.files["tile/0/001"] = log.files.pop("tile/0/001.p/44")
    with pytest.raises(FormatError, match=r"tile/0/001 has 1408 bytes"):
        merkle.root(300, TileNodes(log, 300))


def test_a_flipped_bit_in_a_tile_gives_another_root() -> None:
    log = log_of(300)
    root = merkle.root(300, TileNodes(log, 300))
    for path, at in itertools.product(["tile/0/001.p/44", "tile/1/000.p/1"], [0, 31]):
        before = log.files[path]
        log.files[path] = before[:at] + bytes((before[at] ^ 0x80,)) + before[at + 1 :]
        assert merkle.root(300, TileNodes(log, 300)) != root
        log.files[path] = before


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_a_bundle_gives_its_entries_back(entries: list[bytes]) -> None:
    data = tiles.encode_bundle(entries)
    assert tiles.decode_bundle(data, len(entries)) == entries
    for width in {len(entries) - 1, len(entries) + 1} - {-1}:
        with pytest.raises(FormatError):
            tiles.decode_bundle(data, width)


def test_a_bundle_cut_at_any_byte_is_refused_and_named() -> None:
    log = log_of(3)
    whole = log.files["tile/entries/000.p/3"]
    for stop in range(len(whole)):
        log.files["tile/entries/000.p/3"] = whole[:stop]
        with pytest.raises(FormatError, match=r"tile/entries/000\.p/3: "):
            tiles.read_bundle(log, 0, 3)


def test_an_entry_of_65535_bytes_is_the_longest() -> None:
    longest = bytes(65_535)
    assert tiles.decode_bundle(tiles.encode_bundle([longest, b""]), 2) == [longest, b""]
    with pytest.raises(ValueError, match="65536 bytes"):
        tiles.encode_bundle([bytes(65_536)])


def test_entries_and_bundles_have_the_same_limit() -> None:
    assert schema.MAX_ENTRY_BYTES == tiles.MAX_ENTRY_BYTES
