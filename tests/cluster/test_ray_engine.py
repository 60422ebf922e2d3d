"""Units of work on Ray: the same results and errors as on this machine, and a cluster that is not there, is another's,
sees no such folder, or goes away in between."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

import engine_units
from engine_units import Unit, is_running, pids, units, wait_until
from fgtrac.api.log_checks import is_temporary
from fgtrac.engine import cluster as ray_cluster
from fgtrac.engine.local import cores
from fgtrac.engine.opening import open_engine
from fgtrac.engine.units import TRIES
from fgtrac.errors import EngineError, ProofError

SQUARES = [(number, number**2) for number in range(8)]


@pytest.fixture(scope="module")
def engines(cluster):
    """As a node of the cluster, and from outside."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", cluster.head)
        with open_engine("ray") as node, open_engine(cluster.client) as outside:
            yield {"ray": node, "ray://": outside}


@pytest.fixture(params=["ray", "ray://"])
def engine(engines, request):
    return engines[request.param]


def test_ray_gives_each_units_result_once(engine, tmp_path):
    heard = []
    found = engine.results(
        engine_units.square, units(8, tmp_path), what="squares", progress=lambda *of: heard.append(of)
    )
    assert sorted(found) == SQUARES
    assert heard == [(done, 8) for done in range(1, 9)]
    assert list(engine.results(engine_units.square, [], what="squares")) == []
    assert engine.workers == 2


def test_a_killed_workers_unit_is_done_again_and_nothing_is_printed(engine, tmp_path, capfd):
    assert sorted(engine.results(engine_units.killed_once, units(8, tmp_path), what="squares")) == SQUARES
    assert capfd.readouterr() == ("", "")


def test_a_unit_that_no_worker_survives_is_named_with_what_to_do(engine, tmp_path):
    with pytest.raises(
        EngineError, match=r"^squares: unit 4 of 8 lost its worker 3 times \(WorkerCrashedError\); where"
    ):
        list(engine.results(engine_units.killed, units(8, tmp_path), what="squares"))
    assert engine_units.tries(Unit(3, str(tmp_path))) == TRIES


def test_what_a_unit_raises_is_raised_as_itself(engine, tmp_path):
    with pytest.raises(ProofError, match="unit 2 shows something else"):
        list(engine.results(engine_units.refuted, units(8, tmp_path), what="x"))
    with pytest.raises(EngineError, match="OddError: this and that"):
        list(engine.results(engine_units.odd, units(2, tmp_path), what="x"))
    assert sorted(engine.results(engine_units.square, units(8, tmp_path), what="squares")) == SQUARES


def test_whoever_stops_early_leaves_no_unit_running(engine, tmp_path):
    engine_units.stop_early(engine, tmp_path)


def test_a_folder_that_a_node_does_not_see_is_told_before_any_unit_begins(cluster, engine, tmp_path):
    engine.check_shared(tmp_path)
    with pytest.raises(EngineError, match=rf"does not see {cluster.unseen} of this machine"):
        engine.check_shared(cluster.unseen)
    assert not list(cluster.unseen.iterdir())


def test_what_looking_at_a_folder_may_leave_there_is_known_in_a_trace(engine, tmp_path, monkeypatch):
    left = []
    monkeypatch.setattr(ray_cluster.durable, "remove", left.append)
    engine.check_shared(tmp_path)
    assert [(path.parent, path.exists(), is_temporary(path.name)) for path in left] == [(tmp_path, True, True)]


def test_units_that_wait_for_cpus_are_told_of(engines, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_cluster, "QUIET_S", 1.0)
    held = engines["ray"].results(engine_units.first_short, units(3, tmp_path), what="x")
    assert next(held) == (0, 0)
    wait_until(lambda: len(pids(tmp_path)) == 2)  # they have both CPUs
    threading.Timer(5, held.close).start()
    with pytest.warns(RuntimeWarning, match=r"squares: no unit has ended on ray://\S+ for 1 seconds"):
        assert sorted(engines["ray://"].results(engine_units.square, units(8, tmp_path), what="squares")) == SQUARES


