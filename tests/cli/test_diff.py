"""`fgtrac diff`: where two trainings part, held against what was recorded; "cannot tell" where ids say nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import fgtrac
import traces
from fgtrac.api.difference import Difference, Pair
from fgtrac.events.codec import encode
from fgtrac.events.schema import ATTRIBUTION, STATUS
from fgtrac.store.vault import Vault
from lives import batch, keep_names, live
from traces import DATASET, TRACE_ID, Made, make_trace, start_trace


def written(folder: Path, batches: list[list[int]], *, scheme: str = "public", samples: int = 20, **said: Any) -> Made:
    """A trace with these batches, four an epoch, and `checkpoint`, `metrics` and other entries at their steps."""
    made, writing = start_trace(folder, samples=samples, scheme=scheme)
    for number, rows in enumerate(batches):
        writing.use(rows, epoch=number // 4)
        for kind, by_step in said.items():
            if writing.step in by_step:
                writing.recorder.record(kind, {"step": writing.step, **by_step[writing.step]})
    writing.end()
    made.seal()
    return made


def diff(a: Made, b: Made, **options: Any) -> Difference:
    return fgtrac.diff(a.trace.path, b.trace.path, **options)


def shuffled(seed: int, epochs: int = 3) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(20).tolist() for _ in range(epochs)]
    return [order[start : start + 5] for order in orders for start in range(0, 20, 5)]


# -- batches ----------------------------------------------------------------------------------------------------------


def test_steps_differ_exactly_where_their_samples_do(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    one = [generator.choice(20, 5, replace=False).tolist() for _ in range(200)]
    other = [
        rows if generator.random() < 0.9 else generator.choice(20, 5, replace=False).tolist() for rows in one[:180]
    ]
    other = [generator.permutation(rows).tolist() for rows in other]  # the order within a batch makes no difference
    found = diff(written(tmp_path / "a", one), written(tmp_path / "b", other)).batches
    differing = [step for step, (a, b) in enumerate(zip(one, other, strict=False), 1) if sorted(a) != sorted(b)]
    assert found is not None
    assert (found.steps_a, found.steps_b, found.compared) == (200, 180, 180)
    assert (found.differing, found.first_differing, found.cannot_tell) == (len(differing), differing[0], 0)


def test_the_same_data_in_another_order_is_said_to_be_that(tmp_path: Path) -> None:
    a, b = written(tmp_path / "a", shuffled(1)), written(tmp_path / "b", shuffled(2))
    found = diff(a, b)
    assert found.batches is not None
    assert (found.batches.first_differing, found.batches.same_uses, found.batches.is_other_order) == (1, True, True)
    assert (found.batches.epochs, found.batches.same_epochs) == (3, 3)
    assert "order: the same samples, each used equally often in both, in another order" in found.text()
    twice = diff(a, written(tmp_path / "c", [*shuffled(2)[:-1], shuffled(2)[0]]))
    assert twice.batches is not None
    assert (twice.batches.same_uses, twice.batches.is_other_order, twice.batches.same_epochs) == (False, False, 2)


def test_a_sample_that_is_named_twice_in_a_batch_is_another_batch(tmp_path: Path) -> None:
    found = diff(written(tmp_path / "a", [[0, 1]]), written(tmp_path / "b", [[0, 1, 1]]))
    assert found.batches is not None
    assert found.batches.differing == 1


def test_updates_that_a_resumed_run_went_back_behind_are_left_out(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path / "a")
    for rows in ([0], [1], [2]):
        writing.use(rows)
    writing.recorder.record("resume", {"writers": [], "step": 1})
    writing.step = 1
    for rows in ([7], [8]):
        writing.use(rows)
    writing.end()
    made.seal()
    found = diff(made, written(tmp_path / "b", [[0], [7], [8]]))
    assert found.batches is not None
    assert (found.batches.compared, found.batches.differing) == (3, 0)
    assert found.used is not None
    assert (found.used.both, found.used.only_a, found.used.named_only_a) == (
        3,
        2,
        tuple(sorted(found.used.named_only_a)),
    )


def test_a_batch_that_may_have_held_others_is_neither_the_same_nor_different(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path / "a")
    said = (0, 0, 1, STATUS["applied"], ATTRIBUTION["among"])
    writing.recorder.use(writing.placement, 1, 1, said, traces.array("I", [0, 1]))
    writing.recorder.flush()
    writing.end()
    made.seal()
    found = diff(made, written(tmp_path / "b", [[0, 1]]))
    assert found.batches is not None
    assert (found.batches.cannot_tell, found.batches.differing, found.batches.same_uses) == (1, 0, None)
    assert "cannot tell of 1 steps" in found.text()
    assert "the same samples in each" not in found.text()


# -- which samples are the same ---------------------------------------------------------------------------------------


@pytest.fixture
def other_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keyed traces made from here on have another secret."""
    monkeypatch.setattr(traces, "SECRET_SEED", b"another")


