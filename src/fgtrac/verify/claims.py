"""What a bundle proves, decided offline: from the bundle's bytes and the public key that the verifier names.

signature   the tree head is signed by the key that the verifier trusts
seal        the last leaf under that head is a `seal` entry that covers all the others
index       the sample's value, or its neighbours, stand under the root that the seal commits to
entries     every other entry that the bundle shows is in the log
identity    the id is that of the name, where the bundle gives one
complete    where the claim is about the whole run: it has ended, and nothing is known to be lost of its record
sources     where a content is absent: every data set says what its contents are the digests of
claim       the value says what is claimed, and the sentence is the one that follows from it
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fgtrac.errors import FormatError, ProofError
from fgtrac.events.codec import decode
from fgtrac.events.identity import id_from_opening, key_commitment, keyed_id, public_id
from fgtrac.events.postings import KIND, decode_rows
from fgtrac.events.schema import ATTRIBUTION, TRANSFORM, decode_event
from fgtrac.tlog.index import CONTENT, SAMPLE, LeafProof, Presence, check_absent, check_present
from fgtrac.tlog.merkle import check_inclusion, leaf_hash
from fgtrac.tlog.note import TreeHead, Verifier, parse_note, parse_tree_head, verify_note
from fgtrac.verify.bundle import ABSENCES, CONTENT_CLAIMS, Bundle
from fgtrac.verify.checks import CannotTell, Checks
from fgtrac.verify.report import Report

KIND_WORDS = {code: word for word, code in KIND.items()}
WHOLE_CLAIMS = ("history", "never used", *ABSENCES)  # they speak of the whole run, and so need its end
MAX_NAME = 200  # characters of a key or of a data set's name that a sentence shows
USES = (KIND["used"], KIND["neighbour"])


def head_of(bundle: Bundle) -> TreeHead:
    """The tree head that the bundle carries, unchecked. FormatError where its note is none."""
    return parse_tree_head(parse_note(bundle.proof.note).text)


def check_bundle(bundle: Bundle, verifier: Verifier | None, secret: bytes | None = None) -> Report:
    """Every check of a bundle. Without a verifier nobody vouches for its head: "cannot tell".

    `secret` is the run's id key K, for those who were given it: it lets an absence under keyed ids be decided.
    """
    return _Examination(bundle, verifier, secret).report()


class _Examination:
    """One bundle under examination; each method is one check and raises where it does not hold."""

    def __init__(self, bundle: Bundle, verifier: Verifier | None, secret: bytes | None) -> None:
        self._bundle = bundle
        self._verifier = verifier
        self._secret = secret
        self._head = TreeHead("", 0, b"")
        self._seal: Mapping[str, Any] = {}
        self._shown: list[Mapping[str, Any]] = []

    def report(self) -> Report:
        checks = Checks()
        checks.make("head", self._check_head)
        checks.make("signature", self._check_signature, ("head",))
        checks.make("seal", self._check_seal, ("head",))
        checks.make("index", self._check_index, ("seal",))
        checks.make("entries", self._check_entries, ("head",))
        checks.make("identity", self._check_identity, ("seal", "entries"))
        if self._bundle.claim in WHOLE_CLAIMS:
            checks.make("complete", self._check_complete, ("seal",))
        if self._bundle.claim == "content absent":
            checks.make("sources", self._check_sources, ("seal", "entries"))
        checks.make("claim", self._check_claim, ("signature", "index", "identity"))
        return Report(tuple(checks.findings), tuple(checks.notes))

    def _check_head(self) -> str:
        self._head = head_of(self._bundle)
        return f"a tree head of {self._head.size} entries of {self._head.origin}"

    def _check_signature(self) -> str:
        if self._verifier is None:
            raise CannotTell("no public key was named, and no bundle vouches for its own: name the log's with --key")
        verify_note(self._bundle.proof.note, [self._verifier])
        if self._head.origin != self._verifier.name:
            raise ProofError(f"a head of {self._head.origin!r:.80}, and the key is that of {self._verifier.name!r:.80}")
        return f"signed by {self._verifier.name} (key id {self._verifier.key_id.hex()})"

    def _check_seal(self) -> str:
        bundle, head = self._bundle, self._head
        if bundle.proof.index != head.size - 1:
            raise ProofError(
                f"the seal is entry {bundle.proof.index} of {head.size}, not the last: later entries may exist"
            )
        check_inclusion(head.root, bundle.proof.index, head.size, leaf_hash(bundle.seal), bundle.proof.path)
        event = decode_event(bundle.seal)
        if event["kind"] != "seal" or event["entries"] != head.size - 1:
            raise ProofError(f"the last of {head.size} entries is no seal over the {head.size - 1} before it")
        self._seal = event
        return f"entry {head.size - 1}, the last, commits an index over all entries before it"

    def _check_index(self) -> str:
        bundle, root, size = self._bundle, self._seal["root"], self._seal["leaves"]
        type = CONTENT if bundle.claim in CONTENT_CLAIMS else SAMPLE
        if bundle.absence is not None:
            check_absent(root, size, type, bundle.id, bundle.absence)
            return f"{bundle.id.hex()} is not among its {size} leaves, as the neighbours show"
        if bundle.leaf is None or bundle.value is None:
            raise FormatError("the bundle shows neither a leaf nor the neighbours of one")
        index, path = bundle.leaf
        leaf = LeafProof(index, type, bundle.id, hashlib.sha256(bundle.value).digest(), path)
        check_present(root, size, type, bundle.id, Presence(leaf, bundle.value))
        return f"leaf {index} of {size} holds this value for {bundle.id.hex()}"

    def _check_entries(self) -> str:
        for shown in self._bundle.entries:
            check_inclusion(self._head.root, shown.number, self._head.size, leaf_hash(shown.entry), shown.path)
            self._shown.append(decode_event(shown.entry))
        if len({shown.number for shown in self._bundle.entries}) < len(self._bundle.entries):
            raise ProofError("an entry is shown twice")
        if self._shown and not needs_datasets(self._bundle.claim, self._bundle.preimage):
            raise ProofError(f"{len(self._shown)} entries are shown, and the claim needs none of them")
        return f"{len(self._shown)} other entries are shown, each of them in the log"

    # -- the name -----------------------------------------------------------------------------------------------

    def _check_identity(self) -> str:
        bundle = self._bundle
        if bundle.preimage is None:
            if bundle.opening is not None:
                raise ProofError("the id is opened without saying what it is the id of")
            return "the claim names the id alone"
        words = name_words(bundle)
        if bundle.claim in ABSENCES:
            return self._check_absent_name(bundle.preimage, words)
        if bundle.opening is not None:
            found, how = id_from_opening(bundle.opening, bundle.preimage), "the opening of a keyed id"
        else:
            found, how = public_id(bundle.preimage), "a public id"
        if found != bundle.id:
            raise ProofError(f"{words} has the id {found.hex()} ({how}), not {bundle.id.hex()}")
        return f"the id is that of {words}, as {how} shows"

    def _check_absent_name(self, preimage: bytes, words: str) -> str:
        """An absent id says something of a name only where every sample of that name would have this very id."""
        if self._bundle.opening is not None:
            raise ProofError("an absent id has no opening: k_i proves nothing of what is not registered")
        scheme = self._scheme_of(preimage)
        if scheme == "public":
            if public_id(preimage) != self._bundle.id:
                raise ProofError(f"{words} has the public id {public_id(preimage).hex()}, not {self._bundle.id.hex()}")
            return f"the id is that of {words}, by its public scheme"
        if scheme != "keyed" or self._secret is None:
            raise CannotTell(
                f"the ids are {scheme}: only who holds their key can compute the id of {words}; name it with --id-key"
            )
        commitments = [e.get("key_commitment") for e in self._shown if e["kind"] == "run"]
        if not commitments or any(c != key_commitment(self._secret) for c in commitments):
            raise ProofError("the id key that you named is not the one that the run entry commits to")
        if keyed_id(self._secret, preimage) != self._bundle.id:
            raise ProofError(f"under the committed key {words} has another id than {self._bundle.id.hex()}")
        return f"the id is that of {words} under the committed key, if every id is derived from it"

    def _scheme_of(self, preimage: bytes) -> str:
        """The id scheme that holds for a name, from all the data sets of the log."""
        datasets = self._datasets()
        if len(datasets) != self._seal["counts"].get("dataset", 0):
            raise ProofError(f"{len(datasets)} data sets are shown and the seal counts others")
        if len(self._shown) != len(datasets) + needs_run_entry(datasets):
            raise ProofError("the run entry is shown where some ids are keyed, and no entry beside it")
        if self._bundle.claim != "content absent":
            name = decode(preimage)[1]
            datasets = [e for e in datasets if e["name"] == name]
            if not datasets:
                raise CannotTell(f"the log has no data set {name!r:.60}, so nothing says how its ids would be made")
        schemes = {e["id_scheme"] for e in datasets}
        return schemes.pop() if len(schemes) == 1 else " or ".join(sorted(schemes))

    # -- the claim ----------------------------------------------------------------------------------------------

    def _datasets(self) -> list[Mapping[str, Any]]:
        return [e for e in self._shown if e["kind"] == "dataset"]

    def _check_complete(self) -> str:
        """Whether the record says by itself that it is whole, as a claim about what did not happen needs it."""
        lacks = _record_words(self._seal)
        if lacks:
            raise CannotTell(
                f"this is the record{lacks}: what it does not hold may have happened; prove it under a head over the "
                "whole run, or prove what was used"
            )
        return "the run has ended, and no gap is known in its record"

    def _check_sources(self) -> str:
        """A digest that is not there says nothing of samples whose content was never digested."""
        datasets, there = self._datasets(), self._seal["counts"].get("dataset", 0)
        if not datasets or len(datasets) != there:
            raise CannotTell(f"{len(datasets)} of the log's {there} data sets are shown, so any content may be in it")
        unknown = [e["name"] for e in datasets if "content" not in e]
        if unknown:
            raise CannotTell(
                f"the source of data set {unknown[0]!r:.60} is not known to the log, so any content may be in it"
            )
        return f"each of the {there} data sets says what its content digests are taken from"

    def _check_claim(self) -> str:
        bundle = self._bundle
        words = sentence(bundle, self._head, self._datasets())
        if words != bundle.words:
            raise ProofError(f"the bundle says {bundle.words!r:.200}, and what it shows is: {words}")
        if bundle.claim == "never used" and bundle.value is not None and has_children(bundle.value):
            raise CannotTell("the sample was made into others, whose uses are not shown here; prove each of them")
        if bundle.claim in WHOLE_CLAIMS:
            self._check_complete()
        if bundle.claim == "content absent":
            self._check_sources()
        return f"holds as committed at size {self._head.size}: {words}"


def needs_datasets(claim: str, preimage: bytes | None) -> bool:
    """Whether the claim rests on what the data sets say: of an absent name how its id is made, of an absent content
    what was digested."""
    return claim == "content absent" or (claim in ABSENCES and preimage is not None)


def needs_run_entry(datasets: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an absence among these data sets needs the key's commitment, which stands in the `run` entry."""
    return any(e["id_scheme"] == "keyed" for e in datasets)


