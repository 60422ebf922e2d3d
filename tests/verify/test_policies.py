"""One test for each way to break a policy, and for each reason why one cannot tell."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgtrac.errors import FormatError
from fgtrac.events.codec import encode
from fgtrac.events.identity import (
    block_id,
    content_preimage,
    key_commitment,
    make_ids,
    preimage,
    subject_commitment,
)
from fgtrac.verify.auditor import audit_log
from fgtrac.verify.checks import Checks
from fgtrac.verify.opt_outs import AtHand
from fgtrac.verify.policies import NEEDS, judge
from fgtrac.verify.policy_file import BUILT_IN, OptOut, Policies
from fgtrac.verify.report import Verdict
from fgtrac.verify.sample_lists import parse_digests
from fgtrac.verify.uses import NONE
from signed import VERIFIER, WRITER, Event, MemoryTrace, end, run, seal, use, write
from signed import gap as lost

SECRET = hashlib.sha256(b"K").digest()
SUBJECT = hashlib.sha256(b"K_s").digest()
HOLDS, REFUTED, CANNOT_TELL = Verdict.HOLDS, Verdict.REFUTED, Verdict.CANNOT_TELL


class Data:
    """A data set of some rows; row n has the source bytes `sources[n]` and belongs to the subject of `subjects[n]`."""

    def __init__(
        self, name: str, rows: int, *, scheme: str = "public", content: str | None = "file",
        sources: Sequence[bytes] | None = None, secret: bytes = SECRET, subjects: Sequence[bytes] | None = None,
        keys: str | None = "rows",
    ) -> None:  # fmt: skip
        self.name, self.scheme, self.content, self.keys = name, scheme, content, keys
        ids = make_ids(scheme, secret, [preimage(name, row) for row in range(rows)])
        self.ids = [ids[i : i + 32] for i in range(0, len(ids), 32)]
        self.sources = [b"%s %d" % (name.encode(), row) for row in range(rows)] if sources is None else sources
        digests = [content_preimage(hashlib.sha256(source).digest()) for source in self.sources]
        contents = make_ids(scheme, secret, digests)
        self.contents = [contents[i : i + 32] for i in range(0, len(contents), 32)]
        self.subjects = subjects
        self.ordered = sorted(range(rows), key=self.ids.__getitem__)
        self.block = block_id(b"".join(sorted(self.ids)))

    def ordinals(self, rows: Iterable[int]) -> np.ndarray:
        return np.array([self.ordered.index(row) for row in rows], np.uint32)

    def registered(self, *roles: str) -> list[Event]:
        columns = {"ids": b"".join(sorted(self.ids))}
        if self.content is not None:
            columns["contents"] = b"".join(self.contents[row] for row in self.ordered)
        if self.subjects is not None:
            columns["subjects"] = b"".join(self.subjects[row] for row in self.ordered)
        said = {"name": self.name, "id_scheme": self.scheme} | ({"content": self.content} if self.content else {})
        said |= {"keys": self.keys} if self.keys else {}
        part = {"kind": "samples", "dataset": self.name, "block": self.block, "part": 0, "parts": 1, **columns}
        return [{"kind": "dataset", **said}, part, *(self.role(role) for role in roles)]

    def role(self, role: str, rows: Iterable[int] | None = None) -> Event:
        named = self.ordinals(range(len(self.ids)) if rows is None else rows)
        return {"kind": "roles", "role": role, "block": self.block, "ordinals": named}

    def use(self, number: int, /, *rows: int, **changes: Any) -> Event:
        return {**use(number, *self.ordinals(rows).tolist()), "block": self.block, **changes}

    def dropped(self, *rows: int) -> Event:
        stage = {"kind": "transform", "stage": "filter", "operation": "filter", "block": self.block}
        return {**stage, "dropped": self.ordinals(rows)}

    def made(self, other: Data, *pairs: tuple[int, int]) -> Event:
        """Rows of another data set were made from rows of this one."""
        parents, children = self.ordinals(p for p, _ in pairs), other.ordinals(c for _, c in pairs)
        stage = {"kind": "transform", "stage": "crop", "operation": "record", "block": self.block}
        return {**stage, "child_block": other.block, "parents": parents, "children": children}

    def erased(self, pseudonym: bytes, *rows: int, **changes: Any) -> Event:
        fields = {"pseudonym": pseudonym, "block": self.block, "ordinals": self.ordinals(rows), "artifacts": []}
        return {"kind": "erasure", **fields, **changes}


@dataclass(frozen=True)
class Found:
    """One policy's finding, and what breaks it as (id, step, entry)."""

    verdict: Verdict
    words: str
    broken: list[tuple[bytes, int, int]]
    superseded: list[bool]
    twins: list[bytes | None]


def check(
    *events: Event | list[Event], policies: Policies | None = None, at_hand: AtHand | None = None, ended: bool = True,
    run_entry: Event | None = None,
) -> dict[str, Found]:  # fmt: skip
    """What every policy says of a log of these entries, between a run entry and an end."""
    flat = [run() if run_entry is None else run_entry]
    for event in events:
        flat += event if isinstance(event, list) else [event]
    flat += [end()] if ended else []
    audit = audit_log(MemoryTrace(write(*flat, seal())), VERIFIER)
    assert {f.check for f in audit.checks.findings if f.verdict is HOLDS} >= set(NEEDS), audit.checks.findings
    assert audit.log is not None
    roster, rulings = judge(audit.log, audit.facts, policies or Policies(), at_hand or AtHand(), lambda _: None)
    checks = Checks()
    for ruling in rulings:
        checks.make(ruling.name, ruling.answer)
    out = {}
    for ruling, finding in zip(rulings, checks.findings, strict=True):
        v = ruling.violations
        rows = [(roster.id(p), s, e) for p, s, e in zip(v.places, v.steps.tolist(), v.entries.tolist(), strict=True)]
        twins = [] if ruling.twins is None else [roster.id(t) if t >= 0 else None for t in ruling.twins[v.places]]
        out[ruling.name] = Found(finding.verdict, finding.words, rows, v.superseded.tolist(), twins)
    return out


