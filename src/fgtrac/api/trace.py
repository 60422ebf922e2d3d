"""Reading a trace: `open` it, then ask for histories, samples, proofs, or verify all of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from fgtrac.api.anchor_audit import anchor_demands
from fgtrac.api.audit import Demand, audit_trace
from fgtrac.api.ensemble import Ensemble
from fgtrac.api.explain import check_unseen
from fgtrac.api.explanation import Explanation, Fidelity
from fgtrac.api.matrix import write_matrix
from fgtrac.api.measuring import measure_fidelity, record_fidelity
from fgtrac.api.naming import Named, UnknownSampleError, key_of, words_of
from fgtrac.api.neighbour_answer import NeighbourContributions
from fgtrac.api.opened import OpenedTrace
from fgtrac.api.record_scores import Recorded, record_scores
from fgtrac.api.score_arrays import Scores, compute_scores
from fgtrac.api.subjects import find_subject
from fgtrac.api.suspects import (
    Duplicates,
    SelfInfluence,
    SuspectList,
    list_duplicates,
    list_suspects,
    measure_self_influence,
)
from fgtrac.api.targets import read_targets
from fgtrac.api.trust import trusted_verifier
from fgtrac.api.trusted_anchors import TrustedAnchors
from fgtrac.query.attention import ModalityWeights
from fgtrac.query.history import History
from fgtrac.query.log import whole
from fgtrac.query.prove import Proof
from fgtrac.query.spikes import Spikes, find_spikes
from fgtrac.query.subject import SubjectHistory
from fgtrac.query.tables import Samples, read_samples
from fgtrac.score.methods import Method
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.report import Report


class Trace(OpenedTrace):
    """A trace opened for reading; made by `fgtrac.open`, changes nothing on disk.

    Answers rest on the newest full seal: each is proved against its signed head before it is given. Entries after it
    are counted as `pending`.
    """

    def history(self, sample: str, *, details: bool | None = None) -> History:
        """The whole history of the sample of that name (`id:HEX`, `key:JSON`, `NAME:key:JSON` or `NAME:ROW`).

        `details` reads the entries that the index names (default: where they are few; of more, those that are not about
        uses). `tally` counts its uses as a seed and as a neighbour, `text(every_event=True)` has a line for each event.
        UnknownSampleError (a
        ValueError) where no such sample is registered, ProofError or TamperError where the trace was tampered with.
        """
        named = self.find(sample)
        found = self._historian.history(named.id, pending=self.pending, rests_on=self._rests_on, details=details)
        if found is None:
            raise _unregistered(sample, named)
        return found

    def attention(self, sample: str | None = None) -> tuple[ModalityWeights, ...]:
        """The modality weights at each checkpoint where the trace has some, in the order of training: of the sample of
        that name, or of all samples that have any. Each says what became of its checkpoint. Errors as `history`."""
        if sample is None:
            return self._attention.of_all(self._blocks)
        named = self.find(sample)
        found = self._attention.of_sample(named.id)
        if found is None:
            raise _unregistered(sample, named)
        return found

    def subject(self, subject: int | str) -> SubjectHistory:
        """All samples of one subject, each counted, with what was made from them and other people's.

        `subject` is what `register(subject=...)` was given, through the vault, or the pseudonym in hex, from the log
        alone: an erased subject has no other name any more. UnknownSubjectError (a ValueError) where it has no sample
        here, CannotTell where that cannot be told since keys were destroyed; otherwise as `history`.
        """
        pseudonym, called = find_subject(subject, self._vault, self._blocks)
        return self._subjects.read(pseudonym, called, self.pending, self._rests_on)

    def samples(self) -> Samples:
        """Every registered sample with its data set, name, roles and counts, as columns.

        ProofError where the index on disk is not the sealed one.
        """
        vault = self._vault
        names = None if vault is None else {n.id: words_of(n.dataset, key_of(n.key)) for n in vault.names()}
        with whole("the table of samples"):
            return read_samples(self._seal, names)

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
        progress: Callable[[int, int], None] | None = None,
    ) -> Recorded:
        """Write the contributions of all training samples toward these targets (as `explain` takes them) into the log,
        and seal it with the trace's own key (`key` is the signing key's file). What the log has already is not written
        again; `fgtrac verify` computes it again. This opened trace still answers as of before: open it anew."""
        how, explainer = Method(method, damping, ggn), self._explainer
        check_unseen("record", targets, model, loss, forward)
        cache = explainer.cache(checkpoints)
        if model is None:
            resolved = explainer.resolve(cache, targets)
            gradients: Iterable[tuple[list[int], list[Any]]] = read_targets(cache, resolved)
        else:
            from fgtrac.api.unseen import read_batch

            assert loss is not None
            resolved, by_state = read_batch(explainer, cache, targets[0], model, loss, forward)
            gradients = [(list(range(len(resolved))), by_state)]
        signing_key = None if key is None else Path(key)
        return record_scores(explainer, cache, resolved, gradients, how, signing_key, progress)

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
        progress: Callable[[int, int], None] | None = None,
    ) -> Path:
        """Write the scores of all training samples toward all targets (as `explain` takes them) into `folder`, part by
        part: `scores-PART.npy` of shape (rows, targets) (by default of 16 MB each), rows.csv with your own keys,
        targets.csv. An interrupted job goes on where it stopped. ValueError where the folder holds another query's
        scores, or anything else."""
        how = Method(method, damping, ggn)
        return write_matrix(
            self._explainer, targets, how, Path(folder), checkpoints=checkpoints, rows_a_part=rows_a_part,
            progress=progress,
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
        progress: Callable[[int, int], None] | None = None,
    ) -> SelfInfluence:
        """Every training sample's score toward its own loss (arXiv:2002.08484 section 4.1): high where a sample is
        learnt by itself, as rare and mislabelled ones are. ValueError for tracin-cos, otherwise as `explain`."""
        return measure_self_influence(self._explainer, Method(method, damping, ggn), checkpoints, progress)

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
        progress: Callable[[int, int], None] | None = None,
    ) -> SuspectList:
        """The k training samples (None: all) whose labels are most suspicious, by self-influence and by the mean
        training loss, which costs nothing. `by` orders them by "self-influence" or "mean loss"; by default the better
        one where `wrong` names the samples that are known to be mislabelled, else the mean loss. Errors as
        `explain`."""
        how = Method(method, damping, ggn)
        return list_suspects(self._explainer, how, k, checkpoints=checkpoints, by=by, wrong=wrong, progress=progress)

    def duplicates(
        self,
        k: int = 20,
        *,
        checkpoint: int | None = None,
        by: str = "gradients",
        progress: Callable[[int, int], None] | None = None,
    ) -> Duplicates:
        """The k pairs of training samples that are most alike by their "gradients" (or what the layers read: "inputs")
        at one checkpoint, by default the last; beside them the count of equal contents, which costs nothing. Compares
        every sample with every other. Errors as `explain`."""
        return list_duplicates(self._explainer, k, checkpoint=checkpoint, by=by, progress=progress)

    def spikes(self, *, top: int = 5, samples: int = 5, step: int | None = None) -> Spikes:
        """The steps where the training loss jumped, and the samples in them by how far their loss lay above what is
        usual for them; with `step`, that step whether or not it jumped. From the losses that `run.losses` recorded:
        where there are none, the answer's `is_known` is False. ValueError for a step that has none where others do."""
        if top < 1 or samples < 1 or (step is not None and step < 0):
            raise ValueError(f"top={top}, samples={samples}, step={step}; at least one of each, and no step below 0")
        return find_spikes(self._seal.log, self._blocks, self._namer.name_of, top=top, samples=samples, step=step)

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
        adds the sums over training samples of one "source" (data set), "class" or "subject".

        ValueError for names and settings that say nothing here, ScoreError where there are no factors to answer
        from, TamperError where a factor file is not the one of the log.
        """
        how, explainer = Method(method, damping, ggn), self._explainer
        check_unseen("explain", targets, model, loss, forward)
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

        `data` is the graph as it was registered (with `name`, `key` and `subject`, where those were given).
        `forward(model, nodes, graph)` gives (outputs, targets) of the nodes whose numbers (1,) it is given, and reads
        `features`, attributes of the graph with a row of floating point numbers for each node, from `graph`: a copy of
        `data` in which they are replaced. Each kept state is put into a copy of the model; that needs torch.

        Each node of the receptive field has an estimate; the k strongest of them at the last state (None: all) also
        their occlusion, which takes a forward pass for each at each state. `score.neighbours` defines the two and names
        their sources; the baseline is the mean of the nodes with the role train. Above 0: the node's features, as they
        are, lowered the loss.

        ValueError for a name that is no node of this graph, another graph, features that it does not have and steps at
        which nothing is kept; ScoreError where the loss does not follow from the features, differs from pass to pass,
        or is not finite; TamperError where a state is not the one of the log.
        """
        from fgtrac.api.neighbours import Asked, explain_neighbours, read_graph

        if k is not None and k < 1:
            raise ValueError(f"k={k}; ask for at least 1 node, or None for all")
        names = (features,) if isinstance(features, str) else tuple(features)
        graph = read_graph(self._explainer, data, names, name, key, subject)
        asked = Asked(model, loss, forward, names)
        return explain_neighbours(
            self._explainer, read_samples(self._seal, None), self.find(node), graph, asked,
            k=k, checkpoints=checkpoints, progress=progress,
        )  # fmt: skip

    def prove(
        self, sample: str, claim: str | None = None, *, entries: bool = False, checkpoint: int | None = None
    ) -> bytes:
        """A bundle: one JSON file that proves a claim about a sample to anyone who trusts the log's key.

        `claim` is "used", "history", "never used" or "never registered"; by default the strongest that is true:
        "used", else "never used", else "never registered". "label never used" says of a node of a graph that it was no
        seed of an update, and how often it was a neighbour. For `file:PATH` and `row:FILE.npy:INDEX`: "content present"
        or "content absent". With `entries` it holds every entry that is about the sample, and says when; of a use it
        says how many came before the kept state of step `checkpoint` (default: the last). ValueError where the claim
        is not true, or no bundle can hold what proves it.
        """
        meant = [Proof(n.id, n.preimage, n.opening, n.is_content) for n in self._namer.find_all(sample)]
        return self._prover.prove(self._prover.choose(meant), claim, entries=entries, checkpoint=checkpoint)

    def verify(
        self,
        key: str | None = None,
        *,
        anchors: TrustedAnchors | None = None,
        demands: Iterable[Demand] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> Report:
        """Read everything again, and answer check by check. `key` is the public key that the head must be signed with:
        64 hex digits, a file, or a C2SP verifier key; by default the one given to `open`, else the user's own.
        `anchors` says whose receipts count; no network is asked without its `nodes`. `demands` are checks beyond the
        usual ones, made after them. Errors of what is named as in `anchor_demands`."""
        named = self._key if key is None else key
        verifier, whose = trusted_verifier(named, self.id, note=self._directory.head_note())
        demands = [*anchor_demands(self._directory.names(), anchors or TrustedAnchors()), *demands]
        report = audit_trace(self._directory, verifier, demands=demands, progress=progress)
        return Report(
            report.findings, (*report.notes, f"the signature was checked with {whose}" if verifier else whose)
        )

    def find(self, sample: str) -> Named:
        """The id behind a sample's name, registered or not. ValueError for a name that says nothing here."""
        return self._namer.find(sample)

    def remark(self, sample: str) -> str:
        """What the name may be mistaken for: `NAME:ROW` where keys were given is a key, and no row. Mostly empty."""
        return self._namer.remark(sample)


def _unregistered(sample: str, named: Named) -> UnknownSampleError:
    return UnknownSampleError(
        f"no sample {sample} is registered (id {named.id.hex()}), as its neighbours in the index show; "
        f"fgtrac prove makes that a proof"
    )


def ensemble(traces: Sequence[Trace]) -> Ensemble:
    """Several opened traces whose training scored the same samples; its `explain` gives the mean of their scores.

    ValueError where they scored different samples; ScoreError where one has no factors.
    """
    return Ensemble([trace._explainer for trace in traces], [str(trace.path) for trace in traces])


def open_trace(path: str | os.PathLike[str], *, key: str | None = None) -> Trace:
    """Open the trace at `path` (NAME.trace) for reading. `key` names the public key whose signature counts.

    FileNotFoundError where there is none, FormatError for what is no trace, NotSealedError (a ValueError) where
    nothing has been fully sealed yet.
    """
    trace = open_for_verification(path, key=key)
    trace._warm()
    return trace


def open_for_verification(path: str | os.PathLike[str], *, key: str | None = None) -> Trace:
    """`open_trace` for somebody who believes nothing yet: reads no more than which trace it is."""
    return Trace(TraceDir.open(Path(path)), key)
