"""Which samples of a log an opt-out means: by name under each id scheme, by content, or by subject."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from fgtrac.events.codec import encode
from fgtrac.events.identity import content_preimages, make_ids, preimage, public_id
from fgtrac.events.schema import NUMBERS
from fgtrac.verify.policy_file import OptOut
from fgtrac.verify.roster import Mask, Places, Roster, find_rows
from fgtrac.verify.sample_lists import Keys, Lines, parse_samples

Pieces = Iterable[bytes]
PSEUDONYM_DIGITS = 64


@dataclass(frozen=True, slots=True)
class AtHand:
    """What the verifier has beside the log. `id_key` is the run's committed K; `names` gives what a vault calls the
    samples, as (id, data set, key in CBOR); `pseudonym` finds a subject by its name, and `nobody` is the one of samples
    that were given none beside others that were; `read` gives a list's bytes, and `digests` the SHA-256 of files, from
    a list or a folder, by the path that the policy file has."""

    id_key: bytes | None = None
    names: Callable[[], Iterable[tuple[bytes, str, bytes]]] | None = None
    pseudonym: Callable[[str], bytes | None] = lambda _name: None
    nobody: bytes | None = None
    read: Callable[[str], Pieces] = lambda _path: ()
    digests: Callable[[str], Iterable[list[bytes]]] = lambda _path: ()


@dataclass(frozen=True, slots=True, eq=False)
class Doubt:
    """Samples (n,) of which it cannot be told whether they are meant, and why: said of one that was used."""

    samples: Mask
    why: str


@dataclass(frozen=True, slots=True)
class Meant:
    """The samples (n,) that an opt-out means, `what` it names in words, and those that it may mean as well."""

    samples: Mask
    what: str
    doubts: tuple[Doubt, ...]


def resolve(opt_out: OptOut, roster: Roster, at_hand: AtHand) -> Meant:
    """The samples that an opt-out means, without what was made from them. FormatError for a list that is none,
    ValueError for a data set or a subject that the log does not have."""
    if opt_out.samples is not None:
        return _Names(roster, at_hand, opt_out).meant(at_hand.read(opt_out.samples))
    if opt_out.contents is not None:
        return _by_content(roster, at_hand, opt_out, at_hand.digests(opt_out.contents))
    return _by_subject(roster, at_hand, opt_out)


# -- by subject -----------------------------------------------------------------------------------------------------


def _by_subject(roster: Roster, at_hand: AtHand, opt_out: OptOut) -> Meant:
    known = {name: _pseudonym(name, at_hand) for name in opt_out.subjects}
    places, values = roster.column("subjects")
    there = set(np.unique(values).tolist())
    lost = [name for name, pseudonym in known.items() if pseudonym is None]
    strange = [name for name, pseudonym in known.items() if pseudonym is not None and pseudonym not in there]
    is_nobody = values == np.frombuffer(at_hand.nobody or bytes(32), "V32")[0]
    has_subject = roster.mask(places[~is_nobody])
    doubts = [Doubt(undecided(roster, has_subject), "it has no subject in the log, and may be anybody's")]
    if lost:
        why = (
            f"{len(lost)} of {len(known)} subjects, the first is {_quoted(lost[0])}, have no secret in a vault at "
            "hand, so that their pseudonyms are not known; put the vault beside the trace, or name them by pseudonym"
        )
        doubts.append(Doubt(has_subject, why))
    if strange:
        why = (
            f"{len(strange)} of {len(known)} subjects, the first is {_quoted(strange[0])}, have no sample in this log; "
            "correct them, or leave them out"
        )
        doubts.append(Doubt(has_subject, why))
    samples = roster.of_subjects([p for p in known.values() if p is not None])
    return Meant(samples, f"{len(known):,} subjects", tuple(doubts))


def _pseudonym(name: str, at_hand: AtHand) -> bytes | None:
    found = at_hand.pseudonym(name)
    if found is None and len(name) == PSEUDONYM_DIGITS and all(c in "0123456789abcdefABCDEF" for c in name):
        return bytes.fromhex(name)
    return found


# -- by name --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Open:
    """Lines that a log does not decide: how many, the first of them, and the data sets that they may mean."""

    count: int = 0
    first: str = ""
    datasets: set[str] = field(default_factory=set)

    def add(self, count: int, first: str, datasets: Iterable[str] = ()) -> None:
        self.first = self.first or first
        self.count += count
        self.datasets.update(datasets)


class _Names:
    """Finds samples by the lines of a list."""

    def __init__(self, roster: Roster, at_hand: AtHand, opt_out: OptOut) -> None:
        self._roster = roster
        self._at_hand = at_hand
        self._found: list[Places] = []
        self._lines = self._by_number = self._nobody = 0
        self._closed, self._elsewhere, self._no_rows = _Open(), _Open(), _Open()
        self._vault: tuple[np.ndarray, np.ndarray, Mask] | None = None
        self._wanted = opt_out.datasets or tuple(roster.datasets)
        for name in opt_out.datasets:
            if name not in roster.datasets:
                there = ", ".join(map(_quoted, roster.datasets)) or "none"
                raise ValueError(
                    f"opt-out {opt_out.name}: this trace has no data set {_quoted(name)}; it has {there:.200}"
                )

    def meant(self, pieces: Pieces) -> Meant:
        """All samples that the lines name."""
        for lines in parse_samples(pieces):
            self._take(lines)
        samples = self._roster.mask(np.concatenate([np.empty(0, np.intp), *self._found]))
        notes = [] if self._lines else ["the list is empty"]
        if self._nobody:
            notes.append(f"{self._nobody:,} of them no sample of this log has")
        if self._by_number:
            notes.append(f"{self._by_number:,} by the number that a sample was given as its key, whatever its row")
        what = f"{self._lines:,} names" + (f" ({'; '.join(notes)})" if notes else "")
        return Meant(samples, what, tuple(self._doubts()))

    def _doubts(self) -> Iterator[Doubt]:
        """What the lines may mean beside what they name."""
        closed, elsewhere, no_rows = self._closed, self._elsewhere, self._no_rows
        anybody = np.ones(len(self._roster), np.bool_)  # whom a misspelt name means may be anywhere
        if self._nobody and self._nobody == self._lines:
            yield Doubt(
                anybody, f"none of the {self._lines:,} names is that of a sample in this log; check the spelling"
            )
        if closed.count:
            yield Doubt(
                self._in(closed.datasets),
                f"{closed.count:,} names cannot be looked up in {_listed(closed.datasets)}: what its ids are keyed by "
                "is not at hand; put the vault beside the trace, or give --id-key",
            )
        if elsewhere.count:
            yield Doubt(
                anybody,
                f"{elsewhere.count:,} names are in data sets that this trace does not have, the first is "
                f"{elsewhere.first}; it has {_listed(self._roster.datasets)}: correct them, or leave out what is about "
                "other traces",
            )
        if no_rows.count:
            yield Doubt(
                self._in(no_rows.datasets),
                f"{no_rows.count:,} names give a row of {_listed(no_rows.datasets)}, the first is {no_rows.first}, and "
                "the log does not say that its samples are named by numbers; write NAME:key:JSON or id:HEX",
            )

    def _in(self, datasets: Iterable[str]) -> Mask:
        out = np.zeros(len(self._roster), np.bool_)
        for name in datasets:
            out |= self._roster.in_dataset(name)
        return out

    def _take(self, lines: Lines) -> None:
        self._lines += len(lines)
        self._nobody += len(lines.ids) - int(self._find(b"".join(lines.ids)).sum())
        for (dataset, by_number), some in lines.keys.items():
            if dataset is not None and dataset not in self._roster.datasets:
                self._elsewhere.add(len(some.keys), some.first)
                continue
            if by_number and dataset is not None:
                said = self._roster.keys.get(dataset)
                self._by_number += len(some.keys) if said == "numbers" else 0
                if said not in NUMBERS:
                    self._no_rows.add(len(some.keys), some.first, [dataset])
            self._take_keys([dataset] if dataset is not None else self._wanted, some)

    def _take_keys(self, datasets: Iterable[str], some: Keys) -> None:
        """Find keys in each of these data sets."""
        found, is_open = (np.zeros(len(some.keys), np.bool_) for _ in range(2))
        closed: list[str] = []
        for name in datasets:
            here, unknown = self._look_up(name, some.keys)
            found, is_open = found | here, is_open | unknown
            if unknown.any():
                closed.append(name)
        self._closed.add(int(is_open.sum()), some.first, closed)
        self._nobody += int((~found & ~is_open).sum())

    def _find(self, ids: bytes) -> Mask:
        """Take the samples of these ids; (k,) which of them there are."""
        which, at = find_rows(self._roster.ids, np.frombuffer(ids, "V32"))
        self._found.append(at)
        here = np.zeros(len(ids) // 32, np.bool_)
        here[which] = True
        return here

    def _look_up(self, dataset: str, keys: list[bytes]) -> tuple[Mask, Mask]:
        """Find keys in one data set: (k,) which of them there are, and which can be neither found nor ruled out."""
        front = preimage(dataset, 0)[: -len(encode(0))]
        named, scheme = [front + key for key in keys], self._roster.datasets[dataset][0]
        if scheme == "subject":
            return self._look_up_in_vault(dataset, named)
        secret = {"public": b"", "keyed": self._at_hand.id_key}.get(scheme)
        nothing = np.zeros(len(keys), np.bool_)
        if secret is None:
            return nothing, ~nothing
        return self._find(make_ids(scheme, secret, named)), nothing

    def _look_up_in_vault(self, dataset: str, named: list[bytes]) -> tuple[Mask, Mask]:
        """Each subject's ids have a key of their own: only a vault knows whose a name is."""
        digests, ids, known = self._vault_table()
        which, at = find_rows(digests, np.frombuffer(make_ids("public", b"", named), "V32"))
        named_here, here = np.zeros(len(named), np.bool_), np.zeros(len(named), np.bool_)
        named_here[which], here[which] = True, self._find(ids[at].tobytes())
        is_whole = not (self._roster.in_dataset(dataset) & ~known).any()
        return here, np.zeros_like(here) if is_whole else ~named_here

    def _vault_table(self) -> tuple[np.ndarray, np.ndarray, Mask]:
        """SHA-256 of the preimages of a vault's names, ascending, and their ids; (n,) which samples those are."""
        if self._vault is None:
            digests, ids = [], []
            for sample, dataset, key in self._at_hand.names() if self._at_hand.names is not None else ():
                if self._roster.datasets.get(dataset, ("",))[0] == "subject":
                    digests.append(public_id(preimage(dataset, 0)[: -len(encode(0))] + key))
                    ids.append(sample)
            table, joined = np.frombuffer(b"".join(digests), "V32"), np.frombuffer(b"".join(ids), "V32")
            order, known = np.argsort(table), self._roster.mask(self._roster.find(joined.tobytes()))
            self._vault = table[order], joined[order], known
        return self._vault


