"""Finding the sample that a person names (`events.sample_names` has the grammar), and what an opening of it takes.

Beside samples, contents have names:

file:PATH           whatever samples hold these very bytes
row:FILE.npy:17     the same of row 17 of an array
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fgtrac.api import contents
from fgtrac.events.codec import decode, encode
from fgtrac.events.identity import (
    content_preimage,
    key_of_plain,
    keyed_id,
    open_key,
    preimage,
    public_id,
    subject_commitment,
)
from fgtrac.events.sample_names import CONTENTS, SampleName, parse_sample_name
from fgtrac.events.sample_names import FORMS as SAMPLE_FORMS
from fgtrac.store.vault import Name, Vault
from fgtrac.verify.claims import About
from fgtrac.verify.sentences import as_json

_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,19}")  # as Python writes one
_PSEUDONYM = re.compile(r"[0-9a-fA-F]{16,64}")
FORMS = "id:HEX, key:JSON, NAME:key:JSON, NAME:ROW, file:PATH or row:FILE.npy:INDEX"


class UnknownSampleError(ValueError):
    """The name is well formed, but no sample of the trace has it."""


@dataclass(frozen=True, slots=True)
class TypedSubject:
    """A subject as somebody types it on a command line: digits may be a text or a number, which Python tells apart."""

    words: str


Subject = int | str | TypedSubject


@dataclass(frozen=True, slots=True)
class Named:
    """A sample (or with `is_content` a content) that somebody names: its id, and where they are known the name's
    preimage and the opening k_i of a keyed id."""

    id: bytes
    words: str
    preimage: bytes | None = None
    opening: bytes | None = None
    is_content: bool = False


class Namer:
    """Names samples of one trace, through its vault where that is there, and through public ids without it.

    `schemes` is data set name -> id scheme, `keys` data set name -> what its keys are, where its entry says so.
    """

    def __init__(
        self, schemes: Mapping[str, str], vault: Vault | None, keys: Mapping[str, str | None] | None = None
    ) -> None:
        self._schemes = schemes
        self._vault = vault
        self._keys = keys or {}

    def find(self, text: str) -> Named:
        """The sample of that name, registered or not. ValueError, with the reason, for a name that says nothing, and
        for a content's: whose it is, only its digest tells."""
        if text.startswith(CONTENTS):
            raise ValueError(
                f"{text:.80} names a content, and not a sample; fgtrac prove TRACE {text:.80} tells whether any sample "
                f"holds it, and samples are named by {SAMPLE_FORMS}"
            )
        return self.find_all(text)[0]

    def find_all(self, text: str) -> list[Named]:
        """What a name can mean: one sample, or of a content its digest under each id scheme of the trace."""
        if text.startswith(CONTENTS):
            return self._by_content(text)
        name = _parse(text)
        if name.id is not None:
            known = self.known(name.id)
            return [Named(name.id, f"id:{name.id.hex()}") if known is None else self._known(known)]
        if name.dataset is None:
            return [self._by_key(text, name.key)]
        if name.by_number and self._keys.get(name.dataset) == "names":
            raise ValueError(
                f"{text:.80} names no row: the samples of {name.dataset!r:.60} are named by the keys that were given, "
                f"which are not numbers alone; write {name.dataset:.60}:key:JSON or id:HEX"
            )
        return [self._in_dataset(name.dataset, name.key)]

    def remark(self, text: str) -> str:
        """What the name may be mistaken for, in words; empty where it may not."""
        name = SampleName() if text.startswith(CONTENTS) else _parse(text)
        if not name.by_number or self._keys.get(name.dataset or "") != "numbers":
            return ""
        return f"the keys of {name.dataset!r:.60} were given: {text:.80} is the sample with key {name.key}, not its row"

    def name_of(self, sample_id: bytes) -> str | None:
        """What the vault calls a sample, or None."""
        known = self.known(sample_id)
        return None if known is None else words_of(known.dataset, key_of(known.key))

    def known(self, sample_id: bytes) -> Name | None:
        """What the vault knows of a sample, if anything."""
        return self._vault.find_by_id(sample_id) if self._vault is not None else None

    def names(self) -> dict[bytes, tuple[str, bytes]]:
        """id -> (data set, key as CBOR) of every sample that the vault knows."""
        return {} if self._vault is None else {name.id: (name.dataset, name.key) for name in self._vault.names()}

    def _by_key(self, text: str, key: Any) -> Named:
        encoded = encode(key)
        if self._vault is None:
            if len(self._schemes) == 1:
                return self._in_dataset(next(iter(self._schemes)), key)
            raise ValueError(f"{text:.80}: there is no vault beside this trace to look keys up in; name it by id:HEX")
        found = self._vault.find_by_key(encoded)
        if not found and len(self._schemes) == 1:
            return self._in_dataset(next(iter(self._schemes)), key)
        if not found:
            vault = self._vault.path.name
            raise ValueError(f"{text:.80} is no key of any sample in {vault}: never registered, or erased")
        if len(found) > 1:
            named = ", ".join(f"id:{n.id.hex()} in {n.dataset!r}" for n in found[:4])
            raise ValueError(f"{text:.80} names {len(found)} samples: {named}; name one by its id")
        return self._known(found[0])

    def _in_dataset(self, dataset: str, key: Any) -> Named:
        """The sample of a key in a data set: of the vault's making, or as its id would be."""
        scheme = self._schemes.get(dataset)
        if scheme is None:
            there = ", ".join(map(repr, self._schemes)) or "none"
            raise ValueError(f"this trace has no data set {dataset!r:.60}; it has {there:.200}")
        words, named = words_of(dataset, key), preimage(dataset, key)
        secret = self._vault.find_secret("run") if self._vault is not None and scheme == "keyed" else None
        derived = public_id(named) if scheme == "public" else None if secret is None else keyed_id(secret, named)
        if self._vault is not None:
            known = self.known(derived) if derived is not None else None  # the vault is sorted by id
            if known is not None and (known.dataset, known.key) == (dataset, encode(key)):
                return self._known(known)
            found = self._vault.find_by_key(encode(key), dataset)
            if found:
                return self._known(found[0])
        if scheme == "public":
            return Named(public_id(named), words, named)
        if secret is None and scheme == "subject" and self._vault is not None:
            raise UnknownSampleError(
                f"{words} is not known to {self._vault.path.name}: it was never registered, or it was erased; "
                "what the log still has of it is named by id:HEX"
            )
        if secret is None and self._vault is not None:
            raise ValueError(
                f"{words}: {self._vault.path.name} knows no such sample, and has not the run's id key either, which "
                "would tell its id: that was destroyed, or this is another trace's vault"
            )
        if secret is None:
            raise ValueError(
                f"{words}: the ids of {dataset!r} are {scheme} and their key is not at hand; put the vault beside "
                "the trace (a sample that is registered can be named by id:HEX)"
            )
        return Named(keyed_id(secret, named), words, named, open_key(secret, named))

    def _known(self, name: Name) -> Named:
        """A sample that the vault knows, with its opening where that gives this very id."""
        key = key_of(name.key)
        words, named = words_of(name.dataset, key), preimage(name.dataset, key)
        if public_id(named) == name.id:
            return Named(name.id, words, named)
        for scope in secret_scopes(name):
            secret = self._vault.find_secret(scope) if self._vault is not None else None
            if secret is not None and keyed_id(secret, named) == name.id:
                return Named(name.id, words, named, open_key(secret, named))
        return Named(name.id, words)  # its key was destroyed, or belongs to another vault: it stays unopened

    def _by_content(self, text: str) -> list[Named]:
        """The content digests of a source: under the public scheme, the run's key and each subject's, as there are."""
        words, _source, digest = contents.source_digest(text)
        named, schemes = content_preimage(digest), set(self._schemes.values())
        found = [Named(public_id(named), words, named, is_content=True)] if "public" in schemes else []
        for scope, secret in self._vault.secrets() if self._vault is not None else ():
            if "subject" in schemes or (scope == "run" and "keyed" in schemes):
                found.append(Named(keyed_id(secret, named), words, named, open_key(secret, named), is_content=True))
        if not found:
            there = "/".join(sorted(schemes)) or "of no data set"
            where = "at hand; put the vault beside the trace" if self._vault is None else f"in {self._vault.path.name}"
            raise ValueError(f"{words}: content digests here are {there}; their key is not {where}")
        return found


