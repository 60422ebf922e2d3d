"""Replay: what cannot be drawn again is named, and what an announcement must say."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    RandomSampler,
    Sampler,
    WeightedRandomSampler,
)

from fgtrac.api.audit import audit_trace
from fgtrac.errors import FormatError
from fgtrac.events.codec import encode
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from replays import (
    CANNOT_TELL,
    DATA,
    HOLDS,
    REFUTED,
    ROWS,
    Batches,
    Event,
    Options,
    begin,
    exchange_a_sample,
    identity,
    lie,
    remove_a_sample,
    replayed,
    report,
    rewrite,
    train,
)
from traces import make_trace


class Backwards(Sampler[int]):
    """A sampler that nobody knows."""

    def __len__(self) -> int:
        return ROWS

    def __iter__(self) -> Iterator[int]:
        return iter(range(ROWS - 1, -1, -1))


class Shifted(RandomSampler):
    """Looks like torch's own, and is not."""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 8, "sampler": Backwards()}, r"is '.*\.Backwards', whose order cannot be drawn again"),
        ({"batch_size": 8, "sampler": Shifted(DATA)}, r"is '.*\.Shifted'"),
        ({"batch_sampler": [[1, 2], [3]]}, r"is 'builtins\.list'"),
        ({"batch_size": 8, "num_workers": 2, "in_order": False}, r"in_order=False"),
    ],
    ids=["sampler", "subclass", "batch sampler", "out of order"],
)
def test_what_cannot_be_drawn_again_is_named(tmp_path: Path, options: Options, words: str) -> None:
    with begin(tmp_path) as run:
        train(run.watch(DataLoader(DATA, **options), role="train"), epochs=1)
    found = replayed(tmp_path)
    assert found.verdict is CANNOT_TELL
    assert re.search(words, found.words), found.words


def test_a_loader_of_another_kind_is_unknown(tmp_path: Path) -> None:
    class Ahead(torch.utils.data.dataloader._SingleProcessDataLoaderIter):
        """Could go forward as it likes."""

    class Loader(DataLoader[Any]):
        def _get_iterator(self) -> Any:
            return Ahead(self)

    Loader.__qualname__ = "Loader"
    with begin(tmp_path) as run:
        train(run.watch(Loader(DATA, batch_size=8), role="train"), epochs=1)
    assert replayed(tmp_path).verdict is CANNOT_TELL
    assert "Loader', whose order cannot be drawn again" in replayed(tmp_path).words


