"""What happened to all samples of one subject, and to what was made from them: each counted from its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.drawing.notebook import shown, words
from fgtrac.errors import ProofError
from fgtrac.events.one_line import one_line
from fgtrac.events.postings import KIND, ROW
from fgtrac.events.schema import ROLES
from fgtrac.query.blocks import Blocks
from fgtrac.query.history import Historian, NameOf
from fgtrac.query.history_text import columns, counted, drawn, is_graph, taking_part, times
from fgtrac.query.seals import FullSeal
from fgtrac.query.tally import Draws, Tally, draws_of

ROLE_WORDS = {code: word for word, code in ROLES.items()}
SHOWN = 30  # samples that a table has
ABOUT = ("attention", "contribution", "prediction")  # counted beside a sample's part in updates


@dataclass(frozen=True, slots=True)
class SubjectSample:
    """One sample, counted: its part in updates, and how many entries give it modality weights, contributions and
    predictions. `erased`: an `erasure` entry names it."""

    id: bytes
    name: str | None
    dataset: str
    roles: tuple[str, ...]
    tally: Tally
    about: dict[str, int]
    erased: bool

    @property
    def took_part(self) -> bool:
        """Whether it was in any applied update, as a seed or as a neighbour, or may have been."""
        return bool(self.tally.seeds or self.tally.neighbours or self.tally.perhaps)

    def as_json(self) -> dict[str, Any]:
        """Plain data; the id as hex."""
        said = {"id": self.id.hex(), **({"name": self.name} if self.name else {}), "dataset": self.dataset}
        return {**said, "roles": list(self.roles), **self.tally.as_json(), **self.about, "erased": self.erased}


@dataclass(frozen=True, slots=True)
class SubjectHistory:
    """All samples that a trace's log registers under one pseudonym, by their parts in updates, most first.

    `subject` is what the vault calls it, None where no vault says so; `erasures` the `erasure` entries of it; `made`
    the samples that stages made from its samples and other people's, which are nobody's. `size`, `pending` and
    `rests_on` as of `History`. `without_key`: of so many other subjects in the log nobody can say here whether they
    were this one before an erasure; 0 of a pseudonym that was asked for.
    """

    subject: int | str | None
    pseudonym: bytes
    erasures: tuple[int, ...]
    samples: tuple[SubjectSample, ...]
    made: tuple[SubjectSample, ...]
    draws: Draws
    size: int
    pending: int
    rests_on: str
    without_key: int = 0

    @property
    def is_erased(self) -> bool:
        """Whether the log says that the subject's key was destroyed."""
        return bool(self.erasures)

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        """For notebooks."""
        return shown(words(self.text()))

    def text(self, *, every_sample: bool = False) -> str:
        """In words: sums, and a table of the samples, of many the first SHOWN unless `every_sample`."""
        return "\n".join(map(one_line, _text(self, every_sample)))

    def as_json(self) -> dict[str, Any]:
        """Plain data; ids and the pseudonym as hex."""
        return {
            "subject": self.subject,
            "pseudonym": self.pseudonym.hex(),
            "erased": self.is_erased,
            "erasures": list(self.erasures),
            "seed": sum(sample.tally.seeds for sample in self.samples),
            "neighbour": sum(sample.tally.neighbours for sample in self.samples),
            "samples": [sample.as_json() for sample in self.samples],
            "made": [sample.as_json() for sample in self.made],
            "without_key": self.without_key,
            **self.draws.as_json(),
            "size": self.size,
            "pending": self.pending,
            "rests_on": self.rests_on,
        }


class SubjectReader:
    """Answers about subjects under one full seal."""

    def __init__(self, seal: FullSeal, blocks: Blocks, historian: Historian, name_of: NameOf) -> None:
        self._seal, self._blocks, self._historian, self._name_of = seal, blocks, historian, name_of

    def read(self, pseudonym: bytes, subject: int | str | None, pending: int, rests_on: str) -> SubjectHistory:
        """The answer about one pseudonym; without samples where the log registers none under it.

        ProofError where index or log are not what was sealed, or contradict each other.
        """
        owned = self._blocks.of_subject(pseudonym)
        samples, made = [], list[SubjectSample]()
        each, waiting, seen = list[NDArray[np.void]](), list(owned), set(owned)
        while waiting:
            sample = waiting.pop()
            rows = self._rows(sample)
            dataset = owned.get(sample)
            if dataset is None:
                made.append(self._count(sample, rows, self._dataset(rows)))
            else:
                samples.append(self._count(sample, rows, dataset))
            each.append(rows)
            children = [child for child in self._historian.children(sample, rows) if child not in seen]
            seen.update(children)
            waiting += children
        erasures = [n for n, e in self._historian.timeline.entries("erasure") if e["pseudonym"] == pseudonym]
        rows = np.concatenate(each) if each else np.empty(0, ROW)
        draws = draws_of(rows, self._historian.drawn(rows))
        return SubjectHistory(
            subject, pseudonym, tuple(erasures), _sorted(samples), _sorted(made), draws,
            self._seal.head.size, pending, rests_on,
        )  # fmt: skip

    def _rows(self, sample: bytes) -> NDArray[np.void]:
        rows = self._seal.rows(sample)
        if rows is None:
            raise ProofError(f"the log registers {sample.hex()}, and the index does not have it; run fgtrac verify")
        return rows

    def _dataset(self, rows: NDArray[np.void]) -> str:
        registered = rows["entry"][rows["kind"] == KIND["registered"]]
        event = self._seal.log.event(int(registered[-1])) if len(registered) else {}
        if "dataset" not in event:
            raise ProofError("the index has a sample that no entry registers; run fgtrac verify")
        return str(event["dataset"])

    def _count(self, sample: bytes, rows: NDArray[np.void], dataset: str) -> SubjectSample:
        kinds = rows["kind"]
        roles = dict.fromkeys(ROLE_WORDS[code] for code in rows["detail"][kinds == KIND["role"]].tolist())
        about = {f"{word}s" if word != "attention" else word: int((kinds == KIND[word]).sum()) for word in ABOUT}
        erased = bool((kinds == KIND["erased"]).any())
        return SubjectSample(
            sample, self._name_of(sample), dataset, tuple(roles), self._historian.tally(rows), about, erased
        )