# -- words ----------------------------------------------------------------------------------------------------------


def sentence(bundle: Bundle, head: TreeHead, datasets: list[Mapping[str, Any]]) -> str:
    """The claim in words, from what the bundle shows. ProofError where that does not bear the claim out."""
    who = name_words(bundle)
    said = _CLAIM_WORDS[bundle.claim](bundle, who, datasets)
    record = _record_words(decode_event(bundle.seal)) if bundle.claim in WHOLE_CLAIMS else ""
    return f"{said}, as committed by {head.origin} at size {head.size}{record}."


def _record_words(seal: Mapping[str, Any]) -> str:
    """What the counts of a `seal` entry say against its record being the whole one; empty where nothing does."""
    counts = seal.get("counts", {})
    gaps = counts.get("gap", 0)
    lost = f"with {gaps} {'gap' if gaps == 1 else 'gaps'} in its record" if gaps else ""
    if not counts.get("end"):
        return " of a run that has not ended" + (f", {lost}" if lost else "")
    return f" of a run {lost}" if lost else ""


def name_words(bundle: Bundle) -> str:
    """Who or what the claim is about. FormatError for a preimage that is none."""
    what = "content" if bundle.claim in CONTENT_CLAIMS else "sample"
    if bundle.preimage is None:
        return f"the {what} with id {bundle.id.hex()}"
    parts = decode(bundle.preimage)
    if what == "content":
        if not (
            isinstance(parts, list) and len(parts) == 2 and parts[0] == "fgtrac content v1" and _is_digest(parts[1])
        ):
            raise FormatError(f"{bundle.preimage.hex():.80} is no preimage of a content digest")
        return f"the content whose source has SHA-256 {parts[1].hex()}"
    if not _is_form(parts, "fgtrac id v1", 3) or not isinstance(parts[1], str):
        raise FormatError(f"{bundle.preimage.hex():.80} is no preimage of a sample id")
    key, dataset = repr(parts[2]), repr(parts[1])
    if len(key) <= MAX_NAME and len(dataset) <= MAX_NAME:
        return f"the sample with key {key} of data set {dataset}"
    digest = hashlib.sha256(bundle.preimage).hexdigest()  # two long names may begin alike
    shown = f"key {_begin(key)} of data set {_begin(dataset)}, shown in part"
    return f"the sample whose preimage has SHA-256 {digest} ({shown})"


