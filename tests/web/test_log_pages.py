"""The pages of the log: every entry with a proof that holds, proofs between any two sizes, heads and receipts."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from asgi import ask
from fgtrac.api.log_view import LogView
from fgtrac.errors import ProofError
from fgtrac.events.schema import KINDS, decode_event
from fgtrac.query.entry_words import _WORDS, MAX_ITEMS, bounded, fields_of, words_of
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.merkle import EMPTY_ROOT, check_consistency, check_inclusion
from fgtrac.tlog.tiles import read_entries
from fgtrac.verify.receipts import RFC3161, WITNESS
from fgtrac.web.explorer import explorer_app
from lives import live, live_on_a_graph
from traces import Made, make_trace, start_trace
from witnessed_traces import LAST, TRUE, Stage


def data_of(app: Any, path: str) -> dict[str, Any]:
    answer = ask(app, path + ("&" if "?" in path else "?") + "format=json")
    assert answer.status == 200, answer.text
    said: dict[str, Any] = json.loads(answer.text)
    return said


def raw(made: Made) -> list[bytes]:
    head = made.trace.head()
    assert head is not None
    return list(read_entries(made.trace, 0, head.size, head.size))


def root_of(entries: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word by word."""
    if not entries:
        return EMPTY_ROOT
    if len(entries) == 1:
        return hashlib.sha256(b"\0" + entries[0]).digest()
    cut = 1 << (len(entries) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root_of(entries[:cut]) + root_of(entries[cut:])).digest()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_trace(tmp_path_factory.mktemp("log"), uses=120, seals=(10, 60), plain=(30,))


@pytest.fixture(scope="module")
def app(made: Made) -> Any:
    return explorer_app(made.trace.path.parent, key=made.verifier.public_key.hex())


def test_every_entry_is_listed_once_with_its_kind_and_size(made: Made, app: Any) -> None:
    entries = raw(made)
    listed = []
    for page in range(1, data_of(app, "/run/run/log")["pages"] + 1):
        listed += data_of(app, f"/run/run/log?page={page}")["entries"]
    assert [(e["number"], e["kind"], e["time"], e["size_bytes"], e["problem"]) for e in listed] == [
        (n, event["kind"], event["time"], len(data), "")
        for n, (data, event) in enumerate((data, decode_event(data)) for data in entries)
    ]


def test_a_kind_is_listed_alone(made: Made, app: Any) -> None:
    numbers = [n for n, data in enumerate(raw(made)) if decode_event(data)["kind"] == "seal"]
    data = data_of(app, "/run/run/log?kind=seal")
    assert [e["number"] for e in data["entries"]] == numbers
    assert data["entry_count"] == len(numbers) == 3
    assert ask(app, "/run/run/log?kind=nothing").status == 400
    assert data_of(app, "/run/run/log?kind=gap")["entries"] == []


def test_a_seal_between_two_looks_at_the_head_hides_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fgtrac.web.pages import log

    made, writing = start_trace(tmp_path)
    writing.use([1, 2])
    made.seal(full=False)
    app = explorer_app(tmp_path)

    def grown(path: Path) -> LogView:
        view = LogView(path)
        writing.use([3, 4])
        made.seal(full=False)
        return view

    monkeypatch.setattr(log, "LogView", grown)
    data = data_of(app, "/run/run/log?kind=use")
    assert [one["number"] for one in data["entries"]] == [4]
    assert data["size"] == 5
    writing.recorder.close()
    app.state.site.stop()


@pytest.mark.parametrize("page", ["0", "-1", "4", "x", "1.0", "99999999999999999999", "١"])
def test_a_page_that_is_none_is_said(page: str, app: Any) -> None:
    from urllib.parse import quote

    assert ask(app, f"/run/run/log?page={quote(page)}").status == 400


def test_each_entry_s_proof_leads_to_the_root(made: Made, app: Any) -> None:
    entries = raw(made)
    root = root_of(entries)
    for number in (0, 1, 7, 64, len(entries) - 1):
        data = data_of(app, f"/run/run/log/entry/{number}")
        leaf = hashlib.sha256(b"\0" + entries[number]).digest()
        assert (data["leaf"], data["root"], data["size_bytes"]) == (leaf.hex(), root.hex(), len(entries[number]))
        check_inclusion(root, number, len(entries), leaf, [bytes.fromhex(one) for one in data["path"]])
        assert data["kind"] == decode_event(entries[number])["kind"]


@pytest.mark.parametrize("number", ["200", "-1", "01", "x", "1e3", "99999999999999999999999"])
def test_an_entry_that_is_none_is_not_found(number: str, app: Any) -> None:
    assert ask(app, f"/run/run/log/entry/{number}").status == 404


