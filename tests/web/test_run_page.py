"""The pages of runs: what they say is what the log says, escaped and bounded, and as new as the newest head."""

from __future__ import annotations

import html
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from asgi import Response, ask
from fgtrac.api.runs import list_runs
from fgtrac.api.summary import summarize
from fgtrac.web import site as site_module
from fgtrac.web.asked import address
from fgtrac.web.explorer import explorer_app
from fgtrac.web.pages.run import MAX_SETTING
from fgtrac.web.run_charts import COLUMNS, TRAIN_LOSS, VALIDATION_LOSS, compared_losses, loss_charts
from lives import batch, live, live_on_a_graph
from traces import Made, Writing, make_trace, start_trace

NASTY = "<img src=x onerror=alert(1)>\u202egpj.\x1b[2J"


def data_of(app: Any, path: str) -> dict[str, Any]:
    answer = ask(app, path + ("&" if "?" in path else "?") + "format=json")
    assert answer.status == 200, answer.text
    said: dict[str, Any] = json.loads(answer.text)
    return said


def page_of(app: Any, path: str) -> Response:
    """A page once its log was read: whoever asks for JSON waits for that."""
    ask(app, f"{path}?format=json")
    return ask(app, path)


def test_a_run_is_told_as_fgtrac_show_tells_it(tmp_path: Path) -> None:
    life = live(tmp_path)
    app, summary = explorer_app(tmp_path), summarize(life.path)
    data = data_of(app, "/run/run")
    assert data["entries"] == dict(
        sorted(summary.counts.items(), key=lambda pair: list(data["entries"]).index(pair[0]))
    )
    assert data["head"] == {"size": summary.size, "root": summary.root.hex()}
    assert data["run"]["public_key"] == summary.public_key.hex()
    assert sum(data["uses"].values()) == summary.uses
    assert (data["ended"], data["is_read"]) == (summary.ended, True)
    page = ask(app, "/run/run").text
    assert "14 samples" not in page
    assert f"{data['samples']:,} samples are registered" in page
    assert page.index("Does it hold?") < page.index("Losses") < page.index("What was used")
    assert "fgtrac show" in page


def test_neighbours_and_restarts_of_a_graph_stand_there(tmp_path: Path) -> None:
    live_on_a_graph(tmp_path)
    page = page_of(explorer_app(tmp_path), "/run/run").text
    assert "resumed from step 2" in page
    assert "Neighbours in a graph" in page


def test_what_a_restart_undid_is_told_apart(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path, samples=10)
    for step in range(1, 5):
        writing.use([2 * step - 2, 2 * step - 1])
    writing.recorder.record("resume", {"writers": [], "step": 2})
    writing.step = 2
    writing.use([4])
    writing.end()
    made.seal()
    app = explorer_app(tmp_path)
    data = data_of(app, "/run/run")
    assert (data["last_step"], data["superseded_batches"]) == (3, 2)
    assert sum(data["superseded"].values()) == 4
    assert [(one["used"], one["undone"]) for one in data["coverage"]] == [(5, 3)]
    (line,) = data_of(app, "/")["runs"]
    assert line["steps"] == data["last_step"]
    page = ask(app, "/run/run").text
    assert "2 of the applied ones are superseded" in page
    assert "3 steps over" in page
    assert "processes" not in page


