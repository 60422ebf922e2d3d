"""Who was erased does not come back: refused before anything of it is written, or a new key made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fgtrac.events.codec import encode
from fgtrac.events.identity import subject_commitment
from fgtrac.verify.erasures import Erased


def scope_of(subject: Any) -> str:
    """The vault's scope of the secret behind a subject's samples; None, for nobody, is the run's."""
    return "run" if subject is None else f"subject:{encode(subject).hex()}"


def check_subjects(subjects: Iterable[Any]) -> None:
    """TypeError for a subject that is no text, whole number or None; ValueError for a number beyond 64 bits, and for a
    text that has no UTF-8."""
    for row, subject in enumerate(subjects):
        if subject is not None and type(subject) not in (int, str):
            raise TypeError(
                f"row {row} has the subject {subject!r:.60} of type {type(subject).__name__}; a subject is a text or a "
                "whole number: write it as a text"
            )
        if type(subject) is int or (type(subject) is str and not subject.isascii()):
            _check_subject(row, subject)


def _check_subject(row: int, subject: int | str) -> None:
    try:
        encode(subject)
    except ValueError as error:
        raise ValueError(f"row {row} has the subject {subject!r:.60}, which has no encoding: {error}") from error


@dataclass(frozen=True, slots=True)
class Returned:
    """What tells whether samples are an erased subject's: what the log says, and the vault's `find_secret`."""

    erased: Erased
    find_secret: Callable[[str], bytes | None]
    trace: str

    def check(self, names: Sequence[str], blocks: Sequence[bytes], subjects: Sequence[Any] | None) -> None:
        """ValueError for a subject whose erased key the vault has again, and where every one of `blocks`, which the log
        has under these names, holds erased samples: their ids cannot be made again."""
        if not self.erased.subjects:
            return
        for subject in dict.fromkeys(subjects or ()):
            secret = None if subject is None else self.find_secret(scope_of(subject))
            number = None if secret is None else self.erased.subjects.get(subject_commitment(secret))
            if number is not None:
                raise ValueError(
                    f"subject {subject!r:.80} was erased (entry {number}), and the vault has its key again, as one "
                    f"restored from a backup has: fgtrac erase {self.trace} --subject ... destroys it there too; do "
                    "that, and leave its samples out"
                )
        numbers = [self.erased.blocks.get(block) for block in blocks]
        if numbers and None not in numbers:
            raise ValueError(
                f"data set {names[0]!r:.80} holds samples of a subject that was erased (entry {numbers[0]}): their key "
                "was destroyed, so it cannot be registered again in this trace; register what is left of it under "
                "another name="
            )
