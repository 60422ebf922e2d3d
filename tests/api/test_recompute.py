"""The check `contributions`: recorded scores against those that the committed factors give; each way to be wrong."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgtrac.api import recompute
from fgtrac.api.audit import audit_trace
from fgtrac.api.score_tolerance import SHARE
from fgtrac.score.factor_files import (
    Rows,
    ShardHead,
    State,
    encode_losses,
    encode_rows,
    encode_shard,
    rows_path,
)
from fgtrac.score.gradients import Gradients
from fgtrac.score.methods import Method
from fgtrac.score.target_files import encode_target
from fgtrac.store.tensor_files import Tensor, encode_tensors, parse_tensors
from fgtrac.verify.report import Finding, Report, Verdict
from findings import assert_cannot_tell
from recorded import CONVOLUTION, LAYER, RATES, TRAIN, Hooks, Scored, draw
from signed import MemoryTrace
from traces import Made

Change = Callable[[dict[str, Any]], dict[str, Any] | None]
METHODS = ("tracin", "tracin-cos", "fisher 0.1")


def verify(made: Made) -> Report:
    return audit_trace(made.trace, made.verifier)


def found(made: Made) -> Finding:
    """What the check says, when every other one holds."""
    report = verify(made)
    assert [f.check for f in report.failures() if f.check != "contributions"] == [], report.failures()
    (finding,) = [f for f in report.findings if f.check == "contributions"]
    assert "\n" not in finding.words
    return finding


def changing(kind: str, change: Change, *, only: int | None = None) -> Hooks:
    """Change the fields of the entries of one kind, or of one of them alone."""
    seen = 0

    def say(of: str, fields: dict[str, Any]) -> dict[str, Any] | None:
        nonlocal seen
        if of != kind:
            return fields
        seen += 1
        return change(fields) if only is None or seen == only + 1 else fields

    return Hooks(say=say)


def told(folder: Path, change: Change, *, kind: str = "contribution", method: str = "tracin") -> Finding:
    """The finding about a trace of which the first entry of a kind was changed."""
    return found(Scored(folder, method, hooks=changing(kind, change, only=0)).seal())


def assert_refuted(finding: Finding, *words: str) -> None:
    assert finding.verdict is Verdict.REFUTED, finding.words
    for word in words:
        assert word in finding.words


# -- true scores ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [(LAYER,), (CONVOLUTION,), (LAYER, CONVOLUTION)], ids=["linear", "dense", "both"])
@pytest.mark.parametrize("method", [*METHODS, "fisher 0.001"])
def test_scores_that_whole_gradients_give_in_float64_hold(tmp_path: Path, layers: Any, method: str) -> None:
    finding = found(Scored(tmp_path, method, layers=layers).seal())
    assert finding.verdict is Verdict.HOLDS, finding.words
    assert f"{2 * (TRAIN + 6)} scores in 4 entries were computed again" in finding.words


def test_several_methods_and_targets_of_one_trace_hold_together(tmp_path: Path) -> None:
    scored = Scored(tmp_path, *METHODS)
    ids = sorted(scored.made.ids)
    for role, rows, row in (("validation", scored.validation, 4), ("train", scored.train, 7)):
        name = f"id:{ids[rows.ordinals[row]].hex()}"
        for method in METHODS:
            scored.contribute(3, method, name, scored.sample(3, role, row))
    scored.contribute(6, "tracin", f"id:{scored.extra[2].hex()}", scored.sample(6, "train", TRAIN + 2))
    finding = found(scored.seal())
    assert finding.verdict is Verdict.HOLDS, finding.words
    assert f"{(6 + 6 + 1) * (TRAIN + 6)} scores in 26 entries" in finding.words


@pytest.mark.parametrize("role", ["train", "validation"])
def test_a_target_sample_of_two_roles_may_be_meant_in_either(tmp_path: Path, role: str) -> None:
    scored = Scored(tmp_path, shared=2)
    rows = {"train": scored.train, "validation": scored.validation}
    both = np.intersect1d(scored.train.ordinals[:TRAIN], scored.validation.ordinals)
    assert len(both) == 2
    row = int(np.flatnonzero(rows[role].ordinals[:TRAIN] == both[0])[0])
    name = f"id:{sorted(scored.made.ids)[both[0]].hex()}"
    scored.contribute(3, "tracin", name, scored.sample(3, role, row))
    assert found(scored.seal()).verdict is Verdict.HOLDS


def test_a_trace_without_contributions_says_so(tmp_path: Path) -> None:
    finding = found(Scored(tmp_path).seal())
    assert (finding.verdict, finding.words) == (Verdict.HOLDS, "no entry records contributions")


def test_parameters_may_be_left_out(tmp_path: Path) -> None:
    finding = told(tmp_path, lambda fields: {n: v for n, v in fields.items() if n != "parameters"})
    assert finding.verdict is Verdict.HOLDS


def test_progress_counts_the_entries(tmp_path: Path) -> None:
    made, seen = Scored(tmp_path, "tracin").seal(), []
    audit_trace(made.trace, made.verifier, progress=lambda done, total: seen.append((done, total)))
    assert seen[-4:] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_scores_are_computed_again_without_torch(tmp_path: Path) -> None:
    made = Scored(tmp_path, "fisher 0.1").seal()
    code = (
        "import sys; from pathlib import Path; from fgtrac.api.trace import open_for_verification\n"
        f"report = open_for_verification(Path({str(made.trace.path)!r})).verify({made.signer.public_key.hex()!r})\n"
        "assert not {'torch', 'safetensors'} & set(sys.modules); print(report.verdict)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "holds", run.stdout + run.stderr


# -- false scores -----------------------------------------------------------------------------------------------------


def nudged(share: float) -> Change:
    """The score of the entry's third sample moved by a share of its largest."""

    def change(fields: dict[str, Any]) -> dict[str, Any]:
        scores = fields["scores"].copy()
        scores[2] += share * np.abs(scores).max()
        return fields | {"scores": scores}

    return change


