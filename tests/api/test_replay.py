"""Replay: the order of every announced epoch is drawn again, and what was left out, repeated or slipped in is named."""

from __future__ import annotations

import hashlib
import os
import re
import signal
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from fgtrac.api.audit import audit_trace
from fgtrac.api.replay import replay_demand
from fgtrac.api.sealing import seal_trace
from fgtrac.api.since import since_demand
from fgtrac.commit.signer import load_key
from fgtrac.demo.forge import all_entries, reseal
from fgtrac.events.codec import encode
from fgtrac.events.orders import encode_placement
from fgtrac.events.schema import NO_STEP, STATUS, decode_event, encode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.note import Verifier
from forge_factors import put_artifacts
from replays import (
    CANNOT_TELL,
    DATA,
    HOLDS,
    REFUTED,
    ROWS,
    Batches,
    Event,
    Options,
    begin,
    exchange_a_sample,
    forge,
    identity,
    lie,
    remove_a_sample,
    replayed,
    report,
    rewrite,
    train,
)

KINDS: dict[str, Callable[[Any], Options]] = {
    "in order": lambda g: {"batch_size": 7, "generator": g},
    "shuffled": lambda g: {"batch_size": 7, "shuffle": True, "generator": g},
    "last dropped": lambda g: {"batch_size": 7, "shuffle": True, "drop_last": True, "generator": g},
    "one by one": lambda g: {"batch_size": None, "sampler": RandomSampler(DATA, generator=g), "generator": g},
    "with replacement": lambda g: {"batch_size": 8, "sampler": RandomSampler(DATA, True, 77, generator=g)},
    "round and round": lambda g: {"batch_size": 8, "sampler": RandomSampler(DATA, num_samples=97, generator=g)},
    "a few": lambda g: {"batch_size": 8, "sampler": RandomSampler(DATA, num_samples=17, generator=g)},
    "weighted": lambda g: {"batch_size": 8, "sampler": WeightedRandomSampler(range(1, 41), 60, generator=g)},
    "weighted once": lambda g: {"batch_size": 8, "sampler": WeightedRandomSampler([0.5] * 40, 30, False, generator=g)},
    "subset": lambda g: {"batch_size": 4, "sampler": SubsetRandomSampler([9, 1, 5, 30, 2, 7], generator=g)},
    "own batches": lambda g: {"batch_sampler": BatchSampler(RandomSampler(DATA, generator=g), 6, True)},
    "a share": lambda g: {"batch_size": 5, "sampler": DistributedSampler(DATA, 3, 1), "generator": g},
    "a whole share": lambda g: {"batch_size": 5, "sampler": DistributedSampler(DATA, 3, 2, False, drop_last=True)},
}


AHEAD = ("shuffled", "one by one", "with replacement", "weighted")  # workers are sent the indices that would be read


@pytest.mark.parametrize("given_generator", [False, True], ids=["global", "own"])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_sampler_of_torch_is_drawn_again_as_it_was(tmp_path: Path, workers: int, given_generator: bool) -> None:
    for name in AHEAD if workers else KINDS:
        generator = torch.Generator().manual_seed(3) if given_generator else None
        (folder := tmp_path / name).mkdir()
        with begin(folder, ids="keyed" if workers else "public") as run:
            train(run.watch(DataLoader(DATA, num_workers=workers, **KINDS[name](generator)), role="train"))
        found = replayed(folder)
        assert (found.verdict, found.words[:13]) == (HOLDS, "2 of 2 epochs"), (name, found.words)


def test_what_it_rests_on_is_said(shuffled: Path) -> None:
    words = replayed(shuffled).words
    assert words.startswith("2 of 2 epochs (10 batches) have the order that their sampler entries announced")
    assert "only where a head with those entries was anchored or handed out before the epoch began" in words


def drop(batches: Batches) -> None:
    del batches[2]


def drop_and_close_up(batches: Batches) -> None:
    del batches[2]
    for number, (columns, _) in enumerate(batches):
        columns["batch"] = number


