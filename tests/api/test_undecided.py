"""Where batches were given to updates by guess and some are left, nobody is told that a sample was never used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import fgtrac
from fgtrac.api.bundles import verify_bundle
from fgtrac.api.prior import trace_id_of
from fgtrac.api.run import start_run
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from fgtrac.verify.report import Verdict

ROWS = 96
Loop = Callable[[torch.nn.Module, torch.optim.Optimizer, DataLoader, DataLoader], None]


def mixed(model: torch.nn.Module, optimizer: torch.optim.Optimizer, one: DataLoader, other: DataLoader) -> None:
    """Each update takes a batch of both loaders, laid together: copies, so that nothing tells them apart."""
    for (a, b), (c, d) in zip(one, other, strict=True):
        cross_entropy(model(torch.cat([a, c])), torch.cat([b, d])).backward()
        optimizer.step()
        optimizer.zero_grad()


def side_by_side(model: torch.nn.Module, optimizer: torch.optim.Optimizer, one: DataLoader, other: DataLoader) -> None:
    for (a, b), (c, d) in zip(one, other, strict=True):
        (cross_entropy(model(a), b) + cross_entropy(model(c), d)).backward()
        optimizer.step()
        optimizer.zero_grad()


def looked_ahead(model: torch.nn.Module, optimizer: torch.optim.Optimizer, one: DataLoader, other: DataLoader) -> None:
    for a, b in [*list(one), *list(other)]:
        cross_entropy(model(a.clone()), b).backward()
        optimizer.step()
        optimizer.zero_grad()


def record(folder: Path, loop: Loop) -> Path:
    torch.manual_seed(0)
    sets = [TensorDataset(torch.randn(ROWS, 4), torch.randint(0, 2, (ROWS,))) for _ in range(2)]
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with start_run(folder / "run", key=folder / "key.pem") as run:
        for name, data in zip("AB", sets, strict=True):
            run.register(data, name=name)
        loop(model, optimizer, *[run.watch(DataLoader(d, batch_size=8, shuffle=True), role="train") for d in sets])
    return run.path


def unused(path: Path) -> list[str]:
    """The names of samples that the log has no use of."""
    trace = fgtrac.open(path)
    names = [f"{name}:{row}" for name in "AB" for row in range(ROWS)]
    return [name for name in names if trace.history(name).uses == 0]


def test_a_sample_that_a_mixed_batch_may_have_used_is_not_shown_as_never_used(tmp_path: Path) -> None:
    path = record(tmp_path, mixed)
    name = unused(path)[0]
    (tmp_path / "bundle").write_bytes(fgtrac.open(path).prove(name, "never used"))
    report = verify_bundle(tmp_path / "bundle", str(tmp_path / "key.pem"))
    assert report.verdict is Verdict.CANNOT_TELL
    assert {f.check for f in report.findings if f.verdict is Verdict.CANNOT_TELL} >= {"complete"}
    checked = fgtrac.check(path, str(tmp_path / "key.pem")).report
    (finding,) = [f for f in checked.findings if f.check == "every-training-sample-used"]
    assert finding.verdict is Verdict.CANNOT_TELL


@pytest.mark.parametrize("loop", [side_by_side, looked_ahead])
def test_where_no_batch_is_left_nothing_is_in_doubt(tmp_path: Path, loop: Loop) -> None:
    path = record(tmp_path, loop)
    assert unused(path) == []
    assert fgtrac.open(path).verify(str(tmp_path / "key.pem")).verdict is Verdict.HOLDS
    checked = fgtrac.check(path, str(tmp_path / "key.pem")).report
    (finding,) = [f for f in checked.findings if f.check == "every-training-sample-used"]
    assert finding.verdict is Verdict.HOLDS


def test_what_a_sealed_checkpoint_announces_can_be_opened_though_the_run_is_not_closed(tmp_path: Path) -> None:
    data = TensorDataset(torch.randn(32, 4), torch.randint(0, 2, (32,)))
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with start_run(tmp_path / "run", key=tmp_path / "key.pem", sync_interval_s=3600, seal_interval_s=0) as run:
        loader = run.watch(DataLoader(data, batch_size=8, shuffle=True), role="train")
        for a, b in loader:
            cross_entropy(model(a), b).backward()
            optimizer.step()
        run.checkpoint(model, optimizer)
        run._sealer.finish()
        vault = Vault.open(run.path.with_suffix(".vault"), trace_id_of(TraceDir.open(run.path)))
        assert len(list(vault.openings("sampler/"))) == 1
        vault.close()