def assert_all_hold(found: dict[str, Found]) -> None:
    assert {f.verdict for f in found.values()} == {HOLDS}, found


def assert_only(found: dict[str, Found], name: str, verdict: Verdict, *words: str) -> Found:
    """One policy answers so, in words that hold all of `words`; all others hold."""
    assert {n: f.verdict for n, f in found.items()} == {n: verdict if n == name else HOLDS for n in found}, found
    for word in words:
        assert word in found[name].words
    return found[name]


TRAIN, TEST = Data("train", 4), Data("test", 3)
BOTH = [*TRAIN.registered("train"), *TEST.registered("test")]


def opt_out(**fields: Any) -> Policies:
    return Policies((), opt_outs=(OptOut("list", **fields),))


def listed(*lines: str, **more: Any) -> AtHand:
    return AtHand(read=lambda _path: [b"".join(line.encode() + b"\n" for line in lines)], **more)


def test_a_run_that_keeps_apart_what_it_must_holds_in_every_policy() -> None:
    found = check(BOTH, TRAIN.use(1, 0, 1), TRAIN.use(2, 2, 3))
    assert list(found) == list(BUILT_IN)
    assert_all_hold(found)
    assert "no use of 3 samples in the role validation, test or excluded is among the 4 uses" in found["held-out"].words
    assert "each of 4 training samples" in found["every-training-sample-used"].words


# -- held out ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["validation", "test", "excluded"])
def test_a_held_out_sample_in_an_applied_update_is_named_with_its_step_and_entry(role: str) -> None:
    data = [*TRAIN.registered("train"), *TEST.registered(role)]
    found = check(data, TRAIN.use(1, 0, 1, 2, 3), TEST.use(2, 1))
    broken = assert_only(found, "held-out", REFUTED, f"sample id:{TEST.ids[1].hex()} in step 2, epoch 0, entry 8")
    assert broken.broken == [(TEST.ids[1], 2, 8)]


def test_a_held_out_sample_that_was_delivered_and_not_applied_breaks_nothing() -> None:
    unapplied = {"status": np.array([3], np.uint8), "step": np.array([2**64 - 1], np.uint64)}
    found = check(BOTH, TRAIN.use(1, 0, 1, 2, 3), TEST.use(1, 0, **unapplied))
    assert_all_hold(found)


def test_only_the_applied_batches_of_an_entry_are_uses() -> None:
    three = Data("three", 3)
    columns = {
        "epoch": np.zeros(3, np.uint32), "batch": np.zeros(3, np.uint32), "count": np.ones(3, np.uint32),
        "step": np.array([1, 2**64 - 1, 2], np.uint64), "status": np.array([1, 2, 1], np.uint8),
        "attribution": np.ones(3, np.uint8),
    }  # fmt: skip
    found = check(three.registered("test"), three.use(1, 0, 1, 2, **columns), policies=Policies(("held-out",)))
    assert found["held-out"].broken == [(three.ids[0], 1, 4), (three.ids[2], 2, 4)]


def test_a_role_that_is_given_after_the_use_counts() -> None:
    found = check(BOTH[:-1], TRAIN.use(1, 0, 1, 2, 3), TEST.use(2, 0), TEST.role("test"))
    assert_only(found, "held-out", REFUTED, "1 use of 1 sample")


def test_a_sample_with_a_second_role_is_held_out_and_its_use_is_not_owed() -> None:
    used = check(BOTH, TRAIN.role("test", [0]), TRAIN.use(1, 0, 1, 2, 3))
    assert used["held-out"].verdict is REFUTED
    spared = check(BOTH, TRAIN.role("test", [0]), TRAIN.use(1, 1, 2, 3))
    assert_all_hold(spared)
    assert "each of 3 training samples" in spared["every-training-sample-used"].words
    assert "1 more are held out" in spared["every-training-sample-used"].words


def test_what_was_made_from_a_held_out_sample_is_held_out() -> None:
    crops, again = Data("crops", 2, content=None), Data("again", 1, content=None)
    made = [*crops.registered(), *again.registered(), TEST.made(crops, (0, 0)), TRAIN.made(crops, (0, 0), (1, 1))]
    made.append(crops.made(again, (0, 0)))
    assert_all_hold(check(BOTH, made, crops.use(1, 1), TRAIN.use(2, 0, 1, 2, 3)))
    found = check(BOTH, made, again.use(1, 0), TRAIN.use(2, 0, 1, 2, 3))
    broken = assert_only(found, "held-out", REFUTED, "3 samples (and 2 made from them)")
    assert [b[0] for b in broken.broken] == [again.ids[0]]


def test_an_id_that_two_blocks_register_is_one_sample() -> None:
    fewer = Data("test", 2)
    found = check(BOTH, fewer.registered(), TRAIN.use(1, 0, 1, 2, 3), fewer.use(2, 1))
    assert [b[0] for b in assert_only(found, "held-out", REFUTED).broken] == [TEST.ids[1]]


def test_the_roles_that_count_are_chosen_in_the_file() -> None:
    policies = Policies(held_out_roles=("validation",))
    data = [*BOTH, TRAIN.role("validation", [3])]
    found = check(data, TRAIN.use(1, 0, 1, 2), TEST.use(2, 0), policies=policies)
    owed = check(BOTH, TRAIN.role("test", [3]), TRAIN.role("validation", [0]), TRAIN.use(1, 1, 2), policies=policies)
    assert_only(owed, "every-training-sample-used", REFUTED, "1 of 3 training samples", f"id:{TRAIN.ids[3].hex()}")
    assert_all_hold(found)


