"""A served log: what a reader written from the specification makes of it, and that nothing else of it is there."""

from __future__ import annotations

import gzip
import http.client
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError

import pytest
from cryptography.exceptions import InvalidSignature

from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.note import format_vkey
from fgtrac.tlog.tiles import read_entries
from fgtrac.web.listening import listen, server_of
from fgtrac.web.tiles_server import log_vkey, tiles_app
from tile_reader import Head, TileReader, check_consistency, check_head, check_inclusion
from traces import Made, start_trace

SIZES = (5, 200, 512, 700)  # of heads: in one tile, at the edge of one, and over several with hashes at level 1


@dataclass(frozen=True)
class Served:
    """A log of 700 entries, and the head signed at each of SIZES."""

    made: Made
    notes: dict[int, bytes]

    @property
    def vkey(self) -> str:
        return format_vkey(self.made.verifier)

    def old_head(self, size: int) -> Head:
        return check_head(self.notes[size], self.vkey)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Served:
    made, writing = start_trace(tmp_path_factory.mktemp("log"))
    notes = {}
    for size in SIZES:
        while writing.recorder.next_seq < size:
            writing.use([writing.step % 20])
        made.seal(full=False)
        notes[size] = made.trace.read("checkpoint")
    writing.recorder.close()
    return Served(made, notes)


@contextmanager
def answering(run: Callable[[], None], stop: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join(30)
    assert not thread.is_alive()


@contextmanager
def served(trace: TraceDir, *, cors: bool = False) -> Iterator[str]:
    """The URL of `fgtrac serve`, running in this process."""
    server = server_of(tiles_app(trace, cors=cors))
    listener, url = listen("127.0.0.1", 0)
    with answering(partial(server.run, [listener]), partial(setattr, server, "should_exit", True)):
        yield url


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def static_host(trace: TraceDir) -> Iterator[str]:
    """The URL of Python's own file server over the folder."""
    host = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(trace.path)))
    with host, answering(host.serve_forever, host.shutdown):
        yield f"http://127.0.0.1:{host.server_address[1]}/"


HOSTS = pytest.mark.parametrize("host", [served, static_host])