def test_samples_are_named_that_one_used_and_the_other_did_not(tmp_path: Path) -> None:
    a = written(tmp_path / "a", [[0, 1, 2]])
    keep_names(tmp_path / "a", a)
    found = diff(a, written(tmp_path / "b", [[0, 9]], samples=10))
    assert found.used is not None
    assert found.samples is not None
    assert (found.compared_by, found.samples.both, found.samples.only_a, found.samples.only_b) == ("id", 10, 10, 0)
    assert (found.used.both, set(found.used.named_only_a)) == (1, {"digits:1", "digits:2"})
    assert found.used.named_only_b == ("digits:9",)  # the other trace's vault knows it


def test_keyed_ids_of_one_secret_are_compared_as_they_are(tmp_path: Path) -> None:
    found = diff(*(written(tmp_path / name, [[0, 1]], scheme="keyed") for name in "ab"))
    assert (found.compared_by, found.cannot_tell.keys() & {"samples", "batches"}) == ("id", set())


def test_keyed_ids_of_two_secrets_say_nothing_without_vaults(tmp_path: Path, monkeypatch) -> None:
    a = written(tmp_path / "a", [[0, 1]], scheme="keyed")
    monkeypatch.setattr(traces, "SECRET_SEED", b"another")
    b = written(tmp_path / "b", [[0, 1]], scheme="keyed")
    found = diff(a, b)
    assert (found.compared_by, found.samples, found.used, found.batches) == (None, None, None, None)
    for section in ("samples", "used", "batches", "contributions", "suspects"):
        assert "put its vault beside it" in found.cannot_tell[section]
    words = found.text()
    assert "samples, contents, used, batches, contributions, suspects: cannot tell: the ids of" in words
    for claim in ("the same samples", "samples differ", "in both; none"):
        assert claim not in words
    keep_names(tmp_path / "a", a)
    assert str(b.trace.path) in diff(a, b).cannot_tell["samples"]
    keep_names(tmp_path / "b", b)
    told = diff(a, b)
    assert (told.compared_by, told.cannot_tell.keys() & {"samples", "batches"}) == ("name", set())
    assert told.batches is not None
    assert (told.batches.compared, told.batches.differing) == (1, 0)


def test_public_ids_are_held_against_names_of_a_vault(tmp_path: Path) -> None:
    a, b = written(tmp_path / "a", [[3, 4]]), written(tmp_path / "b", [[3, 5]], scheme="keyed")
    keep_names(tmp_path / "b", b)
    found = diff(a, b)
    assert found.used is not None
    assert (found.compared_by, found.used.both, found.used.only_a, found.used.only_b) == ("name", 1, 1, 1)


