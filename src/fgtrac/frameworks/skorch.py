"""Recording what a skorch net is fitted with: a callback.

    net = NeuralNetClassifier(Net, callbacks=[SkorchTrace("runs/moons")])

The samples are the rows of `X`. skorch reads no batch ahead: the batch that a callback is told of is the one delivered
last, and the callback declares it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import skorch
from skorch.callbacks import Callback
from torch.utils.data import DataLoader

from fgtrac.api.run import Run
from fgtrac.capture.batch import Batch
from fgtrac.capture.watches import Watch, find_watch
from fgtrac.errors import CaptureError
from fgtrac.frameworks.lasting_run import LastingRun, Where
from fgtrac.frameworks.places import Places

FIRST_VERSION, LAST_VERSION = (1, 1), (1, 4)


class SkorchTrace(Callback):  # type: ignore[misc]
    """Records each `fit` and `partial_fit` of a net: training samples get the role "train", those of its internal
    split "validation"; after each epoch the module's state is put on record with `monitor` of the net's history as its
    validation loss. Predictions are not recorded.

    At a path the trace is whole behind each fit, and the next one goes on in it; give an open run to a loop of many. A
    clone of the net records into the same trace; a copy of the callback, such as in another process, records nothing
    and says so.
    """

    def __init__(
        self, path_or_run: Where, monitor: str = "valid_loss", *, name: str | None = None, **options: Any
    ) -> None:
        """`path_or_run` and `options` as for `LightningTrace`. `name` is the data set's, of the first that is fitted;
        by default its type's. ValueError for options to a run that is open."""
        self.monitor = monitor
        self._lasting: LastingRun | None = LastingRun(path_or_run, options)
        self._is_strict = bool(options.get("strict"))
        self._places = Places()
        self._name = name
        self._rows: list[tuple[Any, Any]] = []  # an X, and the registered data whose rows are its
        self._watched: dict[int, tuple[Any, Watch]] = {}  # by the identity of the data set, which is kept
        self._newest: tuple[Batch, int] | None = None  # delivered; and which object it was
        self._updates_recorded = 0  # how many there were when a state was put on record
        self._said: set[str] = set()

    def __sklearn_clone__(self) -> SkorchTrace:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"monitor": self.monitor, "strict": self._is_strict}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.monitor, self._is_strict, self._lasting, self._said = state["monitor"], state["strict"], None, set()

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """For scikit-learn: what may be set."""
        return {"monitor": self.monitor}

    @property
    def run(self) -> Run | None:
        """The run that is recorded into, while a fit is under way."""
        return None if self._lasting is None else self._lasting.run

    # -- fits ---------------------------------------------------------------------------------------------------

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **_: Any) -> None:
        """A fit begins; one that is still open here did not get to its end."""
        if self._lasting is None:
            self._say_copy()
            return
        self._end(finished=False)
        run = self._lasting.open()
        self._updates_recorded = run._grounding.updates_made
        try:
            self._lasting.check_version("skorch", skorch.__version__, FIRST_VERSION, LAST_VERSION)
        except CaptureError:
            self._end(finished=False)
            raise
        self._follow(net)

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **_: Any) -> None:
        """It is over."""
        self._end(finished=True)

    def _follow(self, net: Any) -> None:
        """Be told where the fit that begins breaks off. A net is pickled and copied, also in a fit: what stands in it
        for that is gone as soon as it is called."""
        fit_loop = net.fit_loop

        def called(*args: Any, **kwargs: Any) -> Any:
            vars(net).pop("fit_loop", None)
            try:
                return fit_loop(*args, **kwargs)
            except BaseException:  # skorch goes on behind a KeyboardInterrupt as if the fit had ended
                self._end(finished=False)
                raise

        vars(net)["fit_loop"] = called

    def _end(self, *, finished: bool) -> None:
        if self.run is None or self._lasting is None:
            return
        self.run._grounding.declare_no_more()
        for _, watch in self._watched.values():
            watch.opener = None
        self._watched.clear()
        self._newest = None
        self._lasting.close(finished=finished)

    # -- epochs -------------------------------------------------------------------------------------------------

    def on_epoch_begin(self, net: Any, dataset_train: Any = None, dataset_valid: Any = None, **_: Any) -> None:
        """No iterator has been made yet: every loader around these data sets will be followed."""
        for data, role in ((dataset_train, "train"), (dataset_valid, "validation")):
            if data is not None and self.run is not None and id(data) not in self._watched:
                self._watch(self.run, data, role)

    def on_batch_begin(self, net: Any, batch: Any = None, training: bool | None = None, **_: Any) -> None:
        """What is computed from now on is about this batch."""
        if self.run is None or self._lasting is None:
            return
        known = self._newest is not None and self._newest[1] == id(batch)
        self.run._grounding.declare([self._newest[0]] if known and self._newest is not None else ())
        if training and self._newest is None and "iterator" not in self._said:
            self._said.add("iterator")
            self._lasting.miss("the batches of this net are not recorded; let iterator_train be a torch DataLoader")

    def on_batch_end(self, net: Any, **_: Any) -> None:
        """What other callbacks train from now on is not about the batch."""
        if self.run is not None:
            self.run._grounding.declare()

    def on_epoch_end(self, net: Any, dataset_train: Any = None, dataset_valid: Any = None, **_: Any) -> None:
        """Put the state after the epoch on record."""
        run = self.run
        if run is None:
            return
        if run._grounding.updates_made == self._updates_recorded:
            return
        self._updates_recorded = run._grounding.updates_made
        val_loss = None if dataset_valid is None else self._monitored(net)
        run.checkpoint(net.module_, net.optimizer_, val_loss=val_loss, epoch=len(net.history) - 1)

    # -- data ---------------------------------------------------------------------------------------------------

    def _watch(self, run: Run, data: Any, role: str) -> None:
        """Follow the loaders that the net will make around a data set."""
        assert self._lasting is not None
        probe = DataLoader(data)
        try:
            if probe._dataset_kind == 0:
                self._register(run, data)
            self._places.number_next(run, role)
            run.watch(probe, role=role)
        except CaptureError as error:
            self._lasting.miss(f"the {role} data are not recorded: {error}")
            return
        watch = find_watch(probe)
        assert watch is not None  # it was registered by now
        watch.opener = self._take
        self._watched[id(data)] = data, watch

    def _take(self, batch: Batch, data: Any) -> Any:
        self._newest = batch, id(data)
        return data

    def _register(self, run: Run, data: Any) -> None:
        """Register what is behind a data set: where skorch made it of an `X`, the samples are the rows of that."""
        for root in run._registry.roots_of(data):
            if run._registry.is_known(root):
                continue
            rows = getattr(root, "X", None) if isinstance(root, skorch.dataset.Dataset) else None
            earlier = next((known for X, known in self._rows if X is rows and rows is not None), None)
            if earlier is None and _are_rows(rows, len(root)):
                if not run._registry.is_known(rows):
                    run.register(rows, name=self._free_name())
                earlier = rows
            if earlier is not None:
                run.register(root, rows=earlier)
            else:
                run.register(root, name=self._free_name())
            if rows is not None:
                self._rows.append((rows, earlier if earlier is not None else root))

    def _free_name(self) -> str | None:
        name, self._name = self._name, None
        return name

    def _monitored(self, net: Any) -> float | None:
        last: Mapping[str, Any] = net.history[-1]
        value = float(last[self.monitor]) if self.monitor in last else None
        if value is not None and math.isfinite(value):
            return value
        if "monitor" not in self._said:
            self._said.add("monitor")
            found = f"is {value}" if value is not None else "is not in the net's history"
            there = ", ".join(sorted(name for name, entry in last.items() if isinstance(entry, float)))
            LastingRun.warn(
                f"{self.monitor!r} {found}, so the checkpoint has no validation loss; name another with monitor=: "
                f"{there}"
            )
        return None

    def _say_copy(self) -> None:
        words = (
            "this SkorchTrace is a copy, in another process or from a pickle, and records nothing; give the net one of "
            "its own, or fit with n_jobs=1"
        )
        if self._is_strict:
            raise CaptureError(words)
        if "copy" not in self._said:
            self._said.add("copy")
            LastingRun.warn(words)


def _are_rows(rows: Any, count: int) -> bool:
    """Whether row i of `rows` is sample i, so that it can be registered itself."""
    if rows is None or isinstance(rows, Mapping | list | tuple) or not hasattr(rows, "shape"):
        return False
    return hasattr(rows, "__len__") and len(rows) == count
