"""Finding the subject that somebody asks about: by the name that the vault has, or by the pseudonym of the log."""

from __future__ import annotations

from dataclasses import dataclass

from fgtrac.api.naming import Subject, by_pseudonym, find_scope, may_be_pseudonym, number_of, subject_of, typed
from fgtrac.events.identity import subject_commitment
from fgtrac.query.blocks import Blocks
from fgtrac.store.vault import Vault
from fgtrac.verify.checks import CannotTell

NOBODY = "nobody (samples that have no subject)"


class UnknownSubjectError(ValueError):
    """No sample of the trace belongs to that subject."""


@dataclass(frozen=True, slots=True)
class FoundSubject:
    """A subject's pseudonym, and what the vault calls it (None where no vault says so). Of one that was asked for by
    name, `without_key` counts the log's subjects whose keys are not in the vault: it may have been one of them, before
    an erasure."""

    pseudonym: bytes
    name: int | str | None
    without_key: int = 0


def find_subject(subject: Subject, vault: Vault | None, blocks: Blocks) -> FoundSubject:
    """The subject that is meant: what `register(subject=...)` was given, or the pseudonym in hex, of which the first 16
    digits do.

    UnknownSubjectError where the log has no such subject; CannotTell where it has some whose keys are not in the vault,
    and it may be one of them; ValueError for a name without a vault, and for typed digits that are two subjects.
    """
    there = blocks.pseudonyms()
    called = {} if vault is None else {subject_commitment(key): _called(scope) for scope, key in vault.secrets()}
    lost = [pseudonym.hex()[:16] for pseudonym in there if pseudonym not in called]
    scope = None if vault is None else find_scope(vault, subject)[0]
    secret = None if vault is None or scope is None else vault.find_secret(scope)
    if secret is not None and (pseudonym := subject_commitment(secret)) in there:
        return FoundSubject(pseudonym, called[pseudonym], len(lost))
    asked, begun = f"a subject {typed(subject)!r:.80}", by_pseudonym(subject, there)
    if begun is not None:
        return FoundSubject(begun, called.get(begun))
    nor = "; no pseudonym in the log begins so either" if may_be_pseudonym(subject) else ""  # and it may be a name
    if vault is None:
        raise ValueError(
            f"there is no vault beside this trace to look subject {typed(subject)!r:.80} up in; name its pseudonym, of "
            f"64 hex digits, or put the vault beside the trace{nor}"
        )
    if lost:
        has = "has no key of" if secret is None else "has a new key, of no sample, of"
        some = ", ".join(lost[:4]) + (", ..." if len(lost) > 4 else "")
        raise CannotTell(
            f"{vault.path.name} {has} {asked}, and none of {len(lost)} of the log's subjects either ({some}): these "
            f"were erased, or another vault has their keys. It may be one of them, or none; ask by the pseudonym "
            f"if you know it{nor}{number_of(vault, subject)}"
        )
    raise UnknownSubjectError(
        f"the log that is indexed registers no sample of {asked}: {vault.path.name} has the keys of all its "
        f"{len(there)} subjects, and none is of that name{nor}{number_of(vault, subject)}"
    )


def _called(scope: str) -> int | str:
    return subject_of(scope) if scope.startswith("subject:") else NOBODY
