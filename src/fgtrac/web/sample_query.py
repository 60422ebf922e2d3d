"""What the page of samples asks the tables: filters, order and part as one SELECT, with parameters or written out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fgtrac.events.schema import ROLES

COLUMNS = (
    "id, dataset, subject, role, dropped, uses, perhaps, neighbours, through, deliveries, predictions, first_step, "
    "last_step, contribution, erased"
)
USES = {  # the word in the address -> what it is called, and the condition; each sample is one of these
    "used": ("used", "(uses + neighbours > 0 OR coalesce(through = 'used', false))"),
    "perhaps": (
        "perhaps used",
        "(uses + neighbours = 0 AND coalesce(through != 'used', true) AND (perhaps > 0 OR through IS NOT NULL))",
    ),
    "never": ("never used", "(uses + neighbours + perhaps = 0 AND through IS NULL)"),
}
SORTS = {  # the word in the address -> what it is called, and the columns
    "uses": ("most used", "uses DESC, neighbours DESC"),
    "least": ("least used", "uses, neighbours"),
    "helpful": ("contribution, most helpful first", "contribution DESC NULLS LAST"),
    "harmful": ("contribution, most harmful first", "contribution NULLS LAST"),
    "suspicion": ("suspicion, by self-influence", "suspicion DESC NULLS LAST"),
    "first": ("first step", "first_step NULLS LAST"),
    "last": ("last step, latest first", "last_step DESC NULLS LAST"),
    "id": ("id", "id"),
}
ROLE_WORDS = (*ROLES, "none")
LONGEST = 200  # characters of a filter


@dataclass(frozen=True, slots=True)
class SampleQuery:
    """Which samples: `role`, `dataset`, `use` (a key of USES), `dropped` (yes or no), `subject` (the beginning of a
    pseudonym), `text` (a part of a name, or the beginning of an id); empty where all are meant. `names`: there is a
    vault to look `text` up in."""

    role: str = ""
    dataset: str = ""
    use: str = ""
    dropped: str = ""
    subject: str = ""
    text: str = ""
    sort: str = "uses"
    names: bool = False

    def where(self) -> tuple[str, list[Any]]:
        """The conditions, with `?` for each of the values."""
        said: list[tuple[str, list[Any]]] = []
        if self.role:
            said.append(("role IS NULL", []) if self.role == "none" else ("role = ?", [self.role]))
        if self.dataset:
            said.append(("dataset = ?", [self.dataset]))
        if self.use:
            said.append((USES[self.use][1], []))
        if self.dropped:
            said.append(("dropped" if self.dropped == "yes" else "NOT dropped", []))
        if self.subject:
            said.append(("starts_with(subject, ?)", [self.subject.lower()]))
        if self.text:
            in_names = "id IN (SELECT id FROM names WHERE contains(lower(name), lower(?)))"
            begins = ("starts_with(id, ?)", [self.text.lower().removeprefix("id:")])
            said.append((f"({begins[0]} OR {in_names})", [*begins[1], self.text]) if self.names else begins)
        conditions = " AND ".join(condition for condition, _ in said)
        return (f" WHERE {conditions}" if said else ""), [value for _, values in said for value in values]

    def counting(self) -> tuple[str, list[Any]]:
        """How many there are."""
        where, values = self.where()
        return f"SELECT count(*) AS n FROM samples{where}", values

    def page(self, number: int, size: int, suspicion: Mapping[str, list[Any]] | None = None) -> tuple[str, list[Any]]:
        """Part `number`, from 0, of `size` samples each; `suspicion` has ids and scores, to sort by these."""
        where, values = self.where()
        order, part = f"ORDER BY {SORTS[self.sort][1]}, sample", f"LIMIT {size} OFFSET {number * size}"
        if suspicion is not None:
            source = "samples LEFT JOIN (SELECT unnest(?) AS id, unnest(?) AS suspicion) USING (id)"
            first = [suspicion["id"], suspicion["suspicion"]]
            return f"SELECT {COLUMNS}, suspicion FROM {source}{where} {order} {part}", [*first, *values]
        chosen = f"SELECT sample FROM samples{where} {order} {part}"  # numbers alone are sorted: the ids are long
        return f"SELECT {COLUMNS} FROM samples WHERE sample IN ({chosen}) {order}", values

    def written_out(self, number: int, size: int) -> str:
        """The same SELECT with its values in it, for a command line; sorted by use where nothing is known of suspicion
        there."""
        asked = replace(self, sort="uses") if self.sort == "suspicion" else self
        sql, values = asked.page(number, size)
        parts = sql.split("?")
        return "".join(
            part + (f"'{str(value).replace(chr(39), chr(39) * 2)}'" if at < len(values) else "")
            for at, (part, value) in enumerate(zip(parts, [*values, ""], strict=True))
        )

    def as_json(self) -> dict[str, str]:
        """What is asked for, as the address says it."""
        return {
            field: getattr(self, field) for field in ("role", "dataset", "use", "dropped", "subject", "text", "sort")
        }


def parse_query(query: Mapping[str, str], *, names: bool) -> SampleQuery:
    """The samples that an address asks for. ValueError, with what there is, for a word that is none of a filter's."""
    said = {field: query.get(field, "").strip() for field in SampleQuery().as_json()}
    said["sort"] = said["sort"] or "uses"
    for field, words in (("role", ROLE_WORDS), ("use", USES), ("dropped", ("yes", "no")), ("sort", SORTS)):
        if said[field] and said[field] not in words:
            raise ValueError(f"{field}={said[field]:.40} is none of {', '.join(words)}")
    for field, value in said.items():
        if len(value) > LONGEST:
            raise ValueError(f"{field} has {len(value):,} characters; the most is {LONGEST}")
    if set(said["subject"].lower()) - set("0123456789abcdef"):
        raise ValueError(
            f"subject={said['subject']:.40} is no pseudonym: one has hex digits, and this filter takes no name"
        )
    return SampleQuery(**said, names=names)
