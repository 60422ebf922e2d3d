"""Tables and contents by the workers of a Ray cluster: the files and digests of one process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fgtrac
from fgtrac.capture import content_units
from fgtrac.capture.content_units import digests_by
from fgtrac.capture.contents import source_digests
from fgtrac.engine.opening import open_engine
from fgtrac.errors import EngineError
from fgtrac.query import view_ranges
from fgtrac.query.view_cache import views_folder
from traces import make_trace


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_ranges, "RANGE_BYTES", 1)
    monkeypatch.setattr(content_units, "PART_BYTES", 64)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_trace(tmp_path_factory.mktemp("trace"), uses=600, seals=(300,)).trace.path


def built(trace: Path, cache: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files of the tables that are made in a new cache."""
    monkeypatch.setenv("FGTRAC_CACHE", str(cache))
    opened = fgtrac.open(trace)
    len(opened.views(engine=engine).view("uses"))
    (folder,) = views_folder(opened.id).iterdir()
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_tables_are_those_of_one_process(
    cluster: Any, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = built(trace, tmp_path / "ray", cluster.client, monkeypatch)
    assert found == built(trace, tmp_path / "alone", "local:1", monkeypatch)
    assert len([name for name in found if name.startswith("uses-")]) >= 3


def test_a_cache_that_the_nodes_do_not_see_is_refused_and_the_build_goes_on_elsewhere(
    cluster: Any, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cluster.unseen / "cache"
    with pytest.raises(EngineError, match="does not see"):
        built(trace, cache, cluster.client, monkeypatch)
    assert built(trace, cache, "local:1", monkeypatch)
    shutil.rmtree(cache)


def test_contents_are_digested_as_in_one_process(cluster: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.arange(60, dtype="<f4").reshape(20, 3))
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    with open_engine(cluster.client) as engine:
        said, digests = digests_by(engine, rows, len(rows), None)
    wanted = source_digests(rows, len(rows), None)
    assert said == wanted[0]
    assert np.array_equal(digests, wanted[1])
