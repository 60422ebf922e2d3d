"""Replay: the updates that batches took part in. What no recording writes is refuted, what a loop may do is counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from fgtrac.events.codec import encode
from fgtrac.events.schema import NO_STEP, STATUS
from replays import (
    CANNOT_TELL,
    DATA,
    HOLDS,
    REFUTED,
    Batches,
    Event,
    batches_of,
    begin,
    forge,
    lie,
    replayed,
    rewrite,
    train,
    with_batches,
)

Change = Callable[[Batches], Any]
Loop = Callable[[DataLoader[Any], torch.nn.Module, torch.optim.Optimizer], None]


def repeat_at_the_end(batches: Batches) -> None:
    batches.append((batches[0][0] | {"step": batches[-1][0]["step"] + 1}, batches[0][1]))


def exchange_steps(batches: Batches) -> None:
    for column, step in ((batches[1][0], 8), (batches[2][0], 7)):
        column["step"] = step


def exchange_batches(batches: Batches) -> None:
    exchange_steps(batches)
    batches[1], batches[2] = batches[2], batches[1]


def one_update(batches: Batches) -> None:
    for column, _ in batches:
        column["step"] = 6


def later_by_a_thousand(batches: Batches) -> None:
    for column, _ in batches:
        column["step"] += 1000


def from_nought(batches: Batches) -> None:
    for column, _ in batches:
        column["step"] -= 6


def unused(batches: Batches) -> None:
    for column, _ in batches:
        column |= {"step": NO_STEP, "status": STATUS["unapplied"]}


def unused_in_between(batches: Batches) -> None:
    unused(batches[1:2])


def unused_and_closed_up(batches: Batches) -> None:
    unused(batches[1:2])
    for column, _ in batches[2:]:
        column["step"] -= 1


LIES: dict[Change, tuple[Any, str]] = {
    repeat_at_the_end: (
        CANNOT_TELL,
        "the log has 1 use of a batch that the optimizer had used before (the first: loader 1, epoch 1, batch 0, "
        "in update 11 of optimizer 1): whether the loop did so, entries were lost, or somebody "
        "wrote it, nobody can tell",
    ),
    exchange_steps: (REFUTED, "has update 7 of optimizer 1 behind update 8"),
    exchange_batches: (
        CANNOT_TELL,
        "1 use out of the order of delivery (the first: loader 1, epoch 1, batch 2, in update 7 of optimizer 1)",
    ),
    one_update: (HOLDS, "and 10 batches took part in 6 updates;"),
    later_by_a_thousand: (CANNOT_TELL, "1000 updates of optimizer 1 without a batch in the log (the first: update 6)"),
    from_nought: (REFUTED, "has update 0 of optimizer 1, and its process counts them from 1"),
    unused: (
        HOLDS,
        "and 5 batches took part in 5 updates, and 5 delivered batches in none, as the log says;",
    ),
    unused_in_between: (CANNOT_TELL, "1 update of optimizer 1 without a batch in the log (the first: update 7)"),
    unused_and_closed_up: (HOLDS, "and 1 delivered batch in none, as the log says;"),
}


@pytest.mark.parametrize("told", LIES, ids=lambda told: told.__name__)
def test_a_lie_about_the_updates_is_refuted_or_counted(shuffled: Path, told: Change) -> None:
    lie(shuffled, told, epoch=1)
    found, (verdict, words) = replayed(shuffled), LIES[told]
    assert found.verdict is verdict, found.words
    assert words in found.words


def test_a_state_that_was_kept_after_the_last_update_is_not_explained(tmp_path: Path) -> None:
    model = torch.nn.Linear(4, 3)
    with begin(tmp_path, keep="all") as run:
        loader = run.watch(DataLoader(DATA, batch_size=8), role="train")
        for _ in range(2):
            train(loader, epochs=1)
        run.checkpoint(model)
    assert replayed(tmp_path).verdict is HOLDS
    rewrite(tmp_path, "checkpoint", lambda event: event | {"step": 9})
    found = replayed(tmp_path)
    assert found.verdict is CANNOT_TELL
    assert "and no batch in an update after 5: whether" in found.words


def test_batches_in_updates_of_no_optimizer_or_left_by_it_twice_are_refuted(shuffled: Path) -> None:
    rewrite(shuffled, "use", lambda event: event | {"optimizer": 0})
    assert "has batches in updates of no optimizer" in replayed(shuffled).words

    def left_twice(event: Event) -> Event:
        batches = batches_of(event)
        unused(batches)
        return with_batches(event, [batches[0], *batches])

    rewrite(shuffled, "use", left_twice)
    found = replayed(shuffled)
    assert found.verdict is REFUTED
    assert "and 6 more, against the order" in found.words


def accumulate(loader: DataLoader[Any], model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for number, (inputs, labels) in enumerate(loader):
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        if number % 2 or number == 4:
            optimizer.step()
            optimizer.zero_grad()


def throw_away(loader: DataLoader[Any], model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for number, (inputs, labels) in enumerate(loader):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        if number != 1:
            optimizer.step()


def one_behind(loader: DataLoader[Any], model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    waiting: list[Any] = []
    for batch in [*loader, None]:
        for inputs, labels in waiting:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        waiting = [batch]


def twice(loader: DataLoader[Any], model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for inputs, labels in loader:
        for _ in range(2):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()


def backwards(loader: DataLoader[Any], model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for inputs, labels in reversed(list(loader)):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()


def minimise(loader: DataLoader[Any], model: torch.nn.Module, _optimizer: torch.optim.Optimizer) -> None:
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    for inputs, labels in loader:

        def closure(inputs: torch.Tensor = inputs, labels: torch.Tensor = labels) -> torch.Tensor:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()
            return loss

        optimizer.step(closure)


def compete(loader: DataLoader[Any], judge: torch.nn.Module, judges: torch.optim.Optimizer) -> None:
    maker = torch.nn.Linear(2, 4)
    makes = torch.optim.SGD(maker.parameters(), lr=0.1)
    for inputs, _labels in loader:
        judges.zero_grad()
        (judge(maker(torch.randn(8, 2)).detach()).mean() - judge(inputs).mean()).backward()
        judges.step()
        makes.zero_grad()
        (-judge(maker(torch.randn(8, 2))).mean()).backward()
        makes.step()


LOOPS: dict[Loop, tuple[Any, str]] = {
    accumulate: (HOLDS, "5 batches took part in 3 updates;"),
    throw_away: (HOLDS, "4 batches took part in 4 updates, and 1 delivered batch in none"),
    one_behind: (HOLDS, "5 batches took part in 5 updates;"),
    minimise: (HOLDS, "5 batches took part in 5 updates;"),
    compete: (HOLDS, "5 batches took part in 10 updates;"),
    twice: (CANNOT_TELL, "5 uses of a batch that the optimizer had used before"),
    backwards: (CANNOT_TELL, "4 uses out of the order of delivery"),
}


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_what_a_loop_does_is_never_refuted(tmp_path: Path, loop: Loop) -> None:
    model = torch.nn.Linear(4, 3)
    with begin(tmp_path) as run:
        loader = run.watch(DataLoader(DATA, batch_size=8, shuffle=True), role="train")
        loop(loader, model, torch.optim.SGD(model.parameters(), lr=0.1))
    found, (verdict, words) = replayed(tmp_path), LOOPS[loop]
    assert found.verdict is verdict, found.words
    assert words in found.words


def test_a_run_that_goes_on_counts_from_where_it_went_back_to(tmp_path: Path) -> None:
    for resume in (False, True):
        with begin(tmp_path, resume=resume, step=3 if resume else None) as run:
            train(run.watch(DataLoader(DATA, batch_size=8), role="train"), epochs=1)
    assert replayed(tmp_path).verdict is HOLDS

    def undone(event: Event) -> Event:
        return event | {"step": 4}

    rewrite(tmp_path, "resume", undone)
    assert "has update 4 of optimizer 1, and its process counts them from 5" in replayed(tmp_path).words


def test_an_epoch_that_is_hidden_before_a_return_is_missed(tmp_path: Path) -> None:
    """The second start's passes are said to be the first's next: nothing is out of order, but the updates between."""
    for resume in (False, True):
        with begin(tmp_path, resume=resume, step=10 if resume else None) as run:
            train(run.watch(DataLoader(DATA, batch_size=8), role="train"))
    assert replayed(tmp_path).verdict is HOLDS

    def hide(events: list[Event]) -> list[Event]:
        (at,) = (n for n, event in enumerate(events) if event["kind"] == "resume")
        told = []
        for number, event in enumerate(events):
            in_first = number < at and event["kind"] == "use"
            if number < at and event["kind"] == "sampler" and event["epoch"] == 1:
                continue
            if in_first:
                event = with_batches(event, [b for b in batches_of(event) if b[0]["epoch"] == 0])
            elif number > at and event["kind"] in ("sampler", "use"):
                event = event | {"epoch": event["epoch"] - 1}
            told.append(event)
        return told

    forge(tmp_path, hide)
    words = replayed(tmp_path)
    assert words.verdict is CANNOT_TELL
    assert "the run goes on from update 10" in words.words
    assert "no batch in an update after 5 before" in words.words


def test_words_that_look_like_an_entry_of_another_kind_are_none(shuffled: Path) -> None:
    looks = (encode("kind") + encode("use")).decode("latin-1")
    rewrite(shuffled, "dataset", lambda event: event | {"name": looks})
    assert replayed(shuffled).verdict is HOLDS