def repeat(batches: Batches) -> None:
    columns, samples = batches[1]
    batches.append((columns | {"batch": 5, "step": columns["step"] + 90}, samples))


def repeat_in_one_update(batches: Batches) -> None:
    batches.insert(2, batches[1])


def swap(batches: Batches) -> None:
    batches[1], batches[3] = (batches[1][0], batches[3][1]), (batches[3][0], batches[1][1])


def turn_around(batches: Batches) -> None:
    batches[1][1][:2] = batches[1][1][1::-1]


def slip_in_a_sample(batches: Batches) -> None:
    batches[0][1].append(batches[1][1][0])


LIES = {
    drop: r"loader 1, epoch 0, announced by entry 5: batch 2 of its order is in no entry, and later ones are",
    drop_and_close_up: r"loader 1, epoch 0, batch 2, entry \d+: has sample \w{64}, sample \w{64} and 6 more and lacks ",
    repeat: r"loader 1, epoch 0: entry \d+ has batch 5, and the order has 5 batches",
    repeat_in_one_update: r"batch 1, entry \d+: has sample \w{64}, sample \w{64} and 6 more, against the order",
    swap: r"batch 1, entry \d+: has sample .* and lacks sample .*; loader 1, epoch 0, batch 3, entry \d+: has sample",
    turn_around: r"batch 1, entry \d+: sample \w{64} stands where the order has sample \w{64}, of the same batch",
    remove_a_sample: r"batch 4, entry \d+: lacks sample \w{64}, against the order",
    slip_in_a_sample: r"batch 0, entry \d+: has sample \w{64}, against the order",
    exchange_a_sample: r"batch 3, entry \d+: has sample \w{64} and lacks sample \w{64}, against the order",
}


@pytest.mark.parametrize("told", LIES, ids=lambda told: told.__name__)
def test_a_lie_about_what_was_delivered_is_named(shuffled: Path, told: Callable[[Batches], Any]) -> None:
    lie(shuffled, told)
    found = report(shuffled)
    refuted = [f for f in found.findings if f.verdict is REFUTED]
    assert [f.check for f in refuted] == ["samplers"], found.failures()
    assert re.search(LIES[told], refuted[0].words), refuted[0].words


def announce_what_is_left(folder: Path) -> None:
    """Leave batch 2 out, and announce in place of the drawn order one that goes through a data set which just happens
    to be arranged like what is left."""
    trace = TraceDir.open(folder / "run.trace")
    lie(folder, drop_and_close_up)
    events = [decode_event(entry) for entry in all_entries(trace)]
    (use,) = [e for e in events if e["kind"] == "use"]
    placed = encode_placement((use["block"],), use["ordinals"], None)
    (artifact,) = [e for e in events if e["kind"] == "artifact"]
    said = {"rows": len(use["ordinals"]), "batch_size": 8, "drop_last": False, "torch": str(torch.__version__)}
    state = encode({"placement": hashlib.sha256(placed).digest()})
    told = {"sampler": "SequentialSampler", "parameters": said, "state": state}
    rewritten = [encode_event(e | told if e["kind"] == "sampler" else e) for e in events]
    reseal(trace, put_artifacts(trace, rewritten, {artifact["path"]: placed}), load_key(folder / "key.pem"))


def test_another_order_can_be_announced_afterwards_unless_somebody_holds_a_head_from_before(tmp_path: Path) -> None:
    held = tmp_path / "held"
    with begin(tmp_path, ids="public") as run:
        for number, _batch in enumerate(run.watch(DataLoader(DATA, batch_size=8, shuffle=True), role="train")):
            if number == 0:
                run._sealer.now()
                held.write_bytes((run.path / "checkpoint").read_bytes())
    trace, key = TraceDir.open(run.path), load_key(tmp_path / "key.pem")
    verifier = Verifier(f"fgtrac/{identity(trace).hex()}", key.public_key().public_bytes_raw())
    demands = [replay_demand(trace.path, identity(trace)), since_demand(held)]
    assert audit_trace(trace, verifier, demands=demands).verdict is HOLDS
    announce_what_is_left(tmp_path)
    found = {f.check: f for f in audit_trace(trace, verifier, demands=demands).findings}
    assert {name for name, f in found.items() if f.verdict is not HOLDS} == {"since"}
    assert found["samplers"].words.startswith("1 of 1 epoch")
    assert "only where a head with those entries was anchored or handed out before" in found["samplers"].words


