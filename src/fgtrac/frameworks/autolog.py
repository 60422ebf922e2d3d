"""One line for a whole process: every Trainer of Lightning and of Hugging Face, and every skorch net, records itself.

Only what is imported already is changed, and what is imported later when it is; nothing is imported for it.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

_adding: _Adding | None = None


def autolog(folder: str | os.PathLike[str] = "runs", *, off: bool = False, **options: Any) -> None:
    """Have every Lightning Trainer, Hugging Face Trainer and skorch net that is made from now on in this process record
    into `FOLDER/NAME-N.trace`, NAME being "lightning", "trainer" or "skorch" and N the first number that is free.

    Those that are given a callback of ours keep that one. A number is taken when the trace begins. `options` are its
    options, and those of `start_run`: TypeError for others where a Trainer is made. Called again, the new folder and
    options hold from then on; `off` ends it for what is made afterwards.
    """
    global _adding
    if _adding is not None:
        _adding.end()
        _adding = None
    if not off:
        _adding = _Adding(Path(folder), options)


class _Adding(MetaPathFinder):
    """Adds a callback to whatever is made, until its `end`. As a finder, it changes modules as they are imported."""

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        self._folder = folder
        self._options = options
        self._given: set[Path] = set()
        self._nets: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
        self._changed: list[tuple[type, str, Any]] = []
        self._waiting: dict[str, Callable[[ModuleType], None]] = {
            "lightning.pytorch.trainer.trainer": self._change_lightning,
            "pytorch_lightning.trainer.trainer": self._change_lightning,
            "transformers.trainer": self._change_transformers,
            "skorch.net": self._change_skorch,
        }
        for name, change in self._waiting.items():
            if name in sys.modules:
                change(sys.modules[name])
        sys.meta_path.insert(0, self)

    def end(self) -> None:
        """Put everything back."""
        sys.meta_path.remove(self)
        self._waiting.clear()
        for owner, name, original in self._changed:
            setattr(owner, name, original)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Of a module that waits for a change: the one that the other finders give, changed when it is there."""
        change = self._waiting.get(fullname)
        if change is None:
            return None
        others = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((found for found in others if found is not None), None)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_change(module: ModuleType) -> None:
            load(module)
            if fullname in self._waiting:
                change(module)

        spec.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return spec

    def _after(self, owner: type, name: str, add: Callable[[Any], None]) -> None:
        """Have `add` called with the object behind each call of a method."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def called(self: Any, *args: Any, **kwargs: Any) -> Any:
            answer = original(self, *args, **kwargs)
            add(self)
            return answer

        self._changed.append((owner, name, original))
        setattr(owner, name, called)

    def _path(self, name: str) -> Path | Callable[[], Path]:
        """Where the next one records: what is free when its trace begins. The ranks of a training agree only on what is
        free when it is made, before any of them begins."""
        is_rank = not {"RANK", "LOCAL_RANK"}.isdisjoint(os.environ)
        return self._free_path(name) if is_rank else functools.partial(self._free_path, name)

    def _free_path(self, name: str) -> Path:
        number = 1
        while (path := self._folder / f"{name}-{number}.trace") in self._given or path.exists():
            number += 1
        self._given.add(path)
        return path

    # -- the frameworks -----------------------------------------------------------------------------------------

    def _change_lightning(self, module: ModuleType) -> None:
        def add(trainer: Any) -> None:
            kind = importlib.import_module("fgtrac.frameworks.lightning").LightningTrace
            if not any(isinstance(callback, kind) for callback in trainer.callbacks):
                trainer.callbacks.insert(0, kind(self._path("lightning"), **self._options))

        self._after(module.Trainer, "__init__", add)

    def _change_transformers(self, module: ModuleType) -> None:
        def add(trainer: Any) -> None:
            kind = importlib.import_module("fgtrac.frameworks.trainer").TrainerTrace
            if not any(isinstance(callback, kind) for callback in trainer.callback_handler.callbacks):
                callback = kind(self._path("trainer"), **self._options)
                trainer.add_callback(callback)
                callback.on_init_end(trainer.args, trainer.state, trainer.control)

        self._after(module.Trainer, "__init__", add)

    def _change_skorch(self, module: ModuleType) -> None:
        options = {name: option for name, option in self._options.items() if name != "predictions"}  # it records none

        def add(net: Any) -> None:
            kind = importlib.import_module("fgtrac.frameworks.skorch").SkorchTrace
            if not any(isinstance(callback, kind) for _, callback in net.callbacks_):
                if net not in self._nets:
                    self._nets[net] = kind(self._path("skorch"), **options)
                net.callbacks_.append(("fgtrac", self._nets[net]))

        self._after(module.NeuralNet, "initialize_callbacks", add)