@pytest.mark.parametrize("method", METHODS)
def test_one_changed_score_is_refuted_with_sample_and_both_numbers(tmp_path: Path, method: str) -> None:
    scored = Scored(tmp_path, method, hooks=changing("contribution", nudged(2e-5), only=0))
    true = scored.truth(3, Method(method.split(" ")[0]))[2]
    finding = found(scored.seal())
    sample = sorted(scored.made.ids)[scored.train.ordinals[2]].hex()
    assert_refuted(
        finding, sample, f"give {true:.9g}"[:9], "toward validation", method, "at step 3", "1 of 40 scores differ"
    )


def test_rounding_is_no_lie(tmp_path: Path) -> None:
    assert told(tmp_path, nudged(2e-7)).verdict is Verdict.HOLDS


def test_a_score_that_is_no_number_is_refuted(tmp_path: Path) -> None:
    assert_refuted(told(tmp_path, nudged(float("nan"))), "it says nan for sample")


def test_scores_of_another_state_are_refuted(tmp_path: Path) -> None:
    scored = Scored(tmp_path, "tracin")
    scored.hooks = changing(
        "contribution", lambda f: f | {"scores": scored.truth(3, Method())[:6].astype("<f4")}, only=1
    )
    scored.contribute(6, "tracin")
    assert_refuted(found(scored.seal()), "6 of 6 scores differ")


def test_scores_of_another_method_or_sign_are_refuted(tmp_path: Path) -> None:
    assert_refuted(told(tmp_path / "a", lambda f: f | {"method": "tracin-cos"}), "scores differ")
    assert_refuted(told(tmp_path / "b", lambda f: f | {"scores": -f["scores"]}), "40 of 40 scores differ")


def test_scores_of_another_target_are_refuted(tmp_path: Path) -> None:
    scored = Scored(tmp_path)
    scored.contribute(3, "tracin", f"id:{scored.extra[0].hex()}")
    assert_refuted(found(scored.seal()), f"toward id:{scored.extra[0].hex()}")


def test_scores_toward_a_sample_of_two_roles_in_neither_are_refuted(tmp_path: Path) -> None:
    scored = Scored(tmp_path, shared=1)
    (both,) = np.intersect1d(scored.train.ordinals[:TRAIN], scored.validation.ordinals)
    scored.contribute(3, "tracin", f"id:{sorted(scored.made.ids)[both].hex()}")
    assert_refuted(found(scored.seal()), "40 of 40 scores differ")


