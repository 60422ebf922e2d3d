"""The words of a bundle: its claim in sentences that follow from its other fields, to the letter (docs/spec/bundle.md).

Everything that a sentence says stands in what the bundle shows; ProofError where that does not bear the claim out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError, ProofError
from fgtrac.events.codec import decode
from fgtrac.events.postings import KIND
from fgtrac.events.schema import ATTRIBUTION, ROLES, decode_event
from fgtrac.tlog.note import TreeHead
from fgtrac.verify.bundle import ABSENCES, CONTENT_CLAIMS, NON_USES, ROW_CLAIMS, USES, WHOLE_CLAIMS, Bundle, Rows
from fgtrac.verify.children import count_seeds, count_uses
from fgtrac.verify.evidence import Event, Registrations, Shown, epochs_given
from fgtrac.verify.joins import has_all_ranks
from fgtrac.verify.needs import shows_evidence

KIND_WORDS = {code: word for word, code in KIND.items()}
ROLE_WORDS = {code: word for word, code in ROLES.items()}
# What a reader would not see, or see elsewhere: DEL and C1 controls, and marks of direction and formatting.
_UNSEEN = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def sentence(bundle: Bundle, head: TreeHead, shown: Shown) -> str:
    """The claim in words, from what the bundle shows: its decoded entries by number, ascending."""
    rows, below = bundle.rows, [child.rows for child in bundle.children]
    record = record_words(decode_event(bundle.seal), shown) if bundle.claim in WHOLE_CLAIMS else ""
    claim = _CLAIM_WORDS[bundle.claim](bundle, rows, below)
    sentences = [f"{claim[0].upper()}{claim[1:]}, as committed by {head.origin} at size {head.size}{record}."]
    if bundle.claim in WHOLE_CLAIMS:
        sentences += _about_interruptions(shown)
    if bundle.claim in ROW_CLAIMS:
        sentences += _as_neighbour(bundle, rows, shown) + _about_uses([rows, *below], shown)
    if shows_evidence(bundle, shown):
        sentences += _about_times(bundle, rows, shown)
    if bundle.claim == "used":
        sentences += _about_state(rows, shown, has_ranks="join" in decode_event(bundle.seal)["counts"])
    if bundle.claim in NON_USES:
        sentences += _about_deliveries([rows, *below])
    if bundle.claim in ROW_CLAIMS:
        sentences.append(_role(rows))
    if below:
        uses = sum(map(count_uses, below))
        sentences.append(f"Samples made from it: {len(below)}. Uses of those in updates: {uses}.")
    if bundle.claim in ABSENCES and bundle.preimage is not None and scheme_of(bundle, shown) in ("public", "keyed"):
        sentences.append("This rests on every id and content digest being made as its data set says.")
    if bundle.claim == "content absent":
        sentences.append(f"Contents were taken from: {_sources(datasets_of(shown))}.")
    return " ".join(sentences)


# -- names ----------------------------------------------------------------------------------------------------------


def name_words(bundle: Bundle) -> str:
    """Who or what the claim is about. FormatError for a preimage that is none."""
    is_content = bundle.claim in CONTENT_CLAIMS
    if bundle.preimage is None:
        return f"the content with digest {bundle.id.hex()}" if is_content else f"the sample with id {bundle.id.hex()}"
    return preimage_words(bundle.preimage, is_content)


def preimage_words(preimage: bytes, is_content: bool) -> str:
    """The content, or the sample, that a preimage names. FormatError for one that names none."""
    if is_content:
        parts = decode(preimage)
        if not _is_form(parts, "fgtrac content v1", 2) or type(parts[1]) is not bytes or len(parts[1]) != 32:
            raise FormatError(f"{preimage.hex():.80} is no preimage of a content digest")
        return f"the content whose source has SHA-256 {parts[1].hex()}"
    dataset, key = sample_named(preimage)
    return f"the sample with key {as_json(key)} of data set {as_json(dataset)}"


def sample_named(preimage: bytes) -> tuple[str, Any]:
    """The data set and the key of a sample's preimage. FormatError for one that names none."""
    parts = decode(preimage)
    if not _is_form(parts, "fgtrac id v1", 3) or not isinstance(parts[1], str) or not _is_key(parts[2]):
        raise FormatError(f"{preimage.hex():.80} is no preimage of a sample id")
    return parts[1], parts[2]


