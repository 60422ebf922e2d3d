"""`fgtrac history` and `show` of graphs and of subjects: words, JSON and exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

import fgtrac
from graph_lives import GraphLife, graph_life


@pytest.fixture
def life(tmp_path: Path) -> GraphLife:
    return graph_life(tmp_path, epochs=12, graph=("sampled", "whole"))


def test_a_nodes_long_history_is_readable_and_whole_on_request(life: GraphLife, run) -> None:
    short, every = run("history", life.path, "icons:11"), run("history", life.path, "icons:11", "--all")
    assert (short.code, every.code) == (0, 0)
    assert len(short.out.splitlines()) < 60
    assert "hop 3, beyond reach" in short.out
    said = run("history", life.path, "icons:11", "--json").json
    lines = [line for line in every.out.splitlines() if line.startswith("  entry")]
    assert len(lines) == len(said["events"])
    assert said["summary"]["neighbour"] == sum(event["kind"] == "neighbour" for event in said["events"])
    assert said["summary"]["drawn"][1]["graph"] == "whole"


def test_a_subjects_samples_are_told_by_name_and_by_pseudonym(life: GraphLife, run) -> None:
    done = run("history", life.path, "--subject", "ada")
    assert (done.code, done.out.count("icons:")) == (0, 4)
    assert done.out.startswith(f"subject ada (pseudonym {life.pseudonyms['ada'].hex()}): 4 samples")
    by_name = run("history", life.path, "--subject", "7", "--json").json
    by_pseudonym = run("history", life.path, "--subject", life.pseudonyms[7].hex(), "--json").json
    assert by_name == by_pseudonym
    assert {sample["name"] for sample in by_name["samples"]} == {f"icons:{node}" for node in life.owned(7)}


def test_an_unknown_subject_ends_with_2_and_one_that_may_be_erased_with_3(life: GraphLife, run, tmp_path: Path) -> None:
    unknown = run("history", life.path, "--subject", "carol")
    assert (unknown.code, unknown.out) == (2, "")
    assert "registers no sample of a subject 'carol'" in unknown.err
    fgtrac.erase(life.path, subject="ada", key=tmp_path / "key.pem")
    done = run("history", life.path, "--subject", "ada", "--json")
    assert (done.code, done.json["verdict"], done.json["subject"]) == (3, "cannot tell", "ada")
    assert done.err.startswith("fgtrac: cannot tell: run.vault has no key of a subject 'ada'")
    by_pseudonym = run("history", life.path, "--subject", life.pseudonyms["ada"].hex())
    assert by_pseudonym.code == 0
    assert "erased: the key of this subject was destroyed" in by_pseudonym.out


def test_a_sample_and_a_subject_are_two_questions(life: GraphLife, run) -> None:
    both, neither = run("history", life.path, "icons:1", "--subject", "ada"), run("history", life.path)
    assert (both.code, neither.code) == (2, 2)
    assert "two questions" in both.err
    assert "Missing argument 'sample'" in neither.err


def test_show_counts_seeds_neighbours_and_weights(life: GraphLife, run) -> None:
    said = run("show", life.path, "--json").json
    assert said["uses"] == sum(len(update.seeds) for update in life.updates)
    for row in said["neighbours"]:
        mine = [u.hops[row["hop"] - 1] for u in life.updates if u.graph == row["graph"]]
        assert (row["count"], row["beyond_reach"]) == (sum(map(len, mine)), (row["graph"], row["hop"]) == ("whole", 3))
    assert [(row["graph"], row["hop"]) for row in said["neighbours"]] == [
        ("sampled", 1), ("sampled", 2), ("whole", 1), ("whole", 2), ("whole", 3)
    ]  # fmt: skip
    assert said["attention"][0] == {"step": 2, "modalities": "image, words", "samples": 12}
    assert len(said["attention"]) == 24
    assert "(of graphs: as seeds)" in run("show", life.path).out