def test_without_a_held_out_sample_nothing_says_what_is_held_out() -> None:
    found = check(TRAIN.registered("train"), TRAIN.use(1, 0, 1, 2, 3))
    for name in ("held-out", "held-out-contents"):
        assert found[name].verdict is CANNOT_TELL
        assert "no registered sample has the role validation, test or excluded" in found[name].words


# -- by content -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["public", "keyed"])
def test_a_copy_of_a_held_out_sample_is_found_by_its_content(scheme: str) -> None:
    copy = Data("copy", 2, scheme=scheme, sources=[b"another", b"test 2"])
    test = Data("test", 3, scheme=scheme)
    entry = run(key_commitment=key_commitment(SECRET))
    found = check(copy.registered("train"), test.registered("test"), copy.use(1, 0, 1), run_entry=entry)
    words = f"sample id:{copy.ids[1].hex()}, which has the content of id:{test.ids[2].hex()}, in step 1"
    broken = assert_only(found, "held-out-contents", REFUTED, words)
    assert [b[0] for b in broken.broken] == [copy.ids[1]]
    assert broken.twins == [test.ids[2]]


def test_a_copy_within_one_data_set_is_found() -> None:
    data = Data("all", 3, sources=[b"a", b"b", b"a"])
    found = check(data.registered(), data.role("train", [0, 1]), data.role("test", [2]), data.use(1, 0, 1))
    assert [b[0] for b in assert_only(found, "held-out-contents", REFUTED).broken] == [data.ids[0]]


def test_a_copy_that_is_registered_and_not_used_breaks_nothing() -> None:
    copy = Data("copy", 1, sources=[b"test 0"])
    assert_all_hold(check(BOTH, copy.registered(), TRAIN.use(1, 0, 1, 2, 3)))


def test_what_was_made_from_a_copy_counts_by_what_it_was_made_from() -> None:
    copy, crops = Data("copy", 2, sources=[b"test 0", b"other"]), Data("crops", 2, content=None)
    made = [*copy.registered(), *crops.registered(), copy.made(crops, (0, 0), (1, 1))]
    assert_all_hold(check(BOTH, made, crops.use(1, 1), TRAIN.use(2, 0, 1, 2, 3)))
    found = check(BOTH, made, crops.use(1, 0, 1), TRAIN.use(2, 0, 1, 2, 3))
    assert [b[0] for b in assert_only(found, "held-out-contents", REFUTED).broken] == [crops.ids[0]]


def test_two_samples_made_from_one_source_are_of_one_content() -> None:
    page, parts = Data("page", 2), Data("parts", 3, content=None)
    made = [*page.registered(), *parts.registered(), page.made(parts, (0, 0), (0, 1), (1, 2))]
    roles = [parts.role("train", [0, 2]), parts.role("test", [1])]
    found = check(made, roles, parts.use(1, 0, 2))
    assert [b[0] for b in assert_only(found, "held-out-contents", REFUTED).broken] == [parts.ids[0]]


def test_a_later_registration_with_other_contents_adds_to_the_first() -> None:
    other = Data("train", 4, sources=[b"x", b"test 1", b"y", b"z"])
    found = check(BOTH, other.registered()[1], TRAIN.use(1, 0, 1, 2, 3))
    assert [b[0] for b in assert_only(found, "held-out-contents", REFUTED).broken] == [TRAIN.ids[1]]


UNLIKE: dict[str, Data] = {
    "no digests": Data("train", 4, content=None),
    "digests of something else": Data("train", 4, content="tensor"),
    "digests under another scheme": Data("train", 4, scheme="keyed"),
    "digests of a subject's own": Data("train", 4, scheme="subject", subjects=[subject_commitment(SECRET)] * 4),
}


@pytest.mark.parametrize("train", UNLIKE.values(), ids=UNLIKE)
def test_contents_that_cannot_be_compared_are_no_proof_of_difference(train: Data) -> None:
    entry = run(key_commitment=key_commitment(SECRET))
    used = check(TEST.registered("test"), train.registered("train"), train.use(1, 0, 1, 2, 3), run_entry=entry)
    assert_only(used, "held-out-contents", CANNOT_TELL, "(and 3 more) was used: its contents cannot be compared")
    held = check(TRAIN.registered("train"), replace_name(train).registered("test"), TRAIN.use(1, 0, 1, 2, 3),
                 run_entry=entry)  # fmt: skip
    assert_only(held, "held-out-contents", CANNOT_TELL, "cannot be compared with those of every held-out sample")


def replace_name(data: Data) -> Data:
    return Data("other", 4, scheme=data.scheme, content=data.content, subjects=data.subjects)


def test_equal_contents_of_two_subjects_are_not_linked() -> None:
    ours, theirs = (
        Data(name, 1, scheme="subject", sources=[b"same"], secret=key, subjects=[subject_commitment(key)])
        for name, key in (("ours", SECRET), ("theirs", SUBJECT))
    )
    found = check(ours.registered("train"), theirs.registered("test"), ours.use(1, 0))
    assert_only(found, "held-out-contents", CANNOT_TELL, "equal contents of two subjects are not linked")


def test_digests_of_nobody_knows_what_are_compared_within_a_data_set_only() -> None:
    def unsaid(data: Data, *roles: str) -> list[Event]:
        return [{k: v for k, v in e.items() if k != "content"} for e in data.registered(*roles)]

    found = check(unsaid(TRAIN, "train"), unsaid(TEST, "test"), TRAIN.use(1, 0, 1, 2, 3))
    assert_only(found, "held-out-contents", CANNOT_TELL, "cannot be compared")
    parts = TRAIN.role("train", [0, 1, 2]), TRAIN.role("test", [3])
    assert_all_hold(check(unsaid(TRAIN), *parts, TRAIN.use(1, 0, 1, 2)))
    other = {**TRAIN.registered()[0], "content": "tensor"}
    for twice in ([other, *BOTH], [*BOTH, other]):  # described twice, and not alike
        found = check(twice, TRAIN.use(1, 0, 1, 2, 3))
        assert_only(found, "held-out-contents", CANNOT_TELL, "cannot be compared")