def _sorted(samples: Sequence[SubjectSample]) -> tuple[SubjectSample, ...]:
    """By their parts in updates, most first; equal ones by id."""
    return tuple(sorted(samples, key=lambda s: (-s.tally.seeds - s.tally.neighbours, s.id)))


# -- words ------------------------------------------------------------------------------------------------------------


def _text(found: SubjectHistory, every_sample: bool) -> Iterator[str]:
    who = f"subject {_called(found.subject)} (pseudonym {found.pseudonym.hex()})" if found.subject is not None else ""
    yield f"{who or 'pseudonym ' + found.pseudonym.hex()}: {counted(len(found.samples), 'sample')}"
    if found.erasures:
        entries = ", ".join(map(str, found.erasures))
        yield f"  erased: the key of this subject was destroyed (entry {entries}); this is what the log keeps of it"
    yield from (f"  {line}" for line in (*_sums(found), *drawn(found.draws)))
    yield from _table(found.samples, found.draws, every_sample)
    if found.made:
        yield f"  made from them and from samples of others, and nobody's: {counted(len(found.made), 'sample')}"
        yield from _table(found.made, found.draws, every_sample)
    if found.without_key:
        words = f"of {counted(found.without_key, 'other pseudonym')} in the log the key is not here"
        yield f"  {words}: what was this subject's before an erasure would stand under such a one"
    yield f"  complete up to entry {found.size - 1}, {found.rests_on}"
    if found.pending:
        yield f"  not yet in the index: {found.pending} entries; run fgtrac seal"


def _called(subject: int | str) -> str:
    """A subject's name; where text and number could be taken for each other, with what it is."""
    if isinstance(subject, int):
        return f"{subject}, a number"
    return f"{subject}, a text" if subject.lstrip("-").isdecimal() else subject


def _sums(found: SubjectHistory) -> Iterator[str]:
    of_graph = is_graph(_hops(found.samples), found.draws)
    for word, count in (("used as a seed" if of_graph else "used", "seeds"), ("a neighbour", "neighbours")):
        numbers = [getattr(sample.tally, count) for sample in found.samples]
        some = sum(map(bool, numbers))
        if some or count == "seeds":
            yield f"{word} {times(sum(numbers))}: {some:,} of {counted(len(numbers), 'sample')}"
    if perhaps := sum(sample.tally.perhaps for sample in found.samples):
        yield f"perhaps used {times(perhaps)}, by batches that held another number than were drawn"
    if superseded := sum(sum(sample.tally.superseded) for sample in found.samples):
        yield f"{superseded:,} of these parts in updates that were superseded: no later model rests on them"
    if idle := sum(not sample.took_part for sample in found.samples):
        yield f"no part in any update: {idle:,} of {counted(len(found.samples), 'sample')}"


def _hops(samples: tuple[SubjectSample, ...]) -> list[int]:
    return sorted({hop for sample in samples for hop in sample.tally.hops})


def _table(samples: tuple[SubjectSample, ...], draws: Draws, every_sample: bool) -> Iterator[str]:
    shown = samples if every_sample else samples[:SHOWN]
    if not shown:
        return
    hops = _hops(samples)
    about = [word for word in shown[0].about if any(sample.about[word] for sample in samples)]
    rows = [["sample", "roles", *taking_part(hops, draws), *about]]
    for sample in shown:
        numbers = [sample.tally.seeds, *map(sample.tally.at_hop, hops), *(sample.about[word] for word in about)]
        called = sample.name or f"id:{sample.id.hex()[:16]}..."
        rows.append([called, ", ".join(sample.roles) or "none", *(f"{number:,}" for number in numbers)])
    yield from (f"  {line}" for line in columns(rows))
    if len(shown) < len(samples):
        yield f"  and {len(samples) - len(shown):,} more; --all shows every one"
