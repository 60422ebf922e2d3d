"""A trace that was restored from a backup, whose signer's memory was lost, or that was deleted and begun anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fgtrac.api.keys import rotate
from fgtrac.api.run import start_run
from fgtrac.api.sealing import seal_trace
from fgtrac.api.since import since_demand
from fgtrac.api.trace import open_for_verification, open_trace
from fgtrac.commit.keys import load_key, public_bytes
from fgtrac.errors import TamperError
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.note import Note, TreeHead, format_note, format_tree_head, sign_note
from fgtrac.verify.report import Report, Verdict
from traces import files_of


class Machine:
    """One trace, run.trace, with its key, and what somebody else keeps: copies of its heads and of the whole folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path, self.key = folder / "run.trace", folder / "keys" / "key.pem"
        self.record(1)

    def record(self, *steps: int) -> None:
        with start_run(self.path, key=self.key, ids="public", resume=self.path.exists(), flush_interval_s=0) as run:
            for step in steps:
                run.log(step, loss=float(step))

    def keep(self, name: str) -> Path:
        """Keep a copy of the trace; its head is in the folder that is returned."""
        shutil.copytree(self.path, self.folder / name)
        return self.folder / name

    def restore(self, kept: Path) -> None:
        shutil.rmtree(self.path)
        shutil.copytree(kept, self.path)

    def forget(self) -> None:
        """Lose the signer's memory, not the key."""
        shutil.rmtree(self.key.parent / "heads")

    @property
    def size(self) -> int:
        head = TraceDir(self.path).head()
        assert head is not None
        return head.size

    def verify(self, since: Path | None = None) -> Report:
        demands = [] if since is None else [since_demand(since)]
        return open_for_verification(self.path).verify(str(self.key), demands=demands)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def since_of(report: Report) -> tuple[Verdict, str]:
    (found,) = [(f.verdict, f.words) for f in report.findings if f.check == "since"]
    return found


def test_nothing_is_signed_for_a_trace_that_was_restored_to_a_smaller_size(machine: Machine) -> None:
    old = machine.keep("old")
    machine.record(2)
    new = machine.keep("new")
    machine.restore(old)
    for attempt in (lambda: seal_trace(machine.path, machine.key), lambda: machine.record(3)):
        with pytest.raises(TamperError, match="it was rolled back or lost files; restore it from a copy"):
            attempt()
    assert files_of(machine.path).keys() >= files_of(old).keys()
    assert since_of(machine.verify(new))[0] is Verdict.REFUTED
    machine.restore(new)
    machine.record(3)  # the way out: the newer copy
    assert since_of(machine.verify(new))[0] is Verdict.HOLDS


def test_another_tree_of_the_same_size_is_not_signed_and_one_signed_elsewhere_is_not_taken(machine: Machine) -> None:
    old = machine.keep("old")
    elsewhere = Machine.__new__(Machine)
    elsewhere.folder = machine.folder / "elsewhere"
    shutil.copytree(machine.key.parent, elsewhere.folder / "keys")  # the same key, with no memory of what follows
    shutil.copytree(old, elsewhere.folder / "run.trace")
    shutil.copy(machine.path.with_suffix(".vault"), elsewhere.folder)
    elsewhere.path, elsewhere.key = elsewhere.folder / "run.trace", elsewhere.folder / "keys" / "key.pem"
    machine.record(2)
    elsewhere.record(3)
    assert machine.size == elsewhere.size
    mine, theirs = machine.keep("mine"), elsewhere.keep("theirs")
    machine.restore(theirs)
    with pytest.raises(TamperError, match=f"size {machine.size} was signed with root"):
        seal_trace(machine.path, machine.key)
    verdict, words = since_of(machine.verify(mine))
    assert (verdict, "a fork: over the first" in words) == (Verdict.REFUTED, True)
    elsewhere.record(4)  # and neither is a larger one that does not extend what was signed
    machine.restore(elsewhere.path)
    with pytest.raises(TamperError, match="is a fork of the one that was sealed"):
        seal_trace(machine.path, machine.key)
    assert since_of(machine.verify(old))[0] is Verdict.HOLDS


def test_without_the_signers_memory_a_rollback_is_signed_and_a_kept_head_says_so(machine: Machine) -> None:
    old = machine.keep("old")
    machine.record(2)
    new = machine.keep("new")
    machine.restore(old)
    machine.forget()
    machine.record(3)  # nobody here can know better
    assert machine.verify().verdict is Verdict.HOLDS
    verdict, words = since_of(machine.verify(new))
    assert (verdict, "the past was rewritten" in words) == (Verdict.REFUTED, True)
    assert machine.verify(new).exit_code == 1


def test_a_run_that_was_deleted_and_begun_anew_under_its_name_is_another_log(machine: Machine) -> None:
    machine.record(2, 3)
    kept = machine.keep("kept")
    first, before = TraceDir(kept).head(), machine.size
    shutil.rmtree(machine.path)
    machine.path.with_suffix(".vault").unlink()
    machine.record(1)
    assert machine.size < before  # and the signer does not mind: it remembers by trace id
    second = TraceDir(machine.path).head()
    assert first is not None
    assert second is not None
    assert first.origin != second.origin
    assert machine.verify().verdict is Verdict.HOLDS
    verdict, words = since_of(machine.verify(kept))
    assert (verdict, first.origin in words, second.origin in words) == (Verdict.REFUTED, True, True)


def test_an_older_head_from_before_a_rotation_still_counts_and_a_rollback_behind_it_is_seen(machine: Machine) -> None:
    old, first = machine.keep("old"), public_bytes(load_key(machine.key)).hex()
    rotate([machine.path], path=machine.key)
    assert since_of(machine.verify(old))[0] is Verdict.HOLDS
    new, bundle = machine.keep("new"), machine.folder / "bundle.json"
    bundle.write_bytes(open_trace(machine.path).prove("id:" + "ab" * 32))
    machine.restore(old)
    report = machine.verify(new)  # under the new key, which did not sign the old head
    assert (report.exit_code, "not by the key that you named" in report.findings[0].words) == (1, True)
    assert (since_of(report)[0], "it was rolled back" in since_of(report)[1]) == (Verdict.REFUTED, True)
    report = open_for_verification(machine.path).verify(first, demands=[since_demand(new / "checkpoint")])
    verdict, words = since_of(report)  # who knows the old key only has no way from it to the new one
    assert (verdict, words.endswith("rolled back: name that key with --key")) == (Verdict.CANNOT_TELL, True)
    report = open_for_verification(machine.path).verify(first, demands=[since_demand(bundle)])  # which shows the way
    assert (since_of(report)[0], "it was rolled back" in since_of(report)[1]) == (Verdict.REFUTED, True)


def test_what_a_thief_signs_with_a_revoked_key_does_not_refute_the_log_of_its_owner(machine: Machine) -> None:
    trace, stolen = TraceDir(machine.path), load_key(machine.key)
    head = trace.head()
    assert head is not None
    rotate([machine.path], revoke=True, path=machine.key)
    for size in (head.size, head.size + 100):
        text = format_tree_head(TreeHead(head.origin, size, bytes(32)))
        forged = machine.folder / "forged"
        forged.write_bytes(format_note(Note(text, (sign_note(text, head.origin, stolen),))))
        report = open_for_verification(machine.path).verify(str(machine.key), demands=[since_demand(forged)])
        verdict, words = since_of(report)
        assert (verdict, "(key) of this log revokes" in words) == (Verdict.CANNOT_TELL, True)
