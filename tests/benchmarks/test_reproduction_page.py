"""docs/reproduction.md is what its JSON says, and says so where a claim on it does not hold."""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
JSON = ROOT / "docs/reproduction.json"
sys.path.append(str(ROOT / "benchmarks"))
page = importlib.import_module("reproduced.page")
reproduction = importlib.import_module("reproduction")


@pytest.fixture
def figures() -> Any:
    return json.loads(JSON.read_text(encoding="utf-8"))


def test_the_page_is_rendered_from_its_json_and_every_claim_on_it_holds(figures: Any) -> None:
    assert page.render(figures) == JSON.with_suffix(".md").read_text(encoding="utf-8")
    assert page.failures(figures) == []
    assert list(figures["pipelines"]) == ["cnn", "graph"]


def test_the_page_is_no_trial(figures: Any) -> None:
    assert (figures["seeds"], figures["epochs"]) == (5, None)
    assert "trial" not in JSON.with_suffix(".md").read_text(encoding="utf-8")


def test_processor_time_has_no_waiting_in_it_and_no_part_is_larger_than_the_whole(figures: Any) -> None:
    for pipeline in figures["pipelines"].values():
        before = page.costs(pipeline)
        for arm in ("capture", "scoring"):
            for run in pipeline["runs"][arm]:
                assert run["checkpoints_cpu_s"] + run["attention_cpu_s"] <= run["train_cpu_s"]
                run.update(checkpoints_s=1000.0, attention_s=1000.0)
        assert page.costs(pipeline) == before


def at(moment: str, commit: str = "0123456789ab", is_changed: bool = False) -> Any:
    return {"at": moment, "commit": commit, "is_changed": is_changed, "load": 0.5}


def test_the_page_says_from_when_to_when_and_at_which_commits_its_runs_were_measured(figures: Any) -> None:
    runs = [run for p in figures["pipelines"].values() for kind in p["runs"].values() for run in kind]
    for run in (*runs, *(p["data"] for p in figures["pipelines"].values()), figures["attacks"]):
        run.update(began=at("2026-03-01T10:00:05+00:00"), ended=at("2026-03-01T10:01:00+00:00"))
    assert "from 2026-03-01 10:00 to 2026-03-01 10:01 UTC at commit `0123456789ab`: " in flat(page.conditions(figures))
    figures["attacks"]["ended"] = at("2026-03-02T09:30:00+00:00", "ba9876543210", is_changed=True)
    words = "from 2026-03-01 10:00 to 2026-03-02 09:30 UTC at commits `0123456789ab`, `ba9876543210` (changed): "
    assert words in flat(page.conditions(figures))


def flat(words: str) -> str:
    return " ".join(words.split())


def test_runs_that_are_there_keep_the_moment_and_the_commit_of_their_measuring(figures: Any, tmp_path: Path) -> None:
    """Another commit's cache is not told as this one's."""
    timed, others = reproduction.plan(("cnn",), 1)
    for job in (*timed, *others):
        moment = at("2026-03-01T10:00:05+00:00", "another")
        kept = run_of(figures, "plain") | {"began": moment, "ended": moment}
        (tmp_path / f"{job.name}.json").write_text(json.dumps(kept))
    found = reproduction.measure(argparse.Namespace(only=["cnn"], seeds=1, epochs=None), tmp_path)
    assert {one["commit"] for one in page.moments_of(found)} == {"another"}
    assert len(page.moments_of(found)) == 2 * len((*timed, *others))


def test_a_run_says_when_and_at_which_commit_it_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, folder = argparse.Namespace(epochs=None, data_dir=None), tmp_path
    monkeypatch.setattr(reproduction, "digest_of", lambda _: folder.name)  # somebody may be at work on the code
    before = reproduction.state_of_things()
    reproduction.run_apart(reproduction.Job("cnn", "prepare"), folder, asked)
    kept = json.loads((folder / "cnn-prepare-0.json").read_text())
    assert before["at"] <= kept["began"]["at"] <= kept["ended"]["at"] <= reproduction.state_of_things()["at"]
    assert kept["began"]["commit"] == before["commit"]
    assert {"commit", "is_changed", "load"} < kept["ended"].keys()


def test_what_was_not_measured_cannot_be_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["reproduction.py", "--render", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="to render: measure first, without --render"):
        reproduction.main()


def run_of(figures: Any, arm: str) -> Any:
    return figures["pipelines"]["cnn"]["runs"][arm][0]


CHANGES: dict[str, Callable[[Any], None]] = {
    "cnn, capture, seed 0: other weights": lambda f: run_of(f, "capture").update(weights="00"),
    "cnn, scoring, seed 0: other generators": lambda f: run_of(f, "scoring").update(generators="00"),
    "cnn, capture, seed 0: refuted: tiles: other bytes": lambda f: run_of(f, "capture")["verification"].update(
        verdict="refuted", failures=["tiles: other bytes"]
    ),
    "cnn, seed 0: 3 updates_that_differ": lambda f: run_of(f, "witnessed")["truth"].update(updates_that_differ=3),
    "cnn, seed 0: 1 samples_that_differ": lambda f: run_of(f, "witnessed")["truth"].update(samples_that_differ=1),
    "cnn, seed 0: 1 histories_that_differ": lambda f: run_of(f, "witnessed")["truth"].update(histories_that_differ=1),
    "attacks/fork.py: not as promised": lambda f: next(a for a in f["attacks"]["lies"] if a["name"] == "fork").update(
        as_promised=False
    ),
}


@pytest.mark.parametrize("words", CHANGES)
def test_a_claim_that_does_not_hold_stands_on_the_page(figures: Any, words: str) -> None:
    changed = copy.deepcopy(figures)
    CHANGES[words](changed)
    assert page.failures(changed) == [words]
    assert f"## What does not hold\n\n* {words}\n" in page.render(changed)


def test_means_come_with_their_standard_error() -> None:
    assert page.estimate([1.0, 2.0, 3.0], "{:.2f}".format) == "2.00 ± 0.58"  # sqrt(1 / 3)
    assert page.estimate([0.5, 0.5], "{:.1f}".format) == "0.5"
    assert page.estimate([None, None], "{:.1f}".format) == ""


def test_a_busy_machine_is_called_busy(figures: Any) -> None:
    for pipeline in figures["pipelines"].values():
        for run in pipeline["runs"]["plain"]:
            run["train_s"] = 2 * run["train_cpu_s"]
    assert "busy with other work" in page.render(figures)
