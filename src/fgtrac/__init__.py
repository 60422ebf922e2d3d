"""fgtrac: what happened to every single training sample, in a log that anyone can check.

    with fgtrac.start_run("runs/first") as run: ...     record (needs torch)
    with fgtrac.reopen("runs/first") as run: ...        add scores afterwards (needs torch)
    fgtrac.autolog("runs")                              record whatever Lightning, Trainer and skorch train
    fgtrac.open("runs/first.trace").history("digits:7") read (needs no torch)
    fgtrac.erase("runs/first.trace", subject="ada")     forget a person (needs no torch)
    fgtrac.check("runs/first.trace", key=KEY)           hold it to policies (needs no torch)
    fgtrac.diff("runs/first.trace", "runs/second.trace")  where two trainings part (needs no torch)
    fgtrac.mlflow.log_trace(run)                        put it beside what MLflow keeps
    fgtrac.anchor_trace("runs/first.trace", [WITNESS])  have others vouch for its head (needs no torch)

The names below are loaded on first use (PEP 562), so that `import fgtrac` loads neither torch nor anything else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fgtrac import errors, frameworks, mlflow
    from fgtrac.anchor.evm import EvmContract
    from fgtrac.anchor.rfc3161 import TimeStampAuthority
    from fgtrac.anchor.witness import Witness
    from fgtrac.api.anchoring import anchor_trace
    from fgtrac.api.check import check_trace as check
    from fgtrac.api.diff import diff_traces as diff
    from fgtrac.api.erase import erase
    from fgtrac.api.recording import Run
    from fgtrac.api.run import reopen, start_run
    from fgtrac.api.trace import Trace, ensemble
    from fgtrac.api.trace import open_trace as open
    from fgtrac.api.trusted_anchors import TrustedAnchors
    from fgtrac.capture.graph import GraphNodes
    from fgtrac.frameworks.autolog import autolog

__all__ = [
    "EvmContract", "GraphNodes", "Run", "TimeStampAuthority", "Trace", "TrustedAnchors", "Witness", "anchor_trace",
    "autolog", "check", "diff", "ensemble", "erase", "errors", "frameworks", "mlflow", "open", "reopen", "start_run",
]  # fmt: skip

_HOMES = {
    "Run": ("fgtrac.api.recording", "Run"),
    "reopen": ("fgtrac.api.run", "reopen"),
    "start_run": ("fgtrac.api.run", "start_run"),
    "EvmContract": ("fgtrac.anchor.evm", "EvmContract"),
    "TimeStampAuthority": ("fgtrac.anchor.rfc3161", "TimeStampAuthority"),
    "GraphNodes": ("fgtrac.capture.graph", "GraphNodes"),
    "Witness": ("fgtrac.anchor.witness", "Witness"),
    "anchor_trace": ("fgtrac.api.anchoring", "anchor_trace"),
    "autolog": ("fgtrac.frameworks.autolog", "autolog"),
    "check": ("fgtrac.api.check", "check_trace"),
    "diff": ("fgtrac.api.diff", "diff_traces"),
    "erase": ("fgtrac.api.erase", "erase"),
    "Trace": ("fgtrac.api.trace", "Trace"),
    "TrustedAnchors": ("fgtrac.api.trusted_anchors", "TrustedAnchors"),
    "ensemble": ("fgtrac.api.trace", "ensemble"),
    "open": ("fgtrac.api.trace", "open_trace"),
}


def __getattr__(name: str) -> Any:
    if name in ("errors", "frameworks", "mlflow"):
        return importlib.import_module(f"fgtrac.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'fgtrac' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
