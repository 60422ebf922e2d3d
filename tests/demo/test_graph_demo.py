"""The whole graph demo on the six smallest categories: every claim, and every figure that another one must equal."""

from __future__ import annotations

import io
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fgtrac.api.trace import open_trace
from fgtrac.api.user_functions import load_functions
from fgtrac.cli.main import main
from fgtrac.demo.graph import story
from fgtrac.demo.graph.icons import load_icons
from fgtrac.demo.graph.prepare import NAME
from fgtrac.demo.truth import Told, compare
from fgtrac.web.thumbnails import Thumbnails
from icon_folders import fetched
from json_schemas import check, validator

Shown = tuple[dict[str, Any], str, Path]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    folder = tmp_path_factory.mktemp("demo")
    text, silent = io.StringIO(), io.StringIO()
    figures = story.run_demo(
        out=folder / "kept",
        data_dir=fetched(),
        small=True,
        key=folder / "key.pem",
        console=Console(file=text, width=140, emoji=False),
        progress=Console(file=silent),
    )
    assert silent.getvalue() == "", "progress belongs on a terminal only"
    return figures, text.getvalue(), folder / "kept.trace"


def test_no_claim_fails(shown: Shown) -> None:
    assert shown[0]["failures"] == []
    assert "Every claim above was measured in this run, and holds." in shown[1]


def test_its_figures_are_as_the_schema_of_json_has_them(shown: Shown) -> None:
    check("demo", json.loads(json.dumps(shown[0])))
    for section in ("data", "cost", "verification", "histories", "policies", "leak", "failures"):
        assert not validator("demo").is_valid({name: said for name, said in shown[0].items() if name != section})