def test_a_data_set_that_no_entry_describes_is_compared_with_nothing_and_has_no_names() -> None:
    undescribed, policies = TRAIN.registered("train")[1:], Policies(opt_outs=(OptOut("list", samples="list.txt"),))
    found = check(undescribed, TEST.registered("test"), TRAIN.use(1, 0, 1, 2, 3), policies=policies,
                  at_hand=listed("train:0"))  # fmt: skip
    answers = {name: finding.verdict for name, finding in found.items() if finding.verdict is not HOLDS}
    assert answers == {"held-out-contents": CANNOT_TELL, "opt-out list": CANNOT_TELL}


def test_a_registration_that_was_cut_short_is_nobody() -> None:
    part = {**Data("cut", 2).registered()[1], "parts": 2}
    assert_all_hold(check(BOTH, part, TRAIN.use(1, 0, 1, 2, 3)))


def test_samples_without_digests_cannot_be_compared_within_their_data_set_either() -> None:
    data = Data("all", 3, content=None)
    found = check(data.registered(), data.role("train", [0, 1]), data.role("test", [2]), data.use(1, 0, 1))
    assert_only(found, "held-out-contents", CANNOT_TELL, "a data set may have no digests")


def test_what_cannot_be_compared_and_was_not_used_does_not_matter() -> None:
    other = Data("other", 2, content=None)
    assert_all_hold(check(BOTH, other.registered(), TRAIN.use(1, 0, 1, 2, 3)))


def test_kin_in_a_circle_is_followed_once_and_has_no_known_content() -> None:
    a, b = Data("a", 1, content=None), Data("b", 1, content=None)
    circle = [*a.registered(), *b.registered(), a.made(b, (0, 0)), b.made(a, (0, 0))]
    found = check(BOTH, circle, a.use(1, 0), TRAIN.use(2, 0, 1, 2, 3))
    assert_only(found, "held-out-contents", CANNOT_TELL, f"sample id:{a.ids[0].hex()} was used")
    assert check(BOTH, circle, a.role("test"), b.use(1, 0))["held-out"].verdict is REFUTED


# -- every training sample --------------------------------------------------------------------------------------------


def test_a_training_sample_that_no_update_used_is_named() -> None:
    found = check(BOTH, TRAIN.use(1, 0, 2, 3))
    broken = assert_only(found, "every-training-sample-used", REFUTED, "1 of 4", f"id:{TRAIN.ids[1].hex()}")
    assert broken.broken == [(TRAIN.ids[1], NONE, NONE)]


def test_a_training_sample_counts_as_used_through_what_was_made_from_it() -> None:
    crops = Data("crops", 2, content=None)
    made = [*crops.registered(), TRAIN.made(crops, (0, 0), (1, 0), (2, 1))]
    assert_all_hold(check(BOTH, made, crops.use(1, 0, 1), TRAIN.use(2, 3)))
    found = check(BOTH, made, crops.use(1, 0), TRAIN.use(2, 3))
    assert_only(found, "every-training-sample-used", REFUTED, f"id:{TRAIN.ids[2].hex()}")


def test_what_a_stage_dropped_need_not_be_used_and_is_counted() -> None:
    found = check(BOTH, TRAIN.dropped(1), TRAIN.use(1, 0, 2, 3))
    assert_all_hold(found)
    assert "1 more are held out, erased, or were dropped by a stage" in found["every-training-sample-used"].words


def test_a_use_that_a_resume_superseded_is_no_use_that_stands() -> None:
    resumed = {"kind": "resume", "writers": [], "step": 1}
    found = check(BOTH, TRAIN.use(1, 0), TRAIN.use(2, 1), TRAIN.use(3, 2), resumed, TRAIN.use(2, 2, 3))
    words = "1 of 4", "1 of them only in updates that a resume superseded", f"id:{TRAIN.ids[1].hex()}"
    assert_only(found, "every-training-sample-used", REFUTED, *words)


def test_without_training_samples_nothing_says_who_is_to_be_used() -> None:
    found = check(TRAIN.registered(), TEST.registered("test"), TRAIN.use(1, 0))
    assert_only(found, "every-training-sample-used", CANNOT_TELL, "no registered sample has the role train")


# -- what the record lacks --------------------------------------------------------------------------------------------


def test_a_run_without_an_end_keeps_no_policy_but_may_break_one() -> None:
    found = check(BOTH, TRAIN.use(1, 0, 1, 2, 3), ended=False)
    assert {f.verdict for f in found.values()} == {CANNOT_TELL}
    assert all("the run has no end entry" in f.words for f in found.values())
    broken = check(BOTH, TRAIN.use(1, 0, 1, 2), TEST.use(2, 0), ended=False)
    assert broken["held-out"].verdict is REFUTED
    assert broken["every-training-sample-used"].verdict is CANNOT_TELL
    assert broken["every-training-sample-used"].broken == []  # it may still be used


def test_training_after_the_end_needs_an_end_of_its_own() -> None:
    again = [end(), {"kind": "resume", "writers": [], "step": 1}]
    assert check(BOTH, TRAIN.use(1, 0, 1, 2, 3), *again, ended=False)["held-out"].verdict is CANNOT_TELL
    later = check(BOTH, TRAIN.use(1, 0, 1), end(), TRAIN.use(2, 2, 3), ended=False)
    assert later["held-out"].verdict is CANNOT_TELL
    assert check(BOTH, TRAIN.use(1, 0, 1), *again, TRAIN.use(2, 2, 3))["held-out"].verdict is HOLDS


