"""The demand `vault`: every registered id is the one that its name gives under the keys that the log commits to.

Without it an absence rests on the operator's word that no sample was registered under some other key. It takes the
vault, so it is for an auditor whom the operator lets see the names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.api.audit import VAULT, Demand
from fgtrac.api.naming import secret_scopes, words_of
from fgtrac.errors import FormatError, ProofError, TamperError
from fgtrac.events.codec import decode, encode
from fgtrac.events.identity import key_commitment, make_ids, preimage, subject_commitment
from fgtrac.events.schema import NUMBERS, decode_event
from fgtrac.store.row_columns import RowColumn
from fgtrac.store.vault import Name, Vault
from fgtrac.verify.auditor import Audit
from fgtrac.verify.checks import CannotTell, TraceFiles

Progress = Callable[[int, int], None]
Row = tuple[bytes, str, bytes, str | None]  # of the vault's names: id, data set, CBOR key, subject
_NAMING = tuple(encode("kind") + encode(kind) for kind in ("dataset", "samples"))  # in the bytes of all such entries
_ID = "S32"  # compared and sorted as 32 bytes: what numpy strips at the end of one, it strips of all


def vault_demand(path: Path, trace_id: bytes, progress: Progress | None = None) -> Demand:
    """The check that a vault's names and secrets give every id that the log registers.

    FileNotFoundError, FormatError for what is no vault, ValueError for another trace's.
    """
    try:
        vault = Vault.open(path, trace_id)
    except TamperError as error:
        raise ValueError(f"{error}; name this trace's own vault") from error

    def examine(_trace: TraceFiles, audit: Audit) -> str:
        try:
            for pseudonym, _artifacts in vault.unfinished():
                who = pseudonym.hex()
                audit.checks.notes.append(
                    f"an erasure was interrupted: the key of subject {who[:16]} is destroyed, the rest may not be "
                    f"done; run fgtrac erase again, with --subject {who}, which finishes it"
                )
            return _check(vault, audit, progress)
        except FormatError as error:  # the vault's: the log's entries are known to be well formed
            raise CannotTell(f"{error}; restore {vault.path.name} from a copy") from error
        finally:
            vault.close()

    return Demand(VAULT, examine, ("entries", "run", "registered"))


@dataclass(frozen=True, slots=True)
class _Registered:
    """What the log registers, by id: ids (n,) S32 ascending; for each its entry, its data set as an index into
    `datasets`, and its pseudonym as one into `pseudonyms`, the first of which is empty: it has none. `schemes` is by
    data set; the keys of `numbered` data sets are numbers, as their entries say. `blocks` are the entries that register
    each block."""

    ids: NDArray[np.bytes_]
    entries: NDArray[np.int64]
    which: NDArray[np.int64]
    whose: NDArray[np.uint32]
    pseudonyms: tuple[bytes, ...]
    datasets: tuple[str, ...]
    schemes: dict[str, str]
    numbered: frozenset[str]
    blocks: dict[bytes, list[int]]


def _check(vault: Vault, audit: Audit, progress: Progress | None) -> str:
    assert audit.log is not None
    registered = _read(audit.log.entries())
    secrets = _Secrets(vault, audit.facts.runs[0][1], audit.facts.erasures.subjects)
    total, done = len(registered.ids), 0
    shown = np.zeros(total, bool)
    for rows in vault.name_rows():
        _check_names(rows, registered, secrets, shown)
        done += len(rows)
        if progress is not None:
            progress(min(done, total), total)
    for column in vault.row_columns():
        for checked in _check_column(column, registered, shown):
            done += checked
            if progress is not None:
                progress(min(done, total), total)
    if not shown.all():
        raise CannotTell(_unnamed(vault, registered, shown, audit.facts.erasures.subjects))
    subjects = len(registered.pseudonyms) - 1
    keys = f", or of its {subjects} subjects' keys, which the pseudonyms commit to" if subjects else ""
    under = f" under the key that entry 0 commits to{keys}" if secrets.commitment is not None else ""
    public = [name for name in registered.datasets if registered.schemes[name] == "public"]
    under += f" ({len(public)} data sets have public ids, {public[0]!r:.80} first)" if under and public else ""
    return (
        f"all {total} registered ids are those of the names in {vault.path.name}{under}: absences rest on this, and no "
        "longer on the operator's word. Content digests are not computed again; that takes the sources"
    )


def _read(entries: Iterable[tuple[int, bytes]]) -> _Registered:
    ids, whose, places, schemes, numbered, pseudonyms = [], [], [], dict[str, str](), set[str](), {b"": 0}
    blocks = defaultdict[bytes, list[int]](list)
    for number, entry in entries:
        if not any(mark in entry for mark in _NAMING):
            continue
        event = decode_event(entry)
        if event["kind"] == "dataset":
            name, scheme = event["name"], event["id_scheme"]
            numbered |= {name} if event.get("keys") in NUMBERS else set()
            if schemes.setdefault(name, scheme) != scheme:
                raise ProofError(
                    f"entry {number} gives {name!r:.80} {scheme} ids, an entry before it {schemes[name]} ones"
                )
        elif event["kind"] == "samples":
            mine = np.frombuffer(event["ids"], _ID)
            ids.append(mine)
            some, which = np.unique(np.frombuffer(event.get("subjects", b""), _ID), return_inverse=True)
            codes = [pseudonyms.setdefault(bytes(one).ljust(32, b"\0"), len(pseudonyms)) for one in some]
            whose.append(np.array(codes, np.uint32)[which] if codes else np.zeros(len(mine), np.uint32))
            places.append((event["dataset"], number, len(mine)))
            blocks[event["block"]].append(number)
    datasets = tuple(dict.fromkeys(name for name, _, _ in places))
    for unsaid in [name for name in datasets if name not in schemes][:1]:
        raise ProofError(f"samples of {unsaid!r:.80} are registered, and no entry says how its ids are made")
    index = {name: n for n, name in enumerate(datasets)}
    counts = [count for _, _, count in places]
    joined = np.concatenate(ids) if ids else np.empty(0, _ID)
    order = np.argsort(joined, kind="stable")
    columns = (
        np.repeat(np.array([number for _, number, _ in places], np.int64), counts)[order],
        np.repeat(np.array([index[name] for name, _, _ in places], np.int64), counts)[order],
        (np.concatenate(whose) if ids else np.empty(0, np.uint32))[order],
        tuple(pseudonyms),
    )
    return _once(_Registered(joined[order], *columns, datasets, schemes, frozenset(numbered), blocks))


def _once(found: _Registered) -> _Registered:
    """Each id once: a resumed run registers its samples again. ProofError where it then says something else of one."""
    again = np.zeros(len(found.ids), bool)
    again[1:] = found.ids[1:] == found.ids[:-1]
    differs = (found.which[1:] != found.which[:-1]) | (found.whose[1:] != found.whose[:-1])
    for place in np.flatnonzero(again[1:] & differs)[:1].tolist():
        raise ProofError(
            f"entries {found.entries[place]} and {found.entries[place + 1]} register the id "
            f"{_hex(found.ids[place])} in two data sets, or for two subjects"
        )
    columns: tuple[NDArray[Any], ...] = (found.ids, found.entries, found.which, found.whose)
    ids, entries, which, whose = (column[~again] for column in columns)
    return replace(found, ids=ids, entries=entries, which=which, whose=whose)


class _Secrets:
    """The vault's secrets, once they are known to be the ones that the log commits to."""

    def __init__(self, vault: Vault, run: Mapping[str, Any], erased: Mapping[bytes, int]) -> None:
        """ProofError where the run's key is another than the `run` entry's commitment says, or where the key of an
        erased subject (pseudonym -> entry) is still there."""
        self.commitment: bytes | None = run.get("key_commitment")
        self._run = vault.find_secret("run")
        if self.commitment is not None and self._run is not None and key_commitment(self._run) != self.commitment:
            raise ProofError(
                f"{vault.path.name} holds an id key with the commitment {key_commitment(self._run).hex()}; entry 0 "
                f"(run) commits to {self.commitment.hex()}"
            )
        subjects = [(scope, secret) for scope, secret in vault.secrets() if scope.startswith("subject:")]
        if self._run is not None:
            subjects.append(("run", self._run))  # names the samples of a data set with subjects that have none
        self._subjects = {subject_commitment(secret): (scope, secret) for scope, secret in subjects}
        self._erased = erased
        for pseudonym in self._subjects.keys() & erased.keys():
            raise ProofError(
                f"{vault.path.name} still holds the key of subject {pseudonym.hex()[:16]}, which entry "
                f"{erased[pseudonym]} (erasure) says was destroyed; erase it again with fgtrac erase"
            )

    def find(self, scheme: str, row: Row, pseudonym: bytes) -> bytes | None:
        """The secret that gives a sample's id; None where the vault has it no longer. ProofError where the pseudonym is
        that of another subject."""
        if scheme != "subject":
            return b"" if scheme == "public" else self._run
        pseudonym = pseudonym.ljust(32, b"\0")
        if pseudonym in self._erased:
            raise ProofError(
                f"the vault still names the sample {row[0].hex()} of subject {pseudonym.hex()[:16]}, which entry "
                f"{self._erased[pseudonym]} (erasure) says was erased"
            )
        scope, secret = self._subjects.get(pseudonym, ("", None))
        if secret is not None and scope not in secret_scopes(Name(*row)):
            raise ProofError(
                f"the id {row[0].hex()} is registered under the pseudonym {pseudonym.hex()}, which is not that of its "
                f"subject {row[3]!r:.60}"
            )
        return secret


