"""Scores from cached factors: against gradients multiplied out, however rows and targets are cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import caches
from caches import DENSE, FACTORED, PROJECTED, RATES
from fgtrac.score import curvature, kernel, methods
from fgtrac.score.curvature import bytes_of
from fgtrac.score.gradients import Gradients, Layer
from fgtrac.score.methods import Method, curvatures, mean_target, parse_method, prepare, prepare_role, self_influence
from fgtrac.score.topk import TopK

LAYERS = [(FACTORED,), (DENSE,), (PROJECTED,), (FACTORED, DENSE, PROJECTED)]


def inverse(method: Method, whole: np.ndarray, rate: float) -> np.ndarray:
    """The matrix between two gradients, by its definition."""
    p = whole.shape[1]
    if method.name == "fisher":
        matrix = whole.T @ whole / len(whole)
        return np.linalg.inv(matrix + method.damped_by * np.trace(matrix) / p * np.eye(p))
    return rate * np.eye(p)


def expected(held: dict, targets: list[list[Gradients]], method: Method) -> np.ndarray:
    """(states, n, m) in float64, layer by layer from whole gradients."""
    out = []
    for k, of_state in enumerate(targets):
        train, total = held[k, "train"], 0.0
        lengths = [np.sqrt(sum((g.whole().astype(float) ** 2).sum(1) for g in side)) for side in (train, of_state)]
        for rows, target in zip(train, of_state, strict=True):
            left, right = rows.whole().astype(float), target.whole().astype(float)
            total = total + left @ inverse(method, left, RATES[k]) @ right.T
        if method.name == "tracin-cos":
            total = total / lengths[0][:, None] / lengths[1][None, :]
        out.append(total)
    return np.array(out)


@pytest.mark.parametrize("layers", LAYERS, ids=lambda layers: "+".join(layer.form for layer in layers))
@pytest.mark.parametrize("method", [Method(), Method("tracin-cos"), Method("fisher"), Method("fisher", 0.7)], ids=str)
@pytest.mark.parametrize("m", [3, 40])
def test_scores_are_the_inner_products_of_whole_gradients(
    tmp_path: Path, layers: tuple[Layer, ...], method: Method, m: int
) -> None:
    cache, held = caches.write_cache(tmp_path, layers)
    targets = [[g.rows(slice(0, m)) for g in held[k, "validation"]] for k in range(3)]
    ready = [prepare(cache, k, t, method) for k, t in enumerate(targets)]
    exact = expected(held, targets, method)
    largest = np.abs(exact.sum(0)).max()
    assert np.abs(kernel.scores(cache, ready, 0, 500) - exact.sum(0)).max() <= 2e-6 * largest
    rows = np.array([499, 3, 200, 199])
    assert np.abs(kernel.traces(cache, ready, rows) - exact[:, rows]).max() <= 2e-6 * largest


@pytest.mark.parametrize("m", [1, 3, 40, 1030])
def test_the_best_rows_are_those_of_the_whole_matrix(tmp_path: Path, m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, _held = caches.write_cache(tmp_path, n=600)
    ready = [prepare(cache, k, [caches.random_gradients(FACTORED, m, 90 + k)], Method()) for k in range(3)]
    whole = kernel.scores(cache, ready, 0, 600)
    monkeypatch.setattr(kernel, "BLOCK_NUMBERS", 64 * m)  # many blocks
    seen = []
    found = kernel.rank(cache, ready, 10, progress=lambda done, total: seen.append((done, total)))
    order = np.argsort(-whole, axis=0, kind="stable")
    assert np.array_equal(found.proponents, order[:10].T)
    assert np.array_equal(found.opponents, np.argsort(whole, axis=0, kind="stable")[:10].T)
    assert np.allclose(found.proponent_scores, np.take_along_axis(whole, order[:10], 0).T)
    assert seen[-1] == (600 * m, 600 * m)
    assert seen == sorted(seen)


def test_equal_scores_stand_in_the_order_of_rows_however_they_are_cut() -> None:
    generator = np.random.default_rng(5)
    scores = generator.integers(0, 4, (300, 7)).astype(np.float32)
    for cuts in ([300], [1] * 300, [7, 93, 200]):
        for largest in (True, False):
            top, start = TopK(7, 20, largest=largest), 0
            for size in cuts:
                top.add(start, scores[start : start + size])
                start += size
            rows, values = top.result()
            order = np.argsort(-scores if largest else scores, axis=0, kind="stable")[:20]
            assert np.array_equal(rows, order.T)
            assert np.array_equal(values, np.take_along_axis(scores, order, 0).T)


def test_fewer_rows_than_asked_for_are_all_of_them(tmp_path: Path) -> None:
    cache, held = caches.write_cache(tmp_path, n=10)
    ready = [prepare(cache, k, held[k, "validation"], Method()) for k in range(3)]
    assert kernel.rank(cache, ready, 50).proponents.shape == (2, 10)
    with pytest.raises(ValueError, match="at least 1"):
        kernel.rank(cache, ready, 0)


@pytest.mark.parametrize("shard", [64, 500])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_how_rows_are_cut_into_shards_and_rounded_hardly_matters(tmp_path: Path, shard: int, dtype: str) -> None:
    cache, held = caches.write_cache(tmp_path, (FACTORED, DENSE), dtype=dtype, shard=shard)
    targets = [held[k, "validation"] for k in range(3)]
    ready = [prepare(cache, k, t, Method()) for k, t in enumerate(targets)]
    exact = expected(held, targets, Method()).sum(0)
    error = np.abs(kernel.scores(cache, ready, 0, 500) - exact).max() / np.abs(exact).max()
    assert error <= {"float32": 1e-6, "float16": 5e-4, "bfloat16": 4e-3}[dtype]


@pytest.mark.parametrize("layers", LAYERS, ids=lambda layers: "+".join(layer.form for layer in layers))
@pytest.mark.parametrize("method", [Method(), Method("fisher"), Method("ekfac")], ids=str)
def test_self_influence_is_the_diagonal(tmp_path: Path, layers: tuple[Layer, ...], method: Method) -> None:
    cache, held = caches.write_cache(tmp_path, layers)
    ready = [prepare(cache, k, held[k, "train"], method) for k in range(3)]
    diagonal = np.diagonal(kernel.scores(cache, ready, 0, 500))
    assert np.allclose(self_influence(cache, method), diagonal, rtol=1e-4)


def test_ekfac_is_the_exact_inverse_where_the_fisher_matrix_is_a_kronecker_product(tmp_path: Path) -> None:
    layer = Layer("output", "factored", 6, 3, False)
    cache, held = caches.write_cache(tmp_path, (layer,), n=20_000, shard=20_000)
    targets = [g.rows(slice(0, 30)) for g in held[0, "validation"]]
    found = [
        kernel.Prepared(prepare(cache, 0, targets, m).layers) for m in (Method("ekfac", 1e-3), Method("fisher", 1e-3))
    ]
    a, b = (np.zeros((2000, 30), dtype=np.float32) for _ in found)
    kernel.add_scores(cache.read(0, "train", 0, 2000), found[0], a)
    kernel.add_scores(cache.read(0, "train", 0, 2000), found[1], b)
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.999  # inputs and deltas were drawn independently


@pytest.mark.parametrize("layers", LAYERS, ids=lambda layers: "+".join(layer.form for layer in layers))
def test_many_targets_in_an_eigenbasis_score_as_few_that_are_turned_back(
    tmp_path: Path, layers: tuple[Layer, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curvature, "SMALL", 0)
    cache, held = caches.write_cache(tmp_path, layers)
    whole = [prepare(cache, k, held[k, "validation"], Method("ekfac")) for k in range(3)]
    assert [layer.basis is not None for layer in whole[0].layers] == [layer.form == "factored" for layer in layers]
    for start in range(0, 100, 5):
        some = slice(start, start + 5)
        few = [prepare(cache, k, [g.rows(some) for g in held[k, "validation"]], Method("ekfac")) for k in range(3)]
        assert all(layer.basis is None for layer in few[0].layers)
        expected, found = (
            kernel.scores(cache, ready, 0, 500) for ready in (few, [p.cut(start, start + 5) for p in whole])
        )
        assert np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("numbers", [1, 300, 1 << 20])
def test_how_much_is_between_at_once_changes_no_score(
    tmp_path: Path, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = Layer("output", "factored", 50, 4, True)
    cache, held = caches.write_cache(tmp_path, (layer,))
    monkeypatch.setattr(kernel, "BLOCK_NUMBERS", numbers)
    monkeypatch.setattr(curvature, "SMALL", 0)
    for method, m in ((Method("fisher"), 30), (Method("ekfac"), 30)):
        ready = [prepare(cache, k, [held[k, "validation"][0].rows(slice(0, m))], method) for k in range(3)]
        assert not ready[0].layers[0].is_multiplied_out
        whole = [p.layers[0] for p in ready]
        exact = sum(held[k, "train"][0].whole().astype(float) @ dense(whole[k]).T for k in range(3))
        assert np.abs(kernel.scores(cache, ready, 0, 500) - exact).max() <= 2e-6 * np.abs(exact).max()


def dense(target: kernel.PreparedLayer) -> np.ndarray:
    """(m, layer.size) float64: targets turned back from their basis, if they have one."""
    if target.basis is None:
        assert target.dense is not None
        return target.dense.astype(float)
    assert target.inputs is not None
    assert target.deltas is not None
    matrices = target.deltas[:, :, None] * target.basis.weights.astype(float) * target.inputs[:, None, :]
    return (target.basis.rows @ matrices @ target.basis.columns.T).reshape(len(target), -1)


def test_curvatures_are_kept_as_far_as_their_room_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, held = caches.write_cache(tmp_path)
    first = curvatures(cache, 0, Method("fisher"))
    size = sum(map(bytes_of, first))
    assert size == 8 * FACTORED.size**2
    assert curvatures(cache, 0, Method("fisher")) is first
    monkeypatch.setattr(methods, "KEPT_BYTES", 2 * size)
    before = [prepare(cache, k, held[k, "validation"], Method("fisher")) for k in range(3)]
    assert list(cache.kept) == [(Method("fisher"), 0), (Method("fisher"), 1)]
    again = [prepare(cache, k, held[k, "validation"], Method("fisher")) for k in range(3)]
    assert np.array_equal(kernel.scores(cache, before, 0, 500), kernel.scores(cache, again, 0, 500))
    for k in range(3):
        curvatures(cache, k, Method("fisher", 0.5))
    assert list(cache.kept) == [(Method("fisher", 0.5), 0), (Method("fisher", 0.5), 1)]


def test_the_score_toward_a_mean_is_the_mean_of_the_scores(tmp_path: Path) -> None:
    for layers in LAYERS:
        cache, held = caches.write_cache(tmp_path / layers[0].name / str(len(layers)), layers)
        for method in (Method(), Method("fisher"), Method("ekfac")):
            each = kernel.scores(cache, [prepare(cache, k, held[k, "validation"], method) for k in range(3)], 0, 500)
            together = kernel.scores(cache, prepare_role(cache, "validation", method), 0, 500)
            assert np.allclose(together[:, 0], each.mean(axis=1), atol=2e-6 * np.abs(each).max())
    with pytest.raises(ValueError, match="no samples"):
        mean_target([])


def test_a_method_is_what_its_words_say_and_others_are_refused() -> None:
    for method in (Method(), Method("tracin-cos"), Method("fisher"), Method("fisher", 0.25, ggn=True), Method("ekfac")):
        assert parse_method(str(method)).damped_by == method.damped_by
        assert str(parse_method(str(method))) == str(method)
    for words in ("", "fisher", "tracin 0.1", "fisher -1", "fisher nan", "fisher 0.10", "ekfac ggn 0.1", "trak"):
        with pytest.raises(ValueError, match=r"method|damping|float|ggn"):
            parse_method(words)
    with pytest.raises(ValueError, match="same"):
        self_influence(None, Method("tracin-cos"))  # type: ignore[arg-type]
