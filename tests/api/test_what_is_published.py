"""What a push gives away: only what leads to the head that is signed, and all that it needs. No server is needed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.api.keys import rotate
from fgtrac.api.run import start_run
from fgtrac.api.sealing import seal_trace
from fgtrac.commit.publishing import Contents, Signed, contents_of
from fgtrac.errors import FormatError, ProofError, TamperError
from fgtrac.store.file_digests import FileDigests
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.merkle import leaf_hash
from fgtrac.tlog.note import Note, format_note, parse_note, sign_note
from fgtrac.tlog.npy import COLUMNS, column_path
from fgtrac.tlog.tiles import read_bundle
from traces import Made, Writing, start_trace


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Writing]:
    """A log of two full seals and three bundles."""
    made, writing = start_trace(tmp_path_factory.mktemp("grown"))
    for uses in (300, 300):
        for number in range(uses):
            writing.use([number % 20])
        writing.artifact(bytes([uses % 256]) * 100)
        writing.recorder.rotate()
        made.seal()
    return made, writing


@pytest.fixture
def made(grown: tuple[Made, Writing], tmp_path: Path) -> Made:
    """A copy of it, to be damaged."""
    whole, _writing = grown
    shutil.copytree(whole.trace.path, tmp_path / "run.trace")
    return Made(TraceDir(tmp_path / "run.trace"), whole.signer, whole.ids)


def contents(made: Made) -> Contents:
    head, note = made.trace.head(), made.trace.head_note()
    assert head is not None
    assert note is not None
    Signed(made.trace, head).check_here("checkpoint", note, head.size)
    return contents_of(made.trace, head, 0, FileDigests())


def alter(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def alter_entry_and_tile(trace: Path, size: int) -> None:
    """Another entry 100, and its hash in the tile of level 0."""
    entry = read_bundle(TraceDir(trace), 0, size)[100]
    changed = entry[:-1] + bytes([entry[-1] ^ 1])
    for path, old, new in (
        (trace / "tile/entries/000", entry, changed),
        (trace / "tile/0/000", leaf_hash(entry), leaf_hash(changed)),
    ):
        data = path.read_bytes()
        assert data.count(old) == 1
        path.write_bytes(data.replace(old, new))


def alter_signature(note: Path) -> None:
    data = note.read_bytes()
    at = len(data) - 20
    note.write_bytes(data[:at] + (b"A" if data[at : at + 1] != b"A" else b"B") + data[at + 1 :])


DAMAGE: dict[str, Callable[[Path, int], None]] = {
    "an entry and its tile": alter_entry_and_tile,
    "a column": lambda trace, size: alter(trace / column_path(size, "values")),
    "a full seal's note": lambda trace, size: (trace / f"index/{size}/checkpoint").write_bytes(b"garbage") and None,
    "its signature": lambda trace, size: alter_signature(trace / f"index/{size}/checkpoint"),
    "another head's note": lambda trace, size: (
        shutil.copyfile(
            min(trace.glob("index/*/checkpoint"), key=lambda path: int(path.parent.name)),
            trace / f"index/{size}/checkpoint",
        )
        and None
    ),
    "the head's signature": lambda trace, _size: alter_signature(trace / "checkpoint"),
    "the plan": lambda trace, size: alter(trace / f"journal/{size}.seal"),
    "an older head's tile": lambda trace, _size: alter(next(trace.glob("tile/0/*.p/*"))),
}
GONE = ["keys", "the plan", "the note", "all of the index"]


@pytest.mark.parametrize("damage", DAMAGE)
def test_no_damaged_copy_is_given_away(damage: str, made: Made) -> None:
    head = made.trace.head()
    assert head is not None
    assert "tile/0/000" in contents(made).paths
    DAMAGE[damage](made.trace.path, head.size)
    with pytest.raises((TamperError, FormatError), match=r"run fgtrac (verify|seal)"):
        contents(made)


@pytest.mark.parametrize("what", GONE)
def test_no_head_is_published_without_its_plan_and_its_index(what: str, made: Made) -> None:
    head = made.trace.head()
    assert head is not None
    found = contents(made)
    assert {column_path(head.size, name) for name in COLUMNS} < set(found.paths)
    index = made.trace.path / f"index/{head.size}"
    if what == "all of the index":
        shutil.rmtree(index)
    else:
        paths = {"keys": index / "keys.npy", "the plan": made.trace.path / f"journal/{head.size}.seal"}
        paths.get(what, index / "checkpoint").unlink()
    with pytest.raises(FileNotFoundError, match=r"which its head needs; nothing was published: run fgtrac seal"):
        contents(made)


def test_notes_before_and_behind_a_rotation_are_told_in_any_order(tmp_path: Path) -> None:
    path, key = tmp_path / "run.trace", tmp_path / "key.pem"
    with start_run(path, key=key, flush_interval_s=0) as run:
        for step in range(260):  # the rotation is in another bundle than the first key
            run.log(step, loss=0.5)
    rotate([path], path=key)
    seal_trace(path, key)
    trace = TraceDir.open(path)
    older, newer = trace.full_seals()
    notes = {size: trace.read(f"index/{size}/checkpoint") for size in (older, newer)}
    head = trace.head()
    assert head is not None
    signed = Signed(trace, head)
    for size in (newer, older, newer):
        assert signed.check(notes[size], size).text
    text = parse_note(notes[older]).text
    stranger = sign_note(text, head.origin, Ed25519PrivateKey.generate())
    with pytest.raises(ProofError, match="signed by none"):
        signed.check(format_note(Note(text, (stranger,))), older)