def test_series_of_one_name_are_not_merged(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    names = (TRAIN_LOSS, VALIDATION_LOSS, "training loss", "samples' losses")
    for step in range(1, 4):
        writing.recorder.record("metrics", {"step": step, "values": dict.fromkeys(names, 1000.0 + step)})
    batch(writing, 1, [0, 1], 1, losses=[0.5, 0.25])
    writing.recorder.record("checkpoint", {"step": 1, "kept": True, "rule": "first", "val_loss": 0.75})
    writing.end()
    made.seal()
    app = explorer_app(tmp_path)
    data = data_of(app, "/run/run")
    assert {name: one["points"] for name, one in data["series"].items()} == dict.fromkeys(sorted(names), 3)
    assert data["batch_losses"]["drawn"] == [[1, 0.375]]
    overview = app.state.site.overview("run", 30).known()
    for chart in (loss_charts(overview)["losses"], compared_losses({"run": overview})):
        for name in (TRAIN_LOSS, VALIDATION_LOSS):
            assert f"{name} (run.log)" in html.unescape(chart)


def test_hostile_names_and_values_are_escaped_and_bounded(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    for step in range(3):
        writing.recorder.record("metrics", {"step": step, "values": {NASTY: float(step), "loss " + NASTY: -1.0}})
    writing.recorder.record("checkpoint", {"step": 1, "kept": True, "rule": NASTY})
    writing.recorder.record("gap", {"reason": NASTY, "detail": "x" * 60_000})
    writing.recorder.record("dataset", {"name": NASTY, "id_scheme": "public", "content": NASTY})
    writing.end()
    made.seal()
    app = explorer_app(tmp_path)
    for path in ("/run/run", "/run/run/log", *(f"/run/run/log/entry/{n}" for n in range(4, 11))):
        answer = page_of(app, path)
        assert answer.status == 200
        assert "<img src=x" not in answer.text
        assert not {"\u202e", "\x1b"} & set(answer.text)
        assert len(answer.body) < 200_000


def test_settings_of_any_depth_are_lines_and_bounded(tmp_path: Path) -> None:
    made = make_trace(tmp_path)
    deep: Any = {NASTY: 1, "long": "y" * 40_000, "bytes": b"\x00\xff", "a": {"b": {"c": [1, 2]}}, "none": {}}
    made = with_config(tmp_path / "configured", deep)
    data = data_of(explorer_app(made.trace.path.parent), "/run/run")
    settings = dict(data["run"]["settings"])
    assert settings["a.b.c"] == "[1, 2]"
    assert settings["bytes"] == "00ff"
    assert settings["long"] == "y" * MAX_SETTING + " … (40,000 characters)"
    page = page_of(explorer_app(made.trace.path.parent), "/run/run").text
    assert "<img src=x" not in page
    assert len(page) < 60_000


def with_config(folder: Path, config: Any) -> Made:
    from traces import TRACE_ID

    made, writing = start_trace(folder)
    writing.recorder.close()
    for file in made.trace.journal.iterdir():
        file.unlink()  # begun again, with settings
    again = Writing(made, bytes((3,)) * 16)
    fields = {"trace": TRACE_ID, "format": 1, "public_key": made.signer.public_key, "id_scheme": "public"}
    again.recorder.record("run", {**fields, "versions": {"fgtrac": "0", NASTY: NASTY}, "config": config})
    again.end()
    made.seal()
    return made


def test_of_many_losses_the_extremes_are_drawn_and_it_says_how_many(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    for step in range(5000):
        value = 99.0 if step == 1234 else -99.0 if step == 4321 else float(step % 7)
        writing.recorder.record("metrics", {"step": step, "values": {"loss": value}})
    writing.end()
    made.seal()
    app = explorer_app(tmp_path)
    series = data_of(app, "/run/run")["series"]["loss"]
    assert series["points"] == 5000
    assert len(series["drawn"]) <= 4 * COLUMNS
    assert [1234, 99.0] in series["drawn"]
    assert [4321, -99.0] in series["drawn"]
    assert f'<td class="number">5,000</td><td class="number">{len(series["drawn"]):,}</td>' in ask(app, "/run/run").text


def test_values_that_are_no_numbers_do_no_harm(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    for step, value in enumerate((1.0, float("inf"), float("-inf"), 1e308, -1e308, 0.0)):
        writing.recorder.record("metrics", {"step": 2**60 * step, "values": {"loss": value, "count": 2**63}})
    writing.end()
    made.seal()
    app = explorer_app(tmp_path)
    assert [value for _, value in data_of(app, "/run/run")["series"]["loss"]["drawn"]][:3] == [1.0, "inf", "-inf"]
    assert ask(app, "/run/run").status == 200


def test_a_trace_that_grows_is_shown_as_its_newest_head_has_it(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    writing.recorder.flush()
    app = explorer_app(tmp_path)
    for page in ("", "/log", "/log/entry/0"):
        answer = ask(app, f"/run/run{page}")
        assert answer.status == 409
        assert "Nothing was sealed yet" in answer.text
        assert "run fgtrac seal" in answer.text
    assert [run["state"] for run in data_of(app, "/")["runs"]] in (["recording"], ["cut off"])  # by this same process
    for number in range(1, 4):
        writing.use([1, 2, number])
        made.seal(full=False)
        assert data_of(app, "/run/run")["last_step"] == number
        assert data_of(app, "/run/run/log")["size"] == 4 + number
    writing.end()
    made.seal()
    assert data_of(app, "/run/run")["ended"]


def test_a_log_that_takes_long_is_told_of_as_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_trace(tmp_path)
    may_go_on, read = threading.Event(), site_module.overview

    def slow(*given: Any) -> Any:
        assert may_go_on.wait(30)
        return read(*given)

    monkeypatch.setattr(site_module, "overview", slow)
    app = explorer_app(tmp_path)
    for path in ("/run/run", "/run/run/log?kind=use", "/run/run/log/entry/4"):
        page = ask(app, path)
        assert page.status == 200
        assert "The log is being read" in page.text
        assert "data-again" in page.text
    may_go_on.set()
    assert data_of(app, "/run/run")["is_read"], "whoever asks for JSON waits"
    assert "The log is being read" not in ask(app, "/run/run").text


def test_a_fault_while_it_is_read_is_said_and_nothing_waits_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_trace(tmp_path)
    make_trace(tmp_path / "b")

    def broken(*given: Any) -> Any:
        raise RuntimeError("inner")

    read = site_module.overview
    monkeypatch.setattr(site_module, "overview", broken)
    app = explorer_app(tmp_path)
    answer = page_of(app, "/run/run")
    assert answer.status == 500
    assert "fault of fgtrac" in answer.text
    assert "inner" in caplog.text
    monkeypatch.setattr(site_module, "overview", read)
    assert ask(app, "/run/b/%72un").status == 200


@pytest.mark.parametrize("damage", ["an entry", "cut", "gone", "no head", "a head of nothing"])
def test_a_damaged_trace_is_a_line_and_a_clear_page(damage: str, tmp_path: Path) -> None:
    path = make_trace(tmp_path, uses=300).trace.path
    bundle, head = path / "tile/entries/000", path / "checkpoint"
    if damage == "an entry":
        data = bytearray(bundle.read_bytes())
        data[-40] ^= 1
        bundle.write_bytes(data)
    elif damage == "cut":
        bundle.write_bytes(bundle.read_bytes()[:3000])
    elif damage == "gone":
        bundle.unlink()
    else:
        head.write_bytes(b"" if damage == "no head" else b"fgtrac/x\n0\nAAAA\n\n")
    app = explorer_app(tmp_path)
    first = ask(app, "/")
    assert first.status == 200
    assert '<a href="/run/run">run</a>' in first.text
    answer = page_of(app, "/run/run")
    assert answer.status == 500
    assert "<strong>refuted</strong>" in answer.text
    assert "Traceback" not in answer.text
    log = ask(app, "/run/run/log?page=2")
    assert log.status in (200, 500)
    assert "refuted" in log.text or damage == "an entry"


def test_the_first_page_lists_each_run_and_sorts_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_trace(tmp_path / name, uses=3 if name == "a" else 9)
    app = explorer_app(tmp_path)
    by_name, by_steps = (data_of(app, f"/?sort={order}")["runs"] for order in ("name", "steps"))
    assert [run["name"] for run in by_name] == ["a/run", "b/run"]
    assert [run["name"] for run in by_steps] == ["b/run", "a/run"]
    assert ask(app, "/?sort=size").status == 400
    page = ask(app, "/").text
    assert page.count("not checked yet") == 2
    assert "fgtrac runs" in page


def test_the_first_page_finds_a_run_by_a_part_of_its_name(tmp_path: Path) -> None:
    for name in ("first", "second", "<b>third"):
        make_trace(tmp_path / name, uses=3)
    app = explorer_app(tmp_path)
    assert [run["name"] for run in data_of(app, "/?text=IR")["runs"]] == ["<b>third/run", "first/run"]
    page = ask(app, "/?text=IR&sort=began").text
    assert "2 of 3 runs, those with IR in their names" in page
    assert '<input type="hidden" name="text" value="IR">' in page
    none = ask(app, "/?text=%3Ci%3E").text
    assert "None of the 3 runs has &lt;i&gt; in its name" in none
    for place in ("/", "/compare", "/?text=%3Ci%3E"):
        assert '<input id="find" name="text" type="search"' in ask(app, place).text  # where `/` leads


def test_two_runs_side_by_side_say_what_differs(tmp_path: Path) -> None:
    make_trace(tmp_path / "a", uses=3)
    make_trace(tmp_path / "b", uses=9)
    app = explorer_app(tmp_path)
    query = "/compare?a=a%2Frun&b=b%2Frun"
    data = data_of(app, query)
    assert (data["found"]["batches"]["steps_a"], data["found"]["batches"]["steps_b"]) == (3, 9)
    page = ask(app, query).text
    assert "3 updates in A, 9 in B" in page
    assert 'href="/run/a/%72un"' in page
    assert "fgtrac diff" in page
    for wrong, status in (("a=x&b=a%2Frun", 404), ("a=..%2Fa%2Frun&b=a%2Frun", 404), ("a=a%2Frun", 200)):
        assert ask(app, f"/compare?{wrong}").status == status
    for_two = ask(app, "/compare").text
    assert for_two.count("<option") == 4


def runs_of(place: Path) -> dict[str, int]:
    """The runs of the first page, and how their own pages answer."""
    app = explorer_app(place)
    names = [run["name"] for run in data_of(app, "/")["runs"]]
    assert [line.name for line in list_runs(place)] == names or len(names) == 1
    found = {name: ask(app, address("run", name)).status for name in names}
    app.state.site.stop()
    return found


@pytest.mark.parametrize("more", ["journal", "checkpoint"])
def test_a_folder_of_runs_may_have_folders_and_files_of_any_name(more: str, tmp_path: Path) -> None:
    make_trace(tmp_path)
    make_trace(tmp_path / "below")
    (tmp_path / more).mkdir()
    assert runs_of(tmp_path) == {"below/run": 200, "run": 200}
    (tmp_path / more).rmdir()
    (tmp_path / more).write_bytes(b"")
    assert runs_of(tmp_path) == {"below/run": 200, "run": 200}


def test_a_trace_of_any_name_and_a_link_to_one_are_shown(tmp_path: Path) -> None:
    path = make_trace(tmp_path / "runs").trace.path
    (tmp_path / "link").symlink_to(path)
    assert runs_of(tmp_path / "link") == {"run": 200}
    shutil.copytree(path, tmp_path / "renamed")
    assert runs_of(tmp_path / "renamed") == {"renamed": 200}
    assert runs_of(path) == {"run": 200}