def test_what_follows_the_end_without_training_leaves_it_the_end() -> None:
    erased = [TEST.erased(bytes(32), 0), {"kind": "metrics", "step": 1, "values": {}}]
    found = check(BOTH, TRAIN.use(1, 0, 1, 2, 3), end(), *erased, ended=False)
    assert_all_hold(found)


def test_a_gap_may_have_been_a_use() -> None:
    events = [*BOTH, TRAIN.use(1, 0, 1, 2, 3)]
    hole = {**lost(WRITER, len(events) + 1, len(events) + 2), "writer": b"g" * 16}
    after = {**end(), "writer": WRITER, "seq": len(events) + 2}
    found = check(events, hole, after, ended=False)
    assert {f.verdict for f in found.values()} == {CANNOT_TELL}
    assert "something was lost" in found["erased-subjects"].words


# -- erased subjects --------------------------------------------------------------------------------------------------

ALICE, BOB = (subject_commitment(hashlib.sha256(name).digest()) for name in (b"alice", b"bob"))
PEOPLE = Data("people", 4, scheme="subject", subjects=[ALICE, ALICE, BOB, BOB])
ERASED = Policies(("erased-subjects",))


def test_an_erased_subject_that_is_used_later_is_named() -> None:
    uses = [PEOPLE.use(1, 0, 2), PEOPLE.erased(ALICE, 0, 1), PEOPLE.use(2, 1, 3)]
    found = check(PEOPLE.registered("train"), uses, policies=ERASED)["erased-subjects"]
    assert found.verdict is REFUTED
    assert found.broken == [(PEOPLE.ids[1], 2, 6)]
    assert "2 samples of 1 erased subject after the erasure" in found.words


def test_uses_before_the_erasure_break_nothing() -> None:
    uses = [PEOPLE.use(1, 0, 1, 2), PEOPLE.erased(ALICE, 0, 1), PEOPLE.use(2, 2, 3)]
    assert check(PEOPLE.registered("train"), uses, policies=ERASED)["erased-subjects"].verdict is HOLDS


def test_a_sample_of_the_subject_that_the_erasure_does_not_list_is_erased_too() -> None:
    uses = [PEOPLE.use(1, 0), PEOPLE.erased(ALICE, 0), PEOPLE.use(2, 1)]
    found = check(PEOPLE.registered("train"), uses, policies=ERASED)["erased-subjects"]
    assert [b[0] for b in found.broken] == [PEOPLE.ids[1]]


def test_what_was_made_from_an_erased_subject_is_erased_too() -> None:
    crops = Data("crops", 1, content=None)
    made = [*crops.registered(), PEOPLE.made(crops, (0, 0))]
    found = check(PEOPLE.registered(), made, PEOPLE.erased(ALICE, 0, 1), crops.use(1, 0), policies=ERASED)
    assert [b[0] for b in found["erased-subjects"].broken] == [crops.ids[0]]


def test_the_first_of_two_erasures_counts() -> None:
    erased = PEOPLE.erased(ALICE, 0)
    found = check(PEOPLE.registered(), erased, PEOPLE.use(1, 1), erased, policies=ERASED)["erased-subjects"]
    assert found.verdict is REFUTED


@pytest.mark.parametrize("data", [PEOPLE, TRAIN], ids=["by pseudonym", "as listed"])
def test_a_use_is_after_the_erasure_by_its_place_in_the_log_or_by_its_time(data: Data) -> None:
    earlier, later = data.use(1, 0, time=50), data.use(1, 0, time=30)
    erased = data.erased(ALICE, 0, time=40)
    for uses, verdict in (((earlier, erased), REFUTED), ((erased, later), REFUTED), ((later, erased), HOLDS)):
        assert check(data.registered(), *uses, policies=ERASED)["erased-subjects"].verdict is verdict


def test_an_erased_training_sample_need_not_be_used() -> None:
    parts = PEOPLE.role("train"), PEOPLE.role("test", [3])
    found = check(PEOPLE.registered(), *parts, PEOPLE.use(1, 2), PEOPLE.erased(ALICE, 0, 1))
    assert_only(found, "held-out-contents", CANNOT_TELL, "equal contents of two subjects are not linked")
    assert "each of 1 training samples" in found["every-training-sample-used"].words


# -- opted-out subjects -----------------------------------------------------------------------------------------------


def test_an_opted_out_subject_may_be_used_before_the_date_and_not_after_it() -> None:
    uses = [PEOPLE.use(1, 0, time=100), PEOPLE.use(2, 2, time=300)]
    for after, verdict in ((100, HOLDS), (99, REFUTED), (None, REFUTED)):
        policies = opt_out(subjects=(ALICE.hex(),), after=after)
        assert check(PEOPLE.registered(), uses, policies=policies)["opt-out list"].verdict is verdict
    policies = opt_out(subjects=(ALICE.hex(), BOB.hex()), after=100)
    found = check(PEOPLE.registered(), uses, policies=policies)["opt-out list"]
    assert [b[:2] for b in found.broken] == [(PEOPLE.ids[2], 2)]
    assert "after 1970-01-01T00:00:00Z (by the recorder's clock)" in found.words


def test_a_subject_by_name_takes_a_vault() -> None:
    policies = opt_out(subjects=("bob",))
    known = AtHand(pseudonym=lambda name: BOB if name == "bob" else None)
    assert (
        check(PEOPLE.registered(), PEOPLE.use(1, 2), policies=policies, at_hand=known)["opt-out list"].verdict
        is REFUTED
    )
    assert (
        check(PEOPLE.registered(), PEOPLE.use(1, 0), policies=policies, at_hand=known)["opt-out list"].verdict is HOLDS
    )
    found = check(PEOPLE.registered(), PEOPLE.use(1, 0), policies=policies)["opt-out list"]
    assert found.verdict is CANNOT_TELL
    assert '1 of 1 subjects, the first is "bob", have no secret' in found.words


