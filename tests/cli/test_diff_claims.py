"""`fgtrac diff` says "the same" of nothing that it did not compare: contents, orders, stages, forks, optimizers."""

from __future__ import annotations

import hashlib
import shutil
from array import array
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch.utils.data import DataLoader, TensorDataset

import fgtrac
from fgtrac.api.difference import Contents, Difference
from fgtrac.commit.signer import Signer
from fgtrac.events.schema import ATTRIBUTION, STATUS
from fgtrac.store.trace_dir import TraceDir
from lives import among, batch, live_on_a_graph
from traces import TRACE_ID, Made, Writing, make_trace, start_trace


def train(path: Path, *, data: int = 7, order: int = 1, by: int = 1, passes: int = 2, **said: Any) -> Path:
    """24 rows in 3 batches, behind a stage with a parameter; public ids unless `said`."""
    torch.manual_seed(0)
    rows = torch.randn(24, 5, generator=torch.Generator().manual_seed(data))
    rows[:4] = 1.0  # whatever the seed
    given = TensorDataset(rows, torch.zeros(24, dtype=torch.long))
    model = torch.nn.Linear(5, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with fgtrac.start_run(path, **{"ids": "public"} | said) as run:
        run.register(given, name="train", role="train")
        scaled = run.transform("scale", given, {"by": by}).map(lambda sample: (sample[0] * 2, sample[1]))
        loader = run.watch(DataLoader(scaled, 8, shuffle=True, generator=torch.Generator().manual_seed(order)))
        for _ in range(passes):
            for inputs, labels in loader:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(inputs), labels).backward()
                optimizer.step()
    return path.with_suffix(".trace")


