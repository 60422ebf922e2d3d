"""`fgtrac doctor` finds what crashes, moves and strangers leave, says what to do, and changes nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import erasable
from fgtrac.anchor.pending import Pending, format_pending
from fgtrac.anchor.service import SignedHead
from fgtrac.api import machine_checks
from fgtrac.api.doctor import examine
from fgtrac.api.finding import Finding, State
from fgtrac.api.naming import subject_scope
from fgtrac.api.prior import trace_id_of
from fgtrac.capture.self_test import KNOWN_VERSIONS
from fgtrac.events.identity import subject_commitment
from fgtrac.query.view_cache import views_folder
from fgtrac.store import disks, durable
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from fgtrac.tlog.note import TreeHead
from lives import keep_names
from traces import TRACE_ID, Made, files_of, make_trace, start_trace

ROOT = Path(__file__).parents[2]


def found(*arguments: object, **options: object) -> dict[str, Finding]:
    """The findings by check; of several of one check the gravest."""
    order = [State.FINE, State.NOTE, State.CANNOT_TELL, State.TO_DO]
    findings = sorted(examine(*arguments, **options), key=lambda one: order.index(one.state))  # type: ignore[arg-type]
    return {one.check: one for one in findings}


def to_do(path: Path) -> dict[str, Finding]:
    return {check: one for check, one in found(path).items() if one.state is State.TO_DO}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A whole trace with its vault, whose key is the user's own."""
    made = make_trace(tmp_path / "mine", scheme="keyed", artifact_bytes=100)
    keep_names(tmp_path / "mine", made)
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    path = tmp_path / "mine" / "key.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    monkeypatch.setenv("FGTRAC_KEY", str(path))
    return made


# -- a trace ----------------------------------------------------------------------------------------------------------


def test_nothing_needs_doing_about_a_whole_trace(mine: Made, run, tmp_path: Path, monkeypatch) -> None:
    assert to_do(mine.trace.path) == {}
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "mine" / "key.pem"))
    done = run("doctor", mine.trace.path, "--json")
    assert (done.code, done.json["exit_code"]) == (0, 0)
    said = {one["check"]: one for one in done.json["findings"]}
    assert said["verification"]["state"] == "note"
    assert "not run" in said["verification"]["words"]


def leave_a_journal(made: Made) -> None:
    made.trace.journal.mkdir(exist_ok=True)
    other = make_trace(made.trace.path.parent / "other", sealed=False).trace
    for path in other.journal.glob("*.wal"):
        shutil.copy(path, made.trace.journal / f"{'02' * 16}-0.wal")


def damage_a_journal(made: Made) -> None:
    durable.write_file(made.trace.journal / f"{'03' * 16}-0.wal", bytes(1000))


def sign_more(made: Made) -> None:
    head = made.trace.head()
    assert head is not None
    made.signer.sign(TreeHead(head.origin, head.size + 5, bytes(32)))


def sign_otherwise(made: Made) -> None:
    head = made.trace.head()
    assert head is not None
    state = made.trace.path.parent / "heads" / TRACE_ID.hex()
    state.unlink()
    made.signer.sign(TreeHead(head.origin, head.size, bytes(32)))


def wait_for_an_anchor(made: Made) -> None:
    head, note = made.trace.head(), made.trace.read("checkpoint")
    assert head is not None
    pending = [Pending({"kind": "rfc3161", "url": "http://tsa.example/"}, SignedHead(head, note))]
    durable.write_file(made.signer.pending_path, format_pending(pending), mode=0o600)


def another_vault(made: Made) -> None:
    made.trace.vault_path.unlink()
    Vault.create(made.trace.vault_path, bytes(16)).close()


def break_off_an_erasure(made: Made) -> None:
    vault = Vault.open(made.trace.vault_path, TRACE_ID, read_only=False)
    vault.erase("subject:ada", [], [], bytes(32), [])
    vault.close()


def test_what_it_says_of_a_broken_off_erasure_erases_nobody_else(run, tmp_path: Path, monkeypatch) -> None:
    trace = erasable.record(tmp_path)
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    vault = Vault.open(trace.with_suffix(".vault"), trace_id_of(TraceDir(trace)), read_only=False)
    before = dict(vault.secrets())
    gone = subject_commitment(before.pop(bob := subject_scope(erasable.BOB)))
    vault.erase(bob, [], [], gone, [])
    remedy = to_do(trace)["vault"].remedy
    command = remedy[: remedy.index(" finishes")].split()
    assert run(*command[1:]).code == 2
    assert (dict(vault.secrets()), vault.unfinished()) == (before, [])
    vault.close()


