"""Every lie about an anchored trace is answered as the design promises, by real services; and no check of anchors is
idle."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from lies_pages import ATTACKS, names_in, row, rows_of, stopped_in
from removed_checks import assert_believed_without
from services.started import KINDS, Services

ANCHORED = ATTACKS / "anchored"
NAMES, STOPPED = names_in(ANCHORED), stopped_in(ANCHORED)
Told = Callable[[str], list[Any]]


@pytest.fixture(scope="module")
def stage(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from anchored import AnchoredStage

    return AnchoredStage(tmp_path_factory.mktemp("anchored"), services)


@pytest.fixture(scope="module")
def told(stage: Any) -> Told:
    """The acts of one script, by its name; each is told once."""
    return cache(lambda name: list(importlib.import_module(name).tell(stage)))


def test_the_trace_holds_before_anybody_lies_about_it(stage: Any) -> None:
    answer = stage.verify(stage.trace, *stage.by(*KINDS))
    assert answer.code == 0, answer
    assert {"heads", *KINDS} <= answer.of("holds") == set(answer.verdicts)


@pytest.mark.parametrize("name", NAMES)
def test_a_lie_is_answered_as_the_design_promises(name: str, told: Told) -> None:
    acts = told(name)
    assert acts
    for act in acts:
        assert act.is_kept, (act.answer.command, act.promised, act.answer)
        assert act.message


def test_the_page_lists_every_lie_with_what_catches_it(told: Told) -> None:
    assert rows_of(ANCHORED) == [row(name, told(name)) for name in NAMES]


@pytest.mark.parametrize("kind", KINDS)
def test_a_past_that_is_rewritten_after_anchoring_is_refuted_by_each_of_the_three_alone(kind: str, told: Told) -> None:
    by_checks = {act.checks: act.answer.words for act in told("rewrite_anchored")}
    words = by_checks["heads", kind][kind]
    assert "a fork: over the first 42 entries" in words
    assert "this log" in words
    assert "the consistency proof of" in words
    assert (kind,) in {act.checks for act in told("exchange_anchored_heads")}


@pytest.mark.parametrize("check", STOPPED)
def test_a_lie_is_believed_once_its_check_is_removed(check: str, stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _ = stage.trace, stage.other  # recorded and anchored while all checks are there
    assert_believed_without(check, STOPPED[check], stage, monkeypatch)


def test_a_script_runs_alone_and_so_does_the_table() -> None:
    def run(*command: str) -> subprocess.CompletedProcess[str]:
        wide = {**os.environ, "COLUMNS": "160"}
        return subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, env=wide)

    alone = run(str(ANCHORED / "name_nobody.py"))
    assert alone.returncode == 0, alone.stdout + alone.stderr
    assert "cannot tell: rfc3161," in alone.stdout
    some = run(str(ATTACKS / "run.py"), "--anchored", "remove_receipts", "move_receipt")
    assert some.returncode == 0, some.stdout + some.stderr
    assert "2 of 2 lies were answered as the design promises" in some.stdout
