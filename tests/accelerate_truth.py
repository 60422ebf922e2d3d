"""What a loop over loaders that Accelerate has prepared was really trained on, in one process and in several."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DataLoaderConfiguration
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, default_collate

from fgtrac.api.run import start_run
from fgtrac.frameworks.accelerate import watch
from rank_processes import Plan, Trained


class Marked(Dataset[Any]):
    """Row i is (features, label, i), or the same in a dict: a batch tells which samples are in it."""

    def __init__(self, rows: int, *, is_dict: bool = False) -> None:
        self.features = torch.randn(rows, 4, generator=torch.Generator().manual_seed(0))
        self.is_dict = is_dict

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, row: int) -> Any:
        item = (self.features[row], row % 3, row)
        return dict(zip(("features", "label", "row"), item, strict=True)) if self.is_dict else item


def accelerator(*, accumulate: int = 1, **configured: Any) -> Accelerator:
    """One on the processor, of this test alone."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    config = DataLoaderConfiguration(**configured)
    return Accelerator(cpu=True, gradient_accumulation_steps=accumulate, dataloader_config=config)


def without_first(samples: list[Any]) -> Any:
    """A collate function that drops a sample of each batch."""
    return default_collate(samples[1:])


def prepared(made: Accelerator, data: Any, *, workers: int = 0, batch: int = 4, **options: Any) -> tuple[Any, Any, Any]:
    """A model, its optimizer and a loader of shuffled batches."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Dropout(0.2), torch.nn.Linear(6, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    context = "fork" if workers else None
    options = {"shuffle": True, "num_workers": workers, "multiprocessing_context": context} | options
    loader = DataLoader(data, batch, **options)
    trio: tuple[Any, Any, Any] = made.prepare(model, optimizer, loader)
    return trio


def train(made: Accelerator, model: Any, optimizer: Any, loader: Any, *, copies: bool = False) -> list[list[int]]:
    """One pass in Accelerate's way: the rows of each batch, in order."""
    batches = []
    for batch in loader:
        features, labels, rows = batch.values() if isinstance(batch, dict) else batch
        assert not isinstance(batch, dict) or set(batch) == {"features", "label", "row"}
        with made.accumulate(model):
            made.backward(cross_entropy(model(features.clone() if copies else features), labels))
            optimizer.step()
            optimizer.zero_grad()
        batches.append(rows.tolist())
    return batches


def fit(rank: int, count: int, folder: Path, plan: Plan) -> tuple[Trained, bytes]:
    """A rank's training, for `rank_processes.together`; `plan.options` are (data is in dicts, loader configuration)."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    made = accelerator(**plan.options["loader"])
    data = Marked(plan.rows, is_dict=plan.options["is_dict"])
    collate = {"collate_fn": without_first} if plan.options.get("drops") else {}
    model, optimizer, loader = prepared(made, data, workers=plan.workers, **collate)
    told: Trained = []
    if not plan.record:
        for epoch in range(plan.epochs):
            told += [(epoch, n, 0, rows) for n, rows in enumerate(train(made, model, optimizer, loader))]
    else:
        with start_run(folder / "run") as run:
            watch(run, loader, role="train")
            for epoch in range(plan.epochs):
                first = run.step + 1
                with warnings.catch_warnings(record=True) as said:
                    warnings.simplefilter("always")
                    batches = train(made, model, optimizer, loader)
                assert all("dispatcher" in str(one.message) for one in said), said
                told += [(epoch, n, first + n, rows) for n, rows in enumerate(batches)]
    return told, b"".join(p.detach().numpy().tobytes() for p in model.parameters())
