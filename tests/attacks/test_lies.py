"""Every lie is answered as the design promises: by the check that is named for it, and by no other."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from fgtrac.demo.lies import LIES
from lies_pages import ATTACKS, names_in, row, rows_of

NAMES = names_in(ATTACKS)
Told = Callable[[str], list[Any]]


def test_the_trace_holds_before_anybody_lies_about_it(stage: Any) -> None:
    answer = stage.verify(stage.trace)
    assert answer.code == 0
    assert answer.of("holds") == set(answer.verdicts)


@pytest.mark.parametrize("name", NAMES)
def test_a_lie_is_answered_as_the_design_promises(name: str, told: Told) -> None:
    acts = told(name)
    assert acts
    for act in acts:
        assert act.is_kept, (act.answer.command, act.promised, act.answer)
        assert act.message


def test_a_leaked_label_is_named_by_its_node_and_the_step(told: Told) -> None:
    (leak,) = [act for act in told("leak_test_label") if act.checks == ("held-out",)]
    assert re.search(r'the first is sample ring:key:"photo-20" in step [1-5], epoch 0, entry \d+$', leak.message)


def test_an_answer_that_names_another_node_is_a_surprise(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = stage.fgtrac

    def mistaken(*arguments: Any, **options: Any) -> Any:
        answer = ask(*arguments, **options)
        return replace(answer, words={check: said.replace("-20", "-21") for check, said in answer.words.items()})

    monkeypatch.setattr(stage, "fgtrac", mistaken)
    acts = islice(importlib.import_module("leak_test_label").tell(stage), 2)
    assert [act.is_kept for act in acts] == [True, False]


def test_a_lie_leaves_the_trace_itself_as_it_is(stage: Any, told: Told) -> None:
    for name in NAMES:
        told(name)
    answer = stage.verify(stage.trace)
    assert answer.of("holds") == set(answer.verdicts)


def test_every_check_of_a_full_verification_has_a_lie_that_it_catches(stage: Any, told: Told) -> None:
    caught = {check for name in NAMES for act in told(name) for check in act.checks}
    assert set(stage.verify(stage.trace).verdicts) <= caught


def test_the_page_lists_every_lie_with_what_catches_it(told: Told) -> None:
    assert rows_of(ATTACKS) == [row(name, told(name)) for name in NAMES]


def test_the_demo_tells_seven_lies_that_seven_different_checks_catch() -> None:
    assert len({lie.check for lie in LIES}) == len(LIES) == 7


def test_a_script_runs_alone_and_so_does_the_table() -> None:
    def run(script: str, *names: str) -> subprocess.CompletedProcess[str]:
        command, wide = [sys.executable, str(ATTACKS / script), *names], {**os.environ, "COLUMNS": "160"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=wide)

    alone = run("edit_entry.py")
    assert alone.returncode == 0, alone.stdout + alone.stderr
    assert "refuted: entries" in alone.stdout
    some = run("run.py", "edit_entry", "slip_in_file")
    assert some.returncode == 0, some.stdout + some.stderr
    assert "2 of 2 lies were answered as the design promises" in some.stdout
    unknown = run("run.py", "tell_the_truth")
    assert unknown.returncode == 2
    assert "no lie is called tell_the_truth" in unknown.stdout


def test_the_table_ends_by_saying_that_lies_about_anchors_need_services(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("attacks_run", ATTACKS / "run.py")
    assert spec is not None
    assert spec.loader is not None
    run: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    anchored = len(names_in(run.ANCHORED))
    assert anchored > 10
    every = run.every_lie
    monkeypatch.setattr(run, "every_lie", lambda folder: every(folder) if folder == run.ANCHORED else ["slip_in_file"])
    assert run.main([]) == 0
    said = f"{anchored} more, about anchored traces, need services: make test-services tells them"
    assert said in capsys.readouterr().out


DOUBTS = ("is not shown", "This rests on", "no end entry", "says that something was lost")


def test_of_what_is_not_caught_a_sentence_says_that_it_cannot_be_told(told: Told) -> None:
    from lying import admissions

    said_by = {"not caught, and the answer says so": set(), "not caught, and docs/design.md says so": set()}
    for name in NAMES:
        for act in told(name):
            if act.promised.startswith("not caught"):
                said_by[act.promised].add(act.message)
    in_answers, in_design = said_by.values()
    assert in_answers
    assert all(any(doubt in said for doubt in DOUBTS) for said in in_answers), in_answers
    assert in_design
    assert in_design <= set(admissions())


def test_the_table_is_printed_as_the_lies_are_told_and_cuts_nothing(stage: Any, told: Told) -> None:
    from rich.console import Console

    import slip_in_file
    from lying import show

    page = io.StringIO()

    def first(_stage: Any) -> Any:
        return iter(told("slip_in_file"))

    def second(_stage: Any) -> Any:
        assert "slip_in_file" in page.getvalue()
        return iter(told("slip_in_file"))

    first.__module__ = second.__module__ = slip_in_file.__name__
    assert show(Console(file=page, width=60), {"slip_in_file": first, "again": second}, stage) == 0
    (act,) = told("slip_in_file")
    cells = [line.split("│")[-1] for line in page.getvalue().split("again")[0].splitlines() if "│" in line]
    assert "".join("".join(cells).split()) == "".join(act.message.split())


def test_an_answer_that_is_not_the_promised_one_is_a_surprise(stage: Any, told: Told) -> None:
    from rich.console import Console

    from lying import caught, passes, refused, show, undecided

    answer = told("edit_entry")[0].answer
    assert caught(answer, "entries").is_kept
    for act in (
        caught(answer, "tiles"),
        caught(answer, "entries", "tiles"),
        passes(answer, says="entry"),
        undecided(answer, "seals"),
        refused(answer, 1, says="entry"),
    ):
        assert not act.is_kept
    true = stage.verify(stage.trace)
    assert passes(true, says="--since").is_kept
    assert passes(true, design="near duplicates").is_kept
    for silence in ({"says": "nobody says this"}, {"design": "nobody says this"}, {"design": "the signed root"}):
        assert not passes(true, **silence).is_kept
    import edit_entry

    lie = {"edit_entry": lambda stage: iter([caught(true, "entries")])}
    lie["edit_entry"].__module__ = edit_entry.__name__
    assert show(Console(quiet=True), lie, stage) == 1
