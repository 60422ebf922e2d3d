"""`fgtrac report`: one page that needs nothing else, whose numbers are the log's and whose verdict was just found."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas
import pytest

import erasable
import fgtrac
from fgtrac.api.report_figures import read_figures
from fgtrac.web.ai_act import summarize_content
from graph_trace import GraphTrace
from hostile_trace import MARKED, make_hostile_trace
from lives import Life, live, live_on_a_graph, use_excluded_samples
from recounted import Recounted
from softmax_traces import scored_trace as scored
from traces import make_trace


class Page(HTMLParser):
    """A page as a browser's parser finds it: its tags with their attributes, and its visible text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._hidden = 0
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden += tag in ("style", "title")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "title")

    def handle_data(self, data: str) -> None:
        self.text += "" if self._hidden else data + " "


def graph_trace(folder: Path) -> Path:
    made = GraphTrace(folder)
    made.record()
    return made.path


def scored_trace(folder: Path) -> Path:
    return scored(folder).path


def trace_of_people(folder: Path) -> Path:
    return erasable.record(folder)


MAKERS = {
    "a life of everything": lambda folder: live(folder, vault=True).path,
    "keyed ids": lambda folder: live(folder, scheme="keyed").path,
    "a sampled and a whole graph": lambda folder: live_on_a_graph(folder).path,
    "scored": scored_trace,
    "a scored graph": graph_trace,
    "people": trace_of_people,
    "excluded samples used in every way": lambda folder: use_excluded_samples(folder).path,
    "plain": lambda folder: make_trace(folder).trace.path,
}


@pytest.fixture(scope="module", params=MAKERS, ids=lambda name: name.replace(" ", "-"))
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = MAKERS[request.param](tmp_path_factory.mktemp("reported"))
    return made


def test_totals_are_those_of_the_log_counted_sample_by_sample(path: Path) -> None:
    summary, counted = summarize_content(read_figures(fgtrac.open(path)), "not asked"), Recounted(path)
    train = counted.with_role("train")
    subjects = set(counted.subject_of.values())
    erased = {bytes(event["pseudonym"]) for event in counted.of("erasure")}
    told = {"subjects": len(subjects), "erasures": len(erased)}
    assert summary["totals"] == counts_of(counted, counted.samples, train) | told
    for row in summary["data_sets"]:
        mine = counted.in_dataset(row["name"])
        assert {name: row[name] for name in counts_of(counted, mine, train)} == counts_of(counted, mine, train)
        assert row["subjects"] == len({counted.subject_of[sample] for sample in mine & counted.subject_of.keys()})
    for name in counts_of(counted, set(), train):
        assert sum(row[name] for row in summary["data_sets"]) == summary["totals"][name]


def counts_of(counted: Recounted, some: set[bytes], train: set[bytes]) -> dict[str, int]:
    standing = Counter(counted.standing(sample) for sample in some)
    return {
        "samples": len(some),
        "training_samples": len(some & train),
        "samples_used": standing["used"],
        "samples_only_neighbours": standing["as_neighbours"],
        "samples_used_through_others": standing["through"],
        "samples_perhaps_used": standing["in_doubt"],
        "samples_never_used": standing["never"],
        "uses": sum(counted.uses[sample] for sample in some),
        "superseded_uses": sum(counted.superseded[sample] for sample in some),
        "neighbour_uses": sum(counted.neighbours[sample] for sample in some),
        "uses_in_doubt": sum(counted.perhaps[sample] for sample in some),
        "samples_dropped": len(some & counted.dropped),
    }


def test_the_draft_is_the_same_in_every_form_and_none_is_made_of_what_is_refuted(
    path: Path, run, tmp_path: Path
) -> None:
    done = run("report", path, "--json", "--ai-act", tmp_path / "act.json", "-o", tmp_path / "page.html")
    made = (tmp_path / "act.json").exists()
    assert made is (done.json["verdict"] != "refuted")
    assert ("EU AI Act" in Page(tmp_path / "page.html").text) is made
    assert done.json["ai_act"] == (json.loads((tmp_path / "act.json").read_text()) if made else None)
    if made:
        wanted = summarize_content(read_figures(fgtrac.open(path)), done.json["verdict"])
        assert done.json["ai_act"] == json.loads(json.dumps(wanted))