def test_a_lie_behind_something_that_cannot_be_computed_is_still_refuted(tmp_path: Path) -> None:
    scored = Scored(tmp_path)
    scored.hooks = changing("contribution", lambda f: f | {"method": "oracle"}, only=0)
    scored.contribute(3, "tracin")
    scored.hooks = changing("contribution", nudged(1e-2), only=0)
    scored.contribute(3, "tracin")
    assert_refuted(found(scored.seal()), "1 of 40 scores differ")


def with_outlier(folder: Path, method: str, inputs: float, deltas: float, change: Change) -> Finding:
    """The finding where one training sample's gradient is far longer than all others, and so said."""

    def put(path: str, data: bytes) -> bytes:
        if "/train-00000" not in path:
            return data
        file = parse_tensors(data)
        arrays = {name: tensor.float32().copy() for name, tensor in file.tensors.items()}
        arrays["fc/inputs"][3], arrays["fc/deltas"][3] = inputs, deltas
        return b"".join(encode_tensors(arrays, file.metadata))

    scored = Scored(folder, hooks=Hooks(put=put))
    (gradients,) = scored.gradients[3, "train"]
    assert gradients.dense is not None
    gradients.dense[3] = np.outer(np.full(3, deltas), [*[inputs] * 5, 1.0]).ravel()
    scored.hooks = changing("contribution", change, only=0)
    scored.contribute(3, method)
    return found(scored.seal())


def turned_but_for_the_outlier(fields: dict[str, Any]) -> dict[str, Any]:
    scores = -7 * fields["scores"]
    scores[3] /= -7
    return fields | {"scores": scores}


@pytest.mark.parametrize("outlier", [(1.0, 1e8), (1e4, 1e4)])
@pytest.mark.parametrize("method", METHODS)
def test_one_outlier_gives_other_scores_no_room(tmp_path: Path, method: str, outlier: tuple[float, float]) -> None:
    assert with_outlier(tmp_path / "true", method, *outlier, lambda fields: fields).verdict is Verdict.HOLDS
    lie = with_outlier(tmp_path / "false", method, *outlier, turned_but_for_the_outlier)
    assert_refuted(lie, "39 of 40 scores differ")


def noise(fields: dict[str, Any]) -> dict[str, Any]:
    """Five times the honest scores' size, and nothing of them."""
    scores = fields["scores"]
    drawn = np.random.default_rng(len(scores)).standard_normal(len(scores)) * np.abs(scores).max() * 5
    return fields | {"scores": drawn.astype(np.float32)}


@pytest.mark.parametrize("method", ["fisher 0.1", "fisher 1e-05", "fisher 1e-09", "fisher 1e-300", "ekfac 1e-07"])
def test_noise_never_holds_however_weak_the_damping(tmp_path: Path, method: str) -> None:
    finding = told(tmp_path, noise, method=method)
    weak = method in ("fisher 1e-09", "fisher 1e-300")
    assert finding.verdict is (Verdict.CANNOT_TELL if weak else Verdict.REFUTED), finding.words
    assert "rounding" in finding.words if weak else "scores differ" in finding.words


def near_zero(times: float, change: Change, folder: Path) -> Finding:
    """The finding where the third sample's score is so many times what rounding may move it by."""
    scored = Scored(folder)
    mine = scored.sample(6, "train", 2)
    toward = np.linspace(-1, 1, LAYER.size)
    toward -= mine * (mine @ toward) / (mine @ mine)
    toward += mine * times * SHARE * (np.abs(mine) @ np.abs(toward)) / (mine @ mine)
    target = toward.astype(np.float32)
    scored.put(
        path := "artifacts/targets/00000000.safetensors",
        encode_target(scored.states, [(Gradients(LAYER, dense=target[None]),)] * 2),
    )
    scored.hooks = changing("contribution", change, only=0)
    scored.contribute(6, "tracin", f"artifact:{path}", target.astype(np.float64))
    return found(scored.seal())


def other_sign(fields: dict[str, Any]) -> dict[str, Any]:
    scores = fields["scores"].copy()
    scores[2] *= -1
    return fields | {"scores": scores}