def _check_names(rows: Sequence[Row], found: _Registered, secrets: _Secrets, shown: NDArray[np.bool_]) -> None:
    """Compute the ids of some of the vault's names again and mark them as shown. ProofError where one is another."""
    if not all(map(_is_name, rows)):
        raise FormatError(
            "the vault holds a name that is none: an id of 32 bytes, a text, a key as bytes, a text or none"
        )
    ids = np.frombuffer(b"".join([row[0] for row in rows]), _ID)
    places = np.minimum(np.searchsorted(found.ids, ids), len(found.ids) - 1) if len(found.ids) else np.zeros(0, int)
    known = np.flatnonzero(found.ids[places] == ids) if len(found.ids) else places  # others were never registered
    places = places[known]
    columns = (known, places, found.which[places], found.whose[places])
    groups: dict[tuple[str, bytes], list[tuple[int, Row]]] = defaultdict(list)
    for number, place, which, whose in zip(*(column.tolist() for column in columns), strict=True):
        row, dataset = rows[number], found.datasets[which]
        if row[1] != dataset:
            raise ProofError(f"{_where(row, found, place)} in the data set {dataset!r:.80}")
        if dataset in found.numbered and (not row[2] or row[2][0] >> 5):  # RFC 8949: the major type of a number is 0
            raise ProofError(f"{_where(row, found, place)}, and the keys of {dataset!r:.80} are said to be numbers")
        scheme = found.schemes[dataset]
        secret = secrets.find(scheme, row, found.pseudonyms[whose])
        if secret is not None:
            groups[scheme, secret].append((place, row))
    for (scheme, secret), group in groups.items():
        _check_group(scheme, secret, group, found)
        shown[[place for place, _ in group]] = True


