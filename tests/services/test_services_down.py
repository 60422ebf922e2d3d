"""With every service down, training and sealing go on; what is pending is completed when they are there again."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from services.anvil import running_anvil
from services.openssl_tsa import running_tsa
from services.started import KINDS
from services.user import User, Whom
from services.witness import WitnessServer, make_witness


@dataclass
class Outage:
    """A user of three services that are all down; each comes back at the address that it had."""

    user: User
    whom: Whom
    folder: Path
    witness: WitnessServer

    @property
    def pending(self) -> list[Path]:
        """The lists of what is pending, beside the user's key."""
        return list((self.user.folder / "keys/heads").glob("*.pending"))

    def end(self, stack: ExitStack) -> list[object]:
        """All are back until the stack is left: what `fgtrac verify` is told, to believe them."""
        ports = [urlsplit(url).port or 0 for url in (self.whom.evm, self.whom.tsa, self.whom.witness)]
        stack.enter_context(running_anvil(self.folder / "chain", port=ports[0]))
        authority = stack.enter_context(running_tsa(self.folder / "tsa", port=ports[1]))
        stack.enter_context(self.witness.running(port=ports[2]))
        return ["--evm", self.whom.evm, "--tsa-root", authority.root, "--witness-key", self.whom.vkey]


@pytest.fixture
def outage(tmp_path: Path) -> Outage:
    (tmp_path / "user").mkdir()
    witness = make_witness(tmp_path / "witness")
    with running_anvil(tmp_path / "chain") as chain, running_tsa(tmp_path / "tsa") as authority, witness.running():
        whom = Whom(chain.url, chain.account, authority.url, witness.url, witness.vkey)
    return Outage(User(tmp_path / "user"), whom, tmp_path, witness)


def test_training_goes_on_with_one_warning_and_what_is_pending_is_completed_later(outage: Outage) -> None:
    user = outage.user
    user.train(3, whom=outage.whom)
    assert user.said[-1].count("Warning") == 1
    assert "not anchored" in user.said[-1]
    assert "fgtrac anchor" in user.said[-1]
    user.fgtrac("seal", user.trace)
    assert {verdict for verdict, _ in user.verify().values()} == {"holds"}  # the log itself is as it should be
    assert not list(user.trace.glob("receipts/*/*-*"))
    assert len(outage.pending) == 1
    assert outage.pending[0].stat().st_mode & 0o777 == 0o600
    user.fgtrac("anchor", user.trace, "--pending", "--timeout", 5, code=4)
    outage.witness.add_log(user.log())
    with ExitStack() as stack:
        options = outage.end(stack)
        user.fgtrac("anchor", user.trace, "--pending")
        assert not outage.pending
        found = user.verify(*options)
        assert {verdict for verdict, _ in found.values()} == {"holds"}
        assert set(KINDS) <= set(found)
        assert "not covered" not in found["evm"][1]


def test_only_the_command_that_anchors_fails_and_says_who_did_not_answer(outage: Outage) -> None:
    user = outage.user
    user.train(1)
    user.fgtrac("anchor", user.trace, *outage.whom.options(), "--timeout", 5, code=4)
    for url in (outage.whom.evm, outage.whom.tsa, outage.whom.witness):
        parts = urlsplit(url)
        assert f"{parts.scheme}://{parts.netloc}" in user.said[-1]
    assert user.said[-1].count("--pending completes it") == 3
    outage.witness.add_log(user.log())
    with ExitStack() as stack:
        options = outage.end(stack)
        user.train(1, resume=True, whom=outage.whom)  # takes up what was left over, and anchors what is new
        assert "Warning" not in user.said[-1]
        assert not outage.pending
        assert {verdict for verdict, _ in user.verify(*options).values()} == {"holds"}