def test_a_sample_without_a_name_leaves_a_doubt_and_no_difference(tmp_path: Path) -> None:
    a, b = written(tmp_path / "a", [[3, 4], [5]]), written(tmp_path / "b", [[3, 4], [5]], scheme="keyed")
    vault = Vault.create(tmp_path / "b" / "run.vault", TRACE_ID)
    vault.put_names((sample, DATASET, encode(row), None) for row, sample in enumerate(b.ids) if row != 4)
    vault.close()
    found = diff(a, b)
    assert found.batches is not None
    assert found.samples is not None
    assert (found.batches.cannot_tell, found.batches.differing, found.batches.same_uses) == (1, 0, None)
    assert (found.samples.only_a, found.samples.nameless_a, found.samples.nameless_b) == (1, 0, 1)
    assert "1 in A alone" in found.text()
    assert "unless among the 1 of B that have no name any more" in found.text()


def test_what_stages_made_is_the_same_where_it_was_made_from_the_same(tmp_path: Path, monkeypatch) -> None:
    """Crops are named by their parents' ids, which are keyed too."""
    made = []
    for name in "ab":
        monkeypatch.setattr(traces, "SECRET_SEED", name.encode())
        one, writing = start_trace(tmp_path / name, scheme="keyed")
        crops = [hashlib.sha256(b"crop %d %b" % (n, name.encode())).digest() for n in range(3)]
        block = traces.block_id(b"".join(sorted(crops)))
        writing.recorder.record("dataset", {"name": "crops", "id_scheme": "keyed"})
        fields = {"dataset": "crops", "block": block, "part": 0, "parts": 1, "ids": b"".join(sorted(crops))}
        writing.recorder.record("samples", fields)
        batch(writing, 1, [0], 1)
        writing.end()
        one.seal()
        vault = Vault.create(tmp_path / name / "run.vault", TRACE_ID)
        vault.put_names((sample, DATASET, encode(row), None) for row, sample in enumerate(one.ids))
        parents = [[one.ids[n], one.ids[n + 1]] for n in range(2)] + [[crops[0]]]  # the last is of another crop
        keys = [encode(["crop", mine, n]) for n, mine in enumerate(parents)]
        vault.put_names(zip(crops, ["crops"] * 3, keys, [None] * 3, strict=True))
        vault.close()
        made.append(one)
    found = diff(*made)
    assert found.samples is not None
    assert (found.samples.both, found.samples.only_a, found.samples.only_b) == (23, 0, 0)
    assert found.samples.nameless_a == 0


def test_a_vault_of_another_trace_is_refused(tmp_path: Path, run) -> None:
    a, b = written(tmp_path / "a", [[0]]), written(tmp_path / "b", [[0]])
    Vault.create(tmp_path / "b" / "run.vault", bytes(16)).close()
    done = run("diff", a.trace.path, b.trace.path)
    assert (done.code, "belongs to trace" in done.err) == (1, True)


# -- settings, losses, checkpoints ------------------------------------------------------------------------------------


def test_losses_differ_most_where_it_is_said(tmp_path: Path) -> None:
    def said(losses: list[float], logged: list[float]) -> dict[str, Any]:
        states = {n: {"kept": True, "rule": "all", "val_loss": loss} for n, loss in enumerate(losses, 1)}
        return {"checkpoint": states, "metrics": {n: {"values": {"lr": v}} for n, v in enumerate(logged, 1)}}

    a = written(tmp_path / "a", shuffled(1), **said([3.0, 2.0, 1.0], [0.1, 0.1, 0.1]))
    b = written(tmp_path / "b", shuffled(1), **said([3.0, 2.5, 0.75, 7.0], [0.1, 0.1]))
    losses = diff(a, b).losses
    assert losses is not None
    assert [(one.name, one.compared, one.largest, one.step, one.a, one.b) for one in losses] == [
        ("validation loss", 3, 0.5, 2, 2.0, 2.5),
        ("lr", 2, 0.0, 1, 0.1, 0.1),
    ]