def about(text: str) -> About:
    """Whom a verifier asks about who has no trace and no vault. ValueError for a name that says too little."""
    if text.startswith(CONTENTS):
        words, source, digest = contents.source_digest(text)
        return About(words, preimage=content_preimage(digest), source=source.partition(" ")[0])
    name = _parse(text)
    if name.id is not None:
        return About(text, id=name.id)
    if name.dataset is None:
        raise ValueError(f"{text:.80} does not say in which data set; write NAME:{text:.80}")
    return About(text, preimage=preimage(name.dataset, name.key))


def _parse(text: str) -> SampleName:
    try:
        return parse_sample_name(text)
    except ValueError as reason:
        raise ValueError(f"{text!r:.80} names no sample: {reason}; write {FORMS}") from reason


def words_of(dataset: str, key: Any) -> str:
    """A sample's name as `find` takes it, for people to read."""
    return f"{dataset}:{key}" if type(key) is int else f"{dataset}:key:{as_json(key)}"


def key_text(key: Any) -> str:
    """The key as its user writes it: text as it is, a number in digits, the rest in JSON as `key:` takes it."""
    return key if isinstance(key, str) else as_json(key)


def key_of(encoded: bytes) -> Any:
    """The key that the vault holds as CBOR: lists come back as the tuples they were."""
    return key_of_plain(decode(encoded))