def test_the_sign_of_a_score_is_refuted_unless_rounding_decides_it(tmp_path: Path) -> None:
    assert_refuted(near_zero(10, other_sign, tmp_path / "a"), "1 of 40 scores differ")
    assert_refuted(near_zero(0.7, other_sign, tmp_path / "b"), "1 of 40 scores differ")
    for number, change in enumerate((other_sign, lambda fields: fields)):
        finding = near_zero(0.3, change, tmp_path / str(number))
        assert finding.verdict is Verdict.HOLDS, finding.words
        assert "(the sign of 1 is within rounding)" in finding.words


def test_scores_too_small_for_float32_are_not_told(tmp_path: Path) -> None:
    scored = stored(tmp_path, length=1e-36)
    assert_cannot_tell(found(scored.seal()), "rounding may change")


# -- what they rest on ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("factors", "artifacts/scoring/00000006-00000000", "it says factors 'artifacts/scoring/00000006-00000000'"),
        ("layers", ["other"], "its factors say ['fc']"),
        ("learning_rates", [0.2], "it says learning_rates [0.2]; its factors say [0.1]"),
        ("learning_rates", [0.1, 0.1], "learning_rates"),
    ],
)
def test_parameters_that_are_not_those_of_the_factors_are_refuted(
    tmp_path: Path, name: str, value: Any, words: str
) -> None:
    assert_refuted(told(tmp_path, lambda f: f | {"parameters": f["parameters"] | {name: value}}), words)


def test_a_damping_beside_that_of_the_method_is_refuted(tmp_path: Path) -> None:
    finding = told(tmp_path, lambda f: f | {"parameters": {"damping": 0.2}}, method="fisher 0.1")
    assert_refuted(finding, "it says damping 0.2; its factors say 0.1")


def test_parameters_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    assert told(tmp_path, lambda f: f | {"parameters": {"mood": "good"}}).verdict is Verdict.HOLDS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"checkpoint": [bytes(16), 7]}, "as its checkpoint, and that is none"),
        ({"step": 4}, "it rests on a state of step 4; its checkpoint"),
    ],
)
def test_a_checkpoint_that_is_none_is_refuted(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    assert_refuted(told(tmp_path, lambda fields: fields | change), words)


def test_a_checkpoint_that_was_not_kept_is_refuted(tmp_path: Path) -> None:
    assert_refuted(told(tmp_path, lambda f: f | {"kept": False}, kind="checkpoint"), "is of step 3 and not kept")


def test_a_checkpoint_that_a_gap_names_as_lost_cannot_be_told(tmp_path: Path) -> None:
    scored = Scored(tmp_path)
    other = b"\2" * 16
    scored.say("gap", {"reason": "disk full", "lost_writer": other, "first": 0, "stop": 9})
    scored.hooks = changing("contribution", lambda f: f | {"checkpoint": [other, 4]})
    scored.contribute(3, "tracin")
    scored.writing.end()
    scored.made.seal()
    assert_cannot_tell(found(scored.made), f"number 4 of writer {other.hex()}, is lost")


def test_a_checkpoint_without_a_digest_cannot_be_told(tmp_path: Path) -> None:
    finding = told(tmp_path, lambda f: {n: v for n, v in f.items() if n != "digest"}, kind="checkpoint")
    assert_cannot_tell(finding, "names no model state", "46 scores in 2 entries")


@pytest.mark.parametrize(("rates", "words"), [([0.3, 0.2], "says 0.3, 0.2"), ([], "says none")])
def test_learning_rates_that_the_checkpoint_does_not_have_are_refuted(
    tmp_path: Path, rates: list[float], words: str
) -> None:
    finding = told(tmp_path, lambda f: f | {"learning_rates": np.array(rates)}, kind="checkpoint")
    assert_refuted(finding, "layer 'fc' the learning rate 0.1", words)


def test_factors_of_another_state_are_refuted(tmp_path: Path) -> None:
    scored = Scored(tmp_path, "tracin", hooks=Hooks(put=of_another_state))
    assert_refuted(found(scored.seal()), "holds factors of another state or role than its name says")


def of_another_state(path: str, data: bytes) -> bytes:
    if "/00000003-" not in path or "/train-" not in path:
        return data
    file = parse_tensors(data)
    said = dict(file.metadata)
    return b"".join(encode_tensors(file.tensors, said | {"digest": said["digest"][:8] + "0" * 56}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rates", "[1.0]"),
        ("rows", "00" * 32),
        ("layers", '[{"name":"fc","form":"factored","d_in":5,"d_out":3,"bias":false}]'),
    ],
)
def test_a_shard_unlike_the_one_before_it_is_refuted(tmp_path: Path, name: str, value: str) -> None:
    def put(path: str, data: bytes) -> bytes:
        if "/train-00001" not in path:
            return data
        file = parse_tensors(data)
        return b"".join(encode_tensors(file.tensors, dict(file.metadata) | {name: value}))

    finding = found(Scored(tmp_path, "tracin", hooks=Hooks(put=put)).seal())
    assert_refuted(finding, "train-00001.safetensors is of other rows, layers or learning rates")


# -- what is not there ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("oracle", "'oracle' is none of tracin"),
        ("fisher", "'fisher' is no method"),
        ("fisher 0.10", "no method"),
        ("fisher ggn 0.1", "no Gauss-Newton matrix of 'fc' was kept"),
        ("", "is none of tracin"),
    ],
)
def test_a_method_that_cannot_be_computed_cannot_be_told(tmp_path: Path, method: str, words: str) -> None:
    finding = told(tmp_path, lambda f: f | {"method": method, "parameters": {}})
    assert_cannot_tell(finding, "entry ", words, f"{TRAIN + 6 + 6} scores in 3 entries were computed again")


