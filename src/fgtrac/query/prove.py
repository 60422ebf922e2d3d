"""Making bundles: what proves a claim about one sample, against the newest full seal's own signed note."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fgtrac.events.postings import decode_rows
from fgtrac.query.log import whole
from fgtrac.query.seals import FullSeal
from fgtrac.tlog.index import CONTENT, SAMPLE
from fgtrac.tlog.proof import TlogProof
from fgtrac.verify.bundle import ABSENCES, CLAIMS, CONTENT_CLAIMS, MAX_ENTRIES, Bundle, Shown, format_bundle
from fgtrac.verify.claims import USES, has_children, needs_datasets, needs_run_entry, sentence


@dataclass(frozen=True, slots=True)
class Proof:
    """Whom a proof is asked about: the id, what it is computed from and its opening where they are to be revealed."""

    id: bytes
    preimage: bytes | None = None
    opening: bytes | None = None
    is_content: bool = False


def prove(seal: FullSeal, asked: Proof, claim: str | None = None) -> bytes:
    """The bundle that proves a claim (default: the one that is true) about a sample or a content.

    The proof is against the head that the full seal signed, never a later one. ValueError where the claim is not true
    or not one of CLAIMS; ProofError where the index on disk is not the sealed one.
    """
    with whole("a proof"):
        type = CONTENT if asked.is_content else SAMPLE
        presence = seal.find(type, asked.id)
        value = None if presence is None else presence.value
        claim = claim or _true_claim(asked.is_content, value)
        _check_fits(claim, asked, value)
        bundle = Bundle(
            claim,
            "",
            asked.id,
            asked.preimage,
            asked.opening if presence is not None else None,
            value,
            None if presence is None else (presence.leaf.index, presence.leaf.path),
            seal.absence(type, asked.id) if presence is None else None,
            seal.entry,
            TlogProof(seal.head.size - 1, seal.log.path(seal.head.size - 1), seal.note),
            _context(seal) if needs_datasets(claim, asked.preimage) else (),
        )
        datasets = [e for e in (seal.log.event(s.number) for s in bundle.entries) if e["kind"] == "dataset"]
        return format_bundle(replace(bundle, words=sentence(bundle, seal.head, datasets)))


def _true_claim(is_content: bool, value: bytes | None) -> str:
    if is_content:
        return "content absent" if value is None else "content present"
    if value is None:
        return "never registered"
    if _is_used(value):
        return "used"
    return "history" if has_children(value) else "never used"


def _is_used(value: bytes) -> bool:
    return bool(np.isin(decode_rows(value)["kind"], USES).any())


def _check_fits(claim: str, asked: Proof, value: bytes | None) -> None:
    """ValueError unless the claim is one of its kind and true."""
    possible = [c for c in CLAIMS if (c in CONTENT_CLAIMS) == asked.is_content]
    if claim not in possible:
        raise ValueError(f"{claim!r:.60} is no claim about a {'content' if asked.is_content else 'sample'}: {possible}")
    if (claim in ABSENCES) != (value is None):
        there = "not there" if value is None else "there"
        raise ValueError(f"{claim!r} is not true of {asked.id.hex()}: it is {there} in the index")
    if value is not None and claim in ("used", "never used") and (claim == "used") != _is_used(value):
        raise ValueError(f"{claim!r} is not true of {asked.id.hex()}; prove {_true_claim(False, value)!r}")
    if value is not None and claim == "never used" and has_children(value):
        raise ValueError(f"{asked.id.hex()} was made into other samples: prove each of those, and this one's history")


def _context(seal: FullSeal) -> tuple[Shown, ...]:
    """What an absence needs: every `dataset` entry, and the `run` entry where ids are keyed."""
    counts = seal.event["counts"]
    numbers = seal.log.find_kind("dataset", counts.get("dataset", 0))
    if needs_run_entry([seal.log.event(n) for n in numbers]):
        numbers += seal.log.find_kind("run", counts.get("run", 0))
    if len(numbers) > MAX_ENTRIES:
        raise ValueError(f"the trace has {len(numbers)} data sets, more than a bundle shows; name the sample by id:HEX")
    return tuple(Shown(n, seal.log.entry(n), seal.log.path(n)) for n in sorted(numbers))
