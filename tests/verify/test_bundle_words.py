"""The words of a bundle: what they say of uses, of a run that was resumed, and of a record that is not whole."""

from __future__ import annotations

from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fgtrac
from fgtrac.events.identity import preimage, public_id
from fgtrac.events.schema import ATTRIBUTION, STATUS, decode_event
from fgtrac.query.prove import Proof
from fgtrac.verify.bundle import Shown, parse_bundle
from fgtrac.verify.claims import check_bundle
from fgtrac.verify.report import Verdict
from lives import live_with_contents
from proofs import examine, prove, refuting, reworded, row
from traces import Made, Writing, start_trace


def test_the_sentences_say_what_happened(bundles: Any) -> None:
    _verifier, made = bundles
    said = {claim: parse_bundle(data).words.partition(", as committed")[0] for claim, data in made.items()}
    who = 'sample with key {} of data set "digits"'
    assert said["used"] == f"The {who.format(3)} was used 2 times in optimizer updates, first in step 1, last in step 2"
    assert said["never used"] == (
        f"The {who.format(4)} is registered, and no optimizer update ever used it or a sample made from it in any batch"
    )
    assert said["never registered"] == f"The {who.format(99)} was never registered"
    assert said["content present"].endswith("is held by 2 of the registered samples")
    assert said["content absent"].endswith("is held by no registered sample")
    behind = {claim: parse_bundle(data).words.partition(" at size ")[2] for claim, data in made.items()}
    rest = {claim: words.partition(". ")[2] for claim, words in behind.items()}
    assert rest["used"] == "The model state of step 2 was saved after 2 of its uses. It had the role train."
    assert rest["never used"] == (
        "Deliveries without an update, as far as the recorder could tell: 1. It had the role train."
    )
    assert rest["history"] == "It had the role train. Samples made from it: 1. Uses of those in updates: 0."
    made_as_said = "This rests on every id and content digest being made as its data set says."
    assert rest["content absent"] == made_as_said + ' Contents were taken from: "photos" by "file".'
    assert (rest["never registered"], rest["content present"]) == (made_as_said, "")