def test_an_entry_leads_to_what_it_names(tmp_path: Path) -> None:
    life = live(tmp_path, parts=3)
    app = explorer_app(tmp_path)
    events = [decode_event(data) for data in raw(life.made)]
    number = next(n for n, e in enumerate(events) if e["kind"] == "prediction")
    named = {one["to"] for one in data_of(app, f"/run/run/log/entry/{number}")["names"]}
    state = next(n for n, e in enumerate(events) if e["kind"] == "checkpoint")
    assert f"/run/run/log/entry/{state}" in named
    assert {f"/run/run/sample/{life.made.ids[row].hex()}" for row in (2, 8)} <= named
    parts = [n for n, e in enumerate(events) if e["kind"] == "samples" and e["block"] == events[number]["block"]]
    assert {f"/run/run/log/entry/{n}" for n in parts} <= named


def test_any_two_sizes_have_a_proof_that_holds(made: Made, app: Any) -> None:
    entries = raw(made)
    sizes = [1, 2, 3, 64, 65, 100, len(entries) - 1, len(entries)]
    for first, second in itertools.combinations_with_replacement(sizes, 2):
        data = data_of(app, f"/run/run/log?first={first}&second={second}")["consistency"]
        roots = root_of(entries[:first]), root_of(entries[:second])
        assert (data["first_root"], data["second_root"]) == tuple(root.hex() for root in roots)
        check_consistency(first, roots[0], second, roots[1], [bytes.fromhex(one) for one in data["path"]])
    page = ask(app, "/run/run/log?first=3&second=65").text
    assert "The log of 65 entries extends that of 3" in page


@pytest.mark.parametrize("query", ["first=0&second=4", "first=5&second=4", "first=1&second=999", "first=x&second=4"])
def test_sizes_that_have_no_proof_are_said(query: str, app: Any) -> None:
    answer = ask(app, f"/run/run/log?{query}")
    assert answer.status == 400
    assert "There is no such proof: " in answer.text
    assert "extends" not in answer.text
    assert 'id="first"' in answer.text  # the form stands there still


def test_tiles_that_do_not_lead_to_the_head_refute_the_proof(tmp_path: Path) -> None:
    made = make_trace(tmp_path, uses=40)
    tile = next((made.trace.path / "tile/0").rglob("*.p/*"))
    tile.write_bytes(bytes(32) + tile.read_bytes()[32:])
    answer = ask(explorer_app(tmp_path), "/run/run/log?first=3&second=9")
    assert answer.status == 500
    assert "<strong>refuted</strong>" in answer.text
    with pytest.raises(ProofError):
        LogView(made.trace.path).consistency(3, 9)
    assert data_of(explorer_app(tmp_path), "/run/run/log")["heads"][0]["problem"].startswith("its root is")


def test_each_head_is_held_against_the_log(made: Made, app: Any) -> None:
    heads = data_of(app, "/run/run/log")["heads"]
    entries = raw(made)
    full = [n + 1 for n, data in enumerate(entries) if decode_event(data)["kind"] == "seal"]
    assert {(h["size"], h["what"]) for h in heads} == {
        (len(entries), "the newest"),
        *((n, "of a full seal") for n in full),
    }
    for head in heads:
        assert head["root"] == root_of(entries[: head["size"]]).hex()
        assert head["problem"] == ""


def test_a_head_of_another_log_or_size_is_refuted_where_it_stands(tmp_path: Path) -> None:
    made = make_trace(tmp_path, uses=30, seals=(5, 9))
    first, second = sorted((made.trace.path / "index").glob("*/checkpoint"), key=lambda p: int(p.parent.name))[:2]
    first.write_bytes(second.read_bytes())
    second.write_bytes(b"no note")
    app = explorer_app(tmp_path)
    problems = {head["path"]: head["problem"] for head in data_of(app, "/run/run/log")["heads"]}
    assert problems.pop(f"index/{first.parent.name}/checkpoint").startswith(f"it is a head of {second.parent.name}")
    assert problems.pop(f"index/{second.parent.name}/checkpoint")
    assert set(problems.values()) == {""}
    assert ask(app, "/run/run/log").text.count('<td class="refuted">') == 2


