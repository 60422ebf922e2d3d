"""Finding the root modules of a training: who is called while a delivered batch waits.

A global hook, which costs every module's call, until an optimizer has stepped. A compiled module is called without it:
torch would warn of it, and compile the module again when it is gone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from weakref import WeakSet, ref

import torch

from fgtrac.capture.contributions import Contributions
from fgtrac.capture.passes import Passes
from fgtrac.capture.tensors import leaves_behind
from fgtrac.capture.update import Values, is_unchanged, values_of

AfterForward = Callable[[torch.nn.Module, Any, dict[str, Any], Any], None]
_seeking: list[Roots] = []
_original: list[Any] = []  # OptimizedModule, and its __call__


class _RootHook:
    """The forward hook of a root module. In a copied or pickled model it is a call that does nothing."""

    def __init__(self, after_forward: Any) -> None:
        self._owner, self._after_forward = ref(after_forward.__self__), after_forward.__func__

    def __call__(self, module: torch.nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        owner = self._owner()
        if owner is not None:
            self._after_forward(owner, module, args, kwargs, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (nullcontext(), "__exit__")  # takes any arguments, returns None, and needs no fgtrac to load


class Roots:
    """The modules that a loop calls, as far as they have parameters to train: `after_forward` hears of each call, and
    their parameters are watched."""

    def __init__(self, passes: Passes, contributions: Contributions, after_forward: AfterForward) -> None:
        self._passes = passes
        self._contributions = contributions
        self._after_forward = after_forward
        self._known: WeakSet[torch.nn.Module] = WeakSet()
        self._inner: WeakSet[torch.nn.Module] = WeakSet()
        self._looked_behind: WeakSet[torch.nn.Module] = WeakSet()  # what they were given had a history
        self._handles: list[Any] = []
        self._begun: Values = []  # of their parameters, until an update is known
        self._hook: Any = None
        self.seeks = True
        self._is_past_this_step = False

    def seek(self, past_this_step: bool = False) -> None:
        """Look for them, up to the next update or the one after it."""
        self.seeks, self._is_past_this_step = True, past_this_step
        if self not in _seeking:
            _seeking.append(self)
            self.listen()
            _patch_compiled()

    def updated(self) -> None:
        """An update was made: whatever trains has been called, and what changed the parameters is known."""
        self._begun = []
        if self.seeks and not self._is_past_this_step:
            self._end()
        self._is_past_this_step = False

    def _end(self) -> None:
        self.seeks, self._begun = False, []
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
        if (
            torch.compiler.is_compiling()
            or self._passes.looks_away
            or not (self._passes.waits or self._passes.has_strangers)
            or not torch.is_grad_enabled()
        ):
            return
        if module in self._known or module in self._inner:
            return
        parameters = [p for p in module.parameters() if p.requires_grad]
        if not parameters:
            return
        self._known.add(module)
        for inner in module.modules():
            if inner is not module:
                self._inner.add(inner)
        self._handles.append(module.register_forward_hook(_RootHook(self._after_forward), with_kwargs=True))
        for parameter in parameters:
            self._contributions.watch(parameter)
        self._begun += values_of([parameters[0], parameters[-1]])

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
