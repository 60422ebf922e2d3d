"""The page of samples: its filters and sorts give what the trace has, page by page."""

from __future__ import annotations

import html
import json
import shlex
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

from asgi import App, ask
from fgtrac.api.trace import open_trace
from fgtrac.web.explorer import explorer_app
from fgtrac.web.pages.samples import PAGE_SAMPLES
from fgtrac.web.sample_query import SORTS, USES
from fgtrac.web.thumbnails import Thumbnails
from lives import Life, live, use_excluded_samples
from people_trace import people, record_people
from recorded import Scored
from traces import make_trace


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    return live(tmp_path_factory.mktemp("life"), vault=True)


@pytest.fixture(scope="module")
def app(life: Life) -> App:
    return explorer_app(life.path.parent)


def data(app: App, **query: Any) -> dict[str, Any]:
    got = ask(app, f"/run/run/samples?{urlencode({**query, 'format': 'json'})}")
    assert got.status == 200, got.text
    found: dict[str, Any] = json.loads(got.text)
    return found


def rows(app: App, life: Life, **query: Any) -> list[int | str]:
    """The rows of the samples that are shown, in order; a crop is "crop"."""
    place = {sample.hex(): row for row, sample in enumerate(life.made.ids)}
    return [place.get(one["id"], "crop") for one in data(app, **query)["samples"]]


def test_each_filter_leaves_the_samples_that_it_says(app: App, life: Life) -> None:
    assert sorted(rows(app, life, role="train")) == list(range(12))
    assert rows(app, life, role="none") == ["crop"] * 3
    assert rows(app, life, role="test") == []
    assert sorted(rows(app, life, use="used")) == [0, 1, 2, 3, 6, 9, 10]
    assert sorted(map(str, rows(app, life, use="never", dataset="digits"))) == ["11", "4", "5", "7", "8"]
    assert rows(app, life, dropped="yes") == [5]
    assert rows(app, life, dataset="crops") == ["crop"] * 3
    assert sorted(rows(app, life, text="GITS:1")) == [1, 10, 11]
    assert rows(app, life, text=life.made.ids[4].hex()[:9]) == [4]
    assert rows(app, life, text="'%\"") == []


def test_each_sort_stands_in_its_order(app: App, life: Life) -> None:
    assert rows(app, life, sort="harmful", dataset="digits")[0] == 7
    used = [one["uses"] for one in data(app)["samples"]]
    assert used == sorted(used, reverse=True)
    assert [one["uses"] for one in data(app, sort="least")["samples"]] == sorted(used)
    ids = [one["id"] for one in data(app, sort="id")["samples"]]
    assert ids == sorted(ids)
    first = [one["first_step"] for one in data(app, sort="first", use="used")["samples"]]
    assert first == sorted(first)


def test_suspicion_is_greyed_without_factors_and_ranks_with_them(app: App, tmp_path: Path) -> None:
    assert "no factors" in data(app)["no_suspicion"]
    assert ask(app, "/run/run/samples?sort=suspicion").status == 400
    text = ask(app, "/run/run/samples").text
    assert 'value="suspicion" disabled' in text
    made = Scored(tmp_path, "tracin").seal()
    scored = explorer_app(tmp_path)
    found = data(scored, sort="suspicion")["samples"]
    true = open_trace(made.trace.path).self_influence()
    order = np.argsort(-true.scores, kind="stable")
    mine = {sample.tobytes().hex(): float(score) for sample, score in zip(true.ids, true.scores, strict=True)}
    assert [one["suspicion"] for one in found[: len(order)]] == pytest.approx(true.scores[order].tolist())
    assert all(one["suspicion"] == mine.get(one["id"]) for one in found)
    assert all(one["suspicion"] is None for one in found[len(order) :])


def test_pages_hold_every_sample_once(tmp_path: Path) -> None:
    made = make_trace(tmp_path, samples=150)
    app, seen, at = explorer_app(tmp_path), [], "/run/run/samples?format=json&sort=id"
    while at:
        said = json.loads(ask(app, at).text)
        assert len(said["samples"]) <= PAGE_SAMPLES
        seen += [one["id"] for one in said["samples"]]
        at = said["links"]["next"] and f"{said['links']['next']}&format=json"
    assert seen == sorted(sample.hex() for sample in made.ids)
    assert said["links"]["first"] is not None
    assert ask(app, "/run/run/samples?page=0").status == 400
    beyond = ask(app, "/run/run/samples?page=99")
    assert beyond.status == 400
    assert "page=99: there are 3 pages" in beyond.text


def test_used_perhaps_and_never_are_told_apart_and_count_what_was_made_from_a_sample(tmp_path: Path) -> None:
    life = use_excluded_samples(tmp_path)
    app = explorer_app(tmp_path)
    found = {use: sorted(map(str, rows(app, life, use=use))) for use in USES}
    assert found["used"] == sorted(map(str, [*range(3), *range(4, 10), 11, 12, "crop", "crop", "crop"]))
    assert found["perhaps"] == ["10", "3"]
    assert found["never"] == ["13", "14", "15"]
    grid = ask(app, "/run/run/samples?use=perhaps").text
    assert "0 uses, 1 more perhaps" in grid
    grid = ask(app, f"/run/run/samples?text={life.made.ids[6].hex()}").text
    assert "0 uses; what was made from it was used" in grid
    table = ask(app, f"/run/run/samples?text={life.made.ids[6].hex()}&view=table").text
    assert "<td>was used</td>" in table