def test_the_sentences_count_the_uses_that_rest_on_an_assumed_order(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    for step, attribution in enumerate(("exact", "fifo", "declared", "fifo"), 1):
        batch = (0, step - 1, step, STATUS["applied"], ATTRIBUTION[attribution])
        writing.recorder.use(writing.placement, 1, 1, batch, array("I", [0, step]))
        writing.recorder.flush()
    writing.end()
    made.seal()
    trace = fgtrac.open(made.trace.path)
    said = {}
    for name, claim in (("digits:0", "used"), ("digits:0", "history"), ("digits:1", "used"), ("digits:2", "used")):
        data = trace.prove(name, claim)
        assert examine(data, made.verifier).verdict is Verdict.HOLDS
        said[name, claim] = parse_bundle(data).words
    assumed = "Which update took it is assumed from the order of the batches in {} of all uses."
    assert assumed.format(2) in said["digits:0", "used"]
    assert assumed.format(2) in said["digits:0", "history"]
    assert not {"assumed", "Told"} & set(said["digits:1", "used"].split())
    assert "Told by the recording program itself, which nothing watched: 1 of all uses." in said["digits:0", "used"]
    assert assumed.format(1) in said["digits:2", "used"]


# -- a whole run ----------------------------------------------------------------------------------------------------


def proved(made: Made, unused: int = 9) -> dict[str, tuple[str, Verdict]]:
    """Of each claim about a sample what the bundle says of the record, and its verdict."""
    trace, out = fgtrac.open(made.trace.path), {}
    asked = {"used": row(0), "history": row(0), "never used": row(unused), "never registered": row(99)}
    asked["label never used"] = row(unused)
    for claim, proof in asked.items():
        data = prove(trace._seal, proof, claim)
        end = parse_bundle(data).words.partition(f" at size {trace._seal.head.size}")[2]
        end = end.partition(" It had")[0].partition(" This rests")[0].partition(" Uses as a neighbour")[0]
        report = examine(data, made.verifier)
        if claim == "used":
            assert "complete" not in [f.check for f in report.findings]
        else:
            assert [f.verdict for f in report.findings if f.check in ("complete", "claim")] == [report.verdict] * 2
        out[claim] = (end, report.verdict)
    return out


def test_of_a_run_that_has_not_ended_only_what_was_used_can_be_told(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    writing.use([0, 1])
    writing.recorder.rotate()
    made.seal()
    said = proved(made)
    assert said.pop("used") == (".", Verdict.HOLDS)
    assert set(said.values()) == {(" of a run that has not ended (gaps in its record: 0).", Verdict.CANNOT_TELL)}
    writing.end()
    made.seal()
    assert set(proved(made).values()) == {(".", Verdict.HOLDS)}


@pytest.mark.parametrize("gaps", [1, 2])
@pytest.mark.parametrize("ended", [True, False])
def test_of_a_record_with_gaps_only_what_was_used_can_be_told(tmp_path: Path, gaps: int, ended: bool) -> None:
    made, writing = start_trace(tmp_path)
    writing.use([0, 1])
    for _ in range(gaps):
        writing.recorder.record("gap", {"reason": "a worker died"})
    if ended:
        writing.end()
    else:
        writing.recorder.rotate()
    made.seal()
    said = proved(made)
    record = f" of a run that has {'' if ended else 'not '}ended (gaps in its record: {gaps})."
    assert said.pop("used") == (".", Verdict.HOLDS)
    assert set(said.values()) == {(record, Verdict.CANNOT_TELL)}


def test_no_absent_content_is_shown_by_a_run_that_has_not_ended(tmp_path: Path) -> None:
    made = live_with_contents(tmp_path, ended=False)
    data = prove(fgtrac.open(made.trace.path)._seal, Proof(bytes(32), is_content=True))
    assert " of a run that has not ended (gaps in its record: 0). Contents were" in parse_bundle(data).words
    report = examine(data, made.verifier)
    assert report.verdict is Verdict.CANNOT_TELL
    assert [f.check for f in report.failures()] == ["complete", "claim"]


def test_leaving_out_that_a_run_has_not_ended_is_a_lie(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    writing.recorder.rotate()
    made.seal()
    bundle = parse_bundle(fgtrac.open(made.trace.path).prove("digits:9"))
    told = replace(bundle, words=bundle.words.replace(" of a run that has not ended (gaps in its record: 0)", ""))
    assert told != bundle
    assert check_bundle(told, made.verifier).verdict is Verdict.REFUTED


# -- resumes and kept states ----------------------------------------------------------------------------------------


def resumed(folder: Path) -> Made:
    """Rows 0 and 1 are used in the steps 1 to 4; then the run goes on from step 2, and uses row 0 in step 3 again. The
    states of the steps 2, 4 (undone) and 3 were kept; that of step 1 was displaced."""
    made, writing = start_trace(folder)
    for step in (1, 2, 3, 4):
        writing.use([0, 1])
        if step != 3:
            state(writing, step)
    writing.recorder.record("checkpoint", {"step": 1, "kept": False, "rule": "displaced", "digest": bytes([1]) * 32})
    last = writing.recorder.next_seq - 1
    writing.recorder.record("resume", {"writers": [[writing.recorder.writer, last]], "step": 2})
    writing.step = 2
    writing.use([0, 2])
    state(writing, 3)
    writing.end()
    made.seal()
    return made


def state(writing: Writing, step: int) -> None:
    writing.recorder.record("checkpoint", {"step": step, "kept": True, "rule": "kept", "digest": bytes([step]) * 32})


def test_uses_that_a_resume_undid_are_told_and_no_state_of_theirs(tmp_path: Path) -> None:
    made = resumed(tmp_path)
    trace = fgtrac.open(made.trace.path)
    words = {}
    for name in ("digits:0", "digits:1", "digits:2", "digits:3"):
        for claim in (None, "history"):
            data = trace.prove(name, claim)
            assert examine(data, made.verifier).verdict is Verdict.HOLDS
            words[name, claim] = parse_bundle(data).words
    undone = "The run was resumed from an earlier step, which undid {} of all uses."
    saved = "The model state of step 3 with SHA-256 " + "03" * 32 + " was saved after {} of its uses."
    assert "was used 5 times" in words["digits:0", None]
    assert f" {undone.format(2)} {saved.format(3)} It had" in words["digits:0", None]
    assert f" {undone.format(2)} {saved.format(2)} It had" in words["digits:1", None]
    assert "undid" not in words["digits:2", None]
    assert saved.format(1) in words["digits:2", None]
    assert undone.format(2) in words["digits:0", "history"]
    assert "state" not in words["digits:0", "history"] + words["digits:3", None]


def test_another_kept_state_is_shown_on_demand(tmp_path: Path) -> None:
    made = resumed(tmp_path)
    trace = fgtrac.open(made.trace.path)
    data = trace.prove("digits:0", checkpoint=2)
    assert examine(data, made.verifier).verdict is Verdict.HOLDS
    assert "The model state of step 2 with" in parse_bundle(data).words
    for step in (1, 4, 5):
        with pytest.raises(ValueError, match=rf"no model state of step {step} was kept; .* of the steps 2, 3"):
            trace.prove("digits:0", checkpoint=step)
    for claim, name in (("history", "digits:0"), ("never used", "digits:3"), ("never registered", "digits:99")):
        with pytest.raises(ValueError, match="a checkpoint says how far uses came"):
            trace.prove(name, claim, checkpoint=2)


def test_a_resume_cannot_be_left_out_nor_a_state_that_was_undone_or_not_kept_be_shown(tmp_path: Path) -> None:
    made = resumed(tmp_path)
    seal = fgtrac.open(made.trace.path)._seal
    bundle = parse_bundle(prove(seal, row(0), "used"))
    kinds = {e.number: decode_event(e.entry)["kind"] for e in bundle.entries}
    assert sorted(kinds.values()) == ["checkpoint", "resume"]
    for kind, refuted in (("resume", ["entries"]), ("checkpoint", [])):
        lie = reworded(replace(bundle, entries=tuple(e for e in bundle.entries if kinds[e.number] != kind)))
        assert refuting(lie, made.verifier) == refuted
    states = {n: seal.log.event(n) for n in seal.log.find_kind("checkpoint", seal.event["counts"]["checkpoint"])}
    others = tuple(e for e in bundle.entries if kinds[e.number] == "resume")
    for number, event in states.items():
        shown = Shown(number, seal.log.entry(number), seal.log.path(number))
        told = replace(bundle, entries=tuple(sorted((*others, shown), key=lambda e: e.number)))
        if not event["kept"]:
            assert refuting(told, made.verifier) == ["entries"]
        elif event["step"] == 4:
            assert refuting(told, made.verifier) == ["claim"]
        else:
            assert check_bundle(reworded(told), made.verifier).verdict is Verdict.HOLDS
    two = tuple(Shown(n, seal.log.entry(n), seal.log.path(n)) for n in list(states)[:2])
    both = replace(bundle, entries=tuple(sorted((*others, *two), key=lambda e: e.number)))
    assert refuting(both, made.verifier) == ["entries"]


def test_names_are_told_whole_however_long_they_are(tmp_path: Path) -> None:
    """Cut, two of them might look alike."""
    made, writing = start_trace(tmp_path)
    writing.recorder.record("dataset", {"name": '"' * 5000, "id_scheme": "public", "content": "\n" * 5000})
    writing.recorder.record("dataset", {"name": "other", "id_scheme": "public"})
    writing.end()
    made.seal()
    seal = fgtrac.open(made.trace.path)._seal
    absent = parse_bundle(prove(seal, Proof(bytes(32), is_content=True)))
    assert absent.words.endswith('"' + '\\"' * 5000 + '" by "' + "\\n" * 5000 + '", "other" by "unknown".')
    long = preimage("d" * 30_000, "k" * 30_000)
    assert "k" * 30_000 in parse_bundle(prove(seal, Proof(public_id(long), long))).words


def test_words_that_are_too_long_are_not_written(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    for n in range(20):
        writing.recorder.record("dataset", {"name": f"{n}" + '"' * 30_000, "id_scheme": "public"})
    writing.end()
    made.seal()
    with pytest.raises(ValueError, match="characters of words and may have 1,048,576"):
        prove(fgtrac.open(made.trace.path)._seal, Proof(bytes(32), is_content=True))
