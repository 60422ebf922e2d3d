"""The stage of the lies about anchored traces: a chain, a time-stamping authority and a witness, real ones on loopback,
and a trace that all three of them witnessed, before its last epoch and at its end.

A verifier names whom to believe, `by(KIND, ...)`: the authority's root, the witness's key, a node of the chain with the
contract and the account.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

for _folder in (Path(__file__).parents[1], Path(__file__).parents[2] / "tests"):
    if str(_folder) not in sys.path:  # where a script of this folder runs alone
        sys.path.append(str(_folder))

from fgtrac.commit.keys import load_key  # noqa: E402
from fgtrac.demo.forge import all_entries, find, head_of, put, reseal, reseal_with, with_another_sample  # noqa: E402
from fgtrac.events.schema import encode_event  # noqa: E402
from fgtrac.store.trace_dir import TraceDir  # noqa: E402
from fgtrac.tlog.note import Verifier  # noqa: E402
from fgtrac.verify.evm_receipt import EvmReceipt, format_address, parse_evm_receipt  # noqa: E402
from lying import Act, Answer, Stage, answers, caught, holds, refused, show, silence, undecided  # noqa: E402
from services.openssl_tsa import Responder  # noqa: E402
from services.started import KINDS, Services, missing, started  # noqa: E402

__all__ = [  # what the scripts here import
    "KINDS",
    "Act",
    "AnchoredStage",
    "Answer",
    "caught",
    "every",
    "holds",
    "main",
    "refused",
    "undecided",
]

Story = Callable[["AnchoredStage"], Iterator[Act]]


class AnchoredStage(Stage):
    """As every stage, with the services that witnessed the trace."""

    def __init__(self, folder: Path, services: Services) -> None:
        super().__init__(folder)
        self.services = services

    @cached_property
    def trace(self) -> TraceDir:
        """The true trace, run.trace; beside it older.trace, from before its last epoch. Each has its receipts."""
        return self._record(self.folder)

    @cached_property
    def other(self) -> TraceDir:
        """Another trace, which the same three witnessed."""
        folder = self.folder / "other"
        folder.mkdir()
        return self._record(folder)

    def _record(self, folder: Path) -> TraceDir:
        from true_trace import record

        def have_witnessed(path: Path) -> None:
            trace = TraceDir.open(path)
            public_key = load_key(path.with_name("key.pem")).public_key().public_bytes_raw()
            self.services.witness.add_log(Verifier(head_of(trace).origin, public_key))
            done = self.anchor(trace)
            assert done.code == 0, done.rest

        with silence():
            return record(folder, have_witnessed)

    # -- anchoring and asking -------------------------------------------------------------------------------------

    def anchor(self, trace: TraceDir, kind: str = "", *more: str) -> Answer:
        """`fgtrac anchor TRACE` with that kind, or all, by the signer, whose key lies beside the trace."""
        options = [*self.services.anchor_options(*filter(None, [kind])), *more]
        return self.fgtrac("anchor", trace.path, *options, key_file=trace.path.with_name("key.pem"))

    def by(self, *kinds: str) -> list[str | Path]:
        """What `fgtrac verify` is told, to believe these kinds."""
        told: dict[str, list[str | Path]] = {
            "rfc3161": ["--tsa-root", self.services.authority.root],
            "witness": ["--witness-key", self.services.witness.vkey],
            "evm": ["--evm", self.services.chain.url, "--evm-contract", self.contract, "--evm-account", self.account],
        }
        return [option for kind in kinds for option in told[kind]]

    def stamped_by(self, authority: Responder) -> TraceDir:
        """A copy of the trace that has the stamp of another authority and no other receipt."""
        trace = self.copy()
        shutil.rmtree(trace.path / "receipts")
        done = self.fgtrac("anchor", trace.path, "--tsa", authority.url, key_file=trace.path.with_name("key.pem"))
        assert done.code == 0, done.rest
        return trace

    @property
    def kept(self) -> EvmReceipt:
        """Where the chain keeps the trace's newest head."""
        return parse_evm_receipt(self.receipts(self.trace, "evm")[-1].read_bytes())

    @property
    def contract(self) -> str:
        """The contract that has it."""
        return format_address(self.kept.contract)

    @property
    def account(self) -> str:
        """The account that gave it."""
        return format_address(self.kept.sender)

    # -- lying ----------------------------------------------------------------------------------------------------

    def receipts(self, trace: TraceDir, kind: str) -> list[Path]:
        """The trace's receipts of one kind, the oldest head's first."""
        return sorted((trace.path / "receipts").glob(f"*/{kind}-*"), key=lambda file: int(file.parent.name))

    def keep_only(self, trace: TraceDir, *kinds: str) -> TraceDir:
        """The trace without the receipts of other kinds."""
        for other in set(KINDS) - set(kinds):
            for file in self.receipts(trace, other):
                file.unlink()
        return trace

    def rewrite(self, trace: TraceDir) -> None:
        """Let a batch of the first epochs say another sample, and sign everything anew; the receipts stay."""
        number, event = find(TraceDir.open(self.trace.path.with_name("older.trace")), "use")
        reseal_with(trace, number, with_another_sample(event), self.key)

    def grow(self, trace: TraceDir) -> None:
        """Append an entry, and sign everything anew."""
        more = {"kind": "metrics", "time": 0, "writer": os.urandom(16), "seq": 0, "step": 0, "values": {}}
        reseal(trace, [*all_entries(trace), encode_event(more)], self.key)

    def exchange_heads(self, trace: TraceDir) -> None:
        """Put the heads that the trace has now where those lie that were witnessed."""
        for folder in (trace.path / "receipts").iterdir():
            put(trace, f"receipts/{folder.name}/checkpoint", trace.read(f"index/{folder.name}/checkpoint"))


def every(acts: Iterable[Act]) -> Act:
    """Many alike, as one: the last of them, or the first that is not as promised."""
    acts = list(acts)
    return next((act for act in acts if not act.is_kept), acts[-1])


@contextmanager
def staged() -> Iterator[AnchoredStage]:
    """The stage in a temporary folder, with its services running. SystemExit where they are not installed."""
    if words := missing():
        sys.exit(words)
    with tempfile.TemporaryDirectory(prefix="fgtrac-lies-") as folder, started(Path(folder) / "services") as services:
        yield AnchoredStage(Path(folder), services)


def main(story: Story) -> None:
    """Run one script: exit code 0 where everything was answered as the design promises, 1 otherwise."""
    with staged() as stage:
        surprises = show(answers(), {Path(sys.argv[0]).stem: story}, stage)
    sys.exit(1 if surprises else 0)