def _check_column(column: RowColumn, found: _Registered, shown: NDArray[np.bool_]) -> Iterator[int]:
    """Compute the ids of a block of row numbers again, and mark them as shown; how many, page by page. ProofError where
    the one at some ordinal is another, FormatError where there are fewer than the log registers."""
    places = np.flatnonzero(np.isin(found.entries, found.blocks.get(column.block, [])))
    said = f"{column.samples} rows of {column.dataset!r:.80} under {column.scheme} ids"
    for which in np.unique(found.which[places]).tolist():
        dataset, scheme = found.datasets[which], found.schemes[found.datasets[which]]
        if (dataset, scheme) != (column.dataset, column.scheme):
            raise ProofError(
                f"the vault says that block {column.block.hex()} is {said}; the log registers {len(places)} samples of "
                f"{dataset!r:.80} there, under {scheme} ids"
            )
    if len(places) > column.samples:
        raise FormatError(
            f"{column.vault} is a damaged vault: block {column.block.hex()} is {said}, and the log registers "
            f"{len(places)} samples there"
        )
    if len(places) < column.samples:  # never registered, or cut short: what there is stays without a name
        return
    done = 0
    for rows, ids in column.each_page():
        here, made = places[done : done + len(rows)], np.frombuffer(ids, _ID)
        for wrong in np.flatnonzero(found.ids[here] != made)[:1].tolist():
            registered, key = _hex(found.ids[here[wrong]]), encode(int(rows[wrong]))
            row = bytes.fromhex(registered), column.dataset, key, None
            raise _another_id(row, found, here[wrong], _hex(made[wrong]))
        shown[here] = True
        done += len(rows)
        yield len(rows)