def in_trace(name: str, data: bytes = b"x") -> Callable[[Made], None]:
    return lambda made: durable.write_file(made.trace.path / name, data)


def without(pattern: str) -> Callable[[Made], None]:
    def take_away(made: Made) -> None:
        for path in sorted(made.trace.path.glob(pattern)):
            path.unlink()

    return take_away


TROUBLES: dict[str, tuple[Callable[[Made], None], str, str]] = {
    "a journal of a process that is gone": (leave_a_journal, "journal", "fgtrac seal"),
    "a damaged journal": (damage_a_journal, "journal", "gap entry"),
    "a seal that was begun": (in_trace("journal/99.seal"), "seal", "fgtrac seal"),
    "a file that was cut short": (in_trace("tile/0/000.tmp"), "leftovers", "removes them"),
    "a key that signed more": (sign_more, "signer", "rolled back"),
    "a key that signed another root": (sign_otherwise, "signer", "restore"),
    "an anchor that waits": (wait_for_an_anchor, "anchors", "--pending"),
    "a list of anchors that is none": (
        lambda made: durable.write_file(made.signer.pending_path, b"{"), "anchors", "keep that file",
    ),
    "no index": (without("index/*/*"), "index", "fgtrac seal"),
    "no column of the index": (without("index/*/keys.npy"), "index", "fgtrac seal"),
    "a damaged column": (in_trace("index/19/keys.npy"), "index", "fgtrac seal"),
    "a vault that others may read": (lambda made: made.trace.vault_path.chmod(0o644), "vault", "chmod 600"),
    "another trace's vault": (another_vault, "vault", "own vault"),
    "a file that is no vault": (
        lambda made: made.trace.vault_path.write_bytes(b"SQLite format 4"), "vault", "restore",
    ),
    "an erasure that broke off": (break_off_an_erasure, "vault", "fgtrac erase"),
    "an artifact that is gone": (without("artifacts/*"), "artifacts", "restore"),
    "a file that is none of a trace's": (in_trace("notes.txt"), "files", "move them away"),
    "a link": (lambda made: (made.trace.path / "link").symlink_to("/etc/hostname"), "files", "put the file itself"),
    "a head that is none": (in_trace("checkpoint"), "head", "restore"),
    "a bundle that is gone": (without("tile/entries/000.p/19"), "log", "restore"),
}  # fmt: skip


@pytest.mark.parametrize("trouble", TROUBLES)
def test_each_trouble_is_found_and_has_its_remedy(mine: Made, trouble: str) -> None:
    make, check, remedy = TROUBLES[trouble]
    make(mine)
    assert check in (troubles := to_do(mine.trace.path)), troubles
    assert remedy in troubles[check].remedy


def test_looking_changes_nothing(mine: Made) -> None:
    for make, _check, _remedy in (TROUBLES[name] for name in ("a damaged journal", "a seal that was begun", "a link")):
        make(mine)
    before, stats = files_of(mine.trace.path.parent), _times(mine.trace.path.parent)
    list(examine(mine.trace.path, verify=True))
    assert files_of(mine.trace.path.parent) == before
    assert _times(mine.trace.path.parent) == stats


def _times(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_what_it_says_to_do_helps(mine: Made) -> None:
    """Of what `fgtrac seal` is said to mend, all is mended."""
    for name in ("a seal that was begun", "a file that was cut short", "no column of the index"):
        TROUBLES[name][0](mine)
    assert len(to_do(mine.trace.path)) == 3
    from fgtrac.api.sealing import seal_trace

    seal_trace(mine.trace.path)
    assert to_do(mine.trace.path) == {}


def test_a_trace_that_is_recorded_now_needs_nothing(tmp_path: Path, monkeypatch) -> None:
    made, writing = start_trace(tmp_path)
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "none.pem"))
    writing.use([0, 1])
    said = found(made.trace.path)
    assert "a process is recording" in said["journal"].words
    assert {check for check, one in said.items() if one.state is State.TO_DO} == set()
    writing.recorder.close()
    assert to_do(made.trace.path).keys() == {"head", "journal"}


