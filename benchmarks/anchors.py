"""What anchors cost, with real services on loopback: a chain (anvil), a time-stamping responder (openssl), a witness
(aics-witness). `make test-services` installs them.

KIND_ms, KIND_ms_p95            one head witnessed, its receipt in the trace: wall time, of 40 heads of one log
KIND_cpu_ms, KIND_cpu_ms_p95    the processor time of this process meanwhile
KIND_receipt_b, KIND_verify_ms  a receipt's bytes; what 40 of them add to a verification
verify_ms                       that verification as a whole, with the log and all receipts
evm_gas_*                       gas: the contract's deployment, the account's first head, a later one (the most)
own_time_share                  of a training that anchors with all `kinds` at each epoch, and keeps a checkpoint then:
                                everything that fgtrac does in the process, over the loop's time. An epoch has 60,000
                                images (as many as MNIST: the demo's 5,000, twelve times over) and takes epoch_s; a
                                training has six, the first of which also takes the registration into the log
..._without_anchors             the same loop under trace, without anchors and the seals that they ask for;
                                anchors_share is the difference
..._small_epochs                all three for epochs of the demo's 5,000 images, 39 updates

KIND is evm, rfc3161 or witness. null is what was not measured, for want of a service, and `kinds` is how many there
were. Without anvil the chain is in this process (evm_in_process is 1), and its own work is in every figure.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

from capture_overhead import BATCH, BLOCK_STEPS, Arm
from fgtrac.anchor.evm import EvmContract, Node
from fgtrac.anchor.local_chain import LocalChain
from fgtrac.anchor.rfc3161 import TimeStampAuthority
from fgtrac.anchor.service import Service
from fgtrac.anchor.witness import Witness
from fgtrac.api.anchor_audit import anchor_demands
from fgtrac.api.anchoring import anchor_trace
from fgtrac.api.audit import Demand, audit_trace
from fgtrac.api.run import Run, start_run
from fgtrac.api.trusted_anchors import TrustedAnchors
from fgtrac.capture.own_time import own_time
from fgtrac.demo.data import load_images
from fgtrac.demo.training import one_thread
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.note import Verifier, parse_vkey
from fgtrac.verify.evm_receipt import parse_evm_receipt
from fgtrac.verify.report import Verdict
from harness import report

KINDS = ("evm", "rfc3161", "witness")
HEADS = 40
ENTRIES_A_HEAD = 300
EPOCH_IMAGES = 60_000
TESTS = Path(__file__).parents[1] / "tests"
TSA = """
import sys; from pathlib import Path; from services.openssl_tsa import running_tsa
with running_tsa(Path(sys.argv[1])) as tsa: print(tsa.url, tsa.root, flush=True); sys.stdin.read()
"""  # in a process of its own: its work is not the measured one's


@dataclass
class Party:
    """An outside service that runs: what makes a client of it, and what a verifier names to believe it. `meet` makes a
    new log known to it."""

    kind: str
    make: Callable[[], Service]
    trusted: dict[str, Any]
    meet: Callable[[Verifier], object] = lambda log: None
    node: Any = None


# -- services -----------------------------------------------------------------------------------------------------


def start_parties(folder: Path, stack: contextlib.ExitStack) -> tuple[list[Party], list[str]]:
    """Every service that is installed, and in words which are not."""
    sys.path.insert(0, str(TESTS))
    from services.anvil import ANVIL, running_anvil
    from services.witness import PROGRAM, make_witness

    parties, missing = [], []
    if ANVIL.exists():
        chain = stack.enter_context(running_anvil(folder / "anvil"))
        node, account = chain.url, chain.account
    else:
        missing.append("anvil is not installed: the chain is one in this process, and works on its processor time")
        local = LocalChain(folder)
        node, account = local.provider, local.account
    parties.append(Party("evm", lambda: EvmContract(node, account), {"nodes": (node,)}, node=node))
    try:
        url, root = stack.enter_context(running_responder(folder / "tsa"))
    except FileNotFoundError:
        missing.append("openssl is not installed: no time stamps")
    else:
        parties.append(Party("rfc3161", lambda: TimeStampAuthority(url), {"tsa_roots": (root,)}))
    if PROGRAM.exists():
        witness = make_witness(folder / "witness")
        at = stack.enter_context(witness.running())
        key = witness.vkey
        parties.append(Party("witness", lambda: Witness(at, key), {"witnesses": (key,)}, witness.add_log))
    else:
        missing.append("aics-witness is not installed: no cosignatures")
    return parties, missing


@contextlib.contextmanager
def running_responder(folder: Path) -> Iterator[tuple[str, str]]:
    """The time-stamping responder: its URL and its root's file. FileNotFoundError without openssl."""
    subprocess.run(["openssl", "version"], check=True, capture_output=True)
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-c", TSA, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if not (said := process.stdout.readline()):
                raise SystemExit("the time-stamping responder did not start; why stands above")
            url, root = said.split(maxsplit=1)
            yield url, root.strip()
        finally:
            process.stdin.close()