def test_figures_are_those_of_the_log(path: Path, run) -> None:
    figures, counted = run("report", path, "--json").json["figures"], Recounted(path)
    said = {words: part["samples"] for words, part in figures["roles"].items()}
    order = ("train", "validation", "test", "excluded")
    wanted = Counter(
        ", ".join(role for role in order if role in counted.roles.get(sample, ())) or "no role"
        for sample in counted.samples
    )
    assert said == wanted
    assert sum(epoch["uses"] for epoch in figures["epochs"]) == counted.uses.total()
    spread: Counter[int] = Counter()
    for sample in counted.with_role("train"):
        spread[counted.uses[sample]] += 1
    told = {int(bar["uses"]): bar["samples"] for bar in figures["uses_of_training"] if "–" not in bar["uses"]}
    assert {uses: n for uses, n in told.items() if n} == {uses: n for uses, n in spread.items() if uses in told}
    assert sum(bar["samples"] for bar in figures["uses_of_training"]) == len(counted.with_role("train"))
    assert figures["entries"] == Counter(event["kind"] for event in counted.events)
    of_subjects = Counter(counted.subject_of.values())
    top = {row["pseudonym"]: row["samples"] for row in figures["subjects"]["top"]}
    assert top == {who.hex(): n for who, n in of_subjects.items()}