def test_metrics_that_are_not_finite_are_compared_and_are_json(tmp_path: Path, run) -> None:
    infinite = float("inf")
    a = written(tmp_path / "a", [[0], [1]], metrics={n: {"values": {"x": infinite, "y": infinite}} for n in (1, 2)})
    b = written(tmp_path / "b", [[0], [1]], metrics={n: {"values": {"x": infinite, "y": 1.0}} for n in (1, 2)})
    same, other = run("diff", a.trace.path, b.trace.path, "--json").json["losses"]
    assert (same["name"], same["largest"], same["a"]) == ("x", 0.0, "inf")
    assert (other["name"], other["largest"], other["step"], other["b"]) == ("y", "inf", 1, 1.0)


def test_checkpoints_are_bit_identical_by_their_digests_alone(tmp_path: Path) -> None:
    def states(*digests: bytes | None) -> dict[int, dict[str, Any]]:
        fields = ({} if digest is None else {"digest": digest} for digest in digests)
        return {n: {"kept": True, "rule": "all", **mine} for n, mine in enumerate(fields, 1)}

    one, other = bytes(32), bytes([1]) * 32
    a = written(tmp_path / "a", shuffled(1), checkpoint=states(one, one, one, None))
    b = written(tmp_path / "b", shuffled(1), checkpoint=states(one, other, one, one, one))
    found = diff(a, b).checkpoints
    assert found is not None
    assert (found.compared, found.identical, found.differing, found.first_differing) == (4, 2, 1, 2)
    assert (found.without_digest, found.only_a, found.only_b) == (1, 0, 1)


# -- real trainings ---------------------------------------------------------------------------------------------------


