"""What notebooks show: the words and numbers of the texts, charts, nothing that runs, and no green where nothing was
checked."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import fgtrac
from fgtrac.drawing.notebook import LONGEST, shown, words
from fgtrac.verify.report import Finding, Report, Verdict
from lives import live

HOSTILE = [f"<script>alert({row})</script><img src=x onerror=alert(1)>\u202e" for row in range(90)]
ELEMENTS = {
    "div",
    "style",
    "p",
    "pre",
    "ul",
    "li",
    "span",
    "strong",
    "table",
    "caption",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
}
SVG = {"svg", "title", "desc", "g", "path", "line", "rect", "text", "circle", "polyline", "tspan"}


class Page(HTMLParser):
    """Reads a display as a browser would: which elements and attributes, and the text that is seen."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self.text, self._inside = "", ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        self.text += "" if self._inside == "style" else data + " "

    def is_safe(self) -> bool:
        names = {tag for tag, _ in self.elements}
        attributes = {name for _, attrs in self.elements for name in attrs}
        return names <= ELEMENTS | SVG and not any(
            a.startswith("on") or a in ("style", "href", "src") for a in attributes
        )


def page(value: Any) -> Page:
    return Page(value._repr_html_())


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> fgtrac.Trace:
    """A scored trace whose keys would run, if they could."""
    folder = tmp_path_factory.mktemp("shown")
    train, validation = points(90, 1), points(20, 2)
    torch.manual_seed(0)
    model = nn.Linear(8, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with fgtrac.start_run(folder / "run", key=folder / "key.pem", keep="all") as run:
        run.register(train, name="points", key=HOSTILE, role="train")
        run.register(validation, name="held out", role="validation")
        run.score_with(loss=nn.CrossEntropyLoss(), train=train, validation=validation)
        loader = run.watch(DataLoader(train, batch_size=30))
        for epoch in range(3):
            for inputs, targets in loader:
                optimizer.zero_grad()
                cross_entropy(model(inputs), targets).backward()
                optimizer.step()
            run.checkpoint(model, optimizer, val_loss=1.0 / (epoch + 1), epoch=epoch)
    return fgtrac.open(folder / "run.trace", key=str(folder / "key.pem"))


def points(rows: int, seed: int) -> TensorDataset:
    inputs = torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(inputs, inputs[:, :3].argmax(1))


def test_a_history_is_its_text_with_charts_above(trace: fgtrac.Trace) -> None:
    history = trace.history(f"points:key:{json.dumps(HOSTILE[0])}")
    found = page(history)
    assert "alert(0)" in str(history)
    assert squeezed(str(history)) in squeezed(found.text)
    titles = [tag for tag, _ in found.elements].count("svg")
    assert titles == 2  # parts by epoch; contributions toward the validation loss
    assert found.is_safe()


def test_an_explanation_has_its_sentence_its_scores_and_its_basis(trace: fgtrac.Trace) -> None:
    explanation = trace.explain("role:validation", k=3)
    found = page(explanation)
    (toward,) = explanation.toward
    for said in (
        toward.sentence,
        explanation.basis,
        *(f"{s.score:+.4g}" for s in (*toward.proponents, *toward.opponents)),
    ):
        assert squeezed(said) in squeezed(found.text)
    assert found.is_safe()
    assert "<script" not in explanation._repr_html_()


@pytest.mark.parametrize("verb", ["suspects", "duplicates", "sample_counts"])
def test_lists_show_what_their_texts_say(trace: fgtrac.Trace, verb: str) -> None:
    answer = getattr(trace, verb)()
    found = page(answer)
    assert found.is_safe()
    if verb != "sample_counts":
        assert squeezed(answer.basis) in squeezed(found.text)
    else:
        assert f"and {len(answer) - 20} more" in found.text
        assert answer[0]["id"] in found.text


def test_tables_and_answers_show_their_first_rows(trace: fgtrac.Trace, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FGTRAC_CACHE", str(tmp_path))
    many, few = page(trace.uses()), page(trace.sql("SELECT '<b>' AS a, 270 AS b, NULL AS c, [1, 2] AS d"))
    assert [tag for tag, _ in many.elements].count("tr") == 21
    assert "270 rows of sample, entry" in many.text
    assert "there are more rows" in many.text
    assert squeezed(few.text).startswith(" a b c d <b> 270 – [1, 2]".lstrip())
    assert "there are more rows" not in few.text
    assert many.is_safe()
    assert few.is_safe()


def test_a_trace_is_never_shown_as_checked(trace: fgtrac.Trace) -> None:
    found = page(trace)
    assert "not checked" in found.text
    assert trace.id.hex() in found.text
    assert not [attrs for _, attrs in found.elements if "fg-holds" in attrs.get("class", "")]
    assert found.is_safe()


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_report_is_green_only_where_everything_holds(verdict: Verdict) -> None:
    report = Report(
        (Finding("tiles", verdict, "<b>all</b>"), Finding("signature", Verdict.HOLDS, "by you")), ("a note",)
    )
    found = page(report)
    kinds = [attrs["class"] for tag, attrs in found.elements if "fg-verdict" in attrs.get("class", "")]
    assert ("fg-holds" in kinds[0]) == (verdict is Verdict.HOLDS)
    assert f" {report.verdict} " in squeezed(found.text)
    assert "<b>all</b>" in found.text  # as text
    assert found.is_safe()


def test_a_report_without_findings_is_not_green() -> None:
    assert "fg-verdict fg-holds" not in Report(())._repr_html_()


def test_a_check_shows_its_first_violations(tmp_path: Path) -> None:
    life = live(tmp_path)
    checked = fgtrac.check(life.path, key=life.made.signer.public_key.hex())
    found = page(checked)
    assert all(finding.words.split("\n")[0][:60] in found.text for finding in checked.report.findings)
    assert found.is_safe()


def test_spikes_are_shown_in_their_words(tmp_path: Path) -> None:
    life = live(tmp_path)
    spikes = fgtrac.open(life.path).spikes()
    assert squeezed(str(spikes)) in squeezed(page(spikes).text)


def test_a_text_without_end_is_cut_and_says_so() -> None:
    found = Page(shown(words("x" * (LONGEST + 5))))
    assert "... 5 more characters" in found.text
    assert Page(shown("<script>1</script>")).is_safe()
