"""The verbs that hand a run the batches it trains on: a loader's, or a whole graph at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from weakref import WeakSet

from torch.utils.data import DataLoader

from fgtrac.api.orders import Orders
from fgtrac.api.registering import Registering
from fgtrac.capture import node_loader
from fgtrac.capture.batch import Batch
from fgtrac.capture.envelope import Key
from fgtrac.capture.full_batch import FullBatch, SeedPasses
from fgtrac.capture.graph import GraphNodes, Nodes, adds_nodes, is_node_loader, node_count
from fgtrac.capture.hops import MOST_HOPS, SampledNodes
from fgtrac.capture.loader import watch_loader
from fgtrac.capture.prepared import innermost
from fgtrac.capture.recorder import Recorder
from fgtrac.capture.step import Grounding
from fgtrac.capture.streams import Stream, behind_pipeline
from fgtrac.capture.use_entries import Places
from fgtrac.capture.watches import Watch, check_free, find_watch
from fgtrac.errors import CaptureError


class Watching(Registering):
    """Takes loaders and whole graphs, and knows each by its number."""

    path: Path
    _recorder: Recorder
    _grounding: Grounding
    _orders: Orders
    _watches: dict[int, tuple[Watch, Places]]
    _loaders: WeakSet[DataLoader[Any]]
    _loader_numbers: Iterator[int]
    _next_passes: Mapping[int, int] = MappingProxyType({})  # loader -> its first pass, where the run goes on
    _full_batches: dict[tuple[Any, ...], SeedPasses]
    _strict: bool
    _check_training: Callable[[str], None]
    _said_unrecorded: frozenset[str] = frozenset()
    _has_said_miscounted = False
    _said_unnamed: frozenset[int] = frozenset()  # loaders
    _row_watches: Mapping[tuple[int, str | None], Watch] = MappingProxyType({})

    def watch(
        self,
        loader: DataLoader[Any],
        role: str | None = None,
        *,
        whole: bool = False,
        key: Key | None = None,
        name: str | None = None,
    ) -> DataLoader[Any]:
        """Watch a DataLoader: every batch that it delivers is accounted for.

        Registers the data set behind it if that has not been done, and its role. Without a role here, the roles
        registered for its samples tell whether it trains. Returns the same loader. Of PyG's `NodeLoader` (and its
        kinds, such as `NeighborLoader`) the graph is registered, the role is its seed nodes', and each batch is
        recorded with its seeds and with the neighbours of each hop. Other loaders that are built around the same data
        set, or around the same seed nodes of the same graph, are followed like this one. What Accelerate has prepared
        is watched after `prepare`, and counts as delivered what it hands to the loop.

        A batch that holds another number of samples than were drawn for it, since a collate function dropped some, or
        laid them together, is recorded as holding at most these, and a RuntimeWarning says so; `whole` says that the
        loader's batches hold all samples that are drawn for them, whatever their shapes look like.

        Of an iterable-style data set (and a `webdataset.WebLoader` around such a loader) the samples are named as they
        come, by `key(sample)`: a number, text, bytes or a tuple of these; where the data set yields ready batches, a
        list of them. Without `key` that is (`__url__`, `__key__`) of WebDataset's samples, and otherwise the content of
        what the data set yields, which must then not change at random. They are registered block by block under `name`
        (by default the data set's type), with `role`. See docs/streams.md for what a stream costs, and its limits.

        Raises TypeError for what is no DataLoader, and for graphs of several node types; CaptureError where this torch
        is not known, where another open run watches the loader or its data set, and for PyG's loaders of other things
        than seed nodes or graphs, for a graph that has an attribute `n_id`, for a transform that adds nodes, and for a
        graph whose number of nodes has changed. The loop then gets a CaptureError for a batch of a graph that does not
        begin with the seeds that were drawn. An iterator that was begun before, a deep copy of the loader and
        `loader(index)` deliver unrecorded: a `gap` entry and a RuntimeWarning say so (in a strict run CaptureError).
        So do they where a sampler draws what is no row of the data set, and where a stream's sample has no key or no
        canonical bytes: the loop gets its batch, whose samples are not recorded as used.
        """
        self._check_training("watch()")
        given, loader = loader, behind_pipeline(loader)
        if not isinstance(loader, DataLoader):
            raise TypeError(f"watch() takes a torch DataLoader, not {type(loader).__name__}; pass the loader itself")
        loader = innermost(loader)
        check_free(loader, self._grounding)
        if loader._dataset_kind != 0:
            self._watch_stream(loader, role, key, name, whole)
            return given
        if key is not None or name is not None:
            raise ValueError(
                "key= and name= of watch() are for iterable-style data sets; pass them to register() first"
            )
        rows: Any = loader.dataset
        positions, sampled = rows, None
        if is_node_loader(loader):
            node_loader.install()
            if adds_nodes(loader.transform):  # type: ignore[attr-defined]
                raise CaptureError("the loader's transform adds a node that is none of the graph's (VirtualNode)")
            rows = GraphNodes(loader.data, loader.input_data.node)  # type: ignore[attr-defined]
            positions, sampled = rows.data, SampledNodes(rows)
        self.register(rows, role=role)
        if loader in self._loaders:
            return given  # watched already: the role is added, and the batches are not counted twice
        self._loaders.add(loader)
        watch = self._new_watch(rows, positions, role, sampled)
        watch.miscounted = None if whole else self._say_miscounted
        watch.unnamed = self._say_unnamed
        watch_loader(loader, watch)
        return given

    def _watch_stream(
        self, loader: DataLoader[Any], role: str | None, key: Key | None, name: str | None, whole: bool
    ) -> None:
        """Watch an iterable-style loader. ValueError for another role or name than it is watched under, and for a name
        that is taken."""
        known = find_watch(loader)
        if known is not None and known.stream is not None:
            if role not in (None, known.stream.role) or name not in (None, known.stream.name):
                raise ValueError(f"this stream is watched as {known.stream.name!r}, {known.stream.role}; it stays so")
            return
        stream = Stream(self._registry, self._registry.free_stream_name(loader.dataset, name), role, key)
        number = next(self._loader_numbers)
        trains, passes = role in (None, "train"), self._orders.of_stream()
        watch = Watch(self._grounding, number, 0, trains, passes, self.path.name, self._say_unrecorded, stream=stream)
        watch.epochs = self._next_passes.get(number, 0)
        watch.miscounted = None if whole else self._say_miscounted
        watch.unnamed = self._say_unnamed
        self._watches[number] = watch, stream
        watch_loader(loader, watch)
        stream.wrap(loader)

    def full_batch(self, data: Any, nodes: Nodes = None, *, hops: int, role: str | None = None) -> FullBatch:
        """Train on a whole graph: iterate over what comes back, in each epoch; it delivers `data` itself, once.

            for batch in run.full_batch(data, "train_mask", hops=3, role="train"):
                loss = cross_entropy(model(batch.x, batch.edge_index)[batch.train_mask], batch.y[batch.train_mask])

        `nodes` are those whose loss is taken, as `GraphNodes` takes them, and are looked at again as each pass begins:
        where a mask has changed, the new seeds get `role` and are recorded. `hops` is how many message-passing steps
        the model makes. Each use is recorded with these seeds, with the neighbours at each hop, and at hop `hops` + 1
        with all other nodes, which the model receives although no message of theirs reaches a seed. Called again with
        the same arguments it goes on with the next pass. Registers graph and role as `watch` does.
        ValueError and TypeError as `GraphNodes`; ValueError for `hops` below 1 or above 1000; CaptureError for a graph
        whose number of nodes has changed, also as a pass begins.
        """
        self._check_training("full_batch()")
        if type(hops) is not int or not 1 <= hops <= MOST_HOPS:
            raise ValueError(f"hops={hops!r} is no number of message-passing steps; give 1 to {MOST_HOPS}")
        return FullBatch(lambda: self._seed_passes(data, nodes, hops, role))

    def _seed_passes(self, data: Any, nodes: Nodes, hops: int, role: str | None) -> SeedPasses:
        """The passes for the nodes that `nodes` selects now: other seeds are another loader."""
        chosen = GraphNodes(data, nodes)
        known = id(data), node_count(data), chosen.numbers.tobytes(), hops, role
        if known not in self._full_batches:
            self.register(chosen, role=role)
            self._full_batches[known] = SeedPasses(self._new_watch(chosen, data, role), chosen, hops)
        return self._full_batches[known]

    def _watch_rows(self, rows: Any, role: str | None) -> Watch:
        """The watch of registered rows whose batches an adapter delivers itself, pass by pass: one for each role."""
        known = id(rows), role
        if known not in self._row_watches:
            self._row_watches = {**self._row_watches, known: self._new_watch(rows, rows, role)}
        return self._row_watches[known]

    def _new_watch(self, rows: Any, positions: Any, role: str | None, sampled: SampledNodes | None = None) -> Watch:
        """One more loader, that draws `rows`, and whose batches are recorded as positions of `positions`: of a graph,
        where its batches name nodes."""
        resolved = self._registry.resolve(rows)
        placement = resolved.placement
        trains = self._registry.roles.may_train(resolved) if role is None else role == "train"
        orders = self._orders.of_loader(resolved, placement)
        number, count = next(self._loader_numbers), len(placement.ordinals)
        watch = Watch(self._grounding, number, count, trains, orders, self.path.name, self._say_unrecorded, sampled)
        watch.epochs = self._next_passes.get(number, 0)
        self._watches[number] = watch, placement if positions is rows else self._registry.resolve(positions).placement
        return watch

    def _say_unrecorded(
        self, what: str, remedy: str = "begin the loop after watch(), over the loader that it returns"
    ) -> None:
        """Something that nobody follows delivers batches of watched data: say so, the first time."""
        reason = f"{what} delivers batches of watched data, and they are not recorded"
        if self._strict:
            raise CaptureError(f"{reason}; {remedy}")
        if what not in self._said_unrecorded:
            self._said_unrecorded |= {what}
            self._recorder.record("gap", {"reason": reason})
            warnings.warn(f"fgtrac: {reason}; {remedy}", RuntimeWarning, stacklevel=4)

    def _say_unnamed(self, loader: int, error: CaptureError) -> None:
        """Nobody can tell which samples a batch holds: `error` in a strict run; else say so, the first time. The log
        does not hold what may be somebody's name."""
        if self._strict:
            raise error
        if loader not in self._said_unnamed:
            self._said_unnamed |= {loader}
            reason = f"batches of loader {loader} hold samples that nobody can tell, and these are not recorded as used"
            self._recorder.record("gap", {"reason": reason})
            warnings.warn(f"fgtrac: {reason}: {error}", RuntimeWarning, stacklevel=5)

    def _say_miscounted(self, batch: Batch) -> None:
        """A collate function left samples out of a batch, or laid them together: say so, the first time."""
        if not self._has_said_miscounted:
            self._has_said_miscounted = True
            warnings.warn(
                f"fgtrac: batch {batch.number} of epoch {batch.iteration.epoch} (loader {batch.iteration.loader}) was "
                f"drawn as {len(batch.positions)} samples and holds another number, so that nobody can tell which of "
                "them took part: such batches are recorded as holding at most these. Drop samples before they are "
                "drawn (run.transform(...).filter), or, if the batch holds them all, say watch(loader, whole=True)",
                RuntimeWarning,
                stacklevel=4,
            )
