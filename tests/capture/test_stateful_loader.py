"""torchdata's StatefulDataLoader and PyG's loader of graphs: the same pairing, behind other people's iterators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import RandomSampler
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader as GraphLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from fgtrac.api.run import Run
from loader_truth import Read, Rows, Trainer, check, updates

WORKERS = pytest.mark.parametrize("workers", [0, 2])
pytestmark = pytest.mark.filterwarnings("ignore:.set_vital. is deprecated:UserWarning")  # torchdata, as it is made


def made(workers: int, data: Any, **options: Any) -> Any:
    return StatefulDataLoader(data, batch_size=2, shuffle=True, num_workers=workers, **options)


@pytest.mark.matrix("StatefulDataLoader", "two epochs", attribution="exact")
@WORKERS
def test_each_update_is_filed_under_its_rows(run: Run, log: Read, workers: int) -> None:
    trainer, loader = Trainer(), run.watch(made(workers, Rows(), persistent_workers=workers > 0), role="train")
    for _epoch in range(2):
        trainer.over(loader)
    check(run, log, trainer)


@pytest.mark.matrix("StatefulDataLoader", "resumed in the middle of an epoch by its state", attribution="exact")
@pytest.mark.parametrize("every", [1, 3])
@WORKERS
def test_batches_behind_a_restored_state_are_filed_and_those_before_it_are_not(
    run: Run, log: Read, workers: int, every: int
) -> None:
    torch.manual_seed(3)
    data, trainer = Rows(), Trainer()
    loader = run.watch(made(workers, data, snapshot_every_n_steps=every), role="train")
    batches = iter(loader)
    for _batch in range(4):
        trainer.step(next(batches))
    state = loader.state_dict()
    del batches
    resumed = made(workers, data, snapshot_every_n_steps=every)
    resumed.load_state_dict(state)
    trainer.over(resumed)
    said = check(run, log, trainer)
    assert sorted(row for rows in trainer.truth for row in rows) == list(range(20))
    assert sum(use.status == "applied" for use in said.uses()) == len(said.uses()) - sum(
        use.status == "unapplied" for use in said.uses() if use.epoch == 0
    )


@pytest.mark.matrix("PyG", "DataLoader of graphs", attribution="exact")
@WORKERS
def test_a_batch_of_graphs_is_filed_under_its_graphs(run: Run, log: Read, workers: int) -> None:
    graphs = [
        Data(x=torch.full((2 + i % 3, 4), float(i)), edge_index=torch.tensor([[0, 1], [1, 0]]), who=torch.tensor([i]))
        for i in range(10)
    ]
    loader = GraphLoader(graphs, batch_size=3, shuffle=True, num_workers=workers)
    run.watch(loader, role="train")
    trainer = Trainer()
    for batch in loader:
        trainer.step((batch.x, batch.who))
    run.close()
    assert updates(log(run.path), "exact") == trainer.truth
    assert isinstance(loader.sampler, RandomSampler)
