"""Making bundles: what proves a claim about one sample, against the newest full seal's own signed note."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fgtrac.errors import ProofError
from fgtrac.events.postings import ROW, decode_rows
from fgtrac.query.log import whole
from fgtrac.query.places import Places
from fgtrac.query.seals import FullSeal
from fgtrac.query.timeline import Timeline
from fgtrac.tlog.index import CONTENT, SAMPLE, Presence
from fgtrac.tlog.proof import TlogProof
from fgtrac.verify.bundle import (
    ABSENCES,
    CLAIMS,
    CONTENT_CLAIMS,
    MAX_CHILDREN,
    MAX_ENTRIES,
    MAX_ROWS,
    Bundle,
    Descendant,
    Shown,
    format_bundle,
)
from fgtrac.verify.children import Pairs, count_seeds, count_uses, made_into, registered_by
from fgtrac.verify.evidence import Event
from fgtrac.verify.needs import may_show_checkpoint, needed_kinds, needs_datasets
from fgtrac.verify.sentences import sentence
from fgtrac.verify.strict_json import MAX_BYTES, MAX_TEXT


class UntrueClaimError(ValueError):
    """The claim is one of its kind, and not true."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Whom a proof is asked about: the id, what it is computed from and its opening where they are to be revealed."""

    id: bytes
    preimage: bytes | None = None
    opening: bytes | None = None
    is_content: bool = False


