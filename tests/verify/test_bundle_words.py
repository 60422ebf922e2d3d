"""The words of a bundle: what they say of uses, of a run that was resumed, and of a record that is not whole."""

from __future__ import annotations

from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fgtrac
from fgtrac.events.schema import ATTRIBUTION, STATUS
from fgtrac.query.prove import Proof
from fgtrac.verify.bundle import parse_bundle
from fgtrac.verify.claims import check_bundle
from fgtrac.verify.report import Verdict
from lives import live_with_contents
from proofs import examine, prove, row
from traces import Made, start_trace


def test_the_sentences_say_what_happened(bundles: Any) -> None:
    _verifier, made = bundles
    said = {claim: parse_bundle(data).words.partition(", as committed")[0] for claim, data in made.items()}
    who = 'sample with key {} of data set "digits"'
    assert said["used"] == f"The {who.format(3)} was used 2 times in optimizer updates, first in step 1, last in step 2"
    assert said["never used"] == (f"The {who.format(4)} is registered and was never used in an optimizer update")
    assert said["never registered"] == f"The {who.format(99)} was never registered"
    assert said["content present"].endswith("is held by 2 registered samples")
    assert said["content absent"].endswith("is held by no registered sample")
    behind = {claim: parse_bundle(data).words.partition(" at size ")[2] for claim, data in made.items()}
    rest = {claim: words.partition(". ")[2] for claim, words in behind.items()}
    assert rest["used"] == "The model state of step 2 was saved after 2 of its uses. It had the role train."
    assert rest["never used"] == (
        "It was delivered once without being applied, as far as the recorder could tell. It had the role train."
    )
    assert rest["history"] == (
        "It had the role train. Samples that were made from it: 1. Uses of those in optimizer updates: 0."
    )
    assert rest["content absent"] == 'Contents were taken from: "photos" by "file".'
    assert rest["never registered"] == rest["content present"] == ""


def test_the_sentences_count_the_uses_that_rest_on_an_assumed_order(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    for step, attribution in enumerate(("exact", "fifo", "sole", "fifo"), 1):
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
    assumed = "Which update took it is assumed from the order of the batches in {} of its uses."
    assert assumed.format(2) in said["digits:0", "used"]
    assert assumed.format(2) in said["digits:0", "history"]
    assert "assumed" not in said["digits:1", "used"]
    assert assumed.format(1) in said["digits:2", "used"]


# -- a whole run ----------------------------------------------------------------------------------------------------


def proved(made: Made, unused: int = 9) -> dict[str, tuple[str, Verdict]]:
    """Of each claim about a sample what the bundle says of the record, and its verdict."""
    trace, out = fgtrac.open(made.trace.path), {}
    asked = {"used": row(0), "history": row(0), "never used": row(unused), "never registered": row(99)}
    for claim, proof in asked.items():
        data = prove(trace._seal, proof, claim)
        end = parse_bundle(data).words.partition(f" at size {trace._seal.head.size}")[2].partition(" It had")[0]
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
    assert set(said.values()) == {(" of a run that has not ended.", Verdict.CANNOT_TELL)}
    writing.end()
    made.seal()
    assert set(proved(made).values()) == {(".", Verdict.HOLDS)}


@pytest.mark.parametrize(("gaps", "words"), [(1, "1 gap"), (2, "2 gaps")])
@pytest.mark.parametrize("ended", [True, False])
def test_of_a_record_with_gaps_only_what_was_used_can_be_told(
    tmp_path: Path, gaps: int, words: str, ended: bool
) -> None:
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
    record = f" of a run{'' if ended else ' that has not ended,'} with {words} in its record."
    assert said.pop("used") == (".", Verdict.HOLDS)
    assert set(said.values()) == {(record, Verdict.CANNOT_TELL)}


def test_no_absent_content_is_shown_by_a_run_that_has_not_ended(tmp_path: Path) -> None:
    made = live_with_contents(tmp_path, ended=False)
    data = prove(fgtrac.open(made.trace.path)._seal, Proof(bytes(32), is_content=True))
    assert " of a run that has not ended. Contents were" in parse_bundle(data).words
    report = examine(data, made.verifier)
    assert report.verdict is Verdict.CANNOT_TELL
    assert [f.check for f in report.failures()] == ["complete", "claim"]


def test_leaving_out_that_a_run_has_not_ended_is_a_lie(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    writing.recorder.rotate()
    made.seal()
    bundle = parse_bundle(fgtrac.open(made.trace.path).prove("digits:9"))
    told = replace(bundle, words=bundle.words.replace(" of a run that has not ended", ""))
    assert told != bundle
    assert check_bundle(told, made.verifier).verdict is Verdict.REFUTED
