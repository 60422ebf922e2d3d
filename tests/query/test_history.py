"""A sample's history is what happened to it, no more and no less, and no file on disk can make it say otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fgtrac
from fgtrac.api.trace import Trace, UnknownSampleError
from fgtrac.commit.sequencer import last_seqs
from fgtrac.errors import FgtracError, ProofError, TamperError
from fgtrac.query.history import History
from fgtrac.query.seals import NotSealedError
from lives import SAMPLES, Life, live
from traces import Made, Writing, make_trace, start_trace


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    return live(tmp_path_factory.mktemp("life"))


@pytest.fixture(autouse=True)
def no_key_of_mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "nobody.pem"))


def history_of(life: Life, row: int) -> History:
    return fgtrac.open(life.path).history(life.name(row))


def kinds(history: History) -> list[str]:
    return [event.kind for event in history.events]


def test_every_kind_of_event_is_told_in_the_order_of_the_log(life: Life) -> None:
    told = history_of(life, 0)
    assert kinds(told) == [
        "registered",
        "role",
        "transformed",
        "transformed",
        "transformed",
        "transformed",
        "used",
        "used",
    ]
    assert [event.entry for event in told.events] == sorted(event.entry for event in told.events)
    assert told.events[0].details["dataset"] == "digits"
    assert told.events[1].details == {"role": "train"}
    assert told.events[2].details["outcome"] == "kept"
    children = told.events[3].details["children"]
    assert children == [crop.hex() for crop in life.crops]


@pytest.mark.parametrize(("row", "batch", "loss"), [(0, 1, 1.0), (1, 1, 2.0), (2, 1, 0.25), (3, 1, 0.5)])
def test_a_use_says_step_epoch_batch_loader_attribution_and_loss(life: Life, row: int, batch: int, loss: float) -> None:
    first, second = [event for event in history_of(life, row).events if event.kind == "used"]
    assert (first.step, first.epoch, first.details["batch"], "loss" in first.details) == (1, 0, 0, False)
    assert (second.step, second.epoch) == (2, 0)
    said = {"epoch": 0, "batch": batch, "loader": 1, "optimizer": 1, "status": "applied", "attribution": "exact"}
    assert second.details == {**said, "loss": loss}
    assert f"loss {loss:.4g}" in second.words


def test_a_dropped_sample_names_the_one_that_it_equals(life: Life) -> None:
    told = history_of(life, 5)
    assert kinds(told) == ["registered", "role", "transformed"]
    assert told.events[-1].details["same_as"] == life.made.ids[0].hex()
    assert told.uses == 0


def test_a_child_names_its_parents(life: Life) -> None:
    told = fgtrac.open(life.path).history(f"id:{life.crops[2].hex()}")
    assert kinds(told) == ["registered", "derived", "derived"]
    assert told.events[1].details["parents"] == [life.made.ids[0].hex(), life.made.ids[1].hex()]


def test_a_delivery_that_was_not_applied_is_no_use(life: Life) -> None:
    told = history_of(life, 4)
    assert kinds(told) == ["registered", "role", "transformed", "delivered"]
    assert told.events[-1].details["status"] == "unapplied"
    assert told.checkpoints == ()


def test_a_prediction_says_outputs_and_loss(life: Life) -> None:
    last = history_of(life, 2).events[-1]
    assert (last.kind, last.step) == ("prediction", 2)
    assert last.details["outputs"] == pytest.approx([0.1, 0.9])
    assert last.details["loss"] == 0.125
    assert history_of(life, 8).events[-1].details["loss"] == "inf"  # JSON has no infinity


@pytest.mark.parametrize(("row", "hop"), [(6, 1), (10, 2)])
def test_a_neighbour_is_told_with_its_hop(life: Life, row: int, hop: int) -> None:
    last = history_of(life, row).events[-1]
    assert (last.kind, last.step, last.details["hop"]) == ("neighbour", 3, hop)


def test_a_contribution_is_signed(life: Life) -> None:
    last = history_of(life, 7).events[-1]
    said = {name: last.details[name] for name in ("target", "method", "score")}
    assert said == {"target": "validation", "method": "tracin", "score": -0.5}


def test_only_kept_checkpoints_at_or_behind_the_first_use_are_contributed_to(life: Life) -> None:
    assert history_of(life, 0).checkpoints == (2,)
    assert history_of(life, 9).checkpoints == ()  # first used in step 3, whose checkpoint was dropped


def test_without_details_the_steps_and_epochs_come_from_the_index_alone(life: Life) -> None:
    told = fgtrac.open(life.path).history(life.name(0), details=False)
    full = history_of(life, 0)
    assert [(e.kind, e.step, e.epoch) for e in told.events] == [(e.kind, e.step, e.epoch) for e in full.events]


def test_a_history_is_json(life: Life) -> None:
    for row in range(SAMPLES):
        said = json.loads(json.dumps(history_of(life, row).as_json(), allow_nan=False))
        assert said["id"] == life.made.ids[row].hex()


def test_every_row_of_the_index_becomes_one_event(life: Life) -> None:
    trace = fgtrac.open(life.path)
    for sample in [*life.made.ids, *life.crops]:
        rows = trace._seal.rows(sample)
        assert rows is not None
        assert len(trace.history(f"id:{sample.hex()}").events) == len(rows)


def test_uses_agree_with_the_batches_for_every_sample(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path, samples=50, parts=4)
    batches = [[(7 * n + k) % 50 for k in range(9)] for n in range(20)]
    for rows in batches:
        writing.use(rows)
    writing.end()
    made.seal()
    trace = fgtrac.open(made.trace.path)
    for row, sample in enumerate(made.ids):
        told = trace.history(f"id:{sample.hex()}")
        truth = [step for step, rows in enumerate(batches, 1) if row in rows]
        assert [event.step for event in told.events if event.kind == "used"] == truth


def test_entries_that_no_index_covers_are_counted(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path, samples=6)
    writing.use([0, 1])
    writing.recorder.rotate()
    made.seal()
    writing.use([0, 1])
    writing.recorder.rotate()
    made.seal(full=False)
    writing.use([0, 1])
    writing.use([0, 1])
    told = fgtrac.open(made.trace.path).history("digits:0")
    assert (told.uses, told.pending) == (1, 3)
    assert "not yet in the index: 3 entries; run fgtrac seal" in str(told)
    writing.end()
    made.seal()
    again = fgtrac.open(made.trace.path).history("digits:0")
    assert (again.uses, again.pending) == (4, 0)


def test_samples_as_columns_agree_with_the_histories(life: Life) -> None:
    trace = fgtrac.open(life.path)
    table = trace.sample_counts()
    assert len(table) == SAMPLES + len(life.crops)
    for row in table:
        told = trace.history(f"id:{row['id']}")
        assert row["uses"] == told.uses
        assert row["neighbours"] == kinds(told).count("neighbour") == told.tally.neighbours
        assert row["deliveries"] == kinds(told).count("delivered")
        assert row["predictions"] == kinds(told).count("prediction")
        assert row["dataset"] == told.events[0].details["dataset"]
        assert row["roles"] == [e.details["role"] for e in told.events if e.kind == "role"]
        assert row["dropped"] == any(e.details.get("outcome") == "dropped" for e in told.events)


def test_a_vault_gives_names(tmp_path: Path) -> None:
    life = live(tmp_path, vault=True)
    trace = fgtrac.open(life.path)
    assert trace.history("digits:5").name == "digits:5"
    assert "equal to digits:0" in str(trace.history("key:5"))
    assert {row["name"] for row in trace.sample_counts()} == {None, *(f"digits:{n}" for n in range(SAMPLES))}


def test_a_sample_that_is_not_registered_is_unknown(life: Life) -> None:
    trace = fgtrac.open(life.path)
    with pytest.raises(UnknownSampleError, match="no sample digits:99 is registered"):
        trace.history("digits:99")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("7", "names no sample"),
        ("id:12", "64 hex digits"),
        ("nosuch:7", "no data set 'nosuch'"),
        ("digits:seven", "no row number"),
        ("key:{}", "no key in JSON"),
        ("key:1.5", "no key in JSON"),
        ('key:"x"', "no vault"),
    ],
)
def test_a_name_that_says_nothing_is_refused_with_the_reason(life: Life, name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        fgtrac.open(life.path).history(name)


def test_a_trace_that_was_never_fully_sealed_says_what_to_do(tmp_path: Path) -> None:
    made = make_trace(tmp_path, sealed=False)
    with pytest.raises(NotSealedError, match="run fgtrac seal"):
        fgtrac.open(made.trace.path).history("digits:0")


def test_another_signer_than_the_named_one_is_refused(life: Life) -> None:
    with pytest.raises(ProofError, match="not by"):
        fgtrac.open(life.path, key="11" * 32).history(life.name(0))
    told = fgtrac.open(life.path, key=life.made.signer.public_key.hex()).history(life.name(0))
    assert told.rests_on == "as signed with the key that you named"


def answers(trace: Trace, life: Life) -> list[str]:
    return ["\n".join(map(repr, trace.history(life.name(row)).events)) for row in (0, 5)]


def test_a_flipped_bit_in_any_file_gives_the_true_answer_or_an_error(tmp_path: Path) -> None:
    life = live(tmp_path)
    key = life.made.signer.public_key.hex()
    truth = answers(fgtrac.open(life.path, key=key), life)
    names = [n for n in life.made.trace.names() if n.startswith(("tile/", "index/")) or n == "checkpoint"]
    refused = 0
    for name in names:
        path = life.path / name
        data = path.read_bytes()
        for at in range(0, len(data), max(1, len(data) // 40)):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
            try:
                assert answers(fgtrac.open(life.path, key=key), life) == truth, (name, at)
            except FgtracError:
                refused += 1
        path.write_bytes(data)
    assert refused > 100
    assert answers(fgtrac.open(life.path, key=key), life) == truth


def test_a_missing_file_of_the_trace_is_named(tmp_path: Path) -> None:
    life = live(tmp_path)
    for name in life.made.trace.names():
        if name.startswith(("tile/", "index/")) and not name.endswith("checkpoint"):
            path = life.path / name
            path.rename(tmp_path / "away")
            with pytest.raises(TamperError, match=name.partition(".p/")[0]):
                answers(fgtrac.open(life.path), life)
            (tmp_path / "away").rename(path)


# -- a run that was resumed --------------------------------------------------------------------------------------------


def resumed_trace(folder: Path) -> Made:
    """Row 0 is used in steps 1 and 3, row 1 in step 2, row 2 in step 3 only; then the process dies. The run goes on
    from step 2 and uses row 1 in step 3. Kept are the states of step 2, of the lost step 3 and of the new step 3."""
    made, first = start_trace(folder, samples=SAMPLES)
    first.use([0])
    first.use([1])
    keep(first, 2)
    first.use([0, 2])
    keep(first, 3)
    first.recorder.close()
    made.seal(full=False)
    second = Writing(made, bytes((2,)) * 16)
    second.step = 2
    writers = [list(pair) for pair in sorted(last_seqs(made.trace).items())]
    second.recorder.record("resume", {"writers": writers, "step": 2})
    second.use([1])
    keep(second, 3)
    second.end()
    made.seal()
    return made


def keep(writing: Writing, step: int) -> None:
    writing.recorder.record("checkpoint", {"step": step, "kept": True, "rule": "kept: improved"})


@pytest.mark.parametrize("details", [True, False])
@pytest.mark.parametrize(
    ("row", "uses", "superseded", "checkpoints"), [(0, 2, 1, (2, 3)), (1, 2, 0, (2, 3)), (2, 1, 1, ())]
)
def test_what_a_resumed_run_did_not_go_on_from_is_told_as_superseded(
    tmp_path: Path, row: int, uses: int, superseded: int, checkpoints: tuple[int, ...], details: bool
) -> None:
    made = resumed_trace(tmp_path)
    told = fgtrac.open(made.trace.path).history(f"id:{made.ids[row].hex()}", details=details)
    assert (told.uses, told.superseded, told.checkpoints) == (uses, superseded, checkpoints)
    assert (told.as_json()["uses"], told.as_json()["superseded"]) == (uses, superseded)
    marked = [event for event in told.events if event.superseded_by is not None]
    assert [(event.kind, event.step) for event in marked] == [("used", 3)] * superseded
    assert all(event.words.endswith("(superseded: the run was resumed from step 2)") for event in marked)
    assert (f"{superseded} of its {uses} uses were superseded" in str(told)) == bool(superseded)


def test_a_lost_state_is_no_kept_checkpoint_of_the_resumed_run(tmp_path: Path) -> None:
    """The state of step 5 was lost with its process: the run went on from step 1 and kept that of step 2."""
    made, first = start_trace(tmp_path, samples=SAMPLES)
    first.use([0])
    keep(first, 5)
    first.recorder.close()
    made.seal(full=False)
    second = Writing(made, bytes((2,)) * 16)
    writers = [list(pair) for pair in sorted(last_seqs(made.trace).items())]
    second.recorder.record("resume", {"writers": writers, "step": 1})
    keep(second, 2)
    second.end()
    made.seal()
    assert fgtrac.open(made.trace.path).history(f"id:{made.ids[0].hex()}").checkpoints == (2,)