def secret_scopes(name: Name) -> list[str]:
    """The vault's scopes under which a sample's secret may lie: its subject was text, or a number."""
    return ["run"] if name.subject is None else subject_scopes(name.subject)


def subject_scopes(written: int | str) -> list[str]:
    """The vault's scopes of a subject: of a text that of the text, and of the number where it is one."""
    subjects: list[str | int] = [written]
    if isinstance(written, str) and _NUMBER.fullmatch(written) and -(1 << 63) <= int(written) < 1 << 64:
        subjects.append(int(written))
    return [subject_scope(s) for s in subjects]


def subject_scope(subject: int | str) -> str:
    """The vault's scope of a subject's key."""
    return f"subject:{encode(subject).hex()}"


def subject_of(scope: str) -> int | str:
    """The subject whose key's scope that is."""
    subject: int | str = key_of(bytes.fromhex(scope.removeprefix("subject:")))
    return subject


def find_scope(vault: Vault, subject: Subject) -> tuple[str | None, list[str]]:
    """The scope of the key of the subject that is meant, None where the vault has none; and the scopes of whom else
    the words may mean, who has no key. ValueError where typed digits are two subjects, a text and a number."""
    scopes = subject_scopes(subject.words) if isinstance(subject, TypedSubject) else [subject_scope(subject)]
    keys = {scope: key for scope in scopes if (key := vault.find_secret(scope)) is not None}
    if len(keys) > 1:
        both = " and ".join(
            f"{subject_words(scope)}, pseudonym {subject_commitment(key).hex()}" for scope, key in keys.items()
        )
        raise ValueError(f"there are two such subjects: {both}; name the one you mean by its pseudonym")
    return next(iter(keys), None), [scope for scope in scopes if scope not in keys]


def subject_words(scope: str) -> str:
    """Whose key's scope that is, in words that tell a text from a number."""
    subject = subject_of(scope)
    return f"the text {subject!r:.80}" if isinstance(subject, str) else f"the number {subject}"


def number_of(vault: Vault, subject: Subject) -> str:
    """A remark where a text was asked for, and only the number that it writes has a key; else empty."""
    text, *numbers = subject_scopes(subject) if isinstance(subject, str) else [""]
    if not numbers or vault.find_secret(text) or not vault.find_secret(numbers[0]):
        return ""
    return f"; {subject_words(numbers[0])} has a key: name it as a number, not as a text"


def typed(subject: Subject) -> int | str:
    """The subject as it was asked for."""
    return subject.words if isinstance(subject, TypedSubject) else subject


def by_pseudonym(subject: Subject, there: Iterable[bytes]) -> bytes | None:
    """The one of these pseudonyms whose hex digits were asked for, all 64 or the first 16 and more; None where none
    begins so. ValueError where several do."""
    words = typed(subject)
    if not isinstance(words, str) or not may_be_pseudonym(words):
        return None
    begun = [pseudonym for pseudonym in there if pseudonym.hex().startswith(words.lower())]
    if len(begun) > 1:
        raise ValueError(f"{words} begins {len(begun)} pseudonyms; write more of its 64 digits")
    return next(iter(begun), None)


def may_be_pseudonym(subject: Subject) -> bool:
    """Whether the words look like a pseudonym, which may be a name too."""
    words = typed(subject)
    return isinstance(words, str) and _PSEUDONYM.fullmatch(words) is not None