@pytest.fixture
def signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where trainings may be recorded."""
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    return tmp_path


def settings_of(found: Difference) -> list[str]:
    return [pair.name for pair in found.settings if not pair.name.startswith("git_")]


# -- contents and stages ----------------------------------------------------------------------------------------------


def test_other_contents_under_the_same_ids_are_said(signed: Path, run: Any) -> None:
    a, b, again = train(signed / "a"), train(signed / "b", data=99), train(signed / "c")
    found = fgtrac.diff(a, b)
    assert found.contents is not None
    assert (found.contents.equal, found.contents.differing, found.contents.cannot_tell) == (4, 20, 0)
    assert len(set(found.contents.named) - {f"train:{row}" for row in range(4)}) == 5
    assert "4 equal, 20 others (" in found.text()
    assert "samples of the same ids in each of 6 steps" in found.text()
    assert "the same samples" not in found.text()
    assert run("diff", a, b, "--json").json["contents"]["differing"] == 20
    same = fgtrac.diff(a, again)
    assert same.contents == Contents(24, 0, 0, ())
    assert "the same samples in each of 6 steps" in same.text()


def test_contents_cannot_be_compared_where_one_log_has_no_digests(tmp_path: Path) -> None:
    a, bare = make_trace(tmp_path / "a"), tmp_path / "b"
    made, writing = start_trace(bare)
    writing.use([0, 1])
    writing.end()
    made.seal()
    assert fgtrac.diff(a.trace.path, made.trace.path).contents == Contents(20, 0, 0, ())
    without, writing = start_trace(tmp_path / "c")
    writing.recorder.record(
        "samples", {"dataset": "digits", "block": writing.block, "part": 0, "parts": 1, "ids": b"".join(sorted(a.ids))}
    )
    writing.end()
    without.seal()
    found = fgtrac.diff(a.trace.path, without.trace.path)
    assert found.contents == Contents(0, 0, 20, ())
    assert "20 that cannot be compared: cannot tell" in found.text()


def test_a_stage_s_parameters_and_code_are_compared(signed: Path) -> None:
    a, b = train(signed / "a"), train(signed / "b", by=100)
    found = fgtrac.diff(a, b)
    assert [(pair.name, pair.a, pair.b) for pair in found.stages] == [("stage scale.by", 1, 100)]
    assert "stages: 1 differ" in found.text()
    assert fgtrac.diff(a, a).stages == ()


def test_a_stage_without_its_function_s_code_is_not_said_to_be_the_same(tmp_path: Path) -> None:
    def staged(folder: Path, **said: Any) -> Path:
        made, writing = start_trace(folder)
        kept = {"kept": writing.placement.ordinals, "block": writing.block}
        writing.recorder.record("transform", {"stage": "clean", "operation": "filter", **kept, **said})
        writing.end()
        made.seal()
        return made.trace.path

    a, b, c = staged(tmp_path / "a"), staged(tmp_path / "b"), staged(tmp_path / "c", code=bytes(32))
    assert "stages: none that is told differs" in fgtrac.diff(a, b).text()
    assert "no digest of the function of stage clean" in fgtrac.diff(a, b).cannot_tell["stages"]
    assert [pair.name for pair in fgtrac.diff(a, c).stages] == ["stage clean: code"]


# -- orders and resumed runs ------------------------------------------------------------------------------------------


def test_another_order_after_a_resume_shows_in_the_settings(signed: Path) -> None:
    paths = []
    for name, order in (("a", 1), ("b", 2)):
        train(signed / name)
        paths.append(train(signed / name, order=order, resume=True, step=6))
    found = fgtrac.diff(*paths)
    assert settings_of(found) == ["loader 1, epoch 2.state.generator"]
    for section, word in (("settings", "configuration"), ("versions", "versions")):
        assert f"its log has the {word} of its start alone" in found.cannot_tell[section]
    assert "versions: none that is told differs" in found.text()


def test_another_config_of_a_resumed_run_is_not_dropped_in_silence(signed: Path) -> None:
    train(signed / "a", config={"lr": 1})
    train(signed / "a", config={"lr": 1}, resume=True, step=6)
    with pytest.warns(RuntimeWarning, match="its log keeps the one that it began with"):
        train(signed / "a", config={"lr": 2}, resume=True, step=6)


def test_a_keyed_order_is_compared_through_the_vaults_or_not_at_all(signed: Path) -> None:
    a, b, c = (train(signed / name, order=order, ids="keyed") for name, order in (("a", 1), ("b", 1), ("c", 2)))
    same, other = fgtrac.diff(a, b), fgtrac.diff(a, c)
    assert (settings_of(same), "settings" in same.cannot_tell) == ([], False)
    assert settings_of(other) == ["loader 1.state.generator"]
    c.with_suffix(".vault").unlink()
    untold = fgtrac.diff(a, c)
    assert settings_of(untold) == []
    assert f"the log of {c} has no open state" in untold.cannot_tell["settings"]
    assert "settings: the same" not in untold.text()


def test_a_pass_that_one_alone_announced_is_a_difference(signed: Path) -> None:
    found = fgtrac.diff(train(signed / "a"), train(signed / "b", passes=3))
    assert [(pair.name, pair.a, pair.b) for pair in found.settings if "loader" in pair.name] == [
        ("loader 1, epoch 2: passes", 0, 1)
    ]


# -- copies and forks -------------------------------------------------------------------------------------------------


def continued(made: Made, folder: Path, rows: list[int], writer: int) -> Made:
    """A copy of a trace, with another batch."""
    shutil.copytree(made.trace.path.parent, folder)
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    copy = Made(TraceDir.open(folder / "run.trace"), Signer(TRACE_ID, key, folder / "heads" / TRACE_ID.hex()), made.ids)
    writing = Writing(copy, bytes((writer,)) * 16)
    writing.step = 100
    writing.use(rows)
    writing.end()
    copy.seal()
    return copy


def test_a_longer_copy_is_the_same_trace_and_a_fork_is_not(tmp_path: Path) -> None:
    made = make_trace(tmp_path / "a")
    longer = continued(made, tmp_path / "b", [1, 2], 2)
    other = continued(made, tmp_path / "c", [3, 4], 3)
    found = fgtrac.diff(made.trace.path, longer.trace.path)
    assert (found.same_trace, found.forked) == (True, False)
    assert "copies of one trace, of which one is longer" in found.text()
    assert fgtrac.diff(longer.trace.path, made.trace.path).same_trace
    parted = fgtrac.diff(longer.trace.path, other.trace.path)
    assert (parted.same_trace, parted.forked) == (False, True)
    assert "neither continues the other" in parted.text()
    assert "copies" not in parted.text()


# -- updates ----------------------------------------------------------------------------------------------------------


def test_the_steps_of_several_optimizers_are_counted_and_compared_apart(tmp_path: Path) -> None:
    def by_two(folder: Path, optimizers: tuple[int, int]) -> Path:
        made, writing = start_trace(folder)
        for step in range(1, 9):
            for rows, optimizer in zip(([0, 1], [2, 3]), optimizers, strict=True):
                if optimizer == 1 or step < 3:
                    said = (0, step, step, STATUS["applied"], ATTRIBUTION["exact"])
                    writing.recorder.use(writing.placement, 1, optimizer, said, array("I", rows))
                    writing.recorder.flush()
        writing.end()
        made.seal()
        return made.trace.path

    a, b = by_two(tmp_path / "a", (1, 2)), by_two(tmp_path / "b", (2, 1))
    alone, parted = fgtrac.diff(a, a).batches, fgtrac.diff(a, b).batches
    assert alone is not None
    assert (alone.optimizers, alone.steps_a, alone.compared, alone.differing) == (2, 10, 10, 0)
    assert fgtrac.diff(a, b).a.last_step == 8
    assert parted is not None
    assert (parted.differing, parted.first_differing, parted.first_optimizer) == (10, 1, 1)
    assert "first in step 1 of optimizer 1" in fgtrac.diff(a, b).text()


def test_updates_that_were_gone_back_behind_count_for_no_order(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path / "a")
    batch(writing, 1, [0, 1], 1)
    among(writing, 2, [5, 6])
    batch(writing, 3, [7, 8], 3)
    writing.recorder.record("resume", {"writers": [], "step": 1})
    batch(writing, 4, [2, 3], 2)
    writing.end()
    made.seal()
    other, writing = start_trace(tmp_path / "b")
    batch(writing, 1, [0, 1], 1)
    batch(writing, 4, [2, 3], 2)
    writing.end()
    other.seal()
    found = fgtrac.diff(made.trace.path, other.trace.path)
    assert found.batches is not None
    assert (found.batches.compared, found.batches.differing, found.batches.same_uses) == (2, 0, True)
    assert found.used is not None
    assert found.used.only_a == 2  # they were in an update all the same


def test_of_a_graph_only_the_seeds_are_said_to_be_the_same(tmp_path: Path) -> None:
    graph = live_on_a_graph(tmp_path / "a").path
    text = fgtrac.diff(graph, graph).text()
    assert "used in updates, as seeds: " in text
    assert "batches: seeds of the same ids in each of " in text
    assert "the seeds' neighbours are not compared" in text
    assert "the same samples in each" not in text


def test_a_metric_that_is_called_validation_loss_is_kept_apart_from_it(tmp_path: Path) -> None:
    def logged(folder: Path, value: float) -> Path:
        made, writing = start_trace(folder)
        writing.use([0])
        digest = hashlib.sha256(b"state").digest()
        fields = {"step": 1, "kept": False, "rule": "all", "val_loss": 1.0, "digest": digest}
        writing.recorder.record("checkpoint", fields)
        writing.recorder.record("metrics", {"step": 1, "values": {"validation loss": value}})
        writing.end()
        made.seal()
        return made.trace.path

    found = fgtrac.diff(logged(tmp_path / "a", 0.2), logged(tmp_path / "b", 99.0)).losses
    assert found is not None
    assert [(one.name, one.largest) for one in found] == [
        ("validation loss", 0.0), ("validation loss, as logged", pytest.approx(98.8)),
    ]  # fmt: skip


def test_a_role_that_one_alone_gave_is_another_role(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path / "b")
    writing.recorder.record(
        "roles", {"role": "test", "block": writing.block, "ordinals": writing.placement.ordinals[:1]}
    )
    writing.end()
    made.seal()
    found = fgtrac.diff(make_trace(tmp_path / "a").trace.path, made.trace.path).roles
    assert found is not None
    assert (found.changed, found.named[0].a, found.named[0].b) == (1, "train", "train, test")