def test_the_page_needs_nothing_else_and_runs_nothing(path: Path, run, tmp_path: Path) -> None:
    done = run("report", path, "-o", tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert done.code in (1, 3)  # the user has no key; one of the traces breaks a rule
    names = [tag for tag, _ in page.tags]
    assert not {"script", "img", "link", "iframe", "object", "form", "base"} & set(names)
    for _tag, attributes in page.tags:
        assert not any(name == "style" or name.startswith("on") for name in attributes)
        assert all(not str(attributes.get(name, "#")).strip() or str(attributes.get(name, "#"))[0] == "#"
                   for name in ("href", "src", "action"))  # fmt: skip
    style = re.findall("<style>(.*?)</style>", page.source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "url(" not in style[0]
    assert "@import" not in style[0]
    assert names.count("h1") == 1
    assert [t for t in names if t in ("h1", "h2")][:2] == ["h1", "h2"]


def test_the_verdict_comes_first_and_is_the_one_that_verify_gives(path: Path, run, tmp_path: Path) -> None:
    verified = run("verify", path, "--json")
    done = run("report", path, "-o", tmp_path / "page.html", "--json")
    assert done.code == verified.code
    assert (done.json["verdict"], done.json["findings"]) == (verified.json["verdict"], verified.json["findings"])
    text = Page(tmp_path / "page.html").text
    first = min(text.find(word) for word in ("holds", "refuted", "cannot tell") if word in text)
    assert text.startswith(verified.json["verdict"], first)
    assert first < text.index("At a glance")


def test_with_the_key_an_intact_trace_is_green(life: Life, run, tmp_path: Path) -> None:
    whole = make_trace(tmp_path / "whole")
    done = run("report", whole.trace.path, "-o", tmp_path / "page.html", "--key", whole.verifier.public_key.hex())
    assert done.code == 0
    assert 'class="verdict fg-verdict fg-holds"' in (tmp_path / "page.html").read_text()


def test_a_tampered_trace_is_red_and_its_figures_are_withheld(life: Life, run, tmp_path: Path) -> None:
    bundle = next((life.path / "tile/entries").rglob("*.p/*"))
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    done = run("report", life.path, "-o", tmp_path / "page.html", "--json")
    assert done.code == 1
    page = Page(tmp_path / "page.html")
    assert 'class="verdict fg-verdict fg-refuted"' in page.source
    assert "fg-holds" not in page.source.partition("</section>")[0].partition("<body>")[2]
    assert done.json["figures"] is None
    assert "No figures are given: the trace cannot be read as it was sealed" in page.text
    assert "AI Act" not in page.text
    assert str(tmp_path) not in page.source


def test_a_trace_that_nobody_sealed_is_said_to_be_unsealed(run, tmp_path: Path) -> None:
    made = make_trace(tmp_path / "trace", sealed=False)
    done = run("report", made.trace.path, "-o", tmp_path / "page.html", "--ai-act", tmp_path / "act.json")
    assert done.code == 3
    page = Page(tmp_path / "page.html")
    assert "nothing was fully sealed" in page.text
    assert str(tmp_path) not in page.source
    assert not (tmp_path / "act.json").exists()
    assert "no draft for the AI Act" in done.out


def test_without_factors_the_report_says_what_is_missing(life: Life, run, tmp_path: Path) -> None:
    run("report", life.path, "-o", tmp_path / "page.html")
    text = Page(tmp_path / "page.html").text
    assert "No training sample was scored: " in text
    assert "Contributions in the log" in text  # one was recorded by hand


def test_the_strongest_are_those_that_explain_names(run, tmp_path: Path) -> None:
    path = scored_trace(tmp_path)
    toward = fgtrac.open(path).explain("role:validation", k=10).toward[0]
    said = run("report", path, "--json", "-o", tmp_path / "page.html").json["contributions"]["toward"][0]
    assert said == toward.as_json()
    assert "fidelity not measured" in Page(tmp_path / "page.html").text


def test_samples_are_called_by_their_names_only_where_that_is_asked_for(run, tmp_path: Path) -> None:
    path = trace_of_people(tmp_path)
    for options, shown in (((), False), (("--names",), True)):
        run("report", path, "-o", tmp_path / "page.html", "--force", *options)
        assert ("-of-somebody.png" in Page(tmp_path / "page.html").text) is shown
    source = (tmp_path / "page.html").read_text()
    assert erasable.ANN not in source


@pytest.mark.filterwarnings("ignore:.*")
def test_hostile_names_are_text(run, tmp_path: Path) -> None:
    path = make_hostile_trace(tmp_path)
    run("report", path, "-o", tmp_path / "page.html", "--names")
    page = Page(tmp_path / "page.html")
    assert MARKED in page.text
    assert not {"script", "img", "iframe"} & {tag for tag, _ in page.tags}
    assert not any(MARKED in f"{name}{value}" for _, a in page.tags for name, value in a.items() if name != "id")
    assert not re.search("[\x00\x08\x1b\x85\u2028\u202e\u2066\u200b]", page.source)
    assert len(page.source) < 1_000_000  # of a name of 10 MB the beginning


def test_a_report_needs_no_library_beyond_the_auditor_s(tmp_path: Path) -> None:
    extras = "jinja2 starlette uvicorn pyarrow duckdb pandas polars torch safetensors prov mlflow"
    code = (
        f"import sys; sys.modules |= dict.fromkeys({extras!r}.split()); from fgtrac.cli.main import main; "
        f"sys.argv = ['fgtrac', 'report', {str(scored_trace(tmp_path))!r}, '--key', '00' * 32]; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")  # signed by another key
    assert "Strongest toward all validation samples" in Page(tmp_path / "run.report.html").text


def test_it_replaces_no_file_unless_told_to(life: Life, run, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("mine")
    done = run("report", life.path, "-o", tmp_path / "page.html")
    assert (done.code, (tmp_path / "page.html").read_text()) == (2, "mine")
    assert run("report", life.path, "-o", tmp_path / "nowhere/page.html").code == 2
    assert run("report", life.path, "-o", tmp_path / "page.html", "--force").code == 3
    assert run("report", tmp_path / "no.trace").code == 2


def test_without_a_place_the_page_lies_beside_the_trace(life: Life, run) -> None:
    done = run("report", life.path)
    assert str(life.path.with_name("run.report.html")) in done.out
    assert run("report", life.path, "--json").json["files"] == []


def test_a_draft_never_says_that_anything_is_met(run, tmp_path: Path) -> None:
    summary: dict[str, Any] = run("report", live(tmp_path).path, "--json").json["ai_act"]
    assert "does not say whether" in summary["caution"]
    fields = [field for section in summary["sections"] for part in section["parts"] for field in part["fields"]]
    assert all(field["open"] == "to be filled by the provider" for field in fields)
    assert not re.search(r"complian(t|ce)|complies|conform", json.dumps(summary["sections"]))


def said_of(summary: dict[str, Any], title: str) -> str:
    """What the log says in the field of the draft whose title begins so."""
    fields = [field for section in summary["sections"] for part in section["parts"] for field in part["fields"]]
    return next(field["log"] for field in fields if field["title"].startswith(title))


def test_a_draft_has_the_head_of_the_template_and_says_when_the_law_was_looked_up(run, tmp_path: Path) -> None:
    life = live(tmp_path)
    summary = run("report", life.path, "--json", "-o", tmp_path / "page.html").json["ai_act"]
    first = summary["sections"][0]["parts"][0]["fields"]
    assert [field["title"] for field in first] == ["Version of the Summary", "Last update"]
    newest = fgtrac.open(life.path).sql("SELECT max(time) AS newest FROM entries").rows[0]["newest"]
    assert f"is of {newest:%Y-%m-%d}," in first[1]["log"]
    text = " ".join(Page(tmp_path / "page.html").text.split())
    assert f"this was looked up on {summary['about']['looked_up']}" in text
    assert "Article 113, third paragraph, point (b)" in text
    assert "stage operation of data set into kept dropped made" in text
    assert summary["totals"]["samples_dropped"] == 1
    assert "of these, stages dropped 1. Of all samples, stages dropped 1." in said_of(summary, "Training data size")


def test_excluded_samples_are_counted_as_the_check_of_policies_counts_them(run, tmp_path: Path) -> None:
    path = use_excluded_samples(tmp_path).path
    (tmp_path / "excluded.toml").write_text(
        'format = "fgtrac-policies/v1"\n[held-out]\nroles = ["excluded"]\n[held-out-features]\non = true\n'
    )
    broken = run("check", path, "--policy", tmp_path / "excluded.toml", "--json").json["violations"]
    seeds, beside = ([one for one in broken if one["policy"] == name] for name in ("held-out", "held-out-features"))
    report = run("report", path, "--json", "-o", tmp_path / "page.html").json
    assert report["figures"]["held"]["excluded"] == {
        "samples": 8, "made": 2, "uses": len(seeds), "superseded": sum(one["superseded"] for one in seeds),
        "perhaps": 1, "neighbours": len(beside), "far": 1,
    }  # fmt: skip
    assert (len(seeds), len(beside)) == (5, 3)
    wanted = (
        "8 samples have the role excluded, and 2 more were made from them: of all these the log records 5 uses, 2 of "
        "them in updates that a resume undid, and 3 as neighbours (1 of these out of the seeds' reach); perhaps 1 "
        "more, by batches that held another number of samples than were drawn."
    )
    assert said_of(report["ai_act"], "Measures implemented before").startswith(wanted)
    assert wanted in Page(tmp_path / "page.html").text.replace("\n", " ")


def test_who_is_perhaps_used_or_through_others_is_not_said_to_be_never_used(run, tmp_path: Path) -> None:
    done = run("report", use_excluded_samples(tmp_path).path, "--json", "-o", tmp_path / "page.html")
    train = done.json["figures"]["training"]
    words = ("used", "as_neighbours", "through", "in_doubt", "never")
    assert [train[name] for name in words] == [6, 2, 3, 2, 3]
    said = said_of(done.json["ai_act"], "Training data size")
    assert "3 others were not, and what was made from them was; 2 others perhaps were" in said
    text = " ".join(Page(tmp_path / "page.html").text.split())
    assert "train, excluded 8 3 2 2 1 0" in text
    assert "How often a training sample itself was used for certain" in text
    assert re.search(r"Uses by epoch .*\bperhaps\b", text)


def test_training_samples_that_were_made_date_from_what_they_were_made_of(run, tmp_path: Path) -> None:
    frame = pandas.DataFrame({"id": list("abcd"), "text": ["ab", "cd", "ef", "gh"]})
    with fgtrac.start_run(tmp_path / "run", key=tmp_path / "key.pem") as recording:
        recording.register(frame, name="docs")
        made = recording.transform("letters", frame).tokenise(list, "text", size=2)
        rows = made["tokens"].tolist()
        recording.register(rows, role="train", rows=made)
    summary = summarize_content(read_figures(fgtrac.open(tmp_path / "run.trace")), "not asked")
    assert summary["totals"]["training_samples"] == 4
    said = said_of(summary, "Latest date of data acquisition")
    assert re.fullmatch(r"What the training samples are, or were made from .* were registered by \d{4}-.*", said)


def test_without_the_vault_the_draft_says_that_nobody_may_count_as_a_subject(run, tmp_path: Path) -> None:
    data = [(0.0, 0)] * 4
    with fgtrac.start_run(tmp_path / "run", key=tmp_path / "key.pem") as recording:
        recording.register(data, name="people", role="train", subject=["Ann", "Ann", "Bob", None])
    path = tmp_path / "run.trace"
    summary = summarize_content(read_figures(fgtrac.open(path)), "not asked")
    assert (summary["totals"]["subjects"], summary["notes"]) == (2, [])
    assert "vault" not in said_of(summary, "Whether data from user interactions")
    (tmp_path / "run.vault").unlink()
    summary = run("report", path, "--json", "-o", tmp_path / "page.html").json["ai_act"]
    assert summary["totals"]["subjects"] == 3
    assert "count as one subject more" in summary["notes"][0]
    assert summary["notes"][0] in said_of(summary, "Whether data from user interactions")
    assert Page(tmp_path / "page.html").text.count(summary["notes"][0]) >= 3
