"""Units of work in this process and in a pool: the same results, whatever is killed, raised or stopped in between."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import engine_units
from engine_units import Counted, Unit, is_running, pids, units, wait_until
from fgtrac.engine.local import cores
from fgtrac.engine.opening import open_engine
from fgtrac.engine.pool import Pool
from fgtrac.engine.units import IN_FLIGHT, TRIES
from fgtrac.errors import EngineError, ProofError

SQUARES = [(number, number**2) for number in range(8)]


@pytest.fixture(scope="module")
def pool():
    with open_engine("local:2") as engine:
        yield engine


@pytest.fixture
def soon():
    """What takes longer than half a minute waits for ever."""

    def fail(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def workers_of(pool, folder):
    return {pid for _, pid in pool.results(engine_units.process, units(8, folder), what="x")}


@pytest.mark.parametrize("name", ["local", "local:1", "local:2", "local:3"])
def test_every_local_engine_gives_each_units_result_once(name, tmp_path):
    heard = []
    with open_engine(name) as engine:
        found = engine.results(
            engine_units.square, units(8, tmp_path), what="squares", progress=lambda *of: heard.append(of)
        )
        assert sorted(found) == SQUARES
        assert list(engine.results(engine_units.square, [], what="squares")) == []
        assert engine.name == (f"local:{cores()}" if name == "local" else name)
        assert engine.workers == int(engine.name.partition(":")[2])
    assert heard == [(done, 8) for done in range(1, 9)]


def test_one_worker_or_one_unit_needs_no_other_process(pool):
    with open_engine("local:1") as engine:
        assert [pid for _, pid in engine.results(engine_units.process, [Unit(0), Unit(1)], what="x")] == [
            os.getpid()
        ] * 2
    assert list(pool.results(engine_units.process, [Unit(0)], what="x")) == [(0, os.getpid())]


def test_a_killed_workers_unit_is_done_again_and_no_other_worker_is_touched(pool, tmp_path):
    before = workers_of(pool, tmp_path)
    assert sorted(pool.results(engine_units.killed_once, units(8, tmp_path), what="squares")) == SQUARES
    after = workers_of(pool, tmp_path)
    assert os.getpid() not in before
    assert len(before & after) == len(before) - 1


@pytest.mark.usefixtures("soon")
def test_a_worker_that_is_killed_in_the_middle_of_a_large_result_keeps_nobody_waiting(pool, tmp_path):
    before, found = workers_of(pool, tmp_path), {}
    for number, result in pool.results(engine_units.killed_sending, units(5, tmp_path), what="x"):
        found[number] = len(result), result[:1], result[-1:]
    assert found == {number: (engine_units.LARGE, bytes((number,)), bytes((number,))) for number in range(5)}
    assert len(before & workers_of(pool, tmp_path)) == len(before) - 1


@pytest.mark.usefixtures("soon")
def test_who_stops_while_large_results_are_on_their_way_waits_for_none_of_them(pool, tmp_path):
    for _ in range(3):
        for _first in pool.results(engine_units.first_small, units(8, tmp_path), what="x"):
            wait_until(lambda: any(worker.child._pipe.poll() for worker in pool._pool._workers))  # the others write
            break
    assert sorted(pool.results(engine_units.square, units(8, tmp_path), what="squares")) == SQUARES


@pytest.mark.usefixtures("soon")
def test_a_killed_worker_is_missed_while_what_it_has_forked_lives_on(pool, tmp_path):
    try:
        assert sorted(pool.results(engine_units.killed_with_a_fork, units(8, tmp_path), what="x")) == SQUARES
        assert is_running(*pids(tmp_path))
    finally:
        os.kill(*pids(tmp_path), signal.SIGKILL)


def test_where_no_process_can_be_started_one_line_says_what_to_do(monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    with open_engine("local:2") as engine:
        with monkeypatch.context() as patch:
            patch.setattr("multiprocessing.util.spawnv_passfds", refuse)
            for _ in range(2):
                with pytest.raises(EngineError) as error:
                    list(engine.results(engine_units.square, units(8, tmp_path), what="squares"))
                assert str(error.value).startswith(
                    "no process could be started beside this one ([Errno 11] Resource temporarily unavailable): "
                    "the machine or its container has too few processes, files or memory left; --engine local:1 needs n"
                )
        assert sorted(engine.results(engine_units.square, units(8, tmp_path), what="squares")) == SQUARES


def test_a_unit_that_no_worker_survives_is_named_with_what_to_do(pool, tmp_path):
    with pytest.raises(EngineError) as error:
        list(pool.results(engine_units.killed, units(8, tmp_path), what="squares"))
    assert engine_units.tries(Unit(3, str(tmp_path))) == TRIES
    assert str(error.value) == (
        "squares: unit 4 of 8 lost its worker 3 times (killed by SIGKILL); where the memory ran out, "
        "a smaller --memory or fewer workers (--engine local:1) need less. What is done stays: the same command goes on"
    )


def test_a_worker_that_was_lost_between_two_calls_is_replaced(pool, tmp_path):
    for pid in workers_of(pool, tmp_path):
        os.kill(pid, signal.SIGKILL)
    assert sorted(pool.results(engine_units.square, units(8, tmp_path), what="squares")) == SQUARES


def test_a_worker_that_cannot_begin_is_told_apart_from_one_that_was_killed(tmp_path):
    pool = Pool(2, 1)
    for worker in pool._workers:
        worker.child._begin = os._exit
        worker.child._given = (7,)
    with pytest.raises(EngineError, match=r"unit \d of 8 lost its worker 3 times \(exit code 7\)"):
        list(pool.results(engine_units.square, units(8, tmp_path), "squares", None))


def test_what_a_unit_raises_is_raised_as_itself_and_tells_where(pool, tmp_path):
    with pytest.raises(ProofError, match="unit 2 shows something else") as error:
        list(pool.results(engine_units.refuted, units(8, tmp_path), what="x"))
    where = str(error.value.__cause__)
    assert f'File "{engine_units.__file__}", line ' in where
    assert ", in refuted\n" in where
    assert sorted(pool.results(engine_units.square, units(8, tmp_path), what="squares")) == SQUARES


def test_what_cannot_be_made_again_from_its_pickle_is_no_lost_worker(pool, tmp_path):
    with pytest.raises(EngineError, match="OddError: this and that"):
        list(pool.results(engine_units.odd, units(2, tmp_path), what="x"))


@pytest.mark.parametrize("name", ["local:1", "local:2"])
def test_a_unit_that_leaves_does_not_end_its_caller(name, tmp_path):
    with (
        open_engine(name) as engine,
        pytest.raises(EngineError, match=r"leaves left with SystemExit\(0\), work undone"),
    ):
        list(engine.results(engine_units.leaves, units(4, tmp_path), what="x"))


@pytest.mark.parametrize(("number", "kind"), [(0, "KeyboardInterrupt"), (1, "GeneratorExit"), (2, "HiddenError")])
def test_a_units_interrupt_is_not_its_callers(pool, number, kind):
    with pytest.raises(EngineError, match=rf"stops left with {kind}\(here\), work undone"):
        list(pool.results(engine_units.stops, [Unit(number)] * 2, what="x"))


def test_whoever_stops_early_leaves_no_unit_running(pool, tmp_path):
    engine_units.stop_early(pool, tmp_path)
    assert len(pids(tmp_path)) == 2


def test_a_few_units_a_worker_are_handed_out_however_many_there_are(pool):
    Counted.given = 0
    found = pool.results(engine_units.square, [Counted() for _ in range(100)], what="x")
    for taken, _ in enumerate(found, 1):
        assert Counted.given <= taken + pool.workers * IN_FLIGHT


def test_workers_share_the_cores_among_their_threads(pool, tmp_path):
    share = str(max(1, cores() // 2))
    assert [said for _, said in pool.results(engine_units.setting, units(2, tmp_path), what="x")] == [(share,) * 3] * 2


def test_a_script_without_a_main_guard_runs_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"import engine_units, pathlib\n{POOL}print('once', sum(value for _, value in found))\n")
    run = subprocess.run([sys.executable, script, "square"], env=_environment(), capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("once 140\n", "")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_a_command_that_is_stopped_or_killed(tmp_path, sent):
    command = subprocess.Popen(
        [sys.executable, "-c", f"import engine_units, pathlib\n{POOL}", "long"],
        cwd=tmp_path, env=_environment(), start_new_session=True, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_until(lambda: len(pids(tmp_path)) == 2 and all(pids(tmp_path)))
        if sent == signal.SIGINT:
            os.killpg(command.pid, sent)  # as a terminal sends Ctrl-C
        else:
            command.kill()
        said = command.communicate(timeout=60)[1]
        wait_until(lambda: not any(map(is_running, pids(tmp_path))))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGKILL)
    assert said.count("Traceback") == (sent == signal.SIGINT)  # this script's own, and no worker's


POOL = """
import sys
from fgtrac.engine.opening import open_engine
from fgtrac.engine.pool import Pool
with open_engine("local:2") as engine:
    work, units = getattr(engine_units, sys.argv[1]), engine_units.units(8, pathlib.Path.cwd())
    found = list(engine.results(work, units, what="x"))
"""


def _environment():
    return {**os.environ, "PYTHONPATH": str(Path(engine_units.__file__).parent)}


def test_a_pool_that_ends_has_no_process_left(tmp_path):
    with open_engine("local:2") as engine:
        found = workers_of(engine, tmp_path)
        assert all(map(is_running, found))
    assert not any(map(is_running, found))