def as_json(key: Any) -> str:
    """A key or a name as JSON: bytes as {"hex": "00ff"}, a tuple as a list; what nobody would see, escaped."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(_plain(key), ensure_ascii=False))


def _plain(key: Any) -> Any:
    if isinstance(key, bytes):
        return {"hex": key.hex()}
    return [_plain(part) for part in key] if isinstance(key, list | tuple) else key


def _is_form(parts: Any, form: str, length: int) -> bool:
    return isinstance(parts, list) and len(parts) == length and parts[0] == form


def _is_key(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_key, value))
    return isinstance(value, str | bytes) or (type(value) is int and 0 <= value < 1 << 64)


# -- the first sentence ---------------------------------------------------------------------------------------------


def record_words(seal: Event, shown: Shown) -> str:
    """What the gaps that a `seal` entry counts and the shown entries of a whole run (`end`, `resume`, `join`, `leave`)
    say against the record being the whole one; empty where nothing does."""
    gaps = seal["counts"].get("gap", 0)
    last_end, last_resume = (
        max((n for n, e in shown.items() if e["kind"] == k), default=-1) for k in ("end", "resume")
    )
    has_ended = last_end > last_resume
    lacks = ", and of some ranks it is not whole" if has_ended and not has_all_ranks(shown) else ""
    if has_ended and not gaps and not lacks:
        return ""
    return f" of a run that has {'ended' if has_ended else 'not ended'} (gaps in its record: {gaps}{lacks})"


def _used(bundle: Bundle, rows: Rows, below: Sequence[Rows]) -> str:
    mine = rows[np.isin(rows["kind"], USES)]
    if len(mine):
        return f"{name_words(bundle)} was used {_times(len(mine))} in optimizer updates, {_steps(mine)}"
    theirs = [found for each in below if len(found := each[np.isin(each["kind"], USES)])]
    if not theirs:
        raise ProofError(f"{name_words(bundle)} has no row of use, so it cannot be shown as used")
    uses = np.concatenate(theirs)
    through = f"was used through samples made from it, {_times(len(uses))} in optimizer updates"
    return f"{name_words(bundle)} {through}, {_steps(uses)}"


def _history(bundle: Bundle, rows: Rows, below: Sequence[Rows]) -> str:
    kinds, counts = np.unique(rows["kind"], return_counts=True)
    said = ", ".join(f"{n} x {KIND_WORDS[kind]}" for kind, n in zip(kinds.tolist(), counts.tolist(), strict=True))
    return f"the whole history of {name_words(bundle)} is {said}"


def _never_used(bundle: Bundle, rows: Rows, below: Sequence[Rows]) -> str:
    who = name_words(bundle)
    if used := count_uses(rows):
        raise ProofError(f"{who} has {used} rows of use, so it was used")
    if used := sum(map(count_uses, below)):
        raise ProofError(f"samples made from {who} have {used} rows of use, so it was used through them")
    return f"{who} is registered, and no optimizer update ever used it or a sample made from it in any batch"


def _label_never_used(bundle: Bundle, rows: Rows, below: Sequence[Rows]) -> str:
    who = name_words(bundle)
    if used := count_seeds(rows):
        raise ProofError(f"{who} has {used} rows of use as a seed, so its label was used")
    if used := sum(map(count_seeds, below)):
        raise ProofError(f"samples made from {who} have {used} rows of use as a seed, so its label was used by them")
    return (
        f"{who} is registered, and no optimizer update ever used its label: neither it nor a sample made from it was "
        "ever a seed"
    )


def _never_registered(bundle: Bundle, rows: Rows, below: Sequence[Rows]) -> str:
    return f"{name_words(bundle)} was never registered"


def _content_present(bundle: Bundle, rows: Rows, below: Sequence[Rows]) -> str:
    count = len(bundle.value or b"") // 32
    return f"{name_words(bundle)} is held by {count} of the registered samples"


def _content_absent(bundle: Bundle, rows: Rows, below: Sequence[Rows]) -> str:
    return f"{name_words(bundle)} is held by no registered sample"


_CLAIM_WORDS = {
    "used": _used,
    "history": _history,
    "never used": _never_used,
    "label never used": _label_never_used,
    "never registered": _never_registered,
    "content present": _content_present,
    "content absent": _content_absent,
}


# -- the others -----------------------------------------------------------------------------------------------------


def _about_interruptions(shown: Shown) -> list[str]:
    """How often training went on that had not ended: a process that is killed takes what it had not written with it."""
    marks = ["", *(e["kind"] for e in shown.values() if e["kind"] in ("end", "resume"))]
    count = sum(before != "end" and kind == "resume" for before, kind in pairwise(marks))
    said = f"Resumes without an end before: {count}. What was done last before those may be lost."
    return [said] if count else []


def _as_neighbour(bundle: Bundle, rows: Rows, shown: Shown) -> list[str]:
    """How often batches gave the model the sample's features without its label, which says nothing of what it read
    beside them; where the entries are shown, also how often as a part of the whole graph, whose last hop is what no
    message reaches a seed from."""
    beside = rows[rows["kind"] == KIND["neighbour"]]
    at = f", at hops from {beside['detail'].min()} to {beside['detail'].max()}" if len(beside) else ""
    said = [f"Uses as a neighbour, with its features alone: {len(beside)}{at}."]
    if shows_evidence(bundle, shown):
        uses = [(hop, shown[number]) for hop, number in beside[["detail", "entry"]].tolist()]
        far = [hop == event["hops"] for hop, event in uses if event.get("graph") == "whole"]
        reach = f"{sum(far)} of them out of the seeds' reach"
        said += [f"In updates on the whole graph: {len(far)}, {reach}."] if far else []
    if bundle.claim == "label never used":
        return [*said, "What a model reads beside its batches is not recorded."]
    return said if len(beside) else []


def _about_uses(lives: Sequence[Rows], shown: Shown) -> list[str]:
    """What is to be known of the uses of a sample, and of its descendants."""
    rows = np.concatenate(lives)
    how = rows["detail"][rows["kind"] == KIND["used"]]
    assumed, declared, among = (int((how == ATTRIBUTION[word]).sum()) for word in ("fifo", "declared", "among"))
    undone = int(undone_uses(rows, shown).sum())
    said = (
        (assumed, f"Which update took it is assumed from the order of the batches in {assumed} of all uses."),
        (declared, f"Told by the recording program itself, which nothing watched: {declared} of all uses."),
        (
            among,
            f"In batches that may have left it out: {among} of all uses.",
        ),
        (undone, f"The run was resumed from an earlier step, which undid {undone} of all uses."),
    )
    return [words for count, words in said if count]


def undone_uses(rows: Rows, shown: Shown) -> NDArray[np.bool_]:
    """Which rows are uses that a later `resume` entry undid, as it went on from a step before theirs."""
    resumes = [(n, e["step"]) for n, e in shown.items() if e["kind"] == "resume"]  # ascending, as entries are shown
    numbers = np.array([n for n, _ in resumes], dtype=np.uint64)
    steps = np.array([s for _, s in resumes] + [2**64 - 1], dtype=np.uint64)
    least = np.minimum.accumulate(steps[::-1])[::-1]  # of each resume and those behind it
    after = least[np.searchsorted(numbers, rows["entry"], side="right")]
    undone: NDArray[np.bool_] = np.isin(rows["kind"], USES) & (after < rows["step"])
    return undone


def _about_times(bundle: Bundle, rows: Rows, shown: Shown) -> list[str]:
    uses = rows[np.isin(rows["kind"], USES)]
    if bundle.claim != "used" or not len(uses):
        return [f"By the clock of the recorder, the entries about it were written {_at(rows, shown)}."]
    ordinals = Registrations(shown.values()).ordinals(bundle.id, rows, shown)
    entries = [shown[n] for n in np.unique(uses["entry"]).tolist()]
    if wrong := [e["kind"] for e in entries if e["kind"] != "use"]:
        raise ProofError(f"a row of use names an entry of the kind {wrong[0]}")
    epochs = np.unique(np.concatenate([epochs_given(event, ordinals) for event in entries])).tolist()
    if not epochs:
        raise ProofError("no entry that a row of use names is about the sample")
    written = f"By the clock of the recorder, the entries of its uses were written {_at(uses, shown)}."
    return [written, f"Epochs of its uses: {len(epochs)}, from {epochs[0]} to {epochs[-1]}."]


def _at(rows: Rows, shown: Shown) -> str:
    times = [shown[n]["time"] for n in np.unique(rows["entry"]).tolist()]
    first, last = (
        datetime.fromtimestamp(t // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for t in (min(times), max(times))
    )
    return f"from {first} to {last}"


def _about_state(rows: Rows, shown: Shown, *, has_ranks: bool) -> list[str]:
    for number, event in shown.items():
        if event["kind"] != "checkpoint":
            continue
        step = event["step"]
        if any(e["kind"] == "resume" and n > number and e["step"] < step for n, e in shown.items()):
            raise ProofError(
                f"the model state of entry {number} was undone: the run was resumed from before step {step}"
            )
        until = (rows["step"] <= step) & np.isin(rows["kind"], USES) & ~undone_uses(rows, shown)
        if has_ranks:  # the entries of one rank stand behind those of another, whenever they were made
            so = ", by the steps that each rank counts"
        else:  # steps are counted by optimizer: what both, they and the entries, put before the state was before it
            until, so = until & (rows["entry"] < number), ""
        digest = f" with SHA-256 {event['digest'].hex()}" if "digest" in event else ""
        return [f"The model state of step {step}{digest} was saved after {until.sum()} of its uses{so}."]
    return []


def _about_deliveries(all_rows: Sequence[Rows]) -> list[str]:
    """The rows do not say how it was decided that no update was made of a batch: so neither does the sentence."""
    count = sum(int((rows["kind"] == KIND["delivered"]).sum()) for rows in all_rows)
    return [f"Deliveries without an update, as far as the recorder could tell: {count}."] if count else []


def _role(rows: Rows) -> str:
    roles = [ROLE_WORDS[code] for code in np.unique(rows["detail"][rows["kind"] == KIND["role"]]).tolist()]
    if not roles:
        return "It had no role."
    return f"It had the {'role' if len(roles) == 1 else 'roles'} {', '.join(roles)}."


def datasets_of(shown: Shown) -> list[Event]:
    """The `dataset` entries among those shown."""
    return [e for e in shown.values() if e["kind"] == "dataset"]


def scheme_of(bundle: Bundle, shown: Shown) -> str | None:
    """The id scheme that holds for an absent name or content; None where the data sets do not settle it."""
    datasets: Iterable[Mapping[str, Any]] = datasets_of(shown)
    if bundle.claim != "content absent":
        name, _key = sample_named(bundle.preimage or b"")
        datasets = [e for e in datasets if e["name"] == name]
    schemes = {e["id_scheme"] for e in datasets}
    return schemes.pop() if len(schemes) == 1 else None


def _sources(datasets: Sequence[Event]) -> str:
    return ", ".join(f"{as_json(e['name'])} by {as_json(e.get('content', 'unknown'))}" for e in datasets)


def _steps(uses: Rows) -> str:
    first, last = uses["step"].min(), uses["step"].max()
    return f"in step {first}" if first == last else f"first in step {first}, last in step {last}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