def train(path: Path, *, seed: int, rate: float = 0.1) -> Path:
    """A small training with keyed ids and scores; `seed` orders the batches."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(7)
    data = TensorDataset(torch.randn(48, 5, generator=generator), torch.randint(0, 3, (48,), generator=generator))
    held = TensorDataset(torch.randn(12, 5, generator=generator), torch.randint(0, 3, (12,), generator=generator))
    model = torch.nn.Linear(5, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    with fgtrac.start_run(path, config={"optimizer": {"lr": rate}, "seed": seed}) as run:
        order = torch.Generator().manual_seed(seed)
        run.register(data, role="train", name="train")
        loader = run.watch(DataLoader(data, 8, shuffle=True, generator=order))
        run.register(held, role="validation", name="held")
        run.score_with(loss=losses, train=data, validation=held)
        for _epoch in range(3):
            for inputs, labels in loader:
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(inputs), labels).backward()
                optimizer.step()
            with torch.no_grad():
                loss = torch.nn.functional.cross_entropy(model(held.tensors[0]), held.tensors[1]).item()
            run.checkpoint(model, optimizer, val_loss=loss)
    return path.with_suffix(".trace")


def settings_of(found: Difference) -> list[Pair]:
    """Without the commit, which may change while tests run."""
    return [pair for pair in found.settings if not pair.name.startswith("git_")]


def losses(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(outputs, targets, reduction="none")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FGTRAC_KEY", str(folder / "key.pem"))
        settings: dict[str, dict[str, Any]] = {"a": {}, "again": {}, "order": {"seed": 2}, "rate": {"rate": 0.5}}
        return {name: train(folder / name, **{"seed": 1} | said) for name, said in settings.items()}


def test_the_same_training_made_twice_is_the_same_throughout(trained: dict[str, Path]) -> None:
    found = fgtrac.diff(trained["a"], trained["again"])
    assert (settings_of(found), found.versions, found.datasets, found.stages) == ([], (), (), ())
    assert found.cannot_tell == {}
    assert found.contents is not None  # whose digests are keyed with two secrets
    assert (found.contents.equal, found.contents.differing, found.contents.cannot_tell) == (0, 0, 60)
    assert "samples of the same names in each of 18 steps" in found.text()
    assert "the same samples" not in found.text()
    assert found.compared_by == "name"  # each run has a secret of its own
    assert found.batches is not None
    assert (found.batches.compared, found.batches.differing, found.batches.same_epochs) == (18, 0, 3)
    assert found.checkpoints is not None
    assert (found.checkpoints.compared, found.checkpoints.identical) == (3, 3)
    assert found.losses is not None
    assert [(one.name, one.compared, one.largest) for one in found.losses] == [("validation loss", 3, 0.0)]
    assert found.contributions is not None
    assert [(one.method, one.samples, round(one.correlation or 0, 9)) for one in found.contributions] == [
        ("tracin", 48, 1.0)
    ]
    assert found.suspects is not None
    assert (found.suspects.listed, found.suspects.common) == (20, 20)


def test_another_order_parts_at_the_first_step_and_keeps_the_samples(trained: dict[str, Path]) -> None:
    found = fgtrac.diff(trained["a"], trained["order"], suspects=5)
    seed, state = settings_of(found)  # the states are keyed, and the vaults open them
    assert (seed.name, seed.a, seed.b) == ("config.seed", 1, 2)
    assert (state.name, state.a != state.b) == ("loader 1.state.generator", True)
    assert found.batches is not None
    assert (found.batches.first_differing, found.batches.is_other_order) == (1, True)
    assert found.checkpoints is not None
    assert (found.checkpoints.identical, found.checkpoints.first_differing) == (0, 6)
    assert found.contributions is not None
    assert -1 <= (found.contributions[0].correlation or 0) < 1
    assert found.suspects is not None
    assert found.suspects.listed == 5
    assert found.used is not None
    assert (found.used.both, found.used.only_a, found.used.only_b) == (48, 0, 0)


def test_the_rank_correlation_is_that_of_the_sums_over_the_checkpoints(trained: dict[str, Path]) -> None:
    sums = []
    for name in ("a", "rate"):
        trace = fgtrac.open(trained[name])
        said = {f"train:{row}": trace.history(f"train:{row}").as_json() for row in range(48)}
        sums.append([sum(_scores(history)) for _name, history in sorted(said.items())])
    ranks = [np.argsort(np.argsort(values)) for values in sums]
    found = fgtrac.diff(trained["a"], trained["rate"], suspects=0)
    assert found.contributions is not None
    assert found.contributions[0].correlation == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-6)
    assert [(pair.name, pair.a, pair.b) for pair in settings_of(found)] == [("config.optimizer.lr", 0.1, 0.5)]
    assert (found.suspects, found.cannot_tell) == (None, {"suspects": "none were asked for (--suspects 0)"})


def _scores(history: dict[str, Any]) -> list[float]:
    return [event["details"]["score"] for event in history["events"] if event["kind"] == "contribution"]


# -- the verb ---------------------------------------------------------------------------------------------------------


def test_the_verb_ends_with_0_whatever_differs(tmp_path: Path, run) -> None:
    a, b = make_trace(tmp_path / "a").trace.path, live(tmp_path / "b", vault=True).path
    done = run("diff", a, b)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"A {a}: trace ")
    said = run("diff", a, b, "--json").json
    assert said["batches"]["differing"] == 3
    assert (said["same_trace"], said["forked"]) == (False, True)  # the tests' traces have one id
    assert said["cannot_tell"].keys() == {"contributions", "suspects"}


def test_what_is_no_trace_or_was_never_sealed_is_said(tmp_path: Path, run) -> None:
    whole, open_ = make_trace(tmp_path / "a").trace.path, make_trace(tmp_path / "b", sealed=False).trace.path
    assert run("diff", whole, tmp_path / "none.trace").code == 2
    done = run("diff", whole, open_)
    assert (done.code, "run fgtrac seal" in done.err) == (2, True)
    assert run("diff", whole, whole, "--suspects", "-1").code == 2


def test_entries_that_are_not_the_heads_are_refused(tmp_path: Path, run) -> None:
    whole = make_trace(tmp_path / "a").trace.path
    forged = make_trace(tmp_path / "b").trace.path
    path = forged / "tile/entries/000.p/18"
    data = bytearray(path.read_bytes())
    data[data.rfind(b"ordinals") + 20] ^= 1
    path.write_bytes(bytes(data))
    done = run("diff", whole, forged)
    assert done.code == 1
    assert "is not the one that was sealed" in done.err
