"""The verbs of a run that score: what contributions are computed from, and the passes that are still to be made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from fgtrac.api.cost import Cost
from fgtrac.api.ledger import Ledger
from fgtrac.api.scored_rows import resolve_rows
from fgtrac.api.scoring import Scoring
from fgtrac.api.spread_passes import Spread
from fgtrac.api.wish import read_wish
from fgtrac.capture.recorder import Recorder
from fgtrac.capture.sources import Registry
from fgtrac.capture.step import Grounding
from fgtrac.commit.signer import Signer
from fgtrac.engine.opening import open_engine
from fgtrac.engine.units import Engine
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault


class Contributing:
    """Takes what contributions are computed from, once, and computes them."""

    _trace: TraceDir
    _vault: Vault
    _signer: Signer
    _recorder: Recorder
    _registry: Registry
    _ledger: Ledger
    _grounding: Grounding
    _trains: bool
    _strict: bool
    _scoring: Scoring | None = None

    def score_with(
        self,
        *,
        loss: Callable[..., Any],
        train: Any,
        validation: Any = None,
        test: Any = None,
        forward: Callable[[torch.nn.Module, Any], tuple[Any, Any]] | None = None,
        layer: str | Sequence[str] | None = None,
        factors: str = "now",
        dtype: str = "float16",
        max_kept: int | None = None,
        factor_budget_bytes: int | None = None,
        batch_size: int = 256,
        ggn: bool = False,
        method: str = "tracin",
    ) -> None:
        """Say what contributions are computed from: the per-sample gradients ("factors") of the prediction layer, for
        the rows of `train`, `validation` and `test` at each kept checkpoint, kept in the trace.

        Each is a map-style data set without random augmentation, or a loader over one, read in row order; register one
        that has a name or keys of its own before. Of a graph it is GraphNodes(graph, nodes): a batch is then node
        numbers (n,), which `forward` answers by a pass over the whole graph. That is one pass for each batch, so give
        `batch_size` the number of rows. `loss` is (outputs, targets) -> (n,), or a torch loss, taken without its
        reduction. `forward` is (model, batch) -> (outputs, targets), by default for pairs. `layer` is the last trained
        linear or convolution layer, or a name, several, or "all". `factors`: "now" at each kept checkpoint, "sample:N"
        the same for N training rows, "later" when `score` is called, which alone makes what those from before a resume
        lack. At most `max_kept` checkpoints and `factor_budget_bytes` are spent. `scoring_cost` is printed before, and
        measured. With `validation`, every training sample's contribution toward its mean loss is recorded, by `method`
        ("tracin" is the paper's, arXiv:2002.08484); `ggn` keeps the Gauss-Newton matrix for "fisher ggn".

        Raises ValueError, TypeError or ScoreError for what cannot be scored; the model is looked at when it is first
        seen, before that checkpoint is recorded.
        """
        if self._scoring is not None:
            raise ValueError("score_with() was called before in this run; call it once, with everything")
        wish, sample = read_wish(
            loss, forward=forward, layer=layer, factors=factors, dtype=dtype, max_kept=max_kept,
            factor_budget_bytes=factor_budget_bytes, batch_size=batch_size, ggn=ggn, method=method,
        )  # fmt: skip
        others = {role: data for role, data in (("validation", validation), ("test", test)) if data is not None}
        rows = [resolve_rows(self._registry, "train", train, sample)]
        rows += [resolve_rows(self._registry, role, data) for role, data in others.items()]
        self._scoring = Scoring(self, wish, rows, strict=self._strict)

    def score(
        self,
        model: torch.nn.Module,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        progress: Callable[[int, int], None] | None = None,
        engine: str | Engine | None = None,
        function: str | None = None,
    ) -> None:
        """Make the factors and contributions that kept checkpoints still lack, as `score_with` says, from their saved
        states; `model` is not changed. A pass that was killed or interrupted goes on at its shard (of up to 65,536
        rows), with `ggn` it begins its role anew; what else was done is not done again.

        `optimizer` tells which parameter group the scored layer is in, where they have different learning rates.
        `progress(rows done, rows in all)`; by default the time left is shown on a terminal. In a trace that was
        reopened, `engine` ("local:N", "ray", ..., or one that is open) gives the passes to workers, shard by shard.
        Each calls `function` (FILE.py:FUNCTION) once, which does and returns what you did here to have the data and the
        model; with every engine the bytes are the same. ScoreError where no checkpoint is kept, the model is of another
        architecture, or factors are not finite; EngineError where workers are lost.
        """
        self._recorder.check_open()
        if self._scoring is None:
            raise ValueError("score() needs to know the loss and the data: call score_with() first")
        if engine is None or function is None:
            if engine is not function:
                raise ValueError("engine= and function= go together: each worker calls FILE.py:FUNCTION for its data")
            self._scoring.complete(model, optimizer, progress)
            return
        if self._trains:
            raise ValueError(
                "engine= is for a trace that was reopened; beside a training, scoring stays in its process"
            )
        with open_engine(engine) if isinstance(engine, str) else nullcontext(engine) as opened:
            self._scoring.complete(model, optimizer, progress, Spread(opened, function))

    @property
    def scoring_cost(self) -> Cost | None:
        """What scoring one kept checkpoint takes, estimated and measured; None before the model was seen."""
        return self._scoring.cost if self._scoring is not None else None
