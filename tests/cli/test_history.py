"""`fgtrac history` and `show` of graphs and of subjects: words, JSON and exit codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fgtrac
import graph_lives
from fgtrac.commit.sequencer import last_seqs
from graph_lives import GraphLife, graph_life
from traces import Writing, start_trace


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


def test_names_from_the_log_end_no_line_and_move_no_cursor(tmp_path: Path, run, monkeypatch) -> None:
    owner = "ada\n  erased: the key of this subject was destroyed (entry 9)\x1b[2J"
    monkeypatch.setattr(graph_lives, "OWNERS", (owner, "bob", 7))
    monkeypatch.setattr(graph_lives, "MODALITIES", ("image\x1b[31m", "words\n  entry       5  erased"))
    life = graph_life(tmp_path, epochs=12)
    answers = [run("history", life.path, "--subject", life.pseudonyms[owner].hex()), run("show", life.path)]
    answers += [run("history", life.path, "icons:0", *options) for options in ((), ("--all",))]
    for done in answers:
        assert done.code == 0
        assert "\x1b" not in done.out
        assert not any(line.strip().startswith(("erased", "entry       5  erased")) for line in done.out.splitlines())
    assert r"subject ada\n  erased: the key of this subject was destroyed (entry 9)\x1b[2J (pseudonym" in answers[0].out
    assert all(r"image\x1b[31m" in done.out for done in answers[1:])
    for weights in fgtrac.open(life.path).modality_weights():
        assert str(weights).isprintable()
    missing = run("history", life.path, "icons:7\x1b[31m")
    assert (missing.code, "\x1b" in missing.err) == (2, False)


def test_a_subject_has_no_details_to_read(life: GraphLife, run) -> None:
    for option in ("--details", "--no-details"):
        done = run("history", life.path, "--subject", "ada", option)
        assert (done.code, done.out) == (2, "")
        assert "leave them out with --subject" in done.err


def test_a_subject_of_digits_is_said_to_be_a_number_or_a_text(life: GraphLife, run) -> None:
    assert run("history", life.path, "--subject", "7").out.startswith("subject 7, a number (pseudonym ")
    assert run("history", life.path, "--subject", "7", "--json").json["subject"] == 7


@pytest.mark.parametrize("name", ["file:PATH", "row:PATH:0"])
def test_a_content_has_no_history_and_prove_is_named(life: GraphLife, run, tmp_path: Path, name: str) -> None:
    """Which of several id schemes' digests it has, no look-up of samples tells: it would deny what is registered."""
    np.save(tmp_path / "rows.npy", np.zeros((2, 3), np.float32))
    named = name.replace("PATH", str(tmp_path / "rows.npy"))
    done = run("history", life.path, named)
    assert (done.code, done.out) == (2, "")
    assert "names a content, and not a sample; fgtrac prove" in done.err
    with pytest.raises(ValueError, match="names a content, and not a sample"):
        fgtrac.open(life.path).modality_weights(named)


def test_show_says_which_checkpoints_a_resumed_run_left_behind(run, tmp_path: Path) -> None:
    made, first = start_trace(tmp_path, samples=4)
    for step in (1, 2, 3):
        first.recorder.record("checkpoint", {"step": step, "kept": True, "rule": "kept: every"})
    first.recorder.close()
    made.seal(full=False)
    second = Writing(made, bytes((2,)) * 16)
    writers = [list(pair) for pair in sorted(last_seqs(made.trace).items())]
    second.recorder.record("resume", {"writers": writers, "step": 1})
    second.recorder.record("checkpoint", {"step": 2, "kept": True, "rule": "kept: every"})
    second.end()
    made.seal()
    rows = run("show", made.trace.path, "--json").json["checkpoints"]
    assert [(row["step"], row.get("superseded")) for row in rows] == [(1, None), (2, True), (3, True), (2, None)]
    assert "superseded" in run("show", made.trace.path).out


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
