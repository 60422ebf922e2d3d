"""Data that are held against a log: registered as they were, with nothing written. Needs torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fgtrac.api import prior
from fgtrac.api.attention import Weighed, weigh
from fgtrac.api.registering import Registering
from fgtrac.api.scored_rows import ScoredRows, resolve_rows
from fgtrac.capture.blocks import WayBack
from fgtrac.capture.lineage import Lineage
from fgtrac.capture.recorder import Recorder
from fgtrac.capture.sources import Registry, Secrets
from fgtrac.capture.stages import stage_over
from fgtrac.score.calls import Forward
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault


class GivenData(Registering):
    """What the verifier's function is called with: it takes the verbs of a run that register data and say how scores
    and modality weights are made, and writes nothing. With `digests` false contents are not held against the log."""

    def __init__(self, trace: TraceDir, scheme: str, secrets: Secrets, *, digests: bool = True) -> None:
        before = prior.registered_before(trace)
        recorder = cast(Recorder, None)  # never called where nothing is added
        self._registry = Registry(recorder, scheme, secrets, cast(WayBack, None), before, adds=False, digests=digests)
        self._hashed = {name for name, (_block, contents) in before.items() if contents is not None}
        self.rows: dict[str, ScoredRows] = {}
        self.how: dict[str, Any] = {}
        self.batch_size: int | None = None
        self.weighed: tuple[Weighed, Callable[[Any], Any]] | None = None

    def transform(self, stage: str, data: Any, parameters: dict[str, Any] | None = None) -> Any:
        """As `Run.transform`."""
        return stage_over(Lineage(cast(Recorder, None), self._registry, stage, parameters), data)

    def score_with(
        self,
        *,
        loss: Callable[..., Any],
        train: Any,
        validation: Any = None,
        test: Any = None,
        forward: Forward | None = None,
        batch_size: int | None = None,
        **_said_by_the_factors: Any,
    ) -> None:
        """As `Run.score_with`; layers and types of numbers are those of the committed factors."""
        if batch_size is not None and not (type(batch_size) is int and batch_size >= 1):
            raise ValueError(f"batch_size={batch_size!r:.40}; give a whole number of at least 1")
        given = {"train": train, "validation": validation, "test": test}
        self.rows = {role: resolve_rows(self._registry, role, data) for role, data in given.items() if data is not None}
        self.how, self.batch_size = {"loss": loss, "forward": forward}, batch_size

    def attention_with(
        self,
        *,
        weights: Callable[[Any], Any],
        data: Any,
        modalities: Sequence[str],
        positions: Sequence[int] | None = None,
        sums_to_one: bool = True,
    ) -> None:
        """As `Run.attention_with`."""
        weighed = weigh(self._registry, "attention_with()", data, modalities, positions, sums_to_one)
        self.weighed = weighed, weights

    def unhashed(self) -> list[str]:
        """The data sets whose contents were not compared: the log has no digests of them, or the data give none."""
        roots = self._registry.registered()
        return [root.name for root in roots if root.name not in self._hashed or root.contents is None]

    def ids_of(self, data: Any) -> NDArray[np.uint8]:
        """(n, 32): the ids of the samples at each position of registered data."""
        return self._registry.resolve(data).ids()


@contextmanager
def secrets_of(trace: TraceDir) -> Iterator[Secrets]:
    """The secret of each scope, from the vault beside the trace; without one, none is known."""
    if not trace.vault_path.exists():

        def missing(scope: str) -> bytes:
            raise ValueError(f"ids are keyed, and there is no vault at {trace.vault_path} to compute them with")

        yield missing
        return
    vault = Vault.open(trace.vault_path, prior.trace_id_of(trace))
    try:
        yield functools.partial(prior.known_secret, vault)
    finally:
        vault.close()
