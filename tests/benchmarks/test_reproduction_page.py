"""docs/reproduction.md is what its JSON says, and says so where a claim on it does not hold."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
JSON = ROOT / "docs/reproduction.json"


def load_page() -> Any:
    spec = importlib.util.spec_from_file_location("reproduction_page", ROOT / "benchmarks/reproduced/page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


page = load_page()


@pytest.fixture
def figures() -> Any:
    return json.loads(JSON.read_text(encoding="utf-8"))


def test_the_page_is_rendered_from_its_json_and_every_claim_on_it_holds(figures: Any) -> None:
    assert page.render(figures) == JSON.with_suffix(".md").read_text(encoding="utf-8")
    assert page.failures(figures) == []
    assert list(figures["pipelines"]) == ["cnn", "graph"]


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
    "attacks/fork.py: not as promised": lambda f: next(a for a in f["attacks"] if a["name"] == "fork").update(
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
