"""The demo's anchor: what is believed of a trace and of a rewriting of it, with its chain and without."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch.utils.data import DataLoader, TensorDataset

from fgtrac.anchor.local_chain import LocalChain
from fgtrac.api.run import start_run
from fgtrac.cli.main import main
from fgtrac.commit.keys import load_key
from fgtrac.demo import anchoring, show
from fgtrac.demo.anchoring import Figures
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.evm_receipt import parse_evm_receipt


@dataclass(frozen=True)
class Anchored:
    trace: TraceDir
    chain: LocalChain
    figures: Figures


@pytest.fixture(scope="module")
def anchored(tmp_path_factory: pytest.TempPathFactory) -> Anchored:
    folder = tmp_path_factory.mktemp("anchored")
    key, model = folder / "key.pem", torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(torch.arange(12.0).reshape(6, 2)), batch_size=3, shuffle=True)
    with start_run(folder / "run", key=key) as run:
        run.watch(loader, role="train")
        for (rows,) in loader:
            optimizer.zero_grad()
            model(rows).sum().backward()
            optimizer.step()
    trace, chain = TraceDir.open(run.path), LocalChain(folder)
    return Anchored(trace, chain, anchoring.anchored(trace, chain, load_key(key), key))


def test_only_the_chain_tells_the_trace_from_its_rewriting(anchored: Anchored) -> None:
    told = [(a["question"], a["verdict"], a["checks"]) for a in anchored.figures["answers"]]
    assert told == [
        ("the trace, without the chain", "cannot tell", ["evm"]),
        ("the trace, with the chain", "holds", []),
        ("a rewriting, without the chain", "holds", []),
        ("a rewriting, with the chain", "refuted", ["evm"]),
    ]
    assert all(anchoring.claims(anchored.figures).values())


def test_the_refutation_shows_both_roots(anchored: Anchored) -> None:
    figures = anchored.figures
    head = anchored.trace.head()
    assert head is not None
    assert figures["root"] == head.root.hex() != figures["rewritten_root"]
    assert figures["root"] in figures["answers"][3]["words"]
    assert figures["rewritten_root"] in figures["answers"][3]["words"]


def test_the_figures_are_those_of_the_receipt_in_the_trace_and_of_the_chain(anchored: Anchored) -> None:
    figures, data = anchored.figures, anchored.trace.read(anchored.figures["receipt"])
    receipt = parse_evm_receipt(data)
    assert figures["receipt_b"] == len(data)
    assert figures["contract"] == "0x" + receipt.contract.hex()
    assert (figures["chain_id"], figures["block"], figures["size"]) == (receipt.chain_id, 2, receipt.size)
    assert 21_000 < figures["gas"] < figures["gas_deployment"]


@pytest.mark.parametrize("number", range(4))
def test_each_claim_fails_with_its_answer(anchored: Anchored, number: int) -> None:
    answers = list(anchored.figures["answers"])
    answers[number] = answers[number] | {"verdict": "refuted", "checks": ["heads"]}
    claims = anchoring.claims(anchored.figures | {"answers": answers})
    assert list(claims.values()) == [n != number for n in range(4)]


@pytest.mark.parametrize("root", ["root", "rewritten_root"])
def test_a_refutation_without_both_roots_fails_its_claim(anchored: Anchored, root: str) -> None:
    assert list(anchoring.claims(anchored.figures | {root: "00" * 32}).values()) == [True, True, True, False]


def test_it_says_that_the_chain_convinces_nobody_else_and_what_does(anchored: Anchored) -> None:
    text = io.StringIO()
    show.anchored(Console(file=text, width=200), anchored.figures)
    for words in ("in this process", "proves nothing to anybody else", "--evm RPC_URL", anchored.figures["contract"]):
        assert words in text.getvalue()
    key = anchored.chain.account.read_text().strip().removeprefix("0x")
    assert key not in text.getvalue() + json.dumps(anchored.figures)


def test_without_web3_it_says_what_to_install_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "web3", None)
    out = tmp_path / "kept"
    monkeypatch.setattr("sys.argv", ["fgtrac", "demo", "cnn", "--small", "--anchor", "evm", "--out", str(out)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "pip install 'fgtrac[evm]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
