"""Seals: what they move, what they sign, what they leave on disk, and what they refuse."""

from __future__ import annotations

import contextlib
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fgtrac.commit import sequencer
from fgtrac.commit.sequencer import last_seqs
from fgtrac.errors import FgtracError, ProofError, TamperError
from fgtrac.events.postings import PostingTable
from fgtrac.events.schema import decode_event
from fgtrac.store import durable
from fgtrac.store.journal import HEADER, JournalWriter
from fgtrac.tlog import index, merkle
from fgtrac.tlog.note import parse_note, parse_tree_head, verify_note
from fgtrac.tlog.npy import COLUMNS, column_path
from fgtrac.tlog.tiles import all_tiles, partial_tiles, tiles_of

A, B = b"a" * 16, b"b" * 16


def recursive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, as it is written there."""
    if not leaves:
        return merkle.EMPTY_ROOT
    if len(leaves) == 1:
        return merkle.leaf_hash(leaves[0])
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return merkle.node_hash(recursive_root(leaves[:k]), recursive_root(leaves[k:]))


def assert_is_whole(world) -> None:
    """Everything on disk is what the log's entries alone imply: tiles, root, signature, index, and no other file."""
    head = world.trace.head()
    entries = world.log()
    assert head.root == recursive_root(entries)
    verify_note(world.trace.read("checkpoint"), [world.signer.verifier])
    for tile, data in all_tiles(b"".join(merkle.hash_leaves(entries))):
        assert world.trace.read(tile.path) == data
    seals = [n + 1 for n, e in enumerate(entries) if decode_event(e)["kind"] == "seal"]
    expected = {t.path for t in tiles_of(head.size)} | {t.path for s in seals for t in partial_tiles(s)}
    expected |= {f"index/{s}/checkpoint" for s in seals} | {"checkpoint", f"journal/{head.size}.seal"}
    if seals:
        expected |= {column_path(seals[-1], c) for c in COLUMNS}
        assert_index_is_the_one_from_scratch(world, entries[: seals[-1]])
    present = {n for n in world.trace.names() if not n.endswith(".wal")}
    assert present == expected


def assert_index_is_the_one_from_scratch(world, entries: list[bytes]) -> None:
    table = PostingTable()
    for number, entry in enumerate(entries[:-1]):
        table.add(number, decode_event(entry))
    tree = index.build(index.Columns(*table.columns()))
    said = decode_event(entries[-1])
    assert (said["root"], said["leaves"], said["entries"]) == (tree.root, len(tree), len(entries) - 1)
    kinds = [decode_event(e)["kind"] for e in entries[:-1]]
    assert said["counts"] == {k: kinds.count(k) for k in kinds}
    for name, array in {"keys": tree.columns.keys, "values": tree.columns.values, "nodes": tree.nodes}.items():
        assert np.array_equal(np.load(world.trace.path / column_path(len(entries), name)), array)


def test_a_plain_seal_moves_the_journal_into_the_log_and_signs_it(world) -> None:
    entries = [*world.begin(A), world.use(A, 1, [0, 1, 2])]
    world.write(*entries)
    world.close(A)
    result = world.seal(full=False)
    assert (result.size, result.new_entries, result.full) == (4, 4, False)
    assert world.log() == entries
    assert not list(world.trace.journal.glob("*.wal"))
    assert_is_whole(world)


def test_a_full_seal_ends_in_a_seal_entry_over_everything_before_it(world) -> None:
    world.write(*world.begin(A), world.use(A, 1, [0, 1]), world.use(A, 2, [2]))
    result = world.seal(full=True)
    assert result.full
    assert world.kinds()[-1] == "seal"
    assert decode_event(world.log()[-1])["epoch_steps"].tolist() == [1]
    assert_is_whole(world)


def test_sealing_twice_writes_nothing_the_second_time(world) -> None:
    world.write(*world.begin(A))
    world.seal(full=True)
    before = {n: world.trace.read(n) for n in world.trace.names()}
    assert world.seal(full=True).new_entries == 0
    assert {n: world.trace.read(n) for n in world.trace.names()} == before


