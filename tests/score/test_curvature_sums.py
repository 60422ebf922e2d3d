"""A curvature of sums over ranges of rows is that of all rows, and comes out of its file as it went in."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from caches import DENSE, FACTORED, PROJECTED, write_cache
from fgtrac.score.cache import Cache
from fgtrac.score.curvature import Curvature, Scaled
from fgtrac.score.curvature_files import curvature_path, encode_curvatures, read_curvatures
from fgtrac.score.curvature_sums import add_ranges, encode_bases, find_bases, from_sums, passes, read_bases, sum_range
from fgtrac.score.gradients import Layer
from fgtrac.score.methods import Method, compute_curvatures, curvatures
from fgtrac.store import durable

WIDE = Layer("wide", "factored", 100, 50, True)  # its Fisher matrix is not inverted as it is
ROWS = 230


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return write_cache(tmp_path_factory.mktemp("cache"), (FACTORED, DENSE, PROJECTED, WIDE), n=ROWS)[0]


def by_ranges(cache: Cache, method: Method, size: int, folder: Path) -> tuple[Curvature, ...]:
    ranges, bases = [(start, min(ROWS, start + size)) for start in range(0, ROWS, size)], None
    for number in range(passes(method)):
        sums = add_ranges((sum_range(cache, 1, method, *ends, bases) for ends in ranges), len(cache.layers))
        if number + 1 < passes(method):
            durable.write_file(folder / "bases", encode_bases(find_bases(sums, ROWS)))
            bases = read_bases(folder / "bases")
    return from_sums(cache.layers, method, sums, ROWS, bases)


def arrays(found: tuple[Curvature, ...]) -> list[tuple[str, np.ndarray]]:
    return [(type(one).__name__, np.asarray(getattr(one, f.name))) for one in found for f in fields(one)]  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [Method("fisher"), Method("ekfac"), Method("fisher", 0.5)], ids=str)
def test_ranges_give_what_all_rows_give_and_one_range_the_same_bits(
    cache: Cache, method: Method, tmp_path: Path
) -> None:
    whole = arrays(compute_curvatures(cache, 1, method))
    for size, exactly in ((ROWS, True), (64, False)):
        found = arrays(by_ranges(cache, method, size, tmp_path))
        assert [kind for kind, _ in found] == [kind for kind, _ in whole]
        for (kind, one), (_, other) in zip(whole, found, strict=True):
            if exactly:
                assert np.array_equal(one, other)
            elif kind != "Eigen":  # whose vectors may turn
                np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10 * np.abs(one).max())


@pytest.mark.parametrize("method", [Method("fisher"), Method("ekfac")], ids=str)
def test_a_file_of_curvatures_is_read_in_place_of_computing_them(
    cache: Cache, method: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = compute_curvatures(cache, 2, method)
    durable.write_file(curvature_path(tmp_path, 2), encode_curvatures(made))
    read = read_curvatures(tmp_path, 2)
    for (kind, one), (again, other) in zip(arrays(made), arrays(read), strict=True):
        assert (kind, one.dtype) == (again, other.dtype)
        assert np.array_equal(one, other)
    monkeypatch.setitem(cache.curvatures, method, tmp_path)
    monkeypatch.setattr(cache, "kept", {})
    monkeypatch.setattr("fgtrac.score.methods.compute_curvatures", None)
    assert len(curvatures(cache, 2, method)) == len(made)
    with pytest.raises(TypeError, match="Scaled is not kept in files"):
        encode_curvatures([Scaled(0.1)])