def meet(parties: list[Party], run: Run) -> None:
    """Make a run's log known to those who want to know logs beforehand."""
    log = parse_vkey(run.vkey)
    for party in parties:
        party.meet(log)


# -- one anchor at a time -----------------------------------------------------------------------------------------


def measure_anchors(folder: Path, parties: list[Party]) -> dict[str, float | None]:
    """Anchor `HEADS` heads of one log with each kind in turn, then verify them."""
    key = folder / "key.pem"
    services = {party.kind: party.make() for party in parties}
    wall: dict[str, list[float]] = {kind: [] for kind in services}
    own: dict[str, list[float]] = {kind: [] for kind in services}
    sizes: dict[str, int] = {}
    with start_run(folder / "heads", key=key, flush_interval_s=0) as run:
        meet(parties, run)
        for _ in range(HEADS):
            for step in range(ENTRIES_A_HEAD):
                run.log(step, loss=0.5)
            run._recorder.flush()
            run._sealer.now()
            for kind, service in services.items():
                began_s, began_cpu_s = time.perf_counter(), time.process_time()
                (result,) = anchor_trace(run.path, [service], key=key)
                wall[kind].append(time.perf_counter() - began_s)
                own[kind].append(time.process_time() - began_cpu_s)
                if result.error is not None or result.receipt is None:
                    raise SystemExit(f"{kind}: {result.error}")
                sizes[kind] = (run.path / result.receipt).stat().st_size
        verifier = parse_vkey(run.vkey)
    figures: dict[str, float | None] = {}
    for kind in KINDS:
        is_there = kind in services
        for name, seconds in (("ms", wall.get(kind)), ("cpu_ms", own.get(kind))):
            figures[f"{kind}_{name}"] = 1e3 * statistics.median(seconds) if seconds else None
            figures[f"{kind}_{name}_p95"] = 1e3 * float(np.percentile(seconds, 95)) if seconds else None
        figures[f"{kind}_receipt_b"] = sizes[kind] if is_there else None
    return figures | measure_verification(TraceDir.open(run.path), verifier, parties)


def measure_verification(trace: TraceDir, verifier: Verifier, parties: list[Party]) -> dict[str, float | None]:
    """Verify the trace with everybody named; SystemExit where it does not hold."""
    spent: dict[str, float] = {}

    def timed(demand: Demand) -> Demand:
        def examine(*args: Any) -> str:
            began_s = time.perf_counter()
            words = demand.examine(*args)
            spent[demand.name] = time.perf_counter() - began_s
            return words

        return dataclasses.replace(demand, examine=examine)

    trusted = TrustedAnchors(**{name: value for party in parties for name, value in party.trusted.items()})
    demands = [timed(demand) for demand in anchor_demands(trace.names(), trusted)]
    began_s = time.perf_counter()
    answer = audit_trace(trace, verifier, demands=demands)
    verify_s = time.perf_counter() - began_s
    if answer.verdict is not Verdict.HOLDS:
        raise SystemExit(f"the anchored trace does not verify: {answer.failures()}")
    each = {f"{kind}_verify_ms": 1e3 * spent[kind] if kind in spent else None for kind in KINDS}
    return each | {"verify_ms": 1e3 * verify_s}


def measure_gas(trace: TraceDir, node: Any) -> dict[str, float]:
    """What the chain took, from the chain itself."""
    chain = Node(node)
    paths = sorted(trace.path.glob("receipts/*/evm-*.json"), key=lambda path: int(path.parent.name))
    receipts = [parse_evm_receipt(path.read_bytes()) for path in paths]
    heads = [chain.mined(r.transaction, r.chain_id) for r in receipts]
    (first_transaction,) = chain.block(1).transactions
    deployment = chain.mined(first_transaction, receipts[0].chain_id)
    if deployment is None or deployment.created != receipts[0].contract or None in heads:
        raise SystemExit("the chain does not have the transactions that the receipts name")
    first, *later = [head.gas_used for head in heads if head is not None]
    return {"evm_gas_deployment": deployment.gas_used, "evm_gas_first": first, "evm_gas_later": max(later)}


