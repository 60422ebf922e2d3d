"""The whole round, as a user goes it: train, seal, anchor with all three, verify, and train on with anchors beside it;
nothing secret is in anything that was written or printed on the way."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from eth_account import Account

from fgtrac.store import durable
from fgtrac.verify.evm_receipt import EvmReceipt, format_address, parse_evm_receipt
from services.anvil import KEY, Proxy, lying_proxy
from services.started import KINDS, Services, started
from services.user import User, Whom

PASSWORD, USER, WORD, API, TOKEN = "a-keystore-word-51c7", "u5er-8d30", "p4ss-41fe", "api-key-77b2", "token-c09d"
SECRETS = (KEY.removeprefix("0x"), PASSWORD, USER, WORD, API, TOKEN)


@dataclass
class Round:
    """A user and the services, with secrets in their URLs where they take some."""

    user: User
    services: Services
    node: Proxy
    stop: Callable[[], None]

    @property
    def trace(self) -> Path:
        return self.user.trace

    @property
    def whom(self) -> Whom:
        tsa = self.services.authority.url.replace("//", f"//{USER}:{WORD}@") + f"?token={TOKEN}"
        account, witness = self.user.folder / "keys/account.json", self.services.witness
        return Whom(f"{self.node.url}/v3/{API}", account, tsa, witness.url, witness.vkey)

    def by(self, *kinds: str) -> list[object]:
        """What `fgtrac verify` is told, to believe these kinds."""
        kept = self.kept()[0]
        told: dict[str, list[object]] = {
            "rfc3161": ["--tsa-root", self.services.authority.root],
            "witness": ["--witness-key", self.services.witness.vkey],
            "evm": ["--evm", self.whom.evm, "--evm-contract", format_address(kept.contract),
                    "--evm-account", format_address(kept.sender)],
        }  # fmt: skip
        return [option for kind in kinds for option in told[kind]]

    def kept(self) -> list[EvmReceipt]:
        """The receipts of the chain."""
        return [parse_evm_receipt(file.read_bytes()) for file in (self.trace / "receipts").glob("*/evm-*.json")]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Round]:
    """The round up to the first three receipts."""
    with ExitStack() as stack:
        services = stack.enter_context(started(tmp_path_factory.mktemp("services") / "all"))
        node = stack.enter_context(lying_proxy(services.chain.url))  # it tells the truth, and takes a URL with a path
        user = User(tmp_path_factory.mktemp("user"), PASSWORD)
        it = Round(user, services, node, stack.close)
        keystore = json.dumps(Account.encrypt(KEY, PASSWORD, kdf="pbkdf2", iterations=1000))
        durable.write_file(it.whom.account, keystore.encode(), mode=0o600)
        user.train(2)
        user.fgtrac("seal", it.trace)
        services.witness.add_log(user.log())
        user.fgtrac("anchor", it.trace, *it.whom.options())
        yield it


def test_the_head_is_anchored_with_all_three_and_the_answer_says_who_and_when(done: Round) -> None:
    (folder,) = (done.trace / "receipts").iterdir()
    assert {file.name.partition("-")[0] for file in folder.iterdir()} == {"checkpoint", *KINDS}
    said = json.loads(done.user.fgtrac("anchor", done.trace, *done.whom.options(), "--json"))["anchored"]
    assert {one["kind"] for one in said} == set(KINDS)
    now = datetime.now(UTC).timestamp()
    for one in said:
        assert str(one["size"]) == folder.name
        assert now - 600 < one["time"] <= now + 2
        assert (done.trace / one["receipt"]).is_file()


def test_who_names_all_three_is_told_what_holds_since_when_and_by_whom(done: Round) -> None:
    found = done.user.verify(*done.by(*KINDS))
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
    found = done.user.verify(code=3)
    assert {check: verdict for check, (verdict, _) in found.items() if verdict != "holds"} == dict.fromkeys(
        KINDS, "cannot tell"
    )


def test_without_a_node_nobody_can_tell_what_stands_on_the_chain(done: Round) -> None:
    asked = len(done.node.asked)
    found = done.user.verify(*done.by("rfc3161", "witness"), code=3)
    assert {check: verdict for check, (verdict, _) in found.items() if verdict != "holds"} == {"evm": "cannot tell"}
    assert "--evm RPC_URL" in found["evm"][1]
    assert len(done.node.asked) == asked


def test_openssl_verifies_the_stamp_as_it_lies_there(done: Round) -> None:
    (stamp,) = (done.trace / "receipts").glob("*/rfc3161-*.tsr")
    how = ("-data", stamp.with_name("checkpoint"), "-CAfile", done.services.authority.root)
    assert "Verification: OK" in done.user.run("openssl", "ts", "-verify", "-in", stamp, *how)


@pytest.fixture(scope="module")
def grown(done: Round) -> Round:
    """The run goes on for two epochs, anchored beside the training at the beginning of each."""
    done.user.train(2, resume=True, whom=done.whom, wait_s=30.0)
    return done


def test_a_run_that_goes_on_is_anchored_beside_its_training_before_each_epoch(grown: Round) -> None:
    sizes = sorted(int(folder.name) for folder in (grown.trace / "receipts").iterdir())
    assert len(sizes) == 4  # after the first part, before two epochs, at the end
    found = grown.user.verify(*grown.by(*KINDS))
    assert {verdict for verdict, _ in found.values()} == {"holds"}
    for kind in KINDS:
        words = found[kind][1]
        assert words.startswith("4 heads")
        assert f"the first of {sizes[0]} entries" in words
        assert f"the newest of {sizes[-1]} entries" in words
        assert "2 of 4 announced epochs" in words
        assert "not covered" not in words


def test_what_is_behind_the_newest_anchor_is_counted_until_it_is_anchored_too(grown: Round) -> None:
    grown.user.train(1, resume=True)
    words = grown.user.verify(*grown.by(*KINDS))["witness"][1]
    assert words.startswith("4 heads")
    assert "are not covered" in words
    grown.user.fgtrac("anchor", grown.trace, *grown.whom.options())
    words = grown.user.verify(*grown.by(*KINDS))["witness"][1]
    assert words.startswith("5 heads")
    assert "not covered" not in words


def test_nothing_secret_is_printed_or_written_except_where_it_belongs(grown: Round) -> None:
    said = "".join(grown.user.said).lower()
    assert grown.services.authority.url.removesuffix("/tsa") in said  # services are named
    assert not [secret for secret in SECRETS if secret in said]
    files = [file for file in grown.user.folder.rglob("*") if file.is_file()]
    assert len(files) > 30
    assert not {(file, secret) for file in files for secret in SECRETS if secret.encode() in file.read_bytes().lower()}


def test_stamps_and_cosignatures_hold_when_every_service_has_stopped_and_of_the_chain_nobody_can_tell(
    grown: Round,
) -> None:
    options = grown.by(*KINDS)
    grown.stop()
    found = grown.user.verify(*options, code=3)
    assert {check: verdict for check, (verdict, _) in found.items() if verdict != "holds"} == {"evm": "cannot tell"}
    assert "gave no usable answer" in found["evm"][1]
    offline = shutil.copytree(grown.trace, grown.user.folder / "offline.trace")
    for file in offline.glob("receipts/*/evm-*"):
        file.unlink()
    found = grown.user.verify(*options[:4], trace=offline)
    assert {verdict for verdict, _ in found.values()} == {"holds"}
