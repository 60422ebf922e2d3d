"""Bundles made and examined in one line each, for tests; one true bundle of every claim."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fgtrac
from fgtrac.errors import FormatError
from fgtrac.events.identity import preimage, public_id
from fgtrac.events.schema import decode_event
from fgtrac.query.prove import Proof, Prover
from fgtrac.query.seals import FullSeal, open_full_seal
from fgtrac.query.timeline import Timeline
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.index import Tree
from fgtrac.tlog.note import Verifier
from fgtrac.verify.bundle import Bundle, head_of, parse_bundle
from fgtrac.verify.claims import About, check_bundle
from fgtrac.verify.report import Report, Verdict
from fgtrac.verify.sentences import sentence
from lives import live, live_with_contents
from signed import Event, put_files, write

CLAIMS = ["used", "history", "never used", "label never used", "never registered", "content present", "content absent"]
WITH_ENTRIES = ["used, with entries", "history, with entries"]


def opened(folder: Path, *events: Event | bytes, index: Callable[[Tree], Tree] = lambda tree: tree) -> FullSeal:
    """A trace of these entries on disk, whose signer commits to the changed index."""
    put_files(folder / "run.trace", write(*events, index=index))
    return open_full_seal(TraceDir.open(folder / "run.trace"))


def prove(
    seal: FullSeal, asked: Proof, claim: str | None = None, *, entries: bool = False, checkpoint: int | None = None
) -> bytes:
    return Prover(seal, Timeline(seal)).prove(asked, claim, entries=entries, checkpoint=checkpoint)


def row(number: int, dataset: str = "digits") -> Proof:
    """A sample under the public scheme."""
    named = preimage(dataset, number)
    return Proof(public_id(named), named)


def examine(data: bytes, verifier: Verifier | None, secret: bytes | None = None, about: About | None = None) -> Report:
    return check_bundle(parse_bundle(data), verifier, secret, about)


def holds(data: bytes, verifier: Verifier) -> bool:
    """Whether a stranger who is handed these bytes would believe them."""
    try:
        return examine(data, verifier).verdict is Verdict.HOLDS
    except FormatError:
        return False


def refuting(bundle: Bundle, verifier: Verifier) -> list[str]:
    """The checks that refute it, by name."""
    return [f.check for f in check_bundle(bundle, verifier).findings if f.verdict is Verdict.REFUTED]


def reworded(bundle: Bundle) -> Bundle:
    """The bundle with the words that its other fields give: a liar takes care of that."""
    shown = {e.number: decode_event(e.entry) for e in bundle.entries}
    return replace(bundle, words=sentence(bundle, head_of(bundle), shown))


def true_bundles(folder: Path) -> tuple[Verifier, dict[str, bytes]]:
    """One true bundle for each of CLAIMS and WITH_ENTRIES (about parents), and the key that the log is signed by."""
    life = live(folder / "life")
    photos = live_with_contents(folder / "photos")
    seal, of_contents = fgtrac.open(life.path)._seal, fgtrac.open(photos.trace.path)
    made = {
        "used": prove(seal, row(3), "used"),
        "history": prove(seal, row(1), "history"),
        "never used": prove(seal, row(4), "never used"),
        "label never used": prove(seal, row(6), "label never used"),
        "never registered": prove(seal, row(99), "never registered"),
    }
    made |= {
        f"{claim}, with entries": prove(seal, row(n), claim, entries=True) for claim, n in (("used", 0), ("history", 1))
    }
    for claim, source in (("content present", b"1"), ("content absent", b"3")):
        file = folder / f"photo {claim}"
        file.write_bytes(source)
        made[claim] = of_contents.prove(f"file:{file}", claim)
    return life.made.verifier, made
