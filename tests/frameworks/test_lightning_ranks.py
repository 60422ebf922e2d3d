"""A Lightning training on two ranks: one trace, and each rank's batches in it."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from lightning_truth import QUIET, Net, applied, loader, read, sureness, trace_at, trainer

pytestmark = [*QUIET, pytest.mark.filterwarnings("ignore:.*os.fork", "ignore:This process .* is multi-threaded")]


class Told(Net):
    """Writes down what its rank trained on."""

    folder: Path

    def on_train_end(self) -> None:
        (self.folder / f"rank-{self.global_rank}.json").write_text(json.dumps(self.truth()))


@pytest.mark.matrix("Lightning", "two ranks, forked, accumulated, a sample repeated as padding", attribution="exact")
def test_each_rank_s_batches_are_in_the_one_trace(tmp_path: Path) -> None:
    net = Told()
    net.folder = tmp_path
    options = {"strategy": "ddp_fork", "devices": 2, "accumulate_grad_batches": 2}
    trainer(trace_at(tmp_path), **options).fit(net, loader(13, shuffle=True))
    truth: dict[int, list[int]] = defaultdict(list)
    for rank in (0, 1):
        for step, marks in json.loads((tmp_path / f"rank-{rank}.json").read_text()).items():
            truth[int(step)] += marks
    log = read(tmp_path)
    assert applied(log) == {step: sorted(marks) for step, marks in sorted(truth.items())}
    assert len(log.uses()) == 28  # 14 an epoch: 13 samples, and one of them again
    assert sureness(log) == {"exact"}
    assert [e["name"] for e in log.kind("dataset")] == ["TensorDataset"]
