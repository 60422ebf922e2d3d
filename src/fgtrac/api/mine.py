"""Was my data used? Answered for a content (by SHA-256 of its source) or a name: used, not used, or cannot tell.

"Not used" is said only where the whole record would show a use: it has ended without gaps, every data set's contents
were digested from the same kind of source as the one that is asked about, and the key is at hand under which ids and
digests were made. Otherwise the answer is "cannot tell", with each reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fgtrac.api.offers import Offer, true_offers
from fgtrac.api.trace import Trace
from fgtrac.errors import ProofError
from fgtrac.events.identity import content_preimage, key_commitment, keyed_id, open_key, public_id, subject_commitment
from fgtrac.events.postings import KIND
from fgtrac.events.sample_names import SampleName, parse_sample_name
from fgtrac.events.schema import NUMBERS, ROLES
from fgtrac.query.prove import Proof
from fgtrac.query.tally import draws_of
from fgtrac.tlog.index import CONTENT
from fgtrac.verify.bundle import USES, Bundle, parse_bundle
from fgtrac.verify.children import are_certain
from fgtrac.verify.sentences import record_words

USED, NOT_USED, CANNOT_TELL = "used", "not used", "cannot tell"
GIVEN = "source"  # what a `dataset` entry calls bytes that `register(source=...)` was given
WITHOUT_PROOF = "what cannot be told cannot be proved either"
RECEIPT_BYTES = 20_000
MOST_KEYS = 20_000  # of subjects, under which a content is looked for: about 2 s
MOST_HOLDERS = 100  # samples with the same content whose lives are read
MOST_SOUGHT = 10_000  # of more, those that were used themselves come first among so many: about 1 s
LONGEST = 500  # characters of a name
RECEIPTS = 3  # samples that have a receipt of their own
WHOLE = ("end", "resume", "join", "leave")  # the entries that say whether the record is the whole one
_ROLE_WORDS = {code: word for word, code in ROLES.items()}


@dataclass(frozen=True, slots=True)
class Life:
    """One sample that is meant, and its part in training, that of samples made from it included.

    `uses` in updates for certain; of these `through` such samples, `neighbours` with features alone (`beyond` of them,
    as far as was read, out of the reach of any message), `undone` since the run was resumed from before them; `perhaps`
    in batches that may have left it out, `delivered` without an update. `steps` and `times` (the recorder's clock, ns
    since 1970) are the first and last of the uses; `kept` the steps of the saved states that they contributed to, and
    `undecided` of those that they may have."""

    id: bytes
    name: str | None
    dataset: str
    roles: tuple[str, ...]
    uses: int
    through: int
    neighbours: int
    beyond: int
    perhaps: int
    undone: int
    delivered: int
    steps: tuple[int, int] | None
    times: tuple[int, int] | None
    kept: tuple[int, ...]
    undecided: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain data; the id as hex."""
        said = {field: getattr(self, field) for field in self.__slots__ if field != "id"}
        return {"id": self.id.hex()} | {k: list(v) if isinstance(v, tuple) else v for k, v in said.items()}


@dataclass(frozen=True, slots=True)
class Mine:
    """The answer about `asked`; `reasons` say why not more can be told, `notes` what the answer does not say."""

    answer: str
    asked: str
    reasons: tuple[str, ...]
    lives: tuple[Life, ...]
    receipts: tuple[Offer, ...]
    without: tuple[str, ...]  # why there is no receipt, or no other
    notes: tuple[str, ...]
    size: int
    pending: int
    rests_on: str

    def as_json(self) -> dict[str, Any]:
        """Plain data, without the receipts' bytes."""
        said = {field: getattr(self, field) for field in ("answer", "asked", "size", "pending", "rests_on")}
        lists = {field: list(getattr(self, field)) for field in ("reasons", "without", "notes")}
        lives, receipts = [life.as_json() for life in self.lives], [offer.as_json() for offer in self.receipts]
        return said | lists | {"lives": lives, "receipts": receipts}


