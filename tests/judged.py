"""Logs in memory whose data sets and uses are chosen, and what the policies must say of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fgtrac.events.identity import (
    block_id,
    content_preimage,
    make_ids,
    preimage,
    subject_commitment,
)
from fgtrac.verify.auditor import audit_log
from fgtrac.verify.checks import Checks
from fgtrac.verify.opt_outs import AtHand
from fgtrac.verify.policies import NEEDS, judge
from fgtrac.verify.policy_file import OptOut, Policies
from fgtrac.verify.report import Verdict
from signed import VERIFIER, Event, MemoryTrace, end, run, seal, use, write

SECRET = hashlib.sha256(b"K").digest()
SUBJECT = hashlib.sha256(b"K_s").digest()
HOLDS, REFUTED, CANNOT_TELL = Verdict.HOLDS, Verdict.REFUTED, Verdict.CANNOT_TELL


class Data:
    """A data set of some rows; row n has the source bytes `sources[n]` and belongs to the subject of `subjects[n]`."""

    def __init__(
        self, name: str, rows: int, *, scheme: str = "public", content: str | None = "file",
        sources: Sequence[bytes] | None = None, secret: bytes = SECRET, subjects: Sequence[bytes] | None = None,
        keys: str | None = "rows", beside: bool = False,
    ) -> None:  # fmt: skip
        self.name, self.scheme, self.content, self.keys, self.beside = name, scheme, content, keys, beside
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
        said |= ({"keys": self.keys} if self.keys else {}) | ({"beside": True} if self.beside else {})
        part = {"kind": "samples", "dataset": self.name, "block": self.block, "part": 0, "parts": 1, **columns}
        return [{"kind": "dataset", **said}, part, *(self.role(role) for role in roles)]

    def role(self, role: str, rows: Iterable[int] | None = None) -> Event:
        named = self.ordinals(range(len(self.ids)) if rows is None else rows)
        return {"kind": "roles", "role": role, "block": self.block, "ordinals": named}

    def use(self, number: int, /, *rows: int, **changes: Any) -> Event:
        return {**use(number, *self.ordinals(rows).tolist()), "block": self.block, **changes}

    def graph_use(self, number: int, seeds: Sequence[int], *hops: Sequence[int], graph: str = "sampled") -> Event:
        """Seeds in an applied update, and the rows that are their neighbours at each hop."""
        counts, rows = np.array([len(hop) for hop in hops], np.uint32), [row for hop in hops for row in hop]
        beside = {"graph": graph, "hops": len(hops), "hop_count": counts, "hop_ordinals": self.ordinals(rows)}
        return self.use(number, *seeds, **beside)

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
    hops: list[int]  # 0 of a seed
    far: list[bool]


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
        beside = v.hops.tolist(), v.far.tolist()
        out[ruling.name] = Found(finding.verdict, finding.words, rows, v.superseded.tolist(), twins, *beside)
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
ALICE, BOB = (subject_commitment(hashlib.sha256(name).digest()) for name in (b"alice", b"bob"))
UNLIKE: dict[str, Data] = {  # whose contents are no digests as the test set's are
    "no digests": Data("train", 4, content=None),
    "digests of something else": Data("train", 4, content="tensor"),
    "digests under another scheme": Data("train", 4, scheme="keyed"),
    "digests of a subject's own": Data("train", 4, scheme="subject", subjects=[subject_commitment(SECRET)] * 4),
}


def opt_out(**fields: Any) -> Policies:
    return Policies((), opt_outs=(OptOut("list", **fields),))


def listed(*lines: str, **more: Any) -> AtHand:
    return AtHand(read=lambda _path: [b"".join(line.encode() + b"\n" for line in lines)], **more)