def test_a_missing_end_is_counted_and_not_refuted(shuffled: Path) -> None:
    lie(shuffled, lambda batches: batches.__delitem__(slice(3, 5)), epoch=1)
    found = replayed(shuffled)
    assert found.verdict is CANNOT_TELL
    assert "1 of 2 epochs (5 batches) have the order" in found.words
    assert (
        "loader 1, epoch 1, announced by entry 6: its last 2 of 5 batches were never delivered, or left out"
        in found.words
    )


def test_an_epoch_that_ended_early_is_told_like_one_that_lost_its_end(tmp_path: Path) -> None:
    with begin(tmp_path) as run:
        train(run.watch(DataLoader(DATA, batch_size=8, shuffle=True), role="train"), epochs=1, stop=2)
    found = replayed(tmp_path)
    assert found.verdict is CANNOT_TELL
    assert "its last 2 of 5 batches were never delivered" in found.words  # batch 2 was delivered, and not trained on


def test_in_a_run_without_an_end_a_batch_may_have_been_lost_with_the_process(shuffled: Path) -> None:
    def interrupted(events: list[Event]) -> list[Event]:
        *rest, end, seal = events
        assert end["kind"] == "end"
        return [*rest, seal]

    forge(shuffled, interrupted)
    assert replayed(shuffled).verdict is HOLDS
    lie(shuffled, drop)
    found = replayed(shuffled)
    assert found.verdict is CANNOT_TELL
    assert "batch 2 of its order is in no entry, and later ones are: its process wrote no end" in found.words
    lie(shuffled, lambda batches: batches[4][1].pop(), epoch=1)
    found = replayed(shuffled)
    assert found.verdict is CANNOT_TELL
    assert re.search(r"epoch 1, batch 4, entry \d+: lacks sample \w{64}, .*: its process wrote no end", found.words)
    lie(shuffled, exchange_a_sample, epoch=1)
    assert replayed(shuffled).verdict is REFUTED


@pytest.mark.parametrize("batches", [1, 7, 13])
def test_a_killed_process_is_not_accused(tmp_path: Path, batches: int) -> None:
    both = ConcatDataset([DATA, TensorDataset(torch.randn(9, 4), torch.zeros(9, dtype=torch.int64))])
    child = os.fork()
    if child == 0:
        try:
            run = begin(tmp_path, ids="public", flush_interval_s=0.002)
            loader = run.watch(DataLoader(both, batch_size=8, shuffle=True), role="train")
            train(islice(chain(loader, loader), batches), epochs=1)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    seal_trace(tmp_path / "run.trace", tmp_path / "key.pem")
    found = replayed(tmp_path)
    assert found.verdict is CANNOT_TELL, found.words
    with begin(tmp_path, resume=True) as run:
        train(run.watch(DataLoader(both, batch_size=8, shuffle=True), role="train"), epochs=1)
    found = replayed(tmp_path)
    assert found.verdict is CANNOT_TELL, found.words
    assert re.match(r"[12] of [23] epochs", found.words)


def test_two_optimizers_and_batches_that_fill_several_entries(tmp_path: Path) -> None:
    model, critic = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, critic)]
    with begin(tmp_path) as run:
        for inputs, labels in run.watch(DataLoader(DATA, batch_size=8, shuffle=True), role="train"):
            torch.nn.functional.cross_entropy(model(inputs) + critic(inputs), labels).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        list(run.watch(DataLoader([0] * 40_000, batch_size=20_000, collate_fn=len, shuffle=True)))
    uses = [e for e in map(decode_event, all_entries(TraceDir.open(tmp_path / "run.trace"))) if e["kind"] == "use"]
    assert {e["optimizer"] for e in uses} == {0, 1, 2}
    assert len(uses) > 4
    assert replayed(tmp_path).verdict is HOLDS


