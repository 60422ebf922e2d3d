"""Grounding: a batch counts as used when, and only when, an optimizer's update rests on it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Subset, TensorDataset

from fgtrac.api.run import Run

Read = Callable[[Path], Any]


class Net(nn.Module):
    """Four features in, two outputs out."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(torch.tanh(self.body(features)))
        return out


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def watched(run: Run, rows: int = 12, batch_size: int = 2, role: str = "train") -> DataLoader[Any]:
    data = TensorDataset(torch.randn(rows, 4, generator=torch.Generator().manual_seed(1)))
    return run.watch(DataLoader(data, batch_size=batch_size), role=role)


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def applied(log: Any, optimizer: int = 1) -> dict[int, list[int]]:
    """step -> numbers of the batches that it rests on, of the first epoch."""
    out: dict[int, list[int]] = {}
    for (number, epoch, batch), (step, _, _) in log.batches("applied").items():
        if number == optimizer and epoch == 0:
            out.setdefault(step, []).append(batch)
    return out


def with_status(log: Any, status: str) -> list[int]:
    return [batch for _, _, batch in log.batches(status)]


def sureness(log: Any) -> set[str]:
    return {sure for _, sure, _ in log.batches("applied").values()}


@pytest.mark.matrix("Updates", "accumulation with clipping, and a tail that is never stepped", attribution="exact")
def test_accumulated_batches_belong_to_the_update_behind_them_and_the_tail_to_none(
    run: Run, log: Read, net: Net
) -> None:
    optimizer = sgd(net)
    for number, (features,) in enumerate(watched(run, rows=16)):
        net(features).sum().backward()
        if number % 3 == 2:
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    run.close()
    said = log(run.path)
    assert applied(said) == {1: [0, 1, 2], 2: [3, 4, 5]}
    assert with_status(said, "unapplied") == [6, 7]
    assert sureness(said) == {"exact"}


@pytest.mark.matrix("Updates", "batches fetched and skipped by continue")
def test_a_skipped_batch_is_unapplied_and_its_neighbours_are_right(run: Run, log: Read, net: Net) -> None:
    optimizer = sgd(net)
    for number, (features,) in enumerate(watched(run)):
        if number in (1, 2):
            continue
        optimizer.zero_grad()
        net(features).sum().backward()
        optimizer.step()
    run.close()
    said = log(run.path)
    assert applied(said) == {1: [0], 2: [3], 3: [4], 4: [5]}
    assert with_status(said, "unapplied") == [1, 2]


@pytest.mark.matrix("Updates", "a forward pass without gradients")
def test_evaluation_without_gradients_is_no_use_of_a_batch(run: Run, log: Read, net: Net) -> None:
    optimizer = sgd(net)
    for number, (features,) in enumerate(watched(run)):
        with torch.no_grad():
            net(features)
        if number % 2:
            optimizer.zero_grad()
            net(features).sum().backward()
            optimizer.step()
    run.close()
    said = log(run.path)
    assert applied(said) == {1: [1], 2: [3], 3: [5]}
    assert with_status(said, "unapplied") == [0, 2, 4]


@pytest.mark.parametrize("recognised", [True, False])
def test_a_watched_validation_loader_never_counts_as_trained_on(
    run: Run, log: Read, net: Net, recognised: bool
) -> None:
    optimizer = sgd(net)
    train, validation = watched(run), watched(run, role="validation")
    for _ in range(2):
        for (features,) in train:
            optimizer.zero_grad()
            net(features if recognised else features * 1).sum().backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            for (features,) in validation:
                net(features if recognised else features * 1)
        net.train()
    run.close()
    said = log(run.path)
    assert {(u.loader, u.status) for u in said.uses()} == {(1, "applied"), (2, "unapplied")}
    assert len(said.uses()) == 4 * 12
    assert sureness(said) == ({"exact"} if recognised else {"sole"})
    assert applied(said) == {n + 1: [n] for n in range(6)}


@pytest.mark.parametrize("role", [None, "validation"])
@pytest.mark.parametrize("registered", ["validation", "test", "excluded"])
def test_an_evaluation_batch_copied_in_the_loop_is_never_taken_by_a_later_backward_pass(
    run: Run, log: Read, net: Net, role: str | None, registered: str
) -> None:
    optimizer = sgd(net)
    data = TensorDataset(torch.randn(6, 4))
    run.register(data, role=registered)
    validation = run.watch(DataLoader(data, batch_size=2), role=role)
    train = watched(run)
    for (features,) in train:
        optimizer.zero_grad()
        net(features * 2).sum().backward()
        optimizer.step()
    for (seen,) in validation:
        with torch.no_grad():
            net(seen * 2)
        optimizer.zero_grad()
        net(torch.ones(1, 4)).sum().backward()  # on data that nobody watches
        optimizer.step()
    run.close()
    said = log(run.path)
    assert {(u.loader, u.status) for u in said.uses()} == {(1, "unapplied"), (2, "applied")}


