"""`fgtrac runs`: a line for each trace below a folder, whatever state it is in, without looking at much of it."""

from __future__ import annotations

import os
import shutil
from array import array
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fgtrac.api import runs as api_runs
from fgtrac.api.runs import list_runs
from fgtrac.events.schema import ATTRIBUTION, STATUS
from fgtrac.query import glance
from fgtrac.query.log import SealedLog
from fgtrac.store import durable
from fgtrac.verify.receipts import note_path, receipt_path, rfc3161_name
from lives import Life
from traces import Made, Writing, make_trace, start_trace


def checkpoints(folder: Path, *entries: dict[str, Any], resume: int | None = None) -> Made:
    """A trace with an update before each of these `checkpoint` entries (as far as they are none of a resume)."""
    made, writing = start_trace(folder)
    for fields in entries:
        if "resumed from" in fields:
            writing.recorder.record("resume", {"writers": [], "step": fields["resumed from"]})
            writing.step = fields["resumed from"]
            continue
        writing.use([0, 1, 2], epoch=writing.step // 2)
        writing.recorder.record("checkpoint", {"step": writing.step, "kept": True, "rule": "all", **fields})
    writing.end()
    made.seal()
    return made


def only(folder: Path) -> dict[str, Any]:
    (line,) = list_runs(folder)
    return line.as_json()


def test_a_line_says_when_how_far_how_well_and_how_large(tmp_path: Path) -> None:
    made = checkpoints(tmp_path, {"val_loss": 2.0}, {"val_loss": 0.5}, {"val_loss": 0.75, "kept": False}, {})
    said = only(tmp_path)
    assert (said["name"], said["state"], said["steps"], said["epochs"], said["samples"]) == ("run", "ended", 4, 2, 20)
    assert (said["last_loss"], said["best_loss"], said["best_step"], said["kept"]) == (0.75, 0.5, 2, 3)
    files = [path for path in made.trace.path.rglob("*") if path.is_file()]
    assert said["size_bytes"] == sum(path.stat().st_size for path in files)
    assert said["entries"] == made.trace.head().size
    assert said["began"] < said["changed"]


def test_what_a_resumed_run_went_back_behind_does_not_count(tmp_path: Path) -> None:
    losses = [{"val_loss": 3.0}, {"val_loss": 0.1}, {"val_loss": 0.2}, {"resumed from": 1}, {"val_loss": 2.0}]
    checkpoints(tmp_path, *losses)
    said = only(tmp_path)
    assert (said["steps"], said["last_loss"], said["best_loss"], said["kept"]) == (2, 2.0, 2.0, 2)


def test_a_displaced_checkpoint_is_not_kept(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    writing.use([0])
    for kept in (True, False):
        writing.recorder.record("checkpoint", {"step": 1, "kept": kept, "rule": "budget:1", "val_loss": 1.0})
    writing.end()
    made.seal()
    assert only(tmp_path)["kept"] == 0


def two_optimizers(folder: Path, first: int, second: int) -> None:
    """A trace in which one optimizer made so many updates, an epoch each, and then another so many, all in the last
    epoch; each in an entry of its own."""
    made, writing = start_trace(folder)
    for optimizer, updates in ((1, first), (2, second)):
        for number in range(updates):
            batch = (number if optimizer == 1 else first, number, number + 1, STATUS["applied"], ATTRIBUTION["exact"])
            writing.recorder.use(writing.placement, 1, optimizer, batch, array("I", [number % 20]))
            writing.recorder.flush()
    writing.end()
    made.seal()


def test_steps_are_those_of_the_optimizer_that_made_most(tmp_path: Path) -> None:
    two_optimizers(tmp_path, 8, 2)
    assert only(tmp_path)["steps"] == 8


def test_how_far_another_optimizer_came_long_ago_is_not_known(tmp_path: Path) -> None:
    two_optimizers(tmp_path / "long", glance.MOST_USES + 8, glance.MOST_USES)
    assert only(tmp_path / "long")["steps"] is None
    two_optimizers(tmp_path / "one", glance.MOST_USES + 8, 0)
    assert only(tmp_path / "one")["steps"] == glance.MOST_USES + 8


def states(folder: Path) -> dict[str, str]:
    return {line.name: line.state for line in list_runs(folder)}


def unfinished(folder: Path) -> tuple[Made, Writing]:
    made, writing = start_trace(folder)
    writing.use([0, 1])
    writing.recorder.rotate()
    made.seal(full=False)
    return made, writing


def test_each_state_is_told_from_the_others(tmp_path: Path) -> None:
    make_trace(tmp_path / "ended")
    _made, writing = unfinished(tmp_path / "sealed")
    writing.recorder.close()
    _made, writing = unfinished(tmp_path / "cut off")
    writing.use([2])
    writing.recorder.close()
    make_trace(tmp_path / "never sealed", sealed=False)
    _made, recording = unfinished(tmp_path / "recording")
    recording.use([2])
    (tmp_path / "empty.trace").mkdir()
    try:
        assert states(tmp_path) == {
            "cut off/run": "cut off",
            "empty": "damaged",
            "ended/run": "ended",
            "never sealed/run": "cut off",
            "recording/run": "recording",
            "sealed/run": "sealed",
        }
    finally:
        recording.recorder.close()


def test_training_behind_an_end_has_not_ended(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path)
    writing.use([0])
    writers = [[writing.recorder.writer, 5]]
    writing.recorder.record("end", {"writers": writers})
    writing.recorder.record("resume", {"writers": writers, "step": 1})
    writing.use([1])
    writing.recorder.close()
    made.seal()
    assert only(tmp_path)["state"] == "sealed"


DAMAGES = {
    "an empty head": ("checkpoint", lambda data: b""),
    "a head of another log": ("checkpoint", lambda data: data.replace(b"fgtrac/", b"sunlit/")),
    "a cut bundle": ("tile/entries/000.p/18", lambda data: data[:50]),
    "entries of zeros": ("tile/entries/000.p/18", lambda data: bytes(len(data))),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_trace_is_a_line_that_says_how(tmp_path: Path, run, damage: str) -> None:
    name, change = DAMAGES[damage]
    whole = make_trace(tmp_path / "whole").trace
    shutil.copytree(whole.path, tmp_path / "broken.trace")
    path = tmp_path / "broken.trace" / name
    path.write_bytes(change(path.read_bytes()))
    done = run("runs", tmp_path, "--json")
    assert done.code == 0
    lines = {line["name"]: line for line in done.json["runs"]}
    assert lines["broken"]["state"] == "damaged"
    assert lines["broken"]["reason"]
    assert lines["whole/run"]["state"] == "ended"
    assert f"broken: {lines['broken']['reason']}" in run("runs", tmp_path).out


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_in_a_journal_keeps_no_list_waiting(tmp_path: Path, make: Any) -> None:
    made = make_trace(tmp_path / "whole")
    make_trace(tmp_path / "other")
    make(made.trace.journal / f"{'03' * 16}-0.wal")
    assert states(tmp_path) == {"other/run": "ended", "whole/run": "damaged"}


def test_a_trace_that_is_sealed_while_it_is_looked_at_is_not_damaged(tmp_path: Path, monkeypatch) -> None:
    made, writing = unfinished(tmp_path)
    real, calls = api_runs.glance, []

    def beside_a_seal(trace: Any, head: Any) -> Any:
        if not calls:
            writing.use([3])
            writing.recorder.rotate()
            made.seal(full=False)  # takes the partial tiles away that the head needs
        calls.append(head.size)
        return real(trace, head)

    monkeypatch.setattr(api_runs, "glance", beside_a_seal)
    said = only(tmp_path)
    writing.recorder.close()
    assert (said["state"], said["reason"], said["entries"]) == ("sealed", "", made.trace.head().size)
    assert len(calls) == 2


def test_a_file_that_is_gone_is_damage_and_a_link_no_way_out(tmp_path: Path) -> None:
    made = make_trace(tmp_path / "here")
    make_trace(tmp_path / "elsewhere")
    (tmp_path / "here" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "here" / "other.trace").symlink_to(tmp_path / "elsewhere" / "run.trace", target_is_directory=True)
    assert states(tmp_path / "here") == {"run": "ended"}
    (made.trace.path / "tile/entries/000.p/18").unlink()
    assert states(tmp_path / "here") == {"run": "damaged"}


def test_the_folder_may_be_a_trace_and_others_are_looked_for_to_a_depth(tmp_path: Path, run) -> None:
    made = make_trace(tmp_path / "a" / "b" / "c")
    assert [line.name for line in list_runs(made.trace.path)] == ["run"]
    assert [line.name for line in list_runs(tmp_path, depth=3)] == ["a/b/c/run"]
    assert list_runs(tmp_path, depth=2) == ()
    assert run("runs", tmp_path / "a" / "b" / "c" / "heads").out.startswith("no trace")
    assert run("runs", tmp_path / "nothing").code == 2


def test_more_folders_than_anybody_keeps_traces_in_are_refused(tmp_path: Path, run, monkeypatch) -> None:
    monkeypatch.setattr(api_runs, "MOST_FOLDERS", 3)
    for name in "abcd":
        (tmp_path / name).mkdir()
    assert "more than 3 folders" in run("runs", tmp_path).err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_said_to_be_unreadable(tmp_path: Path) -> None:
    made = make_trace(tmp_path / "a")
    made.trace.path.chmod(0)
    try:
        assert states(tmp_path) == {"a/run": "unreadable"}
    finally:
        made.trace.path.chmod(0o700)


def test_it_is_told_whose_key_signed(lived: Life, tmp_path: Path, monkeypatch) -> None:
    mine = tmp_path / "key.pem"
    monkeypatch.setenv("FGTRAC_KEY", str(mine))
    said = only(lived.path)
    assert (said["signed_by"], said["key"]) == ("other", lived.made.signer.public_key.hex())
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    mine.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    mine.chmod(0o600)
    assert only(lived.path)["signed_by"] == "own"
    durable.write_file(tmp_path / "revoked", f"{lived.made.signer.public_key.hex()}\n".encode())
    assert only(lived.path)["signed_by"] == "own, revoked"
    mine.chmod(0o644)
    assert only(lived.path)["signed_by"] == "cannot tell"


def test_receipts_are_counted_and_not_believed(life: Life) -> None:
    for path in (note_path(7), receipt_path(7, rfc3161_name("https://tsa.example/")), note_path(9)):
        durable.write_file(life.path / path, b"nothing true")
    said = only(life.path)
    assert (said["anchored"], said["anchored_size"]) == (["rfc3161"], 7)


def test_no_more_of_a_long_log_is_looked_at_than_is_said(tmp_path: Path, monkeypatch) -> None:
    checkpoints(tmp_path, *({"val_loss": float(9 - n)} for n in range(8)))
    assert only(tmp_path)["best_loss"] == 2.0
    monkeypatch.setattr(glance, "LOOKED_AT", 5)
    looked: set[int] = set()
    peek = SealedLog.peek
    monkeypatch.setattr(SealedLog, "peek", lambda log, n, *most: looked.add(n) or peek(log, n, *most))
    said = only(tmp_path)
    size = said["entries"]
    assert looked == {0, *range(size - 5, size)}
    assert (said["last_loss"], said["best_loss"], said["kept"]) == (2.0, None, None)


def test_lines_are_sorted_as_asked(tmp_path: Path, run) -> None:
    for name, loss in (("a", 2.0), ("b", 1.0), ("c", 3.0)):
        checkpoints(tmp_path / name, *[{"val_loss": loss}] * (1 if name == "b" else 2))
    make_trace(tmp_path / "d", artifact_bytes=100_000)

    def names(*options: str) -> str:
        return "".join(line["name"][0] for line in run("runs", tmp_path, "--json", *options).json["runs"])

    assert names() == names("--sort", "name") == "abcd"
    assert names("--sort", "loss") == "bacd"
    assert names("--sort", "steps") == "dacb"
    assert names("--sort", "size")[0] == "d"
    assert run("runs", tmp_path, "--sort", "colour").code == 2


def test_the_table_says_that_nothing_was_verified_and_holds_hostile_names(tmp_path: Path, run) -> None:
    made = make_trace(tmp_path / "a")
    made.trace.path.rename(tmp_path / "a" / "[red]x\n\x1b[31m.trace")
    done = run("runs", tmp_path)
    assert "nothing here was verified" in done.out
    assert "[red]x" in done.out
    assert "\x1b" not in done.out
    assert len(done.out.splitlines()) == 3
