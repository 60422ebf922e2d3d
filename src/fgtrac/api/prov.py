"""W3C PROV-JSON of a trace, by the `prov` package: what came from what, through which activity, on whose account.

https://www.w3.org/submissions/prov-json/. Of the samples a bounded number stands in it: the record `fgtrac:run` has the
totals of all, and says how many were left out. The only file that imports `prov`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fgtrac.api.exported_files import check_place, write_export
from fgtrac.api.trace import Trace, open_trace
from fgtrac.errors import not_installed
from fgtrac.events.identity import subject_commitment
from fgtrac.query.course import Course, Epoch, read_course
from fgtrac.query.log import whole
from fgtrac.query.tables import Samples

NAMESPACE = "urn:fgtrac:prov:"  # a name and no address: the project has no domain of its own
SAMPLES = 100  # that stand in a document unless another number is asked for
MOST_RECORDS = 1_000_000  # of samples, and of a sample's uses in an epoch: about 1.2 KB of memory each
Attributes = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Provenance:
    """A PROV-JSON document, with how many samples stand in it and how many were left out, and the totals of the run's
    record: equal to what the log has of all samples. `pending` later entries are in none of it."""

    text: str
    samples: int
    left_out: int
    totals: dict[str, int]
    pending: int


def provenance(
    trace: Trace, *, samples: int | None = SAMPLES, progress: Callable[[int, int], None] | None = None
) -> Provenance:
    """The PROV-JSON of a trace as of its newest full seal. Of its samples the first `samples` by id stand in it (None:
    all): ids are hashes, so that these are drawn fairly.

    ValueError without the `prov` package, and where it would take more than MOST_RECORDS; ProofError or TamperError
    where the log or its index is not what was sealed.
    """
    model = _model()
    counts = trace.sample_counts()
    shown = len(counts) if samples is None else min(samples, len(counts))
    records = shown * (1 + len(trace._seal.event["epoch_steps"]))
    if records > MOST_RECORDS:
        raise ValueError(
            f"{shown:,} samples with their epochs are up to {records:,} records, and a PROV document is built in "
            f"memory: the most is {MOST_RECORDS:,}; ask for fewer (--samples), or write tables: fgtrac export parquet"
        )
    ids = [sample.tobytes() for sample in counts.ids[:shown]]
    historian = trace._historian
    course = read_course(trace._seal, historian.timeline, trace._blocks, ids, progress)
    with whole("the provenance"):
        writing = _Writing(model, trace, course, counts, shown)
        return Provenance(writing.text(), shown, len(counts) - shown, writing.totals, trace.pending)


def export_prov(
    path: Path,
    out: Path,
    *,
    samples: int | None = SAMPLES,
    replace: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Provenance:
    """Write `provenance` to a file. FileExistsError where one is there, unless `replace`; otherwise as `provenance`."""
    check_place(out, replace=replace)
    done = provenance(open_trace(path), samples=samples, progress=progress)
    write_export(out, done.text.encode(), replace=replace)
    return done


def _model() -> Any:
    try:
        import prov.model
    except ModuleNotFoundError as error:
        raise not_installed("PROV needs", error.name, "prov") from error
    return prov.model


class _Writing:
    """One document. Records are named by kinds and numbers; what a log says in words stands in attributes only."""

    def __init__(self, model: Any, trace: Trace, course: Course, counts: Samples, shown: int) -> None:
        self._trace, self._course, self._counts = trace, course, counts
        self._timeline = trace._historian.timeline
        self._run = trace._seal.log.event(0)
        secret = None if trace._vault is None else trace._vault.find_secret("run")
        self._nobody = None if secret is None else subject_commitment(secret)
        self._prov = model.PROV
        self.document = model.ProvDocument()
        self.document.add_namespace("fgtrac", NAMESPACE)
        names = {event["name"] for _, event in self._timeline.entries("dataset")} | set(counts.datasets)
        names |= {name for stage in course.stages.values() for name in (stage.dataset, *stage.made)}
        self._datasets = {name: f"fgtrac:dataset-{number}" for number, name in enumerate(sorted(names))}
        self.totals = self._totals(shown)
        self._write_run()
        self._write_datasets()
        self._write_stages()
        self._write_epochs()
        self._write_states()
        self._write_said()
        self._write_samples(shown)

    def text(self) -> str:
        """The document as PROV-JSON."""
        return str(self.document.serialize(format="json")) + "\n"

    def _totals(self, shown: int) -> dict[str, int]:
        course, counts = self._course, self._counts
        said = {name: course.total(name) for name in ("uses", "perhaps", "neighbours", "deliveries", "superseded")}
        said |= {"samples": len(counts), "samplesShown": shown, "samplesLeftOut": len(counts) - shown}
        return said | {"predictions": int(counts.predictions.sum()), "epochs": len(course.epochs)}

    def _write_run(self) -> None:
        seal = self._trace._seal
        kinds = {f"entries-{kind}": count for kind, count in sorted(seal.event["counts"].items())}
        self._activity(
            "fgtrac:run", {"prov:type": "training run", "traceId": self._trace.id.hex()} | self.totals | kinds
        )
        head = {"size": seal.head.size, "rootHash": seal.head.root.hex(), "origin": seal.head.origin}
        head["laterEntries"] = self._trace.pending
        self._entity("fgtrac:log", {"prov:type": "transparency log", **head, "note": seal.note.decode()})
        versions = {f"version-{name}": version for name, version in sorted(self._run["versions"].items())}
        self.document.agent("fgtrac:recorder", {"prov:type": self._prov["SoftwareAgent"], **_named(versions)})
        key = _signing_key(self._trace)
        self.document.agent("fgtrac:signing-key", _named({"prov:type": "Ed25519 public key", "publicKey": key}))
        self.document.wasAssociatedWith("fgtrac:run", "fgtrac:recorder")
        self.document.wasGeneratedBy("fgtrac:log", "fgtrac:run")
        self.document.wasAttributedTo("fgtrac:log", "fgtrac:signing-key")

    def _write_datasets(self) -> None:
        said = {event["name"]: event for _, event in self._timeline.entries("dataset")}
        for name, record in self._datasets.items():
            mine = [n for n, known in enumerate(self._counts.datasets) if known == name]
            rows = {"rows": said[name]["rows"]} if "rows" in said.get(name, {}) else {}
            number = int((self._counts.dataset == mine[0]).sum()) if mine else 0
            self._entity(record, {"prov:type": self._prov["Collection"], "prov:label": name, "samples": number, **rows})

    def _write_stages(self) -> None:
        for number, stage in enumerate(self._course.stages.values()):
            record = f"fgtrac:stage-{number}"
            counts = {name: getattr(stage, name) for name in ("kept", "dropped", "children")}
            about = {"prov:type": "preprocessing stage", "prov:label": stage.name, "operation": stage.operation}
            self._activity(record, about | counts)
            self.document.used(record, self._datasets[stage.dataset])
            for made in sorted(stage.made):
                self.document.wasGeneratedBy(self._datasets[made], record)
                self.document.wasDerivedFrom(self._datasets[made], self._datasets[stage.dataset], record)
            self.document.wasStartedBy(record, starter="fgtrac:run")

    def _write_epochs(self) -> None:
        before: dict[int, str] = {}
        for (loader, _), epoch in sorted(self._course.epochs.items()):
            record = _epoch(epoch)
            names = ("uses", "perhaps", "neighbours", "deliveries", "superseded")
            steps = dict(zip(("firstStep", "lastStep"), epoch.steps or (), strict=False))
            about = {"prov:type": "training epoch", "loader": loader, "epoch": epoch.epoch, **steps}
            times = _time(epoch.began), _time(epoch.ended)
            self._activity(record, about | {name: getattr(epoch, name) for name in names}, *times)
            for name in sorted(epoch.datasets):
                self.document.used(record, self._datasets[name])
            self.document.wasStartedBy(record, starter="fgtrac:run")
            if loader in before:
                self.document.wasInformedBy(record, before[loader])
            before[loader] = record

    def _write_states(self) -> None:
        trained = [epoch for epoch in self._course.epochs.values() if epoch.steps]
        spans = np.array([epoch.steps for epoch in trained], dtype=np.uint64).reshape(-1, 2)
        for number, state in enumerate(self._course.states):
            said = {"step": state.step, "epoch": state.epoch, "valLoss": state.val_loss, "entry": state.entry}
            about = {"prov:type": "model state", "standing": state.standing, "sha256": state.digest.hex() or None}
            self._entity(f"fgtrac:checkpoint-{number}", about | said)
            within = np.flatnonzero((spans[:, 0] <= state.step) & (state.step <= spans[:, 1])).tolist()
            for activity in [_epoch(trained[place]) for place in within] or ["fgtrac:run"]:
                self.document.wasGeneratedBy(f"fgtrac:checkpoint-{number}", activity)

    def _write_said(self) -> None:
        activities = {"prediction": "predicting", "contribution": "scoring", "attention": "weighing modalities"}
        for number, said in enumerate(self._course.said.values()):
            record, activity = f"fgtrac:{said.what}-{number}", f"fgtrac:activity-{number}"
            words = ("target", "method") if said.what == "contribution" else ()
            about = (
                dict(zip(words, said.about, strict=False)) if words else {"modalities": ", ".join(said.about) or None}
            )
            self._entity(record, {"prov:type": said.what, "step": said.step, "samples": said.samples, **about})
            self._activity(activity, {"prov:type": activities[said.what], "step": said.step})
            self.document.wasGeneratedBy(record, activity)
            self.document.used(activity, self._datasets[said.dataset])
            if said.state is not None:
                self.document.used(activity, f"fgtrac:checkpoint-{said.state}")
                self.document.wasDerivedFrom(record, f"fgtrac:checkpoint-{said.state}", activity)

    def _write_samples(self, shown: int) -> None:
        people: dict[bytes, str] = {}
        for place in range(shown):
            said = self._counts[place]
            record = f"fgtrac:sample-{said['id']}"
            counts = {name: said[name] for name in ("uses", "neighbours", "deliveries", "predictions")}
            about = {"prov:type": "sample", "roles": ", ".join(said["roles"]) or None, "dropped": said["dropped"]}
            self._entity(record, about | counts)
            self.document.hadMember(self._datasets[said["dataset"]], record)
            for key, uses in self._course.of_samples.items():
                if uses[place]:
                    times = _named({"times": int(uses[place])})
                    self.document.used(_epoch(self._course.epochs[key]), record, other_attributes=times)
            for pseudonym in self._subjects(bytes.fromhex(said["id"])):
                if pseudonym not in people:
                    people[pseudonym] = f"fgtrac:subject-{pseudonym.hex()}"
                    self.document.agent(people[pseudonym], {"prov:type": self._prov["Person"]})
                self.document.wasAttributedTo(record, people[pseudonym])

    def _subjects(self, sample: bytes) -> list[bytes]:
        """The pseudonyms under which a sample is registered; that of nobody is known where the vault is there."""
        blocks = self._trace._blocks
        columns = [(blocks.subjects(block), ordinal) for block, ordinal in blocks.find(sample)]
        found = dict.fromkeys(column[ordinal].tobytes() for column, ordinal in columns if column is not None)
        return [pseudonym for pseudonym in found if pseudonym != self._nobody]

    def _entity(self, record: str, attributes: Attributes) -> None:
        self.document.entity(record, _named(attributes))

    def _activity(self, record: str, attributes: Attributes, began: Any = None, ended: Any = None) -> None:
        self.document.activity(record, began, ended, _named(attributes))


def _signing_key(trace: Trace) -> str:
    """The public key that signs the trace's heads now, in hex, as its log says."""
    keys = trace._historian.timeline.entries("key")
    newest: Mapping[str, Any] = keys[-1][1] if keys else trace._seal.log.event(0)
    return str(newest["public_key"].hex())


def _epoch(epoch: Epoch) -> str:
    return f"fgtrac:loader-{epoch.loader}-epoch-{epoch.epoch}"


def _time(ns: int) -> datetime:
    return datetime.fromtimestamp(ns / 1e9, UTC)


def _named(attributes: Mapping[str, Any]) -> Attributes:
    """Attributes under this document's namespace, those that are not known left out."""
    known = {name: value for name, value in attributes.items() if value is not None}
    return {name if ":" in name else f"fgtrac:{name}": value for name, value in known.items()}