def ask_by_content(trace: Trace, digest: bytes, source: str) -> Mine:
    """Whether a content was used. `digest` is SHA-256 of its source's bytes, `source` what a `dataset` entry calls such
    a source: `file`, or `tensor uint8 28x28`. ValueError for a digest or a source that is none; ProofError where the
    trace is not what was sealed."""
    if len(digest) != 32 or not source or len(source) > 200:
        raise ValueError(
            f"{len(digest)} bytes of {source!r:.60} are no SHA-256 of a source; it has 32, of file or tensor"
        )
    datasets = _datasets(trace)
    meant = list(_contents(trace, digest, datasets))
    found = [(proof, seen) for proof in meant if (seen := trace._seal.find(CONTENT, proof.id)) is not None]
    holders = sorted({seen.value[at : at + 32] for _, seen in found for at in range(0, len(seen.value), 32)})
    doubts = [*_content_doubts(trace, source, datasets)]
    if len(holders) > MOST_HOLDERS:
        holders = _used_first(trace, holders[:MOST_SOUGHT]) + holders[MOST_SOUGHT:]
        doubts.append(f"{len(holders):,} samples hold this content, of which {MOST_HOLDERS} were looked at")
    notes = [
        "a copy that differs in one byte, or was stored in another format, is another content",
        "what is compared is what was digested of each row, as the table below says; what a data set reads beside that "
        "while it gives a row, from other files say, the record does not have",
    ]
    if source == GIVEN:
        notes.append("that these are bytes as the program gave them for a row is what you say; the log cannot tell")
    proofs = [Proof(holder) for holder in holders[:MOST_HOLDERS]]
    asked = f"the content whose source ({source}) has SHA-256 {digest.hex()}"
    schemes = {event["id_scheme"] for event in datasets}
    shown = [proof for proof, _ in found] or (meant[:1] if len(schemes) == 1 and "subject" not in schemes else [])
    return _answer(trace, asked, proofs, shown, doubts, notes)


def _used_first(trace: Trace, samples: Sequence[bytes]) -> list[bytes]:
    """Those that were used for certain, then the others."""

    def is_unused(sample: bytes) -> bool:
        rows = trace._seal.rows(sample)
        return rows is None or not are_certain(rows).any()

    return sorted(samples, key=is_unused)


def ask_by_name(trace: Trace, name: str) -> Mine:
    """Whether the sample of that name was used. ValueError for a name that says nothing here."""
    said = parse_sample_name(name)
    datasets = _datasets(trace)
    schemes = {event["name"]: event["id_scheme"] for event in datasets}
    if said.dataset is not None and said.dataset not in schemes:
        raise ValueError(
            f"this trace has no data set {said.dataset!r:.60}; it has {', '.join(map(repr, schemes)):.200}"
        )
    notes = ["the same content under another name is another sample: ask with the file too"] if said.id is None else []
    notes += [remark] if (remark := trace.remark(name)) else []
    try:
        named = trace.find(name)
    except ValueError as reason:  # a key that is not at hand, a name that was erased or is not settled
        return _answer(trace, name, [], [], [str(reason)], notes)
    asked = Proof(named.id, named.preimage, named.opening)
    doubts: list[str] = []
    if trace._seal.rows(named.id) is None:
        doubts += _name_doubts(said, datasets)
    if said.id is None and schemes.get(said.dataset or "", "keyed") == "keyed":
        _check_key(trace)
    return _answer(trace, named.words[:LONGEST], [asked], [], doubts, notes)


def sources(trace: Trace) -> list[dict[str, Any]]:
    """What each data set's contents were digested from (`source`, None where nothing says), under which scheme, and
    whether its rows hold more than that (`beside`)."""
    found = {(e["name"], e.get("content"), e["id_scheme"], e.get("beside", False)) for e in _datasets(trace)}
    in_order = sorted(found, key=lambda row: (row[0], row[1] or "", *row[2:]))
    return [dict(zip(("dataset", "source", "scheme", "beside"), row, strict=True)) for row in in_order]


def _datasets(trace: Trace) -> list[Mapping[str, Any]]:
    return [event for _, event in trace._historian.timeline.entries("dataset")]


# -- what is meant ----------------------------------------------------------------------------------------------------


