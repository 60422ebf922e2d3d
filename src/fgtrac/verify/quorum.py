"""The check `witness` of a bundle: enough of the witnesses that the verifier names have cosigned the head in it."""

from __future__ import annotations

from dataclasses import dataclass

from fgtrac.tlog.cosignature import Cosigner, cosignature_time, count_distinct
from fgtrac.tlog.note import parse_note, parse_tree_head
from fgtrac.verify.anchors import utc
from fgtrac.verify.checks import CannotTell


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

    def check(self, note: bytes) -> str:
        """Why as many as are needed have cosigned a note, in words. CannotTell where fewer did; ProofError where the
        line of one does not fit; FormatError for what is no head."""
        times = {c: cosignature_time(note, c) for c in self.cosigners}
        signed = {c: time for c, time in times.items() if time is not None}
        count, named = count_distinct(tuple(signed)), count_distinct(self.cosigners)
        size = parse_tree_head(parse_note(note).text).size
        told = f"the head of {size} entries is cosigned by {count} of {named} witnesses named (needed: {self.needed})"
        if count < self.needed:
            missing = ", ".join(f"{c.name} (key id {c.key_id.hex()})" for c in times if c not in signed)
            raise CannotTell(
                f"{told}; without {missing:.300}: it was not shown to them, or their lines are gone. Ask for a bundle "
                "made after the head was anchored with them"
            )
        who = ", ".join(f"{c.name} at {utc(time)}" for c, time in signed.items())
        return (
            f"{told}: {who}, by their own clocks. Each says that it saw the log grow to this head, and no other history"
        )
