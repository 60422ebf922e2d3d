"""`fgtrac verify --replay`: verdicts and exit codes, and what is said without it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

from fgtrac.api.run import start_run
from fgtrac.commit.signer import load_key
from fgtrac.demo.forge import all_entries, reseal
from fgtrac.events.schema import decode_event, encode_event
from fgtrac.store.trace_dir import TraceDir


def record(folder: Path, stop: int | None = None) -> Path:
    data = TensorDataset(torch.randn(12, 2))
    with start_run(folder / "run", key=folder / "key.pem") as run:
        for number, _batch in enumerate(run.watch(DataLoader(data, batch_size=4, shuffle=True), role="train")):
            if number == stop:
                break
    return run.path


def verdict(done) -> tuple[str, str]:
    found = next(f for f in done.json["findings"] if f["check"] == "samplers")
    return found["verdict"], found["words"]


def test_an_order_that_was_kept_holds_and_one_that_was_not_is_refuted(tmp_path: Path, run) -> None:
    path, key = record(tmp_path), tmp_path / "key.pem"
    done = run("verify", path, "--key", key, "--replay", "--json")
    assert (done.code, verdict(done)[0]) == (0, "holds")
    elsewhere = path.with_suffix(".vault").rename(tmp_path / "moved")
    assert run("verify", path, "--key", key, "--replay").code == 3
    assert run("verify", path, "--key", key, "--replay", "--vault", elsewhere).code == 0
    trace = TraceDir.open(path)
    events = [decode_event(entry) for entry in all_entries(trace)]
    (use,) = [e for e in events if e["kind"] == "use"]
    use["ordinals"] = use["ordinals"][::-1].copy()
    reseal(trace, [encode_event(e) for e in events], load_key(key))
    done = run("verify", path, "--key", key, "--replay", "--vault", elsewhere, "--json")
    assert (done.code, verdict(done)[0]) == (1, "refuted")
    assert "loader 1, epoch 0, batch 0, entry" in verdict(done)[1]
    assert run("verify", path, "--key", key).code == 0  # who does not ask does not learn it, and is told so
    assert "the order of 1 epoch was not drawn again; --replay" in run("verify", path, "--key", key).out


def test_an_epoch_that_ended_early_ends_with_cannot_tell(tmp_path: Path, run) -> None:
    done = run("verify", record(tmp_path, stop=0), "--key", tmp_path / "key.pem", "--replay", "--json")
    assert (done.code, verdict(done)[0]) == (3, "cannot tell")
    assert "its last 2 of 3 batches were never delivered, or left out" in verdict(done)[1]


def test_a_bundle_is_not_replayed(tmp_path: Path, run) -> None:
    (tmp_path / "bundle").write_text("{}")
    done = run("verify", tmp_path / "bundle", "--replay")
    assert done.code == 2
    assert "--replay belongs to a trace" in done.err
