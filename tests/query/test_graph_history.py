"""A node's history tells seeds, neighbours by hop, and weights of modalities as they were, however long it is."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fgtrac
from fgtrac.commit.sequencer import last_seqs
from fgtrac.query import history as history_module
from fgtrac.query.history import History
from fgtrac.query.history_text import SHORT
from graph_lives import GraphLife, Update, graph_life, record_use, weights_of
from traces import Writing, start_trace

NODES, HELD_OUT = 12, 11


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> GraphLife:
    """Twenty epochs with a sampler, then twenty of the whole graph."""
    return graph_life(tmp_path_factory.mktemp("graph"), nodes=NODES, epochs=20, graph=("sampled", "whole"))


@pytest.fixture(autouse=True)
def no_key_of_mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "nobody.pem"))


def keep(writing: Writing, step: int) -> Any:
    return writing.recorder.record("checkpoint", {"step": step, "kept": True, "rule": "kept: improved"})


def history_of(life: GraphLife, node: int, details: bool | None = None) -> History:
    return fgtrac.open(life.path).history(life.name(node), details=details)


def truth(life: GraphLife, node: int) -> Counter[tuple[int, int]]:
    """(epoch, hop) -> how often, hop 0 for a seed."""
    return Counter(
        (update.epoch, hop)
        for update in life.updates
        for hop, there in enumerate((update.seeds, *update.hops))
        if node in there
    )


def told(history: History) -> Counter[tuple[int, int]]:
    rows = zip(history.tally.epochs, history.tally.counts.tolist(), strict=True)
    return +Counter(
        {(epoch, hop): n for epoch, row in rows for hop, n in zip((0, *history.tally.hops), row, strict=True)}
    )


@pytest.mark.parametrize("details", [True, False, None])
def test_seeds_and_neighbours_are_counted_by_epoch_and_hop_for_every_node(
    life: GraphLife, details: bool | None
) -> None:
    for node in range(NODES):
        history = history_of(life, node, details)
        assert told(history) == truth(life, node)
        said = history.as_json()["summary"]
        assert [(row["epoch"], row["seed"], sum(row["neighbour"].values())) for row in said["epochs"]] == [
            (e, truth(life, node)[e, 0], sum(n for (at, hop), n in truth(life, node).items() if at == e and hop))
            for e in sorted({epoch for epoch, _ in truth(life, node)})
        ]


def test_a_history_of_too_many_entries_is_counted_without_reading_them(
    life: GraphLife, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "READ_ENTRIES", 50)  # as many as there are attention entries, and some
    for node in range(NODES):
        history, whole = history_of(life, node), history_of(life, node, details=True)
        assert "status" not in next(event for event in history.events if event.kind == "neighbour").details
        assert told(history) == told(whole)
        places = [(e.kind, e.entry, e.step, e.epoch, e.details.get("hop")) for e in history.events]
        assert places == [(e.kind, e.entry, e.step, e.epoch, e.details.get("hop")) for e in whole.events]
        assert history.attention == whole.attention
        assert (history.is_by_step, whole.is_by_step) == (True, False)
        assert "each step is counted in the last epoch that had begun by it" in str(history)
        assert history.events[0].details["dataset"] == "icons"  # what is about its life is read all the same
        draws, entries = history.draws, {e.entry for e in history.events if e.kind == "neighbour"}
        assert (draws.read, draws.named, draws.reach) == (len(entries), whole.draws.named, whole.draws.reach)
        assert sum(draw.entries for draw in draws.each) == len(entries)
        assert (history.checkpoints, history.undecided) == (whole.checkpoints, ())
        if draws.read < draws.named:
            assert f"of the {draws.read} entries that were read, of {draws.named})" in str(history)


def test_a_whole_graph_is_said_as_such(life: GraphLife) -> None:
    history = history_of(life, HELD_OUT)
    assert [(draw.graph, draw.hops) for draw in history.draws.each] == [("sampled", 2), ("whole", 3)]
    words = "neighbours of the whole graph, read at once: hop 3 is beyond the reach of its messages"
    assert f"{words} (20 of the {history.draws.named} entries)" in str(history)  # an entry an epoch
    assert "hop 3, beyond reach" in str(history)
    lines = history.text(every_event=True).splitlines()
    beyond = sum(update.graph == "whole" and HELD_OUT in update.hops[2] for update in life.updates)
    assert sum("(hop 3, beyond reach, whole graph)" in line for line in lines) == beyond > 0
    assert not any("hop 2, beyond" in line for line in lines)


def test_a_node_that_was_never_a_seed_is_said_to_be_none(life: GraphLife) -> None:
    assert "never a seed" in str(history_of(life, HELD_OUT))
    assert history_of(life, HELD_OUT).uses == 0
    assert "never a seed" not in str(history_of(life, 1))


def test_weights_of_modalities_are_those_of_each_checkpoint(life: GraphLife) -> None:
    for node in (0, HELD_OUT):
        steps = sorted({update.step for update in life.updates if update.step % 2 == 0})
        said = history_of(life, node).attention
        assert [(step, [weights["image"], weights["words"]]) for step, weights in said] == [
            (step, weights_of(node, step)) for step in steps
        ]
    assert f"modality weights at {len(steps)} kept checkpoints, 12 of them" in str(history_of(life, 0))
    first = ["step", "image", "words"]
    rows = [line.split() for line in str(history_of(life, 0)).splitlines()]
    at = rows.index(first)
    image, words = weights_of(0, 2)
    assert rows[at + 1] == ["2", f"{image:.3f}", f"{words:.3f}"]


def test_weights_that_were_not_read_are_said_to_be_there(life: GraphLife) -> None:
    history = history_of(life, 0, details=False)
    assert history.attention == []
    assert "modality weights were not read; --details reads them" in str(history)


def test_a_long_history_begins_with_sums_and_has_its_lines_on_request(life: GraphLife) -> None:
    history = history_of(life, 1)
    assert len(history.events) > SHORT
    lines, every = str(history).splitlines(), history.text(every_event=True).splitlines()
    assert sum(line.startswith("  entry") for line in lines) == 2  # registered, and the role
    assert len(lines) < 60
    assert sum(line.startswith("  entry") for line in every) == len(history.events)
    assert f"{len(history.events)} events; fgtrac history --all has a line for each" in lines[-1]
    sums = next(line for line in lines if line.startswith("  all ")).split()[1:]
    assert [int(n) for n in sums] == [history.uses, *(history.tally.at_hop(hop) for hop in (1, 2, 3))]
    assert any(line.startswith("  complete up to entry") for line in lines)
    json.dumps(history.as_json(), allow_nan=False)


def test_a_short_history_has_a_line_for_each_event(tmp_path: Path) -> None:
    short = graph_life(tmp_path, epochs=2)
    history = history_of(short, 1)
    lines = str(history).splitlines()
    assert sum(line.startswith("  entry") for line in lines) == len(history.events) <= SHORT
    assert not any(line.startswith("  epoch") for line in lines)
    assert (history.uses, history.tally.neighbours) == (3, 1)
    assert lines[1] == "  used as a seed 3 times (steps 1 to 4), a neighbour once (step 3)"


@pytest.mark.parametrize("details", [True, None])
def test_a_node_beyond_reach_contributed_to_no_kept_state(
    tmp_path: Path, details: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "READ_ENTRIES", 1)
    made, writing = start_trace(tmp_path, samples=4)
    for step in (1, 2):
        record_use(writing, 1, [Update(0, step, "whole", (0,), ((1,), (2, 3)))])
    keep(writing, 2)
    writing.end()
    made.seal()
    trace = fgtrac.open(made.trace.path)
    kept = [trace.history(f"id:{i.hex()}", details=details).checkpoints for i in made.ids]
    assert kept == [(2,), (2,), (), ()]


def test_only_what_entries_that_were_read_say_is_told_of_kept_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Node 2 is beyond reach in all updates of the whole graph, and in one that a sampler drew it is not."""
    monkeypatch.setattr(history_module, "READ_ENTRIES", 1)
    made, writing = start_trace(tmp_path, samples=3)
    for step in range(1, 41):
        record_use(writing, 1, [Update(0, step, "sampled" if step == 20 else "whole", (0,), ((1,), (2,)))])
        if step in (10, 30):
            keep(writing, step)
    writing.end()
    made.seal()
    name = f"id:{made.ids[2].hex()}"
    history = fgtrac.open(made.trace.path).history(name)
    assert (history.checkpoints, history.undecided) == ((30,), ())
    assert "its features, as a neighbour's, are in the model states kept at step 30" in str(history)
    assert "hop 2, in part beyond reach" in str(history)
    monkeypatch.setattr(history_module, "READ_DRAWS", 4)
    for details, told in ((None, "hop 2, beyond reach in 4 that were read"), (False, "hop 2\n")):
        some = fgtrac.open(made.trace.path).history(name, details=details)
        assert (some.checkpoints, some.undecided) == ((), (10, 30))
        assert told in str(some)
        assert f"the entries of {36 if details is None else 40} parts as a neighbour were not read" in str(some)
        assert "whether it is in those kept at steps 10, 30 only entries that were not read could tell" in str(some)
    seed = fgtrac.open(made.trace.path).history(f"id:{made.ids[0].hex()}", details=False)
    assert (seed.checkpoints, seed.undecided) == ((10, 30), ())


