"""Scoring against captum and against a plain torch reference: LeNet's last layer, five checkpoints, one thread.

Times are processor seconds, both sides on the same tests, checkpoints and images, in turn in one process. A query is
everything from the test images to the answer: the test side at each checkpoint, then all pairs; fgtrac's also sorts
out the ten strongest proponents and opponents of each test, the others return the matrix. warm_ratio is captum's
TracInCPFast over fgtrac's repeat query. reference_ratio is fgtrac's over the reference's, which holds the same factors
in memory as float32: the worst of the four sizes. gemm_share is the time of the bare matrix products over that of
scoring and sorting, of 60,000 x 1,000. factor_pass_ratio is a factor pass over a plain forward pass. Bytes are those
of the shards and the rows file; loss_bytes_... is what a trace keeps beside them for the free baselines. Differences
are to captum's TracInCP(layers=["output"]), bias included, in shares of the largest score. MNIST is repeated to size
where --data-dir gives fewer images.
"""

from __future__ import annotations

import copy
import hashlib
import os
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from fgtrac.demo.data import load_images
from fgtrac.demo.training import LeNet
from fgtrac.score import factor_files as files
from fgtrac.score import kernel
from fgtrac.score.cache import Cache
from fgtrac.score.factor_files import Rows, ShardHead, State
from fgtrac.score.factors import FactorPass
from fgtrac.score.gradients import concatenate
from fgtrac.score.methods import Method, prepare
from fgtrac.store.trace_dir import TraceDir
from harness import parse_arguments, report

try:
    from captum.influence import TracInCP, TracInCPFast
except ModuleNotFoundError as error:
    sys.exit(f"score_speed compares with captum: pip install captum==0.9.0 -c constraints.txt ({error})")

STATES = 5
STEPS_A_STATE = 60
RATE = 0.05
BATCH = 1000
TOP = 10
LOSS = nn.CrossEntropyLoss(reduction="none")
MEGABYTE = 1e6


@dataclass(frozen=True)
class Task:
    """A trained model's states, training and test images."""

    model: nn.Module
    weights: list[dict[str, torch.Tensor]]
    train: TensorDataset
    tests: TensorDataset

    def batches(self, data: TensorDataset, n: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The first n samples in batches."""
        images, labels = data.tensors
        return [(images[i : min(n, i + BATCH)], labels[i : min(n, i + BATCH)]) for i in range(0, n, BATCH)]

    def at(self, k: int) -> nn.Module:
        """The model at state k."""
        self.model.load_state_dict(self.weights[k])
        return self.model.eval()


def make_task(data_dir: Path | None, n: int) -> Task:
    """LeNet, trained for STATES times STEPS_A_STATE steps; the images repeated until there are n and 1,000."""
    source = load_images(data_dir)
    order = np.random.default_rng(0).permutation(len(source.labels))
    images, labels = torch.from_numpy(source.images[order]), torch.from_numpy(source.labels[order])
    tests = TensorDataset(images[:1000], labels[:1000])
    rest = torch.arange(n) % (len(labels) - 1000) + 1000
    train = TensorDataset(images[rest], labels[rest])
    torch.manual_seed(0)
    model, weights = LeNet(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    for step in range(STATES * STEPS_A_STATE):
        batch = torch.randint(len(rest), (128,))
        optimizer.zero_grad()
        functional.cross_entropy(model(train.tensors[0][batch]), train.tensors[1][batch]).backward()
        optimizer.step()
        if (step + 1) % STEPS_A_STATE == 0:
            weights.append(copy.deepcopy(model.state_dict()))
    return Task(model, weights, train, tests)


def write_cache(folder: Path, task: Task, n: int, dtype: str) -> tuple[Cache, float]:
    """The factors of the first n training images at every state; with them the processor seconds that they took."""
    artifacts: dict[str, bytes] = {}

    def write(path: str, data: bytes) -> bytes:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        artifacts[path] = hashlib.sha256(data).digest()
        return artifacts[path]

    start = time.process_time()
    data = files.encode_rows(Rows((bytes(16),), np.arange(n, dtype=np.uint32)), "train")
    rows = write(files.rows_path("train", data), data)
    states = [State((bytes(16), k), k + 1, hashlib.sha256(bytes([k])).digest()) for k in range(STATES)]
    for k, state in enumerate(states):
        factors, batches = factor_pass(task, k), task.batches(task.train, n)
        size = files.shard_rows(factors.layers, dtype) // BATCH
        for part, first in enumerate(range(0, len(batches), size)):
            passes = [factors(batch) for batch in batches[first : first + size]]
            whole, at = concatenate([p.gradients[0] for p in passes]), first * BATCH
            head = ShardHead(state.digest, state.step, "train", at, at + len(whole), n, rows, factors.layers, (RATE,))
            write(path := files.shard_path(head, part), files.encode_shard(head, [whole], dtype))
            losses = np.concatenate([p.losses for p in passes])
            write(files.losses_path(path), files.encode_losses(losses))
    seconds = time.process_time() - start
    return Cache(TraceDir(folder), artifacts, states), seconds


def bytes_of(folder: Path, n: int) -> dict[str, float]:
    """Bytes on disk for each sample and state: of the factors, and of the losses beside them."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*.safetensors")}
    losses = sum(size for path, size in sizes.items() if path.name.startswith("losses"))
    factors = (sum(sizes.values()) - losses) / n / STATES
    return {
        "bytes_per_sample_per_checkpoint": factors,
        "bytes_ratio": factors / (2 * (84 + 10)),
        "loss_bytes_per_sample_per_checkpoint": losses / n / STATES,
    }


