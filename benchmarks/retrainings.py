"""Small tasks, trained many times over: what the figures of `lds.py` and `suspects.py` are measured on.

A retraining depends on the rows that it is given and on a seed, from which the initial weights and the order of the
samples follow. Many are run at once as batched matrices, which comes to the same as an ordinary loop for each
(`check_batched`), and they are kept in `benchmarks/.cache` under a digest of all that determines them.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fgtrac.api.ledger import read_ledger
from fgtrac.api.run import start_run
from fgtrac.demo.data import load_images
from fgtrac.score.cache import Cache
from fgtrac.score.fidelity import leave_some_out
from fgtrac.store.trace_dir import TraceDir

CACHE = Path(__file__).parent / ".cache"
EPOCHS = 20
BATCH = 64
MOMENTUM = 0.9
HIDDEN = (64, 32)
CLASSES = 10
TOGETHER = 64  # models trained at once: their weights stay in the processor's cache
Rows = NDArray[np.int64]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
After = Callable[[nn.Module, torch.optim.Optimizer, int, float], object]


@dataclass(frozen=True, slots=True)
class Part:
    """Samples of one role: inputs (n, d) float32, standardised, and labels (n,) int64."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def data(self) -> TensorDataset:
        """Pairs of input and label."""
        return TensorDataset(self.inputs, self.labels)


@dataclass(frozen=True, slots=True)
class Task:
    """What is learned, from where, how fast, and what is asked about it afterwards.

    An LDS belongs to its training recipe: plain TracIn on the digits reads .63 at a learning rate of .005 and .31 at
    .025. The rates here are about those at which it reads what it did when this project's targets were set, .375 on
    the digits and .204 on the images.
    """

    name: str
    origin: str
    learning_rate: float
    train: Part
    validation: Part
    test: Part


def digits() -> Task:
    """scikit-learn's digits, 8 x 8: 1,200 to train, 397 to validate, 200 to test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    inputs, labels = data.data.astype(np.float32), data.target.astype(np.int64)
    return _split("digits", "scikit-learn's 1,797 digits", 0.013, inputs, labels, 1200, 397)


def image14(data_dir: Path | None) -> Task:
    """Grey images of 28 x 28, pooled to 14 x 14: 2,000 to train, 500 to validate, 200 to test."""
    source = load_images(data_dir)
    if source.images.shape[1:] != (28, 28) or len(source.labels) < 2700:
        raise SystemExit(f"{source.origin}: images of {source.images.shape}; at least 2,700 of 28 x 28 are needed")
    pooled = source.images.reshape(-1, 14, 2, 14, 2).mean((2, 4), dtype=np.float32).reshape(-1, 196)
    return _split("image14", f"{source.origin}, pooled to 14 x 14", 0.01, pooled, source.labels, 2000, 500)


def _split(name: str, origin: str, rate: float, inputs: Floats, labels: Rows, train: int, validation: int) -> Task:
    """Samples drawn by a fixed seed, standardised by the mean and deviation of all training pixels."""
    order = np.random.default_rng(20020).permutation(len(labels))[: train + validation + 200]
    rows = np.split(order, [train, train + validation])
    mean, deviation = inputs[rows[0]].mean(), inputs[rows[0]].std()
    parts = [Part(torch.from_numpy((inputs[r] - mean) / deviation), torch.from_numpy(labels[r])) for r in rows]
    return Task(name, origin, rate, *parts)


def new_model(width: int, seed: int) -> nn.Sequential:
    """The untrained network, whose weights follow from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = (width, *HIDDEN)
        layers = [layer for a, b in zip(sizes, HIDDEN, strict=False) for layer in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*layers, nn.Linear(HIDDEN[-1], CLASSES))


def epoch_order(rows: Rows, seed: int, epoch: int) -> Rows:
    """The rows in the order in which one epoch takes them."""
    return np.random.default_rng((seed, epoch)).permutation(rows)


@dataclass(frozen=True, slots=True)
class Trained:
    """An ordinary training: the model, its state after each epoch, and its validation loss then."""

    model: nn.Module
    states: tuple[dict[str, Tensor], ...]
    validation: tuple[float, ...]

    @property
    def improving(self) -> tuple[int, ...]:
        """The epochs whose validation loss was the lowest so far."""
        return tuple(i for i, loss in enumerate(self.validation) if loss < min(self.validation[:i], default=np.inf))


