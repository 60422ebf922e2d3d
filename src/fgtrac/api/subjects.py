"""Finding the subject that somebody asks about: by the name that the vault has, or by the pseudonym of the log."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fgtrac.api.naming import key_of, subject_scopes
from fgtrac.events.identity import subject_commitment
from fgtrac.query.blocks import Blocks
from fgtrac.store.vault import Vault
from fgtrac.verify.checks import CannotTell

_PSEUDONYM = re.compile(r"[0-9a-fA-F]{16,64}")
NOBODY = "nobody (samples that have no subject)"


class UnknownSubjectError(ValueError):
    """No sample of the trace belongs to that subject."""


@dataclass(frozen=True, slots=True)
class FoundSubject:
    """A subject's pseudonym, and what the vault calls it (None where no vault says so). Of one that was asked for by
    name, `without_key` counts the log's subjects whose keys are not in the vault: it may have been one of them, before
    an erasure."""

    pseudonym: bytes
    name: str | None
    without_key: int = 0


def find_subject(subject: int | str, vault: Vault | None, blocks: Blocks) -> FoundSubject:
    """The subject that is meant: what `register(subject=...)` was given (a text of digits names the number where no
    subject has it as text), or the pseudonym in hex, of which the first 16 digits do.

    UnknownSubjectError where the log has no such subject; CannotTell where it has some whose keys are not in the vault,
    and it may be one of them; ValueError for a name without a vault.
    """
    there = blocks.pseudonyms()
    called = {} if vault is None else {subject_commitment(key): _words(scope) for scope, key in vault.secrets()}
    lost = [pseudonym.hex()[:16] for pseudonym in there if pseudonym not in called]
    for scope in subject_scopes(subject):
        secret = None if vault is None else vault.find_secret(scope)
        if secret is not None:
            return FoundSubject(subject_commitment(secret), str(subject), len(lost))
    nor = ""
    if isinstance(subject, str) and _PSEUDONYM.fullmatch(subject):
        begun = [pseudonym for pseudonym in there if pseudonym.hex().startswith(subject.lower())]
        if len(begun) > 1:
            raise ValueError(f"{subject} begins {len(begun)} pseudonyms; write more of its 64 digits")
        if begun:
            return FoundSubject(begun[0], called.get(begun[0]))
        nor = "; no pseudonym in the log begins so either"  # and yet it may be a name, which has to be answered as one
    if vault is None:
        raise ValueError(
            f"there is no vault beside this trace to look subject {subject!r:.80} up in; name its pseudonym, of 64 hex "
            f"digits, or put the vault beside the trace{nor}"
        )
    if lost:
        some = ", ".join(lost[:4]) + (", ..." if len(lost) > 4 else "")
        raise CannotTell(
            f"{vault.path.name} has no key of a subject {subject!r:.80}, and none of {len(lost)} of the log's subjects "
            f"either ({some}): these were erased, or another vault has their keys. It may be one of them, or none; ask "
            f"by the pseudonym if you know it{nor}"
        )
    raise UnknownSubjectError(
        f"the log that is indexed registers no sample of a subject {subject!r:.80}: {vault.path.name} has the keys of "
        f"all its {len(there)} subjects, and none is of that name{nor}"
    )


def _words(scope: str) -> str:
    encoded = scope.removeprefix("subject:")
    return NOBODY if encoded == scope else str(key_of(bytes.fromhex(encoded)))
