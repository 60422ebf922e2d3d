"""Reading a trace: `open` it, then ask for histories, samples, proofs, or verify all of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from fgtrac.api.anchor_audit import anchor_demands
from fgtrac.api.audit import Demand, audit_trace
from fgtrac.api.contents import source_digest
from fgtrac.api.ensemble import Ensemble
from fgtrac.api.naming import Named, Subject, UnknownSampleError, key_of, words_of
from fgtrac.api.read_by_workers import MEMORY, ByWorkers
from fgtrac.api.resumes import Resume, find_resumes
from fgtrac.api.scratch import check_scratch
from fgtrac.api.subjects import find_subject
from fgtrac.api.tables import TabledTrace
from fgtrac.api.trust import trusted_verifier
from fgtrac.api.trusted_anchors import TrustedAnchors
from fgtrac.engine.opening import open_engine
from fgtrac.query.attention import ModalityWeights
from fgtrac.query.history import History
from fgtrac.query.log import whole
from fgtrac.query.prove import Proof
from fgtrac.query.spikes import Spikes, find_spikes
from fgtrac.query.subject import SubjectHistory
from fgtrac.query.tables import Samples, read_samples
from fgtrac.store.far_trace import FarTrace
from fgtrac.store.places import open_to_read
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.index import CONTENT
from fgtrac.verify.checks import TraceFiles, no_verdict
from fgtrac.verify.report import Report


class Trace(TabledTrace):
    """A trace opened for reading; made by `fgtrac.open`, changes nothing on disk.

    Answers rest on the newest full seal: each is proved against its signed head before it is given. Entries after it
    are counted as `pending`.
    """

    def _repr_html_(self) -> str:
        """For notebooks."""
        from fgtrac.api.trace_html import trace_html

        return trace_html(self)

    def history(self, sample: str, *, details: bool | None = None) -> History:
        """The whole history of the sample of that name (`id:HEX`, `key:JSON`, `NAME:key:JSON` or `NAME:ROW`).

        `details` reads the entries that the index names (default: where they are few and short, together at most 2 MiB;
        of more, those that are not about uses). `tally` counts its uses as a seed and as a neighbour,
        `text(every_event=True)` has a line for each event.
        UnknownSampleError (a ValueError) where no such sample is registered, ProofError or TamperError where the trace
        was tampered with.
        """
        named = self.find(sample)
        found = self._historian.history(named.id, pending=self.pending, rests_on=self._rests_on, details=details)
        if found is None:
            raise _unregistered(sample, named)
        return found

    def modality_weights(self, sample: str | None = None) -> tuple[ModalityWeights, ...]:
        """The modality weights at each checkpoint where the trace has some, in the order of training: of the sample of
        that name, or of all samples that have any. Each says what became of its checkpoint. Errors as `history`."""
        if sample is None:
            return self._attention.of_all(self._blocks)
        named = self.find(sample)
        found = self._attention.of_sample(named.id)
        if found is None:
            raise _unregistered(sample, named)
        return found

    def subject(self, subject: Subject) -> SubjectHistory:
        """All samples of one subject, each counted, with what was made from them and other people's.

        `subject` is what `register(subject=...)` was given, a text or a number, through the vault, or the pseudonym in
        hex, from the log alone: an erased subject has no other name any more. UnknownSubjectError (a ValueError) where
        it has no sample here, CannotTell where that cannot be told since keys were destroyed; otherwise as `history`.
        """
        found = find_subject(subject, self._vault, self._blocks)
        answer = self._subjects.read(found.pseudonym, found.name, self.pending, self._rests_on)
        return replace(answer, without_key=found.without_key)

    def sample_counts(self) -> Samples:
        """Every registered sample with its data set, name, roles and counts, as columns.

        ProofError where the index on disk is not the sealed one.
        """
        vault = self._vault
        names = None if vault is None else {n.id: words_of(n.dataset, key_of(n.key)) for n in vault.names()}
        with whole("the table of samples"):
            return read_samples(self._seal, names)

    def resumes(self) -> tuple[Resume, ...]:
        """The restarts of the run, and the samples that were repeated or skipped in each pass that a restart cut,
        against the order of its sampler. Of every sealed entry, each checked against the head's root."""
        return find_resumes(self.path)

    def spikes(self, *, top: int = 5, samples: int = 5, step: int | None = None) -> Spikes:
        """The steps where the training loss jumped, and the samples in them by how far their loss lay above what is
        usual for them; with `step`, that step whether or not it jumped. From the losses that `run.losses` recorded:
        where there are none, the answer's `is_known` is False. ValueError for a step that has none where others do."""
        if top < 1 or samples < 1 or (step is not None and step < 0):
            raise ValueError(f"top={top}, samples={samples}, step={step}; at least one of each, and no step below 0")
        return find_spikes(self._seal.log, self._blocks, self._namer.name_of, top=top, samples=samples, step=step)

    def prove(
        self, sample: str, claim: str | None = None, *, entries: bool = False, checkpoint: int | None = None
    ) -> bytes:
        """A bundle: one JSON file that proves a claim about a sample to anyone who trusts the log's key.

        `claim` is "used", "history", "never used" or "never registered"; by default the strongest that is true:
        "used", else "never used", else "never registered". "label never used" says of a node of a graph that it was no
        seed of an update, and how often it was a neighbour. For `file:PATH` and `row:FILE.npy:INDEX`: "content present"
        or "content absent". With `entries` it holds every entry that is about the sample, and says when; of a use it
        says how many came before the kept state of step `checkpoint` (default: the last). ValueError where the claim
        is not true, no bundle can hold what proves it, or a content is not there and no contents of the trace
        were taken from its like, so that its absence says nothing.
        """
        meant = [Proof(n.id, n.preimage, n.opening, n.is_content) for n in self._namer.find_all(sample)]
        chosen = self._prover.choose(meant)
        if chosen.is_content and self._seal.find(CONTENT, chosen.id) is None:
            self._check_comparable(sample)
        return self._prover.prove(chosen, claim, entries=entries, checkpoint=checkpoint)

    def _check_comparable(self, content: str) -> None:
        """ValueError where contents of no data set were taken from such a source as `content` names."""
        words, source, _digest = source_digest(content)
        recorded = {event.get("content", source) for _, event in self._historian.timeline.entries("dataset")}
        if recorded and source not in recorded:
            raise ValueError(
                f"no sample holds {words}, which is a {source:.60}, and that says nothing: contents of this trace were "
                f"taken from {', '.join(map(repr, sorted(recorded))):.200}; name one of these by file:PATH or "
                "row:FILE.npy:INDEX, or name the sample"
            )

    @no_verdict()
    def verify(
        self,
        key: str | None = None,
        *,
        anchors: TrustedAnchors | None = None,
        demands: Iterable[Demand] = (),
        progress: Callable[[int, int], None] | None = None,
        engine: str | None = None,
        memory_bytes: int = MEMORY,
        scratch: str | os.PathLike[str] | None = None,
    ) -> Report:
        """Read everything again, and answer check by check. `key` is the public key that the head must be signed with:
        64 hex digits, a file, or a C2SP verifier key; by default the one given to `open`, else the user's own.
        `anchors` says whose receipts count; no network is asked without its `nodes`. `demands` are checks beyond the
        usual ones, made after them. Errors of what is named as in `anchor_demands`.

        `engine` says who reads the log (default: `FGTRAC_ENGINE`, else the processes of this machine); an index that
        would take more than `memory_bytes` is rebuilt in a folder `scratch` (default: in the user's cache), with about
        12 bytes a use there at a time. EngineError where workers are lost (asked again, it goes on from there), or
        this machine cannot list the trace's folders or has no memory left; FileNotFoundError or ValueError, before
        anything is read, where nothing can be made in the `scratch` named."""
        named = self._key if key is None else key
        verifier, whose = trusted_verifier(named, self.id, note=self._directory.head_note())
        trace, where = self._directory, None if scratch is None else Path(scratch)
        demands = [*anchor_demands(trace.names(), anchors or TrustedAnchors()), *demands]
        if where is not None:
            check_scratch(where)
        with open_engine(engine) as workers:

            def reading(files: TraceFiles) -> ByWorkers:
                return ByWorkers(files, trace, workers, memory_bytes, where, progress)

            report = audit_trace(trace, verifier, demands=demands, progress=progress, reading=reading)
        notes = (*report.notes, *_unpublished(trace))
        return Report(report.findings, (*notes, f"the signature was checked with {whose}" if verifier else whose))


def _unpublished(trace: TraceDir) -> list[str]:
    """What lies on object storage beyond the head: a push is under way, or was cut."""
    if not isinstance(trace, FarTrace) or not trace.unpublished:
        return []
    return [f"{trace.unpublished} files of a larger head were uploaded and are not published; fgtrac push goes on"]


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
    """Open the trace at `path` (NAME.trace, or s3://BUCKET/PREFIX/NAME.trace) for reading. `key` names the public
    key whose signature counts.

    FileNotFoundError where there is none, FormatError for what is no trace, NotSealedError (a ValueError) where
    nothing has been fully sealed yet.
    """
    trace = Trace(open_to_read(path), key)
    trace._warm()
    return trace


@no_verdict()
def open_for_verification(path: str | os.PathLike[str], *, key: str | None = None) -> Trace:
    """`open_trace` for somebody who believes nothing yet: reads no more than which trace it is."""
    return Trace(open_to_read(path), key)