# -- by content -----------------------------------------------------------------------------------------------------


def undecided(roster: Roster, comparable: Mask, known: Mask | None = None) -> Mask:
    """(n,) the samples that cannot be compared, neither by what is known of themselves nor, where nothing is, by what
    they were made from. `known` are those of which something is, comparable or not (by default: the comparable)."""
    alone = ~roster.mask(roster.kin.children) if known is None else known | ~roster.mask(roster.kin.children)
    without = roster.kin.below(~comparable & alone, through=~comparable)
    return (without | ~roster.kin.below(comparable)) & ~comparable


def source_word(content: str | None) -> str | None:
    """The kind of source that digests are taken from, without its dtype and shape, or its schema."""
    return None if content is None else content.partition(" ")[0]


def _by_content(roster: Roster, at_hand: AtHand, opt_out: OptOut, lists: Iterable[list[bytes]]) -> Meant:
    places, values = roster.column("contents")
    table, of_value = np.unique(values, return_inverse=True)
    has_key = at_hand.id_key is not None
    usable = {
        name
        for name, (scheme, content) in roster.datasets.items()
        if source_word(content) == opt_out.source and (scheme == "public" or (scheme == "keyed" and has_key))
    }
    schemes = {roster.datasets[name][0] for name in usable}
    listed, count = np.zeros(len(table), np.bool_), 0
    for digests in lists:
        count += len(digests)
        for scheme in schemes:
            ids = make_ids(scheme, at_hand.id_key or b"", content_preimages(digests))
            listed[find_rows(table, np.frombuffer(ids, "V32"))[1]] = True
    known = roster.mask(places)
    comparable = known.copy()
    for name in (roster.datasets.keys() - usable) | roster.beside:
        comparable &= ~roster.in_dataset(name)
    unsure = undecided(roster, comparable, known) if count else roster.mask(places[:0])
    why = (
        f"its contents cannot be compared with digests of a {opt_out.source}: a data set may have no digests, or those "
        "of something else (source = ... says of what) or of a part of each row, or keyed ones without their key at "
        "hand, or a subject's own"
    )
    note = "the list is empty" if not count else "" if listed.any() else "no sample of this log has one of them"
    what = f"{count:,} contents" + (f" ({note})" if note else "")
    return Meant(roster.mask(places[listed[of_value]]), what, (Doubt(unsure, why),))


def _quoted(name: str) -> str:
    return json.dumps(name[:60], ensure_ascii=False)


def _listed(names: Iterable[str]) -> str:
    return f"{', '.join(map(_quoted, sorted(names))) or 'none':.200}"