@pytest.mark.parametrize("roles", [{}, {"validation": [0, 1]}, {"train": [0], "test": [0, 1, 2, 3]}])
def test_a_loader_over_samples_that_may_be_trained_on_trains(
    run: Run, log: Read, net: Net, roles: dict[str, list[int]]
) -> None:
    data = TensorDataset(torch.randn(4, 4))
    for role, positions in roles.items():
        run.register(Subset(data, positions), role=role)
    optimizer = sgd(net)
    validation = watched(run, rows=4, role="validation")
    for (features,), _ in zip(run.watch(DataLoader(data, batch_size=2)), validation, strict=True):
        optimizer.zero_grad()
        net(features * 2).sum().backward()
        optimizer.step()
    run.close()
    assert {(u.loader, u.status) for u in log(run.path).uses()} == {(1, "unapplied"), (2, "applied")}


def test_a_saliency_map_of_a_validation_batch_is_no_use_in_training(run: Run, log: Read, net: Net) -> None:
    optimizer = sgd(net)
    train, validation = watched(run), watched(run, role="validation")
    for (features,), (seen,) in zip(train, validation, strict=True):
        seen.requires_grad_()
        torch.autograd.grad(net(seen).sum(), seen)
        optimizer.zero_grad()
        net(features).sum().backward()
        optimizer.step()
    run.close()
    said = log(run.path)
    assert {(u.loader, u.status) for u in said.uses()} == {(1, "applied"), (2, "unapplied")}


@pytest.mark.matrix("Updates", "NaN guard: zero_grad() without a step, set_to_none both ways")
@pytest.mark.parametrize("to_none", [True, False])
def test_a_gradient_thrown_away_makes_its_batch_discarded(run: Run, log: Read, net: Net, to_none: bool) -> None:
    optimizer = sgd(net)
    for number, (features,) in enumerate(watched(run)):
        net(features).sum().backward()
        if number not in (2, 3):  # a NaN guard
            optimizer.step()
        optimizer.zero_grad(set_to_none=to_none)
    run.close()
    said = log(run.path)
    assert applied(said) == {1: [0], 2: [1], 3: [4], 4: [5]}
    assert with_status(said, "discarded") == [2, 3]


def clip(model: nn.Module) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)


