"""Announcing an order: on record before the first batch, without a mark on the training, and not given away."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from fgtrac.api.run import Run, start_run
from fgtrac.capture.sampler import read_order
from fgtrac.events.codec import decode
from fgtrac.events.orders import decode_placement, opening_name, state_commitment
from fgtrac.events.schema import decode_event
from fgtrac.store.journal import scan
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault

ROWS = 24
Options = dict[str, Any]


def data() -> TensorDataset:
    return TensorDataset(torch.arange(4.0 * ROWS).reshape(ROWS, 4) / ROWS, torch.arange(ROWS) % 3)


LOADERS: dict[str, Callable[[Any], Options]] = {
    "shuffled": lambda g: {"shuffle": True, "generator": g},
    "with replacement": lambda g: {"sampler": RandomSampler(range(ROWS), True, 40, generator=g), "generator": g},
    "weighted": lambda g: {"sampler": WeightedRandomSampler([0.5] * ROWS, 20, generator=g)},
    "subset": lambda g: {"sampler": SubsetRandomSampler(range(9), generator=g), "generator": g},
    "a share": lambda g: {"sampler": DistributedSampler(range(ROWS), 2, 0)},
}


def train(make: Callable[[Any], Options], own_generator: bool, folder: Path | None, workers: int) -> list[Any]:
    """Weights, order and random states after two epochs, with a run in the folder or without."""
    torch.manual_seed(5)
    own = torch.Generator().manual_seed(11)
    loader = DataLoader(data(), batch_size=5, num_workers=workers, **make(own if own_generator else None))
    run = None if folder is None else start_run(folder / "run", key=folder / "key.pem")
    if run is not None:
        run.watch(loader, role="train")
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    for _ in range(2):
        for inputs, labels in loader:
            seen.append(inputs.tolist())
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        seen.append(torch.get_rng_state().tolist())
        seen.append(own.get_state().tolist())
    if run is not None:
        run.close()
    return [seen, [p.tolist() for p in model.parameters()]]


@pytest.mark.parametrize("given_generator", [False, True], ids=["global", "own"])
def test_weights_orders_and_random_states_are_the_same_bit_by_bit(tmp_path: Path, given_generator: bool) -> None:
    for name, make in LOADERS.items():
        (folder := tmp_path / name).mkdir()
        workers = 2 if name == "shuffled" else 0
        traced, plain = (train(make, given_generator, where, workers) for where in (folder, None))
        assert traced == plain, name


@pytest.mark.parametrize("workers", [0, 2])
def test_the_announcement_can_be_sealed_before_the_first_batch_is_trained_on(run: Run, workers: int) -> None:
    loader = run.watch(DataLoader(data(), batch_size=6, shuffle=True, num_workers=workers), role="train")
    for epoch in range(2):
        next(iter(loader))
        written = [decode_event(e) for p in (run.path / "journal").iterdir() for _, e in scan(p.read_bytes()).frames]
        assert [e["epoch"] for e in written if e["kind"] == "sampler"] == list(range(epoch + 1))
    run._sealer.now()
    head = TraceDir.open(run.path).head()
    assert head is not None
    assert head.size >= 6


def announced(run: Run, log: Callable[[Path], Any]) -> list[dict[str, Any]]:
    run.close()
    return list(log(run.path).kind("sampler"))


def test_what_would_give_the_order_away_is_committed_to_and_opened_by_the_vault(
    run: Run, log: Callable[[Path], Any]
) -> None:
    shares = DataLoader(data(), batch_size=6, sampler=DistributedSampler(range(ROWS), 2, 1, seed=77))
    list(run.watch(shares, role="train"))
    chosen = SubsetRandomSampler([4, 2, 9])
    list(run.watch(DataLoader(data(), batch_size=6, sampler=chosen), role="validation"))
    share, subset = announced(run, log)
    assert "state" not in share | subset
    assert "seed" not in share["parameters"]
    vault = Vault.open(run.path.with_suffix(".vault"), log(run.path).events[0]["trace"])
    openings = [vault.find_opening(opening_name(e["writer"], e["seq"])) for e in (share, subset)]
    assert all(openings)
    first, second = (decode(opening[32:]) for opening in openings if opening is not None)
    for event, opening in zip((share, subset), openings, strict=True):
        assert event["state_commitment"] == state_commitment(opening or b"")
        assert hashlib.sha256(b"fgtrac sampler v1\n" + (opening or b"")).digest() == event["state_commitment"]
    assert (first["seed"], first["epoch"]) == (77, 0)
    listed = vault.find_opening(f"placement/{second['listed'].hex()}")
    assert listed is not None
    assert decode(listed).tolist() == [4, 2, 9]
    placed = vault.find_opening(f"placement/{second['placement'].hex()}")
    assert placed is not None
    said = log(run.path)
    places = decode_placement(placed)
    assert said.keys(places.blocks[0], places.ordinals) == list(range(ROWS))
    vault.close()
    assert not [a for a in said.kind("artifact") if "order" in a["path"]]


def test_of_public_ids_the_entry_holds_the_state_and_artifacts_the_rest(
    tmp_path: Path, log: Callable[[Path], Any]
) -> None:
    run = start_run(tmp_path / "run", key=tmp_path / "key.pem", ids="public")
    loader = DataLoader(data(), batch_size=6, sampler=WeightedRandomSampler([1.0, 3.0] * 12, 12))
    state = torch.get_rng_state()
    for _ in range(3):
        list(run.watch(loader, role="train"))
    events = announced(run, log)
    assert [e["epoch"] for e in events] == [0, 1, 2]
    origin = decode(events[0]["state"])
    generator = torch.Generator()
    generator.set_state(state)
    torch.empty((), dtype=torch.int64).random_(generator=generator)  # the seed for the workers, drawn before
    assert origin["generator"] == generator.get_state().numpy().tobytes()
    artifacts = {a["sha256"]: a["path"] for a in log(run.path).kind("artifact")}
    assert artifacts.keys() == {origin["placement"], origin["listed"]}
    assert decode((run.path / artifacts[origin["listed"]]).read_bytes()).tolist() == [1.0, 3.0] * 12


def test_subjects_keep_the_order_hidden_in_a_public_run_too(tmp_path: Path, log: Callable[[Path], Any]) -> None:
    run = start_run(tmp_path / "run", key=tmp_path / "key.pem", ids="public")
    rows = data()
    run.register(rows, subject=[f"person {row % 4}" for row in range(ROWS)], role="train")
    list(run.watch(DataLoader(rows, batch_size=6)))
    (event,) = announced(run, log)
    assert "state_commitment" in event


def test_parameters_are_those_of_the_loader(run: Run, log: Callable[[Path], Any]) -> None:
    generator = torch.Generator().manual_seed(2)
    loader = DataLoader(data(), batch_size=5, drop_last=True, sampler=RandomSampler(range(9), True, 7, generator))
    list(run.watch(loader, role="train"))
    (event,) = announced(run, log)
    said = dict(event["parameters"])
    assert said.pop("torch") == torch.__version__
    assert said.pop("machine")
    assert event["sampler"] == "RandomSampler"
    batching = {"batch_size": 5, "drop_last": True}
    assert said == {"rows": 9, "num_samples": 7, "replacement": True, "generator": "own", **batching}


def test_a_generator_that_is_not_the_processors_is_not_read() -> None:
    loader = DataLoader(data(), batch_size=5, shuffle=True)
    iterator = iter(loader)
    with torch.device("meta"):
        order = read_order(iterator, loader)
    assert order.origin == {}
    assert read_order(iterator, loader).origin.keys() == {"generator"}


def test_openings_are_kept_beside_the_training(tmp_path: Path) -> None:
    run = start_run(tmp_path / "run", key=tmp_path / "key.pem", flush_interval_s=0.01, sync_interval_s=0.01)
    loader = run.watch(DataLoader(data(), batch_size=6), role="train")
    list(loader)
    deadline = time.monotonic() + 30
    while len(run._vault.openings("sampler/")) == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(run._vault.openings("sampler/")) == 1
    assert len(run._vault.openings("placement/")) == 1
    run.close()


def test_a_resumed_run_does_not_write_the_same_artifact_again(tmp_path: Path, log: Callable[[Path], Any]) -> None:
    rows = data()
    for resume in (False, True):
        run = start_run(tmp_path / "run", key=tmp_path / "key.pem", ids="public", resume=resume)
        list(run.watch(DataLoader(rows, batch_size=6), role="train"))
        run.close()
    said = log(run.path)
    assert len(said.kind("artifact")) == 1
    assert len(said.kind("sampler")) == 2
    assert len({e["writer"] for e in said.kind("sampler")}) == 2


def test_positions_from_the_end_are_not_taken_for_rows(run: Run, log: Callable[[Path], Any]) -> None:
    loader = DataLoader(data(), batch_size=2, sampler=SubsetRandomSampler([-1, 3]))
    assert sum(len(labels) for _, labels in run.watch(loader, role="train")) == 2
    (event,) = announced(run, log)
    assert event["sampler"] == "torch.utils.data.sampler.SubsetRandomSampler"
    assert "rows" not in event["parameters"]


def test_a_loader_that_is_never_read_is_not_announced(run: Run, log: Callable[[Path], Any]) -> None:
    iter(run.watch(DataLoader(data(), batch_size=2), role="train"))
    assert announced(run, log) == []