def test_what_a_witness_handed_back_is_told_and_said_to_be_unchecked(tmp_path: Path) -> None:
    files = Stage.set(tmp_path).anchor(TRUE, LAST, kinds=(RFC3161, WITNESS))
    for name, data in files.items():
        place = tmp_path / "site/run.trace" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    app = explorer_app(tmp_path / "site")
    receipts = data_of(app, "/run/run/log")["receipts"]
    assert {one["kind"] for one in receipts} == {RFC3161, WITNESS}
    said = {one["kind"]: one["says"] for one in receipts}
    assert said[RFC3161].startswith("stamped at ")
    assert said[WITNESS].startswith("cosigned by ")
    page = ask(app, "/run/run/log").text
    assert "fgtrac verify --tsa-root FILE" in page
    assert "fgtrac verify --witness-key VKEY" in page
    counts = {RFC3161: {"receipts": 1, "size": LAST}, WITNESS: {"receipts": 1, "size": LAST}}
    assert data_of(app, "/run/run")["receipts"] == counts
    assert "1 by rfc3161, the newest of a head of" in ask(app, "/run/run").text
    stamp = next((tmp_path / "site/run.trace").glob("receipts/*/*.tsr"))
    stamp.write_bytes(b"\x30\x80garbage")
    assert any(one["says"].startswith("it cannot be read") for one in data_of(app, "/run/run/log")["receipts"])


def test_a_log_that_nobody_witnessed_says_so(app: Any) -> None:
    assert "No receipt of an outside witness lies in this trace" in ask(app, "/run/run/log").text


def test_a_changed_entry_is_refuted_in_its_line_and_hides_no_other(tmp_path: Path) -> None:
    made = make_trace(tmp_path, uses=20)
    bundle = next((made.trace.path / "tile/entries").rglob("*.p/*"))
    data = bytearray(bundle.read_bytes())
    at = sum(2 + len(entry) for entry in raw(made)[:7]) + 2 + 30
    data[at] ^= 1
    bundle.write_bytes(data)
    app = explorer_app(tmp_path)
    lines = data_of(app, "/run/run/log")["entries"]
    assert [line["number"] for line in lines if line["problem"]] == [7]
    assert lines[6]["words"]
    answer = ask(app, "/run/run/log/entry/7")
    assert answer.status == 500
    assert "is not the one that was sealed" in answer.text


def test_every_kind_has_words_and_every_entry_of_a_life_is_told(tmp_path: Path) -> None:
    assert set(_WORDS) == set(KINDS)
    for folder, made in (("a", live(tmp_path / "a").made), ("b", live_on_a_graph(tmp_path / "b").made)):
        told = [words_of(decode_event(data)) for data in raw(made)]
        assert all(told)
        app = explorer_app(tmp_path / folder)
        for number, words in enumerate(told):
            answer = ask(app, f"/run/run/log/entry/{number}")
            assert answer.status == 200
            assert data_of(app, f"/run/run/log/entry/{number}")["words"] == words


RARE: list[dict[str, Any]] = [
    {"kind": "attention", "modalities": ["a", "b"], "ordinals": range(3), "block": b"b" * 16, "step": 5},
    {"kind": "artifact", "path": "artifacts/x", "size": 5, "about": "a state"},
    {"kind": "join", "rank": 1, "ranks": 4, "step": 0},
    {"kind": "leave"},
    {"kind": "key", "public_key": b"k" * 32, "revoked": True},
    {"kind": "key", "public_key": b"k" * 32},
    {"kind": "erasure", "pseudonym": b"p" * 32, "ordinals": range(2)},
    {"kind": "gap", "reason": "lost", "first": 3, "stop": 9},
    {"kind": "sampler", "loader": 1, "epoch": 2, "sampler": "random"},
    {"kind": "metrics", "step": 3, "values": {"loss": 0.5, "n": 3}},
]


@pytest.mark.parametrize("event", RARE, ids=lambda event: event["kind"])
def test_rare_kinds_are_told_in_a_line(event: dict[str, Any]) -> None:
    assert words_of(event)


def test_values_of_any_length_and_depth_are_bounded() -> None:
    import numpy as np

    deep: Any = "x"
    for _ in range(50):
        deep = [deep]
    values = {"text": "t" * 60_000, "bytes": b"\x01" * 60_000, "array": np.arange(15_000), "deep": deep,
              "map": {str(n): n for n in range(5000)}, "short": [1, "a", None]}  # fmt: skip
    said = bounded(values)
    assert len(json.dumps(said)) < 4000
    assert said["array"] == [*range(MAX_ITEMS), f"… {15_000 - MAX_ITEMS:,} more"]
    assert said["short"] == [1, "a", None]
    assert said["text"].endswith("(60,000 characters)")


def test_the_codes_of_batches_are_words(tmp_path: Path) -> None:
    events = [decode_event(data) for data in raw(live(tmp_path).made)]
    uses = [fields_of(event) for event in events if event["kind"] == "use"]
    assert {word for use in uses for word in use["status"]} == {"applied", "unapplied"}
    assert {
        step for use in uses for step, status in zip(use["step"], use["status"], strict=True) if status == "unapplied"
    } == {None}


def test_a_plain_head_is_enough_for_the_log(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    writing.use([1])
    made.seal(full=False)
    writing.recorder.close()
    assert data_of(explorer_app(tmp_path), "/run/run/log")["size"] == 5
    assert TraceDir.open(made.trace.path).full_seals() == []