def scale(model: nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(0.5)


def replace(model: nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad = parameter.grad * 0.5


@pytest.mark.matrix("Updates", "gradients clipped, scaled or replaced between backward passes", attribution="exact")
@pytest.mark.parametrize("change", [clip, scale, replace])
@pytest.mark.parametrize("dead", [False, True])
def test_gradients_changed_between_accumulations_still_count(
    run: Run, log: Read, net: Net, change: Callable[[nn.Module], None], dead: bool
) -> None:
    if dead:
        nn.init.zeros_(net.head.weight)  # then the true gradient of the body is zero at first
    optimizer = sgd(net)
    for number, (features,) in enumerate(watched(run)):
        net(features).sum().backward()
        change(net)
        if number % 2:
            optimizer.step()
            optimizer.zero_grad()
    run.close()
    said = log(run.path)
    assert applied(said) == {1: [0, 1], 2: [2, 3], 3: [4, 5]}
    assert sureness(said) == {"exact"}


@pytest.mark.matrix("Updates", "gradients clipped after the next forward pass", note="those before: fifo")
def test_a_gradient_changed_after_the_next_forward_pass_counts_as_assumed(run: Run, log: Read, net: Net) -> None:
    optimizer = sgd(net)
    for number, (features,) in enumerate(watched(run)):
        loss = net(features).sum()
        if number % 2:
            clip(net)
        loss.backward()
        if number % 2:
            optimizer.step()
            optimizer.zero_grad()
    run.close()
    said = log(run.path)
    assert applied(said) == {1: [0, 1], 2: [2, 3], 3: [4, 5]}
    assert {(batch % 2, sure) for (_, _, batch), (_, sure, _) in said.batches().items()} == {(0, "fifo"), (1, "exact")}


@pytest.mark.matrix("Updates", "two optimizers on one backward pass", attribution="exact")
def test_two_optimizers_that_share_a_backward_pass_both_used_the_batch(run: Run, log: Read) -> None:
    first, second = nn.Linear(4, 3), nn.Linear(3, 1)
    optimizers = [sgd(first), sgd(second)]
    for (features,) in watched(run):
        for optimizer in optimizers:
            optimizer.zero_grad()
        second(first(features)).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
    run.close()
    said = log(run.path)
    assert applied(said, 1) == applied(said, 2) == {n + 1: [n] for n in range(6)}
    assert sureness(said) == {"exact"}


def test_a_chain_of_modules_trained_on_batches_read_ahead_is_recognised(run: Run, log: Read) -> None:
    first, second = nn.Linear(4, 3), nn.Linear(3, 1)
    optimizer = torch.optim.SGD([*second.parameters(), *first.parameters()], lr=0.1)
    for (features,) in reversed(list(watched(run))):
        optimizer.zero_grad()
        second(first(features)).sum().backward()
        optimizer.step()
    run.close()
    said = log(run.path)
    assert applied(said) == {n + 1: [5 - n] for n in range(6)}
    assert sureness(said) == {"exact"}


def test_a_grad_enabled_evaluation_does_not_hide_what_is_trained_on(run: Run, log: Read, net: Net) -> None:
    optimizer = sgd(net)
    train, validation = list(watched(run)), watched(run, role="validation")
    for (features,), (seen,) in zip(train, validation, strict=True):
        net(seen)
        optimizer.zero_grad()
        net(features * 2).sum().backward()
        optimizer.step()
    run.close()
    said = log(run.path)
    assert {(u.loader, u.status) for u in said.uses()} == {(1, "applied"), (2, "unapplied")}
    assert applied(said) == {n + 1: [n] for n in range(6)}


@pytest.mark.matrix("Updates", "two models, each on every other batch")
def test_an_optimizer_that_rests_every_other_batch_used_only_the_others(run: Run, log: Read) -> None:
    first, second = Net(), Net()
    optimizers = [sgd(first), sgd(second)]
    for number, (features,) in enumerate(watched(run)):
        which = number % 2
        optimizers[which].zero_grad()
        (first, second)[which](features).sum().backward()
        optimizers[which].step()
    run.close()
    said = log(run.path)
    assert applied(said, 1) == {1: [0], 2: [2], 3: [4]}
    assert applied(said, 2) == {1: [1], 2: [3], 3: [5]}


def test_an_unrelated_optimizer_counts_no_updates(run: Run, log: Read, net: Net) -> None:
    optimizer, other = sgd(net), Net()
    aside = sgd(other)
    for (features,) in watched(run):
        optimizer.zero_grad()
        net(features).sum().backward()
        optimizer.step()
        other(torch.ones(1, 4)).sum().backward()
        aside.step()
    run.close()
    said = log(run.path)
    assert {u.optimizer for u in said.uses()} == {1}
    assert applied(said) == {n + 1: [n] for n in range(6)}


@pytest.mark.matrix("Updates", "SGD, AdamW, Adam, RMSprop, Adagrad; foreach and fused; a step without gradients")
@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=0.1, fused=True),
        lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
        lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
        lambda p: torch.optim.RMSprop(p, lr=0.01),
        lambda p: torch.optim.Adagrad(p, lr=0.01),
    ],
    ids=["sgd", "sgd fused", "adamw foreach", "adam fused", "rmsprop", "adagrad"],
)
def test_an_update_is_seen_whatever_kernel_makes_it(run: Run, log: Read, net: Net, make: Callable[..., Any]) -> None:
    optimizer = make(net.parameters())
    for number, (features,) in enumerate(watched(run)):
        optimizer.zero_grad()
        if number != 3:
            net(features).sum().backward()
        optimizer.step()  # at batch 3 without gradients: no update
    run.close()
    said = log(run.path)
    assert applied(said) == {1: [0], 2: [1], 3: [2], 4: [4], 5: [5]}
    assert with_status(said, "unapplied") == [3]


@pytest.mark.matrix("Updates", "GradScaler, with and without a fused optimizer")
@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_gradient_scaler_skips_is_no_update(run: Run, log: Read, net: Net, fused: bool) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu")
    for number, (features,) in enumerate(watched(run)):
        optimizer.zero_grad()
        loss = net(features).sum() * (float("inf") if number == 2 else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    run.close()
    said = log(run.path)
    assert applied(said) == {1: [0], 2: [1], 3: [3], 4: [4], 5: [5]}
    assert with_status(said, "discarded") == [2]


@pytest.mark.matrix("Updates", "LBFGS")
def test_an_optimizer_with_a_closure_used_its_batch_once(run: Run, log: Read, net: Net) -> None:
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=3)
    for (features,) in watched(run):

        def closure(features: torch.Tensor = features) -> torch.Tensor:
            optimizer.zero_grad()
            loss: torch.Tensor = net(features).square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    run.close()
    said = log(run.path)
    assert applied(said) == {n + 1: [n] for n in range(6)}
    assert with_status(said, "discarded") == []


