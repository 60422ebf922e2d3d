"""PROV-JSON, read back by the prov package: its records and counts are those of the log."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import prov.model
import pytest

import fgtrac
from fgtrac.api import prov as provenance
from fgtrac.api.prov import export_prov
from fgtrac.api.summary import summarize
from hostile_trace import MARKED, SCRIPT, VECTOR, make_hostile_trace
from lives import live
from model_traces import HOSTILE, leave_pending, resumed_trace, trace_with_models
from traces import Made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return trace_with_models(tmp_path_factory.mktemp("prov"))


def read(path: Path) -> Any:
    return prov.model.ProvDocument.deserialize(str(path), format="json")


def attributes(document: Any, record: str) -> dict[str, Any]:
    (found,) = document.get_record(f"fgtrac:{record}")
    return {str(name).removeprefix("fgtrac:"): value for name, value in found.attributes}


def kinds(document: Any) -> Counter[str]:
    return Counter(type(record).__name__ for record in document.records)


def test_the_totals_are_the_log_s(made: Made, tmp_path: Path) -> None:
    done = export_prov(made.trace.path, tmp_path / "x.json", samples=None)
    document, summary = read(tmp_path / "x.json"), summarize(made.trace.path)
    run = attributes(document, "run")
    counts = fgtrac.open(made.trace.path).sample_counts()
    assert run["uses"] == summary.uses == counts.uses.sum() == 32
    assert run["samples"] == len(counts) == 20
    assert run["predictions"] == counts.predictions.sum() == 5
    assert {k.removeprefix("entries-"): v for k, v in run.items() if k.startswith("entries-")} == {
        kind: n for kind, n in summary.counts.items() if kind != "seal"
    }
    epochs = [attributes(document, f"loader-1-epoch-{n}") for n in (0, 1)]
    assert [(e["uses"], e["firstStep"], e["lastStep"]) for e in epochs] == [(16, 1, 2), (16, 3, 4)]
    assert done.totals["uses"] == 32


def test_each_sample_has_its_counts_and_its_uses_by_epoch(made: Made, tmp_path: Path) -> None:
    export_prov(made.trace.path, tmp_path / "x.json", samples=None)
    document = read(tmp_path / "x.json")
    trace = fgtrac.open(made.trace.path)
    said = {row["id"]: row for row in trace.sample_counts()}
    for sample, row in said.items():
        found = attributes(document, f"sample-{sample}")
        assert [found[k] for k in ("uses", "deliveries", "predictions")] == [
            row[k] for k in ("uses", "deliveries", "predictions")
        ]
    usages = [r for r in document.records if isinstance(r, prov.model.ProvUsage)]
    times = Counter[str]()
    for usage in usages:
        given = {str(name): value for name, value in usage.attributes}
        if "fgtrac:times" in given:
            times[str(given["prov:entity"]).removeprefix("fgtrac:sample-")] += given["fgtrac:times"]
    assert dict(times) == {sample: row["uses"] for sample, row in said.items() if row["uses"]}
    assert kinds(document)["ProvMembership"] == 20


def test_model_states_stages_and_predictions_are_there(made: Made, tmp_path: Path) -> None:
    export_prov(made.trace.path, tmp_path / "x.json", samples=0)
    document = read(tmp_path / "x.json")
    states = [attributes(document, f"checkpoint-{n}") for n in range(3)]
    assert [s["standing"] for s in states] == ["kept", "kept", "dropped"]
    assert [s["step"] for s in states] == [2, 4, 4]
    stage = attributes(document, "stage-0")
    assert (stage["prov:label"], stage["kept"], stage["dropped"]) == (HOSTILE, 19, 1)
    assert attributes(document, "prediction-0")["samples"] == 5
    generated = {
        (str(dict(r.attributes)[prov.model.PROV_ATTR_ENTITY]), str(dict(r.attributes)[prov.model.PROV_ATTR_ACTIVITY]))
        for r in document.records
        if isinstance(r, prov.model.ProvGeneration)
    }
    assert ("fgtrac:checkpoint-0", "fgtrac:loader-1-epoch-0") in generated
    assert ("fgtrac:checkpoint-1", "fgtrac:loader-1-epoch-1") in generated


def test_a_state_that_a_resumed_run_reached_again_is_told_twice(tmp_path: Path) -> None:
    made, go_on = resumed_trace(tmp_path)
    go_on()
    leave_pending(made)
    done = export_prov(made.trace.path, tmp_path / "x.json", samples=0)
    document = read(tmp_path / "x.json")
    states = [attributes(document, f"checkpoint-{n}") for n in range(3)]
    assert [(s["standing"], s["step"], s["valLoss"]) for s in states] == [
        ("kept", 2, 0.5), ("superseded", 4, 0.4), ("kept", 4, 0.9)
    ]  # fmt: skip
    rows = fgtrac.open(made.trace.path).sql("SELECT entry, standing FROM checkpoints ORDER BY entry").rows
    assert rows == [{"entry": s["entry"], "standing": s["standing"]} for s in states]
    assert done.pending == attributes(document, "log")["laterEntries"] == 1


@pytest.mark.parametrize(("samples", "shown"), [(0, 0), (7, 7), (1000, 20), (None, 20)])
def test_it_says_how_many_samples_it_left_out(made: Made, tmp_path: Path, samples: int | None, shown: int) -> None:
    done = export_prov(made.trace.path, tmp_path / "x.json", samples=samples)
    run = attributes(read(tmp_path / "x.json"), "run")
    assert (done.samples, done.left_out) == (run["samplesShown"], run["samplesLeftOut"]) == (shown, 20 - shown)
    assert run["uses"] == 32  # of all


def test_a_life_of_everything_is_told(tmp_path: Path) -> None:
    life = live(tmp_path)
    export_prov(life.path, tmp_path / "x.json", samples=None)
    document, summary = read(tmp_path / "x.json"), summarize(life.path)
    run = attributes(document, "run")
    assert run["uses"] == summary.uses
    assert run["neighbours"] == sum(row["count"] for row in summary.neighbours) == 2
    assert run["deliveries"] == 1
    contribution = attributes(document, "contribution-1")
    assert (contribution["target"], contribution["method"], contribution["samples"]) == ("validation", "tracin", 1)
    made = [attributes(document, f"stage-{n}") for n in range(2)]
    assert sorted(stage["children"] for stage in made) == [0, 3]


def test_subjects_stand_in_it_by_pseudonym_and_nobody_does_not(tmp_path: Path) -> None:
    import erasable

    path = erasable.record(tmp_path)
    export_prov(path, tmp_path / "x.json", samples=None)
    document = read(tmp_path / "x.json")
    people = [r for r in document.records if str(r.identifier).startswith("fgtrac:subject-")]
    assert len(people) == 4
    text = (tmp_path / "x.json").read_text()
    assert not any(str(name) in text for name in (erasable.ANN, erasable.BOB, erasable.ZOE, erasable.KEYS[0]))


def test_hostile_texts_stand_in_attributes_and_in_no_record_s_name(tmp_path: Path) -> None:
    path = make_hostile_trace(tmp_path / "hostile", long=False)
    export_prov(path, tmp_path / "x.json", samples=None)
    document = read(tmp_path / "x.json")
    assert attributes(document, "dataset-0")["prov:label"] == SCRIPT
    assert attributes(document, "stage-0")["prov:label"] == VECTOR
    assert all(MARKED not in str(record.identifier) for record in document.records)


def test_it_is_refused_where_it_would_take_much_memory(made: Made, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(provenance, "MOST_RECORDS", 59)
    with pytest.raises(ValueError, match=r"20 samples with their epochs are up to 60 records.*the most is 59"):
        export_prov(made.trace.path, tmp_path / "x.json", samples=None)
    assert not (tmp_path / "x.json").exists()
    assert export_prov(made.trace.path, tmp_path / "x.json", samples=19).samples == 19


def test_a_changed_entry_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    made = trace_with_models(tmp_path)
    bundle = next(path for path in (made.trace.path / "tile" / "entries").rglob("*") if path.is_file())
    data = bundle.read_bytes()
    at = data.index(b"lower")
    bundle.write_bytes(data[:at] + b"highr" + data[at + 5 :])
    with pytest.raises(fgtrac.errors.ProofError, match="is not the one that was sealed"):
        export_prov(made.trace.path, tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()


def test_the_same_trace_gives_the_same_document(made: Made, tmp_path: Path) -> None:
    texts = [export_prov(made.trace.path, tmp_path / f"{n}.json").text for n in range(2)]
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["prefix"] == {"fgtrac": "urn:fgtrac:prov:"}