def get(url: str, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """The answer to exactly this path: nothing is put right before it is sent."""
    connection = http.client.HTTPConnection(url.removeprefix("http://").rstrip("/"), timeout=60)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


# -- what a reader makes of it ----------------------------------------------------------------------------------------


@HOSTS
def test_a_reader_checks_the_head_every_entry_and_proofs_of_both_kinds(host: Callable, log: Served) -> None:
    with host(log.made.trace) as url:
        reader = TileReader(url, log.vkey)
        assert reader.head.size == SIZES[-1]
        entries = reader.entries()
        assert entries == list(read_entries(log.made.trace, 0, SIZES[-1], SIZES[-1]))
        for index in (0, 255, 256, 511, 512, 699):
            check_inclusion(entries[index], index, reader.head, reader.inclusion(index))
        for size in SIZES[:-1]:
            check_consistency(log.old_head(size), reader.head, reader.consistency(size))


def test_the_reader_notices_each_lie_that_a_host_can_tell(log: Served, tmp_path: Path) -> None:
    folder = tmp_path / "run.trace"

    def read_with(path: str, change: Callable[[bytes], bytes]) -> None:
        shutil.copytree(log.made.trace.path, folder)
        try:
            (folder / path).write_bytes(change((folder / path).read_bytes()))
            with served(TraceDir.open(folder)) as url:
                TileReader(url, log.vkey).entries()
        finally:
            shutil.rmtree(folder)

    with pytest.raises(InvalidSignature):
        read_with("checkpoint", lambda note: note.replace(b"\n700\n", b"\n699\n"))
    with pytest.raises(AssertionError, match="a tile is not what the one above says"):
        read_with("tile/0/001", lambda hashes: bytes(32) + hashes[32:])
    with pytest.raises(AssertionError, match="do not lead to the signed root"):
        read_with("tile/0/002.p/188", lambda hashes: bytes(32) + hashes[32:])
    with pytest.raises(AssertionError, match="a bundle is not what its tile says"):
        read_with("tile/entries/001", lambda bundle: bundle[:5] + bytes([bundle[5] ^ 1]) + bundle[6:])


def test_a_reader_with_an_older_head_falls_back_on_full_tiles(log: Served) -> None:
    with static_host(log.made.trace) as url:
        assert get(url, "/tile/0/000.p/200")[0] == 404
        assert len(TileReader(url, log.vkey, log.old_head(200)).entries()) == 200


def test_a_tile_of_an_older_head_is_the_beginning_of_the_one_that_took_its_place(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    vkey, heads, answers = format_vkey(made.verifier), [], {}
    with served(made.trace) as url:
        for size in (5, 30, 31, 257):  # wider partial tiles, one after the other, and then the full one
            while writing.recorder.next_seq < size:
                writing.use([1])
            made.seal(full=False)
            heads.append(TileReader(url, vkey).head)
            for kind in ("0", "entries"):
                path = f"/tile/{kind}/{size // 256:03}.p/{size % 256}"
                answers[path] = get(url, path)
            for path, (_, headers, body) in answers.items():
                again = get(url, path)
                assert (again[0], again[1] | {"date": ""}, again[2]) == (200, headers | {"date": ""}, body)
            for head in heads:
                assert len(TileReader(url, vkey, head).entries()) == head.size
    writing.recorder.close()
    assert [head.size for head in heads] == [5, 30, 31, 257]
    assert not (made.trace.path / "tile/0/000.p").exists()


def test_a_tile_that_a_seal_takes_away_meanwhile_is_looked_for_again(
    log: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings = iter([["150"], os.listdir(log.made.trace.path / "tile/0/002.p")])
    monkeypatch.setattr("fgtrac.web.tiles_server.os.listdir", lambda folder: next(listings))
    with served(log.made.trace) as url:
        whole = get(url, "/tile/0/002.p/188")[2]
        assert get(url, "/tile/0/002.p/100")[::2] == (200, whole[: 100 * 32])


def test_a_tile_is_cut_from_no_narrower_one(log: Served, tmp_path: Path) -> None:
    folder = tmp_path / "run.trace"
    shutil.copytree(log.made.trace.path, folder)
    whole = (folder / "tile/0/000").read_bytes()
    (folder / "tile/0/000.p").mkdir()
    (folder / "tile/0/000.p/5").write_bytes(whole[: 5 * 32])
    with served(TraceDir.open(folder)) as url:
        assert get(url, "/tile/0/000.p/200")[2] == whole[: 200 * 32]


def test_a_wider_tile_that_is_damaged_is_not_cut(log: Served, tmp_path: Path) -> None:
    folder = tmp_path / "run.trace"
    shutil.copytree(log.made.trace.path, folder)
    for path in ("tile/0/000", "tile/entries/000"):
        (folder / path).write_bytes((folder / path).read_bytes()[:-1])
    with served(TraceDir.open(folder)) as url:
        for path in ("/tile/0/000.p/200", "/tile/entries/000.p/200"):
            assert get(url, path)[0] == 404


@HOSTS
def test_it_is_read_while_it_is_recorded_and_sealed(host: Callable, tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    writing.recorder.flush()
    made.seal(full=False)
    vkey, done = format_vkey(made.verifier), threading.Event()

    def record() -> None:
        try:
            for _ in range(25):
                for _ in range(15):
                    writing.use([1, 2, 3])
                made.seal(full=False)
        finally:
            writing.recorder.close()
            done.set()

    heads = []
    recording = threading.Thread(target=record)
    with host(made.trace) as url:
        recording.start()
        is_last = False
        while not is_last:
            is_last = done.is_set()  # before this look
            try:
                reader = TileReader(url, vkey)
                reader.entries()
            except HTTPError as error:
                if error.code != 404 or host is served:
                    raise
                is_last = False
                continue  # a newer head took this one's partial tiles: ask for that one
            if heads and heads[-1].size < reader.head.size:
                check_consistency(heads[-1], reader.head, reader.consistency(heads[-1].size))
            heads.append(reader.head)
        recording.join()
    assert len({head.size for head in heads}) > 1
    assert heads[-1].size >= 375


# -- the answers themselves -------------------------------------------------------------------------------------------


def test_the_head_is_not_kept_by_caches_and_tiles_are_for_good(log: Served) -> None:
    with served(log.made.trace) as url:
        for path, media_type, kept in (
            ("/checkpoint", "text/plain; charset=utf-8", "no-store"),
            ("/tile/0/001", "application/octet-stream", "public, max-age=31536000, immutable"),
            ("/tile/1/000.p/2", "application/octet-stream", "public, max-age=31536000, immutable"),
            ("/tile/entries/002.p/188", "application/octet-stream", "public, max-age=31536000, immutable"),
        ):
            status, headers, body = get(url, path)
            assert (status, headers["content-type"], headers["cache-control"]) == (200, media_type, kept)
            assert headers["x-content-type-options"] == "nosniff"
            assert "access-control-allow-origin" not in headers
            assert body == (log.made.trace.path / path[1:]).read_bytes()
            status, same, body = get(url, path, "HEAD")
            assert (status, body) == (200, b"")
            assert same | {"date": ""} == headers | {"date": ""}


@pytest.mark.parametrize(
    ("asked", "is_packed"),
    [("gzip", True), ("br, gzip;q=0.5", True), ("*", True), ("identity", False), ("gzip;q=0", False), ("", False),
     ("gzip;q=0.0, *", False), ("GZIP; q=1", True)],
)  # fmt: skip
def test_bundles_are_packed_for_who_says_so_and_hashes_for_nobody(log: Served, asked: str, is_packed: bool) -> None:
    plain = log.made.trace.read("tile/entries/000")
    with served(log.made.trace) as url:
        _, headers, body = get(url, "/tile/entries/000", Accept_Encoding=asked)
        assert (headers.get("content-encoding") == "gzip", headers["vary"]) == (is_packed, "accept-encoding")
        assert (gzip.decompress(body) if is_packed else body) == plain
        assert "content-encoding" not in get(url, "/tile/0/000", Accept_Encoding=asked)[1]


def test_pages_of_other_origins_read_it_only_where_that_was_asked_for(log: Served) -> None:
    with served(log.made.trace, cors=True) as url:
        for path, status in (("/checkpoint", 200), ("/checkpoint?x", 200), ("/tile/0/000", 200), ("/tile/0/009", 404)):
            found = get(url, path)
            assert (found[0], found[1]["access-control-allow-origin"]) == (status, "*")


# -- nothing else -----------------------------------------------------------------------------------------------------


OTHER_PATHS = [
    "/", "/index.html", "/index/", "/tile", "/tile/", "/tile/0", "/tile/0/", "/tile/entries", "/checkpoint/",
    "//checkpoint", "/./checkpoint", "/tile/../checkpoint", "/%63heckpoint", "/checkpoint%00", "/CHECKPOINT",
    "/checkpoint;x", "/tile//0/000", "/tile/0//000", "/tile/0/000/", "/tile/./0/000", "/tile/0/%30%30%30",
    "/tile/0/../0/000", "/tile/%2e%2e/checkpoint", "/tile/0/0", "/tile/0/00", "/tile/00/000", "/tile/64/000",
    "/tile/0/000.p/256", "/tile/0/000.p/0", "/tile/0/000.p/01", "/tile/0/x000/000", "/tile/0/-01", "/tile/data/000",
    "/tile/0/003", "/tile/0/002", "/tile/2/000", "/tile/entries/000.p/", "/..%2frun.vault", "/tile\\0\\000",
    "/receipts/700/checkpoint", "/journal/700.seal", "/artifacts/made.safetensors", "/index/700/checkpoint",
    "/tile/0/link", "/tile/0/004", "/tile/0/005", "/tile/3/000", "/tile/0/007",
    "/tile/0/002.p/189", "/tile/0/002.p/200", "/tile/entries/002.p/189", "/tile/entries/003.p/1", "/tile/1/000.p/3",
]  # fmt: skip


def test_whatever_else_lies_in_the_folder_or_behind_a_link_is_not_there(log: Served, tmp_path: Path) -> None:
    folder = tmp_path / "run.trace"
    shutil.copytree(log.made.trace.path, folder)
    (tmp_path / "run.vault").write_bytes(b"secret")
    for path in ("receipts/700/checkpoint", "artifacts/made.safetensors", "index/700/checkpoint", "tile/0/link"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"not for readers")
    (folder / "tile/0/002.p/200").write_bytes(bytes(200 * 32))  # of a seal that is not done
    (folder / "tile/0/004").symlink_to(tmp_path / "run.vault")
    (folder / "tile/0/005").symlink_to("000")
    (folder / "tile/3").symlink_to("0")
    os.mkfifo(folder / "tile/0/007")
    with served(TraceDir.open(folder)) as url:
        assert get(url, "/tile/0/000")[0] == 200
        for path in OTHER_PATHS:
            status, headers, body = get(url, path)
            assert (status, headers["cache-control"], body) == (404, "no-store", b"not found\n"), path


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_but_reading_is_allowed(log: Served, method: str) -> None:
    with served(log.made.trace) as url:
        for path in ("/checkpoint", "/tile/0/000", "/elsewhere"):
            status, headers, _ = get(url, path, method)
            assert (status, set(headers["allow"].split(", "))) == (405, {"GET", "HEAD"})


def test_a_trace_that_was_never_sealed_has_no_head_yet(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    writing.recorder.flush()
    with served(made.trace) as url:
        assert log_vkey(made.trace) == format_vkey(made.verifier)
        assert get(url, "/checkpoint")[0] == 404
        made.seal(full=False)
        assert TileReader(url, log_vkey(made.trace)).head.size > 0
    writing.recorder.close()
