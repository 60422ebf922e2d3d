"""A graph that is held against a log: which sample each of its nodes is. Needs torch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fgtrac.api import prior
from fgtrac.api.explain import Explainer
from fgtrac.api.given_data import GivenData, secrets_of
from fgtrac.capture.graph import GraphNodes, node_count
from fgtrac.capture.returned import check_subjects, scope_of
from fgtrac.capture.row_keys import Keys, keys_of
from fgtrac.capture.sample_ids import IdKeys
from fgtrac.capture.sources import Secrets
from fgtrac.events.identity import preimages
from fgtrac.query.tables import Samples


@dataclass(frozen=True, slots=True, eq=False)
class GivenGraph:
    """The graph that was given, and the sample that each of its n nodes is: `ids` (n, 32), where `is_known` (n,). It is
    not for the nodes of erased subjects."""

    data: Any
    ids: NDArray[np.uint8]
    is_known: NDArray[np.bool_]
    features: Mapping[str, torch.Tensor]

    def with_features(self, features: Mapping[str, torch.Tensor]) -> Any:
        """A copy of the graph that has these features."""
        graph = copy.copy(self.data)
        for name, values in features.items():
            setattr(graph, name, values)
        return graph


def read_graph(
    explainer: Explainer,
    samples: Samples,
    data: Any,
    names: Sequence[str],
    name: str | None,
    key: Keys,
    subject: Keys,
) -> GivenGraph:
    """The graph as it was registered, with its name, keys and subjects. ValueError where the log has other samples
    there, and for features that are no floating point tensor with a row for each node, or none at all."""
    data = data.data if isinstance(data, GraphNodes) else data
    if not names:
        raise ValueError("features names nothing; name the attributes of the graph that are replaced")
    nodes, trace = GraphNodes(data), explainer.trace
    with secrets_of(trace) as secrets:
        if subject is not None and trace.vault_path.exists() and (erased := prior.erased_before(trace).subjects):
            called = name or "graph"
            gone = {i for one in erased for i, where in explainer.blocks.of_subject(one).items() if where == called}
            ids, is_known = _ids_but_for(gone, samples, data, called, key, subject, secrets)
        else:
            given = GivenData(trace, explainer.seal.log.event(0)["id_scheme"], secrets)
            given.register(data, name=name, key=key, subject=subject, content=False)
            ids, is_known = given.ids_of(nodes), np.ones(len(nodes), dtype=np.bool_)
    features = {}
    for called in names:
        values = getattr(data, called, None)
        if not (isinstance(values, torch.Tensor) and values.is_floating_point() and len(values) == len(ids)):
            raise ValueError(
                f"features names {called!r}, which is no tensor of floating point numbers with a row for each of "
                f"{len(ids):,} nodes in this graph"
            )
        features[called] = values
    return GivenGraph(data, ids, is_known, features)


def _ids_but_for(
    gone: set[bytes], samples: Samples, data: Any, name: str, key: Keys, subject: Keys, secrets: Secrets
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(n, 32) the ids of nodes, and (n,) whose are known: all but as many as the samples of erased subjects, `gone`,
    whose keys were destroyed. ValueError unless the others are the samples of that name."""
    n = node_count(data)
    keys, subjects = keys_of(data, key, n, "key"), keys_of(data, subject, n, "subject")
    check_subjects(subjects)
    found: dict[Any, bytes] = {}
    for one in set(subjects):
        try:
            found[one] = secrets(scope_of(one))
        except ValueError:  # its key was destroyed, or it is a stranger, which the numbers below tell
            continue
    is_known = np.array([one in found for one in subjects], dtype=np.bool_)
    known, ids = np.flatnonzero(is_known), np.zeros((n, 32), dtype=np.uint8)
    number_of = {one: number for number, one in enumerate(found)}
    owner = np.array([number_of[subjects[row]] for row in known.tolist()], dtype=np.uint32)
    named = preimages(name, [keys[row] for row in known.tolist()])
    ids[known] = IdKeys("subject", list(found.values()), owner).make(named, 0)
    here = samples.ids[samples.dataset == samples.datasets.index(name)] if name in samples.datasets else ids[:0]
    if {row.tobytes() for row in here} - gone != {row.tobytes() for row in ids[known]} or n != len(here):
        raise ValueError(
            f"the trace has other samples as {name!r}, which is not this graph of {n:,} nodes: give it as it was "
            f"registered, with the same name=, key= and subject=, also of the {len(gone):,} nodes of erased subjects"
        )
    return ids, is_known
