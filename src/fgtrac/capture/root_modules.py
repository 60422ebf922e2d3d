"""Finding the root modules of a training: who is called while a delivered batch waits.

A global hook, which costs every module's call, until an optimizer has stepped. A compiled module is called without it:
torch would warn of it, and compile the module again when it is gone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

import torch
from torch._C import _current_graph_task_id

from fgtrac.capture.batch import Iteration
from fgtrac.capture.contributions import Contributions
from fgtrac.capture.passes import Passes
from fgtrac.capture.tensors import leaves_behind, tensors_in
from fgtrac.capture.update import KnownOptimizer, Values, is_unchanged, parameters_of, values_of

AfterForward = Callable[[torch.nn.Module, int, Any, dict[str, Any], Any], None]
TRIES = 3  # steps of an optimizer for which the module of its parameters is looked for
FREE_PASSES = 16  # passes over loaders at whose beginning new modules are looked for, whatever their length
BATCHES = 32  # later: those of a pass that is one in so many batches
_seeking: list[Roots] = []
_original: list[Any] = []  # OptimizedModule, and its __call__


class _RootHook:
    """The forward hook of a root module. In a copied or pickled model it is a call that does nothing."""

    def __init__(self, after_forward: Any, root: int) -> None:
        self._root = root
        self._owner, self._after_forward = ref(after_forward.__self__), after_forward.__func__

    def __call__(self, module: torch.nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        owner = self._owner()
        if owner is not None:
            self._after_forward(owner, module, self._root, args, kwargs, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (nullcontext(), "__exit__")  # takes any arguments, returns None, and needs no fgtrac to load


class Roots:
    """The modules that a loop calls, as far as they have parameters to train: `after_forward` hears of each call, and
    their parameters are watched."""

    def __init__(self, passes: Passes, contributions: Contributions, after_forward: AfterForward) -> None:
        self._passes = passes
        self._contributions = contributions
        self._after_forward = after_forward
        self._known: WeakKeyDictionary[torch.nn.Module, int] = WeakKeyDictionary()  # numbered
        contributions.roots_of = self.roots_of
        self.owned: Callable[[], set[int]] = set  # identities of the parameters that known optimizers have
        self._sought: WeakKeyDictionary[torch.optim.Optimizer, int] = WeakKeyDictionary()  # for so many more steps
        self._updated: set[KnownOptimizer] = set()  # since the search began
        self._delivering: set[int] = set()  # loaders, since then
        self._passes_begun = self._batches = 0
        self._before: Iteration | None = None  # the pass that began last
        self._inside: torch.nn.Module | None = None  # the root module that is being called
        self._is_first = True  # no update was made
        self._inner: WeakSet[torch.nn.Module] = WeakSet()
        self._looked_behind: WeakSet[torch.nn.Module] = WeakSet()  # what they were given had a history
        self._handles: list[Any] = []
        self._begun: Values = []  # of their parameters, until an update is known
        self._hook: Any = None
        self.seeks = True

    def seek(self) -> None:
        """Look for them, until each optimizer has had its turn."""
        self.seeks = True
        if self not in _seeking:
            _seeking.append(self)
            self.listen()
            _patch_compiled()

    def look_for(self, optimizer: torch.optim.Optimizer) -> bool:
        """An optimizer steps, and no module is known that has its parameters: look for it, if not too often before."""
        left = max(self._sought.get(optimizer, TRIES) - 1, 0)
        self._sought[optimizer] = left
        if left:
            self.seek()
        return left > 0

    def updated(self, known: KnownOptimizer) -> None:
        """An update was made, and what changed the parameters is known. In its second one since the search began, an
        optimizer begins another round: whatever trains has been called."""
        self._begun, self._is_first = [], False
        optimizer = known.optimizer()
        if optimizer is not None and self._sought.get(optimizer):
            self._sought[optimizer] -= 1
        if known in self._updated:
            self._end_round()
        else:
            self._updated.add(known)

    def delivered(self, loader: int) -> None:
        """A batch was: behind an update, the second one of a loader since the search began begins another round."""
        self._inside = None
        self.seek()
        if self._updated and loader in self._delivering:
            self._end_round()
        else:
            self._delivering.add(loader)

    def begins(self, iteration: Iteration) -> None:
        """A pass over a loader does: perhaps with a new model, as in cross-validation."""
        self._passes_begun += 1
        self._batches += self._before.delivered if self._before is not None else 0
        self._before = iteration
        if self._passes_begun <= FREE_PASSES or self._batches >= BATCHES:
            self._batches = 0
            self.seek()

    def _end_round(self) -> None:
        if not any(self._sought.values()):
            self._end()

    def _end(self) -> None:
        self.seeks, self._begun, self._inside = False, [], None
        self._updated, self._delivering = set(), set()
        if self in _seeking:
            _seeking.remove(self)
            self.listen_not()
        if not _seeking and _original:
            owner, call = _original
            owner.__call__ = call
            _original.clear()

    def close(self) -> bool:
        """Remove every hook. Returns whether parameters were changed although no update was made."""
        changed = self.seeks and not is_unchanged(self._begun)
        self._end()
        for handle in self._handles:
            handle.remove()
        return changed

    def listen(self) -> None:
        """To every module's call."""
        if self._hook is None and self in _seeking:
            self._hook = torch.nn.modules.module.register_module_forward_pre_hook(self._found)

    def listen_not(self) -> None:
        """To none."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _found(self, module: torch.nn.Module, args: Any) -> None:
        if torch.compiler.is_compiling() or self._passes.looks_away or not torch.is_grad_enabled():
            return
        if module in self._known:
            self._inside = self._inside or module
            return
        is_inner = module in self._inner
        if is_inner and (self._inside is not None or _current_graph_task_id() != -1):
            return
        passes = self._passes
        is_asked = is_inner or not (passes.waits or passes.has_strangers or not args)
        if is_asked and not passes.memory.batches_of(tensors_in(args)):
            return
        parameters = [p for p in module.parameters() if p.requires_grad]
        if parameters:
            self._add(module, parameters)
            self._inside = self._inside or module

    def _add(self, module: torch.nn.Module, parameters: list[torch.nn.Parameter]) -> None:
        number, others = len(self._handles) + 1, self._roots_by_parameter()
        self._known[module] = number
        for inner in module.modules():
            if inner is not module:
                self._inner.add(inner)
        self._handles.append(module.register_forward_hook(_RootHook(self._after_forward, number), with_kwargs=True))
        owned, mine = self.owned(), {id(p) for p in parameters}
        for parameter in parameters:
            watcher = self._contributions.find(parameter)
            if watcher is not None:
                watcher.roots += (number,)
            elif id(parameter) not in owned:
                self._contributions.watch(parameter, (*others.get(id(parameter), ()), number))
        for optimizer in [o for o, left in self._sought.items() if left]:
            if any(id(p) in mine for p in parameters_of(optimizer)):
                self._sought[optimizer] = 0
        if self._is_first:
            self._begun += values_of([parameters[0], parameters[-1]])

    def leave(self, module: torch.nn.Module) -> None:
        """Its call has ended."""
        if self._inside is module:
            self._inside = None

    def _roots_by_parameter(self) -> dict[int, tuple[int, ...]]:
        found: dict[int, tuple[int, ...]] = {}
        for module, number in self._known.items():
            for parameter in module.parameters():
                found[id(parameter)] = (*found.get(id(parameter), ()), number)
        return found

    def roots_of(self, parameter: torch.Tensor) -> tuple[int, ...]:
        """The numbers of the root modules that have it."""
        return self._roots_by_parameter().get(id(parameter), ())

    def look_behind(self, module: torch.nn.Module, given: list[torch.Tensor]) -> None:
        """Once for each root module: what it was given may be computed by another model, such as a generator that was
        not seen when this one's optimizer stepped first. Its parameters are watched like those of root modules."""
        if module in self._looked_behind:
            return
        with_history = [tensor for tensor in given if tensor.grad_fn is not None]
        if with_history:
            self._looked_behind.add(module)
            for parameter in leaves_behind(with_history):
                self._contributions.watch(parameter)


def _patch_compiled() -> None:
    owner = getattr(sys.modules.get("torch._dynamo.eval_frame"), "OptimizedModule", None)
    if owner is not None and not _original:
        _original.extend([owner, owner.__call__])
        owner.__call__ = _call_compiled


def _call_compiled(self: Any, *args: Any, **kwargs: Any) -> Any:
    call, listening = _original[1], list(_seeking)
    for roots in listening:
        roots._found(self, args)
        roots.listen_not()
    try:
        return call(self, *args, **kwargs)
    finally:
        for roots in listening:
            roots.listen()
