"""The page of a sample, the way to it, and the proofs that it hands out: what they say is what happened."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from torch.utils.data import TensorDataset

import fgtrac
from asgi import App, Response, ask
from fgtrac.api.erase import erase
from fgtrac.api.trace import open_trace
from fgtrac.api.trust import trusted_verifier
from fgtrac.verify.bundle import parse_bundle
from fgtrac.verify.claims import check_bundle
from fgtrac.verify.report import Verdict
from fgtrac.web.explorer import explorer_app
from fgtrac.web.templating import _sentences
from fgtrac.web.thumbnails import Thumbnails
from graph_lives import graph_life
from lives import Life, batch, live, use_excluded_samples
from people_trace import PEOPLE, people, record_people
from traces import start_trace

CLAIMS = {"used": ["used", "history"], "never": ["history", "never used", "label never used"]}


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    return live(tmp_path_factory.mktemp("life"), vault=True)


@pytest.fixture(scope="module")
def app(life: Life) -> App:
    return explorer_app(life.path.parent)


def page(app: App, sample_id: bytes | str, more: str = "") -> Response:
    digits = sample_id if isinstance(sample_id, str) else sample_id.hex()
    return ask(app, f"/run/run/sample/{digits}{more}")


def data(app: App, sample_id: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page(app, sample_id, "?format=json").text)
    return found


def test_it_tells_what_happened_to_a_sample(app: App, life: Life) -> None:
    said = data(app, life.made.ids[0])
    assert (said["name"], said["datasets"], said["roles"]) == ("digits:0", ["digits"], ["train"])
    assert said["uses"]["all"] == 2
    assert sum(row["seed"] for row in said["uses"]["epochs"]) == 2
    assert said["kept"]["checkpoints"] == [2]
    assert {one["id"] for one in said["family"]["descendants"]} == {crop.hex() for crop in life.crops}
    assert [one["id"] for one in said["same_content"]] == [life.made.ids[1].hex()]
    assert [event["kind"] for event in said["events"]].count("used") == 2


def test_it_tells_contributions_and_predictions(app: App, life: Life) -> None:
    (toward,) = data(app, life.made.ids[7])["contributions"]
    assert toward == {"target": "validation", "method": "tracin", "sum": -0.5, "scores": [[2, -0.5]]}
    assert len(data(app, life.made.ids[2])["predictions"]) == 1
    assert "raised the loss" in page(app, life.made.ids[7]).text
    assert "The log records none for this sample" in page(app, life.made.ids[8]).text


def test_lists_that_are_cut_say_how_many_there_are(tmp_path: Path) -> None:
    document = pandas.DataFrame({"id": ["a"], "text": ["x" * 480]})
    with fgtrac.start_run(tmp_path / "run", key=tmp_path / "key.pem", ids="public") as run:
        run.register(TensorDataset(torch.ones(30, 4)), name="equal")
        run.register(document, name="docs")
        run.transform("pieces", document).tokenise(list, "text", size=4)
    app, rows = explorer_app(tmp_path), open_trace(tmp_path / "run.trace").sql("SELECT dataset, id FROM samples").rows
    of = {row["dataset"]: row["id"] for row in rows}
    said = json.loads(page(app, of["equal"], "?format=json").text)
    assert (len(said["same_content"]), said["same_content_in_all"]) == (20, 29)
    assert " and 9 more.</p>" in page(app, of["equal"]).text
    text = page(app, of["docs"]).text
    assert text.count("<td>made from it") == 100
    assert "the nearest 100 on each side; there are more: 0 and 120 in all" in text


def test_uses_of_what_was_made_from_a_sample_stand_beside_its_own(tmp_path: Path) -> None:
    life = use_excluded_samples(tmp_path)
    assert "in 0 updates; what was made from it 1 times</dd>" in page(explorer_app(tmp_path), life.made.ids[6]).text


def test_of_many_predictions_the_last_are_told(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    batch(writing, 1, [0], 1)
    state = list(writing.recorder.record("checkpoint", {"step": 1, "kept": True, "rule": "kept: the first"}))
    asked = {"checkpoint": state, "step": 1, "block": writing.block, "ordinals": writing.placement.ordinals[[0]]}
    for number in range(510):
        writing.recorder.record("prediction", asked | {"losses": np.array([number], "<f4")})
    writing.end()
    made.seal()
    app = explorer_app(tmp_path)
    said = data(app, made.ids[0])
    assert (len(said["predictions"]), said["predictions_in_all"]) == (500, 510)
    shown = page(app, made.ids[0]).text.partition('id="predictions"')[2].partition("</section>")[0]
    assert "the last 100 of 510" in shown
    entries = [int(number) for number in re.findall(r"log/entry/(\d+)", shown)]
    assert (len(entries), entries[-1]) == (100, said["predictions"][-1]["entry"])
    assert entries[-1] == said["predictions"][0]["entry"] + 499


@pytest.mark.parametrize(("row", "claims"), [(0, CLAIMS["used"]), (7, CLAIMS["never"]), (11, CLAIMS["never"])])
def test_the_proofs_that_are_offered_are_those_that_are_true(app: App, life: Life, row: int, claims: list[str]) -> None:
    sample, verifier = life.made.ids[row], life.made.verifier
    assert [offer["claim"] for offer in data(app, sample)["offers"]] == claims
    for claim in claims:
        for named in ("", "&named=yes"):
            got = page(app, sample, f"/proof?claim={claim.replace(' ', '%20')}{named}")
            assert got.headers["content-disposition"].startswith('attachment; filename="')
            bundle = parse_bundle(got.body)
            assert check_bundle(bundle, verifier).verdict == Verdict.HOLDS
            assert (bundle.preimage is not None) == bool(named)
    wrong = page(app, sample, f"/proof?claim={'never%20used' if row == 0 else 'used'}")
    assert wrong.status == 400
    assert "is not true of" in wrong.text


def test_a_graphs_node_has_its_hops_apart_and_its_weights(tmp_path: Path) -> None:
    made = graph_life(tmp_path).made
    app = explorer_app(tmp_path)
    hops, weighed = set(), 0
    for sample in made.ids:
        said = data(app, sample)
        hops |= {hop for row in said["uses"]["epochs"] for hop in row["neighbour"]}
        weighed += bool(said["attention"])
        text = page(app, sample).text
        seeds, beside = said["uses"]["all"], said["uses"]["neighbour"]
        words = f"in {seeds + beside} updates, {beside} of them as a neighbour, with its features alone, and {seeds} as"
        assert (words in text) == (beside > 0)
        assert ("neighbour, hop 1" in text) == any("1" in row["neighbour"] for row in said["uses"]["epochs"])
    assert hops >= {"1", "2"}
    assert weighed == len(made.ids)
    assert "Modality weights" in text


def test_what_a_proof_says_stands_there_whole(tmp_path: Path) -> None:
    made = graph_life(tmp_path, epochs=20).made
    app, longest = explorer_app(tmp_path), 0
    for sample in made.ids:
        text = html.unescape(page(app, sample).text)
        for offer in data(app, sample)["offers"]:
            longest = max(longest, len(offer["words"]))
            assert offer["words"] in text
    assert longest > 400  # what was cut before, in the middle of a digest
    assert _sentences("One. Two is longer. Three", 10) == "One. …"
    assert _sentences("One. Two", 10) == "One. Two"
    assert _sentences("No end of it at all", 10) == "No end of …"


def test_every_chart_has_its_table(app: App, life: Life) -> None:
    text = page(app, life.made.ids[7]).text
    assert text.count('class="fg-chart"') == 3
    assert len(re.findall(r"<summary>As a table</summary>", text)) == 2
    assert text.count("<h1>") == 1
    assert all('scope="' in head for head in re.findall(r"<th\b[^>]*>", text))


def test_a_signature_that_was_not_checked_is_no_green(app: App, life: Life, tmp_path: Path) -> None:
    assert data(app, life.made.ids[0])["signature"]["verdict"] == "cannot tell"
    path = record_people(tmp_path, "public")
    mine = explorer_app(tmp_path, key=str(tmp_path / "key.pem"))
    said = data(mine, open_trace(path).find("people:0").id)
    assert said["signature"] == {"verdict": "holds", "words": "as signed with the key in key.pem"}
    assert [offer["verdict"] for offer in said["offers"]] == ["holds", "holds"]
    verifier, _ = trusted_verifier(str(tmp_path / "key.pem"), open_trace(path).id)
    assert check_bundle(parse_bundle(page(mine, said["id"], "/proof").body), verifier).verdict == Verdict.HOLDS


def test_an_erased_subject_has_its_ids_and_no_name(tmp_path: Path) -> None:
    path = record_people(tmp_path, "subject")
    mine = open_trace(path).find("people:0").id
    erase(path, subject=PEOPLE[0], key=tmp_path / "key.pem")
    app = explorer_app(tmp_path, given=Thumbnails({"people": people()}))
    said = data(app, mine)
    assert (said["erased"], said["name"], said["uses"]["all"]) == (True, None, 2)
    assert said["thumbnail"]["kind"] == "none"
    assert "no name of this sample is known here" in said["thumbnail"]["words"]
    assert PEOPLE[0] not in page(app, mine).text


def test_a_picture_is_served_where_data_are_given(tmp_path: Path) -> None:
    path = record_people(tmp_path, "keyed")
    mine = open_trace(path).find("people:1").id
    app = explorer_app(tmp_path, given=Thumbnails({"people": people()}))
    got = page(app, mine, "/thumbnail.png")
    assert (got.status, got.headers["content-type"], got.body[:4]) == (200, "image/png", b"\x89PNG")
    assert "its bytes are those that the log" in page(app, mine).text
    without = page(explorer_app(tmp_path), mine, "/thumbnail.png")
    assert without.status == 404
    assert "--with FILE.py:FUNCTION" in without.text


@pytest.mark.parametrize("text", ["digits:3", "key:3", "3", "{id}", "id:{id}"])
def test_any_form_of_a_name_leads_to_the_sample(app: App, life: Life, text: str) -> None:
    digits = life.made.ids[3].hex()
    got = ask(app, f"/run/run/find?q={text.format(id=digits)}")
    assert (got.status, got.headers["location"].endswith(f"/sample/{digits}")) == (303, True)


@pytest.mark.parametrize("text", ["digits:99", "cat", "%3Cb%3E", "a:b:c", "id:12", "0" * 64, "key:%7B", "x" * 3000])
def test_a_name_that_nothing_has_is_helped(app: App, text: str) -> None:
    got = ask(app, f"/run/run/find?q={text}")
    assert got.status == 404
    assert "How samples are named" in got.text
    assert "<b>" not in got.text
    assert json.loads(ask(app, f"/run/run/find?q={text}&format=json").text)["why"]


def test_an_id_that_is_not_there_is_one_clear_page(app: App) -> None:
    assert page(app, bytes(32)).status == 404
    assert ask(app, "/run/run/sample/zz").headers["location"].endswith("/find?q=zz")
    assert page(app, "zz", "/proof").status == 404


def test_what_is_too_much_to_be_read_is_not_said_to_be_nothing(
    life: Life, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = next(i for i in life.made.ids if json.loads(page(app, i, "?format=json").text)["contributions"])
    monkeypatch.setattr("fgtrac.query.history.READ_ENTRIES", 0)
    data = json.loads(page(app, scored, "?format=json").text)
    assert (data["contributions"], data["unread"]["contribution"] > 0) == ([], True)
    text = page(app, scored).text
    assert "The log records none for this sample" not in text
    assert f"The log has {data['unread']['contribution']} scores of this sample, too many to be read" in text
