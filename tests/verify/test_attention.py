"""Modality weights in a log: of kept checkpoints, finite, and one row for each sample of each; else refuted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fgtrac.api.audit import audit_trace
from fgtrac.events.identity import block_id
from fgtrac.verify.report import Finding, Verdict
from signed import BLOCK, IDS, OTHER, VERIFIER, WRITER, Event, MemoryTrace, by, gap, run, samples, seal, write

AGAIN = IDS[:2]  # two of the samples, registered in a block of their own
AGAIN_BLOCK = block_id(b"".join(AGAIN))


def checkpoint(step: int = 4, *, kept: bool = True, digest: bytes = b"d" * 32, **changes: Any) -> Event:
    return {"kind": "checkpoint", "step": step, "digest": digest, "kept": kept, "rule": "kept: all are", **changes}


def attention(seq: int, *ordinals: int, step: int = 4, writer: bytes = WRITER, **changes: Any) -> Event:
    weights = np.full(2 * len(ordinals), 0.5, np.float32)
    said = {"checkpoint": [writer, seq], "step": step, "modalities": ["image", "words"], "block": BLOCK}
    return {"kind": "attention", **said, "ordinals": np.array(ordinals, np.uint32), "weights": weights, **changes}


def found(*entries: Event) -> Finding:
    """What the check finds of entries from number 2 on."""
    report = audit_trace(MemoryTrace(write(run(), samples(), *entries, seal())), VERIFIER)
    (finding,) = [f for f in report.findings if f.check == "attention"]
    return finding


def test_without_modality_weights_the_check_is_not_made() -> None:
    report = audit_trace(MemoryTrace(write(run(), samples(), seal())), VERIFIER)
    assert "attention" not in [f.check for f in report.findings]


def test_weights_of_kept_checkpoints_hold_and_what_is_not_shown_is_said() -> None:
    finding = found(
        checkpoint(), attention(2, 0, 1), attention(2, 5), checkpoint(8, digest=b"e" * 32), attention(5, 0, step=8)
    )
    assert finding.verdict is Verdict.HOLDS
    assert "4 rows of modality weights" in finding.words
    assert "dropped" not in finding.words


def test_weights_of_a_checkpoint_that_was_dropped_later_are_counted() -> None:
    finding = found(checkpoint(), attention(2, 0, 1), checkpoint(kept=False))
    assert finding.verdict is Verdict.HOLDS
    assert "(2 at 1 checkpoint that the run later dropped or went behind)" in finding.words


def test_weights_of_a_checkpoint_that_a_resumed_run_went_behind_are_counted() -> None:
    resume = by(OTHER, 0, {"kind": "resume", "writers": [[WRITER, 3]], "step": 3})
    again = by(OTHER, 1, checkpoint())
    finding = found(checkpoint(), attention(2, 0), resume, again, by(OTHER, 2, attention(1, 0, writer=OTHER)))
    assert finding.verdict is Verdict.HOLDS
    assert "2 rows" in finding.words
    assert "(1 at 1 checkpoint that the run later" in finding.words


NAN, INF = (np.array([0.5, bad], np.float32) for bad in (np.nan, np.inf))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ((checkpoint(kept=False), attention(2, 0)), "its checkpoint, entry 2, is not kept at that place of the log"),
        ((checkpoint(), checkpoint(kept=False), attention(2, 0)), "entry 4 (attention) gives weights at step 4; its"),
        ((checkpoint(), attention(2, 0, step=5)), "gives weights at step 5; its checkpoint, entry 2, is of step 4"),
        ((attention(3, 0), checkpoint()), f"names number 3 of writer {WRITER.hex()} as its checkpoint, and there"),
        ((checkpoint(), attention(2, 0, weights=NAN)), "entry 3 (attention) gives nan for 'words' in row 0"),
        ((checkpoint(), attention(2, 0, weights=INF)), "entry 3 (attention) gives inf for 'words' in row 0"),
        ((checkpoint(), attention(2, 0, modalities=["a", "a"])), "names the modalities ['a', 'a']"),
        (
            (checkpoint(), attention(2, 0, modalities=[], weights=np.empty(0, np.float32))),
            "entry 3 (attention) names the modalities []",
        ),
        ((checkpoint(), attention(2, 3, 3)), f"sample {IDS[3].hex()} has more than one row"),
        ((checkpoint(), attention(2, 0, 3), attention(2, 3)), "more than one row of modality weights at the"),
        (
            (
                checkpoint(),
                samples() | {"dataset": "again", "block": AGAIN_BLOCK, "ids": b"".join(AGAIN)},
                attention(2, 3, 1),
                attention(2, 0, 1, block=AGAIN_BLOCK),
            ),
            f"sample {IDS[1].hex()} has more than one row",
        ),
    ],
)  # fmt: skip
def test_false_weights_are_refuted(entries: tuple[Event, ...], words: str) -> None:
    finding = found(*entries)
    assert finding.verdict is Verdict.REFUTED
    assert words in finding.words


def test_after_a_resume_nothing_is_weighed_at_a_checkpoint_that_it_went_behind() -> None:
    resume = by(OTHER, 0, {"kind": "resume", "writers": [[WRITER, 2]], "step": 3})
    finding = found(checkpoint(), resume, by(OTHER, 1, attention(2, 0)))
    assert finding.verdict is Verdict.REFUTED
    assert "not kept at that place" in finding.words


def test_of_a_checkpoint_that_is_lost_nothing_can_be_told() -> None:
    lost = by(WRITER, 3, gap(WRITER, 2, 3))
    finding = found(lost, by(WRITER, 4, attention(2, 0)))
    assert finding.verdict is Verdict.CANNOT_TELL
    assert "is lost, as a gap entry says" in finding.words
    wrong = found(lost, by(WRITER, 4, attention(2, 0)), by(WRITER, 5, attention(9, 0)))
    assert wrong.verdict is Verdict.REFUTED