class Prover:
    """Makes bundles under one full seal; what it has looked up it keeps."""

    def __init__(self, seal: FullSeal, timeline: Timeline) -> None:
        self._seal = seal
        self._timeline = timeline
        self._places = Places(seal.log)

    def choose(self, meant: Sequence[Proof]) -> Proof:
        """The one of them that is in the index, or the first: a content's digest depends on whose it is."""
        if len(meant) == 1:
            return meant[0]
        type = CONTENT if meant[0].is_content else SAMPLE
        return next((proof for proof in meant if self._seal.find(type, proof.id) is not None), meant[0])

    def prove(
        self, asked: Proof, claim: str | None = None, *, entries: bool = False, checkpoint: int | None = None
    ) -> bytes:
        """The bundle that proves a claim (default: the one that is true) about a sample or a content.

        With `entries` it holds all the entries that the sample's rows name. Of a use it tells the kept state of step
        `checkpoint` (default: the last one). The proof is against the head that the full seal signed, never a later
        one. ValueError where the claim is not true, not one of CLAIMS or too large to be carried; ProofError where
        index or log on disk are not what was sealed.
        """
        seal = self._seal
        with whole("a proof"):
            type = CONTENT if asked.is_content else SAMPLE
            presence = seal.find(type, asked.id)
            bundle = Bundle(
                claim or "",
                "",
                asked.id,
                asked.preimage,
                asked.opening if presence is not None else None,
                None if presence is None else presence.value,
                None if presence is None else (presence.leaf.index, presence.leaf.path),
                seal.absence(type, asked.id) if presence is None else None,
                seal.entry,
                TlogProof(seal.head.size - 1, seal.log.path(seal.head.size - 1), seal.note),
            )
            if presence is not None and not asked.is_content:
                bundle = replace(bundle, children=self._descendants(asked.id, presence))
            bundle = replace(bundle, claim=_true_claim(bundle, asked.is_content, claim))
            numbers = self._context(bundle, checkpoint) | self._named(bundle, entries)
            events = {number: seal.log.event(number) for number in sorted(numbers)}
            return self._finish(bundle, events)

    def _finish(self, bundle: Bundle, events: dict[int, Event]) -> bytes:
        """The bundle's bytes with its words and entries. ValueError where it is too large."""
        size = 32 if bundle.claim in CONTENT_CLAIMS else ROW.itemsize
        rows = sum(len(value) // size for value in (bundle.value or b"", *(c.value for c in bundle.children)))
        for what, count, most in (("entries", len(events), MAX_ENTRIES), ("rows", rows, MAX_ROWS)):
            if count > most:
                raise ValueError(f"the proof needs {count:,} {what} and a bundle holds {most:,}; ask for less")
        log = self._seal.log
        shown = tuple(Shown(n, log.entry(n), log.path(n)) for n in events)
        words = sentence(bundle, self._seal.head, events)
        if len(words) > MAX_TEXT:
            raise ValueError(f"the bundle has {len(words):,} characters of words and may have {MAX_TEXT:,}: long names")
        data = format_bundle(replace(bundle, words=words, entries=shown))
        if len(data) > MAX_BYTES:
            raise ValueError(f"the bundle has {len(data):,} bytes and may have {MAX_BYTES:,}; prove it without entries")
        return data

    # -- the entries it needs -----------------------------------------------------------------------------------

    def _context(self, bundle: Bundle, checkpoint: int | None) -> set[int]:
        """The entries that the claim needs for what they are, whatever the sample's rows name."""
        described = self._timeline.entries("dataset") if needs_datasets(bundle.claim, bundle.preimage) else []
        kinds = needed_kinds(bundle.claim, bundle.preimage, [event for _, event in described])
        numbers = {number for kind in kinds for number in self._timeline.numbers(kind)}
        if may_show_checkpoint(bundle):
            numbers |= self._state(checkpoint)
        elif checkpoint is not None:
            raise ValueError(
                f"a checkpoint says how far uses came, and {bundle.claim!r} is no claim of the sample's own"
            )
        return numbers

    def _state(self, step: int | None) -> set[int]:
        """The `checkpoint` entry of the kept state of a step, or of the last one, if any."""
        kept = self._timeline.kept
        if step is None:
            return {kept[-1][0]} if kept else set()
        chosen = [number for number, at in kept if at == step]
        if not chosen:
            there = ", ".join(str(at) for _, at in kept) or "none"
            raise ValueError(f"no model state of step {step} was kept; those that were are of the steps {there:.200}")
        return {chosen[-1]}

    def _named(self, bundle: Bundle, entries: bool) -> set[int]:
        """The entries that rows name, as far as they are to be shown, and those that say how long parts are."""
        if bundle.value is None or bundle.claim in CONTENT_CLAIMS:
            if entries:
                raise ValueError(f"{bundle.claim!r} rests on no entry of a sample; leave --entries out")
            return set()
        everybody = (bundle.rows, *(child.rows for child in bundle.children))
        numbers: set[int] = set(bundle.rows["entry"].tolist()) if entries else set()
        if bundle.children:
            numbers |= {n for rows in everybody for n in (*made_into(rows), *registered_by(rows))}
        lasts, known = {}, set()
        for number in sorted({n for rows in everybody for n in registered_by(rows)} & numbers):
            event = self._registration(number)
            name = event["block"], event["parts"]
            if event["part"] < event["parts"] - 1:
                known.add(name)
            elif event["part"]:
                lasts[name] = number
        return numbers | {self._places.first_part(n) for name, n in lasts.items() if name not in known}

    def _registration(self, number: int) -> Event:
        event = self._seal.log.event(number)
        if event["kind"] != "samples":
            raise ProofError(
                f"the index says that entry {number} ({event['kind']}) registers samples; run fgtrac verify"
            )
        return event

    # -- descendants --------------------------------------------------------------------------------------------

    def _descendants(self, sample_id: bytes, presence: Presence) -> tuple[Descendant, ...]:
        """Every sample that was made from this one, directly or in turn. ValueError where they are too many."""
        found: dict[bytes, Descendant] = {}
        pairs: dict[int, Pairs] = {}
        waiting = [(sample_id, presence.value)]
        while waiting:
            for child in self._children(*waiting.pop(), pairs):
                if child in found or child == sample_id:
                    continue
                made = self._seal.find(SAMPLE, child)
                if made is None:
                    raise ProofError(
                        f"{child.hex()} was made from another sample and is not in the index; run fgtrac verify"
                    )
                found[child] = Descendant(child, made.value, (made.leaf.index, made.leaf.path))
                waiting.append((child, made.value))
                if len(found) > MAX_CHILDREN:
                    raise ValueError(
                        f"more than {MAX_CHILDREN:,} samples were made from {sample_id.hex()}, which no bundle carries"
                    )
        return tuple(found[child] for child in sorted(found))

    def _children(self, sample_id: bytes, value: bytes, pairs: dict[int, Pairs]) -> list[bytes]:
        """The samples that were made from one, directly."""
        rows, out = decode_rows(value), []
        made = made_into(rows)
        ordinals = {}
        for number in registered_by(rows) if made else ():
            ordinals[self._registration(number)["block"]] = self._places.ordinal(sample_id, number)
        for number in made:
            if number not in pairs:
                pairs[number] = Pairs.of(number, self._seal.log.event(number))
            block = pairs[number].event["child_block"]
            out += self._places.ids(block, pairs[number].children(ordinals), number)
        return out


def _true_claim(bundle: Bundle, is_content: bool, claim: str | None) -> str:
    """The claim, or where none is named the one that is true. ValueError unless it is one of its kind and true."""
    present = bundle.value is not None
    truths = ["content present" if present else "content absent"] if is_content else ["never registered"]
    if bundle.value is not None and not is_content:
        everybody = (decode_rows(bundle.value), *(child.rows for child in bundle.children))
        truths = ["used" if any(map(count_uses, everybody)) else "never used", "history"]
        truths += [] if any(map(count_seeds, everybody)) else ["label never used"]
    possible = [c for c in CLAIMS if (c in CONTENT_CLAIMS) == is_content]
    if claim is None or claim in truths:
        return claim or truths[0]
    if claim not in possible:
        raise ValueError(f"{claim!r:.60} is no claim about a {'content' if is_content else 'sample'}: {possible}")
    if (claim in ABSENCES) == present:
        raise UntrueClaimError(
            f"{claim!r} is not true of {bundle.id.hex()}: it is {'there' if present else 'not there'} in the index"
        )
    prove = " or ".join(repr(truth) for truth in truths if truth != "history")
    raise UntrueClaimError(f"{claim!r} is not true of {bundle.id.hex()}; prove {prove}")
