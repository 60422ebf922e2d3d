"""A user of fgtrac: a folder with keys and a trace, commands in processes of their own, and everything they said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fgtrac.store import durable
from fgtrac.tlog.note import Verifier, parse_vkey

FGTRAC = Path(sys.executable).with_name("fgtrac")
TRAIN = """
import json, sys
import torch
from torch.utils.data import DataLoader, TensorDataset
import fgtrac

where, epochs, resume, evm, tsa, witness, wait_s = sys.argv[1], *map(json.loads, sys.argv[2:])
torch.manual_seed(0)
data = TensorDataset(torch.randn(60, 4), torch.randint(0, 2, (60,)))
model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
anchors = []
if evm:
    anchors = [fgtrac.EvmContract(*evm), fgtrac.TimeStampAuthority(tsa), fgtrac.Witness(*witness)]
with fgtrac.start_run(where, resume=resume, anchors=anchors, anchor_at="epoch", anchor_wait_s=wait_s) as run:
    run.register(data, name="rows")
    loader = run.watch(DataLoader(data, batch_size=12, shuffle=True), role="train")
    for epoch in range(epochs):
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()
            optimizer.step()
        run.checkpoint(model, optimizer, val_loss=loss.item())
"""
Finding = tuple[str, str]  # verdict, words


@dataclass(frozen=True)
class Whom:
    """Whom the user asks to witness heads: URLs, the account's file, the witness's key."""

    evm: str
    account: Path
    tsa: str
    witness: str
    vkey: str

    def options(self) -> list[object]:
        """As `fgtrac anchor` is told."""
        return ["--evm", self.evm, "--account", self.account, "--tsa", self.tsa, "--witness", self.witness,
                "--witness-key", self.vkey]  # fmt: skip


@dataclass
class User:
    """Somebody who trains, in a folder; `password` is that of the account's keystore, if it has one."""

    folder: Path
    password: str = ""
    said: list[str] = field(default_factory=list)

    @property
    def trace(self) -> Path:
        return self.folder / "runs/rows.trace"

    def run(self, *command: object, code: int = 0) -> str:
        """A command that ends with `code`: what it printed on stdout. All is in `said`, stderr last."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FGTRAC_")}
        environment |= {"FGTRAC_KEY": str(self.folder / "keys/key.pem"), "FGTRAC_ACCOUNT_PASSWORD": self.password}
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, env=environment)
        self.said += [done.stdout, done.stderr]
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def fgtrac(self, *arguments: object, code: int = 0) -> str:
        return self.run(FGTRAC, *arguments, code=code)

    def log(self) -> Verifier:
        """The trace's log, as its witnesses are to know it."""
        return parse_vkey(self.fgtrac("show", self.trace, "--vkey").strip())

    def verify(self, *options: object, code: int = 0, trace: Path | None = None) -> dict[str, Finding]:
        """What `fgtrac verify` finds, check by check."""
        key = self.log().public_key.hex()
        said = self.fgtrac("verify", trace or self.trace, "--key", key, *options, "--json", code=code)
        return {f["check"]: (f["verdict"], f["words"]) for f in json.loads(said)["findings"]}

    def train(self, epochs: int, *, resume: bool = False, whom: Whom | None = None, wait_s: float = 0.0) -> None:
        """Train, anchored before each epoch by those who are named; each waits so long for its receipts."""
        script = self.folder / "train.py"
        durable.write_file(script, TRAIN.encode())
        named: Sequence[object] = [None, None, None]
        if whom is not None:
            named = [[whom.evm, str(whom.account)], whom.tsa, [whom.witness, whom.vkey]]
        self.run(sys.executable, script, self.folder / "runs/rows", *map(json.dumps, (epochs, resume, *named, wait_s)))