def test_another_version_of_fgtrac_on_a_node_is_told_with_both(cluster, tmp_path, monkeypatch):
    other = tmp_path / "fgtrac-9.9.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: fgtrac\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(tmp_path)  # found first by this process's driver, and by no node
    monkeypatch.setenv("RAY_ADDRESS", cluster.head)
    with pytest.raises(EngineError, match=r"has fgtrac 0\.1\.0 on Python \S+, and this machine fgtrac 9\.9 on Python"):
        open_engine("ray").__enter__()


def test_another_version_of_ray_on_the_cluster_is_told_with_both(cluster):
    driver = f"""
import ray, fgtrac.engine.ray as door
ours, ray.__version__ = ray.__version__, "2.1.0"
try:
    door.join({cluster.head!r}, 2, "")
except door.EngineError as error:
    print(error, "|", ours)
"""
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    said = subprocess.run([sys.executable, "-c", driver], env=environment, capture_output=True, text=True).stdout
    words, _, ours = said.strip().rpartition(" | ")
    assert words.startswith(f"the Ray cluster at {cluster.head} is of another version: ")
    assert ours in words
    assert "2.1.0" in words


def test_nobody_at_the_address_is_told_at_once(monkeypatch):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # and does not listen
        port = listener.getsockname()[1]
        begun = time.monotonic()
        with pytest.raises(EngineError, match=rf"^no Ray cluster at ray://127\.0\.0\.1:{port}: nobody"):
            open_engine(f"ray://127.0.0.1:{port}").__enter__()
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        with pytest.raises(EngineError, match=rf"^no Ray cluster at 127\.0\.0\.1:{port}: "):
            open_engine("ray").__enter__()
        assert time.monotonic() - begun < 5


def test_somebody_else_at_the_address_is_told_within_the_limit(monkeypatch):
    monkeypatch.setattr(ray_cluster, "JOIN_S", 4.0)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(EngineError, match=rf"{port}: no answer of a Ray cluster within 4 seconds"):
            open_engine(f"ray://127.0.0.1:{port}").__enter__()


def test_a_cluster_that_goes_away_under_its_node_is_told_and_what_is_done_stays(
    passing_cluster, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("RAY_ADDRESS", passing_cluster.head)
    with open_engine("ray") as engine:
        found = engine.results(engine_units.slow, units(8, tmp_path), what="squares")
        next(found)
        passing_cluster.kill()
        begun = time.monotonic()
        with pytest.raises(EngineError, match=r"went away; what is done so far stays, and the same command goes on$"):
            list(found)
        assert time.monotonic() - begun < 30
    assert capfd.readouterr() == ("", "")
    with open_engine("local:2") as engine:
        assert sorted(engine.results(engine_units.slow, units(8, tmp_path), what="squares")) == SQUARES


def test_without_a_cluster_ray_starts_one_of_this_machines_own_and_ends_it(tmp_path, monkeypatch, capfd):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # where no `ray start` has left its address
    with open_engine("ray") as engine:
        mark = str(engine._folder)
        assert sorted(engine.results(engine_units.square, units(8, tmp_path), what="squares")) == SQUARES
        assert _with(mark)
    wait_until(lambda: not _with(mark))
    assert not Path(mark).exists()
    assert capfd.readouterr() == ("", "")


def test_ctrl_c_ends_a_cluster_of_its_own_and_all_its_units(tmp_path):
    script = """
import pathlib, engine_units
from fgtrac.engine.opening import open_engine
with open_engine("ray") as engine:
    pathlib.Path("mark").write_text(engine._folder)
    list(engine.results(engine_units.long, engine_units.units(8, pathlib.Path.cwd()), what="x"))
"""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(Path(engine_units.__file__).parent), "RAY_TMPDIR": str(tmp_path)},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: all(pids(tmp_path)) and len(pids(tmp_path)) == cores(), 120)
    os.killpg(command.pid, signal.SIGINT)  # as a terminal sends it
    said = command.communicate(timeout=60)[1]
    assert said.count("Traceback") == 1
    assert said.endswith("KeyboardInterrupt\n")
    mark = (tmp_path / "mark").read_text()
    wait_until(lambda: not _with(mark) and not any(map(is_running, pids(tmp_path))))
    assert not Path(mark).exists()


def _with(word: str) -> list[str]:
    """The processes of this machine that have a word in their command."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if word in (process / "cmdline").read_text():
                found.append(process.name)
    return found
