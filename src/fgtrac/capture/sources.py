"""Naming samples: data sets and views resolved to their root rows, and keys to ids."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset, Subset

from fgtrac.capture.adopted import Adopted
from fgtrac.capture.beside import holds_more
from fgtrac.capture.blocks import Block, Room, WayBack, content_ids, name_block
from fgtrac.capture.content_units import digests_by
from fgtrac.capture.contents import UndigestedError, source_digests
from fgtrac.capture.graph import GraphNodes, is_graph, node_count
from fgtrac.capture.hf_rows import HfRows, choose, is_hf_dataset, table_root
from fgtrac.capture.recorder import Recorder
from fgtrac.capture.returned import Returned, check_subjects, scope_of
from fgtrac.capture.roles import Roles
from fgtrac.capture.roots import Resolved, Root
from fgtrac.capture.row_keys import Keys, count_rows, keys_of, keys_of_block
from fgtrac.capture.sample_ids import IdKeys, Progress
from fgtrac.capture.tables import check_settled, check_unchanged, mark_of, settled
from fgtrac.capture.turns import Turns, alone, check_same
from fgtrac.engine.opening import open_engine
from fgtrac.errors import CaptureError
from fgtrac.events.sample_names import check_dataset_name, kind_of_keys

Secrets = Callable[[str], bytes]  # scope -> 32 secret bytes, made on first use and kept in the vault


class Registry:
    """The data sets of one run: every root is registered once, whoever comes across it first.

    `before` is what the log of a resumed run has under each name: the block, and the SHA-256 over the content digests
    in the order of the ids, where there are any. With `adds` false nothing is written: what is registered must be in
    `before`. `room(rows)` is where so many ids are put, (rows, 32) uint8; `progress(rows)` is told how naming so many
    samples goes. With `digests` false no contents are read: data are known by their ids. `engine` names where contents
    are digested; None is this process."""

    def __init__(
        self,
        recorder: Recorder,
        scheme: str,
        secrets: Secrets,
        way_back: WayBack,
        before: Mapping[str, tuple[bytes, bytes | None]] | None = None,
        returned: Returned | None = None,
        *,
        adds: bool = True,
        digests: bool = True,
        room: Room = lambda rows: np.empty((rows, 32), dtype=np.uint8),
        progress: Callable[[int], Progress | None] = lambda rows: None,
        engine: str | None = None,
    ) -> None:
        self.adds = adds
        self._digests, self.engine = digests, engine
        self.scheme = scheme
        self.turns: Turns = alone
        self._room = room
        self._progress = progress
        self._recorder = recorder
        self._secrets = secrets
        self._way_back = way_back
        self._roots: dict[int, Root] = {}  # by identity; the Root keeps its data set alive
        self._marks: dict[int, Any] = {}  # of roots that are tables: whether they were changed in place
        self._settled: dict[int, Any] = {}  # of roots that are lazy frames: what they were collected to
        self._adopted = Adopted()
        self._hf = HfRows()
        self._taken: set[str] = set()
        self._promised: set[str] = set()  # to streams of which no sample has come
        self._streams: dict[str, bool] = {}  # name -> whether its blocks have digests of the samples
        self._before = before or {}
        self._returned = returned
        self.roles = Roles(recorder, adds=adds)

    def resolve(self, data: Any) -> Resolved:
        """Rows of roots behind every position of `data`, through Subset, ConcatDataset and views of them. The root of
        nodes is their graph.

        Registers a root that is not yet known under its type's name. CaptureError for a graph that has another number
        of nodes than it was registered with.
        """
        numbers: dict[int, int] = {}
        roots: list[Root] = []

        def walk(part: Any) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
            if isinstance(part, GraphNodes):
                which, rows = walk(part.data)
                return which[part.numbers], rows[part.numbers]
            if (adopted := self._adopted.find(part)) is not None:
                return place(adopted)
            if is_hf_dataset(part):
                return place(self._of_hf(part))
            if isinstance(part, Subset):
                which, rows = walk(part.dataset)
                indices = np.asarray(part.indices, dtype=np.int64)
                return which[indices], rows[indices]
            if isinstance(part, ConcatDataset):
                pieces = [walk(p) for p in part.datasets]
                return np.concatenate([p[0] for p in pieces]), np.concatenate([p[1] for p in pieces])
            root = self._roots.get(id(part)) or self.register_root(part)
            if is_graph(part) and (count := node_count(part)) != len(root):
                raise CaptureError(
                    f"the graph {root.name} has {count} nodes, and was registered with {len(root)}; register it when "
                    "it is whole, or the changed one as a copy with a name= of its own"
                )
            check_unchanged(part, self._marks.get(id(part)))
            return np.full(len(root), number_of(root), dtype=np.uint16), np.arange(len(root), dtype=np.int64)

        def place(known: Resolved) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
            numbered = np.array([number_of(root) for root in known.roots], dtype=np.uint16)
            return numbered[known.which], known.rows

        def number_of(root: Root) -> int:
            number = numbers.setdefault(id(root), len(roots))
            if number == len(roots):
                roots.append(root)
            return number

        which, rows = walk(data)
        return Resolved(tuple(roots), which, rows)

    def _of_hf(self, data: Any) -> Resolved:
        """The samples that a data set of `datasets` has; its root is that of all rows of its table."""
        if (root := self._roots.get(id(data))) is not None:
            return root.whole()
        if (known := self._hf.find(data)) is not None:
            return known
        found = choose(self.register_root(table_root(data)).whole(), data)
        if self._hf.find(data) is None:  # of nothing but nulls, which lie nowhere
            self._adopted.add(data, found)
        return found

    def adopt(self, data: Any, resolved: Resolved) -> None:
        """Row i of `data` is the sample at position i of `resolved`, from now on: what a stage made of known samples,
        and a data set over a table's rows. ValueError for another number of rows, and for data registered already."""
        if id(data) in self._roots or data in self._adopted:
            raise ValueError(f"this {type(data).__name__} is registered already; say whose rows it has once, first")
        check_settled(data)
        if (rows := count_rows(data) if len(resolved.rows) else len(data)) != len(resolved.rows):
            raise ValueError(f"this {type(data).__name__} has {rows} rows, and its samples are {len(resolved.rows)}")
        if is_hf_dataset(data):
            self._hf.adopt(data, resolved)
        self._adopted.add(data, resolved)

    def rows_of(self, table: Any) -> Any:
        """The table as its samples were registered: of a lazy frame what it was collected to then."""
        return self._settled.get(id(table), table)

    def roots_of(self, data: Any) -> list[Any]:
        """The root data sets behind `data`, in order, each once."""
        if (adopted := self._adopted.find(data)) is not None:
            return [root.data for root in adopted.roots]
        if is_hf_dataset(data) and id(data) not in self._roots:
            known = self._hf.find(data)
            return [table_root(data)] if known is None else [root.data for root in known.roots]
        if isinstance(data, GraphNodes):
            return [data.data]
        if isinstance(data, Subset):
            return self.roots_of(data.dataset)
        if isinstance(data, ConcatDataset):
            return list({id(r): r for p in data.datasets for r in self.roots_of(p)}.values())
        return [data]

    def is_registered(self, root: Any) -> bool:
        """Whether this very object has been registered as a root."""
        return id(root) in self._roots

    def is_taken(self, name: str) -> bool:
        """Whether a data set has that name."""
        return name in self._taken

    def is_known(self, data: Any) -> bool:
        """Whether the samples of this very object are registered, under its own name or as others'."""
        if id(data) in self._roots or data in self._adopted:
            return True
        return is_hf_dataset(data) and not self._hf.is_partly_known(data) and self._hf.find(data) is not None

    def continue_from(self, earlier: Registry) -> None:
        """What an earlier run of this process registered in the same trace is registered here, too."""
        self._roots |= earlier._roots
        self._adopted.take_over(earlier._adopted)
        self._marks |= earlier._marks
        self._settled |= earlier._settled
        self._hf = earlier._hf
        self.roles.take_over(earlier.roles)
        self._taken |= earlier._taken
        self._streams |= earlier._streams

    def registered(self) -> list[Root]:
        """All roots, in the order of their registration."""
        return list(self._roots.values())

    def register(
        self, data: Any, *, role: str | None, content: bool, engine: str | None = None, **options: Any
    ) -> None:
        """Register the roots behind `data` that are new, and the role of its samples; `options` (None: not given) and
        errors as `Run.register`."""
        given = [k for k, v in options.items() if v is not None]
        is_own = is_hf_dataset(data) and options.get("name") is not None and self._hf.is_partly_known(data)
        roots = [table_root(data)] if is_own else self.roots_of(data)
        new = [r for r in roots if not self.is_registered(r)]
        if given and (len(roots) != 1 or not new):
            what = "is registered already" if not new else f"is made of {len(roots)} data sets"
            raise ValueError(f"{', '.join(given)}= was given, but this data set {what}; register each root once, first")
        for root in new:
            self.register_root(root, content=content, engine=engine, **options)
        if role is not None and (whole := self._roots.get(id(data))) is not None and not is_graph(data):
            self.roles.give(whole.block, slice(None), role)  # without a number for each row
        elif role is not None:
            self.roles.record(self.resolve(data), role)

    def register_root(
        self,
        data: Any,
        *,
        name: str | None = None,
        key: Keys = None,
        subject: Keys = None,
        content: bool = True,
        source: Callable[[int], bytes] | None = None,
        engine: str | None = None,
    ) -> Root:
        """Name every row of `data` and write its `dataset` and `samples` entries.

        Raises ValueError for a data set without a length, a name that is taken, is read as something else, or had other
        samples or contents before the run was resumed, two rows with one key, or an erased subject's; TypeError for
        what is no key or subject; EngineError where workers of `engine` are lost.
        """
        there = settled(data)
        rows = count_rows(there)
        names = self._free_names(data, name)
        check_dataset_name(names[0])
        keys = keys_of(there, key, rows, "key")
        subjects = None if subject is None else keys_of(there, subject, rows, "subject")
        check_subjects(subjects or ())
        if self._returned is not None:
            self._returned.check(names, [self._before[n][0] for n in names if n in self._before], subjects)
        with self.turns(names[0]) as turn:
            keyed = self._id_keys(subjects)
            described, digests = (
                self._digest(names[0], there, rows, source, engine) if content and self._digests else (None, None)
            )
            contents = None if digests is None else content_ids(keyed, digests, self._room)
            del digests
            for called in names:  # one, unless a trace that has several is only added to
                block = name_block(called, keys, keyed, contents, subjects, self._room, self._progress(rows))
                if not (differs := self._difference(block)):
                    break
            self._check_same(data, rows, names, differs)
            check_same(called, turn.difference(block.id, block.content_digest))
            if self.adds and turn.elsewhere is None:
                block.keep(self._way_back)
                said = {"name": called, "id_scheme": keyed.scheme, "rows": rows, "keys": kind_of_keys(keys)}
                said |= {"content": described} if described is not None else {}
                said |= {"beside": True} if holds_more(there, rows, described) else {}
                self._recorder.record("dataset", said)
                block.write(self._recorder)
                turn.done(block.id, block.content_digest)
        root = self._roots[id(data)] = block.root(data)
        self._marks[id(data)] = mark_of(data)
        if there is not data:
            self._settled[id(data)] = there
        if is_hf_dataset(data) and table_root(data) is data:
            self._hf.add(data, root)
        self.roles.begin(block.id, rows)
        self._taken.add(called)
        return root

    def free_stream_name(self, data: Any, name: str | None) -> str:
        """The name that a stream is registered under: the given one, or one made of the type of `data`. ValueError
        for one that is taken, or is read as something else."""
        if name is None:
            base = type(data).__name__
            numbered = itertools.chain([base], (f"{base}-{number}" for number in itertools.count(2)))
            name = next(one for one in numbered if one not in self._taken and one not in self._promised)
        elif name in self._taken or name in self._promised:
            raise ValueError(f"a data set named {name!r} is registered already; give this stream another name=")
        check_dataset_name(name)
        self._promised.add(name)
        return name

    def add_block(
        self,
        name: str,
        keys: Sequence[Any] | None = None,
        *,
        digests: NDArray[np.uint8] | None = None,
        content: str = "sample",
    ) -> Root:
        """Register the next samples of a stream as one more block of the data set `name`; the root of this block, whose
        row i is the sample of `keys[i]`, or of `digests[i]` where there are no keys.

        `digests` is (n, 32) uint8, SHA-256 of each sample's source bytes, and `content` says of what. A key that an
        earlier block has is the same sample again: the log bears that, and pays 32 bytes for it. A block that is there
        already is not written again. ValueError for a name that a data set has, no samples, two with one key, and a
        block with digests where those before had none (or the other way round); TypeError for what is no key; and
        ValueError where nothing is added to the trace.
        """
        if not self.adds:
            raise ValueError(f"the samples of the stream {name!r:.60} were registered as they came, and only then")
        if name in self._taken and name not in self._streams:
            raise ValueError(f"a data set named {name!r} is registered already; give this stream another name=")
        named = keys_of_block(name, keys, digests)
        if self._streams.get(name, digests is not None) != (digests is not None):
            raise ValueError(f"the stream {name!r:.60} has blocks with digests of its samples, and others without")
        keyed = self._id_keys(None)
        contents = None if digests is None else content_ids(keyed, digests, self._room)
        block = name_block(name, named, keyed, contents, None, self._room)
        if name not in self._streams:
            self._begin_stream(name, named, None if digests is None else content)
        if block.id not in self.roles:
            block.keep(self._way_back)
            block.write(self._recorder)
            self.roles.begin(block.id, len(named))
        return block.root(None)

    def _begin_stream(self, name: str, keys: Sequence[Any], content: str | None) -> None:
        check_dataset_name(name)
        said = {"name": name, "id_scheme": self.scheme} | ({} if content is None else {"content": content})
        if kind_of_keys(keys) == "names":  # of numbers, nobody knows what the next blocks bring
            said["keys"] = "names"
        self._recorder.record("dataset", said)
        self._taken.add(name)
        self._streams[name] = content is not None

    def _free_names(self, data: Any, name: str | None) -> list[str]:
        """The name to register under; where nothing is added, those of the trace that may be meant."""
        if name is not None:
            if name in self._taken:
                raise ValueError(f"a data set named {name!r} is registered already; give this one another name=")
            return [name]
        base = "graph" if is_graph(data) else type(data).__name__
        if self.adds and is_graph(data) and any(is_graph(root.data) for root in self.registered()):
            raise ValueError(
                f"this graph of {node_count(data)} nodes is another object than the registered one, so that its nodes "
                "would be other samples, without the roles of those: a transform may have made a copy. Register the "
                "graph that is trained on, or, if it is a second graph, register it with a name= first"
            )
        numbered = (base if number == 1 else f"{base}-{number}" for number in itertools.count(1))
        if self.adds:
            return [next(n for n in numbered if n not in self._taken)]
        there = itertools.takewhile(lambda n: n in self._before, numbered)
        return [n for n in there if n not in self._taken] or [base]

    def _difference(self, block: Block) -> str:
        """What the trace had else under that name, in a word."""
        if block.name not in self._before:
            return "" if self.adds else "no data set"
        earlier, digest = self._before[block.name]
        if earlier != block.id:
            return "other samples"
        if digest is None or block.contents is None or block.content_digest() == digest:
            return ""
        return "other contents"

    def _check_same(self, data: Any, rows: int, names: Sequence[str], differs: str) -> None:
        """ValueError where the trace has something else under the name."""
        if not differs:
            return
        if self.adds:
            raise ValueError(
                f"data set {names[0]!r} was registered with {differs} before this run was resumed; "
                "register the same data, or give it another name="
            )
        there = ", ".join(map(repr, self._before)) or "none"
        raise ValueError(
            f"the trace has {differs} as {' or '.join(map(repr, names))}, which is not this {type(data).__name__} of "
            f"{rows} rows; it has {there:.200}: register the same data under the same name= first"
        )

    def _digest(
        self, name: str, data: Any, rows: int, source: Callable[[int], bytes] | None, engine: str | None
    ) -> tuple[str | None, NDArray[np.uint8] | None]:
        """`source_digests`; where there can be none, the data set is registered without, and that is said."""
        try:
            if (named := engine or self.engine) is None:
                return source_digests(data, rows, source)
            with open_engine(named) as opened:
                return digests_by(opened, data, rows, source)
        except UndigestedError as error:
            if self.adds:
                self._recorder.miss(f"the contents of data set {name!r} cannot be digested: {error}", error)
            return None, None

    def _id_keys(self, subjects: Sequence[Any] | None) -> IdKeys:
        if subjects is None:
            return IdKeys(self.scheme, [b"" if self.scheme == "public" else self._secrets("run")])
        numbers: dict[Any, int] = {}
        owner = np.fromiter((numbers.setdefault(s, len(numbers)) for s in subjects), np.uint32, len(subjects))
        return IdKeys("subject", [self._secrets(scope_of(s)) for s in numbers], owner)