def _check_group(scheme: str, secret: bytes, group: Sequence[tuple[int, Row]], found: _Registered) -> None:
    """ProofError, naming the first, unless the names of one secret give their ids."""
    fronts = {dataset: preimage(dataset, 0)[:-1] for dataset in {row[1] for _, row in group}}  # the key comes last
    made = make_ids(scheme, secret, [fronts[row[1]] + row[2] for _, row in group])
    if made == b"".join([row[0] for _, row in group]):
        return
    for n, (place, row) in enumerate(group):
        other = made[32 * n : 32 * n + 32]
        if other != row[0]:
            raise _another_id(row, found, place, other.hex())


def _another_id(row: Row, found: _Registered, place: int, other: str) -> ProofError:
    return ProofError(
        f"{_where(row, found, place)} as {row[0].hex()}, and the committed key gives {other}: an absence of it would "
        "be false"
    )


def _where(row: Row, found: _Registered, place: int) -> str:
    return f"entry {found.entries[place]} registers {_called(row)}"


def _called(row: Row) -> str:
    try:
        return f"the sample {words_of(row[1], decode(row[2])):.120}"
    except FormatError:
        return f"a sample whose key is not well formed, {row[2].hex():.80},"


def _is_name(row: Row) -> bool:
    sample, dataset, key, subject = row
    return (
        type(sample) is bytes
        and len(sample) == 32
        and type(dataset) is str
        and type(key) is bytes
        and (subject is None or type(subject) is str)
    )


def _unnamed(vault: Vault, found: _Registered, shown: NDArray[np.bool_], erased: Mapping[bytes, int]) -> str:
    """How many ids the vault cannot give, and why that leaves absences open."""
    is_erased = np.isin(found.whose, [code for code, one in enumerate(found.pseudonyms) if one in erased])
    of_erased, rest = int((~shown & is_erased).sum()), found.ids[~shown & ~is_erased]
    parts = [f"{of_erased} are of erased subjects"] if of_erased else []
    if len(rest):
        parts.append(f"{len(rest)} have no name or no secret in {vault.path.name}, the first is {_hex(rest[0])}")
    return (
        f"{int(shown.sum())} of {len(shown)} registered ids are those of their names; {' and '.join(parts)}: what they "
        "were made of cannot be told, so an absence still rests on the operator's word"
    )


def _hex(padded: bytes) -> str:
    return bytes(padded).ljust(32, b"\0").hex()
