"""Exhaustive tampering: one bit of every byte of a trace, every bit of its heads, every file lost, moved or swapped.

In memory: a trace's files are a dictionary, of which one byte is changed at a time. What the entries say is worked
out once for each log (by its leaf hashes), so that a check of the whole costs a millisecond.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fgtrac
from fgtrac.api import audit
from fgtrac.api.audit import audit_trace
from fgtrac.errors import FgtracError
from fgtrac.store.index_files import load_index
from fgtrac.store.journal import scan
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.index import Columns, Tree
from fgtrac.tlog.note import Note, Signature, Verifier, format_note, parse_note
from fgtrac.verify import auditor, keys
from fgtrac.verify import tree as log_tree
from fgtrac.verify.facts import Facts, check_index, read_facts
from fgtrac.verify.log_reader import LogReader
from fgtrac.verify.report import Report, Verdict
from fgtrac.verify.tree import Log
from signed import MemoryTrace
from traces import Made, make_trace

Files = dict[str, bytes]


def files_of(trace: TraceDir) -> Files:
    return {name: trace.read(name) for name in trace.names()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """About 25 KB: two full seals and a plain one, an artifact, contents."""
    folder = tmp_path_factory.mktemp("small")
    return make_trace(folder, samples=20, uses=24, batch=6, seals=(8,), plain=(16,), artifact_bytes=2_000)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """More than 600 entries, so that the log has three bundles and two levels of tiles."""
    return make_trace(tmp_path_factory.mktemp("large"), samples=60, uses=600, batch=2, seals=(300,), artifact_bytes=500)


@pytest.fixture(scope="module")
def tailed(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A full seal, and behind it a journal that is not sealed."""
    return make_trace(tmp_path_factory.mktemp("tailed"), samples=12, uses=20, batch=4, seals=(8,), sealed=False)


