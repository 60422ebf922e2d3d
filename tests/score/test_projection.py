"""The matrices of a projection: the same on every machine, and right on average."""

from __future__ import annotations

import hashlib

import numpy as np

from fgtrac.score.gradients import Layer
from fgtrac.score.projection import matrices, projected_form


def test_they_follow_from_the_seed_the_name_and_the_sizes():
    layer = projected_form("head", 100, 60, True, seed=7)
    assert layer == Layer("head", "projected", 100, 60, True, 32, 32, 7)
    p_out, p_in = matrices(layer)
    assert (p_out.shape, p_in.shape, p_out.dtype) == ((32, 60), (32, 101), np.float32)
    digest = hashlib.sha256(p_out.astype("<f4").tobytes() + p_in.astype("<f4").tobytes()).hexdigest()
    assert digest == "1ee1d772ef510f3f9d76e3391c6438630a4130309a7dba364823f9dcc2549c84"
    for other in (projected_form("head", 100, 60, True, 8), projected_form("tail", 100, 60, True, 7)):
        assert (matrices(other)[0] != p_out).any()


def test_a_side_of_which_every_direction_is_kept_is_left_as_it_is():
    p_out, p_in = matrices(projected_form("head", 300, 10, True, 0))
    assert (p_out == np.eye(10)).all()
    assert p_in.shape == (32, 301)


def test_inner_products_are_right_on_average():
    one, other = np.random.default_rng(0).normal(size=(2, 50, 40)).astype(np.float32)
    products = []
    for seed in range(400):
        p_out, p_in = matrices(projected_form("head", 40, 50, False, seed))
        products.append(float(((p_out @ one @ p_in.T) * (p_out @ other @ p_in.T)).sum()))
    spread = np.std(products) / np.sqrt(len(products))
    assert abs(np.mean(products) - float((one * other).sum())) < 4 * spread
    assert np.std(products) < 0.5 * np.linalg.norm(one) * np.linalg.norm(other)
