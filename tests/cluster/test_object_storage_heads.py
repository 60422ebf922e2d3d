"""Which heads a push puts on a real S3 server: none over what is gone or damaged, none that loses what others signed,
and those of runs and seals where the environment says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from far_traces import Growing, assert_holds, objects_at, verify
from fgtrac.api import push
from fgtrac.api.push import push_trace
from fgtrac.api.run import start_run
from fgtrac.commit.keys import load_key, public_bytes
from fgtrac.errors import TamperError
from fgtrac.store.object_storage import Objects
from fgtrac.tlog.note import parse_note, parse_tree_head
from fgtrac.verify.report import Verdict

WITNESS = "\N{EM DASH} witness.example/w AAAAAAAAAAAAAAAA\n".encode()


def test_a_seal_between_the_head_and_its_files_has_the_new_head_pushed(
    growing: Growing, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes = push.contents_of, []

    def meanwhile(*given: Any) -> Any:
        if not sizes:
            sizes.append(growing.more(40))
        return real(*given)

    monkeypatch.setattr(push, "contents_of", meanwhile)
    done = push_trace(growing.path, url)
    assert [done.size] == sizes
    assert assert_holds(url, growing.key) == done.size


def test_a_broken_copy_of_the_same_head_is_not_published_over_a_good_one(
    growing: Growing, url: str, tmp_path: Path
) -> None:
    push_trace(growing.path, url)
    before = objects_at(url)
    copy = tmp_path / "copy" / "run.trace"
    shutil.copytree(growing.path, copy)
    head = (copy / "checkpoint").read_bytes()
    at = len(head) - 20
    (copy / "checkpoint").write_bytes(head[:at] + (b"B" if head[at : at + 1] == b"A" else b"A") + head[at + 1 :])
    with pytest.raises(TamperError, match=r"checkpoint in .*nothing was sent: run fgtrac verify"):
        push_trace(copy, url)
    assert objects_at(url) == before
    assert_holds(url, growing.key)
    with Objects(url) as objects:
        objects.check_conditions()
        objects.put("checkpoint", (copy / "checkpoint").read_bytes(), replaces=before["checkpoint"][1])
    with pytest.raises(TamperError, match=r"run.trace/checkpoint: .*nothing was overwritten. Remove that object"):
        push_trace(growing.path, url)


def test_what_others_signed_there_stays_and_is_named_and_a_head_with_more_of_them_takes_its_place(
    growing: Growing, url: str, tmp_path: Path
) -> None:
    plain, other = tmp_path / "plain" / "run.trace", tmp_path / "other" / "run.trace"
    shutil.copytree(growing.path, plain)
    push_trace(plain, url)
    head = growing.made.trace.head()
    assert head is not None
    note, receipt = f"index/{head.size}/checkpoint", f"receipts/{head.size}/x.tsr"
    for path in ("checkpoint", note):
        (growing.path / path).write_bytes((plain / path).read_bytes() + WITNESS)
    for trace, data in ((growing.path, b"theirs"), (plain, b"mine")):
        (trace / receipt).parent.mkdir(parents=True)
        (trace / receipt).write_bytes(data)
    first = push_trace(growing.path, url)
    assert (first.sent, first.left) == (2, ())  # the note and the receipt, beside the head
    before = objects_at(url)
    shutil.copytree(plain, other)
    assert push_trace(other, url).left == ("checkpoint", note, receipt)
    assert objects_at(url) == before
    with Objects(url) as objects:
        assert len(parse_note(objects.read("checkpoint").data).signatures) == 2
        assert objects.read(receipt).data == b"theirs"


@pytest.mark.parametrize("again", [False, True])
def test_no_head_goes_over_an_older_ones_objects_that_are_altered_and_those_that_are_gone_are_put_back(
    again: bool, growing: Growing, url: str
) -> None:
    old = push_trace(growing.path, url).size
    before = objects_at(url)
    artifact = next(path for path in before if path.startswith("artifacts/"))
    growing.more(60)
    for path in ("tile/entries/000", artifact):
        with Objects(url) as objects:
            objects.check_conditions()
            data = objects.read(path)
            altered = objects.put(path, data.data[:-1] + bytes([data.data[-1] ^ 1]), replaces=data.etag)
        with pytest.raises(TamperError, match=rf"{path} has .*nothing was overwritten. Remove that object"):
            push_trace(growing.path, url, again=again)
        assert objects_at(url)[path][1] == altered
        assert objects_at(url)["checkpoint"] == before["checkpoint"]
        with Objects(url) as objects:
            objects.remove([path])
    assert verify(url, growing.key).verdict is Verdict.REFUTED
    done = push_trace(growing.path, url, again=again)
    assert done.size > old
    assert assert_holds(url, growing.key) == done.size


@pytest.mark.parametrize("again", [False, True])
def test_an_artifact_that_is_gone_here_has_to_lie_there_as_the_log_says(
    again: bool, growing: Growing, url: str, tmp_path: Path
) -> None:
    before = push_trace(growing.path, url)
    artifact = next(path for path in objects_at(url) if path.startswith("artifacts/"))
    (growing.path / artifact).rename(tmp_path / "kept")
    data = (tmp_path / "kept").read_bytes()
    growing.more(40)
    good = push_trace(growing.path, url, again=again).size
    assert assert_holds(url, growing.key) == good > before.size
    growing.more(50)
    for bad in (data[:-1] + bytes([data[-1] ^ 1]), data[:-1]):
        with Objects(url) as objects:
            objects.check_conditions()
            objects.put(artifact, bad, replaces=objects.read(artifact).etag)
        with pytest.raises(
            TamperError, match=rf"{artifact} has .* gone here; nothing was overwritten. Put it back into"
        ):
            push_trace(growing.path, url, again=again)
    with Objects(url) as objects:
        objects.remove([artifact])
        with pytest.raises(
            FileNotFoundError, match=rf"{artifact}, which the log names, .* put it back here from a copy"
        ):
            push_trace(growing.path, url, again=True)
        assert parse_tree_head(parse_note(objects.read("checkpoint").data).text).size == good
        objects.check_conditions()
        objects.put(artifact, data)  # by somebody who notes no SHA-256 with it
    assert push_trace(growing.path, url, again=again).size > good
    assert_holds(url, growing.key)


def test_what_a_witness_signed_on_a_full_seals_head_there_stays_in_its_note(growing: Growing, url: str) -> None:
    size = push_trace(growing.path, url).size
    with Objects(url) as objects:
        objects.check_conditions()
        head = objects.read("checkpoint")
        objects.put("checkpoint", head.data + WITNESS, replaces=head.etag)
    growing.more(30, full=False)
    push_trace(growing.path, url)
    later = growing.more(30)
    assert push_trace(growing.path, url).left == (f"index/{size}/checkpoint",)
    with Objects(url) as objects:
        assert objects.read(f"index/{size}/checkpoint").data == head.data + WITNESS
        assert WITNESS not in objects.read("checkpoint").data
    assert assert_holds(url, growing.key) == later


def test_a_run_and_a_seal_push_where_the_environment_says_so_and_a_seal_tells_what_it_sealed_where_that_fails(
    url: str,
    run_verb: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path, key = tmp_path / "run.trace", tmp_path / "key.pem"
    monkeypatch.setenv("FGTRAC_KEY", str(key))
    monkeypatch.setenv("FGTRAC_PUSH", url.removesuffix("/run.trace"))
    with start_run(path, key=key, flush_interval_s=0) as run:
        run.log(1, loss=0.5)
    public = public_bytes(load_key(key)).hex()
    size = assert_holds(url, public)
    with monkeypatch.context() as unset:
        unset.delenv("FGTRAC_PUSH")
        with start_run(path, resume=True, key=key, flush_interval_s=0) as run:
            run.log(2, loss=0.25)
    assert assert_holds(url, public) == size
    monkeypatch.chdir(path)
    with monkeypatch.context() as lost:
        lost.setenv("FGTRAC_PUSH", "s3://nobody-there/runs")
        assert run_verb("seal", ".", "--json") == 4
        out, err = capfd.readouterr()
        sealed = json.loads(out)["size"]
        assert sealed > size
        assert err.startswith(
            f"fgtrac: sealed at {sealed} entries, and not pushed, as FGTRAC_PUSH asks: there is no buc"
        )
        assert err.endswith("later: fgtrac push . s3://nobody-there/runs/run.trace\n")
        assert err.count("\n") == 1
    assert run_verb("seal", ".") == 0
    assert assert_holds(url, public) == sealed
