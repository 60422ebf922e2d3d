"""Recording what a Lightning Trainer trains on: one callback, for `lightning` and for `pytorch_lightning`.

    trainer = Trainer(callbacks=[LightningTrace("runs/digits", monitor="val_loss")])

Loaders are watched where Lightning hands them to its strategy, after it has put its own samplers in; the k-th batch
that a loader delivers in an epoch is the one that Lightning's k-th step is about, and the callback declares it.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from fgtrac.api.run import Run
from fgtrac.capture.batch import Batch, Iteration
from fgtrac.capture.graph import is_node_loader
from fgtrac.capture.loader import watch_loader
from fgtrac.capture.watches import find_watch
from fgtrac.errors import CaptureError
from fgtrac.frameworks.lasting_run import LastingRun, Where, greatest_step, origin_of
from fgtrac.frameworks.lightning_loops import Followed, reads
from fgtrac.frameworks.made_anew import adopt_made_anew
from fgtrac.frameworks.places import Places


def _package() -> Any:
    """Lightning, under the name by which the process has it already."""
    if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
        return importlib.import_module("pytorch_lightning")
    try:
        return importlib.import_module("lightning.pytorch")
    except ImportError:
        return importlib.import_module("pytorch_lightning")


lightning: Any = _package()
Callback: Any = lightning.Callback
FIRST_VERSION, LAST_VERSION = (2, 4), (2, 6)
ROLES = {"train": "train", "validate": "validation", "test": "test", "predict": None}


@dataclass(eq=False, slots=True)
class _Predicted:
    """What was predicted about the data of one loader, until its pass ends."""

    positions: list[Any] = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)


class LightningTrace(Callback):  # type: ignore[misc]
    """Records a Trainer's training, evaluation and, with `predictions`, its predictions.

    The samples of the train loaders get the role "train", those that are validated or tested "validation" and "test".
    After each validation, or each epoch where there is none, the model's state is put on record with the logged metric
    `monitor` as its validation loss. Lightning's checkpoints say which update they stand behind: `fit(ckpt_path=...)`
    goes on in the trace at the same path.
    """

    def __init__(
        self,
        path_or_run: Where,
        monitor: str = "val_loss",
        *,
        predictions: bool = False,
        key_of: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> None:
        """`path_or_run` is an open run, which stays open, or a path: then the trace is begun as the Trainer begins,
        with the `options` of `start_run`, and whole when it is done. `key_of` names the samples of iterable-style
        data sets, as `key` of `Run.watch` does. ValueError for options to a run that is open."""
        self._lasting = LastingRun(path_or_run, options)
        self._places = Places()
        self.monitor = monitor
        self.predictions = predictions
        self._restored: dict[str, Any] | None = None
        self._followed: dict[tuple[str, int], Followed] = {}
        self._present: dict[str, list[Followed]] = {}  # the loaders of each stage, in the order of the present pass
        self._taken_up: set[str] = set()  # stages whose loaders have all been seen: the next one is made anew
        self._key_of = key_of
        self._predicted: dict[int, _Predicted] = {}
        self._updates_recorded: int | None = None  # how many there were when a state was put on record
        self._in_hand: list[Batch] = []
        self._reads = False  # the fit loop does, or makes ready to
        self._is_known_past = False  # updates before this fit are in the log, or said to be missing
        self._function = "fit"  # of the Trainer, that is under way
        self._draws_in_step = False  # the module draws its batches itself, in `training_step(self, dataloader_iter)`
        self._has_said_monitor = False
        self._wrapped: list[tuple[Any, str, Any]] = []  # object, method, what the object itself had in its place

    @property
    def run(self) -> Run | None:
        """The run that is recorded into, while it is open here."""
        return self._lasting.run

    # -- where the Trainer begins and ends ----------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Look at every loader that the Trainer takes up from now on."""
        self._let_go()
        self._function, self._reads = stage, True

        def watch_and_process(process: Callable[..., Any], loader: Any) -> Any:
            if self in trainer.callbacks:  # a tuner puts others there, and the model back when it is done
                self._watch(trainer, loader)
            return process(loader)

        def run_epoch(run: Callable[..., Any], *args: Any) -> Any:
            if self not in trainer.callbacks and (at_hand := self._lasting.at_hand) is not None:
                with at_hand._grounding.unseen():
                    return run(*args)
            self._reads = True
            try:
                return run(*args)
            finally:
                self._end_pass()

        self._wrap(trainer.strategy, "process_dataloader", watch_and_process)
        if stage == "fit":
            epoch = trainer.fit_loop.epoch_loop
            self._wrap(epoch, "run", run_epoch)
            for optimization in (epoch.automatic_optimization, epoch.manual_optimization):
                self._wrap(optimization, "run", self._run_step)

    def _wrap(self, owner: Any, name: str, around: Callable[..., Any]) -> None:
        original = getattr(owner, name)
        self._wrapped.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, functools.wraps(original)(functools.partial(around, original)))

    def _run_step(self, run: Callable[..., Any], *args: Any) -> Any:
        """The passes of a step, and its update, are about the batch in hand; those of hooks around it are not."""
        if self.run is None or not self._in_hand:
            return run(*args)
        grounding = self.run._grounding
        grounding.declare(self._in_hand)
        try:
            return run(*args)
        finally:
            grounding.declare()
            self._in_hand = []

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """The Trainer is done."""
        self._let_go()
        self._close(finished=True)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """It did not get to its end: the trace is sealed without one."""
        self._let_go()
        self._close(finished=False)

    def _let_go(self) -> None:
        while self._wrapped:
            owner, name, own = self._wrapped.pop()
            if own is not None:
                setattr(owner, name, own)
            else:
                vars(owner).pop(name, None)
        for followed in self._followed.values():
            followed.let_go()
        self._in_hand = []
        self._present.clear()
        self._taken_up.clear()
        self._predicted.clear()
        if self.run is not None:
            self.run._grounding.declare_no_more()

    def _end_pass(self) -> None:
        """What the fit loop read ahead is not trained on any more."""
        self._reads, self._in_hand = False, []
        for followed in self._present.get("train", ()):
            followed.waiting.clear()

    def _close(self, *, finished: bool) -> None:
        if self._lasting.is_own:
            self._followed.clear()  # they belong to the run that ends
        self._lasting.close(finished=finished)
        self._updates_recorded = None

    def _open(self) -> Run:
        if self.run is not None:
            return self.run
        restored, self._restored = self._restored, None
        if restored is None or self._function != "fit":
            run = self._lasting.open()
        else:
            self._is_known_past = True
            self._places.restore(restored["places"])
            run = self._lasting.open(step=restored["step"], origin=restored["trace"])
        self._updates_recorded = run._grounding.updates_made
        self._lasting.check_version("Lightning", lightning.__version__, FIRST_VERSION, LAST_VERSION)
        return run

    # -- loaders ------------------------------------------------------------------------------------------------

    def _watch(self, trainer: Any, loader: Any) -> None:
        """Watch a loader, before Lightning makes an iterator of it; as the one in whose place it was made, if any."""
        self._open()
        stage = _stage_of(trainer)
        if stage in self._taken_up:
            self._taken_up.discard(stage)
            self._present[stage] = []
        present = self._present.setdefault(stage, [])
        place = (stage, len(present))
        if not isinstance(loader, DataLoader):
            kind = type(loader).__name__
            self._lasting.miss(f"what the {stage} loader, a {kind}, delivers is not recorded; give a torch DataLoader")
            return
        known = self._followed.get(place)
        if known is not None and known.data is loader.dataset:
            watch_loader(loader, known.watch)
            if known.watch.stream is not None:
                known.watch.stream.wrap(loader)
        else:
            known = self._watch_first(trainer, loader, place, known)
            if known is None:
                return
            self._followed[place] = known
        if stage in ("train", "predict"):
            known.watch.opener = known.take
        present.append(known)

    def _watch_first(
        self, trainer: Any, loader: Any, place: tuple[str, int], earlier: Followed | None
    ) -> Followed | None:
        run, (stage, number) = self._open(), place
        where, role = f"{stage} {number}", ROLES[stage]
        is_map = loader._dataset_kind == 0 and not is_node_loader(loader)
        if earlier is not None and loader._dataset_kind == 0:
            adopt_made_anew(run, loader.dataset, earlier.data, self._lasting.miss)
        elif earlier is not None:
            self._lasting.miss(
                f"the {stage} loader was made anew around another stream, whose samples have names of their own; make "
                "the data set once, and loaders around it"
            )
        if is_map:
            self._places.name_data(run, where, loader.dataset, role)
        self._places.number_next(run, where)
        try:
            run.watch(loader, role=role, key=None if loader._dataset_kind == 0 else self._key_of)
        except CaptureError as error:
            self._lasting.miss(f"what the {stage} loader delivers is not recorded: {error}")
            return None
        if is_map:
            self._places.note_names(run, where, loader.dataset)
        watch = find_watch(loader)
        assert watch is not None  # it was registered by now

        def is_read(iteration: Iteration) -> bool:
            loop = trainer.predict_loop if stage == "predict" else trainer.fit_loop
            return (self._reads or stage == "predict") and reads(loop, iteration)

        return Followed(loader.dataset, watch, is_read)

    # -- training -----------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """All train loaders have been seen."""
        self._taken_up.add("train")
        self._draws_in_step = type(trainer.fit_loop._data_fetcher).__name__ == "_DataLoaderIterDataFetcher"
        if self._draws_in_step:
            for followed in self._present.get("train", ()):
                followed.watch.opener = None
        self._open()
        if trainer.global_step and not self._is_known_past:
            self._lasting.miss(
                f"training goes on from step {trainer.global_step}, and the log has no updates before it; give a "
                "checkpoint that was made with this callback, or record from the beginning"
            )

        self._is_known_past = True

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """A step begins, about the next batch of each loader."""
        present = self._present.get("train")
        if not present or self._draws_in_step:
            return
        alone = len(present) == 1
        self._in_hand = [b for f in present if (b := f.next(alone=alone)) is not None]

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """What was read ahead is not trained on any more."""
        self._taken_up.add("train")
        if not trainer.enable_validation:
            self._record_state(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Where updates came after the last validation, the model they made is put on record."""
        self._record_state(trainer, pl_module, validated=not trainer.enable_validation)

    # -- evaluation and prediction ------------------------------------------------------------------------------

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """All validation loaders have been seen."""
        self._taken_up.add("validate")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Put the validated state on record."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._record_state(trainer, pl_module)

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """All test loaders have been seen."""
        self._taken_up.add("test")

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """All predict loaders have been seen."""
        self._taken_up.add("predict")

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep what was said about the samples of a batch."""
        present = self._present.get("predict", ())
        if dataloader_idx >= len(present):
            return
        seen = present[dataloader_idx].next(alone=True)
        if seen is None or not self.predictions:
            return
        if not isinstance(outputs, torch.Tensor) or outputs.shape[:1] != (len(seen.positions),):
            self._lasting.miss("predictions that are no tensor with one row for each sample are not recorded")
            return
        kept = self._predicted.setdefault(dataloader_idx, _Predicted())
        kept.positions.append(np.frombuffer(seen.positions, dtype=np.uint32))
        kept.outputs.append(outputs.detach().float().cpu())

    def on_predict_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Record what was predicted, loader by loader."""
        for number, kept in sorted(self._predicted.items()):
            data = self._present["predict"][number].data
            positions = np.concatenate(kept.positions).astype(np.int64)
            self._open().predictions(data, torch.cat(kept.outputs), positions=positions)  # type: ignore[arg-type]
        self._predicted.clear()

    # -- states -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a Lightning checkpoint keeps: which trace, behind which update, and which loaders."""
        if self.run is None:
            return {}
        return {"trace": origin_of(self.run), "step": greatest_step(self.run), "places": self._places.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Training goes on from there, unless it is under way: a tuner puts the state back behind its trials."""
        if self.run is None:
            self._restored = state_dict

    def _record_state(self, trainer: Any, module: Any, *, validated: bool = True) -> None:
        run = self.run
        if run is None or run._grounding.updates_made == self._updates_recorded:
            return
        self._updates_recorded = run._grounding.updates_made
        optimizer = trainer.optimizers[0] if trainer.optimizers else None
        val_loss = self._monitored(trainer) if validated else None
        run.checkpoint(module, optimizer, val_loss=val_loss, epoch=trainer.current_epoch)

    def _monitored(self, trainer: Any) -> float | None:
        """The validation loss, or None where no finite one was logged."""
        metrics = trainer.callback_metrics
        value = float(metrics[self.monitor]) if self.monitor in metrics else None
        if value is not None and np.isfinite(value):
            return value
        if trainer.enable_validation and not self._has_said_monitor:
            self._has_said_monitor = True
            found = f"is {value}" if value is not None else "was not logged"
            logged = ", ".join(sorted(metrics)) or "nothing"
            self._lasting.warn(
                f"the metric {self.monitor!r} {found}, so the checkpoint has no validation loss; name one that is "
                f"logged with monitor=: {logged}"
            )
        return None


def _stage_of(trainer: Any) -> str:
    stage = trainer.state.stage.value
    return "validate" if stage == "sanity_check" else str(stage)
