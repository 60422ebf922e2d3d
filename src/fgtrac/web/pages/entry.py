"""One entry of the log: its fields, its place in the tree with a proof that was checked, and what it names."""

from __future__ import annotations

from typing import Any

from fgtrac.api.log_view import Entry, LogView
from fgtrac.query.overview import Overview
from fgtrac.web.asked import Answer, Asked, NotThereError, Page, address
from fgtrac.web.command import command_line

MAX_SAMPLES = 12  # that an entry names and that are led to


def show(asked: Asked) -> Answer:
    """An entry by its number."""
    text = asked.path["number"]
    path = asked.site.path_of(asked.name)
    view = LogView(path)
    if not (text.isascii() and text.isdigit() and len(text) < 20 and str(int(text)) == text):
        raise NotThereError(f"{text!r:.60} is no entry's number; the log has 0 to {view.head.size - 1}")
    if int(text) >= view.head.size:
        raise NotThereError(f"there is no entry {text}; the log has 0 to {view.head.size - 1}")
    entry = view.entry(int(text))
    found: Overview | None = asked.site.overview(asked.name, asked.patience_s).known()
    data: dict[str, Any] = {
        "number": entry.number,
        "kind": entry.event["kind"],
        "time": entry.event["time"],
        "words": entry.words,
        "size_bytes": entry.size_bytes,
        "fields": entry.fields(),
        "leaf": entry.leaf,
        "path": entry.path,
        "size": entry.size,
        "root": entry.root,
        "is_read": found is not None,
        "names": [] if found is None else _names(asked, view, entry, found),
    }
    select = f"SELECT * FROM entries WHERE number = {entry.number}"
    command = command_line("sql", path, select, *asked.site.with_key)
    return Answer(f"Entry {entry.number}", "entry.html", data, command)


def _names(asked: Asked, view: LogView, entry: Entry, found: Overview) -> list[dict[str, str]]:
    """Pages about what the entry names: a model state's entry, the registration of a block, its first samples."""
    event, out = entry.event, []
    if "checkpoint" in event:
        number = found.states.get((bytes(event["checkpoint"][0]), event["checkpoint"][1]))
        if number is not None:
            out.append({"words": f"the model state, entry {number}", "to": _entry(asked, number)})
    block = found.blocks.get(bytes(event.get("block", b"")), {})
    for part, number in sorted(block.items())[:4]:
        if number != entry.number:
            out.append(
                {
                    "words": f"the registration of its block, part {part + 1}, entry {number}",
                    "to": _entry(asked, number),
                }
            )
    if "ordinals" in event and 0 in block:
        for sample in view.sample_ids(block, event["ordinals"][:MAX_SAMPLES].tolist()):
            to = address("run", asked.name, "sample", sample.hex())
            out.append({"words": f"sample {sample.hex()[:16]}…", "to": to})
    return out


def _entry(asked: Asked, number: int) -> str:
    return address("run", asked.name, "log", "entry", number)


PAGES = (Page("/run/{name}/log/entry/{number}", show, needs_trace=False),)
