"""Building the views of a full seal: every entry is read and hashed once, in the order of the log, and its rows go to
disk as they come. Nothing is believed, or left on disk, unless the hashes lead to the head's root."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError, ProofError
from fgtrac.events.ranks import RankTable
from fgtrac.events.schema import ROLES, decode_event
from fgtrac.query.log import whole
from fgtrac.query.seals import FullSeal
from fgtrac.query.through import WORDS, Pair, kin_of, used_through
from fgtrac.query.timeline import Timeline
from fgtrac.query.view_files import ViewFile, hexes, lists, optional, words
from fgtrac.query.view_samples import Registry
from fgtrac.query.view_schema import VIEWS
from fgtrac.query.view_uses import UsesBuilder
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.merkle import MemoryNodes, hash_leaves, root
from fgtrac.tlog.tiles import WIDTH, read_bundle

Progress = Callable[[int, int], None]
TARGET, METHOD = "validation", "tracin"
AT_ONCE = 1 << 16  # rows of small entries that are put into columns together
_US = np.uint64(1000)  # nanoseconds in a microsecond
_MISSING = 2**64 - 1


def build_views(trace: TraceDir, seal: FullSeal, folder: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Write the views of a full seal into a folder, and say what each file holds: rows, size and SHA-256.

    ProofError where the log is not what was sealed or contradicts itself, FormatError or TamperError for damaged files.
    """
    with ExitStack() as stack:
        thread = stack.enter_context(ThreadPoolExecutor(1))
        files = {view: ViewFile(folder, view, thread) for view in VIEWS}
        for file in files.values():
            stack.callback(file.abandon)
        builder = _Builder(seal, files)
        leaves: list[bytes] = []
        with whole("the views"):
            for bundle in range(-(-seal.head.size // WIDTH)):
                entries = read_bundle(trace, bundle, seal.head.size)
                leaves += hash_leaves(entries)
                for place, entry in enumerate(entries):
                    builder.add(bundle * WIDTH + place, entry)
                if progress is not None:
                    progress(len(leaves), seal.head.size)
        if root(len(leaves), MemoryNodes(leaves)) != seal.head.root:
            raise ProofError(
                f"the entries in {trace.path} do not lead to the root of its full seal of {seal.head.size} entries: "
                f"they were changed since; run fgtrac verify"
            )
        builder.finish()
        return {view: file.close() for view, file in files.items()}


class _Builder:
    """Takes every entry in order and gives each view its rows."""

    def __init__(self, seal: FullSeal, files: Mapping[str, ViewFile]) -> None:
        self._files, self._seal = files, seal
        self._counted: Counter[str] = Counter()
        self._timeline = Timeline(seal)
        self._registry = Registry(self._timeline.entries("samples"))
        n = len(self._registry)
        ranks = RankTable()
        for _, event in self._timeline.entries("join"):
            ranks.add(event)
        self._checkpoints = {(e["writer"], e["seq"]): number for number, e in self._timeline.entries("checkpoint")}
        self._standings: dict[tuple[bytes, int], str] = {}
        self._uses = UsesBuilder(files["uses"], n, self._timeline, ranks)
        self._roles, self._predictions = np.zeros(n, np.uint8), np.zeros(n, np.uint32)
        self._pairs: list[Pair] = []
        self._dropped, self._erased = np.zeros(n, bool), np.zeros(n, bool)
        self._sums: dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]] = {}  # by method: sums, who has any
        self._logged: list[tuple[int, int, int, str, float]] = []
        self._listed: list[tuple[int, str, int, bytes, int, int, int]] = []

    def add(self, number: int, data: bytes) -> None:
        """Take an entry's bytes. Of one that says nothing here, ProofError first where it is not the sealed one."""
        try:
            self._take(number, decode_event(data), len(data))
        except FormatError as error:
            self._seal.log.entry(number)
            raise FormatError(f"entry {number}: {error}") from error
        except ProofError:
            self._seal.log.entry(number)
            raise

    def _take(self, number: int, event: Mapping[str, Any], size: int) -> None:
        if number < self._seal.event["entries"]:
            self._counted[event["kind"]] += 1
        take = _TAKE.get(event["kind"])
        if take is not None:
            take(self, number, event)
        self._list(number, event, size)

    def finish(self) -> None:
        """Write what can be told only at the end. ProofError where the seal counts other entries than there are: what
        was looked up beforehand would not be all."""
        if self._counted != Counter(self._seal.event["counts"]):
            raise ProofError(
                f"the log holds {dict(sorted(self._counted.items()))}, and its seal counts "
                f"{dict(sorted(self._seal.event['counts'].items()))}; run fgtrac verify"
            )
        self._uses.finish()
        self._write_metrics()
        self._write_entries()
        self._write_samples()

    def _use(self, number: int, event: Mapping[str, Any]) -> None:
        self._uses.add(number, event, self._registry, self._roles)

    def _role(self, number: int, event: Mapping[str, Any]) -> None:
        mine, code = self._registry.numbers(number, event), ROLES[event["role"]]
        self._roles[mine] = code
        n = len(mine)
        role = words(np.full(n, code - 1), list(ROLES))
        self._files["roles"].add(sample=mine, entry=np.full(n, number), time=_times([event["time"]] * n), role=role)

    def _transform(self, number: int, event: Mapping[str, Any]) -> None:
        if "dropped" in event:
            self._dropped[self._registry.numbers(number, event, "dropped")] = True
        if "children" in event:
            children = {"block": event["child_block"], "children": event["children"]}
            parents = self._registry.numbers(number, event, "parents")
            self._pairs.append((parents, self._registry.numbers(number, children, "children")))

    def _erasure(self, number: int, event: Mapping[str, Any]) -> None:
        self._erased[self._registry.numbers(number, event)] = True

    def _checkpoint(self, number: int, event: Mapping[str, Any]) -> None:
        standing = self._timeline.standing(event["writer"], event["seq"])
        self._files["checkpoints"].add(
            entry=[number], time=_times([event["time"]]), step=[event["step"]], epoch=[event.get("epoch")],
            val_loss=[event.get("val_loss")], learning_rates=[event.get("learning_rates")],
            digest=[event["digest"].hex() if "digest" in event else None], kept=[event["kept"]],
            standing=_same(standing, 1), rule=[event["rule"]], writer=_same(event["writer"].hex(), 1),
        )  # fmt: skip

    def _metrics(self, number: int, event: Mapping[str, Any]) -> None:
        said = (number, event["time"], event["step"])
        self._logged += [(*said, name, float(value)) for name, value in event["values"].items()]
        if len(self._logged) >= AT_ONCE:
            self._write_metrics()

    def _contribution(self, number: int, event: Mapping[str, Any]) -> None:
        mine, said = self._about(number, event)
        standing, scores = said["standing"], event["scores"]
        if event["target"] == TARGET and standing == "kept":
            n = len(self._registry)
            sums, some = self._sums.setdefault(event["method"], (np.zeros(n), np.zeros(n, bool)))
            np.add.at(sums, mine, scores.astype(np.float64))
            some[mine] = True
        n = len(mine)
        said |= {"standing": _same(standing, n), "target": _same(event["target"], n)}
        self._files["contributions"].add(**said, method=_same(event["method"], n), score=scores)

    def _prediction(self, number: int, event: Mapping[str, Any]) -> None:
        mine, said = self._about(number, event)
        n = len(mine)
        np.add.at(self._predictions, mine, np.uint32(1))
        outputs = event["outputs"].reshape(n, -1) if "outputs" in event and n else None
        self._files["predictions"].add(
            **{name: said[name] for name in ("sample", "entry", "checkpoint", "step")},
            loss=event.get("losses", [None] * n), outputs=[None] * n if outputs is None else lists(outputs),
        )  # fmt: skip

    def _attention(self, number: int, event: Mapping[str, Any]) -> None:
        mine, said = self._about(number, event)
        m, n = len(event["modalities"]), len(mine)
        many = {name: np.repeat(said[name], m) for name in ("sample", "entry", "step")}
        checkpoint = np.full(n * m, said["checkpoint"][0]) if n else np.empty(0, np.uint64)
        modality = words(np.tile(np.arange(m), n), list(event["modalities"]))
        standing = _same(said["standing"], n * m)
        self._files["attention"].add(
            **many, checkpoint=checkpoint, modality=modality, weight=event["weights"], standing=standing
        )

    def _about(self, number: int, event: Mapping[str, Any]) -> tuple[NDArray[np.uint32], dict[str, Any]]:
        """The samples that an entry about a model state names, and the columns that such entries share; with what
        became of the state. ProofError where it is no checkpoint."""
        mine = self._registry.numbers(number, event)
        n = len(mine)
        said: dict[str, Any] = {
            "sample": mine,
            "entry": np.full(n, number),
            "step": np.full(n, event["step"], np.uint64),
        }
        if "checkpoint" not in event:
            return mine, said | {"checkpoint": [None] * n, "standing": None}
        writer, seq = event["checkpoint"]
        if (writer, seq) not in self._standings:
            self._standings[writer, seq] = self._timeline.standing(writer, seq)
        standing = self._standings[writer, seq]
        return mine, said | {"checkpoint": np.full(n, self._checkpoints[writer, seq]), "standing": standing}

    def _list(self, number: int, event: Mapping[str, Any], size: int) -> None:
        step = event.get("step", _MISSING)
        if event["kind"] == "use":
            known = step[step != np.uint64(_MISSING)]
            step = int(known.max()) if len(known) else _MISSING
        self._listed.append((number, event["kind"], event["time"], event["writer"], event["seq"], step, size))
        if len(self._listed) == AT_ONCE:
            self._write_entries()

    def _write_metrics(self) -> None:
        if not self._logged:
            return
        entry, time, step, name, value = zip(*self._logged, strict=True)
        self._logged = []
        self._files["metrics"].add(entry=entry, time=_times(time), step=step, name=_words(name), value=value)

    def _write_entries(self) -> None:
        if not self._listed:
            return
        number, kind, time, writer, seq, step, size = zip(*self._listed, strict=True)
        self._listed = []
        steps = np.array(step, np.uint64)
        self._files["entries"].add(
            number=number, kind=_words(kind), time=_times(time), writer=_words([w.hex() for w in writer]), seq=seq,
            step=optional(steps, steps == np.uint64(_MISSING)), size=size,
        )  # fmt: skip

    def _write_samples(self) -> None:
        """The `samples` view, some rows at a time."""
        known, counts, n = self._registry, self._uses.counts, len(self._registry)
        method = METHOD if METHOD in self._sums else min(self._sums, default="")
        sums, some = self._sums.get(method, (np.zeros(n), np.zeros(n, bool)))
        is_used = (counts.uses > 0) | (counts.neighbours > 0)
        through = used_through(kin_of(self._pairs), is_used, counts.perhaps > 0)
        for start in range(0, n, AT_ONCE):
            here = slice(start, min(start + AT_ONCE, n))
            unused = ~is_used[here]
            self._files["samples"].add(
                sample=np.arange(here.start, here.stop, dtype=np.uint32), id=hexes(known.ids[here]),
                dataset=words(known.dataset[here], known.datasets),
                subject=hexes(known.subjects[here], known.no_subject[here]),
                role=words(self._roles[here].astype(np.int8) - 1, list(ROLES)), dropped=self._dropped[here],
                uses=counts.uses[here], perhaps=counts.perhaps[here], neighbours=counts.neighbours[here],
                through=words(through[here], list(WORDS)),
                deliveries=counts.deliveries[here], predictions=self._predictions[here],
                first_step=optional(counts.first_step[here], unused),
                last_step=optional(counts.last_step[here], unused),
                contribution=optional(sums[here], ~some[here]),
                contribution_method=words(some[here].astype(np.int8) - 1, [method]),
                content=hexes(known.contents[here], known.no_content[here]), registered=known.registered[here],
                erased=self._erased[here],
            )  # fmt: skip


_TAKE: dict[str, Callable[[_Builder, int, Mapping[str, Any]], None]] = {
    "use": _Builder._use, "roles": _Builder._role, "transform": _Builder._transform, "erasure": _Builder._erasure,
    "checkpoint": _Builder._checkpoint, "metrics": _Builder._metrics, "contribution": _Builder._contribution,
    "prediction": _Builder._prediction, "attention": _Builder._attention,
}  # fmt: skip


def _words(texts: Sequence[str]) -> Any:
    """Texts of which many are equal."""
    code = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    return words(np.array([code[text] for text in texts], np.int32), list(code))


def _same(text: str, n: int) -> Any:
    """One text n times."""
    return words(np.zeros(n, np.int8), [text])


def _times(nanoseconds: Any) -> NDArray[np.int64]:
    """Times of entries in microseconds."""
    return (np.asarray(nanoseconds, np.uint64) // _US).astype(np.int64)
