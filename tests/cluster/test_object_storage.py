"""Traces on a real S3 server: pushed, grown, read by ranges, and refused where something else lies there."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from counted_digests import count_digests
from far_traces import BUCKET, Growing, assert_holds, new_place, objects_at, verify
from fgtrac.api import read_by_workers
from fgtrac.api.bundles import verify_bundle
from fgtrac.api.push import push_trace
from fgtrac.api.push_behind import PushBehind
from fgtrac.api.sealing import seal_trace
from fgtrac.api.summary import summarize
from fgtrac.api.trace import open_for_verification, open_trace
from fgtrac.errors import StorageError, TamperError
from fgtrac.query.found_places import decode_places
from fgtrac.store import file_digests, index_build
from fgtrac.store.far_trace import FarTrace
from fgtrac.store.object_storage import PLACES, Objects
from fgtrac.tlog.tiles import partial_tiles
from fgtrac.verify.report import Verdict
from json_schemas import check
from lying_proxy import lying_proxy
from s3_servers import STRANGER, Server, rclone
from traces import files_of


def test_what_was_pushed_holds_and_answers_as_the_local_trace(growing: Growing, url: str, tmp_path: Path) -> None:
    done = push_trace(growing.path, url)
    local = files_of(growing.path)
    kept = {path for path in local if not path.endswith(".wal")}
    assert objects_at(url).keys() == kept
    assert (done.sent, done.there, done.removed) == (len(kept) - 1, 0, 0)  # and the head
    assert assert_holds(url, growing.key) == assert_holds(growing.path, growing.key) == done.size
    far, near = open_trace(url, key=growing.key), open_trace(growing.path, key=growing.key)
    assert far.history("digits:3").as_json() == near.history("digits:3").as_json()
    assert far.history("digits:3").text() == near.history("digits:3").text()
    (tmp_path / "proof").write_bytes(far.prove("digits:3"))
    assert verify_bundle(tmp_path / "proof", growing.key).verdict is Verdict.HOLDS
    assert summarize(Path(url)) == summarize(growing.path)  # a Path has lost one slash


def test_what_is_said_of_places_is_that_of_the_head_and_read_once(growing: Growing, url: str) -> None:
    growing.checkpoint(7)
    growing.more(3)
    push_trace(growing.path, url)
    far = open_trace(url, key=growing.key)
    assert far._seal.log._given.keys() == {"checkpoint", "dataset"}
    with Objects(url) as objects:
        first = objects.read(PLACES, 0, 1 << 20)
    push_trace(growing.path, url)
    growing.checkpoint(9)
    growing.more(3)
    push_trace(growing.path, url)
    with Objects(url) as objects:
        second = objects.read(PLACES, 0, 1 << 20)
        objects.check_conditions()
        objects.put(PLACES, b"somebody else's", replaces=second.etag)
    assert decode_places(first.data, far._seal.head.root).keys() == {"checkpoint", "dataset"}
    assert decode_places(second.data, far._seal.head.root) == {}
    again = open_trace(url, key=growing.key)
    assert again.history("digits:3").checkpoints == (7, 9)  # found without
    assert_holds(url, growing.key)


def test_a_repeated_push_sends_nothing_and_another_puts_back_what_was_removed(growing: Growing, url: str) -> None:
    first = push_trace(growing.path, url)
    before = objects_at(url)
    second = push_trace(growing.path, url)
    assert (second.sent, second.sent_bytes, second.removed) == (0, 0, 0)
    assert objects_at(url) == before
    gone = ["tile/entries/000", next(path for path in before if path.startswith("artifacts/"))]
    with Objects(url) as objects:
        objects.remove(gone)
    assert verify(url, growing.key).verdict is Verdict.REFUTED
    third = push_trace(growing.path, url, again=True)
    assert third.sent == len(gone)
    assert third.there == first.sent - len(gone)
    assert objects_at(url) == before
    assert_holds(url, growing.key)


def test_the_head_comes_last_and_only_then_what_older_heads_needed_goes(
    growing: Growing, s3: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lying_proxy(s3.port) as proxy:
        url = new_place(s3, monkeypatch, proxy.port)
        growing.more(20, full=False)
        old = push_trace(growing.path, url).size
        before = objects_at(url)
        new = growing.more(40)
        proxy.requests.clear()
        done = push_trace(growing.path, url)
        beside = (".probe-", "run.trace.places")
        sent = [line for line in proxy.requests if line.startswith(("PUT", "DELETE"))]
        writes = [line for line in sent if not any(name in line for name in beside)]
        head = next(n for n, line in enumerate(writes) if line.partition("?")[0].endswith("run.trace/checkpoint"))
        assert all(line.startswith("PUT") for line in writes[:head])
        assert all(line.startswith("DELETE") for line in writes[head + 1 :])
        notes = [n for n, line in enumerate(writes) if line.endswith(f"index/{new}/checkpoint")]
        assert notes == [head - 1]
        after = objects_at(url)
        gone = before.keys() - after.keys()
        assert done.removed == len(gone)
        assert f"journal/{old}.seal" in gone
        assert {path for path in gone if path.startswith("index/")}
        assert {tile.path for tile in partial_tiles(old)} & gone
        assert after.keys() == {path for path in files_of(growing.path) if not path.endswith(".wal")}
        assert assert_holds(url, growing.key) == new


def test_histories_fetch_little_of_a_long_log(tmp_path: Path, url: str) -> None:
    growing = Growing(tmp_path)
    for _ in range(3):
        growing.more(1500, full=False, artifact_bytes=0)
    growing.more(1500, artifact_bytes=2_000_000)
    for step in range(0, 5000, 500):
        growing.checkpoint(step)
    growing.more(300, artifact_bytes=0)
    push_trace(growing.path, url)
    whole = sum(size for size, _etag in objects_at(url).values())
    far = open_trace(url, key=growing.key)
    asked: Any = far._directory
    found = far.history("digits:3", details=False)
    assert found.as_json() == open_trace(growing.path, key=growing.key).history("digits:3", details=False).as_json()
    assert len(found.checkpoints) >= 9
    print(
        f"{whole:,} bytes there; a history took {asked.objects.requests} requests, {asked.objects.bytes_read:,} bytes"
    )
    assert asked.objects.requests <= 60
    assert asked.objects.bytes_read <= whole / 5


def test_an_index_larger_than_memory_is_rebuilt_by_workers_who_fetch_their_ranges(
    growing: Growing, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing.more(300)
    push_trace(growing.path, url)
    expected = open_for_verification(url, key=growing.key).verify(engine="local:1")
    assert expected.verdict is Verdict.HOLDS
    monkeypatch.setattr(read_by_workers, "POSTING_BYTES", 1 << 40)
    monkeypatch.setattr(index_build, "FEWEST", 256)
    monkeypatch.setattr(FarTrace, "plain", lambda _trace, path: pytest.fail(f"{path} was copied"))
    stages: list[tuple[int, int]] = []
    far = open_for_verification(url, key=growing.key)
    found = far.verify(engine="local:2", memory_bytes=1, scratch=tmp_path, progress=lambda *step: stages.append(step))
    assert found == expected
    assert max(total for _done, total in stages) > 4  # units of one stage
    assert not list(tmp_path.glob("verify-*"))


def test_another_trace_a_fork_or_more_entries_there_is_refused_and_nothing_is_overwritten(
    growing: Growing, url: str, tmp_path: Path
) -> None:
    for name in ("fork", "older"):
        shutil.copytree(growing.path, tmp_path / name / "run.trace")
    fork = Growing(tmp_path / "other")  # of the same trace id and key, with other entries
    fork.more(400)
    old = growing.made.trace.head()
    new = growing.more(100)
    push_trace(growing.path, url)
    before = objects_at(url)
    assert old is not None
    with pytest.raises(ValueError, match=rf"{new} entries published.*has {old.size}"):
        push_trace(tmp_path / "older" / "run.trace", url)
    fork_size = fork.more(400)
    with pytest.raises(TamperError, match=rf"the {new} entries published.*the first of the {fork_size}.*fork"):
        push_trace(fork.path, url)
    with Objects(url) as objects:
        note = objects.read("checkpoint").data
        objects.check_conditions()
        objects.put("checkpoint", note.replace(b"0001", b"1111", 1), replaces=before["checkpoint"][1])
    with pytest.raises(FileExistsError, match="is another trace"):
        push_trace(growing.path, url)
    with Objects(url) as objects:
        objects.check_conditions()
        objects.put("checkpoint", note, replaces=objects.listed("checkpoint")["checkpoint"].etag)
    assert objects_at(url) == before
    assert_holds(url, growing.key)


def test_somebody_elses_head_in_between_stands_and_both_sizes_are_told(
    growing: Growing, url: str, tmp_path: Path
) -> None:
    push_trace(growing.path, url)
    mine = growing.more(30)
    shutil.copytree(growing.path, tmp_path / "copy" / "run.trace")
    theirs = growing.more(30)

    def meanwhile(done: int, total: int) -> None:
        if done == total:
            push_trace(growing.path, url)

    with pytest.raises(StorageError, match=rf"somebody else published {theirs} entries .* while {mine} were"):
        push_trace(tmp_path / "copy" / "run.trace", url, progress=meanwhile)
    assert assert_holds(url, growing.key) == theirs


def test_other_bytes_there_are_not_overwritten_and_damage_here_is_not_given_away(growing: Growing, url: str) -> None:
    with Objects(url) as objects:
        objects.put("tile/entries/000", b"somebody else's")
    with pytest.raises(
        TamperError, match=r"tile/entries/000 has 15 bytes.*nothing was overwritten.*Remove that object"
    ):
        push_trace(growing.path, url)
    assert "checkpoint" not in objects_at(url)
    with Objects(url) as objects:
        objects.remove(["tile/entries/000"])
    push_trace(growing.path, url)
    before = objects_at(url)
    growing.more(5)
    artifact = max(growing.path.glob("artifacts/*"), key=lambda path: path.stat().st_mtime_ns)
    sound = artifact.read_bytes()
    artifact.write_bytes(sound[:-1] + b"x")
    with pytest.raises(TamperError, match=f"{artifact.name}.*is not what its log says"):
        push_trace(growing.path, url)
    artifact.write_bytes(sound)
    bundle = max(growing.path.glob("tile/entries/001.p/*"), key=lambda path: int(path.name))
    data = bundle.read_bytes()
    bundle.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(TamperError, match="was changed"):
        push_trace(growing.path, url)
    assert {path: before[path] for path in before} == {p: one for p, one in objects_at(url).items() if p in before}
    assert_holds(url, growing.key)


def test_a_long_file_goes_in_parts_and_is_known_again(
    growing: Growing, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_digests, "PART_BYTES", 5 << 20)  # the least that S3 takes
    growing.more(3, artifact_bytes=12_000_000)
    push_trace(growing.path, url)
    etags = [etag for path, (size, etag) in objects_at(url).items() if size == 12_000_000]
    assert [etag.rpartition("-")[2] for etag in etags] == ["3"]
    assert push_trace(growing.path, url, again=True).sent == 0
    assert_holds(url, growing.key)


def test_a_run_pushes_where_the_environment_says_so_and_goes_on_where_that_fails(
    growing: Growing, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FGTRAC_PUSH", url.removesuffix("/run.trace"))
    PushBehind(growing.path)()
    assert_holds(url, growing.key)
    monkeypatch.setenv("FGTRAC_S3_ENDPOINT", "http://127.0.0.1:9")
    with pytest.warns(
        RuntimeWarning, match=r"was sealed and not pushed, as FGTRAC_PUSH asks: http://127.0.0.1:9 did not answer"
    ):
        PushBehind(growing.path)()
    monkeypatch.setenv("FGTRAC_PUSH", "/somewhere")
    with pytest.raises(ValueError, match="FGTRAC_PUSH names no place"):
        PushBehind(growing.path)
    with pytest.raises(ValueError, match="FGTRAC_PUSH names no place"):
        seal_trace(growing.path)


BAD: dict[str, tuple[dict[str, str], str, int, str]] = {  # environment, URL, exit code, words
    "no bucket": ({}, "s3://nobody/run.trace", 2, "there is no bucket nobody at"),
    "no permission": ({"AWS_ACCESS_KEY_ID": STRANGER}, "", 4, "refuses to let these credentials"),
    "a wrong secret": ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "", 4, "refuses the credentials.*SignatureDoesNotMatch"),
    "an unknown key": ({"AWS_ACCESS_KEY_ID": "NOBODY"}, "", 4, "refuses the credentials.*InvalidAccessKeyId"),
    "no credentials": ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "", 4, "there are no credentials"),
    "nobody there": ({"FGTRAC_S3_ENDPOINT": "http://127.0.0.1:9"}, "", 4, "did not answer.*FGTRAC_S3_ENDPOINT"),
    "no URL there": ({"FGTRAC_S3_ENDPOINT": "ceph:8000"}, "", 4, "see to FGTRAC_S3_ENDPOINT"),
    "no time": ({"FGTRAC_S3_TIMEOUT_S": "soon"}, "", 2, "is no number of seconds"),
    "no trace's name": ({}, f"s3://{BUCKET}/run", 2, "is named s3://BUCKET/PREFIX/NAME.trace"),
    "a password": ({}, "s3://AKID:secret@bucket/run.trace", 2, "this names none"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_one_line_with_the_remedy(
    case: str,
    growing: Growing,
    url: str,
    run_verb: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    environment, place, code, words = BAD[case]
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    with monkeypatch.context() as changed:
        for name, value in environment.items():
            changed.setenv(name, value) if value else changed.delenv(name)
        for verb in (["push", growing.path], ["verify"]):
            assert run_verb(*verb, place or url) == code
            out, err = capfd.readouterr()
            assert err.count("\n") == 1
            assert err.startswith("fgtrac: ")
            assert re.search(words, err), err
            assert out == ""
            assert "secret" not in err
    assert objects_at(url) == {}


def test_a_server_that_overlooks_conditions_is_found_out(
    growing: Growing, s3: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "buckets" / BUCKET).mkdir(parents=True)
    with rclone(tmp_path / "buckets") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        url = f"s3://{BUCKET}/run.trace"
        with pytest.raises(StorageError, match=r"does not heed If-None-Match.*nothing is published"):
            push_trace(growing.path, url)
        assert objects_at(url) == {}
        assert [path for path in (tmp_path / "buckets").rglob("*") if path.is_file()] == []


def test_the_command_pushes_and_what_it_prints_has_its_schema(
    growing: Growing, url: str, run_verb: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_verb("push", growing.path, url, "--json") == 0
    check("push", json.loads(capfd.readouterr().out))
    assert run_verb("verify", url, "--key", growing.key) == 0
    assert run_verb("seal", url) == 2
    assert "only read" in capfd.readouterr().err


def test_a_report_of_a_trace_far_away_is_written_here(
    growing: Growing,
    url: str,
    run_verb: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    push_trace(growing.path, url)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run_verb("report", url, "--key", growing.key) == 0
    assert [path.name for path in Path().iterdir()] == ["run.report.html"]
    assert "run.trace: holds" in capfd.readouterr().out
    assert run_verb("diff", url, growing.path) == 0
    told = capfd.readouterr().out
    assert url in told
    assert "s3:/t" not in told
    assert "put its vault beside it" not in told


def test_pushes_behind_a_run_read_long_files_once(growing: Growing, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = count_digests(monkeypatch)
    monkeypatch.setenv("FGTRAC_PUSH", url.removesuffix("/run.trace"))
    behind = PushBehind(growing.path)
    for artifact_bytes in (300_000, 400_000, 500_000):
        growing.more(3, artifact_bytes=artifact_bytes)
        behind()
    assert [size for size in sizes if size >= 300_000] == [300_000, 400_000, 500_000]
    assert_holds(url, growing.key)
