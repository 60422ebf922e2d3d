"""One run of the reproduction, in a process of its own: it trains or lies, measures, and gives back plain data."""

from __future__ import annotations

import importlib
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

PIPELINES = ("cnn", "graph")
TIMED = ("plain", "capture", "scoring")
ARMS = (*TIMED, "witnessed")


def work(pipeline: str, arm: str, seed: int, epochs: int | None, shared: Path, icons: Path | None) -> dict[str, Any]:
    """What one run came to. `shared` is the folder where "prepare" leaves the data for the others."""
    if pipeline == "attacks":
        return tell_every_lie()
    half = importlib.import_module(f"reproduced.{pipeline}")
    if arm == "prepare":
        facts: dict[str, Any] = half.make_data(shared, icons)
        return facts
    from fgtrac.demo.training import one_thread

    with one_thread(), tempfile.TemporaryDirectory(prefix="fgtrac-reproduction-") as folder:
        epochs = half.EPOCHS if epochs is None else epochs
        figures = train(half, arm, seed, epochs, shared, Path(folder))
    return {"seed": seed, "epochs": epochs, **figures}


def train(half: Any, arm: str, seed: int, epochs: int, shared: Path, folder: Path) -> dict[str, Any]:
    """One training of one arm, with all that is measured of it."""
    from reproduced.measure import Clock, Recording, peak_b

    half.warm_up()
    clock, began_s = Clock(), time.perf_counter()
    if arm == "plain":
        trained, traced = half.train_plain(shared, seed, epochs, clock), {}
        whole_s, peak = time.perf_counter() - began_s, peak_b()
    else:
        recording = Recording(folder, is_scored=arm != "capture")
        witness = half.Witness(shared) if arm == "witnessed" else None
        with nullcontext() if witness is None else watched_by(witness):
            ended = half.train_traced(shared, recording, seed, epochs, clock)
        whole_s, peak = time.perf_counter() - began_s, peak_b()
        trained, traced = ended.trained, ended.costs.figures(ended.trained.loop_s)
        traced |= examine(recording, witness)
    return result(trained) | {
        "train_s": clock.wall_s, "train_cpu_s": clock.cpu_s, "whole_s": whole_s, "peak_b": peak, **traced,
    }  # fmt: skip


def watched_by(witness: Any) -> AbstractContextManager[None]:
    """Have every training forward pass of the network seen by the witness."""
    from fgtrac.demo.truth import received  # what it loads is not to count as memory of the other arms

    return received(witness.network, witness)


def result(trained: Any) -> dict[str, Any]:
    """What the training itself came to."""
    from fgtrac.demo.training import weights_digest

    return {
        "accuracy": trained.accuracy,
        "weights": weights_digest(trained.model),
        "generators": trained.random_state,
        "updates": trained.steps,
        "loop_s": trained.loop_s,
    }


def examine(recording: Any, witness: Any) -> dict[str, Any]:
    """The closed trace: its bytes, a full verification, and, where there was a witness, the truth and some lies."""
    from fgtrac.commit.keys import load_key
    from fgtrac.store.trace_dir import TraceDir
    from fgtrac.tlog.note import Verifier
    from reproduced.measure import bytes_on_disk

    trace, key = TraceDir.open(recording.path), load_key(recording.key)
    head = trace.head()
    assert head is not None
    verifier = Verifier(head.origin, key.public_key().public_bytes_raw())
    found = {"disk": bytes_on_disk(recording.path), "entries": head.size, "verification": verify(trace, verifier)}
    if witness is None:
        return found
    from fgtrac.demo.truth import compare

    return found | {
        "truth": compare(recording.path, witness.dataset, witness.row_of, witness.updates()),
        "lies": lie(trace, key),
    }


def verify(trace: Any, verifier: Any) -> dict[str, Any]:
    """A full verification: verdict, how many checks said what, seconds."""
    from fgtrac.api.audit import audit_trace

    began_s = time.perf_counter()
    report = audit_trace(trace, verifier)
    verdicts = [str(finding.verdict) for finding in report.findings]
    return {
        "verdict": str(report.verdict),
        "checks": {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
        "failures": [f"{f.check}: {f.words}" for f in report.failures()],
        "seconds": time.perf_counter() - began_s,
    }


def lie(trace: Any, key: Any) -> list[dict[str, Any]]:
    """The demo's lies, told about copies of this trace: what refuted each."""
    from fgtrac.demo.lies import LIES, answer, is_as_foretold

    told = []
    for one in LIES:
        report = answer(trace, one, key)
        refuted = [f.check for f in report.findings if str(f.verdict) == "refuted"]
        told.append({"lie": one.words, "refuted_by": refuted, "as_promised": is_as_foretold(one, report)})
    return told


def tell_every_lie() -> dict[str, Any]:
    """Every script of attacks/: what the design promises of each answer, and whether it was kept."""
    import sys

    sys.path.append(str(Path(__file__).parents[2] / "attacks"))
    from run import every_lie, plain_stage  # type: ignore[import-not-found]

    told = []
    with plain_stage() as stage:
        for name in every_lie():
            acts = list(importlib.import_module(name).tell(stage))
            promised = [act.promised for act in acts]
            told.append(
                {"name": name, "promised": promised, "as_promised": bool(acts) and all(a.is_kept for a in acts)}
            )
    return {"lies": told}
