"""What a bundle proves, decided offline: from the bundle's bytes and what the verifier names.

seal        the last leaf under the tree head is a `seal` entry that covers all the others
entries     every other entry that the bundle shows is in the log, and they are those that the claim needs
signature   the tree head is signed by the key that the verifier trusts, or by one that this leads to
index       the sample's value, or its neighbours, stand under the root that the seal commits to
identity    the id is that of the name, where the bundle gives one
about       it is the sample or the content that the verifier asked about, where he named one
evidence    where the entries that the rows name are shown: they give these rows
children    where others were made from the sample: all of them are shown, with their values
complete    where the claim is about the whole run: it has ended, and nothing is known to be lost of its record
sources     where a content is absent: every data set says what its contents are the digests of
claim       the value says what is claimed, and the words are those that follow from it
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgtrac.errors import FormatError, ProofError
from fgtrac.events.identity import id_from_opening, key_commitment, keyed_id, public_id
from fgtrac.events.schema import decode_event
from fgtrac.tlog.index import CONTENT, SAMPLE, LeafProof, Presence, check_absent, check_present
from fgtrac.tlog.merkle import check_inclusion, leaf_hash
from fgtrac.tlog.note import TreeHead, Verifier
from fgtrac.verify.bundle import ABSENCES, CONTENT_CLAIMS, WHOLE_CLAIMS, Bundle, Leaf, head_of
from fgtrac.verify.checks import CannotTell, Checks
from fgtrac.verify.children import are_certain, check_children
from fgtrac.verify.evidence import Event, Registrations, check_dataset, check_evidence
from fgtrac.verify.keys import follow, rotations_of
from fgtrac.verify.needs import check_needed, has_descendants, shows_evidence
from fgtrac.verify.report import Finding, Report, Verdict
from fgtrac.verify.sentences import (
    datasets_of,
    name_words,
    preimage_words,
    record_words,
    sample_named,
    scheme_of,
    sentence,
)


@dataclass(frozen=True, slots=True)
class About:
    """Whom the verifier asks about: an id, or what he computed himself of a sample's name, or of a content's source
    (which is what a data set with this word as its `content` takes)."""

    words: str
    id: bytes | None = None
    preimage: bytes | None = None
    source: str | None = None


def check_bundle(
    bundle: Bundle, verifier: Verifier | None, secret: bytes | None = None, about: About | None = None
) -> Report:
    """Every check of a bundle. Without a verifier nobody vouches for its head: "cannot tell".

    `secret` is the run's id key K, for those who were given it: it lets an absence under keyed ids be decided.
    `about` refutes a bundle about somebody else.
    """
    return _Examination(bundle, verifier, secret, about).report()


class _Examination:
    """One bundle under examination; each method is one check and raises where it does not hold."""

    def __init__(self, bundle: Bundle, verifier: Verifier | None, secret: bytes | None, about: About | None) -> None:
        self._bundle = bundle
        self._verifier = verifier
        self._secret = secret
        self._about = about
        self._head = TreeHead("", 0, b"")
        self._seal: Mapping[str, Any] = {}
        self._shown: dict[int, Event] = {}

    def report(self) -> Report:
        bundle, checks = self._bundle, Checks()
        checks.make("seal", self._check_seal)
        checks.make("entries", self._check_entries, ("seal",))
        checks.make("signature", self._check_signature, ("seal", "entries"))
        checks.make("index", self._check_index, ("seal",))
        checks.make("identity", self._check_identity, ("entries",))
        if self._about is not None:
            checks.make("about", self._check_about, ("entries",))
        if shows_evidence(bundle, {shown.number: shown for shown in bundle.entries}):
            checks.make("evidence", self._check_evidence, ("entries", "index"))
        if has_descendants(bundle):
            checks.make("children", self._check_children, ("entries", "index"))
        if bundle.claim in WHOLE_CLAIMS:
            checks.make("complete", self._check_complete, ("seal", "entries"))
        if bundle.claim == "content absent":
            checks.make("sources", self._check_sources, ("entries",))
        others = [f for f in checks.findings if f.check != "about" and f.verdict is not Verdict.HOLDS]
        checks.make("claim", lambda: self._check_claim(others), ("entries", "index", "evidence", "children"))
        return Report(tuple(checks.findings), tuple(checks.notes))

    # -- the log ------------------------------------------------------------------------------------------------

    def _check_seal(self) -> str:
        bundle = self._bundle
        head = self._head = head_of(bundle)
        if bundle.proof.index != head.size - 1:
            raise ProofError(
                f"the seal is entry {bundle.proof.index} of {head.size}, not the last: later entries may exist"
            )
        check_inclusion(head.root, bundle.proof.index, head.size, leaf_hash(bundle.seal), bundle.proof.path)
        event = decode_event(bundle.seal)
        if event["kind"] != "seal" or event["entries"] != head.size - 1:
            raise ProofError(f"the last of {head.size} entries is no seal over the {head.size - 1} before it")
        self._seal = event
        return f"entry {head.size - 1} of {head.origin}, the last, commits an index over all entries before it"

    def _check_entries(self) -> str:
        for shown in self._bundle.entries:
            check_inclusion(self._head.root, shown.number, self._head.size, leaf_hash(shown.entry), shown.path)
            self._shown[shown.number] = decode_event(shown.entry)
        return check_needed(self._bundle, self._seal["counts"], self._shown)

    def _check_signature(self) -> str:
        if self._verifier is None:
            raise CannotTell("no public key was named, and no bundle vouches for its own: name the log's with --key")
        first = next((e["public_key"] for e in self._shown.values() if e["kind"] == "run"), None)
        return follow(self._verifier, self._bundle.proof.note, rotations_of(self._shown.items()), first)

    def _check_index(self) -> str:
        bundle, root, size = self._bundle, self._seal["root"], self._seal["leaves"]
        type = CONTENT if bundle.claim in CONTENT_CLAIMS else SAMPLE
        if bundle.absence is not None:
            check_absent(root, size, type, bundle.id, bundle.absence)
            return f"{bundle.id.hex()} is not among its {size} leaves, as the neighbours show"
        if bundle.leaf is None or bundle.value is None:
            raise FormatError("the bundle shows neither a leaf nor the neighbours of one")
        self._check_value(type, bundle.id, bundle.value, bundle.leaf)
        return f"leaf {bundle.leaf[0]} of {size} holds this value for {bundle.id.hex()}"

    def _check_value(self, type: int, id: bytes, value: bytes, leaf: Leaf) -> None:
        proof = LeafProof(leaf[0], type, id, hashlib.sha256(value).digest(), leaf[1])
        check_present(self._seal["root"], self._seal["leaves"], type, id, Presence(proof, value))

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
        scheme = scheme_of(self._bundle, self._shown)
        if scheme is None:
            raise CannotTell(f"the log's data sets do not say by one scheme how the id of {words} would be made")
        if scheme == "public":
            if public_id(preimage) != self._bundle.id:
                raise ProofError(f"{words} has the public id {public_id(preimage).hex()}, not {self._bundle.id.hex()}")
            return f"the id is that of {words}, by its public scheme"
        if scheme == "subject":
            raise CannotTell(f"each subject has its own id key: only an auditor with the vault can look for {words}")
        if self._secret is None:
            raise CannotTell(f"the ids are keyed: only who holds their key can tell that of {words}; name it: --id-key")
        commitments = [e.get("key_commitment") for e in self._shown.values() if e["kind"] == "run"]
        if commitments != [key_commitment(self._secret)]:
            raise ProofError("the id key that you named is not the one that the run entry commits to")
        if keyed_id(self._secret, preimage) != self._bundle.id:
            raise ProofError(f"under the committed key {words} has another id than {self._bundle.id.hex()}")
        return f"the id is that of {words} under the committed key, if every id is derived from it"

    def _check_about(self) -> str:
        bundle, about = self._bundle, self._about
        assert about is not None
        if about.id is not None:
            if about.id != bundle.id:
                raise ProofError(f"the bundle is about the id {bundle.id.hex()}, and you asked about {about.words}")
            return f"it is about {about.words}"
        if (about.source is not None) != (bundle.claim in CONTENT_CLAIMS):
            raise ProofError(f"the bundle claims {bundle.claim!r}, which is nothing that can be said of {about.words}")
        assert about.preimage is not None
        asked = preimage_words(about.preimage, about.source is not None)
        if bundle.preimage is not None:
            if bundle.preimage != about.preimage:
                raise ProofError(f"the bundle is about {name_words(bundle)}, and {about.words} is {asked}")
            self._check_source(about)
            return f"{about.words} is {asked}, as computed here"
        if bundle.claim in ABSENCES:
            raise CannotTell(
                f"an absent id was named alone, and whether that would be the id of {asked} in this log only a bundle "
                "with its preimage shows: ask for a proof that was made by name"
            )
        ids = [public_id(about.preimage)] + ([keyed_id(self._secret, about.preimage)] if self._secret else [])
        if bundle.id not in ids:
            raise CannotTell(
                f"the bundle names the id alone, and whether that is the id of {asked} only a bundle with its preimage "
                "shows, or the id key: ask for one, or name the key with --id-key"
            )
        return f"{about.words} is {asked}, and has this id"

    def _check_source(self, about: About) -> None:
        """That a file's digest is absent says nothing of a data set whose contents are no files."""
        for event in datasets_of(self._shown) if self._bundle.claim == "content absent" else ():
            if str(event.get("content", about.source)).partition(" ")[0] != about.source:
                raise CannotTell(
                    f"the contents of data set {event['name']!r:.60} were taken from {event['content']!r:.60}, and "
                    f"{about.words} is a {about.source}: that its digest is absent says nothing of that data set"
                )

    # -- what the value rests on --------------------------------------------------------------------------------

    def _check_evidence(self) -> str:
        bundle, rows = self._bundle, self._bundle.rows
        ordinals = Registrations(self._shown.values()).ordinals(bundle.id, rows, self._shown)
        if bundle.preimage is not None:
            check_dataset(sample_named(bundle.preimage)[0], rows, self._shown)
        return check_evidence(bundle.id, rows, self._shown, ordinals)

    def _check_children(self) -> str:
        bundle = self._bundle
        for child in bundle.children:
            self._check_value(SAMPLE, child.id, child.value, child.leaf)
        return check_children(bundle.id, bundle.rows, bundle.children, self._shown)

    def _check_complete(self) -> str:
        """Whether the record says by itself that it is whole, as a claim about what did not happen needs it."""
        lacks = record_words(self._seal, self._shown)
        if lacks:
            raise CannotTell(
                f"this is the record{lacks}: what it does not hold may have happened; prove it under a head over the "
                "whole run, or prove what was used"
            )
        return "the run has ended, and no gap is known in its record"

    def _check_sources(self) -> str:
        """A digest that is not there says nothing of samples whose content was never digested."""
        datasets = datasets_of(self._shown)
        if not datasets:
            raise CannotTell("the log has no data set, so nothing says what contents are the digests of")
        unknown = [e["name"] for e in datasets if "content" not in e]
        if unknown:
            raise CannotTell(
                f"the source of data set {unknown[0]!r:.60} is not known to the log, so any content may be in it"
            )
        if beside := [e for e in datasets if e.get("beside")]:
            raise CannotTell(
                f"rows of data set {beside[0]['name']!r:.60} hold more than what their content digests are of "
                f"({beside[0]['content']:.60}), and this content may be that"
            )
        return f"each of the {len(datasets)} data sets says what its content digests are taken from"

    def _check_claim(self, others: Sequence[Finding]) -> str:
        """The words; and where they are right, whether all that they rest on (`others` do not hold) could be told."""
        words = sentence(self._bundle, self._head, self._shown)
        if words != self._bundle.words:
            raise ProofError(f"the bundle says {self._bundle.words!r:.400}, and what it shows is: {words}")
        if others:
            raise CannotTell(f"not checked, since the check of {others[0].check} does not hold")
        lives = [self._bundle.rows, *(child.rows for child in self._bundle.children)]
        if self._bundle.claim == "used" and not any(are_certain(rows).any() for rows in lives):
            raise CannotTell(
                "every batch that it was drawn for held another number of samples, and may have left it out"
            )
        return f"holds as committed at size {self._head.size}: {words}"