def test_a_generator_that_others_use_in_between_refutes_nothing(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    loader = DataLoader(DATA, batch_size=8, sampler=RandomSampler(DATA, True, 96, generator=generator))
    with begin(tmp_path) as run:
        for number, _batch in enumerate(run.watch(loader, role="train")):
            if number == 5:
                torch.rand(3, generator=generator)
    found = replayed(tmp_path)
    assert found.verdict is CANNOT_TELL
    assert "others may have drawn from it in between" in found.words
    lie(tmp_path, remove_a_sample)  # of batch 4: the generator was asked for the first 32 samples at once
    assert replayed(tmp_path).verdict is CANNOT_TELL
    lie(tmp_path, exchange_a_sample)  # of batch 3
    assert replayed(tmp_path).verdict is REFUTED


def test_a_batch_that_could_not_be_read_is_said_and_not_taken_for_left_out(tmp_path: Path) -> None:
    class Torn(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return ROWS

        def __getitem__(self, row: int) -> int:
            if row == 17:
                raise OSError("row 17 is unreadable")
            return row

    for workers in (0, 2):
        (folder := tmp_path / str(workers)).mkdir()
        with begin(folder) as run:
            batches = iter(run.watch(DataLoader(Torn(), batch_size=8, num_workers=workers), role="train"))
            for number in range(5):
                if number == 2:
                    with pytest.raises(OSError, match="unreadable"):
                        next(batches)
                else:
                    next(batches)
        found = replayed(folder)
        assert found.verdict is CANNOT_TELL
        assert "says that batch 2 of its order never reached the loop" in found.words
        assert "never delivered" not in found.words
        lie(folder, exchange_a_sample_of_four)
        assert replayed(folder).verdict is REFUTED


def exchange_a_sample_of_four(batches: Batches) -> None:
    batches[3][1][0] = batches[0][1][0]


def test_another_release_of_torch_is_not_trusted_to_draw_the_same(shuffled: Path) -> None:
    rewrite(shuffled, "sampler", lambda e: e | {"parameters": e["parameters"] | {"torch": "1.13.1"}})
    found = replayed(shuffled)
    assert found.verdict is CANNOT_TELL
    assert f"recorded with torch 1.13.1, and torch {torch.__version__} may draw another order" in found.words


def test_weights_drawn_on_another_kind_of_machine_are_not_drawn_again(tmp_path: Path) -> None:
    with begin(tmp_path) as run:
        loader = DataLoader(DATA, batch_size=8, sampler=WeightedRandomSampler([1.0] * ROWS, 16))
        train(run.watch(loader, role="train"), epochs=1)
    rewrite(tmp_path, "sampler", lambda e: e | {"parameters": e["parameters"] | {"machine": "vax"}})
    assert "its weights were drawn on vax" in replayed(tmp_path).words


def test_without_torch_nobody_can_tell(shuffled: Path) -> None:
    trace = TraceDir.open(shuffled / "run.trace")
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from fgtrac.api.audit import audit_trace\n"
        "from fgtrac.api.replay import replay_demand\n"
        "from fgtrac.store.trace_dir import TraceDir\n"
        "path, identity = Path(sys.argv[1]), bytes.fromhex(sys.argv[2])\n"
        "found = audit_trace(TraceDir.open(path), None, demands=[replay_demand(path, identity)]).findings[-1]\n"
        "print(found.check, found.verdict, found.words)"
    )
    command = [sys.executable, "-c", program, str(trace.path), identity(trace).hex()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "samplers cannot tell" in done.stdout
    assert "torch is not installed here; install fgtrac[torch]" in done.stdout


def test_public_ids_need_no_vault_and_keyed_ids_do(tmp_path: Path) -> None:
    for ids in ("public", "keyed"):
        (folder := tmp_path / ids).mkdir()
        with begin(folder, ids=ids) as run:
            sampler = WeightedRandomSampler([1.0, 2.0] * 20, 30)
            train(run.watch(DataLoader(DATA, batch_size=8, sampler=sampler), role="train"))
        assert replayed(folder).verdict is HOLDS
        (folder / "run.vault").rename(folder / "elsewhere")
        assert replayed(folder, folder / "elsewhere").verdict is HOLDS
        found = replayed(folder)
        assert found.verdict is (HOLDS if ids == "public" else CANNOT_TELL)
    assert "commits to its state, which a vault opens: there is no vault at" in found.words
    with pytest.raises(FileNotFoundError, match="no vault at"):
        replayed(folder, folder / "nowhere")
    (folder / "run.vault").write_bytes(b"no vault")
    assert replayed(folder).verdict is CANNOT_TELL
    with pytest.raises(FormatError, match="is no vault"):
        replayed(folder, folder / "run.vault")


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        (
            "DELETE FROM openings WHERE what LIKE 'sampler/%'",
            "no opening of entry 4: it was erased, or its process",
        ),
        ("DELETE FROM openings WHERE what LIKE 'placement/%'", "where its positions lead (SHA-256 "),
        ("UPDATE openings SET opening = x'00' WHERE what LIKE 'sampler/%'", "is not what was committed to"),
        ("UPDATE openings SET opening = x'00' WHERE what LIKE 'placement/%'", "is in no artifact and in no vault"),
    ],
)
def test_an_opening_that_is_gone_or_another_one_is_named(tmp_path: Path, sql: str, words: str) -> None:
    with begin(tmp_path) as run:
        train(run.watch(DataLoader(DATA, batch_size=8, shuffle=True), role="train"))
    trace = TraceDir.open(tmp_path / "run.trace")
    vault = Vault.open(tmp_path / "run.vault", identity(trace), read_only=False)
    with vault._db:
        vault._db.execute(sql)
    vault.close()
    found = replayed(tmp_path)
    assert found.verdict is CANNOT_TELL
    assert words in found.words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state": b"\xff"}, "the state that entry 5 announces is malformed"),
        ({"state": b"\xa0"}, "does not name where its positions lead"),
        ({"state": encode({"placement": [1]})}, "does not name where its positions lead"),
        ({"state": encode({"placement": np.zeros(4, "<u4")})}, "does not name where its positions lead"),
        ({"state": encode([1])}, "does not say what its order comes from"),
        ({"parameters": {}}, "has rows = None, which cannot be drawn again"),
        ({"sampler": "SubsetRandomSampler"}, "does not name what its sampler draws from"),
    ],
)
def test_an_announcement_that_makes_no_sense_is_said_to(shuffled: Path, change: Event, words: str) -> None:
    rewrite(shuffled, "sampler", lambda event: event | change)
    found = replayed(shuffled)
    assert found.verdict is CANNOT_TELL
    assert words in found.words


@pytest.mark.parametrize(
    "said",
    [
        {"rows": 1 << 32}, {"num_samples": 1 << 40}, {"num_samples": 0}, {"batch_size": 0}, {"replacement": 1},
        {"rows": -1}, {"generator": "mine"}, {"drop_last": "no"}, {"generator": np.zeros(4, "<u4")},
        {"torch": np.zeros(4, "<u4")}, {"rows": 1, "num_samples": 1 << 26}, {"rows": 2**40, "num_samples": 8},
    ],
)  # fmt: skip
def test_sizes_and_types_are_checked_before_anything_is_drawn(shuffled: Path, said: Event) -> None:
    rewrite(shuffled, "sampler", lambda e: e | {"parameters": e["parameters"] | said})
    assert replayed(shuffled).verdict is CANNOT_TELL


def test_a_trace_without_announcements_has_nothing_to_replay(tmp_path: Path) -> None:
    make_trace(tmp_path)
    found = replayed(tmp_path)
    assert found.verdict is CANNOT_TELL
    assert "no sampler entry announces the order of an epoch" in found.words


def test_a_verification_without_replay_says_what_it_left_out(shuffled: Path) -> None:
    notes = audit_trace(TraceDir.open(shuffled / "run.trace"), None).notes
    assert [note for note in notes if "the order of 2 epochs was not drawn again; --replay" in note]
    assert not [note for note in report(shuffled).notes if "--replay" in note]