def test_samples_without_a_subject_may_be_anybody_s() -> None:
    """A log that records no subjects says nothing of any; what was made from a subject's samples is that subject's."""
    policies, crops = opt_out(subjects=(ALICE.hex(),)), Data("crops", 2, content=None)
    made = [*PEOPLE.registered(), *TRAIN.registered(), *crops.registered(), PEOPLE.made(crops, (2, 0))]
    for uses, verdict in (
        ([PEOPLE.use(1, 2)], HOLDS), ([crops.use(1, 0)], HOLDS), ([crops.use(1, 1)], CANNOT_TELL),
        ([PEOPLE.use(1, 2), TRAIN.use(2, 0, 1)], CANNOT_TELL), ([PEOPLE.use(1, 0), TRAIN.use(2, 0)], REFUTED),
    ):  # fmt: skip
        found = check(made, uses, policies=policies)["opt-out list"]
        assert found.verdict is verdict
        assert ("samples without a subject in the log may be anybody's" in found.words) is (verdict is CANNOT_TELL)
    late = opt_out(subjects=(ALICE.hex(),), after=10**6)
    assert check(made, TRAIN.use(1, 0), policies=late)["opt-out list"].verdict is HOLDS


def test_samples_that_were_given_nobody_as_their_subject_have_none() -> None:
    """Beside others that were given one; whoever has the run's key tells them by their pseudonym."""
    mixed = Data("mixed", 2, scheme="subject", subjects=[ALICE, BOB])
    policies = opt_out(subjects=(ALICE.hex(),))
    for nobody, verdict in ((None, HOLDS), (BOB, CANNOT_TELL)):
        at_hand = AtHand(nobody=nobody)
        found = check(mixed.registered(), mixed.use(1, 1), policies=policies, at_hand=at_hand)["opt-out list"]
        assert found.verdict is verdict


def test_a_pseudonym_that_no_sample_has_may_be_a_misspelling() -> None:
    found = check(PEOPLE.registered(), PEOPLE.use(1, 0), policies=opt_out(subjects=("ab" * 32,)))["opt-out list"]
    assert found.verdict is CANNOT_TELL
    assert '1 of 1 subjects, the first is "abab' in found.words
    assert "have no sample in this log" in found.words


# -- opt-outs by name -------------------------------------------------------------------------------------------------

NAMED = opt_out(samples="list.txt")
KEYED = Data("keyed", 4, scheme="keyed")
KEYED_RUN = run(id_scheme="keyed", key_commitment=key_commitment(SECRET))
KEYED_LOG = [*KEYED.registered("train"), KEYED.use(1, 0, 1)]


@pytest.mark.parametrize("line", ["train:2", "key:2", f"id:{TRAIN.ids[2].hex()}", TRAIN.ids[2].hex().upper()])
def test_a_listed_sample_is_found_by_anyone_where_ids_are_public(line: str) -> None:
    found = check(BOTH, TRAIN.use(1, 0, 1), TRAIN.use(2, 2), policies=NAMED, at_hand=listed(line))["opt-out list"]
    assert found.verdict is REFUTED
    assert [b[:2] for b in found.broken] == [(TRAIN.ids[2], 2)]
    unused = check(BOTH, TRAIN.use(1, 0, 1), policies=NAMED, at_hand=listed(line))["opt-out list"]
    assert unused.verdict is HOLDS


def test_a_key_counts_in_every_data_set_or_in_those_that_are_named() -> None:
    log = [*BOTH, TRAIN.use(1, 0), TEST.use(2, 0)]
    assert len(check(log, policies=NAMED, at_hand=listed("key:0"))["opt-out list"].broken) == 2
    some = opt_out(samples="list.txt", datasets=("train",))
    assert [b[0] for b in check(log, policies=some, at_hand=listed("key:0"))["opt-out list"].broken] == [TRAIN.ids[0]]
    with pytest.raises(ValueError, match='has no data set "trian"; it has "train", "test"'):
        check(log, policies=opt_out(samples="list.txt", datasets=("trian",)), at_hand=listed("key:0"))


def test_keyed_names_need_the_key_and_ids_do_not() -> None:
    lines = [f"keyed:{row}" for row in (1, 2, 7)]
    without = check(KEYED_LOG, policies=NAMED, at_hand=listed(*lines), run_entry=KEYED_RUN)["opt-out list"]
    assert without.verdict is CANNOT_TELL
    assert '3 names cannot be looked up in "keyed"' in without.words
    by_id = listed(*lines, f"id:{KEYED.ids[0].hex()}")
    assert check(KEYED_LOG, policies=NAMED, at_hand=by_id, run_entry=KEYED_RUN)["opt-out list"].verdict is REFUTED
    given = listed(*lines, id_key=SECRET)
    found = check(KEYED_LOG, policies=NAMED, at_hand=given, run_entry=KEYED_RUN)["opt-out list"]
    assert [b[0] for b in found.broken] == [KEYED.ids[1]]
    others = listed("keyed:2", "keyed:7", id_key=SECRET)
    assert check(KEYED_LOG, policies=NAMED, at_hand=others, run_entry=KEYED_RUN)["opt-out list"].verdict is HOLDS


def test_names_that_cannot_be_looked_up_do_not_matter_where_nothing_was_used_since() -> None:
    for after, verdict in ((10**6, HOLDS), (1, CANNOT_TELL)):
        policies = opt_out(samples="list.txt", after=after)
        found = check(KEYED_LOG, policies=policies, at_hand=listed("keyed:1"), run_entry=KEYED_RUN)["opt-out list"]
        assert found.verdict is verdict


