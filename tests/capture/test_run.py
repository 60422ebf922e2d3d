"""The verbs of a run: what is registered, said and saved, and what is refused before anything is written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset

from fgtrac.api.run import Run, start_run
from fgtrac.errors import CaptureError
from fgtrac.events.codec import encode
from fgtrac.events.identity import key_commitment, preimage, public_id, subject_commitment
from fgtrac.store import durable
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault

Read = Callable[[Path], Any]


def numbers(count: int) -> TensorDataset:
    return TensorDataset(torch.arange(count))


def seen(path: Path) -> list[str]:
    return sorted(str(p.relative_to(path)) for p in path.rglob("*"))


# -- samples --------------------------------------------------------------------------------------------------------


def test_roles_name_each_sample_once(run: Run, log: Read) -> None:
    data = numbers(6)
    run.register(Subset(data, [4, 0, 4]), role="train")
    run.register(Subset(data, [5]), role="test")
    run.close()
    said = log(run.path)
    assert {e["role"]: sorted(said.keys(e["block"], e["ordinals"])) for e in said.kind("roles")} == {
        "train": [0, 4],
        "test": [5],
    }


def test_an_unknown_role_is_refused(run: Run) -> None:
    with pytest.raises(ValueError, match="'holdout' is none of train, validation, test, excluded"):
        run.register(numbers(2), role="holdout")


def test_public_ids_can_be_computed_by_anyone(tmp_path: Path, log: Read) -> None:
    with start_run(tmp_path / "open", ids="public", key=tmp_path / "key.pem") as run:
        run.register(numbers(3), name="digits", key=["a", b"b", ("c", 1)])
    said = log(run.path)
    assert set(said.names) == {public_id(preimage("digits", key)) for key in ("a", b"b", ("c", 1))}
    assert "key_commitment" not in said.events[0]


def test_a_keyed_run_commits_to_its_key(run: Run, log: Read) -> None:
    run.register(numbers(2))
    run.close()
    said = log(run.path)
    vault = Vault.open(run.path.with_suffix(".vault"), said.events[0]["trace"])
    assert said.events[0]["key_commitment"] == key_commitment(vault.secret("run"))
    vault.close()


def test_subjects_appear_as_commitments_only(run: Run, log: Read) -> None:
    run.register(numbers(4), subject=["ann", "bob", "ann", "cem"])
    run.close()
    said = log(run.path)
    (entry,) = said.kind("samples")
    vault = Vault.open(run.path.with_suffix(".vault"), said.events[0]["trace"])
    for place, sample in enumerate(said.blocks()[entry["block"]]):
        _, row, subject = said.names[sample]
        assert subject == ["ann", "bob", "ann", "cem"][row]
        secret = vault.find_secret(f"subject:{encode(subject).hex()}")
        assert secret is not None
        assert entry["subjects"][32 * place : 32 * place + 32] == subject_commitment(secret)
    vault.close()
    assert b"ann" not in b"".join(p.read_bytes() for p in run.path.rglob("*") if p.is_file())


def test_equal_contents_have_equal_digests_and_different_ids(run: Run, log: Read) -> None:
    run.register(TensorDataset(torch.tensor([[1, 2], [3, 4], [1, 2]])))
    run.close()
    (entry,) = log(run.path).kind("samples")
    digests = [entry["contents"][i : i + 32] for i in range(0, 96, 32)]
    assert len(set(digests)) == 2
    assert len(entry["ids"]) == 96


def test_contents_come_from_the_source_that_is_given(run: Run, log: Read) -> None:
    run.register(["x", "y"], name="texts", source=lambda row: b"same")
    run.register([1, 2], name="bare")
    run.close()
    said = log(run.path)
    texts, bare = said.kind("samples")
    assert texts["contents"][:32] == texts["contents"][32:]
    assert "contents" not in bare
    assert [e.get("content") for e in said.kind("dataset")] == ["source", None]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"key": ["a", "b", "a"]}, r"rows 0 and 2 both have the key 'a'"),
        ({"key": lambda row: 7}, r"rows \d and \d both have the key 7"),
        ({"key": ["a"]}, "1 values for 3 rows"),
        ({"key": "column"}, "no column_names"),
        ({"subject": ["a", "b"]}, "2 values for 3 rows"),
    ],
)
def test_keys_that_do_not_name_the_rows_are_refused_and_nothing_is_written(
    run: Run, options: dict[str, Any], words: str
) -> None:
    before = run._recorder.next_seq
    with pytest.raises(ValueError, match=words):
        run.register(numbers(3), **options)
    assert run._recorder.next_seq == before


def test_a_key_of_no_known_type_is_refused(run: Run) -> None:
    with pytest.raises(TypeError, match=r"1\.5 of type float is no key"):
        run.register(numbers(2), key=[1.5, 2.5])


def test_what_cannot_be_registered_is_refused_by_name(run: Run) -> None:
    with pytest.raises(ValueError, match="generator has no length"):
        run.register(i for i in range(3))
    with pytest.raises(ValueError, match="TensorDataset has 0 rows"):
        run.register(numbers(0))
    data = numbers(2)
    run.register(data, name="digits")
    with pytest.raises(ValueError, match="named 'digits' is registered already"):
        run.register(numbers(2), name="digits")
    with pytest.raises(ValueError, match="key= was given, but this data set is registered already"):
        run.register(data, key=[1, 2])
    with pytest.raises(ValueError, match="made of 2 data sets"):
        run.register(ConcatDataset([numbers(1), numbers(1)]), key=[1, 2])


def test_a_block_larger_than_an_entry_is_registered_in_parts(run: Run, log: Read) -> None:
    run.register(numbers(5000))
    run.close()
    said = log(run.path)
    parts = said.kind("samples")
    assert [(p["part"], p["parts"]) for p in parts] == [(n, len(parts)) for n in range(len(parts))]
    ((_, ids),) = said.blocks().items()
    assert ids == sorted(ids)
    assert {said.names[i][1] for i in ids} == set(range(5000))


# -- checkpoints ----------------------------------------------------------------------------------------------------


def test_checkpoints_are_kept_where_the_loss_fell(run: Run, log: Read) -> None:
    model = nn.Linear(2, 2)
    kept = [run.checkpoint(model, val_loss=loss, epoch=n) for n, loss in enumerate((1.0, 0.995, 0.98, 2.0))]
    run.close()
    assert kept == [True, False, True, False]
    said = log(run.path)
    checkpoints = said.kind("checkpoint")
    assert [(c["kept"], c["val_loss"], c["epoch"]) for c in checkpoints] == [
        (True, 1.0, 0), (False, 0.995, 1), (True, 0.98, 2), (False, 2.0, 3),
    ]  # fmt: skip
    assert checkpoints[1]["rule"] == "dropped: 0.995 is not 0.01 below 1"
    for entry in said.kind("artifact"):
        data = (run.path / entry["path"]).read_bytes()
        assert (hashlib.sha256(data).digest(), len(data)) == (entry["sha256"], entry["size"])
        assert torch.equal(load(data)["weight"], model.weight)
    assert [c["digest"] for c in checkpoints if c["kept"]] == [a["sha256"] for a in said.kind("artifact")]


def test_the_learning_rate_is_the_one_of_the_last_update(run: Run, log: Read) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    run.checkpoint(model, optimizer)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0 - epoch / 3)
    for (batch,) in run.watch(DataLoader(TensorDataset(torch.ones(3, 1)))):
        model(batch).sum().backward()
        optimizer.step()
        scheduler.step()
    run.checkpoint(model, optimizer)  # by now the scheduler has set 0
    run.close()
    rates = [c["learning_rates"].tolist() for c in log(run.path).kind("checkpoint")]
    assert rates == [[0.5], [pytest.approx(0.5 / 3)]]


def test_a_loss_that_is_no_number_is_refused(run: Run) -> None:
    with pytest.raises(ValueError, match="val_loss is nan"):
        run.checkpoint(nn.Linear(1, 1), val_loss=float("nan"))


def test_a_checkpoint_seals_what_it_rests_on(run: Run, log: Read) -> None:
    run.register(numbers(3))
    run.checkpoint(nn.Linear(1, 1))
    run._sealer.finish()  # beside the training thread
    kinds = [e["kind"] for e in log(run.path).events]
    assert kinds == ["run", "dataset", "samples", "artifact", "checkpoint"]


def refuse(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """Make the next rename to a file with that ending fail, as a full disk would."""
    rename = durable._rename
    left = [OSError(28, "No space left on device")]

    def fails_once(source: Path, target: Path) -> None:
        if target.name.endswith(ending) and left:
            raise left.pop()
        rename(source, target)

    monkeypatch.setattr(durable, "_rename", fails_once)


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (".safetensors", "a model state could not be written"),
        ("checkpoint", "the log could not be sealed at a checkpoint"),
    ],
)
def test_a_disk_full_at_a_checkpoint_is_said_and_training_goes_on(
    run: Run, log: Read, monkeypatch: pytest.MonkeyPatch, ending: str, reason: str
) -> None:
    refuse(monkeypatch, ending)
    assert run.checkpoint(nn.Linear(1, 1)) is (ending == "checkpoint")
    assert run.checkpoint(nn.Linear(1, 1))
    run.close()
    said = log(run.path)
    assert [(g["reason"], g["detail"]) for g in said.kind("gap")] == [(reason, "[Errno 28] No space left on device")]
    first, second = said.kind("checkpoint")
    assert (first["kept"], second["kept"]) == (ending == "checkpoint", True)
    assert len(said.kind("artifact")) == 1 + (ending == "checkpoint")


def test_a_disk_full_at_a_checkpoint_raises_in_strict_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start_run(tmp_path / "strict", key=tmp_path / "key.pem", strict=True)
    refuse(monkeypatch, ".safetensors")
    with pytest.raises(CaptureError, match="No space left on device"):
        run.checkpoint(nn.Linear(1, 1))
    with pytest.raises(CaptureError, match="No space left on device"):
        run.close()


# -- what the model said --------------------------------------------------------------------------------------------


def test_predictions_are_filed_by_sample(run: Run, log: Read) -> None:
    data = numbers(700)
    outputs = torch.arange(1400.0).reshape(700, 2)
    run.predictions(Subset(data, list(range(699, -1, -1))), outputs.flip(0), losses=torch.arange(700.0).flip(0))
    run.predictions(data, torch.ones(1, 2), positions=[5])
    run.close()
    said = log(run.path)
    *many, last = said.kind("prediction")
    for entry in many:
        keys = said.keys(entry["block"], entry["ordinals"])
        assert np.array_equal(entry["outputs"].reshape(-1, 2)[:, 0], 2 * np.array(keys))
        assert np.array_equal(entry["losses"], keys)
    assert sum(len(e["ordinals"]) for e in many) == 700
    assert said.keys(last["block"], last["ordinals"]) == [5]


def test_predictions_that_do_not_fit_are_refused(run: Run) -> None:
    with pytest.raises(ValueError, match="2 outputs for 3 samples"):
        run.predictions(numbers(3), torch.ones(2, 1))
    with pytest.raises(ValueError, match="20,000 outputs a sample"):
        run.predictions(numbers(1), torch.ones(1, 20_000))


@pytest.mark.parametrize("position", [99, 3, -1])
def test_predictions_about_positions_that_the_data_lacks_are_refused(run: Run, log: Read, position: int) -> None:
    with pytest.raises(ValueError, match=f"got position {position}; positions are 0 to 2"):
        run.predictions(numbers(3), torch.ones(2, 1), positions=[0, position])
    run.close()
    assert log(run.path).kind("prediction") == []


def test_predictions_about_no_samples_record_nothing(run: Run, log: Read) -> None:
    run.predictions(numbers(3), torch.ones(0, 2), positions=[])
    run.predictions(numbers(3), torch.ones(0), positions=[], losses=torch.ones(0))
    run.close()
    assert log(run.path).kind("prediction") == []


def test_losses_are_filed_with_their_samples(run: Run, log: Read) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = TensorDataset(torch.arange(7.0).reshape(7, 1))
    truth = {}
    for number, (batch,) in enumerate(run.watch(DataLoader(data, batch_size=2, shuffle=True))):
        optimizer.zero_grad()
        each = model(batch).square().reshape(-1)
        if number != 2:
            run.losses(each)
            truth |= dict(zip(batch.reshape(-1).int().tolist(), each.detach().half().tolist(), strict=True))
        each.mean().backward()
        optimizer.step()
    with pytest.raises(ValueError, match="5 values for a batch of 1"):
        run.losses(torch.ones(5))
    run.close()
    uses = log(run.path).uses()
    assert {u.key: u.loss for u in uses if u.loss is not None} == truth
    assert sorted(u.batch for u in uses if u.loss is None) == [2, 2]


def test_metrics_are_said_of_the_present_step(run: Run, log: Read) -> None:
    run.log(loss=torch.tensor(0.5), seen=3)
    run.log(step=9, accuracy=1.0)
    run.close()
    assert [(m["step"], m["values"]) for m in log(run.path).kind("metrics")] == [
        (0, {"loss": 0.5, "seen": 3}),
        (9, {"accuracy": 1.0}),
    ]


def test_metrics_that_are_not_finite_are_left_out_with_a_warning(run: Run, log: Read) -> None:
    with pytest.warns(RuntimeWarning, match=r"left out loss=nan, norm=inf; only finite"):
        run.log(loss=float("nan"), norm=torch.tensor(float("inf")), seen=3)
    with pytest.warns(RuntimeWarning, match=r"left out loss=-inf;"):
        run.log(loss=float("-inf"))
    run.close()
    assert [m["values"] for m in log(run.path).kind("metrics")] == [{"seen": 3}]


def test_integers_of_numpy_and_torch_are_steps_epochs_and_metrics(run: Run, log: Read) -> None:
    run.log(step=np.int64(7), seen=np.uint8(3), good=True)
    run.checkpoint(nn.Linear(1, 1), epoch=torch.tensor(4))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="float"):
        run.log(step=1.5, seen=3)  # type: ignore[arg-type]
    run.close()
    said = log(run.path)
    assert [(m["step"], m["values"]) for m in said.kind("metrics")] == [(7, {"seen": 3, "good": 1})]
    assert [c["epoch"] for c in said.kind("checkpoint")] == [4]


# -- beginning and ending -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ids": "secret"}, "'secret' is no id scheme"),
        ({"config": {"text": "x" * 70_000}}, "and the most is 65,535"),
        ({"config": {"where": Path("/")}}, "config cannot be recorded"),
        ({"keep": "improved:2"}, r"keep='improved:2' is no rule"),
        ({"step": -1}, "step=-1"),
    ],
)
def test_bad_arguments_leave_nothing_behind(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        start_run(tmp_path / "run", key=tmp_path / "key.pem", **options)
    assert seen(tmp_path) == []


def test_an_existing_trace_or_vault_is_not_written_over(tmp_path: Path) -> None:
    start_run(tmp_path / "run", key=tmp_path / "key.pem").close()
    before = seen(tmp_path)
    with pytest.raises(FileExistsError, match=r"run\.trace exists already"):
        start_run(tmp_path / "run", key=tmp_path / "key.pem")
    (tmp_path / "other.vault").touch()
    with pytest.raises(FileExistsError, match=r"other\.vault exists, but its trace does not"):
        start_run(tmp_path / "other", key=tmp_path / "key.pem")
    assert seen(tmp_path) == sorted([*before, "other.vault"])


def test_only_a_run_that_finished_says_so(tmp_path: Path, log: Read) -> None:
    with start_run(tmp_path / "whole", key=tmp_path / "key.pem") as whole:
        whole.log(loss=1.0)
    broken = start_run(tmp_path / "broken", key=tmp_path / "key.pem")
    broken.log(loss=1.0)
    broken.__exit__(KeyError, KeyError("the user's"), None)
    assert [e["kind"] for e in log(whole.path).events] == ["run", "metrics", "end", "seal"]
    assert [e["kind"] for e in log(broken.path).events] == ["run", "metrics", "seal"]


def test_a_closed_run_records_nothing_more(run: Run) -> None:
    run.close()
    run.close()
    with pytest.raises(CaptureError, match="this run is closed"):
        run.log(loss=1.0)


def test_somebody_else_sealing_at_a_checkpoint_loses_nothing(run: Run, log: Read) -> None:
    run.register(numbers(3))
    with durable.lock(run._signer.lock_path, "the trace"):
        run.checkpoint(nn.Linear(1, 1))
        run._sealer.finish()
        assert TraceDir.open(run.path).head() is None
    run.close()
    kinds = [e["kind"] for e in log(run.path).events]
    assert "gap" not in kinds
    assert kinds[-2:] == ["end", "seal"]
