"""A run in one reading: held to a plain count over its entries, whatever happened in it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgtrac.api.overview import newest_head, overview
from fgtrac.api.summary import summarize
from fgtrac.api.trace import open_trace
from fgtrac.errors import FormatError, ProofError, TamperError
from fgtrac.events.schema import ATTRIBUTION, KINDS, NO_STEP, STATUS, decode_event
from fgtrac.query import overview as module
from fgtrac.query.overview import KIND_CODES, NEIGHBOUR, Overview
from fgtrac.query.seals import NotSealedError
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.tiles import read_entries
from lives import among, crop_of, live, live_on_a_graph, live_with_contents, node_use
from traces import DATASET, Writing, make_trace, start_trace


def read(path: Path) -> Overview:
    return overview(path, newest_head(path))


def events_of(path: Path) -> list[dict[str, Any]]:
    trace = TraceDir.open(path)
    head = trace.head()
    assert head is not None
    return [decode_event(entry) for entry in read_entries(trace, 0, head.size, head.size)]


def begun_twice(folder: Path) -> Path:
    """A block in two parts that another process registers again, with a second data set that has some of its samples,
    batches whose samples may have been left out, losses, metrics, gaps and a resume."""
    made, writing = start_trace(folder, samples=30, parts=2)
    writing.use([0, 1, 2])
    writing.recorder.record("metrics", {"step": 1, "values": {"lr": 0.5, "grad norm": float("inf")}})
    writing.recorder.record(
        "checkpoint", {"step": 1, "val_loss": 0.75, "kept": True, "rule": "first", "digest": b"1" * 32}
    )
    writing.use([3, 4])
    writing.recorder.record("metrics", {"step": 2, "values": {"lr": 0.25}})
    writing.recorder.record(
        "checkpoint", {"step": 2, "val_loss": 0.5, "kept": True, "rule": "less", "digest": b"2" * 32}
    )
    writing.recorder.close()
    again = Writing(made, bytes((2,)) * 16)
    again.register("public", parts=2)
    again.recorder.record("resume", {"writers": [[bytes((1,)) * 16, 0]], "step": 1})
    again.recorder.record("roles", {"role": "test", "block": again.block, "ordinals": again.placement.ordinals[20:]})
    again.recorder.record("gap", {"reason": "an update followed no delivered batch", "detail": "of optimizer 2"})
    mine = {"block": again.block, "ordinal": again.placement.ordinals}
    node_use(again, 2, [5, 6], [[7], [8, 9]], graph="sampled", **mine)
    among(again, 3, [10, 11, 5])
    again.recorder.record("metrics", {"step": 2, "values": {"lr": 0.125, "another": 1}})
    again.recorder.record(
        "checkpoint", {"step": 3, "val_loss": 0.25, "kept": True, "rule": "less", "digest": b"3" * 32}
    )
    again.recorder.record(
        "checkpoint", {"step": 1, "val_loss": 0.75, "kept": False, "rule": "displaced", "digest": b"1" * 32}
    )
    block, _, place = crop_of(again, again.placement.ordinals, "public", [(0, 0), (1, 1), (2, 2)])
    node_use(again, 4, [1], [[0]], block=block, graph="sampled", ordinal=place)
    again.recorder.close()
    made.seal()
    return made.trace.path


def ended(folder: Path) -> Path:
    return make_trace(folder, uses=70, samples=50, parts=3, seals=(20,), plain=(40,)).trace.path


MAKERS: list[Callable[[Path], Path]] = [
    ended, begun_twice, lambda f: live(f).path, lambda f: live(f, scheme="keyed").path,
    lambda f: live_on_a_graph(f).path, lambda f: live_with_contents(f).trace.path,
]  # fmt: skip


@pytest.fixture(params=MAKERS, ids=["ended", "begun twice", "a life", "keyed", "a graph", "contents"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    made: Path = request.param(tmp_path)
    return made


def is_undone(events: list[dict[str, Any]], entry: int, step: int) -> bool:
    """Whether a later entry went on from before this step."""
    return any(later["kind"] == "resume" and later["step"] < step for later in events[entry + 1 :])


def count_samples(events: list[dict[str, Any]]) -> dict[str, list[int]]:
    """By role: samples, used, perhaps, neighbours, undone, delivered, never, predicted; one sample and one entry at a
    time."""
    ids: dict[tuple[bytes, int], bytes] = {}
    roles: dict[bytes, set[str]] = {}
    done: dict[bytes, set[str]] = defaultdict(set)
    for event in events:
        if event["kind"] == "samples":
            mine = [event["ids"][i : i + 32] for i in range(0, len(event["ids"]), 32)]
            start = 0
            if event["part"]:
                first = next(e for e in events if e["kind"] == "samples" and e["block"] == event["block"])
                start = event["part"] * (len(first["ids"]) // 32)
            ids |= {(event["block"], start + n): one for n, one in enumerate(mine)}
    for sample in ids.values():
        roles.setdefault(sample, set())
    for entry, event in enumerate(events):
        if event["kind"] == "roles":
            for n in event["ordinals"].tolist():
                roles[ids[event["block"], n]].add(event["role"])
        elif event["kind"] == "prediction":
            for n in event["ordinals"].tolist():
                done[ids[event["block"], n]].add("predicted")
        elif event["kind"] == "use":
            at, hop_at = 0, 0
            hops = event.get("hops", 0)
            for number, count in enumerate(event["count"].tolist()):
                is_applied = event["status"][number] == STATUS["applied"]
                is_perhaps = event["attribution"][number] == ATTRIBUTION["among"]
                word = "delivered" if not is_applied else "perhaps" if is_perhaps else "used"
                if is_applied and is_undone(events, entry, event["step"][number]):
                    word = "undone"
                for n in event["ordinals"][at : at + count].tolist():
                    done[ids[event["block"], n]].add(word)
                at += count
                for size in event["hop_count"][number * hops : (number + 1) * hops].tolist() if hops else ():
                    if is_applied:
                        for n in event["hop_ordinals"][hop_at : hop_at + size].tolist():
                            done[ids[event["block"], n]].add("undone" if word == "undone" else "neighbour")
                    hop_at += size
    found: dict[str, list[int]] = {}
    for sample, mine in roles.items():
        for role in mine or {""}:
            line = found.setdefault(role, [0] * 8)
            line[0] += 1
            words = ("used", "perhaps", "neighbour", "undone", "delivered")
            line[1 + next((i for i, word in enumerate(words) if word in done[sample]), 5)] += 1
            line[7] += "predicted" in done[sample]
    return found


def test_its_counts_are_those_of_a_plain_reading(path: Path) -> None:
    found, events, summary = read(path), events_of(path), summarize(path)
    assert found.counts() == dict(sorted(summary.counts.items(), key=lambda pair: list(KINDS).index(pair[0])))
    assert [list(KINDS)[code] for code in found.kinds] == [event["kind"] for event in events]
    assert found.numbers_of("use").tolist() == [n for n, e in enumerate(events) if e["kind"] == "use"]
    covered = {
        c.role: [c.samples, c.used, c.perhaps, c.neighbours, c.undone, c.delivered, c.never, c.predicted]
        for c in found.coverage.by_role
    }
    assert covered == count_samples(events)
    assert sum(found.uses.values()) == summary.uses
    assert found.neighbours == sum(row["count"] for row in summary.neighbours)
    assert found.ended == summary.ended
    assert [gap["reason"] for gap in found.named.get("gap", [])] == list(summary.gaps)
    assert (found.began, found.changed) == (events[0]["time"], max(event["time"] for event in events))


def test_its_samples_and_states_are_those_of_the_opened_trace(path: Path) -> None:
    found, trace = read(path), open_trace(path)
    assert found.coverage.samples == len(trace.sample_counts())
    timeline = trace._historian.timeline
    events = events_of(path)
    for state in found.checkpoints:
        event = events[state["entry"]]
        standing = timeline.standing(event["writer"], event["seq"])
        assert state["standing"].replace("not kept", "dropped") == standing
    assert all(events[number]["seq"] == seq for (_, seq), number in found.states.items())


def test_its_steps_and_batches_are_those_of_the_entries(path: Path) -> None:
    found, batches, first, last, events = read(path), Counter[str](), {}, 0, events_of(path)
    superseded, undone = Counter[str](), 0
    for entry, event in enumerate(events):
        if event["kind"] == "use":
            hops = event["hop_count"].reshape(len(event["step"]), -1).sum(axis=1) if "hops" in event else None
            for place, step in enumerate(event["step"].tolist()):
                if step != NO_STEP and is_undone(events, entry, step):
                    undone += 1
                    how = next(word for word, code in ATTRIBUTION.items() if code == event["attribution"][place])
                    superseded[how] += int(event["count"][place])
                    superseded[NEIGHBOUR] += 0 if hops is None else int(hops[place])
            for status, epoch, step in zip(
                event["status"], event["epoch"].tolist(), event["step"].tolist(), strict=True
            ):
                batches[next(word for word, code in STATUS.items() if code == status)] += 1
                if step != NO_STEP and not is_undone(events, entry, step):
                    first[epoch] = min(step, first.get(epoch, step))
                    last = max(last, step)
    assert ({w: n for w, n in found.batches.items() if n}, found.first_steps, found.last_step) == (batches, first, last)
    assert ({w: n for w, n in found.superseded.items() if n}, found.superseded_batches) == (+superseded, undone)


def test_losses_are_means_over_a_batch_and_a_restart_undoes_what_lay_behind_it(tmp_path: Path) -> None:
    life = read(live(tmp_path / "life").path)
    assert life.batch_losses.steps.tolist() == [2]
    assert life.batch_losses.values.tolist() == [(0.5 + 0.25 + 2.0 + 1.0) / 4]
    again = read(begun_twice(tmp_path / "again"))
    rates = again.series["lr"]
    assert (rates.steps.tolist(), rates.values.tolist(), rates.undone) == ([1, 2], [0.5, 0.125], 1)
    assert again.series["grad norm"].values.tolist() == [np.inf]
    assert [(c["step"], c["standing"]) for c in again.checkpoints] == [(1, "dropped"), (2, "superseded"), (3, "kept")]
    assert [r["step"] for r in again.named["resume"]] == [1]


def test_series_of_endless_names_are_bounded(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    for number in range(module.MAX_SERIES + 5):
        writing.recorder.record("metrics", {"step": 1, "values": {f"name {number}": 1.0}})
    writing.end()
    made.seal()
    found = read(made.trace.path)
    assert (len(found.series), found.series_left_out) == (module.MAX_SERIES, 5)


def test_many_values_are_all_gathered_in_their_order(tmp_path: Path) -> None:
    series = module.Series()
    for number in range(10_000):
        series.add(np.array([number], np.uint64), np.array([number / 2]))
    assert series.gather().values.tolist() == [number / 2 for number in range(10_000)]
    series.go_back(4999)
    assert (len(series.steps), series.undone) == (5000, 5000)


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    path, seen = make_trace(tmp_path, uses=600).trace.path, []
    found = overview(path, newest_head(path), lambda done, total: seen.append((done, total)))
    assert seen[-1] == (found.size, found.size)
    assert seen == sorted(set(seen))


def test_an_entry_that_is_not_the_sealed_one_gives_nothing(tmp_path: Path) -> None:
    path = make_trace(tmp_path, uses=300).trace.path
    bundle = path / "tile/entries/000"
    data = bundle.read_bytes()
    at = data.index(DATASET.encode())
    bundle.write_bytes(data[:at] + b"D" + data[at + 1 :])
    with pytest.raises(ProofError, match=r"the entries lead to the root [0-9a-f]{64}, and the head of \d+ says"):
        read(path)
    bundle.write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match="tile/entries/000"):
        read(path)
    bundle.unlink()
    with pytest.raises(TamperError, match="restore the trace"):
        read(path)


def test_a_trace_without_a_head_says_what_to_do(tmp_path: Path) -> None:
    made = make_trace(tmp_path, sealed=False)
    with pytest.raises(NotSealedError, match=r"nothing was sealed.*run fgtrac seal"):
        newest_head(made.trace.path)


def test_a_head_without_a_full_seal_is_enough(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    writing.use([1, 2])
    made.seal(full=False)
    found = read(made.trace.path)
    writing.recorder.close()
    assert (found.size, found.ended, found.counts()["use"]) == (5, False, 1)
    assert found.coverage.by_role[0].used == 2


def test_every_kind_has_a_code_of_its_own() -> None:
    assert len(set(KIND_CODES.values())) == len(KINDS) < 256