@pytest.fixture(autouse=True)
def pure_functions_remember(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows from the same bytes is worked out once: what entries say from their hashes, a note's parts and
    whether it is signed, a plan's parts, and the digests of an index that was built once."""
    known: dict[bytes, Facts] = {}
    rebuilt: dict[int, Any] = {}

    def remembered(log: Log, reader: LogReader) -> Facts:
        leaves = bytes(log.leaves)
        if leaves not in known:
            known[leaves] = read_facts(log, reader)
        return known[leaves]

    def rebuilt_once(facts: Facts, log: Log, reader: LogReader) -> Any:
        if id(facts) not in rebuilt:  # they are kept in `known`, so no other facts get that number
            rebuilt[id(facts)] = check_index(facts, log, reader)
        return rebuilt[id(facts)]

    monkeypatch.setattr(auditor, "read_facts", remembered)
    monkeypatch.setattr(auditor, "check_index", rebuilt_once)
    monkeypatch.setattr(audit, "parse_plan", lru_cache(64)(audit.parse_plan))
    monkeypatch.setattr(Verifier, "is_signed", lru_cache(4096)(Verifier.is_signed))
    monkeypatch.setattr(log_tree, "decode_event", lru_cache(4096)(log_tree.decode_event))
    for module in (log_tree, keys):
        monkeypatch.setattr(module, "parse_note", lru_cache(4096)(module.parse_note))
        monkeypatch.setattr(module, "parse_tree_head", lru_cache(4096)(module.parse_tree_head))


def verify(files: Files, verifier: Verifier) -> Report:
    return audit_trace(MemoryTrace(files), verifier)


def words_of(report: Report) -> str:
    return "; ".join(f.words for f in report.findings if f.verdict is Verdict.REFUTED)


def flips(files: Files, every: int, generator: random.Random) -> Iterator[tuple[str, int, int]]:
    """One random bit in each `every` bytes of every file, and in each byte of the heads; with `every` 1, every bit of
    the heads."""
    for name, data in files.items():
        is_head = name.endswith("checkpoint")
        if is_head and every == 1:
            yield from ((name, at, bit) for at in range(len(data)) for bit in range(8))
        else:
            step = 1 if is_head else every
            for start in range(0, len(data), step):
                yield name, generator.randrange(start, min(start + step, len(data))), generator.randrange(8)


def flipped(files: Files, name: str, at: int, bit: int) -> Files:
    data = bytearray(files[name])
    data[at] ^= 1 << bit
    return files | {name: bytes(data)}


def is_named(path: str, words: str) -> bool:
    """Whether the words name the file, or an entry of it."""
    return path in words or (path.startswith("tile/entries/") and "entry " in words)


def check_every_flip(made: Made, every: int) -> int:
    """Every flip is refused with words that name the file; returns how many there were."""
    files, count = files_of(made.trace), 0
    assert verify(files, made.verifier).verdict is Verdict.HOLDS
    for name, at, bit in flips(files, every, random.Random(3)):
        report = verify(flipped(files, name, at, bit), made.verifier)
        assert report.exit_code == 1, f"bit {bit} of byte {at} of {name} was flipped and not refused"
        assert is_named(name, words_of(report)), f"bit {bit} of byte {at} of {name}: {words_of(report)}"
        count += 1
    return count


def test_one_bit_in_every_byte_of_a_sealed_trace_is_refused(small: Made) -> None:
    size = sum(map(len, files_of(small.trace).values()))
    assert 24_000 < size < 48_000
    assert check_every_flip(small, 1) > size


def test_one_bit_in_every_64_bytes_of_a_longer_trace_is_refused(large: Made) -> None:
    assert check_every_flip(large, 64) > 1000


@pytest.mark.parametrize("trace", ["small", "large"])
@pytest.mark.parametrize("deed", ["removed", "renamed", "appended to", "emptied"])
def test_no_file_is_lost_moved_or_grown_unnoticed(trace: str, deed: str, request: pytest.FixtureRequest) -> None:
    made: Made = request.getfixturevalue(trace)
    files = files_of(made.trace)
    deeds: dict[str, Callable[[str, bytes], Files]] = {
        "removed": lambda name, data: {},
        "renamed": lambda name, data: {name + "x": data},
        "appended to": lambda name, data: {name: data + b"\0"},
        "emptied": lambda name, data: {name: b""},
    }
    for name, data in files.items():
        changed = {n: d for n, d in files.items() if n != name} | deeds[deed](name, data)
        report = verify(changed, made.verifier)
        assert report.exit_code == 1, f"{name} was {deed} and not refused"
        assert name in words_of(report), f"{name} was {deed}: {words_of(report)}"


@pytest.mark.parametrize("trace", ["small", "large"])
def test_no_two_files_change_places_unnoticed(trace: str, request: pytest.FixtureRequest) -> None:
    made: Made = request.getfixturevalue(trace)
    files = files_of(made.trace)
    for first in files:
        for second in files:
            if first < second and files[first] != files[second]:
                report = verify(files | {first: files[second], second: files[first]}, made.verifier)
                assert report.exit_code == 1, f"{first} and {second} changed places and were not refused"
                words = words_of(report)
                assert is_named(first, words) or is_named(second, words), f"{first}, {second}: {words}"


def test_a_file_that_no_entry_explains_is_refused(small: Made) -> None:
    for name in ("README", "tile/0/001", "index/5/checkpoint", "journal/99.seal", "receipts/1/x", "tile/9/000.p/1"):
        report = verify(files_of(small.trace) | {name: b"x"}, small.verifier)
        assert report.exit_code == 1
        assert name in words_of(report)


# -- derived files ----------------------------------------------------------------------------------------------------


def is_derived(name: str) -> bool:
    return name.endswith((".npy", ".seal"))


def sample_at(made: Made, tree: Tree, name: str, at: int, generator: random.Random) -> str:
    """The sample whose row of the column lies at a byte of its file, or any where that is not a sample's."""
    column, offset = Path(name).stem, at - 128  # the header of these files has 128 bytes
    leaf = generator.randrange(len(made.ids))
    if offset >= 0 and column in ("keys", "digests", "offsets"):
        leaf = offset // {"keys": 33, "digests": 32, "offsets": 8}[column]
    elif offset >= 0 and column == "values":
        leaf = int(np.searchsorted(tree.columns.offsets, offset, side="right")) - 1
    leaf = min(leaf, len(made.ids) - 1)  # contents come after the samples
    return "id:" + tree.columns.keys[leaf].tobytes()[1:].hex()


def test_a_flip_in_a_derived_file_gives_the_true_history_and_proof_or_an_error(small: Made) -> None:
    """A column's bytes are changed under the mapping of an open trace; its header and the plan, before it is opened."""
    key, path = small.signer.public_key.hex(), small.trace.path
    size = small.trace.full_seals()[-1]
    tree = load_index(small.trace.mapped, size, b"")
    mapped = fgtrac.open(path, key=key)
    samples = ["id:" + sample.hex() for sample in small.ids]
    truth = {s: (mapped.history(s).events, mapped.prove(s)) for s in samples}
    generator, errors = random.Random(4), 0
    derived = {name: data for name, data in files_of(small.trace).items() if is_derived(name)}
    keys = np.array(tree.columns.keys)
    steady = Tree(Columns(keys, np.array(tree.columns.offsets), np.array(tree.columns.values)), keys, keys, b"")
    for name, at, bit in flips(derived, 1, generator):
        asked = sample_at(small, steady, name, at, generator)
        with in_place(path / name, at, derived[name][at] ^ 1 << bit):
            try:
                trace = mapped if name.endswith(".npy") and at >= 128 else fgtrac.open(path, key=key)
                found = trace.history(asked).events, trace.prove(asked)
            except FgtracError:
                errors += 1
                continue
        assert found == truth[asked], f"bit {bit} of byte {at} of {name} changed the answer about {asked}"
    assert errors > sum(map(len, derived.values())) // 2


@contextmanager
def in_place(path: Path, at: int, byte: int) -> Iterator[None]:
    """One byte of a file is another for a while."""
    with path.open("r+b", buffering=0) as file:
        file.seek(at)
        before = file.read(1)
        try:
            file.seek(at)
            file.write(bytes((byte,)))
            yield
        finally:
            file.seek(at)
            file.write(before)


# -- a journal that is not sealed -------------------------------------------------------------------------------------


@cache
def _frames(data: bytes) -> tuple[tuple[int, bytes], ...]:
    return scan(data).frames


def test_a_flip_in_the_unsealed_tail_is_reported_and_costs_its_own_frame_only(tailed: Made) -> None:
    files = files_of(tailed.trace)
    (segment,) = [name for name in files if name.endswith(".wal")]
    frames = _frames(files[segment])
    assert len(frames) > 10
    generator = random.Random(5)
    for at in range(len(files[segment])):
        changed = flipped(files, segment, at, generator.randrange(8))
        report = verify(changed, tailed.verifier)
        (journal,) = [f for f in report.findings if f.check == "journal"]
        assert journal.verdict is not Verdict.HOLDS
        assert segment in journal.words
        hit = max(start for start, _ in frames if start <= at)
        assert scan(changed[segment]).frames == tuple(f for f in frames if f[0] != hit)
        assert f"{len(frames) - 1} entries are whole" in journal.words
        if hit != frames[-1][0]:
            assert report.exit_code == 1
            assert f"at offset {hit}" in journal.words


def test_a_flip_anywhere_else_beside_an_unsealed_tail_is_refused(tailed: Made) -> None:
    files = files_of(tailed.trace)
    for name, at, bit in flips(files, 16, random.Random(6)):
        if not name.endswith(".wal"):
            report = verify(flipped(files, name, at, bit), tailed.verifier)
            assert report.exit_code == 1, f"bit {bit} of byte {at} of {name}"
            assert is_named(name, words_of(report))


def test_no_file_beside_an_unsealed_tail_is_removed_unnoticed(tailed: Made) -> None:
    files = files_of(tailed.trace)
    for name in files:
        report = verify({n: d for n, d in files.items() if n != name}, tailed.verifier)
        if not name.endswith(".wal"):
            assert report.exit_code == 1, f"{name} was removed and not refused"
            assert name in words_of(report)


def test_losing_the_whole_unsealed_tail_cannot_be_noticed_since_nothing_was_promised_of_it(tailed: Made) -> None:
    files = files_of(tailed.trace)
    report = verify({n: d for n, d in files.items() if not n.endswith(".wal")}, tailed.verifier)
    assert report.verdict is Verdict.HOLDS
    assert any("no end entry" in note for note in report.notes)


def test_a_renamed_or_mixed_up_segment_is_refused(tailed: Made) -> None:
    files = files_of(tailed.trace)
    (segment,) = [name for name in files if name.endswith(".wal")]
    rest = {n: d for n, d in files.items() if n != segment}
    for name in (segment + "x", "journal/" + "0" * 32 + "-0.wal", "journal/other.wal"):
        report = verify(rest | {name: files[segment]}, tailed.verifier)
        assert report.exit_code == 1
        assert name in words_of(report)


def test_bytes_at_the_end_of_a_segment_are_reported(tailed: Made) -> None:
    files = files_of(tailed.trace)
    (segment,) = [name for name in files if name.endswith(".wal")]
    report = verify(files | {segment: files[segment] + b"\1"}, tailed.verifier)
    assert f"{segment} ends in 1 bytes of a frame" in "; ".join(f.words for f in report.failures())


# -- what is exempt ---------------------------------------------------------------------------------------------------


def test_only_an_unknown_cosignature_line_may_change_as_the_specification_says(small: Made) -> None:
    files = files_of(small.trace)
    note = parse_note(files["checkpoint"])
    cosignature = Signature("witness.example", b"\1\2\3\4", bytes(72))
    files["checkpoint"] = format_note(Note(note.text, (*note.signatures, cosignature)))
    assert verify(files, small.verifier).verdict is Verdict.HOLDS
    start = files["checkpoint"].index(b"witness.example") - 4  # the dash and the space in front of it
    for at in range(len(files["checkpoint"])):
        for bit in range(8):
            report = verify(flipped(files, "checkpoint", at, bit), small.verifier)
            if report.exit_code != 1:
                assert at >= start, f"bit {bit} of byte {at} of the signed part was flipped and not refused"
                assert report.verdict is Verdict.HOLDS
            else:
                assert "checkpoint" in words_of(report)
