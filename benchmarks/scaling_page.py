"""The tables of docs/scaling.md, from what `scale.py --into docs/scaling.json` measured: each between two marks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
BEGIN, END = "<!-- {}: by benchmarks/scale.py -->", "<!-- end -->"
COSTS = (  # what a cost is called, its stage, what there is so many of, and how many of the unit a second has
    ("register: a sample, ns", "register", "samples", 1e9),
    ("ingest: an event, ns", "ingest", "events", 1e9),
    ("plain seals: an event, ns", "plain seals", "events", 1e9),
    ("plain seals: a checkpoint, ms", "plain seals", "checkpoints", 1e3),
    ("full seal: an event, ns", "full seal", "events", 1e9),
    ("verify: an event, ns", "verify", "events", 1e9),
    ("opening, ms", "open", "", 1e3),
    ("the first history, ms", "first history", "", 1e3),
    ("a history, ms", "history", "histories", 1e3),
)
STAGES = tuple(dict.fromkeys(stage for _, stage, _, _ in COSTS))
GOAL = 10**12  # events that the plan reckons with
NODES = 512  # and nodes, of as many cores as the measuring machine has


def keep(file: Path, told: Row) -> None:
    """Put a size that was measured beside the others in a JSON file; in the place of the same size."""
    rows = [row for row in read(file) if row["events"] != told["events"]] if file.exists() else []
    rows = sorted([*rows, told], key=lambda row: row["events"])
    file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def read(file: Path) -> list[Row]:
    """The sizes that were measured, ascending."""
    rows: list[Row] = json.loads(file.read_text(encoding="utf-8"))
    return rows


def check(file: Path) -> None:
    """That figures can be kept in a JSON file, and their tables in the page beside it. OSError, ValueError if not."""
    if file.exists() and not all(isinstance(row, dict) and "events" in row for row in read(file)):
        raise ValueError(f"{file} holds no measured sizes; name another file")
    page = file.with_suffix(".md")
    text = page.read_text(encoding="utf-8")
    for name in TABLES:
        _between(text, name, "", page)


def write(file: Path) -> None:
    """Write the page's tables anew. ValueError where the page has not the marks between which they stand."""
    page, rows = file.with_suffix(".md"), read(file)
    text = page.read_text(encoding="utf-8")
    for name, made in TABLES.items():
        text = _between(text, name, made(rows), page)
    page.write_text(text, encoding="utf-8")


def words(told: Row) -> str:
    """What one size took, for people."""
    lines = [f"{told['events']:,} uses of {told['samples']:,} samples, {told['entries']:,} entries"]
    for stage, seconds in told["seconds"].items():
        lines.append(f"{stage:>16}  {seconds:10.2f} s  {told['stage_peak_gb'][stage]:6.2f} GB of memory")
    disk = told["disk_bytes"]
    lines.append(
        f"disk: log {disk['log'] / 1e9:.2f} GB, index {disk['index'] / 1e9:.2f} GB, at most {disk['peak'] / 1e9:.2f} GB"
    )
    return "\n".join([*lines, *(f"{name:>20}  {value:,.4g}" for name, value in told["figures"].items())])


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *body))


def _between(text: str, name: str, made: str, page: Path) -> str:
    begin = BEGIN.format(name)
    front, mark, rest = text.partition(begin)
    _, end, behind = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"{page} has no {begin} ... {END}; put these lines where the table belongs")
    return f"{front}{begin}\n{made}\n{END}{behind}"


def _sizes(rows: list[Row]) -> list[str]:
    return [_power(row["events"]) for row in rows]


def _power(number: float) -> str:
    exponent = math.log10(number)
    return f"10^{exponent:.0f}" if exponent == round(exponent) else f"{number:,}"


def _costs(rows: list[Row]) -> str:
    body = []
    for said, stage, of, units in COSTS:
        body.append([said, *(_digits(row["seconds"][stage] / (row[of] if of else 1) * units) for row in rows)])
    return table(["cost of", *_sizes(rows)], body)


def _seconds(rows: list[Row]) -> str:
    body = [[stage, *(_digits(row["seconds"][stage]) for row in rows)] for stage in STAGES[:5]]
    return table(["seconds", *_sizes(rows)], [*body, ["all five", *(_digits(row["cost_s"]) for row in rows)]])


def _memory(rows: list[Row]) -> str:
    body = [[stage, *(f"{row['stage_peak_gb'][stage]:.2f}" for row in rows)] for stage in STAGES]
    return table(["GB of memory", *_sizes(rows)], body)


def _disk(rows: list[Row]) -> str:
    parts = {"log": "log (entries and hash tiles)", "index": "index", "peak": "most at one moment, with scratch files"}
    body = [[said, *(f"{row['disk_bytes'][part] / 1e9:.3f}" for row in rows)] for part, said in parts.items()]
    body += [
        [f"{part}: bytes an event", *(f"{row['disk_bytes'][part] / row['events']:.2f}" for row in rows)]
        for part in parts
    ]
    return table(["GB of disk", *_sizes(rows)], body)


def _figures(rows: list[Row]) -> str:
    body = [[f"`{name}`", *(_digits(row["figures"][name]) for row in rows)] for name in rows[0]["figures"]]
    where = ["`--engine`, `--memory`, cores"]
    where += [f"{row['engine']}, {row['memory'] or 'default'}, {row['cores']}" for row in rows]
    return table(["figure", *_sizes(rows)], [*body, where])


def _plan(rows: list[Row]) -> str:
    row = rows[-1]
    times = GOAL / row["events"]
    seconds, disk = row["seconds"], row["disk_bytes"]

    def hours(stage: str) -> list[str]:
        one = seconds[stage] * times / 3600
        return [f"{seconds[stage]:,.0f} s", f"{one:,.0f} h", f"{one / NODES:,.1f} h"]

    def terabytes(part: str) -> list[str]:
        return [
            f"{disk[part] / 1e9:,.1f} GB",
            f"{disk[part] * times / 1e12:,.1f} TB",
            f"{disk[part] * times / NODES / 1e9:,.0f} GB",
        ]

    def depth(count: float) -> int:
        return math.ceil(math.log2(count))

    def path(what: str) -> list[str]:
        return [f"{depth(row[what])} hashes", f"{depth(row[what] * times)} hashes", ""]

    body = [
        ["entries", f"{row['entries']:,}", f"{row['entries'] * times:,.0f}", f"{row['entries'] * times / NODES:,.0f}"],
        ["samples", f"{row['samples']:,}", f"{row['samples'] * times:,.0f}", f"{row['samples'] * times / NODES:,.0f}"],
        ["log", *terabytes("log")],
        ["index", *terabytes("index")],
        ["recording", *hours("ingest")],
        ["full seal", *hours("full seal")],
        ["verification", *hours("verify")],
        ["path of an entry in the log", *path("entries")],
        ["path of a sample in the index", *path("samples")],
    ]
    head = ["", f"measured at {_power(row['events'])}", f"{_power(GOAL)}, one such machine", f"each of {NODES} such"]
    return table(head, body)


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


TABLES: dict[str, Callable[[list[Row]], str]] = {
    "figures": _figures,
    "seconds": _seconds,
    "costs": _costs,
    "memory": _memory,
    "disk": _disk,
    "plan": _plan,
}
