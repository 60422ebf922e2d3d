"""The check `scores`: chosen contributions computed again down to model and data; each way to be wrong, and what cannot
be told."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Subset, TensorDataset

import fgtrac
from fgtrac.api import remaking, rescore, rescore_units
from fgtrac.api.factor_tolerance import differences
from fgtrac.api.recompute import Recomputation
from fgtrac.api.rescore import scores_demand
from fgtrac.api.trace import open_for_verification
from fgtrac.capture.checkpoint import state_bytes
from fgtrac.demo.forge import all_entries, put, reseal
from fgtrac.events.schema import decode_event, encode_event
from fgtrac.score.gradients import Gradients, Layer
from fgtrac.score.kernel import scores
from fgtrac.score.methods import prepare
from fgtrac.store.tensor_files import encode_tensors, parse_tensors
from fgtrac.verify.auditor import audit_log
from fgtrac.verify.report import Finding, Verdict
from findings import assert_cannot_tell
from forge_factors import factor_files, invent_factors_and_sign, put_artifacts, with_other_signs

from .conftest import points

ALL = 10_000  # more scores than there are
Function = Callable[[Any], Any]


def given(problem: Any, **options: Any) -> Function:
    """What the verifier's own file would hold: the data and the model."""

    def again(run: Any) -> nn.Module:
        problem.score_with(run, **options)
        return problem.model()

    return again


def asked(problem: Any, function: Function | None, *, count: int = ALL, seed: int | None = 1) -> Finding:
    """What the check says."""
    trace = open_for_verification(problem.folder / "run.trace", key=str(problem.folder / "key.pem"))
    (finding,) = [
        f for f in trace.verify(demands=[scores_demand(count, seed, function)]).findings if f.check == "scores"
    ]
    assert "\n" not in finding.words
    return finding


@pytest.fixture
def forged(scored: Any, tmp_path: Path) -> Any:
    """A copy of the trace with its vault and key, to be lied about."""
    shutil.copytree(scored.folder, tmp_path / "forged")
    return replace(scored, folder=tmp_path / "forged")


def resigned(problem: Any, files: dict[str, bytes], change: Callable[[dict[str, Any]], dict[str, Any]] = dict) -> None:
    """The signer replaces files and changes contribution entries, and signs all of it anew."""
    entries = put_artifacts(problem.trace, all_entries(problem.trace), files)
    for number, entry in enumerate(entries):
        if (event := decode_event(entry))["kind"] == "contribution":
            entries[number] = encode_event(change(event))
    reseal(problem.trace, entries, problem.signing_key)


# -- what holds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ""),
        ({"dtype": "bfloat16", "layer": "all", "method": "tracin-cos"}, ""),
        ({"dtype": "float32", "layer": ["0"], "method": "fisher"}, "curvature of fisher 0.1 was taken from"),
        ({"method": "ekfac", "ids": "public"}, "curvature of ekfac 0.3 was taken from"),
    ],
    ids=lambda options: str(options),
)
def test_honest_scores_hold_down_to_model_and_data(problem: Any, options: dict[str, Any], words: str) -> None:
    how = dict(options)
    with problem.start(ids=how.pop("ids", "keyed")) as run:
        problem.score_with(run, **how)
        problem.fit(run, problem.model())
    finding = asked(problem, given(problem))
    assert finding.verdict is Verdict.HOLDS, finding.words
    assert (
        "270 of 270 scores, chosen by seed 1, follow from the committed factors; and 330 of these, at 3 mo"
        in finding.words
    )
    assert "; the mean is of all 20 validation samples that were given" in finding.words
    assert words in finding.words


def test_another_thread_count_and_batch_size_are_rounding(scored: Any) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        finding = asked(scored, given(scored, batch_size=7), count=20)
    finally:
        torch.set_num_threads(threads)
    assert finding.verdict is Verdict.HOLDS, finding.words


def test_rows_are_made_in_pieces_and_told(forged: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remaking, "NUMBERS_AT_ONCE", 1)  # so that a piece has the fewest rows that it may
    path = str(forged.folder / "key.pem")
    told: list[tuple[int, int]] = []
    demand = scores_demand(ALL, 1, given(forged), lambda done, total: told.append((done, total)))
    report = open_for_verification(forged.folder / "run.trace", key=path).verify(demands=[demand])
    assert [f.verdict for f in report.findings if f.check == "scores"] == [Verdict.HOLDS]
    assert told == sorted(set(told))
    assert told[0] == (16, 330)
    assert told[-1] == (330, 330)
    invent_factors_and_sign(forged.trace, forged.signing_key)
    whole = asked(forged, given(forged))
    monkeypatch.undo()
    assert whole == asked(forged, given(forged))


