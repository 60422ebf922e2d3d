"""Building the views of a full seal: every entry is read and hashed once, range by range, wherever an engine does it,
and its rows go to disk as they come. Nothing is believed unless the hashes lead to the head's root."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from fgtrac.engine.units import Engine
from fgtrac.errors import ProofError
from fgtrac.events.schema import ROLES
from fgtrac.query.seals import FullSeal
from fgtrac.query.through import WORDS, Pair, kin_of, used_through
from fgtrac.query.timeline import Timeline
from fgtrac.query.view_files import ViewFile, hexes, optional, words
from fgtrac.query.view_ranges import WORKER_BYTES, JoinedNodes, RangeUnit, Written, build_range, ranges_of
from fgtrac.query.view_samples import Registry
from fgtrac.query.view_schema import VIEWS
from fgtrac.query.view_setting import Roles, load_setting, write_setting
from fgtrac.query.view_sums import count_all, count_predictions, sum_contributions
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.merkle import root
from fgtrac.tlog.tiles import WIDTH

Progress = Callable[[int, int], None]
Files = dict[str, list[dict[str, Any]]]
METHOD = "tracin"
AT_ONCE = 1 << 16  # rows of samples that are put into columns together


def build_views(
    trace: TraceDir,
    seal: FullSeal,
    folder: Path,
    engine: Engine,
    memory_bytes: int,
    progress: Progress | None = None,
) -> Files:
    """Write the views of a full seal into a folder, and say what each file holds: its name, rows, size and SHA-256.
    What an earlier builder left there is used where it is whole; nothing else stays. All workers together hold about
    `memory_bytes`, of which each takes WORKER_BYTES and more at least: where there is less, fewer work at a time.

    ProofError where the log is not what was sealed or contradicts itself, FormatError or TamperError for damaged files;
    EngineError where workers are lost, and then what is done stays.
    """
    timeline = Timeline(seal)
    registry = Registry(timeline.entries("samples"))
    roles = Roles(registry, timeline)
    at_once = max(1, min(engine.workers, memory_bytes // WORKER_BYTES))
    setting = write_setting(folder, registry, timeline)
    units = _units(trace, seal, folder, setting, roles, memory_bytes // at_once)
    if len(units) > 1:
        if os.access(_path(trace), os.W_OK):  # where not, a worker that lacks it says so
            engine.check_shared(_path(trace))
        engine.check_shared(folder)
    written = _write_ranges(engine, units, at_once, seal.head.size, progress)
    load_setting.cache_clear()  # it maps files of the folder
    _check(trace, seal, written)
    roles.advance(seal.head.size)
    files: Files = {view: [dict(one.files[view]) for one in written if view in one.files] for view in VIEWS}
    files["samples"] = [_write_samples(folder, engine, _Known(registry, timeline, roles, files))]
    kept = {said["name"] for pieces in files.values() for said in pieces}
    for path in folder.iterdir():
        if path.name not in kept:
            durable.remove(path)
    return files


def _path(trace: TraceDir) -> Path:
    """As any process finds it."""
    return trace.path if trace.is_far else trace.path.resolve()


def _units(
    trace: TraceDir, seal: FullSeal, folder: Path, setting: bytes, roles: Roles, memory_bytes: int
) -> list[RangeUnit]:
    where, units = str(_path(trace)), []
    for number, (start, stop) in enumerate(ranges_of(trace, seal.head.size)):
        codes = roles.write(folder, start * WIDTH)
        units.append(RangeUnit(number, where, seal.head, start, stop, str(folder), setting, codes, memory_bytes))
    return units


def _in_turns(engine: Engine, units: Sequence[RangeUnit], at_once: int) -> Iterator[tuple[int, Written]]:
    """The number of each unit and what it wrote; no more than `at_once` are under way."""
    step = at_once if at_once < engine.workers else max(len(units), 1)
    for first in range(0, len(units), step):
        for place, written in engine.results(build_range, units[first : first + step], what="building tables"):
            yield first + place, written


def _write_ranges(
    engine: Engine, units: Sequence[RangeUnit], at_once: int, size: int, progress: Progress | None
) -> list[Written]:
    """What each unit wrote, in the order of the log; `progress` hears how many entries of how many."""
    found: list[Any] = [None] * len(units)
    entries = 0
    for place, written in _in_turns(engine, units, at_once):
        found[place] = written
        entries += sum(written.counted.values())
        if progress is not None:
            progress(entries, size)
    return found


def _check(trace: TraceDir, seal: FullSeal, written: Sequence[Written]) -> None:
    """ProofError where the ranges are not what was sealed, and where the seal counts other entries than there are: what
    was looked up beforehand would not be all."""
    if root(seal.head.size, JoinedNodes(written)) != seal.head.root:
        raise ProofError(
            f"the entries in {trace.path} do not lead to the root of its full seal of {seal.head.size} "
            f"entries: they were changed since; run fgtrac verify"
        )
    counted = Counter({"seal": -1})  # the last entry, which counts those before it
    for one in written:
        counted.update(one.counted)
    if +counted != Counter(seal.event["counts"]):
        raise ProofError(
            f"the log holds {dict(sorted((+counted).items()))}, and its seal counts "
            f"{dict(sorted(seal.event['counts'].items()))}; run fgtrac verify"
        )


class _Known:
    """What is known of every sample but its uses."""

    def __init__(self, registry: Registry, timeline: Timeline, roles: Roles, files: Files) -> None:
        n = len(registry)
        self.registry, self.roles, self.files = registry, roles.codes, files
        self.dropped, self.erased = np.zeros(n, bool), np.zeros(n, bool)
        self.pairs: list[Pair] = []
        for number, event in timeline.entries("transform"):
            if "dropped" in event:
                self.dropped[registry.numbers(number, event, "dropped")] = True
            if "children" in event:
                children = {"block": event["child_block"], "children": event["children"]}
                parents = registry.numbers(number, event, "parents")
                self.pairs.append((parents, registry.numbers(number, children, "children")))
        for number, event in timeline.entries("erasure"):
            self.erased[registry.numbers(number, event)] = True


def _write_samples(folder: Path, engine: Engine, known: _Known) -> dict[str, Any]:
    """The `samples` view, some rows at a time."""
    registry, n = known.registry, len(known.registry)
    paths = {view: [folder / said["name"] for said in pieces] for view, pieces in known.files.items()}
    counts, predictions = count_all(engine, n, paths["uses"]), count_predictions(n, paths["predictions"])
    all_sums = sum_contributions(n, paths["contributions"])
    method = METHOD if METHOD in all_sums else min(all_sums, default="")
    sums, some = all_sums.get(method, (np.zeros(n), np.zeros(n, bool)))
    is_used = (counts["uses"] > 0) | (counts["neighbours"] > 0)
    through = used_through(kin_of(known.pairs), is_used, counts["perhaps"] > 0)
    with ThreadPoolExecutor(1) as thread, ExitStack() as stack:
        file = ViewFile(folder / "samples-0.parquet", "samples", thread)
        stack.callback(file.abandon)
        for start in range(0, n, AT_ONCE):
            here = slice(start, min(start + AT_ONCE, n))
            mine, unused = counts[here], ~is_used[here]
            file.add(
                sample=np.arange(here.start, here.stop, dtype=np.uint32), id=hexes(registry.ids[here]),
                dataset=words(registry.dataset[here], registry.datasets),
                subject=hexes(registry.subjects[here], registry.no_subject[here]),
                role=words(known.roles[here].astype(np.int8) - 1, list(ROLES)), dropped=known.dropped[here],
                uses=mine["uses"], perhaps=mine["perhaps"], neighbours=mine["neighbours"],
                through=words(through[here], list(WORDS)), deliveries=mine["deliveries"],
                predictions=predictions[here], first_step=optional(mine["first_step"], unused),
                last_step=optional(mine["last_step"], unused), contribution=optional(sums[here], ~some[here]),
                contribution_method=words(some[here].astype(np.int8) - 1, [method]),
                content=hexes(registry.contents[here], registry.no_content[here]),
                registered=registry.registered[here], erased=known.erased[here],
            )  # fmt: skip
        return file.close()
