"""What is measured around one training: time, memory, and what recording took of it, and left on disk."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgtrac.demo.training import Trained

PREPARED_BY = 20260121  # the seed of the data's preparation, which is the same for all trainings


@dataclass(slots=True)
class Clock:
    """Wall seconds, and processor seconds of the whole process, that were spent in some blocks together."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        yield
        self.wall_s += time.perf_counter() - began_s
        self.cpu_s += time.process_time() - began_cpu_s


@dataclass(slots=True)
class Costs:
    """What fgtrac does inside a training, wherever a benchmark speaks of its own time: hooks on the training thread,
    the thread that writes, checkpoints with what they record, and their seals.

    The model's own passes for modality weights happen within checkpoints. They are kept apart and stated beside; the
    time of the entries with these weights is fgtrac's.
    """

    run: Any
    own: Any
    hooks_s: float = 0.0
    background_s: float = 0.0
    checkpoints: Clock = field(default_factory=Clock)
    passes: Clock = field(default_factory=Clock)
    count: int = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        self.own.seconds, before_s = 0.0, self.run._recorder.background_cpu_s
        yield
        self.hooks_s = self.own.seconds
        self.background_s = self.run._recorder.background_cpu_s - before_s

    def passed(self, weigh: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """What gives the modality weights, its time kept apart: it is the model's own work."""

        def timed(model: Any) -> Any:
            with self.passes.running():
                return weigh(model)

        return timed

    def checkpoint(self, model: Any, optimizer: Any, **said: Any) -> None:
        """`run.checkpoint`, timed."""
        with self.checkpoints.running():
            self.run.checkpoint(model, optimizer, **said)
        self.count += 1

    def share(self, loop_s: float) -> float:
        """Of everything, to be asked when the seals are done; `loop_s` is the loop without checkpoints."""
        checkpoints_s = self.checkpoints.wall_s - self.passes.wall_s
        every_s = self.hooks_s + self.background_s + checkpoints_s + self.run._sealer.cpu_s
        return every_s / (loop_s + checkpoints_s)

    def share_without_checkpoints(self, loop_s: float) -> float:
        """Of hooks and the thread that writes."""
        return (self.hooks_s + self.background_s) / loop_s

    def figures(self, loop_s: float) -> dict[str, Any]:
        """Of a training with a checkpoint after each epoch. Where checkpoints are scored, their time is scoring's, too,
        and says nothing of capture's share."""
        cost = self.run.scoring_cost
        return {
            "own_time_share_each_epoch": self.share(loop_s) if cost is None else None,
            "own_time_share_without_checkpoints": self.share_without_checkpoints(loop_s),
            "checkpoints": self.count,
            "checkpoints_s": self.checkpoints.wall_s - self.passes.wall_s,
            "checkpoints_cpu_s": self.checkpoints.cpu_s - self.passes.cpu_s,
            "scored_checkpoints": 0 if cost is None else cost.checkpoints,
            "attention_s": self.passes.wall_s,
            "attention_cpu_s": self.passes.cpu_s,
        }


@dataclass(frozen=True, slots=True)
class Ended:
    """A traced training that is over."""

    trained: Trained
    costs: Costs


class Recording:
    """Where and how a traced training is recorded. After it, `path` is the trace."""

    def __init__(self, folder: Path, *, is_scored: bool) -> None:
        self.base, self.key, self.is_scored = folder / "run", folder / "key.pem", is_scored
        self.path = folder / "run.trace"
        self.own: Any = None

    @contextmanager
    def run(self, config: Mapping[str, Any]) -> Iterator[Any]:
        """The open run, with its own time on the clock."""
        from fgtrac.api.run import start_run
        from fgtrac.capture.own_time import own_time

        with own_time() as self.own, start_run(self.base, config=config, key=self.key) as run:
            yield run


def peak_b() -> int:
    """The most memory that this process has held so far (of this program alone: `ru_maxrss` also counts what the
    process was before it began to run it)."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def bytes_on_disk(trace: Path) -> dict[str, int]:
    """The bytes of a closed trace by what they are, and of its vault."""
    kinds = {"log": 0, "index": 0, "states": 0, "factors": 0, "rest": 0}
    for file in trace.rglob("*"):
        if file.is_file():
            top, name = file.relative_to(trace).parts[0], file.name
            kind = {"tile": "log", "index": "index", "artifacts": "factors"}.get(top, "rest")
            kinds["states" if kind == "factors" and name.startswith("checkpoint-") else kind] += file.stat().st_size
    return kinds | {"vault": trace.with_suffix(".vault").stat().st_size}
