"""Ray Data under trace: rows are read, filtered, cut into new samples, shuffled and trained on.

Afterwards: fgtrac history runs/ray-data.trace readings:7
"""

from typing import Any

import numpy as np
import ray
import ray.data
import torch
from torch import nn

import fgtrac
from fgtrac.frameworks import ray_data

WINDOW = 4


def is_whole(row: dict[str, Any]) -> bool:
    """Whether nothing of a reading is missing."""
    return not np.isnan(row["values"]).any()


def windows(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The windows of a reading, with the value behind each."""
    values = np.asarray(row["values"], dtype=np.float32)
    starts = range(0, len(values) - WINDOW, WINDOW)
    return [{"inputs": values[n : n + WINDOW], "target": values[n + WINDOW]} for n in starts]


def main() -> None:
    """Train on windows of whole readings."""
    drawn = np.random.default_rng(0)
    readings = [{"id": n, "values": np.cumsum(drawn.normal(size=13)).astype(np.float32)} for n in range(80)]
    for n in range(0, 80, 9):
        readings[n]["values"][3] = np.nan
    model = nn.Linear(WINDOW, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with fgtrac.start_run("runs/ray-data") as run:
        data = ray_data.trace(run, ray.data.from_items(readings, override_num_blocks=2), name="readings", key="id")
        whole = data.transform("whole").filter(is_whole)
        cut = whole.transform("windows").flat_map(windows)
        print(f"{len(data)} readings, {len(whole)} of them whole, {len(cut)} windows")
        for epoch in range(2):
            for batch in cut.random_shuffle(seed=epoch).iter_torch_batches(role="train", batch_size=32):
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(model(batch["inputs"]).flatten(), batch["target"])
                loss.backward()
                optimizer.step()
        run.checkpoint(model, optimizer)
    trace = fgtrac.open("runs/ray-data.trace")
    print(trace.history("readings:7"))
    for found in trace.verify().findings:
        print(f"{found.verdict.value}: {found.words}")


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 << 20)
    main()
    ray.shutdown()