def factor_pass(task: Task, k: int) -> FactorPass:
    """A factor pass over the last layer at state k."""
    model = task.at(k)
    return FactorPass.prepare(model, task.batches(task.tests, 8)[0], loss=LOSS, layer="output")


def prepared(task: Task, cache: Cache, passes: FactorPass, m: int) -> list[kernel.Prepared]:
    """The target side of the first m tests at every state."""
    ready = []
    for k in range(STATES):
        task.at(k)
        parts = [passes(batch).gradients[0] for batch in task.batches(task.tests, m)]
        ready.append(prepare(cache, k, [concatenate(parts)], Method()))
    return ready


class Reference:
    """The plain way: factors in memory as float32 tensors, the whole matrix by two products for each state."""

    def __init__(self, task: Task, cache: Cache) -> None:
        self._task, n = task, len(cache.rows("train"))
        read = [cache.read(k, "train", 0, n)[0] for k in range(STATES)]
        self._inputs = [torch.from_numpy(np.array(g.inputs)) for g in read]
        self._deltas = [torch.from_numpy(np.array(g.deltas)) for g in read]

    def query(self, m: int) -> torch.Tensor:
        """(n, m) scores."""
        images, labels = (t[:m] for t in self._task.tests.tensors)
        total: Any = 0
        for k in range(STATES):
            model = self._task.at(k)
            assert isinstance(model, LeNet)
            with torch.no_grad():
                inputs = model.head(model.features(images[:, None].float() / 255))
                deltas = functional.softmax(model.output(inputs), 1) - functional.one_hot(labels, 10)
            total = total + RATE * (self._deltas[k] @ deltas.T) * (self._inputs[k] @ inputs.T + 1)
        return total


def load(model: nn.Module, weights: Any) -> float:
    """For captum: put a state in, and say its learning rate."""
    model.load_state_dict(weights)
    return RATE


def fast_captum(task: Task, n: int) -> Any:
    """captum's TracInCPFast over the first n training images."""
    train = TensorDataset(*(t[:n] for t in task.train.tensors))
    loss = nn.CrossEntropyLoss(reduction="sum")
    return TracInCPFast(task.model.eval(), "output", train, task.weights, load, loss, batch_size=BATCH)


def seconds(function: Callable[[], object], rounds: int = 1) -> float:
    """Processor seconds of a call, the median of some rounds."""
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def measure_queries(task: Task, cache: Cache, cache_s: float, n: int) -> dict[str, float]:
    """Repeat queries of 100 and 1,000 tests, against both."""
    passes, reference, captum = factor_pass(task, 0), Reference(task, cache), fast_captum(task, n)
    fast_captum(task, BATCH).influence(tuple(t[:10] for t in task.tests.tensors))  # warm, as the others are
    found: dict[str, float] = {}
    for m in (100, 1000):
        size = f"{n // 1000}k_{m}"
        tests = tuple(t[:m] for t in task.tests.tensors)

        def query(m: int = m) -> object:
            return kernel.rank(cache, prepared(task, cache, passes, m), TOP)

        query()
        ours = seconds(query, 5)
        plain = seconds(lambda m=m: reference.query(m), 5)
        theirs = seconds(lambda tests=tests: captum.influence(tests))
        ready = prepared(task, cache, passes, m)
        scoring = seconds(lambda ready=ready: kernel.rank(cache, ready, TOP), 5)
        found |= {
            f"warm_ratio_{size}": theirs / ours,
            f"reference_ratio_{size}": ours / plain,
            f"gemm_share_{size}": products_s(ready, n) / scoring,
            f"cold_ratio_{size}": (cache_s + ours) / theirs,
            f"query_ms_{size}": 1e3 * ours,
            f"captum_s_{size}": theirs,
        }
    return found


