"""Hugging Face's Trainer: a callback that records what it trains on, evaluates and saves.

    trainer = Trainer(model, args, train_dataset=data, callbacks=[TrainerTrace("runs/first")])

The Trainer reads batches ahead, and tells a callback neither which one it trains on nor who it is. So a number rides in
each batch from where it is fetched to `training_step`, where it is taken out again.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import weakref
from collections.abc import Callable, MutableMapping
from typing import Any

import torch
import transformers
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback

from fgtrac.api.run import Run
from fgtrac.capture.batch import Batch, Iteration
from fgtrac.capture.loader import watch_loader
from fgtrac.capture.prepared import innermost
from fgtrac.capture.watches import Watch, find_watch
from fgtrac.errors import CaptureError
from fgtrac.frameworks.lasting_run import LastingRun, Where, origin_of
from fgtrac.frameworks.places import Places

TAG = "fgtrac_batch"  # in a batch, between get_batch_samples and training_step
DICTS = (dict, MutableMapping)  # the usual one first
MOST_TAGS = 4096  # that wait to be trained on
FIRST, LAST = (4, 46), (5, 24)


class TrainerTrace(TrainerCallback):
    """Records a Trainer's runs, at a path (into `PATH.trace`, whole behind each `train`, `evaluate` and `predict`) or
    in a run that the caller opened.

    Each evaluation of `monitor` while it trains becomes a checkpoint with that validation loss; without evaluations
    (`eval_strategy="no"`) each save becomes one. The data sets of `train`, `evaluate` and `predict` get the roles
    train, validation and test, unless they are in training. With `predictions`, what `predict` returns is recorded:
    one array, (n, ...) float, of at most 14,000 numbers a sample. `train(resume_from_checkpoint=...)` goes on in the
    trace, at the checkpoint's step. `options` are those of `start_run`.

    The Trainer's `train` raises what `start_run` does, and ValueError where the checkpoint is of another trace. What
    cannot be recorded, such as a loader that is no DataLoader, is said in a `gap` entry and a RuntimeWarning, or
    raises CaptureError with `strict=True`.
    """

    def __init__(self, path_or_run: Where, *, monitor: str = "eval_loss", predictions: bool = False, **options: Any):
        self._lasting = LastingRun(path_or_run, options)
        self._monitor = monitor
        self._predictions = predictions
        self._trainer: weakref.ref[Trainer] | None = None
        self._trains = False
        self._fetches = False  # for a step of training: batches get a tag
        self._serials = itertools.count(1)
        self._tagged: dict[int, Batch] = {}  # the newest
        self._whole: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()  # without unused columns -> with
        self._places = Places()
        self._known_places: dict[tuple[int, str], str] = {}  # of data, by their identity, in a role
        self._kept: dict[str, Any] = {}  # in the Trainer's checkpoints, as its state of a callback
        self._watches: dict[int, tuple[Any, Watch]] = {}  # by the identity of the data, which are kept
        self._iteration: Iteration | None = None  # the newest pass of the training loop
        self._order: list[Batch] | None = None  # of the predictions under way
        self._checkpointed = -1
        self._unmonitored = -1, ""  # the step of an evaluation without `monitor`, and what there was instead
        self._has_said_monitor = False
        self._states: dict[int, Any] = {}  # step -> the checkpoint entry
        self._best: int | None = None  # the step of the model that was loaded at the end

    # -- the Trainer's events -----------------------------------------------------------------------------------

    def on_init_end(self, args: Any, state: Any, control: Any, **now: Any) -> None:
        """The Trainer is made."""
        self._follow(_calling_trainer())

    def on_train_begin(self, args: Any, state: Any, control: Any, **now: Any) -> None:
        """The Trainer's loader is prepared, and its state loaded where it resumes."""
        self._follow(_calling_trainer())
        if self._trains:
            self._end(finished=False)  # an earlier training that did not end: it was interrupted
        earlier = state.stateful_callbacks.get("fgtrac", {}).get("attributes", {})
        resumed = {"step": state.global_step, "origin": earlier.get("origin")} if state.global_step else {}
        if resumed and "places" in earlier:
            self._places.restore(earlier["places"])
        run = self._lasting.open(**resumed)
        self._trains, self._checkpointed, self._unmonitored, self._best = True, -1, (-1, ""), None
        self._kept["origin"] = origin_of(run)
        state.stateful_callbacks["fgtrac"] = {"args": {}, "attributes": self._kept}
        try:
            self._lasting.check_version("transformers", transformers.__version__, FIRST, LAST)
            watch = self._watch(now["train_dataloader"], "train")
        except BaseException:
            self._end(finished=False)
            raise
        if watch is not None:
            watch.epochs = max(watch.epochs, int(state.epoch or 0))

    def on_evaluate(self, args: Any, state: Any, control: Any, **now: Any) -> None:
        """An evaluation is over: where it is part of a training, its loss decides about the model's state."""
        if not self._trains:
            return
        loss = now["metrics"].get(self._monitor)
        if loss is not None and math.isfinite(loss):
            self._checkpoint(state, now, loss)
            return
        found = f"is {loss}" if loss is not None else f"is not among {', '.join(sorted(now['metrics']))}"
        self._unmonitored = state.global_step, found  # of several data sets, another's may still come

    def on_step_begin(self, args: Any, state: Any, control: Any, **now: Any) -> None:
        """The model that was evaluated last is still as it was."""
        self._record_unmonitored(state, now)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **now: Any) -> None:
        """An evaluation is under way, perhaps of a Trainer that was given this callback when it had been made."""
        trainer = _calling_trainer()
        if self._trainer is None or self._trainer() is not trainer:
            self._follow(trainer)
            self._lasting.warn(
                "this evaluation is not recorded, as the callback was added to a Trainer that was there already: give "
                "it to Trainer(callbacks=[...]); what is trained and evaluated from now on is recorded"
            )

    def on_save(self, args: Any, state: Any, control: Any, **now: Any) -> None:
        """The Trainer saved a checkpoint."""
        if self._trains and args.eval_strategy == "no":
            self._checkpoint(state, now, None)

    def on_log(self, args: Any, state: Any, control: Any, **now: Any) -> None:
        """The Trainer logged values."""
        numbers = {k: v for k, v in now["logs"].items() if isinstance(v, int | float) and math.isfinite(v)}
        if self._lasting.run is not None and numbers and state.is_world_process_zero:
            self._lasting.run.log(state.global_step, **numbers)

    def on_train_end(self, args: Any, state: Any, control: Any, **now: Any) -> None:
        """The training is over, whether all its steps were made or it was stopped."""
        if not self._trains:
            return
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            self._best = int(state.best_model_checkpoint.rpartition("-")[2])
        elif args.eval_strategy == "no":
            self._checkpoint(state, now, None)
        else:
            self._record_unmonitored(state, now)
        self._end(finished=True)

    def _end(self, *, finished: bool) -> None:
        """The training is over; where it is not `finished`, it broke off."""
        self._trains = False
        if self._lasting.run is not None:
            self._lasting.run._grounding.declare_no_more()
        self._tagged.clear()
        self._lasting.close(finished=finished)

    # -- what is wrapped ----------------------------------------------------------------------------------------

    def _follow(self, trainer: Trainer) -> None:
        """Be told what this Trainer fetches, trains on and evaluates."""
        if self._trainer is not None and self._trainer() is trainer:
            return
        self._trainer = weakref.ref(trainer)
        for owner, name, around in (
            (trainer, "_inner_training_loop", self._breaking_off),
            (trainer, "_remove_unused_columns", self._removing),
            (trainer, "get_batch_samples", self._fetching),
            (trainer, "training_step", self._training),
            (trainer, "evaluation_loop", self._evaluating),
            (trainer.callback_handler, "on_optimizer_step", self._updated),
            (trainer.callback_handler, "on_substep_end", self._updated),
        ):
            setattr(owner, name, _wrapped(getattr(owner, name), around))

    def _breaking_off(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except BaseException:
            if self._trains:
                self._end(finished=False)
            raise

    def _updated(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._lasting.run is not None:
            self._lasting.run._grounding.declare()  # what callbacks train from now on is not about the batch
        return original(*args, **kwargs)

    def _removing(self, original: Callable[..., Any], dataset: Any, *args: Any, **kwargs: Any) -> Any:
        left = original(dataset, *args, **kwargs)
        if left is not dataset:
            self._whole[left] = dataset
        return left

    def _fetching(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._fetches = self._trains
        try:
            return original(*args, **kwargs)
        finally:
            self._fetches = False

    def _training(self, original: Callable[..., Any], model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self._declare(inputs)
        return self._breaking_off(original, model, inputs, *args, **kwargs)

    def _evaluating(
        self, original: Callable[..., Any], dataloader: Any, description: str, *args: Any, **kwargs: Any
    ) -> Any:
        predicts, finished = description == "Prediction", False
        run = self._lasting.open()
        try:
            self._watch(dataloader, "test" if predicts else "validation")
            self._order = [] if predicts and self._predictions else None
            output = original(dataloader, description, *args, **kwargs)
            if self._order is not None:
                self._predicted(run, dataloader.dataset, output.predictions)
            finished = True
        finally:
            self._order = None
            if not self._trains:
                self._lasting.close(finished=finished)
        return output

    # -- batches ------------------------------------------------------------------------------------------------

    def _watch(self, loader: Any, role: str) -> Watch | None:
        """Watch what the Trainer iterates over, each time a new loader; None where that cannot be, which is said."""
        inner = innermost(loader)
        data = getattr(inner, "dataset", inner)
        whole = next((w for left, w in self._whole.items() if left is data), data)
        watch = self._watch_of(inner) or self._watches.get(id(whole), (None, None))[1]
        if watch is None or not watch.active or (role == "train" and not watch.trains):
            self._watch_first(loader, data, whole, role)
            watch = self._watch_of(inner)
        else:
            watch_loader(inner, watch)
        if watch is not None:
            watch.opener = self._receive
            self._watches[id(whole)] = whole, watch
        return watch

    def _watch_of(self, inner: Any) -> Watch | None:
        watch = find_watch(inner)
        return watch if watch is not None and watch.grounding is self._lasting.open()._grounding else None

    def _watch_first(self, loader: Any, data: Any, whole: Any, role: str) -> None:
        run = self._lasting.open()
        others = sum(known == role for _, known in self._known_places)
        place = self._known_places.setdefault((id(whole), role), f"{role} {others}")
        try:
            is_map = isinstance(loader, DataLoader) and loader._dataset_kind == 0
            if is_map:
                self._places.name_data(run, place, whole, role)
            if whole is not data and not run._registry.is_known(data):
                run.register(whole)
                run.register(data, rows=whole)
            self._places.number_next(run, place)
            run.watch(loader, role=role)
            if is_map:
                self._places.note_names(run, place, whole)
            self._kept["places"] = self._places.state()
        except (CaptureError, TypeError) as error:
            self._lasting.miss(f"what the {role} loader delivers is not recorded: {error}")

    def _receive(self, batch: Batch, data: Any) -> Any:
        """A batch is handed to the Trainer; what it gets."""
        if self._fetches and isinstance(data, DICTS):
            serial = data[TAG] = next(self._serials)
            if batch.iteration is not self._iteration and self._lasting.run is not None:
                self._lasting.run._grounding.follow(batch.iteration, self._iteration)
                self._iteration = batch.iteration
            self._tagged[serial] = batch
            self._tagged.pop(serial - MOST_TAGS, None)
        elif self._order is not None:
            self._order.append(batch)
        return data

    def _declare(self, inputs: Any) -> None:
        """The passes from now on are about the batch whose tag is in `inputs`; take it out."""
        serial = inputs.pop(TAG, None) if isinstance(inputs, DICTS) else None
        batch = None if serial is None else self._tagged.pop(serial, None)
        if self._lasting.run is None:
            return
        grounding = self._lasting.run._grounding
        if batch is not None:
            grounding.declare((batch,))
        elif self._trains:  # it is no dict: its memory and its turn have to tell
            grounding.declare_no_more()

    def _predicted(self, run: Run, data: Any, outputs: Any) -> None:
        """Record what `predict` returned, at the state that it was said with."""
        if self._best is not None:
            if self._best not in self._states:
                self._lasting.miss(f"no checkpoint of step {self._best}, whose model predicts, is on record")
                return
            run._checkpoints.last = self._states[self._best]
        positions = [position for batch in self._order or () for position in batch.positions]
        try:
            run.predictions(data, torch.as_tensor(outputs), positions=positions)
        except (TypeError, ValueError, RuntimeError) as error:
            self._lasting.miss(f"the predictions are not recorded: {error}")

    # -- checkpoints --------------------------------------------------------------------------------------------

    def _checkpoint(self, state: Any, now: dict[str, Any], val_loss: float | None) -> None:
        if self._checkpointed != state.global_step and self._lasting.run is not None:
            self._checkpointed = state.global_step
            epoch = max(0, math.ceil(state.epoch or 0) - 1)
            self._lasting.run.checkpoint(now["model"], now["optimizer"], val_loss=val_loss, epoch=epoch)
            self._states[state.global_step] = self._lasting.run._checkpoints.last

    def _record_unmonitored(self, state: Any, now: dict[str, Any]) -> None:
        """Put the state on record that was evaluated without the monitored metric."""
        if not self._trains or self._unmonitored[0] != state.global_step or self._checkpointed == state.global_step:
            return
        self._checkpoint(state, now, None)
        if not self._has_said_monitor:
            self._has_said_monitor = True
            self._lasting.warn(
                f"the metric {self._monitor!r} {self._unmonitored[1]}, so the checkpoint has no validation loss; name "
                "another with monitor="
            )


def _wrapped(original: Callable[..., Any], around: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    return call


def _calling_trainer() -> Trainer:
    """Whose event this is: the Trainer hands itself to no callback, but one of its methods is under way."""
    frame = inspect.currentframe()
    while frame is not None:
        if isinstance(caller := frame.f_locals.get("self"), Trainer):
            return caller
        frame = frame.f_back
    raise CaptureError("a TrainerTrace was called by no Trainer; give it to one, in callbacks=[...]")
