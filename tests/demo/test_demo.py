"""The whole demo on scikit-learn's digits: every figure it claims is checked against what was planted."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fgtrac.api.trace import open_trace
from fgtrac.api.user_functions import load_functions
from fgtrac.demo import cnn
from fgtrac.demo.data import BLANKS, DUPLICATES, LATE
from fgtrac.web.thumbnails import Thumbnails
from json_schemas import check, validator

Shown = tuple[dict[str, Any], str, Path]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    folder = tmp_path_factory.mktemp("demo")
    text, silent = io.StringIO(), io.StringIO()
    figures = cnn.run_demo(
        out=folder / "kept",
        small=True,
        key=folder / "key.pem",
        anchor="evm",
        console=Console(file=text, width=140),
        progress=Console(file=silent),
    )
    assert silent.getvalue() == "", "progress belongs on a terminal only"
    return figures, text.getvalue(), folder / "kept.trace"


def test_no_claim_fails(shown: Shown) -> None:
    assert shown[0]["failures"] == []


def test_the_last_line_shows_the_trace_with_its_pictures(shown: Shown) -> None:
    _, text, trace = shown
    words = shlex.split(text.splitlines()[-1].partition(": ")[2])
    assert words[:4] == ["fgtrac", "ui", str(trace), "--with"]
    function, render = load_functions(words[4], "render")
    assert render is None
    opened, thumbnails = open_trace(trace), Thumbnails(function())
    samples = opened.sample_counts()
    found = [thumbnails.of(opened, sample.tobytes()) for sample in samples.ids]
    assert {one.check for one in found} == {"matches"}
    assert all(one.png is not None and one.label for one in found)


def test_its_figures_are_as_the_schema_of_json_has_them(shown: Shown) -> None:
    check("demo", json.loads(json.dumps(shown[0])))
    for section in ("data", "cost", "verification", "histories", "lies", "failures"):
        assert not validator("demo").is_valid({name: said for name, said in shown[0].items() if name != section})


def test_training_is_bit_identical_and_better_than_guessing(shown: Shown) -> None:
    training = shown[0]["training"]
    assert training["weights_with"] == training["weights_without"]
    assert training["generators_with"] == training["generators_without"]
    assert training["accuracy_with"] == training["accuracy_without"] > 0.5


def test_every_use_is_in_the_record(shown: Shown) -> None:
    figures = shown[0]
    assert figures["cost"]["events"] == figures["training"]["epochs"] * figures["data"]["train"]


def test_what_was_planted_is_found_again(shown: Shown) -> None:
    figures = shown[0]
    assert figures["data"]["blanks_dropped"] == BLANKS
    assert figures["data"]["copies_dropped"] == DUPLICATES == figures["contents"]["copies_found"]
    assert figures["contents"]["leaks"] == [figures["contents"]["leak_planted"]]
    assert figures["data"]["late"] == LATE + 1
    assert 0.05 < figures["data"]["labels_flipped"] / figures["data"]["train"] < 0.15


def test_the_histories_run_from_source_to_prediction_and_to_the_drop(shown: Shown) -> None:
    whole, dropped = shown[0]["histories"]
    text = "\n".join(words for _, words in whole["lines"])
    for said in ("flip label", "train", "predict"):
        assert said in text
    assert whole["uses"] == shown[0]["training"]["epochs"]
    assert dropped["uses"] == 0
    assert "drop" in "\n".join(words for _, words in dropped["lines"])


def test_one_wrong_prediction_is_explained_with_pictures(shown: Shown) -> None:
    figures, text, trace = shown
    found, scoring = figures["mistake"], figures["scoring"]
    assert found["mistake"]["label"] != found["mistake"]["said"]
    (toward,) = found["answer"]["toward"]
    assert len(toward["proponents"]) == len(toward["opponents"]) == 5
    assert toward["proponents"][0]["score"] > 0 > toward["opponents"][0]["score"]
    assert len(toward["proponents"][0]["trace"]) == len(found["steps"]) == scoring["states"]
    page = trace.with_suffix(".html").read_text(encoding="utf-8")
    assert page.count("<img") == 11
    for sample in (*toward["proponents"], *toward["opponents"]):
        assert sample["name"] in page
        assert sample["name"] in text
    assert "fidelity not measured" in text
    assert len(toward["baseline"]) == 5
    assert f"For comparison, free: the highest training losses of its class: {toward['baseline'][0]['name']}" in text
    assert "█" in text


def test_every_training_sample_has_a_score_at_every_kept_checkpoint(shown: Shown) -> None:
    scoring = shown[0]["scoring"]
    assert scoring["contributions"] == scoring["states"] * shown[0]["data"]["train"]
    assert scoring["measured_s"] > 0
    assert abs(scoring["measured_b"] / scoring["estimated_b"] - 1) < 0.1


def test_flipped_labels_stand_out_and_the_free_baseline_stands_beside_them(shown: Shown) -> None:
    suspects = shown[0]["suspects"]
    assert suspects["flipped"] == shown[0]["data"]["labels_flipped"]
    for measure in ("self_influence", "mean_loss"):
        assert suspects[measure]["precision"] == pytest.approx(suspects[measure]["found"] / suspects["flipped"])
        assert suspects[measure]["precision"] > 3 * suspects["share"]
        assert suspects[measure]["auc"] > 0.8


def test_both_proofs_are_small_and_hold_offline(shown: Shown) -> None:
    proofs = shown[0]["proofs"]
    assert len(proofs) == 2
    for proof in proofs:
        assert proof["verdict"] == "holds"
        assert 0 < proof["bytes"] < 20_000


def test_seven_lies_are_caught_by_seven_checks(shown: Shown) -> None:
    lies = shown[0]["lies"]
    assert len(lies) == len({lie["check"] for lie in lies}) == 7
    assert all(lie["as_foretold"] and lie["words"] for lie in lies)


def test_the_anchored_head_is_that_of_the_trace(shown: Shown) -> None:
    figures, text, trace = shown
    assert figures["anchor"]["size"] == figures["cost"]["entries"]
    assert (trace / figures["anchor"]["receipt"]).stat().st_size == figures["anchor"]["receipt_b"]
    assert "12. The head anchored in a contract" in text


def test_the_tables_show_the_figures(shown: Shown) -> None:
    figures, text, _ = shown
    assert f"{figures['cost']['events']:,}" in text
    assert f"{figures['training']['accuracy_with']:.4f}" in text
    for lie in figures["lies"]:
        assert lie["check"] in text
    assert "Every claim above was measured in this run, and holds." in text


def test_the_trace_is_kept_where_out_says(shown: Shown) -> None:
    assert (shown[2] / "checkpoint").is_file()


def test_a_claim_that_does_not_hold_is_named(shown: Shown) -> None:
    figures = shown[0]
    broken = figures | {"training": figures["training"] | {"weights_identical": False}}
    assert cnn.failures(broken) == ["the weights are bit-identical with and without fgtrac"]
    lie = figures["lies"][0] | {"as_foretold": False}
    assert cnn.failures(figures | {"lies": [lie, *figures["lies"][1:]]}) == ["every lie is caught by its check"]
    anchor = figures["anchor"] | {"rewritten_root": "00" * 32}
    failed = ["the chain alone refutes the rewriting, with both roots"]
    assert cnn.failures(figures | {"anchor": anchor}) == failed
    assert cnn.failures({name: value for name, value in figures.items() if name != "anchor"}) == []


def test_a_trace_that_exists_already_is_not_overwritten(shown: Shown) -> None:
    with pytest.raises(FileExistsError, match=r"kept\.trace exists already"):
        cnn.run_demo(out=shown[2].with_suffix(""), small=True, key=shown[2].parent / "key.pem")