@pytest.mark.matrix("Updates", "list(loader)", attribution="exact")
def test_batches_read_ahead_are_recognised_by_their_memory(run: Run, log: Read, net: Net) -> None:
    optimizer = sgd(net)
    for (features,) in reversed(list(watched(run))):
        optimizer.zero_grad()
        net(features).sum().backward()
        optimizer.step()
    run.close()
    said = log(run.path)
    assert applied(said) == {n + 1: [5 - n] for n in range(6)}
    assert sureness(said) == {"exact"}


@pytest.mark.matrix("Updates", "list(loader), and copies of its batches", attribution="fifo", note="order is assumed")
def test_batches_read_ahead_and_copied_are_attributed_in_order_and_said_to_be(run: Run, log: Read, net: Net) -> None:
    optimizer = sgd(net)
    for (features,) in list(watched(run)):
        optimizer.zero_grad()
        net(features * 2).sum().backward()
        optimizer.step()
    run.close()
    said = log(run.path)
    assert applied(said) == {n + 1: [n] for n in range(6)}
    assert sureness(said) == {"fifo"}


@pytest.mark.parametrize("skipped", [[0], [0, 1, 4], [5]])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_skipped_in_a_loop_that_copies_its_inputs_is_not_taken_for_its_successor(
    run: Run, log: Read, net: Net, skipped: list[int], workers: int
) -> None:
    optimizer = sgd(net)
    data = TensorDataset(torch.randn(12, 4))
    for number, (features,) in enumerate(run.watch(DataLoader(data, batch_size=2, num_workers=workers), role="train")):
        if number in skipped:
            continue
        optimizer.zero_grad()
        net(features * 2).sum().backward()
        optimizer.step()
    run.close()
    said = log(run.path)
    assert [batch for batches in applied(said).values() for batch in batches] == sorted({*range(6)} - {*skipped})
    assert with_status(said, "unapplied") == skipped
    assert ("fifo" in sureness(said)) == (skipped[0] < 5)


def test_copied_batches_of_a_loop_that_prefetches_one_are_attributed_in_order(run: Run, log: Read, net: Net) -> None:
    optimizer = sgd(net)
    batches = iter(watched(run))
    upcoming = next(batches)[0] * 2
    for number in range(6):
        features = upcoming
        if number < 5:
            upcoming = next(batches)[0] * 2
        optimizer.zero_grad()
        net(features).sum().backward()
        optimizer.step()
    run.close()
    said = log(run.path)
    assert applied(said) == {n + 1: [n] for n in range(6)}
    assert sureness(said) == {"fifo"}


def test_items_that_are_views_of_the_data_set_are_not_taken_for_one_another(run: Run, log: Read, net: Net) -> None:
    data = TensorDataset(torch.randn(5, 4))
    loader = run.watch(DataLoader(data, batch_size=None))
    optimizer = sgd(net)
    for (features,) in list(loader):  # each is a view of one storage
        optimizer.zero_grad()
        net(features).sum().backward()
        optimizer.step()
    run.close()
    said = log(run.path)
    assert applied(said) == {n + 1: [n] for n in range(5)}
    assert sureness(said) == {"exact"}


@pytest.mark.parametrize("rows", [2, 3, 4])
def test_items_that_share_one_memory_are_attributed_in_order_and_said_to_be(
    run: Run, log: Read, net: Net, rows: int
) -> None:
    same = torch.randn(4)
    loader = run.watch(DataLoader([same] * rows, batch_size=None))
    optimizer = sgd(net)
    for features in list(loader):
        optimizer.zero_grad()
        net(features).sum().backward()
        optimizer.step()
    run.close()
    said = log(run.path)
    assert applied(said) == {n + 1: [n] for n in range(rows)}
    assert sureness(said) == {"fifo"}


@pytest.mark.matrix("Updates", "two batches in one loss")
def test_two_batches_in_one_loss_are_both_used(run: Run, log: Read, net: Net) -> None:
    optimizer = sgd(net)
    batches = iter(watched(run))
    for (first,), (second,) in zip(batches, batches, strict=True):
        optimizer.zero_grad()
        (net(first).sum() + net(second).sum()).backward()
        optimizer.step()
    run.close()
    assert applied(log(run.path)) == {1: [0, 1], 2: [2, 3], 3: [4, 5]}


