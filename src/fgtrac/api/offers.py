"""The proofs that can be had of a sample or a content: each true claim as a bundle, and what checking it says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fgtrac.api.trace import Trace
from fgtrac.api.trust import trusted_verifier
from fgtrac.query.prove import Proof, UntrueClaimError
from fgtrac.tlog.note import Verifier, parse_note
from fgtrac.verify.bundle import parse_bundle
from fgtrac.verify.claims import check_bundle
from fgtrac.verify.report import Verdict

OF_A_SAMPLE = ("used", "history", "never used", "label never used", "never registered")


@dataclass(frozen=True, slots=True)
class Offer:
    """A bundle (`data`) that proves `claim`, in `words`; `verdict` is what checking it offline says, with the key that
    the trace was opened with, and `lacks` the check that could not be made and why (empty where all hold)."""

    claim: str
    words: str
    data: bytes
    verdict: Verdict
    lacks: str

    def as_json(self) -> dict[str, Any]:
        """Plain data, without the bundle."""
        said = {"claim": self.claim, "words": self.words, "bytes": len(self.data)}
        return said | {"verdict": str(self.verdict), "lacks": self.lacks}


def offer(trace: Trace, asked: Proof, claim: str) -> Offer:
    """The proof of one claim. ValueError where it is not true, or too large for a bundle."""
    data = trace._prover.prove(asked, claim)
    bundle = parse_bundle(data)
    secret = None if trace._vault is None else trace._vault.find_secret("run")
    report = check_bundle(bundle, _verifier(trace), secret)
    lacks = next((f"{f.check}: {f.words}" for f in report.findings if f.verdict is not Verdict.HOLDS), "")
    return Offer(claim, bundle.words, data, report.verdict, lacks)


def signature(trace: Trace) -> tuple[Verdict, str]:
    """Whether the signature under the answers of an opened trace was checked, and in words with whose key. ProofError
    where it is wrong."""
    words = trace._rests_on
    return (Verdict.HOLDS if words.startswith("as signed with") else Verdict.CANNOT_TELL), words


def _verifier(trace: Trace) -> Verifier | None:
    """Who has to have signed: whom the reader named, or he himself if he did; otherwise nobody vouches for the head."""
    verifier, _whose = trusted_verifier(trace._key, trace.id, note=trace._seal.note)
    lines = parse_note(trace._seal.note).signatures
    is_signed = verifier is not None and any((s.name, s.key_id) == (verifier.name, verifier.key_id) for s in lines)
    return verifier if is_signed or trace._key is not None else None


def true_offers(trace: Trace, asked: Proof, claims: Iterable[str] = OF_A_SAMPLE) -> tuple[list[Offer], list[str]]:
    """The proofs of those claims that are true and fit a bundle, and of those that are true and do not, why."""
    found, left = [], []
    for claim in claims:
        try:
            found.append(offer(trace, asked, claim))
        except UntrueClaimError:
            continue
        except ValueError as reason:
            left.append(f"{claim}: {reason}")
    return found, left
