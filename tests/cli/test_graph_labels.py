"""A recorded graph on the command line: held-out nodes' labels were never used, which others check by a file alone, and
what `check` says of their features."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import fgtrac
from fgtrac.api.run import start_run
from fgtrac.commit.keys import load_key
from graphs import Network, make_graph, node_loader

CLAIM = "label never used"
VERIFIER = Path(__file__).parents[2] / "verifier" / "check_bundle.py"
Run = Callable[..., Any]


@dataclass(frozen=True)
class Recorded:
    """A training, and at which hops its batches really held each node beside the seeds."""

    path: Path
    beside: Counter[int]
    test: list[int]
    others: list[int]
    train: list[int]

    @property
    def key(self) -> Path:
        return self.path.parent / "key.pem"

    def name(self, node: int) -> str:
        return f"icons:key:{json.dumps(f'icon-{node}')}"


@pytest.fixture(scope="module", params=["public", "keyed"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Two epochs of sampled batches and one update on the whole graph; the test and validation nodes are held out."""
    room, graph, model = tmp_path_factory.mktemp("graph"), make_graph(), Network()
    optimizer, beside = torch.optim.SGD(model.parameters(), lr=0.1), Counter[int]()
    names = [f"icon-{node}" for node in range(graph.num_nodes)]

    def update(batch: Any, mine: Any) -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(batch.x, batch.edge_index)[mine], batch.y[mine]).backward()
        optimizer.step()

    with start_run(room / "run", key=room / "key.pem", ids=request.param) as run:
        run.register(graph, nodes="test_mask", role="test", key=names, name="icons")
        run.register(graph, nodes="val_mask", role="validation")
        loader = run.watch(node_loader(graph), role="train")
        for _epoch in range(2):
            for batch in loader:
                update(batch, slice(batch.batch_size))
                beside.update(batch.n_id[batch.batch_size :].tolist())
        for batch in run.full_batch(graph, "train_mask", hops=2, role="train"):
            update(batch, batch.train_mask)
            beside.update(torch.nonzero(~batch.train_mask).flatten().tolist())
    masks = graph.test_mask, graph.val_mask, graph.train_mask
    return Recorded(run.path, beside, *(torch.nonzero(mask).flatten().tolist() for mask in masks))


def test_of_every_held_out_node_it_is_proved_with_how_often_it_was_a_neighbour(recorded: Recorded) -> None:
    trace = fgtrac.open(recorded.path)
    for node in recorded.test + recorded.others:
        said = json.loads(trace.prove(recorded.name(node), CLAIM))["words"]
        assert f'"icon-{node}" of data set "icons" is registered, and no optimizer update ever used its label:' in said
        assert f"Uses as a neighbour, with its features alone: {recorded.beside[node]}, at hops from" in said


def test_of_a_seed_it_is_not(recorded: Recorded, run: Run, tmp_path: Path) -> None:
    done = run("prove", recorded.path, recorded.name(recorded.train[0]), "--claim", CLAIM, "-o", tmp_path / "x")
    assert done.code == 2
    assert f"'{CLAIM}' is not true of" in done.err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("entries", [(), ("--entries",)])
def test_a_stranger_checks_the_file_by_name_and_so_does_the_second_verifier(
    recorded: Recorded, run: Run, entries: tuple[str, ...], tmp_path: Path
) -> None:
    node, other = recorded.test[:2]
    file = tmp_path / "node.json"
    assert run("prove", recorded.path, recorded.name(node), "--claim", CLAIM, *entries, "-o", file).code == 0
    asked = "verify", file, "--key", recorded.key, "--json"
    done = run(*asked, "--about", recorded.name(node))
    found = {finding["check"]: finding for finding in done.json["findings"]}
    assert (done.code, found["about"]["verdict"], found["claim"]["verdict"]) == (0, "holds", "holds")
    assert ("evidence" in found) == ("In updates on the whole graph: 1, " in found["claim"]["words"]) == bool(entries)
    done = run(*asked, "--about", recorded.name(other))
    assert (done.code, [f["check"] for f in done.json["findings"] if f["verdict"] == "refuted"]) == (1, ["about"])
    key = load_key(recorded.key).public_key().public_bytes_raw().hex()
    second = subprocess.run([sys.executable, VERIFIER, file, "--key", key], capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "ever used its label" in second.stdout


def test_labels_are_held_out_and_features_are_not(recorded: Recorded, run: Run, tmp_path: Path) -> None:
    policy, table = tmp_path / "policy.toml", tmp_path / "violations.csv"
    policy.write_text('format = "fgtrac-policies/v1"\n[held-out-contents]\non = false\n[held-out-features]\n')
    asked = "check", recorded.path, "--key", recorded.key, "--policy", policy
    done = run(*asked, "--json", "-o", table)
    verdicts = {finding["check"]: finding for finding in done.json["findings"]}
    held, uses = recorded.test + recorded.others, sum(recorded.beside[node] for node in recorded.test + recorded.others)
    assert (done.code, [c for c, f in verdicts.items() if f["verdict"] != "holds"]) == (1, ["held-out-features"])
    assert f"were neighbours, with their features alone, {uses} times" in verdicts["held-out"]["words"]
    counted = Counter(violation["sample"] for violation in done.json["violations"])
    assert counted == {recorded.name(node): recorded.beside[node] for node in held}
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["hop"] for row in rows] == [str(violation["hop"]) for violation in done.json["violations"]]
    assert {row["out_of_reach"] for row in rows if row["hop"] == "3"} == {"True"}
    assert {row["out_of_reach"] for row in rows if row["hop"] != "3"} == {""}
    shown = run(*asked, "--show", "400").out
    assert "neighbour at hop 1" in shown
    assert "neighbour at hop 3, out of reach" in shown
