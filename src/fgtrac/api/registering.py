"""The verb that registers data, for whoever takes it: a run that records, or data that are held against a log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fgtrac.capture.graph import GraphNodes, Nodes, is_graph
from fgtrac.capture.row_keys import Keys
from fgtrac.capture.sources import Registry
from fgtrac.capture.tables import check_settled


class Registering:
    """Takes data sets into its registry."""

    _registry: Registry

    def register(
        self,
        data: Any,
        nodes: Nodes = None,
        *,
        role: str | None = None,
        name: str | None = None,
        key: Keys = None,
        subject: Keys = None,
        content: bool = True,
        source: Callable[[int], bytes] | None = None,
        rows: Any = None,
        engine: str | None = None,
    ) -> None:
        """Register the samples of the data set(s) behind `data`, and their role.

        The samples of a graph (a PyG `Data`) are its nodes, all of them; `nodes` says which have the role, as
        `GraphNodes` takes them. `name` names the root data set (by default its type, or "graph"); `key` and `subject`
        are a function of the row, a column's or a graph attribute's name, or a sequence (a subject is a text or a whole
        number; None is nobody's sample, which is then named under the run's key); `source(row)` gives the bytes that a
        content digest is taken from where fgtrac does not know them; `content=False` takes none. `rows` is other
        registered data, such as a table, whose row i is row i of `data`: then its samples are those. Registering the
        same data set again adds the role only. `engine` ("local:N", "ray", ...) gives contents that lie in files to
        workers, with the same digests: files that an image folder lists, an array of `numpy.load(mmap_mode="r")`, a
        Dataset of `datasets` as it was loaded. By default, and of other data always, this process reads them.
        Raises ValueError for a taken name, a second graph without one, keys that collide, options for a data set that
        is registered already, and for samples of an erased subject; TypeError for a graph of several node types and for
        a DatasetDict; CaptureError for a source file that cannot be read, and for rows that a batched `map` made of
        registered ones; of data that are held against a log ValueError, where it registers other samples, or other
        contents, under that name. A source without canonical bytes is a RuntimeWarning and a `gap` entry, in a strict
        run a CaptureError.
        """
        if nodes is not None or is_graph(data):
            data = GraphNodes(data, nodes)
        if rows is not None:
            check_settled(rows)
            self._registry.adopt(data, self._registry.resolve(rows))
        self._registry.register(
            data, role=role, name=name, key=key, subject=subject, content=content, source=source, engine=engine
        )
