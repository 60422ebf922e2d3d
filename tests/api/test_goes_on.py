"""A factor pass that was cut off in the middle of a model state goes on at the shard where it stopped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fgtrac.api import factor_passes
from fgtrac.api.audit import audit_trace
from fgtrac.api.cost import TimeLeft
from fgtrac.api.prior import trace_id_of
from fgtrac.api.run import Run, reopen
from fgtrac.api.scored_rows import SOME
from fgtrac.commit.signer import Signer
from fgtrac.errors import ScoreError
from fgtrac.score.cache import Cache
from fgtrac.score.factor_files import encode_losses, encode_rows, encode_shard, gradients_of, parse_head, parse_rows
from fgtrac.score.factor_files import rows_path as path_of_rows
from fgtrac.store import durable
from fgtrac.store.tensor_files import open_tensors
from fgtrac.verify.report import Verdict

SHARD = 32  # rows: of 90 training rows, shards of 32, 32 and 26
FIRST, MIDDLE, LATE = "00000006/train-00001", "00000012/train-00002", "00000012/validation-00000"
MATRIX, SUMMED = "00000012/train-00002,ggn", "00000012/losses-validation-00000,ggn"
OTHERS = 20 + 15  # rows of validation and test


class Counting:
    """Cross-entropy that counts the rows of passes, not those of losses without gradients; `began` is their number when
    progress was first told, and `told` all of that."""

    def __init__(self, smoothing: float = 0.0) -> None:
        self.smoothing, self.rows, self.began = smoothing, 0, 0
        self.told: list[tuple[int, int]] = []

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.rows += len(targets) if outputs.requires_grad else 0
        return cross_entropy(outputs, targets, reduction="none", label_smoothing=self.smoothing)

    def progress(self, done: int, total: int) -> None:
        if not self.told:
            self.began = self.rows
        self.told.append((done, total))

    @property
    def passed(self) -> int:
        """Rows that the passes went over."""
        return self.rows - self.began


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that were killed with SIGKILL at each moment."""
    folder = tmp_path_factory.mktemp("killed")
    program = Path(__file__).with_name("killed_scoring.py")
    command = [sys.executable, str(program), str(folder), str(SHARD), FIRST, MIDDLE, LATE, MATRIX, SUMMED]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, timeout=600, stderr=subprocess.DEVNULL, env=environment)
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, bytes]]:
    """The files of a run that nothing disturbed."""
    known: dict[str, dict[str, bytes]] = {}

    def make(problem: Any, **options: Any) -> dict[str, bytes]:
        if str(options) not in known:
            other = type(problem)(tmp_path_factory.mktemp("undisturbed"))
            model = other.model()
            torch.manual_seed(1)
            with other.start(ids="public") as run:
                other.score_with(run, **options)
                other.fit(run, model)
            known[str(options)] = other.files()
        return known[str(options)]

    return make


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factor_passes, "shard_rows", lambda layers, dtype: SHARD)


def take(problem: Any, killed: Path, moment: str) -> Path:
    """The folder of factors of a killed run, copied."""
    shutil.copytree(killed / moment.replace("/", "-"), problem.folder, dirs_exist_ok=True)
    return Path(problem.folder / "run.trace/artifacts/scoring")


def again(problem: Any) -> Run:
    return reopen(problem.folder / "run", key=problem.folder / "key.pem")


def go_on(problem: Any, loss: Any = None, **options: Any) -> Counting:
    counting = loss or Counting()
    with again(problem) as run:
        problem.score_with(run, loss=counting, **options)
        run.score(problem.model(), progress=counting.progress)
    return counting


def notes(problem: Any) -> list[str]:
    """What verify notes about files, of a trace that holds."""
    trace = problem.trace
    report = audit_trace(trace, Signer.open(trace_id_of(trace), problem.folder / "key.pem").verifier)
    assert report.verdict is Verdict.HOLDS, report.failures()
    return [note for note in report.notes if "not named by any" in note]


def up_to(step: int, files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: data for path, data in files.items() if path.startswith("rows") or int(path[:8]) <= step}


def inodes(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_ino for p in folder.rglob("*.safetensors")}


# -- what fits is kept ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "missing", "kept"),
    [(FIRST, 32 + 26 + OTHERS, 1), (MIDDLE, 26 + OTHERS, 2), (LATE, OTHERS, 3)],
)
def test_only_shards_that_are_missing_are_made_and_all_bytes_are_those_of_an_undisturbed_run(
    killed: Path, problem: Any, undisturbed: Any, moment: str, missing: int, kept: int
) -> None:
    folder = take(problem, killed, moment)
    before, step = inodes(folder), int(moment[:8])
    counted = go_on(problem)
    assert counted.passed == missing + kept * SOME
    total = 125 * step // 6
    assert (counted.told[0], counted.told[-1]) == ((total - missing, total), (total, total))
    assert problem.files() == up_to(step, undisturbed(problem))
    after = inodes(folder)
    shards = [path for path in before if path.startswith(moment[:8]) and f"/losses-{path.split('/')[1]}" in str(before)]
    assert len(shards) == kept
    assert {path: after[path] for path in shards} == {path: before[path] for path in shards}
    assert notes(problem) == []
    assert go_on(problem).passed == 0
    assert len(Cache(problem.trace, problem.ledger.artifacts, problem.ledger.states).states) == step // 6