def test_a_full_seal_after_a_plain_one_adds_only_the_seal_entry(world) -> None:
    world.write(*world.begin(A))
    world.seal(full=False)
    assert world.seal(full=True).new_entries == 1
    assert_is_whole(world)


def test_writers_come_in_the_order_of_their_first_entry_and_each_stays_together(world) -> None:
    first, second = world.begin(A), [world.metrics(B, 1)]
    third = [world.metrics(A, 2)]
    world.write(*second)
    world.write(*first)
    world.write(*third)
    world.seal(full=False)
    assert world.log() == [*first, *third, *second]


def test_a_segment_that_its_writer_still_holds_is_sealed_but_not_deleted(world) -> None:
    world.write(*world.begin(A))
    world.seal(full=False)
    assert list(world.trace.journal.glob("*.wal"))
    late = world.metrics(A, 5)
    world.write(late)
    world.close(A)
    assert world.seal(full=False).new_entries == 1
    assert world.log()[-1] == late
    assert not list(world.trace.journal.glob("*.wal"))


def test_what_a_writer_adds_while_a_seal_is_at_work_and_then_lets_go_is_not_deleted(world, monkeypatch) -> None:
    world.write(*world.begin(A))
    late = world.metrics(A, 9)
    execute = sequencer._execute

    def meanwhile(*arguments):
        world.write(late)
        world.close(A)
        return execute(*arguments)

    monkeypatch.setattr(sequencer, "_execute", meanwhile)
    world.seal(full=False)
    monkeypatch.undo()
    world.seal(full=False)
    assert world.log()[-1] == late


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 90), st.booleans(), st.booleans()), min_size=1, max_size=7), st.integers(0, 2**32)
)
def test_many_seals_give_the_log_and_the_index_that_one_would(make_world, history, seed) -> None:
    world, chance = make_world(), random.Random(seed)
    world.write(*world.begin(A))
    step = 0
    for count, full, other in history:
        for _ in range(count):
            step += 1
            if chance.random() < 0.5:
                world.write(world.metrics(A, step))
            else:
                world.write(world.use(A, step, chance.sample(range(20), chance.randint(1, 5))))
        if other:
            world.write(world.metrics(B, step))
        if chance.random() < 0.3:
            world.close(A)
        world.seal(full=full)
        assert_is_whole(world)
    world.seal(full=True)
    assert_is_whole(world)


def test_the_cost_of_a_plain_seal_follows_what_is_new(world, monkeypatch) -> None:
    world.write(*world.begin(A), *(world.metrics(A, n) for n in range(2000)))
    world.seal(full=True)
    world.write(world.metrics(A, 2001))
    read: list[str] = []
    original = type(world.trace).read
    monkeypatch.setattr(type(world.trace), "read", lambda self, path: (read.append(path), original(self, path))[1])
    world.seal(full=False)
    tiles = [p for p in read if p.startswith("tile/")]
    assert 0 < len(set(tiles)) <= 4  # the partial bundle and one partial tile a level


@pytest.mark.parametrize("function", ["_write", "_fsync", "_rename", "_remove"])
def test_a_seal_survives_the_failure_of_every_single_system_call(make_world, monkeypatch, function) -> None:
    original, number, failed = getattr(durable, function), 0, True
    while failed:
        world = make_world()
        world.write(*world.begin(A), world.use(A, 1, [1]))
        world.seal(full=True)
        world.write(world.use(A, 2, [2]), world.metrics(A, 2))
        world.close(A)
        calls, failed = 0, False

        def sometimes(*arguments, _original=original, _number=number):
            nonlocal calls, failed
            calls += 1
            if calls == _number + 1:
                failed = True
                raise OSError(28, "no space left on device")
            return _original(*arguments)

        monkeypatch.setattr(durable, function, sometimes)
        with contextlib.suppress(OSError):
            world.seal(full=True)
        monkeypatch.setattr(durable, function, original)
        notes_before = parse_tree_head(parse_note(world.signer.last()[1]).text)
        world.seal(full=True)
        assert world.kinds() == ["run", "dataset", "samples", "use", "seal", "use", "metrics", "seal"]
        if notes_before.size == world.trace.head().size:
            assert notes_before.root == world.trace.head().root  # never two signatures for one size
        assert_is_whole(world)
        shutil.rmtree(world.trace.path.parent)
        number += 1
    assert number > 2