def products_s(ready: list[kernel.Prepared], n: int) -> float:
    """The bare matrix products of a query, in the kernel's blocks."""
    m, size = len(ready[0]), kernel.block_rows(ready[0])
    inputs, deltas = (np.random.default_rng(0).random((n, d), dtype=np.float32) for d in (85, 10))
    out = np.empty((2, size, m), dtype=np.float32)

    def products() -> None:
        for target in ready:
            of = target.layers[0]
            assert of.inputs is not None
            assert of.deltas is not None
            for i in range(0, n, size):
                b = min(size, n - i)
                np.matmul(inputs[i : i + b], of.inputs.T, out=out[0, :b])
                np.matmul(deltas[i : i + b], of.deltas.T, out=out[1, :b])

    products()
    return seconds(products, 5)


def measure_pass(task: Task) -> float:
    """A factor pass over 10,000 images against a plain forward pass, in alternating rounds."""
    passes, batches = factor_pass(task, 0), task.batches(task.train, 10_000)

    def plain() -> None:
        with torch.no_grad():
            for images, labels in batches:
                LOSS(task.model(images), labels).numpy()

    ratios = []
    for _ in range(7):
        forward = seconds(plain)
        ratios.append(seconds(lambda: [passes(batch) for batch in batches]) / forward)
    return statistics.median(ratios)


def measure_difference(task: Task, folder: Path) -> dict[str, float]:
    """2,000 images and 100 tests against captum's exact TracInCP; of float16 also how many of the ten best agree."""
    n, m = 2000, 100
    train = TensorDataset(*(t[:n] for t in task.train.tensors))
    loss = nn.CrossEntropyLoss(reduction="sum")
    tracin = TracInCP(
        task.model.eval(), train, task.weights, load, layers=["output"], loss_fn=loss, batch_size=BATCH,
        sample_wise_grads_per_batch=True,
    )  # fmt: skip
    theirs = tracin.influence(tuple(t[:m] for t in task.tests.tensors)).numpy().T
    found = {}
    for dtype, name in (("float32", ""), ("float16", "_fp16")):
        cache, _seconds = write_cache(folder / dtype, task, n, dtype)
        ready = prepared(task, cache, factor_pass(task, 0), m)
        ours = kernel.scores(cache, ready, 0, n)
        found[f"max_relative_difference{name}"] = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    best = kernel.rank(cache, ready, TOP).proponents
    exact = np.argsort(-theirs, axis=0, kind="stable")[:TOP].T
    found["top10_overlap_fp16"] = float(np.mean([len(set(a) & set(b)) / TOP for a, b in zip(best, exact, strict=True)]))
    return found


def measure_peak(task: Task, cache: Cache) -> float:
    """Memory that a query of 1,000 tests takes, above what the process held before, in a child of its own."""
    ready = prepared(task, cache, factor_pass(task, 0), 1000)
    fresh = Cache(cache._trace, cache._artifacts, cache.states)
    read_end, write_end = os.pipe()
    if (child := os.fork()) == 0:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
        floor = peak_kb()
        kernel.rank(fresh, ready, TOP)
        os.write(write_end, str(peak_kb() - floor).encode())
        os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    return int(os.read(read_end, 32)) * 1024 / MEGABYTE


def peak_kb() -> int:
    """The most memory that this process has held (proc(5), VmHWM), in units of 1,024 bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def main() -> None:
    warnings.filterwarnings("ignore", module="captum")
    torch.set_num_threads(1)
    threadpool_limits(1)  # numpy's products too
    task = make_task(parse_arguments().data_dir, 60_000)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        for n in (10_000, 60_000):
            cache, cache_s = write_cache(Path(name) / str(n), task, n, "float16")
            figures |= measure_queries(task, cache, cache_s, n)
        figures |= bytes_of(Path(name) / "60000", 60_000)
        figures["peak_mb_above_floor"] = measure_peak(task, cache)
        figures |= measure_difference(task, Path(name))
    figures["factor_pass_ratio"] = measure_pass(task)
    figures["reference_ratio"] = max(v for k, v in figures.items() if k.startswith("reference_ratio"))
    figures["gemm_share"] = figures["gemm_share_60k_1000"]
    figures["peak_rss_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    report("score_speed", figures)


if __name__ == "__main__":
    main()