# -- anchors beside a training ------------------------------------------------------------------------------------


@dataclass
class Spent:
    """Seconds of a training loop, of what fgtrac did in it on the training thread and on all others."""

    loop_s: float = 0.0
    hooks_s: float = 0.0
    checkpoints_s: float = 0.0
    beside_s: float = 0.0

    @property
    def share(self) -> float:
        """fgtrac's part of the loop."""
        return (self.hooks_s + self.checkpoints_s + self.beside_s) / self.loop_s


def train(data: TensorDataset, epochs: int, parties: list[Party], spent: Spent) -> None:
    """Train that many epochs in a run of its own, anchored with the parties at each, and add up.

    torch computes on the training thread alone, so that the processor time of all other threads is fgtrac's.
    """
    arm = Arm(data)
    arm.train(BLOCK_STEPS)  # warm
    with tempfile.TemporaryDirectory() as name, own_time() as own:
        folder = Path(name)
        services = [party.make() for party in parties]
        with start_run(folder / "run", key=folder / "key.pem", anchors=services, anchor_at="epoch") as run:
            run.watch(arm.loader, role="train")
            meet(parties, run)
            own.seconds, began_cpu_s, began_s = 0.0, others_cpu_s(), time.perf_counter()
            for _ in range(epochs):
                arm.restart()
                arm.train(len(data) // BATCH)
                at_s = time.perf_counter()
                run.checkpoint(arm.model, arm.optimizer)
                spent.checkpoints_s += time.perf_counter() - at_s
            spent.loop_s += time.perf_counter() - began_s
            spent.hooks_s += own.seconds
            run._sealer.finish()
            for party in parties:
                wait_for_receipts(run.path, party.kind, epochs)
            spent.beside_s += others_cpu_s() - began_cpu_s


def wait_for_receipts(trace: Path, kind: str, epochs: int) -> None:
    """Wait until a head of every epoch has its receipt: what is still under way is of the loop, too."""
    until = time.monotonic() + 10
    while (found := len(list(trace.glob(f"receipts/*/{kind}-*")))) < epochs:
        if time.monotonic() > until:
            raise SystemExit(f"{kind}: {found} heads anchored in {epochs} epochs")
        time.sleep(0.01)


def others_cpu_s() -> float:
    """The processor time of all threads of this process but the calling one."""
    return time.process_time() - time.thread_time()


def compare(data: TensorDataset, epochs: int, turns: int, parties: list[Party]) -> tuple[Spent, Spent]:
    """Trainings with anchors and without, in turn."""
    anchored, plain = Spent(), Spent()
    for _ in range(turns):
        train(data, epochs, parties, anchored)
        train(data, epochs, [], plain)
    return anchored, plain


def measure_shares(parties: list[Party]) -> dict[str, float]:
    """The shares of both kinds of epoch."""
    source = load_images(None)
    small = TensorDataset(torch.from_numpy(source.images), torch.from_numpy(source.labels))
    times = EPOCH_IMAGES // len(small)
    whole = TensorDataset(*(tensor.repeat(times, *[1] * (tensor.dim() - 1)) for tensor in small.tensors))
    figures = {}
    for name, data, epochs, turns in (("", whole, 6, 1), ("_small_epochs", small, 12, 2)):
        anchored, plain = compare(data, epochs, turns, parties)
        figures |= {
            f"own_time_share{name}": anchored.share,
            f"own_time_share_without_anchors{name}": plain.share,
            f"anchors_share{name}": anchored.share - plain.share,
            f"epoch_s{name}": plain.loop_s / epochs / turns,
        }
    return figures


def main() -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fgtrac-anchors-")))
        parties, missing = start_parties(folder, stack)
        stack.enter_context(one_thread())
        figures = measure_anchors(folder, parties)
        chain = next(party for party in parties if party.kind == "evm")
        figures |= measure_gas(TraceDir.open(folder / "heads.trace"), chain.node)
        figures |= {"kinds": len(parties), "evm_in_process": int(not isinstance(chain.node, str))}
        figures |= measure_shares(parties)
    report("anchors", figures, "\n".join(missing))


if __name__ == "__main__":
    main()