def test_a_signed_head_that_was_not_published_is_published_as_it_was_signed(world, monkeypatch) -> None:
    world.write(*world.begin(A))
    world.close(A)
    original = durable._rename

    def fail_at_the_head(source: Path, target: Path) -> None:
        if target == world.trace.path / "checkpoint":
            raise OSError(5, "cut")
        original(source, target)

    monkeypatch.setattr(durable, "_rename", fail_at_the_head)
    with pytest.raises(OSError, match="cut"):
        world.seal(full=True)
    monkeypatch.undo()
    signed = world.signer.last()[1]
    world.seal(full=False)
    assert world.trace.read("checkpoint") == signed
    assert_is_whole(world)


def test_a_removed_tree_head_is_restored_from_the_signer(world) -> None:
    world.write(*world.begin(A))
    world.close(A)
    world.seal(full=True)
    note = world.trace.read("checkpoint")
    (world.trace.path / "checkpoint").unlink()
    world.seal(full=True)
    assert world.trace.read("checkpoint") == note


def test_a_trace_rolled_back_behind_what_was_signed_is_refused(world, tmp_path) -> None:
    world.write(*world.begin(A))
    world.close(A)
    world.seal(full=False)
    shutil.copytree(world.trace.path, tmp_path / "old")
    world.write(world.metrics(A, 1))
    world.close(A)
    world.seal(full=False)
    shutil.rmtree(world.trace.path)
    shutil.copytree(tmp_path / "old", world.trace.path)
    with pytest.raises(TamperError, match="this key signed 4 entries"):
        world.seal(full=False)


def test_a_log_whose_right_edge_was_changed_is_not_extended(world) -> None:
    world.write(*world.begin(A))
    world.seal(full=False)
    path = world.trace.path / "tile/0/000.p/3"
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    world.write(world.metrics(A, 1))
    with pytest.raises(TamperError, match="do not lead to its root"):
        world.seal(full=False)


def test_another_key_does_not_extend_the_log(world) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    world.write(*world.begin(A))
    world.seal(full=False)
    world.key = Ed25519PrivateKey.from_private_bytes(b"x" * 32)
    world.state = world.state.with_name("other")
    with pytest.raises(ProofError, match="not by"):
        world.seal(full=True)


def test_a_false_index_and_plan_written_by_a_stranger_are_not_signed(world) -> None:
    """Who can write the trace but not the signer's state cannot have a full seal rest on columns of theirs."""
    world.write(*world.begin(A), world.use(A, 1, [3]))
    world.seal(full=True)
    size = world.trace.head().size
    (world.trace.path / f"journal/{size}.seal").unlink()
    values = world.trace.path / column_path(size, "values")
    data = bytearray(values.read_bytes())
    data[-1] ^= 1
    values.write_bytes(data)
    world.write(world.metrics(A, 2))
    world.seal(full=True)
    assert_index_is_the_one_from_scratch(world, world.log())


@pytest.mark.parametrize("column", COLUMNS)
def test_a_lost_or_damaged_index_column_is_rebuilt_by_the_next_seal(world, column) -> None:
    world.write(*world.begin(A), world.use(A, 1, [3]))
    world.close(A)
    world.seal(full=True)
    size = world.trace.head().size
    true = world.trace.read(column_path(size, column))
    (world.trace.path / column_path(size, column)).unlink()
    world.seal(full=True)
    assert world.trace.read(column_path(size, column)) == true
    assert_is_whole(world)


