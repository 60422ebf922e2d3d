"""The matrix of updates, optimizers: whatever makes them, the log says what the batches themselves say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fgtrac.api.run import Run, start_run
from fgtrac.errors import CaptureError
from update_truth import Loop, check, told

Read = Callable[[Path], Any]


@pytest.fixture
def loop(run: Run) -> Loop:
    return Loop(run)


class Adversarial:
    """A generator, a critic, and an optimizer of each."""

    def __init__(self, loop: Loop) -> None:
        self.generator, self.critic = nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1))
        self.of_critic, self.of_generator = loop.sgd(self.critic), loop.sgd(self.generator)

    def teach_critic(self, real: torch.Tensor, fake: torch.Tensor) -> None:
        self.of_critic.zero_grad()
        (self.critic(fake) - self.critic(real)).mean().backward()
        self.of_critic.step()

    def teach_generator(self, fake: torch.Tensor) -> None:
        self.of_generator.zero_grad()
        self.critic(fake).mean().backward()
        self.of_generator.step()


@pytest.mark.matrix("Updates", "GAN: critic and generator, two updates a batch", note="the generator's: sole")
@pytest.mark.parametrize("is_made_once", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_critic_and_generator_each_make_an_update_of_every_batch(
    loop: Loop, log: Read, is_made_once: bool, workers: int
) -> None:
    pair = Adversarial(loop)
    for real in loop.batches(workers):
        noise = torch.randn(2, 3)
        with torch.set_grad_enabled(is_made_once):  # otherwise the critic's optimizer steps before its model is seen
            fake = pair.generator(noise)
        pair.teach_critic(loop.saw(real), fake.detach())
        loop.updated(1, keeps=True)
        pair.teach_generator(fake if is_made_once else pair.generator(noise))
        loop.updated(2)
    check(loop, log, "exact", "sole")


@pytest.mark.matrix("Updates", "GAN: several critic updates before one of the generator")
def test_a_generator_that_learns_from_every_second_batch_used_only_these(loop: Loop, log: Read) -> None:
    pair = Adversarial(loop)
    for number, real in enumerate(loop.batches()):
        pair.teach_critic(loop.saw(real), pair.generator(torch.randn(2, 3)).detach())
        loop.updated(1, keeps=number % 2 == 1)
        if number % 2:
            pair.teach_generator(pair.generator(torch.randn(2, 3)))
            loop.updated(2)
    check(loop, log, "exact", "sole")


@pytest.mark.matrix("Updates", "optimizers that step inside the backward pass, one a parameter", attribution="exact")
@pytest.mark.parametrize("is_copied", [False, True])
def test_optimizers_that_step_inside_a_backward_pass_make_one_update_together(
    loop: Loop, log: Read, is_copied: bool
) -> None:
    optimizers = {p: torch.optim.SGD([p], lr=0.1 + n) for n, p in enumerate(loop.model.parameters())}

    def update(parameter: torch.Tensor) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in optimizers:
        parameter.register_post_accumulate_grad_hook(update)  # type: ignore[no-untyped-call]
    for features in loop.batches():
        loop.model(loop.saw(features) * 1 if is_copied else loop.saw(features)).sum().backward()
        loop.updated()
        assert loop.run.step == len(loop.truth)
    assert [loop.run._grounding.learning_rate_of(p) for p in optimizers] == [0.1, 1.1, 2.1, 3.1]
    check(loop, log, "sole" if is_copied else "exact")


@pytest.mark.matrix("Updates", "GradScaler, fused, some steps skipped inside", attribution="exact")
def test_a_fused_step_is_an_update_once_its_device_has_said_that_nothing_was_infinite(loop: Loop, log: Read) -> None:
    optimizer, scaler = loop.sgd(fused=True), torch.amp.GradScaler("cpu")
    for number, features in enumerate(loop.batches()):
        optimizer.zero_grad()
        loss = loop.model(loop.saw(features)).sum() * (float("inf") if number == 1 else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if number == 1:
            loop.forgot()
            continue
        loop.updated()
        if number == 2:
            assert loop.run.step == 2  # whoever asks waits for it
    known = loop.run._grounding._updates._known[id(optimizer)]
    assert known.held is not None
    assert known.steps == 2  # the third is held until the next step, or the end
    check(loop, log, "exact", discarded=(2, 3))


@pytest.mark.matrix("Updates", "parts of a batch, accumulated", attribution="exact")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_is_trained_on_part_by_part_in_one_update_is_used_as_a_whole(
    loop: Loop, log: Read, workers: int
) -> None:
    optimizer = loop.sgd()
    for features in loop.batches(workers, size=4):
        optimizer.zero_grad()
        for part in features.chunk(2):
            loop.model(loop.saw(part)).sum().backward()
        optimizer.step()
        loop.updated()
    check(loop, log, "exact")


@pytest.mark.matrix("Updates", "parts of a batch, an update each", attribution="among", note="of the batch's samples")
def test_an_update_of_a_part_of_a_batch_is_of_some_of_its_samples(loop: Loop, log: Read) -> None:
    optimizer, batches = loop.sgd(), []
    for features in loop.batches(size=4):
        for part in features.chunk(2):
            optimizer.zero_grad()
            loop.model(loop.saw(part))  # seen twice, as in two passes
            loop.model(part).sum().backward()
            optimizer.step()
            loop.updated()
            batches.append([int(number) for number in features[:, 0]])
    loop.run.close()
    said = log(loop.run.path)
    assert list(told(said).values()) == batches
    assert all(set(samples) < set(batch) for samples, batch in zip(loop.truth.values(), batches, strict=True))
    assert {use.attribution for use in said.uses()} == {"among"}
    assert said.kind("gap") == []


class ThroughData(torch.optim.Optimizer):
    """Changes parameters past their version counters; can be told to do nothing."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": None})
        self.rests = False

    def step(self, closure: Any = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None and not self.rests:
                parameter.data.add_(parameter.grad.data, alpha=-0.1)


@pytest.mark.matrix("Updates", "parameters changed through .data", attribution="exact")
def test_an_optimizer_that_changes_parameters_through_data_makes_updates(loop: Loop, log: Read) -> None:
    optimizer = ThroughData(loop.model.parameters())
    for number, features in enumerate(loop.batches()):
        optimizer.zero_grad()
        loop.model(loop.saw(features)).sum().backward()
        optimizer.rests = number == 2
        optimizer.step()
        loop.forgot() if optimizer.rests else loop.updated()
    check(loop, log, "exact", discarded=(4, 5))


@pytest.mark.matrix("Updates", "an optimizer that accumulates by itself", attribution="exact")
def test_an_optimizer_that_steps_every_other_time_by_itself_used_what_it_was_given_before(
    loop: Loop, log: Read
) -> None:
    optimizer = ThroughData(loop.model.parameters())
    for number, features in enumerate(loop.batches()):
        loop.model(loop.saw(features)).sum().backward()
        optimizer.rests = number % 2 == 0
        optimizer.step()
        if number % 2:
            loop.updated()
            optimizer.zero_grad()
    check(loop, log, "exact")


@pytest.mark.matrix("Updates", "LBFGS with a line search", attribution="exact")
def test_an_optimizer_with_a_line_search_used_each_batch_once(loop: Loop, log: Read) -> None:
    optimizer = torch.optim.LBFGS(loop.model.parameters(), max_iter=4, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = loop.model(features).square().sum()
        loss.backward()
        return loss

    for features in loop.batches():
        loop.saw(features)
        optimizer.step(closure)
        loop.updated()
    check(loop, log, "exact")


@pytest.mark.matrix("Updates", "sharpness-aware: two backward passes, one update", attribution="exact")
def test_a_gradient_that_only_shows_where_to_look_discards_nothing(loop: Loop, log: Read) -> None:
    optimizer, weights = loop.sgd(), list(loop.model.parameters())
    for features in loop.batches():
        loop.model(loop.saw(features)).sum().backward()
        moves = [0.01 * weight.grad for weight in weights if weight.grad is not None]
        with torch.no_grad():
            torch._foreach_add_(weights, moves)
        optimizer.zero_grad()
        loop.model(features).sum().backward()
        with torch.no_grad():
            torch._foreach_sub_(weights, moves)
        optimizer.step()
        optimizer.zero_grad()
        loop.updated()
    check(loop, log, "exact")


@pytest.mark.matrix("Updates", "two steps on one gradient", attribution="exact")
def test_a_second_step_on_the_same_gradient_is_a_second_use(loop: Loop, log: Read) -> None:
    optimizer = loop.sgd()
    for features in loop.batches():
        optimizer.zero_grad()
        loop.model(loop.saw(features)).sum().backward()
        optimizer.step()
        loop.updated(keeps=True)
        optimizer.step()
        loop.updated()
    check(loop, log, "exact")


@pytest.mark.matrix("Updates", "gradients by torch.func, put into .grad", attribution="sole")
def test_gradients_that_the_loop_puts_there_by_itself_are_of_the_batch_in_turn(loop: Loop, log: Read) -> None:
    optimizer = loop.sgd()

    def loss(weights: dict[str, torch.Tensor], row: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.func.functional_call(loop.model, weights, (row[None],)).sum()
        return out

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))
    for features in loop.batches():
        weights = dict(loop.model.named_parameters())
        gradients = each({name: weight.detach() for name, weight in weights.items()}, loop.saw(features))
        for name, weight in weights.items():
            weight.grad = gradients[name].sum(0)
        optimizer.step()
        loop.updated()
    check(loop, log, "sole")


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
@pytest.mark.matrix("Updates", "a compiled optimizer step", attribution="exact")
def test_a_compiled_step_makes_updates(loop: Loop, log: Read) -> None:
    torch._dynamo.reset()
    optimizer = loop.sgd()
    step = torch.compile(optimizer.step, backend="eager")
    for features in loop.batches():
        optimizer.zero_grad()
        loop.model(loop.saw(features)).sum().backward()
        step()
        loop.updated()
    check(loop, log, "exact")


def change_by_hand(weights: Any, through_data: bool = False) -> None:
    with torch.no_grad():
        for weight in weights:
            (weight.data if through_data else weight).sub_(weight.grad, alpha=0.1)
            weight.grad = None


@pytest.mark.matrix("Updates", "by hand, told by run.stepped()", attribution="exact")
@pytest.mark.parametrize("every", [1, 2])
def test_updates_by_hand_are_what_the_loop_says_they_are(loop: Loop, log: Read, every: int) -> None:
    for number, features in enumerate(loop.batches()):
        loop.model(loop.saw(features)).sum().backward()
        if number % every == every - 1:
            change_by_hand(loop.model.parameters())
            loop.run.stepped()
            loop.updated()
    check(loop, log, "exact")


@pytest.mark.matrix("Updates", "by hand, tensors without a module", attribution="sole")
def test_updates_by_hand_of_plain_tensors_are_of_the_batch_in_turn(loop: Loop, log: Read) -> None:
    weight = torch.zeros(4, requires_grad=True)
    for features in loop.batches():
        (loop.saw(features) @ weight).sum().backward()
        change_by_hand([weight])
        loop.run.stepped()
        loop.updated()
    check(loop, log, "sole")


@pytest.mark.matrix("Updates", "by hand, several models")
def test_updates_by_hand_of_two_models_are_told_apart_by_their_parameters(loop: Loop, log: Read) -> None:
    models = loop.model, nn.Linear(4, 2)
    for number, features in enumerate(loop.batches()):
        which = number % 2
        models[which](loop.saw(features)).sum().backward()
        change_by_hand(models[which].parameters())
        loop.run.stepped(models[which].parameters())
        loop.updated(1 + which)
    check(loop, log, "exact", "sole")  # the second model was first called when nobody looked for models any more


@pytest.mark.matrix("Updates", "by hand, not told", note="a gap and a warning")
@pytest.mark.parametrize("through_data", [False, True])
def test_updates_by_hand_that_nobody_tells_are_a_gap_and_a_warning(loop: Loop, log: Read, through_data: bool) -> None:
    def train() -> None:
        for features in loop.batches():
            loop.model(features).sum().backward()
            change_by_hand(loop.model.parameters(), through_data)
        loop.run.close()

    with pytest.warns(RuntimeWarning, match=r"by no optimizer that is known; call run.stepped\(\)"):
        train()
    assert len(log(loop.run.path).kind("gap")) == 1


def test_a_strict_run_refuses_updates_by_hand_that_nobody_tells(tmp_path: Path) -> None:
    with start_run(tmp_path / "strict", key=tmp_path / "key.pem", strict=True) as run:
        loop = Loop(run)
        batches = iter(loop.batches())
        loop.model(next(batches)).sum().backward()
        change_by_hand(loop.model.parameters())
        with pytest.raises(CaptureError, match=r"call run.stepped\(\) after each update made by hand"):
            loop.model(next(batches)).sum().backward()
        run.stepped()


def test_gradients_without_any_update_are_no_gap(loop: Loop, log: Read) -> None:
    for features in loop.batches():
        loop.model(features).sum().backward()
    check(loop, log)
    assert told(log(loop.run.path), "unapplied")


def test_batches_that_wait_behind_too_many_others_are_given_up_and_a_gap_says_so(loop: Loop, log: Read) -> None:
    loop.run._grounding._queues.limit = 3
    list(loop.batches())
    assert len(loop.run._grounding._queues.outstanding) == 3
    loop.run.close()
    said = log(loop.run.path)
    assert sum(len(samples) for samples in told(said, "unapplied").values()) == 8
    assert [gap["reason"] for gap in said.kind("gap")] == [
        "more than 65536 batches waited for an update at once, and the oldest are given up"
    ]