def _contents(trace: Trace, digest: bytes, datasets: Sequence[Mapping[str, Any]]) -> Iterator[Proof]:
    """The content digests that this source can have here: one for each key that is at hand."""
    named, schemes = content_preimage(digest), {event["id_scheme"] for event in datasets}
    if "public" in schemes:
        yield Proof(public_id(named), named, is_content=True)
    for scope, secret in trace._vault.secrets()[:MOST_KEYS] if trace._vault is not None else ():
        if "subject" in schemes or ("keyed" in schemes and scope == "run"):
            yield Proof(keyed_id(secret, named), named, open_key(secret, named), is_content=True)


def _name_doubts(said: SampleName, datasets: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Why a name that no sample has may not be how the sample that is meant is called."""
    if said.id is not None:
        yield (
            "no sample with this id is registered; which data an id stands for only its name or its content tells: ask "
            "by one of these"
        )
        return
    for event in datasets:
        if said.dataset not in (None, event["name"]):
            continue
        is_number, of = type(said.key) is int, f"the samples of data set {event['name']!r:.60} are named by"
        if event.get("keys") in NUMBERS and not is_number:
            yield f"{of} numbers, and {said.key!r:.60} is none"
        elif event.get("keys") == "names" and is_number:
            yield f"{of} keys that are no numbers, and {said.key} is one"
        elif event.get("keys") not in NUMBERS:
            yield (
                f"{of} keys that were given: one with a blank more, another form of a letter, in bytes or in several "
                "parts is another name, perhaps of the same"
            )


def _content_doubts(trace: Trace, source: str, datasets: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Why a sample with this content might be there without being found."""
    if not datasets:
        yield "the log has no data set"
    for event in {(e["name"], e.get("content"), e.get("beside")): e for e in datasets}.values():
        name, recorded = f"data set {event['name']!r:.60}", event.get("content")
        if recorded is None:
            yield f"of {name} no contents were recorded: only names can be looked up in it"
        elif recorded == source and event.get("beside"):
            yield f"of each row of {name} only a part was digested ({recorded}), and it holds more: yours may be that"
        elif recorded == GIVEN != source:
            yield (
                f"the contents of {name} are of bytes that the program itself gave for each row, and the log does not "
                "say whether those were whole files: that yours is not among them says nothing"
            )
        elif recorded != source:
            yield (
                f"the contents of {name} were recorded as {recorded!r:.60} and yours is {source!r:.60}: their digests "
                "cannot be compared"
            )
    schemes = {event["id_scheme"] for event in datasets}
    if "keyed" in schemes and _check_key(trace) is None:
        yield "the digests of contents are keyed, and their key is not at hand: put the vault beside the trace"
    if "subject" in schemes:
        yield from _subject_doubts(trace)


def _subject_doubts(trace: Trace) -> Iterator[str]:
    secrets = [] if trace._vault is None else trace._vault.secrets()
    known = {subject_commitment(secret) for _, secret in secrets}
    if not secrets:
        yield "each subject's digests have a key of their own, and none is at hand: put the vault beside the trace"
    elif len(secrets) > MOST_KEYS:
        yield f"the vault has {len(secrets):,} keys, of which {MOST_KEYS:,} were tried: fgtrac prove tries all"
    elif lost := sum(pseudonym not in known for pseudonym in trace._blocks.pseudonyms()):
        yield (
            f"the keys of {lost:,} of the log's subjects are not in the vault, since they were erased or belong to "
            "another vault: what those held cannot be told"
        )


def _check_key(trace: Trace) -> bytes | None:
    """The run's id key, if it is at hand. ProofError for another one than the run committed to."""
    secret = None if trace._vault is None else trace._vault.find_secret("run")
    commitments = {event.get("key_commitment") for _, event in trace._historian.timeline.entries("run")} - {None}
    if secret is not None and commitments and key_commitment(secret) not in commitments:
        raise ProofError(
            "the vault beside the trace holds another id key than the run committed to; find the right one"
        )
    return secret


# -- what became of it ------------------------------------------------------------------------------------------------


def _answer(
    trace: Trace, asked: str, meant: Sequence[Proof], contents: Sequence[Proof], doubts: list[str], notes: list[str]
) -> Mine:
    """The answer from the samples that are meant (`meant`), by which contents, and what speaks against "not used"."""
    there = [proof for proof in meant if trace._seal.rows(proof.id) is not None]
    lives = [_life(trace, proof, doubts) for proof in there]
    record = _record_doubt(trace)
    reasons = doubts + ([record] if record else [])
    if trace.pending:
        reasons.append(f"{trace.pending:,} entries are in no index yet: run fgtrac seal")
    answer = USED if any(life.uses for life in lives) else CANNOT_TELL if reasons else NOT_USED
    receipts, without = _receipts(trace, answer, meant, lives, contents)
    seal = trace._seal
    return Mine(
        answer, asked, () if answer == USED else tuple(reasons), tuple(lives), tuple(receipts), tuple(without),
        tuple(notes), seal.head.size, trace.pending, trace._rests_on,
    )  # fmt: skip


def _life(trace: Trace, proof: Proof, doubts: list[str]) -> Life:
    """A registered sample's part in training; `doubts` is added to where that is not certain."""
    history = trace.history(f"id:{proof.id.hex()}", details=False)
    found = trace._seal.rows(proof.id)
    assert found is not None
    below = []
    try:
        bundle: Bundle = parse_bundle(trace._prover.prove(Proof(proof.id), "history"))
        below = [child.rows for child in bundle.children]
    except ValueError as reason:
        doubts.append(f"what was made from {history.name or proof.id.hex()} was not followed: {reason}")
    rows = np.concatenate([found, *below])
    uses, historian = rows[are_certain(rows)], trace._historian
    if perhaps := int(np.isin(rows["kind"], USES).sum()) - len(uses):
        doubts.append(f"batches that may have left it out held another number of samples than were drawn: {perhaps:,}")
    registered = trace._seal.log.event(int(found["entry"][found["kind"] == KIND["registered"]][-1]))
    roles = np.unique(found["detail"][found["kind"] == KIND["role"]]).tolist()
    ends = [int(end) for end in (uses["entry"].min(), uses["entry"].max())] if len(uses) else []
    times = [trace._seal.log.event(number)["time"] for number in ends]
    reach = draws_of(uses, historian.drawn(uses)).reach.values()
    return Life(
        proof.id,
        None if history.name is None else history.name[:LONGEST],
        registered["dataset"],
        tuple(_ROLE_WORDS[code] for code in roles),
        len(uses),
        len(uses) - int(are_certain(found).sum()),
        int((uses["kind"] == KIND["neighbour"]).sum()),
        sum(hop.beyond for hop in reach),
        perhaps,
        int(historian.timeline.superseded(uses["entry"], uses["step"]).sum()),
        int((rows["kind"] == KIND["delivered"]).sum()),
        (int(uses["step"].min()), int(uses["step"].max())) if len(uses) else None,
        (min(times), max(times)) if times else None,
        *historian.kept_with(rows),
    )


def _record_doubt(trace: Trace) -> str:
    timeline = trace._historian.timeline
    shown = dict(sorted((number, event) for kind in WHOLE for number, event in timeline.entries(kind)))
    lacks = record_words(trace._seal.event, shown)
    return f"this is the record{lacks}: what it does not hold may have happened" if lacks else ""


def _receipts(
    trace: Trace, answer: str, meant: Sequence[Proof], lives: Sequence[Life], contents: Sequence[Proof]
) -> tuple[list[Offer], list[str]]:
    """Bundles that prove the answer, each of at most RECEIPT_BYTES, and why others are missing."""
    if answer == CANNOT_TELL:
        return [], [WITHOUT_PROOF]
    wanted: list[tuple[Proof, tuple[str, ...]]] = [(one, ("content present", "content absent")) for one in contents]
    used = {life.id for life in lives if bool(life.uses) == (answer == USED)}
    claims = ("used",) if answer == USED else ("never used", "never registered")
    wanted += [(proof, claims) for proof in meant if proof.id in used or not lives][:RECEIPTS]
    found: list[Offer] = []
    without: list[str] = []
    for proof, possible in wanted:
        offers, left = true_offers(trace, proof, possible)
        for one in offers:
            if len(one.data) > RECEIPT_BYTES:
                without.append(
                    f"the proof of {one.claim!r} has {len(one.data):,} bytes, and a receipt at most {RECEIPT_BYTES:,}: "
                    "fgtrac prove writes it"
                )
            else:
                found.append(one)
        without += left
    if not found and not without:
        without.append("no file proves an absence under each subject's own key: only who has the vault can look")
    return found, without
