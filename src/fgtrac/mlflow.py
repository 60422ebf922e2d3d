"""A trace in MLflow: `fgtrac.mlflow.log_trace(run)` puts what its log says beside what MLflow keeps of a run.

    with mlflow.start_run(), fgtrac.start_run("runs/first") as run: ...
    fgtrac.mlflow.log_trace(run)

The only file that imports `mlflow`. What goes there is what the log says: nothing of the vault, no names of samples or
people, and no key.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import posixpath
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgtrac.api.in_toto import NoModelFileError, attest
from fgtrac.api.report import make_report
from fgtrac.api.summary import summarize
from fgtrac.api.trace import Trace, open_trace
from fgtrac.errors import not_installed
from fgtrac.events.schema import ROLES
from fgtrac.query.occurrences import plain
from fgtrac.query.seals import not_among_these
from fgtrac.verify.report import Report
from fgtrac.web.report_page import report_page

if TYPE_CHECKING:
    from fgtrac.api.recording import Run

PARAMETERS = 1000  # at most; MLflow itself has no limit of a run's parameters
NOT_CHECKED = "not checked"
FOLDER = "fgtrac"  # of the artifacts
CONTEXT = "mlflow.data.context"
LARGEST = sys.float_info.max  # what MLflow's databases keep of infinity
_STRANGE = re.compile(r"[^\w.\- :/]")  # what MLflow has in no name


@dataclass(frozen=True, slots=True)
class Logged:
    """What `log_trace` put into an MLflow run: counts, paths of artifacts, and in words what it left out and why."""

    run_id: str
    parameters: int
    metrics: int
    datasets: int
    artifacts: tuple[str, ...]
    verdict: str
    left_out: tuple[str, ...]


def log_trace(
    trace: Run | Trace | str | os.PathLike[str],
    *,
    run_id: str | None = None,
    verify: bool = False,
    report: bool = False,
    key: str | os.PathLike[str] | None = None,
) -> Logged:
    """Log a sealed trace into an MLflow run: `run_id`, else the active one, else one that is made and ended.

    Every entry of the log is read and hashed first. Its configuration becomes parameters, `run.log`'s values and the
    losses of checkpoints metrics by step (those that a restart undid are left out, and stay where an earlier call put
    them: MLflow removes none), its data sets inputs whose digests are their blocks' ids. Tags name the trace id, the
    tree head and the verdict: "not checked" unless `verify` asks for a verification here and now, or `report` for the
    page of `fgtrac report`, which takes one and scores as well. Artifacts: the signed tree head, a summary, the
    verification and the page (samples by their ids), and the in-toto statement about its model files: it is signed with
    the file `key`, or with the user's own key where that is at hand.

    `trace` is what `fgtrac.start_run` gave, an opened trace or a path. MLflow's limits are kept: what is too long is
    cut, and what the run has already by the same name stays as it is; `left_out` says so. A second call adds what is
    new. ValueError without MLflow and for an MLflow run that has another trace, ProofError where the log is not what
    was sealed, otherwise as `fgtrac.open`; what MLflow refuses is its own error.
    """
    mlflow = _library()
    if not isinstance(trace, Trace):
        path: Any = getattr(trace, "path", trace)
        trace = open_trace(path, key=None if key is None else os.fspath(key))
    whole = make_report(trace.path, key=trace._key) if report else None
    found = whole.verified if whole is not None else trace.verify() if verify else None
    pages = {} if whole is None else {"report.html": report_page(whole, made=datetime.now(UTC))}
    if run_id is None and mlflow.active_run() is None:
        with mlflow.start_run(run_name=trace.path.stem) as made:
            return _Logging(mlflow, made.info.run_id, trace).log(found, pages, key)
    return _Logging(mlflow, run_id or mlflow.active_run().info.run_id, trace).log(found, pages, key)


def _library() -> Any:
    try:
        import mlflow
        import mlflow.tracking
    except ModuleNotFoundError as error:
        raise not_installed("fgtrac.mlflow needs", error.name, "mlflow") from error
    return mlflow


class _Logging:
    def __init__(self, mlflow: Any, run_id: str, trace: Trace) -> None:
        self._entities, self._limits = mlflow.entities, mlflow.utils.validation
        self._client = mlflow.tracking.MlflowClient()
        self._run_id = run_id
        self._trace = trace
        self._timeline = trace._historian.timeline
        self._left_out: list[str] = []
        self._names: set[str] = set()  # of metrics, as MLflow has them

    def log(self, report: Report | None, pages: Mapping[str, str], key: str | os.PathLike[str] | None) -> Logged:
        """All of it; the head's tags last, so that a run that has them has the rest."""
        run = self._client.get_run(self._run_id)
        known, mine = run.data.tags.get("fgtrac.trace_id"), self._trace.id.hex()
        if known not in (None, mine):
            raise ValueError(f"the MLflow run {self._run_id} has trace {known}; log trace {mine} into a run of its own")
        self._trace._seal.log.check_all()
        self._tag("trace_id", mine)
        if self._trace.pending:
            self._left_out.append(not_among_these(self._trace.pending))
        parameters = self._parameters(self._trace._seal.log.event(0), run.data.params)
        metrics = self._metrics(run.data.metrics)
        datasets = self._datasets(run.inputs.dataset_inputs)
        artifacts = self._artifacts(report, pages, None if key is None else Path(key))
        verdict = NOT_CHECKED if report is None else str(report.verdict)
        head = self._trace._seal.head
        for name, value in (("tree_size", str(head.size)), ("tree_root", head.root.hex()), ("verdict", verdict)):
            self._tag(name, value)
        return Logged(self._run_id, parameters, metrics, datasets, artifacts, verdict, tuple(self._left_out))

    def _parameters(self, run: Mapping[str, Any], known: Mapping[str, str]) -> int:
        said = list(_flat(plain(run.get("config", {}))))
        if len(said) > PARAMETERS:
            self._left_out.append(f"{len(said) - PARAMETERS:,} of {len(said):,} settings: the log has them all")
        found, longest = [], self._limits.MAX_PARAM_VAL_LENGTH
        for name, value in said[:PARAMETERS]:
            words = _cut(value, longest)
            if len(words) < len(value):
                self._left_out.append(f"the end of setting {name:.60}, which has {len(value):,} characters")
            if known.get(_name(name), words) != words:
                self._left_out.append(f"setting {name:.60}: the MLflow run has another value of that name")
            else:
                found.append(self._entities.Param(_name(name), words))
        for some in _batches(found, self._limits.MAX_PARAMS_TAGS_PER_BATCH):
            self._client.log_batch(self._run_id, params=some)
        return len(found)

    def _metrics(self, names: Iterable[str]) -> int:
        """Values by step, at the times at which the log has them; those that MLflow has by these `names` not again. A
        name with a value that the log does not tell is of somebody else, and stays as it is."""
        there = {_point(m) for name in names for m in self._client.get_metric_history(self._run_id, name)}
        own = {point[0] for point in there - {_point(metric) for metric, _ in self._measured()}}
        count = undone = stays = 0
        for some in _batches(self._measured(), self._limits.MAX_METRICS_PER_BATCH):
            mine = [(metric, stands) for metric, stands in some if metric.key not in own]
            count += sum(stands for _, stands in mine)
            undone += sum(not stands for _, stands in some)
            stays += sum(not stands and _point(metric) in there for metric, stands in mine)
            new = [metric for metric, stands in mine if stands and _point(metric) not in there]
            self._client.log_batch(self._run_id, metrics=new)
        if undone:
            words = f", of which MLflow keeps {stays:,} that an earlier call put there" if stays else ""
            self._left_out.append(f"{undone:,} values that a restart undid{words}")
        self._left_out += [f"metric {name:.60}: the MLflow run has its own" for name in sorted(own & self._names)]
        return count

    def _measured(self) -> Iterator[tuple[Any, bool]]:
        """Every value with whether it stands: those of `run.log`, and the loss of each state that was kept at first."""
        for kind in ("metrics", "checkpoint"):
            for number in self._timeline.numbers(kind):
                event = self._trace._seal.log.event(number)
                said = event["values"] if kind == "metrics" else _losses(event)
                stands = self._timeline.superseding(number, event["step"]) is None
                for name, value in said.items():
                    self._names.add(_name(name))
                    metric = (_name(name), float(value), event["time"] // 10**6, event["step"])
                    yield self._entities.Metric(*metric), stands

    def _datasets(self, known: Iterable[Any]) -> int:
        """What MLflow keeps of a data set is one record for all runs of an experiment, and never changes: so it says
        nothing that a run may change, and its roles are a tag of the run's input."""
        before = {(i.dataset.name, i.dataset.digest): {tag.key: tag.value for tag in i.tags} for i in known}
        counts = self._trace.sample_counts()
        blocks: dict[str, list[bytes]] = {}
        for _, event in self._timeline.entries("samples"):
            mine = blocks.setdefault(event["dataset"], [])
            mine += [event["block"]] if event["block"] not in mine else []
        inputs = []
        for place, name in enumerate(counts.datasets):
            mine = counts.roles[counts.dataset == place]
            roles = ", ".join(role for role, code in ROLES.items() if (mine >> code & 1).any()) or "no role"
            one, *more = blocks[name]
            digest = (hashlib.sha256(b"".join([one, *more])).digest()[:16] if more else one).hex()
            source, profile = json.dumps({"blocks": len(blocks[name])}), json.dumps({"samples": len(mine)})
            called = _cut(name, self._limits.MAX_DATASET_NAME_SIZE)
            dataset = self._entities.Dataset(called, digest, "fgtrac", source, profile=profile)
            tag = self._entities.InputTag(CONTEXT, roles)
            if (had := before.get((called, digest), {}).get(CONTEXT, roles)) != roles:
                self._left_out.append(f"the roles of data set {name:.60}: the MLflow run keeps {had}, they are {roles}")
            inputs.append(self._entities.DatasetInput(dataset, [tag]))
        for some in _batches(inputs, self._limits.MAX_DATASETS_PER_BATCH):
            self._client.log_inputs(self._run_id, some)
        return len(inputs)

    def _artifacts(self, report: Report | None, pages: Mapping[str, str], key: Path | None) -> tuple[str, ...]:
        found = {"tree-head.txt": self._trace._seal.note.decode(), **pages}
        found["summary.json"] = json.dumps(plain(summarize(self._trace.path).as_json()), indent=1)
        if report is not None:
            found["verification.json"] = json.dumps(report.as_json(), indent=1, ensure_ascii=False)
        try:
            found["models.in-toto.json"] = attest(self._trace, key).envelope.decode()
        except (ValueError, FileNotFoundError) as error:  # no model file, or no key at hand: not one that was named
            if key is not None and not isinstance(error, NoModelFileError):
                raise
            self._left_out.append(f"the in-toto statement: {error}")
        for name, text in found.items():
            self._client.log_text(self._run_id, text, f"{FOLDER}/{name}")
        return tuple(f"{FOLDER}/{name}" for name in found)

    def _tag(self, name: str, value: str) -> None:
        self._client.set_tag(self._run_id, f"fgtrac.{name}", value)


def _point(metric: Any) -> tuple[str, int, int, str]:
    """A value by which two are the same: name, step, time and digits, as MLflow's stores give them back."""
    return metric.key, metric.step, metric.timestamp, repr(min(max(float(metric.value), -LARGEST), LARGEST))


def _losses(event: Mapping[str, Any]) -> dict[str, float]:
    return {"checkpoint.val_loss": event["val_loss"]} if event["kept"] and "val_loss" in event else {}


def _flat(config: Any, front: str = "") -> Iterator[tuple[str, str]]:
    """Settings as (name, text): maps within maps by dotted names, lists as JSON."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{front}{name}.")
        else:
            yield f"{front}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _name(name: str) -> str:
    """A name that MLflow takes: as it is, or without what MLflow refuses and with eight digits of its SHA-256, so that
    no two become one."""
    clean = _STRANGE.sub("_", name)
    is_path = posixpath.normpath(clean) == clean and not clean.startswith((".", "/"))
    if clean == name and is_path and 0 < len(name) <= 250:
        return name
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{clean[:200].replace('/', '_').strip('. ')}-{mark}"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _batches(values: Iterable[Any], size: int) -> Iterator[Sequence[Any]]:
    rest = iter(values)
    while some := list(itertools.islice(rest, size)):
        yield some