def test_a_target_whose_file_is_not_in_the_log_cannot_be_told(tmp_path: Path) -> None:
    finding = told(tmp_path, lambda f: f | {"target": "artifact:artifacts/none"})
    assert_cannot_tell(finding, "its target, artifacts/none, is no file that the log names")


def stored(folder: Path, *, put: Callable[[bytes], bytes] = bytes, scale: float = 1.0, length: float = 1.0) -> Scored:
    """Scores toward a target whose gradients are in a file of the trace."""
    scored = Scored(folder)
    toward = length * np.linspace(-1, 1, LAYER.size)
    of = (Gradients(LAYER, dense=toward.astype(np.float32)[None]),)
    data = put(encode_target(scored.states, [of, of]))
    scored.put(path := "artifacts/targets/00000000.safetensors", data)
    scored.contribute(6, "tracin", f"artifact:{path}", scale * toward)
    return scored


def test_scores_toward_gradients_in_a_file_are_told_right_from_wrong(tmp_path: Path) -> None:
    assert found(stored(tmp_path / "true").seal()).verdict is Verdict.HOLDS
    assert_refuted(found(stored(tmp_path / "false", scale=1.1).seal()), "toward artifact:artifacts/targets/")


def test_a_file_of_gradients_that_is_none_is_refuted_and_named(tmp_path: Path) -> None:
    cut = stored(tmp_path / "cut", put=lambda data: data[:-4])
    assert_refuted(found(cut.seal()), "its target, artifacts/targets/00000000.safetensors", "no safetensors file")
    other = encode_losses(np.ones(3, np.float32))
    assert_refuted(found(stored(tmp_path / "other", put=lambda data: other).seal()), "it is no 'fgtrac target 1'")


def test_a_withdrawn_file_of_gradients_cannot_be_told(tmp_path: Path) -> None:
    scored = stored(tmp_path)
    path = "artifacts/targets/00000000.safetensors"
    (scored.made.trace.path / path).unlink()
    nobody = {"pseudonym": bytes(32), "block": scored.block, "ordinals": np.array([0], np.uint32)}
    scored.say("erasure", {**nobody, "artifacts": [path]})
    (finding,) = [f for f in verify(scored.seal()).findings if f.check == "contributions"]
    assert_cannot_tell(finding, f"its target, {path}, was withdrawn")


@pytest.mark.parametrize("target", ["", "the moon", "class:3"])
def test_a_target_of_another_kind_cannot_be_told(tmp_path: Path, target: str) -> None:
    assert_cannot_tell(told(tmp_path, lambda f: f | {"target": target}), f"its target {target!r} is of a kind")


def test_a_target_sample_without_factors_cannot_be_told(tmp_path: Path) -> None:
    assert_cannot_tell(told(tmp_path, lambda f: f | {"target": "id:" + "00" * 32}), "no factors of its target")