def _begin(text: str) -> str:
    return text if len(text) <= MAX_NAME else text[:MAX_NAME] + "..."


def _is_form(parts: Any, form: str, length: int) -> bool:
    return isinstance(parts, list) and len(parts) == length and parts[0] == form


def _is_digest(value: Any) -> bool:
    return type(value) is bytes and len(value) == 32


def has_children(value: bytes) -> bool:
    """Whether a stage made new samples from this one."""
    rows = decode_rows(value)
    return bool(((rows["kind"] == KIND["transformed"]) & (rows["detail"] == TRANSFORM["has children"])).any())


def _used(bundle: Bundle, who: str, datasets: list[Mapping[str, Any]]) -> str:
    rows = decode_rows(bundle.value or b"")
    mine = rows[np.isin(rows["kind"], USES)]
    if not len(mine):
        raise ProofError(f"{who} has no row of use, so it cannot be shown as used")
    neighbour = int((mine["kind"] == KIND["neighbour"]).sum())
    hows = [f"{_times(neighbour)} as a neighbour"] if neighbour else []
    hows += [f"in {assumed} of them by assumed order"] if (assumed := _count_assumed(mine)) else []
    how = f" ({', '.join(hows)})" if hows else ""
    first, last = mine["step"].min(), mine["step"].max()
    steps = f"in step {first}" if first == last else f"first in step {first}, last in step {last}"
    return f"{_capital(who)} was used {_times(len(mine))} in optimizer updates{how}, {steps}"