def test_model_states_that_the_journal_alone_names_are_left_alone(tmp_path: Path, monkeypatch) -> None:
    made, writing = start_trace(tmp_path)
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "none.pem"))
    writing.use([0, 1])
    writing.artifact(b"one")
    said = found(made.trace.path)  # its entry is on its way
    assert (said["files"].state, "leave them" in said["files"].remedy) == (State.NOTE, True)
    writing.recorder.flush()
    assert found(made.trace.path)["files"].state is State.FINE
    writing.recorder.close()
    said = found(made.trace.path)
    assert {check for check, one in said.items() if one.state is State.TO_DO} == {"head", "journal"}
    assert said["files"].state is State.FINE


def test_what_was_rotated_in_a_recording_was_not_cut_off(tmp_path: Path, monkeypatch) -> None:
    made, writing = start_trace(tmp_path)
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "none.pem"))
    writing.recorder.rotate()
    writing.use([0, 1])
    assert to_do(made.trace.path) == {}
    writing.recorder.close()


def test_whose_an_artifact_is_that_no_entry_names_cannot_be_told(mine: Made, run) -> None:
    in_trace("artifacts/extra.safetensors")(mine)
    said = found(mine.trace.path)["files"]
    assert (said.state, "leave them" in said.remedy) == (State.CANNOT_TELL, True)


def test_behind_an_older_head_no_model_state_is_moved_away(tmp_path: Path) -> None:
    trace = make_trace(tmp_path, seals=(4,), artifact_bytes=100).trace
    older, newest = trace.full_seals()
    (trace.path / "checkpoint").unlink()
    note_of_older = trace.read(f"index/{older}/checkpoint")
    (trace.path / f"index/{newest}/checkpoint").write_bytes(b"no note")
    assert "copy index" not in to_do(trace.path)["head"].remedy
    shutil.rmtree(trace.path / f"index/{newest}")
    said = to_do(trace.path)["head"]
    assert "do not seal on it" in said.remedy
    (trace.path / "checkpoint").write_bytes(note_of_older)
    assert found(trace.path)["files"].state is State.CANNOT_TELL


def test_a_head_that_was_lost_comes_back_as_it_says(mine: Made) -> None:
    head = mine.trace.path / "checkpoint"
    before = head.read_bytes()
    head.unlink()
    said = found(mine.trace.path)
    assert (said.keys(), "was lost" in said["head"].words) == ({"head", "verification"}, True)
    (kept,) = re.findall(r"copy (index/[0-9]+/checkpoint)", said["head"].remedy)
    shutil.copy(mine.trace.path / kept, head)
    assert (head.read_bytes(), to_do(mine.trace.path)) == (before, {})


def test_a_first_write_that_was_lost_cannot_be_sealed(mine: Made, tmp_path: Path) -> None:
    trace = TraceDir.create(tmp_path / "empty.trace")
    assert found(trace.path).keys() == {"head", "verification"}
    assert "fgtrac seal" not in to_do(trace.path)["head"].remedy


@pytest.mark.parametrize("which", ["gone", "changed", "cut"])
def test_a_hash_tile_is_the_log_s_and_no_seal_makes_it_again(mine: Made, which: str) -> None:
    (path,) = (mine.trace.path / "tile" / "0").rglob("19")
    data = path.read_bytes()
    path.write_bytes(bytes(32) + data[32:] if which == "changed" else data[:-1])
    if which == "gone":
        path.unlink()
    troubles = to_do(mine.trace.path)
    assert troubles.keys() == {"log"}
    assert "restore" in troubles["log"].remedy
    assert "fgtrac seal" not in troubles["log"].remedy


def test_a_note_of_the_index_that_is_none_is_made_again_by_no_seal(mine: Made) -> None:
    in_trace("index/19/checkpoint")(mine)
    assert "restore" in to_do(mine.trace.path)["index"].remedy


def put_a_pipe(path: Path) -> None:
    os.mkfifo(path)


def put_a_folder(path: Path) -> None:
    path.mkdir()


def put_a_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("put", [put_a_pipe, put_a_folder, put_a_link])
def test_nothing_in_a_journal_keeps_it_waiting(mine: Made, put: Callable[[Path], None]) -> None:
    put(mine.trace.journal / f"{'03' * 16}-0.wal")
    put(mine.trace.journal / "x.tmp")
    assert "journal" in to_do(mine.trace.path)