def test_names_of_a_subject_s_samples_need_a_vault_that_knows_them_all() -> None:
    mine = Data("mine", 3, scheme="subject", subjects=[ALICE] * 3)
    log = [*mine.registered("train"), mine.use(1, 0, 1)]

    def vault(rows: Iterable[int]) -> Callable[[], Iterable[tuple[bytes, str, bytes]]]:
        return lambda: [(mine.ids[row], "mine", encode(row)) for row in rows]

    def answer(line: str, rows: Iterable[int]) -> Verdict:
        found = check(log, policies=NAMED, at_hand=listed(line, names=vault(rows)))["opt-out list"]
        assert ('1 names cannot be looked up in "mine"' in found.words) == (found.verdict is CANNOT_TELL)
        return found.verdict

    assert answer("mine:1", range(3)) is REFUTED
    assert answer("key:2", range(3)) is HOLDS
    assert answer("mine:9", range(3)) is HOLDS  # every sample has a name, and none has this one
    assert answer("mine:1", [0, 2]) is CANNOT_TELL
    assert answer("mine:1", []) is CANNOT_TELL
    assert answer("mine:2", [2]) is HOLDS


def test_an_empty_list_bans_nobody_and_says_that_it_is_empty() -> None:
    for policies, at_hand, what in ((NAMED, listed(), "names"), (CONTENTS, digests(), "contents")):
        found = check(BOTH, TRAIN.use(1, 0), policies=policies, at_hand=at_hand)["opt-out list"]
        assert found.verdict is HOLDS
        assert f"no use of 0 samples by the 0 {what} (the list is empty)" in found.words


def test_a_name_in_a_data_set_that_the_log_does_not_have_may_be_a_misspelling() -> None:
    lines = listed("train:3", "trian:1", 'trian:key:"a"', "photos:2")
    found = check(BOTH, TRAIN.use(1, 0), policies=NAMED, at_hand=lines)["opt-out list"]
    assert found.verdict is CANNOT_TELL
    assert '3 names are in data sets that this trace does not have, the first is line 2, "trian:1"' in found.words
    assert 'it has "test", "train"' in found.words
    assert check(BOTH, TRAIN.use(1, 3), policies=NAMED, at_hand=lines)["opt-out list"].verdict is REFUTED
    assert check(BOTH, policies=NAMED, at_hand=lines)["opt-out list"].verdict is HOLDS  # nothing was used at all


def test_a_row_is_a_name_only_where_samples_are_named_by_numbers() -> None:
    """`photos:1` of photos that were given other keys bans nobody, and its row 1 may have been used."""
    for keys, used, verdict in (
        ("rows", 0, HOLDS), ("rows", 1, REFUTED), ("numbers", 0, HOLDS), ("numbers", 1, REFUTED),
        ("names", 0, CANNOT_TELL), ("names", 1, REFUTED), (None, 0, CANNOT_TELL),
    ):  # fmt: skip
        photos = Data("photos", 2, keys=keys)
        found = check(photos.registered(), photos.use(1, used), policies=NAMED, at_hand=listed("photos:1"))
        assert found["opt-out list"].verdict is verdict, keys
        words = found["opt-out list"].words
        assert ("by the number that a sample was given as its key" in words) is (keys == "numbers")
        said = '1 names give a row of "photos", the first is line 1, "photos:1", and the log does not say'
        assert (said in words) is (verdict is CANNOT_TELL)
        spelled = check(photos.registered(), photos.use(1, used), policies=NAMED, at_hand=listed("photos:key:1"))
        assert spelled["opt-out list"].verdict is (REFUTED if used else HOLDS)
        spared = check(photos.registered(), TRAIN.registered(), TRAIN.use(1, 0), policies=NAMED,
                       at_hand=listed("photos:1"))  # fmt: skip
        assert spared["opt-out list"].verdict is HOLDS


def test_two_entries_that_disagree_about_keys_say_nothing_of_them() -> None:
    photos, other = Data("photos", 2), Data("photos", 2, keys="names")
    log = [*photos.registered(), other.registered()[0], photos.use(1, 0)]
    assert check(log, policies=NAMED, at_hand=listed("photos:1"))["opt-out list"].verdict is CANNOT_TELL


def test_a_list_has_the_same_grammar_of_names_as_everything_else() -> None:
    """`train:key:2` is the key 2 of `train`, also beside a data set that is called `train:key`."""
    odd = Data("train:key", 4)
    log = [*TRAIN.registered(), *odd.registered(), TRAIN.use(1, 2), odd.use(2, 1)]
    found = check(log, policies=NAMED, at_hand=listed("train:key:2"))["opt-out list"]
    assert [b[0] for b in found.broken] == [TRAIN.ids[2]]
    for line in ("row:a.npy:1", "file:a", "id:7", "train:key:", "train:-1", "train:", 'train:key:{"a":1}'):
        with pytest.raises(FormatError, match=r"line 1, .* names no sample"):
            check(log, policies=NAMED, at_hand=listed(line))


def test_what_was_made_from_a_listed_sample_is_listed() -> None:
    crops = Data("crops", 1, content=None)
    made = [*crops.registered(), TRAIN.made(crops, (1, 0))]
    found = check(BOTH, made, crops.use(1, 0), policies=NAMED, at_hand=listed("train:1"))["opt-out list"]
    assert [b[0] for b in found.broken] == [crops.ids[0]]


def test_a_line_that_is_no_name_is_an_error_that_says_where() -> None:
    with pytest.raises(FormatError, match=r'opt-out list: list\.txt: line 2, "seven", names no sample'):
        check(BOTH, policies=NAMED, at_hand=listed("train:1", "seven"))


