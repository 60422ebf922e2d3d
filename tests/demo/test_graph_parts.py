"""The parts of the graph demo: features that look at no label, edges, the sampler, the network, the preparation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import NodeLoader

from fgtrac.api.run import start_run
from fgtrac.capture.graph import GraphNodes
from fgtrac.demo.graph import prepare as preparing
from fgtrac.demo.graph.features import PIXELS, Vocabulary, connect, fit_vocabulary, forms_of, render, without, words_of
from fgtrac.demo.graph.icons import LIST, load_icons
from fgtrac.demo.graph.measure import data_figures
from fgtrac.demo.graph.network import IconNetwork
from fgtrac.demo.graph.prepare import MASKS, owners, prepare
from fgtrac.demo.graph.sampler import FewNeighbours
from fgtrac.demo.graph.training import train, without_edges
from fgtrac.demo.graph.witness import Witness, around, counts_of
from fgtrac.demo.truth import received
from icon_folders import drawing, made_up


def test_an_icon_is_drawn_by_its_alpha_channel() -> None:
    pixels = np.zeros((240, 240), np.uint8)
    pixels[:10, 10:15] = 255
    image = render(drawing(pixels))
    assert image.shape == (PIXELS, PIXELS)
    assert image[0, 1] == pytest.approx(0.5, abs=0.01)
    assert image.sum() == pytest.approx(0.5, abs=0.01)


def test_no_word_of_a_category_is_left_in_any_tag() -> None:
    forbidden = forms_of(["Arrows", "Currencies", "E-commerce", "Text", "Version control"])
    assert {"arrow", "arrows", "currency", "currencies", "commerce", "text", "texts", "control"} <= forbidden
    assert "e" not in forbidden
    assert "ecommerce" in forbidden
    assert forms_of(["Animals", "Currencies"]) == {"animals", "animal", "currencies", "currency"}
    assert without(["arrow left", "Arrows".lower(), "e", "left", "currency"], forbidden) == ("e", "left")


def test_the_vocabulary_has_the_words_that_enough_texts_have() -> None:
    fitted = fit_vocabulary([("a", "b"), ("a",), ("b", "c"), ("a", "d")], least=2)
    assert fitted.words == ("a", "b")
    assert fitted.weights.tolist() == pytest.approx([np.log(4 / 3), np.log(4 / 2)])


def test_a_nodes_words_are_a_vector_of_length_1_or_0() -> None:
    known = Vocabulary(("a", "b"), np.array([3.0, 4.0]))
    assert known.vector(["b", "a", "unheard"]).tolist() == pytest.approx([0.6, 0.8])
    assert known.vector(["unheard"]).tolist() == [0, 0]


def test_nodes_that_share_rare_tags_are_near_and_common_tags_join_nobody() -> None:
    tags = [("rare", "x"), ("rare",), ("x",), ("x",), ("alone",), *[("common",)] * 61]
    edges = connect(tags)
    into_first = edges[0][edges[1] == 0].tolist()
    assert into_first == [1, 2, 3]
    assert set(edges[1].tolist()) == {0, 1, 2, 3}
    assert not (edges[0] == edges[1]).any()


def test_each_node_hears_from_at_most_six_the_rarest_shared_first() -> None:
    tags = [("pair", "crowd")] + [("crowd",)] * 8 + [("pair", "crowd")]
    edges = connect(tags)
    assert edges[0][edges[1] == 0].tolist() == [1, 2, 3, 4, 5, 9]


CODE = """
from pathlib import Path
import hashlib, sys
from fgtrac.demo.graph.features import connect, fit_vocabulary, forms_of, without, words_of
from fgtrac.demo.graph.icons import load_icons
icons = load_icons(Path(sys.argv[1]))
tags = [without(mine, forms_of(icons.all_categories)) for mine in icons.tags]
texts = [words_of(mine) for mine in tags]
known = fit_vocabulary(texts, 2)
vectors = b"".join(known.vector(words).tobytes() for words in texts)
print(hashlib.sha256(connect(tags).tobytes() + vectors).hexdigest())
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 made-up icons in three categories, whose tags have words in common."""
    random = np.random.default_rng(0)
    icons = {}
    for n in range(120):
        shared = random.choice(30, 4, replace=False) + 20 * (n % 3)
        tags = [f"tag{number} word{number % 7}" for number in shared.tolist()]
        icons[f"icon-{n:03d}"] = {"category": f"Kind{'abc'[n % 3]}", "tags": tags}
    return made_up(tmp_path_factory.mktemp("icons"), icons)


def test_no_seed_of_a_hash_changes_a_bit(made: Path) -> None:
    command = [sys.executable, "-c", CODE, str(made)]
    runs = [
        subprocess.Popen(command, env=os.environ | {"PYTHONHASHSEED": seed}, stdout=subprocess.PIPE) for seed in "12"
    ]
    said = {run.communicate()[0] for run in runs}
    assert len(said) == 1
    assert len(said.pop().strip()) == 64


def test_features_are_the_same_whatever_the_labels_are(made: Path) -> None:
    icons = load_icons(made)
    others = replace(icons, labels=np.roll(icons.labels, 1))
    honest, blind = prepare(icons, 5), prepare(others, 5)
    assert not torch.equal(honest.y, blind.y)
    for name in ("image", "words", "edge_index", "train_mask", "val_mask", "test_mask"):
        assert torch.equal(honest[name], blind[name])


def test_the_vocabulary_is_fitted_on_training_nodes_only(made: Path) -> None:
    icons = load_icons(made)
    graph = prepare(icons, 5)
    texts = [words_of(without(icons.tags[n], frozenset(["kind"]))) for n in np.flatnonzero(graph.train_mask.numpy())]
    assert graph.words.shape[1] == len(fit_vocabulary(texts, 2).words)
    assert sum(int(graph[mask].sum()) for mask in MASKS.values()) == len(icons)


def test_owners_are_few_with_many_icons_and_many_with_few() -> None:
    counts = np.unique(owners(4947), return_counts=True)[1]
    assert owners(10) == owners(10)
    assert counts.max() > 300
    assert np.median(counts) < 6


def test_of_equal_sources_the_first_is_kept_and_another_has_no_role_and_no_edge(tmp_path: Path, made: Path) -> None:
    listed = json.loads((made / "node_modules" / LIST / "icons.json").read_text())
    listed["icon-119"]["tags"] = listed["icon-003"]["tags"]
    icons = load_icons(made_up(tmp_path / "icons", listed))
    with start_run(tmp_path / "run", key=tmp_path / "key.pem") as run:
        graph = prepare(icons, 5, run)
    assert not any(graph[mask][119] for mask in MASKS.values())
    assert sum(int(graph[mask].sum()) for mask in MASKS.values()) == 119
    assert not (graph.edge_index == 119).any()
    assert torch.equal(prepare(icons, 5).edge_index, graph.edge_index)
    found = data_figures(icons, graph, run.path)
    assert (found["dropped"], found["equal_sources_left"], found["dropped_in_log"]) == (1, 0, True)
    graph.test_mask[119] = True
    found = data_figures(icons, graph, run.path)
    assert (found["dropped"], found["equal_sources_left"], found["dropped_in_log"]) == (0, 1, False)


def test_a_look_at_test_nodes_and_at_categories_is_measured(
    tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def figures(name: str) -> dict[str, Any]:
        with start_run(tmp_path / name, key=tmp_path / "key.pem") as run:
            graph = prepare(icons, 5, run)
        return data_figures(icons, graph, run.path)

    listed = json.loads((made / "node_modules" / LIST / "icons.json").read_text())
    for icon in listed.values():
        icon["tags"].append(icon["category"])
    icons = load_icons(made_up(tmp_path / "icons", listed))
    honest = figures("honest")
    assert honest["fitted_on_train"]
    assert honest["fitted_on_train_in_log"]
    assert honest["category_words_left"] == []
    mapped, stage = preparing.mapped, preparing.FITTED
    monkeypatch.setattr(
        preparing, "mapped", lambda run, name, nodes, *rest: mapped(
            run, name, GraphNodes(nodes.data) if name == stage else nodes, *rest
        )
    )  # fmt: skip
    monkeypatch.setattr(preparing, "forms_of", lambda _: frozenset())
    leaky = figures("leaky")
    assert not leaky["fitted_on_train"]
    assert not leaky["fitted_on_train_in_log"]
    assert leaky["category_words_left"] == ["kinda", "kindb", "kindc"]


def ring(nodes: int, degree: int) -> Data:
    """Each node hears from the `degree` before it."""
    targets = np.repeat(np.arange(nodes), degree)
    sources = (targets - np.tile(np.arange(1, degree + 1), nodes)) % nodes
    return Data(edge_index=torch.from_numpy(np.stack([sources, targets])), num_nodes=nodes)


@pytest.mark.parametrize("fan_out", [(), (2,), (3, 2, 1), (9, 9, 9)])
def test_the_sampler_draws_edges_of_the_graph_and_every_node_once(fan_out: tuple[int, ...]) -> None:
    graph = ring(50, 4)
    edges = set(map(tuple, graph.edge_index.T.tolist()))
    sampler = FewNeighbours(graph, fan_out, seed=3)
    for batch in NodeLoader(graph, sampler, input_nodes=torch.arange(20), batch_size=7, shuffle=True):
        nodes, hops = batch.n_id.tolist(), batch.num_sampled_nodes
        assert len(nodes) == len(set(nodes)) == sum(hops)
        assert len(hops) == len(fan_out) + 1
        assert torch.equal(batch.n_id[: hops[0]], torch.as_tensor(batch.input_id))
        drawn = [(nodes[s], nodes[t]) for s, t in batch.edge_index.T.tolist()]
        assert len(drawn) == len(set(drawn)) == sum(batch.num_sampled_edges)
        assert set(drawn) <= edges
        for hop, most in enumerate(fan_out):
            targets = nodes[sum(hops[:hop]) : sum(hops[: hop + 1])]
            for target in targets:
                assert sum(t == target for _, t in drawn) == min(most, 4)


def test_a_node_stands_at_the_hop_that_reached_it_first() -> None:
    graph = ring(9, 1)
    (batch,) = NodeLoader(graph, FewNeighbours(graph, (1, 1, 1), 0), input_nodes=torch.tensor([5, 4]), batch_size=2)
    assert batch.n_id.tolist() == [5, 4, 3, 2, 1]
    assert batch.num_sampled_nodes == [2, 1, 1, 1]


def test_the_same_seed_draws_the_same_and_all_neighbours_are_drawn_in_time() -> None:
    def drawn(seed: int) -> list[list[int]]:
        graph = ring(40, 6)
        loader = NodeLoader(graph, FewNeighbours(graph, (2,), seed), input_nodes=torch.arange(10), batch_size=5)
        return [batch.n_id.tolist() for _ in range(20) for batch in loader]

    assert drawn(1) == drawn(1) != drawn(2)
    assert {node for batch in drawn(1) for node in batch} == {*range(10), *range(34, 40)}


def test_modality_weights_sum_to_1_and_no_modality_is_hidden_in_eval_mode(made: Path) -> None:
    graph = prepare(load_icons(made), 5)
    network = IconNetwork(graph.words.shape[1], 3).eval()
    with torch.no_grad():
        weights = network.modality_weights(graph)
        assert torch.equal(weights, network.modality_weights(graph))
        assert weights.shape == (120, 2)
        assert torch.allclose(weights.sum(1), torch.ones(120))
        assert (weights > 0.01).all()
        hidden = network.train().modality_weights(graph) < 0.01
    assert 0 < hidden.any(1).float().mean() < 0.5


def test_only_neighbours_make_a_node_depend_on_others(made: Path) -> None:
    graph = prepare(load_icons(made), 5)
    network = IconNetwork(graph.words.shape[1], 3).eval()
    source, target = graph.edge_index[:, 0].tolist()
    other = graph.clone()
    other.words[source] = 0
    with torch.no_grad():
        assert not torch.equal(network(graph)[target], network(other)[target])
        assert torch.equal(network(without_edges(graph))[target], network(without_edges(other))[target])


def test_training_stops_where_validation_falls_no_more_and_keeps_the_best(made: Path) -> None:
    graph = prepare(load_icons(made), 5)
    losses: list[float] = []
    trained = train(graph, seed=1, epochs=60, after_epoch=lambda _m, _o, loss: losses.append(loss))
    assert trained.epochs == len(losses) < 60
    best = losses[0]
    for loss in losses:
        best = loss if loss <= best - 0.01 * best else best
    assert trained.validation_loss == best
    assert losses[trained.best_step * trained.epochs // trained.steps - 1] == best


def test_the_witness_counts_each_seed_once_an_epoch(made: Path) -> None:
    graph, witness = prepare(load_icons(made), 5), Witness()
    with received(IconNetwork, witness):
        train(graph, seed=1, epochs=3)
    counts = counts_of(witness.updates, len(graph.y))
    assert counts[:, 0].tolist() == (3 * graph.train_mask).tolist()
    assert counts[:, 1:].sum() > 0


def test_hops_are_counted_along_the_edges_whatever_the_sampler_says() -> None:
    edges = np.array([[2, 3, 4, 0], [0, 2, 3, 1]])  # 4 -> 3 -> 2 -> 0 -> 1; seeds are 0 and 1
    update = around(np.array([50, 40, 30, 20, 10]), 2, edges)
    assert [rows.tolist() for rows in update.groups] == [[40, 50], [30], [20], [10]]
    with pytest.raises(ValueError, match="1 nodes of a batch reach no seed"):
        around(np.array([50, 40, 30, 20, 10, 60]), 2, edges)