@pytest.mark.parametrize("target", ["id:", "id:00", "id:xyz", "id:" + "0" * 63])
def test_a_target_that_is_no_sample_is_refuted(tmp_path: Path, target: str) -> None:
    assert_refuted(told(tmp_path, lambda f: f | {"target": target}), "is no sample id")


def test_validation_without_factors_cannot_be_told(tmp_path: Path) -> None:
    made = Scored(tmp_path, "tracin", hooks=without("/validation-")).seal()
    assert_cannot_tell(found(made), "no factors of validation samples")


def without(part: str) -> Hooks:
    """No entry names the files with this in their path."""
    return changing("artifact", lambda f: None if part in f["path"] else f)


def test_training_factors_that_are_not_named_cannot_be_told(tmp_path: Path) -> None:
    made = Scored(tmp_path, "tracin", hooks=without("/train-00001")).seal()
    finding = found(made)
    assert_cannot_tell(finding, "no complete factors of training samples at step 3 are in the log", "(and 3 more)")
    assert "computed again" not in finding.words


def test_factors_of_no_training_sample_cannot_be_told(tmp_path: Path) -> None:
    scored = Scored(tmp_path)
    nobody = Rows((scored.block,), np.empty(0, np.uint32))
    data = encode_rows(nobody, "train")
    scored.put(rows_path("train", data), data)
    state = State(scored.states[0].ref, 3, hashlib.sha256(b"nothing").digest())
    fields = {"step": 3, "kept": True, "rule": "kept", "digest": state.digest}
    ref = scored.say("checkpoint", {**fields, "learning_rates": np.array([0.1])})
    rests = (state.digest, 3, "train", 0, 0, 0, hashlib.sha256(data).digest(), (LAYER,), (0.1,))
    scored.put(
        f"{state.folder}/train-00000.safetensors", encode_shard(ShardHead(*rests), draw((LAYER,), 0, ""), "float16")
    )
    scored.hooks = changing("contribution", lambda f: f | {"checkpoint": list(ref), "parameters": {}})
    scored.contribute(3, "tracin")
    assert_cannot_tell(found(scored.seal()), "has factors of no training sample")


def test_what_takes_more_memory_than_there_is_cannot_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(*arguments: object) -> None:
        raise MemoryError

    made = Scored(tmp_path, "fisher 0.1").seal()
    monkeypatch.setattr(recompute, "prepare", too_much)
    assert_cannot_tell(found(made), "recomputing fisher 0.1 takes more memory than there is")


def test_factors_that_this_machine_cannot_read_are_not_refuted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    made = Scored(tmp_path, "fisher 0.1").seal()
    monkeypatch.setattr(recompute, "prepare", fail)
    assert_cannot_tell(found(made), "this machine could not do what that takes", "Input/output error")


def test_samples_without_factors_cannot_be_told(tmp_path: Path) -> None:
    scored = Scored(tmp_path, "tracin")
    spare = scored.validation.ordinals[:1]
    scored.hooks = changing("contribution", lambda f: f | {"ordinals": spare, "scores": f["scores"][:1]}, only=0)
    scored.contribute(3, "tracin")
    words = f"1 of its samples have no factors, the first is ordinal {spare[0]} of block {scored.block.hex()}"
    assert_cannot_tell(found(scored.seal()), words)


def test_withdrawn_factors_cannot_be_told(tmp_path: Path) -> None:
    scored = Scored(tmp_path, "tracin")
    path = f"{scored.states[0].folder}/train-00001.safetensors"
    (scored.made.trace.path / path).unlink()
    nobody = {"pseudonym": bytes(32), "block": scored.block, "ordinals": np.array([0], np.uint32)}
    scored.say("erasure", {**nobody, "artifacts": [path]})
    report = verify(scored.seal())
    failures = {f.check for f in report.failures()}  # it erases nobody, and the list with ordinal 0 stayed
    assert failures == {"artifacts", "contributions", "erasures", "erased-rows"}
    (finding,) = [f for f in report.findings if f.check == "contributions"]
    assert_cannot_tell(finding, f"{path} was withdrawn by entry", "(erasure)", "46 scores in 2 entries")