def test_the_page_says_what_it_rests_on_and_what_is_not_in_it(tmp_path: Path) -> None:
    made = make_trace(tmp_path, uses=12, seals=(5,), sealed=False)
    made.seal(full=False)
    app, trace = explorer_app(tmp_path), open_trace(made.trace.path)
    said = data(app, use="never")
    assert trace.pending
    assert (said["size"], said["pending"]) == (trace.views().size, trace.pending)
    assert said["rests_on"] == trace.views().rests_on
    text = ask(app, "/run/run/samples?use=never").text
    assert f"up to entry {said['size'] - 1}, " in text
    assert f"{trace.pending} later entries are in no index yet and may have used any of them" in text


@pytest.mark.parametrize("query", [{"role": "train", "use": "used", "sort": "first"}, {"dataset": "crops"}])
def test_the_command_gives_the_same_samples(app: App, life: Life, query: dict[str, str]) -> None:
    mine = [row["id"] for row in open_trace(life.path).views().query(command(app, **query)[3])]
    assert mine == [one["id"] for one in data(app, **query)["samples"]]


def test_quotes_stay_in_their_place_in_the_command(app: App) -> None:
    said = command(app, dataset="it's", text="a' or '1'='1")
    assert said[:2] == ["fgtrac", "sql"]
    assert "dataset = 'it''s'" in said[3]
    assert "starts_with(id, 'a'' or ''1''=''1')" in said[3]


def test_names_and_texts_of_other_people_are_shown_as_text_and_cut(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    keys = [bad, "x" * 1_000_000, *(f"{row}\u202e<b>" for row in range(6))]
    record_people(tmp_path, "public", key=keys)
    app = explorer_app(tmp_path, given=Thumbnails({"people": dict.fromkeys(keys, (bad + "y" * 10000000, bad))}))
    said = data(app)
    pages = [ask(app, f"/run/run/samples?view={view}") for view in ("grid", "table")]
    pages += [ask(app, f"/run/run/sample/{one['id']}") for one in said["samples"]]
    assert len(json.dumps(said)) < 100_000
    for got in pages:
        assert got.status == 200
        assert len(got.body) < 100_000
        assert not any(text in got.text for text in ("<script>alert", "<img src=x", "\u202e", "<b>"))
    assert data(app, text="<SCRIPT>")["count"] == 1


def test_tables_that_are_not_there_yet_are_worked_out_beside_the_page(tmp_path: Path) -> None:
    record_people(tmp_path, "public")
    app = explorer_app(tmp_path)
    text = ask(app, "/run/run/samples").text
    assert "people:0" in text or "The tables are being worked out" in text
    assert data(app)["count"] == 8
    assert "people:0" in ask(app, "/run/run/samples").text


def command(app: App, **query: str) -> list[str]:
    """The words of the command that the page shows."""
    text = ask(app, f"/run/run/samples?{urlencode(query)}").text
    return shlex.split(html.unescape(text.partition('data-copy="')[2].partition('"')[0]))


@pytest.mark.parametrize(
    "query", ["role=king", "use=x", "dropped=maybe", "sort=price", "subject=ann", "text=" + "x" * 300]
)
def test_a_filter_that_says_nothing_is_refused(app: App, query: str) -> None:
    assert ask(app, f"/run/run/samples?{query}").status == 400


def test_subjects_are_asked_for_by_pseudonym(tmp_path: Path) -> None:
    record_people(tmp_path, "subject")
    app = explorer_app(tmp_path, given=Thumbnails({"people": people()}))
    (subject,) = {one["subject"] for one in data(app, text="people:3")["samples"]}
    (found,) = data(app, subject=subject[:16])["samples"]
    assert found["name"] == "people:3"
    assert found["thumbnail"]["check"] == "matches"
    grid = ask(app, "/run/run/samples").text
    assert grid.count("thumbnail.png") == 8
    assert grid.count("as recorded") == 8
    assert ask(app, "/run/run/samples?view=table").text.count('scope="row"') == 8


def test_every_sort_has_a_name() -> None:
    assert all(called for called, _ in SORTS.values())


def test_slow_data_hold_no_page_up(tmp_path: Path) -> None:
    record_people(tmp_path, "public")

    class Slow:
        def __len__(self) -> int:
            return 8

        def __getitem__(self, row: int) -> object:
            time.sleep(0.2)
            return [1, 2]

    app = explorer_app(tmp_path, given=Thumbnails({"people": Slow()}, wait_s=0.1))
    data(explorer_app(tmp_path))  # builds the tables
    start = time.perf_counter()
    assert {one["thumbnail"] and one["thumbnail"]["kind"] for one in data(app)["samples"]} <= {"none", None}
    assert time.perf_counter() - start < 3