@pytest.mark.parametrize("name", ["key.pem", "retired/one.pem"])
def test_a_key_that_others_may_read_is_not_taken_for_somebody_else_s(mine: Made, name: str) -> None:
    path = mine.trace.path.parent / name
    path.parent.mkdir(exist_ok=True)
    if name != "key.pem":
        shutil.copy(mine.trace.path.parent / "key.pem", path)
    path.chmod(0o644)
    assert "chmod 600" in to_do(mine.trace.path)["signer"].words


def test_a_file_that_is_cut_is_not_there(mine: Made) -> None:
    (path,) = (mine.trace.path / "artifacts").iterdir()
    path.write_bytes(b"")
    said = to_do(mine.trace.path)
    assert (said.keys(), "another size" in said["artifacts"].words) == ({"artifacts"}, True)


def test_an_entry_from_the_future_is_the_clock_s(mine: Made) -> None:
    said = {
        one.check: one for one in examine(mine.trace.path, clock=lambda: 0.0)
    }  # in 1970, and seals are of 11 days later
    assert said["clock"].state is State.TO_DO
    assert "clock" not in found(mine.trace.path)


def test_somebody_else_s_trace_is_no_trouble(mine: Made, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "nobody.pem"))
    mine.trace.vault_path.unlink()
    said = found(mine.trace.path)
    assert (said["signer"].state, said["vault"].state) == (State.NOTE, State.NOTE)
    assert to_do(mine.trace.path) == {}


def test_with_verify_it_says_what_the_verification_says(mine: Made, run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "mine" / "key.pem"))
    assert found(mine.trace.path, verify=True)["verification"].state is State.FINE
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "nobody.pem"))
    assert found(mine.trace.path, verify=True)["verification"].state is State.CANNOT_TELL
    assert run("doctor", mine.trace.path, "--verify").code == 3
    key = mine.signer.public_key.hex()
    assert run("doctor", mine.trace.path, "--verify", "--key", key).code == 0
    path = next((mine.trace.path / "tile" / "entries").rglob("19"))
    data = bytearray(path.read_bytes())
    data[data.rfind(b"ordinals") + 20] ^= 1
    path.write_bytes(bytes(data))
    assert found(mine.trace.path)["verification"].state is State.NOTE  # nobody looked
    done = run("doctor", mine.trace.path, "--verify", "--key", key)
    assert (done.code, "refuted" in done.out) == (1, True)


def test_what_is_no_trace_and_options_without_one_are_mistakes(run, tmp_path: Path) -> None:
    assert run("doctor", tmp_path).code == 2
    assert run("doctor", tmp_path / "none.trace").code == 2
    assert run("doctor", "--verify").code == 2


# -- the machine ------------------------------------------------------------------------------------------------------


def test_the_machine_is_looked_at_without_loading_what_it_has(tmp_path: Path) -> None:
    code = (
        "import sys; from fgtrac.api.doctor import examine; n = len(list(examine())); assert n > 20, n; "
        "loaded = {'torch', 'pyarrow', 'duckdb', 'starlette', 'mlflow', 'web3', 'polars'} & set(sys.modules); "
        "assert not loaded, loaded"
    )
    environment = {**os.environ, "FGTRAC_KEY": str(tmp_path / "key.pem"), "FGTRAC_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_every_extra_is_named_and_said_what_it_is_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].keys() - {"dev", "fuzz", "peers"}
    assert extras == machine_checks.EXTRAS.keys()
    oldest, newest = (".".join(map(str, version)) for version in machine_checks.TORCH_TESTED)
    assert f"torch {oldest} to {newest}" == KNOWN_VERSIONS


def machine(environment: dict[str, str], now: float | None = None) -> dict[str, Finding]:
    return {one.check: one for one in machine_checks.machine_findings(environment, time.time() if now is None else now)}


def test_an_extra_that_is_missing_or_too_old_says_how_to_get_it(tmp_path: Path, monkeypatch) -> None:
    real = machine_checks._version
    old = {"duckdb": "0.9.2", "starlette": None, "torch": "2.40.1"}
    monkeypatch.setattr(machine_checks, "_version", lambda name: old[name] if name in old else real(name))
    said = machine({"FGTRAC_KEY": str(tmp_path / "key.pem")})
    assert said["extra query"].state is State.NOTE
    assert "duckdb 1.1 (there is 0.9.2)" in said["extra query"].words
    assert said["extra query"].remedy == "pip install 'fgtrac[query]'"
    assert "starlette" in said["extra ui"].words  # through the extra that it asks for
    assert said["extra tsa"].state is State.FINE
    assert said["torch"].state is State.CANNOT_TELL  # newer than any that was tested


def test_a_key_that_others_may_read_is_found_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    environment = {"FGTRAC_KEY": str(path), "FGTRAC_CACHE": str(tmp_path / "cache")}
    assert machine(environment)["key"].state is State.NOTE
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem)
    path.chmod(0o640)
    said = machine(environment)["key"]
    assert said.state is State.TO_DO
    assert "chmod 600" in said.words
    path.chmod(0o600)
    tmp_path.chmod(0o777)
    said_now = machine(environment)
    assert (said_now["key"].state, said_now["key folder"].state) == (State.FINE, State.TO_DO)
    text = json.dumps([one.as_json() for one in said_now.values()])
    assert pem.decode().splitlines()[1] not in text
    tmp_path.chmod(0o700)