def _history(bundle: Bundle, who: str, datasets: list[Mapping[str, Any]]) -> str:
    rows = decode_rows(bundle.value or b"")
    counts = Counter(KIND_WORDS[kind] for kind in rows["kind"].tolist())
    said = ", ".join(f"{count} x {kind}" for kind, count in counts.items())
    assumed = _count_assumed(rows)
    how = f" ({assumed} of the uses by assumed order)" if assumed else ""
    return f"The whole history of {who} is {len(rows)} rows: {said}{how}"


def _count_assumed(rows: np.ndarray[Any, np.dtype[np.void]]) -> int:
    """The uses that the recorder gave to an update only because batches were assumed to be taken in their order."""
    return int(((rows["kind"] == KIND["used"]) & (rows["detail"] == ATTRIBUTION["fifo"])).sum())


def _never_used(bundle: Bundle, who: str, datasets: list[Mapping[str, Any]]) -> str:
    rows = decode_rows(bundle.value or b"")
    if np.isin(rows["kind"], USES).any():
        raise ProofError(f"{who} has {int(np.isin(rows['kind'], USES).sum())} rows of use, so it was used")
    delivered = int((rows["kind"] == KIND["delivered"]).sum())
    # The rows do not say how it was decided that no update was made of a batch: so neither does the sentence.
    also = f" (delivered {_times(delivered)} without being applied, as far as the recorder could tell)"
    also = also if delivered else ""
    return f"{_capital(who)} is registered and was never used in an optimizer update{also}"


def _never_registered(bundle: Bundle, who: str, datasets: list[Mapping[str, Any]]) -> str:
    return f"{_capital(who)} was never registered"


def _content_present(bundle: Bundle, who: str, datasets: list[Mapping[str, Any]]) -> str:
    return f"{_capital(who)} is held by {len(bundle.value or b'') // 32} registered samples"


def _content_absent(bundle: Bundle, who: str, datasets: list[Mapping[str, Any]]) -> str:
    sources = ", ".join(f"{e['name']} by {e.get('content', 'nothing')}" for e in datasets)
    return f"{_capital(who)} is held by no registered sample (sources digested: {sources})"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


_CLAIM_WORDS = {
    "used": _used,
    "history": _history,
    "never used": _never_used,
    "never registered": _never_registered,
    "content present": _content_present,
    "content absent": _content_absent,
}