def test_the_last_line_shows_the_trace_with_its_pictures(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text, trace = shown
    setting, *words = shlex.split(text.splitlines()[-1].partition(": ")[2])
    monkeypatch.setenv(*setting.split("=", 1))
    assert words[:4] == ["fgtrac", "ui", str(trace), "--with"]
    opened, thumbnails = open_trace(trace), Thumbnails(load_functions(words[4], "render")[0]())
    samples = [one for one in opened.sample_counts() if one["dataset"] == NAME]
    found = [thumbnails.of(opened, bytes.fromhex(one["id"])) for one in samples]
    assert {one.check for one in found} == {"source matches"}, {one.words for one in found}
    assert len(found) == shown[0]["data"]["icons"]
    assert all(one.png is not None and one.label for one in found)


def test_training_is_bit_identical_and_learns(shown: Shown) -> None:
    """On 40 test nodes words alone may be as good: that both are better is claimed where there are enough of them."""
    training = shown[0]["training"]
    assert training["weights_with"] == training["weights_without"]
    assert training["generators_with"] == training["generators_without"]
    assert training["accuracy_with"] == training["accuracy_without"] > 0.8
    assert training["accuracy_with"] > training["alone"]["image"]


def test_the_log_has_every_seed_and_every_neighbour(shown: Shown) -> None:
    figures = shown[0]
    truth = figures["truth"]
    assert truth["updates"] == figures["training"]["steps"]
    assert truth["samples"] == figures["data"]["icons"]
    assert truth["updates_that_differ"] == truth["samples_that_differ"] == truth["histories_that_differ"] == 0
    assert truth["uses"] == figures["training"]["epochs"] * figures["data"]["train"]
    assert figures["cost"]["neighbours"] == truth["neighbours"] > 0
    assert figures["cost"]["events"] == truth["uses"] + truth["neighbours"]


def test_a_test_node_was_a_neighbour_and_never_a_seed(shown: Shown) -> None:
    trained, held_out = shown[0]["histories"]
    assert trained["counted"][0] == shown[0]["training"]["epochs"]
    assert held_out["counted"][0] == 0
    assert sum(held_out["counted"]) > 0
    assert "never a seed" in held_out["text"]
    assert "fit the vocabulary" in trained["text"]
    assert "fit the vocabulary" not in held_out["text"]


def test_every_kept_checkpoint_has_scores_and_modality_weights(shown: Shown) -> None:
    figures = shown[0]
    states = figures["scoring"]["states"]
    assert states == len(figures["attention"]["mean"]) == len(figures["mistake"]["steps"])
    assert figures["scoring"]["contributions"] == states * figures["data"]["train"]
    assert figures["attention"]["mean"][-1]["step"] == figures["training"]["best_step"]
    for one in figures["attention"]["mean"]:
        assert sum(one["weights"]) == pytest.approx(1, abs=1e-5)


def test_one_wrong_prediction_is_explained_twice_and_never_mixed(shown: Shown) -> None:
    figures, text, trace = shown
    found = figures["mistake"]
    assert found["mistake"]["label"] != found["mistake"]["said"]
    (toward,) = found["answer"]["toward"]
    assert len(toward["proponents"]) == len(toward["opponents"]) == 5
    assert toward["proponents"][0]["score"] > 0 > toward["opponents"][0]["score"]
    assert found["messages"]["step"] == figures["training"]["best_step"]
    assert {row["hop"] for row in found["messages"]["rows"]} <= {1, 2, 3}
    assert found["messages"]["caution"] in text
    drawn = [line for line in text.splitlines() if set("▄▀█") & set(line)]
    assert len(drawn) > 6
    assert max(map(len, drawn)) <= 80
    assert trace.with_suffix(".html").read_text(encoding="utf-8").count("<img") == 11


def test_the_owners_answer_has_all_icons(shown: Shown) -> None:
    owner = shown[0]["owner"]
    assert owner["complete"]
    assert f"{owner['icons']} samples" in owner["text"]


def test_proofs_are_small_and_hold_offline(shown: Shown) -> None:
    used, label = shown[0]["proofs"]
    assert used["verdict"] == label["verdict"] == "holds"
    assert "label" in label["claim"]
    assert max(used["bytes"], label["bytes"]) < 20_000


def test_two_equal_sources_are_dropped_before_the_split(shown: Shown) -> None:
    assert shown[0]["data"]["dropped"] == 2
    assert "2 nodes with equal sources were dropped before the split" in shown[1]


def test_the_policies_are_kept_and_the_printed_command_repeats_their_answer(
    shown: Shown, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = (line for line in shown[1].splitlines() if line.startswith("To ask again: "))
    monkeypatch.setattr("sys.argv", shlex.split(command.removeprefix("To ask again: ")))
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    assert "held-out" in capsys.readouterr().out


def test_swapped_hops_are_told_step_by_step(shown: Shown) -> None:
    figures, _, trace = shown
    rows = {name: n for n, name in enumerate(load_icons(fetched(), small=True).names)}
    logged = Told(trace, NAME, rows.__getitem__).updates()
    updates = [logged[step] for step in range(1, figures["training"]["steps"] + 1)]
    swapped = [replace(update, hops=update.hops[::-1]) for update in updates]
    assert compare(trace, NAME, rows.__getitem__, updates)["updates_that_differ"] == 0
    found = compare(trace, NAME, rows.__getitem__, swapped)
    assert found["updates_that_differ"] > 0
    assert found["samples_that_differ"] > 0


def test_one_leaked_label_is_named_with_its_node_and_step(shown: Shown) -> None:
    honest, leak = shown[0]["policies"], shown[0]["leak"]
    assert honest["verdict"] == "holds"
    assert leak["refuted"] == ["held-out"]
    (row,) = leak["violations"]
    assert row["sample"] == leak["sample"]
    assert f"{leak['sample']} in step {row['step']}" in leak["policies"][0]["words"]


def test_a_claim_that_does_not_hold_is_named(shown: Shown) -> None:
    figures = shown[0]
    uses = "the log has every seed and every neighbour that the forward pass received, in each step at each hop"
    broken = figures | {"truth": figures["truth"] | {"updates_that_differ": 1}}
    assert story.failures(broken) == [uses]
    fitted = "the words were fitted on the training nodes and on no others"
    broken = figures | {"data": figures["data"] | {"fitted_on_train": False}}
    assert story.failures(broken) == [fitted]
    broken = figures | {"data": figures["data"] | {"category_words_left": ["game"]}}
    assert story.failures(broken) == ["no word of a category's name is left in tags and words"]
    sources = "no two nodes with a role have equal sources, and the log names those that were dropped"
    broken = figures | {"data": figures["data"] | {"equal_sources_left": 1}}
    assert story.failures(broken) == [sources]
    broken = figures | {"leak": figures["leak"] | {"violations": []}}
    assert story.failures(broken) == ["the leaked label is caught, by its node and its step"]
