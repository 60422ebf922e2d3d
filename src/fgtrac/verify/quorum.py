"""The check `witness` of a bundle: enough of the witnesses that the verifier names have cosigned the head in it."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from fgtrac.errors import ProofError
from fgtrac.tlog.cosignature import Cosigner, cosignature_time, count_distinct
from fgtrac.tlog.note import Verifier, parse_note, parse_tree_head
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.keys import is_signed_by
from fgtrac.verify.sightings import OwnTimes, Witnessed


@dataclass(frozen=True, slots=True)
class Quorum:
    """Witnesses whose word counts, and how many of them are asked for."""

    cosigners: tuple[Cosigner, ...]
    needed: int

    @classmethod
    def of(cls, cosigners: tuple[Cosigner, ...], needed: int | None = None) -> Quorum:
        """Of these witnesses so many, by default all; several keys of one name are one witness. ValueError for a number
        that they cannot reach, or below 1, and for one key under two names."""
        names = {c.public_key: c.name for c in cosigners}
        for cosigner in cosigners:
            if (other := names[cosigner.public_key]) != cosigner.name:
                raise ValueError(
                    f"{cosigner.name} and {other} are named with one key, and what it signs does not say under which "
                    "name; leave one of them out"
                )
        count = count_distinct(cosigners)
        if needed is None:
            needed = count
        if not 1 <= needed <= count:
            raise ValueError(
                f"a quorum of {needed} of {count} witnesses (keys of one name are one); it is from 1 to "
                f"{max(count, 1)}: name more of them with --witness-key, or ask for fewer"
            )
        return cls(cosigners, needed)

    def check_independent(self, log_keys: Collection[bytes]) -> None:
        """ProofError where one of the witnesses has a key of the log: it says what its owner wants."""
        for cosigner in self.cosigners:
            if cosigner.public_key in log_keys:
                raise ProofError(
                    f"{cosigner.name} (key id {cosigner.key_id.hex()}) is named as a witness, and its key is the log's "
                    "own: whoever signs the log makes such lines; name a witness that is somebody else"
                )

    def check(self, note: bytes, log_keys: Collection[bytes] = ()) -> str:
        """Why as many as are needed have cosigned a note, in words. CannotTell where fewer did; ProofError where the
        line of one does not fit, and where one's key is the log's (it is among `log_keys`, or signed the note);
        FormatError for what is no head."""
        head = parse_tree_head(parse_note(note).text)
        signers = [c.public_key for c in self.cosigners if _signs(note, Verifier(head.origin, c.public_key))]
        self.check_independent({*log_keys, *signers})
        times = {c: cosignature_time(note, c) for c in self.cosigners}
        signed = {c: time for c, time in times.items() if time is not None}
        count, named = count_distinct(tuple(signed)), count_distinct(self.cosigners)
        told = (
            f"the head of {head.size} entries is cosigned by {count} of {named} witnesses named (needed: {self.needed})"
        )
        if count < self.needed:
            missing = ", ".join(f"{c.name} (key id {c.key_id.hex()})" for c in times if c not in signed)
            raise CannotTell(
                f"{told}; without {missing:.300}: it was not shown to them, or their lines are gone. Ask for a bundle "
                "made after the head was anchored with them"
            )
        seen = [OwnTimes().judge(Witnessed(head.size, at, c.name), time.time()) for c, at in signed.items()]
        who = ", ".join(f"{one.by} at {one.told()}" for one in seen)
        return (
            f"{told}: {who}, by their own clocks. Each says that it saw the log grow to this head, and no other history"
        )


def _signs(note: bytes, verifier: Verifier) -> bool:
    with suppress(ProofError):
        return is_signed_by(parse_note(note), verifier)
    return False


def unread_lines(note: bytes) -> list[str]:
    """What to do about the lines of a head that are not by its log, where no witness is named."""
    parsed = parse_note(note)
    origin = parse_tree_head(parsed.text).origin
    others = sorted({line.name for line in parsed.signatures if line.name != origin})
    if not others:
        return []
    return [
        f"the head has signature lines of {', '.join(others):.200}, which nobody checked: where they are witnesses "
        "that you trust, name their keys with --witness-key"
    ]
