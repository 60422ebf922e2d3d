"""The verbs of an opened trace about scores: who lowered whose loss, and how far that is to be trusted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from fgtrac.api.explain import check_unseen
from fgtrac.api.explanation import Explanation, Fidelity
from fgtrac.api.matrix import write_matrix
from fgtrac.api.measuring import measure_fidelity, record_fidelity
from fgtrac.api.neighbour_answer import NeighbourContributions
from fgtrac.api.opened import OpenedTrace
from fgtrac.api.record_scores import Recorded, record_scores
from fgtrac.api.score_arrays import Scores, compute_scores
from fgtrac.api.spread_scores import asking, explain_by
from fgtrac.api.suspects import (
    Duplicates,
    SelfInfluence,
    SuspectList,
    list_duplicates,
    list_suspects,
    measure_self_influence,
)
from fgtrac.api.targets import read_targets
from fgtrac.engine.opening import open_engine
from fgtrac.engine.units import Engine
from fgtrac.query.tables import read_samples
from fgtrac.score.methods import Method


class ScoredTrace(OpenedTrace):
    """An opened trace that is asked who taught the model what; ScoreError where it has nothing to answer from."""

    def explain(
        self,
        *targets: Any,
        model: Any = None,
        loss: Callable[..., Any] | None = None,
        forward: Callable[[Any, Any], Any] | None = None,
        method: str = "tracin",
        damping: float | None = None,
        ggn: bool = False,
        k: int = 10,
        checkpoints: Sequence[int] | None = None,
        by: str | None = None,
        engine: str | Engine | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Explanation:
        """Which training samples lowered the loss of each target most and which raised it, and by how much at each
        kept checkpoint (`checkpoints` chooses some by step). A positive score: the sample lowered the loss.

        A target is a sample's name whose factors are in the trace, a list of names (the mean of their losses),
        "class:K", "class:K:ROLE" or "role:ROLE". With `model` it is one batch of unseen data, as `forward` (by default
        `(inputs, targets)`) and `loss` take it: each kept state is put into a copy of the model. That needs torch;
        all else reads factor files only, and checks each against the log once.

        `method` is "tracin" (arXiv:2002.08484, the default: the paper's), "tracin-cos", "fisher" (nearer to what
        retraining shows; with `ggn` by the Gauss-Newton matrix) or "ekfac"; `damping` belongs to the last two. `by`
        adds the sums over training samples of one "source" (data set), "class" or "subject". `engine` ("local:N",
        "ray", ..., or one that is open) has its workers read the factors, with one thread each: the answer is the same,
        bit for bit, with every engine, and that of this process without one but for the last bits.

        ValueError for names and settings that say nothing here (`engine` with `model` too), ScoreError where there are
        no factors to answer from, TamperError where a factor file is not the one of the log.
        """
        how, explainer = Method(method, damping, ggn), self._explainer
        check_unseen("explain", targets, model, loss, forward, engine)
        if engine is not None:
            return explain_by(explainer, engine, targets, how, k=k, checkpoints=checkpoints, by=by, progress=progress)
        if model is None:
            return explainer.explain(targets, how, k=k, checkpoints=checkpoints, by=by, progress=progress)
        assert loss is not None
        from fgtrac.api.unseen import explain_batch  # the only part that needs torch

        given = (targets[0], model, loss, forward)
        return explain_batch(explainer, *given, how, k=k, checkpoints=checkpoints, by=by, progress=progress)

    def neighbour_contributions(
        self,
        node: str,
        *,
        model: Any,
        data: Any,
        loss: Callable[..., Any],
        forward: Callable[[Any, Any, Any], Any],
        features: str | Sequence[str] = "x",
        k: int | None = 20,
        checkpoints: Sequence[int] | None = None,
        name: str | None = None,
        key: Any = None,
        subject: Any = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> NeighbourContributions:
        """What the features of other nodes do to the loss of `node` (its name) through message passing, at each kept
        checkpoint (`checkpoints` chooses some by step). No training contribution, and never added to one.

        `data` is the graph as it was registered (with `name`, `key` and `subject`, where those were given, also of
        subjects that were erased since). The ids of its nodes are compared with the log, but for those of erased
        subjects; its features and edges are taken as given.
        `forward(model, nodes, graph)` gives (outputs, targets) of the nodes whose numbers (1,) it is given, and reads
        `features`, attributes of the graph with a row of floating point numbers for each node, from `graph`: a copy of
        `data` in which they are replaced. Each kept state is put into a copy of the model; that needs torch.

        Each node of the receptive field has an estimate; the k strongest of them at the last state (None: all) also
        their occlusion, which takes a forward pass for each at each state. `score.neighbours` defines the two and names
        their sources; the baseline is the mean of the nodes with the role train. Above 0: the node's features, as they
        are, lowered the loss.

        ValueError for a name that is no node of this graph, a graph of other nodes, features that it does not have and
        steps at which nothing is kept; ScoreError where the loss does not follow from the features, or also from the
        tensors of `data` itself, differs from pass to pass, or is not finite; TamperError where a state is not the one
        of the log.
        """
        from fgtrac.api.given_graph import read_graph
        from fgtrac.api.neighbours import Asked, explain_neighbours

        if not isinstance(node, str) or node.startswith(("class:", "role:")):
            raise ValueError(f"{node!r:.60} is no node; give the name of one")
        if k is not None and k < 1:
            raise ValueError(f"k={k}; ask for at least 1 node, or None for all")
        names = (features,) if isinstance(features, str) else tuple(features)
        samples = read_samples(self._seal, None)
        graph = read_graph(self._explainer, samples, data, names, name, key, subject)
        asked = Asked(model, loss, forward, names)
        return explain_neighbours(
            self._explainer, samples, self.find(node), graph, asked,
            k=k, checkpoints=checkpoints, progress=progress,
        )  # fmt: skip

    def record(
        self,
        *targets: Any,
        model: Any = None,
        loss: Callable[..., Any] | None = None,
        forward: Callable[[Any, Any], Any] | None = None,
        method: str = "tracin",
        damping: float | None = None,
        ggn: bool = False,
        checkpoints: Sequence[int] | None = None,
        key: str | os.PathLike[str] | None = None,
        engine: str | Engine | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Recorded:
        """Write the contributions of all training samples toward these targets (as `explain` takes them) into the log,
        and seal it with the trace's own key (`key` is the signing key's file). What the log has already is not written
        again; `fgtrac verify` computes it again. `engine` as for `explain`: its workers compute what fisher and ekfac
        put between gradients, which is the long part. This opened trace still answers as of before: open it anew."""
        how, explainer, signing_key = Method(method, damping, ggn), self._explainer, None if key is None else Path(key)
        check_unseen("record", targets, model, loss, forward, engine)
        if engine is not None:
            with asking(explainer, engine, how, targets, checkpoints) as asked:
                asked.curvatures()
                gradients = read_targets(asked.cache, asked.targets)
                return record_scores(explainer, asked.cache, asked.targets, gradients, how, signing_key, progress)
        cache = explainer.cache(checkpoints)
        if model is None:
            resolved = explainer.resolve(cache, targets)
            gradients_of: Iterable[tuple[list[int], list[Any]]] = read_targets(cache, resolved)
        else:
            from fgtrac.api.unseen import read_batch

            assert loss is not None
            resolved, by_state = read_batch(explainer, cache, targets[0], model, loss, forward)
            gradients_of = [(list(range(len(resolved))), by_state)]
        return record_scores(explainer, cache, resolved, gradients_of, how, signing_key, progress)

    def scores(
        self,
        *targets: Any,
        method: str = "tracin",
        damping: float | None = None,
        ggn: bool = False,
        checkpoints: Sequence[int] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Scores:
        """The scores of all n training samples toward m targets (as `explain` takes them) as one array in memory: `ids`
        (n, 32), `scores` (n, m) float32, that is 4 n m bytes beside the names and what the kernel holds (about 300 MB
        at most); where that is too much, `write_scores`. Errors as `explain`."""
        how = Method(method, damping, ggn)
        return compute_scores(self._explainer, targets, how, checkpoints=checkpoints, progress=progress)

    def write_scores(
        self,
        folder: str | os.PathLike[str],
        *targets: Any,
        method: str = "tracin",
        damping: float | None = None,
        ggn: bool = False,
        checkpoints: Sequence[int] | None = None,
        rows_a_part: int | None = None,
        engine: str | Engine | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Path:
        """Write the scores of all training samples toward all targets (as `explain` takes them) into `folder`, part by
        part: `scores-PART.npy` of shape (rows, targets) (by default of 16 MB each), rows.csv with your own keys,
        targets.csv. An interrupted job goes on where it stopped. `engine` ("local:N", "ray", ..., or one that is open)
        gives the parts to workers, with one thread each: the bytes are the same with every engine, and those of this
        process without one but for the last bits. ValueError where the folder holds another query's scores, or anything
        else."""
        how = Method(method, damping, ggn)
        with open_engine(engine) if isinstance(engine, str) else nullcontext(engine) as opened:
            return write_matrix(
                self._explainer, targets, how, Path(folder), checkpoints=checkpoints, rows_a_part=rows_a_part,
                engine=opened, progress=progress,
            )  # fmt: skip

    def fidelity(
        self,
        retrain: Callable[[Any, int], Any],
        *targets: Any,
        method: str = "tracin",
        damping: float | None = None,
        ggn: bool = False,
        checkpoints: Sequence[int] | None = None,
        subsets: int = 64,
        resume_path: str | os.PathLike[str] | None = None,
        record: bool = False,
        key: str | os.PathLike[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Fidelity:
        """How well the scores agree with retraining: the linear datamodeling score (arXiv:2303.14186) and its standard
        error. `retrain(rows, seed)` trains on some of the training samples, named by your own keys (row numbers as an
        array), and returns the losses of the targets in order; without targets, of all validation samples in the
        order of their keys. Finished retrainings are kept in the file `resume_path`, and done once for all methods.
        With `record` the log keeps the result, and later answers say it. Errors as `explain` and `score.fidelity`."""
        how, explainer = Method(method, damping, ggn), self._explainer
        cache = explainer.cache(checkpoints)
        resolved = explainer.resolve(cache, targets or ("role:validation",))
        found = measure_fidelity(
            explainer, cache, resolved, how, retrain, subsets=subsets,
            resume_path=None if resume_path is None else Path(resume_path), progress=progress,
        )  # fmt: skip
        if record:
            record_fidelity(explainer, cache, how, found, None if key is None else Path(key))
        return found

    def measured(
        self,
        *,
        method: str = "tracin",
        damping: float | None = None,
        ggn: bool = False,
        checkpoints: Sequence[int] | None = None,
    ) -> Fidelity | None:
        """The fidelity that the log says was measured of this method at these checkpoints; None where it says none."""
        steps = tuple(state.step for state in self._explainer.cache(checkpoints).states)
        return self._explainer.fidelity(Method(method, damping, ggn), steps)

    def self_influence(
        self,
        *,
        method: str = "fisher",
        damping: float | None = None,
        ggn: bool = False,
        checkpoints: Sequence[int] | None = None,
        engine: str | Engine | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> SelfInfluence:
        """Every training sample's score toward its own loss (arXiv:2002.08484 section 4.1): high where a sample is
        learnt by itself, as rare and mislabelled ones are. `engine` as for `explain`. ValueError for tracin-cos,
        otherwise as `explain`."""
        return measure_self_influence(self._explainer, Method(method, damping, ggn), checkpoints, engine, progress)

    def suspects(
        self,
        k: int | None = 20,
        *,
        method: str = "fisher",
        damping: float | None = None,
        ggn: bool = False,
        checkpoints: Sequence[int] | None = None,
        by: str | None = None,
        wrong: Sequence[str] | None = None,
        engine: str | Engine | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> SuspectList:
        """The k training samples (None: all) whose labels are most suspicious, by self-influence and by the mean
        training loss, which costs nothing. `by` orders them by "self-influence" or "mean loss"; by default the better
        one where `wrong` names the samples that are known to be mislabelled, else the mean loss. `engine` and errors as
        `explain`."""
        return list_suspects(
            self._explainer, Method(method, damping, ggn), k,
            checkpoints=checkpoints, by=by, wrong=wrong, engine=engine, progress=progress,
        )  # fmt: skip

    def duplicates(
        self,
        k: int = 20,
        *,
        checkpoint: int | None = None,
        by: str = "gradients",
        engine: str | Engine | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Duplicates:
        """The k pairs of training samples that are most alike by their "gradients" (or what the layers read: "inputs")
        at one checkpoint, by default the last; beside them the count of equal contents, which costs nothing. Compares
        every sample with every other. `engine` and errors as `explain`."""
        return list_duplicates(self._explainer, k, checkpoint=checkpoint, by=by, engine=engine, progress=progress)