def test_the_history_of_ten_thousand_appearances_takes_less_than_a_second(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path, samples=40)
    others = tuple(range(1, 40))
    for at in range(0, 10_000, 20):
        updates = [Update(n // 100, n + 1, "sampled", others[:4], ((0, *others[4:10]), others[10:])) for n in
                   range(at, at + 20)]  # fmt: skip
        record_use(writing, 1, updates)
    writing.end()
    made.seal()
    took_s = []
    for _ in range(3):
        trace, start = fgtrac.open(made.trace.path), time.perf_counter()
        history = trace.history(f"id:{made.ids[0].hex()}")
        assert len(str(history)) < 3_000
        took_s.append(time.perf_counter() - start)
    assert history.tally.neighbours == history.tally.at_hop(1) == 10_000
    assert min(took_s) < 1


def test_parts_that_were_superseded_are_said_to_be(tmp_path: Path) -> None:
    """Steps 2 and 3 were lost with their process; the run went on from step 1."""
    made, first = start_trace(tmp_path, samples=4)
    for step in (1, 2, 3):
        record_use(first, 1, [Update(0, step, "sampled", (0,), ((1,), (2,)))])
    first.recorder.close()
    made.seal(full=False)
    second = Writing(made, bytes((2,)) * 16)
    writers = [list(pair) for pair in sorted(last_seqs(made.trace).items())]
    second.recorder.record("resume", {"writers": writers, "step": 1})
    record_use(second, 1, [Update(0, 2, "sampled", (0,), ((1,), (3,)))])
    second.end()
    made.seal()
    trace = fgtrac.open(made.trace.path)
    for details in (True, False):
        said = [trace.history(f"id:{i.hex()}", details=details).tally for i in made.ids]
        assert [tally.superseded for tally in said] == [(2, 0), (0, 2), (0, 2), (0, 0)]
    assert "2 of its 4 parts as a neighbour were superseded" in str(trace.history(f"id:{made.ids[1].hex()}"))


@pytest.mark.parametrize("is_read", [True, False])
def test_scores_and_predictions_of_a_long_history_are_summed_or_said_to_be_unread(
    tmp_path: Path, is_read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "READ_ENTRIES", 256 if is_read else 4)
    made, writing = start_trace(tmp_path, samples=2)
    place = {"block": writing.block, "ordinals": writing.placement.ordinals[[0]]}
    for step in range(1, 51):
        writing.use([0, 1])
        said = {"checkpoint": list(keep(writing, step)), "step": step, **place}
        for target, score in (("validation", 0.25), ("class:1", -0.5)):
            scores = np.array([score], "<f4")
            writing.recorder.record("contribution", {**said, "target": target, "method": "tracin", "scores": scores})
        writing.recorder.record("prediction", {**said, "losses": np.array([step], "<f4")})
    writing.end()
    made.seal()
    history = fgtrac.open(made.trace.path).history(f"id:{made.ids[0].hex()}")
    text = str(history)
    assert history.uses == 50
    if is_read:
        first, second = [line.strip() for line in text.splitlines() if "contributed " in line and " toward " in line]
        assert first == "contributed -25 toward class:1, the sum of 50 scores (tracin)"  # the larger one first
        assert second == "contributed +12.5 toward validation, the sum of 50 scores (tracin)"
        assert "50 times predicted; the last: predicted at step 50, loss 50" in text
    else:
        assert "100 contributions not read; --details reads them" in text
        assert "the sum of" not in text
    assert "contributions are estimates: fidelity not measured here" in text
    assert "at steps 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... 50 (50 of them)" in text


def test_scores_at_checkpoints_that_are_not_kept_any_more_are_in_no_sum(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path, samples=2)
    place = {"block": writing.block, "ordinals": writing.placement.ordinals[[0]]}
    for step in range(1, 51):
        writing.use([0, 1])
        kept = {"step": step, "kept": True, "rule": "kept: improved", "digest": bytes([step]) * 32}
        said = {"checkpoint": list(writing.recorder.record("checkpoint", kept)), "step": step, **place}
        scores = np.array([0.25], "<f4")
        writing.recorder.record("contribution", {**said, "target": "validation", "method": "tracin", "scores": scores})
        if step > 1:  # only one is kept at a time
            displaced = {"step": step - 1, "kept": False, "rule": "displaced", "digest": bytes([step - 1]) * 32}
            writing.recorder.record("checkpoint", displaced)
    writing.end()
    made.seal()
    history = fgtrac.open(made.trace.path).history(f"id:{made.ids[0].hex()}")
    text = str(history)
    assert "contributed +0.25 toward validation, the sum of 1 score (tracin)" in text
    assert "49 scores at checkpoints that are not kept any more: left out of these sums" in text
    standings = [event.details["standing"] for event in history.events if event.kind == "contribution"]
    assert standings == ["dropped"] * 49 + ["kept"]
    assert history.text(every_event=True).count("(its checkpoint was dropped later)") == 49