def test_a_swapped_factor_file_is_the_artifacts_to_refute(tmp_path: Path) -> None:
    scored = Scored(tmp_path, "tracin")
    made = scored.seal()
    first, second = (made.trace.path / s.folder / "train-00000.safetensors" for s in scored.states)
    first.write_bytes(second.read_bytes())
    report = verify(made)
    assert [f.check for f in report.findings if f.verdict is Verdict.REFUTED] == ["artifacts"]
    (finding,) = [f for f in report.findings if f.check == "contributions"]
    assert_cannot_tell(finding, "the check of artifacts does not hold")


def test_files_in_memory_cannot_be_told(tmp_path: Path) -> None:
    made = Scored(tmp_path, "tracin").seal()
    files = {name: made.trace.read(name) for name in made.trace.names()}
    (finding,) = audit_trace(MemoryTrace(files), made.verifier).failures()
    assert_cannot_tell(finding, "in a folder")


# -- a stranger's files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: {"ordinals": np.where(rows.ordinals == 0, 999, rows.ordinals)}, "name ordinal 999 of block"),
        (lambda rows: {"ordinals": rows.ordinals.copy() * 0}, "twice"),
        (lambda rows: {"blocks": (rows.blocks[0], rows.blocks[0])}, "twice"),
        (lambda rows: {"blocks": (bytes(16), rows.blocks[1])}, "is not registered"),
    ],
)
def test_rows_that_are_no_registered_samples_are_refuted(tmp_path: Path, change: Any, words: str) -> None:
    scored = Odd(tmp_path, "tracin", change=change)
    assert_refuted(found(scored.seal()), words)


class Odd(Scored):
    """Its first training rows are changed before anything is written."""

    def __init__(self, folder: Path, *methods: str, change: Any) -> None:
        self._change = change
        super().__init__(folder, *methods)

    def checkpoint(self, step: int) -> None:
        if step == min(RATES):
            fields = self._change(self.train)
            fields = {n: v.astype(np.uint32) if n == "ordinals" else v for n, v in fields.items()}
            self.odd, self.true = dataclasses.replace(self.train, **fields), self.train
        self.train = self.odd
        super().checkpoint(step)
        self.train = self.true


@pytest.mark.parametrize("what", ["inputs", "deltas"])
def test_factors_that_are_no_numbers_are_refuted(tmp_path: Path, what: str) -> None:
    def put(path: str, data: bytes) -> bytes:
        if "/train-00000" not in path:
            return data
        file = parse_tensors(data)
        array = file.tensors[f"fc/{what}"].array.copy()
        array[3] = np.inf
        return b"".join(encode_tensors(dict(file.tensors) | {f"fc/{what}": Tensor("F16", array)}, file.metadata))

    for method in ("tracin", "fisher 0.1", "ekfac 0.1"):
        folder = tmp_path / method
        scored = Scored(folder, hooks=Hooks(put=put))
        scored.contribute(3, "tracin")
        scored.hooks = changing("contribution", lambda f: f | {"method": method, "parameters": {}})  # noqa: B023
        scored.contribute(3, "tracin")
        assert_refuted(found(scored.seal()), "entry ")


@pytest.mark.parametrize("path", ["train-00000", "validation-0"])
def test_a_file_that_is_none_is_refuted_and_named(tmp_path: Path, path: str) -> None:
    hooks = Hooks(put=lambda name, data: data[:-1] if f"/{path}" in name else data)
    assert_refuted(found(Scored(tmp_path, "tracin", hooks=hooks).seal()), "no safetensors file", path)


def test_factors_of_rows_that_no_file_names_cannot_be_told(tmp_path: Path) -> None:
    others = encode_rows(Rows((bytes(16),), np.arange(46, dtype=np.uint32)), "train")
    hooks = Hooks(put=lambda name, data: others if "rows-train" in name else data)
    assert_cannot_tell(found(Scored(tmp_path, "tracin", hooks=hooks).seal()), "rows")


def test_a_shard_that_lacks_a_column_is_refuted(tmp_path: Path) -> None:
    def put(path: str, data: bytes) -> bytes:
        file = parse_tensors(data)
        kept = {n: t for n, t in file.tensors.items() if n != "fc/deltas" or "/train-00001" not in path}
        return b"".join(encode_tensors(kept, file.metadata))

    assert_refuted(
        found(Scored(tmp_path, "tracin", hooks=Hooks(put=put)).seal()),
        "train-00001.safetensors: it has no deltas of 16 x 3",
    )