def test_thrown_away_twice_is_no_repeated_batch(shuffled: Path) -> None:
    def discard(batches: Batches) -> None:
        columns, samples = batches[1]
        thrown = columns | {"status": STATUS["discarded"], "step": NO_STEP}
        batches[2:2] = [(thrown, samples), (thrown, samples)]

    lie(shuffled, discard)
    assert replayed(shuffled).verdict is HOLDS
    lie(shuffled, lambda batches: batches[2][1].pop())
    assert replayed(shuffled).verdict is REFUTED


def test_an_epoch_whose_announcement_is_gone_cannot_be_told(shuffled: Path) -> None:
    def renamed(event: Event) -> Event:  # as somebody who removes the entry and keeps the numbers has to
        return event if event["epoch"] else event | {"epoch": 7}

    rewrite(shuffled, "sampler", renamed)
    found = replayed(shuffled)
    assert found.verdict is CANNOT_TELL
    assert "loader 1, epoch 0: no sampler entry announces it" in found.words
    assert "loader 1, epoch 7: none of its batches is in the log" in found.words
    assert "loader 1, epoch 2: no entry is about it, and later epochs have some" in found.words


def test_an_order_announced_behind_its_batches_or_twice_is_refuted(shuffled: Path) -> None:
    def moved(events: list[Event]) -> list[Event]:
        at = max(n for n, e in enumerate(events) if e["kind"] == "sampler")
        announced, use = events[at], events[-3]
        assert (use["kind"], use["epoch"][-1]) == ("use", 1)
        numbered = [e["seq"] for e in events[at:-2]]
        rest = [*events[at + 1 : -2], announced]
        return [*events[:at], *({**e, "seq": n} for e, n in zip(rest, numbered, strict=True)), *events[-2:]]

    forge(shuffled, moved)
    found = replayed(shuffled)
    assert found.verdict is REFUTED
    assert "announces loader 1, epoch 1, whose batches entry" in found.words
    rewrite(shuffled, "sampler", lambda event: event | {"epoch": 3})
    assert "both announce loader 1, epoch 3" in replayed(shuffled).words


def test_a_subset_of_several_data_sets_with_keys_of_their_own(tmp_path: Path) -> None:
    other = TensorDataset(torch.randn(12, 4), torch.zeros(12, dtype=torch.int64))
    both = Subset(ConcatDataset([DATA, other]), list(range(51, 5, -2)))
    with begin(tmp_path) as run:
        run.register(DATA, name="digits", key=lambda row: f"image {row * 7 % ROWS}", role="train")
        kept = run.transform("odd", both).filter(lambda item: float(item[0][0]) > -1)
        train(run.watch(DataLoader(kept, batch_size=4, shuffle=True), role="train"))
    assert replayed(tmp_path).verdict is HOLDS
    lie(tmp_path, lambda batches: batches[0][1].reverse())
    assert replayed(tmp_path).verdict is REFUTED


def test_two_loaders_a_resumed_run_and_workers_that_stay(tmp_path: Path) -> None:
    held = TensorDataset(torch.randn(9, 4), torch.zeros(9, dtype=torch.int64))
    stay: Options = {"num_workers": 1, "persistent_workers": True}
    for resume in (False, True):
        with begin(tmp_path, resume=resume) as run:
            loader = run.watch(DataLoader(DATA, batch_size=8, shuffle=True, **stay), role="train")
            judge = run.watch(DataLoader(held, batch_size=4), role="validation")
            for _ in range(2):
                train(loader, epochs=1)
                assert len(list(judge)) == 3
    found = replayed(tmp_path)
    assert (found.verdict, found.words[:26]) == (HOLDS, "8 of 8 epochs (32 batches)")