def test_of_the_cache_s_folder_the_views_alone_are_counted(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FGTRAC_CACHE", str(tmp_path))
    for name in ("thesis.tex", "views/thesis.tex", "views/chapters/one.tex"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("my thesis")
    assert machine({})["cache"].state is State.FINE
    durable.write_file(views_folder(bytes(16)) / "9-ab-1" / "uses.parquet", bytes(5))
    said = machine({})["cache"]
    assert said.words.startswith("5 bytes in 1 files")
    assert str(tmp_path / "views") in said.remedy
    assert "a trace's id" in said.remedy


def test_a_clock_before_fgtrac_was_installed_is_wrong(tmp_path: Path) -> None:
    environment = {"FGTRAC_KEY": str(tmp_path / "key.pem")}
    assert machine(environment, 0.0)["clock"].state is State.TO_DO
    assert machine(environment)["clock"].state is State.FINE


def test_little_room_and_network_file_systems_are_said(tmp_path: Path, monkeypatch) -> None:
    def folder() -> list[Finding]:
        return list(machine_checks.folder_findings("folder", tmp_path))

    assert [one.state for one in folder()][1] is State.FINE
    for kind, state in (("nfs4", State.NOTE), ("tmpfs", State.NOTE), ("ext4", State.FINE), (None, State.CANNOT_TELL)):
        monkeypatch.setattr(machine_checks, "file_system", lambda _folder, kind=kind: kind)
        assert folder()[0].state is state
    monkeypatch.setattr(machine_checks, "LEAST_FREE", 1 << 62)
    assert folder()[0].state is State.TO_DO


def test_a_file_system_without_locks_is_found(tmp_path: Path, monkeypatch) -> None:
    def refuse(_file: object, _how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(durable.fcntl, "lockf", refuse)
    assert durable.try_locks(tmp_path) == "a lock is refused: No locks available"
    monkeypatch.undo()
    monkeypatch.setattr(durable.fcntl, "flock", lambda _file, _how: None)  # as a server that forgets
    assert durable.try_locks(tmp_path) == "two holders of one file are not kept apart"
    monkeypatch.undo()
    assert durable.try_locks(tmp_path) is None


MOUNTS = r"""21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 21 0:40 / /data rw shared:3 - nfs4 server:/data rw
31 30 0:41 / /data/with\040space rw - fuse.sshfs me@host rw
32 21 0:42 / /data2 rw - tmpfs none rw
33 32 0:43 / /data2 rw - xfs /dev/sdb rw
not a mount
"""


def test_the_file_system_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    told = {
        path: disks.file_system(Path(path), mounts)
        for path in ("/", "/data/x", "/data/with space/y", "/data2/z", "/database")
    }
    assert told == {
        "/": "ext4", "/data/x": "nfs4", "/data/with space/y": "fuse.sshfs", "/data2/z": "xfs", "/database": "ext4",
    }  # fmt: skip
    assert [disks.is_network(kind) for kind in ("nfs4", "fuse.sshfs", "ext4", "fuse.ext4")] == [
        True,
        True,
        False,
        False,
    ]
    assert disks.file_system(Path("/"), tmp_path / "nothing") is None
