"""Whoever is erased, in whatever order: no file that is left has a row of theirs, and the check finds one that has."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import fgtrac
from fgtrac.api.run import start_run
from fgtrac.commit.keys import load_key
from fgtrac.demo.forge import all_entries, reseal
from fgtrac.errors import ScoreError
from fgtrac.events.schema import decode_event, encode_event
from fgtrac.score import factor_files
from fgtrac.score.factor_files import FOLDER
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.report import Finding, Verdict

PEOPLE = ("ann", "bob", "cleo", "dan")
ROWS = 600  # three shards of 256 rows at most
OF = {"ann": slice(0, 200), "bob": slice(200, 300), "cleo": slice(300, 599), "dan": slice(599, 600)}


def data() -> TensorDataset:
    inputs = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(1))
    return TensorDataset(inputs, inputs[:, :3].argmax(1))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All four have training rows, in one list and three shards; bob and dan have validation rows too."""
    folder, train = tmp_path_factory.mktemp("orders"), data()
    subjects = [next(name for name, rows in OF.items() if row in range(ROWS)[rows]) for row in range(ROWS)]
    validation = torch.utils.data.Subset(train, [*range(250, 260), 599])
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    small = patch.object(factor_files, "SHARD_BYTES", 1)
    with small, start_run(folder / "run", key=folder / "key.pem", keep="all") as run:
        run.register(train, name="people", subject=subjects, role="train")
        run.score_with(loss=nn.CrossEntropyLoss(), train=train, validation=validation)
        for inputs, targets in run.watch(DataLoader(train, batch_size=300)):
            optimizer.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        run.checkpoint(model, optimizer, val_loss=1.0)
    fgtrac.open(folder / "run.trace", key=str(folder / "key.pem")).record("class:1", key=folder / "key.pem")
    return folder / "run.trace"


@pytest.fixture
def trace(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(recorded.parent, tmp_path / "copy")
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "copy" / "key.pem"))
    return tmp_path / "copy" / "run.trace"


def with_rows_of(trace: Path, *names: str) -> set[str]:
    """The files that hold an input of these people, as float16 or float32: a shard is made of raw inputs."""
    inputs = data().tensors[0].numpy()
    rows = [row for name in names for row in inputs[OF[name]][::9]]
    words = {row.astype(kind).tobytes() for row in rows for kind in (np.float16, np.float32)}
    files = [p for p in trace.rglob("*") if p.is_file()]
    return {str(p.relative_to(trace)) for p in files if any(word in p.read_bytes() for word in words)}


def erased_rows(trace: Path) -> Finding:
    (found,) = [f for f in fgtrac.open(trace).verify().findings if f.check == "erased-rows"]
    return found


def test_in_every_order_nothing_of_the_erased_is_left(trace: Path, tmp_path: Path) -> None:
    assert all(with_rows_of(trace, name) for name in PEOPLE)
    orders = [PEOPLE[n:] + PEOPLE[:n] for n in range(len(PEOPLE))] + [PEOPLE[::-1]]
    for number, order in enumerate(orders):
        folder = shutil.copytree(trace.parent, tmp_path / str(number))
        for place, subject in enumerate(order, 1):
            fgtrac.erase(folder / "run.trace", subject=subject, key=folder / "key.pem")
            assert with_rows_of(folder / "run.trace", *order[:place]) == set(), order[:place]
        report = fgtrac.open(folder / "run.trace").verify()
        assert {f.check for f in report.failures()} == {"artifacts", "contributions"}  # which files are withdrawn from
        assert report.verdict is Verdict.CANNOT_TELL


def test_files_that_a_killed_scoring_left_without_an_entry_go_too(trace: Path) -> None:
    shard = min(trace.glob(f"{FOLDER}/*/train-00000.safetensors"))
    stray = shutil.copy(shard, shard.with_name("train-00009.safetensors"))
    (done,) = fgtrac.erase(trace, subject="ann")
    assert str(stray.relative_to(trace)) in done.artifacts
    assert with_rows_of(trace, "ann") == set()
    (files,) = [f for f in fgtrac.open(trace).verify().findings if f.check == "files"]
    assert files.verdict is Verdict.HOLDS


def test_what_was_opened_before_an_erasure_adds_no_gradients_after_it(trace: Path) -> None:
    opened = fgtrac.open(trace)
    assert opened.explain("class:1")  # its factors are mapped, and stay readable here
    fgtrac.erase(trace, subject="ann")
    with pytest.raises(ScoreError, match=r"was withdrawn from .* since it was opened here; open it again"):
        opened.record("class:1", key=trace.parent / "key.pem")
    assert not list(trace.glob("artifacts/targets/*"))


def forge(trace: Path, kept: str) -> None:
    """Erase ann, but keep the files whose path has this in it, and say nothing of them."""
    before = {p: p.read_bytes() for p in trace.glob("artifacts/**/*") if p.is_file()}
    fgtrac.erase(trace, subject="ann")
    entries = all_entries(TraceDir.open(trace))
    for number, event in enumerate(map(decode_event, entries)):
        if event["kind"] == "erasure":
            left = [path for path in event["artifacts"] if kept not in path]
            for path in set(event["artifacts"]) - set(left):
                (trace / path).parent.mkdir(parents=True, exist_ok=True)
                (trace / path).write_bytes(before[trace / path])
            entries[number] = encode_event(event | {"artifacts": left})
    reseal(TraceDir.open(trace), entries, load_key(trace.parent / "key.pem"))


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ("/rows-train-", "holds rows of an erased subject: 200 samples that entry"),
        ("/train-0000", "may hold rows of an erased subject: the list that says whose they are is not there any more"),
        ("/targets/", "may hold gradients of an erased subject: it is older than entry"),
    ],
)
def test_a_file_that_should_have_been_withdrawn_is_found(trace: Path, kept: str, words: str) -> None:
    forge(trace, kept)
    found = erased_rows(trace)
    assert found.verdict is Verdict.REFUTED
    assert words in found.words
    assert kept in found.words