@pytest.mark.matrix("Updates", "activation checkpointing", attribution="exact")
@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputed_activations_do_not_take_the_next_batch(run: Run, log: Read, reentrant: bool) -> None:
    class Recomputed(Net):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            hidden = checkpoint(self.body, features.requires_grad_(), use_reentrant=reentrant)
            out: torch.Tensor = checkpoint(self.head, hidden, use_reentrant=reentrant)
            return out

    model = Recomputed()
    optimizer = sgd(model)
    batches = list(watched(run))
    for (features,) in batches:
        optimizer.zero_grad()
        model(features).sum().backward()
        optimizer.step()
    run.close()
    said = log(run.path)
    assert applied(said) == {n + 1: [n] for n in range(6)}
    assert sureness(said) == {"exact"}


@pytest.mark.matrix("Updates", "batches that go round the first layer", attribution="exact")
def test_a_batch_that_bypasses_the_first_layer_is_still_seen(run: Run, log: Read) -> None:
    class Routed(Net):
        def forward(self, features: torch.Tensor, short: bool = False) -> torch.Tensor:
            out: torch.Tensor = self.head(features.repeat(1, 2)[:, :5] if short else self.body(features))
            return out

    model = Routed()
    optimizer = sgd(model)
    for number, (features,) in enumerate(watched(run)):
        optimizer.zero_grad()
        model(features, short=number % 2 == 1).sum().backward()
        optimizer.step()
    run.close()
    said = log(run.path)
    assert applied(said) == {n + 1: [n] for n in range(6)}
    assert sureness(said) == {"exact"}


@pytest.mark.matrix("Updates", "a loop without modules", attribution="sole")
def test_a_loop_without_modules_is_attributed_at_the_step(run: Run, log: Read) -> None:
    weight = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for (features,) in watched(run):
        optimizer.zero_grad()
        (features @ weight - 1).square().mean().backward()
        optimizer.step()
    run.close()
    said = log(run.path)
    assert applied(said) == {n + 1: [n] for n in range(6)}
    assert sureness(said) == {"sole"}


@pytest.mark.matrix("Updates", "sparse gradients")
def test_sparse_gradients_and_sparse_batches_do_no_harm(run: Run, log: Read) -> None:
    embedding = nn.Embedding(8, 2, sparse=True)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    data = TensorDataset(torch.arange(8))
    loader = run.watch(DataLoader(data, batch_size=2, collate_fn=lambda items: torch.stack([i[0] for i in items])))
    for rows in loader:
        optimizer.zero_grad()
        embedding(rows).sum().backward()
        optimizer.step()
    sparse = run.watch(
        DataLoader(TensorDataset(torch.eye(2)), batch_size=2, collate_fn=lambda _: torch.eye(2).to_sparse())
    )
    assert next(iter(sparse)).is_sparse
    run.close()
    assert applied(log(run.path)) == {n + 1: [n] for n in range(4)}


def test_a_model_under_trace_can_be_copied_and_pickled(run: Run, net: Net) -> None:
    optimizer = sgd(net)
    features = torch.ones(3, 4)
    for (batch,) in watched(run):
        net(batch).sum().backward()
        optimizer.step()
    copied, pickled = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
    assert torch.equal(copied(features), net(features))
    assert torch.equal(pickled(features), net(features))
    copied(features).sum().backward()


def test_nothing_is_left_on_the_model_after_the_run(run: Run, net: Net) -> None:
    optimizer = sgd(net)
    for (batch,) in watched(run):
        net(batch).sum().backward()
        optimizer.step()
    assert net._forward_hooks
    run.close()
    assert not net._forward_hooks
    assert not any(p._post_accumulate_grad_hooks for p in net.parameters())
    assert not torch.nn.modules.module._global_forward_pre_hooks


@pytest.mark.matrix("Updates", "a peek, next(iter(loader))")
def test_a_peek_at_the_loader_is_a_pass_of_its_own(run: Run, log: Read, net: Net) -> None:
    optimizer = sgd(net)
    loader = watched(run)
    next(iter(loader))
    for (features,) in loader:
        optimizer.zero_grad()
        functional.mse_loss(net(features), torch.zeros(2, 2)).backward()
        optimizer.step()
    run.close()
    said = log(run.path)
    assert list(said.batches("unapplied")) == [(0, 0, 0)]
    assert list(said.batches("applied")) == [(1, 1, n) for n in range(6)]