def test_a_damaged_frame_becomes_a_gap_and_no_other_entry_is_lost(world) -> None:
    entries = [*world.begin(A), *(world.metrics(A, n) for n in range(6))]
    world.write(*entries)
    world.close(A)
    (path,) = world.trace.journal.glob("*.wal")
    data = bytearray(path.read_bytes())
    data[sum(len(e) + HEADER.size for e in entries[:5]) + HEADER.size + 3] ^= 4  # inside entry 5
    path.write_bytes(data)
    world.seal(full=True)
    *kept, gap, _seal = world.log()
    assert kept == entries[:5] + entries[6:]
    said = decode_event(gap)
    assert (said["lost_writer"], said["first"], said["stop"]) == (A, 5, 6)
    assert path.name in said["detail"]
    assert path.with_name(path.name + ".damaged").read_bytes() == bytes(data)  # set aside, not thrown away


def test_a_gap_that_the_writer_itself_recorded_is_not_recorded_again(world) -> None:
    world.write(*world.begin(A))
    world.metrics(A, 1)  # never written
    lost = {"reason": "write failed", "lost_writer": A, "first": 3, "stop": 4}
    world.write(world.entry(A, "gap", lost))
    world.close(A)
    world.seal(full=True)
    assert world.kinds() == ["run", "dataset", "samples", "gap", "seal"]


def test_a_frame_that_contradicts_a_sealed_one_is_tampering(world) -> None:
    world.write(*world.begin(A))
    world.close(A)
    writer = JournalWriter(world.trace.journal, A, 7)
    world.seqs[A] = 3
    writer.append([world.metrics(A, 1)])
    world.seqs[A] = 3
    writer.append([world.metrics(A, 2)])
    writer.close()
    with pytest.raises(TamperError, match="stands for two entries"):
        world.seal(full=False)


def test_uses_of_unregistered_samples_refuse_a_full_seal_and_allow_a_plain_one(world) -> None:
    entries = world.begin(A)
    world.write(*entries[:2])
    world.write(world.use(A, 1, [1]))
    with pytest.raises(FgtracError, match="not registered"):
        world.seal(full=True)
    assert not (world.trace.path / "checkpoint").exists()
    world.seal(full=False)
    assert "use" in world.kinds()


def test_a_seal_that_stops_before_an_entry_leaves_it_to_the_next(world) -> None:
    world.write(*world.begin(A), world.metrics(A, 1), world.metrics(A, 2))
    world.write(world.metrics(B, 1), world.metrics(B, 2))
    first = sequencer.seal(world.trace, world.signer, full=False, clock=lambda: 10**9, before={A: 4})
    assert (first.size, world.kinds().count("metrics")) == (6, 3)
    assert last_seqs(world.trace) == {A: 4, B: 1}
    none = sequencer.seal(world.trace, world.signer, full=False, clock=lambda: 10**9, before={A: 4})
    assert (none.size, none.new_entries) == (6, 0)
    world.close(A)
    world.close(B)
    assert world.seal(full=False).new_entries == 1
    seqs = [(e["writer"], e["seq"]) for e in map(decode_event, world.log())]
    assert seqs == [(A, 0), (A, 1), (A, 2), (A, 3), (B, 0), (B, 1), (A, 4)]


def test_only_one_sealer_works_at_a_time(world) -> None:
    world.write(*world.begin(A))
    with durable.lock(world.signer.lock_path, "x"), pytest.raises(BlockingIOError, match="being sealed"):
        world.seal(full=False)


def test_last_seqs_see_the_log_and_the_journal(world) -> None:
    world.write(*world.begin(A))
    world.seal(full=False)
    world.write(world.metrics(A, 1))
    world.write(world.metrics(B, 1))
    assert last_seqs(world.trace) == {A: 3, B: 0}
    for plan in world.trace.journal.glob("*.seal"):
        plan.unlink()
    assert last_seqs(world.trace) == {A: 3, B: 0}