def train(task: Task, rows: Rows, seed: int, after: After | None = None) -> Trained:
    """The ordinary loop: one model, torch's own optimizer. `after` is called with model, optimizer, epoch, val_loss."""
    model = new_model(task.train.inputs.shape[1], seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=task.learning_rate, momentum=MOMENTUM)
    states, validation = [], []
    for epoch in range(EPOCHS):
        for batch in torch.from_numpy(epoch_order(rows, seed, epoch)).split(BATCH):
            loss = nn.functional.cross_entropy(model(task.train.inputs[batch]), task.train.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        validation.append(float(losses_of(model, task.validation).mean()))
        if after is not None:
            after(model, optimizer, epoch, validation[-1])
    return Trained(model, tuple(states), tuple(validation))


def losses_of(model: nn.Module, part: Part) -> Tensor:
    """(n,) float64: the model's loss on each sample."""
    with torch.no_grad():
        return nn.functional.cross_entropy(model(part.inputs).double(), part.labels, reduction="none")


class Stack:
    """M networks of one shape as batched matrices: for each layer weights (M, out, in) and biases (M, 1, out)."""

    def __init__(self, width: int, seeds: Sequence[int], learning_rate: float) -> None:
        self.learning_rate = learning_rate
        models = [[m for m in new_model(width, seed) if isinstance(m, nn.Linear)] for seed in seeds]
        self.weights = [torch.stack([layer.weight.detach() for layer in at]) for at in zip(*models, strict=True)]
        self.biases = [torch.stack([layer.bias.detach()[None] for layer in at]) for at in zip(*models, strict=True)]
        pairs = zip(self.weights, self.biases, strict=True)
        self.momenta = [(torch.zeros_like(weight), torch.zeros_like(bias)) for weight, bias in pairs]

    def forward(self, inputs: Tensor) -> tuple[list[Tensor], Tensor]:
        """What each layer reads (M, n, in), and the outputs (M, n, classes), for inputs (M, n, width)."""
        reads, last = [], len(self.weights) - 1
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            reads.append(inputs)
            inputs = torch.baddbmm(bias, inputs, weight.transpose(1, 2))
            if number < last:
                inputs = inputs.relu_()
        return reads, inputs

    def step(self, inputs: Tensor, labels: Tensor) -> None:
        """One update of each model by its own batch: inputs (M, n, width), labels (M, n)."""
        reads, outputs = self.forward(inputs)
        deltas = outputs.softmax(2)
        deltas.scatter_add_(2, labels[:, :, None], torch.full((1, 1, 1), -1.0).expand(*labels.shape, 1))
        deltas /= labels.shape[1]
        for number in range(len(self.weights) - 1, -1, -1):
            weight, (in_weight, in_bias) = self.weights[number], self.momenta[number]
            below = torch.bmm(deltas, weight) * (reads[number] > 0) if number else None
            in_weight.baddbmm_(deltas.transpose(1, 2), reads[number], beta=MOMENTUM)
            in_bias.mul_(MOMENTUM).add_(deltas.sum(1, keepdim=True))
            weight.add_(in_weight, alpha=-self.learning_rate)
            self.biases[number].add_(in_bias, alpha=-self.learning_rate)
            if below is not None:
                deltas = below

    def losses(self, part: Part) -> Tensor:
        """(M, n) float64: each model's loss on each sample."""
        outputs = self.forward(part.inputs.expand(len(self.weights[0]), -1, -1))[1].double()
        return -outputs.log_softmax(2).gather(2, part.labels.expand(len(outputs), -1)[:, :, None])[:, :, 0]


def train_stack(task: Task, rows: Sequence[Rows], seeds: Sequence[int]) -> Stack:
    """Train one model for each (rows, seed); the rows are as many for all."""
    stack = Stack(task.train.inputs.shape[1], seeds, task.learning_rate)
    for epoch in range(EPOCHS):
        orders = np.stack([epoch_order(r, s, epoch) for r, s in zip(rows, seeds, strict=True)])
        for batch in torch.from_numpy(orders).split(BATCH, dim=1):
            stack.step(task.train.inputs[batch], task.train.labels[batch])
    return stack


def check_batched(task: Task) -> None:
    """Three models trained at once must come to the losses of three ordinary loops."""
    rows, seeds = list(leave_some_out(len(task.train), 3, seed=99)), [7, 8, 7]
    at_once = train_stack(task, rows, seeds).losses(task.test)
    for number, (mine, seed) in enumerate(zip(rows, seeds, strict=True)):
        alone = losses_of(train(task, mine, seed).model, task.test)
        if not torch.allclose(at_once[number], alone, rtol=1e-3, atol=1e-3):
            worst = float((at_once[number] - alone).abs().max())
            raise SystemExit(f"{task.name}: a batched retraining differs by {worst:.2g} from the ordinary loop")


def retrained(task: Task, subsets: int, seeds: Sequence[int], design: int) -> tuple[Rows, Doubles]:
    """Random halves (subsets, k) of the training rows, and minus the test losses (subsets, tests) of the models
    retrained on them, the mean over seeds; from the cache where they are there."""
    parts = leave_some_out(len(task.train), subsets, seed=design)
    jobs = [(part, seed) for part in parts for seed in seeds]
    path = CACHE / f"{task.name}-{_digest(task, jobs)}.losses"
    losses = _cached(path, (len(jobs), len(task.test)))
    if losses is None:
        done = []
        for start in range(0, len(jobs), TOGETHER):
            rows, using = zip(*jobs[start : start + TOGETHER], strict=True)
            done.append(train_stack(task, rows, using).losses(task.test).numpy())
        losses = np.concatenate(done)
        _keep(path, losses)
    return parts, -losses.reshape(subsets, len(seeds), -1).mean(axis=1)


def _digest(task: Task, jobs: Sequence[tuple[Rows, int]]) -> str:
    """Of all that determines the losses: data, recipe, rows, seeds, this file and torch's version."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update(json.dumps([torch.__version__, np.__version__, task.learning_rate]).encode())
    for part in (task.train, task.test):
        digest.update(part.inputs.numpy().tobytes() + part.labels.numpy().tobytes())
    for rows, seed in jobs:
        digest.update(np.append(rows, seed).tobytes())
    return digest.hexdigest()[:16]


def _cached(path: Path, shape: tuple[int, int]) -> Doubles | None:
    """What the cache holds: the numbers and behind them their SHA-256; None where it has nothing whole."""
    data = path.read_bytes() if path.exists() else b""
    body, check = data[:-32], data[-32:]
    if len(body) != 8 * shape[0] * shape[1] or hashlib.sha256(body).digest() != check:
        return None
    return np.frombuffer(body, dtype="<f8").reshape(shape)


def _keep(path: Path, losses: Doubles) -> None:
    path.parent.mkdir(exist_ok=True)
    body = losses.astype("<f8").tobytes()
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(body + hashlib.sha256(body).digest())
    Path(file.name).replace(path)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A model that was trained with fgtrac beside it: the factors at each epoch's checkpoint, with the rows of the
    train and test role in the order of the factors (positions in the task's parts)."""

    trained: Trained
    trace: TraceDir
    artifacts: Mapping[str, bytes]
    cache: Cache
    train_rows: Rows
    test_rows: Rows


def record(task: Task, seed: int, folder: Path, *, layer: str | None = None, ggn: bool = False) -> Recorded:
    """Train on all training rows in an ordinary loop, and keep every epoch's checkpoint with its factors."""
    with start_run(folder / "run", key=folder / "key.pem", ids="public", keep="all") as run:
        train_data, test_data = task.train.data, task.test.data
        run.register(train_data)
        run.register(test_data)
        run.score_with(loss=nn.functional.cross_entropy, train=train_data, test=test_data, layer=layer, ggn=ggn)
        trained = train(
            task,
            np.arange(len(task.train)),
            seed,
            lambda model, optimizer, epoch, val_loss: run.checkpoint(model, optimizer, val_loss=val_loss, epoch=epoch),
        )
        places = [run._registry.resolve(data).placement.ordinals for data in (train_data, test_data)]
    trace = TraceDir.open(folder / "run.trace")
    ledger = read_ledger(trace)
    cache = Cache(trace, ledger.artifacts, ledger.states)
    rows = [
        np.argsort(place)[np.searchsorted(np.sort(place), cache.rows(role).ordinals)]
        for role, place in zip(("train", "test"), places, strict=True)
    ]
    return Recorded(trained, trace, ledger.artifacts, cache, *rows)