def test_a_resumed_run_goes_on_at_the_shard_too(killed: Path, problem: Any, undisturbed: Any) -> None:
    take(problem, killed, MIDDLE)
    counting = Counting()
    with problem.start(resume=True) as run:
        problem.score_with(run, loss=counting)
        run.score(problem.model(), progress=counting.progress)
    assert counting.passed == 26 + OTHERS + 2 * SOME
    assert problem.files() == up_to(12, undisturbed(problem))
    assert notes(problem) == []


def test_losses_are_read_across_shards(killed: Path, problem: Any) -> None:
    take(problem, killed, MIDDLE)
    go_on(problem)
    cache = Cache(problem.trace, problem.ledger.artifacts, problem.ledger.states)
    found, head = cache.losses(1, "train"), cache.rows("train")
    path = cache.states[1].folder + "/losses-train-00002.safetensors"
    last = open_tensors(problem.trace.plain(path)).tensors["losses"].array
    assert found.shape == (len(head),) == (90,)
    assert np.array_equal(found[64:], last)
    without = {p: d for p, d in problem.ledger.artifacts.items() if p != path}
    assert Cache(problem.trace, without, problem.ledger.states).losses(1, "train") is None


# -- what does not fit is made anew -----------------------------------------------------------------------------------


def rewrite(path: Path, change: Callable[[Any], Any], dtype: str = "float16") -> None:
    file = open_tensors(path)
    head = parse_head(file.metadata)
    gradients = gradients_of(file, head, slice(None))
    durable.write_file(path, encode_shard(change(head), gradients, dtype))


