"""What of a sealed trace is published elsewhere, in the order of a seal's writes, and what a newer head makes stale.

    1  the plan            4  artifacts, receipts
    2  bundles and tiles   5  full seals' notes
    3  the index           6  the tree head: the caller's, when all of these are there; then what is stale may go

Before that everything new is read and hashed here, so that no damaged copy is given away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fgtrac.commit.plan import SUFFIX
from fgtrac.commit.tidy import kept_sizes
from fgtrac.errors import FormatError, TamperError
from fgtrac.events.codec import encode
from fgtrac.events.schema import decode_event
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir, is_size
from fgtrac.tlog.merkle import hash_leaves, root
from fgtrac.tlog.note import TreeHead
from fgtrac.tlog.npy import COLUMNS, column_path
from fgtrac.tlog.tiles import WIDTH, TileNodes, parse_tile_path, partial_tiles, read_bundle, tiles_of

HEAD = "checkpoint"
_NAMES_FILES = tuple(encode("kind") + encode(kind) for kind in ("artifact", "erasure"))


@dataclass(slots=True)
class Contents:
    """The files that a head needs, in groups to be sent one after the other; what the log says of artifacts that are
    among them, size and SHA-256; and which were withdrawn."""

    groups: list[list[str]]
    said: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)

    @property
    def paths(self) -> list[str]:
        """All of them."""
        return [path for group in self.groups for path in group]


def contents_of(
    trace: TraceDir, head: TreeHead, since: int, progress: Callable[[int, int], None] | None = None
) -> Contents:
    """What is to be published of a trace under `head`, whose first `since` entries were: tiles of all of it, artifacts
    of what is new. TamperError or FormatError where what is new does not lead to the head's root; FileNotFoundError
    where a file is gone, as where a seal has just replaced it. `progress` is called with bundles read and in all."""
    found = _read(trace, head, since, progress)
    sizes = sorted(size for size in trace.full_seals() if size <= head.size)
    names = trace.names()
    there = set(names)
    notes = [f"index/{size}/{HEAD}" for size in sizes if f"index/{size}/{HEAD}" in there]
    newest = newest_index(names, head.size)
    tiles = [tile.path for tile in tiles_of(head.size)]
    more = {tile.path for size in kept_sizes(trace, head.size) for tile in partial_tiles(size)} - set(tiles)
    receipts = [n for n in names if n.startswith("receipts/") and not n.endswith(durable.TEMPORARY)]
    plan = f"journal/{head.size}{SUFFIX}"
    columns = [column_path(newest, name) for name in COLUMNS] if newest else []
    found.groups = [[plan] if plan in there else [], tiles + sorted(more), columns, sorted(found.said), receipts, notes]
    return found


def newest_index(names: Iterable[str], size: int) -> int:
    """The newest full seal up to `size` whose columns are all among the names; 0 where there is none."""
    there = set(names)
    sizes = {int(name.split("/")[1]) for name in there if name.startswith("index/") and is_size(name.split("/")[1])}
    whole = [s for s in sizes if s <= size and all(column_path(s, name) in there for name in COLUMNS)]
    return max(whole, default=0)


def _read(trace: TraceDir, head: TreeHead, since: int, progress: Callable[[int, int], None] | None) -> Contents:
    """Hash every bundle from entry `since` on, hold it against its tile and these against the root, and collect what
    its entries say of artifacts."""
    nodes, found = TileNodes(trace, head.size), Contents([])
    if head.size and root(head.size, nodes) != head.root:
        raise TamperError(f"the hash tiles of {trace.path} do not lead to the root of its head: run fgtrac verify")
    first, bundles = since // WIDTH, -(-head.size // WIDTH)
    for number in range(first, bundles):
        entries = read_bundle(trace, number, head.size)
        for place, leaf in enumerate(hash_leaves(entries)):
            if nodes.node(0, number * WIDTH + place) != leaf:
                raise TamperError(f"entry {number * WIDTH + place} of {trace.path} was changed: run fgtrac verify")
        for entry in entries[max(since - number * WIDTH, 0) :]:
            if any(words in entry for words in _NAMES_FILES):
                _take(found, decode_event(entry))
        if progress is not None:
            progress(number + 1 - first, bundles - first)
    return found


def _take(found: Contents, event: Mapping[str, Any]) -> None:
    if event["kind"] == "artifact":
        found.said[event["path"]] = event["size"], event["sha256"]
    elif event["kind"] == "erasure":
        found.withdrawn.update(event["artifacts"])
        for path in event["artifacts"]:
            found.said.pop(path, None)


def withdrawn_artifacts(trace: TraceDir, head: TreeHead) -> set[str]:
    """Every artifact that an erasure in the log says was withdrawn. Reads the whole log."""
    return _read(trace, head, 0, None).withdrawn


def stale_files(there: Iterable[str], wanted: Iterable[str], size: int) -> list[str]:
    """Which files of a published log of `size` entries only older heads needed, as `tidy` removes them here: partial
    tiles, plans and index columns. What belongs to a larger head is somebody's who is at it."""
    kept = set(wanted)
    return sorted(path for path in there if path not in kept and _is_older(path, size))


def _is_older(path: str, size: int) -> bool:
    folder, _, rest = path.partition("/")
    if folder == "tile":
        try:
            tile = parse_tile_path(path)
        except FormatError:
            return False
        return tile.width < WIDTH and tile.number * WIDTH + tile.width <= size >> 8 * max(tile.level, 0)
    number = rest.partition("/")[0]
    if folder == "journal":
        stem = rest.removesuffix(SUFFIX)
        return rest.endswith(SUFFIX) and is_size(stem) and int(stem) < size
    is_column = folder == "index" and is_size(number) and int(number) <= size
    return is_column and path in {column_path(int(number), name) for name in COLUMNS}
