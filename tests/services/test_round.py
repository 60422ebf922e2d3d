"""The whole round, as a user goes it: train, seal, anchor with all three, verify, and train on with anchors beside it;
nothing secret is in anything that was written or printed on the way."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from fgtrac.store import durable
from fgtrac.tlog.note import parse_vkey
from fgtrac.verify.evm_receipt import format_address, parse_evm_receipt
from services.anvil import KEY, Proxy, lying_proxy
from services.started import KINDS, Services, started

FGTRAC = Path(sys.executable).with_name("fgtrac")
PASSWORD, USER, WORD, API, TOKEN = "a-keystore-word-51c7", "u5er-8d30", "p4ss-41fe", "api-key-77b2", "token-c09d"
SECRETS = (KEY.removeprefix("0x"), PASSWORD, USER, WORD, API, TOKEN)
TRAIN = """
import json, sys
import torch
from torch.utils.data import DataLoader, TensorDataset
import fgtrac

where, epochs, resume, evm, tsa, witness = sys.argv[1], *map(json.loads, sys.argv[2:])
torch.manual_seed(0)
data = TensorDataset(torch.randn(60, 4), torch.randint(0, 2, (60,)))
model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
anchors = []
if evm:
    anchors = [fgtrac.EvmContract(*evm), fgtrac.TimeStampAuthority(tsa), fgtrac.Witness(*witness)]
with fgtrac.start_run(where, resume=resume, anchors=anchors, anchor_at="epoch", anchor_wait_s=30.0) as run:
    run.register(data, name="rows")
    loader = run.watch(DataLoader(data, batch_size=12, shuffle=True), role="train")
    for epoch in range(epochs):
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()
            optimizer.step()
        run.checkpoint(model, optimizer, val_loss=float(loss))