CHANGES: dict[str, Callable[[Path], Any]] = {
    "another learning rate": lambda shard: rewrite(shard, lambda head: replace(head, learning_rates=(0.05,))),
    "other rows": lambda shard: rewrite(shard, lambda head: replace(head, rows=bytes(32))),
    "another place": lambda shard: rewrite(shard, lambda head: replace(head, start=31, stop=63)),
    "another type": lambda shard: rewrite(shard, lambda head: head, "bfloat16"),
    "cut bytes": lambda shard: shard.write_bytes(shard.read_bytes()[:-1]),
    "cut losses": lambda shard: (beside := shard.with_name(f"losses-{shard.name}")).write_bytes(
        beside.read_bytes()[:-1]
    ),
    "fewer losses": lambda shard: shard.with_name(f"losses-{shard.name}").write_bytes(
        encode_losses(np.ones(31, np.float32))
    ),
    "no losses": lambda shard: shard.with_name(f"losses-{shard.name}").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_shard_of_something_else_is_made_anew(killed: Path, problem: Any, undisturbed: Any, change: str) -> None:
    folder = take(problem, killed, MIDDLE)
    (shard,) = folder.glob("00000012*/train-00001.safetensors")
    CHANGES[change](shard)
    counted = go_on(problem)
    assert counted.passed == 32 + 26 + OTHERS + SOME
    assert counted.told[-1] == (250, 250)
    assert problem.files() == up_to(12, undisturbed(problem))
    assert notes(problem) == []


def test_shards_of_another_loss_are_made_anew_while_no_entry_names_one(
    killed: Path, problem: Any, undisturbed: Any
) -> None:
    """Nothing in a shard names the loss: a few rows of each are tried."""
    take(problem, killed, FIRST)
    counted = go_on(problem, Counting(smoothing=0.2))
    first, second = counted.told[0][0], counted.told[1][0]
    assert second < first  # what was counted as done is not
    assert counted.told[-1][0] == counted.told[-1][1]
    smoothed = nn.CrossEntropyLoss(label_smoothing=0.2)
    assert problem.files() == up_to(6, undisturbed(problem, loss=smoothed))
    assert notes(problem) == []


def test_another_loss_than_that_of_named_factors_is_refused_and_what_was_left_stays(killed: Path, problem: Any) -> None:
    folder = take(problem, killed, MIDDLE)
    before = inodes(folder)
    with pytest.raises(ScoreError, match="are of another loss or forward: at step 6"):
        go_on(problem, Counting(smoothing=0.2))
    assert inodes(folder) == before


def test_a_rows_file_with_other_labels_is_made_anew(killed: Path, problem: Any, undisturbed: Any) -> None:
    folder = take(problem, killed, FIRST)
    (path,) = folder.glob("rows-train-*")
    rows = parse_rows(open_tensors(path))
    data = encode_rows(replace(rows, labels=(rows.labels + 1) % 3), "train")
    path.unlink()
    durable.write_file(problem.trace.path / path_of_rows("train", data), data)
    assert go_on(problem).passed == 32 + 26 + OTHERS + SOME
    assert problem.files() == up_to(6, undisturbed(problem))
    assert notes(problem) == []


def test_labels_of_a_rows_file_that_was_left_are_not_read_again(killed: Path, problem: Any) -> None:
    take(problem, killed, FIRST)
    seen = 0

    def forward(model: nn.Module, batch: Any) -> Any:
        nonlocal seen
        seen += len(batch[1])
        return model(batch[0]), batch[1]

    counted = go_on(problem, forward=forward)
    assert seen - counted.rows == SOME + 20 + 15  # of the training rows a few, of the others all: they had no file yet


# -- with the Gauss-Newton matrix -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("moment", "missing", "kept"), [(MATRIX, 90 + OTHERS, 0), (SUMMED, OTHERS, 3)])
def test_a_sum_over_all_rows_is_made_anew_unless_it_is_there(
    killed: Path, problem: Any, undisturbed: Any, moment: str, missing: int, kept: int
) -> None:
    take(problem, killed, moment)
    counted = go_on(problem, ggn=True)
    assert counted.passed == missing + kept * SOME
    assert counted.told[0] == (250 - missing, 250)
    assert problem.files() == up_to(12, undisturbed(problem, ggn=True))
    assert notes(problem) == []


def test_a_matrix_is_not_kept_where_one_of_its_shards_is_made_anew(
    killed: Path, problem: Any, undisturbed: Any
) -> None:
    folder = take(problem, killed, SUMMED)
    (shard,) = folder.glob("00000012*/train-00001.safetensors")
    shard.unlink()
    go_on(problem, ggn=True)
    assert problem.files() == up_to(12, undisturbed(problem, ggn=True))


# -- not going on, and failing ----------------------------------------------------------------------------------------


def interrupted(problem: Any, at: int) -> None:
    def interrupt(done: int, total: int) -> None:
        if done >= at:
            raise KeyboardInterrupt

    with again(problem) as run:
        problem.score_with(run)
        run.score(problem.model(), progress=interrupt)


def trained(problem: Any) -> None:
    model = problem.model()
    torch.manual_seed(1)
    with problem.start(ids="public") as run:
        for role, data in problem.data.items():
            run.register(data, role=role)
        problem.fit(run, model)


def test_an_interrupt_keeps_finished_shards_for_the_next_call(problem: Any, undisturbed: Any) -> None:
    trained(problem)
    with pytest.raises(KeyboardInterrupt):
        interrupted(problem, 125 + 90)
    left = [path for path in problem.files() if path.startswith("00000012")]
    assert [path.split("/")[1] for path in left] == [
        f"{what}-0000{part}.safetensors" for what in ("losses-train", "train") for part in (0, 1)
    ]
    (note,) = notes(problem)
    assert note.startswith("4 factor files (artifacts/scoring/00000012-")
    assert {e["path"] for e in problem.events("artifact")}.isdisjoint(f"artifacts/scoring/{path}" for path in left)
    assert go_on(problem).passed == 26 + OTHERS + 125 + 2 * SOME
    assert problem.files() == undisturbed(problem)
    assert notes(problem) == []


def test_a_killed_pass_that_is_never_gone_on_with_does_not_spoil_the_trace(killed: Path, problem: Any) -> None:
    folder = take(problem, killed, MIDDLE)
    before = inodes(folder)
    with again(problem):
        pass  # repaired and sealed
    (note,) = notes(problem)
    assert note.startswith("5 factor files (artifacts/scoring/00000012-")  # losses that lack their shard among them
    assert note.endswith("nothing is said about them; scoring again goes on from them")
    assert inodes(folder) == before
    assert [state.step for state in Cache(problem.trace, problem.ledger.artifacts, problem.ledger.states).states] == [6]


def test_what_was_left_of_a_state_or_role_that_is_not_scored_now_is_removed(killed: Path, problem: Any) -> None:
    folder = take(problem, killed, SUMMED)
    with again(problem) as run:
        run.score_with(loss=Counting(), train=problem.train)
        assert not list(folder.glob("00000012*/losses-validation*"))
        assert len(list(folder.glob("00000012*/train-*"))) == 3
    with problem.start(ids="public", resume=True, step=6) as run:
        problem.score_with(run)
        assert not list(folder.glob("00000012*"))
    assert notes(problem) == []


def test_a_full_disk_leaves_nothing_unnamed_of_what_a_killed_pass_had_left(
    killed: Path, problem: Any, undisturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(problem, killed, MIDDLE)
    rename = durable._rename

    def full(source: Path, target: Path) -> None:
        if target.name == "validation-00000.safetensors":
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(durable, "_rename", full)
    go_on(problem)
    assert [gap["reason"] for gap in problem.events("gap")] == ["factors could not be written"]
    assert not any(path.startswith("00000012") for path in problem.files())
    assert notes(problem) == []
    monkeypatch.setattr(durable, "_rename", rename)
    assert go_on(problem).passed == 125
    assert problem.files() == up_to(12, undisturbed(problem))


def test_the_time_left_follows_from_what_was_done_since_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter((0.0, 5.0, 15.0))
    show = TimeLeft(lambda: next(times))
    show(800, 1000)
    show(850, 1000)
    assert capsys.readouterr().err.endswith("scored 850 of 1,000 rows, about 30 s left ")