def test_a_seed_chooses_the_same_scores_again_and_a_drawn_one_is_said(scored: Any) -> None:
    words = [asked(scored, given(scored), count=5, seed=7).words for _ in range(2)]
    assert words[0] == words[1]
    assert words[0].startswith("5 of 270 scores, chosen by seed 7, ")
    drawn = [re.search(r"by seed (\d+), ", asked(scored, given(scored), count=5, seed=None).words) for _ in range(2)]
    assert drawn[0][1] != drawn[1][1]


def test_some_of_many_are_few_and_every_score_may_be_chosen(scored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[tuple[int, int]] = set()
    monkeypatch.setattr(
        rescore._Rescoring, "check", lambda self, group, _: seen.update((o.number, p) for o in group for p in o.places)
    )
    monkeypatch.setattr(rescore._Rescoring, "words", lambda self: "")
    for seed in range(40):
        before = len(seen)
        asked(scored, None, count=30, seed=seed)
        assert len(seen) - before <= 30
    assert len(seen) > 265


# -- what is refuted ------------------------------------------------------------------------------------------------


def test_invented_factors_whose_scores_follow_from_them_are_named_with_both_values(forged: Any) -> None:
    invent_factors_and_sign(forged.trace, forged.signing_key)
    report = fgtrac.open(forged.folder / "run.trace", key=str(forged.folder / "key.pem")).verify()
    assert report.verdict is Verdict.HOLDS  # nothing but model and data can tell
    finding = asked(forged, given(forged))
    assert finding.verdict is Verdict.REFUTED, finding.words
    said = re.search(
        r"row (\d+) of (artifacts/scoring/00000018-\w+/train-00000\.safetensors) \(sample (\w{64})\) "
        r"has (\S+) as number \d+ of '4/deltas'; "
        r"the state in artifacts/checkpoint-00000018-\w+\.safetensors and the data that were given make (\S+); "
        r"its score toward validation by tracin at step 18 is said to be (\S+), and would be (\S+)$",
        finding.words,
    )
    assert said, finding.words
    for mine, true in ((said[4], said[5]), (said[6], said[7])):
        assert float(mine) == pytest.approx(-float(true), rel=2e-3)


def test_invented_gradients_of_the_validation_samples_are_named(forged: Any) -> None:
    path = next(str(p) for p in map(str, forged.trace.names()) if re.search("00000018-.*/validation-00000", p))
    resigned(
        forged, {path: with_other_signs(forged.trace.read(path))}, at_step(18, lambda e: e | {"scores": -e["scores"]})
    )
    finding = asked(forged, given(forged), count=30)
    assert finding.verdict is Verdict.REFUTED, finding.words
    assert path in finding.words


def at_step(
    step: int, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda event: change(event) if event["step"] == step else event


def test_one_sample_whose_gradient_is_said_to_be_longer_is_found_when_it_is_chosen(forged: Any) -> None:
    (path,) = factor_files(forged.trace, 18)
    file = parse_tensors(forged.trace.read(path))
    deltas = file.tensors["4/deltas"].array.copy()
    deltas[11] *= np.float16(2)  # exact, as is the score's

    def grown(event: dict[str, Any]) -> dict[str, Any]:
        scores = event["scores"].copy()
        scores[event["ordinals"] == 11] *= 2  # the rows are in the order of the ids, and all samples are scored
        return event | {"scores": scores}

    tensors = dict(file.tensors) | {"4/deltas": deltas}
    resigned(forged, {path: b"".join(encode_tensors(tensors, file.metadata))}, at_step(18, grown))
    finding = asked(forged, given(forged))
    assert finding.verdict is Verdict.REFUTED, finding.words
    assert f"row 11 of {path}" in finding.words


def test_one_long_invented_row_of_many_behind_a_mean_is_found_whichever_score_is_chosen(problem: Any) -> None:
    problem.validation = points(300, 2)
    with problem.start() as run:
        problem.score_with(run)
        problem.fit(run, problem.model(), epochs=1)
    (path,) = [n for n in map(str, problem.trace.names()) if re.search("/validation-00000", n)]
    file = parse_tensors(problem.trace.read(path))
    deltas = file.tensors["4/deltas"].array.copy()
    deltas[123] = -np.sign(deltas.astype(np.float32).sum(0)) * np.float16(1e4)
    resigned(problem, {path: b"".join(encode_tensors(dict(file.tensors) | {"4/deltas": deltas}, file.metadata))})
    resigned(problem, {}, scores_of_the_factors(problem))
    report = fgtrac.open(problem.folder / "run.trace", key=str(problem.folder / "key.pem")).verify()
    assert report.verdict is Verdict.HOLDS
    for seed in range(4):
        finding = asked(problem, given(problem), count=1, seed=seed)
        assert finding.verdict is Verdict.REFUTED, finding.words
        assert f"row 123 of {path}" in finding.words


def scores_of_the_factors(problem: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Makes entries say what the factors in the folder give: what a signer does who changed those."""
    audit = audit_log(problem.trace, None)
    again = Recomputation(problem.trace, audit.facts)

    def change(event: dict[str, Any]) -> dict[str, Any]:
        cache, method = again.basis(event)
        target = again.targets(cache, event["target"])[0]
        found = scores(cache, [prepare(cache, 0, target, method)], 0, len(cache.rows("train")))[:, 0]
        rows = [cache.rows("train").find(event["block"], ordinal) for ordinal in event["ordinals"].tolist()]
        return event | {"scores": found[rows]}

    return change


def test_a_swapped_score_is_named(forged: Any) -> None:
    resigned(forged, {}, at_step(18, lambda event: event | {"scores": np.roll(event["scores"], 1)}))
    finding = asked(forged, given(forged))
    assert finding.verdict is Verdict.REFUTED, finding.words
    assert re.search(
        r"entry \d+ \(contribution\): it says \S+ for sample \w{64} .*the factors in the log give", finding.words
    )


def test_a_swapped_factor_file_is_named(forged: Any) -> None:
    (one,), (other,) = factor_files(forged.trace, 12), factor_files(forged.trace, 18)
    put(forged.trace, other, forged.trace.read(one))
    finding = asked(forged, given(forged))
    assert finding.verdict is Verdict.REFUTED, finding.words
    assert other in finding.words


def checkpoints(problem: Any) -> list[str]:
    return sorted(name for name in problem.trace.names() if name.startswith("artifacts/checkpoint-"))


def test_a_swapped_checkpoint_is_named_with_both_digests(forged: Any) -> None:
    _first, middle, last = checkpoints(forged)
    put(forged.trace, last, forged.trace.read(middle))
    finding = asked(forged, given(forged))
    assert finding.verdict is Verdict.REFUTED, finding.words
    assert re.search(
        rf"{last} is not the model state that the log names: it has SHA-256 \w+ and the log says", finding.words
    )


def test_factors_of_another_model_state_that_is_committed_to_are_refuted(problem: Any) -> None:
    """The signer keeps another state than the one that was scored."""
    with problem.start() as run:
        problem.score_with(run)
        problem.fit(run, problem.model(), epochs=1)
    (path,) = checkpoints(problem)
    torch.manual_seed(5)
    data = state_bytes(problem.model())
    digest = hashlib.sha256(data).digest()
    other = f"artifacts/checkpoint-00000006-{digest.hex()[:8]}.safetensors"
    (problem.trace.path / path).rename(problem.trace.path / other)
    files = {n: problem.trace.read(n) for n in problem.trace.names() if "/scoring/00000006-" in n}
    entries = []
    for entry in all_entries(problem.trace):
        event = decode_event(entry)
        if event["kind"] == "checkpoint":
            event["digest"] = digest
        if event["kind"] == "artifact" and event["path"] == path:
            event["path"] = other
        if event["kind"] == "artifact" and event["path"] in files:
            event["path"] = moved(event["path"], digest)
        if event["kind"] == "contribution":
            event["parameters"] = event["parameters"] | {"factors": moved(event["parameters"]["factors"], digest)}
        entries.append(encode_event(event))
    renamed = {moved(name, digest): of_state(data_, digest) for name, data_ in files.items()}
    for name in files:
        (problem.trace.path / name).unlink()
    reseal(problem.trace, put_artifacts(problem.trace, entries, renamed | {other: data}), problem.signing_key)
    finding = asked(problem, given(problem), count=5)
    assert finding.verdict is Verdict.REFUTED, finding.words
    assert other in finding.words


def moved(path: str, digest: bytes) -> str:
    return re.sub(r"/00000006-\w{8}", f"/00000006-{digest.hex()[:8]}", path)


def of_state(data: bytes, digest: bytes) -> bytes:
    file = parse_tensors(data)
    said = dict(file.metadata)
    return b"".join(encode_tensors(file.tensors, said | ({"digest": digest.hex()} if "digest" in said else {})))


# -- what cannot be told --------------------------------------------------------------------------------------------


def test_without_data_and_model_it_cannot_be_told(scored: Any) -> None:
    finding = asked(scored, None, count=4)
    assert_cannot_tell(
        finding, "4 of 270 scores, chosen by seed 1", "follow from the committed factors", "--with FILE.py"
    )


def test_without_torch_it_cannot_be_told(scored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fgtrac.api.remaking", None)
    assert_cannot_tell(asked(scored, given(scored)), "takes torch")


def test_a_trace_without_contributions_has_none_to_recompute(problem: Any) -> None:
    with problem.start() as run:
        problem.fit(run, problem.model(), epochs=1)
    assert_cannot_tell(asked(problem, given(problem)), "no entry records contributions")


def test_other_data_than_the_registered_cannot_tell(problem: Any) -> None:
    with problem.start() as run:
        run.register(problem.train, name="train")
        problem.score_with(run)
        problem.fit(run, problem.model(), epochs=1)

    def giving(x: torch.Tensor, y: torch.Tensor) -> Function:
        def again(run: Any) -> nn.Module:
            run.register(data := TensorDataset(x, y), name="train")
            problem.score_with(run, train=data)
            return problem.model()

        return again

    x, y = problem.train.tensors
    assert asked(problem, giving(x, y)).verdict is Verdict.HOLDS
    assert_cannot_tell(asked(problem, giving(x + 1, y)), "were not given: the trace has other contents as 'train'")
    assert_cannot_tell(asked(problem, giving(x[:-1], y[:-1])), "were not given: the trace has other samples as 'train'")


def test_other_labels_than_the_rows_file_has_cannot_tell(scored: Any) -> None:
    x, y = scored.train.tensors
    other = replace(scored)
    other.train = TensorDataset(x, (y + 1) % 3)
    assert_cannot_tell(
        asked(scored, given(other)), "has another label in the data", "nothing in the log tells which is right"
    )


def test_another_label_hides_no_lie_about_another_sample(forged: Any) -> None:
    invent_factors_and_sign(forged.trace, forged.signing_key)
    x, y = forged.train.tensors
    forged.train = TensorDataset(x, torch.cat([(y[:45] + 1) % 3, y[45:]]))
    finding = asked(forged, given(forged))
    assert finding.verdict is Verdict.REFUTED, finding.words


def test_rows_that_were_not_given_are_named(scored: Any) -> None:
    def again(run: Any) -> nn.Module:
        scored.score_with(run, train=Subset(scored.train, range(80)))
        return scored.model()

    assert_cannot_tell(asked(scored, again), "is not among the train data given", "0 are right")
    some = asked(scored, given(scored, validation=None))
    assert_cannot_tell(some, "no validation data were given")


@pytest.mark.parametrize(("role", "method"), [("validation", "tracin"), ("train", "fisher")])
def test_samples_that_the_scoring_left_out_are_counted(problem: Any, role: str, method: str) -> None:
    """Each committed row is right, and the mean is one that the signer chose, or the training set is."""
    with problem.start() as run:
        problem.score_with(run, method=method, **{role: Subset(getattr(problem, role), range(0, 20, 3))})
        problem.fit(run, problem.model(), epochs=1)
    n = len(getattr(problem, role))
    finding = asked(problem, given(problem), count=5)
    assert_cannot_tell(finding, f"{n - 7} of the {n} {role} samples that were given have no committed factors")
    assert_cannot_tell(finding, "were left out of the scoring, or other data are given than were scored")


def test_a_recorded_sample_of_the_training_set_is_the_one_that_everybody_draws(problem: Any) -> None:
    with problem.start() as run:
        problem.score_with(run, factors="sample:40")
        problem.fit(run, problem.model(), epochs=1)
    finding = asked(problem, given(problem), count=5)
    assert finding.verdict is Verdict.HOLDS, finding.words
    assert (
        "; 40 of the 90 train samples that were given have scores, those that factors='sample:40' takes"
        in finding.words
    )


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda run: nn.Linear(8, 3), "no data were given: let the function call score_with()"),
        (lambda run: None, "the function returned NoneType; return the model"),
        (lambda run: int("x"), "the model and the data were not given: invalid literal"),
    ],
)
def test_a_function_that_gives_nothing_cannot_tell(scored: Any, function: Function, words: str) -> None:
    assert_cannot_tell(asked(scored, function), words)


def test_another_architecture_cannot_tell(scored: Any) -> None:
    def again(run: Any) -> nn.Module:
        scored.score_with(run)
        return nn.Linear(8, 3)

    assert_cannot_tell(asked(scored, again), "is of another architecture")


def test_keyed_ids_without_their_vault_cannot_be_told(forged: Any) -> None:
    (forged.folder / "run.vault").unlink()
    assert_cannot_tell(asked(forged, given(forged)), "ids are keyed, and there is no vault at")


def test_contents_that_are_not_in_the_log_are_said_not_to_be_compared(problem: Any) -> None:
    with problem.start() as run:
        run.register(problem.train, content=False, name="train")
        problem.score_with(run)
        problem.fit(run, problem.model(), epochs=1)

    def again(run: Any) -> nn.Module:
        run.register(problem.train, name="train")
        problem.score_with(run)
        return problem.model()

    finding = asked(problem, again)
    assert finding.verdict is Verdict.HOLDS
    assert "data set 'train' was compared by its ids alone, without contents" in finding.words


def test_a_target_that_is_no_data_of_the_trace_cannot_be_told(forged: Any) -> None:
    trace = fgtrac.open(forged.folder / "run.trace", key=str(forged.folder / "key.pem"))
    batch = (torch.zeros(1, 8), torch.zeros(1).long())
    trace.record(batch, model=forged.model(), loss=nn.functional.cross_entropy, key=forged.folder / "key.pem")
    assert_cannot_tell(asked(forged, given(forged)), "is a batch of no data set", "270 are right")


@pytest.mark.parametrize("arguments", [(0,), (-3,), (5, -1)])
def test_what_asks_for_nothing_is_the_callers_mistake(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"ask for at least 1|below 0"):
        scores_demand(*arguments)


# -- the tolerance --------------------------------------------------------------------------------------------------

LAYER = Layer("fc", "factored", 4, 2, True)


def shifted(by: float) -> Gradients:
    inputs = np.ones((2, 4), np.float32)
    return Gradients(LAYER, inputs=inputs, deltas=np.array([[1 + by, 1], [0.5, 0.5]], np.float32))


@pytest.mark.parametrize(
    ("off", "verdict"), [(0, (True, True)), (1e-5, (True, True)), (1e-3, (False, True)), (0.1, (False, False))]
)
def test_a_difference_is_rounding_or_low_precision_or_neither(off: float, verdict: tuple[bool, bool]) -> None:
    found = differences([shifted(off)], [shifted(0)], [[shifted(4e-6)]], [[shifted(2e-3)]], ["F32"] * 2)
    assert [(d.is_rounding, d.may_be) for d in found] == [verdict, (True, True)]
    assert found[0].column == ("fc/inputs" if off == 0 else "fc/deltas") or off == 1e-5


def test_each_row_has_the_room_of_its_own_type() -> None:
    still, off = [[shifted(0)]], shifted(0)
    off.deltas[:] *= 1 + 3e-4
    assert [d.is_rounding for d in differences([off], [shifted(0)], still, still, ["F32", "F16"])] == [False, True]


@pytest.mark.parametrize(("type", "holds"), [("F32", False), ("F16", True), ("BF16", True)])
def test_storage_allows_what_its_type_rounds(type: str, holds: bool) -> None:
    still = [[shifted(0)]]
    assert differences([shifted(3e-4)], [shifted(0)], still, still, [type] * 2)[0].is_rounding is holds


def test_low_precision_is_named_by_its_kinds(scored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another kernel of bfloat16 makes it, and a GPU's TF32."""

    def coarse(*arguments: Any) -> list[Any]:
        return [replace(found, is_rounding=False) for found in differences(*arguments)]

    monkeypatch.setattr(rescore_units, "differences", coarse)
    assert_cannot_tell(asked(scored, given(scored), count=1), "no more than TF32 or bfloat16 (autocast) may")


def test_what_is_no_number_is_no_rounding() -> None:
    still = [[shifted(0)]]
    assert not differences([shifted(float("nan"))], [shifted(0)], still, still, ["F16"] * 2)[0].may_be