# -- opt-outs by content ----------------------------------------------------------------------------------------------


def digests(*sources: bytes, **more: Any) -> AtHand:
    lines = b"".join(hashlib.sha256(source).hexdigest().encode() + b"  name\n" for source in sources)
    return AtHand(digests=lambda _path: parse_digests([lines]), **more)


CONTENTS = opt_out(contents="hashes.txt")


def test_a_listed_content_is_found_in_whatever_sample_holds_it() -> None:
    log = [*BOTH, TRAIN.use(1, 0, 1)]
    found = check(log, policies=CONTENTS, at_hand=digests(b"train 1", b"train 2", b"?"))["opt-out list"]
    assert [b[0] for b in found.broken] == [TRAIN.ids[1]]
    assert "by the 3 contents" in found.words
    assert check(log, policies=CONTENTS, at_hand=digests(b"train 2", b"?"))["opt-out list"].verdict is HOLDS
    assert check(log, policies=CONTENTS, at_hand=digests())["opt-out list"].verdict is HOLDS


def test_keyed_contents_need_the_key() -> None:
    def answer(at_hand: AtHand) -> Verdict:
        return check(KEYED_LOG, policies=CONTENTS, at_hand=at_hand, run_entry=KEYED_RUN)["opt-out list"].verdict

    assert answer(digests(b"keyed 1")) is CANNOT_TELL
    assert answer(digests(b"keyed 1", id_key=SECRET)) is REFUTED
    assert answer(digests(b"keyed 2", id_key=SECRET)) is HOLDS


@pytest.mark.parametrize("train", UNLIKE.values(), ids=UNLIKE)
def test_files_say_nothing_of_contents_that_are_no_digests_of_files(train: Data) -> None:
    entry, log = run(key_commitment=key_commitment(SECRET)), [*train.registered("train"), *TEST.registered("test")]
    used = check(log, train.use(1, 0), policies=CONTENTS, at_hand=digests(b"?"), run_entry=entry)["opt-out list"]
    assert used.verdict is CANNOT_TELL
    assert "its contents cannot be compared with digests of a file" in used.words
    spared = check(log, TEST.use(1, 0), policies=CONTENTS, at_hand=digests(b"?"), run_entry=entry)["opt-out list"]
    assert spared.verdict is HOLDS
    empty = check(log, train.use(1, 0), policies=CONTENTS, at_hand=digests(), run_entry=entry)["opt-out list"]
    assert empty.verdict is HOLDS


def test_the_list_says_what_its_digests_are_of() -> None:
    tensors = Data("tensors", 2, content="tensor")
    log, policies = [*tensors.registered(), tensors.use(1, 0)], opt_out(contents="x", source="tensor")
    assert check(log, policies=policies, at_hand=digests(b"tensors 0"))["opt-out list"].verdict is REFUTED
    assert check(log, policies=policies, at_hand=digests(b"tensors 1"))["opt-out list"].verdict is HOLDS


# -- marks ------------------------------------------------------------------------------------------------------------


def test_superseded_uses_count_and_are_marked() -> None:
    resumed = {"kind": "resume", "writers": [], "step": 1}
    found = check(BOTH, TRAIN.use(1, 0, 1, 2, 3), TEST.use(2, 0), resumed, TEST.use(2, 1))["held-out"]
    assert found.superseded == [True, False]
    assert "1 of the uses were superseded by a resume" in found.words


def test_neighbours_are_not_looked_at_and_that_is_said() -> None:
    hops = {"hops": 1, "hop_count": np.array([1], np.uint32)}
    graph = Data("graph", 3)
    beside = graph.use(1, 0, 1, **hops, hop_ordinals=graph.ordinals([2]))
    found = check(graph.registered(), graph.role("train", [0, 1]), graph.role("test", [2]), beside)
    assert_all_hold(found)
    assert "neighbours that 1 entries read beside them are not looked at" in found["held-out"].words


# -- against the definition -------------------------------------------------------------------------------------------

rows = st.integers(0, 5)
steps = st.lists(st.tuples(st.integers(1, 6), st.lists(rows, min_size=1, max_size=3), st.booleans()), max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["train", "test"]), st.lists(rows, min_size=1)), max_size=4),
    steps,
    st.lists(st.tuples(rows, rows), max_size=4),
    st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=6, max_size=6),
)
def test_policies_decide_as_they_are_defined(
    roles: list[tuple[str, list[int]]],
    steps: list[tuple[int, list[int], bool]],
    pairs: list[tuple[int, int]],
    sources: list[bytes],
) -> None:
    data, made = Data("d", 6, sources=sources), Data("made", 6, sources=[b"%d" % n for n in range(6)])
    named = [data.role(role, sorted(set(some))) for role, some in roles]
    uses = [(made if child else data).use(step, *some) for step, some, child in steps]
    kin = [data.made(made, *pairs)] if pairs else []
    found = check(data.registered(), made.registered(), named, kin, uses)

    held = {r for role, some in roles if role == "test" for r in some}
    train = {r for role, some in roles if role == "train" for r in some}
    banned = {data.ids[r] for r in held} | {made.ids[c] for p, c in pairs if p in held}
    used = {(made if child else data).ids[r] for _, some, child in steps for r in some}
    assert {b[0] for b in found["held-out"].broken} == used & banned
    copies = {r for r in range(6) if sources[r] in {sources[h] for h in held}}
    alike = {data.ids[r] for r in copies} | {made.ids[c] for p, c in pairs if p in copies}
    assert {b[0] for b in found["held-out-contents"].broken} == used & alike - banned
    served = {r for r in range(6) if data.ids[r] in used} | {p for p, c in pairs if made.ids[c] in used}
    lacking = {data.ids[r] for r in train - held - served}
    assert {b[0] for b in found["every-training-sample-used"].broken} == lacking