"""


@dataclass
class Round:
    """A user's folder, the services, and everything that was said."""

    folder: Path
    services: Services
    proxy: Proxy
    stop: Any
    said: list[str] = field(default_factory=list)

    @property
    def trace(self) -> Path:
        return self.folder / "runs/rows.trace"

    def run(self, *command: object, code: int = 0) -> str:
        """Run a command in a process of its own, which ends with `code`; what it printed."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FGTRAC_")}
        environment |= {"FGTRAC_KEY": str(self.folder / "keys/key.pem"), "FGTRAC_ACCOUNT_PASSWORD": PASSWORD}
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, env=environment)
        self.said += [done.stdout, done.stderr]
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def fgtrac(self, *arguments: object, code: int = 0) -> str:
        return self.run(FGTRAC, *arguments, code=code)

    def verify(self, *options: object, code: int = 0, trace: Path | None = None) -> dict[str, tuple[str, str]]:
        """What `fgtrac verify` says: by check the verdict and the words."""
        key = parse_vkey(self.fgtrac("show", trace or self.trace, "--vkey").strip()).public_key.hex()
        said = self.fgtrac("verify", trace or self.trace, "--key", key, *options, "--json", code=code)
        return {f["check"]: (f["verdict"], f["words"]) for f in json.loads(said)["findings"]}

    def train(self, epochs: int, *, resume: bool, is_anchored: bool = False) -> None:
        """Train in a process of its own, with or without anchors beside it."""
        whom: list[Any] = [None, None, None]
        if is_anchored:
            evm, tsa, witness = self.urls
            whom = [[evm, str(self.account)], tsa, [witness, self.services.witness.vkey]]
        script = self.folder / "train.py"
        durable.write_file(script, TRAIN.encode())
        self.run(sys.executable, script, self.folder / "runs/rows", *map(json.dumps, (epochs, resume, *whom)))

    @property
    def account(self) -> Path:
        return self.folder / "keys/account.json"

    @property
    def urls(self) -> tuple[str, str, str]:
        """Where the services are asked: with what is secret in the URL, where they take it."""
        tsa = self.services.authority.url.replace("//", f"//{USER}:{WORD}@") + f"?token={TOKEN}"
        return f"{self.proxy.url}/v3/{API}", tsa, self.services.witness.url

    def anchor_options(self) -> list[object]:
        evm, tsa, witness = self.urls
        vkey = self.services.witness.vkey
        return ["--evm", evm, "--account", self.account, "--tsa", tsa, "--witness", witness, "--witness-key", vkey]

    def by(self, *kinds: str) -> list[object]:
        """What `fgtrac verify` is told, to believe these kinds."""
        (receipt,) = {(r.contract, r.sender) for r in self.kept()}
        contract, account = map(format_address, receipt)
        told: dict[str, list[object]] = {
            "rfc3161": ["--tsa-root", self.services.authority.root],
            "witness": ["--witness-key", self.services.witness.vkey],
            "evm": ["--evm", self.urls[0], "--evm-contract", contract, "--evm-account", account],
        }
        return [option for kind in kinds for option in told[kind]]

    def kept(self) -> list[Any]:
        """The receipts of the chain."""
        return [parse_evm_receipt(file.read_bytes()) for file in (self.trace / "receipts").glob("*/evm-*.json")]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Round]:
    """The round up to the first three receipts."""
    folder = tmp_path_factory.mktemp("user")
    with ExitStack() as stack:
        services = stack.enter_context(started(tmp_path_factory.mktemp("services") / "all"))
        proxy = stack.enter_context(lying_proxy(services.chain.url))
        it = Round(folder, services, proxy, stack.close)
        keystore = json.dumps(Account.encrypt(KEY, PASSWORD, kdf="pbkdf2", iterations=1000))
        durable.write_file(it.account, keystore.encode(), mode=0o600)
        it.train(2, resume=False)
        it.fgtrac("seal", it.trace)
        services.witness.add_log(parse_vkey(it.fgtrac("show", it.trace, "--vkey").strip()))
        it.fgtrac("anchor", it.trace, *it.anchor_options())
        yield it


def test_the_head_is_anchored_with_all_three_and_the_answer_says_who_and_when(done: Round) -> None:
    (folder,) = (done.trace / "receipts").iterdir()
    kinds = {file.name.partition("-")[0] for file in folder.iterdir()}
    assert kinds == {"checkpoint", *KINDS}
    said = json.loads(done.fgtrac("anchor", done.trace, *done.anchor_options(), "--json"))["anchored"]
    assert [one["kind"] for one in said] == ["evm", "rfc3161", "witness"]
    now = datetime.now(UTC).timestamp()
    for one in said:
        assert str(one["size"]) == folder.name
        assert now - 600 < one["time"] <= now + 2
        assert (done.trace / one["receipt"]).is_file()


def test_who_names_all_three_is_told_what_holds_since_when_and_by_whom(done: Round) -> None:
    found = done.verify(*done.by(*KINDS))
    assert {verdict for verdict, _ in found.values()} == {"holds"}
    (receipt,) = done.kept()
    account, contract = format_address(receipt.sender), format_address(receipt.contract)
    words = {kind: found[kind][1] for kind in KINDS}
    assert "CN=test authority" in words["rfc3161"]
    assert "witness.example/w1" in words["witness"]
    assert f"account {account} in contract {contract} on chain 31337" in words["evm"]
    for said in words.values():
        assert f"{receipt.size} entries at" in said
        when = re.search(r"at (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", said)
        assert when
        time = datetime.strptime(when[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
        assert timedelta(seconds=-2) <= datetime.now(UTC) - time < timedelta(minutes=10)


def test_who_names_nobody_cannot_tell_of_any(done: Round) -> None:
    found = done.verify(code=3)
    assert {check for check, (verdict, _) in found.items() if verdict != "holds"} == set(KINDS)
    assert {found[kind][0] for kind in KINDS} == {"cannot tell"}


def test_without_a_node_nobody_can_tell_what_stands_on_the_chain(done: Round) -> None:
    asked = len(done.proxy.asked)
    found = done.verify(*done.by("rfc3161", "witness"), code=3)
    assert {check for check, (verdict, _) in found.items() if verdict != "holds"} == {"evm"}
    assert "--evm RPC_URL" in found["evm"][1]
    assert len(done.proxy.asked) == asked


def test_openssl_verifies_the_stamp_as_it_lies_there(done: Round) -> None:
    (stamp,) = (done.trace / "receipts").glob("*/rfc3161-*.tsr")
    root = done.services.authority.root
    note = stamp.with_name("checkpoint")
    said = done.run("openssl", "ts", "-verify", "-in", stamp, "-data", note, "-CAfile", root)
    assert "Verification: OK" in said


@pytest.fixture(scope="module")
def grown(done: Round) -> Round:
    """The run goes on for two epochs, anchored beside the training at the beginning of each."""
    done.train(2, resume=True, is_anchored=True)
    return done


def test_a_run_that_goes_on_is_anchored_beside_its_training_before_each_epoch(grown: Round) -> None:
    sizes = sorted(int(folder.name) for folder in (grown.trace / "receipts").iterdir())
    assert len(sizes) == 4  # after the first part, before two epochs, at the end
    found = grown.verify(*grown.by(*KINDS))
    assert {verdict for verdict, _ in found.values()} == {"holds"}
    for kind in KINDS:
        words = found[kind][1]
        assert words.startswith("4 heads")
        assert f"the first of {sizes[0]} entries" in words
        assert f"the newest of {sizes[-1]} entries" in words
        assert "2 of 4 announced epochs" in words
        assert "not covered" not in words


def test_what_is_behind_the_newest_anchor_is_counted_until_it_is_anchored_too(grown: Round) -> None:
    grown.train(1, resume=True)
    words = grown.verify(*grown.by(*KINDS))["witness"][1]
    assert words.startswith("4 heads")
    assert "are not covered" in words
    grown.fgtrac("anchor", grown.trace, *grown.anchor_options())
    words = grown.verify(*grown.by(*KINDS))["witness"][1]
    assert words.startswith("5 heads")
    assert "not covered" not in words


def test_nothing_secret_is_printed_or_written_except_where_it_belongs(grown: Round) -> None:
    said = "".join(grown.said)
    assert grown.services.authority.url.removesuffix("/tsa") in said  # services are named
    assert not [secret for secret in SECRETS if secret.lower() in said.lower()]
    files = [file for file in grown.folder.rglob("*") if file.is_file()]
    assert len(files) > 30
    told = {(file.name, secret) for file in files for secret in SECRETS if secret.encode() in file.read_bytes().lower()}
    assert not told


def test_stamps_and_cosignatures_hold_when_every_service_has_stopped_and_of_the_chain_nobody_can_tell(
    grown: Round,
) -> None:
    options = grown.by(*KINDS)
    grown.stop()
    found = grown.verify(*options, code=3)
    assert {check: verdict for check, (verdict, _) in found.items() if verdict != "holds"} == {"evm": "cannot tell"}
    assert "gave no usable answer" in found["evm"][1]
    offline = shutil.copytree(grown.trace, grown.folder / "offline.trace")
    for file in offline.glob("receipts/*/evm-*"):
        file.unlink()
    found = grown.verify(*options[:4], trace=offline)
    assert {verdict for verdict, _ in found.values()} == {"holds"}
