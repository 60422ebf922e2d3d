"""A policy file: TOML that switches the built-in policies and lists who has opted out. Parsed strictly, by bytes alone.

docs/policies.md has the format. Every error is a FormatError that names the line or the field, and what it may hold.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fgtrac.errors import FormatError
from fgtrac.events.schema import ROLES

FORMAT = "fgtrac-policies/v1"
MAX_BYTES = 1 << 16  # long lists stand in files of their own
MAX_LINE_BYTES = 1_000  # tomllib takes the square of a key's parts
MAX_BRACKETS = 2_000
MAX_OPT_OUTS = 100
MAX_NAME = 80
HELD_OUT_ROLES = ("validation", "test", "excluded")
BUILT_IN = ("held-out", "held-out-contents", "every-training-sample-used", "erased-subjects")
ON_DEMAND = ("held-out-features",)  # built in too, and off without a section in the file
SOURCES = ("file", "source", "table", "tensor")  # what digests are taken from, as the `content` of a data set begins
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class OptOut:
    """Samples that must not be used, or not after a time: exactly one of `samples`, `contents` (paths as the file has
    them) and `subjects` is given. `after` is in ns since 1970, None: never."""

    name: str
    samples: str | None = None
    contents: str | None = None
    subjects: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()  # in which keys without a data set are looked for; empty: all
    source: str = "file"
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Policies:
    """Which policies a log is held to; by default all that are built in and need no section of a file."""

    built_in: tuple[str, ...] = BUILT_IN
    held_out_roles: tuple[str, ...] = HELD_OUT_ROLES
    opt_outs: tuple[OptOut, ...] = ()

    def names(self) -> tuple[str, ...]:
        """What the findings are called, in order."""
        return (*self.built_in, *(f"opt-out {opt_out.name}" for opt_out in self.opt_outs))


def parse_policies(data: bytes) -> Policies:
    """The policies that a file asks for. FormatError for whatever is no policy file; limits are checked first."""
    table = _decode(data)
    _check_fields(table, "the file", ("format", *BUILT_IN, *ON_DEMAND, "opt-out"))
    if table.get("format") != FORMAT:
        raise FormatError(f"format is {_show(table.get('format'))}; the first line is format = {_show(FORMAT)}")
    switches = {name: _switch(table.get(name, {}), name) for name in BUILT_IN}
    switches |= {name: _switch(table[name], name) for name in ON_DEMAND if name in table}
    listed = table.get("opt-out", [])
    if not isinstance(listed, list) or len(listed) > MAX_OPT_OUTS:
        raise FormatError(f"opt-out is a list of at most {MAX_OPT_OUTS} tables; write each as [[opt-out]]")
    opt_outs = tuple(_opt_out(item, f"opt-out {number}") for number, item in enumerate(listed, 1))
    names = [opt_out.name for opt_out in opt_outs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise FormatError(f"two opt-outs are named {_show(twice[0])}; give each a name of its own")
    roles = table.get("held-out", {}).get("roles", HELD_OUT_ROLES)
    return Policies(tuple(name for name in switches if switches[name]), tuple(roles), opt_outs)


def _decode(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise FormatError(f"more than {MAX_BYTES:,} bytes; put long lists into files of their own and name those")
    for number, line in enumerate(data.split(b"\n"), 1):
        if len(line) > MAX_LINE_BYTES:
            raise FormatError(f"line {number} has {len(line):,} bytes; the most is {MAX_LINE_BYTES:,}: break it")
    if data.count(b"[") + data.count(b"{") > MAX_BRACKETS:
        raise FormatError(f"more than {MAX_BRACKETS:,} brackets; put long lists into files of their own and name those")
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        at = data.count(b"\n", 0, error.start) + 1
        raise FormatError(f"line {at} is no UTF-8 ({error.reason}); save the file as UTF-8") from error
    except RecursionError as error:
        raise FormatError("lists or tables are nested too deep; no field needs more than one list") from error
    except ValueError as error:  # also what datetime and int refuse
        raise FormatError(f"no TOML: {error}") from error


def _switch(table: Any, name: str) -> bool:
    """Whether a built-in policy is on."""
    table = _check_fields(table, f"[{name}]", ("on", "roles") if name == "held-out" else ("on",))
    on = table.get("on", True)
    if not isinstance(on, bool):
        raise FormatError(f"[{name}] on = {_show(on)}; write true or false")
    roles = table.get("roles", list(HELD_OUT_ROLES))
    allowed = [role for role in ROLES if role != "train"]
    if not isinstance(roles, list) or not roles or not all(role in allowed for role in roles):
        raise FormatError(f"[{name}] roles = {_show(roles)}; name at least one of {', '.join(allowed)}")
    return on


def _opt_out(table: Any, where: str) -> OptOut:
    """One [[opt-out]] table."""
    table = _check_fields(table, where, tuple(_OPT_OUT_FIELDS))
    for name, value in table.items():
        is_right, form = _OPT_OUT_FIELDS[name]
        if not is_right(value):
            raise FormatError(f"{where}: {name} = {_show(value)}; it is {form}")
    if "name" not in table:
        raise FormatError(f"{where} has no name; give it one, and its finding is called by it")
    where = f"{where} ({table['name']})"
    given = [name for name in ("samples", "contents", "subjects") if name in table]
    if len(given) != 1:
        has = " and ".join(given) or "none"
        raise FormatError(f"{where} has {has} of samples, contents and subjects; give exactly one")
    for name, belongs in (("datasets", "samples"), ("source", "contents")):
        if name in table and given != [belongs]:
            raise FormatError(f"{where}: {name} belongs to {belongs}, and it has {given[0]}; leave it out")
    tuples = {name: tuple(table[name]) for name in ("subjects", "datasets") if name in table}
    after = {"after": _nanoseconds(table["after"])} if "after" in table else {}
    return OptOut(**{**table, **tuples, **after})


def _is_time(value: Any) -> bool:
    return isinstance(value, datetime) and value.tzinfo is not None


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value != "" and "\0" not in value


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable() and value == value.strip()


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(isinstance(v, str) and v != "" for v in value)


_OPT_OUT_FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "name": (_is_name, f"a text of 1 to {MAX_NAME} printable characters"),
    "samples": (_is_path, "the path of a file that names a sample on each line"),
    "contents": (_is_path, "the path of a folder, or of a file with a SHA-256 on each line"),
    "subjects": (_are_texts, 'a list of subjects or their pseudonyms, like ["p-17"]'),
    "datasets": (_are_texts, 'a list of data sets, like ["photos"]'),
    "source": (lambda value: value in SOURCES, f"one of {', '.join(SOURCES)}"),
    "after": (_is_time, "a date and time with its offset, like 2026-03-01T00:00:00Z, without quotes"),
}


def _check_fields(table: Any, where: str, known: tuple[str, ...]) -> dict[str, Any]:
    """The table. FormatError unless it is one, and all of its fields are known."""
    if not isinstance(table, dict):
        raise FormatError(f"{where} is {_show(table)}; it is a table with the fields {', '.join(known)}")
    for name in table:
        if name not in known:
            raise FormatError(f"{where} has no field {_show(name)}; its fields are {', '.join(known)}")
    return table


def _nanoseconds(value: datetime) -> int:
    return min(max(0, (value - _EPOCH) // timedelta(microseconds=1) * 1000), (1 << 64) - 1)


def _show(value: Any) -> str:
    """A value as a message shows it; of what is nested only that it is."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        inner = ("a list" if isinstance(v, list) else _show(v) for v in value[:4])
        return f"[{', '.join(inner)}{', ...' if len(value) > 4 else ''}]"
    return json.dumps(value, ensure_ascii=False, default=str)[:100]
