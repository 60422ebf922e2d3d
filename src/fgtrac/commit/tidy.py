"""What a seal leaves behind and nobody needs: sealed segments, older plans, stale partial tiles, older index columns.

Everything here can be done again at any time; a crash in the middle leaves it to the next seal.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from fgtrac.commit.gather import Segment, clear_sealed
from fgtrac.commit.indexer import UNFINISHED
from fgtrac.commit.plan import SUFFIX, Plan, parse_plan
from fgtrac.commit.signer import Signer
from fgtrac.errors import FormatError
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir, is_size
from fgtrac.tlog.npy import COLUMNS, column_path
from fgtrac.tlog.tiles import partial_tiles, tiles_of


def after_seal(trace: TraceDir, plan: Plan, segments: Sequence[Segment], told: Collection[str]) -> None:
    """Remove what the plan's seal has made superfluous; of damaged segments those whose damage was told."""
    clear_sealed(segments, plan.writers, told)
    kept = {tile.path for size in kept_sizes(trace, plan.stop) for tile in partial_tiles(size)}
    for tile in partial_tiles(plan.start):
        if tile.path not in kept:
            _remove_with_folder(trace, tile.path)
    for size, _path in _plans(trace):
        if size != plan.stop:
            durable.remove(trace.path / f"journal/{size}{SUFFIX}")
    _remove_indexes(trace, plan)


def kept_sizes(trace: TraceDir, head: int) -> set[int]:
    """The sizes whose partial tiles stay: the head, and full seals."""
    return {size for size in (head, *trace.full_seals()) if size <= head}


def _remove_indexes(trace: TraceDir, plan: Plan) -> None:
    """Columns of every index but the newest, and the note of none that was sealed."""
    for size in trace.full_seals():
        if size == plan.index_size:
            continue
        for name in COLUMNS:
            durable.remove(trace.path / column_path(size, name))
        if size > plan.stop:
            durable.remove(trace.path / f"index/{size}/checkpoint")
        durable.remove_empty(trace.path / f"index/{size}", trace.path)


def _remove_with_folder(trace: TraceDir, path: str) -> None:
    durable.remove(trace.path / path)
    durable.remove_empty((trace.path / path).parent, trace.path)


def remove_temporaries(trace: TraceDir) -> None:
    """Files that a seal was cut short in writing. Artifacts and receipts are other threads', which may be at it now."""
    for folder in ("tile", "index", "journal"):
        for path in sorted((trace.path / folder).rglob(f"*{durable.TEMPORARY}")):
            durable.remove(path)
    durable.remove(trace.path / f"checkpoint{durable.TEMPORARY}")


def remove_unfinished_index(trace: TraceDir, signer: Signer) -> None:
    """What an index that does not fit in memory was built from, once it is sealed."""
    folder = trace.path / UNFINISHED
    if folder.is_symlink():
        durable.remove(folder)
    elif folder.is_dir() and not folder.parent.is_symlink():
        durable.remove_folder(folder)
        durable.remove_empty(folder.parent, trace.path)
    durable.remove(signer.index_path)


def remove_unfinished(trace: TraceDir) -> None:
    """Artifacts, receipts and an engine's own file (`RayCluster.check_shared`) that a process was cut short in writing;
    one that is being written now is held, and stays."""
    found = [path for name in ("artifacts", "receipts") for path in (trace.path / name).rglob(f"*{durable.TEMPORARY}")]
    for path in sorted([*found, *trace.path.glob(f"engine-*{durable.TEMPORARY}")]):
        with durable.alone_with(path) as size_bytes:
            if size_bytes is not None:
                durable.remove(path)


def _plans(trace: TraceDir) -> list[tuple[int, str]]:
    if not trace.journal.is_dir():
        return []
    found = [p.name for p in trace.journal.iterdir() if p.suffix == SUFFIX and is_size(p.stem)]
    return sorted((int(name.removesuffix(SUFFIX)), f"journal/{name}") for name in found)


def pending_plan(trace: TraceDir, signer: Signer, head: int) -> Plan | None:
    """The plan of the seal that was under way; None where there is none that the signer knows."""
    for size, path in _plans(trace):
        if size <= head:
            continue
        data = trace.read(path)
        try:
            plan = parse_plan(data) if signer.is_known_plan(data) else None
        except FormatError:
            plan = None
        if plan is not None and plan.start == head:
            return plan
        durable.remove(trace.path / path)  # not ours, or of another head: the frames are planned anew
    return None


def discard_plan(trace: TraceDir, plan: Plan, head: int) -> None:
    """Forget a plan that was never signed, and the tiles that it may have written."""
    have = {tile.path for size in kept_sizes(trace, head) for tile in tiles_of(size)}
    for tile in tiles_of(plan.stop):
        if tile.path not in have:
            _remove_with_folder(trace, tile.path)
    durable.remove(trace.path / plan.path)
