"""Policies over a verified log: who must not be used, who must, and every use that breaks it.

held-out                     no sample that ever had a held-out role, nor what was made from it, is a seed
held-out-contents            nor any other sample that has the content of one
every-training-sample-used   every training sample, or what was made from it, is used in an update that stands
erased-subjects              no sample of an erased subject is used after the erasure
held-out-features            where a file says so: nor is a held-out sample a neighbour of seeds in a graph
opt-out NAME                 no sample that the policy file lists, nor what was made from it, is used (after a time)

A use is a place in a batch of an applied update: a seed's, whose loss took part; or in a graph a neighbour's, which
gave its features and not its label. Both count for erased-subjects and opt-out. What a log does not hold may have
happened: a policy holds only where the run has ended and nothing of its record is known to be lost; it is refuted by
one use, whatever is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from fgtrac.errors import FormatError, ProofError
from fgtrac.events.schema import NO_STEP
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.facts import Facts
from fgtrac.verify.opt_outs import AtHand, Doubt, resolve, undecided
from fgtrac.verify.policy_file import OptOut, Policies
from fgtrac.verify.roster import Mask, Places, Progress, Roster, find_rows, read_roster
from fgtrac.verify.tree import Log
from fgtrac.verify.uses import NO_VIOLATIONS, Ban, Uses, Violations, read_uses

NEEDS = ("tiles", "entries", "sequences", "registered")  # a policy on an unverified log says nothing
MAX_CLASSES = 60
_NO_GRAPH = (
    "no entry names neighbours in an applied update, so nothing says whose features were used beside a batch's own: "
    "record the graph by its loader or as full batches, or switch this policy off in the policy file"
)
_AMONG = (
    "by batches that held another number of samples than were drawn for them and do not say which (attribution among): "
    "let no collate function leave samples out"
)
MAX_REASONS = 8  # why training samples need not be used, in one sentence


@dataclass(frozen=True, slots=True, eq=False)
class Ruling:
    """One policy's answer: `answer` returns in words why it holds, or raises (see `Checks.make`). `twins` are the
    places of held-out samples with the contents of those that were used, -1 where there is none to name."""

    name: str
    answer: Callable[[], str]
    violations: Violations = NO_VIOLATIONS
    twins: Places | None = None


@dataclass(frozen=True, slots=True)
class _Rule:
    """A policy that bans: which samples, what they are in words, and who may be banned as well, and why; since when."""

    name: str
    ban: Ban
    what: str
    doubts: tuple[Doubt, ...] = ()
    after: int | None = None
    nothing: str = ""  # why there is nothing to decide on
    twins: Places | None = None


def judge(
    log: Log,
    facts: Facts,
    policies: Policies,
    at_hand: AtHand,
    name_of: Callable[[bytes], str | None],
    progress: Progress | None = None,
) -> tuple[Roster, list[Ruling]]:
    """Decide every policy over a log in which NEEDS hold. `name_of` knows what some samples are called.

    FormatError and ValueError of the lists as `resolve`, ProofError where the log changes while it is read.
    """
    roster = read_roster(log, facts, progress)
    rules = [_BUILT_IN_BANS[name](roster, policies) for name in policies.built_in if name in _BUILT_IN_BANS]
    rules += [_opt_out(roster, opt_out, at_hand) for opt_out in policies.opt_outs]
    uses = read_uses(log, roster, [rule.ban for rule in rules], progress)
    court = _Court(roster, uses, facts, name_of)
    rulings = {rule.name: court.rule(rule) for rule in rules}
    if (name := "every-training-sample-used") in policies.built_in:
        rulings[name] = court.every_training_sample(name, policies)
    return roster, [rulings[name] for name in policies.names()]


# -- who must not be used -------------------------------------------------------------------------------------------


def _held_out(roster: Roster, policies: Policies) -> _Rule:
    roles = policies.held_out_roles
    held = roster.in_role(*roles)
    made = roster.kin.below(held)
    nothing = "" if held.any() else _nothing_held(roles)
    return _Rule("held-out", Ban(made), f"{_count(held, made)} in the role {_any_of(roles)}", nothing=nothing)


def _held_out_features(roster: Roster, policies: Policies) -> _Rule:
    """Bans held-out samples, and what was made from them, as neighbours."""
    rule = _held_out(roster, policies)
    return replace(rule, name="held-out-features", ban=Ban(rule.ban.banned, seeds=False, neighbours=True))


def _held_out_contents(roster: Roster, policies: Policies) -> _Rule:
    """Bans whatever has a content of a held-out sample (or of what that was made from, or what was made from that)."""
    roles = policies.held_out_roles
    held = roster.in_role(*roles)
    made = roster.kin.below(held)
    places, values = roster.column("contents")
    theirs = (made | roster.kin.above(held))[places]
    table, first = np.unique(values[theirs], return_index=True)
    at = np.minimum(np.searchsorted(table, values), max(len(table) - 1, 0))
    same = np.flatnonzero(table[at] == values) if len(table) else np.empty(0, np.intp)
    twins = np.full(len(roster), -1)
    twins[places[same]] = places[theirs][first[at[same]]]
    banned = roster.kin.below(roster.mask(places[same])) & ~made
    nothing = "" if held.any() else _nothing_held(roles)
    what = f"the contents of {_count(held, made)} in the role {_any_of(roles)}"
    unlike = Doubt(_unlike(roster, held, made), _UNLIKE)
    return _Rule("held-out-contents", Ban(banned), what, (unlike,), nothing=nothing, twins=twins)


_UNLIKE = (
    "its contents cannot be compared with those of every held-out sample: a data set may have no digests, or those of "
    "something else (rows of another dtype, shape or schema, too), or under another id scheme; under that of subjects, "
    "equal contents of two subjects are not linked"
)


def _unlike(roster: Roster, held: Mask, made: Mask) -> Mask:
    """(n,) the samples whose content cannot be compared with that of each held-out sample, and of each that was made
    from one and has a digest: the digests of two data sets say something of each other where both are of the same kind
    of source (dtype and shape, or schema, included) under one scheme other than subject."""
    known = roster.mask(roster.column("contents")[0])
    kinds: dict[tuple[str, str], Mask] = {}
    for name, (scheme, content) in roster.datasets.items():
        if scheme in ("public", "keyed"):
            kind = (scheme, f"of {content}" if content is not None else f"in {name}")
            kinds[kind] = kinds.get(kind, np.zeros(len(roster), np.bool_)) | (roster.in_dataset(name) & known)
    bits = np.zeros(len(roster), np.uint64)
    for number, comparable in enumerate(list(kinds.values())[:MAX_CLASSES]):
        bits[~undecided(roster, comparable, known)] |= np.uint64(1 << number)
    alike = np.ones(len(roster), np.bool_)
    for theirs in np.unique(bits[held | (made & known)]):
        alike &= (bits & theirs) != 0
    return ~alike


def _erased(roster: Roster, _policies: Policies) -> _Rule:
    """Bans the samples of erased subjects behind the first erasure: those with its pseudonym, and those it lists."""
    entries, times = (np.full(len(roster), NO_STEP, np.uint64) for _ in range(2))
    first = {erasure.pseudonym: erasure for erasure in reversed(roster.erasures)}
    names, (places, values) = sorted(first), roster.column("subjects")
    which, at = find_rows(np.frombuffer(b"".join(names), "V32"), values)
    for limits, told in ((entries, [first[n].number for n in names]), (times, [first[n].time for n in names])):
        np.minimum.at(limits, places[which], np.array(told, np.uint64)[at])
    for erasure in roster.erasures:
        listed = roster.blocks[erasure.block].places[erasure.ordinals]
        np.minimum.at(entries, listed, np.uint64(erasure.number))
        np.minimum.at(times, listed, np.uint64(erasure.time))
    entries, times = roster.kin.least(entries), roster.kin.least(times)
    erased = entries != NO_STEP
    what = f"{_plural(int(erased.sum()), 'sample')} of {_plural(len(names), 'erased subject')} after the erasure"
    what += " (who is registered again under a new name or key is not recognised)" if names else ""
    ban = Ban(erased, entries, times, neighbours=True)
    return _Rule("erased-subjects", ban, what if names else "erased subjects (there are none)")


def _opt_out(roster: Roster, opt_out: OptOut, at_hand: AtHand) -> _Rule:
    name, after = f"opt-out {opt_out.name}", opt_out.after
    try:
        meant = resolve(opt_out, roster, at_hand)
    except FormatError as error:
        raise FormatError(f"{name}: {opt_out.samples or opt_out.contents}: {error}") from error
    made = roster.kin.below(meant.samples)
    times = None if after is None else np.broadcast_to(np.uint64(after), len(roster))
    what = f"{_count(meant.samples, made)} by the {meant.what} of {name}"
    what += "" if after is None else f" after {_utc(after)} (by the recorder's clock)"
    doubts = tuple(Doubt(roster.kin.below(doubt.samples), doubt.why) for doubt in meant.doubts)
    return _Rule(name, Ban(made, None, times, neighbours=True), what, doubts, after)


_BUILT_IN_BANS: dict[str, Callable[[Roster, Policies], _Rule]] = {
    "held-out": _held_out,
    "held-out-contents": _held_out_contents,
    "held-out-features": _held_out_features,
    "erased-subjects": _erased,
}


# -- answers --------------------------------------------------------------------------------------------------------


class _Court:
    """Answers in words, from what the pass over the uses found."""

    def __init__(self, roster: Roster, uses: Uses, facts: Facts, name_of: Callable[[bytes], str | None]) -> None:
        self._roster = roster
        self._uses = uses
        self._name_of = name_of
        self._lacks = _missing(roster, facts)

    def rule(self, rule: _Rule) -> Ruling:
        """Whether nobody used what is banned."""
        found = rule.ban.violations()
        late, last = self._uses.concerned(rule.ban)
        if rule.after is not None:
            late = late & (last > np.uint64(rule.after))

        def answer() -> str:
            if len(found):
                raise ProofError(self._broken(rule, found))
            if rule.nothing:
                raise CannotTell(rule.nothing)
            if n := rule.ban.perhaps:
                raise CannotTell(f"{_plural(n, 'perhaps use')} of {rule.what}, {_AMONG}")
            if doubts := [*self._weigh(rule.doubts, late & ~rule.ban.banned)]:
                raise CannotTell("; and ".join(doubts))
            if self._lacks:
                raise CannotTell(f"no use of {rule.what} is recorded so far; {self._lacks}")
            return self._holds(rule)

        return Ruling(rule.name, answer, found, rule.twins)

    def _holds(self, rule: _Rule) -> str:
        """That no banned use is there, in words; and where neighbours are allowed, how often the samples were some.
        CannotTell where the policy is about neighbours alone and the log names none."""
        uses, ban, beside = self._uses, rule.ban, int(self._uses.beside.sum())
        if not ban.seeds:
            if not uses.graphs:
                raise CannotTell(_NO_GRAPH)
            alone = f"; {uses.alone:,} uses are in entries that name no neighbours" if uses.alone else ""
            return f"no use of {rule.what} is among the {beside:,} as neighbours in applied updates{alone}"
        if not uses.graphs:
            return f"no use of {rule.what} is among the {uses.total:,} uses in applied updates"
        among = f"among the {uses.total:,} uses as seeds"
        if ban.neighbours:
            return f"no use of {rule.what} is {among} and {beside:,} as neighbours in applied updates"
        mine = uses.beside[ban.banned]
        far = f", {n:,} of them out of the seeds' reach" if (n := int(uses.far[ban.banned].sum())) else ""
        times = _plural(int(mine.sum()), "time")
        theirs = f"{(mine > 0).sum():,} of the samples were neighbours, with their features alone, {times}"
        return f"no use of {rule.what} is {among} in applied updates; {theirs}{far}"

    def _weigh(self, doubts: Sequence[Doubt], used: Mask) -> Iterator[str]:
        """The doubts about samples that were used, in words."""
        for doubt in doubts:
            unsure = np.flatnonzero(doubt.samples & used)
            if len(unsure):
                more = f" (and {len(unsure) - 1:,} more)" if len(unsure) > 1 else ""
                yield f"sample {self._called(unsure[0])}{more} was used: {doubt.why}"

    def every_training_sample(self, name: str, policies: Policies) -> Ruling:
        """Whether every training sample, or something that was made from it, is used in an update that stands."""
        roster, uses = self._roster, self._uses
        train = roster.in_role("train")
        owed, without = _owed(roster, policies, train)
        unused, maybe = owed & ~roster.kin.above(uses.standing), roster.kin.above(uses.perhaps)
        lacking, perhaps = np.flatnonzero(unused & ~maybe), int((unused & maybe).sum())
        late = int(roster.dropped()[1][lacking].sum())

        def answer() -> str:
            if not train.any():
                raise CannotTell("no registered sample has the role train; register the training samples with it")
            if not owed.any():
                raise CannotTell(f"no training sample is left that would have to be used{without}")
            if not len(lacking) and perhaps:
                raise CannotTell(f"{perhaps:,} of {owed.sum():,} training samples perhaps were used, {_AMONG}{without}")
            if not len(lacking):
                words = f"each of {owed.sum():,} training samples, or what was made from it, was used{without}"
                told = int((owed & ~roster.kin.above(uses.watched)).sum())
                words += f"; {told:,} of them only as the recording program itself says" if told else ""
                if self._lacks:
                    raise CannotTell(f"{words}, as far as the record goes; {self._lacks}")
                return words
            undone = int(roster.kin.above(uses.used)[lacking].sum())
            words = f"{len(lacking):,} of {owed.sum():,} training samples were not used in any update that stands: the "
            words += f"first is sample {self._called(lacking[0])}" + without
            words += f"; {undone:,} of them only in updates that a resume superseded" if undone else ""
            words += f"; of {late:,} of them a stage says that it dropped them, behind the last use" if late else ""
            words += f"; {perhaps:,} more perhaps were, {_AMONG}" if perhaps else ""
            if self._lacks:
                raise CannotTell(f"{words}; {self._lacks}")
            raise ProofError(words)

        return Ruling(name, answer, NO_VIOLATIONS if self._lacks else Violations.unused(lacking))

    def _broken(self, rule: _Rule, found: Violations) -> str:
        samples, n = len(np.unique(found.places)), len(found)
        words = f"{_plural(n, 'use')} of {_plural(samples, 'sample')} in applied updates, of {rule.what}: the first is "
        words += f"sample {self._called(found.places[0])}"
        twin = -1 if rule.twins is None else int(rule.twins[found.places[0]])
        words += f", which has the content of {self._called(twin)}," if twin >= 0 else ""
        words += f", a neighbour at hop {found.hops[0]}," if found.hops[0] else ""
        words += " out of the seeds' reach," if found.far[0] else ""
        words += f" in step {found.steps[0]}, epoch {found.epochs[0]}, entry {found.entries[0]}"
        counts = (
            (found.superseded.sum(), "were superseded by a resume"),
            ((found.hops > 0).sum(), "were as neighbours"),
            (found.far.sum(), "were as neighbours out of the seeds' reach"),
        )
        return words + "".join(f"; {count:,} of the uses {how}" for count, how in counts if count)

    def _called(self, place: int) -> str:
        sample = self._roster.id(place)
        return self._name_of(sample) or f"id:{sample.hex()}"


def _owed(roster: Roster, policies: Policies, train: Mask) -> tuple[Mask, str]:
    """(n,) the training samples that have to be used, and in words how many more need not be, and by whose word."""
    reasons = [
        ("are held out", roster.in_role(*policies.held_out_roles)),
        ("were erased", _erased(roster, policies).ban.banned),
    ]
    stages, _late = roster.dropped()
    reasons += [
        (f"were dropped by the stage {json.dumps(name[:60], ensure_ascii=False)}", stages[name]) for name in stages
    ]
    owed, counts = train.copy(), []
    for words, gone in reasons:
        if n := int((owed & gone).sum()):
            counts.append(f"{n:,} more {words}")
        owed &= ~gone
    others = f"; and {len(counts) - MAX_REASONS:,} more stages dropped some" if len(counts) > MAX_REASONS else ""
    return owed, "".join(f"; {words}" for words in counts[:MAX_REASONS]) + others


def _missing(roster: Roster, facts: Facts) -> str:
    """What the log says against its record being the whole one, in words; empty where nothing does."""
    reasons = []
    if not roster.has_ended:
        reasons.append("the run has no end entry after its last training, so that more may have happened")
    if facts.sequences.gaps:
        reasons.append(f"{facts.sequences.gaps[0]}, which may have been uses")
    reasons += facts.joins.missing()
    return "; ".join(reasons)


def _nothing_held(roles: Sequence[str]) -> str:
    return (
        f"no registered sample has the role {_any_of(roles)}, so that nothing says what is held out; register "
        "those samples with their role, or switch this policy off in a policy file"
    )


def _any_of(roles: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(roles[:-1]), roles[-1])))


def _count(samples: Mask, made: Mask) -> str:
    extra = int(made.sum() - samples.sum())
    return _plural(int(samples.sum()), "sample") + (f" (and {extra:,} made from them)" if extra else "")


def _plural(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def _utc(time: int) -> str:
    return f"{datetime.fromtimestamp(time // 10**9, UTC):%Y-%m-%dT%H:%M:%SZ}"
